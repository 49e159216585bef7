"""A model's answers to the validation and the test examples, kept in a run's folder until its report is made."""

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from distill import metrics
from distill.data import Cases
from distill.data.cases import independent
from distill.evaluate import Predictions

FILE = "answers.safetensors"
SPECIFICITY = 0.9
"""Of the thresholds that are chosen on the validation examples."""


@dataclass(frozen=True)
class Answers:
    """What one model says about the validation and the test examples."""

    validation: Predictions
    test: Predictions


def save_answers(folder: Path, answers: Answers) -> None:
    """Write the logits whole or not at all; the labels are the data's."""
    draft, place = folder / f".{FILE}.draft", folder / FILE
    save_file({"validation": answers.validation.logits, "test": answers.test.logits}, draft)
    draft.replace(place)


def read_answers(folder: Path, validation: Tensor, test: Tensor) -> Answers:
    """What `save_answers` wrote, with these labels of the validation and the test examples.

    Raises:
        ValueError: the file is missing, damaged, or of other examples; names it.
    """
    path = folder / FILE
    way_out = "Start anew with --overwrite, or change --name."
    try:
        logits = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} can't be read, and the report needs it. {way_out}") from error
    labels = {"validation": validation, "test": test}
    for split, of_split in labels.items():
        if split not in logits or len(logits[split]) != len(of_split):
            raise ValueError(f"{path} is of other {split} examples than the data's {len(of_split)}. {way_out}")
    return Answers(Predictions(logits["validation"], validation), Predictions(logits["test"], test))


def compare(student: Answers, teacher: Answers) -> tuple[float, float]:
    """Agreement and divergence of the student with the teacher on the test examples.

    With several labels two models agree on a label where both are above, or both below, the threshold that each was
    given on the validation examples.
    """
    pair = student.test.logits, teacher.test.logits
    if not student.test.several:
        return metrics.agreement(*pair), metrics.divergence(*pair)
    return metrics.label_agreement(*pair, thresholds(student), thresholds(teacher)), metrics.label_divergence(*pair)


def thresholds(answers: Answers) -> Tensor:
    """The logit of each label from which on it counts as found, (K,), chosen on the validation examples."""
    return metrics.thresholds(answers.validation.logits, answers.validation.labels, specificity=SPECIFICITY)


def at_chance(predictions: Predictions, cases: Cases | None) -> bool:
    """Whether a model's answers can't be told from chance."""
    logits, labels = predictions.logits, predictions.labels
    if not predictions.several:
        return not metrics.above_chance(metrics.accuracy(logits, labels), labels)
    whose = independent(len(labels)) if cases is None else cases
    return not metrics.labels_above_chance(logits, labels, whose.patient)
