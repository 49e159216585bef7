"""Refusals that the measures of several labels share: what was wrong, the value, and the way out."""

import torch
from torch import Tensor


def check_labelled(logits: Tensor, labels: Tensor) -> None:
    """Refuses what is not logits (N, K) or (N,) of at least one example with labels 1, 0 or NaN of the same shape."""
    if logits.ndim not in (1, 2) or labels.shape != logits.shape:
        shapes = f"{tuple(logits.shape)} and {tuple(labels.shape)}"
        raise ValueError(f"Several labels are judged by logits (N, K) and labels (N, K), got {shapes}.")
    if not (logits.is_floating_point() and labels.is_floating_point()):
        kinds = f"{logits.dtype} and {labels.dtype}"
        raise ValueError(f"Logits and several labels are floats, got {kinds}. Give each label as 1.0, 0.0 or NaN.")
    if logits.numel() == 0:
        raise ValueError("There are no examples to judge. Give a split that is not empty, with at least one label.")
    odd = labels[~(labels.isnan() | (labels == 0) | (labels == 1))]
    if len(odd) > 0:
        raise ValueError(
            f"Labels are 1, 0 or NaN where unknown, got {odd[0].item():g}. Judge by labels, not by shares."
        )


def check_table(logits: Tensor, labels: Tensor) -> None:
    """As `check_labelled`, of (N, K) alone."""
    if logits.ndim != 2:
        shapes = f"{tuple(logits.shape)} and {tuple(labels.shape)}"
        raise ValueError(f"Several labels are judged by logits (N, K) and labels (N, K), got {shapes}.")
    check_labelled(logits, labels)


def check_finite(name: str, logits: Tensor) -> None:
    """Refuses logits that have no order. `name` is "The student's logits"."""
    if not bool(logits.isfinite().all()):
        odd = logits[~logits.isfinite()][0].item()
        raise ValueError(f"{name} must be finite numbers, got {odd:g}. Judge a model whose training did not diverge.")


def check_two(student: Tensor, teacher: Tensor) -> None:
    """Refuses logits of two models that are not (N, K) of the same examples and labels."""
    if student.ndim != 2 or student.shape != teacher.shape:
        shapes = f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)}"
        raise ValueError(f"Two models are compared on logits (N, K) of the same examples and labels, got {shapes}.")
    if student.numel() == 0:
        raise ValueError("There are no examples to compare. Give a split that is not empty, with at least one label.")
    check_finite("The student's logits", student)
    check_finite("The teacher's logits", teacher)


def check_thresholds(thresholds: Tensor, labels: int) -> None:
    """Refuses what is not one threshold for each label."""
    if thresholds.shape != (labels,):
        raise ValueError(f"A threshold belongs to each of {labels} labels, got shape {tuple(thresholds.shape)}.")


def check_patients(patient: Tensor, examples: int) -> None:
    """Refuses what is not one number of a patient for each example."""
    if patient.shape != (examples,) or patient.dtype != torch.int64:
        found = f"{patient.dtype} {tuple(patient.shape)}"
        raise ValueError(f"Patients are one int64 number for each of {examples} examples, got {found}.")


def check_share(name: str, value: float) -> None:
    """Refuses a number that is not a share. `name` is "specificity"."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be a share from 0 to 1, got {value}.")
