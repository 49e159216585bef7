"""What a recipe says of the cache."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TeacherCache:
    """The teacher's answers, kept on disk under $DISTILL_CACHE: later epochs, seeds and runs read them.

    Augmentation stays: each example has so many views, drawn by the seed (crop, flip, mixture), which come in turn over
    the epochs, and the student sees exactly what the teacher saw (as in fast knowledge distillation; Shen and Xing,
    2022, arXiv:2112.01528). Few views are less augmentation than a new one in each epoch.

    views: different augmentations of each example; 1 where nothing is drawn.
    form: the number format on disk; float16 keeps 11 bits and values up to 65,504, bfloat16 8 bits and any.
    top: of the logits, so many of the largest with their classes, and the mass of the others, spread evenly; none keeps
        all.
    """

    views: int = 1
    form: Literal["float16", "bfloat16", "float32"] = "float16"
    top: int | None = None

    def __post_init__(self) -> None:
        if self.views < 1:
            raise ValueError(f"teacher_cache.views must be at least 1, got {self.views}.")
        if self.top is not None and self.top < 1:
            raise ValueError(f"teacher_cache.top must be at least 1, got {self.top}. For all logits leave it out.")
