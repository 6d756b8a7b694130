"""Artefacts of a CT scan, in HU, put on the finished image: the same on the image with and without the lesion."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pacs_node.phantoms.grid import Array, Grid, ramp
from pacs_node.phantoms.shapes import Anatomy
from pacs_node.phantoms.spec import PhantomSpec

_STREAM = 7  # number of the random stream of artefacts
_AIR = np.float32(-1000)
_STREAKS = {"head": 120.0, "body": 350.0}  # HU beside the metal
_LOW_DOSE = {"head": 30.0, "body": 60.0}  # standard deviation of the noise, HU


@dataclass(frozen=True, slots=True)
class _Scan:
    """What an artefact may look at."""

    spec: PhantomSpec
    grid: Grid  # of the scanner
    foreground: NDArray[np.bool_]
    rng: np.random.Generator


def apply(spec: PhantomSpec, image: Array, foreground: NDArray[np.bool_], grid: Grid) -> Array:
    """Return the image with the artefact of the specification, if any; ``image`` may be changed."""
    if spec.artefact is None:
        return image
    return ARTEFACTS[spec.artefact](image, _Scan(spec, grid, foreground, np.random.default_rng([spec.seed, _STREAM])))


def restrict(spec: PhantomSpec, body: Anatomy, grid: Grid) -> Anatomy:
    """Keep the place of the lesion inside what a truncated scan still shows."""
    if spec.artefact != "truncation":
        return body
    return replace(body, space=body.space & (_beyond(spec, grid) < -8))


def _motion(image: Array, scan: _Scan) -> Array:
    """A movement during some neighbouring slices: double contours and streaks along the direction of the movement."""
    slices = len(image)
    first = int(scan.rng.integers(max(1, slices // 2)))
    angle, pixel = float(scan.rng.uniform(0, 2 * math.pi)), scan.grid.step[2]
    for index in range(first, min(slices, first + max(2, slices // 2))):
        reach = float(scan.rng.uniform(4, 10)) / pixel
        way = (reach * math.sin(angle), reach * math.cos(angle))
        there = ndimage.shift(image[index], way, order=1, mode="nearest")
        back = ndimage.shift(image[index], (-0.6 * way[0], -0.6 * way[1]), order=1, mode="nearest")
        edge = image[index] - there
        streak = ndimage.gaussian_filter1d(edge, 12 / pixel, axis=0 if abs(way[0]) > abs(way[1]) else 1)
        image[index] = 0.45 * image[index] + 0.35 * there + 0.2 * back + 0.5 * streak
    return image


def _metal(image: Array, scan: _Scan) -> Array:
    """One or two metal parts with bright and dark streaks around them, over a few slices."""
    grid = scan.grid
    for _ in range(int(scan.rng.integers(1, 3))):
        index = int(scan.rng.integers(len(image)))
        places = np.argwhere(scan.foreground[index])
        if not len(places):
            continue
        row, column = places[int(scan.rng.integers(len(places)))]
        radius = float(scan.rng.uniform(2.5, 5))
        dx, dy = grid.x[0] - grid.x[0, row, column], grid.y[0] - grid.y[0, row, column]
        away = np.hypot(dx, dy)
        streaks = _streaks(np.arctan2(dy, dx), scan.rng) * (45 / (away + 12))
        for near in range(max(0, index - 2), min(len(image), index + 3)):
            fall = math.exp(-0.5 * ((near - index) * grid.step[0] / 6) ** 2)
            image[near] += np.float32(_STREAKS[scan.spec.region] * fall) * streaks * np.where(scan.foreground[near], np.float32(1), np.float32(0.25))
            if abs(near - index) * grid.step[0] <= 6:
                image[near] += ramp(away - np.float32(radius), 0.8) * (np.float32(3071) - image[near])
    return image


def _streaks(angle: Array, rng: np.random.Generator) -> Array:
    """Return a random function of the direction, of mean 0, the same in opposite directions."""
    total = np.zeros_like(angle)
    for order in (2, 6, 10, 16, 24, 38):
        total += np.cos(order * angle + np.float32(rng.uniform(0, 2 * math.pi))) * np.float32(rng.uniform(0.3, 1.0))
    return total * np.float32(0.5)


def _noise(image: Array, scan: _Scan) -> Array:
    """Too little dose: strong noise drawn out into horizontal streaks, as through shoulders and hips."""
    grain = scan.rng.standard_normal(image.shape, dtype=np.float32)
    drawn = ndimage.gaussian_filter(grain, (0, 0.5, 2.5), output=np.float32)
    drawn *= np.float32(_LOW_DOSE[scan.spec.region] / float(drawn.std()))
    image += drawn * np.where(scan.foreground, np.float32(1), np.float32(0.3))
    return image


def _truncation(image: Array, scan: _Scan) -> Array:
    """The body reaches beyond the field of the scan: too bright towards the border of the circle, nothing outside it."""
    beyond = _beyond(scan.spec, scan.grid)
    rim = np.exp(np.minimum(beyond, 0) / np.float32(9)) * np.float32(350)
    image += rim * scan.foreground
    return np.where(beyond > 0, _AIR, image)


def _beyond(spec: PhantomSpec, grid: Grid) -> Array:
    """Return how far a pixel lies outside the scan's circle, mm, shape (1, rows, columns); the patient lies off its centre."""
    rng = np.random.default_rng([spec.seed, _STREAM, 1])
    wide = grid.step[2] * spec.rows
    angle, off = float(rng.uniform(0, 2 * math.pi)), 0.08 * wide
    beyond: Array = np.hypot(grid.x - np.float32(off * math.cos(angle)), grid.y - np.float32(off * math.sin(angle))) - np.float32(0.33 * wide)
    return beyond


ARTEFACTS: dict[str, Callable[[Array, _Scan], Array]] = {"motion": _motion, "metal": _metal, "noise": _noise, "truncation": _truncation}
