"""The table of modalities: one row and one module each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs_node.phantoms import ct
from pacs_node.phantoms.grid import Array, Grid
from pacs_node.phantoms.shapes import Anatomy
from pacs_node.phantoms.spec import PhantomSpec


class Region(Protocol):
    """A part of the body that a modality can show: a module with these names."""

    FIELD_OF_VIEW: float  # mm
    SPACING: float  # mm between slices
    CENTRE: float  # z of the middle of the scan, mm


class Modality(Protocol):
    """What a module must offer to be a row of `MODALITIES`."""

    SOP_CLASS_UID: str
    UNIT: str  # UCUM
    REGIONS: Mapping[str, Region]
    ARTEFACTS: tuple[str, ...]  # those of `pacs_node.phantoms.spec.ARTEFACTS` that make sense

    def anatomy(self, spec: PhantomSpec, grid: Grid, rng: np.random.Generator) -> Anatomy:
        """Return the noise-free body as the scanner sees it, and where a lesion may lie in it."""

    def noise(self, spec: PhantomSpec, body: Anatomy, rng: np.random.Generator) -> Array:
        """Return the noise to add, of the shape of the image."""

    def degrade(self, spec: PhantomSpec, image: Array, foreground: NDArray[np.bool_], grid: Grid) -> Array:
        """Return the image with the artefact of the specification, if any; ``image`` may be changed."""

    def padded(self, spec: PhantomSpec) -> bool:
        """Tell whether pixels outside the circle of reconstruction are padding."""

    def finish(self, image: Array) -> Array:
        """Round and clip to what can be stored exactly."""

    def stored(self, values: NDArray[np.float32]) -> NDArray[np.int16]:
        """Return stored pixel values; NaN becomes padding."""

    def describe(self, spec: PhantomSpec, dataset: Dataset) -> None:
        """Set the attributes that are particular to the modality and region."""


MODALITIES: dict[str, Modality] = {"CT": cast(Modality, ct)}
