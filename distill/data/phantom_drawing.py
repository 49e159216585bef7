"""Draws a synthetic chest film: densities summed over a grid, read through a film's curve. No radiograph is used."""

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from numpy.random import Generator

from distill.data.draws import seed_of
from distill.data.phantom_body import (
    Body,
    Grid,
    bedside,
    body_of,
    bones,
    clouds,
    heart,
    length,
    lungs,
    middle,
    outline,
    soft,
    trunk,
    vessels,
)

# The film is drawn this much finer and averaged, against jagged edges.
_FINER = 2


@dataclass(frozen=True)
class Film:
    """What one film shows. A patient's films share the body, and where a finding lies in it.

    patient, number: the patient's, and the film's among the patient's.
    sex: "M" or "F".
    view: "PA"; or "AP", of a patient in bed, whose heart looks larger and whose edges are softer.
    findings: of Cardiomegaly, Effusion, Infiltration, Mass, Nodule and Pneumothorax.
    seed: of the whole set.
    """

    patient: int
    number: int
    age: int
    sex: str
    view: str
    findings: tuple[str, ...] = ()
    seed: int = 0


PixelBox: TypeAlias = tuple[float, float, float, float]


class Drawing(NamedTuple):
    """A film, uint8 (size, size), and each finding's box on it: left, top, width, height in pixels."""

    image: npt.NDArray[np.uint8]
    boxes: dict[str, PixelBox]


def draw(film: Film, *, size: int, noise: float) -> Drawing:
    """The film at `size` pixels a side.

    Each part has its own chance: with one finding less, the film is the same elsewhere.

    noise: standard deviation of the pixels' noise, a share of the range of grey.
    """
    body = body_of(_chance(film, "body"), sex=film.sex, age=film.age)
    places = {name: _place(film, body, name) for name in film.findings}
    in_bed, width = film.view == "AP", 0.014 if film.view == "AP" else 0.008
    pose = _chance(film, "pose", film.number)
    u, v = _grid(size * _FINER, pose)
    extents: dict[str, Grid] = {}

    if in_bed:
        body = body._replace(ratio=body.ratio * 1.08, base=body.base - 0.06)
    enlarged, fluid, leak = (places.get(name) for name in ("Cardiomegaly", "Effusion", "Pneumothorax"))
    if enlarged:
        body = body._replace(ratio=body.ratio + 0.08 + 0.10 * enlarged.size)
    core = heart(body, u, v, width * 1.5)
    if enlarged:
        extents["Cardiomegaly"] = core
    cage = lung = lungs(body, u, v, width)
    if fluid:
        extents["Effusion"] = cage * _fluid(body, fluid, u, v)
        lung = cage * (1 - (0.55 + 0.4 * fluid.strength) * extents["Effusion"])
    marks = vessels(body, _chance(film, "vessels"), u, v) + 0.05 * clouds(_chance(film, "lungs"), u, v, 9.0)
    if leak:
        air, edge = _leak(body, leak, u, v, width)
        extents["Pneumothorax"] = air = air * lung
        marks = marks * (1 - air) - (0.14 + 0.10 * leak.strength) * air + 0.15 * edge
    density = trunk(body, u, v) * (1 - 0.72 * lung) + 0.55 * core * (0.2 + 0.8 * cage)
    density += middle(body, u, v) + bones(body, u, v, cage) * (0.75 if in_bed else 1.0) + marks * lung
    for name in ("Infiltration", "Mass", "Nodule"):
        if found := places.get(name):
            shape, amount = _opacity(film, name, found, u, v)
            extents[name] = np.minimum(shape, 1) * cage
            density += amount * shape * cage
    if in_bed:
        density += bedside(_chance(film, "bedside", film.number), u, v)
    density += 0.04 * clouds(_chance(film, "flesh", film.number), u, v, 4.0)

    # Beer and Lambert: what is behind a density gets exp(-density) of the rays, and the film is dark where they arrive.
    image = _averaged(1 - np.exp(-pose.uniform(0.95, 1.6) * np.maximum(density, 0.015)))
    image = image * pose.uniform(0.92, 1.06) + pose.uniform(-0.03, 0.03)
    image += noise * _chance(film, "noise", film.number).standard_normal(image.shape, dtype=np.float32)
    boxes = {name: box for name, extent in extents.items() if (box := _box(extent)) is not None}
    return Drawing(np.round(np.clip(image, 0, 1) * 255).astype(np.uint8), boxes)


def _chance(film: Film, *part: int | str) -> Generator:
    """The chance of one part of the patient's films."""
    return np.random.default_rng(seed_of("phantom", film.seed, film.patient, *part))


def _grid(side: int, chance: Generator) -> tuple[Grid, Grid]:
    """Where in the body each pixel is, (side, side) each: turned, scaled and moved a little from film to film."""
    along = ((np.arange(side) + 0.5) * (2 / side) - 1).astype(np.float32)
    x, y = along[None, :], along[:, None]
    angle, scale = chance.normal(0, 0.03), chance.uniform(0.94, 1.06)
    right, down = chance.normal(0, 0.02), chance.normal(0, 0.02)
    cos, sin = scale * float(np.cos(angle)), scale * float(np.sin(angle))
    return cos * x + (sin * y + right), cos * y - (sin * x - down)


class _Place(NamedTuple):
    """Where a finding lies and how plain it is."""

    side: float  # -1 or 1
    u: float
    v: float
    size: float  # 0 to 1
    strength: float  # 0 to 1
    turn: float  # an angle
    other: float  # another


def _place(film: Film, body: Body, name: str) -> _Place:
    """Drawn once for the patient; size and strength change a little from film to film."""
    chance, change = _chance(film, name), _chance(film, name, film.number)
    side = float(chance.integers(2)) * 2 - 1
    # Evenly from an ellipse well inside the lung.
    far, angle = 0.72 * chance.random() ** 0.5, chance.uniform(0, 2 * np.pi)
    bottom = body.base - body.rise
    u = (body.gap + body.half) / 2 + far * (body.half - body.gap) / 2 * float(np.cos(angle))
    v = (body.apex + bottom) / 2 + far * (bottom - body.apex) / 2 * float(np.sin(angle))
    size, strength = (min(max(chance.random() + change.normal(0, 0.1), 0.0), 1.0) for _ in range(2))
    return _Place(side, side * u, v, size, strength, chance.uniform(0, 2 * np.pi), chance.uniform(0, 2 * np.pi))


def _fluid(body: Body, place: _Place, u: Grid, v: Grid) -> Grid:
    """Fluid at the base of one lung, 0 to 1, its surface higher along the chest wall."""
    out = u * place.side
    outward = np.clip((out - body.gap) * (1 / (body.half - body.gap)), 0, 1)
    rise = (0.09 + 0.40 * place.size**2) * (0.55 + 0.75 * outward**3)
    return soft(v - (body.base - 0.35 * body.rise) + rise, 0.02) * soft(out - body.gap / 2, 0.01)


def _leak(body: Body, place: _Place, u: Grid, v: Grid, width: float) -> tuple[Grid, Grid]:
    """Air between one lung and the chest wall, most of it at the top, and the line of the lung's edge, 0 to 1 each."""
    upper = soft(0.05 - v, 0.10)
    away = outline(
        body, u + place.side * (0.03 + 0.09 * place.size) * upper, v - (0.10 + 0.20 * place.size) * upper
    )  # fmt: skip
    upper = upper * soft(u * place.side - body.gap / 2, 0.01)
    return upper * soft(-away, width), upper * np.exp(away * away * (-0.5 / 0.010**2))


def _opacity(film: Film, name: str, place: _Place, u: Grid, v: Grid) -> tuple[Grid, float]:
    """The shape of a nodule, a mass or an infiltrate, about 0 to 1, and its density."""
    du, dv = u - place.u, v - place.v
    if name == "Nodule":
        return soft(0.052 + 0.02 * place.size - length(du, dv), 0.008), 0.55 + 0.4 * place.strength
    if name == "Mass":
        angle = np.arctan2(dv, du)
        lobes = 1 + 0.12 * np.cos(2 * angle + place.turn) + 0.08 * np.cos(3 * angle + place.other)
        return soft((0.12 + 0.08 * place.size) * lobes - length(du, dv), 0.02), 0.36 + 0.30 * place.strength
    cos, sin = float(np.cos(place.turn)), float(np.sin(place.turn))
    wide, high = 0.22 + 0.12 * place.size, 0.15 + 0.08 * place.size
    patch = soft(1 - length((cos * du + sin * dv) / wide, (cos * dv - sin * du) / high), 0.18)
    return patch * (0.75 + 0.35 * clouds(_chance(film, "grain"), u, v, 16.0)), 0.26 + 0.24 * place.strength


def _averaged(fine: Grid) -> Grid:
    """Each square of `_FINER` pixels a side as one pixel."""
    side = fine.shape[0] // _FINER
    coarse: Grid = fine.reshape(side, _FINER, side, _FINER).mean((1, 3))
    return coarse


def _box(extent: Grid) -> PixelBox | None:
    """The smallest box around all that is half as strong as the strongest; None where hardly anything shows."""
    strongest = float(extent.max())
    if strongest < 0.2:
        return None
    strong = extent >= strongest / 2
    rows, columns = np.flatnonzero(strong.any(1)), np.flatnonzero(strong.any(0))
    left, top, right, bottom = (
        int(edge) / _FINER for edge in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    )  # fmt: skip
    return left, top, right - left, bottom - top
