"""Chest and upper abdomen in Hounsfield units: fat, muscle, ribs, spine, lungs with vessels, heart, aorta, liver, spleen, kidneys, table.

The frame: x to the patient's left, y to the back, z up, in millimetres; the origin lies in the middle of the body at the height of the diaphragm.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from pacs_node.phantoms.grid import Array, Field, Grid, ramp, smooth_field
from pacs_node.phantoms.shapes import Anatomy, Canvas, Organ, Slab, assemble, mirrored, mix, varied

FIELD_OF_VIEW = 400.0  # mm
SPACING = 5.0  # mm
CENTRE = 10.0  # z of the middle of the scan, mm

_AIR, _FAT, _MUSCLE, _BLOOD = -1000.0, -100.0, 55.0, 42.0
_SPINE = (0.0, 54.0)  # centre of the vertebral bodies: x, y
_VERTEBRA = 30.0  # height of a vertebra with its disc, mm

_ABDOMEN = (
    Organ("liver", (-66, -6, -38), (80, 78, 74), 60, angle=12),
    Organ("left lobe", (-2, -50, -14), (62, 30, 30), 60, angle=-10),
    Organ("hepatic vein", (-48, 12, -20), (6, 24, 9), 44, angle=-35, structure=True),
    Organ("portal vein", (-72, -12, -36), (20, 7, 9), 44, angle=25, structure=True),
    Organ("gallbladder", (-52, -48, -62), (14, 20, 22), 10, structure=True),
    Organ("stomach", (54, -26, -18), (38, 42, 36), 32, angle=20),
    Organ("spleen", (94, 34, -14), (28, 42, 44), 52, angle=-18, structure=True),
    Organ("pancreas", (14, 0, -62), (48, 11, 13), 42, angle=-12),
    *mirrored(Organ("adrenal", (30, 38, -42), (4, 12, 12), 28, angle=20)),
    *mirrored(Organ("kidney", (60, 48, -88), (25, 29, 52), 34, angle=22, structure=True)),
    *mirrored(Organ("renal sinus", (52, 44, -88), (10, 12, 26), -60, angle=22, soft=3)),
)
_CHEST = (
    Organ("heart", (26, -36, 48), (56, 47, 52), 38, angle=28),
    Organ("left chambers", (40, -30, 46), (28, 22, 34), _BLOOD, angle=35, soft=3, structure=True),
    Organ("right chambers", (2, -48, 46), (26, 19, 32), _BLOOD, angle=20, soft=3),
    Organ("aortic arch", (8, -2, 132), (18, 38, 12), _BLOOD, angle=-15),
    Organ("pulmonary trunk", (14, -22, 104), (26, 16, 14), _BLOOD),
    Organ("oesophagus", (4, 22, 60), (8, 6, 90), 35),
    Organ("trachea", (-2, 12, 150), (9, 9, 60), -990, soft=0.8),
)
_VESSELS = (
    Organ("aorta", (16, 30, -20), (12, 12, 190), _BLOOD, vary=0.05),
    Organ("vena cava", (-22, 20, -60), (12, 10, 110), _BLOOD - 4, vary=0.05),
)
_BACK = (
    *mirrored(Organ("psoas", (38, 58, -130), (20, 20, 75), 52)),
    *mirrored(Organ("spinal muscle", (34, 86, 0), (24, 14, 400), 50, angle=-8)),
)
_GAS = (Organ("stomach gas", (54, -50, -18), (22, 14, 22), -960, vary=0.15),)
_TABLES = {"heart": _CHEST[:1], "chest": _CHEST[1:], "vessels": _VESSELS, "back": _BACK, "abdomen": _ABDOMEN, "gas": _GAS}
_FIELDS = {"outline": 80, "branches": 17, "twigs": 13, "bowel": 20, "spongy bone": 7}  # mm


@dataclass(frozen=True, slots=True)
class _Person:
    """What differs from body to body."""

    half_width: float  # mm
    half_depth: float  # mm
    fat: float  # thickness under the skin at the sides, mm
    breath: float  # how far the diaphragm lies below its mean, mm
    lung: float  # HU
    organs: dict[str, tuple[Organ, ...]]
    fields: dict[str, Field]


def _person(grid: Grid, rng: np.random.Generator) -> _Person:
    draw = np.clip(rng.standard_normal(6), -2, 2).tolist()  # Python floats keep the arrays in single precision
    fat = min(max(13 + 5 * draw[2], 6.0), 24.0)
    return _Person(
        half_width=148 + 5 * draw[0] + fat,
        half_depth=106 + 4 * draw[1] + 0.6 * fat,
        fat=fat,
        breath=8 * draw[4],
        lung=-845 + 20 * draw[5],
        organs={name: varied(table, rng) for name, table in _TABLES.items()},
        fields={name: smooth_field(rng, grid.shape, grid.voxels(scale, scale)) for name, scale in _FIELDS.items()},
    )


def anatomy(grid: Grid, rng: np.random.Generator) -> Anatomy:
    """Return a body from the chest to the kidneys; ``grid`` is that of the scanner, the body is laid in with its own small rotation and shift."""
    person = _person(grid, rng)
    roll, shift = float(np.radians(np.clip(rng.normal(0, 2), -5, 5))), rng.normal(0, 3, 3).tolist()
    body = grid.moved(roll, (shift[0], shift[1], shift[2]))
    return assemble(body, partial(_slab, person, grid), (*person.organs["abdomen"], *person.organs["chest"]))


def _slab(person: _Person, scanner: Grid, grid: Grid, where: slice) -> Slab:
    """Build some slices of the body: skin, fat and wall, then what lies in the chest and the belly, the spine, the table."""
    surface = _depth(person, grid, where)
    wall = surface - _fat_thickness(person, grid)
    cavity = wall - 21
    canvas = Canvas(grid, where, np.full(surface.shape, _FAT, dtype=np.float32))
    mix(canvas.image, ramp(surface - 1.8, 0.6), 30.0)
    _wall(canvas, wall, cavity)
    inside, lung = ramp(-cavity, 1.5), _lungs(person, grid, cavity)
    _abdomen(person, canvas, inside * (1 - lung))
    if lung.any():
        mix(canvas.image, lung, _lung_tissue(person, canvas, cavity))
    canvas.paint(person.organs["heart"], inside * ramp(_diaphragm(person, grid) - grid.z, 2))
    canvas.paint(person.organs["chest"], inside)
    canvas.paint(person.organs["vessels"])
    _spine(person, canvas)
    image = canvas.image
    space = (cavity > 4) & (image < 200) & (image > -920) & ~((np.abs(grid.x) < 30) & (grid.y > _SPINE[1] - 20))
    _outside(person, canvas, surface, scanner)
    return Slab(image, surface > 0, space)


def _depth(person: _Person, grid: Grid, where: slice) -> Array:
    """Return the depth below the skin in the plane of z, mm: a rounded rectangle that is slimmer at the waist and the shoulders."""
    waist = 1 - 0.05 * np.exp(-(((grid.z + 120) / 60) ** 2)) - 0.10 * np.clip((grid.z - 110) / 120, 0, 1) ** 2
    power = 2.5
    outline = ((np.abs(grid.x) / person.half_width) ** power + (np.abs(grid.y) / person.half_depth) ** power) ** (1 / power)
    distance = outline / waist
    distance *= 1 + 0.008 * person.fields["outline"].part(where)
    planar = np.sqrt(grid.x**2 + grid.y**2)
    depth: Array = planar / np.maximum(distance, 1e-3, out=distance)
    depth -= planar
    return depth


def _fat_thickness(person: _Person, grid: Grid) -> Array:
    """Return the thickness of the fat under the skin, mm: thin over the spine, thick at the flanks and, low, at the belly."""
    back = person.fat * (1 - 0.4 * np.exp(-((grid.x / 45) ** 2)) * ramp(40 - grid.y, 30))
    belly = 0.7 * person.fat * ramp(grid.y + 40, 30)
    thickness: Array = back + belly * ramp(grid.z + 30, 60)
    return thickness


def _wall(canvas: Canvas, wall: Array, cavity: Array) -> None:
    """Paint the muscular wall with a layer of fat in it, the fat inside it, and the bones in it."""
    mix(canvas.image, ramp(-wall, 1.0), _MUSCLE)
    mix(canvas.image, ramp(np.abs(wall - 7) - 1.2, 1.0) * np.float32(0.7), _FAT)
    mix(canvas.image, ramp(-(cavity + 3), 1.5), _FAT)
    high = np.flatnonzero((canvas.grid.z > -95).any(axis=(1, 2)))
    if high.size:
        box = (slice(int(high[0]), int(high[-1]) + 1), slice(None), slice(None))
        _ribs(canvas, box, np.abs(wall[box] - 14))


def _ribs(canvas: Canvas, box: tuple[slice, slice, slice], deep: Array) -> None:
    """Paint ribs that run down to the front and end in cartilage, and the breast bone; ``deep`` is the distance from the middle of the wall."""
    grid, z = canvas.grid, canvas.grid.z[box[0]]
    front = np.clip(-grid.y / 100, -1, 1)
    course = (z + 34 * front + 6 * np.abs(front)) * (1 / 25)
    course -= np.rint(course)
    off = np.sqrt((course * (25 / 6.5)) ** 2 + (deep / 4.5) ** 2)
    beside = np.minimum(ramp(34 - np.abs(grid.x), 4) * ramp(grid.y, 20) + ramp(-grid.y, 20), 1)  # behind, ribs begin beside the spine
    present = ramp(45 * front - 75 - z, 6) * beside
    bone = 190 + 520 * ramp(np.abs(off - 0.8) - 0.15, 0.12)
    mix(bone, ramp(grid.y + 62, 10), 95.0)
    canvas.blend(box, ramp((off - 1) * 4.5, 1.0) * present, bone)
    breast = ramp(np.abs(grid.x) - 17, 1.5) * ramp(grid.y + 40, 10) * ramp(20 - z, 5)
    canvas.blend(box, breast * ramp(deep - 5, 1.0), 200.0)


def _diaphragm(person: _Person, grid: Grid) -> Array:
    """Return the height of the diaphragm, mm: a dome under each lung, the right one higher; shape (1, rows, columns)."""
    right = 34 - ((grid.x + 70) ** 2 + 0.9 * (grid.y + 5) ** 2) / 130
    left = 22 - ((grid.x - 72) ** 2 + 0.9 * (grid.y + 5) ** 2) / 130
    height = np.maximum(np.maximum(right, left), -72) - person.breath
    return height.astype(np.float32, copy=False)


def _lungs(person: _Person, grid: Grid, cavity: Array) -> Array:
    """Return the weight of lung: above the diaphragm, inside the chest, outside the mediastinum and the spine, closed at the top."""
    lung: Array = ramp(_diaphragm(person, grid) - grid.z, 2.5)
    if not lung.any():
        return lung
    middle = 20 + 6 * np.sin(grid.y / 19) - np.abs(grid.x)
    hilum = 10 * np.exp(-(((grid.z - 90) / 40) ** 2))
    narrow = 12 * np.exp(-(((grid.y + 70) / 28) ** 2))
    lung *= ramp(middle + hilum - narrow * ramp(40 - grid.z, 20), 2.0)
    lung *= ramp(26 - np.sqrt(grid.x**2 + (grid.y - _SPINE[1]) ** 2), 2.0)
    lung *= ramp(((np.abs(grid.x) - 58) ** 2 + 0.6 * (grid.y - 5) ** 2) / 60 + (grid.z - 178), 3)
    lung *= ramp(2 - cavity, 1.2)
    return lung


def _lung_tissue(person: _Person, canvas: Canvas, cavity: Array) -> Array:
    """Return lung everywhere: denser to the back, with vessels that branch where two random fields are both zero, thick near the hilum."""
    grid = canvas.grid
    first, second = person.fields["branches"].part(canvas.where), person.fields["twigs"].part(canvas.where)
    hilum = np.exp(-(((np.abs(grid.x) - 35) / 45) ** 2) - ((grid.y - 5) / 50) ** 2)
    first *= first
    second *= second
    first += second
    vessel = ramp(np.sqrt(first, out=first) - (0.20 + 0.35 * hilum), 0.10)
    vessel *= ramp(10 - cavity, 6)
    second *= 14
    second += person.lung + 0.35 * grid.y
    mix(second, vessel, _BLOOD)
    return second


def _abdomen(person: _Person, canvas: Canvas, weight: Array) -> None:
    """Fill the belly: mesenteric fat with bowel, then the organs, gas in the front of the stomach."""
    grid = canvas.grid
    loops = person.fields["bowel"].part(canvas.where)
    low = ramp(grid.y - 20, 12) * ramp(-grid.x - 60, 20) * ramp(grid.z + 45, 15)
    base = ramp(0.1 - loops, 0.2) * low
    base *= 132
    base += _FAT
    base -= ramp(1.5 - loops, 0.12) * low * 700
    mix(canvas.image, weight, base)
    for name in ("back", "abdomen", "gas"):
        canvas.paint(person.organs[name], weight)


def _spine(person: _Person, canvas: Canvas) -> None:
    """Paint vertebral bodies with discs, the canal, arches, transverse and spinous processes."""
    box = canvas.grid.box((0, 84, 0), (45, 50, 1e4))
    if box is None:
        return
    x, y, z = canvas.grid.part(box)
    along = np.abs(z / _VERTEBRA - np.rint(z / _VERTEBRA)) * _VERTEBRA  # 0 in the middle of a vertebra
    off = np.sqrt((x / 20) ** 2 + ((y - _SPINE[1]) / 15.5) ** 2)
    body = 175 + 25 * person.fields["spongy bone"].part(canvas.where)[box]
    body += ramp(np.abs(off - 0.94) - 0.05, 0.05) * 320
    body += ramp(np.abs(along - 10.5) - 1.0, 0.8) * 250
    mix(body, ramp(11.5 - along, 1.0), 80.0)
    canal = np.sqrt(x**2 + (y - 77) ** 2)
    arch = ramp(np.abs(canal - 12.5) - 3, 1.0) * ramp(69 - y, 3)
    process = ramp(np.abs(x) - 3.5, 1.0) * ramp(np.abs(y - 98) - 12, 2)
    wings = ramp(np.abs(np.abs(x) - 25) - 14, 2) * ramp(np.abs(y - 79) - 4, 1.5)
    canvas.blend(box, np.maximum(np.maximum(arch, process) * ramp(along - 11, 2), wings * ramp(along - 7, 2)), 420.0)
    canvas.blend(box, ramp(canal - 9.5, 1.0), 25.0)
    canvas.blend(box, ramp((off - 1) * 15, 1.0), body)


def _outside(person: _Person, canvas: Canvas, surface: Array, scanner: Grid) -> None:
    """Put air around the body and the table under it (which does not turn with the body)."""
    air = ramp(surface, 1.0)
    mix(canvas.image, air, _AIR)
    box = scanner.slab(canvas.where).box((0, person.half_depth, 0), (180, 60, 1e4))
    if box is None:
        return
    x, y, _ = scanner.part(box)
    lower = np.sqrt(x**2 + (y + 260 - person.half_depth) ** 2)
    within = ramp(np.abs(x) - 170, 3)
    shell = np.maximum(ramp(np.abs(lower - 266) - 1.2, 0.8), ramp(np.abs(lower - 284) - 1.2, 0.8)) * within
    canvas.blend(box, air[box] * ramp(np.abs(lower - 275) - 8, 1.0) * within, -940.0)
    canvas.blend(box, air[box] * shell, 20.0)
