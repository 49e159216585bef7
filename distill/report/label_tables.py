"""What a report says label by label, as tables of text cells and the sentences that explain them."""

from collections.abc import Callable
from typing import NamedTuple

from distill.report.by_label import ByLabel, Estimate, Look
from distill.report.report import ARMS
from distill.report.statistics import Interval
from distill.report.units import percent, points

MISSING = "-"


class LabelTable(NamedTuple):
    """A title, what its numbers mean, the heading of each column, and the rows' cells."""

    title: str
    caption: str
    head: list[str]
    rows: list[list[str]]


def label_tables(found: ByLabel) -> list[LabelTable]:
    """All tables, the AUROC first; those of which nothing is known are left out."""
    tables = [_auroc(found), _precision(found), _gains(found), _decisions(found), _calibration(found)]
    tables += [_groups(found)] if found.groups else []
    tables += [_wrong(found)] if found.wrong else []
    tables += [_looks(found)] if found.looks else []
    return [table for table in tables if table.rows]


def short_table(found: ByLabel) -> LabelTable:
    """The AUROC of each label and model without intervals, as narrow as a terminal needs it."""
    head = ["label", "positive", *_models(found)]
    rows = [
        [name, f"{positive:,}", *(percent(found.models[model][label].auroc.value) for model in _models(found))]
        for label, (name, positive) in enumerate(zip(found.labels, found.positives, strict=True))
    ]
    rows.append(["mean", "", *(percent(found.means[name].value) for name in _models(found))])
    return LabelTable("Test AUROC % by label", _one_sided(found), head, rows)


def _auroc(found: ByLabel) -> LabelTable:
    rows = _by_model(found, lambda label, model: _estimate(found.models[model][label].auroc))
    means = [_estimate(found.means[model]) for model in _models(found)]
    rows.append(["mean", "", "", *means])
    caption = (
        f"Test AUROC in %, of an arm the mean over its seeds, with 95% intervals from {found.resamples:,} resamples of "
        f"the {found.patients:,} test patients. {_one_sided(found)}"
    )
    return LabelTable("AUROC by label", caption, ["label", "known", "positive", *_models(found)], rows)


def _precision(found: ByLabel) -> LabelTable:
    rows = _by_model(found, lambda label, model: _estimate(found.models[model][label].average_precision))
    caption = "Test average precision in %, likewise. A model that guesses has the share of positives."
    return LabelTable("Average precision by label", caption, ["label", "known", "positive", *_models(found)], rows)


def _gains(found: ByLabel) -> LabelTable:
    head = ["label"]
    gains = {name: found.gains[name] for name in _models(found) if name in found.gains}
    for name in gains:
        head += [f"over {name}", f"DeLong p over {name}"]
    rows = []
    for label, name in enumerate(found.labels):
        cells = [name]
        for gain in gains.values():
            p_value = gain.p_values[label]
            cells += [_difference(gain.labels[label]), MISSING if p_value != p_value else f"{p_value:.3g}"]
        rows.append(cells)
    mean = ["mean"]
    for gain in gains.values():
        mean += [_difference(gain.mean), ""]
    caption = (
        "What the transferred student's AUROC is above another model's, in points, by resampling patients for both at "
        "once. DeLong's test is of the first seed and takes images for independent, so it is too sure where patients "
        f"have several; of {len(found.labels)} labels about one in twenty falls below 0.05 by chance."
    )
    return LabelTable("Gain of the transfer by label", caption, head, [*rows, mean] if found.gains else [])


def _decisions(found: ByLabel) -> LabelTable:
    def cell(label: int, model: str) -> str:
        quality = found.models[model][label]
        at = percent(quality.sensitivity_at)
        return f"{percent(quality.sensitivity)} / {percent(quality.specificity)} ({at})"

    caption = (
        f"Sensitivity / specificity on the test examples, in %, at the threshold that has {found.specificity:.0%} "
        "specificity on the validation examples; in brackets the sensitivity where the test examples themselves have "
        "that specificity."
    )
    head = ["label", "known", "positive", *_models(found)]
    return LabelTable("Decisions by label", caption, head, _by_model(found, cell))


def _calibration(found: ByLabel) -> LabelTable:
    rows = _by_model(found, lambda label, model: percent(found.models[model][label].calibration_error))
    caption = "Expected calibration error of each label's probability in %, over 15 bins."
    return LabelTable("Calibration by label", caption, ["label", "known", "positive", *_models(found)], rows)


def _groups(found: ByLabel) -> LabelTable:
    models = _models(found)
    head = ["group", "examples", "patients", "labels", *models, "transferred over teacher"]
    rows = [
        [
            f"{group.attribute} {group.value}",
            f"{group.examples:,}",
            f"{group.patients:,}",
            str(group.labels),
            *(_estimate(group.auroc[model]) if model in group.auroc else MISSING for model in models),
            MISSING if group.gain is None else _difference(group.gain),
        ]
        for group in found.groups
    ]
    caption = (
        "Mean test AUROC in % within each group, over the labels that all groups of an attribute can be judged by: a "
        "smaller model can lose more on one group than on another. Groups too small to judge have a dash."
    )
    return LabelTable("Groups", caption, head, rows)


def _wrong(found: ByLabel) -> LabelTable:
    rows = [
        [name, f"{wrong.count:,}", percent(wrong.share)]
        for name, wrong in ((name, found.wrong[name]) for name in _models(found) if name in found.wrong)
    ]
    caption = (
        "Of the decisions on test examples that the teacher got wrong, each model at its own threshold: the share in % "
        "that a student gets wrong in the same way. More than plain has is error that was handed down."
    )
    return LabelTable("The teacher's errors", caption, ["model", "teacher's errors", "shared %"], rows)


def _looks(found: ByLabel) -> LabelTable:
    def row(name: str, look: Look) -> list[str]:
        values = (look.inside, look.hits, look.overlap, look.likeness)
        return [name, str(look.count), str(look.blank), percent(look.area), *map(_estimate, values)]

    head = ["model", "boxes", "blank", "area %", "inside %", "hits %", "overlap %", "like the teacher %"]
    caption = (
        "Gradient-weighted activation maps (Grad-CAM) against the boxes of the test images: how many maps are blank, "
        "which counts as looking past the box; then means in %: the box's share of the image, which a blind map has "
        "inside; the share of the map inside the box; how often the map's highest point lies in it; the overlap "
        "(IoU) of the box with as much of the map's highest part; the correlation with the teacher's map. Of each arm "
        "the first seed."
    )
    return LabelTable(
        "Where the models look",
        caption,
        head,
        [row(name, found.looks[name]) for name in _models(found) if name in found.looks],
    )


def _models(found: ByLabel) -> list[str]:
    """The models in the order in which they are shown."""
    return [name for name in ("teacher", *ARMS) if name in found.models]


def _by_model(found: ByLabel, cell: Callable[[int, str], str]) -> list[list[str]]:
    counts = zip(found.labels, found.known, found.positives, strict=True)
    return [
        [name, f"{known:,}", f"{positive:,}", *(cell(label, model) for model in _models(found))]
        for label, (name, known, positive) in enumerate(counts)
    ]


def _one_sided(found: ByLabel) -> str:
    """Which labels have no AUROC, if any."""
    counts = zip(found.labels, found.known, found.positives, strict=True)
    names = [f"{name} ({positive} of {known})" for name, known, positive in counts if positive in (0, known)]
    if not names:
        return ""
    return f"Without an AUROC, since the test examples have one side only, and not in the mean: {', '.join(names)}."


def _estimate(estimate: Estimate) -> str:
    if estimate.value != estimate.value:
        return MISSING
    if estimate.low != estimate.low:
        return percent(estimate.value)
    return f"{percent(estimate.value)} ({percent(estimate.low)} to {percent(estimate.high)})"


def _difference(interval: Interval) -> str:
    if interval.difference != interval.difference:
        return MISSING
    if interval.low != interval.low:
        return points(interval.difference)
    return f"{points(interval.difference)} ({points(interval.low)} to {points(interval.high)})"
