import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from distill.plan import Term
from distill.recipe import Model, Recipe, from_json, to_json
from distill.recipe.classes import exports

MINE = '''
from dataclasses import dataclass
from distill.losses import KD

@dataclass(frozen=True)
class Mine:
    """A loss with an object inside."""
    inner: KD = KD(temperature=2.0)
    pairs: tuple[tuple[str, float], ...] = (("a", 1.0),)
    def __call__(self, student, teacher, batch):
        return self.inner(student, teacher, batch)

@dataclass
class Loose:
    def __call__(self, student, teacher, batch):
        return student

not_a_class = 3
'''


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A user's module with losses of his own."""
    (tmp_path / "my_losses.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    import my_losses

    yield my_losses
    del sys.modules["my_losses"]


def changed(recipe: Recipe, change: Callable[[Any], None]) -> str:
    tree = json.loads(to_json(recipe))
    change(tree)
    return json.dumps(tree)


@pytest.mark.parametrize("name", ["recipe", "plain", "staged"])
def test_a_recipe_comes_back_equal_from_json(name: str, request: pytest.FixtureRequest) -> None:
    recipe = request.getfixturevalue(name)
    again = from_json(to_json(recipe))
    assert again == recipe
    assert to_json(again) == to_json(recipe)
    assert [list(stage.plan) for stage in again.all_stages()] == [list(stage.plan) for stage in recipe.all_stages()]


def test_json_names_types_as_distill_exports_them(recipe: Recipe) -> None:
    tree = json.loads(to_json(recipe))
    assert tree["type"] == "Recipe"
    assert tree["plan"]["kd"]["loss"] == {"type": "KD", "temperature": 4.0, "standardize": False}
    assert tree["plan"]["layers"]["student"] == ["layer1", "layer2"]


def test_a_head_and_a_schedule_have_names_of_their_own(recipe: Recipe) -> None:
    again = from_json(to_json(recipe))
    names = (type(again.schedule).__name__, type(again.plan["samples"].head).__name__)
    assert names == ("LinearDecay", "Linear")
    assert {"LinearDecay", "Linear"} <= set(exports())


def test_tuples_stay_tuples_and_whole_numbers_stay_whole(recipe: Recipe) -> None:
    arguments = from_json(to_json(recipe)).student.arguments
    assert arguments == {"width": 8, "blocks": (1, 1, 1), "inner": {"type": "x", "deep": (0.5, None, True)}}
    assert type(arguments["width"]) is int and type(arguments["blocks"]) is tuple


def test_a_mapping_that_looks_like_an_object_stays_a_mapping(plain: Recipe) -> None:
    looks = {"type": "mapping", "items": {"type": "KD"}}
    recipe = replace(plain, student=Model("a:b", arguments={"type": "KD", "inner": looks}))
    assert from_json(to_json(recipe)) == recipe


def test_defaults_may_be_left_out(plain: Recipe) -> None:
    def shorten(tree: Any) -> None:
        for name in ("batch_size", "schedule", "stages", "controls"):
            del tree[name]
        tree["plan"] = {"task": {"type": "Term", "loss": {"type": "CrossEntropy"}, "weight": 1}}

    assert from_json(changed(plain, shorten)) == plain


def test_own_classes_need_leave_to_be_imported(recipe: Recipe, mine: Any) -> None:
    own = replace(recipe, plan={"mine": Term(mine.Mine())})
    text = to_json(own)
    assert '"my_losses:Mine"' in text
    with pytest.raises(ValueError, match=r"plan.mine.loss: my_losses:Mine is not part.*add --allow-import my_losses\."):
        from_json(text)
    with pytest.raises(ValueError, match="--allow-import"):
        from_json(text, allow_import=("my_loss", "my"))
    assert from_json(text, allow_import=("my_losses",)) == own


def test_leave_for_a_package_holds_for_its_modules(recipe: Recipe, mine: Any, tmp_path: Path) -> None:
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "inner.py").write_text(MINE)
    text = changed(recipe, lambda tree: tree["plan"]["kd"].update(loss={"type": "my_package.inner:Mine"}))
    assert from_json(text, ("my_package",)).plan["kd"].loss.inner.temperature == 2.0


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("my_losses:Loose", "my_losses has no frozen dataclass 'Loose'"),
        ("my_losses:not_a_class", "my_losses has no frozen dataclass 'not_a_class'"),
        ("my_losses:Absent", "my_losses has no frozen dataclass 'Absent'"),
        ("my_losses.inner:Mine", "cannot import my_losses.inner: .* Is its folder on PYTHONPATH"),
        ("os:system", "os:system is not part of distill. To run its code, add --allow-import os"),
        ("distill.losses:Nothing", "distill has no type 'Nothing' here"),
    ],
)
def test_only_frozen_dataclasses_are_imported(recipe: Recipe, mine: Any, kind: str, message: str) -> None:
    text = changed(recipe, lambda tree: tree["plan"]["kd"].update(loss={"type": kind}))
    with pytest.raises(ValueError, match=message):
        from_json(text, allow_import=("my_losses",))


def test_a_class_inside_a_function_cannot_be_written(recipe: Recipe) -> None:
    @dataclass(frozen=True)
    class Inner:
        def __call__(self, student, teacher, batch):
            raise NotImplementedError

    with pytest.raises(ValueError, match=r"Inner cannot be written to JSON. Define it at the top level of a module"):
        to_json(replace(recipe, plan={"mine": Term(Inner())}))


def set_in(*path: str) -> Callable[[object], Callable[[Any], None]]:
    def to(value: object) -> Callable[[Any], None]:
        def change(tree: Any) -> None:
            for name in path[:-1]:
                tree = tree[name]
            tree[path[-1]] = value

        return change

    return to


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_in("epoch")(3), "Recipe has no setting 'epoch'. Nearest: epochs"),
        (set_in("plan", "kd", "wait")(3), "plan.kd: Term has no setting 'wait'. Nearest: "),
        (
            set_in("plan", "kd", "loss", "temprature")(3),
            "plan.kd.loss: KD has no setting 'temprature'. Nearest: temperature",
        ),
        (set_in("plan", "kd", "loss", "temperature")("hot"), "plan.kd.loss.temperature: expected a number, got 'hot'"),
        (set_in("plan", "kd", "loss", "temperature")(-1), "plan.kd.loss: .*temperature.*-1"),
        (set_in("plan", "kd", "loss", "type")("KDD"), "plan.kd.loss: distill has no type 'KDD' here. Nearest: KD"),
        (set_in("plan", "kd", "loss", "type")(3), "plan.kd.loss: expected a Loss"),
        (set_in("plan", "kd", "weight")(True), "plan.kd.weight: expected a number, got True"),
        (set_in("plan", "kd", "weight")(10**400), "plan.kd.weight: expected a number, got 1000"),
        (set_in("plan", "kd")({"type": "Term"}), "plan.kd: Term needs loss: a Loss"),
        (set_in("plan")([1]), "plan: expected a mapping of names to Term, got"),
        (set_in("epochs")("three"), "epochs: expected a whole number or none, got 'three'"),
        (set_in("epochs")(3.5), "epochs: expected a whole number or none, got 3.5"),
        (set_in("epochs")(True), "epochs: expected a whole number or none, got True"),
        (set_in("allow_chance_teacher")(1), "allow_chance_teacher: expected true or false, got 1"),
        (set_in("controls")("plain"), "controls: expected a tuple"),
        (set_in("data")(None), "data: expected a Data, got None"),
        (set_in("optimizer")({"type": "KD"}), "optimizer: expected an Optimizer or none, got KD"),
        (set_in("type")("SGD"), "SGD has no setting"),
    ],
)
def test_wrong_json_is_named_in_one_line(recipe: Recipe, change: Callable[[Any], None], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        from_json(changed(recipe, change))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Not JSON"),
        ("{", "Not JSON"),
        ("[]", 'begins with {"type": "Recipe", ...}, got'),
        ("3", "begins with"),
        ("{}", "begins with"),
        ('{"type": "SGD", "lr": 0.1}', "begins with"),
        ('{"type": "Recipe"}', "Recipe needs name: text"),
        ('{"type": "Recipe", "type": "Recipe"}', "'type' stands twice"),
        ('{"type": "Recipe", "clip": NaN}', "finite numbers, got NaN"),
        ('{"type": "Recipe", "clip": -Infinity}', "finite numbers, got -Infinity"),
        ('{"type": "Recipe", "clip": 1e999}', "finite numbers, got 1e999"),
        ('{"type": "Recipe", "seed": ' + "9" * 5000 + "}", "limit"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ('{"type": "Recipe", "student": ' + '{"a":' * 100_000 + "1" + "}" * 100_001, "nested too deeply"),
    ],
)
def test_what_is_no_recipe_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        from_json(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
