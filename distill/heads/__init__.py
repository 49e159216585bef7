"""Mapping heads: learned maps of a student's features to the teacher's shape, thrown away after training."""

from distill.heads.classifier import StageClassifier as StageClassifier
from distill.heads.contrast import Contrast as Contrast
from distill.heads.factor import Factors as Factors
from distill.heads.factor import Paraphraser as Paraphraser
from distill.heads.grid import Grid as Grid
from distill.heads.kinds import Head as Head
from distill.heads.kinds import Joint as Joint
from distill.heads.kinds import Meeting as Meeting
from distill.heads.kinds import ReadsMask as ReadsMask
from distill.heads.kinds import ReadsTeacher as ReadsTeacher
from distill.heads.kinds import Remembers as Remembers
from distill.heads.maps import Conv1x1 as Conv1x1
from distill.heads.maps import Regressor as Regressor
from distill.heads.overhaul import Connector as Connector
from distill.heads.overhaul import batch_norm_margin as batch_norm_margin
from distill.heads.projector import Projector as Projector
from distill.heads.review import ReviewFusion as ReviewFusion
from distill.heads.vectors import MLP as MLP
from distill.heads.vectors import Linear as Linear
from distill.heads.vid import VIDRegressor as VIDRegressor
