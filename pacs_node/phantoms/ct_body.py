"""Chest and upper abdomen in Hounsfield units: fat, muscle, ribs, spine, lungs with vessels, heart, aorta, liver, spleen, kidneys, table.

The frame is that of `pacs_node.phantoms.body`.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from pacs_node.phantoms import body
from pacs_node.phantoms.body import Body
from pacs_node.phantoms.grid import Array, Grid, ramp
from pacs_node.phantoms.shapes import Anatomy, Canvas, Slab, assemble, mix

FIELD_OF_VIEW = 400.0  # mm
SPACING = 5.0  # mm
CENTRE = 10.0  # z of the middle of the scan, mm
MIDDLE = CENTRE

_AIR, _FAT, _MUSCLE, _BLOOD = -1000.0, -100.0, 55.0, 42.0


def anatomy(grid: Grid, rng: np.random.Generator) -> Anatomy:
    """Return a body from the chest to the kidneys; ``grid`` is that of the scanner, the body is laid in with its own small rotation and shift."""
    person = body.person_of(grid, rng)
    roll, shift = float(np.radians(np.clip(rng.normal(0, 2), -5, 5))), rng.normal(0, 3, 3).tolist()
    laid = grid.moved(roll, (shift[0], shift[1], shift[2]))
    return assemble(laid, partial(_slab, person, grid), (*person.organs["abdomen"], *person.organs["chest"]))


def _slab(person: Body, scanner: Grid, grid: Grid, where: slice) -> Slab:
    """Build some slices of the body: skin, fat and wall, then what lies in the chest and the belly, the spine, the table."""
    surface = body.depth(person, grid, where)
    wall = surface - body.fat_thickness(person, grid)
    cavity = wall - 21
    canvas = Canvas(grid, where, np.full(surface.shape, _FAT, dtype=np.float32))
    mix(canvas.image, ramp(surface - 1.8, 0.6), 30.0)
    _wall(canvas, wall, cavity)
    inside, lung = ramp(-cavity, 1.5), body.lungs(person, grid, cavity)
    _abdomen(person, canvas, inside * (1 - lung))
    if lung.any():
        mix(canvas.image, lung, _lung_tissue(person, canvas, cavity))
    canvas.paint(person.organs["heart"], inside * ramp(body.diaphragm(person, grid) - grid.z, 2))
    canvas.paint(person.organs["chest"], inside)
    canvas.paint(person.organs["vessels"])
    _spine(person, canvas)
    image = canvas.image
    space = (cavity > 4) & (image < 200) & (image > -920) & ~((np.abs(grid.x) < 30) & (grid.y > body.SPINE[1] - 20))
    _outside(person, canvas, surface, scanner)
    return Slab(image, surface > 0, space)


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


def _lung_tissue(person: Body, canvas: Canvas, cavity: Array) -> Array:
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
    second += (-845 + 20 * person.tone) + 0.35 * grid.y
    mix(second, vessel, _BLOOD)
    return second


def _abdomen(person: Body, canvas: Canvas, weight: Array) -> None:
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


def _spine(person: Body, canvas: Canvas) -> None:
    """Paint vertebral bodies with discs, the canal, arches, transverse and spinous processes."""
    box = canvas.grid.box((0, 84, 0), (45, 50, 1e4))
    if box is None:
        return
    x, y, z = canvas.grid.part(box)
    along = np.abs(z / body.VERTEBRA - np.rint(z / body.VERTEBRA)) * body.VERTEBRA  # 0 in the middle of a vertebra
    off = np.sqrt((x / 20) ** 2 + ((y - body.SPINE[1]) / 15.5) ** 2)
    bone = 175 + 25 * person.fields["spongy bone"].part(canvas.where)[box]
    bone += ramp(np.abs(off - 0.94) - 0.05, 0.05) * 320
    bone += ramp(np.abs(along - 10.5) - 1.0, 0.8) * 250
    mix(bone, ramp(11.5 - along, 1.0), 80.0)
    canal = np.sqrt(x**2 + (y - 77) ** 2)
    arch = ramp(np.abs(canal - 12.5) - 3, 1.0) * ramp(69 - y, 3)
    process = ramp(np.abs(x) - 3.5, 1.0) * ramp(np.abs(y - 98) - 12, 2)
    wings = ramp(np.abs(np.abs(x) - 25) - 14, 2) * ramp(np.abs(y - 79) - 4, 1.5)
    canvas.blend(box, np.maximum(np.maximum(arch, process) * ramp(along - 11, 2), wings * ramp(along - 7, 2)), 420.0)
    canvas.blend(box, ramp(canal - 9.5, 1.0), 25.0)
    canvas.blend(box, ramp((off - 1) * 15, 1.0), bone)


def _outside(person: Body, canvas: Canvas, surface: Array, scanner: Grid) -> None:
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
