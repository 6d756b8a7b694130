"""A body as positron emission tomography shows it: uptake of FDG in the organs of `pacs_node.phantoms.body`, from the thighs to the head.

Values are standardised uptake values by body weight, g/ml: what is usual an hour after the injection.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from pacs_node.phantoms import body
from pacs_node.phantoms.body import SPINE, Body
from pacs_node.phantoms.grid import Array, Floats, Grid, ramp
from pacs_node.phantoms.shapes import Anatomy, Canvas, Organ, Slab, assemble, mirrored, mix, varied

FIELD_OF_VIEW = 500.0  # mm
SPACING = 5.0  # mm
CENTRE = 0.0  # z of the middle of the scan, mm
MIDDLE = CENTRE

_AIR, _FAT, _MUSCLE, _LUNG, _MARROW, _SKIN = 0.01, 0.22, 0.62, 0.45, 1.35, 0.4
_NECK, _HIPS = 205.0, -330.0  # z, mm
_VARIES = {"heart": 0.8, "renal sinus": 0.5, "bladder": 0.35, "stomach": 0.3, "liver": 0.12, "kidney": 0.2, "hemisphere": 0.15}
_UPTAKE = {
    "liver": 2.3,
    "left lobe": 2.3,
    "hepatic vein": 1.9,
    "portal vein": 1.9,
    "gallbladder": 0.7,
    "stomach": 1.5,
    "spleen": 1.8,
    "pancreas": 1.4,
    "adrenal": 1.6,
    "kidney": 2.8,
    "renal sinus": 9.0,
    "heart": 2.6,
    "left chambers": 1.7,
    "right chambers": 1.6,
    "aortic arch": 1.7,
    "pulmonary trunk": 1.6,
    "oesophagus": 1.2,
    "trachea": 0.1,
    "aorta": 1.7,
    "vena cava": 1.6,
    "psoas": 0.65,
    "spinal muscle": 0.65,
    "stomach gas": 0.2,
}
"""Uptake of every organ of `pacs_node.phantoms.body`."""

_PELVIS = (
    Organ("bladder", (0, -30, -290), (38, 34, 30), 16.0, soft=3, structure=True),
    Organ("rectum", (0, 30, -290), (16, 16, 45), 1.2),
    *mirrored(Organ("hip", (80, 8, -300), (24, 24, 26), 0.9, soft=3)),
    *mirrored(Organ("iliac wing", (78, 30, -215), (40, 20, 45), 1.0, angle=35, soft=3)),
)
_SKULL = (
    Organ("skull", (0, -4, 318), (70, 88, 78), 0.7),
    *mirrored(Organ("hemisphere", (32, -4, 326), (30, 76, 60), 8.0, soft=4)),
    *mirrored(Organ("white matter", (28, -4, 330), (17, 54, 38), 3.5, soft=5)),
    *mirrored(Organ("deep grey", (16, -6, 322), (9, 16, 14), 8.5, soft=3)),
    *mirrored(Organ("cerebellum", (22, 48, 272), (26, 26, 20), 6.5, soft=4)),
    *mirrored(Organ("tonsil", (14, -28, 236), (7, 9, 11), 2.4, soft=3)),
    Organ("mouth", (0, -62, 240), (22, 24, 16), 1.4, soft=4),
)


def anatomy(grid: Grid, rng: np.random.Generator) -> Anatomy:
    """Return a body; ``grid`` is that of the scanner, the body is laid in with its own small rotation and shift."""
    person = body.person_of(grid, rng)
    organs = {name: tuple(_taken_up(organ, _UPTAKE[_plain(organ)], rng) for organ in table) for name, table in person.organs.items()}
    for name, table in (("pelvis", _PELVIS), ("skull", _SKULL)):
        drawn = varied(table, rng)
        organs[name] = tuple(_taken_up(organ, usual.value, rng) for organ, usual in zip(drawn, table, strict=True))
    person = replace(person, organs=organs)
    roll, shift = float(np.radians(np.clip(rng.normal(0, 2), -5, 5))), rng.normal(0, 3, 3).tolist()
    laid = grid.moved(roll, (shift[0], shift[1], shift[2]))
    return assemble(laid, partial(_slab, person), (*organs["abdomen"], *organs["chest"], *organs["pelvis"]))


def _plain(organ: Organ) -> str:
    return organ.name.removeprefix("left ").removeprefix("right ") if organ.name not in _UPTAKE else organ.name


def _taken_up(organ: Organ, usual: float, rng: np.random.Generator) -> Organ:
    spread = _VARIES.get(_plain(organ), 0.1)
    return replace(organ, value=usual * float(np.exp(spread * np.clip(rng.standard_normal(), -1.7, 1.7))))


def _slab(person: Body, grid: Grid, where: slice) -> Slab:
    """Build some slices: skin, fat, muscular wall and marrow, then what lies in the chest, the belly and the pelvis, then the head."""
    trunk = body.depth(person, grid, where)
    surface = _outline(trunk, grid)
    wall = surface - body.fat_thickness(person, grid) * ramp(grid.z - _NECK, 20)
    cavity = wall - 21
    canvas = Canvas(grid, where, np.full(surface.shape, _FAT, dtype=np.float32))
    mix(canvas.image, ramp(surface - 2, 1.5), _SKIN)
    mix(canvas.image, ramp(-wall, 2.0), _MUSCLE)
    _ribs(canvas, wall)
    inside, lung = ramp(-cavity, 2.0) * _between(grid, _HIPS - 10, _NECK - 15), body.lungs(person, grid, cavity)
    _belly(person, canvas, inside * (1 - lung))
    if lung.any():
        mix(canvas.image, lung, (_LUNG * (1 + 0.06 * person.tone) + 0.002 * grid.y).astype(np.float32))
    canvas.paint(person.organs["heart"], inside * ramp(body.diaphragm(person, grid) - grid.z, 4))
    canvas.paint(person.organs["chest"], inside)
    canvas.paint(person.organs["vessels"], np.broadcast_to(_between(grid, -140, 150), surface.shape))
    canvas.paint(person.organs["pelvis"])
    canvas.paint(person.organs["skull"])
    _spine(person, canvas)
    image = canvas.image
    space = (surface > 6) & (image > 0.15)
    mix(image, ramp(surface, 2.0), _AIR)
    return Slab(image, surface > 0, space)


def _between(grid: Grid, low: float, high: float) -> Array:
    return ramp(low - grid.z, 6) * ramp(grid.z - high, 6)


def _outline(trunk: Array, grid: Grid) -> Array:
    """Return the depth below the skin, mm: the trunk, closed at the shoulders and the hips; neck and head above, thighs below."""
    surface = np.minimum(trunk, np.where((grid.z < _NECK) & (grid.z > _HIPS - 45), 500, -500).astype(np.float32))
    high, low = float(grid.z.max()), float(grid.z.min())
    if high > _NECK - 30:
        up = np.clip((grid.z - 232) / 30, 0, 1)
        round_off = np.sqrt(np.clip(1 - np.clip((grid.z - 320) / 90, 0, 1) ** 2, 0, 1))
        wide, long = (58 + 20 * up) * round_off, (58 + 40 * up) * round_off
        above = np.where((grid.z > _NECK - 40) & (round_off > 0.05), _ellipse(grid, (0, 8 - 12 * up), wide, long), -500)
        surface = np.maximum(surface, above.astype(np.float32))
    if low < _HIPS - 20:
        legs = np.maximum(_ellipse(grid, (88, 10), 78, 84), _ellipse(grid, (-88, 10), 78, 84))
        surface = np.maximum(surface, np.where(grid.z < _HIPS, legs, -500).astype(np.float32))
    return surface


def _ellipse(grid: Grid, centre: tuple[float | Floats, float | Floats], wide: float | Floats, long: float | Floats) -> Floats:
    """Return the depth inside an elliptic cylinder along z, mm, roughly."""
    away = np.sqrt(((grid.x - centre[0]) / np.maximum(wide, 1)) ** 2 + ((grid.y - centre[1]) / np.maximum(long, 1)) ** 2)
    depth: Floats = (1 - away) * np.minimum(wide, long)
    return depth


def _ribs(canvas: Canvas, wall: Array) -> None:
    """Paint the marrow of ribs and breast bone: faint bands in the wall of the chest."""
    grid = canvas.grid
    if float(grid.z.max()) < -95:
        return
    front = np.clip(-grid.y / 100, -1, 1)
    course = (grid.z + 34 * front + 6 * np.abs(front)) * (1 / 25)
    course -= np.rint(course)
    off = np.sqrt((course * (25 / 6.5)) ** 2 + ((wall - 14) / 5) ** 2)
    present = ramp(45 * front - 75 - grid.z, 6) * ramp(grid.z - 175, 10)
    mix(canvas.image, ramp((off - 1) * 5, 2.5) * present * np.float32(0.5), _MARROW)
    breast = ramp(np.abs(grid.x) - 14, 3) * ramp(grid.y + 40, 10) * _between(grid, 20, 170) * ramp(np.abs(wall - 14) - 5, 2)
    mix(canvas.image, breast, _MARROW)


def _belly(person: Body, canvas: Canvas, weight: Array) -> None:
    """Fill the belly: fat with loops of bowel, some of which take up more, then the organs."""
    loops = person.fields["bowel"].part(canvas.where)
    low = ramp(canvas.grid.y - 35, 15) * ramp(canvas.grid.z + 45, 15)
    base = _FAT + (0.35 + 0.9 * ramp(0.2 - loops, 0.3) + 0.8 * np.clip(loops - 1.2, 0, 1.5)) * low
    mix(canvas.image, weight, base.astype(np.float32))
    for name in ("back", "abdomen", "gas"):
        canvas.paint(person.organs[name], weight)


def _spine(person: Body, canvas: Canvas) -> None:
    """Paint the marrow of the vertebrae and the cord behind them."""
    box = canvas.grid.box((0, 62, -50), (32, 40, 300))
    if box is None:
        return
    x, y, z = canvas.grid.part(box)
    along = np.abs(z / body.VERTEBRA - np.rint(z / body.VERTEBRA)) * body.VERTEBRA
    off = np.sqrt((x / 20) ** 2 + ((y - SPINE[1]) / 15.5) ** 2)
    marrow = _MARROW * (1 + 0.08 * person.tone) - 0.55 * ramp(11.5 - along, 2)
    canvas.blend(box, ramp((off - 1) * 15, 2.0), marrow.astype(np.float32))
    canvas.blend(box, ramp(np.sqrt(x**2 + (y - 77) ** 2) - 6, 2.0), 1.1)
