"""What is asked of a phantom, and what comes back."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from pacs_node.errors import InputError
from pacs_node.records import Volume

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LESIONS = ("ellipsoid", "mass_effect", "texture", "missing_structure")
ARTEFACTS = ("motion", "metal", "noise", "truncation", "bias_field")
SEQUENCES = ("T1", "T2", "FLAIR")
PLANES = ("axial", "sagittal", "coronal")

USUAL = -1
"""As many slices, or rows, as is usual for the modality."""


@dataclass(frozen=True, slots=True)
class Usual:
    """What a modality makes when nothing else is asked for."""

    region: str
    slices: int
    rows: int


USUALS: dict[str, Usual] = {
    "CT": Usual("head", 24, 256),
    "MR": Usual("brain", 24, 256),
    "PT": Usual("body", 24, 128),
    "US": Usual("breast", 4, 256),
}

_RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, 2**31 - 1),
    "slices": (1, 400),
    "rows": (64, 1024),
    "contrast": (0.1, 10.0),
    "size": (0.001, 0.15),
    "field_of_view": (50.0, 800.0),
    "thickness": (0.5, 20.0),
    "spacing": (0.5, 20.0),
    "tilt": (-30.0, 30.0),
}


@dataclass(frozen=True, slots=True)
class PhantomSpec:
    """One synthetic study. Equal specs give equal bytes.

    Two specs that differ only in ``lesion``, ``contrast`` and ``size`` show the same anatomy with the same noise.

    Parameters
    ----------
    modality
        a key of `pacs_node.phantoms.MODALITIES`
    region
        a region of that modality: CT ``head`` or ``body`` (chest and upper abdomen), MR ``brain``, PT ``body``, US ``breast``;
        left out: the modality's first
    lesion
        one of `LESIONS`, or None
    artefact
        one of `ARTEFACTS`, or None
    seed
        chooses anatomy, noise, scanner, the place of the lesion, patient and times
    slices, rows
        number of slices (US: images of a sweep); rows and columns of a slice; left out: usual for the modality (`USUALS`)
    contrast
        strength of the lesion in σ, the standard deviation of the healthy pixels in the lesion's bounding box: mean change / σ for
        ``ellipsoid``, root mean square change / σ for the other families; measured inside the lesion, before an artefact
    size
        area of the lesion as a fraction of the foreground of the slice that holds most of it
    field_of_view, thickness, spacing
        millimetres: width of the reconstructed square, slice thickness, distance of slices along the table; None: usual for the region
    tilt
        gantry tilt in degrees, as Gantry/Detector Tilt (0018,1120)
    padding
        whether pixels outside the circular reconstruction field are padding (CT only); None: as the scanner that the seed chooses does
    sequence
        MR only: one of `SEQUENCES`; the sequences of one seed show one head
    plane
        one of `PLANES`, for MR; the others are axial
    enhanced
        one multi-frame object (Enhanced CT, MR or PET; Ultrasound Multi-frame) instead of single-frame ones
    colour
        US only: RGB pixels instead of MONOCHROME2

    Raises
    ------
    InputError
        an option is unknown or out of range
    """

    modality: str = "CT"
    region: str = ""
    lesion: str | None = None
    artefact: str | None = None
    seed: int = 0
    slices: int = USUAL
    rows: int = USUAL
    contrast: float = 3.0
    size: float = 0.04
    field_of_view: float | None = None
    thickness: float | None = None
    spacing: float | None = None
    tilt: float = 0.0
    padding: bool | None = None
    sequence: str = field(default="T1", repr=False)
    plane: str = field(default="axial", repr=False)
    enhanced: bool = field(default=False, repr=False)
    colour: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        usual = USUALS.get(self.modality, USUALS["CT"])
        for name, value in (("region", usual.region), ("slices", usual.slices), ("rows", usual.rows)):
            if getattr(self, name) in ("", USUAL):
                object.__setattr__(self, name, value)
        require_one_of("sequence", self.sequence, SEQUENCES)
        require_one_of("plane", self.plane, PLANES)
        if self.lesion is not None:
            require_one_of("lesion", self.lesion, LESIONS)
        if self.artefact is not None:
            require_one_of("artefact", self.artefact, ARTEFACTS)
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and low <= value <= high):
                raise InputError(f"phantom {name} {value!r} is out of range: give a number from {low:g} to {high:g}")

    @property
    def identity(self) -> str:
        """A text that no other specification has, for UIDs. Options that came later stand in it only where they are set."""
        later = [f"{each.name}={value!r}" for each in fields(self) if not each.repr and (value := getattr(self, each.name)) != each.default]
        return " ".join([repr(self), *later])


def require_one_of(option: str, value: str, choices: Collection[str]) -> None:
    """Raise `InputError` that names the choices where ``value`` is none of them."""
    if value not in choices:
        raise InputError(f"phantom {option} {value!r} is unknown: choose one of {', '.join(choices)}")


@dataclass(frozen=True, slots=True)
class Phantom:
    """A synthetic volume and its truth; all arrays have the shape (slices, rows, columns)."""

    volume: Volume  # values as stored in the study, in the modality's unit; NaN where the study holds padding or no image
    lesion: NDArray[np.bool_]  # all False without a lesion
    healthy: NDArray[np.float32]  # the same anatomy and noise without the lesion
    foreground: NDArray[np.bool_]  # the patient: everything inside the skin
