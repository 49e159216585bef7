"""What happened between the models: the map of their layers, how alike these became, and what the student took over."""

from collections.abc import Iterable, Iterator, Sequence
from math import prod

from distill.compare.comparison import Answer
from distill.initialize import Coverage
from distill.page.gathered import Gathered, place_of
from distill.page.heat import heat_map, scale_bar
from distill.page.html import Child, Markup, folded, join, paragraphs, preformatted, tag
from distill.page.layers import LABELS, Pull, layer_map
from distill.page.tables import MISSING, Cell, table
from distill.plan import Term

_MOST_TENSORS = 400


def alike(found: Gathered) -> Markup:
    """CKA of every pair of layers, at the student's start and after."""
    comparison = found.comparison
    if comparison is None:
        return Markup("")
    if comparison.cka is None:
        return paragraphs([_no_cka(found)])
    cka = comparison.cka
    marked = frozenset((a, b) for pull in _pulls(found) for a in pull.student for b in pull.teacher)
    maps = [
        heat_map(title, cka.student, cka.teacher, values, marked=marked)
        for title, values in (("At the student's start", cka.before), ("After the transfer", cka.after))
    ]
    outlined = " Outlined: pairs that the plan joins." if marked & set(_pairs(cka.student, cka.teacher)) else ""
    note = (
        "Linear CKA of each layer of the student (rows) with each of the teacher (columns), in % in the cells, on "
        f"{cka.examples:,} training examples.{outlined}"
    )
    return join([paragraphs([note]), scale_bar(), tag("div", {"class": "charts"}, maps)])


def layers(found: Gathered) -> Markup:
    """The plan's arrows with losses, heads and weights, and what the student's start took from the teacher."""
    parts: list[Child] = []
    stages = found.recipe.all_stages()
    for stage in stages:
        pulls = list(_of_plan(stage.plan.items()))
        if len(stages) > 1:
            parts.append(tag("h3", None, f"Stage {stage.name}"))
        rows = [
            [
                pull.term,
                pull.weight,
                pull.loss,
                " + ".join(pull.student),
                " + ".join(pull.teacher) or LABELS,
                pull.head or MISSING,
            ]
            for pull in pulls
        ]
        head = ["term", "weight", "loss", "student", "teacher", "head"]
        parts += [
            tag("div", {"class": "charts"}, layer_map(pulls)),
            table(f"Terms of stage {stage.name}" if len(stages) > 1 else "Terms of the plan", head, rows),
        ]
    parts += [tag("h3", None, "What the start took from the teacher"), _coverage(found)]
    if found.plan:
        parts.append(folded("The plan as it was printed, with shapes", preformatted(found.plan, "The plan")))
    return join(parts)


def examples(found: Gathered) -> Markup:
    """Test examples that the models answer differently, with picture or text."""
    comparison = found.comparison
    if comparison is None:
        return Markup("")
    if not comparison.differing:
        why = "the models answer alike" if len(comparison.models) > 1 else "there is one model only"
        return paragraphs([f"There are none to show: {why}."])
    several, cards = found.run.report.by_label is not None, []
    for one in comparison.differing:
        shown = found.examples.get(one.index)
        face: Child = ()
        if shown is not None and shown.picture:
            size = {"width": shown.width, "height": shown.height, "class": "pixels" if shown.width <= 48 else None}
            face = tag("img", {"src": shown.picture, "alt": f"Test example {one.index}: {one.truth}", **size})
        elif shown is not None:
            face = tag("blockquote", None, shown.text)
        # Of several labels only the one is told on which the models differ most, which may hold or not.
        answers = [_answer(answer, right=not several and answer.said == one.truth) for answer in one.answers]
        truth = tag("p", None, tag("strong", None, one.truth), tag("span", {"class": "sure"}, f" no. {one.index}"))
        words = "picture" if shown is not None and shown.picture else "words"
        cards.append(tag("li", {"class": f"card {words}"}, face, tag("div", None, truth, tag("ul", None, answers))))
    each = (
        "In bold what holds; below, of the label on which they differ most, how probable each model says it is."
        if several
        else "In bold the true class; below, what each model says and how sure it is. Marked: right answers."
    )
    note = f"Test examples under the first seed that tell most, the surest mistakes first. {each}"
    return join([paragraphs([note, found.no_examples]), tag("ul", {"class": "cards"}, cards)])


def _answer(answer: Answer, *, right: bool) -> Markup:
    check = tag("span", {"class": "check", "role": "img", "aria-label": "right"}, "✓")
    return tag(
        "li",
        None,
        tag("span", {"class": "who"}, answer.model, " "),
        tag("span", None, answer.said, " "),
        tag("span", {"class": "sure"}, f"{100 * answer.probability:.0f}%"),
        check if right else (),
    )


def _no_cka(found: Gathered) -> str:
    assert found.comparison is not None
    if not found.run.report.has_teacher:
        return "The run has no teacher whose layers could be compared."
    told = next((note for note in found.comparison.notes if "layers" in note), None)
    return told or f"The layers were not compared. distill compare {place_of(found.run)} does it."


def _pulls(found: Gathered) -> list[Pull]:
    return [pull for stage in found.recipe.all_stages() for pull in _of_plan(stage.plan.items())]


def _of_plan(terms: Iterable[tuple[str, Term]]) -> Iterator[Pull]:
    for name, term in terms:
        teacher = _taps(term.teacher) if term.needs_teacher and term.teacher is not None else ()
        weight = f"{term.weight:g}" + ("" if term.schedule is None else f", {term.schedule}")
        yield Pull(
            name, weight, str(term.loss), _taps(term.student), teacher, "" if term.head is None else str(term.head)
        )


def _taps(taps: str | tuple[str, ...]) -> tuple[str, ...]:
    return (taps,) if isinstance(taps, str) else taps


def _pairs(rows: Sequence[str], columns: Sequence[str]) -> Iterator[tuple[str, str]]:
    return ((row, column) for row in rows for column in columns)


def _coverage(found: Gathered) -> Markup:
    if found.run.report.coverage is None:
        return paragraphs(["Nothing: the student started from its own initialisation, or from weights of its own."])
    coverage = Coverage.from_json(found.run.report.coverage)
    bar = tag(
        "progress", {"max": "100", "value": f"{100 * coverage.share:.1f}", "aria-label": "Share from the teacher"}
    )
    rows: list[list[Cell | str]] = [
        [
            Cell(one.name),
            Cell("x".join(map(str, one.shape)) or "scalar", prod(one.shape)),
            one.source or MISSING,
            MISSING if one.source_shape is None else "x".join(map(str, one.source_shape)) or "scalar",
            f"{one.how}: {one.reason}" if one.reason else one.how,
        ]
        for one in coverage.tensors[:_MOST_TENSORS]
    ]
    more = len(coverage.tensors) - len(rows)
    caption = f"And {more:,} more, in report.json." if more else ""
    head = ["student's tensor", "shape", "teacher's tensor", "shape", "how"]
    whole = table("Tensors of the student at its start", head, rows, caption=caption)
    sentence = tag("p", None, bar, f" {coverage}.")
    return join([sentence, folded(f"All {len(coverage.tensors):,} tensors", whole)])
