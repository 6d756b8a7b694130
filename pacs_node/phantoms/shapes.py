"""Organs as soft ellipsoids, and what an anatomy is made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pacs_node.phantoms.grid import Array, Box, Grid, Triple, ellipsoid

_SLAB_VOXELS = 6 * 256 * 256


@dataclass(frozen=True, slots=True)
class Organ:
    """One row of an organ table; lengths in millimetres, in the frame of an average body."""

    name: str
    centre: Triple
    radii: Triple
    value: float
    angle: float = 0.0  # degrees about z
    soft: float = 1.2
    vary: float = 0.07  # spread of position and size between people, as a fraction of the radii
    structure: bool = False


@dataclass(frozen=True, slots=True)
class Anatomy:
    """A noise-free body; arrays of shape (slices, rows, columns), in the order of the grid until they are `turned`."""

    image: Array  # physical units
    foreground: NDArray[np.bool_]  # inside the skin
    space: NDArray[np.bool_]  # where a lesion may lie: brain, or organs and lungs
    grid: Grid  # in the frame of the body, upright
    lowest: float = -np.inf  # no lesion makes tissue less than this, physical units
    lessened: float = 0.5  # how often a lesion is less than its surroundings, where it can be
    structures: tuple[Organ, ...] = ()  # what would be missed: candidates for the lesion family ``missing_structure``
    axes: tuple[int, int, int] = (0, 1, 2)  # the grid's axis of slices, rows, columns

    @property
    def step(self) -> Triple:
        """Distance of neighbouring slices, rows, columns, mm."""
        return self.grid.step[self.axes[0]], self.grid.step[self.axes[1]], self.grid.step[self.axes[2]]

    def turned(self, axes: tuple[int, int, int]) -> Anatomy:
        """Return an upright anatomy with its arrays in the order of ``axes``."""
        if axes == self.axes:
            return self
        image = np.ascontiguousarray(self.image.transpose(axes))
        foreground, space = np.ascontiguousarray(self.foreground.transpose(axes)), np.ascontiguousarray(self.space.transpose(axes))
        return replace(self, image=image, foreground=foreground, space=space, axes=axes)


def varied(organs: Iterable[Organ], rng: np.random.Generator) -> tuple[Organ, ...]:
    """Return the organs of one person."""
    return tuple(_vary(organ, rng) for organ in organs)


def _vary(organ: Organ, rng: np.random.Generator) -> Organ:
    draw = rng.standard_normal(8) * organ.vary
    radii = (np.array(organ.radii) * np.clip(1 + draw[:3], 0.75, 1.3)).tolist()
    centre = (np.array(organ.centre) + draw[3:6] * np.array(organ.radii)).tolist()
    value, angle = organ.value + 20 * float(draw[6]), organ.angle + 40 * float(draw[7])
    return replace(organ, centre=(centre[0], centre[1], centre[2]), radii=(radii[0], radii[1], radii[2]), value=value, angle=angle)


@dataclass(frozen=True, slots=True)
class Canvas:
    """Some slices of an image under construction: organs are painted one over the other."""

    grid: Grid  # of these slices, in the frame of the body
    where: slice  # these slices in the whole image
    image: Array

    def paint(self, organs: Iterable[Organ], inside: Array | None = None) -> None:
        """Paint organs; only where ``inside`` (weights, shape of the image) allows."""
        for organ in organs:
            found = ellipsoid(self.grid, organ.centre, organ.radii, math.radians(organ.angle), organ.soft)
            if found is not None:
                box, weight = found
                self.blend(box, weight if inside is None else weight * inside[box], organ.value)

    def blend(self, box: Box, weight: Array, value: Array | float) -> None:
        """Replace a box of the image by ``value`` where ``weight`` is 1, mix in between."""
        mix(self.image[box], weight, value)


def mix(image: Array, weight: Array, value: Array | float) -> None:
    """Replace the image by ``value`` where ``weight`` is 1, mix in between, in place."""
    change = value - image
    change *= weight
    image += change


@dataclass(frozen=True, slots=True)
class Slab:
    """Some slices of an anatomy; the meaning of the arrays is that of `Anatomy`."""

    image: Array
    foreground: NDArray[np.bool_]
    space: NDArray[np.bool_]


def assemble(grid: Grid, make: Callable[[Grid, slice], Slab], structures: Iterable[Organ]) -> Anatomy:
    """Build an anatomy some slices at a time: temporary arrays that stay in the processor's cache make it several times faster."""
    step = max(1, _SLAB_VOXELS // (grid.shape[1] * grid.shape[2]))
    image = np.empty(grid.shape, dtype=np.float32)
    foreground, space = np.empty(grid.shape, dtype=bool), np.empty(grid.shape, dtype=bool)
    for first in range(0, grid.shape[0], step):
        where = slice(first, min(first + step, grid.shape[0]))
        made = make(grid.slab(where), where)
        image[where], foreground[where], space[where] = made.image, made.foreground, made.space
    return Anatomy(image, foreground, space, grid, structures=tuple(organ for organ in structures if organ.structure))


def mirrored(organ: Organ) -> tuple[Organ, Organ]:
    """Return the organ on the patient's left (as given, x > 0) and its twin on the right."""
    x, y, z = organ.centre
    return replace(organ, name=f"left {organ.name}"), replace(organ, name=f"right {organ.name}", centre=(-x, y, z), angle=-organ.angle)
