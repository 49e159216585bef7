"""The teacher cache of a stage: which answers it keeps, and what they depend on."""

import json
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from distill.batch import Batch
from distill.data import TextSplits
from distill.data.image_cache import cache_place
from distill.pair import Teacher
from distill.prepare.parts import Parts
from distill.recipe import Recipe
from distill.teacher_cache import Cache, Form, TeacherCache, fingerprint, what_changed
from distill.view import TokensView

# Examples by which a change of images, texts or transforms is noticed.
_LOOKED_AT = 16
_TOKENS = "input_ids"


def open_cache(parts: Parts, teacher: Teacher, sample: Batch, *, seed: int, precision: str) -> tuple[Cache, str]:
    """The cache of this teacher's taps, and a sentence about it; nothing is written yet.

    teacher: on the CPU. sample: a few training examples. seed: draws the views. precision: of the teacher's forward
    pass.

    Raises:
        ValueError: a setting has no effect, or what is asked of the teacher is not kept.
    """
    setting = parts.recipe.teacher_cache
    assert setting is not None
    forms = _forms(parts, teacher, sample, setting)
    told = _depends_on(parts, setting, seed, precision)
    folder = cache_place() / "teachers"
    cache = Cache(
        folder / fingerprint(json.dumps(told))[:24],
        forms,
        examples=len(parts.splits.train),
        views=setting.views,
        depends_on=told,
        tokens=_tokens(parts),
    )
    changed = () if cache.folder.exists() else what_changed(folder, told, parts.recipe.name)
    return cache, _sentence(cache, changed)


def _forms(parts: Parts, teacher: Teacher, sample: Batch, setting: TeacherCache) -> dict[str, Form]:
    answers: dict[str, Tensor] = teacher(sample.inputs)
    if parts.masked:
        raise ValueError(
            "teacher_cache keeps no answers to hidden words, of which each epoch hides others, and there are as many "
            "logits to each as words. Leave it out."
        )
    if setting.top is not None:
        classes = answers["logits"].shape[1] if "logits" in answers else None
        if classes is None or classes <= setting.top:
            why = "no term reads the teacher's logits" if classes is None else f"there are {classes} logits"
            raise ValueError(f"teacher_cache.top={setting.top} has no effect: {why}. Leave it out.")
    lengths, missing = _lengths(parts, teacher, sample, answers)
    return {
        tap: Form(
            setting.form,
            tuple(size + missing * (place in lengths[tap]) for place, size in enumerate(value.shape[1:])),
            setting.top if tap == "logits" else None,
            lengths[tap],
        )
        for tap, value in answers.items()
    }


def _lengths(
    parts: Parts, teacher: Teacher, sample: Batch, answers: Mapping[str, Tensor]
) -> tuple[dict[str, tuple[int, ...]], int]:
    """{tap: the dimensions of an example's value that are as long as its text}, and how many tokens the sample lacks.

    They are those that change where the sample is cut by a token.
    """
    tokens = _tokens(parts)
    if tokens is None or isinstance(sample.inputs, Tensor):
        return dict.fromkeys(answers, ()), 0
    prefix = tokens.removesuffix(_TOKENS)
    length = sample.inputs[tokens].shape[1]
    cut = {name: value[:, :-1] if name.startswith(prefix) else value for name, value in sample.inputs.items()}
    shorter: dict[str, Tensor] = teacher(cut)
    assert isinstance(parts.splits, TextSplits)
    found = {
        tap: tuple(place for place, size in enumerate(value.shape[1:]) if size != shorter[tap].shape[1 + place])
        for tap, value in answers.items()
    }
    return found, parts.splits.max_length - length


def _tokens(parts: Parts) -> str | None:
    """The input of a batch that holds the teacher's tokens; None for images."""
    view = parts.teacher_view
    if not isinstance(view, TokensView):
        return None
    return f"{view.side}.{_TOKENS}" if view.side else _TOKENS


def _depends_on(parts: Parts, setting: TeacherCache, seed: int, precision: str) -> dict[str, str]:
    """{what answers depend on: its state now}."""
    recipe, train = parts.recipe, parts.splits.train
    assert recipe.teacher is not None and parts.teacher is not None
    first, second = (_looks(parts, view) for view in (0, 1))
    drawn = first != second
    if setting.views > 1 and not drawn:
        raise ValueError(
            f"teacher_cache.views={setting.views} has no effect on {type(recipe.data).__name__}, in which nothing is "
            "drawn. Write 1."
        )
    return {
        "the teacher": f"{recipe.teacher.source} {sorted(recipe.teacher.arguments.items())}",
        "the teacher's weights": fingerprint(parts.teacher),
        "what the teacher sees": repr(parts.teacher_view),
        "the data": f"{recipe.data!r} {len(train)}",
        "the examples or their transforms": first,
        "the mixture": repr(recipe.mix),
        "the seed of what is drawn": str(seed) if drawn else "nothing is drawn",
        "how the teacher is run": _how(recipe, precision),
    }


def _how(recipe: Recipe, precision: str) -> str:
    speed = recipe.speed
    own = None if speed is None else speed.teacher_precision
    return f"{own or precision}{', folded' if speed is not None and speed.fold_teacher else ''}"


def _looks(parts: Parts, view: int) -> str:
    """A hash of some training examples, from all over the split, as they look in one view."""
    train = parts.splits.train
    places: Sequence[int] = torch.linspace(0, len(train) - 1, min(_LOOKED_AT, len(train))).long().tolist()
    batch = parts.splits.collate([train[(view, place)] for place in places])
    return fingerprint(batch.inputs)


def _sentence(cache: Cache, changed: Sequence[str]) -> str:
    total = cache.examples * cache.views
    views = f"{cache.views} view{'s' if cache.views > 1 else ''} of {cache.examples:,} examples"
    text = (
        f"Teacher cache: {', '.join(cache.forms)} of {views}, {_size(cache.bytes)} each, {_size(cache.bytes * total)} "
        f"at {cache.folder}; {cache.kept():,} of {total:,} are there."
    )
    return f"{text} It is a new one, since {' and '.join(changed)} changed." if changed else text


def _size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
