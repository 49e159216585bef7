"""A run before it is run, as text: both models, each arrow with shapes and head, what is not trained, memory, steps."""

import io
from collections.abc import Mapping, Sequence

from accelerate import Accelerator
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import nn

from distill.build import State, back_to_cpu, carry_heads, connected, freeze, training_feed
from distill.data import Splits, TextSplits
from distill.measure import multiply_adds, parameters, training_memory, weight_bytes
from distill.optimize import optimizer_of, start_of
from distill.pair import answers_of
from distill.plan import Arrow, arrows
from distill.prepare import Parts, cost_batch, open_cache, sample_batch
from distill.recipe import Stage
from distill.sharding import asked_to_shard
from distill.speed import check_models
from distill.taps import taken
from distill.view import Sees, View

_WIDTH = 120


def describe(parts: Parts, accelerator: Accelerator) -> str:
    """What `distill plan` prints and `plan.txt` holds.

    Raises:
        ValueError: a tap, a shape, a head or a freeze pattern does not fit; named.
    """
    back_to_cpu(parts)
    out = Console(file=io.StringIO(), width=_WIDTH, no_color=True)
    recipe, splits = parts.recipe, parts.splits
    out.print(
        f"Run {escape(recipe.name)}: {type(recipe.data).__name__}, "
        f"{_answers(parts)}, "
        f"{len(splits.train)} training, {len(splits.validation)} validation and {len(splits.test)} test examples"
    )
    if isinstance(splits, Splits) and splits.origin:
        out.print(escape(splits.origin))
    out.print(_models(parts))
    for note in parts.notes:
        out.print(f"Note: {escape(note)}")
    if parts.coverage is not None:
        out.print(escape(str(parts.coverage)))
        if parts.coverage.left:
            out.print(f"Left at their own initialisation: {_names([str(tensor) for tensor in parts.coverage.left])}")
    heads: Mapping[str, State] = {}
    for stage in recipe.all_stages():
        heads = _stage(out, parts, stage, accelerator, heads)
    controls = f" beside {' and '.join(recipe.controls)}" if recipe.controls else ""
    seeds = f"{recipe.repeats} seeds" if recipe.repeats > 1 else "one seed"
    out.print(
        f"Over {seeds}{controls}; epochs are chosen on the validation examples, the test examples are read once at "
        f"the end."
    )
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def _answers(parts: Parts) -> str:
    if parts.masked:
        return "hidden tokens"
    return f"{len(parts.splits.classes)} {'labels, several an example' if parts.several else 'classes'}"


def _models(parts: Parts) -> Table:
    table = Table(title="Models", title_justify="left")
    for name in ("", "source", "weights"):
        table.add_column(name)
    for name in ("parameters", "multiply-adds", "view"):
        table.add_column(name, justify="right")
    models = [("student", parts.recipe.student, parts.student, parts.student_view)]
    if parts.teacher is not None and parts.recipe.teacher is not None:
        models.insert(0, ("teacher", parts.recipe.teacher, parts.teacher, parts.teacher_view))
    for role, model, module, view in models:
        cost = _multiply_adds(module, view, parts)
        weights = escape(model.weights or "none")
        table.add_row(role, escape(model.source), weights, f"{parameters(module):,}", cost, _view(view, parts))
    return table


def _multiply_adds(module: nn.Module, view: Sees, parts: Parts) -> str:
    count = multiply_adds(module, taken(module, view.module()(cost_batch(parts.splits, 1).inputs)))
    return "not counted" if count is None else f"{count / 1e6:,.1f} M"


def _view(view: Sees, parts: Parts) -> str:
    if isinstance(parts.splits, TextSplits):
        return f"{parts.splits.max_length} tokens"
    assert isinstance(view, View) and isinstance(parts.splits, Splits)
    channels, *sides = parts.splits.train[(0, 0)].image.shape
    height, width = (view.size, view.size) if view.size is not None else sides
    return f"{max(channels, len(view.mean))}x{height}x{width}"


def _stage(
    out: Console, parts: Parts, stage: Stage, accelerator: Accelerator, before: Mapping[str, State]
) -> Mapping[str, State]:
    """Prints a stage; `before` holds the states of the heads of the one before it. Returns its own."""
    recipe, splits = parts.recipe, parts.splits
    freeze(parts.student, stage.freeze)
    frozen = [name for name, parameter in parts.student.named_parameters() if not parameter.requires_grad]
    sample = sample_batch(splits)
    teacher, learner = connected(parts, stage, sample)
    carried = carry_heads(learner, before)
    out.print(_arrows(stage, arrows(teacher, learner, stage.plan, sample)))
    if frozen:
        out.print(f"Frozen by the recipe: {_names(frozen)}")
    if learner.unreached:
        out.print(f"Warning: no loss reaches {_names(learner.unreached)}; they keep their values.")
    if carried:
        out.print(f"Heads that go on from the stage before: {_names(carried)}")
    if learner.balance is not None:
        out.print(
            f"The terms are weighed against each other by {escape(str(recipe.balance))}, on top of their weights."
        )
    for name, term in stage.plan.items():
        if term.schedule is not None:
            out.print(f"The weight of {name} moves: {escape(str(term.schedule))}")
    processes, batches = accelerator.num_processes, training_feed(parts, accelerator, recipe.seed).batches
    share = -(-recipe.batch_size // processes)
    micro = min(recipe.micro_batch_bound or share, share)
    most = f"{micro}, as many as fit the memory" if recipe.micro_batch_size == "auto" else micro
    precision = {"no": "float32"}.get(accelerator.mixed_precision, accelerator.mixed_precision)
    out.print(
        f"{stage.epochs} epochs of {batches.steps} steps; batch of {recipe.batch_size} over {processes} "
        f"process{'es' if processes > 1 else ''} in micro-batches of at most {most}; "
        f"{escape(str(stage.optimizer))}, {escape(str(stage.schedule))}, precision {precision}"
    )
    if recipe.teacher_cache is not None and teacher is not None:
        cache, sentence = open_cache(parts, teacher, sample, seed=recipe.seed, precision=accelerator.mixed_precision)
        out.print(escape(sentence))
        asked = min(cache.views, stage.epochs) if cache.kept() < cache.examples * cache.views else 0
        out.print(f"The teacher is asked in {asked} of {stage.epochs} epochs at most.")
    if recipe.speed is not None:
        check_models(recipe.speed, teacher, learner, sample, accelerator.device)
        out.print(f"Made cheaper by {escape(str(recipe.speed))}.")
    sharded = asked_to_shard()
    if sharded == "FSDP":
        both = "the student and the teacher" if recipe.shard_teacher and teacher is not None else "the student"
        out.print(f"Each process keeps a share of {both} (FSDP 2).")
    elif sharded == "DeepSpeed":
        out.print("Each process keeps a share of the student's gradients and optimizer state (DeepSpeed ZeRO stage 2).")
    if stage.layer_decay is not None:
        rates = [group["lr"] for group in optimizer_of(learner, stage, parts.started).param_groups]
        out.print(f"Learning rates by depth: {min(rates):.3g} to {max(rates):.3g}, {stage.layer_decay:g} a block.")
    start = start_of(learner, stage, parts.started)
    if start is not None:
        drawn = sum(parameter.numel() for parameter in start.parameters.values())
        out.print(
            f"Drawn to the stage's start with weight {start.weight:g}: {len(start.parameters)} tensors of {drawn:,} "
            "parameters; the rest keep the optimizer's weight decay."
        )
    if batches.left_out:
        out.print(f"Note: {batches.left_out} examples, others in each epoch, are left out: fewer than processes.")
    coupled = [name for name, term in stage.plan.items() if term.couples]
    if coupled and batches.cuts(0) > 1:
        out.print(
            f"Note: {_names(coupled)} relate the whole batch over its micro-batches, so the student runs forward "
            f"twice a step."
        )
    longest = cost_batch(splits, len(sample))
    arguments = {"inputs": longest.inputs, "targets": answers_of(teacher, longest.inputs), "batch": longest}
    memory = training_memory(learner, arguments, optimizer_states=_states(stage, learner), batch_size=micro)
    held = 0 if teacher is None else weight_bytes(teacher)
    out.print(
        f"Memory for training in float32, estimated: {_size(memory.total + held)} "
        f"({_size(memory.activations)} activations, {_size(memory.parameters + memory.gradients + memory.optimizer)} "
        f"weights, "
        f"gradients and optimizer, {_size(held)} teacher)"
    )
    learner.student.close()
    if teacher is not None:
        teacher.tapped.close()
    return {name: head.state_dict() for name, head in learner.heads.items()}


def _arrows(stage: Stage, rows: Sequence[Arrow]) -> Table:
    table = Table(title=f"Stage {escape(stage.name)}", title_justify="left")
    for column in ("term", "weight", "loss", "student", "shape", "teacher", "shape", "head", "parameters"):
        table.add_column(column, overflow="fold", justify="right" if column in ("weight", "parameters") else "left")
    for row in rows:
        cells = (row.term, f"{row.weight:g}", row.loss, row.student, row.student_shape, row.teacher, row.teacher_shape)
        table.add_row(*map(escape, cells), escape(row.head), f"{row.head_parameters:,}" if row.head else "")
    return table


def _states(stage: Stage, learner: nn.Module) -> int:
    """Values that the optimizer keeps for each parameter: two of Adam's kind, one with momentum."""
    defaults = stage.optimizer.build(learner.parameters()).defaults
    return 2 if "betas" in defaults else int(defaults.get("momentum", 0) > 0)


def _names(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return escape(", ".join(names[:most])) + more


def _size(count: float) -> str:
    return f"{count / 2**20:,.1f} MiB"
