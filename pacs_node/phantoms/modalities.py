"""The table of modalities: one row and one module each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs_node.phantoms import ct, mr, pt, us
from pacs_node.phantoms.grid import Array, Grid
from pacs_node.phantoms.shapes import Anatomy
from pacs_node.phantoms.spec import PhantomSpec


class Region(Protocol):
    """A part of the body that a modality can show: a module with these names."""

    FIELD_OF_VIEW: float  # mm
    SPACING: float  # mm between slices
    CENTRE: float  # z of the middle of an axial scan, mm
    MIDDLE: float  # z of the middle of the images of other planes, mm


class Modality(Protocol):
    """What a module must offer to be a row of `MODALITIES`."""

    SOP_CLASS_UID: str
    MULTI_FRAME_UID: str  # SOP class of the multi-frame objects
    UNIT: str  # UCUM
    CHARACTER_SET: str  # Specific Character Set (0008,0005)
    LOCATED: bool  # whether slices have a place in a frame of reference
    PLANES: tuple[str, ...]  # those of `pacs_node.phantoms.spec.PLANES` that it offers
    REGIONS: Mapping[str, Region]
    ARTEFACTS: tuple[str, ...]  # those of `pacs_node.phantoms.spec.ARTEFACTS` that make sense

    def anatomy(self, spec: PhantomSpec, grid: Grid, rng: np.random.Generator) -> Anatomy:
        """Return the noise-free body as the scanner sees it, and where a lesion may lie in it; upright or in the order of the image."""

    def noise(self, spec: PhantomSpec, body: Anatomy, rng: np.random.Generator) -> Array:
        """Return the noise to add, of the shape of the image."""

    def degrade(self, spec: PhantomSpec, image: Array, foreground: NDArray[np.bool_], grid: Grid) -> Array:
        """Return the image with the artefact of the specification, if any; ``image`` may be changed."""

    def blank(self, spec: PhantomSpec, grid: Grid) -> NDArray[np.bool_] | None:
        """Return which pixels (rows, columns) hold no image, None where all do."""

    def finish(self, image: Array) -> Array:
        """Round and clip to what can be stored exactly."""

    def stored(self, spec: PhantomSpec, values: NDArray[np.float32]) -> NDArray[np.integer[Any]]:
        """Return stored pixel values of one slice; NaN becomes padding, or what the scanner writes there."""

    def describe(self, spec: PhantomSpec, dataset: Dataset) -> None:
        """Set the attributes that are particular to the modality and region, of a single-frame object."""

    def describe_slice(self, spec: PhantomSpec, dataset: Dataset, index: int, values: NDArray[np.float32]) -> None:
        """Set the attributes that differ from slice to slice, beside its place."""


MODALITIES: dict[str, Modality] = {"CT": cast(Modality, ct), "MR": cast(Modality, mr), "PT": cast(Modality, pt), "US": cast(Modality, us)}
