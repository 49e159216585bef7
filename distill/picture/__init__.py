"""Pictures as PNG files; matplotlib is needed here only, and imported inside the functions that draw."""

from distill.picture.figure import check_pictures as check_pictures
from distill.picture.labels import draw_labels as draw_labels
from distill.picture.maps import MapRow as MapRow
from distill.picture.maps import draw_maps as draw_maps
from distill.picture.pareto import draw_pareto as draw_pareto
from distill.picture.ranking import draw_ranking as draw_ranking
from distill.picture.reliability import Bin as Bin
from distill.picture.reliability import draw_reliability as draw_reliability
from distill.picture.similarities import draw_similarities as draw_similarities
