"""Which tap of the student meets which tap of the teacher: the best pairs in order, or pairs by a rule."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

from distill.messages import nearest

Rule = Literal["auto", "uniform", "last", "skip"]
RULES: tuple[Rule, ...] = get_args(Rule)
Pairs = tuple[tuple[int, int], ...]

_SPREAD = 1e-6


def pairs_of(
    rule: Rule, similarity: Sequence[Sequence[float]], arrows: int, costs: Sequence[Sequence[float]] | None = None
) -> Pairs:
    """So many pairs of positions (student, teacher), both rising from pair to pair, so that no tap is used twice.

    similarity: of each tap of the student (a row) with each tap of the teacher (a column), both in the order of the
    forward pass. costs: what a pair's similarity must make up for, of the same size; nothing where it is None.

    "auto": one tap from each of `arrows` equal shares of the student's; under this, the largest sum of similarity less
        cost (dynamic programming). Without the shares all arrows would gather in the first layers, which are alike in
        most networks. Between equal sums, to about 1e-6, it takes the pairs that lie most evenly in both.
    "uniform": the ends of equal shares of both models, the last tap with the last: g(m) = m · N / M as in TinyBERT
        (Jiao et al., 2020, arXiv:1909.10351).
    "last": the last taps of both, in order; "skip": every n-th tap of both, counted from the first with whole n: both
        as in PKD (Sun et al., 2019, arXiv:1908.09355). Where n divides, "skip" is "uniform".

    Raises:
        ValueError: there is no such rule, or there are fewer taps than arrows.
    """
    if rule not in RULES:
        raise ValueError(f"There is no rule {rule!r} for matching layers. Nearest: {nearest(rule, RULES)}.")
    students, teachers = len(similarity), len(similarity[0])
    if not 1 <= arrows <= min(students, teachers):
        raise ValueError(
            f"arrows={arrows} does not fit {students} taps of the student and {teachers} of the teacher, of which each "
            f"is used once. Ask for 1 to {min(students, teachers)}."
        )
    if rule == "auto":
        free = [[0.0] * teachers] * students
        return _best(similarity, arrows, free if costs is None else costs)
    place = {"uniform": _uniform, "last": _last, "skip": _skip}[rule]
    return tuple(zip(place(students, arrows), place(teachers, arrows), strict=True))


def _best(similarity: Sequence[Sequence[float]], arrows: int, costs: Sequence[Sequence[float]]) -> Pairs:
    """best[s][t] is the best worth of the first r pairs among the first s and t taps; r grows from 0 to `arrows`."""
    students, teachers = len(similarity), len(similarity[0])
    rounds = [[[0.0] * (teachers + 1) for _ in range(students + 1)]]
    shares = [0, *(end + 1 for end in _uniform(students, arrows))]
    for r, (first, end) in enumerate(pairwise(shares)):
        before, best = rounds[-1], [[float("-inf")] * (teachers + 1) for _ in range(students + 1)]
        for s in range(first + 1, students + 1):
            for t in range(r + 1, teachers + 1):
                best[s][t] = max(best[s - 1][t], best[s][t - 1])
                if s <= end:
                    worth = similarity[s - 1][t - 1] - costs[s - 1][t - 1]
                    worth -= _SPREAD * (_uneven(s, students, r, arrows) + _uneven(t, teachers, r, arrows))
                    best[s][t] = max(best[s][t], before[s - 1][t - 1] + worth)
        rounds.append(best)
    pairs, s, t = [], students, teachers
    for best in rounds[:0:-1]:
        while best[s][t] in (best[s - 1][t], best[s][t - 1]):
            s, t = (s - 1, t) if best[s][t] == best[s - 1][t] else (s, t - 1)
        s, t = s - 1, t - 1
        pairs.append((s, t))
    return tuple(reversed(pairs))


def _uneven(position: int, size: int, pair: int, arrows: int) -> float:
    """How far a tap, counted from 1, is from the end of this pair's equal share of the model."""
    return abs(position / size - (pair + 1) / arrows)


def _uniform(size: int, arrows: int) -> list[int]:
    return [-(-(pair + 1) * size // arrows) - 1 for pair in range(arrows)]


def _last(size: int, arrows: int) -> list[int]:
    return list(range(size - arrows, size))


def _skip(size: int, arrows: int) -> list[int]:
    every = size // arrows
    return [(pair + 1) * every - 1 for pair in range(arrows)]
