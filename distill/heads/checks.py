"""Refusals that heads share: what was wrong, both shapes, and the way out."""

import torch


def check_vectors(head: str, student: torch.Size, teacher: torch.Size) -> None:
    """Refuse what is not embeddings or tokens of one form. `head` names the head: "Linear"."""
    if len(student) not in (2, 3) or len(student) != len(teacher):
        way_out = "Use head=Conv1x1()." if len(student) == len(teacher) == 4 else "Tap tensors of one form."
        raise ValueError(f"{head} maps (B, D) or (B, T, D) over D, {got(student, teacher)}. {way_out}")


def check_maps(head: str, student: torch.Size, teacher: torch.Size) -> None:
    """Refuse what is not a pair of maps. `head` names the head: "Conv1x1"."""
    if len(student) != 4 or len(teacher) != 4:
        way_out = "Use head=Linear()." if len(student) == len(teacher) else "Tap tensors of one form."
        raise ValueError(f"{head} maps (B, C, H, W) over C, {got(student, teacher)}. {way_out}")


def got(student: torch.Size, teacher: torch.Size) -> str:
    """Both shapes, for an error message."""
    return f"got student {tuple(student)} and teacher {tuple(teacher)}"
