"""MR: what a scanner makes of an anatomy, and what an MR Image says about itself (PS3.3 A.4, C.8.3.1).

The signal of a tissue follows from its relaxation times and the echo, repetition and inversion times that the header names::

    S = gain · ρ · |1 − 2 exp(−TI/T1) + exp(−TR/T1)| · exp(−TE/T2)        with inversion
    S = gain · ρ · (1 − exp(−TR/T1)) · exp(−TE/T2)                        without
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from types import ModuleType

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage
from scipy import ndimage

from pacs_node.phantoms import mr_artefacts, mr_brain
from pacs_node.phantoms import planes as laid_out
from pacs_node.phantoms.grid import Array, Grid
from pacs_node.phantoms.mr_brain import Tissue
from pacs_node.phantoms.shapes import Anatomy
from pacs_node.phantoms.spec import PLANES as ALL_PLANES
from pacs_node.phantoms.spec import PhantomSpec

SOP_CLASS_UID = str(MRImageStorage)
MULTI_FRAME_UID = str(EnhancedMRImageStorage)
UNIT = "1"  # UCUM: arbitrary units
REGIONS: dict[str, ModuleType] = {"brain": mr_brain}
ARTEFACTS = tuple(mr_artefacts.ARTEFACTS)
PLANES = ALL_PLANES
LOCATED = True
CHARACTER_SET = "ISO_IR 100"

FIELD, FREQUENCY = 1.5, 63.87  # T, MHz

_LARGEST = 4095
_SENSITIVITY = 100.0  # mm over which the receive sensitivity varies
_GRAIN = 0.028  # standard deviation of the noise relative to white matter


@dataclass(frozen=True, slots=True)
class Sequence:
    """A pulse sequence, with the terms of PS3.3 C.8.3.1 for it."""

    scanning: tuple[str, ...]  # Scanning Sequence (0018,0020)
    variant: tuple[str, ...]  # Sequence Variant (0018,0021)
    repetition: float  # ms
    echo: float  # ms
    inversion: float | None  # ms
    train: int  # echoes in a train
    flip: float  # degrees
    white: float  # usual signal of white matter

    def signal(self, tissue: Tissue) -> float:
        """Return the signal of a tissue, without gain."""
        recovered = 1 - math.exp(-self.repetition / tissue.t1)
        if self.inversion is not None:
            recovered = abs(recovered + 2 * math.exp(-self.repetition / tissue.t1) - 2 * math.exp(-self.inversion / tissue.t1))
        return tissue.density * recovered * math.exp(-self.echo / tissue.t2)


SEQUENCES: dict[str, Sequence] = {
    "T1": Sequence(("SE",), ("NONE",), 550, 12, None, 1, 90, 620),
    "T2": Sequence(("SE",), ("SK",), 4500, 100, None, 16, 90, 260),
    "FLAIR": Sequence(("SE", "IR"), ("SK",), 9000, 120, 2500, 20, 90, 330),
}


@dataclass(frozen=True, slots=True)
class Scanner:
    """A make of scanner that does not exist."""

    model: str
    blur: float  # standard deviation of the point spread, pixels of a 256² image
    noise: float  # relative to the usual
    gain: float  # relative to the usual


_SCANNERS = (Scanner("Phantom Four", 0.65, 1.0, 1.0), Scanner("Phantom Five", 0.5, 1.25, 0.55), Scanner("Phantom Six", 0.8, 0.8, 1.6))


def scanner(spec: PhantomSpec) -> Scanner:
    """Return the scanner that the seed chooses."""
    return _SCANNERS[spec.seed % len(_SCANNERS)]


def signals(spec: PhantomSpec, rng: np.random.Generator) -> dict[str, float]:
    """Return the signal of every tissue of one person on one day, in arbitrary units; relaxation times differ a little between people."""
    sequence, found = SEQUENCES[spec.sequence], {}
    for name, tissue in mr_brain.TISSUES.items():
        rate = np.exp(0.03 * np.clip(rng.standard_normal(3), -2, 2)).tolist()
        found[name] = sequence.signal(Tissue(tissue.density * rate[0], tissue.t1 * rate[1], tissue.t2 * rate[2]))
    gain = sequence.white / found["white"] * scanner(spec).gain * float(np.exp(0.12 * np.clip(rng.standard_normal(), -2, 2)))
    return {name: gain * value for name, value in found.items()}


def anatomy(spec: PhantomSpec, grid: Grid, rng: np.random.Generator) -> Anatomy:
    """Return the head as the coil receives it and the point spread shows it, without noise and artefact."""
    values = signals(spec, np.random.default_rng([spec.seed, 3]))
    made: Anatomy = REGIONS[spec.region].anatomy(grid, rng, values)
    image = made.image * _sensitivity(spec, grid)
    axes = laid_out.ORIENTATIONS[spec.plane].axes
    sigma = np.zeros(3)
    sigma[list(axes[1:])] = scanner(spec).blur * spec.rows / 256
    image = ndimage.gaussian_filter(image, sigma, output=np.float32, truncate=3.0)
    turned = replace(made, image=image, lowest=0.05 * values["white"]).turned(axes)
    return mr_artefacts.restrict(spec, turned)


def _sensitivity(spec: PhantomSpec, grid: Grid) -> Array:
    """Return how well the coil receives, about 1 in the middle: brighter near it, with a slope that differs between scans."""
    rng = np.random.default_rng([spec.seed, 4])
    slope = (0.07 * rng.standard_normal(3)).tolist()
    rise = 0.05 + 0.05 * float(rng.random())
    x, y, z = (axis / np.float32(_SENSITIVITY) for axis in (grid.x, grid.y, grid.z))
    in_plane = np.exp(slope[0] * x + slope[1] * y + rise * (x**2 + y**2))
    along = np.exp(slope[2] * z)
    field: Array = (in_plane * along).astype(np.float32)
    return field


def noise(spec: PhantomSpec, body: Anatomy, rng: np.random.Generator) -> Array:
    """Return what Gaussian noise in both channels of the receiver adds to the magnitude (Rician: positive where there is no signal)."""
    level = np.float32(_GRAIN * scanner(spec).noise * scanner(spec).gain * SEQUENCES[spec.sequence].white)
    one = rng.standard_normal(body.image.shape, dtype=np.float32)
    one *= level
    one += body.image
    one *= one
    other: Array = rng.standard_normal(body.image.shape, dtype=np.float32)
    other *= level
    other *= other
    other += one
    np.sqrt(other, out=other)
    other -= body.image
    return other


def degrade(spec: PhantomSpec, image: Array, foreground: NDArray[np.bool_], grid: Grid) -> Array:
    """Return the image with the artefact of the specification, if any; ``image`` may be changed."""
    return mr_artefacts.apply(spec, image, foreground)


def blank(spec: PhantomSpec, grid: Grid) -> None:
    """Return None: every pixel holds an image."""


def finish(image: Array) -> Array:
    """Round to whole numbers of 12 bits, in place."""
    np.rint(image, out=image)
    return np.clip(image, 0, _LARGEST, out=image)


def stored(spec: PhantomSpec, values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return stored pixel values: the signal itself, magnitudes have no rescale (PS3.3 C.8.3.1)."""
    return values.astype(np.uint16)


def describe(spec: PhantomSpec, dataset: Dataset) -> None:
    """Set what is particular to MR: General Series, General Image, Image Pixel and MR Image attributes."""
    sequence = SEQUENCES[spec.sequence]
    describe_series(spec, dataset)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "SE" if sequence.inversion is None else "IR"]
    dataset.ScanningSequence, dataset.SequenceVariant = list(sequence.scanning), list(sequence.variant)
    dataset.ScanOptions = ""
    dataset.SequenceName = f"phantom_{spec.sequence.lower()}"
    dataset.MRAcquisitionType = "2D"
    dataset.RepetitionTime, dataset.EchoTime, dataset.FlipAngle = sequence.repetition, sequence.echo, sequence.flip
    if sequence.inversion is not None:
        dataset.InversionTime = sequence.inversion
    dataset.EchoTrainLength, dataset.EchoNumbers, dataset.NumberOfAverages = sequence.train, 1, 1
    dataset.MagneticFieldStrength, dataset.ImagingFrequency, dataset.ImagedNucleus = FIELD, FREQUENCY, "1H"
    dataset.AcquisitionMatrix, dataset.InPlanePhaseEncodingDirection = [spec.rows, 0, 0, spec.rows], "ROW"
    dataset.SpacingBetweenSlices = spec.spacing or REGIONS[spec.region].SPACING


def describe_series(spec: PhantomSpec, dataset: Dataset) -> None:
    """Set what single-frame and enhanced objects say alike."""
    dataset.SeriesDescription = f"Synthetic {spec.sequence} {spec.plane}"
    dataset.ProtocolName = f"Phantom {spec.region} {spec.sequence}"
    dataset.BodyPartExamined = "BRAIN"
    dataset.PatientPosition = "HFS"
    dataset.ManufacturerModelName = scanner(spec).model
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0


def describe_slice(spec: PhantomSpec, dataset: Dataset, index: int, values: NDArray[np.float32]) -> None:
    """Set nothing: the slices differ in place only."""
