"""The display window of a page: by what is seen on it, so that neither lung nor brain is shown black.

::

    CT             of what stands out (the pixels whose heat is drawn), else of the whole slice:
                   lung      a fifth of the body or more is lung
                   bone      half of it or more is bone
                   brain     half of the body or more lies within a closed ring of bone
                   else      the bundle's own window: brain where it is narrow, soft tissue
    MR             from the 1st to the 99.5th percentile of the series, above the air
    PT             from 0 to the 99th percentile of the body, in whole units of SUV between 5 and 15
    other          the bundle's own window

Everything is read from the analysis grid, so the same finding always gives the same window, and original and reconstruction share it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pacs_node.records import Finding
from pacs_node.results.wording import number

Pixels = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Window:
    """Which values are shown from black to white."""

    centre: float  # in the unit of the volume
    width: float
    name: str = ""  # of the tissue that it is usual for

    @property
    def edges(self) -> tuple[float, float]:
        """Lower and upper edge."""
        return self.centre - self.width / 2, self.centre + self.width / 2

    @property
    def words(self) -> str:
        """Width and level as viewers write them, with the name."""
        return f"{f'{self.name}, ' if self.name else ''}W {number(self.width)} L {number(self.centre)}"


LUNG, BONE, BRAIN = Window(-600.0, 1500.0, "lung"), Window(400.0, 1800.0, "bone"), Window(40.0, 80.0, "brain")
_AIR, _LUNG_TOP, _BONE = -930.0, -500.0, 250.0  # HU: thinner than lung, densest lung, thinnest bone
_LUNG_SHARE, _BONE_SHARE, _BRAIN_SHARE = 0.2, 0.5, 0.5
_NARROW = 120.0  # HU: a narrower window is one for the brain
_LEAST_SHOWN = 9  # pixels of the grid: fewer say nothing of the tissue that they lie in
_ABOVE_AIR = 0.05  # of the largest values: what is less in an MR series is air
_COARSE = 2  # every n-th pixel of a series is looked at
_SUV = (5.0, 15.0)  # smallest and largest upper edge: no noise of a cold series, no bladder alone


def window_of(finding: Finding, index: int | None = None, shown_from: float = np.inf) -> Window:
    """Return the window of slice ``index``, where heat of at least ``shown_from`` is drawn; without ``index`` one for all slices."""
    return _BY_MODALITY.get(finding.volume.modality, _own)(finding, index, shown_from)


def _own(finding: Finding, index: int | None, shown_from: float) -> Window:
    """Return the bundle's window; where it is unusable, one of the values in the volume."""
    del index, shown_from
    centre, width = finding.window
    if np.isfinite(centre) and np.isfinite(width) and width > 0:
        return Window(float(centre), float(width))
    known = finding.volume.pixels[np.isfinite(finding.volume.pixels)]
    low, high = (float(known.min()), float(max(known.max(), known.min() + 1))) if known.size else (0.0, 1.0)
    return Window((low + high) / 2, high - low)


# --- CT ----------------------------------------------------------------------------------------------------------------


def _ct(finding: Finding, index: int | None, shown_from: float) -> Window:
    own = _own(finding, None, shown_from)
    slices = finding.view if index is None else finding.view[index : index + 1]
    body = [_body(one) for one in slices]
    seen = np.concatenate([one[inside] for one, inside in zip(slices, body, strict=True)] or [np.zeros(0, np.float32)])
    hot = slices[(finding.heat[index : index + 1] >= shown_from) & np.isfinite(slices)] if index is not None else seen[:0]
    looked_at = hot if len(hot) >= _LEAST_SHOWN else seen
    if not looked_at.size:
        return own
    if np.mean((looked_at > _AIR) & (looked_at < _LUNG_TOP)) >= _LUNG_SHARE:
        return LUNG
    if np.mean(looked_at > _BONE) >= _BONE_SHARE:
        return BONE
    if own.width <= _NARROW:
        return Window(own.centre, own.width, "brain")
    within = sum(int(_in_bone(one).sum()) for one in slices)
    return BRAIN if within >= _BRAIN_SHARE * seen.size else Window(own.centre, own.width, "soft tissue")


def _body(pixels: Pixels) -> Mask:
    """Return the body of a slice with what it surrounds, such as lungs."""
    mask: Mask = ndimage.binary_fill_holes(ndimage.binary_opening(np.nan_to_num(pixels, nan=-1000.0) > -300.0))
    return mask & np.isfinite(pixels)


def _in_bone(pixels: Pixels) -> Mask:
    """Return what a closed ring of bone surrounds."""
    bone = np.nan_to_num(pixels, nan=-1000.0) > _BONE
    mask: Mask = ndimage.binary_fill_holes(bone) & ~bone
    return mask


# --- MR and PET --------------------------------------------------------------------------------------------------------


def _mr(finding: Finding, index: int | None, shown_from: float) -> Window:
    del index
    known = _sampled(finding)
    seen = known[known > _ABOVE_AIR * float(np.percentile(known, 99.5))] if known.size else known
    if not seen.size:
        return _own(finding, None, shown_from)
    low, high = (float(edge) for edge in np.percentile(seen, (1.0, 99.5)))
    return _rounded(0.0 if low < 0.2 * high else low, high) or _own(finding, None, shown_from)


def _pet(finding: Finding, index: int | None, shown_from: float) -> Window:
    del index
    known = _sampled(finding)
    body = known[known > 0.1]
    if not body.size or float(body.min()) == float(body.max()):
        return _own(finding, None, shown_from)
    top = float(np.clip(np.ceil(np.percentile(body, 99.0)), *_SUV))
    return Window(top / 2, top)


def _sampled(finding: Finding) -> Pixels:
    """Return some of the known values of a series."""
    some = finding.view[:, ::_COARSE, ::_COARSE]
    known: Pixels = some[np.isfinite(some)]
    return known


def _rounded(low: float, high: float) -> Window | None:
    """Return a window with edges of two significant digits, None where there is nothing between them."""
    if not high > low:
        return None
    digits = 1 - int(np.floor(np.log10(high - low)))
    low, high = round(low, digits), round(high, digits)
    return Window((low + high) / 2, high - low) if high > low else None


_BY_MODALITY: Mapping[str, Callable[[Finding, int | None, float], Window]] = {"CT": _ct, "MR": _mr, "PT": _pet}
