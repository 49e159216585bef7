"""transformers' models that classify texts or guess hidden tokens: fresh, pretrained, and as a run's student."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distill.models.loaded import Loaded
from distill.models.transformers_config import OWN_KEY, Answers, configure, create, kind_of, read_raw
from distill.tokenize.places import fetch, find_place, import_transformers, quiet, reason

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_NAMED = 3

Names = Sequence[str]
_ANSWER: Mapping[Answers, str] = {"classes": "its classifier", "tokens": "what guesses its tokens"}


def build(
    name: str,
    *,
    num_classes: int | None,
    vocab_size: int | None,
    arguments: Mapping[str, Any],
    answers: Answers = "classes",
) -> nn.Module:
    """A network with fresh weights, in float32.

    name: a type of model ("bert", "distilbert"), or a folder or a name of the hub, whose config.json is read.
    vocab_size: of the tokenizer; the arguments say more.
    arguments: fields of its configuration.
    answers: what its logits are of, the classes of a text or each of its tokens.

    Raises:
        ValueError: no such type, folder or name; arguments that its configuration does not have or can't have.
    """
    transformers = import_transformers(f"transformers:{name}")
    raw = {"model_type": name} if name in transformers.CONFIG_MAPPING else read_raw(transformers, name)
    vocabulary = {} if vocab_size is None else {"vocab_size": vocab_size}
    config = configure(transformers, name, raw, num_classes, arguments, vocabulary)
    return create(transformers, name, config, answers)


def pretrained(
    name: str, weights: str, *, num_classes: int | None, arguments: Mapping[str, Any], answers: Answers = "classes"
) -> Loaded:
    """A network with the weights of its folder or its name on the hub, in float32.

    Its classifier is fresh unless the weights have one of as many classes, and what guesses tokens unless they have it;
    the note says it, and what of the weights is left out. Arguments may change the configuration as long as all weights
    of the encoder keep their shapes: fewer layers take the first.

    Raises:
        ValueError: as in `build`; weights that are missing, pickled, damaged, or do not fit the arguments.
    """
    if weights != "pretrained":
        raise ValueError(
            f"transformers:{name} has the weights 'pretrained', got '{weights}'. A run's folder is given by its path."
        )
    transformers = import_transformers(f"transformers:{name}")
    raw = read_raw(transformers, name)
    place = find_place(name, f"transformers:{name}")
    _check_weights(name, place)
    config = configure(transformers, name, raw, num_classes, arguments, {})

    def load(local: bool) -> tuple[Any, Any]:
        loaded: tuple[Any, Any] = kind_of(transformers, answers).from_pretrained(
            place,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=local,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        return loaded

    try:
        with quiet():
            model, info = fetch(place, load)
    except Exception as error:  # missing, damaged and unfitting files fail in many ways
        raise ValueError(
            f"The weights of transformers:{name} can't be loaded: {reason(name, error)}. Check its files: they are "
            "read as safetensors alone."
        ) from error
    shapes = {
        key: f"{key} ({tuple(file)} in the weights, {tuple(own)} here)" for key, file, own in info["mismatched_keys"]
    }
    missing = sorted(info["missing_keys"])
    encoder = f"{model.base_model_prefix}."
    wrong = [text for key, text in sorted(shapes.items()) if key.startswith(encoder)]
    absent = [key for key in missing if key.startswith(encoder) and not _of_pooler(key)]
    problems = [
        f"{kind} {_first(names)}" for kind, names in (("of another shape", wrong), ("missing", absent)) if names
    ]
    if problems:
        raise ValueError(
            f"The weights of transformers:{name} do not fit its configuration with arguments {dict(arguments)}: "
            f"{'; '.join(problems)}. Leave out the argument, or the weights and start by an initialize."
        )
    fresh = [key for key in (*missing, *shapes) if not key.startswith(encoder)]
    note = f"transformers:{name} has its pretrained weights" + _but(
        [_ANSWER[answers]] if fresh else [], missing, sorted(info["unexpected_keys"])
    )
    classes = None if fresh or answers == "tokens" else _classes(config)
    return Loaded(model.train(), classes, None, note, _last_module(model, fresh))


def rebuild(folder: Path, *, source: str, answers: Answers = "classes", num_classes: int | None = None) -> nn.Module:
    """The network of a student's folder, with fresh weights.

    num_classes: others than those it was trained for; None for its own.

    Raises:
        ValueError: its config.json is damaged.
    """
    transformers = import_transformers(source)
    name = str(folder)
    config = configure(transformers, name, read_raw(transformers, name), num_classes, {}, {})
    return create(transformers, name, config, answers)


def take_encoder(model: nn.Module, tensors: Mapping[str, Tensor], *, source: str, weights: str) -> tuple[str, str]:
    """Load what another model of the same configuration has of this one's encoder; a note, and the fresh classifier.

    source, weights: how the user named the two.

    Raises:
        ValueError: a tensor of the encoder is missing or has another shape.
    """
    prefix = f"{model.base_model_prefix}."
    own = model.state_dict()
    given = {name: tensor for name, tensor in tensors.items() if name.startswith(prefix) and name in own}
    left = [name for name in own if name not in given]
    wrong = [name for name, tensor in given.items() if tensor.shape != own[name].shape]
    wrong += [name for name in left if name.startswith(prefix) and not _of_pooler(name)]
    if wrong:
        raise ValueError(f"{weights} does not fit {source}: {_first(wrong)}. Name the model as it was trained.")
    model.load_state_dict(given, strict=False)
    fresh = [name for name in left if not name.startswith(prefix)]
    unused = sorted(name for name in tensors if name not in given)
    note = f"{source} has its encoder from {weights} ({len(given)} tensors)"
    return note + _but([_ANSWER["classes"]], left, unused), _last_module(model, fresh) or ""


def student_config(model: nn.Module, own: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of a student, as transformers reads it, with the names of its classes and our `own` config."""
    transformers = import_transformers("A student of transformers")
    inner = next(module for module in model.modules() if isinstance(module, transformers.PreTrainedModel))
    names = {
        "id2label": {str(number): name for number, name in enumerate(own["classes"])},
        "label2id": {name: number for number, name in enumerate(own["classes"])},
    }
    return {
        **json.loads(inner.config.to_json_string()),
        "architectures": [type(inner).__name__],
        **(names if own["classes"] else {}),
        OWN_KEY: dict(own),
    }


def _check_weights(name: str, place: str) -> None:
    folder = Path(place)
    if not folder.is_dir() or any((folder / file).is_file() for file in _WEIGHTS):
        return
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".ckpt"))
    if pickled:
        raise ValueError(
            f"{name} has only pickled weights ({pickled[0]}), which could run code. Save them as model.safetensors: "
            "model.save_pretrained(FOLDER)."
        )
    raise ValueError(f"{name} has no model.safetensors, so there are no weights. Check the folder.")


def _of_pooler(key: str) -> bool:
    """Whether a tensor is of BERT's pooler, which belongs to the classifier: weights of a language model have none."""
    return ".pooler." in key


def _but(fresh: Names, missing: Names, unused: Names) -> str:
    """fresh: what was made anew, in words. missing, unused: names of tensors."""
    made = [*fresh]
    made += ["its pooler"] if any(_of_pooler(key) for key in missing) else []
    note = f", but {' and '.join(made)} {'is' if len(made) == 1 else 'are'} fresh" if made else ""
    return f"{note}; {len(unused)} of its tensors are not used ({_first(unused)})." if unused else f"{note}."


def _classes(config: Any) -> tuple[str, ...] | None:
    """The names of the weights' classes; None where they are only numbered."""
    names = tuple(str(config.id2label[number]) for number in range(config.num_labels))
    return None if names == tuple(f"LABEL_{number}" for number in range(len(names))) else names


def _last_module(model: nn.Module, fresh: Names) -> str | None:
    """The last module, in the model's order, that has a fresh tensor."""
    modules = {key.rpartition(".")[0] for key in fresh}
    return next((name for name, _ in reversed(list(model.named_modules())) if name in modules), None)


def _first(names: Names) -> str:
    rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + rest
