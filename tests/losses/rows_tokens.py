"""Contract rows of the losses between relations of tokens."""

from tests.losses.contract import Row

ROWS: tuple[Row, ...] = ()
