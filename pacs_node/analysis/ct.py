"""Computed tomography: a CT series becomes a volume in Hounsfield units (PS3.3 A.3, A.38, A.70; C.8.2.1)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage

from pacs_node.analysis import stack
from pacs_node.analysis.decoding import Beat
from pacs_node.analysis.stack import Slice
from pacs_node.dicom.header import text_of
from pacs_node.records import Volume

UNIT = "[hnsf'U]"  # UCUM, Hounsfield unit
BELOW_AIR = -1500.0  # HU: no matter attenuates less than nothing (-1000) by more than noise; scanners write such values outside their field of view
CLASSES = (CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)


def _not_hounsfield(header: Dataset) -> bool:
    kind = text_of(header, "RescaleType").upper()
    rescaled = header.get("RescaleSlope") is not None or bool(header.get("ModalityLUTSequence"))
    return not rescaled or kind not in ("", "HU", "US")


SKIPPED: stack.Reasons = {
    "they are no CT images": lambda header: header.SOPClassUID not in CLASSES,
    "they hold no pixels": stack.no_pixels,
    "they are localizers": stack.localizer,
    "they were derived from other images": stack.derived,
    "they are secondary images": stack.secondary,
    "they have no rescale to Hounsfield units": _not_hounsfield,
    stack.NO_GEOMETRY: stack.no_geometry,
}
"""Why an image of a CT series is not part of its volume: the first reason that holds."""


def _in_field_of_view(slices: Sequence[Slice]) -> stack.Calibrated:
    def calibrated(values: NDArray[np.float32]) -> NDArray[np.float32]:
        np.copyto(values, np.float32(np.nan), where=values < BELOW_AIR)
        return values

    return calibrated


KIND = stack.Kind("CT", UNIT, SKIPPED, stack.SEPARATED, _in_field_of_view)


def read(files: Sequence[Path], beat: Beat = lambda fraction: None) -> Volume:
    """Read the CT images among ``files`` (one series) as a volume in HU; padding and what lies outside the field of view is NaN.

    Single-frame, enhanced and legacy-converted images; see `stack.read`.
    """
    return stack.read(files, KIND, beat)
