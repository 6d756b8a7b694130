"""One frame from stored values to physical units (PS3.3 C.11.1, C.7.5.1.1.2, C.7.6.3.1.2)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import pixel_array
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.uid import ExplicitVRBigEndian

from pacs_node.analysis import jpeg12
from pacs_node.dicom.header import text_of
from pacs_node.errors import UndecodablePixels

_BRIGHTEST = 255.0
_LARGEST = float(np.finfo(np.float32).max)
MOST_PIXELS = 2**26  # of one frame: 8192 × 8192; a header that claims more would only fill the memory

_DECODER_FAULTS = (ValueError, TypeError, KeyError, IndexError, AttributeError, NotImplementedError, RuntimeError, OSError, EOFError, MemoryError, struct.error)


def stored_values(dataset: Dataset, frame: int = 1) -> NDArray[np.generic]:
    """Decode one frame (1-based) to its stored values, shape (rows, columns); raises `UndecodablePixels` naming the instance."""
    if int(dataset.get("SamplesPerPixel") or 1) != 1:
        raise UndecodablePixels(text_of(dataset, "SOPInstanceUID"), _syntax(dataset), "colour pixels have no physical unit")
    return _decoded(dataset, frame)


def _decoded(dataset: Dataset, frame: int) -> NDArray[np.generic]:
    """Decode one frame: (rows, columns), or (rows, columns, 3) red, green and blue."""
    uid, syntax = text_of(dataset, "SOPInstanceUID"), _syntax(dataset)
    rows, columns = dataset.get("Rows"), dataset.get("Columns")
    if not rows or not columns:
        raise UndecodablePixels(uid, syntax, "Rows or Columns is missing or zero")
    if rows * columns > MOST_PIXELS:
        raise UndecodablePixels(uid, syntax, f"{rows} × {columns} pixels are more than this node decodes")
    samples = int(dataset.get("SamplesPerPixel") or 1)
    expected = (rows, columns) if samples == 1 else (rows, columns, samples)
    try:
        if jpeg12.is_needed(dataset):
            return jpeg12.decode(dataset, frame)
        many = int(dataset.get("NumberOfFrames") or 1) > 1
        values = pixel_array(dataset, index=frame - 1) if many else pixel_array(dataset)
    except _DECODER_FAULTS as error:
        raise UndecodablePixels(uid, syntax, f"{type(error).__name__}: {' '.join(str(error).split())}") from error
    if values.shape != expected:
        raise UndecodablePixels(uid, syntax, f"the stream holds {values.shape} values, the header says {expected}")
    return np.asarray(values)


def shown_values(dataset: Dataset, frame: int = 1) -> NDArray[np.float32]:
    """Decode one frame (1-based) of an image that has brightness and no physical unit, scaled to 0…255.

    Shape (rows, columns) for grey, (rows, columns, 3) for RGB, YBR and palette colour (PS3.3 C.7.6.3.1.2); MONOCHROME1 is turned
    round, so that larger always means brighter. Raises `UndecodablePixels`.
    """
    stored = _decoded(dataset, frame)
    if text_of(dataset, "PhotometricInterpretation") == "PALETTE COLOR":
        return _by_palette(stored, dataset)
    bits = int(dataset.get("BitsStored") or 8)
    signed = dataset.get("PixelRepresentation") == 1 and stored.ndim == 2
    values = _turned(stored, dataset) if text_of(dataset, "PhotometricInterpretation") == "MONOCHROME1" else stored.astype(np.float32)
    result: NDArray[np.float32] = (values + (2 ** (bits - 1) if signed else 0)) * np.float32(_BRIGHTEST / (2**bits - 1))
    return result


def _by_palette(stored: NDArray[np.generic], dataset: Dataset) -> NDArray[np.float32]:
    try:
        colours = apply_color_lut(stored, _little_endian_palette(dataset))[..., :3]
        bits = int(dataset.RedPaletteColorLookupTableDescriptor[2])
    except _DECODER_FAULTS as error:
        raise UndecodablePixels(text_of(dataset, "SOPInstanceUID"), _syntax(dataset), f"damaged Palette Color Lookup Table ({error})") from error
    eight = bits == 8 and int(colours.max(initial=0)) < 256  # in tables of 16-bit words too; some makers declare 8 and fill 16
    return np.asarray(colours * np.float32(_BRIGHTEST / (255 if eight else np.iinfo(colours.dtype).max)), dtype=np.float32)


def _little_endian_palette(dataset: Dataset) -> Dataset:
    """The palette's words in the order that the decoder of palettes expects, whatever the transfer syntax (VR OW, PS3.5 7.3)."""
    syntax = getattr(dataset, "file_meta", Dataset()).get("TransferSyntaxUID")
    if syntax != ExplicitVRBigEndian or "RedPaletteColorLookupTableData" not in dataset:  # segmented tables are read in their own order
        return dataset
    turned = Dataset()
    for keyword in (f"{colour}PaletteColorLookupTable{part}" for colour in ("Red", "Green", "Blue") for part in ("Descriptor", "Data")):
        value = dataset[keyword].value
        setattr(turned, keyword, np.frombuffer(value, ">u2").astype("<u2").tobytes() if isinstance(value, bytes) else value)
    return turned


def _syntax(dataset: Dataset) -> str:
    syntax = getattr(dataset, "file_meta", Dataset()).get("TransferSyntaxUID")
    return str(getattr(syntax, "name", syntax or "no transfer syntax"))


def physical_values(stored: NDArray[np.generic], dataset: Dataset) -> NDArray[np.float32]:
    """Return float32 values after the modality transform, padding as NaN; same shape.

    The modality LUT sequence comes before rescale slope and intercept (PS3.3 C.11.1). MONOCHROME1 without any modality transform is
    turned round, so that larger always means brighter; with one the values have a unit, which no way of display may change.
    Raises `UndecodablePixels` where the modality LUT is damaged.
    """
    if not dataset.get("ModalityLUTSequence"):
        return rescale_of(stored.dtype, dataset)(stored)
    values = _by_table(stored, dataset)
    padding = padding_of(stored.dtype, dataset)
    if padding is not None:
        values[padding.mask(stored)] = np.nan
    return values


@dataclass(frozen=True, slots=True)
class Padding:
    """The stored values that stand for no pixel, both ends included (PS3.3 C.7.5.1.1.2)."""

    low: int
    high: int

    def mask(self, stored: NDArray[np.generic]) -> NDArray[np.bool_]:
        """Return where ``stored`` is padding."""
        if self.low == self.high:
            return np.asarray(stored == self.low)
        return np.asarray((stored >= self.low) & (stored <= self.high))  # type: ignore[operator]


@dataclass(frozen=True, slots=True)
class Rescale:
    """A modality transform without a table, apart from its header: the same for every pixel, so that any part of an image can be transformed."""

    slope: np.float32 | None = None
    intercept: np.float32 | None = None
    turned: int | None = None  # the value whose difference from a stored one is the value shown: of MONOCHROME1 without a unit
    padding: Padding | None = None

    def __call__(self, stored: NDArray[np.generic]) -> NDArray[np.float32]:
        """Return physical values, float32 of the same shape, padding as NaN."""
        values = stored.astype(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # values beyond all bounds become infinite; whoever looks at them refuses them
            if self.slope not in (None, 1):
                values *= self.slope
            if self.intercept not in (None, 0):
                values += self.intercept
        if self.turned is not None:
            values = (self.turned - values).astype(np.float32)
        if self.padding is not None:
            np.copyto(values, np.float32(np.nan), where=self.padding.mask(stored))
        return values


def rescale_of(stored: np.dtype[np.generic], dataset: Dataset) -> Rescale:
    """Return the modality transform of an image without Modality LUT Sequence; raises `UndecodablePixels` where it is damaged."""
    padding = padding_of(stored, dataset)
    if dataset.get("RescaleSlope") is not None or dataset.get("RescaleIntercept") is not None:
        slope, intercept = _number(dataset, "RescaleSlope", 1.0), _number(dataset, "RescaleIntercept", 0.0)
        return Rescale(np.float32(slope), np.float32(intercept), padding=padding)
    if text_of(dataset, "PhotometricInterpretation") == "MONOCHROME1":
        return Rescale(turned=_turning_point(dataset), padding=padding)
    return Rescale(padding=padding)


def _by_table(stored: NDArray[np.generic], dataset: Dataset) -> NDArray[np.float32]:
    try:
        return np.asarray(apply_modality_lut(stored, dataset), dtype=np.float32)
    except _DECODER_FAULTS as error:
        raise UndecodablePixels(text_of(dataset, "SOPInstanceUID"), _syntax(dataset), f"damaged Modality LUT Sequence ({error})") from error


def _turned(stored: NDArray[np.generic], dataset: Dataset) -> NDArray[np.float32]:
    result: NDArray[np.float32] = (_turning_point(dataset) - stored.astype(np.float32)).astype(np.float32)
    return result


def _turning_point(dataset: Dataset) -> int:
    """Highest and lowest value that can be stored, added."""
    bits = int(dataset.get("BitsStored") or dataset.get("BitsAllocated") or 8)
    highest = 2 ** (bits - 1) - 1 if dataset.get("PixelRepresentation") else 2**bits - 1
    lowest = -(2 ** (bits - 1)) if dataset.get("PixelRepresentation") else 0
    return int(highest + lowest)


def _number(dataset: Dataset, keyword: str, default: float) -> float:
    try:
        value = dataset.get(keyword)
        number = default if value is None else float(value)
    except (ValueError, TypeError) as error:
        raise UndecodablePixels(text_of(dataset, "SOPInstanceUID"), _syntax(dataset), f"{keyword} is not a number") from error
    if not abs(number) <= _LARGEST:
        raise UndecodablePixels(text_of(dataset, "SOPInstanceUID"), _syntax(dataset), f"{keyword} is no finite number, or beyond all bounds")
    return number


def padding_of(stored: np.dtype[np.generic], dataset: Dataset) -> Padding | None:
    """Return Pixel Padding Value or its range as it occurs among values of type ``stored``, None without the attribute."""
    value = dataset.get("PixelPaddingValue")
    if not isinstance(value, int):
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    return Padding(*sorted((_as_stored(value, stored), _as_stored(limit if isinstance(limit, int) else value, stored))))


def _as_stored(value: int, stored: np.dtype[np.generic]) -> int:
    """Bring a padding value written under the other signedness (US for SS and the reverse) into the range of the pixels."""
    if stored.kind not in "iu":
        return value
    span = 1 << (8 * stored.itemsize)
    highest = span // 2 - 1 if stored.kind == "i" else span - 1
    if value > highest:
        return value - span
    return value + span if value <= highest - span else value


def read_physical(dataset: Dataset, frame: int = 1) -> NDArray[np.float32]:
    """Decode one frame (1-based) of ``dataset`` to physical units: float32 (rows, columns), NaN where padded."""
    return physical_values(stored_values(dataset, frame), dataset)
