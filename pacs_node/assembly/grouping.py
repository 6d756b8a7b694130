"""What is an object that came again? Compared as datasets, never as files.

::

    same bytes, or same attributes and pixels ───────────────────────────────► SAME
    same pixels, same patient; other transfer syntax or other attributes ────► SAME_PIXELS        a duplicate
    same pixels, another patient ────────────────────────────────────────────► IDENTITY_CHANGED   work is done again
    other pixels, other content, another place, or nobody can tell ──────────► CONFLICT           kept aside
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import zip_longest
from pathlib import Path

import numpy as np
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.pixels import iter_pixels
from pydicom.tag import BaseTag

from pacs_node.assembly.encoded import StoredObject, decodable, fingerprint, read_stored
from pacs_node.dicom.header import DAMAGED, identity, text_of

_DECODE_LIMIT = 1 << 30  # bytes of one decoded frame

# Where an object belongs: it never moves.
_PLACE = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")

# What stored pixel values mean (PS3.3 C.11.1, C.7.6.3): other values here make another image of the same bytes.
_MEANING = ("RescaleSlope", "RescaleIntercept", "RescaleType", "ModalityLUTSequence", "PixelPaddingValue", "PixelPaddingRangeLimit")

_SHAPE = ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel")
_LAYOUT = ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PlanarConfiguration", "PhotometricInterpretation")

# The patient, as `identity` reads it
_IDENTITY = ("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate")

# Follows from how the pixels are encoded: the extended offset tables, and the padding at the end
_ENCODING_TAGS = (0x7FE00001, 0x7FE00002, 0x7FE00003, 0xFFFCFFFC)

# Groups whose plain attributes describe the circumstances of an object without pixels; all else in it is its content.
_CIRCUMSTANCE_GROUPS = (0x0008, 0x0010, 0x0032, 0x0038)


class Likeness(StrEnum):
    """What a repeat is; see the module's picture."""

    SAME = "same"
    SAME_PIXELS = "same pixels"
    IDENTITY_CHANGED = "identity changed"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class Repeat:
    """How a new object compares with the one that is here.

    ``why``: part of a sentence for people; it holds no header contents. ``differs``: the keywords (or tags) of the attributes whose
    values differ.
    """

    likeness: Likeness
    why: str
    differs: tuple[str, ...] = ()


def compare(old: Path, new: Path) -> Repeat:
    """Compare two files of one SOP Instance UID; raises `UnreadableObject` naming the one that cannot be read.

    Memory stays bounded: bytes are digested as a stream, and pixels decoded frame by frame, only where two encodings differ. A
    lossy transcode has other pixels.
    """
    if fingerprint(old) == fingerprint(new):
        return Repeat(Likeness.SAME, "the datasets are equal byte for byte")
    one, other = read_stored(old), read_stored(new)
    tags = tuple(_differences(one.header, other.header))
    differs = tuple(map(_name, tags))
    moved = [keyword for keyword in _PLACE if keyword in differs]
    if moved:
        return Repeat(Likeness.CONFLICT, f"the object names another {', '.join(moved)}", differs)
    problem = _content_problem(one, other, tags)
    if problem:
        return Repeat(Likeness.CONFLICT, problem, differs)
    if identity(one.header) != identity(other.header):
        return Repeat(Likeness.IDENTITY_CHANGED, f"the same image, but the patient's {', '.join(_changed_identity(differs))} changed", differs)
    if not differs and one.transfer_syntax == other.transfer_syntax:
        return Repeat(Likeness.SAME, "all attributes and pixels are equal")
    parts = [f"{len(differs)} attributes differ"] if differs else []
    if one.transfer_syntax != other.transfer_syntax:
        parts.append(f"the transfer syntax changed from {one.transfer_syntax.name} to {other.transfer_syntax.name}")
    return Repeat(Likeness.SAME_PIXELS, f"pixels and patient are the same; {' and '.join(parts)}", differs)


def ensure_readable(path: Path) -> None:
    """Raise `UnreadableObject` where an object cannot be read to its end."""
    fingerprint(path)
    read_stored(path)


def _changed_identity(differs: tuple[str, ...]) -> list[str]:
    return [keyword for keyword in _IDENTITY if keyword in differs]


# --- attributes --------------------------------------------------------------------------------------------------------


def _differences(one: Dataset, other: Dataset) -> Iterator[BaseTag]:
    """Yield the attributes whose values differ; absent, empty and padded count as equal."""
    for tag in sorted({*one.keys(), *other.keys()}):
        encoding_only = tag in _ENCODING_TAGS or tag.element == 0x0000  # 0000: a retired group length
        if not encoding_only and not _equal(one, other, tag):
            yield tag


def _name(tag: BaseTag) -> str:
    return keyword_for_tag(tag) or f"({tag.group:04X},{tag.element:04X})"


def _equal(one: Dataset, other: Dataset, tag: BaseTag) -> bool:
    try:
        if tag in one and tag in other and _same_bytes(one.get_item(tag), other.get_item(tag)):
            return True  # without decoding, which may fail
        first, second = one.get(tag), other.get(tag)
        if "SQ" in (getattr(first, "VR", None), getattr(second, "VR", None)):
            return _same_items(_items(first), _items(second))
        return bool(_plain(first) == _plain(second))
    except DAMAGED:
        return False  # what cannot be read is not known to be equal


def _items(element: DataElement | None) -> Sequence[Dataset]:
    """Return the items of a sequence; raises TypeError where it is none, such as a private one of unknown representation."""
    if element is not None and element.VR != "SQ":
        raise TypeError(f"{element.tag} is no sequence")
    return () if element is None else element.value


def _same_items(one: Sequence[Dataset], other: Sequence[Dataset]) -> bool:
    return len(one) == len(other) and not any(any(_differences(*pair)) for pair in zip(one, other, strict=True))


def _same_bytes(one: object, other: object) -> bool:
    if not isinstance(one, RawDataElement) or not isinstance(other, RawDataElement):
        return False
    return one._replace(value_tell=0) == other._replace(value_tell=0)  # everything but its place in the file


def _plain(element: DataElement | None) -> object:
    value = None if element is None else element.value
    if isinstance(value, str):
        return value.strip().strip("\0").strip() or None
    if isinstance(value, int) and element is not None and element.VR in ("US", "SS"):
        return value & 0xFFFF  # implicit encodings leave it open which of the two it is
    return None if value is None or value in (b"", []) else value


# --- pixels ------------------------------------------------------------------------------------------------------------


def _content_problem(one: StoredObject, other: StoredObject, tags: tuple[BaseTag, ...]) -> str:
    """Return why the two do not show the same, ``""`` where they do."""
    if one.pixel_tag != other.pixel_tag:
        return "only one of the two objects has pixels of this kind"
    if one.pixel_tag is None:
        content = [_name(tag) for tag in tags if _is_content(one.header, other.header, tag)]
        return f"its content differs in {', '.join(content)}" if content else ""
    names = set(map(_name, tags))
    meaning = [keyword for keyword in _MEANING if keyword in names]
    if _inverted(one.header) != _inverted(other.header):
        meaning.append("PhotometricInterpretation")
    if meaning:
        return f"its pixels mean something else: {', '.join(meaning)} changed"
    shape = [keyword for keyword in _SHAPE if keyword in names]
    if shape:
        return f"its pixels have another shape: {', '.join(shape)} changed"
    return _pixel_problem(one, other)


def _is_content(one: Dataset, other: Dataset, tag: BaseTag) -> bool:
    return tag.group not in _CIRCUMSTANCE_GROUPS or any(tag in header and _is_sequence(header, tag) for header in (one, other))


def _is_sequence(header: Dataset, tag: BaseTag) -> bool:
    try:
        return header[tag].VR == "SQ"
    except DAMAGED:
        return True  # as it seems: single values are no reason to give up


def _inverted(header: Dataset) -> bool:
    return text_of(header, "PhotometricInterpretation") == "MONOCHROME1"


def _pixel_problem(one: StoredObject, other: StoredObject) -> str:
    if _byte_order(one) == _byte_order(other) and _same_layout(one.header, other.header):
        if one.pixels == other.pixels:
            return ""
        if not one.transfer_syntax.is_encapsulated:
            return "its pixels differ"  # two compressed streams may still hold the same pixels
    try:
        return "" if all(_same_frame(*pair) for pair in zip_longest(_frames(one), _frames(other))) else "its pixels differ"
    except (*DAMAGED, RuntimeError) as error:
        syntaxes = " and ".join(dict.fromkeys(stored.transfer_syntax.name for stored in (one, other)))
        return f"its pixels cannot be compared, for they cannot be decoded ({syntaxes}; {type(error).__name__})"


def _byte_order(stored: StoredObject) -> str:
    """Return what two pixel streams must have in common to be comparable as bytes: the codec, or uncompressed and one byte order."""
    syntax = stored.transfer_syntax
    if syntax.is_encapsulated:
        return str(syntax)
    return "little" if syntax.is_little_endian else "big"


def _same_layout(one: Dataset, other: Dataset) -> bool:
    return all(text_of(one, keyword) == text_of(other, keyword) for keyword in _LAYOUT)


def _frames(stored: StoredObject) -> Iterator[np.ndarray]:
    header = stored.header
    size = int(header.Rows) * int(header.Columns) * int(header.get("SamplesPerPixel") or 1) * max(1, int(header.BitsAllocated) // 8)
    if size > _DECODE_LIMIT:
        raise ValueError(f"one frame has {size} bytes")
    with decodable(stored) as stream:
        yield from iter_pixels(stream)


def _same_frame(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    return one is not None and other is not None and bool(np.array_equal(one, other))
