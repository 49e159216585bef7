"""Real handwritten digits that come with scikit-learn: no download, seconds to train on."""

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits

from distill.data.arrays import Arrays
from distill.data.augment import Crop
from distill.data.examples import Splits
from distill.data.mix import Mix
from distill.data.split import check_share
from distill.view import View

DIGITS_VIEW = View(mean=(0.3053,), std=(0.3759,))


@dataclass(frozen=True)
class Digits:
    """The test half of the UCI optical digits (Alpaydin and Kaynak 1998): 1,797 grey images of 8x8.

    validation, test: shares of all images, cut out class by class, drawn by `split_seed` and never by the run's seed:
    1,079 to train on, 359 and 359.
    augment: training images are moved by up to one pixel. Off, since digits fill their 8x8 pixels and small networks,
        trained for minutes, were better on validation without it.
    """

    validation: float = 0.2
    test: float = 0.2
    augment: bool = False
    split_seed: int = 0

    def __post_init__(self) -> None:
        check_share("Digits.validation", self.validation)
        check_share("Digits.test", self.test)
        check_share("Digits.validation + test", self.validation + self.test)

    def load(self, seed: int, mix: Mix | None) -> Splits:
        """The splits; images are uint8 (1, 8, 8), their sixteen steps of grey spread over 0..255."""
        digits = load_digits()
        return Arrays(
            images=torch.from_numpy(np.round(digits.images * (255 / 16)).astype(np.uint8)).unsqueeze(1),
            labels=torch.from_numpy(digits.target),
            classes=[str(name) for name in digits.target_names],
            validation=self.validation,
            test=self.test,
            augment=(Crop(padding=1),) if self.augment else (),
            view=DIGITS_VIEW,
            split_seed=self.split_seed,
        ).load(seed, mix)
