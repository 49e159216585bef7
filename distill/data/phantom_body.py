"""The parts of a synthetic chest without findings, each a density on a grid of places in the body.

Places: `u` runs from the spine (0) to the film's edges (-1 and 1), `v` from the film's top (-1) to its bottom (1). The
patient faces us, as on a radiograph, so the heart lies on the film's right.
"""

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from numpy.random import Generator

Grid: TypeAlias = npt.NDArray[np.floating[Any]]


class Body(NamedTuple):
    """A patient's measures: lengths in half sides of the film, densities where soft tissue is about 1."""

    half: float  # half the inner width of the chest
    gap: float  # from the spine to a lung
    apex: float  # height of the lungs' tops
    base: float  # and of the corners at their bottom
    rise: float  # of the diaphragm's domes above these corners
    ratio: float  # the heart's width to the chest's
    spacing: float  # of the ribs
    phase: float  # where the first rib lies, in spacings
    bone: float  # density of a rib
    flesh: float  # density of the trunk
    breast: float  # density of the breasts, a share of the trunk's
    knob: float  # radius of the aorta's knob
    stomach: float  # how dark the air in the stomach is


def body_of(chance: Generator, *, sex: str, age: int) -> Body:
    """A patient's measures. Men are wider, women have breasts, the old have thin bones, wide hearts and aortas."""
    man, old = sex == "M", (age - 50) / 40
    return Body(
        half=chance.normal(0.77 if man else 0.71, 0.035),
        gap=chance.uniform(0.10, 0.14),
        apex=chance.normal(-0.76, 0.03),
        base=chance.normal(0.58 if man else 0.52, 0.05),
        rise=chance.uniform(0.10, 0.18),
        ratio=chance.normal(0.44 + 0.02 * old, 0.022),
        spacing=chance.uniform(0.145, 0.175),
        phase=chance.uniform(0, 1),
        bone=chance.uniform(0.06, 0.11) * (1 - 0.25 * max(old, 0)),
        flesh=chance.uniform(0.75, 1.1),
        breast=0.0 if man else chance.uniform(0.05, 0.28),
        knob=chance.uniform(0.05, 0.09) + 0.03 * max(old, 0),
        stomach=chance.uniform(0, 0.4),
    )


def soft(distance: Grid, width: float) -> Grid:
    """A soft edge: 0 where the distance into a shape is far below 0, 1 where far above, half at the edge."""
    rise: Grid = np.clip(distance * (0.2 / width) + 0.5, 0, 1)
    return rise * rise * (3 - 2 * rise)


def spot(du: Grid, dv: Grid, width: float) -> Grid:
    """A round spot of this standard deviation."""
    return np.exp((du * du + dv * dv) * (-0.5 / width**2))


def length(du: Grid, dv: Grid) -> Grid:
    """Distance, in a third of `np.hypot`'s time."""
    return np.sqrt(du * du + dv * dv)


def clouds(chance: Generator, u: Grid, v: Grid, fineness: float) -> Grid:
    """Smooth noise with mean 0 and deviation 1: a sum of waves in all directions, `fineness` radians a half side."""
    waves = 6
    turn, pace = chance.uniform(0, np.pi, waves), fineness * chance.uniform(0.5, 1.5, waves)
    start = chance.uniform(0, 2 * np.pi, waves)
    total = np.zeros_like(u)
    for a, k, s in zip(turn.tolist(), pace.tolist(), start.tolist(), strict=True):
        total += np.cos(k * float(np.cos(a)) * u + (k * float(np.sin(a)) * v + s))
    return total * float(np.sqrt(2 / waves))


def outline(body: Body, u: Grid, v: Grid) -> Grid:
    """About the distance into either lung's outline, as if there were no diaphragm."""
    middle, wide = (body.gap + body.half) / 2, (body.half - body.gap) / 2
    low = body.base + 0.42
    down: Grid = np.abs(v * (2 / (low - body.apex)) - (low + body.apex) / (low - body.apex))
    across: Grid = np.abs((np.abs(u) - middle - 0.03 * v) * (1 / wide))
    return (1 - across * across * np.sqrt(across) - down * down * np.sqrt(down)) * (wide / 2.5)


def floor(body: Body, u: Grid) -> Grid:
    """Height of the diaphragm above or below each place; the film's left dome is a little higher."""
    middle, wide = (body.gap + body.half) / 2, (body.half - body.gap) / 2
    across = (np.abs(u) - (middle - 0.06)) * (1 / wide)
    return body.base - body.rise * (1 - across * across) + 0.015 * np.sign(u)


def lungs(body: Body, u: Grid, v: Grid, width: float) -> Grid:
    """Both lungs, 0 to 1, with edges of this width."""
    return soft(outline(body, u, v), width) * soft(floor(body, u) - v, width)


def heart(body: Body, u: Grid, v: Grid, width: float) -> Grid:
    """An egg that lies aslant on the diaphragm, a third of it left of the spine, 0 to 1."""
    wide = body.ratio * body.half
    du, dv = u - 0.30 * wide, v - (body.base - body.rise - 0.42 * wide + 0.06)
    cos, sin = 0.825, 0.565
    along, across = (cos * du + sin * dv) * 0.94, (cos * dv - sin * du) * 1.16
    return soft(wide - length(along, across), width)


def trunk(body: Body, u: Grid, v: Grid) -> Grid:
    """Neck, shoulders, chest wall and belly, lungs not yet taken out."""
    shoulder, hip = soft(v + 0.80, 0.05), soft(v + 0.10, 0.06)
    wide = 0.22 + (body.half + 0.20) * shoulder - 0.27 * hip
    across = u / (wide + 0.1)
    depth = np.sqrt(np.maximum(1 - across * across, 0.05))
    belly = 0.35 * soft(v - floor(body, u), 0.02)
    content = 0.35 + 0.65 * depth + belly
    if body.breast:
        content += body.breast * soft(0.27 - length(np.abs(u) - 0.42, v * 1.1 - 0.33), 0.02)
    content -= body.stomach * soft(1 - length((u - 0.35) / 0.14, (v - (body.base + 0.06)) / 0.06), 0.1)
    return body.flesh * soft(wide - np.abs(u), 0.02) * content


def middle(body: Body, u: Grid, v: Grid) -> Grid:
    """Spine, great vessels and the aorta's knob, less the windpipe's air."""
    waist: Grid = 1 + 0.12 * np.cos(v * 37.0)
    spine = 0.16 * soft(0.085 - np.abs(u), 0.01) * waist
    vessels = 0.28 * soft(body.gap + 0.03 * (v + 0.2) - np.abs(u - 0.01), 0.02) * soft(v + 0.55, 0.05)
    knob = 0.22 * soft(body.knob - length(u - body.gap, v + 0.30), 0.012)
    windpipe = 0.28 * soft(0.04 - np.abs(u + 0.01), 0.012) * soft(-0.22 - v, 0.03)
    return spine + vessels + knob - windpipe


def bones(body: Body, u: Grid, v: Grid, lung: Grid) -> Grid:
    """Ribs behind and before, collar bones, and the edges of the shoulder blades."""
    out = np.abs(u)
    cage = soft(body.half + 0.05 - out, 0.012) * soft(v - (body.apex + 0.02), 0.02) * (0.4 + 0.6 * lung)
    behind = (v - out * (0.10 + 0.42 * out)) * (1 / body.spacing) + body.phase
    before = (v + out * (0.55 - 0.25 * out)) * (0.87 / body.spacing) + body.phase * 2
    ribs = soft(0.27 - np.abs(behind - np.round(behind)), 0.05)
    ribs += 0.55 * soft(0.25 - np.abs(before - np.round(before)), 0.07) * soft(out - 0.30, 0.05)
    collar = soft(0.028 - np.abs(v + 0.62 + 0.24 * (out - 0.05) - 0.12 * np.sin(4 * out)), 0.01)
    collar *= soft(out - 0.07, 0.02) * soft(body.half + 0.12 - out, 0.02)
    blade = soft(0.02 - np.abs(out - (body.half - 0.03) - 0.35 * (v + 0.3) ** 2), 0.01) * soft(
        0.27 - np.abs(v + 0.4), 0.03
    )
    return body.bone * (ribs * cage * soft(0.75 - v, 0.1) + 1.3 * collar + 0.5 * blade)


def vessels(body: Body, chance: Generator, u: Grid, v: Grid) -> Grid:
    """Roots and branches of the lungs' vessels. Up to three are met end on, and look like nodules."""
    density = np.zeros_like(u)
    for side in (-1.0, 1.0):
        du, dv = u - side * (body.gap + 0.05), v - (chance.normal(0, 0.02) - 0.08)
        density += 0.16 * spot(du * 1.2, dv * 0.7, 0.06)
        for turn in (-1.2, -0.7, -0.2, 0.3, 0.8, 1.3):
            angle, far = turn + chance.normal(0, 0.1), chance.uniform(0.35, 0.6)
            cos, sin = side * float(np.cos(angle)), float(np.sin(angle))
            along = (cos * du + sin * dv) * (1 / far)
            off = (cos * dv - sin * du) + 0.06 * along * along * chance.uniform(-1, 1)
            fading = np.clip(1 - along, 0, 1) * np.clip(along * 5, 0, 1)
            density += 0.18 * fading * np.maximum(1 - off * off * (1 / 0.034**2), 0) ** 2
    for _ in range(int(chance.integers(0, 4))):
        side, far, angle = float(chance.integers(2)) * 2 - 1, chance.uniform(0.1, 0.3), chance.uniform(-1.4, 1.4)
        at_u = side * (body.gap + 0.05 + far * float(np.cos(angle)))
        density += chance.uniform(0.08, 0.2) * spot(u - at_u, v + (0.08 - far * float(np.sin(angle))), 0.022)
    return density


def bedside(chance: Generator, u: Grid, v: Grid) -> Grid:
    """What lies on a patient in bed: up to three electrodes, and often a line down to the heart."""
    density = np.zeros_like(u)
    for _ in range(int(chance.integers(0, 4))):
        off = length(u - chance.uniform(-0.7, 0.7), v - chance.uniform(-0.5, 0.5))
        density += 0.35 * soft(0.012 - np.abs(off - 0.03), 0.004)
    if chance.random() < 0.5:
        bend = -0.10 - 0.35 * soft(-0.45 - v, 0.06) * (float(chance.integers(2)) * 2 - 1)
        density += 0.25 * soft(0.008 - np.abs(u - bend), 0.005) * soft(0.05 - v, 0.01)
    return density
