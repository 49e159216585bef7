"""Synthetic chest films for a first run without any download, in the files of ChestX-ray14."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from rich.console import Console
from rich.progress import track

from distill.data.chest_xray import ChestXray
from distill.data.draws import seed_of
from distill.data.examples import Splits
from distill.data.image_cache import cache_place
from distill.data.mix import Mix
from distill.data.phantom_drawing import Film, PixelBox, draw

PHANTOM_LABELS = ("Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumothorax")
ORIGIN = "Synthetic chest phantoms drawn by a program, not radiographs."

TABLE = "Data_Entry_2017_v2020.csv"
BOXES = "BBox_List_2017.csv"
_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
# Another number for other films from the same settings, so that old ones on disk are never taken for them.
_VERSION = 1
_MOST = 100_000
_CHEST_MM = 360
# So many films take about a second, and no progress bar.
_SILENT = 200

_TEST = 0.3
_VALIDATION = 0.15
_MOST_FILMS = 4
_BOXED = 0.6
# How often a patient has a finding who has none of the others, and what each of the others adds to its log-odds.
_RATES = {
    "Cardiomegaly": 0.13,
    "Infiltration": 0.19,
    "Mass": 0.12,
    "Pneumothorax": 0.12,
    "Nodule": 0.13,
    "Effusion": 0.13,
}
_TOGETHER = {
    ("Infiltration", "Cardiomegaly"): 0.4,
    ("Pneumothorax", "Cardiomegaly"): -0.8,
    ("Nodule", "Mass"): 1.0,
    ("Effusion", "Cardiomegaly"): 1.3,
    ("Effusion", "Infiltration"): 0.8,
    ("Effusion", "Mass"): 0.6,
    ("Effusion", "Pneumothorax"): 0.5,
}
_WITH_AGE = {"Cardiomegaly": 1.0, "Mass": 0.7, "Nodule": 0.5, "Pneumothorax": -0.8}
# A film shows most of what its patient has, and now and then something new.
_STAYS, _NEW = 0.85, 0.02


def films(*, patients: int, seed: int) -> list[Film]:
    """All films of the patients numbered from 1, up to four of each, in order; a patient's do not depend on the others.

    Two in five films show nothing. Findings come together as on wards, more of them with age, and stay from film to
    film; the more of them, the more often the patient lies in bed.
    """
    drawn = []
    for patient in range(1, patients + 1):
        chance = np.random.default_rng(seed_of("phantom patient", seed, patient))
        sex, age = "MF"[int(chance.random() < 0.45)], int(np.clip(chance.normal(52, 17), 18, 90))
        has: tuple[str, ...] = ()
        for name, rate in _RATES.items():
            odds = np.log(rate / (1 - rate)) + _WITH_AGE.get(name, 0) * (age - 52) / 40
            odds += sum(_TOGETHER.get((name, other), 0) for other in has)
            if chance.random() < 1 / (1 + np.exp(-odds)):
                has += (name,)
        for number in range(int(chance.integers(1, _MOST_FILMS + 1))):
            shown = tuple(name for name in PHANTOM_LABELS if chance.random() < (_STAYS if name in has else _NEW))
            view = "AP" if chance.random() < 0.2 + 0.2 * min(len(shown), 3) else "PA"
            drawn.append(Film(patient, number, age, sex, view, shown, seed))
    return drawn


def held_out(*, patients: int, seed: int) -> frozenset[int]:
    """The three in ten of the patients that are kept to report on."""
    order = np.random.default_rng(seed_of("phantom test", seed)).permutation(patients) + 1
    return frozenset(order[: round(_TEST * patients)].tolist())


def write_phantoms(folder: Path, *, patients: int, size: int, noise: float, seed: int) -> None:
    """Write a new folder in the official layout: films, table, both lists, and boxes of a part of the test films."""
    wanted = films(patients=patients, seed=seed)
    images = folder / "images"
    images.mkdir(parents=True)
    # The files have the names of real ones, so each says what it is.
    mark = PngInfo()
    mark.add_text("Description", ORIGIN)
    (folder / "README.txt").write_text(ORIGIN + "\n")

    console = Console(stderr=True)
    # Of several processes on one terminal, the first one speaks.
    silent = len(wanted) <= _SILENT or not console.is_terminal or os.environ.get("RANK", "0") != "0"
    boxes = []
    # One after the other: threads were slower, since each step on so small a film leaves Python's lock but for moments.
    for film in track(wanted, "Drawing chest phantoms", console=console, transient=True, disable=silent):
        drawing = draw(film, size=size, noise=noise)
        Image.fromarray(drawing.image).save(images / name_of(film), pnginfo=mark)
        boxes.append(drawing.boxes)
    held = held_out(patients=patients, seed=seed)
    lists = {
        "train_val_list.txt": [name_of(film) for film in wanted if film.patient not in held],
        "test_list.txt": [name_of(film) for film in wanted if film.patient in held],
    }
    for name, lines in lists.items():
        (folder / name).write_text("\n".join(lines))
    (folder / TABLE).write_text("\n".join([_HEADER, *(_row(film, size) for film in wanted), ""]))
    (folder / BOXES).write_text("\n".join(_box_lines(wanted, boxes, held)) + "\n")


def name_of(film: Film) -> str:
    """The film's file, as the official release would name it."""
    return f"{film.patient:08d}_{film.number:03d}.png"


def _row(film: Film, size: int) -> str:
    findings, spacing = "|".join(film.findings) or "No Finding", f"{_CHEST_MM / size:.3f}"
    return (
        f"{name_of(film)},{findings},{film.number},{film.patient},{film.age},{film.sex},{film.view},"
        f"{size},{size},{spacing},{spacing}"
    )


def _box_lines(wanted: Sequence[Film], boxes: Sequence[Mapping[str, PixelBox]], held: frozenset[int]) -> list[str]:
    """The official file of boxes, its header's and rows' loose ends and its own word for infiltration included."""
    lines = ["Image Index,Finding Label,Bbox [x,y,w,h],,,"]
    for film, found in zip(wanted, boxes, strict=True):
        if film.patient not in held:
            continue
        chance = np.random.default_rng(seed_of("phantom boxes", film.seed, film.patient, film.number))
        for name, (left, top, width, height) in found.items():
            if chance.random() < _BOXED:
                label = "Infiltrate" if name == "Infiltration" else name
                lines.append(f"{name_of(film)},{label},{left},{top},{width},{height},,,")
    return lines


@dataclass(frozen=True, kw_only=True)
class Phantoms:
    """Synthetic chest films, drawn by a program: lungs, ribs, a heart, and up to six findings that overlap.

    They show a run that works, and are no evidence for real radiographs. The films are written once into the cache
    (see `distill.data.image_cache.cache_place`) in the files of ChestX-ray14, and read as `ChestXray` reads the real
    set. Of the patients, 30 % are kept to report on, 10 % to choose by.

    patients: number of patients, each with one to four films.
    size: side of the films in pixels, as written and as trained on. Nodules are hard to see below 64.
    noise: standard deviation of the pixels' noise, a share of the range of grey: how hard the set is.
    augment: training images are mirrored and moved a little.
    split_seed: draws the films and the split; the run's own seed never moves them.
    """

    patients: int = 600
    size: int = 64
    noise: float = 0.02
    augment: bool = True
    split_seed: int = 0

    def __post_init__(self) -> None:
        if not 10 <= self.patients <= _MOST:
            raise ValueError(f"Phantoms.patients is a number from 10 to {_MOST:,}, got {self.patients}.")
        if not 32 <= self.size <= 512:
            raise ValueError(f"Phantoms.size is a side from 32 to 512 pixels, got {self.size}.")
        if not 0 <= self.noise <= 0.5:
            raise ValueError(f"Phantoms.noise is a share of the range of grey from 0 to 0.5, got {self.noise}.")

    def load(self, seed: int, mix: Mix | None) -> Splits:
        """The splits; images are uint8 (1, size, size), labels float32 (N, 6) in the order of PHANTOM_LABELS."""
        chest = ChestXray(
            folder=str(self.folder()),
            labels=PHANTOM_LABELS,
            size=self.size,
            validation=_VALIDATION,
            augment=self.augment,
            cache=False,
            split_seed=self.split_seed,
        )
        return replace(chest.load(seed, mix), origin=ORIGIN)

    def folder(self) -> Path:
        """Where the films lie, whole; they are drawn first where they do not yet.

        Raises:
            ValueError: the place cannot be written.
        """
        settings = (self.patients, self.size, float(self.noise), self.split_seed)
        digest = hashlib.blake2b(repr((_VERSION, settings)).encode(), digest_size=6).hexdigest()
        place = cache_place().absolute() / f"phantoms-{self.patients}x{self.size}-{digest}"
        if _whole(place):
            return place
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            # Drawn aside and moved when whole: a killed write is never read, and of two at once the first stays.
            with TemporaryDirectory(dir=place.parent, prefix=f".{place.name}-") as aside:
                draft = Path(aside) / "new"
                write_phantoms(
                    draft, patients=self.patients, size=self.size, noise=self.noise, seed=self.split_seed
                )  # fmt: skip
                if place.exists() and not _whole(place):
                    place.rename(Path(aside) / "old")
                try:
                    draft.rename(place)
                except OSError:
                    if not _whole(place):
                        raise
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise ValueError(
                f"Cannot write phantoms to {place}: {reason}. Set DISTILL_CACHE to another folder."
            ) from None
        return place


def _whole(place: Path) -> bool:
    """Whether nothing is missing in the folder: a cache may be tidied up file by file."""
    tables = [place / name for name in (TABLE, BOXES, "train_val_list.txt", "test_list.txt")]
    if not all(path.is_file() for path in tables):
        return False
    there = {path.name for path in (place / "images").glob("*.png")}
    return all(row.split(",", 1)[0] in there for row in tables[0].read_text().splitlines()[1:])
