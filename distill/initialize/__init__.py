"""Parameter transfer: a student that starts from its teacher's weights."""

from distill.initialize.copy_weights import CopyWeights as CopyWeights
from distill.initialize.coverage import Coverage as Coverage
from distill.initialize.coverage import TensorCoverage as TensorCoverage
from distill.initialize.kinds import Initializer as Initializer
from distill.initialize.select_weights import SelectWeights as SelectWeights
