"""What stands last: every run, the recipe and how to run it again, where it was made, and what the words mean."""

import json
from collections.abc import Mapping

from distill.page.gathered import Gathered, place_of
from distill.page.html import Markup, folded, join, paragraphs, preformatted, tag
from distill.page.tables import MISSING, Cell, quantity, table
from distill.report import Report
from distill.report.units import metric, percent, size

_IN_NATS = ("nll", "perplexity")

_WORDS = {
    "agreement": "Share of the test examples to which a student gives the same class as the teacher.",
    "AUROC": "How probable it is that an example with a finding is ranked above one without it: 50% is chance.",
    "Brier score": "Mean squared distance of the probabilities from the truth: less is better.",
    "calibration error": "How far, on average, a model's probability lies from how often it is right.",
    "CKA": "Centered kernel alignment: how alike two layers place the same examples, from 0 to 1 (alike).",
    "coverage": "The share of the student's parameters that its start took from the teacher.",
    "divergence": "Kullback-Leibler divergence of a student's answers from the teacher's, in nats: 0 is equal.",
    "initialized": "The control that starts from the teacher's weights and then learns from the labels alone.",
    "interval": "95% interval: of many such runs, 95 in 100 intervals hold the true difference.",
    "multiply-adds": "Products and sums of one forward pass of one example.",
    "negative flip": "A test example that the other model answers right and the transferred student wrong.",
    "nll": "Negative log-likelihood of the truth, in nats an example: less is better.",
    "perplexity": "Exponential of the negative log-likelihood of a hidden word: less is better.",
    "plain": "The student trained from the labels alone, under the same budget: what a transfer is judged against.",
    "tap": "A place in a network where its values are read, such as the end of a block.",
    "term": "One arrow of the plan: a loss with its weight. Raw is what the loss gives, weighted what it adds.",
    "transferred": "The student that learned from the teacher, by the whole plan.",
}


def every_run(report: Report) -> Markup:
    """One row a trained student: validation before training and as it was chosen by, and all its test metrics."""
    metrics = sorted(report.outcomes[0].test, key=lambda name: (name != report.headline, name))
    name = metric(report.headline)
    head = ["student", "seed", f"start {name}", f"validation {name}", *(f"test {spoken(one)}" for one in metrics)]
    head += ["divergence", "best epoch", "steps", "seconds"]
    rows = [
        [
            Cell(one.arm),
            Cell(str(one.seed), one.seed),
            _value(report.headline, None if one.start is None else one.start.get(report.headline)),
            _value(report.headline, one.validation[report.headline]),
            *(_value(each, one.test[each]) for each in metrics),
            quantity(one.divergence, f"{one.divergence or 0.0:.4f}"),
            Cell(f"{one.best_epoch} of {one.epochs}", one.best_epoch),
            Cell(f"{one.steps:,}", one.steps),
            Cell(f"{one.seconds:,.1f}", one.seconds),
        ]
        for arm in report.arms
        for one in report.of(arm)
    ]
    caption = "In %, but nll (nats) and perplexity. Epochs were chosen on the validation examples."
    return table("Every trained student", head, rows, caption=caption)


def recipe(found: Gathered) -> Markup:
    """The commands that run it again, and the recipe as JSON."""
    place = place_of(found.run)
    commands = [
        f"distill train {place}/recipe.json --name again",
        f"distill compare {place}",
        f"distill report {place}",
    ]
    text = json.dumps(found.run.report.recipe, indent=2, ensure_ascii=False)
    return join(
        [
            paragraphs(["To train it again under another name, compare its models, and make this page anew:"]),
            preformatted("\n".join(commands), "Commands"),
            folded("The recipe as JSON", preformatted(text, "The recipe")),
        ]
    )


def made_with(report: Report) -> Markup:
    """Seeds, date, versions and machine; and what a reader of the numbers should know."""
    rows: list[list[Cell | str]] = [["seeds", ", ".join(map(str, report.seeds))], ["started", report.started]]
    for values in (report.versions, report.machine):
        rows += [[name.removesuffix("_bytes"), _told(name, value)] for name, value in _sorted(values)]
    notes = [tag("li", None, note) for note in report.notes]
    made = table("Seeds, versions and machine", ["what", "value"], rows, sortable=False)
    return join([made, join([tag("h3", None, "Notes"), tag("ul", None, notes)]) if notes else ()])


def glossary(page: str) -> Markup:
    """The words that the page uses, and what they mean here."""
    used = {word: meaning for word, meaning in _WORDS.items() if word in page}
    return tag("dl", None, [[tag("dt", None, word), tag("dd", None, meaning)] for word, meaning in used.items()])


def spoken(name: str) -> str:
    """A metric's name in words."""
    return metric(name).replace("_", " ")


def _sorted(values: Mapping[str, str | int]) -> list[tuple[str, str | int]]:
    return sorted(values.items())


def _told(name: str, value: str | int) -> str:
    return size(value) if name.endswith("_bytes") and isinstance(value, int) else str(value)


def _value(name: str, value: float | None) -> Cell:
    if value is None:
        return Cell(MISSING)
    return quantity(value, f"{value:.4f}" if name in _IN_NATS else percent(value))
