"""A head as magnetic resonance shows it: what each tissue of `pacs_node.phantoms.head` looks like follows from its relaxation times.

Proton density is relative to water; T1 and T2 are milliseconds at 1.5 T, rounded from the literature.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from pacs_node.phantoms import head
from pacs_node.phantoms.grid import Array, Grid, lookup, ramp
from pacs_node.phantoms.head import SKULL_DEPTH, Head, Palette
from pacs_node.phantoms.shapes import Anatomy, Canvas, Organ, Slab, assemble, mix

FIELD_OF_VIEW = 240.0  # mm
SPACING = 5.0  # mm
CENTRE = 18.0  # z of the middle of an axial scan, mm
MIDDLE = -14.0  # z of the middle of sagittal and coronal images, mm

_NECK = -30.0  # z below which the outline narrows, mm


@dataclass(frozen=True, slots=True)
class Tissue:
    """What makes the signal of a tissue."""

    density: float
    t1: float  # ms
    t2: float  # ms


TISSUES: dict[str, Tissue] = {
    "air": Tissue(0.0, 1000, 10),
    "bone": Tissue(0.06, 500, 20),
    "white": Tissue(0.70, 620, 78),
    "grey": Tissue(0.82, 1080, 95),
    "nuclei": Tissue(0.78, 960, 84),
    "stem": Tissue(0.72, 720, 82),
    "fluid": Tissue(1.0, 4200, 1800),
    "dura": Tissue(0.45, 800, 40),
    "muscle": Tissue(0.72, 900, 45),
    "fat": Tissue(0.90, 270, 95),
    "skin": Tissue(0.65, 500, 45),
    "marrow": Tissue(0.60, 380, 65),
    "lens": Tissue(0.45, 900, 30),
}

_TISSUE_OF = {
    "caudate": "nuclei",
    "lentiform nucleus": "nuclei",
    "thalamus": "nuclei",
    "frontal horn": "fluid",
    "lateral ventricle": "fluid",
    "occipital horn": "fluid",
    "third ventricle": "fluid",
    "fourth ventricle": "fluid",
    "suprasellar cistern": "fluid",
    "quadrigeminal cistern": "fluid",
    "brain stem": "stem",
    "orbit": "fat",
    "eye": "fluid",
    "lens": "lens",
    "optic nerve": "white",
    "petrous bone": "bone",
    "mastoid": "marrow",
    "mastoid air cells": "air",
    "ear canal": "air",
    "clivus": "marrow",
    "dorsum sellae": "bone",
    "nasal septum": "dura",
    "sphenoid sinus": "air",
    "ethmoid cells": "air",
    "maxillary sinus": "air",
    "nasal passage": "air",
    "frontal sinus": "air",
    "pharynx": "air",
    "ear": "muscle",
    "ear shell": "air",
    "nose": "muscle",
}
"""The tissue of every organ of `pacs_node.phantoms.head`."""

Signals = Mapping[str, float]


def anatomy(grid: Grid, rng: np.random.Generator, signals: Signals) -> Anatomy:
    """Return an upright head; ``signals`` are the values of `TISSUES`, ``grid`` is the scanner's."""
    person = head.person_of(grid, rng)
    organs = {name: tuple(_coloured(organ, signals) for organ in table) for name, table in person.organs.items()}
    person = replace(person, organs=organs)
    roll, shift = float(np.radians(np.clip(rng.normal(0, 4), -9, 9))), rng.normal(0, 3, 3).tolist()
    laid = grid.moved(roll, (shift[0], shift[1], shift[2]))
    return assemble(laid, partial(_slab, person, signals), person.organs["ventricles"])


def _coloured(organ: Organ, signals: Signals) -> Organ:
    name = organ.name.removeprefix("left ").removeprefix("right ")
    return replace(organ, value=signals[_TISSUE_OF[name]])


def _palette(signals: Signals) -> Palette:
    white, grey, fluid = signals["white"], signals["grey"], signals["fluid"]
    leaves = (0.65 * grey + 0.35 * white, 0.12 * (fluid - grey))
    return Palette(white, grey - white, 0.85 * fluid + 0.15 * grey, 0.9 * fluid + 0.1 * grey, signals["dura"], leaves, signals["dura"], arched=True)


def _slab(person: Head, signals: Signals, grid: Grid, where: slice) -> Slab:
    """Build some slices from the skin inwards, then what lies under the floor of the skull."""
    surface, scale = head.depth(person, grid, where)
    depth = surface - head.scalp_thickness(grid)
    depth /= scale * person.skull
    if float(grid.z.min()) < _NECK:
        surface = np.minimum(surface, _neck(grid))
    canvas = Canvas(grid, where, lookup(surface, _scalp(signals)))
    thickness = 1 + 0.15 * person.fields["skull"].part(where)
    local = depth / np.clip(thickness, 0.6, 1.5, out=thickness)
    mix(canvas.image, ramp(-local, 0.4), lookup(local, _skull(signals)))
    floor = head.floor(grid)
    inside = ramp(SKULL_DEPTH + 1.0 - depth, 1.2)
    brain = inside * ramp(floor, 2.0)
    mix(canvas.image, brain, head.brain(person, grid, where, depth, _palette(signals)))
    _below(person, signals, canvas, inside, floor)
    air = ramp(surface, 0.8)
    mix(canvas.image, air, signals["air"])
    if float(grid.z.min()) < 0:
        canvas.paint(person.organs["outside"], air * ramp(-72 - grid.z, 4))
    return Slab(canvas.image, surface > 0, (brain > 0.99) & (depth > SKULL_DEPTH + 3))


def _scalp(signals: Signals) -> tuple[tuple[float, float], ...]:
    """Return depth below the surface, mm → signal: skin, fat, galea and muscle."""
    skin, fat, muscle = signals["skin"], signals["fat"], signals["muscle"]
    return (0.0, 0.5 * skin), (0.8, skin), (1.6, skin), (2.4, fat), (4.0, fat), (4.9, muscle)


def _skull(signals: Signals) -> tuple[tuple[float, float], ...]:
    """Return depth below the scalp, mm, of an average skull → signal: dark tables with marrow between them, then fluid."""
    bone, marrow = signals["bone"], signals["marrow"]
    outer, inner = ((0.0, signals["muscle"]), (0.4, bone), (1.7, bone)), ((4.2, bone), (5.6, bone), (6.1, signals["dura"]), (7.2, signals["fluid"]))
    return (*outer, (2.3, marrow), (3.6, marrow), *inner)


def _neck(grid: Grid) -> Array:
    """Return the depth below the outline that narrows under the skull: chin in front, neck behind, mm."""
    low = np.clip((_NECK - grid.z) / 90, 0, 1)
    low = low * low * (3 - 2 * low)
    reach = np.where(grid.y > 0, 112 - 58 * low, 104 - 22 * low)
    planar = np.sqrt((grid.x * (1 + 0.6 * low)) ** 2 + grid.y**2)
    depth: Array = (reach - planar + 200 * ramp(_NECK - grid.z, 5)).astype(np.float32)
    return depth


def _below(person: Head, signals: Signals, canvas: Canvas, inside: Array, floor: Array) -> None:
    """Fill what lies under the floor of the skull: muscle and fat, bones with their marrow, orbits, air cells, the upper spine."""
    grid = canvas.grid
    if float(floor.max()) < -6:
        return
    grain = person.fields["soft tissue"].part(canvas.where)
    tissue = signals["muscle"] + (signals["fat"] - signals["muscle"]) * ramp(grain + 0.75, 0.35)
    tissue += 0.06 * signals["muscle"] * grain
    front = ramp(grid.y + 5, 25) * ramp(grid.z + 24, 6)
    facial = person.fields["facial bone"].part(canvas.where)
    mix(tissue, ramp(1.5 - facial, 0.35) * front, signals["marrow"])
    mix(tissue, ramp(np.abs(facial - 1.4) - 0.15, 0.15) * front, signals["bone"])
    mix(tissue, ramp(np.abs(floor - 2) - 1.5, 1.0), signals["bone"])
    mix(canvas.image, inside * ramp(-floor, 1.5), tissue)
    _upper_spine(signals, canvas)
    canvas.paint(person.organs["base"], inside * ramp(-floor - 6, 4))
    canvas.paint(person.organs["orbits"], ramp(-floor - 8, 3))
    canvas.paint(person.organs["air cells"], inside)


def _upper_spine(signals: Signals, canvas: Canvas) -> None:
    """Paint the cord in its fluid and the first vertebrae before it."""
    box = canvas.grid.box((0, 14, -140), (30, 50, 88))
    if box is None:
        return
    x, y, z = canvas.grid.part(box)
    low = ramp(z + 58, 3)
    along = np.abs((z + 70) / 17 - np.rint((z + 70) / 17)) * 17
    body = ramp((np.sqrt((x / 9) ** 2 + ((y + 4) / 8) ** 2) - 1) * 8, 1.0) * low
    canvas.blend(box, body, signals["marrow"])
    canvas.blend(box, body * ramp(6.5 - along, 0.8), 0.5 * (signals["muscle"] + signals["fluid"]))
    canal = np.sqrt(x**2 + (y - 15) ** 2)
    canvas.blend(box, ramp(canal - 10.5, 1.0) * low, signals["bone"])
    canvas.blend(box, ramp(canal - 8.5, 1.0) * low, signals["fluid"])
    canvas.blend(box, ramp(canal - 5.0, 1.0) * low, signals["stem"])
