"""Mapping heads: learned maps of a student's features to the teacher's shape, thrown away after training."""

from distill.heads.kinds import Head as Head
from distill.heads.kinds import Joint as Joint
from distill.heads.kinds import Meeting as Meeting
from distill.heads.kinds import Remembers as Remembers
from distill.heads.maps import Conv1x1 as Conv1x1
from distill.heads.maps import Regressor as Regressor
from distill.heads.vectors import MLP as MLP
from distill.heads.vectors import Linear as Linear
