"""One scale for images whose values have no unit: used in preprocessing, so training and the node cannot differ.

A series is scaled linearly so that, within what is imaged (air left out, dark structures kept), the 1st percentile becomes `LOW` and
the 99th `HIGH`. Percentiles instead of extremes, because a few bright vessels or a coil's hot spot must not decide; the whole series at
once, because slices must stay comparable with each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pacs_node.analysis.stored import StoredPixels
from pacs_node.errors import OutOfScope
from pacs_node.records import Pixels, Volume

LOW, HIGH = 0.0, 100.0
PERCENTILES = (1.0, 99.0)
_EVERY = 4  # n-th pixel and at most _SLICES slices are enough for percentiles
_SLICES = 32
_BINS = 256


def as_it_is(volume: Volume) -> Volume:
    """Keep physical values."""
    return volume


def by_foreground(volume: Volume) -> Volume:
    """Return the volume with `PERCENTILES` of its foreground at `LOW` and `HIGH`; raises `OutOfScope` where all pixels have one value."""
    limits = foreground_limits(volume.pixels, 1 if volume.picture else _EVERY)  # of one small slice every pixel counts: a thin skull has to be closed
    if limits is None:
        raise OutOfScope("the images are blank (nothing stands out from the background)")
    low, high = limits

    def scaled(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return (values - np.float32(low)) * np.float32((HIGH - LOW) / (high - low)) + np.float32(LOW)

    return replace(volume, pixels=volume.pixels.mapped(scaled) if isinstance(volume.pixels, StoredPixels) else scaled(np.asarray(volume.pixels)))


SCALINGS: dict[str, Callable[[Volume], Volume]] = {"none": as_it_is, "foreground": by_foreground}
"""``preprocessing.scaling`` of a bundle to what it does; both return the volume in the unit that the bundle's other numbers mean."""


def foreground_limits(pixels: Pixels, every: int = _EVERY) -> tuple[float, float] | None:
    """Return the 1st and 99th percentile of what is imaged in (slices, rows, columns), None where there is nothing to tell apart.

    Every ``every``-th row and column is looked at.
    """
    sample = pixels[:: max(1, len(pixels) // _SLICES), ::every, ::every]
    known = sample[np.isfinite(sample)]
    if not known.size or known.min() == known.max():
        return None
    threshold = otsu(known)
    inside = np.stack([_filled(image > threshold) for image in sample]) & np.isfinite(sample)
    if not inside.any():
        return None
    low, high = (float(value) for value in np.percentile(sample[inside], PERCENTILES))
    return (low, high) if high > low else None


def _filled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What is bright with the holes that it surrounds: fluid, bone and air inside belong to the foreground too."""
    return np.asarray(ndimage.binary_fill_holes(mask))


def otsu(values: NDArray[np.float32]) -> float:
    """Return the threshold that parts values into two classes of least variance (Otsu 1979); the brightest 1 % do not stretch the histogram."""
    top = float(np.percentile(values, PERCENTILES[1]))
    low = float(values.min())
    if top <= low:
        return low
    counts, edges = np.histogram(np.minimum(values, top), bins=_BINS, range=(low, top))
    middles = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts).astype(np.float64)
    above = below[-1] - below
    sums = np.cumsum(counts * middles)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(edges[1 + int(np.nanargmax(np.where((below > 0) & (above > 0), between, np.nan)))])
