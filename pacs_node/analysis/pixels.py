"""One frame from stored values to physical units (PS3.3 C.11.1, C.7.5.1.1.2, C.7.6.3.1.2)."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import pixel_array
from pydicom.pixels.processing import apply_modality_lut

from pacs_node.dicom.header import text_of
from pacs_node.errors import UndecodablePixels

MOST_PIXELS = 2**26  # of one frame: 8192 × 8192; a header that claims more would only fill the memory

_DECODER_FAULTS = (ValueError, TypeError, KeyError, IndexError, AttributeError, NotImplementedError, RuntimeError, OSError, EOFError, MemoryError, struct.error)


def stored_values(dataset: Dataset, frame: int = 1) -> NDArray[np.generic]:
    """Decode one frame (1-based) to its stored values, shape (rows, columns); raises `UndecodablePixels` naming the instance."""
    uid, syntax = text_of(dataset, "SOPInstanceUID"), _syntax(dataset)
    rows, columns = dataset.get("Rows"), dataset.get("Columns")
    if not rows or not columns:
        raise UndecodablePixels(uid, syntax, "Rows or Columns is missing or zero")
    if rows * columns > MOST_PIXELS:
        raise UndecodablePixels(uid, syntax, f"{rows} × {columns} pixels are more than this node decodes")
    if int(dataset.get("SamplesPerPixel") or 1) != 1:
        raise UndecodablePixels(uid, syntax, "colour pixels have no physical unit")
    try:
        many = int(dataset.get("NumberOfFrames") or 1) > 1
        values = pixel_array(dataset, index=frame - 1) if many else pixel_array(dataset)
    except _DECODER_FAULTS as error:
        raise UndecodablePixels(uid, syntax, f"{type(error).__name__}: {' '.join(str(error).split())}") from error
    if values.shape != (rows, columns):
        raise UndecodablePixels(uid, syntax, f"the stream holds {values.shape} values, the header says ({rows}, {columns})")
    return np.asarray(values)


def _syntax(dataset: Dataset) -> str:
    syntax = getattr(dataset, "file_meta", Dataset()).get("TransferSyntaxUID")
    return str(getattr(syntax, "name", syntax or "no transfer syntax"))


def physical_values(stored: NDArray[np.generic], dataset: Dataset) -> NDArray[np.float32]:
    """Return float32 values after the modality transform, padding as NaN; same shape.

    The modality LUT sequence comes before rescale slope and intercept (PS3.3 C.11.1). MONOCHROME1 without any modality transform is
    turned round, so that larger always means brighter; with one the values have a unit, which no way of display may change.
    Raises `UndecodablePixels` where the modality LUT is damaged.
    """
    padding = padding_mask(stored, dataset)
    if dataset.get("ModalityLUTSequence"):
        values = _by_table(stored, dataset)
    elif dataset.get("RescaleSlope") is not None or dataset.get("RescaleIntercept") is not None:
        values = stored.astype(np.float32)
        values *= np.float32(_number(dataset, "RescaleSlope", 1.0))
        values += np.float32(_number(dataset, "RescaleIntercept", 0.0))
    elif text_of(dataset, "PhotometricInterpretation") == "MONOCHROME1":
        values = _turned(stored, dataset)
    else:
        values = stored.astype(np.float32)
    if padding is not None:
        values[padding] = np.nan
    return values


def _by_table(stored: NDArray[np.generic], dataset: Dataset) -> NDArray[np.float32]:
    try:
        return np.asarray(apply_modality_lut(stored, dataset), dtype=np.float32)
    except _DECODER_FAULTS as error:
        raise UndecodablePixels(text_of(dataset, "SOPInstanceUID"), _syntax(dataset), f"damaged Modality LUT Sequence ({error})") from error


def _turned(stored: NDArray[np.generic], dataset: Dataset) -> NDArray[np.float32]:
    bits = int(dataset.get("BitsStored") or dataset.get("BitsAllocated") or 8)
    highest = 2 ** (bits - 1) - 1 if dataset.get("PixelRepresentation") else 2**bits - 1
    lowest = -(2 ** (bits - 1)) if dataset.get("PixelRepresentation") else 0
    result: NDArray[np.float32] = (highest + lowest - stored.astype(np.float32)).astype(np.float32)
    return result


def _number(dataset: Dataset, keyword: str, default: float) -> float:
    try:
        value = dataset.get(keyword)
        return default if value is None else float(value)
    except (ValueError, TypeError) as error:
        raise UndecodablePixels(text_of(dataset, "SOPInstanceUID"), _syntax(dataset), f"{keyword} is not a number") from error


def padding_mask(stored: NDArray[np.generic], dataset: Dataset) -> NDArray[np.bool_] | None:
    """Return where ``stored`` holds Pixel Padding Value or its range (PS3.3 C.7.5.1.1.2), None without the attribute."""
    value = dataset.get("PixelPaddingValue")
    if not isinstance(value, int):
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    low, high = sorted((_as_stored(value, stored), _as_stored(limit if isinstance(limit, int) else value, stored)))
    if low == high:
        return np.asarray(stored == low)
    return np.asarray((stored >= low) & (stored <= high))  # type: ignore[operator]


def _as_stored(value: int, stored: NDArray[np.generic]) -> int:
    """Bring a padding value written under the other signedness (US for SS and the reverse) into the range of the pixels."""
    if stored.dtype.kind not in "iu":
        return value
    span = 1 << (8 * stored.dtype.itemsize)
    highest = span // 2 - 1 if stored.dtype.kind == "i" else span - 1
    if value > highest:
        return value - span
    return value + span if value <= highest - span else value


def read_physical(dataset: Dataset, frame: int = 1) -> NDArray[np.float32]:
    """Decode one frame (1-based) of ``dataset`` to physical units: float32 (rows, columns), NaN where padded."""
    return physical_values(stored_values(dataset, frame), dataset)
