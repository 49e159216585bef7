"""Which tap of the student meets which tap of the teacher: the best pairs in order, or pairs by a rule."""

from collections.abc import Sequence
from itertools import pairwise, product

from distill.matching import RULES, Rule
from distill.messages import nearest

Pairs = tuple[tuple[int, int], ...]
Table = Sequence[Sequence[float]]

_SPREAD = 1e-6
# How far below the most alike pair of its row or of its column a pair may be, and still be taken for aligned.
_NEAR = 0.02


def pairs_of(
    rule: Rule, similarity: Sequence[Sequence[float]], arrows: int, costs: Sequence[Sequence[float]] | None = None
) -> Pairs:
    """So many pairs of positions (student, teacher), both rising from pair to pair, so that no tap is used twice.

    similarity: of each tap of the student (a row) with each tap of the teacher (a column), both in the order of the
    forward pass. costs: what a pair's similarity must make up for, of the same size; nothing where it is None.

    "auto": first the taps are put beside each other by dynamic programming, each pair worth its similarity less cost,
        measured from the best of its row and of its column: what is more than 0.02 below it is left out. Where too few
        are left, as between models that know nothing, all taps are paired, with the largest sum. Then these pairs are
        cut into `arrows` equal shares, in order, and each share gives the one that stands out most, by how far its
        worth is above all others of its row and its column, among those at least half as alike as the most alike of the
        share. Without the shares all arrows would gather in the first layers, which are alike in most networks; and the
        most alike pair of a share is often one of many that are nearly as alike, among which a wrong one is easily
        taken. Between equal pairs, to about 1e-6, it takes those that lie most evenly in both models.
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
        return _standing_out(similarity, _worth(similarity, free if costs is None else costs), arrows)
    place = {"uniform": _uniform, "last": _last, "skip": _skip}[rule]
    return tuple(zip(place(students, arrows), place(teachers, arrows), strict=True))


def _worth(similarity: Table, costs: Table) -> Table:
    return [[one - cost for one, cost in zip(*rows, strict=True)] for rows in zip(similarity, costs, strict=True)]


def _standing_out(similarity: Table, worth: Table, arrows: int) -> Pairs:
    """Of each of `arrows` equal shares of the aligned pairs, the one that is most above the others of its taps."""
    students, teachers = len(worth), len(worth[0])
    pairs = _aligned(worth)
    if len(pairs) <= arrows:
        every = (_best(worth, total) for total in range(min(students, teachers), arrows, -1))
        pairs = next((found for found in every if all(worth[s][t] > -1 for s, t in found)), ())
    if not pairs:
        return _best(worth, arrows)
    ends = [0, *(end + 1 for end in _uniform(len(pairs), arrows))]
    chosen = []
    for number, (first, end) in enumerate(pairwise(ends)):
        share = pairs[first:end]
        alike = max(similarity[s][t] for s, t in share)
        margins = {
            (s, t): _margin(worth, (s, t))
            - _SPREAD * (_uneven(s + 1, students, number, arrows) + _uneven(t + 1, teachers, number, arrows))
            for s, t in share
            if similarity[s][t] >= alike / 2
        }
        chosen.append(max(margins, key=margins.__getitem__))
    return tuple(chosen)


def _aligned(worth: Table) -> Pairs:
    """As many pairs in order as are near the best of their row and their column; none that no head joins."""
    students, teachers = len(worth), len(worth[0])
    rows, columns = [max(row) for row in worth], [max(column) for column in zip(*worth, strict=True)]
    sums = [[0.0] * (teachers + 1) for _ in range(students + 1)]
    for s, t in product(range(students), range(teachers)):
        met = sums[s][t] + _NEAR + worth[s][t] - max(rows[s], columns[t]) if worth[s][t] > -1 else 0.0
        sums[s + 1][t + 1] = max(sums[s][t + 1], sums[s + 1][t], met)
    pairs, s, t = [], students, teachers
    while s and t:
        if sums[s][t] in (sums[s - 1][t], sums[s][t - 1]):
            s, t = (s - 1, t) if sums[s][t] == sums[s - 1][t] else (s, t - 1)
        else:
            s, t = s - 1, t - 1
            pairs.append((s, t))
    return tuple(reversed(pairs))


def _margin(worth: Table, pair: tuple[int, int]) -> float:
    """How far a pair is above the best other one in its row and its column."""
    s, t = pair
    others = [value for column, value in enumerate(worth[s]) if column != t]
    others += [row[t] for number, row in enumerate(worth) if number != s]
    return worth[s][t] - max(others, default=0.0)


def _best(worth: Table, arrows: int) -> Pairs:
    """So many pairs of the largest sum; best[s][t] is that of the first r pairs among the first s and t taps."""
    students, teachers = len(worth), len(worth[0])
    rounds = [[[0.0] * (teachers + 1) for _ in range(students + 1)]]
    for r in range(arrows):
        before, best = rounds[-1], [[float("-inf")] * (teachers + 1) for _ in range(students + 1)]
        for s in range(r + 1, students + 1):
            for t in range(r + 1, teachers + 1):
                uneven = _uneven(s, students, r, arrows) + _uneven(t, teachers, r, arrows)
                met = before[s - 1][t - 1] + worth[s - 1][t - 1] - _SPREAD * uneven
                best[s][t] = max(best[s - 1][t], best[s][t - 1], met)
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
