"""Which tensor of the teacher a tensor of the student is, where the two models name the same layers differently.

A map is plain data: {the student's name: the teacher's}. A name stands for every tensor whose dotted name begins with
it; a `*` stands for one part of a name, such as a block's number, and is carried over in order. Of several that fit,
the longest counts. An empty name of the teacher leaves the student's tensors as they are.
"""

import re
from collections.abc import Collection, Mapping

from distill.messages import nearest

_DISTILBERT_LAYER = {
    "attention.q_lin": "attention.self.query",
    "attention.k_lin": "attention.self.key",
    "attention.v_lin": "attention.self.value",
    "attention.out_lin": "attention.output.dense",
    "sa_layer_norm": "attention.output.LayerNorm",
    "ffn.lin1": "intermediate.dense",
    "ffn.lin2": "output.dense",
    "output_layer_norm": "output.LayerNorm",
}


def _to_distilbert(teacher: str) -> dict[str, str]:
    layers = {
        f"distilbert.transformer.layer.*.{student}": f"{teacher}.encoder.layer.*.{name}"
        for student, name in _DISTILBERT_LAYER.items()
    }
    return {"distilbert.embeddings": f"{teacher}.embeddings", **layers}


# RoBERTa counts positions from its padding index + 1, so its position embeddings are rows for other positions.
NAME_MAPS: Mapping[str, Mapping[str, str]] = {
    "bert-to-distilbert": _to_distilbert("bert"),
    "roberta-to-distilbert": {**_to_distilbert("roberta"), "distilbert.embeddings.position_embeddings": ""},
    "bert-to-roberta": {"roberta": "bert", "roberta.embeddings.position_embeddings": ""},
    "roberta-to-bert": {"bert": "roberta", "bert.embeddings.position_embeddings": ""},
}
"""Maps of the layouts of Hugging Face's transformers, of models with a task's head, whose body has a name."""


def name_map(names: str | Mapping[str, str]) -> Mapping[str, str]:
    """A map itself, or the built-in one of that name.

    Raises:
        ValueError: there is no built-in map of that name, or the two sides of an entry differ in their number of `*`.
    """
    if isinstance(names, str):
        if names not in NAME_MAPS:
            raise ValueError(f"There is no map of names {names!r}. Nearest: {nearest(names, NAME_MAPS)}.")
        return NAME_MAPS[names]
    for student, teacher in names.items():
        if teacher and student.count("*") != teacher.count("*"):
            raise ValueError(
                f"names: {student!r} and {teacher!r} differ in their number of *. Each * of the student's name is put "
                "in for one of the teacher's."
            )
    return names


def map_names(
    names: Mapping[str, str], student: Collection[str], teacher: Collection[str], blocks: tuple[int, ...] = ()
) -> dict[str, str]:
    """{the student's tensor: the teacher's} for all of the student's; those that no entry fits keep their own names.

    blocks: for each of the student's blocks the teacher's, put in where a `*` stands for a number; the same without.

    Raises:
        ValueError: an entry fits no tensor of the student, or names one that the teacher lacks; with the nearest. Or
            `blocks` does not reach the student's last block.
    """
    used: set[str] = set()
    mapped = {}
    for name in student:
        fitting = [(pattern, found) for pattern in names if (found := _fit(pattern, name))]
        if not fitting:
            mapped[name] = name
            continue
        used.update(pattern for pattern, _ in fitting)
        pattern, found = max(fitting, key=lambda pair: len(pair[0]))
        mapped[name] = _put_in(names[pattern], found, name, blocks) if names[pattern] else ""
        if mapped[name] and mapped[name] not in teacher:
            raise ValueError(
                f"names: {name} of the student is {mapped[name]} by the entry {pattern!r}, which the teacher does not "
                f"have. Nearest: {nearest(mapped[name], teacher)}."
            )
    for pattern in names:
        if pattern not in used:
            raise ValueError(f"names: {pattern!r} fits no tensor of the student. Nearest: {nearest(pattern, student)}.")
    return mapped


def _fit(pattern: str, name: str) -> re.Match[str] | None:
    return re.match(re.escape(pattern).replace(r"\*", r"([^.]+)") + r"(?=\.|$)", name)


def _put_in(teacher: str, found: re.Match[str], name: str, blocks: tuple[int, ...]) -> str:
    parts = []
    for part in found.groups():
        if blocks and part.isdigit():
            if int(part) >= len(blocks):
                raise ValueError(
                    f"blocks={blocks} names {len(blocks)} of the teacher's blocks and the student has {name}. "
                    "Name one for each of the student's."
                )
            part = str(blocks[int(part)])
        parts.append(part)
    pieces = teacher.split("*")
    inserted = "".join(piece + part for piece, part in zip(pieces, [*parts, ""], strict=True))
    return inserted + name[found.end() :]
