"""Physical quality-assurance phantoms: what a physicist scans in the morning, and no model may call unremarkable.

A cylinder of water with rods and wedges of other material in the geometry of a patient's series; for ultrasound a block of tissue-mimicking
material with wires and cysts. Volumes only: they measure the gate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pacs_node.dicom.uids import derive_uid
from pacs_node.records import Volume

_STREAM = 9  # number of the random stream of physical phantoms
_RODS = 6
_RADIUS = 95.0  # mm, of the cylinder
_UNIFORM = 0.3  # share of the slices without rods, for uniformity


@dataclass(frozen=True, slots=True)
class _Materials:
    """Values in the modality's unit: outside, water, the range of the rods, standard deviation of the noise."""

    outside: float
    water: float
    rods: tuple[float, float]
    noise: float


_MATERIALS: dict[str, _Materials] = {
    "CT": _Materials(-1000, 0, (-200, 900), 5),
    "MR": _Materials(0, 600, (0, 900), 18),
    "PT": _Materials(0, 1, (0, 8), 0.05),
    "US": _Materials(np.nan, 110, (5, 250), 22),
}


def qa_volume(patient: Volume, seed: int) -> Volume:
    """Return a physical phantom scanned with the geometry of ``patient``: same frames, unit, header facts and padding, other pixels."""
    rng = np.random.default_rng([seed, _STREAM])
    made = _block(patient, rng) if patient.modality == "US" else _cylinder(patient, rng)
    pixels = np.where(np.isfinite(patient.pixels), made, np.float32(np.nan))
    return replace(patient, pixels=pixels, series_uid=derive_uid("physical phantom", patient.series_uid, seed))


def _cylinder(patient: Volume, rng: np.random.Generator) -> NDArray[np.float32]:
    materials, (slices, rows, columns) = _MATERIALS[patient.modality], patient.pixels.shape
    plane = patient.frames[0].plane
    spacing = plane.spacing if plane else (1.0, 1.0)
    y, x = (np.arange(rows)[:, None] - rows / 2) * spacing[0], (np.arange(columns)[None, :] - columns / 2) * spacing[1]
    radius = _RADIUS * float(rng.uniform(0.85, 1.15))
    flat = np.where(np.hypot(y, x) < radius, materials.water, materials.outside)
    rodded = flat.copy()
    for turn in np.linspace(0, 2 * np.pi, _RODS, endpoint=False) + rng.uniform(0, 1):
        rod = np.hypot(y - 0.6 * radius * np.sin(turn), x - 0.6 * radius * np.cos(turn)) < radius * rng.uniform(0.05, 0.14)
        rodded[rod] = rng.uniform(*materials.rods)
    image = np.stack([flat if index < _UNIFORM * slices else rodded for index in range(slices)])
    image = ndimage.gaussian_filter(image, (0, 0.7, 0.7)) + materials.noise * rng.standard_normal(image.shape)
    return np.asarray(np.abs(image) if materials.outside == 0 else image, dtype=np.float32)


def _block(patient: Volume, rng: np.random.Generator) -> NDArray[np.float32]:
    materials, (slices, rows, columns) = _MATERIALS["US"], patient.pixels.shape
    flat = np.full((rows, columns), materials.water)
    y, x = np.arange(rows)[:, None], np.arange(columns)[None, :]
    for row in np.linspace(0.2, 0.9, 8) * rows:
        flat[np.hypot(y - row, 0.4 * (x - 0.5 * columns)) < 1.5] = materials.rods[1]
    for row in np.linspace(0.3, 0.8, 3) * rows:
        flat[np.hypot(y - row, x - 0.75 * columns) < 0.05 * rows] = materials.rods[0]
    speckle = ndimage.gaussian_filter(rng.standard_normal((slices, rows, columns)), (0, 0.8, 1.5))
    return np.asarray(np.clip(flat + materials.noise / speckle.std() * speckle, 0, 255), dtype=np.float32)
