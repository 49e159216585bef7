"""Contract rows of the losses against labels and between logits."""

from torch.nn import functional as F

from distill.losses import KD, CrossEntropy
from tests.losses.contract import CLASSES, Inputs, Row, Value, logits


# CrossEntropy is smallest where softmax(z) is the target: far out for a hard label, and at log(target) else, with the
# target's entropy as its value. Smoothing 0.2 over 5 classes gives 0.84 and four times 0.04:
# −0.84 ln 0.84 − 0.16 ln 0.04 = 0.661477.
def certain(inputs: Inputs) -> Value:
    return 100 * F.one_hot(inputs.labels, CLASSES).double()


def smoothed(inputs: Inputs) -> Value:
    return (0.8 * F.one_hot(inputs.labels, CLASSES) + 0.2 / CLASSES).double().log()


ROWS = (
    Row(CrossEntropy(), logits, {"label_smoothing": (-0.1, 1.0, float("nan"))}, certain),
    Row(CrossEntropy(label_smoothing=0.2), logits, {"label_smoothing": (2.0,)}, smoothed, 0.661477),
    Row(KD(), logits, {"temperature": (0.0, -1.0, float("nan"), float("inf"))}),
    Row(KD(temperature=2.0, standardize=True), logits, {"temperature": (0.0,)}),
)
