"""What is asked of a phantom, and what comes back."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pacs_node.errors import InputError
from pacs_node.records import Volume

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LESIONS = ("ellipsoid", "mass_effect", "texture", "missing_structure")
ARTEFACTS = ("motion", "metal", "noise", "truncation")

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
        a region of that modality; for CT ``head`` or ``body`` (chest and upper abdomen)
    lesion
        one of `LESIONS`, or None
    artefact
        one of `ARTEFACTS`, or None
    seed
        chooses anatomy, noise, scanner, the place of the lesion, patient and times
    slices, rows
        number of slices; rows and columns of a slice
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
        whether pixels outside the circular reconstruction field are padding; None: as the scanner that the seed chooses does

    Raises
    ------
    InputError
        an option is unknown or out of range
    """

    modality: str = "CT"
    region: str = "head"
    lesion: str | None = None
    artefact: str | None = None
    seed: int = 0
    slices: int = 24
    rows: int = 256
    contrast: float = 3.0
    size: float = 0.04
    field_of_view: float | None = None
    thickness: float | None = None
    spacing: float | None = None
    tilt: float = 0.0
    padding: bool | None = None

    def __post_init__(self) -> None:
        if self.lesion is not None:
            require_one_of("lesion", self.lesion, LESIONS)
        if self.artefact is not None:
            require_one_of("artefact", self.artefact, ARTEFACTS)
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and low <= value <= high):
                raise InputError(f"phantom {name} {value!r} is out of range: give a number from {low:g} to {high:g}")


def require_one_of(option: str, value: str, choices: Collection[str]) -> None:
    """Raise `InputError` that names the choices where ``value`` is none of them."""
    if value not in choices:
        raise InputError(f"phantom {option} {value!r} is unknown: choose one of {', '.join(choices)}")


@dataclass(frozen=True, slots=True)
class Phantom:
    """A synthetic volume and its truth; all arrays have the shape (slices, rows, columns)."""

    volume: Volume  # values as stored in the study, in the modality's unit; NaN where the study holds padding
    lesion: NDArray[np.bool_]  # all False without a lesion
    healthy: NDArray[np.float32]  # the same anatomy and noise without the lesion
    foreground: NDArray[np.bool_]  # the patient: everything inside the skin
