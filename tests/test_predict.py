"""What a student says of a file is what it says of the same example when it is judged."""

import io
import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file, save_file

from distill.cli import run_command
from distill.data import ImageFolder
from distill.finished import read_run
from distill.losses import CrossEntropy
from distill.plan import Term
from distill.prepare import load_splits
from distill.recipe import SGD, Model, Recipe
from distill.run import Options, train
from distill.serving import serve
from tests.end_to_end.test_text import recipe as text_recipe
from tests.tiny_labels import labels_recipe


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on image files of several sizes."""
    root = tmp_path_factory.mktemp("photos")
    drawn = torch.Generator().manual_seed(0)
    for split, count in (("train", 10), ("test", 4)):
        for label in ("ant", "bee"):
            (root / "data" / split / label).mkdir(parents=True)
            for number in range(count):
                size = (40 + number, 30 + 2 * number, 3)
                pixels = torch.randint(0, 256, size, dtype=torch.uint8, generator=drawn)
                Image.fromarray(pixels.numpy()).save(root / "data" / split / label / f"{number}.png")
    recipe = Recipe(
        name="photos",
        data=ImageFolder(str(root / "data"), size=24),
        student=Model("distill.models.cifar:resnet8"),
        plan={"task": Term(CrossEntropy())},
        optimizer=SGD(lr=0.05),
        epochs=1,
        batch_size=8,
    )
    train(recipe, Options(root), Console(file=io.StringIO()))
    return root


def said(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = run_command(["predict", *words])
    return code, *capsys.readouterr()


def test_a_file_is_prepared_as_it_was_when_the_student_was_judged(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = read_run(photos / "photos")
    splits = load_splits(run.recipe, 0, photos)
    files = sorted((photos / "data" / "test").rglob("*.png"))
    served = serve(run)
    crops = served.images(files)
    expected = torch.stack([splits.test[(0, place)].image for place in range(len(files))])
    assert torch.equal(crops, expected.float() / 255)
    code, out, _ = said([str(run.folder), *map(str, files), "--json"], capsys)
    lines = [json.loads(line) for line in out.splitlines()]
    wanted = served.logits(expected.float() / 255).double().softmax(1)
    assert code == 0 and [line["input"] for line in lines] == [str(file) for file in files]
    found = torch.tensor([list(line["probabilities"].values()) for line in lines], dtype=torch.float64)
    torch.testing.assert_close(found, wanted)
    accuracy = run.report.values("plain")[0]
    right = sum(line["class"] == Path(line["input"]).parent.name for line in lines) / len(lines)
    assert right == pytest.approx(accuracy)


def test_the_table_names_each_file_and_what_came_next(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = photos / "data" / "test" / "ant" / "0.png"
    code, out, _ = said([str(photos / "photos"), str(file)], capsys)
    assert code == 0 and "probability %" in out and ("ant" in out and "bee" in out)


def test_a_sentence_is_cut_into_the_student_s_own_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = text_recipe()
    train(recipe, Options(tmp_path), Console(file=io.StringIO()))
    run = read_run(tmp_path / "moods", ("tests",))
    splits = load_splits(run.recipe, 0, tmp_path)
    texts = list(splits.test.texts)
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    words = [str(run.folder), str(tmp_path / "texts.txt"), "--json", "--allow-import", "tests"]
    code, out, _ = said(words, capsys)
    lines = [json.loads(line) for line in out.splitlines()]
    labels = [splits.classes[int(label)] for label in splits.test.labels]
    right = sum(line["class"] == label for line, label in zip(lines, labels, strict=True)) / len(labels)
    assert code == 0 and right == pytest.approx(run.report.values("transferred")[0])


def test_labels_are_found_from_the_thresholds_of_the_validation_examples(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = labels_recipe(allow_chance_teacher=True)
    train(recipe, Options(tmp_path), Console(file=io.StringIO()))
    run = read_run(tmp_path / recipe.name, ("tests",))
    image = load_splits(run.recipe, 0, tmp_path).test[(0, 0)].image
    Image.fromarray(image[0].numpy()).save(tmp_path / "one.png")
    code, out, _ = said([str(run.folder), str(tmp_path / "one.png"), "--json", "--allow-import", "tests"], capsys)
    line = json.loads(out)
    chances, limits = line["probabilities"], line["thresholds"]
    assert code == 0 and line["found"] == [label for label in chances if chances[label] >= limits[label]]


def test_an_answer_that_is_no_number_is_refused(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = photos / "photos" / "student" / "model.safetensors"
    whole = place.read_bytes()
    save_file({name: x * math.nan if x.is_floating_point() else x for name, x in load_file(place).items()}, place)
    code, out, error = said([str(photos / "photos"), str(photos / "data" / "test" / "ant" / "0.png"), "--json"], capsys)
    place.write_bytes(whole)
    assert code == 2 and "ant/0.png is not finite: its weights are damaged" in error and out == ""


def test_many_files_are_answered_as_one_by_one(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """More than are held at a time."""
    good = [str(photos / "data" / "test" / name / "0.png") for name in ("ant", "bee")]
    _, out, _ = said([str(photos / "photos"), *(good * 40), "--json"], capsys)
    _, alone, _ = said([str(photos / "photos"), *good, "--json"], capsys)
    lines = [json.loads(line) for line in out.splitlines()]
    assert len(lines) == 80
    for place, line in enumerate(lines):
        expected = json.loads(alone.splitlines()[place % 2])
        assert line["input"] == expected["input"]
        assert line["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-5)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["{run}", "{root}/none.png"], "{root}/none.png"),
        (["{run}", "{good}", "{root}/bad.png"], "{root}/bad.png"),
        (["{run}"], "There is nothing to predict. Give an image file."),
        (["{run}", "--text", "fine"], "--text has no effect on {run}, a run on images. Name image files."),
        (["{root}", "{good}"], "{root} is not the folder of a run"),
    ],
)
def test_what_can_not_be_predicted_is_a_line(
    words: list[str], line: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "bad.png").write_bytes(b"\x89PNG and no more")
    good = photos / "data" / "test" / "ant" / "0.png"
    names = {"run": str(photos / "photos"), "root": str(photos), "good": str(good)}
    code, out, error = said([word.format(**names) for word in words], capsys)
    assert code == 2 and line.format(**names) in error and error.count("\n") == 1 and out == ""
