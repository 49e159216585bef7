"""The public names, settings and defaults of the losses, which other programs call them by."""

import inspect
import re
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path

import pytest

import distill
import distill.losses
from distill.losses import Coupled
from tests.losses.rows import ROWS

NEEDED = "no default"
# How a test of a value that was derived by hand is named: by the case that it works out.
HAND_VALUE = (
    r"def test_(value|hard_label|distance_of_three|the_larger_map_of_a_pair|shares_of|one_column|embeddings_of_one)"
)
TABLE: dict[str, dict[str, object]] = {
    "CrossEntropy": {"label_smoothing": 0.0},
    "BinaryCrossEntropy": {"positive_weight": None},
    "Asymmetric": {"focus_negative": 4.0, "focus_positive": 0.0, "margin": 0.05},
    "MaskedLanguageModel": {},
    "KD": {"temperature": 4.0, "standardize": False},
    "ReverseKD": {"temperature": 1.0},
    "LogitMSE": {"temperature": 1.0},
    "DKD": {"temperature": 4.0, "target_weight": 1.0, "nontarget_weight": 8.0},
    "NKD": {"temperature": 1.0, "weight": 1.5},
    "DIST": {"temperature": 1.0, "inter_weight": 1.0, "intra_weight": 1.0},
    "MultiLabelKD": {"temperature": 1.0},
    "OFA": {"gamma": 1.0},
    "Hint": {},
    "CosineHint": {},
    "AttentionTransfer": {"power": 2},
    "NST": {},
    "ChannelKD": {"temperature": 1.0},
    "PearsonHint": {},
    "FactorTransfer": {},
    "Overhaul": {"margin": None},
    "ReviewHCL": {"levels": (4, 2, 1)},
    "VID": {},
    "RKDDistance": {},
    "RKDAngle": {},
    "SimilarityPreserving": {},
    "CorrelationCongruence": {"gamma": 0.4, "order": 2},
    "PKT": {},
    "CRD": {"temperature": 0.07},
    "FSP": {},
    "InterChannel": {},
    "SingularVectors": {"rank": 1},
    "LayerCKA": {},
    "AttentionRelation": {"relations": ("qq", "kk", "vv"), "heads": 12},
    "AttentionScores": {},
    "HiddenState": {},
    "TokenCosine": {},
    "PatientKD": {},
    "LabelEmbedding": {},
}
every_loss = pytest.mark.parametrize("name", TABLE)


def settings_of(kind: type) -> dict[str, object]:
    """Settings and defaults in their order; the scope, which every coupled loss has last, apart."""
    assert is_dataclass(kind)
    found = {field.name: NEEDED if field.default is MISSING else field.default for field in fields(kind)}
    if issubclass(kind, Coupled):
        assert list(found)[-1] == "scope"
        assert found.pop("scope") == "global"
    return found


def test_the_table_is_what_is_exported() -> None:
    exported = {name for name, item in vars(distill.losses).items() if isinstance(item, type) and is_dataclass(item)}
    assert exported == set(TABLE)


@every_loss
def test_settings_and_defaults_are_those_of_the_table(name: str) -> None:
    kind = vars(distill.losses)[name]
    found = settings_of(kind)
    assert found == TABLE[name]
    assert list(found) == list(TABLE[name])
    assert vars(distill)[name] is kind
    assert kind() == kind(**TABLE[name])


@every_loss
def test_a_loss_has_a_contract_row_and_a_test_of_its_own_with_a_hand_value(name: str) -> None:
    assert any(type(row.loss).__name__ == name for row in ROWS)
    module = inspect.getmodule(vars(distill.losses)[name])
    assert module is not None
    text = (Path(__file__).parent / f"test_{module.__name__.rpartition('.')[2]}.py").read_text()
    assert name in text
    assert re.search(HAND_VALUE, text), "a small case whose value is worked out by hand"
