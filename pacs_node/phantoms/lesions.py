"""Lesions: where they lie, and what each family does to the tissue there.

A family is a function from a `Site` to the change of the noise-free image; the site holds a box around the lesion. None of them resembles
what a denoising autoencoder is trained with (coarse noise, blobs, erased or foreign patches).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pacs_node.errors import InputError
from pacs_node.phantoms.grid import Array, Box, Triple, ramp, smooth_field
from pacs_node.phantoms.shapes import Anatomy

_CANDIDATES = 20
_CORE = 0.62  # radius of a mass relative to the tissue that it displaces
_MARGIN = 1.6  # how far around the lesion the box reaches, in radii


class Wanted(Protocol):
    """What is asked of a lesion; the words are those of `PhantomSpec`, which is one."""

    @property
    def lesion(self) -> str | None:
        """A key of `FAMILIES`."""

    @property
    def region(self) -> str:
        """What the images show, for the sentence that says why there is no lesion."""

    @property
    def contrast(self) -> float:
        """Strength in σ."""

    @property
    def size(self) -> float:
        """Area as a fraction of the foreground of the slice that holds most of it."""


@dataclass(frozen=True, slots=True)
class Site:
    """A place for a lesion; arrays have the shape of the box."""

    box: Box
    distance: Array  # from the centre, 1 on the lesion's border
    mask: NDArray[np.bool_]  # the lesion
    clean: Array  # tissue without noise
    sigma: float  # standard deviation of the healthy pixels in the mask's bounding box
    target: float  # wanted strength in the image's unit: contrast · σ
    sign: int  # +1 or −1
    lowest: float  # no tissue becomes less than this
    centre: Triple  # in indices of the box: slice, row, column
    rng: np.random.Generator

    @property
    def soft(self) -> Array:
        """Weights with a soft border, half at the lesion's border."""
        return ramp(self.distance - 1, 0.22)


def plant(spec: Wanted, body: Anatomy, healthy: Array, rng: np.random.Generator) -> tuple[Box, Array, NDArray[np.bool_]]:
    """Return the box, the change of the image in it and the lesion's mask in it.

    Raises `InputError` where no slice has room for a lesion of that size.
    """
    assert spec.lesion is not None
    site = _choose(spec, body, healthy, rng)
    change = FAMILIES[spec.lesion](site) * body.space[site.box]  # bone and gas beside it stay as they are
    return site.box, change.astype(np.float32), site.mask


# --- places ------------------------------------------------------------------------------------------------------------


def _choose(spec: Wanted, body: Anatomy, healthy: Array, rng: np.random.Generator) -> Site:
    places = _structure_centres(spec, body, rng) if spec.lesion == "missing_structure" else []
    sites = [site for place in places if (site := _site(spec, body, healthy, place, rng))]
    if not sites:
        sites = [site for place in _free_centres(spec, body, rng) if (site := _site(spec, body, healthy, place, rng))]
    if not sites:
        raise InputError(f"no slice of this {spec.region} phantom has room for a lesion of size {spec.size:g}: choose a smaller size or more slices")
    sites.sort(key=lambda site: site.sigma)
    return sites[int(rng.integers(min(3, len(sites))))]  # lesions mostly lie within an organ, not across its border


def _area(spec: Wanted, body: Anatomy, index: int) -> int:
    return max(4, round(spec.size * int(np.count_nonzero(body.foreground[index]))))


def _free_centres(spec: Wanted, body: Anatomy, rng: np.random.Generator) -> list[tuple[int, int, int]]:
    """Return indices of places with room all around, looked for on a coarse grid; where there are none, of the roomiest places."""
    slices, rows = body.image.shape[:2]
    coarse, inner = max(1, rows // 64), slice(1, -1) if slices > 2 else slice(None)
    space = np.pad(body.space[inner, ::coarse, ::coarse], ((0, 0), (1, 1), (1, 1)))
    room = np.stack([ndimage.distance_transform_edt(plane) for plane in space])[:, 1:-1, 1:-1] * coarse  # pixels to the border
    first = inner.start or 0
    wanted = np.array([math.sqrt(_area(spec, body, first + index) / math.pi) for index in range(len(room))])
    surplus = room - wanted[:, None, None]
    good = np.argwhere(surplus >= 0)
    if not len(good):
        best = np.argsort(surplus, axis=None)[-_CANDIDATES:]
        good = np.stack(np.unravel_index(best, surplus.shape), axis=1)
        good = good[room[tuple(good.T)] > 0]
    chosen = good[rng.permutation(len(good))[:_CANDIDATES]]
    return [(first + int(z), int(y) * coarse, int(x) * coarse) for z, y, x in chosen]


def _structure_centres(spec: Wanted, body: Anatomy, rng: np.random.Generator) -> list[tuple[int, int, int]]:
    """Return indices of the centres of structures that lie in the scan, in random order."""
    found, grid, slices = [], body.grid, len(body.image)
    for number in rng.permutation(len(body.structures)):
        structure = body.structures[number]
        x, y, z = structure.centre
        row, column = np.unravel_index(int(np.argmin(np.abs(grid.x[0] - x) + np.abs(grid.y[0] - y))), grid.shape[1:])
        away = (np.abs(grid.z[:, row, 0] - z), np.abs(grid.y[0, :, column] - y), np.abs(grid.x[0, row, :] - x))
        nearest = (int(np.argmin(away[0])), int(row), int(column))
        across = body.axes[0]  # the upright axis along which slices follow each other
        index = min(max(int(np.argmin(away[across])), min(1, slices - 1)), max(slices - 2, 0))
        place = (index, nearest[body.axes[1]], nearest[body.axes[2]])
        if away[across][index] <= 0.6 * structure.radii[2 - across] and body.space[place]:
            found.append(place)
    return found


def _site(spec: Wanted, body: Anatomy, healthy: Array, centre: tuple[int, int, int], rng: np.random.Generator) -> Site | None:
    """Shape the lesion around a centre: an irregular ellipsoid with exactly the wanted area in the centre's slice, inside the allowed space.

    Returns None where the space around the centre is too small.
    """
    count = _area(spec, body, centre[0])
    radii, box = _extent(spec, body, centre, count, rng)
    local = (centre[0] - box[0].start, centre[1] - box[1].start, centre[2] - box[2].start)
    distance = _irregular(box, local, radii, rng)
    allowed = np.where(body.space[box], distance, np.float32(np.inf))
    middle = allowed[local[0]].ravel()
    if count > np.count_nonzero(np.isfinite(middle)):
        return None
    border = np.partition(middle, count - 1)[count - 1]
    mask = allowed <= border
    crop = ndimage.find_objects(mask.astype(np.int8))[0]
    sigma = max(float(np.std(healthy[box][crop])), 1e-3)
    clean = body.image[box]
    target = spec.contrast * sigma
    level = float(clean[mask].mean())
    lighter = rng.random() < (1.0 if spec.lesion == "missing_structure" else body.lessened)  # what fills a gap is fluid or fat
    sign = -1 if lighter and level - 2.5 * target > body.lowest else 1
    return Site(box, distance / border, mask, clean, sigma, target, sign, body.lowest, (float(local[0]), float(local[1]), float(local[2])), rng)


def _extent(spec: Wanted, body: Anatomy, centre: tuple[int, int, int], count: int, rng: np.random.Generator) -> tuple[Triple, Box]:
    """Return the radii in voxels (slices, along, across) and the box around the lesion with its margin."""
    mean = math.sqrt(count / math.pi)
    aspect = math.sqrt(rng.uniform(1.0, 1.7))
    high = max(mean * body.step[1] / body.step[0] * rng.uniform(0.8, 1.15), 1.7)
    reach = (math.ceil(high * _MARGIN), math.ceil(mean * aspect * _MARGIN) + 2, math.ceil(mean * aspect * _MARGIN) + 2)
    ranges = [slice(max(0, at - by), min(size, at + by + 1)) for at, by, size in zip(centre, reach, body.image.shape, strict=True)]
    return (high, mean * aspect, mean / aspect), (ranges[0], ranges[1], ranges[2])


def _irregular(box: Box, centre: tuple[int, int, int], radii: Triple, rng: np.random.Generator) -> Array:
    """Return the normalised distance from the centre of an ellipsoid whose outline waves gently."""
    sizes = [part.stop - part.start for part in box]
    z, y, x = (np.arange(size, dtype=np.float32) - at for size, at in zip(sizes, centre, strict=True))
    y, x = y[:, None], x[None, :]
    angle, *phases = rng.uniform(0, 2 * math.pi, 3)
    along, across = math.cos(angle) * x + math.sin(angle) * y, math.cos(angle) * y - math.sin(angle) * x
    theta = np.arctan2(y, x)
    wave = 1 + 0.06 * np.cos(2 * theta + phases[0]) + 0.05 * np.cos(3 * theta + phases[1])
    flat = (along / radii[1]) ** 2 + (across / radii[2]) ** 2
    distance: Array = np.sqrt(flat * wave**2 + (z[:, None, None] / radii[0]) ** 2).astype(np.float32)
    return distance


# --- families ----------------------------------------------------------------------------------------------------------


def _ellipsoid(site: Site) -> Array:
    """Tissue of another density with a soft border; the mean change in the lesion is the target."""
    weight = site.soft
    return weight * np.float32(site.sign * site.target / float(weight[site.mask].mean()))


def _mass_effect(site: Site) -> Array:
    """A mass that pushes the tissue aside: displacement first, then density of the core until the root mean square change is reached."""
    core = _CORE
    pushed = _displaced(site, core)
    for _ in range(8):
        if _rms(pushed, site.mask) <= site.target:
            break
        core *= 0.75
        pushed = _displaced(site, core)
    else:
        return pushed * np.float32(site.target / max(_rms(pushed, site.mask), 1e-6))
    return _reach(site, pushed, ramp(site.distance - np.float32(max(core, 0.35)), 0.12))


def _displaced(site: Site, core: float) -> Array:
    """Return the change when a point opens into a hole of radius ``core`` and everything out to radius 1 is squeezed outwards."""
    distance = np.maximum(site.distance, 1e-3)
    source = np.clip((distance - core) / (1 - core), 0, None)
    ratio = np.where(distance < 1, source / distance, 1)
    at = [(index - centre) * ratio + centre for index, centre in zip(np.indices(distance.shape, dtype=np.float32), site.centre, strict=True)]
    moved: Array = ndimage.map_coordinates(site.clean, at, order=1, mode="nearest", output=np.float32)
    return moved - site.clean


def _texture(site: Site) -> Array:
    """A grain that the tissue does not have, with the same mean where the tissue leaves room; its root mean square in the lesion is the target."""
    shape = (site.mask.shape[0], site.mask.shape[1], site.mask.shape[2])
    grain = float(site.rng.uniform(2.2, 3.6)) * max(1.0, math.sqrt(np.count_nonzero(site.mask)) / 60)
    field = np.clip(smooth_field(site.rng, shape, (1.0, grain, grain)).part(), -2, 2)
    weight = site.soft
    inside = weight * site.mask
    field -= float((field * inside).sum() / inside.sum())
    field *= weight
    deepest = np.minimum(np.float32(site.lowest) - site.clean, 0)
    for _ in range(6):  # where the dark grains would be less than air, the bright ones make up for it
        field *= np.float32(site.target / _rms(field, site.mask))
        if (field >= deepest).all():
            break
        np.maximum(field, deepest, out=field)
    return field


def _missing_structure(site: Site) -> Array:
    """What was there is gone: replaced by featureless tissue like that around it, shifted in density where the target asks for more."""
    ring = (site.distance > 1.1) & (site.distance < 1.5)
    around = float(np.median(site.clean[ring])) if ring.any() else float(site.clean[site.mask].mean())
    weight = site.soft
    filled = weight * (np.float32(around) - site.clean)
    strength = _rms(filled, site.mask)
    if strength >= site.target:
        return filled * np.float32(site.target / strength)
    return _reach(site, filled, weight)


def _reach(site: Site, change: Array, profile: Array) -> Array:
    """Add the multiple of ``profile`` that brings the root mean square of the change in the lesion to the target, in the site's direction."""
    first, second = change[site.mask].astype(np.float64), profile[site.mask].astype(np.float64)
    square, cross, rest = float(np.mean(second**2)), float(np.mean(first * second)), float(np.mean(first**2)) - site.target**2
    root = math.sqrt(max(cross**2 - square * rest, 0.0))
    amount = (-cross + site.sign * root) / max(square, 1e-9)
    return change + profile * np.float32(amount)


def _rms(change: Array, mask: NDArray[np.bool_]) -> float:
    return max(float(np.sqrt(np.mean(np.square(change[mask], dtype=np.float64)))), 1e-6)


FAMILIES: dict[str, Callable[[Site], Array]] = {
    "ellipsoid": _ellipsoid,
    "mass_effect": _mass_effect,
    "texture": _texture,
    "missing_structure": _missing_structure,
}
