"""Where the voxels are, and smooth things on them: soft edges, ellipsoids, random fields."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline

Array = NDArray[np.float32]
Floats = NDArray[np.floating[Any]]  # what arithmetic of an Array and Python floats is for the type checker; single precision all the same
Box = tuple[slice, slice, slice]
Triple = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Grid:
    """Patient coordinates of all voxels in millimetres (LPS), kept as factors that broadcast to (slices, rows, columns).

    ``x`` and ``y`` have the shape (1, rows, columns), ``z`` the shape (slices, rows, 1): with a tilted gantry z depends on the row.
    """

    x: Array
    y: Array
    z: Array
    step: Triple  # distance of neighbouring voxels: slices, rows, columns

    @property
    def shape(self) -> tuple[int, int, int]:
        """(slices, rows, columns)."""
        return self.z.shape[0], self.x.shape[1], self.x.shape[2]

    def moved(self, roll: float, shift: Triple) -> Grid:
        """Return the grid in the frame of a body that was turned by ``roll`` radians about z and then shifted by ``shift`` mm."""
        cos, sin = math.cos(roll), math.sin(roll)
        x, y = self.x - np.float32(shift[0]), self.y - np.float32(shift[1])
        return replace(self, x=(cos * x + sin * y).astype(np.float32), y=(cos * y - sin * x).astype(np.float32), z=(self.z - shift[2]).astype(np.float32))

    def box(self, centre: Triple, reach: Triple) -> Box | None:
        """Return the smallest box of indices that holds all voxels within ``reach`` of ``centre`` on every axis, None where there are none."""
        near = (np.abs(self.x - centre[0]) <= reach[0]) & (np.abs(self.y - centre[1]) <= reach[1])
        ranges = [_extent(np.any(np.abs(self.z - centre[2]) <= reach[2], axis=(1, 2))), _extent(near.any(axis=(0, 2))), _extent(near.any(axis=(0, 1)))]
        if ranges[0] is None or ranges[1] is None or ranges[2] is None:
            return None
        return ranges[0], ranges[1], ranges[2]

    def voxels(self, along: float, across: float) -> Triple:
        """Turn lengths in mm, along z and in the plane, into voxels on each axis."""
        return along / self.step[0], across / self.step[1], across / self.step[2]

    def slab(self, where: slice) -> Grid:
        """Return the grid of some slices."""
        return replace(self, z=self.z[where])

    def part(self, box: Box) -> tuple[Array, Array, Array]:
        """Return x, y, z of a box, broadcastable to its shape."""
        return self.x[:, box[1], box[2]], self.y[:, box[1], box[2]], self.z[box[0], box[1]]


def _extent(flags: NDArray[np.bool_]) -> slice | None:
    hits = np.flatnonzero(flags)
    return slice(int(hits[0]), int(hits[-1]) + 1) if hits.size else None


def ramp(distance: Floats, soft: float) -> Array:
    """Return 1 inside (negative distance), 0 outside, linear over ``± soft`` millimetres: the partial volume of an edge."""
    weight = np.multiply(distance, -0.5 / soft, dtype=np.float32)
    weight += 0.5
    return np.clip(weight, 0, 1, out=weight)


def radius(grid: Grid, box: Box, centre: Triple, radii: Triple, angle: float = 0.0) -> Array:
    """Return the normalised distance from the centre of an ellipsoid turned by ``angle`` radians about z: 1 on its surface."""
    x, y, z = grid.part(box)
    cos, sin = math.cos(angle), math.sin(angle)
    dx, dy = x - np.float32(centre[0]), y - np.float32(centre[1])
    flat = ((cos * dx + sin * dy) / np.float32(radii[0])) ** 2 + ((cos * dy - sin * dx) / np.float32(radii[1])) ** 2
    distance: Array = np.sqrt(flat + ((z - np.float32(centre[2])) / np.float32(radii[2])) ** 2)
    return distance.astype(np.float32, copy=False)


def ellipsoid(grid: Grid, centre: Triple, radii: Triple, angle: float = 0.0, soft: float = 1.0) -> tuple[Box, Array] | None:
    """Return the box around an ellipsoid and its weights there (1 inside, soft edge), None where it misses the grid."""
    wide = max(radii[0], radii[1]) if angle else 0.0
    reach = (max(radii[0], wide) + soft, max(radii[1], wide) + soft, radii[2] + soft)
    box = grid.box(centre, reach)
    if box is None:
        return None
    return box, ramp((radius(grid, box, centre, radii, angle) - 1) * np.float32(min(radii)), soft)


@dataclass(frozen=True, slots=True)
class Field:
    """A smooth random field of mean 0 and variance near 1, kept as coarse noise and the B-splines that interpolate it."""

    coarse: Array  # (slices, coarse rows, coarse columns): interpolated along z only
    rows: Array  # (rows, coarse rows)
    columns: Array  # (columns, coarse columns)

    def part(self, where: slice = slice(None)) -> Array:
        """Return some slices of the field: two matrix products."""
        tall = np.matmul(self.rows, self.coarse[where])
        flat: Array = tall.reshape(-1, tall.shape[2]) @ self.columns.T
        return flat.reshape(tall.shape[0], len(self.rows), len(self.columns))


def smooth_field(rng: np.random.Generator, shape: tuple[int, int, int], scale: Triple) -> Field:
    """Return a random field that varies over ``scale`` voxels on each axis."""
    deep, tall, wide = (_spline(size, step, float(rng.random())) for size, step in zip(shape, scale, strict=True))
    coarse = rng.standard_normal((deep.shape[1], tall.shape[1], wide.shape[1]), dtype=np.float32)
    return Field(np.tensordot(deep, coarse, axes=1), tall, wide)


def _spline(size: int, step: float, phase: float) -> Array:
    step = max(step, 1.0)
    knots = np.arange(-3, math.ceil(size / step) + 5, dtype=np.float64)
    matrix = BSpline.design_matrix(np.arange(size) / step + phase, knots, 3).toarray()
    matrix /= np.sqrt((matrix**2).sum(axis=1, keepdims=True))  # the variance of each voxel is 1
    return np.asarray(matrix, dtype=np.float32)


def lookup(values: Array, table: tuple[tuple[float, float], ...], resolution: float = 0.05) -> Array:
    """Return a piecewise linear function of ``values``, given as (value, result) knots in rising order, constant outside."""
    at, result = np.array(table, dtype=np.float32).T
    dense = np.interp(np.arange(at[0], at[-1] + resolution, resolution), at, result).astype(np.float32)
    index = (values - at[0]) * np.float32(1 / resolution)
    np.clip(index, 0, len(dense) - 1, out=index)
    found: Array = dense[index.astype(np.intp)]
    return found
