import shlex
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from distill.data import Cifar10, Digits, Mix, Pets
from distill.heads import MLP, Linear
from distill.initialize import SelectWeights
from distill.losses import KD, CrossEntropy, Hint
from distill.plan import Term
from distill.recipe import SGD, AdamW, Constant, Cosine, LinearDecay, Recipe, Steps, apply_overrides, override_names
from distill.view import View
from distill.weighting import Ramp


def at(recipe: Any, path: str) -> Any:
    """The value at a dotted path of attributes and keys."""
    for name in path.split("."):
        recipe = recipe[name] if isinstance(recipe, dict) else getattr(recipe, name)
    return recipe


@pytest.mark.parametrize(
    ("words", "path", "value"),
    [
        ("--epochs 3", "epochs", 3),
        ("--epochs=3", "epochs", 3),
        ("--name again", "name", "again"),
        ("--name 3", "name", "3"),
        ("--plan.kd.weight 0.5", "plan.kd.weight", 0.5),
        ("--plan.kd.weight 2", "plan.kd.weight", 2.0),
        ("--plan.kd.weight 1e-3", "plan.kd.weight", 1e-3),
        ("--plan.kd.loss.temperature 2", "plan.kd.loss.temperature", 2.0),
        ("--plan.kd.loss KD(2)", "plan.kd.loss", KD(temperature=2.0)),
        ("--plan.kd.loss Hint", "plan.kd.loss", Hint()),
        ("--plan.kd.schedule none", "plan.kd.schedule", None),
        ("--plan.hint.schedule Ramp(4)", "plan.hint.schedule", Ramp(4)),
        ("--plan.hint.head MLP(layers=2,activation='gelu')", "plan.hint.head", MLP(layers=2, activation="gelu")),
        ("--plan.hint.head Linear(False)", "plan.hint.head", Linear(bias=False)),
        ("--plan.hint.student layer3", "plan.hint.student", "layer3"),
        ("--plan.layers.student 1,2", "plan.layers.student", ("1", "2")),
        ("--plan.layers.student layer1,layer3", "plan.layers.student", ("layer1", "layer3")),
        ("--plan.kd Term(KD(3),weight=2,schedule=Ramp(1))", "plan.kd", Term(KD(3.0), weight=2.0, schedule=Ramp(1))),
        ("--student.arguments.width 4", "student.arguments.width", 4),
        ("--student.arguments.new-one 0.5", "student.arguments.new_one", 0.5),
        ("--student.arguments.act relu", "student.arguments.act", "relu"),
        ("--student.arguments.flag true", "student.arguments.flag", True),
        ("--student.arguments.blocks 2,2,2", "student.arguments.blocks", (2, 2, 2)),
        ("--student.arguments.blocks (2,)", "student.arguments.blocks", (2,)),
        ("--student.arguments.blocks []", "student.arguments.blocks", ()),
        ("""--student.arguments.inner '{"a": [1, null]}'""", "student.arguments.inner", {"a": (1, None)}),
        ("--student.view.size 24", "student.view.size", 24),
        ("--teacher.view.size 24", "teacher.view", View(size=24)),
        ("--teacher.weights=runs/x", "teacher.weights", "runs/x"),
        ("--teacher.weights none", "teacher.weights", None),
        ("--teacher Model('torchvision:resnet18',weights='DEFAULT')", "teacher.source", "torchvision:resnet18"),
        ("--data Cifar10", "data", Cifar10()),
        ("--data.augment", "data.augment", True),
        ("--data.augment=false", "data.augment", False),
        ("--optimizer AdamW(lr=0.001)", "optimizer", AdamW(lr=0.001)),
        ("--optimizer AdamW(lr=1e-3,betas=(0.8,0.9))", "optimizer", AdamW(lr=0.001, betas=(0.8, 0.9))),
        ("""--optimizer '{"type":"AdamW","lr":0.001}'""", "optimizer", AdamW(lr=0.001)),
        ("--optimizer distill.recipe.AdamW(0.001)", "optimizer", AdamW(lr=0.001)),
        ("--optimizer AdamW(lr=0.1) --optimizer.lr 0.2", "optimizer", AdamW(lr=0.2)),
        ("--schedule Cosine --schedule.final 0.1", "schedule", Cosine(final=0.1)),
        ("--schedule LinearDecay(final=0.5)", "schedule", LinearDecay(final=0.5)),
        ("--schedule Steps((10,20))", "schedule", Steps((10.0, 20.0))),
        ("--mix none", "mix", None),
        ("--mix Mix(cutmix=1)", "mix", Mix(cutmix=1.0)),
        ("--clip none --ema none", "clip", None),
        ("--precision fp16", "precision", "fp16"),
        ("--controls plain", "controls", ("plain",)),
        ("--controls plain,initialized", "controls", ("plain", "initialized")),
        ("--controls none", "controls", ()),
        ("--allow-chance-teacher", "allow_chance_teacher", True),
        ("--allow_chance_teacher --epochs 3", "allow_chance_teacher", True),
        ("--allow-chance-teacher false", "allow_chance_teacher", False),
        ("--allow-chance-teacher true", "allow_chance_teacher", True),
        ("--micro-batch-size none", "micro_batch_size", None),
        ("--initialize none --controls plain", "initialize", None),
    ],
)
def test_an_override_sets_its_value_with_the_type_of_the_setting(
    recipe: Recipe, words: str, path: str, value: Any
) -> None:
    found = at(apply_overrides(recipe, shlex.split(words) if "'{" in words else words.split()), path)
    assert found == value
    assert type(found) is type(value)


def test_the_recipe_itself_and_all_else_stay_as_they_are(recipe: Recipe) -> None:
    before = repr(recipe)
    after = apply_overrides(recipe, ["--plan.kd.weight", "0.5"])
    assert repr(recipe) == before
    assert list(after.plan) == list(recipe.plan)
    assert replace(after, plan=recipe.plan) == recipe
    assert apply_overrides(recipe, []) == recipe


def test_settings_that_only_make_sense_together_change_together(recipe: Recipe) -> None:
    words = ["--initialize", "none", "--controls", "plain", "--schedule.warmup-epochs=40", "--epochs", "50"]
    assert apply_overrides(recipe, words) == apply_overrides(recipe, [*words[4:], *words[:4]])


@pytest.mark.parametrize("name", ["stages.1.epochs", "stages.fine-tune.epochs", "stages.fine_tune.epochs"])
def test_a_stage_goes_by_its_number_or_its_name(staged: Recipe, name: str) -> None:
    after = apply_overrides(staged, [f"--{name}", "9", "--stages.transfer.plan.kd.weight", "3"])
    assert [stage.epochs for stage in after.stages] == [4, 9]
    assert after.stages[0].plan["kd"].weight == 3.0
    assert apply_overrides(staged, ["--stages.0.optimizer.betas.1", "0.5"]).stages[0].optimizer == AdamW(
        1e-3, (0.9, 0.5)
    )


def test_an_absent_object_begins_with_its_defaults(plain: Recipe) -> None:
    assert apply_overrides(plain, ["--mix.mixup", "0.2"]).mix == Mix(mixup=0.2)
    words = "--teacher.source a:b --teacher.arguments.width 4 --initialize SelectWeights"
    after = apply_overrides(plain, words.split())
    assert after.teacher is not None and after.teacher.arguments == {"width": 4}
    assert after.initialize == SelectWeights()
    with pytest.raises(ValueError, match="teacher: Model needs source: text"):
        apply_overrides(plain, ["--teacher.weights", "runs/x"])


OWN = """
from dataclasses import dataclass
from distill.losses import KD

@dataclass(frozen=True)
class Own(KD):
    pass
"""


def test_own_classes_need_leave_to_be_imported(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_losses.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    for text in ("own_losses:Own(temperature=2)", "own_losses.Own(2.0)"):
        with pytest.raises(
            ValueError, match=r"plan.kd.loss: own_losses:Own is not part of distill.*--allow-import own_losses"
        ):
            apply_overrides(recipe, ["--plan.kd.loss", text])
        after = apply_overrides(recipe, ["--plan.kd.loss", text], allow_import=("own_losses",))
        assert repr(after.plan["kd"].loss) == "Own(temperature=2.0, standardize=False)"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--epoch 3", "Recipe has no setting 'epoch'. Nearest: epochs"),
        ("--lr 3", "Recipe has no setting 'lr'. Nearest: optimizer.lr."),
        ("--plan.kdd.weight 3", "plan has no term 'kdd'. Terms: task, kd, hint, samples, layers."),
        ("--plan.kdd Term(KD())", "plan has no term 'kdd'. Terms: task, kd"),
        ("--plan.kd.loss.temprature 2", "KD has no setting 'temprature'. Nearest: temperature."),
        ("--plan.kd.loss.temperature.x 2", "plan.kd.loss.temperature is a number, it has no setting 'x'."),
        ("--stages.0.epochs 2", "stages has no stage '0'. Stages: none."),
        ("--epochs three", "epochs: expected a whole number or none, got 'three'."),
        ("--epochs 3.0", "epochs: expected a whole number or none, got '3.0'."),
        ("--epochs true", "epochs: expected a whole number or none, got 'true'."),
        ("--epochs", "epochs needs a value: a whole number or none. Write --epochs VALUE."),
        ("--epochs --seed 3", "epochs needs a value"),
        ("--epochs=", "epochs: expected a whole number or none, got ''."),
        ("--epochs 0", "epochs must be at least 1, got 0."),
        ("--epochs 3 --epochs 4", "--epochs is given twice. Give it once."),
        ("--batch-size 3 --batch_size 4", "--batch_size is given twice"),
        ("3", "Unexpected word '3'. Settings are written --name value."),
        ("-epochs 3", "Unexpected word '-epochs'"),
        ("--allow-chance-teacher maybe", "Unexpected word 'maybe'"),
        ("--allow-chance-teacher=maybe", "allow_chance_teacher: expected true or false, got 'maybe'."),
        ("--plan.kd.weight nan", "plan.kd.weight: expected a number, got 'nan'."),
        ("--plan.kd.weight inf", "plan.kd.weight: expected a number, got 'inf'."),
        ("--plan.kd.weight -1", "plan.kd.weight must be zero or more, got -1.0."),
        ("--plan.kd.loss.temperature -1", "plan.kd.loss: KD.temperature"),
        ("--controls plane", "controls: expected a tuple ('plain' or 'initialized', ...), got 'plane'."),
        ("--precision fp8", "precision: expected 'float32' or 'bf16' or 'fp16' or none, got 'fp8'."),
        ("--optimizer adam", "optimizer: distill has no type 'adam' here. Nearest: AdamW"),
        ("--optimizer AdamW", "optimizer: AdamW needs lr: a number."),
        ("--optimizer AdamW(rate=1)", "optimizer: AdamW has no setting 'rate'. Nearest: "),
        ("--optimizer AdamW(lr='x')", "optimizer.lr: expected a number, got 'x'."),
        ("--optimizer AdamW(lr=oops)", "optimizer.lr: distill has no type 'oops' here."),
        ("--optimizer AdamW(lr=1+open('x'))", "optimizer.lr: \"1 + open('x')\" is not a plain value."),
        ("--optimizer AdamW(1,2,3,4,5)", "optimizer: AdamW takes lr, betas, weight_decay, eps. Name each setting"),
        ("--optimizer AdamW(**x)", "optimizer: AdamW takes lr"),
        ("--optimizer AdamW(lr=1,lr=2)", "optimizer: AdamW takes lr"),
        ("--optimizer AdamW(1,lr=2)", "optimizer: AdamW takes lr"),
        ("--student.arguments.x {'a':1}", "student.arguments.x: cannot read"),
        ("--student.arguments.x (1,{2})", "student.arguments.x.1: a recipe holds numbers, text, tuples"),
        ("--student.arguments.x (1,{[2]})", "student.arguments.x.1: '{[2]}' is not a plain value"),
        ("--optimizer AdamW(lr=1", "optimizer: expected an Optimizer or none, got 'AdamW(lr=1'."),
        ("--optimizer AdamW(lr=(1)", "optimizer: cannot read 'AdamW(lr=(1)', check its brackets and quotes."),
        ("--optimizer KD()", "optimizer: expected an Optimizer or none, got 'KD()'."),
        ('--optimizer {"type":"AdamW"', 'optimizer: cannot read \'{"type":"AdamW"\', check its brackets and quotes.'),
        ("--optimizer __import__('os').system('x')", "optimizer: "),
        ("--teacher none", "initialize has no effect without a teacher"),
        ("--student.arguments.x nan", "student.arguments.x: a recipe holds finite numbers, got nan."),
        ("--plan {}", "A recipe needs a plan"),
        ("--", "Recipe has no setting ''."),
    ],
)
def test_a_wrong_override_is_named_in_one_line_with_the_way_out(recipe: Recipe, words: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        apply_overrides(recipe, words.split())
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_settings_of_an_absent_protocol_are_refused(plain: Recipe) -> None:
    with pytest.raises(
        ValueError, match=r"initialize is none, so it has no settings\. Give the whole: --initialize 'Name"
    ):
        apply_overrides(plain, ["--initialize.share", "1"])


def test_a_wrong_stage_is_named(staged: Recipe) -> None:
    with pytest.raises(ValueError, match=r"stages has no stage 'tune'. Stages: 0 \(transfer\), 1 \(fine-tune\)."):
        apply_overrides(staged, ["--stages.tune.epochs", "3"])


@pytest.mark.parametrize(
    "text", ["[" * 400 + "]" * 400, "(" * 100 + ")" * 100, "[" * 100_000, "9" * 5000, "-" * 2000 + "1"]
)
def test_monstrous_values_are_refused_in_one_line(recipe: Recipe, text: str) -> None:
    for name in ("--epochs", "--optimizer", "--student.view"):
        with pytest.raises(ValueError) as caught:
            apply_overrides(recipe, [f"{name}={text}"])
        assert len(str(caught.value)) < 200


def test_deep_nesting_is_read_or_refused(recipe: Recipe) -> None:
    refused = 0
    for depth in (*range(10, 1000, 30), 100_000):
        try:
            apply_overrides(recipe, [f"--student.arguments.x={'[' * depth}1{']' * depth}"])
        except ValueError as error:
            refused += 1
            assert len(str(error)) < 200
    assert 0 < refused < 34


def test_every_setting_is_listed_with_its_type_value_and_meaning(recipe: Recipe, staged: Recipe) -> None:
    listed = {setting.name: setting for setting in override_names(recipe)}
    assert {field.name for field in fields(Recipe)} <= set(listed)
    assert all(listed[field.name].meaning for field in fields(Recipe))
    assert (listed["epochs"].takes, listed["epochs"].value) == ("a whole number or none", "30")
    assert (listed["plan.kd.weight"].takes, listed["plan.kd.weight"].value) == ("a number", "0.9")
    assert listed["optimizer"].value == "SGD"
    assert listed["optimizer.lr"].meaning == "learning rate that the schedule multiplies."
    assert listed["controls"].value == "plain,initialized"
    inherited = {setting.name: setting.meaning for setting in override_names(replace(recipe, data=Pets()))}
    assert inherited["data.size"].startswith("side in pixels")
    assert "student.arguments.width" in listed
    assert "stages.fine_tune.optimizer.lr" in {setting.name for setting in override_names(staged)}


def test_every_listed_setting_can_be_overridden_with_its_own_value(recipe: Recipe, staged: Recipe) -> None:
    for example in (recipe, staged):
        plain = [setting for setting in override_names(example) if not setting.value[:1].isupper()]
        kept = [setting for setting in plain if setting.name not in ("plan", "stages", "student.arguments.inner")]
        kept = [
            setting for setting in kept if not setting.name.endswith((".plan", ".arguments", "inner", "type", "deep"))
        ]
        assert len(kept) > 40
        assert apply_overrides(example, [f"--{setting.name}={setting.value}" for setting in kept]) == example


def test_the_examples_of_this_test_differ_from_the_defaults(recipe: Recipe) -> None:
    assert recipe.data == Digits(augment=False) and recipe.schedule != Constant() and recipe.optimizer != SGD(lr=0.2)
    assert recipe.plan["task"].loss != CrossEntropy()
