"""Contract rows of the losses between relations of samples."""

from distill.losses import RKDAngle, RKDDistance, SimilarityPreserving
from tests.losses.contract import NO_SCOPE, Row, embeddings, maps

ROWS = (
    Row(RKDDistance(), embeddings, NO_SCOPE),
    Row(RKDAngle(), embeddings, NO_SCOPE),
    Row(SimilarityPreserving(), maps, NO_SCOPE),
)
