"""How far apart two series lie by their embeddings: brute force, a few milliseconds for a hundred thousand."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LEAST = 1e-3  # of the spread along one number, as a share of the largest: what hardly varies within a series must not decide


def distances(mean: NDArray[np.float16], spread: NDArray[np.float16], means: NDArray[np.float16], spreads: NDArray[np.float16]) -> NDArray[np.float32]:
    """Return the distance of one series, ``mean`` and ``spread`` (128,), to others, (n, 128) each: (n,) float32, dimensionless.

    Per number, the difference of the means is measured in units of how far the slices of both series spread there; the distance is the root mean
    square of that over the numbers that vary at all. 1: as far apart as the slices of one series are from each other. Only embeddings of one
    model can be compared. Two series of one slice have no spread: there the differences count as they are.
    """
    units = np.sqrt((spread.astype(np.float32) ** 2 + spreads.astype(np.float32) ** 2) / 2)
    floor = _LEAST * units.max(axis=1, keepdims=True, initial=0.0)
    units = np.where(units.max(axis=1, keepdims=True, initial=0.0) > 0, units, 1.0)
    live = units > np.maximum(floor, np.finfo(np.float32).tiny)
    steps = np.where(live, (means.astype(np.float32) - mean.astype(np.float32)) / np.where(live, units, 1.0), 0.0)
    return np.asarray(np.sqrt((steps**2).sum(axis=1) / np.maximum(live.sum(axis=1), 1)), dtype=np.float32)
