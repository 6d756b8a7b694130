"""How alike two pages are: structural similarity (Wang, Bovik, Sheikh and Simoncelli, IEEE Trans. Image Processing 13, 2004), tile by tile.

A mean over a page forgives a flipped letter, which covers a two-thousandth of it; the least alike tile does not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

TILE = 16  # pixels; the smallest letters are about that high
_WINDOW = 7
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def ssim(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the similarity of two pages (rows, columns, 3) at each pixel, the least of the three colours."""
    a, b = first.astype(np.float64), second.astype(np.float64)
    mean_a, mean_b, aa, bb, ab = (uniform_filter(part, (_WINDOW, _WINDOW, 0)) for part in (a, b, a * a, b * b, a * b))
    spread = (2 * (ab - mean_a * mean_b) + _C2) / (aa - mean_a**2 + bb - mean_b**2 + _C2)
    return np.asarray(((2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1) * spread).min(axis=-1))


def least(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> tuple[float, tuple[int, int]]:
    """Return the mean similarity of the least alike tile and its upper left pixel (row, column); −1 where the pages differ in size."""
    if first.shape != second.shape:
        return -1.0, (0, 0)
    places = np.argwhere((first != second).any(axis=-1))
    if not places.size:
        return 1.0, (0, 0)
    top, left = np.maximum(places.min(axis=0) // TILE - 1, 0) * TILE  # a tile around what differs: beyond it all is alike
    bottom, right = (places.max(axis=0) // TILE + 2) * TILE
    alike = ssim(first[top:bottom, left:right], second[top:bottom, left:right])
    rows, columns = (length // TILE * TILE for length in alike.shape)
    tiles = alike[:rows, :columns].reshape(rows // TILE, TILE, columns // TILE, TILE).mean(axis=(1, 3))
    row, column = np.unravel_index(tiles.argmin(), tiles.shape)
    return float(tiles.min()), (int(top) + int(row) * TILE, int(left) + int(column) * TILE)
