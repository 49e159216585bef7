"""A user's mistake is one readable line and exit code 2, before any training, and costs nothing that was there."""

import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.cli import run_command
from tests.commands import PAIR, TEACHER, run_python, snapshot

IMAGES = """
from distill import SGD, CrossEntropy, ImageFolder, Model, Recipe, Term

recipe = Recipe(
    name="images",
    data=ImageFolder("images", size=16),
    student=Model("distill.models.cifar:resnet8", arguments={"width": 2}),
    plan={"task": Term(CrossEntropy())},
    optimizer=SGD(lr=0.05),
    epochs=1,
    batch_size=8,
)
"""

LEAP = f"""{TEACHER.partition("if __name__")[0]}
from dataclasses import dataclass, replace

@dataclass(frozen=True)
class Leap:
    def factor(self, epoch: float, epochs: int) -> float:
        return 1.0 if epoch < 1 else 1e30

recipe = replace(recipe, name="teacher-leaps", schedule=Leap())
"""

Refused = Callable[[str], str]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the recipes, and the run of the teacher."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "teacher.py").write_text(TEACHER)
    (folder / "pair.py").write_text(PAIR)
    assert run_command(["train", str(folder / "teacher.py"), "--root", str(folder / "runs")]) == 0
    return folder


@pytest.fixture
def place(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of one test: the recipes, and runs/teacher."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISTILL_DATA", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    return tmp_path


@pytest.fixture
def refused(place: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Gives the line that a command answers with, after making sure that it is one, and that no file came or went."""

    def run(command: str) -> str:
        before = snapshot(place)
        capsys.readouterr()
        assert run_command(command.split()) == 2
        line = capsys.readouterr().err
        assert line.startswith("distill: ") and line.endswith("\n") and line.count("\n") == 1
        assert snapshot(place) == before
        return line.removeprefix("distill: ").removesuffix("\n")

    return run


@pytest.mark.parametrize("command", ["train", "plan"])
@pytest.mark.parametrize(
    ("mistake", "line"),
    [
        ("pair.py --epoch 3", "Recipe has no setting 'epoch'. Nearest: epochs, teacher."),
        ("pair.py --plan.kd.wieght 3", "Term has no setting 'wieght'. Nearest: weight."),
        ("pair.py --plan.dk.weight 3", "plan has no term 'dk'. Terms: task, kd, hint."),
        ("pair.py --epochs three", "epochs: expected a whole number or none, got 'three'."),
        ("pair.py --epochs", "epochs needs a value: a whole number or none. Write --epochs VALUE."),
        ("pair.py --batch-size 0", "batch_size must be at least 1, got 0."),
        ("pair.py --skip-unreadable", "Digits has no setting 'skip_unreadable'. Nearest: "),
        ("pare.py", "pare.py: no such file. Give a recipe, such as recipes/image/digits.py."),
        ("", "distill COMMAND needs the file of a recipe: distill COMMAND recipes/image/digits.py"),
        ("pair.py --resume yes", "argument --resume: invalid choice: 'yes' "),
        (
            "pair.py --resume auto --overwrite",
            "--resume auto goes on with a run and --overwrite removes it. Give one of them.",
        ),
        ("pair.py --plan.hint.student layr2", "ResNet has no module 'layr2'. Nearest: layer2, layer2.0, layer3."),
        ("pair.py --plan.hint.teacher layer22", "ResNet has no module 'layer22'. Nearest: layer2, layer2.0, "),
        (
            "pair.py --plan.hint.head none",
            "Term 'hint': Hint compares equal shapes, got student (4, 4, 4, 4) and teacher (4, 8, 4, 4). "
            "Add head=Conv1x1().",
        ),
        (
            "pair.py --plan.hint.head Linear --plan.hint.student layer3",
            "Term 'hint': Linear maps ",
        ),
        (
            "pair.py --student.arguments.num_classes 7",
            "Student distill.models.cifar:resnet8 gives 7 logits and the data has 10 classes. ",
        ),
        (
            "pair.py --teacher.weights none --teacher.arguments.num_classes 7",
            "Teacher distill.models.cifar:resnet8 answers 7 classes and the data has 10, so their logits can't be "
            "compared. Fine-tune the teacher on these classes first, or use its inner taps only.",
        ),
        (
            "pair.py --teacher.weights runs/teachr",
            "There is no run folder runs/teachr. Train it first: distill train FILE, with the recipe named 'teachr'.",
        ),
        ("pair.py --teacher.weights teacher.pt", "There is no weight file teacher.pt. Check the path."),
        ("pair.py --teacher.arguments.width 8", "runs/teacher holds distill.models.cifar:resnet8 with arguments "),
        ("pair.py --student.source distill.models.cifar:resnet9", "distill.models.cifar has no model 'resnet9'. "),
        ("images.py", "There is no data folder 'images'. Tried $DISTILL_DATA (not set), data/images, "),
        ("pair.py --data.test 0.0001", "test cuts 0 of 1797 examples; it has to take at least 1 "),
    ],
)
def test_a_mistake_is_one_line_before_any_training(
    place: Path, refused: Refused, command: str, mistake: str, line: str
) -> None:
    (place / "images.py").write_text(IMAGES)
    answer = refused(f"{command} {mistake}")
    line = line.replace("COMMAND", command)
    assert answer[: len(line) if line.endswith(" ") else None] == line


def test_an_unknown_command_gets_the_nearest(refused: Refused) -> None:
    assert refused("trian pair.py") == "distill has no command 'trian'. Nearest: train, rank."


def test_damaged_weights_are_named(place: Path, refused: Refused) -> None:
    file = place / "runs" / "teacher" / "student" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    assert refused("train pair.py").startswith(
        "runs/teacher/student/model.safetensors is damaged, or no safetensors file ("
    )
    (place / "weights.pt").write_bytes(b"broken")
    assert refused("train pair.py --teacher.weights weights.pt").startswith(
        "weights.pt can't be read as weights alone: it is damaged, or "
    )


@pytest.fixture
def images(place: Path) -> Path:
    """A data set of two classes with ten images each, and a recipe that trains on it."""
    (place / "images.py").write_text(IMAGES)
    for name in ("cat", "dog"):
        for number in range(10):
            path = place / "data" / "images" / "train" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
    return place / "data" / "images"


def test_an_unreadable_image_is_named(images: Path, refused: Refused) -> None:
    (images / "train" / "cat" / "3.png").write_bytes(b"broken")
    line = refused("train images.py")
    assert line.startswith("Cannot read image data/images/train/cat/3.png: ")
    assert line.endswith(" Mend or remove the file, or set data.skip_unreadable=True.")


def test_an_image_that_becomes_unreadable_in_a_worker_is_named_in_one_line(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The dry run sees the first examples, which are cats; the dogs come up in a worker first."""
    for path in (images / "train" / "dog").iterdir():
        path.write_bytes(b"broken")
    assert run_command(["train", "images.py", "--data.verify", "false", "--workers", "1"]) == 2
    line = capsys.readouterr().err
    assert line.startswith("distill: Cannot read image data/images/train/dog/") and line.count("\n") == 1
    assert "Traceback" not in line


def test_skip_unreadable_leaves_images_out_and_counts_them(images: Path, place: Path) -> None:
    (images / "train" / "cat" / "3.png").write_bytes(b"broken")
    done = run_python(["-m", "distill", "train", "images.py", "--skip-unreadable"], place)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(
        "distill: warning: 1 of 20 images of the train split are unreadable and left out. Cannot read image "
        "data/images/train/cat/3.png: "
    )
    assert done.stderr.count("\n") == 1
    assert '"skip_unreadable": true' in (place / "runs" / "images" / "recipe.json").read_text()


def test_a_class_without_images_is_named(images: Path, refused: Refused) -> None:
    for path in (images / "train" / "dog").iterdir():
        path.unlink()
    assert refused("train images.py") == (
        "data/images/train/dog has no images. Add some, or remove the class from every split."
    )


def test_nan_in_a_loss_names_term_step_and_checkpoint(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first epoch of 17 steps is tame; the second takes off with its first update, the 18th."""
    (place / "leap.py").write_text(LEAP)
    assert run_command(["train", "leap.py"]) == 2
    line = capsys.readouterr().err
    assert line == (
        "distill: The loss of term 'task' is nan at step 19. Last good checkpoint: "
        "runs/teacher-leaps/checkpoints/step-00000017. Lower the learning rate or the term's weight, or clip the "
        "gradient.\n"
    )
    assert not (place / "runs" / "teacher-leaps" / "student").exists()


def test_nan_before_the_first_checkpoint_says_so(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["train", "teacher.py", "--name", "wild", "--optimizer.lr", "1e30"]) == 2
    line = capsys.readouterr().err
    assert "The loss of term 'task' is nan at step 2. Last good checkpoint: none yet. " in line


def test_a_student_that_its_last_update_broke_is_not_kept(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One step an epoch: its loss is that of the fresh student, and finite."""
    assert run_command(["train", "teacher.py", "--name", "wild", "--optimizer.lr", "1e30", "--batch-size", "2000"]) == 2
    line = capsys.readouterr().err
    assert "loss on the validation examples is nan at step 1. Last good checkpoint: none yet. " in line
    assert not (place / "runs" / "wild" / "checkpoints").exists()


def test_a_run_that_is_there_is_not_touched_unasked(place: Path, refused: Refused) -> None:
    assert refused("train teacher.py") == (
        "runs/teacher holds a run already. Go on with --resume auto, start anew with --overwrite, or change --name."
    )


def test_a_mistake_under_overwrite_does_not_cost_the_old_run(refused: Refused) -> None:
    refused("train teacher.py --overwrite --student.arguments.num_classes 7")
    refused("train teacher.py --overwrite --plan.task.student layer9")


def test_overwrite_starts_anew(place: Path) -> None:
    old = place / "runs" / "teacher" / "old"
    old.write_text("")
    assert run_command(["train", "teacher.py", "--overwrite", "--epochs", "1"]) == 0
    assert not old.exists()
    assert '"epochs": 1' in (place / "runs" / "teacher" / "recipe.json").read_text()


def test_a_changed_recipe_is_not_resumed(refused: Refused) -> None:
    assert refused("train teacher.py --resume auto --optimizer.lr 0.1") == (
        "runs/teacher holds a run of another recipe (optimizer.lr: 0.05 there, 0.1 here), so it can't be resumed with "
        "this one. Change --name, or start anew with --overwrite."
    )


def test_a_damaged_recipe_of_a_run_is_named(place: Path, refused: Refused) -> None:
    (place / "runs" / "teacher" / "recipe.json").write_text("{")
    assert refused("train teacher.py --resume auto").startswith("runs/teacher/recipe.json is damaged (")


@pytest.mark.parametrize("option", ["", " --overwrite", " --resume auto"])
def test_a_folder_that_is_no_run_is_left_alone(place: Path, refused: Refused, option: str) -> None:
    (place / "runs" / "notes").mkdir()
    (place / "runs" / "notes" / "thesis.txt").write_text("ten years of work")
    assert refused(f"train teacher.py --name notes{option}") == (
        "runs/notes holds files and is not the folder of a run, so it is left alone. Choose another --name or --root."
    )


def test_a_root_that_cannot_be_written_is_named(place: Path, refused: Refused) -> None:
    (place / "file").write_text("")
    assert refused("train teacher.py --root file").startswith("file/teacher can't be written: ")


def test_two_recipes_of_one_name_are_refused(place: Path, refused: Refused) -> None:
    assert refused("train pair.py teacher.py --name both") == (
        "Two recipes are named 'both' and would share a folder. Train them by themselves, or rename one."
    )


def test_a_teacher_at_chance_is_refused_unless_it_is_allowed(place: Path, refused: Refused) -> None:
    words = "train pair.py --teacher.weights none --repeats 1 --epochs 1 --controls none"
    line = refused(words)
    assert line.startswith("Teacher distill.models.cifar:resnet8 is right on ")
    assert line.endswith(
        "which is chance. Check its weights, classes and view; --allow-chance-teacher trains from it all the same."
    )
    assert run_command([*words.split(), "--allow-chance-teacher"]) == 0


def test_an_override_changes_the_recipes_that_have_the_setting(place: Path, refused: Refused) -> None:
    words = ["train", "teacher.py", "pair.py", "--root", "new", "--epochs", "1", "--repeats", "1", "--controls", "none"]
    assert refused(" ".join([*words, "--plan.dk.weight", "0.5"])) == "plan has no term 'dk'. Terms: task."
    assert run_command([*words[:-2], "--plan.kd.weight", "0.5"]) == 0
    teacher, pair = ((place / "new" / name / "recipe.json").read_text() for name in ("teacher", "pair"))
    assert '"epochs": 1' in teacher and '"epochs": 1' in pair
    assert '"weight": 0.5' in pair and '"weight": 0.5' not in teacher


def test_a_plan_writes_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(place)
    assert run_command(["plan", "pair.py"]) == 0
    assert snapshot(place) == before
    out = capsys.readouterr().out
    for said in ("teacher", "runs/teacher", "1,384", "layer2", "Conv1x1(norm=True)", "2 epochs of 17 steps", "Memory"):
        assert said in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], ["usage: distill", "train", "plan", "recipe.json --name again"]),
        (["--help"], ["usage: distill", "train", "plan"]),
        (["train", "--help"], ["usage: distill train FILE", "--resume", "--overwrite", "--skip-unreadable"]),
        (["plan", "-h"], ["usage: distill plan FILE"]),
        (
            ["train", "pair.py", "--help"],
            ["--overwrite", "Settings of pair:", "--epochs = 2  (a whole number", "--plan.kd.loss.temperature = 4.0"],
        ),
    ],
)
def test_help_is_readable(
    place: Path, capsys: pytest.CaptureFixture[str], words: Sequence[str], said: Sequence[str]
) -> None:
    before = snapshot(place)
    assert run_command(words) == 0
    out, err = capsys.readouterr()
    assert err == "" and all(text in out for text in said)
    assert max(map(len, out.splitlines())) <= 200
    assert snapshot(place) == before


def test_the_real_command_answers_with_the_same_line(place: Path) -> None:
    done = run_python(["-m", "distill", "train", "pair.py", "--epoch", "3"], place)
    assert (done.returncode, done.stdout, done.stderr) == (
        2,
        "",
        "distill: Recipe has no setting 'epoch'. Nearest: epochs, teacher.\n",
    )


def test_debug_shows_the_traceback(place: Path) -> None:
    with pytest.raises(ValueError, match="no setting 'epoch'"):
        run_command(["train", "pair.py", "--epoch", "3", "--debug"])
