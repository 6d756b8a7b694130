"""US: what a scanner makes of echo strengths, and what an ultrasound image says about itself (PS3.3 A.6, A.7, C.8.5).

::

    ┌──────────────────────────┐
    │ text, outside the region │   burnt in: names the phantom
    ├───┬──────────────────┬───┤
    │   │   image region   │   │   Sequence of Ultrasound Regions: 2D tissue, centimetres
    │   │  (rectangle, or  │   │
    │   │  trapezoid in it)│   │
    └───┴──────────────────┴───┘
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import ModuleType

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import UltrasoundImageStorage, UltrasoundMultiFrameImageStorage
from scipy import fft

from pacs_node.phantoms import us_artefacts, us_breast, us_header
from pacs_node.phantoms.grid import Array, Grid
from pacs_node.phantoms.shapes import Anatomy
from pacs_node.phantoms.spec import PhantomSpec

SOP_CLASS_UID = str(UltrasoundImageStorage)
MULTI_FRAME_UID = str(UltrasoundMultiFrameImageStorage)
UNIT = "1"  # UCUM: grey levels
REGIONS: dict[str, ModuleType] = {"breast": us_breast}
ARTEFACTS = tuple(us_artefacts.ARTEFACTS)
PLANES = ("axial",)
LOCATED = False
CHARACTER_SET = "ISO_IR 100"

_TOP, _SIDE, _BOTTOM = 0.11, 0.06, 0.03  # margins around the region, as fractions of the image
_RANGE = 60.0  # dB that the grey levels show
_LESSENED = 0.85  # most masses echo less than glandular tissue
_LOWEST = -110.0  # how dark a lesion may be meant to be, grey levels: what falls below 0 is black


@dataclass(frozen=True, slots=True)
class Scanner:
    """A make of scanner that does not exist."""

    model: str
    axial: float  # standard deviation of the point spread along the beam, mm
    lateral: float  # across it, mm
    contrast: float  # how much of the speckle is left after averaging, 0 to 1
    trapezoid: float  # how far the beams spread at the bottom, as a fraction of the width; 0: a rectangle


_SCANNERS = (
    Scanner("Phantom Ten", 0.19, 0.36, 0.8, 0.0),
    Scanner("Phantom Eleven", 0.23, 0.46, 0.65, 0.0),
    Scanner("Phantom Twelve", 0.16, 0.30, 0.9, 0.14),
)


def scanner(spec: PhantomSpec) -> Scanner:
    """Return the scanner that the seed chooses."""
    return _SCANNERS[spec.seed % len(_SCANNERS)]


def region(spec: PhantomSpec) -> tuple[slice, slice]:
    """Return rows and columns of the image region."""
    rows = spec.rows
    return slice(round(_TOP * rows), rows - round(_BOTTOM * rows)), slice(round(_SIDE * rows), rows - round(_SIDE * rows))


def blank(spec: PhantomSpec, grid: Grid) -> NDArray[np.bool_]:
    """Return which pixels (rows, columns) the beams do not reach."""
    return ~_beams(spec)


def _beams(spec: PhantomSpec) -> NDArray[np.bool_]:
    """Return which pixels (rows, columns) the beams reach: the image region, or a trapezoid in it."""
    reached = np.zeros((spec.rows, spec.rows), dtype=np.bool_)
    reached[region(spec)] = True
    spread = scanner(spec).trapezoid
    if spread:
        rows, columns = region(spec)
        down = np.linspace(0, 1, rows.stop - rows.start)[:, None]
        across = np.abs(np.linspace(-1, 1, columns.stop - columns.start))[None, :]
        reached[region(spec)] = across <= 1 - spread * (1 - down)
    return reached


def anatomy(spec: PhantomSpec, grid: Grid, rng: np.random.Generator) -> Anatomy:
    """Return echo strengths after compression, without speckle, in grey levels; nothing outside the beams."""
    skin = grid.y[0, region(spec)[0].start, 0]
    made: Anatomy = REGIONS[spec.region].anatomy(replace(grid, y=grid.y - skin + np.float32(0.5)), rng)
    reached = _beams(spec)
    image = np.where(reached, made.image, np.float32(0))
    body = replace(made, image=image, foreground=made.foreground & reached, space=made.space & reached, lowest=_LOWEST, lessened=_LESSENED)
    return us_artefacts.restrict(spec, body)


def noise(spec: PhantomSpec, body: Anatomy, rng: np.random.Generator) -> Array:
    """Return speckle, grey levels: the logarithm of a Rayleigh amplitude whose grain is the point spread, wider across the beam."""
    machine, rows = scanner(spec), spec.rows
    spectrum = np.exp(-2 * (np.pi * fft.fftfreq(rows)[:, None] * machine.axial / body.step[1]) ** 2)
    spectrum = spectrum * np.exp(-2 * (np.pi * fft.fftfreq(rows)[None, :] * machine.lateral / body.step[2]) ** 2)
    waves = rng.standard_normal((spec.slices, rows, rows, 2), dtype=np.float32).view(np.complex64)[..., 0]
    amplitude = np.abs(fft.ifft2(waves * spectrum.astype(np.float32), overwrite_x=True))
    amplitude /= np.sqrt(np.mean(np.square(amplitude, dtype=np.float32)))
    level = np.float32(machine.contrast * 255 * 20 / _RANGE) * np.log10(np.maximum(amplitude, np.float32(0.02)))
    speckle: Array = np.where(body.foreground, level, np.float32(0)).astype(np.float32)
    return speckle


def degrade(spec: PhantomSpec, image: Array, foreground: NDArray[np.bool_], grid: Grid) -> Array:
    """Return the image with the artefact of the specification, if any; ``image`` may be changed."""
    return us_artefacts.apply(spec, image, foreground)


def finish(image: Array) -> Array:
    """Round to grey levels of 8 bits, in place."""
    np.rint(image, out=image)
    return np.clip(image, 0, 255, out=image)


def stored(spec: PhantomSpec, values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return stored pixel values: the grey levels, and where there is no image what the scanner writes there; colour adds an axis."""
    return us_header.burnt_in(spec, np.nan_to_num(values, nan=0.0).astype(np.uint8), region(spec))


def describe(spec: PhantomSpec, dataset: Dataset) -> None:
    """Set what is particular to US: General Series, General Image, Image Pixel, US Image and US Region Calibration attributes."""
    dataset.ManufacturerModelName = scanner(spec).model
    us_header.describe(spec, dataset, region(spec), (spec.field_of_view or REGIONS[spec.region].FIELD_OF_VIEW) / spec.rows)


def describe_slice(spec: PhantomSpec, dataset: Dataset, index: int, values: NDArray[np.float32]) -> None:
    """Set nothing: the images of a sweep differ in their pixels only."""
