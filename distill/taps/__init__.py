"""Reading a model's inner tensors."""

from distill.taps.attention import attend_eagerly as attend_eagerly
from distill.taps.attention import attention_scores as attention_scores
from distill.taps.outputs import TapError as TapError
from distill.taps.tapped import Inputs as Inputs
from distill.taps.tapped import Tapped as Tapped
from distill.taps.tapped import accepted_names as accepted_names
from distill.taps.tapped import call as call
from distill.taps.tapped import taken as taken
from distill.taps.tapped import tappable as tappable
