"""CT: what a scanner adds to an anatomy, and what a CT Image says about itself (PS3.3 A.3, C.8.2.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from types import ModuleType

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage
from scipy import fft, ndimage

from pacs_node.phantoms import ct_artefacts, ct_body, ct_head
from pacs_node.phantoms.grid import Array, Grid
from pacs_node.phantoms.shapes import Anatomy
from pacs_node.phantoms.spec import PhantomSpec

SOP_CLASS_UID = str(CTImageStorage)
MULTI_FRAME_UID = str(EnhancedCTImageStorage)
UNIT = "[hnsf'U]"  # UCUM
REGIONS: dict[str, ModuleType] = {"head": ct_head, "body": ct_body}
ARTEFACTS = tuple(ct_artefacts.ARTEFACTS)
PLANES = ("axial",)
LOCATED = True
CHARACTER_SET = "ISO_IR 192"

INTERCEPT = -1024
PADDING = -2000  # stored value outside the circular field of reconstruction
_LOWEST = -900.0  # no lesion makes tissue lighter than lung, HU
_RANGE = (-1024.0, 3071.0)  # HU of a 12-bit scanner


@dataclass(frozen=True, slots=True)
class Scanner:
    """A make of scanner that does not exist."""

    model: str
    kernel: str
    blur: float  # standard deviation of the point spread, pixels of a 256² image
    sharpness: float  # where the noise spectrum ends, cycles per pixel of a 256² image
    noise: float  # standard deviation relative to the region's usual
    padding: bool
    kvp: float
    current: int  # mA


_SCANNERS = (
    Scanner("Phantom One", "SOFT", 0.75, 0.22, 0.8, False, 120.0, 220),
    Scanner("Phantom Two", "STANDARD", 0.6, 0.27, 1.0, True, 120.0, 180),
    Scanner("Phantom Three", "DETAIL", 0.45, 0.34, 1.3, False, 130.0, 160),
)


@dataclass(frozen=True, slots=True)
class Protocol:
    """How a region is usually scanned and shown."""

    noise: float  # HU
    body_part: str  # defined term of PS3.16 Annex L
    windows: tuple[tuple[float, float, str], ...]  # centre, width, explanation; the usual one first


PROTOCOLS: dict[str, Protocol] = {
    "head": Protocol(3.4, "HEAD", ((40, 80, "BRAIN"), (500, 2000, "BONE"))),
    "body": Protocol(12.0, "CHESTABDOMEN", ((40, 400, "ABDOMEN"), (-600, 1600, "LUNG"))),
}


def scanner(spec: PhantomSpec) -> Scanner:
    """Return the scanner that the seed chooses."""
    return _SCANNERS[spec.seed % len(_SCANNERS)]


def padded(spec: PhantomSpec) -> bool:
    """Tell whether pixels outside the circle of reconstruction are padding."""
    return scanner(spec).padding if spec.padding is None else spec.padding


def blank(spec: PhantomSpec, grid: Grid) -> NDArray[np.bool_] | None:
    """Return what lies outside the circle of reconstruction, (rows, columns), None where the scanner does not pad."""
    if not padded(spec):
        return None
    half = grid.step[2] * spec.rows / 2
    outside: NDArray[np.bool_] = (np.hypot(grid.x, grid.y / math.cos(math.radians(spec.tilt))) > half)[0]
    return outside


def anatomy(spec: PhantomSpec, grid: Grid, rng: np.random.Generator) -> Anatomy:
    """Return the body of the region as the scanner's point spread shows it, without noise and artefact, in HU."""
    made: Anatomy = REGIONS[spec.region].anatomy(grid, rng)
    sigma = scanner(spec).blur * spec.rows / 256
    image = ndimage.gaussian_filter(made.image, (0, sigma, sigma), output=np.float32, truncate=3.0)
    return ct_artefacts.restrict(spec, replace(made, image=image, lowest=_LOWEST), grid)


def noise(spec: PhantomSpec, body: Anatomy, rng: np.random.Generator) -> Array:
    """Return the noise of filtered back projection, HU: a ramp spectrum with the kernel's roll-off, weaker where the body is thin."""
    rows = spec.rows
    frequency = np.hypot(fft.fftfreq(rows)[:, None], fft.rfftfreq(rows)[None, :]).astype(np.float32)
    cut = scanner(spec).sharpness
    spectrum = (frequency + 0.02) * np.exp(-((frequency / cut) ** 2))
    power = 2 * float((spectrum**2).sum())  # both halves of the plane
    shape = (spec.slices, rows, rows // 2 + 1)
    waves = rng.standard_normal((*shape, 2), dtype=np.float32).view(np.complex64)[..., 0] * spectrum.astype(np.float32)
    field: Array = fft.irfft2(waves, s=(rows, rows), norm="forward", overwrite_x=True)
    level = PROTOCOLS[spec.region].noise * scanner(spec).noise * float(np.exp(rng.normal(0, 0.12)))
    filled = body.foreground.mean(axis=(1, 2)) * (spec.rows * body.grid.step[2]) ** 2
    thick = np.sqrt(filled / np.float32(max(float(filled.max()), 1.0)))
    amount = level * (0.45 + 0.55 * thick) / np.sqrt(power)
    field *= amount[:, None, None].astype(np.float32)
    return field


def degrade(spec: PhantomSpec, image: Array, foreground: NDArray[np.bool_], grid: Grid) -> Array:
    """Return the image with the artefact of the specification, if any; ``image`` may be changed."""
    return ct_artefacts.apply(spec, image, foreground, grid)


def stored(spec: PhantomSpec, values: NDArray[np.float32]) -> NDArray[np.int16]:
    """Return stored pixel values of HU: rescale slope 1, intercept −1024, padding for NaN."""
    whole = np.where(np.isnan(values), PADDING, np.rint(values) - INTERCEPT)
    return whole.astype(np.int16)


def finish(image: Array) -> Array:
    """Round to whole HU within the range of a 12-bit scanner, in place."""
    np.rint(image, out=image)
    return np.clip(image, *_RANGE, out=image)


def describe(spec: PhantomSpec, dataset: Dataset) -> None:
    """Set what is particular to CT: General Series, General Image, Image Pixel and CT Image attributes."""
    protocol, machine = PROTOCOLS[spec.region], scanner(spec)
    dataset.BodyPartExamined = protocol.body_part
    dataset.PatientPosition = "HFS"
    dataset.ProtocolName = f"Phantom {spec.region}"
    dataset.ManufacturerModelName = machine.model
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.KVP = machine.kvp
    dataset.XRayTubeCurrent = machine.current
    dataset.ExposureTime = 1000
    dataset.Exposure = machine.current
    dataset.ConvolutionKernel = machine.kernel
    dataset.GantryDetectorTilt = spec.tilt
    dataset.RotationDirection = "CW"
    dataset.FilterType = "NONE"
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = INTERCEPT, 1, "HU"
    dataset.WindowCenter = [window[0] for window in protocol.windows]
    dataset.WindowWidth = [window[1] for window in protocol.windows]
    dataset.WindowCenterWidthExplanation = [window[2] for window in protocol.windows]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    if padded(spec):
        dataset.PixelPaddingValue = PADDING


def describe_slice(spec: PhantomSpec, dataset: Dataset, index: int, values: NDArray[np.float32]) -> None:
    """Set nothing: the slices differ in place only."""
