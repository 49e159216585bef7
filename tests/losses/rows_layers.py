"""Contract rows of the losses between relations of layers."""

from distill.losses import FSP
from tests.losses.contract import Row, layers

ROWS = (Row(FSP(), layers, {}),)
