"""A recipe: a run as plain data. Python to write it, JSON to keep it, a command line to change it."""

from distill.recipe.files import read_recipe as read_recipe
from distill.recipe.model import Model as Model
from distill.recipe.optimizers import SGD as SGD
from distill.recipe.optimizers import AdamW as AdamW
from distill.recipe.optimizers import Optimizer as Optimizer
from distill.recipe.overrides import apply_overrides as apply_overrides
from distill.recipe.recipe import Recipe as Recipe
from distill.recipe.schedules import Constant as Constant
from distill.recipe.schedules import Cosine as Cosine
from distill.recipe.schedules import LinearDecay as LinearDecay
from distill.recipe.schedules import Schedule as Schedule
from distill.recipe.schedules import Steps as Steps
from distill.recipe.serial import from_json as from_json
from distill.recipe.serial import to_json as to_json
from distill.recipe.settings import Setting as Setting
from distill.recipe.settings import override_names as override_names
from distill.recipe.speed import Speed as Speed
from distill.recipe.stage import Stage as Stage
