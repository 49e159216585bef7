import pickle
import runpy
import sys
from pathlib import Path

import pytest

from distill.recipe import Recipe, from_json, read_recipe, to_json

GOOD = """
from __future__ import annotations
from dataclasses import dataclass
from distill.data import Digits
from distill.losses import KD, CrossEntropy
from distill.plan import Term
from distill.recipe import SGD, Model, Recipe

@dataclass(frozen=True)
class Own(KD):
    scale: Scale = 1.0

Scale = float

recipe = Recipe(
    name="own",
    data=Digits(),
    student=Model("distill.models.cifar:resnet8"),
    teacher=Model("distill.models.cifar:resnet20"),
    plan={"task": Term(CrossEntropy()), "kd": Term(Own(scale=2.0))},
    optimizer=SGD(lr=0.1),
    epochs=2,
)
if __name__ == "__main__":
    raise SystemExit("must not run")
"""


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch):
    """The import state as it was: reading a file leaves its folder and its module in it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("my_", "recipe_", "beside")):
            del sys.modules[name]


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_python_file_gives_its_recipe_without_running_its_main_part(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, "my_files_recipe.py", GOOD))
    assert isinstance(recipe, Recipe) and recipe.name == "own"
    assert read_recipe(str(tmp_path / "my_files_recipe.py")).name == "own"


def test_classes_of_the_file_can_be_written_read_and_pickled(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, "my_files_recipe.py", GOOD))
    text = to_json(recipe)
    assert '"my_files_recipe:Own"' in text
    assert from_json(text, allow_import=("my_files_recipe",)) == recipe
    assert pickle.loads(pickle.dumps(recipe)) == recipe
    saved = write(tmp_path, "recipe.json", text)
    assert read_recipe(saved, allow_import=("my_files_recipe",)) == recipe
    with pytest.raises(
        ValueError, match=r"recipe.json: plan.kd.loss: my_files_recipe:Own .*--allow-import my_files_recipe"
    ):
        read_recipe(saved)


def test_a_file_that_is_run_itself_names_its_classes_by_its_own_name(tmp_path: Path) -> None:
    path = write(
        tmp_path, "my_files_recipe.py", GOOD.replace('raise SystemExit("must not run")', "text = to_json(recipe)")
    )
    path.write_text(path.read_text().replace("import SGD", "import to_json, SGD"))
    assert '"my_files_recipe:Own"' in runpy.run_path(str(path), run_name="__main__")["text"]


def test_two_files_of_one_name_are_two_recipes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    first = read_recipe(write(tmp_path / "one", "my_files_recipe.py", GOOD))
    second = read_recipe(write(tmp_path / "two", "my_files_recipe.py", GOOD.replace('name="own"', 'name="other"')))
    assert (first.name, second.name) == ("own", "other")
    assert type(first.plan["kd"].loss) is not type(second.plan["kd"].loss)
    assert pickle.loads(pickle.dumps(first)) == first and pickle.loads(pickle.dumps(second)) == second


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    read_recipe(write(tmp_path, "my_files_recipe.py", GOOD))
    longer = GOOD.replace("epochs=2,", "epochs=333,")
    assert read_recipe(write(tmp_path, "my_files_recipe.py", longer)).epochs == 333


def test_what_lies_beside_the_file_can_be_imported(tmp_path: Path) -> None:
    write(tmp_path, "beside_it.py", "epochs = 7")
    text = GOOD.replace("epochs=2", "epochs=beside_it.epochs").replace(
        "from dataclasses", "import beside_it\nfrom dataclasses"
    )
    assert read_recipe(write(tmp_path, "my-recipe.py", text)).epochs == 7


def test_a_file_named_like_a_loaded_module_does_not_replace_it(tmp_path: Path) -> None:
    assert read_recipe(write(tmp_path, "pickle.py", GOOD)).name == "own"
    assert sys.modules["pickle"] is pickle


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("my_a.py", "", "my_a.py has no 'recipe'. Write recipe = Recipe(...) at its top level."),
        ("my_b.py", "recipe = {}", "my_b.py: 'recipe' is of type dict, not a Recipe."),
        ("my_c.py", "\n1 / 0", "my_c.py, line 2: ZeroDivisionError: division by zero"),
        ("my_d.py", "x = 1\nrecipe = (", "my_d.py, line 2: SyntaxError: '(' was never closed"),
        ("my_e.py", "import no_such_module_at_all", "my_e.py, line 1: ModuleNotFoundError: No module named 'no_such"),
        ("my_f.py", GOOD.replace("epochs=2", "epochs=0"), "my_f.py, line 15: epochs must be at least 1, got 0."),
        ("my_g.py", "\0", "my_g.py"),
        ("recipe.json", "{", "recipe.json: Not JSON"),
        ("recipe.yaml", "", "recipe.yaml is neither a .py nor a .json file."),
    ],
)
def test_a_wrong_file_is_named_in_one_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = write(tmp_path, name, text)
    with pytest.raises(ValueError) as caught:
        read_recipe(path)
    assert str(caught.value).startswith(f"{tmp_path}/{message}")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent.py: no such file. Give a recipe"):
        read_recipe(tmp_path / "absent.py")
    with pytest.raises(ValueError, match=r"is a folder. Give the recipe's file"):
        read_recipe(tmp_path)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"recipe.json: "):
        read_recipe(tmp_path / "recipe.json")


def test_a_file_that_fails_leaves_no_module_behind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="my_h"):
        read_recipe(write(tmp_path, "my_h.py", "1 / 0"))
    assert "my_h" not in sys.modules
