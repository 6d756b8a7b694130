"""Kinds of series that are judged by healthy statistics of their own: MR of other weightings and planes is as hard to predict in other places.

A kind of which too few studies were held out in training is judged by the statistics of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pacs_node.analysis import geometry
from pacs_node.analysis.manifest import Manifest
from pacs_node.autoencoder.scoring import Stratum
from pacs_node.records import Volume

PLANES = ("sagittal", "coronal", "axial")  # by the patient's axis (x, y, z) that the slices are stacked along, the nearest where they are oblique


def plane_of(volume: Volume) -> str:
    """Return the plane of the slices; axial where nothing says where they lie."""
    plane = volume.frames[0].plane
    return "axial" if plane is None else PLANES[int(np.argmax(np.abs(geometry.axes(plane)[2])))]


_KINDS: dict[str, tuple[Callable[[Volume], str], Callable[[Manifest], Sequence[str]]]] = {
    "weighting": (lambda volume: volume.weighting, lambda manifest: manifest.scope.weightings),
    "plane": (plane_of, lambda manifest: PLANES),
}
"""What can tell series apart: how to read it from a volume, and the values that it has."""


def stratum_of(volume: Volume, manifest: Manifest) -> Stratum:
    """Return which of the bundle's kinds of series a volume within its scope is."""
    index, count = 0, 1
    for name in manifest.scoring.strata:
        read, values_of = _KINDS[name]
        values = values_of(manifest)
        value = values[0] if volume.picture and read(volume) not in values else read(volume)  # a picture does not say how it is weighted
        index, count = index * len(values) + values.index(value), count * len(values)
    return Stratum(index, count, volume.picture)
