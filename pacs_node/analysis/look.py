"""What the gate looks at: a few slices of a series with their body, its core and what lies beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

_MOST_SLICES = 16
_LEAST_PIXELS = 60  # of the body, for a slice to be measured
_TINY = 1e-4
_RIM = (1, 1)  # grid pixels of the body's border
_FURTHER = (1, 2, 3)  # grid pixels beyond it that are looked at for ghosts


@dataclass(frozen=True, slots=True)
class Look:
    """Slices as they are measured: all (S, P, P).

    ``x`` network values, 0 outside the body, ``smooth`` the same after a blur of 3 pixels; 0 or 1: ``body``, ``core`` (the body without its
    rim of 2 pixels) and ``around`` (what the source has beside the body); ``air`` what is there, relative to the mean of the body.
    """

    x: Tensor
    smooth: Tensor
    body: Tensor
    core: Tensor
    around: Tensor
    air: Tensor


def look(view: NDArray[np.float32], x: Tensor, foreground: NDArray[np.bool_]) -> Look:
    """Return at most 16 slices, evenly chosen among those that show a body, ready to be measured; none where none does."""
    shows = np.flatnonzero(foreground.sum((1, 2)) >= _LEAST_PIXELS)
    if not shows.size:
        return Look(*(x[:0] for _ in range(6)))
    chosen = shows[np.unique(np.linspace(0, len(shows) - 1, min(len(shows), _MOST_SLICES)).round().astype(int))]
    body, seen = foreground[chosen], view[chosen]
    known = np.isfinite(seen)
    seen = np.where(known, seen, np.float32(0))
    near = _grown(body, _RIM)
    beside = _grown(near, _FURTHER) & ~near & known
    lowest = np.float32(seen.min())
    level = max(float(seen[body].mean() - lowest), _TINY)
    core, air = ~_grown(~body, _RIM), torch.from_numpy((seen - lowest) / np.float32(level))
    return Look(x[chosen], blurred(x[chosen]), _weights(body), _weights(core), _weights(beside), air)


def _weights(mask: NDArray[np.bool_]) -> Tensor:
    return torch.from_numpy(mask).float()


def _neighbours(values: Tensor, apart: int) -> tuple[Tensor, Tensor]:
    """Return (S, P, P) moved by ``apart`` pixels forwards and backwards along the last dimension; 0 comes in."""
    return F.pad(values[:, :, :-apart], (apart, 0)), F.pad(values[:, :, apart:], (0, apart))


def _grown(mask: NDArray[np.bool_], steps: Sequence[int]) -> NDArray[np.bool_]:
    """Grow a mask (S, P, P) by the sum of ``steps`` pixels to each side; no step is longer than what those before it made of one pixel."""
    for apart in steps:
        for axis in (1, 2):
            before, after = (tuple(slice(None) if dim != axis else end for dim in range(3)) for end in (slice(None, -apart), slice(apart, None)))
            grown = mask.copy()
            grown[after] |= mask[before]
            grown[before] |= mask[after]
            mask = grown
    return mask


def mean_of(values: Tensor, where: Tensor) -> Tensor:
    """Mean of each slice over ``where``; NaN where that is empty."""
    return (values * where).sum((1, 2)) / torch.where(where.sum((1, 2)) > 0, where.sum((1, 2)), torch.nan)


def blurred(values: Tensor, steps: Sequence[int] = (1,)) -> Tensor:
    """Mean of 3 × 3 pixels that lie as far apart as each step says, one after the other: (1,) a box of 3, (1, 3) a box of 9."""
    for apart in steps:
        for _ in range(2):
            before, after = _neighbours(values, apart)
            values = ((before + after + values) / 3).transpose(1, 2)
    return values


# --- one focal finding -----------------------------------------------------------------------------------------------------------

_AREA = (0.004, 0.08)  # of the body's area in the slice that holds most of it
_DEEP = 0.35  # largest share of the slices that it reaches through
_ROUGHER = 4.0  # largest factor of the grain


def with_a_finding(seen: Look, generator: torch.Generator) -> Look:
    """Return the slices with one round change at a random place of the body: brighter or darker, smoother or rougher, or foreign.

    What such a change does to a portrait is what the gate must not hold against a series: it is what the score is for.
    """
    size, deep, strength, kind, away = torch.rand(5, generator=generator).tolist()
    weight = _somewhere(seen, size, deep, generator)
    if kind < 1 / 3:
        far = 0.2 + 0.6 * away  # of the image's edge
        other = seen.x.roll((int(far * seen.x.shape[1]), int(far * seen.x.shape[2])), (1, 2))
    elif kind < 2 / 3:
        other = seen.smooth + _ROUGHER * strength * (seen.x - seen.smooth)
    else:
        other = seen.x + 2 * strength - 1
    x = (seen.x + weight * (other - seen.x)).clamp(0, 1)
    return replace(seen, x=x, smooth=blurred(x))


def _somewhere(seen: Look, size: float, deep: float, generator: torch.Generator) -> Tensor:
    """Return the weight (S, P, P) of an ellipsoid with a soft edge inside the body; ``size`` and ``deep`` are drawn from 0…1."""
    places = torch.nonzero(seen.core if seen.core.any() else seen.body)
    middle = places[int(torch.randint(len(places), (1,), generator=generator))].tolist()
    share = _AREA[0] * (_AREA[1] / _AREA[0]) ** size
    radius = max(1.5, float((share * seen.body[middle[0]].sum() / torch.pi).sqrt()))
    reach = max(0.75, 0.5 * deep * _DEEP * len(seen.x))
    z, y, x = (torch.arange(count) - at for count, at in zip(seen.x.shape, middle, strict=True))
    far = ((z / reach).square()[:, None, None] + (y / radius).square()[None, :, None] + (x / radius).square()[None, None, :]).sqrt()
    weight: Tensor = ((1 - far) * radius / 2 + 0.5).clamp(0, 1) * seen.body
    return weight
