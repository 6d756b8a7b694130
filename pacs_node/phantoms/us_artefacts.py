"""Artefacts of ultrasound, in grey levels, put on the finished image: the same on the image with and without the lesion."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pacs_node.phantoms.grid import Array
from pacs_node.phantoms.shapes import Anatomy
from pacs_node.phantoms.spec import PhantomSpec

_STREAM = 7  # number of the random stream of artefacts


def apply(spec: PhantomSpec, image: Array, foreground: NDArray[np.bool_]) -> Array:
    """Return the image with the artefact of the specification, if any; ``image`` may be changed."""
    if spec.artefact is None:
        return image
    return ARTEFACTS[spec.artefact](image, foreground, np.random.default_rng([spec.seed, _STREAM]))


def restrict(spec: PhantomSpec, body: Anatomy) -> Anatomy:
    """Keep the place of the lesion where the transducer touches the skin in a truncated image."""
    if spec.artefact != "truncation":
        return body
    return replace(body, space=body.space & (_uncoupled(spec, _lit(body.foreground)) < 0.02))


def _motion(image: Array, foreground: NDArray[np.bool_], rng: np.random.Generator) -> Array:
    """A transducer that slides while the image is averaged: double contours and speckle smeared along its way."""
    by = max(3, round(float(rng.uniform(0.03, 0.06)) * image.shape[2]))
    smeared = ndimage.uniform_filter1d(image, by, axis=2)
    moved: Array = (0.6 * smeared + 0.4 * np.roll(smeared, (max(1, by // 3), by), axis=(1, 2))).astype(np.float32)
    return moved


def _metal(image: Array, foreground: NDArray[np.bool_], rng: np.random.Generator) -> Array:
    """A clip: a bright spot with a comet tail of repeated echoes below it and a shadow beside the tail."""
    rows, columns = image.shape[1:]
    places = np.argwhere(foreground[0][: rows // 2])
    if not len(places):
        return image
    row, column = places[int(rng.integers(len(places)))]
    down, across = np.arange(rows)[:, None] - row, np.arange(columns)[None, :] - column
    tail = np.exp(-((across / (0.014 * columns)) ** 2)) * np.exp(-np.clip(down, 0, None) / (0.25 * rows)) * (down >= 0)
    rings = 0.6 + 0.4 * np.cos(2 * math.pi * down / (0.022 * rows))
    shadow = np.exp(-((across / (0.05 * columns)) ** 2)) * (down > 0.02 * rows)
    marred: Array = (image * (1 - 0.55 * shadow) + 190 * tail * rings).astype(np.float32)
    return marred


def _noise(image: Array, foreground: NDArray[np.bool_], rng: np.random.Generator) -> Array:
    """Too much gain: electronic noise that grows with depth."""
    deep = np.linspace(0.3, 1.3, image.shape[1], dtype=np.float32)[:, None]
    image += deep * np.float32(16)
    image += deep * np.float32(34) * rng.standard_normal(image.shape, dtype=np.float32)
    return image


def _truncation(image: Array, foreground: NDArray[np.bool_], rng: np.random.Generator) -> Array:
    """A transducer that touches the skin with a part of its face only: darkness below the rest, with a bright echo at its surface."""
    off = _uncoupled_of(rng, _lit(foreground))
    down = np.linspace(0, 1, image.shape[1], dtype=np.float32)[:, None]
    rings = 140 * np.exp(-down / 0.04) * (0.5 + 0.5 * np.cos(2 * math.pi * down / 0.018))
    dark: Array = (image * (1 - off) + (8 + rings) * off).astype(np.float32)
    return dark


def _bias_field(image: Array, foreground: NDArray[np.bool_], rng: np.random.Generator) -> Array:
    """A wrong gain over depth: a bright band, dark elsewhere."""
    down = np.linspace(0, 1, image.shape[1], dtype=np.float32)[:, None]
    band = float(rng.uniform(0.3, 0.6))
    image += 55 * np.exp(-(((down - band) / 0.12) ** 2)) - 45 * np.clip(np.abs(down - band) / 0.35, 0, 1)
    return image


def _lit(foreground: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which columns hold tissue."""
    return np.asarray(foreground.any(axis=(0, 1)), dtype=np.bool_)


def _uncoupled(spec: PhantomSpec, lit: NDArray[np.bool_]) -> Array:
    return _uncoupled_of(np.random.default_rng([spec.seed, _STREAM]), lit)


def _uncoupled_of(rng: np.random.Generator, lit: NDArray[np.bool_]) -> Array:
    """Return how little each column is coupled, 0 to 1: the left or the right third of what is ``lit``."""
    columns = np.flatnonzero(lit)
    at = np.linspace(0, 1, len(columns), dtype=np.float32)
    side = at if rng.random() < 0.5 else 1 - at
    found = np.zeros(len(lit), dtype=np.float32)
    found[columns] = np.clip((side - np.float32(rng.uniform(0.6, 0.7))) / 0.04, 0, 1)
    return found


ARTEFACTS: dict[str, Callable[[Array, NDArray[np.bool_], np.random.Generator], Array]] = {
    "motion": _motion,
    "metal": _metal,
    "noise": _noise,
    "truncation": _truncation,
    "bias_field": _bias_field,
}
