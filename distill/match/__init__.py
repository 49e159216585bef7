"""Which layer of the student should learn from which layer of the teacher."""

from distill.match.candidates import Candidate as Candidate
from distill.match.candidates import candidates as candidates
from distill.match.joining import Joining as Joining
from distill.match.joining import join as join
from distill.match.match import Match as Match
from distill.match.match import Pair as Pair
from distill.match.match import match as match
from distill.match.pairing import pairs_of as pairs_of
from distill.match.similarities import Similarities as Similarities
from distill.match.similarities import similarities as similarities
from distill.match.similarities import similarities_here as similarities_here
from distill.matching import RULES as RULES
from distill.matching import Rule as Rule
