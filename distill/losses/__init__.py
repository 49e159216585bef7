"""The losses, one file a paper: each takes (student, teacher, batch) and gives one number for each example."""

from distill.losses.hints.attention_transfer import AttentionTransfer as AttentionTransfer
from distill.losses.hints.hint import Hint as Hint
from distill.losses.kinds import Coupled as Coupled
from distill.losses.kinds import Loss as Loss
from distill.losses.kinds import Scope as Scope
from distill.losses.kinds import Task as Task
from distill.losses.logits.kd import KD as KD
from distill.losses.relations.layers.fsp import FSP as FSP
from distill.losses.relations.samples.rkd import RKDAngle as RKDAngle
from distill.losses.relations.samples.rkd import RKDDistance as RKDDistance
from distill.losses.relations.samples.similarity import SimilarityPreserving as SimilarityPreserving
from distill.losses.task import CrossEntropy as CrossEntropy
