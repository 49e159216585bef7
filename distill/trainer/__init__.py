"""The training step, the loop around it, and the average of the student."""

from distill.trainer.average import Average as Average
from distill.trainer.finite import NotFinite as NotFinite
from distill.trainer.gradients import Shared as Shared
from distill.trainer.gradients import shared_layer as shared_layer
from distill.trainer.groups import Group as Group
from distill.trainer.groups import parameter_groups as parameter_groups
from distill.trainer.start import Start as Start
from distill.trainer.trainer import Trainer as Trainer
