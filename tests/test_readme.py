"""The README's own files run as they are written."""

import re
from pathlib import Path

import pytest

from distill.cli import run_command
from distill.recipe import read_recipe

ROOT = Path(__file__).parent.parent
BLOCKS = {
    code.splitlines()[0].removeprefix("# "): code
    for code in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the README's files beside the folder of runs, in which the digits teacher is trained."""
    folder = tmp_path_factory.mktemp("readme") / "runs"
    for name, code in BLOCKS.items():
        (folder.parent / name).write_text(code)
    teacher = str(ROOT / "recipes/image/digits_teacher.py")
    assert run_command(["train", teacher, "--root", str(folder), "--epochs", "8"]) == 0  # enough to beat chance
    return folder


def test_the_readme_shows_a_recipe_a_loss_and_a_data_set() -> None:
    assert set(BLOCKS) == {"my_recipe.py", "my_loss.py", "my_data.py"}


@pytest.mark.parametrize("name", BLOCKS)
def test_a_file_of_the_readme_trains(name: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = runs.parent / name
    assert run_command(["train", str(file), "--root", str(runs), "--epochs", "1"]) == 0, capsys.readouterr().err
    assert (runs / read_recipe(file).name / "student" / "model.safetensors").is_file()


def test_the_run_of_ones_own_loss_runs_again(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--root", str(runs), "--overwrite"]
    assert run_command(["train", str(runs.parent / "my_loss.py"), "--epochs", "1", *options]) == 0
    again = ["train", str(runs / "margin" / "recipe.json"), "--name", "again", "--root", str(runs)]
    assert run_command(again) == 2
    assert "--allow-import my_loss" in capsys.readouterr().err
    assert run_command([*again, "--allow-import", "my_loss"]) == 0


def test_every_command_and_path_of_the_readme_exists() -> None:
    text = (ROOT / "README.md").read_text()
    paths = set(re.findall(r"recipes/image/\w+\.py", text))
    assert len(paths) >= 4
    assert [path for path in paths if not (ROOT / path).is_file()] == []
