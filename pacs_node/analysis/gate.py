"""Is this series what the bundle was made for? Said before anything is scored, in words that a radiologist understands.

::

    Volume ─► rules (`CHECKS`) ─► grid ─► limits of `quality` ─► portrait ─► distance of `familiar` ─► network
              size, spacing,              blank, noise,                      unlike the training: only where it was
              tissue, …                   physical phantom, …                fitted on the same population
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pacs_node.analysis import familiar, geometry, quality
from pacs_node.analysis.grid import body_box
from pacs_node.analysis.look import Look
from pacs_node.analysis.manifest import Manifest, QualityPart, Scope
from pacs_node.autoencoder.familiarity import Familiarity, Portrait
from pacs_node.errors import OutOfScope
from pacs_node.records import Volume

_COARSEST = 4.0  # source pixels in pixels of the analysis grid: coarser ones show no anatomy there
_SEEN = 5  # every n-th pixel and slice is enough for shares


def check_modality(volume: Volume, manifest: Manifest) -> None:
    """Raise `OutOfScope` where the bundle judges another modality."""
    if volume.modality != manifest.modality:
        raise OutOfScope(f"the series is {volume.modality}, the model {manifest.name} judges {manifest.modality}")


def check(volume: Volume, manifest: Manifest) -> None:
    """Raise `OutOfScope` with the reason where ``volume``, in the bundle's unit, is not what the bundle may judge."""
    check_modality(volume, manifest)
    for test in PICTURE_CHECKS if volume.picture else CHECKS:
        reason = test(volume, manifest)
        if reason:
            raise OutOfScope(f"{reason}; the model {manifest.name} does not judge such series")


def check_quality(seen: Look, foreground: NDArray[np.bool_], manifest: Manifest, *, picture: bool = False) -> None:
    """Raise `OutOfScope` where nothing is seen or a limit of the bundle's ``scope.quality`` is exceeded; a picture may be cut as it likes."""
    limits = QualityPart() if picture else manifest.scope.quality
    reason = quality.fault(seen, foreground, limits) if len(seen.x) else "the images show nothing but air"
    if reason:
        raise OutOfScope(f"{reason}; the model {manifest.name} does not judge such series")


def check_familiar(one: Portrait, fitted: Familiarity, manifest: Manifest) -> None:
    """Raise `OutOfScope` where a series is unlike those of the training, if they say anything about it."""
    reason = familiar.unlike(one, fitted)
    if reason:
        raise OutOfScope(f"{reason}; the model {manifest.name} does not judge such series")


def _weighting(volume: Volume, manifest: Manifest) -> str:
    wanted = manifest.scope.weightings
    if not wanted or volume.weighting in wanted:
        return ""
    found = "of unknown weighting" if volume.weighting in ("", "unknown") else f"weighted otherwise ({volume.weighting})"
    return f"the images are {found}, expected {' or '.join(wanted)}"


def _slices(volume: Volume, manifest: Manifest) -> str:
    count, least = len(volume.frames), manifest.scope.min_slices
    return f"the series has {count} usable slice{'s' if count != 1 else ''}, at least {least} are needed" if count < least else ""


def _blank(volume: Volume, manifest: Manifest) -> str:
    values = volume.pixels[:, ::_SEEN, ::_SEEN]
    known = values[np.isfinite(values)]
    if not known.size:
        return "the pixel values are infinite (a wrong rescale slope?)" if np.isinf(values).any() else "the images hold nothing but padding"
    return "the images are blank (all pixels have one value)" if float(known.max() - known.min()) < 1.0 else ""


def _coarse(volume: Volume, manifest: Manifest) -> str:
    grid, spacing = manifest.preprocessing.spacing_mm, volume.frames[0].plane.spacing if volume.frames[0].plane else volume.frames[0].spacing
    if spacing is None or max(spacing) <= _COARSEST * grid:
        return ""
    return f"the pixels measure {spacing[0]:.1f} × {spacing[1]:.1f} mm, more than {_COARSEST:g} times what the model looks at ({grid:g} mm)"


def _spacing(volume: Volume, manifest: Manifest) -> str:
    described = _stack(volume)
    if described is None or described.spacing is None:
        return ""
    scope = manifest.scope
    if described.spacing > scope.max_slice_spacing_mm:
        return f"the slices are {described.spacing:.1f} mm apart, more than {scope.max_slice_spacing_mm:g} mm"
    planes = [frame.plane for frame in volume.frames if frame.plane is not None]
    normal = geometry.axes(planes[0])[2]
    extent = abs(geometry.along_normal(planes[-1], normal) - geometry.along_normal(planes[0], normal))
    low, high = scope.coverage_mm
    return f"the slices cover {extent:.0f} mm, expected {low:g} to {high:g} mm" if not low <= extent <= high else ""


def _stack(volume: Volume) -> geometry.Stack | None:
    planes = [frame.plane for frame in volume.frames if frame.plane is not None]
    return geometry.stack(planes) if len(planes) == len(volume.frames) else None


def _body(volume: Volume, manifest: Manifest) -> str:
    box = body_box(volume, manifest.preprocessing.body_above)
    if box is None:
        return "the images show nothing but air"
    plane = volume.frames[0].plane
    if plane is None:
        return ""
    sizes = {"height": box[2] * plane.spacing[0], "width": box[3] * plane.spacing[1]}
    return _outside(sizes, manifest.scope, manifest.regions[0] if manifest.regions else "body")


def _outside(sizes: dict[str, float], scope: Scope, region: str) -> str:
    for name, (low, high) in (("height", scope.body_height_mm), ("width", scope.body_width_mm)):
        if not low <= sizes[name] <= high:
            measured = f"{sizes['width']:.0f} × {sizes['height']:.0f} mm"
            return f"what is imaged measures {measured} across, which is not the size of a {region} ({name} {low:g} to {high:g} mm)"
    return ""


def tissue_shares(volume: Volume, manifest: Manifest) -> dict[str, float]:
    """Return which share of what is denser than air lies in each of the scope's bands of intensity."""
    values: NDArray[np.float32] = volume.pixels[:: max(1, len(volume.pixels) // 20), ::_SEEN, ::_SEEN]
    body = values[values > manifest.preprocessing.body_above]  # NaN compares false
    if not body.size:
        return {}
    return {name: float(np.mean((body >= band.between[0]) & (body < band.between[1]))) for name, band in manifest.scope.tissue.items()}


def _tissue(volume: Volume, manifest: Manifest) -> str:
    for name, share in tissue_shares(volume, manifest).items():
        band = manifest.scope.tissue[name]
        if not band.share[0] <= share <= band.share[1]:
            return (
                f"{100 * share:.0f} % of what is imaged has the density of {name} ({band.between[0]:g} to {band.between[1]:g}), "
                f"expected {100 * band.share[0]:.0f} to {100 * band.share[1]:.0f} % in a patient (a physical phantom, another region, or wrong units?)"
            )
    return ""


CHECKS: tuple[Callable[[Volume, Manifest], str], ...] = (_weighting, _slices, _blank, _coarse, _spacing, _body, _tissue)
"""Run in this order; each returns the reason for refusing, or an empty text."""

PICTURE_CHECKS: tuple[Callable[[Volume, Manifest], str], ...] = (_blank,)
"""What can be said of a picture, which has neither place nor scale nor unit."""
