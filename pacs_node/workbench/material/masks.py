"""Where people drew lesions: masks on the pixels of a series, and from there on the analysis grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pacs_node.analysis import nifti, pictures
from pacs_node.analysis.grid import sample, weights
from pacs_node.dicom.header import read_header
from pacs_node.errors import NotAnalysable
from pacs_node.records import Place, Volume
from pacs_node.workbench.material.folders import DICOM, PICTURES, SeriesFiles


def mask_of(series: SeriesFiles, volume: Volume) -> NDArray[np.bool_] | None:
    """Return where the series' masks are, on the pixels of ``volume``, all of them together; None where it has none.

    A NIfTI mask lies where its affine says; a PNG belongs to the picture, or to the DICOM file, that its row names, and is of the same size.
    Raises `NotAnalysable` with the reason.
    """
    if not series.masks:
        return None
    result = np.zeros(volume.pixels.shape, dtype=np.bool_)
    for file, mask in series.masks:
        if mask.name.lower().endswith(nifti.SUFFIXES):
            result |= nifti.read_mask(mask, volume)
        elif series.kind == PICTURES:
            result[0] |= pictures.read_mask(mask, file)
        elif series.kind == DICOM:
            result[_slice(file, volume)] |= pictures.mask_of_size(mask, volume.pixels.shape[1:])
        else:
            raise NotAnalysable(f"the mask {mask.name} is a picture, the images are NIfTI: give a NIfTI mask")
    return result


def _slice(file: Path, volume: Volume) -> list[int]:
    """Index of the slice that comes from a DICOM file; none where it is no part of the stack, all of them for a multi-frame object of one."""
    uid = str(read_header(file).SOPInstanceUID)
    found = [index for index, frame in enumerate(volume.frames) if frame.sop_uid == uid]
    if len(found) > 1:
        raise NotAnalysable(f"the file {file.name} holds {len(found)} frames and its mask one: give a NIfTI mask")
    return found


def on_grid(mask: NDArray[np.bool_], places: Sequence[Place], pixels: int) -> NDArray[np.bool_]:
    """Bring a mask (slices, rows, columns) onto an analysis grid that lies on ``places``: true where at least half of a new pixel is inside."""
    result = np.zeros((len(places), pixels, pixels), dtype=np.bool_)
    for index, (image, place) in enumerate(zip(mask, places, strict=True)):
        if image.any():
            rows, columns = (
                weights(size, first, step, pixels)
                for size, first, step in zip(image.shape, (place.row, place.column), (place.row_step, place.column_step), strict=True)
            )
            result[index] = np.nan_to_num(sample(image.astype(np.float32), rows, columns)) >= 0.5
    return result
