"""A model of a recipe: where it comes from, with which weights, and what it sees."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from distill.recipe.values import check
from distill.tokenize import TrainsTokenizer
from distill.view import View


@dataclass(frozen=True)
class Model:
    """A model by its source; nothing is loaded until the run is built.

    source: "package.module:factory", "torchvision:NAME", "timm:NAME", "transformers:NAME", "xrv:NAME" (radiographs,
        torchxrayvision's), "onnx:FILE", or "hub:OWNER/REPO:ENTRY" (a local folder also).
    weights: a run's folder, a file, or a name that the source knows; none for fresh ones.
    arguments: keyword arguments of the factory; those of torchvision take in_channels=1 for grey images.
    view: resolution and normalisation of what the model sees; none for those of its weights, or of the data.
    tokenizer: of a model of texts: a folder or a name to load it from, or settings of one that is trained on the
        training texts; none for the one that its weights bring, or the teacher's.
    trust: run the code of a hub repository.
    """

    source: str
    weights: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    view: View | None = None
    tokenizer: str | TrainsTokenizer | None = None
    trust: bool = False

    def __post_init__(self) -> None:
        check(self)
        kind, _, name = self.source.partition(":")
        if not kind or not name:
            ways = (
                "'package.module:factory', 'torchvision:NAME', 'timm:NAME', 'transformers:NAME', "
                "'xrv:NAME', 'onnx:FILE' or 'hub:OWNER/REPO:ENTRY'"
            )
            raise ValueError(f"source {self.source!r} names no model. Write {ways}.")
        if self.weights == "":
            raise ValueError("weights is empty. Give a folder, a file or a name, or None for fresh weights.")
        if self.weights is not None and self.is_onnx:
            raise ValueError(f"weights has no effect on source {self.source!r}, whose file holds them. Leave it out.")
        if self.trust and kind != "hub":
            raise ValueError(f"trust has no effect on source {self.source!r}, only on 'hub:...'. Leave it out.")
        for argument in self.arguments:
            if not argument.isidentifier():
                raise ValueError(f"arguments are named as in Python, got {argument!r}.")

    @property
    def is_onnx(self) -> bool:
        """Whether the model is an ONNX file, which can teach but not be trained."""
        return self.source.startswith("onnx:")
