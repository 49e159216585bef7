from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from distill.data import Digits
from distill.losses import KD, CrossEntropy, Hint
from distill.plan import Term
from distill.recipe import SGD, Constant, Cosine, Model, Recipe, Stage, Steps
from distill.weighting import Between, GradNorm, Ramp

STUDENT = Model("distill.models.cifar:resnet8")
TASK = {"task": Term(CrossEntropy())}
KD_PLAN = {**TASK, "kd": Term(KD())}


def test_a_plan_is_one_stage(recipe: Recipe) -> None:
    (stage,) = recipe.all_stages()
    assert (stage.plan, stage.epochs, stage.optimizer) == (recipe.plan, recipe.epochs, recipe.optimizer)
    assert stage.schedule == recipe.schedule


def test_stages_stay_as_they_are(staged: Recipe) -> None:
    assert staged.all_stages() == staged.stages


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "name is the run's folder"),
        ({"name": "runs/digits"}, "a plain name without '/'"),
        ({"name": "runs\\digits"}, "a plain name"),
        ({"name": ".."}, "a plain name"),
        ({"name": ".hidden"}, "a plain name"),
        ({"name": "-x"}, "a plain name"),
        ({"name": "a\0b"}, "a plain name"),
        ({"name": "x" * 201}, "a plain name"),
        ({"name": 3}, "name: expected text, got 3"),
        ({"plan": {}}, "needs a plan"),
        ({"optimizer": None}, "A recipe with a plan needs optimizer"),
        ({"epochs": None}, "A recipe with a plan needs epochs"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"epochs": 2.0}, "epochs: expected a whole number or none, got 2.0"),
        ({"epochs": True}, "epochs: expected a whole number or none, got True"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"micro_batch_size": 0}, "micro_batch_size must be at least 1"),
        ({"micro_batch_size": 65}, "micro_batch_size 65 is above batch_size 64"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"repeats": 0}, "repeats must be at least 1"),
        ({"log_every": 0}, "log_every must be at least 1"),
        ({"keep_checkpoints": 0}, "keep_checkpoints must be at least 1"),
        ({"workers": -1}, "workers must be 0 or more"),
        ({"seed": -1}, "seed lies in"),
        ({"seed": 2**32}, "seed lies in"),
        ({"clip": 0.0}, "clip must be above zero"),
        ({"layer_decay": 0.0}, r"layer_decay lies in \(0, 1\], got 0.0"),
        ({"layer_decay": 1.5}, r"layer_decay lies in \(0, 1\], got 1.5"),
        ({"decay_to_start": 0.0}, "decay_to_start must be above zero, got 0.0"),
        ({"decay_to_start": 0.1}, "decay_to_start has no effect on a student without weights"),
        ({"reestimate_batchnorm": 0}, "reestimate_batchnorm must be at least 1, got 0"),
        ({"reestimate_batchnorm": 4}, "reestimate_batchnorm has no effect without initialize"),
        ({"ema": 1.0}, r"ema lies in \(0, 1\)"),
        ({"ema": 0.0}, r"ema lies in \(0, 1\)"),
        ({"precision": "fp8"}, "precision: expected 'float32' or 'bf16' or 'fp16' or none, got 'fp8'"),
        ({"data": Digits}, r"data: expected a Data, got the class Digits. Write Digits\(\)."),
        ({"data": "digits"}, "data: expected a Data, got 'digits'"),
        ({"student": "resnet8"}, "student: expected a Model, got 'resnet8'"),
        ({"optimizer": Cosine()}, "optimizer: expected an Optimizer or none, got Cosine"),
        ({"schedule": SGD(lr=0.1)}, "schedule: expected a Schedule, got SGD"),
        ({"schedule": Cosine(warmup_epochs=10)}, "schedule: a warm-up of 10 epochs does not end within 10"),
        ({"schedule": Steps((5, 10))}, "schedule: the milestone at epoch 10 has no effect in 10 epochs"),
        ({"plan": {"my task": Term(CrossEntropy())}}, "A term is named like a variable"),
        ({"plan": {"double": Term(CrossEntropy())}}, "A term can't be named 'double'"),
        ({"plan": {1: Term(CrossEntropy())}}, "plan: expected a mapping of names to Term, got"),
        ({"plan": {"task": CrossEntropy()}}, "plan: expected a mapping of names to Term, got"),
        ({"plan": {"task": Term(CrossEntropy(), weight=-1.0)}}, "plan.task.weight must be zero or more, got -1.0"),
        ({"plan": {"task": Term(CrossEntropy(), weight=float("nan"))}}, "plan.task.weight: expected a number, got nan"),
        ({"plan": {"task": Term(CrossEntropy(), weight="1")}}, "plan.task.weight: expected a number, got '1'"),
        ({"plan": {"task": Term(CrossEntropy(), weight=0.0)}}, "All terms of the plan have weight 0"),
        ({"plan": {"task": Term(CrossEntropy)}}, r"plan.task.loss: expected a Loss, got the class CrossEntropy"),
        (
            {"plan": {"task": Term(CrossEntropy(), schedule=Ramp(11))}},
            "plan.task.schedule still changes at epoch 11 of 10",
        ),
        (
            {"plan": {"task": Term(CrossEntropy(), schedule=Between(start=10))}},
            "plan.task.schedule still changes at epoch 10 of 10",
        ),
        (
            {"plan": {"task": Term(CrossEntropy(), schedule=Between(start=2))}},
            "All terms of the plan are off in epoch 1",
        ),
        ({"balance": GradNorm()}, "balance has no effect on a plan of one term"),
        ({"compare_gradients_every": 5}, "compare_gradients_every has no effect on a plan of one term"),
        ({"compare_gradients_every": 0}, "compare_gradients_every must be at least 1, got 0"),
        ({"balance": "gradnorm"}, "balance: expected a Balance or none, got 'gradnorm'"),
        ({"initialize": "select"}, "initialize: expected an Initializer or none, got 'select'"),
        ({"allow_chance_teacher": True}, "allow_chance_teacher has no effect without a teacher"),
        ({"controls": ("plain",)}, "controls has no effect without a teacher"),
        ({"controls": ["plain"]}, r"controls: expected a tuple .* got \['plain'\]. Write a tuple: \('plain',\)."),
        ({"controls": ("none",)}, "controls: expected a tuple"),
        ({"plan": KD_PLAN}, "plan.kd compares with a teacher and there is none"),
        ({"teacher": STUDENT}, "teacher is used by nothing"),
        ({"stages": (Stage("one", TASK, 1, SGD(0.1)),)}, "plan or stages, got both"),
    ],
)
def test_a_recipe_refuses_what_makes_no_sense(plain: Recipe, changes: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        replace(plain, **changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"controls": ("plain", "plain")}, "controls names each control once"),
        ({"initialize": None}, "'initialized' starts from the teacher's weights"),
        ({"teacher": None}, "initialize has no effect without a teacher"),
        ({"plan": {"task": Term(CrossEntropy())}}, "'initialized' would repeat the run"),
        ({"plan": {"kd": Term(KD(), teacher=None)}}, "plan.kd compares with a teacher and its teacher tap is None"),
    ],
)
def test_a_transfer_refuses_what_makes_no_sense(recipe: Recipe, changes: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(recipe, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": SGD(0.1)}, "optimizer has no effect beside stages"),
        ({"epochs": 3}, "epochs has no effect beside stages"),
        ({"schedule": Cosine()}, "schedule has no effect beside stages"),
        ({"layer_decay": 0.5}, "layer_decay has no effect beside stages"),
        ({"decay_to_start": 0.5}, "decay_to_start has no effect beside stages"),
        ({"stages": (Stage("a", KD_PLAN, 1, SGD(0.1)),) * 2}, "Each stage has its own name, got a, a"),
        ({"teacher": None, "initialize": None, "controls": ()}, "stages.transfer.plan.kd compares with a teacher"),
    ],
)
def test_stages_refuse_what_makes_no_sense(staged: Recipe, changes: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(staged, **changes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Stage("1st", TASK, 1, SGD(0.1)), "A stage is named in letters"),
        (lambda: Stage("one", TASK, 0, SGD(0.1)), "Stage 'one': epochs must be at least 1"),
        (lambda: Stage("one", {}, 1, SGD(0.1)), "Stage 'one': plan has no terms"),
        (lambda: Stage("one", TASK, 1, SGD(0.1), layer_decay=2.0), r"Stage 'one': layer_decay lies in \(0, 1\]"),
        (lambda: Stage("one", TASK, 1, SGD(0.1), decay_to_start=-1.0), "Stage 'one': decay_to_start must be above"),
        (lambda: Stage("one", TASK, 1, SGD(0.1), freeze=("",)), "Stage 'one': freeze holds different patterns"),
        (lambda: Stage("one", TASK, 1, SGD(0.1), freeze=("fc", "fc")), "Stage 'one': freeze holds different patterns"),
        (lambda: Stage("one", TASK, 1, SGD(0.1), freeze="fc"), "freeze: expected a tuple"),
        (lambda: Stage("one", TASK, 1, None), "optimizer: expected an Optimizer, got None"),
    ],
)
def test_a_stage_refuses_what_makes_no_sense(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Model(""), "source '' names no model"),
        (
            lambda: Model("resnet18"),
            "source 'resnet18' names no model. Write 'package.module:factory', 'torchvision:NAME'",
        ),
        (lambda: Model("torchvision:"), "names no model"),
        (lambda: Model("torchvision:resnet18", weights=""), "weights is empty"),
        (lambda: Model("torchvision:resnet18", trust=True), "trust has no effect on source 'torchvision:resnet18'"),
        (lambda: Model("a:b", arguments={"num-layers": 3}), "arguments are named as in Python, got 'num-layers'"),
        (
            lambda: Model("a:b", arguments={"layers": [2, 2]}),
            r"arguments.layers: .* got \[2, 2\]. Write a tuple: \(2, 2\)",
        ),
        (lambda: Model("a:b", arguments={"activation": print}), "arguments.activation: a recipe holds numbers, text"),
        (
            lambda: Model("a:b", arguments={"scale": float("inf")}),
            "arguments.scale: a recipe holds finite numbers, got inf",
        ),
        (lambda: Model("a:b", arguments={"inner": {1: 2}}), "arguments.inner, a name in it: expected text, got 1"),
    ],
)
def test_a_model_refuses_what_makes_no_sense(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_hub_model_may_be_trusted() -> None:
    assert Model("hub:owner/repository:entry", trust=True).trust


def test_an_own_loss_must_be_a_frozen_dataclass(recipe: Recipe) -> None:
    @dataclass
    class Mine:
        def __call__(self, student, teacher, batch):
            raise NotImplementedError

    with pytest.raises(
        ValueError, match=r"plan.mine.loss: expected a Loss.*Declare Mine with @dataclass\(frozen=True\)"
    ):
        replace(recipe, plan={"mine": Term(Mine())})
    with pytest.raises(ValueError, match=r"plan.mine.loss: expected a Loss, got <function"):
        replace(recipe, plan={"mine": Term(lambda student, teacher, batch: student)})


def test_a_term_may_be_switched_off_by_its_weight(recipe: Recipe) -> None:
    hint = replace(recipe.plan["hint"], weight=0.0)
    assert replace(recipe, plan={**recipe.plan, "hint": hint}).plan["hint"].weight == 0.0


def test_stages_share_one_teacher_and_may_differ_in_the_rest() -> None:
    stages = (Stage("a", {"hint": Term(Hint())}, 1, SGD(0.1)), Stage("b", TASK, 1, SGD(0.1), Constant()))
    assert Recipe("x", Digits(), STUDENT, teacher=STUDENT, stages=stages).all_stages() == stages
