"""Which settings make a recipe's step cheaper on this machine: tried on its own batches, as a table to paste from."""

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from rich.console import Console
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from distill.build import asked_teacher, make_accelerator, training_feed
from distill.messages import first_line
from distill.prepare import Parts
from distill.recipe import Recipe, apply_overrides
from distill.running import Running, cut, start, wait_for
from distill.trial import Settings, Trial, advice, merged, table, words

# A setting is kept where a step then takes less than this share of the best before it.
_GAIN = 0.95
# Loading is told to other processes where it takes more than this share of a step.
_WAIT = 0.05
# In a round the recipe as it is and what is tried take turns. Fewer rounds tell nothing, more are not worth it.
_ROUNDS = range(3, 13)
# What a block of steps takes at least, so that the clock's own error stays below a hundredth.
_BLOCK_SECONDS = 0.02
# A trial's steps, at least: the first one, one more, and the turns of both.
_STEPS = 2 + 2 * _ROUNDS.start
# What compiling may take; it can't be stopped once it has begun.
_COMPILE_SECONDS = 30.0
# Batches that are waited for, of which the first do not count: they start the processes.
_LOADED, _STARTING = 8, 4
_NO_TIME = "no time left"


def tune(parts: Parts, seconds: float, console: Console) -> None:
    """Try what could make a step cheaper, one setting after the other on top of the best so far, and print what did.

    The parts stay as they are, and nothing is written. A teacher's cache is left out: these are steps that ask it.

    seconds: how long about, without the end of a compilation that has begun. Where a whole step takes too long for it,
        steps of fewer examples are measured, and that is told.

    Raises:
        ValueError: several processes were launched.
    """
    ends = time.perf_counter() + seconds
    recipe = replace(parts.recipe, teacher_cache=None)
    accelerator = make_accelerator(recipe)
    if accelerator.num_processes > 1:
        raise ValueError("--tune measures in one process. Run it without a launcher, and give what it finds to all.")
    tried = candidates(parts, recipe, half=accelerator.mixed_precision != "no")
    base = start(parts, recipe, recipe.batch_size)
    step = whole = base.steps(1)
    examples = sum(map(len, base.windows[0]))
    share = 0.8 * seconds / (whole * _STEPS * len(tried))
    if share < 1:
        base.windows = [cut(window, max(2, int(share * examples))) for window in base.windows]
        base.steps(1)
        base.seen.clear()
        step = base.steps(1)
    measured = sum(map(len, base.windows[0]))
    instead = (
        f" A step of {measured} takes {1000 * step:,.1f} ms and is measured instead." if measured < examples else ""
    )
    console.print(
        f"Stage {recipe.all_stages()[0].name} on {accelerator.device}, {torch.get_num_threads()} threads: a step of "
        f"{examples} examples takes {1000 * whole:,.1f} ms.{instead} Trying {len(tried)} settings takes at most about "
        f"{seconds:g} s (--tune SECONDS), and the end of a compilation that has begun.",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    trials = _all(parts, base, tried, step, ends)
    console.print(table(trials))
    best = min((trial for trial in trials if trial.outcome in ("as it is", "kept")), key=lambda one: one.ratio or 1.0)
    if any(trial.outcome == _NO_TIME for trial in trials):
        needs = len(tried) * _STEPS * step + 3 * _COMPILE_SECONDS
        console.print(f"To try those without time: --tune {2 * max(needs, seconds):.0f}", markup=False, highlight=False)
    told, workers = _loading(parts, base, whole * (best.ratio or 1.0), ends)
    for line in (told, advice(best, workers)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def candidates(parts: Parts, recipe: Recipe, *, half: bool) -> list[Settings]:
    """What could make a step of the first stage cheaper and is not set yet, in the order in which it is tried.

    half: whether the recipe as it is runs in half precision, so that float32 is the one to try.
    """
    teacher = asked_teacher(parts, recipe.all_stages()[0])
    models = [parts.student] if teacher is None else [parts.student, teacher]
    precision: Settings = (("precision", "float32" if half else "bf16"),)
    maps: Settings = (("speed.channels_last", "true"),)
    found: list[Settings] = [precision]
    if _has(nn.Conv2d, models):
        found += [maps, (*precision, *maps)]
    if teacher is not None and _has(_BatchNorm, [teacher]):
        found.append((("speed.fold_teacher", "true"),))
    if teacher is not None:
        found.append((("speed.teacher_precision", "bf16"),))
    compiled = ("student",) if teacher is None else ("student", "both", "teacher")
    found += [(("speed.compile", which),) for which in compiled]
    if torch.cuda.is_available():
        found += [(("speed.compile", which), ("speed.cuda_graphs", "true")) for which in compiled[:2]]
    return [settings for settings in found if not _is_set(recipe, settings)]


def attempt(parts: Parts, base: Running, settings: Settings, step: float, ends: float) -> Trial:
    """Measure some settings against the recipe as it is, in turns until the time is over.

    step: seconds of the recipe's as it is. ends: by the clock of `time.perf_counter`.
    """
    try:
        running = start(parts, apply_overrides(base.recipe, words(settings)), sum(map(len, base.windows[0])))
        pairs = list(_turns(base, running, step, ends))
    except Exception as error:  # whatever it is, the next settings may do
        return Trial(settings, f"failed: {first_line(error)}")
    ratio = statistics.median(other / own for own, other in pairs)
    seconds = statistics.median(other for _, other in pairs)
    return Trial(settings, "", seconds, ratio, running.first_seconds, running.memory)


def _all(parts: Parts, base: Running, tried: Sequence[Settings], step: float, ends: float) -> list[Trial]:
    """A trial of each that is left to try on top of the best so far; first the recipe as it is."""
    best = Trial((), "as it is", step, 1.0, base.first_seconds, base.memory)
    trials = [best]
    for position, more in enumerate(tried):
        settings = merged(best.settings, more)
        if settings in [trial.settings for trial in trials] or _undoes(more, best.settings):
            continue
        now = time.perf_counter()
        compiles = ("speed.compile", dict(settings).get("speed.compile", "")) in more
        if ends - now < _STEPS * step + _COMPILE_SECONDS * compiles:
            trials.append(Trial(settings, _NO_TIME))
            continue
        trial = attempt(parts, base, settings, step, now + (ends - now) / (len(tried) - position))
        if trial.ratio is not None and best.ratio is not None:
            share = trial.ratio / best.ratio
            kept = share <= _GAIN
            trial = replace(trial, outcome="kept" if kept else "slower" if share > 1 / _GAIN else "no gain")
            best = trial if kept else best
        trials.append(trial)
    return [replace(trials[0], seconds=statistics.median(base.seen)), *trials[1:]]


def _turns(base: Running, other: Running, step: float, ends: float) -> Iterator[tuple[float, float]]:
    """Seconds of a step of each, in rounds of alternating order until the time is over, but some rounds at least."""
    count = max(1, round(_BLOCK_SECONDS / step))
    for number in range(_ROUNDS.stop):
        if number >= _ROUNDS.start and time.perf_counter() > ends:
            return
        first, second = (running.steps(count) for running in ((base, other) if number % 2 else (other, base)))
        yield (first, second) if number % 2 else (second, first)


def _loading(parts: Parts, base: Running, step: float, ends: float) -> tuple[str, Settings]:
    """A line about what a step waits for its batch, and a number of processes to load where it is worth it."""
    recipe = base.recipe
    alone = _waits(parts, base, 0, step=False)
    if alone is None or alone <= _WAIT * step:
        return f"Loading a batch takes {1000 * (alone or 0.0):,.1f} ms; processes to load would gain nothing.", ()
    if ends - time.perf_counter() < 2 * _LOADED * step:
        return f"Loading a batch takes {1000 * alone:,.1f} ms; no time is left to try processes to load.", ()
    waits = {0: alone} | {count: _waits(parts, base, count, step=True) or alone for count in {recipe.workers, 2} - {0}}
    best = min(waits, key=lambda count: waits[count])
    found = ", ".join(f"{1000 * wait:,.1f} ms with workers={count}" for count, wait in waits.items())
    gains = waits[recipe.workers] - waits[best] > _WAIT * step
    return f"A step waits for its batch {found}.", (("workers", str(best)),) if gains else ()


def _waits(parts: Parts, base: Running, workers: int, *, step: bool) -> float | None:
    """Seconds that it takes to get a batch where so many processes load; None where an epoch is too short to tell.

    step: whether steps are taken in between, while which other processes load.
    """
    recipe = replace(base.recipe, workers=workers)
    accelerator = make_accelerator(recipe)
    windows = iter(training_feed(replace(parts, recipe=recipe), accelerator, recipe.seed)(0))
    waits = []
    for _ in range(_LOADED):
        began = time.perf_counter()
        item = next(windows, None)
        if item is None:
            break
        waits.append(time.perf_counter() - began)
        if step:
            base.trainer.step(item[1])
            wait_for(accelerator.device)
    counted = waits[_STARTING:]
    return statistics.median(counted) if counted else None


def _is_set(recipe: Recipe, settings: Settings) -> bool:
    try:
        return apply_overrides(recipe, words(settings)) == recipe
    except ValueError:  # it is refused, and the table tells why
        return False


def _undoes(more: Settings, kept: Settings) -> bool:
    """Whether settings would take back what was kept: compiling the teacher, where the student is compiled."""
    return ("speed.compile", "teacher") in more and "speed.compile" in dict(kept)


def _has(kind: type[nn.Module], models: Sequence[nn.Module]) -> bool:
    return any(isinstance(module, kind) for model in models for module in model.modules())
