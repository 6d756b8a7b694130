"""PT: what a scanner makes of an uptake, and what a PET Image says about itself (PS3.3 A.21, C.8.9).

Volumes hold SUVbw; files hold Bq/ml with a rescale slope of each slice's own, from which SUVbw = Bq/ml · weight / decayed dose.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import ModuleType

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedPETImageStorage, PositronEmissionTomographyImageStorage
from scipy import ndimage

from pacs_node.phantoms import pt_artefacts, pt_body, pt_header
from pacs_node.phantoms.grid import Array, Grid
from pacs_node.phantoms.shapes import Anatomy
from pacs_node.phantoms.spec import PhantomSpec

SOP_CLASS_UID = str(PositronEmissionTomographyImageStorage)
MULTI_FRAME_UID = str(EnhancedPETImageStorage)
UNIT = "{SUVbw}g/ml"  # UCUM, PS3.16 CID 85
REGIONS: dict[str, ModuleType] = {"body": pt_body}
ARTEFACTS = tuple(pt_artefacts.ARTEFACTS)
PLANES = ("axial",)
LOCATED = True
CHARACTER_SET = "ISO_IR 100"

_STEPS = 32767  # stored value of the largest uptake in a slice
_LESSENED = 0.1  # most lesions take up more
_LOWEST = 0.05  # no lesion makes tissue take up less, SUV


@dataclass(frozen=True, slots=True)
class Scanner:
    """A make of scanner that does not exist."""

    model: str
    resolution: float  # full width at half maximum, mm
    noise: float  # standard deviation relative to the square root of the uptake


_SCANNERS = (Scanner("Phantom Seven", 6.5, 0.11), Scanner("Phantom Eight", 5.5, 0.15), Scanner("Phantom Nine", 7.5, 0.09))


def scanner(spec: PhantomSpec) -> Scanner:
    """Return the scanner that the seed chooses."""
    return _SCANNERS[spec.seed % len(_SCANNERS)]


def anatomy(spec: PhantomSpec, grid: Grid, rng: np.random.Generator) -> Anatomy:
    """Return the uptake of the region as the scanner resolves it, without noise and artefact, in SUV."""
    made: Anatomy = REGIONS[spec.region].anatomy(grid, rng)
    sigma = scanner(spec).resolution / 2.355
    image = ndimage.gaussian_filter(made.image, [sigma / step for step in grid.step], output=np.float32, truncate=3.0, mode="nearest")
    return pt_artefacts.restrict(spec, replace(made, image=image, lowest=_LOWEST, lessened=_LESSENED), grid)


def noise(spec: PhantomSpec, body: Anatomy, rng: np.random.Generator) -> Array:
    """Return the noise of iterative reconstruction, SUV: correlated grain that grows with the square root of the uptake."""
    sigma = 0.75 * scanner(spec).resolution / 2.355
    grain: Array = rng.standard_normal(body.image.shape, dtype=np.float32)
    grain = ndimage.gaussian_filter(grain, [sigma / step for step in body.grid.step], output=np.float32, truncate=3.0)
    grain *= np.float32(scanner(spec).noise / float(grain.std()))
    grain *= np.sqrt(body.image)
    return grain


def degrade(spec: PhantomSpec, image: Array, foreground: NDArray[np.bool_], grid: Grid) -> Array:
    """Return the image with the artefact of the specification, if any; ``image`` may be changed."""
    return pt_artefacts.apply(spec, image, foreground, grid)


def blank(spec: PhantomSpec, grid: Grid) -> None:
    """Return None: every pixel holds an image."""


def finish(image: Array) -> Array:
    """Round to what each slice's own slope can tell apart, in place."""
    np.maximum(image, 0, out=image)
    step = _slopes(image)
    np.rint(image / step, out=image)
    image *= step
    return image


def _slopes(image: Array) -> Array:
    """Return the step of stored values in SUV, (slices, 1, 1)."""
    most: Array = image.max(axis=(-2, -1), keepdims=True)
    most = np.maximum(most, np.float32(1e-3))
    most /= np.float32(_STEPS)
    return most


def stored(spec: PhantomSpec, values: NDArray[np.float32]) -> NDArray[np.int16]:
    """Return stored pixel values of slices in SUV."""
    whole: NDArray[np.int16] = np.rint(values / _slopes(values)).astype(np.int16)
    return whole


def slope(spec: PhantomSpec, values: NDArray[np.float32]) -> float:
    """Return the rescale slope of a slice in SUV: Bq/ml for one step of the stored values."""
    return float(_slopes(values).item()) * pt_header.injection(spec).activity_per_suv


def describe(spec: PhantomSpec, dataset: Dataset) -> None:
    """Set what is particular to PT: General Series, General Image, Image Pixel, PET Series, Isotope and Orientation attributes."""
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.BodyPartExamined = "CHESTABDOMEN"
    dataset.ProtocolName = f"Phantom {spec.region}"
    dataset.ManufacturerModelName = scanner(spec).model
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    pt_header.describe_patient(spec, dataset)
    pt_header.describe_position(dataset)
    pt_header.describe_series(spec, dataset)


def describe_slice(spec: PhantomSpec, dataset: Dataset, index: int, values: NDArray[np.float32]) -> None:
    """Set the PET Image attributes that differ from slice to slice."""
    pt_header.describe_slice(dataset, index, slope(spec, values))
