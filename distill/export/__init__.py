"""The student alone, to take away."""

from distill.export.card import card as card
from distill.export.command import export as export
from distill.export.formats import BOUNDS as BOUNDS
from distill.export.formats import check as check
from distill.export.formats import write as write
