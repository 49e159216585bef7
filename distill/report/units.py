"""Numbers as people read them: three digits and a unit."""

import math


def count(number: int) -> str:
    """78.0 k, 25.6 M; below a thousand as it is."""
    return str(number) if number < 1000 else _scaled(number, 1000, ("", "k", "M", "G", "T"))


def size(number: int) -> str:
    """Bytes: 312 KiB, 1.09 MiB."""
    return f"{number} B" if number < 1024 else _scaled(number, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))


def milliseconds(seconds: float) -> str:
    """The number alone: 0.213, 12.3, 1,234."""
    return _three_digits(seconds * 1000)


def percent(share: float) -> str:
    """The number alone with two decimals: 0.9012 is 90.12; a dash for what is not a number."""
    return f"{share * 100:.2f}" if math.isfinite(share) else "-"


def points(difference: float) -> str:
    """A difference of shares in signed percentage points: 0.04 is +4.00."""
    # Adding 0 takes the sign from a negative zero.
    return f"{round(difference * 100, 2) + 0.0:+.2f}"


def times(ratio: float) -> str:
    """How many times: 9.8, 0.85, 120."""
    return _three_digits(ratio) if ratio < 1 else f"{ratio:,.1f}" if ratio < 99.95 else f"{ratio:,.0f}"


def _scaled(number: float, base: int, units: tuple[str, ...]) -> str:
    value, at = float(number), 0
    # Half below the base already rounds up to it.
    while value >= base - 0.5 and at < len(units) - 1:
        value, at = value / base, at + 1
    return f"{_three_digits(value)} {units[at]}"


def _three_digits(value: float) -> str:
    decimals = 3 if value < 0.9995 else 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:,.{decimals}f}"


def metric(name: str) -> str:
    """A metric's name as people write it."""
    return "AUROC" if name == "auroc" else name
