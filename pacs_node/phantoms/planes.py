"""Where the slices of a scan lie, and the coordinates of its voxels.

Anatomies are built *upright*, in arrays of the axes (z, y, x), and then turned into slices, rows and columns of the asked plane.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pacs_node.phantoms.grid import Grid, Triple
from pacs_node.phantoms.spec import PhantomSpec
from pacs_node.records import Plane

Axes = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Orientation:
    """How the slices of a plane lie in the patient (LPS, PS3.3 C.7.6.2.1.1); slices rise along row × down."""

    axes: Axes  # the upright axis (0: z, 1: y, 2: x) of slices, rows, columns
    row: Triple  # where the column index rises
    down: Triple  # where the row index rises

    @property
    def normal(self) -> Triple:
        """Where the slice index rises."""
        x, y, z = np.cross(self.row, self.down).tolist()
        return x, y, z


ORIENTATIONS: dict[str, Orientation] = {
    "axial": Orientation((0, 1, 2), (1, 0, 0), (0, 1, 0)),
    "sagittal": Orientation((2, 0, 1), (0, 1, 0), (0, 0, -1)),
    "coronal": Orientation((1, 0, 2), (1, 0, 0), (0, 0, -1)),
}


def planes(spec: PhantomSpec, wide: float, apart: float, centre: Triple) -> tuple[Plane, ...]:
    """Return where the slices lie, in order of rising position along their normal (PS3.3 C.7.6.2).

    ``wide`` is the width of the square field, ``apart`` the distance of slices, ``centre`` the middle of the scan, all in mm. Of axial
    scans the table moves along z while the gantry may be tilted.
    """
    if spec.plane == "axial":
        return _axial(spec, wide, apart, centre)
    lies, half = ORIENTATIONS[spec.plane], wide / spec.rows * (spec.rows - 1) / 2
    first = np.array(centre) - half * np.array(lies.row) - half * np.array(lies.down) - apart * (spec.slices - 1) / 2 * np.array(lies.normal)
    pixel = wide / spec.rows
    found = []
    for index in range(spec.slices):
        x, y, z = (first + apart * index * np.array(lies.normal)).tolist()
        found.append(Plane((x, y, z), (*lies.row, *lies.down), (pixel, pixel), spec.thickness or apart))
    return tuple(found)


def _axial(spec: PhantomSpec, wide: float, apart: float, centre: Triple) -> tuple[Plane, ...]:
    pixel, tilt = wide / spec.rows, math.radians(spec.tilt)
    down = (0.0, math.cos(tilt), -math.sin(tilt) or 0.0)
    half = pixel * (spec.rows - 1) / 2
    bottom = centre[2] - apart * (spec.slices - 1) / 2
    orientation = (1.0, 0.0, 0.0, *down)
    return tuple(
        Plane((centre[0] - half, centre[1] - half * down[1], bottom + apart * index - half * down[2]), orientation, (pixel, pixel), spec.thickness or apart)
        for index in range(spec.slices)
    )


def slice_location(spec: PhantomSpec, plane: Plane) -> float:
    """Return the position of a slice along its normal, mm (Slice Location (0020,1041)); of axial slices z, whatever the tilt."""
    lies = ORIENTATIONS[spec.plane]
    return plane.position[2 - lies.axes[0]] * sum(lies.normal)


def upright(places: tuple[Plane, ...], spec: PhantomSpec, apart: float) -> Grid:
    """Return the coordinates of all voxels in upright order."""
    first, pixel = places[0], places[0].spacing[0]
    if spec.plane == "axial":
        return _upright_axial(places, spec, apart)
    lies = ORIENTATIONS[spec.plane]
    lines = []
    for axis, component in ((0, 2), (1, 1), (2, 0)):
        place = lies.axes.index(axis)  # 0: along slices, 1: along rows, 2: along columns
        way = (lies.normal, lies.down, lies.row)[place]
        count, step = (len(places), apart) if place == 0 else (spec.rows, pixel)
        lines.append((first.position[component] + np.arange(count) * step * way[component]).astype(np.float32))
    z, y, x = lines
    shape = (1, len(y), len(x))
    steps = [apart if lies.axes[0] == axis else pixel for axis in range(3)]
    wide, deep = np.broadcast_to(x[None, None, :], shape), np.broadcast_to(y[None, :, None], shape)
    return Grid(wide, deep, np.broadcast_to(z[:, None, None], (len(z), len(y), 1)), (steps[0], steps[1], steps[2]))


def _upright_axial(places: tuple[Plane, ...], spec: PhantomSpec, apart: float) -> Grid:
    first, pixel = places[0], places[0].spacing[0]
    along = np.arange(spec.rows) * pixel
    x = (first.position[0] + along)[None, None, :]
    y = (first.position[1] + along * first.orientation[4])[None, :, None]
    z = np.array([place.position[2] for place in places])[:, None, None] + (along * first.orientation[5])[None, :, None]
    shape = (1, spec.rows, spec.rows)
    return Grid(np.broadcast_to(x, shape).astype(np.float32), np.broadcast_to(y, shape).astype(np.float32), z.astype(np.float32), (apart, pixel, pixel))
