"""Parameter transfer: a student that starts from its teacher's weights."""

from distill.initialize.average_layers import AverageLayers as AverageLayers
from distill.initialize.batch_norm import reestimate_batchnorm as reestimate_batchnorm
from distill.initialize.copy_weights import CopyWeights as CopyWeights
from distill.initialize.coverage import Coverage as Coverage
from distill.initialize.coverage import TensorCoverage as TensorCoverage
from distill.initialize.depths import depths as depths
from distill.initialize.grow import Grow as Grow
from distill.initialize.kinds import Initializer as Initializer
from distill.initialize.kinds import ReadsExamples as ReadsExamples
from distill.initialize.select_weights import SelectWeights as SelectWeights
from distill.initialize.skip_layers import SkipLayers as SkipLayers
