"""The terms of the methods for BERT and its like, with their papers' layer maps and weights, to unpack into a plan.

    plan = {"task": Term(CrossEntropy()), **minilmv2_terms(12, 6)}

Layers are counted from 1, as in the papers; layer 1 is the tap `bert.encoder.layer.0`. `teacher` and `student` name
how a model's modules are called: "bert", "roberta" (XLM-R and CamemBERT too) or "distilbert".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from distill.heads import Head, Linear
from distill.losses import KD, AttentionRelation, AttentionScores, HiddenState, PatientKD, TokenCosine
from distill.messages import nearest
from distill.plan import Term

Kind = Literal["bert", "roberta", "distilbert"]
_LARGE = 24
_UPPER_MIDDLE = {"bert": 21, "roberta": 19}


@dataclass(frozen=True)
class _Names:
    """Where the parts of a model are: its embeddings, its layers, and below a layer its attention and projections."""

    embeddings: str
    layers: str
    attention: str
    projections: tuple[str, str, str]

    def layer(self, number: int) -> str:
        return f"{self.layers}.{number - 1}"

    def scores(self, number: int) -> str:
        return f"{self.layer(number)}.{self.attention}:scores"

    def query_key_value(self, number: int) -> tuple[str, str, str]:
        query, key, value = (f"{self.layer(number)}.{self.attention}.{name}" for name in self.projections)
        return query, key, value


_QKV = ("query", "key", "value")
_NAMES: Mapping[str, _Names] = {
    "bert": _Names("bert.embeddings", "bert.encoder.layer", "attention.self", _QKV),
    "roberta": _Names("roberta.embeddings", "roberta.encoder.layer", "attention.self", _QKV),
    "distilbert": _Names(
        "distilbert.embeddings", "distilbert.transformer.layer", "attention", ("q_lin", "k_lin", "v_lin")
    ),
}


def uniform_layers(teacher_layers: int, student_layers: int) -> tuple[int, ...]:
    """The teacher's layer for each of the student's, g(m) = m · N / M, so that last meets last (TinyBERT, eq. 6).

    Raises:
        ValueError: the numbers do not divide; the paper has no map for such pairs.
    """
    _check_layers(teacher_layers, student_layers)
    if teacher_layers % student_layers:
        raise ValueError(
            f"{teacher_layers} layers of the teacher do not divide into {student_layers} of the student. Choose the "
            "teacher's layers yourself, layers=(...), one for each of the student's."
        )
    step = teacher_layers // student_layers
    return tuple(step * number for number in range(1, student_layers + 1))


def last_layers(teacher_layers: int, student_layers: int) -> tuple[int, ...]:
    """The teacher's last layers, one for each of the student's."""
    _check_layers(teacher_layers, student_layers)
    return tuple(range(teacher_layers - student_layers + 1, teacher_layers + 1))


def distilbert_terms(
    teacher_layers: int,
    student_layers: int,
    *,
    teacher: Kind = "bert",
    student: Kind = "bert",
    temperature: float = 2.0,
    head: Head | None = None,
) -> dict[str, Term]:
    """Softened predictions with weight 5 and the last hidden state's direction with weight 1, as DistilBERT has them.

    The paper puts weight 2 on the masked words, its task. Its student starts from every second layer of the teacher
    (`SkipLayers`) and is as wide; a narrower one takes head=Linear().

    Sanh, Debut, Chaumond and Wolf, 2019, arXiv:1910.01108, section 2; weights of the authors' code.
    """
    _check_layers(teacher_layers, student_layers)
    last = _names(student).layer(student_layers), _names(teacher).layer(teacher_layers)
    return {
        "kd": Term(KD(temperature=temperature), 5.0),
        "cosine": Term(TokenCosine(), 1.0, *last, head),
    }


def pkd_terms(
    teacher_layers: int,
    student_layers: int,
    *,
    teacher: Kind = "bert",
    student: Kind = "bert",
    strategy: Literal["skip", "last"] = "skip",
    layers: tuple[int, ...] | None = None,
    weight: float = 0.026,
    temperature: float = 5.0,
    head: Head | None = None,
) -> dict[str, Term]:
    """Softened predictions with weight 0.5, and the text's vector at each layer of the student but the last, as in PKD.

    The paper searches temperatures of 5, 10 and 20, shares of 0.2, 0.5 and 0.7 for the predictions (and 1 less that for
    the task), and weights of 10 to 1000 in a form that is `PatientKD`'s over layers times width: 0.026 is their 100
    over 5 · 768.

    strategy: "skip" spreads the teacher's layers evenly (2, 4, 6, 8, 10 of twelve for six), "last" takes those right
        below its last (7 to 11). layers: the teacher's layers, instead of a strategy.

    Raises:
        ValueError: the student has one layer, a skip does not divide, or `layers` does not fit.

    Sun, Cheng, Gan and Liu, 2019, arXiv:1908.09355, section 3.
    """
    if strategy not in ("skip", "last"):
        raise ValueError(f"pkd_terms.strategy is 'skip' or 'last', got {strategy!r}.")
    if student_layers < 2:
        raise ValueError(
            f"PKD leaves out the student's last layer, and it has {student_layers}. Use distilbert_terms()."
        )
    rule = uniform_layers if strategy == "skip" else last_layers
    chosen = rule(teacher_layers, student_layers)[:-1] if layers is None else layers
    _check_chosen(chosen, teacher_layers, student_layers - 1)
    taps = tuple(_names(student).layer(number) for number in range(1, student_layers))
    targets = tuple(_names(teacher).layer(number) for number in chosen)
    return {
        "kd": Term(KD(temperature=temperature), 0.5),
        "patient": Term(PatientKD(), weight, taps, targets, head),
    }


def tinybert_terms(
    teacher_layers: int,
    student_layers: int,
    *,
    teacher: Kind = "bert",
    student: Kind = "bert",
    layers: tuple[int, ...] | None = None,
    head: Head | None = Linear(),  # noqa: B008  frozen
) -> dict[str, Term]:
    """Embeddings, and at each layer of the student hidden states and attention scores, each with weight 1.

    The first of TinyBERT's two stages, of general hints; `tinybert_prediction_terms` is the second. The paper has one
    map W for the hidden states of all layers; here each layer's is its own. Student and teacher need as many heads.

    layers: the teacher's layer for each of the student's; None spreads them evenly (3, 6, 9, 12 of twelve for four).
    head: maps the student's width to the teacher's; None where they are equal.

    Raises:
        ValueError: the layers do not divide, or `layers` does not fit.

    Jiao, Yin, Shang, Jiang, Chen, Li, Wang and Liu, 2020, arXiv:1909.10351, eq. 6 to 11.
    """
    chosen = uniform_layers(teacher_layers, student_layers) if layers is None else layers
    _check_chosen(chosen, teacher_layers, student_layers)
    ours, theirs = _names(student), _names(teacher)
    terms = {"embeddings": Term(HiddenState(), 1.0, ours.embeddings, theirs.embeddings, head)}
    for number, target in enumerate(chosen, 1):
        terms[f"hidden_{number}"] = Term(HiddenState(), 1.0, ours.layer(number), theirs.layer(target), head)
        terms[f"scores_{number}"] = Term(AttentionScores(), 1.0, ours.scores(number), theirs.scores(target))
    return terms


def tinybert_prediction_terms(*, temperature: float = 1.0) -> dict[str, Term]:
    """The softened predictions with weight 1, the second of TinyBERT's stages (eq. 10), without labels."""
    return {"kd": Term(KD(temperature=temperature), 1.0)}


def minilm_terms(
    teacher_layers: int, student_layers: int, *, teacher: Kind = "bert", student: Kind = "bert", heads: int = 12
) -> dict[str, Term]:
    """How the last layers' queries attend to keys, and how their values are alike, with weight 1 together.

    heads: as many as both models have.

    Wang, Wei, Dong, Bao, Yang and Zhou, 2020, arXiv:2002.10957, section 3.
    """
    _check_layers(teacher_layers, student_layers)
    relation = AttentionRelation(relations=("qk", "vv"), heads=heads)
    return {"relations": _relations(relation, 1.0, teacher, teacher_layers, student, student_layers)}


def minilmv2_terms(
    teacher_layers: int,
    student_layers: int,
    *,
    teacher: Kind = "bert",
    student: Kind = "bert",
    teacher_layer: int | None = None,
    heads: int = 48,
) -> dict[str, Term]:
    """How queries, keys and values are alike among themselves, each with weight 1/3, at the student's last layer.

    teacher_layer: None takes the last one of a teacher of up to 12 layers, and an upper middle one of a large teacher
        of 24: 21 of BERT's, 19 of RoBERTa's.
    heads: relation heads, which divide both widths: the paper's 48 for a base teacher, 64 for a large one.

    Raises:
        ValueError: the teacher has no such layer, or the paper names none for its depth.

    Wang, Bao, Huang, Dong and Wei, 2021, arXiv:2012.15828, sections 3 and 4.
    """
    _check_layers(teacher_layers, student_layers)
    chosen = _relation_layer(teacher, teacher_layers) if teacher_layer is None else teacher_layer
    _check_chosen((chosen,), teacher_layers, 1)
    relation = AttentionRelation(relations=("qq", "kk", "vv"), heads=heads)
    return {"relations": _relations(relation, 1 / 3, teacher, chosen, student, student_layers)}


def _relations(
    loss: AttentionRelation, weight: float, teacher: str, teacher_layer: int, student: str, student_layer: int
) -> Term:
    taps = _names(student).query_key_value(student_layer), _names(teacher).query_key_value(teacher_layer)
    return Term(loss, weight, *taps)


def _relation_layer(teacher: str, teacher_layers: int) -> int:
    if teacher_layers <= _LARGE // 2:
        return teacher_layers
    if teacher_layers != _LARGE or teacher not in _UPPER_MIDDLE:
        raise ValueError(
            f"MiniLMv2 names no layer of a {teacher} teacher with {teacher_layers}. Choose an upper middle one: "
            "teacher_layer=..."
        )
    return _UPPER_MIDDLE[teacher]


def _names(kind: str) -> _Names:
    if kind not in _NAMES:
        raise ValueError(f"There are no terms for models of the kind {kind!r}. Nearest: {nearest(kind, _NAMES)}.")
    return _NAMES[kind]


def _check_layers(teacher_layers: int, student_layers: int) -> None:
    if not 1 <= student_layers <= teacher_layers:
        raise ValueError(
            f"The student needs at least one layer and at most the teacher's, got {student_layers} and "
            f"{teacher_layers}. Give (teacher_layers, student_layers)."
        )


def _check_chosen(layers: tuple[int, ...], teacher_layers: int, needed: int) -> None:
    if len(layers) != needed or any(not 1 <= layer <= teacher_layers for layer in layers):
        raise ValueError(
            f"Choose {needed} of the teacher's layers 1 to {teacher_layers}, one for each of the student's that "
            f"learns, got {layers}."
        )
