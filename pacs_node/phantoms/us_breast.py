"""A breast as ultrasound shows it: echo strength of skin, fat, glandular tissue, muscle and the chest wall, in grey levels after compression.

The frame: x along the transducer, y the depth below the skin, z the way of the transducer's sweep, in millimetres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np

from pacs_node.phantoms.grid import Array, Field, Grid, ellipsoid, ramp, smooth_field
from pacs_node.phantoms.shapes import Anatomy, Organ, Slab, assemble, mix, varied

FIELD_OF_VIEW = 50.0  # mm
SPACING = 4.0  # mm
CENTRE = 0.0
MIDDLE = CENTRE

_FAT, _GLAND, _MUSCLE, _FASCIA, _SKIN, _DEEP = 72.0, 128.0, 84.0, 172.0, 168.0, 40.0  # grey levels of 255
_FIELDS = {"skin": 30, "top": 14, "bottom": 18, "gland": 6, "septa": 9, "ducts": 7, "shadow": 6}  # mm
_STRUCTURES = (
    Organ("lobule", (-12, 17, 0), (5, 2.6, 7), _FAT + 6, soft=0.5, vary=0.3, structure=True),
    Organ("lobule", (9, 15, 2), (6, 2.2, 7), _FAT + 4, soft=0.5, vary=0.3, structure=True),
    Organ("duct", (3, 19, -3), (7, 1.0, 8), 46, angle=12, soft=0.4, vary=0.3, structure=True),
)


@dataclass(frozen=True, slots=True)
class _Breast:
    """What differs from breast to breast; depths in mm."""

    skin: float
    gland: tuple[float, float]  # where glandular tissue begins and ends
    muscle: tuple[float, float]
    dense: float  # how much of the glandular layer is glandular, 0 to 1
    shadow: float  # strength
    organs: tuple[Organ, ...]
    fields: dict[str, Field]


def _person(grid: Grid, rng: np.random.Generator) -> _Breast:
    draw = np.clip(rng.standard_normal(6), -2, 2).tolist()
    top = 8.5 + 1.6 * draw[1]
    end = top + 13 + 2.5 * draw[2]
    muscle = end + 3.5 + 0.8 * draw[3]
    return _Breast(
        skin=1.7 + 0.25 * draw[0],
        gland=(top, end),
        muscle=(muscle, muscle + 7.5 + 1.2 * draw[4]),
        dense=0.5 + 0.2 * draw[5],
        shadow=float(rng.uniform(0.3, 1.0)),
        organs=varied(_STRUCTURES, rng),
        fields={name: smooth_field(rng, grid.shape, grid.voxels(2 * scale, scale)) for name, scale in _FIELDS.items()},
    )


def anatomy(grid: Grid, rng: np.random.Generator) -> Anatomy:
    """Return a breast under a linear transducer; ``grid`` has y = 0 at the skin."""
    person = _person(grid, rng)
    return assemble(grid, partial(_slab, person), person.organs)


def _slab(person: _Breast, grid: Grid, where: slice) -> Slab:
    """Build some images from the skin down to the chest wall, then the shadows below strong reflectors."""
    fields = {name: field.part(where) for name, field in person.fields.items()}
    depth = grid.y + 0.5 * fields["skin"]
    top = depth - person.gland[0] - 1.2 * fields["top"]
    bottom = depth - person.gland[1] - 1.2 * fields["bottom"]
    image = _fat(fields)
    gland = ramp(-top, 0.5) * ramp(bottom, 0.5)
    mix(image, gland * ramp(-fields["gland"] - (2.2 * person.dense - 0.6), 0.35), _GLAND + 9 * fields["ducts"])
    mix(image, gland * ramp(np.abs(fields["ducts"] - 0.9) - 0.1, 0.08) * np.float32(0.7), 52.0)
    for organ in person.organs:
        _paint(image, organ, grid, gland)
    _chest_wall(person, image, depth, fields, grid)
    mix(image, ramp(np.abs(depth - person.skin / 2) - person.skin / 2, 0.25), _SKIN)
    mix(image, ramp(np.abs(depth - person.skin / 2) - person.skin / 4, 0.3) * np.float32(0.5), 110.0)
    image += _shadows(person, fields, depth) - 0.25 * np.clip(depth - 12, 0, None)
    space = (depth > person.skin + 2) & (depth < person.muscle[0] - 1) & (image > 20)
    return Slab(image.astype(np.float32), np.broadcast_to(depth > 0, image.shape), space)


def _fat(fields: dict[str, Array]) -> Array:
    """Return lobules of fat between bright, curved ligaments."""
    ligament = ramp(np.abs(fields["septa"]) - 0.06, 0.07)
    fat: Array = _FAT + 5 * fields["gland"] + 62 * ligament
    return fat.astype(np.float32)


def _paint(image: Array, organ: Organ, grid: Grid, gland: Array) -> None:
    found = ellipsoid(grid, organ.centre, organ.radii, math.radians(organ.angle), organ.soft)
    if found is not None:
        box, weight = found
        mix(image[box], weight * np.maximum(gland[box], np.float32(0.5)), organ.value)


def _chest_wall(person: _Breast, image: Array, depth: Array, fields: dict[str, Array], grid: Grid) -> None:
    """Paint the striped pectoral muscle between its fasciae, then the line of ribs and pleura with darkness behind it."""
    tilted = depth + 0.04 * grid.x
    stripes = _MUSCLE + 22 * np.sin(tilted * 4.2 + 1.2 * fields["septa"])
    mix(image, ramp(person.muscle[0] - tilted, 0.4), stripes.astype(np.float32))
    for edge in person.muscle:
        mix(image, ramp(np.abs(tilted - edge) - 0.3, 0.3), _FASCIA)
    wavy = tilted - person.muscle[1] - 1.5 - 0.6 * np.sin(grid.x / 6 + grid.z / 20)
    mix(image, ramp(-wavy, 0.6), _DEEP + 0.0 * image)
    mix(image, ramp(np.abs(wavy) - 0.5, 0.4), _FASCIA + 25)


def _shadows(person: _Breast, fields: dict[str, Array], depth: Array) -> Array:
    """Return the darkening below ligaments that lie steeply: vertical bands that begin where the field crosses zero."""
    bands = np.clip(np.cumsum(ramp(np.abs(fields["shadow"]) - 0.05, 0.08) * (np.abs(fields["septa"]) < 0.4), axis=1) / 20, 0, 1)
    dark: Array = (-26 * person.shadow * bands * ramp(4 - depth, 2)).astype(np.float32)
    return dark
