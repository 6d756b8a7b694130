"""A head in Hounsfield units: scalp, skull, brain with folds and ventricles, eyes, air cells, head holder.

The frame is that of `pacs_node.phantoms.head`.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from pacs_node.phantoms import head
from pacs_node.phantoms.grid import Array, Grid, lookup, ramp
from pacs_node.phantoms.head import SKULL_DEPTH, Head, Palette
from pacs_node.phantoms.shapes import Anatomy, Canvas, Slab, assemble, mix

FIELD_OF_VIEW = 230.0  # mm
SPACING = 5.0  # mm
CENTRE = 14.0  # z of the middle of the scan, mm
MIDDLE = CENTRE

_AIR, _FAT, _MUSCLE, _CSF, _WHITE, _GREY = -1000.0, -85.0, 50.0, 8.0, 26.0, 38.0

# depth below the inner side of the scalp, mm, of a skull of average thickness → HU
_SKULL = ((0.0, 30.0), (0.4, 1250.0), (1.6, 1350.0), (2.2, 620.0), (3.6, 560.0), (4.2, 1250.0), (5.4, 1200.0), (6.0, 40.0), (7.4, _CSF))
# depth below the surface, mm → HU: skin, fat, galea
_SCALP = ((0.0, 0.0), (0.8, 45.0), (1.8, 20.0), (2.4, -70.0), (3.8, -60.0), (4.6, 30.0))


def _palette(person: Head) -> Palette:
    """Return the HU of one person's brain."""
    return Palette(_WHITE + 1.5 * person.tone, _GREY - _WHITE, _CSF + 6, _CSF + 4, 58.0, (35.0, 3.0), 48.0)


def anatomy(grid: Grid, rng: np.random.Generator) -> Anatomy:
    """Return a head; ``grid`` is that of the scanner, the head is laid in with its own small rotation and shift."""
    person = head.person_of(grid, rng)
    roll, shift = float(np.radians(np.clip(rng.normal(0, 4), -9, 9))), rng.normal(0, 3, 3).tolist()
    body = grid.moved(roll, (shift[0], shift[1], shift[2]))
    return assemble(body, partial(_slab, person, grid), person.organs["ventricles"])


def _slab(person: Head, scanner: Grid, grid: Grid, where: slice) -> Slab:
    """Build some slices of the head from the outside inwards, then what lies under the floor of the skull."""
    surface, scale = head.depth(person, grid, where)
    depth = surface - head.scalp_thickness(grid)
    depth /= scale * person.skull
    canvas = Canvas(grid, where, lookup(surface, _SCALP))
    thickness = 1 + 0.15 * person.fields["skull"].part(where)
    local = depth / np.clip(thickness, 0.6, 1.5, out=thickness)
    mix(canvas.image, ramp(-local, 0.4), lookup(local, _SKULL))
    below = head.floor(grid)
    inside = ramp(SKULL_DEPTH + 1.0 - depth, 1.2)
    brain = inside * ramp(below, 2.0)
    mix(canvas.image, brain, head.brain(person, grid, where, depth, _palette(person)))
    _below(person, canvas, inside, below)
    _outside(person, canvas, surface, scanner)
    return Slab(canvas.image, surface > 0, (brain > 0.99) & (depth > SKULL_DEPTH + 3))


def _below(person: Head, canvas: Canvas, inside: Array, floor: Array) -> None:
    """Fill what lies under the floor of the skull: bone plate, muscle and fat, facial bones, orbits, air cells."""
    grid = canvas.grid
    if float(floor.max()) < -6:
        return
    grain = person.fields["soft tissue"].part(canvas.where)
    tissue = np.where(grain > -0.8, np.float32(_MUSCLE), np.float32(_FAT))
    tissue += 6 * grain
    bone = ramp(1.5 - person.fields["facial bone"].part(canvas.where), 0.35)
    mix(tissue, bone * (ramp(grid.y + 5, 25) * ramp(grid.z + 24, 6)), 700.0)
    mix(tissue, ramp(np.abs(floor - 2) - 1.5, 1.0), 750.0)
    mix(canvas.image, inside * ramp(-floor, 1.5), tissue)
    canvas.paint(person.organs["base"], inside * ramp(-floor - 6, 4))
    canvas.paint(person.organs["orbits"], ramp(-floor - 8, 3))
    canvas.paint(person.organs["air cells"], inside)


def _outside(person: Head, canvas: Canvas, surface: Array, scanner: Grid) -> None:
    """Put air around the head, ears and nose on it and the head holder under it (which does not turn with the head)."""
    air = ramp(surface, 0.8)
    mix(canvas.image, air, _AIR)
    canvas.paint(person.organs["outside"], air)
    ring = np.sqrt(scanner.x**2 + (scanner.y * 0.78 + 8) ** 2)
    foam = ramp(np.abs(ring - 89) - 3.5, 1.0) * ramp(22 - scanner.y, 4)
    holder = ramp(np.abs(ring - 94) - 1.5, 1.0) * ramp(18 - scanner.y, 4)
    mix(canvas.image, air * foam, -930.0)
    mix(canvas.image, air * holder, 60.0)
