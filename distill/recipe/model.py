"""A model of a recipe: where it comes from, with which weights, and what it sees."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from distill.recipe.values import check
from distill.view import View


@dataclass(frozen=True)
class Model:
    """A model by its source; nothing is loaded until the run is built.

    source: "package.module:factory", "torchvision:NAME", "timm:NAME", or "hub:OWNER/REPO:ENTRY" (a local folder also).
    weights: a run's folder, a file, or a name that the source knows; none for fresh ones.
    arguments: keyword arguments of the factory.
    view: resolution and normalisation of what the model sees; none for those of its weights, or of the data.
    trust: run the code of a hub repository.
    """

    source: str
    weights: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    view: View | None = None
    trust: bool = False

    def __post_init__(self) -> None:
        check(self)
        kind, _, name = self.source.partition(":")
        if not kind or not name:
            ways = "'package.module:factory', 'torchvision:NAME', 'timm:NAME' or 'hub:OWNER/REPO:ENTRY'"
            raise ValueError(f"source {self.source!r} names no model. Write {ways}.")
        if self.weights == "":
            raise ValueError("weights is empty. Give a folder, a file or a name, or None for fresh weights.")
        if self.trust and kind != "hub":
            raise ValueError(f"trust has no effect on source {self.source!r}, only on 'hub:...'. Leave it out.")
        for argument in self.arguments:
            if not argument.isidentifier():
                raise ValueError(f"arguments are named as in Python, got {argument!r}.")
