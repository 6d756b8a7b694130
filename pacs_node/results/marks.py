"""The regions on a picture of a slice: the outline of each, with its number as report and segmentation count them.

An outline is a light line on a broader black one, so that it is seen over bone, air and heat alike. A number stands beside its region, where
no other number and no letter of the orientation stands; where a slice has more regions than room, the hottest get theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from pacs_node.records import Finding
from pacs_node.results.canvas import SMALL, Canvas, width_of
from pacs_node.results.outlines import outlines_on
from pacs_node.results.panels import SIZE, SliceView, slice_view
from pacs_node.results.regions import Region

_HIGH = 18  # pixels of a number
_GAP = 6  # between outline and number
_MOST_NUMBERED = 24  # on one picture
_LETTERS = (  # boxes that the orientation may take: left, top, right, bottom
    (0.0, SIZE / 2 - 16, 48.0, SIZE / 2 + 16),
    (SIZE - 48.0, SIZE / 2 - 16, float(SIZE), SIZE / 2 + 16),
    (SIZE / 2 - 32, 0.0, SIZE / 2 + 32, 34.0),
    (SIZE / 2 - 32, SIZE - 34.0, SIZE / 2 + 32, float(SIZE)),
)

Box = tuple[float, float, float, float]
Points = NDArray[np.float64]  # (n, 2): x, y on the panel


def on_slice(regions: Iterable[Region], index: int) -> tuple[Region, ...]:
    """Return the regions that a slice shows, the hottest first."""
    return tuple(region for region in regions if index in region.slices)


def panel_outlines(finding: Finding, region: Region, index: int, view: SliceView) -> list[Points]:
    """Return the closed outlines of a region on the panel of a slice; ``view`` is that of the slice."""
    matrix, offset = view.source
    return [((points[:, ::-1] - 0.5 - offset) @ np.linalg.inv(matrix).T)[:, ::-1] for points in outlines_on(finding, region, index)]


def draw_regions(canvas: Canvas, corner: tuple[int, int], finding: Finding, index: int, regions: Sequence[Region]) -> tuple[int, ...]:
    """Draw the ``regions`` of a slice on its panel at ``corner``; returns the numbers that found room."""
    view = slice_view(finding, index)  # once: it looks at the whole slice
    drawn = {region.number: panel_outlines(finding, region, index, view) for region in regions}
    for lines in drawn.values():
        for points in lines:
            canvas.outline([(corner[0] + x, corner[1] + y) for x, y in points.clip(1, SIZE - 2).tolist()])
    taken, numbered = list(_LETTERS), []
    for number, lines in list(drawn.items())[:_MOST_NUMBERED]:
        box = free_place(np.concatenate(lines), width_of(str(number), SMALL), taken)
        if box is not None:
            taken.append(box)
            numbered.append(number)
            canvas.mark_region((round(corner[0] + box[0]), round(corner[1] + (box[1] + box[3]) / 2)), str(number))
    return tuple(numbered)


def free_place(points: Points, width: float, taken: Sequence[Box]) -> Box | None:
    """Return where on the panel a number of ``width`` pixels stands beside an outline and clear of what is ``taken``, None without room."""
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    middle = (top + bottom - _HIGH) / 2
    across, down = (right + _GAP, left - _GAP - width, (left + right - width) / 2), (top - _GAP - _HIGH, bottom + _GAP)
    places = [(across[0], middle), (across[1], middle), *((x, y) for y in down for x in (across[2], *across[:2]))]
    for x, y in places:
        box = (float(x), float(y), float(x + width), float(y + _HIGH))
        if min(box[:2]) >= 2 and max(box[2:]) <= SIZE - 2 and not any(_meet(box, other) for other in taken):
            return box
    return None


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def regions_line(regions: Sequence[Region], numbered: Sequence[int]) -> str:
    """Say which regions are outlined; "" without any."""
    if not regions:
        return ""
    if len(numbered) < len(regions):
        return f"{len(regions)} regions outlined, {len(numbered)} numbered as in the report."
    names = ", ".join(map(str, sorted(numbered)))
    return f"Outlined: region{'s' if len(regions) > 1 else ''} {names} of the report."
