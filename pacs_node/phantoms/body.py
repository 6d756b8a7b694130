"""The shape of chests and bellies and of what lies in them, for every modality that shows one.

The frame: x to the patient's left, y to the back, z up, in millimetres; the origin lies in the middle of the body at the height of the diaphragm.
The values of the organs are Hounsfield units; a modality that measures something else gives them its own by their names.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pacs_node.phantoms.grid import Array, Field, Grid, ramp, smooth_field
from pacs_node.phantoms.shapes import Organ, mirrored, varied

SPINE = (0.0, 54.0)
"""Centre of the vertebral bodies: x, y."""

VERTEBRA = 30.0
"""Height of a vertebra with its disc, mm."""

_BLOOD = 42.0

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
class Body:
    """What differs from body to body."""

    half_width: float  # mm
    half_depth: float  # mm
    fat: float  # thickness under the skin at the sides, mm
    breath: float  # how far the diaphragm lies below its mean, mm
    tone: float  # offset of the lungs' values, in standard deviations between people
    organs: dict[str, tuple[Organ, ...]]
    fields: dict[str, Field]


def person_of(grid: Grid, rng: np.random.Generator) -> Body:
    """Draw a body."""
    draw = np.clip(rng.standard_normal(6), -2, 2).tolist()  # Python floats keep the arrays in single precision
    fat = min(max(13 + 5 * draw[2], 6.0), 24.0)
    return Body(
        half_width=148 + 5 * draw[0] + fat,
        half_depth=106 + 4 * draw[1] + 0.6 * fat,
        fat=fat,
        breath=8 * draw[4],
        tone=draw[5],
        organs={name: varied(table, rng) for name, table in _TABLES.items()},
        fields={name: smooth_field(rng, grid.shape, grid.voxels(scale, scale)) for name, scale in _FIELDS.items()},
    )


def depth(person: Body, grid: Grid, where: slice) -> Array:
    """Return the depth below the skin in the plane of z, mm: a rounded rectangle that is slimmer at the waist and the shoulders."""
    waist = 1 - 0.05 * np.exp(-(((grid.z + 120) / 60) ** 2)) - 0.10 * np.clip((grid.z - 110) / 120, 0, 1) ** 2
    power = 2.5
    outline = ((np.abs(grid.x) / person.half_width) ** power + (np.abs(grid.y) / person.half_depth) ** power) ** (1 / power)
    distance = outline / waist
    distance *= 1 + 0.008 * person.fields["outline"].part(where)
    planar = np.sqrt(grid.x**2 + grid.y**2)
    deep: Array = planar / np.maximum(distance, 1e-3, out=distance)
    deep -= planar
    return deep


def fat_thickness(person: Body, grid: Grid) -> Array:
    """Return the thickness of the fat under the skin, mm: thin over the spine, thick at the flanks and, low, at the belly."""
    back = person.fat * (1 - 0.4 * np.exp(-((grid.x / 45) ** 2)) * ramp(40 - grid.y, 30))
    belly = 0.7 * person.fat * ramp(grid.y + 40, 30)
    thickness: Array = back + belly * ramp(grid.z + 30, 60)
    return thickness


def diaphragm(person: Body, grid: Grid) -> Array:
    """Return the height of the diaphragm, mm: a dome under each lung, the right one higher; shape (1, rows, columns)."""
    right = 34 - ((grid.x + 70) ** 2 + 0.9 * (grid.y + 5) ** 2) / 130
    left = 22 - ((grid.x - 72) ** 2 + 0.9 * (grid.y + 5) ** 2) / 130
    height = np.maximum(np.maximum(right, left), -72) - person.breath
    return height.astype(np.float32, copy=False)


def lungs(person: Body, grid: Grid, cavity: Array) -> Array:
    """Return the weight of lung: above the diaphragm, inside the chest, outside the mediastinum and the spine, closed at the top."""
    lung: Array = ramp(diaphragm(person, grid) - grid.z, 2.5)
    if not lung.any():
        return lung
    middle = 20 + 6 * np.sin(grid.y / 19) - np.abs(grid.x)
    hilum = 10 * np.exp(-(((grid.z - 90) / 40) ** 2))
    narrow = 12 * np.exp(-(((grid.y + 70) / 28) ** 2))
    lung *= ramp(middle + hilum - narrow * ramp(40 - grid.z, 20), 2.0)
    lung *= ramp(26 - np.sqrt(grid.x**2 + (grid.y - SPINE[1]) ** 2), 2.0)
    lung *= ramp(((np.abs(grid.x) - 58) ** 2 + 0.6 * (grid.y - 5) ** 2) / 60 + (grid.z - 178), 3)
    lung *= ramp(2 - cavity, 1.2)
    return lung
