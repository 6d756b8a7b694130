"""A stored object as bytes and as attributes, without ever holding its pixels: what comparing two files needs.

A Part 10 file is preamble, file meta information, dataset (PS3.10 7.1). Only the dataset is the object: the file meta information
says how it came and is different for every arrival.
"""

from __future__ import annotations

import hashlib
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, cast

from pydicom.dataset import Dataset
from pydicom.encaps import generate_fragments
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pacs_node.dicom.header import DAMAGED
from pacs_node.errors import UnreadableObject

_CHUNK = 1 << 20
_INFLATE_LIMIT = 4 << 30  # bytes of an inflated dataset
_PREAMBLE = 132
_PIXEL_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)  # float, double and integer pixel data
_UNDEFINED_LENGTH = 0xFFFFFFFF

# The shortest beginning of a Part 10 file with an uncompressed dataset: (0002,0000) and (0002,0010)
_SYNTAX_ELEMENT = b"\x02\x00\x10\x00UI\x14\x00" + ExplicitVRLittleEndian.encode() + b"\0"
_PLAIN_HEAD = bytes(128) + b"DICM\x02\x00\x00\x00UL\x04\x00" + len(_SYNTAX_ELEMENT).to_bytes(4, "little") + _SYNTAX_ELEMENT


@dataclass(frozen=True, slots=True, eq=False)
class StoredObject:
    """A file's object: its attributes before the pixels, and fingerprints (SHA-256, hexadecimal) of its bytes.

    ``pixels`` is that of the pixel data: of the value itself, or of the compressed stream without the way it is cut into
    fragments; ``""`` for an object without pixel data.
    """

    path: Path
    transfer_syntax: UID
    header: Dataset
    pixels: str
    pixel_tag: int | None


def fingerprint(path: Path) -> tuple[str, str]:
    """Return transfer syntax and SHA-256 of the dataset's bytes; raises `UnreadableObject`."""
    try:
        with path.open("rb") as stream:
            syntax = _skip_meta(stream)
            digest = hashlib.sha256()
            _feed(stream, None, digest)
            return str(syntax), digest.hexdigest()
    except DAMAGED as error:
        raise UnreadableObject(str(path), f"{type(error).__name__}: {error}") from error


def read_stored(path: Path) -> StoredObject:
    """Read a file's attributes, and its pixel data only as a stream; raises `UnreadableObject`."""
    try:
        with path.open("rb") as raw:
            syntax = _skip_meta(raw)
            with _inflated(raw, syntax) as stream:
                header = read_dataset(
                    stream,
                    is_implicit_VR=syntax == ImplicitVRLittleEndian,
                    is_little_endian=syntax != ExplicitVRBigEndian,
                    stop_when=_at_pixels,
                )
                tag, pixels = _digest_pixels(stream, syntax)
            return StoredObject(path, syntax, header, pixels, tag)
    except DAMAGED as error:
        raise UnreadableObject(str(path), f"{type(error).__name__}: {error}") from error


def _skip_meta(stream: BinaryIO) -> UID:
    """Leave the stream at the first byte of the dataset; returns its transfer syntax."""
    if stream.read(_PREAMBLE)[-4:] != b"DICM":
        raise ValueError("no DICOM Part 10 header (the letters DICM at byte 128)")
    meta = read_dataset(stream, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, vr, length: tag.group != 0x0002)
    syntax = UID(str(meta.TransferSyntaxUID).strip())
    if not syntax.is_transfer_syntax:
        raise ValueError("its Transfer Syntax UID names no transfer syntax")
    return syntax


def _at_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag in _PIXEL_TAGS


@contextmanager
def decodable(stored: StoredObject) -> Iterator[BinaryIO]:
    """Open an object as a Part 10 stream from which frames can be decoded one by one: a deflated one as its inflated copy."""
    with stored.path.open("rb") as raw:
        if stored.transfer_syntax == DeflatedExplicitVRLittleEndian:
            _skip_meta(raw)
        with _inflated(raw, stored.transfer_syntax, _PLAIN_HEAD) as stream:
            stream.seek(0)
            yield stream


@contextmanager
def _inflated(raw: BinaryIO, syntax: UID, head: bytes = b"") -> Iterator[BinaryIO]:
    """Give the dataset as it is, or inflated (PS3.5 A.5) behind ``head`` in a temporary file; the stream stands at its beginning."""
    if syntax != DeflatedExplicitVRLittleEndian:
        yield raw
        return
    with tempfile.TemporaryFile() as stream:
        stream.write(head)
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        chunk = raw.read(_CHUNK)
        while chunk and not inflate.eof:
            stream.write(inflate.decompress(chunk, _CHUNK))
            if stream.tell() > _INFLATE_LIMIT:
                raise ValueError(f"its dataset is larger than {_INFLATE_LIMIT >> 30} GiB when inflated")
            chunk = inflate.unconsumed_tail or raw.read(_CHUNK)
        stream.seek(len(head))
        yield cast(BinaryIO, stream)


def _digest_pixels(stream: BinaryIO, syntax: UID) -> tuple[int | None, str]:
    head = stream.read(8)
    if len(head) < 8:
        return None, ""
    order: Literal["big", "little"] = "big" if syntax == ExplicitVRBigEndian else "little"
    tag = int.from_bytes(head[:2], order) << 16 | int.from_bytes(head[2:4], order)
    length = int.from_bytes(head[4:] if syntax == ImplicitVRLittleEndian else stream.read(4), order)
    digest = hashlib.sha256()
    if length != _UNDEFINED_LENGTH:
        _feed(stream, length, digest)
        return tag, digest.hexdigest()
    for index, fragment in enumerate(generate_fragments(stream)):
        if index:  # the first is the basic offset table (PS3.5 A.4)
            digest.update(fragment)
    return tag, digest.hexdigest()


def _feed(stream: BinaryIO, length: int | None, digest: hashlib._Hash) -> None:
    """Digest ``length`` bytes of a stream, or what is left of it; raises EOFError where it ends early."""
    left = length
    while left is None or left > 0:
        chunk = stream.read(_CHUNK if left is None else min(_CHUNK, left))
        if not chunk:
            if left is None:
                return
            raise EOFError(f"the pixel data ends {left} bytes early")
        digest.update(chunk)
        left = None if left is None else left - len(chunk)
