"""The shape of heads and of what lies in them, for every modality that shows one.

The frame: x to the patient's left, y to the back, z up, in millimetres; the origin lies between the ventricles, the vertex near z = 90.
The values of the organs are Hounsfield units; a modality that measures something else gives them its own by their names.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pacs_node.phantoms.grid import Array, Field, Grid, ramp, smooth_field
from pacs_node.phantoms.shapes import Canvas, Organ, mirrored, mix, varied

SKULL_DEPTH = 6.0
"""Thickness of an average skull, mm."""

_FLUID = 8.0

_DEEP_GREY = (
    *mirrored(Organ("caudate", (13, -20, 12), (4, 9, 11), 39)),
    *mirrored(Organ("lentiform nucleus", (24, -7, 4), (6, 15, 10), 40, angle=-12)),
    *mirrored(Organ("thalamus", (10, 8, 8), (8, 13, 10), 39, angle=20)),
)
_VENTRICLES = (
    *mirrored(Organ("frontal horn", (8, -24, 12), (4.0, 13, 9), _FLUID, angle=18, structure=True)),
    *mirrored(Organ("lateral ventricle", (12, 2, 24), (5.5, 28, 7), _FLUID, angle=-8, structure=True)),
    *mirrored(Organ("occipital horn", (23, 33, 8), (6, 15, 10), _FLUID, angle=-14, structure=True)),
    Organ("third ventricle", (0, 0, 2), (2.2, 12, 9), _FLUID, structure=True),
    Organ("suprasellar cistern", (0, -14, -15), (12, 9, 6), _FLUID, soft=3),
    Organ("quadrigeminal cistern", (0, 24, -4), (11, 4, 6), _FLUID, soft=2),
)
_HIND_BRAIN = (
    Organ("brain stem", (0, 12, -32), (13, 12, 24), 32),
    Organ("fourth ventricle", (0, 29, -34), (6, 5, 9), _FLUID, structure=True),
)
_ORBITS = (
    *mirrored(Organ("orbit", (31, -58, -27), (19, 22, 18), -90, angle=-18, soft=2)),
    *mirrored(Organ("eye", (32, -65, -27), (12, 12, 12), 12, soft=0.8)),
    *mirrored(Organ("lens", (32.5, -74, -27), (4.5, 2.2, 4.5), 75, soft=0.8)),
    *mirrored(Organ("optic nerve", (25, -45, -27), (2, 12, 3), 35, angle=-22)),
)
_BASE = (
    *mirrored(Organ("petrous bone", (36, 8, -38), (24, 9, 9), 900, angle=-32, soft=2.5)),
    *mirrored(Organ("mastoid", (55, 24, -42), (11, 14, 16), 500, soft=3)),
    *mirrored(Organ("mastoid air cells", (55, 24, -43), (8, 9, 12), -600, soft=3)),
    *mirrored(Organ("ear canal", (60, 6, -40), (14, 3.5, 3.5), -850)),
    Organ("clivus", (0, -8, -42), (11, 6, 14), 600, soft=2),
    Organ("dorsum sellae", (0, -6, -23), (8, 2.5, 5), 700),
    Organ("nasal septum", (0, -55, -52), (1.5, 25, 22), 250),
)
_AIR_CELLS = (
    *mirrored(Organ("sphenoid sinus", (9, -24, -36), (8, 12, 9), -980, soft=0.8)),
    *mirrored(Organ("ethmoid cells", (7, -55, -32), (5, 18, 12), -800, soft=1.5)),
    *mirrored(Organ("maxillary sinus", (28, -52, -60), (14, 16, 17), -980, soft=0.8)),
    *mirrored(Organ("nasal passage", (8, -58, -60), (4, 22, 20), -900, soft=1.5)),
    *mirrored(Organ("frontal sinus", (9, -84, -4), (8, 4, 9), -950, vary=0.15)),
    Organ("pharynx", (0, -20, -75), (14, 10, 22), -980),
)
_EARS = (*mirrored(Organ("ear", (76, 12, -32), (7, 15, 24), 20, angle=-25)), *mirrored(Organ("ear shell", (81, 10, -32), (3, 9, 15), -950, angle=-25)))
_NOSE = (Organ("nose", (0, -88, -45), (12, 20, 20), 30),)
_TABLES = {
    "deep grey": _DEEP_GREY,
    "ventricles": _VENTRICLES,
    "hind brain": _HIND_BRAIN,
    "orbits": _ORBITS,
    "base": _BASE,
    "air cells": _AIR_CELLS,
    "outside": (*_EARS, *_NOSE),
}
_FIELDS = {"outline": (45, 45), "skull": (40, 40), "folds": (11, 6.5), "soft tissue": (11, 11), "facial bone": (13, 13)}  # mm along z, in the plane


@dataclass(frozen=True, slots=True)
class Head:
    """What differs from head to head."""

    half_width: float  # mm
    half_length: float  # mm
    height: float  # vertex above the origin, mm
    taper: float  # how much wider the back of the head is than the front
    skull: float  # thickness relative to the average
    atrophy: float  # width of sulci and ventricles relative to the average
    tone: float  # offset of the brain's values, in standard deviations between people
    falx: float  # phase of its bend
    organs: dict[str, tuple[Organ, ...]]
    fields: dict[str, Field]


def person_of(grid: Grid, rng: np.random.Generator) -> Head:
    """Draw a head."""
    draw = np.clip(rng.standard_normal(7), -2, 2).tolist()  # Python floats keep the arrays in single precision
    organs = {name: varied(table, rng) for name, table in _TABLES.items()}
    atrophy = float(np.exp(0.25 * draw[5]))
    organs["ventricles"] = tuple(_widened(organ, atrophy**0.5) for organ in organs["ventricles"])
    return Head(
        half_width=74 + 2.5 * draw[0],
        half_length=93 + 3.0 * draw[1],
        height=92 + 3.0 * draw[2],
        taper=0.09 + 0.02 * draw[3],
        skull=1.0 + 0.1 * draw[4],
        atrophy=atrophy,
        tone=draw[6],
        falx=float(rng.uniform(0, 6)),
        organs=organs,
        fields={name: smooth_field(rng, grid.shape, grid.voxels(*scale)) for name, scale in _FIELDS.items()},
    )


def _widened(organ: Organ, factor: float) -> Organ:
    return replace(organ, radii=(organ.radii[0] * factor, organ.radii[1] * factor, organ.radii[2] * factor))


@dataclass(frozen=True, slots=True)
class Palette:
    """What the parts of a brain look like, in the modality's unit."""

    white: float
    ribbon: float  # grey matter minus white matter
    sulci: float
    fissures: float
    falx: float
    leaves: tuple[float, float]  # of the cerebellum: mean, and how much they swing about it
    tentorium: float
    arched: bool = False  # curved along z too, as sagittal and coronal images show it


def depth(person: Head, grid: Grid, where: slice) -> tuple[Array, Array]:
    """Return the depth below the skin in the plane of z, mm, and the factor by which obliquity thickens the skull there (1 at the temples)."""
    z = grid.z
    up = np.clip(z / person.height, 0, 0.999)
    profile = np.sqrt(1 - up**2.3)
    slope = person.half_width * (up**1.3 * 1.15 / profile) / person.height
    width = person.half_width * profile * (1 - 0.12 * np.clip(-z / 60, 0, 1.3) ** 2)
    length = person.half_length * profile * (1 - 0.06 * np.clip(-z / 60, 0, 1.6) ** 2)
    flat = grid.x / (1 + grid.y * (person.taper / person.half_length))
    distance = flat**2 / width**2
    distance += grid.y**2 / length**2
    np.sqrt(distance, out=distance)
    distance *= 1 + 0.008 * person.fields["outline"].part(where)
    planar = np.sqrt(grid.x**2 + grid.y**2)
    deep: Array = planar / np.maximum(distance, 1e-3, out=distance)
    deep -= planar + np.where(z > person.height, np.float32(500), np.float32(0))
    return deep, np.clip(np.sqrt(1 + slope**2), 1, 3)


def scalp_thickness(grid: Grid) -> Array:
    """Return the thickness of the scalp, mm: thicker where the temporal muscles and, low at the back, the neck muscles lie."""
    temporal = 10 * np.exp(-(((np.abs(grid.x) - 66) / 16) ** 2) - ((grid.y + 32) / 18) ** 2)
    neck = 16 * ramp(30 - grid.y, 25)
    thickness: Array = 5 + temporal * ramp(grid.z - 12, 18)
    thickness += neck * ramp(grid.z + 30, 25)
    return thickness


def floor(grid: Grid) -> Array:
    """Return how far a voxel lies below the floor of the skull's inside, mm (negative: above): roofs of the orbits, middle and hind fossa, sella."""
    side = np.abs(grid.x)
    roof = 9 * np.exp(-(((side - 32) / 16) ** 2)) + 0.08 * (-26 - grid.y) - 12
    middle = -36 + 0.012 * (side - 42) ** 2 * ramp(side - 50, 4)
    back = -60 + 0.006 * (grid.x**2 + (grid.y - 50) ** 2)
    behind, rear = ramp(-26 - grid.y, 5), ramp(6 + 0.35 * side - grid.y, 5)
    steps = roof + behind * (middle - roof) + rear * (back - middle)
    sella = 14 * np.exp(-((grid.x / 16) ** 2) - ((grid.y + 8) / 14) ** 2) * behind
    below: Array = steps + sella - grid.z
    return below


def brain(person: Head, grid: Grid, where: slice, depth: Array, palette: Palette) -> Array:
    """Return brain everywhere: a folded grey ribbon over white matter, fissures, deep nuclei, ventricles, hind brain."""
    fold = person.fields["folds"].part(where)
    np.abs(fold, out=fold)
    inner = depth - SKULL_DEPTH
    grey = ramp(fold - 0.55, 0.25)
    grey *= ramp(inner - 19, 6)
    np.maximum(grey, ramp(inner - 4, 1.5), out=grey)
    grey *= palette.ribbon
    grey += palette.white
    sulcus = ramp(fold - 0.2 * person.atrophy, 0.12)
    sulcus *= ramp(inner - 12, 4)
    mix(grey, sulcus * np.float32(0.9), palette.sulci)
    canvas = Canvas(grid, where, grey)
    _fissures(person, canvas, palette)
    canvas.paint(person.organs["deep grey"])
    canvas.paint(person.organs["ventricles"])
    _hind_brain(person, canvas, palette)
    return canvas.image


def _fissures(person: Head, canvas: Canvas, palette: Palette) -> None:
    """Paint the fissure between the hemispheres with the falx, and the Sylvian fissures."""
    grid, image = canvas.grid, canvas.image
    across = np.abs(grid.x + 1.2 * np.sin(grid.y / 23 + person.falx))
    outer = _outside_callosum(grid) if palette.arched else np.maximum(np.clip((np.abs(grid.y + 2) - 30) / 12, 0, 1), np.clip((grid.z - 34) / 8, 0, 1))
    middle = grid.box((0, 0, 0), (8, 200, 500))
    if middle is not None:
        part = (slice(None), slice(None), middle[2])
        mix(image[part], 0.8 * ramp(across - 1.8 * person.atrophy, 1.2)[part] * outer[part], palette.fissures)
        mix(image[part], 0.9 * ramp(across - 0.6, 0.6)[part] * outer[part], palette.falx)
    level = np.flatnonzero((np.abs(grid.z + 2) < 20).any(axis=(1, 2)))
    if level.size:
        x, part = np.abs(grid.x), (slice(int(level[0]), int(level[-1]) + 1), slice(None), slice(None))
        course = np.abs(grid.y + 18 - (x - 38) * 0.25 + 3 * np.sin(x / 5))
        sylvian = 0.8 * ramp(course - 1.5 * person.atrophy, 1.2) * ramp(38 - x, 3)
        mix(image[part], sylvian * ramp(np.abs(grid.z[part] + 2) - 15, 5), palette.fissures)


def _outside_callosum(grid: Grid) -> Array:
    """Return where a fissure parts the hemispheres: above and around an arch, 0 to 1."""
    arch = np.sqrt(((grid.y + 2) / 40) ** 2 + ((grid.z - 6) / 30) ** 2)
    return ramp(1.05 - arch, 0.12)


def _hind_brain(person: Head, canvas: Canvas, palette: Palette) -> None:
    """Paint cerebellum with its fine leaves under the tentorium, brain stem and fourth ventricle."""
    grid = canvas.grid
    if float(grid.z.min()) < 0:
        tent = grid.z + 11 + 0.28 * np.abs(grid.x)
        away = grid.x**2 + (grid.y - 25) ** 2
        if palette.arched:
            away = away + (grid.z + 26) ** 2
        leaves = palette.leaves[0] + palette.leaves[1] * np.sin(np.sqrt(away) / 1.1) * ramp(24 - grid.y, 4)
        mix(canvas.image, ramp(tent + 1, 2) * ramp(18 - grid.y, 3), leaves)
        mix(canvas.image, 0.7 * ramp(np.abs(tent) - 1.2, 1.5) * ramp(20 - grid.y, 3), palette.tentorium)
    canvas.paint(person.organs["hind brain"])
