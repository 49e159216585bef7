"""From a recipe to what one student is trained from: data, models that fit them, and the student at its start."""

from distill.prepare.batches import batch_of as batch_of
from distill.prepare.batches import cost_batch as cost_batch
from distill.prepare.batches import load_splits as load_splits
from distill.prepare.batches import sample_batch as sample_batch
from distill.prepare.batches import spread_batches as spread_batches
from distill.prepare.cached import open_cache as open_cache
from distill.prepare.models import load as load
from distill.prepare.parts import Parts as Parts
from distill.prepare.parts import prepare as prepare
