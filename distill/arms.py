"""The run itself and its controls: which there are, where each lies, and the recipe of each under the same budget."""

from dataclasses import replace
from pathlib import Path

from distill.data import Corpus
from distill.losses import BinaryCrossEntropy, CrossEntropy, MaskedLanguageModel
from distill.losses.kinds import Task
from distill.plan import Plan, Term
from distill.recipe import Recipe, Stage


def main_arm(recipe: Recipe) -> str:
    """The name of the run itself among its controls: a run without a teacher trains its student plainly."""
    return "plain" if recipe.teacher is None else "transferred"


def arm_folder(folder: Path, recipe: Recipe, arm: str, seed: int) -> Path:
    """Where an arm's student is kept in a run's folder: the run's own of its first seed in the folder itself."""
    return folder if (arm, seed) == (main_arm(recipe), recipe.seed) else folder / "arms" / f"{arm}-{seed}"


def arm_recipe(recipe: Recipe, arm: str, *, several: bool = False) -> Recipe:
    """The recipe of one arm: as it is, or as a control under the same budget.

    Controls learn from the labels alone. The weights of a stage's label terms are scaled to a sum of one, since beside
    a teacher they are often small; a stage without label terms gets those of the other stages, or cross-entropy where
    there are none. What a stage freezes, trains slowly by depth or draws back to its start came from the teacher, so a
    student without its weights trains all of it alike.

    several: whether an example of the data has several labels.
    """
    if arm == main_arm(recipe):
        return replace(recipe, controls=())
    task = {name: term for stage in recipe.all_stages() for name, term in _task_terms(stage.plan).items()}
    usual = BinaryCrossEntropy() if several else CrossEntropy()
    task = task or {"task": Term(MaskedLanguageModel() if isinstance(recipe.data, Corpus) else usual)}
    keeps = arm == "initialized" or recipe.initialize is None or recipe.student.weights is not None
    stages = tuple(_control_stage(stage, task, arm, keeps) for stage in recipe.all_stages())
    first = {"plan": stages[0].plan, "layer_decay": stages[0].layer_decay, "decay_to_start": stages[0].decay_to_start}
    plans = {"stages": stages} if recipe.stages else first
    teacher = {} if arm == "initialized" else {"teacher": None, "initialize": None, "reestimate_batchnorm": None}
    several = any(len(stage.plan) > 1 for stage in stages)
    between = {} if several else {"balance": None, "compare_gradients_every": None}
    unused = {"allow_chance_teacher": False, "teacher_cache": None, "shard_teacher": False}
    speed = {"speed": None if recipe.speed is None else recipe.speed.without_teacher()}
    return replace(recipe, controls=(), **unused, **plans, **teacher, **between, **speed)  # type: ignore[arg-type]


def _task_terms(plan: Plan) -> dict[str, Term]:
    return {name: term for name, term in plan.items() if isinstance(term.loss, Task) and term.weight > 0}


def _scaled(plan: Plan) -> dict[str, Term]:
    total = sum(term.weight for term in plan.values())
    return {name: replace(term, weight=term.weight / total) for name, term in plan.items()}


def _control_stage(stage: Stage, task: Plan, arm: str, keeps_start: bool) -> Stage:
    plan = _scaled(_task_terms(stage.plan) or task)
    control = replace(stage, plan=plan, freeze=stage.freeze if arm == "initialized" else ())
    return control if keeps_start else replace(control, layer_decay=None, decay_to_start=None)
