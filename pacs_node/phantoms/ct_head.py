"""A head in Hounsfield units: scalp, skull, brain with folds and ventricles, eyes, air cells, head holder.

The frame: x to the patient's left, y to the back, z up, in millimetres; the origin lies between the ventricles, the vertex near z = 90.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from pacs_node.phantoms.grid import Array, Field, Grid, lookup, ramp, smooth_field
from pacs_node.phantoms.shapes import Anatomy, Canvas, Organ, Slab, assemble, mirrored, mix, varied

FIELD_OF_VIEW = 230.0  # mm
SPACING = 5.0  # mm
CENTRE = 14.0  # z of the middle of the scan, mm

_AIR, _FAT, _MUSCLE, _CSF, _WHITE, _GREY = -1000.0, -85.0, 50.0, 8.0, 26.0, 38.0

# depth below the inner side of the scalp, mm, of a skull of average thickness → HU
_SKULL = ((0.0, 30.0), (0.4, 1250.0), (1.6, 1350.0), (2.2, 620.0), (3.6, 560.0), (4.2, 1250.0), (5.4, 1200.0), (6.0, 40.0), (7.4, _CSF))
_SKULL_DEPTH = 6.0
# depth below the surface, mm → HU: skin, fat, galea
_SCALP = ((0.0, 0.0), (0.8, 45.0), (1.8, 20.0), (2.4, -70.0), (3.8, -60.0), (4.6, 30.0))

_DEEP_GREY = (
    *mirrored(Organ("caudate", (13, -20, 12), (4, 9, 11), 39)),
    *mirrored(Organ("lentiform nucleus", (24, -7, 4), (6, 15, 10), 40, angle=-12)),
    *mirrored(Organ("thalamus", (10, 8, 8), (8, 13, 10), 39, angle=20)),
)
_VENTRICLES = (
    *mirrored(Organ("frontal horn", (8, -24, 12), (4.0, 13, 9), _CSF, angle=18, structure=True)),
    *mirrored(Organ("lateral ventricle", (12, 2, 24), (5.5, 28, 7), _CSF, angle=-8, structure=True)),
    *mirrored(Organ("occipital horn", (23, 33, 8), (6, 15, 10), _CSF, angle=-14, structure=True)),
    Organ("third ventricle", (0, 0, 2), (2.2, 12, 9), _CSF, structure=True),
    Organ("suprasellar cistern", (0, -14, -15), (12, 9, 6), _CSF, soft=3),
    Organ("quadrigeminal cistern", (0, 24, -4), (11, 4, 6), _CSF, soft=2),
)
_HIND_BRAIN = (
    Organ("brain stem", (0, 12, -32), (13, 12, 24), 32),
    Organ("fourth ventricle", (0, 29, -34), (6, 5, 9), _CSF, structure=True),
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
class _Person:
    """What differs from head to head."""

    half_width: float  # mm
    half_length: float  # mm
    height: float  # vertex above the origin, mm
    taper: float  # how much wider the back of the head is than the front
    skull: float  # thickness relative to the average
    atrophy: float  # width of sulci and ventricles relative to the average
    grey: float  # offset of grey and white matter, HU
    falx: float  # phase of its bend
    organs: dict[str, tuple[Organ, ...]]
    fields: dict[str, Field]


def _person(grid: Grid, rng: np.random.Generator) -> _Person:
    draw = np.clip(rng.standard_normal(7), -2, 2).tolist()  # Python floats keep the arrays in single precision
    organs = {name: varied(table, rng) for name, table in _TABLES.items()}
    atrophy = float(np.exp(0.25 * draw[5]))
    organs["ventricles"] = tuple(_widened(organ, atrophy**0.5) for organ in organs["ventricles"])
    return _Person(
        half_width=74 + 2.5 * draw[0],
        half_length=93 + 3.0 * draw[1],
        height=92 + 3.0 * draw[2],
        taper=0.09 + 0.02 * draw[3],
        skull=1.0 + 0.1 * draw[4],
        atrophy=atrophy,
        grey=1.5 * draw[6],
        falx=float(rng.uniform(0, 6)),
        organs=organs,
        fields={name: smooth_field(rng, grid.shape, grid.voxels(*scale)) for name, scale in _FIELDS.items()},
    )


def _widened(organ: Organ, factor: float) -> Organ:
    return replace(organ, radii=(organ.radii[0] * factor, organ.radii[1] * factor, organ.radii[2] * factor))


def anatomy(grid: Grid, rng: np.random.Generator) -> Anatomy:
    """Return a head; ``grid`` is that of the scanner, the head is laid in with its own small rotation and shift."""
    person = _person(grid, rng)
    roll, shift = float(np.radians(np.clip(rng.normal(0, 4), -9, 9))), rng.normal(0, 3, 3).tolist()
    body = grid.moved(roll, (shift[0], shift[1], shift[2]))
    return assemble(body, partial(_slab, person, grid), person.organs["ventricles"])


def _slab(person: _Person, scanner: Grid, grid: Grid, where: slice) -> Slab:
    """Build some slices of the head from the outside inwards, then what lies under the floor of the skull."""
    surface, scale = _depth(person, grid, where)
    depth = surface - _scalp_thickness(grid)
    depth /= scale * person.skull
    canvas = Canvas(grid, where, lookup(surface, _SCALP))
    thickness = 1 + 0.15 * person.fields["skull"].part(where)
    local = depth / np.clip(thickness, 0.6, 1.5, out=thickness)
    mix(canvas.image, ramp(-local, 0.4), lookup(local, _SKULL))
    floor = _floor(grid)
    inside = ramp(_SKULL_DEPTH + 1.0 - depth, 1.2)
    brain = inside * ramp(floor, 2.0)
    mix(canvas.image, brain, _brain(person, grid, where, depth))
    _below(person, canvas, inside, floor)
    _outside(person, canvas, surface, scanner)
    return Slab(canvas.image, surface > 0, (brain > 0.99) & (depth > _SKULL_DEPTH + 3))


def _depth(person: _Person, grid: Grid, where: slice) -> tuple[Array, Array]:
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
    depth: Array = planar / np.maximum(distance, 1e-3, out=distance)
    depth -= planar + np.where(z > person.height, np.float32(500), np.float32(0))
    return depth, np.clip(np.sqrt(1 + slope**2), 1, 3)


def _scalp_thickness(grid: Grid) -> Array:
    """Return the thickness of the scalp, mm: thicker where the temporal muscles and, low at the back, the neck muscles lie."""
    temporal = 10 * np.exp(-(((np.abs(grid.x) - 66) / 16) ** 2) - ((grid.y + 32) / 18) ** 2)
    neck = 16 * ramp(30 - grid.y, 25)
    thickness: Array = 5 + temporal * ramp(grid.z - 12, 18)
    thickness += neck * ramp(grid.z + 30, 25)
    return thickness


def _floor(grid: Grid) -> Array:
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


def _brain(person: _Person, grid: Grid, where: slice, depth: Array) -> Array:
    """Return brain everywhere: a folded grey ribbon over white matter, fissures, deep nuclei, ventricles, hind brain."""
    fold = person.fields["folds"].part(where)
    np.abs(fold, out=fold)
    inner = depth - _SKULL_DEPTH
    grey = ramp(fold - 0.55, 0.25)
    grey *= ramp(inner - 19, 6)
    np.maximum(grey, ramp(inner - 4, 1.5), out=grey)
    grey *= _GREY - _WHITE
    grey += _WHITE + person.grey
    sulcus = ramp(fold - 0.2 * person.atrophy, 0.12)
    sulcus *= ramp(inner - 12, 4)
    mix(grey, sulcus * np.float32(0.9), _CSF + 6)
    canvas = Canvas(grid, where, grey)
    _fissures(person, canvas)
    canvas.paint(person.organs["deep grey"])
    canvas.paint(person.organs["ventricles"])
    _hind_brain(person, canvas)
    return canvas.image


def _fissures(person: _Person, canvas: Canvas) -> None:
    """Paint the fissure between the hemispheres with the falx, and the Sylvian fissures."""
    grid, image = canvas.grid, canvas.image
    across = np.abs(grid.x + 1.2 * np.sin(grid.y / 23 + person.falx))
    outer = np.maximum(np.clip((np.abs(grid.y + 2) - 30) / 12, 0, 1), np.clip((grid.z - 34) / 8, 0, 1))
    middle = grid.box((0, 0, 0), (8, 200, 500))
    if middle is not None:
        part = (slice(None), slice(None), middle[2])
        mix(image[part], 0.8 * ramp(across - 1.8 * person.atrophy, 1.2)[part] * outer[part], _CSF + 4)
        mix(image[part], 0.9 * ramp(across - 0.6, 0.6)[part] * outer[part], 58.0)
    level = np.flatnonzero((np.abs(grid.z + 2) < 20).any(axis=(1, 2)))
    if level.size:
        x, part = np.abs(grid.x), (slice(int(level[0]), int(level[-1]) + 1), slice(None), slice(None))
        course = np.abs(grid.y + 18 - (x - 38) * 0.25 + 3 * np.sin(x / 5))
        sylvian = 0.8 * ramp(course - 1.5 * person.atrophy, 1.2) * ramp(38 - x, 3)
        mix(image[part], sylvian * ramp(np.abs(grid.z[part] + 2) - 15, 5), _CSF + 4)


def _hind_brain(person: _Person, canvas: Canvas) -> None:
    """Paint cerebellum with its fine leaves under the tentorium, brain stem and fourth ventricle."""
    grid = canvas.grid
    if float(grid.z.min()) < 0:
        tent = grid.z + 11 + 0.28 * np.abs(grid.x)
        leaves = 35 + 3 * np.sin(np.sqrt(grid.x**2 + (grid.y - 25) ** 2) / 1.1) * ramp(24 - grid.y, 4)
        mix(canvas.image, ramp(tent + 1, 2) * ramp(18 - grid.y, 3), leaves)
        mix(canvas.image, 0.7 * ramp(np.abs(tent) - 1.2, 1.5) * ramp(20 - grid.y, 3), 48.0)
    canvas.paint(person.organs["hind brain"])


def _below(person: _Person, canvas: Canvas, inside: Array, floor: Array) -> None:
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


def _outside(person: _Person, canvas: Canvas, surface: Array, scanner: Grid) -> None:
    """Put air around the head, ears and nose on it and the head holder under it (which does not turn with the head)."""
    air = ramp(surface, 0.8)
    mix(canvas.image, air, _AIR)
    canvas.paint(person.organs["outside"], air)
    ring = np.sqrt(scanner.x**2 + (scanner.y * 0.78 + 8) ** 2)
    foam = ramp(np.abs(ring - 89) - 3.5, 1.0) * ramp(22 - scanner.y, 4)
    holder = ramp(np.abs(ring - 94) - 1.5, 1.0) * ramp(18 - scanner.y, 4)
    mix(canvas.image, air * foam, -930.0)
    mix(canvas.image, air * holder, 60.0)
