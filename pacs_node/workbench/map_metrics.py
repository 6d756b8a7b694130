"""How well a map shows where a lesion is, and how true a reconstruction is. Pure functions of arrays (slices, rows, columns)."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from pacs_node.autoencoder.losses import structural_similarity

THRESHOLDS: NDArray[np.float64] = np.geomspace(1e-3, 1e2, 121)
"""Where a map may be cut for the oracle Dice: steps of 10 %, wide enough for maps of any unit; nothing at or below zero is ever marked."""

_NEAR = 3  # pixels of the analysis grid by which the hottest place may miss a lesion's edge

Heat = NDArray[np.float32]
Mask = NDArray[np.bool_]


def is_hit(heat: Heat, lesion: Mask) -> bool:
    """Tell whether the hottest place, the maximum of the map averaged over 5 × 5 pixels, lies in the lesion or within 3 pixels of its edge."""
    smooth = ndimage.uniform_filter(heat, size=(0, 5, 5))
    where = np.unravel_index(int(smooth.argmax()), smooth.shape)
    near = ndimage.binary_dilation(lesion[where[0]], iterations=_NEAR)
    return bool(near[where[1], where[2]])


def dice(marked: Mask, lesion: Mask) -> float:
    """Return 2·|both| / (|marked| + |lesion|); 1 where both are empty (Dice 1945)."""
    total = int(marked.sum()) + int(lesion.sum())
    return 1.0 if not total else 2.0 * int((marked & lesion).sum()) / total


def dice_curve(heat: Heat, lesion: Mask, foreground: Mask) -> NDArray[np.float32]:
    """Return the Dice of a series at each of `THRESHOLDS`: all its foreground pixels above the threshold against its lesion."""
    inside = lesion & foreground
    hit, alarm = (_above(heat[which]) for which in (inside, foreground & ~lesion))
    total = hit + alarm + int(inside.sum())
    result: NDArray[np.float32] = (2.0 * hit / np.maximum(total, 1)).astype(np.float32)
    return result


def _above(values: Heat) -> NDArray[np.int64]:
    """How many values are larger than each of `THRESHOLDS`."""
    ordered = np.sort(values.astype(np.float64))
    return len(ordered) - np.searchsorted(ordered, THRESHOLDS, "right")


def best_threshold(curves: NDArray[np.float32]) -> int:
    """Return the index of the threshold with the largest mean Dice over series (series, thresholds)."""
    return int(curves.mean(0).argmax())


def root_mean_square(x: Heat, reconstruction: Heat, foreground: Mask) -> float:
    """Return the root mean square error within the foreground, in units of the network's input (0…1)."""
    rest = (x - reconstruction)[foreground].astype(np.float64)
    return float(np.sqrt(np.mean(rest**2)))


def peak_signal_to_noise(error: float) -> float:
    """Return the PSNR in dB of a root mean square error, for images whose range is 1."""
    return -20.0 * math.log10(max(error, 1e-10))


def similarity(x: Heat, reconstruction: Heat, foreground: Mask) -> float:
    """Return the mean structural similarity (Wang 2004, range 1) over the foreground."""
    pair = (torch.from_numpy(np.ascontiguousarray(image))[:, None] for image in (x, reconstruction))
    local = structural_similarity(*pair)[:, 0].numpy()
    return float(local[foreground].mean())
