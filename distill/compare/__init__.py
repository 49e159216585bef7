"""Did the transfer help: a run's models side by side, on the same test examples."""

from distill.compare.analyse import analyse as analyse
from distill.compare.analyse import answers_of as answers_of
from distill.compare.comparison import Ablated as Ablated
from distill.compare.comparison import Against as Against
from distill.compare.comparison import Answer as Answer
from distill.compare.comparison import Cka as Cka
from distill.compare.comparison import ClassGain as ClassGain
from distill.compare.comparison import Comparison as Comparison
from distill.compare.comparison import Differing as Differing
from distill.compare.comparison import Judged as Judged
from distill.compare.comparison import Likeness as Likeness
from distill.compare.comparison import from_json as from_json
from distill.compare.comparison import to_json as to_json
from distill.compare.kept import FILE as FILE
from distill.compare.kept import compared as compared
from distill.compare.paired import mcnemar as mcnemar
from distill.compare.paired import over_examples_and_seeds as over_examples_and_seeds
from distill.compare.several import check_same_examples as check_same_examples
from distill.compare.several import side_by_side as side_by_side
from distill.compare.show import ablation_table as ablation_table
from distill.compare.show import show as show
from distill.compare.similar import layers as layers
