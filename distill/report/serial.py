"""Reports as JSON, with what follows from them for other programs, and back."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter, ValidationError

from distill.report.report import Report
from distill.report.summary import summarise

_WAY_OUT = "Take the report.json of a run."
_METRICS = ("test", "validation")


def to_json(report: Report) -> str:
    """The report as JSON text, keys sorted; a number that is not finite is null.

    Beside the report's own values it has "summary", all that `summarise` derives from them. The answers to single
    test examples are left out; what they come to is under "flips".
    """
    values = asdict(report)
    for outcome in values["outcomes"]:
        del outcome["correct"]
    controls = ((arm, report.flips_against(arm)) for arm in report.arms if arm != "transferred")
    values["flips"] = {arm: asdict(flips) for arm, flips in controls if flips is not None}
    values["summary"] = asdict(summarise(report))
    return json.dumps(finite(values), indent=2, sort_keys=True, allow_nan=False) + "\n"


def from_json(text: str) -> Report:
    """The report that `to_json` wrote, without single answers; what is derived is computed anew, not read.

    Raises:
        ValueError: the text is no JSON, or no report; names the value by its dotted path.
    """
    try:
        values = json.loads(text)
        if isinstance(values, dict):
            values = _with_nan(values)
        return TypeAdapter(Report).validate_python(values)
    except json.JSONDecodeError as error:
        raise ValueError(f"Not JSON of a report: {error}. {_WAY_OUT}") from None
    except RecursionError:
        raise ValueError(f"Not JSON of a report: it is nested too deeply. {_WAY_OUT}") from None
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(map(str, first["loc"])) or "the whole"
        raise ValueError(f"Not JSON of a report: {path}: {first['msg'].rstrip('.')}. {_WAY_OUT}") from None


def finite(value: Any) -> Any:
    """Plain values with None for each number that is not finite, as JSON has none of those."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def _with_nan(values: dict[str, Any]) -> dict[str, Any]:
    """The same with NaN for each metric that is null."""
    found = {key: _with_nan_below(item) if key in ("teacher", "outcomes") else item for key, item in values.items()}
    # Of what is said label by label everything is a number; a gain that is not known is left as it is.
    return {**found, "by_label": _with_nan_by_label(values.get("by_label"))}


def _with_nan_by_label(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: math.nan if item is None and key != "gain" else _with_nan_by_label(item) for key, item in value.items()
        }
    if isinstance(value, list):
        return [math.nan if item is None else _with_nan_by_label(item) for item in value]
    return value


def _with_nan_below(value: Any, *, metrics: bool = False) -> Any:
    if value is None and metrics:
        return math.nan
    if isinstance(value, list):
        return [_with_nan_below(item) for item in value]
    if isinstance(value, dict):
        return {key: _with_nan_below(item, metrics=metrics or key in _METRICS) for key, item in value.items()}
    return value
