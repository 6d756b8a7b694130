"""Where the calibrated map is hottest: regions of the analysis grid, joined in the plane and through the slices.

::

    heat > 3 (fewer than one healthy pixel in 1000 is as hot) ─► joined ─► large enough ─► the hottest first, numbered from 1

A region has the same number in the segmentation (its segment) and in the report, and one tracking UID in both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pacs_node.records import Finding, Plane
from pacs_node.results.modalities import manner_of

LEAST_HEAT = 3.0  # −log10 of the calibrated pixel tail: p < 0.001
LEAST_AREA = 10.0  # mm², in one slice at least
LEAST_PIXELS = 25  # in one slice at least, where no spacing is known
MOST_REGIONS = 500  # of a map that is hot all over, nobody reads more
_WIDEST_STEP = 1.5  # medians of the distance between neighbours: what lies further apart has slices missing in between and is not joined

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Region:
    """Neighbouring pixels of the analysis grid that pass the threshold."""

    number: int  # 1…: of the segment
    box: tuple[slice, slice, slice]  # slices, rows, columns that hold it
    mask: Mask  # within the box
    mean: float  # of the heat, 0…4
    top: float
    area: float | None  # mm²; None where it spreads over several slices, or no spacing is known
    volume: float | None  # mm³; None where it lies in one slice

    @property
    def slices(self) -> range:
        """Indices of the slices that hold it; there is none without a pixel of it."""
        return range(self.box[0].start, self.box[0].stop)

    @property
    def pixels(self) -> int:
        """Number of pixels of the analysis grid."""
        return int(np.count_nonzero(self.mask))


def regions_of(finding: Finding) -> tuple[Region, ...]:
    """Return the regions of a calibrated map, the hottest first; none of a map that is only relative to its own study."""
    if not finding.heat_calibrated:
        return ()
    hot = np.nan_to_num(finding.heat, nan=0.0) > LEAST_HEAT
    found = [region for start, stop in runs(finding) if hot[start:stop].any() for region in _joined(finding, hot[start:stop], start)]
    found.sort(key=lambda one: (-one.top, -one.pixels, one.box[0].start, one.box[1].start, one.box[2].start))
    return tuple(replace(region, number=number) for number, region in enumerate(found[:MOST_REGIONS], start=1))


def _joined(finding: Finding, hot: Mask, start: int) -> Iterator[Region]:
    """Yield the regions of a block of neighbouring slices that begins with slice ``start``."""
    labels, _ = ndimage.label(hot)
    for label, (slices, rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        mask = labels[slices, rows, columns] == label
        box = slice(start + slices.start, start + slices.stop), rows, columns
        if _is_large_enough(finding, mask, box[0].start):
            heat = np.nan_to_num(finding.heat[box], posinf=4.0)[mask]
            yield Region(0, box, mask, float(heat.mean()), float(heat.max()), *_extent(finding, mask, box[0].start))


def _is_large_enough(finding: Finding, mask: Mask, start: int) -> bool:
    return any(
        count >= LEAST_PIXELS if (area := pixel_area(finding, start + offset)) is None else count * area >= LEAST_AREA - 1e-6
        for offset, count in enumerate(mask.sum(axis=(1, 2)))
    )


def _extent(finding: Finding, mask: Mask, start: int) -> tuple[float | None, float | None]:
    """Return area and volume of a region: one of them at most is known."""
    areas = [pixel_area(finding, start + offset) for offset in range(len(mask))]
    known = [area * int(count) for area, count in zip(areas, mask.sum(axis=(1, 2)), strict=True) if area is not None]
    if len(known) < len(mask):
        return None, None
    if len(mask) == 1:
        return known[0], None
    return None, sum(area * thickness for area, thickness in zip(known, thicknesses(finding, start, start + len(mask)), strict=True))


def pixel_area(finding: Finding, index: int) -> float | None:
    """Return the area of a pixel of the analysis grid on a slice, mm²; None where no spacing is known."""
    plane, frame = finding.planes[index], finding.volume.frames[index]
    if plane is not None:
        return plane.spacing[0] * plane.spacing[1]
    if frame.spacing is None or not finding.places:
        return None
    place = finding.places[index]
    return abs(place.row_step * frame.spacing[0] * place.column_step * frame.spacing[1])


# --- neighbours --------------------------------------------------------------------------------------------------------


def runs(finding: Finding) -> list[tuple[int, int]]:
    """Return the blocks (first, exclusive last) of slices that are neighbours in the patient; pictures without a place stand alone."""
    count = len(finding.heat)
    steps = steps_of(finding)
    known = [step for step in steps if step]
    widest = _WIDEST_STEP * float(np.median(known)) if known else 0.0
    cuts = [index + 1 for index, step in enumerate(steps) if not step or step > widest]
    return list(zip([0, *cuts], [*cuts, count], strict=True))


def steps_of(finding: Finding) -> list[float]:
    """Return the distance of each slice to the next along their normal, mm; 0 where they are no neighbours in space."""
    planes = finding.planes
    if not manner_of(finding.volume).in_patient:
        return [0.0] * (len(planes) - 1)
    return [_step(one, other) for one, other in pairwise(planes)]


def _step(one: Plane | None, other: Plane | None) -> float:
    if one is None or other is None or not np.allclose(one.orientation, other.orientation, atol=1e-3) or one.spacing != other.spacing:
        return 0.0
    normal = np.cross(one.orientation[:3], one.orientation[3:])
    return abs(float(normal @ (np.array(other.position) - np.array(one.position))))


def thicknesses(finding: Finding, start: int, stop: int) -> list[float]:
    """Return for how many mm along the normal each of the slices ``start`` … ``stop`` - 1 of a region stands: half the way to each neighbour."""
    steps = steps_of(finding)[start : stop - 1]
    return [(steps[max(index - 1, 0)] + steps[min(index, len(steps) - 1)]) / 2 for index in range(stop - start)]
