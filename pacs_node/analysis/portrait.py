"""A portrait: some ninety numbers that say what kind of images a series holds, without saying what is wrong in them.

::

    Look ─┬─► measures of a slice ─► median, least and greatest over the slices ─┐
          └─► brightness, layout, neighbours, change of shape ───────────────────┴─► portrait (D,)

The numbers are made of network values (0…1) and grid pixels, so that they mean the same wherever preprocessing is the same; see `measures`.
NaN: could not be measured in this series.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pacs_node.analysis import measures
from pacs_node.analysis.look import Look

FORMAT = 3  # raise it when the numbers change their meaning: what was fitted on others is refused


@dataclass(frozen=True, slots=True)
class Measure:
    """One thing that is measured, ``size`` numbers, and what it means where it is far above (``high``) or below (``low``) what is usual."""

    of: Callable[[Look], Tensor]
    high: str
    low: str
    size: int = 3
    least: float = 0.03  # smaller differences never matter, in units of the measure


_OTHER = "the brightness is spread otherwise than usual (another region, sequence or modality, or wrong units?)"
_PLACES = "bright and dark lie in other places than usual (another region, or an uneven gain?)"
_SIZE = "what is imaged has another size or shape than usual (another region, or cut off?)"

SLICE: dict[str, Measure] = {
    "noise": Measure(measures.noise, "the noise is far above the usual", "the images are far smoother than usual (a physical phantom, or filtered?)"),
    "edges": Measure(measures.edges, "edges are far stronger than usual", "edges are far weaker than usual (movement, or a physical phantom?)"),
    "sharpness": Measure(measures.sharpness, "fine grain is far stronger than usual, compared with structures (noise?)", "the images are blurred (movement?)"),
    "streaks": Measure(measures.streaks, "horizontal streaks or lines run through the images", "vertical streaks or lines run through the images"),
    "bright": Measure(measures.bright, "far more than usual is as bright as metal, or off the scale", "far less than usual is bright", least=0.08),
    "dark": Measure(measures.dark, "far more than usual gives no signal (voids beside metal, or a shadow?)", "far less than usual is dark", least=0.08),
    "spread": Measure(measures.spread, "brightness varies far more than usual", "brightness varies far less than usual (a physical phantom?)"),
    "rim": Measure(
        measures.rim, "the rim of the body is brighter than usual (cut off at the border of the field?)", "the rim of the body is darker than usual"
    ),
    "area": Measure(measures.area, _SIZE, _SIZE),
    "slenderness": Measure(measures.slenderness, _SIZE, _SIZE),
    "fullness": Measure(measures.fullness, _SIZE, _SIZE),
    "cut": Measure(measures.cut, "the body ends in a straight line (cut off at the border of the field?)", _SIZE),
    "ghosts": Measure(
        measures.ghosts, "far more than usual is seen beside the body (ghosts, or another modality?)", "far less than usual is seen beside the body"
    ),
    "nothing": Measure(
        measures.nothing, "beside the body far more than usual is empty (cut off at the border of the field?)", "far less than usual is empty", least=0.08
    ),
    "ghost direction": Measure(
        measures.ghost_direction, "more is seen left and right of the body than usual (ghosts?)", "more is seen above and below the body than usual"
    ),
    "tilt down": Measure(measures.tilt_down, "brightness rises downwards (an uneven gain?)", "brightness falls downwards (an uneven gain?)"),
    "tilt across": Measure(measures.tilt_across, "brightness rises to the right (an uneven gain?)", "brightness falls to the right (an uneven gain?)"),
    "contours": Measure(measures.contours, "contours are doubled (movement?)", "contours repeat less than usual"),
}
"""What is measured of each slice; the portrait holds the median over the slices and the extremes."""

SERIES: dict[str, Measure] = {
    "brightness": Measure(measures.brightness, _OTHER, _OTHER, len(measures.QUANTILES) + measures.BINS),
    "layout": Measure(measures.layout, _PLACES, _PLACES, measures.LAYOUT**2),
    "neighbours": Measure(measures.neighbours, "neighbouring slices are far less alike than usual (movement?)", "neighbouring slices are nearly the same", 2),
    "shape change": Measure(measures.shape_change, _SIZE, _SIZE, 1),
}
"""What is measured of the series as a whole."""


NAMES: tuple[str, ...] = tuple(name for name, measure in (SLICE | SERIES).items() for _ in range(measure.size))
"""Which measure each number of a portrait belongs to."""

LEAST: Tensor = torch.tensor([measure.least for measure in (SLICE | SERIES).values() for _ in range(measure.size)])
"""By how much each number may always vary."""


def portrait(seen: Look) -> Tensor:
    """Return the numbers (len(`NAMES`),) in the order of the tables; those of a slice are median, least and greatest over the slices."""
    found = [_over_slices(measure.of(seen)) for measure in SLICE.values()]
    return torch.cat([*found, *(measure.of(seen) for measure in SERIES.values())])


def _over_slices(values: Tensor) -> Tensor:
    values = values[torch.isfinite(values)]
    return torch.stack([values.median(), values.amin(), values.amax()]) if len(values) else torch.full((3,), torch.nan)
