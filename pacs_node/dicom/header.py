"""Reading headers: who the patient is, which object it is, whether we made it ourselves."""

from __future__ import annotations

import re
import struct
import unicodedata
import zlib
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset, read_file_meta_info
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from pacs_node.dicom import remarks
from pacs_node.errors import UnreadableObject
from pacs_node.records import PatientIdentity

remarks.leave_out()  # here because everybody who reads objects comes by

# What parsing damaged or hostile bytes may raise in pydicom, struct and zlib
DAMAGED = (
    ArithmeticError, AssertionError, AttributeError, BytesLengthException, EOFError, LookupError, MemoryError, NotImplementedError, OSError, RecursionError,
    TypeError, ValueError, struct.error, zlib.error,
)  # fmt: skip

_MOST_INFLATED = 256 << 20  # bytes: a deflated dataset that grows beyond this is not opened
_LAST_LEADING_TAG = 0x00080018
_INFLATE_LIMIT = 256 * 1024  # bytes of a deflated dataset that are looked at to find the two UIDs

_HEAD = 132 + 12  # preamble, DICM, and the element (0002,0000) itself
_HEADER_ENDS = "header_ends"  # attribute of a header: where in its file the pixels begin
_OF_PIXELS = (0x0028, 0x7FE0)  # groups that describe pixels
_SOP_INSTANCE_UID = 0x00080018

PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


def leading_uids(head: bytes, transfer_syntax_uid: str) -> tuple[str, str]:
    """Return (SOP Class UID, SOP Instance UID) from the first bytes of an encoded dataset.

    Reads group 0008 as far as (0008,0018) and nothing more; of a deflated dataset at most 256 KiB are inflated.
    Raises `UnreadableObject` where they cannot be reached.
    """
    syntax = UID(transfer_syntax_uid)
    try:
        if syntax == DeflatedExplicitVRLittleEndian:
            head = zlib.decompressobj(-zlib.MAX_WBITS).decompress(head, _INFLATE_LIMIT)
        leading = read_dataset(
            BytesIO(head),
            is_implicit_VR=syntax == ImplicitVRLittleEndian,
            is_little_endian=syntax != ExplicitVRBigEndian,
            stop_when=_after_leading,
            defer_size=None,
        )
        return _uid_in(leading, "SOPClassUID"), _uid_in(leading, "SOPInstanceUID")
    except AttributeError as error:
        raise UnreadableObject("the dataset", "no SOP Class UID and SOP Instance UID at its beginning") from error
    except DAMAGED as error:
        raise UnreadableObject("the dataset", f"its beginning cannot be parsed ({error})") from error


def _uid_in(dataset: Dataset, keyword: str) -> str:
    value = getattr(dataset, keyword)
    if isinstance(value, Sequence):
        raise ValueError(f"{keyword} is written as a sequence")
    return str(value).strip()


def _after_leading(tag: BaseTag, vr: str | None, length: int) -> bool:
    return bool(tag > _LAST_LEADING_TAG)


def read_header(source: Path | BinaryIO, what: str | None = None) -> Dataset:
    """Read a Part 10 file without its pixels; raises `UnreadableObject` naming it."""
    return _read(source, what, stop_before_pixels=True)


def read_object(source: Path | BinaryIO, what: str | None = None) -> Dataset:
    """Read a Part 10 file with its pixels; raises `UnreadableObject` naming it."""
    return _read(source, what, stop_before_pixels=False)


def _read(source: Path | BinaryIO, what: str | None, *, stop_before_pixels: bool) -> Dataset:
    name = what or str(source)
    try:
        _refuse_bomb(source, name)
        dataset = _read_and_remember(source) if stop_before_pixels and isinstance(source, Path) else dcmread(source, stop_before_pixels=stop_before_pixels)
        for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
            if not text_of(dataset, keyword):
                raise UnreadableObject(name, f"{keyword} is missing or empty")
        return dataset
    except InvalidDicomError as error:
        raise UnreadableObject(name, "no DICOM Part 10 header (the letters DICM at byte 128)") from error
    except UnreadableObject:
        raise
    except DAMAGED as error:
        raise UnreadableObject(name, f"{type(error).__name__}: {error}") from error


def _read_and_remember(path: Path) -> Dataset:
    """Read a header, and remember where it ended; of a deflated dataset no place in the file can be said."""
    with path.open("rb") as file:
        header = dcmread(file, stop_before_pixels=True)
        if header.file_meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
            setattr(header, _HEADER_ENDS, file.tell())
    return header


def with_pixels(header: Dataset, path: Path) -> Dataset:
    """Return the pixels in ``path`` with what describes them, without parsing again the header that `read_header` read from it.

    That is group 0028, the file meta information and the SOP Instance UID; the whole object where nobody remembers where its header ended.
    Raises `UnreadableObject`.
    """
    end = getattr(header, _HEADER_ENDS, None)
    if end is None:
        return read_object(path)
    try:
        with path.open("rb") as file:
            file.seek(end)
            image = read_dataset(file, *header.original_encoding)
        for tag in list(header._dict):  # iterating over the dataset itself would read its values
            if tag.group in _OF_PIXELS or tag == _SOP_INSTANCE_UID:
                image[tag] = header.get_item(tag)
        image.file_meta = header.file_meta
    except DAMAGED as error:
        raise UnreadableObject(str(path), f"{type(error).__name__}: {error}") from error
    return image


def _refuse_bomb(source: Path | BinaryIO, name: str) -> None:
    """Raise `UnreadableObject` for a deflated dataset that would fill the memory (PS3.5 A.5); others pass unread."""
    if not isinstance(source, Path):
        return
    meta = read_file_meta_info(source)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    inflate, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    with open(source, "rb") as file:
        file.seek(_HEAD + int(meta.FileMetaInformationGroupLength))
        waiting = file.read(1 << 16)
        while waiting:
            size += len(inflate.decompress(waiting, 1 << 20))
            if size > _MOST_INFLATED:
                raise UnreadableObject(name, f"its deflated dataset grows beyond {_MOST_INFLATED >> 20} MiB")
            waiting = inflate.unconsumed_tail or file.read(1 << 16)


def text_of(dataset: Dataset, keyword: str) -> str:
    """Return a value as stripped text, several joined by backslash; ``""`` where it is absent, empty, unreadable or a sequence."""
    try:
        value = dataset.get(keyword)
        if value is None or isinstance(value, Sequence):
            return ""
        if isinstance(value, Iterable) and not isinstance(value, str | bytes) and not hasattr(value, "original_string"):
            return "\\".join(_storable(part) for part in value)
        return _storable(value)
    except DAMAGED:
        return ""


def _storable(value: object) -> str:
    """Return a value as text that every database takes: no NUL, no lone surrogates, no blanks around it."""
    return str(value).encode("utf-8", "replace").decode().replace("\0", " ").strip()


def number_of(dataset: Dataset, keyword: str) -> int | None:
    """Return an attribute as a 32-bit integer, None where it is absent or anything else."""
    text = text_of(dataset, keyword)
    digits = text.removeprefix("-").removeprefix("+")
    if not digits.isascii() or not digits.isdecimal() or len(digits) > 10:
        return None
    number = int(text)
    return number if -(2**31) <= number < 2**31 else None


def identity(dataset: Dataset) -> PatientIdentity:
    """Return the normalised identity: case, padding, Unicode form and empty trailing name components do not tell patients apart."""
    name = "=".join("^".join(normalised(part) for part in group.split("^")).rstrip("^") for group in text_of(dataset, "PatientName").split("="))
    return PatientIdentity(
        patient_id=normalised(text_of(dataset, "PatientID")),
        issuer=normalised(text_of(dataset, "IssuerOfPatientID")),
        name=name.rstrip("="),
        birth_date=re.sub(r"[^0-9]", "", text_of(dataset, "PatientBirthDate")),
    )


def normalised(text: str) -> str:
    """Return a text as it is compared: case, padding and Unicode form tell nothing apart."""
    return " ".join(unicodedata.normalize("NFKC", text).split()).upper()


def made_by(dataset: Dataset, device_uid: str) -> bool:
    """Tell whether a Contributing Equipment item (PS3.3 C.12.1.1.5) of the dataset carries ``device_uid``: the loop guard's question."""
    try:
        items = dataset.get("ContributingEquipmentSequence") or ()
        return any(device_uid in text_of(item, "DeviceUID").split("\\") for item in items if isinstance(item, Dataset))
    except DAMAGED:
        return False


def is_synthetic(dataset: Dataset) -> bool:
    """Tell whether the dataset says that it shows no patient (Synthetic Data (0008,001C) = YES)."""
    return text_of(dataset, "SyntheticData").upper() == "YES"


def nested_deeper(dataset: Dataset, most: int) -> bool:
    """Tell whether sequences lie in sequences more than ``most`` deep; what cannot be parsed as a sequence counts as none."""
    for tag in dataset.keys():  # noqa: SIM118 - iterating a dataset converts every value
        try:
            element = dataset.get_item(tag)
            if element is None or element.VR not in ("SQ", "UN", None):
                continue
            items = dataset[tag].value if dataset[tag].VR == "SQ" else ()
        except DAMAGED:
            continue
        if items and (most < 1 or any(nested_deeper(item, most - 1) for item in items)):
            return True
    return False


def has_pixels(dataset: Dataset) -> bool:
    """Tell whether the object describes pixels (also after reading without them)."""
    return "Rows" in dataset and "Columns" in dataset and "BitsAllocated" in dataset
