"""transformers' models by their configuration: what a config.json says, what is changed of it, and the network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from distill.messages import nearest
from distill.tokenize.places import fetch, find_place, quiet, reason

OWN_KEY = "distill"
"""Where a student's config.json, which is transformers' own, has what `load_model` needs."""

_NOT_SETTINGS = {
    "_name_or_path", "architectures", "auto_map", "dtype", "id2label", "label2id", "model_type", "transformers_version",
}  # fmt: skip
Answers = Literal["classes", "tokens"]


def read_raw(transformers: Any, name: str) -> dict[str, Any]:
    """The config.json of a folder or of a name on the hub, as it stands there.

    Raises:
        ValueError: it can't be had or read, or is of a type of model that transformers does not know.
    """
    place = find_place(name, f"transformers:{name}")
    if Path(place).is_dir() and not (Path(place) / "config.json").is_file():
        raise ValueError(f"{name} has no config.json, so it is no model of transformers. Check the folder.")
    try:
        with quiet():
            raw, _ = fetch(
                place, lambda local: transformers.PretrainedConfig.get_config_dict(place, local_files_only=local)
            )
    except Exception as error:  # missing and damaged files fail in many ways
        types = nearest(name, transformers.CONFIG_MAPPING)
        raise ValueError(
            f"The configuration of transformers:{name} can't be read: {reason(name, error)}. Give a folder, a name of "
            f"the hub, or without weights a type. Nearest: {types}."
        ) from error
    kind = raw.get("model_type")
    if kind not in transformers.CONFIG_MAPPING:
        raise ValueError(
            f"The config.json of transformers:{name} has model_type {kind!r}, which transformers "
            f"{transformers.__version__} does not know; code from a folder is never run. Take another model."
        )
    return {key: value for key, value in raw.items() if key != OWN_KEY}


def configure(
    transformers: Any,
    name: str,
    raw: Mapping[str, Any],
    num_classes: int | None,
    arguments: Mapping[str, Any],
    defaults: Mapping[str, Any],
) -> Any:
    """A configuration out of a config.json, the number of classes, the arguments and those defaults that it has.

    Raises:
        ValueError: an argument that it does not have, or can't have.
    """
    kind = transformers.CONFIG_MAPPING[raw["model_type"]]
    known = {"num_labels", *kind().to_dict(), *kind.attribute_map} - _NOT_SETTINGS
    for argument in arguments:
        if argument not in known:
            raise ValueError(
                f"transformers:{name} has no setting '{argument}'. Nearest: {nearest(argument, sorted(known))}."
            )
    changes = {**{key: value for key, value in defaults.items() if key in known}, **arguments}
    if num_classes is not None:
        changes.setdefault("num_labels", num_classes)
    kept = {key: value for key, value in raw.items() if key != "model_type"}
    for alias, key in kind.attribute_map.items():
        if alias in changes:
            changes[key] = changes.pop(alias)
    if changes.get("num_labels") not in (None, len(raw.get("id2label", ()))):
        kept = {key: value for key, value in kept.items() if key not in ("id2label", "label2id", "num_labels")}
    try:
        return kind(**{**kept, **changes})
    except Exception as error:  # each configuration checks its settings in its own way
        raise ValueError(
            f"transformers:{name} can't have the arguments {dict(arguments)}: {reason(name, error)}."
        ) from error


def kind_of(transformers: Any, answers: Answers) -> Any:
    """The class of transformers that makes models which answer so."""
    return {
        "classes": transformers.AutoModelForSequenceClassification,
        "tokens": transformers.AutoModelForMaskedLM,
    }[answers]


def create(transformers: Any, name: str, config: Any, answers: Answers) -> nn.Module:
    """A network of that configuration with fresh weights, in float32.

    Raises:
        ValueError: its sizes do not go together, or transformers has no such network.
    """
    what = {"classes": "a classifier of texts", "tokens": "a masked language model"}[answers]
    try:
        model = kind_of(transformers, answers).from_config(config, dtype=torch.float32, trust_remote_code=False)
    except Exception as error:  # sizes that do not go together fail where they meet
        raise ValueError(
            f"transformers:{name} can't be made as {what}: {reason(name, error)}. Check its arguments."
        ) from error
    assert isinstance(model, nn.Module)
    return model
