"""A run that is complete, read from its folder: its recipe, its report, and where its students lie."""

from dataclasses import dataclass
from pathlib import Path

from distill.arms import arm_folder, main_arm
from distill.messages import nearest
from distill.models.weights import student_folder
from distill.recipe import Recipe, read_recipe
from distill.report import Report
from distill.report import from_json as report_from_json


@dataclass(frozen=True)
class Finished:
    """What a run left. folder: of the run; the folder of runs is the one that it lies in."""

    folder: Path
    recipe: Recipe
    report: Report

    @property
    def root(self) -> Path:
        """The folder of runs."""
        return self.folder.parent

    @property
    def arm(self) -> str:
        """The name of the run itself among its controls."""
        return main_arm(self.recipe)

    def place(self, arm: str, seed: int) -> Path:
        """Where an arm's results of one seed lie."""
        return arm_folder(self.folder, self.recipe, arm, seed)

    def student(self, arm: str | None = None, seed: int | None = None) -> Path:
        """The folder with a student's weights: of the run itself under its first seed, or of the arm and seed named.

        Raises:
            ValueError: there is no such arm, seed or student.
        """
        arm, seed = arm or self.arm, self.recipe.seed if seed is None else seed
        if arm not in self.report.arms:
            raise ValueError(f"{self.folder} has no arm {arm!r}. Nearest: {nearest(arm, self.report.arms)}.")
        if seed not in self.report.seeds:
            seeds = ", ".join(map(str, self.report.seeds))
            raise ValueError(f"{self.folder} has no seed {seed}. It has {seeds}.")
        found = student_folder(self.place(arm, seed))
        if found is None:
            raise ValueError(f"{self.place(arm, seed)} holds no student any more. Train the run again.")
        return found


def read_run(folder: str | Path, allow_import: tuple[str, ...] = ()) -> Finished:
    """A run's folder as a complete run.

    allow_import: modules that its recipe may name classes of, beside `distill`.

    Raises:
        ValueError: it is no run's folder, the run is not complete, or a file of it is damaged.
    """
    folder = Path(folder)
    # Of `.` the folder of runs can't be read off.
    folder = folder if folder.name not in ("", "..") else folder.resolve()
    if not (folder / "recipe.json").is_file():
        raise ValueError(f"{folder} is not the folder of a run: it has no recipe.json. Name one, such as runs/digits.")
    recipe = read_recipe(folder / "recipe.json", allow_import)
    path = folder / "report.json"
    if not path.is_file():
        raise ValueError(
            f"{folder} is not complete: it has no report.json. Go on with distill train {folder / 'recipe.json'} "
            "--resume auto."
        )
    try:
        return Finished(folder, recipe, report_from_json(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
