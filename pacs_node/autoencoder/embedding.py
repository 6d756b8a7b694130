"""128 numbers a slice, whatever the network's width: what `similar` compares and Raw Data carries.

::

    features (S, F) float16 ──┬─ F < 128 ─ zeros behind them ──────────┐
                              ├─ F = 128 ─ as they are ────────────────┼─► slices (S, 128) float16 ─► mean, spread (128,)
                              └─ F > 128 ─ sums with fixed signs ──────┘

Sums with random signs keep distances nearly as they are (Achlioptas 2003). The signs come from SHA-256 of a fixed text and the width, so that they
are the same everywhere; a float16 is a multiple of 2⁻²⁴ below 2¹⁶, so that sums of up to 2¹² of them are exact in float64, in whatever order a
processor adds them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

WIDTH = 128
"""Numbers a slice."""

_MOST = 2**12  # features whose sum is exact: 2¹² values below 2¹⁶ in units of 2⁻²⁴ stay below 2⁵³
_LARGEST = float(np.finfo(np.float16).max)
_SIGNS_OF = "pacs-node embedding 1"  # another text is another embedding: nothing stored could be compared with it


@dataclass(frozen=True, slots=True)
class Embedding:
    """A series in few numbers: ``slices`` (S, 128), their ``mean`` (128,) and ``spread`` (128,; population standard deviation), all float16, dimensionless."""

    slices: NDArray[np.float16]
    mean: NDArray[np.float16]
    spread: NDArray[np.float16]


def embed(features: NDArray[np.float16]) -> Embedding:
    """Bring what the network says of each slice, (slices, features) float16 as in a finding, to 128 numbers a slice.

    The same features give the same numbers on every machine; only embeddings of one model can be compared. Raises `ValueError` where there is
    no slice, where a value is not finite, or where there are more features than can be added exactly.
    """
    if features.ndim != 2 or not features.size or features.shape[1] > _MOST:
        raise ValueError(f"features of shape {features.shape}: (slices, features) with at least one slice and at most {_MOST} features are needed")
    exact = features.astype(np.float16).astype(np.float64)
    if not np.isfinite(exact).all():
        raise ValueError("the features hold values that are no numbers")
    slices = _half(_narrowed(exact))
    kept = slices.astype(np.float64)
    return Embedding(slices, _half(kept.mean(axis=0)), _half(kept.std(axis=0)))


def _narrowed(exact: NDArray[np.float64]) -> NDArray[np.float64]:
    width = exact.shape[1]
    if width <= WIDTH:
        return np.pad(exact, ((0, 0), (0, WIDTH - width)))
    return np.asarray(exact @ _signs(width) / np.sqrt(WIDTH), dtype=np.float64)


@cache
def _signs(width: int) -> NDArray[np.float64]:
    """Return ±1, (width, 128)."""
    bits = b"".join(hashlib.sha256(f"{_SIGNS_OF} {width} {row}".encode()).digest()[: WIDTH // 8] for row in range(width))
    return np.asarray(1.0 - 2.0 * np.unpackbits(np.frombuffer(bits, np.uint8)).reshape(width, WIDTH), dtype=np.float64)


def _half(values: NDArray[np.float64]) -> NDArray[np.float16]:
    return values.clip(-_LARGEST, _LARGEST).astype(np.float16)
