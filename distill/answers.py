"""A model's answers to the validation and the test examples, kept in a run's folder beside its student."""

from collections.abc import Mapping
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
TEACHER = "teacher"
"""The folder of the teacher's, in that of a run."""
SPECIFICITY = 0.9
"""Of the thresholds that are chosen on the validation examples."""


@dataclass(frozen=True)
class Answers:
    """What one model says about the validation and the test examples."""

    validation: Predictions
    test: Predictions


def save_answers(folder: Path, answers: Answers) -> None:
    """Write logits and labels whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    draft, place = folder / f".{FILE}.draft", folder / FILE
    splits = {"validation": answers.validation, "test": answers.test}
    logits = {name: of_split.logits for name, of_split in splits.items()}
    labels = {f"{name}_labels": of_split.labels for name, of_split in splits.items()}
    # Two splits may share their labels, which safetensors refuses to write twice.
    save_file({name: tensor.contiguous().clone() for name, tensor in {**logits, **labels}.items()}, draft)
    draft.replace(place)


def read_answers(folder: Path, validation: Tensor, test: Tensor) -> Answers:
    """What `save_answers` wrote, with these labels of the validation and the test examples.

    Raises:
        ValueError: the file is missing, damaged, or of other examples; names it.
    """
    path = folder / FILE
    way_out = "Start anew with --overwrite, or change --name."
    tensors = _tensors(path, f"and the report needs it. {way_out}")
    labels = {"validation": validation, "test": test}
    for split, of_split in labels.items():
        if split not in tensors or len(tensors[split]) != len(of_split):
            raise ValueError(f"{path} is of other {split} examples than the data's {len(of_split)}. {way_out}")
    return Answers(Predictions(tensors["validation"], validation), Predictions(tensors["test"], test))


def kept_answers(folder: Path) -> Answers:
    """What `save_answers` wrote, without the data.

    Raises:
        ValueError: the file is missing or damaged; names it.
    """
    path = folder / FILE
    way_out = "and without it models can't be compared. Train the run again."
    tensors = _tensors(path, way_out)
    damaged = f"{path} is damaged, {way_out}"
    validation, test = (_predictions(tensors, split, damaged) for split in ("validation", "test"))
    if validation.logits.shape[1] != test.logits.shape[1]:
        raise ValueError(damaged)
    return Answers(validation, test)


def _tensors(path: Path, way_out: str) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} can't be read, {way_out}") from error


def _predictions(tensors: Mapping[str, Tensor], split: str, message: str) -> Predictions:
    logits, labels = tensors.get(split), tensors.get(f"{split}_labels")
    fits = logits is not None and labels is not None and logits.ndim == 2 and len(logits) == len(labels) > 0
    if not fits:
        raise ValueError(message)
    assert logits is not None and labels is not None
    return Predictions(logits, labels)


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
