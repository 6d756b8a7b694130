"""Limits that hold for every series, whoever is imaged and whatever the bundle was trained on: blank, noise, a physical phantom, cut off.

They follow from what a lesion needs to be seen, or from what no patient looks like, and are set in the bundle's ``scope.quality``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pacs_node.analysis import measures
from pacs_node.analysis.look import Look
from pacs_node.analysis.manifest import QualityPart

_IMMERKAER = math.sqrt(math.pi / 2) / 6  # mean absolute response of the difference of Laplacians to the standard deviation of white noise
_NEAR, _STEP = 0.1, 0.02  # logarithms of network values: what counts as one material, to each side, and the width of a bin
_TINY = 1e-3


def noise(seen: Look) -> float:
    """Standard deviation of the grain in the body, of the network's range 0…1; median over the slices (Immerkær 1996)."""
    return _IMMERKAER * math.exp(_median(measures.noise(seen)))


def one_material(seen: Look) -> float:
    """Share of the body's core whose value, after a blur, lies within 10 % of the value that most have: a patient consists of more than that.

    A uniform phantom in a good coil varies by less (ACR: uniformity at least 87.5 %).
    """
    values = seen.smooth[seen.core > 0].clamp(min=_TINY).log()
    if not len(values):
        return 0.0
    counts = torch.histc(values, round(-math.log(_TINY) / _STEP), math.log(_TINY), 0.0)
    together = counts.unfold(0, round(2 * _NEAR / _STEP), 1).sum(1)
    return float(together.max() / len(values))


def cut_off(seen: Look) -> float:
    """Share of the body's left or right side, or of its upper end, that is one straight line; median over the slices.

    The lower end does not count: a neck always ends at the border of a sagittal or coronal image.
    """
    sides = torch.stack([measures.straight(body) for body in (seen.body, seen.body.flip(2), seen.body.transpose(1, 2))])
    return _median(sides.amax(0))


def _median(values: torch.Tensor) -> float:
    values = values[torch.isfinite(values)]
    return float(values.median()) if len(values) else 0.0


@dataclass(frozen=True, slots=True)
class Limit:
    """A number that must not be exceeded, and what is said where it is: ``{found}`` and ``{limit}`` stand for the two numbers."""

    of: Callable[[Look], float]
    words: str


LIMITS: dict[str, Limit] = {
    "noise": Limit(noise, "the noise ({found:.0%} of the range that the model sees, at most {limit:.0%}) hides what the model looks for"),
    "one_material": Limit(one_material, "{found:.0%} of what is imaged is of one and the same brightness, in a patient at most {limit:.0%} (a QA phantom?)"),
    "cut_off": Limit(cut_off, "the body is cut off at the border of the image ({found:.0%} of a side is a straight line, at most {limit:.0%})"),
}
"""Every key of ``scope.quality`` but ``empty``."""


def empty(foreground: NDArray[np.bool_]) -> float:
    """Return which share of the slices (S, P, P) shows no body."""
    return float(np.mean(~foreground.any((1, 2))))


def fault(seen: Look, foreground: NDArray[np.bool_], limits: QualityPart) -> str:
    """Return in words which of the limits a series exceeds, the first one, or an empty text."""
    if limits.empty is not None and empty(foreground) > limits.empty:
        return f"{empty(foreground):.0%} of the slices show nothing but air, at most {limits.empty:.0%} may"
    for name, limit in LIMITS.items():
        allowed = getattr(limits, name)
        if allowed is not None and (found := limit.of(seen)) > allowed:
            return limit.words.format(found=found, limit=allowed)
    return ""
