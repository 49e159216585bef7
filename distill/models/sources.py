"""Where a model comes from, and with which weights: `load_model`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from distill.models import from_hub, from_import, from_onnx, from_timm, from_torchvision, from_transformers, from_xrv
from distill.models.loaded import Loaded, classifier_name
from distill.models.places import place_of
from distill.models.transformers_config import Answers
from distill.models.weights import (
    MODEL_FILE,
    SUFFIXES,
    fit_tensors,
    named_for,
    read_config,
    read_tensors,
    student_folder,
)
from distill.view import View

_BUILT_BY_NAME = {"torchvision": from_torchvision.build, "timm": from_timm.build, "xrv": from_xrv.build}
_NAMED_WEIGHTS = {"torchvision": from_torchvision.pretrained, "timm": from_timm.pretrained}
_PROBE_CLASSES = 2


@dataclass(frozen=True)
class _Source:
    """A source as the user named it, ready to be built for any number of classes."""

    text: str
    in_channels: int | None
    vocab_size: int | None
    arguments: Mapping[str, Any]
    trust: bool
    answers: Answers = "classes"

    @property
    def kind(self) -> str:
        return self.text.partition(":")[0]

    @property
    def name(self) -> str:
        return self.text.partition(":")[2]

    @property
    def asks_for_classes(self) -> bool:
        """Whether the number of classes is still open when the model is built."""
        if self.kind == "hub" or "num_classes" in self.arguments or self.answers == "tokens":
            return False
        if self.kind == "transformers":
            return "num_labels" not in self.arguments
        return self.kind in _NAMED_WEIGHTS or from_import.takes(self.text, "num_classes")

    def build(self, num_classes: int | None) -> nn.Module:
        if self.kind == "hub":
            return from_hub.build(self.name, arguments=self.arguments, trust=self.trust)
        if self.kind == "onnx":
            return from_onnx.build(self.name, arguments=self.arguments)
        if self.kind == "transformers":
            return from_transformers.build(
                self.name,
                num_classes=num_classes,
                vocab_size=self.vocab_size,
                arguments=self.arguments,
                answers=self.answers,
            )
        if self.kind in _BUILT_BY_NAME:
            make = _BUILT_BY_NAME[self.kind]
            return make(self.name, num_classes=num_classes, in_channels=self.channels, arguments=self.arguments)
        return from_import.build(
            self.text,
            num_classes=num_classes,
            in_channels=self.in_channels,
            vocab_size=self.vocab_size,
            arguments=self.arguments,
        )

    @property
    def channels(self) -> int:
        """Of the images, for a model that needs to know."""
        if self.in_channels is None:
            raise ValueError(
                f"{self.text} is a model of images, and the data are texts. Take a model of texts, such as "
                "'transformers:bert' or 'distill.models.text:bilstm'."
            )
        return self.in_channels

    @property
    def view(self) -> View | None:
        """What the model sees where no weights say it."""
        if self.kind == "xrv":
            return from_xrv.VIEW
        if self.kind != "torchvision":
            return None
        return from_torchvision.view(in_channels=self.in_channels, arguments=self.arguments)


def load_model(
    source: str,
    *,
    num_classes: int | None,
    in_channels: int | None = 3,
    vocab_size: int | None = None,
    weights: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    trust: bool = False,
    answers: Answers = "classes",
    labels: Sequence[str] | None = None,
) -> Loaded:
    """A model from its source, with its weights, the names of its classes and its view.

    source: "package.module:factory" (such as "distill.models.cifar:resnet20"), "torchvision:NAME", "timm:NAME",
        "transformers:NAME" (a type of model, a folder, or a name of the hub), "xrv:NAME" (torchxrayvision's, of grey
        radiographs), "hub:FOLDER:ENTRY", "hub:OWNER/REPO:ENTRY" or "onnx:FILE", which can't be trained.
    num_classes: what the data have; None keeps the weights' own number.
    in_channels: of the data's images; None where the data are texts.
    vocab_size: of the tokenizer of the data's texts, for a model with fresh weights; its arguments say more.
    weights: a run's folder, its student's folder, a .safetensors, .pt or .pth file; a name of torchvision's weights
        ("DEFAULT", "IMAGENET1K_V1"); "pretrained" for timm and transformers; None for fresh
        ones.
    arguments: of the factory, above what is said here. torchvision's networks take in_channels=1, for grey images.
    trust: run the code of a hub source.
    answers: what a model of transformers is made for, "classes" of a text or each of its "tokens"; a run's folder says
        it itself.
    labels: names of the data's classes or labels; a weight file of "xrv:NAME" answers just these, others keep theirs.

    Raises:
        ValueError: the source, the weights or an argument is not there or does not fit; by name, with the way out.
    """
    arguments = dict(arguments or {})
    made = _Source(source, in_channels, vocab_size, arguments, trust, answers)
    if not made.kind or not made.name:
        raise ValueError(
            f"{source!r} names no model. Write 'package.module:factory', 'torchvision:NAME', 'timm:NAME', "
            "'transformers:NAME', 'xrv:NAME', 'hub:OWNER/REPO:ENTRY' or 'onnx:FILE'."
        )
    if weights is None:
        return Loaded(made.build(num_classes), None, made.view, "")
    if made.kind == "onnx":
        raise ValueError(f"weights has no effect on {source}, whose file holds them. Leave it out.")
    path = place_of(weights)
    folder = student_folder(path)
    if folder is not None:
        return _from_run(made, folder, weights, num_classes)
    if path.is_file() and made.kind == "xrv":
        return from_xrv.load(
            made.name,
            path,
            weights=weights,
            num_classes=num_classes,
            labels=labels,
            in_channels=made.channels,
            arguments=arguments,
        )
    if path.is_file():
        return _from_file(made, path, weights, num_classes)
    named = not path.is_dir() and path.suffix not in SUFFIXES and len(path.parts) == 1
    if named and made.kind == "transformers":
        return from_transformers.pretrained(
            made.name, weights, num_classes=num_classes, arguments=arguments, answers=answers
        )
    if named and made.kind in _NAMED_WEIGHTS:
        pretrained = _NAMED_WEIGHTS[made.kind]
        return pretrained(made.name, weights, num_classes=num_classes, in_channels=made.channels, arguments=arguments)
    if made.kind == "xrv" and (named or path.suffix in SUFFIXES):
        raise ValueError(from_xrv.missing(made.name, weights))
    raise ValueError(_missing(path, weights))


def _from_run(made: _Source, folder: Path, weights: str, num_classes: int | None) -> Loaded:
    config = read_config(folder)
    arguments = json.loads(json.dumps(dict(made.arguments)))
    if (config["source"], config["arguments"]) != (made.text, arguments):
        raise ValueError(
            f"{weights} holds {config['source']} with arguments {config['arguments']}, not {made.text} with "
            f"arguments {arguments}. Name the model as it was trained."
        )
    guesses = config["num_classes"] == 0
    if num_classes is not None and guesses and made.kind == "transformers":
        model = from_transformers.rebuild(folder, source=made.text, num_classes=num_classes)
        note, fresh = from_transformers.take_encoder(
            model, read_tensors(folder / MODEL_FILE), source=made.text, weights=weights
        )
        return Loaded(model, None, None, note, fresh)
    if num_classes not in (None, config["num_classes"]):
        raise ValueError(
            f"{weights} was trained for {config['num_classes']} classes, not for {num_classes}. Train another on "
            "these classes, or start from it as the teacher, with initialize=CopyWeights()."
        )
    view = _view(config, folder)
    channels = config["in_channels"]
    if made.in_channels != channels and not (made.in_channels == 1 and view is not None and len(view.mean) == channels):
        raise ValueError(
            f"{weights} was trained on {_seen(channels)}, and these are {_seen(made.in_channels)}. Train another on "
            "these."
        )
    if made.kind == "transformers":
        model = from_transformers.rebuild(folder, source=made.text, answers="tokens" if guesses else "classes")
    else:
        vocabulary = config.get("vocab_size", made.vocab_size)
        model = _Source(made.text, channels, vocabulary, made.arguments, made.trust).build(config["num_classes"])
    tensors = read_tensors(folder / MODEL_FILE)
    fit_tensors(model, tensors, source=made.text, weights=weights)
    return Loaded(model, tuple(config["classes"]) or None, view, _note(made, tensors, weights))


def _from_file(made: _Source, path: Path, weights: str, num_classes: int | None) -> Loaded:
    tensors = read_tensors(path)
    if num_classes is None and made.asks_for_classes:
        num_classes = _count_classes(made, tensors, weights)
    model = made.build(num_classes)
    fit_tensors(model, tensors, source=made.text, weights=weights)
    return Loaded(model, None, made.view, _note(made, tensors, weights))


def _count_classes(made: _Source, tensors: Mapping[str, Tensor], weights: str) -> int:
    """The rows of the classifier in a weight file."""
    probe = made.build(_PROBE_CLASSES)
    name = f"{classifier_name(probe, _PROBE_CLASSES)}.weight"
    named = named_for(probe, tensors)
    if name not in named:
        raise ValueError(
            f"{weights} does not show for how many classes it was trained: it has no classifier of {made.text}. "
            "Give arguments={'num_classes': ...}."
        )
    return len(named[name])


def _view(config: Mapping[str, Any], folder: Path) -> View | None:
    view = config["view"]
    try:
        return (
            None
            if view is None
            else View(view["size"], tuple(map(float, view["mean"])), tuple(map(float, view["std"])))
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"The view of {folder / 'config.json'} is damaged: {view!r}. Train the run again.") from error


def _seen(channels: int | None) -> str:
    return "texts" if channels is None else f"images of {channels} channels"


def _note(made: _Source, tensors: Mapping[str, Tensor], weights: str) -> str:
    return f"{made.text} has all of its tensors from {weights} ({len(tensors)})."


def _missing(path: Path, weights: str) -> str:
    if path.suffix in SUFFIXES:
        return f"There is no weight file {weights}. Check the path."
    what = f"{weights} holds no trained student" if path.is_dir() else f"There is no run folder {weights}"
    return f"{what}. Train it first: distill train FILE, with the recipe named '{path.name}'."
