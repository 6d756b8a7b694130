"""Artefacts of magnetic resonance, put on the finished image: the same on the image with and without the lesion.

The phase is encoded along the rows of the image, from left to right of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pacs_node.phantoms.grid import Array
from pacs_node.phantoms.shapes import Anatomy
from pacs_node.phantoms.spec import PhantomSpec

_STREAM = 7  # number of the random stream of artefacts
_KEPT = 0.30  # half of the width that a truncated field shows, as a fraction of the image


def apply(spec: PhantomSpec, image: Array, foreground: NDArray[np.bool_]) -> Array:
    """Return the image with the artefact of the specification, if any; ``image`` may be changed."""
    if spec.artefact is None:
        return image
    return ARTEFACTS[spec.artefact](image, foreground, np.random.default_rng([spec.seed, _STREAM]))


def restrict(spec: PhantomSpec, body: Anatomy) -> Anatomy:
    """Keep the place of the lesion inside what a truncated scan still shows; ``body`` is in the order of the image."""
    if spec.artefact != "truncation":
        return body
    columns = body.image.shape[2]
    seen = np.abs(np.arange(columns) - columns / 2) < (_KEPT - 0.05) * columns
    return replace(body, space=body.space & seen)


def _level(image: Array, foreground: NDArray[np.bool_]) -> float:
    return float(image[foreground].mean()) if foreground.any() else 1.0


def _motion(image: Array, foreground: NDArray[np.bool_], rng: np.random.Generator) -> Array:
    """A head that nods: ghosts of the edges repeat along the phase direction, and contours blur."""
    columns = image.shape[2]
    apart = int(rng.integers(columns // 16, columns // 7))
    blurred = 0.6 * image + 0.4 * np.roll(image, max(1, columns // 100), axis=2)
    ghosts = np.zeros_like(image)
    for order, weight in ((1, 0.22), (2, -0.13), (3, 0.08)):
        weight *= float(rng.uniform(0.7, 1.3))
        ghosts += weight * (np.roll(blurred, order * apart, axis=2) - np.roll(blurred, -order * apart, axis=2))
    moved: Array = np.abs(blurred + ghosts).astype(np.float32)
    return moved


def _metal(image: Array, foreground: NDArray[np.bool_], rng: np.random.Generator) -> Array:
    """One or two metal parts: no signal around them, a bright rim of displaced signal beside it."""
    bright = 2.2 * _level(image, foreground)
    rows, columns = np.indices(image.shape[1:], dtype=np.float32)
    for _ in range(int(rng.integers(1, 3))):
        index = int(rng.integers(len(image)))
        places = np.argwhere(foreground[index])
        if not len(places):
            continue
        row, column = places[int(rng.integers(len(places)))]
        radius, turn = float(rng.uniform(0.05, 0.10)) * image.shape[1], float(rng.uniform(0, 2 * math.pi))
        away, angle = np.hypot(rows - row, columns - column), np.arctan2(rows - row, columns - column)
        shape = away / (radius * (1 + 0.18 * np.cos(2 * (angle - turn))))
        for near in range(max(0, index - 2), min(len(image), index + 3)):
            size = 1 - 0.22 * abs(near - index)
            rim = np.exp(-(((shape - size - 0.1) / 0.12) ** 2)) * np.clip(np.cos(angle - turn), 0, 1)
            image[near] += (bright * rim * (shape > size)).astype(np.float32)
            image[near] *= np.clip((shape - size) / 0.12, 0, 1).astype(np.float32)
    return image


def _noise(image: Array, foreground: NDArray[np.bool_], rng: np.random.Generator) -> Array:
    """A coil that hardly receives: strong Rician noise."""
    level = 0.28 * _level(image, foreground)
    one, other = (rng.standard_normal(image.shape, dtype=np.float32) * np.float32(level) for _ in range(2))
    noisy: Array = np.hypot(image + one, other)
    return noisy


def _truncation(image: Array, foreground: NDArray[np.bool_], rng: np.random.Generator) -> Array:
    """A field narrower than the head: what lies outside it folds in from the other side."""
    columns = image.shape[2]
    wide = round(2 * _KEPT * columns)
    first = columns // 2 - wide // 2
    kept = slice(first, first + wide)
    folded = np.zeros_like(image)
    folded[:, :, kept] = image[:, :, kept]
    left, right = image[:, :, max(0, first - wide) : first], image[:, :, first + wide : first + 2 * wide]
    folded[:, :, first + wide - left.shape[2] : first + wide] += left
    folded[:, :, first : first + right.shape[2]] += right
    return folded


def _bias_field(image: Array, foreground: NDArray[np.bool_], rng: np.random.Generator) -> Array:
    """A coil that lies to one side: a steep fall of the signal across the image."""
    slices, rows, columns = (np.linspace(-1, 1, size, dtype=np.float32) for size in image.shape)
    angle = float(rng.uniform(0, 2 * math.pi))
    across = math.cos(angle) * columns[None, None, :] + math.sin(angle) * rows[None, :, None]
    gain = np.exp(1.4 * across - 0.5 * across**2 + float(rng.uniform(-0.3, 0.3)) * slices[:, None, None])
    biased: Array = (image * gain).astype(np.float32)
    return biased


ARTEFACTS: dict[str, Callable[[Array, NDArray[np.bool_], np.random.Generator], Array]] = {
    "motion": _motion,
    "metal": _metal,
    "noise": _noise,
    "truncation": _truncation,
    "bias_field": _bias_field,
}
