"""A run's student as it is used: from an image file or a text to logits, prepared as it was judged."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional

from distill.answers import kept_answers, thresholds
from distill.batch import Batch
from distill.data import ChestXray, TextSplits
from distill.data.augment import CenterCrop, Resize
from distill.data.images import decode, decode_grey
from distill.data.photos import Photos
from distill.data.text_example import TextExample
from distill.data.texts import collate_texts
from distill.finished import Finished
from distill.models import load_model
from distill.models.weights import read_config
from distill.onnx_file import Logits, positional
from distill.prepare import load_splits
from distill.taps import Inputs, taken
from distill.tokenize import Tokenizer, load_tokenizer
from distill.view import View


@dataclass(frozen=True)
class Picture:
    """How an image file becomes a crop (C, H, W) of [0, 1], as the run's test images did.

    resize: the shorter side in pixels before the middle is cropped; None where the whole image is stretched.
    """

    channels: int
    height: int
    width: int
    resize: int | None


class Seeing(nn.Module):
    """A student with what it sees before it: crops (B, C, H, W) in [0, 1] to logits (B, K)."""

    def __init__(self, model: nn.Module, view: View | None) -> None:
        super().__init__()
        self.view = nn.Identity() if view is None else view.module()
        self.model = Logits(model)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        found: Tensor = self.model(self.view(images))
        return found


@dataclass(frozen=True)
class Served:
    """A student that is ready, in evaluation and on the CPU.

    config: as it was saved beside it. picture: None of a model of texts. tokenizer: None of a model of images.
    limits: of each label the probability from which on it counts as found; None where an example has one class.
    """

    run: Finished
    folder: Path
    model: nn.Module
    config: dict[str, Any]
    picture: Picture | None
    tokenizer: Tokenizer | None
    limits: tuple[float, ...] | None

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names, in the order of the logits."""
        return tuple(map(str, self.config["classes"]))

    @property
    def view(self) -> View | None:
        """What the student sees of a crop."""
        return None if self.config["view"] is None else _view(self.config["view"])

    def bare(self) -> nn.Module:
        """The module that is exported: crops in [0, 1], or tokens by position, to logits."""
        if self.picture is not None:
            return Seeing(self.model, self.view).eval()
        return Logits(self.model, positional(self.texts(["a", "b"]))[0]).eval()

    def images(self, paths: Sequence[Path]) -> Tensor:
        """Files as crops (B, C, H, W), float32 in [0, 1].

        Raises:
            UnreadableImageError: no image, a damaged one, or one that is too large; names it.
        """
        assert self.picture is not None
        return torch.stack([read_crop(path, self.picture) for path in paths]).float() / 255

    def texts(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Texts as what the model takes, padded to the longest of them."""
        assert self.tokenizer is not None
        encoded = self.tokenizer.encode(list(texts), self.config["max_length"])
        examples = [TextExample({"": encoded.text(place)}, torch.tensor(0), place) for place in range(len(texts))]
        batch = collate_texts(examples, kinds={"": (encoded.inputs, encoded.padding)}, length=None)
        found = taken(self.model, batch.inputs)
        assert not isinstance(found, Tensor)
        return {name: value for name, value in found.items() if isinstance(value, Tensor)}

    def logits(self, inputs: Inputs) -> Tensor:
        """Logits (B, K) of crops or of tokens."""
        with torch.inference_mode():
            found: Tensor = self.bare()(*positional(inputs)[1])
        return found

    def examples(self, count: int) -> tuple[Inputs, Batch]:
        """The first validation examples as `logits` takes them, and their batch.

        Raises:
            ValueError: the data can't be had.
        """
        splits = load_splits(self.run.recipe, self.run.recipe.seed, self.run.root)
        examples = splits.validation
        chosen = range(min(count, len(examples)))
        if isinstance(splits, TextSplits):
            batch = splits.collate([examples[(0, place)] for place in chosen])
            return self.texts([splits.validation.texts[place] for place in chosen]), batch
        batch = splits.collate([examples[(0, place)] for place in chosen])
        assert isinstance(batch.inputs, Tensor)
        crops = batch.inputs.float() / 255 if batch.inputs.dtype == torch.uint8 else batch.inputs
        return crops, batch


def serve(run: Finished, arm: str | None = None, seed: int | None = None) -> Served:
    """A student of a run, by default that of the run itself under its first seed.

    Raises:
        ValueError: there is none, it guesses hidden words, or its files are damaged.
    """
    folder = run.student(arm, seed)
    config = read_config(folder)
    if not config["classes"]:
        raise ValueError(f"{run.folder} guesses hidden words and has no classes, so there is nothing to answer with.")
    loaded = load_model(
        str(config["source"]),
        num_classes=int(config["num_classes"]),
        in_channels=config["in_channels"],
        vocab_size=config.get("vocab_size"),
        weights=str(folder),
        arguments=config["arguments"],
    )
    of_texts = config.get("max_length") is not None
    limits = None
    if config.get("several"):
        answers = kept_answers(run.place(arm or run.arm, run.recipe.seed if seed is None else seed))
        limits = tuple(thresholds(answers).double().sigmoid().tolist())
    return Served(
        run=run,
        folder=folder,
        model=loaded.model.eval(),
        config=config,
        picture=None if of_texts else picture_of(run, config),
        tokenizer=load_tokenizer(str(folder)) if of_texts else None,
        limits=limits,
    )


def picture_of(run: Finished, config: dict[str, Any]) -> Picture:
    """How the run's data prepare a test image; where the settings do not tell, an example does."""
    data, channels = run.recipe.data, int(config["in_channels"])
    if isinstance(data, Photos):
        resize = round(data.size / 0.875) if data.resize is None else data.resize
        return Picture(channels, data.size, data.size, resize)
    if isinstance(data, ChestXray):
        return Picture(channels, data.size, data.size, None)
    splits = load_splits(run.recipe, run.recipe.seed, run.root)
    assert not isinstance(splits, TextSplits)
    _, height, width = splits.test[(0, 0)].image.shape
    if channels not in (1, 3) or (channels == 1 and height != width):
        raise ValueError(
            f"{run.folder} is of images of {channels} channels and {height}x{width} pixels, which no file is read as. "
            "Square grey images and RGB ones are."
        )
    return Picture(channels, height, width, None)


def read_crop(path: Path, picture: Picture) -> Tensor:
    """An image file as its crop, uint8 (C, H, W).

    Raises:
        UnreadableImageError: no image, a damaged one, or one that is too large; names it.
    """
    if picture.channels == 1:
        return torch.from_numpy(decode_grey(path, picture.height))[None]
    pixels = torch.from_numpy(decode(path)).permute(2, 0, 1)
    if picture.resize is not None:
        return CenterCrop(picture.height)(Resize(picture.resize)(pixels))
    if pixels.shape[1:] == (picture.height, picture.width):
        return pixels
    stretched: Tensor = functional.resize(pixels, [picture.height, picture.width], antialias=True)
    return stretched


def probabilities(logits: Tensor, *, several: bool) -> Tensor:
    """Of each class, or of each label by itself."""
    return logits.double().sigmoid() if several else logits.double().softmax(1)


def _view(values: dict[str, Any]) -> View:
    return View(values["size"], tuple(values["mean"]), tuple(values["std"]))
