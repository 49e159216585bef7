"""Contract rows of the losses between features of one layer."""

from distill.losses import AttentionTransfer, Hint
from tests.losses.contract import Row, equal_maps, maps

ROWS = (
    Row(Hint(), equal_maps, {}),
    Row(AttentionTransfer(), maps, {"power": (0.5, float("inf"), float("nan"))}),
)
