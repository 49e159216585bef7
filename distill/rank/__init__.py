"""Which source to learn from, before any training."""

from distill.rank.candidate import Candidate as Candidate
from distill.rank.candidate import candidate as candidate
from distill.rank.candidate import see as see
from distill.rank.command import rank as rank
from distill.rank.command import score as score
from distill.rank.ranking import Ranking as Ranking
from distill.rank.ranking import ranked as ranked
from distill.rank.scores import SCORES as SCORES
from distill.rank.scores import Scored as Scored
from distill.rank.scores import knn as knn
from distill.rank.scores import scored as scored
