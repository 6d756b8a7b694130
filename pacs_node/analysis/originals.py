"""The pixels of received objects as the scanner stored them, with their headers: what a compressed representation is made of."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder
from pydicom.uid import ExplicitVRBigEndian

from pacs_node.analysis import jpeg12
from pacs_node.analysis.pixels import _DECODER_FAULTS, MOST_PIXELS
from pacs_node.dicom.header import PIXEL_KEYWORDS, read_object, text_of
from pacs_node.errors import UndecodablePixels, UnreadableObject
from pacs_node.records import StoredImage

_WORDS = {"OW": 2, "OL": 4, "OF": 4, "OD": 8, "OV": 8}  # bytes of a word of a binary value
_PIXEL_GROUP = 0x7FE0


def read_images(files: Iterable[Path]) -> tuple[list[StoredImage], list[str]]:
    """Read the objects in ``files``, series by series in the order of their places in space or else of their numbers.

    Returns also why some are left out, a sentence each.
    """
    images, left_out = [], []
    for path in files:
        try:
            images.append(read_image(path))
        except (UndecodablePixels, UnreadableObject) as error:
            left_out.append(str(error))
    return sorted(images, key=_place), left_out


def read_image(path: Path) -> StoredImage:
    """Read one object; raises `UnreadableObject`, or `UndecodablePixels` where it has no integer pixels that can be decoded."""
    dataset = read_object(path)
    uid, syntax = text_of(dataset, "SOPInstanceUID"), getattr(dataset.file_meta.get("TransferSyntaxUID"), "name", "no transfer syntax")
    if "PixelData" not in dataset:
        floats = [keyword for keyword in PIXEL_KEYWORDS[1:] if keyword in dataset]
        raise UndecodablePixels(uid, syntax, f"{floats[0]} holds no integers" if floats else "the object has no pixels")
    try:
        frames, photometric = _frames(dataset)
    except _DECODER_FAULTS as error:
        raise UndecodablePixels(uid, syntax, f"{type(error).__name__}: {' '.join(str(error).split())}") from error
    if frames.dtype.kind not in "iu":
        raise UndecodablePixels(uid, syntax, "the pixels are no integers")
    return StoredImage(_without_pixels(dataset), frames, photometric)


def _frames(dataset: Dataset) -> tuple[NDArray[np.integer], str]:
    """Return all frames as they were stored (no colour is converted), and what the values mean."""
    rows, columns, count = int(dataset.Rows), int(dataset.Columns), int(dataset.get("NumberOfFrames") or 1)
    if not 0 < rows * columns <= MOST_PIXELS or count < 1:
        raise ValueError(f"{count} frames of {rows} × {columns} pixels are none, or more than this node decodes")
    if jpeg12.is_needed(dataset):
        return np.stack([np.asarray(jpeg12.decode(dataset, number), dtype=None) for number in range(1, count + 1)]), dataset.PhotometricInterpretation
    decoder, frames, meaning = get_decoder(dataset.file_meta.TransferSyntaxUID), [], str(dataset.PhotometricInterpretation)
    for index in range(count):
        frame, facts = decoder.as_array(dataset, index=index, raw=True)
        frames.append(frame)
        meaning = str(facts["photometric_interpretation"])
    stacked = np.stack(frames)
    return stacked.astype(stacked.dtype.newbyteorder("<"), copy=False), meaning


def _without_pixels(dataset: Dataset) -> Dataset:
    header = copy.copy(dataset)
    for tag in [tag for tag in header.keys() if tag.group == _PIXEL_GROUP]:  # noqa: SIM118 - iterating a dataset converts every value
        del header[tag]
    if dataset.file_meta.TransferSyntaxUID == ExplicitVRBigEndian:
        _turn_words(header)
    return header


def _turn_words(header: Dataset) -> None:
    """Bring binary values, which are not parsed, to little-endian order (PS3.5 7.3)."""
    for element in header.iterall():
        if element.VR in _WORDS and isinstance(element.value, bytes) and len(element.value) % _WORDS[element.VR] == 0:
            element.value = np.frombuffer(element.value, f"u{_WORDS[element.VR]}").byteswap().tobytes()


def _place(image: StoredImage) -> tuple[str, float, float, str]:
    """Sort by series, then by the distance along the normal, then by Instance Number."""
    header = image.header
    try:
        row, column = np.array(header.ImageOrientationPatient, dtype=float).reshape(2, 3)
        along = float(np.cross(row, column) @ np.array(header.ImagePositionPatient, dtype=float))
    except (AttributeError, TypeError, ValueError):
        along = 0.0
    try:
        number = float(header.get("InstanceNumber") or 0)
    except (TypeError, ValueError):
        number = 0.0
    return text_of(header, "SeriesInstanceUID"), along, number, text_of(header, "SOPInstanceUID")
