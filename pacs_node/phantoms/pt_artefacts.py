"""Artefacts of positron emission tomography, in SUV, put on the finished image: the same on the image with and without the lesion."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pacs_node.phantoms.grid import Array, Grid
from pacs_node.phantoms.shapes import Anatomy
from pacs_node.phantoms.spec import PhantomSpec

_STREAM = 7  # number of the random stream of artefacts
_FIELD = 0.27  # radius of a truncated field, as a fraction of the image's width


@dataclass(frozen=True, slots=True)
class _Scan:
    """What an artefact may look at."""

    grid: Grid
    foreground: NDArray[np.bool_]
    rng: np.random.Generator


def apply(spec: PhantomSpec, image: Array, foreground: NDArray[np.bool_], grid: Grid) -> Array:
    """Return the image with the artefact of the specification, if any; ``image`` may be changed."""
    if spec.artefact is None:
        return image
    return ARTEFACTS[spec.artefact](image, _Scan(grid, foreground, np.random.default_rng([spec.seed, _STREAM])))


def restrict(spec: PhantomSpec, body: Anatomy, grid: Grid) -> Anatomy:
    """Keep the place of the lesion inside what a truncated scan still shows."""
    if spec.artefact != "truncation":
        return body
    return replace(body, space=body.space & (_beyond(grid) < -8))


def _motion(image: Array, scan: _Scan) -> Array:
    """Breathing and a shift against the attenuation map: smeared along z, with a dark band on one side of the body."""
    smeared = ndimage.gaussian_filter1d(image, 12 / scan.grid.step[0], axis=0)
    angle = float(scan.rng.uniform(0, 2 * math.pi))
    way = (0.0, 14 / scan.grid.step[1] * math.sin(angle), 14 / scan.grid.step[2] * math.cos(angle))
    moved = ndimage.shift(smeared, way, order=1, mode="nearest")
    side = np.clip((math.cos(angle) * scan.grid.x + math.sin(angle) * scan.grid.y) / 150, -1, 1)
    shifted: Array = ((0.5 * smeared + 0.5 * moved) * (1 + 0.45 * side)).astype(np.float32)
    return shifted


def _metal(image: Array, scan: _Scan) -> Array:
    """A metal part corrected as if it were dense tissue: false uptake around it over a few slices."""
    index = int(scan.rng.integers(len(image)))
    places = np.argwhere(scan.foreground[index])
    if not len(places):
        return image
    row, column = places[int(scan.rng.integers(len(places)))]
    grid, level = scan.grid, 3.0 * float(image[scan.foreground].mean())
    dx, dy = grid.x[0] - grid.x[0, row, column], grid.y[0] - grid.y[0, row, column]
    turn, away = float(scan.rng.uniform(0, math.pi)), np.hypot(dx, dy)
    streak = (1 + 0.8 * np.cos(2 * (np.arctan2(dy, dx) - turn))) * np.exp(-((away / 32) ** 2))
    for near in range(max(0, index - 3), min(len(image), index + 4)):
        fall = math.exp(-0.5 * ((near - index) * grid.step[0] / 9) ** 2)
        image[near] += (level * fall * streak * scan.foreground[near]).astype(np.float32)
    return image


def _noise(image: Array, scan: _Scan) -> Array:
    """Too few counts: coarse grain of the size of the organs' details."""
    grain = ndimage.gaussian_filter(scan.rng.standard_normal(image.shape, dtype=np.float32), (0.6, 1.0, 1.0), output=np.float32)
    grain *= np.float32(0.55 / float(grain.std()))
    image += grain * np.sqrt(np.maximum(image, 0) * np.float32(max(float(image[scan.foreground].mean()), 0.1)))
    return image


def _truncation(image: Array, scan: _Scan) -> Array:
    """The body reaches beyond the field of the attenuation map: nothing outside it, too much at its border."""
    beyond = _beyond(scan.grid)
    image *= 1 + 0.9 * np.exp(np.minimum(beyond, 0) / np.float32(12))
    return np.where(beyond > 0, np.float32(0), image)


def _beyond(grid: Grid) -> Array:
    """Return how far a pixel lies outside the field, mm, shape (1, rows, columns)."""
    beyond: Array = np.hypot(grid.x, grid.y) - np.float32(_FIELD * grid.step[2] * grid.shape[2])
    return beyond


ARTEFACTS: dict[str, Callable[[Array, _Scan], Array]] = {"motion": _motion, "metal": _metal, "noise": _noise, "truncation": _truncation}
