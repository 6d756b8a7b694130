"""The one colour table of all heat overlays: perceptually uniform, made here from CIELAB.

The path runs from dark violet over red and orange to light yellow with lightness rising all the way; it is walked in steps
of equal colour difference (ΔE*ab, CIE 1976), so that equal differences of heat look equally large.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import minimum_filter1d, uniform_filter1d

Array = NDArray[np.float64]

_WHITE = np.array([0.95047, 1.0, 1.08883])  # D65, 2°
_XYZ_TO_RGB = np.array([[3.2404542, -1.5371385, -0.4985314], [-0.9692660, 1.8760108, 0.0415560], [0.0556434, -0.2040259, 1.0572252]])
_LIGHTNESS = (40.0, 92.0)
_HUE = (300.0, 460.0)  # degrees: violet, over red (400), to yellow (460 = 100)
_LARGEST_CHROMA = 78.0


def lab_to_rgb(lab: Array) -> Array:
    """Turn CIELAB (…, 3) into sRGB (…, 3) by IEC 61966-2-1, not clipped: values outside 0…1 are colours no screen can show."""
    fy = (lab[..., 0] + 16) / 116
    f = np.stack([fy + lab[..., 1] / 500, fy, fy - lab[..., 2] / 200], axis=-1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * _WHITE
    linear: Array = xyz @ _XYZ_TO_RGB.T
    rgb: Array = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.abs(linear) ** (1 / 2.4) - 0.055)
    return rgb


def _lightness_hue_chroma(along: Array, chroma: Array) -> Array:
    lightness = _LIGHTNESS[0] + along * (_LIGHTNESS[1] - _LIGHTNESS[0])
    hue = np.deg2rad(_HUE[0] + along * (_HUE[1] - _HUE[0]))
    return np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1)


def _chroma(along: Array) -> Array:
    """Return a smooth chroma that sRGB can show at each point of the path, near the largest (found by bisection)."""
    low, high = np.zeros_like(along), np.full_like(along, _LARGEST_CHROMA)
    for _ in range(30):
        middle = (low + high) / 2
        rgb = lab_to_rgb(_lightness_hue_chroma(along, middle))
        shown = ((rgb >= 0) & (rgb <= 1)).all(axis=-1)
        low, high = np.where(shown, middle, low), np.where(shown, high, middle)
    smooth: Array = uniform_filter1d(uniform_filter1d(minimum_filter1d(low, 401), 201), 201)  # a mean of minima exceeds none of them
    return smooth


@lru_cache(maxsize=1)
def ramp_lab() -> Array:
    """Return the table in CIELAB, (256, 3), in steps of equal ΔE*ab."""
    along = np.linspace(0.0, 1.0, 2001)
    path = _lightness_hue_chroma(along, _chroma(along))
    walked = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    steps = np.interp(np.linspace(0.0, walked[-1], 256), walked, along)
    return np.stack([np.interp(steps, along, path[:, channel]) for channel in range(3)], axis=-1)


@lru_cache(maxsize=1)
def ramp() -> NDArray[np.uint8]:
    """Return the table as 8-bit sRGB, (256, 3)."""
    return np.round(np.clip(lab_to_rgb(ramp_lab()), 0.0, 1.0) * 255).astype(np.uint8)


def colour(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the colours (…, 3) of values in 0…1; what lies outside gets the nearest end, NaN the lowest."""
    index = np.nan_to_num(np.clip(values, 0.0, 1.0), nan=0.0) * 255
    return ramp()[np.round(index).astype(np.intp)]
