"""The body of a STOW-RS request: Part 10 objects one after the other, read from their files as they are sent (PS3.18 8.6.1.2.1, RFC 2387).

::

    --boundary CRLF  Content-Type: application/dicom CRLF CRLF  [preamble, DICM, file meta information] [dataset as stored]  CRLF
    …
    --boundary-- CRLF
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import uuid4

from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID
from pynetdicom.dsutils import split_dataset

from pacs_node.dicom.file_meta import read_meta
from pacs_node.dicom.header import DAMAGED
from pacs_node.dicom.sop_classes import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pacs_node.errors import UnreadableObject
from pacs_node.records import Parcel

_CHUNK = 1 << 18
_PART = b"Content-Type: application/dicom\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Part:
    """One object as it is sent: a head of ours, then the file from where its dataset begins.

    The file meta information is written anew: that of a stored original says over which association it came, which concerns nobody else.
    """

    parcel: Parcel
    head: bytes
    offset: int
    dataset: int  # bytes

    @property
    def size(self) -> int:
        """Bytes of the object."""
        return len(self.head) + self.dataset


@dataclass(frozen=True, slots=True)
class Body:
    """A whole request body, of which nothing is in memory but the piece that is being sent."""

    parts: Sequence[Part]
    boundary: str

    @property
    def content_type(self) -> str:
        """The media type of the request."""
        return f'multipart/related; type="application/dicom"; boundary={self.boundary}'

    @property
    def size(self) -> int:
        """Bytes of the body."""
        around = len(self._before()) + len(_PART) + len(b"\r\n")
        return sum(part.size + around for part in self.parts) + len(self._end())

    def __iter__(self) -> Iterator[bytes]:
        """Give the body piece by piece; raises OSError where a file cannot be read to its end."""
        for part in self.parts:
            yield self._before() + _PART + part.head
            yield from _dataset(part)
            yield b"\r\n"
        yield self._end()

    def _before(self) -> bytes:
        return f"--{self.boundary}\r\n".encode()

    def _end(self) -> bytes:
        return f"--{self.boundary}--\r\n".encode()


def body_of(parts: Sequence[Part]) -> Body:
    """Return a request body with a boundary that nobody can have put into an object."""
    return Body(parts, uuid4().hex)


def part_of(parcel: Parcel) -> Part:
    """Look at a stored file; raises `UnreadableObject` where it is gone, damaged, or another object than the parcel says."""
    try:
        meta = read_meta(parcel.path)
        _, offset = split_dataset(parcel.path)
        size = parcel.path.stat().st_size
    except FileNotFoundError as error:
        raise UnreadableObject(f"the stored file {parcel.path}", "it is gone") from error
    except DAMAGED as error:
        raise UnreadableObject(str(parcel.path), f"where its dataset begins cannot be told ({error})") from error
    found = (meta.get("MediaStorageSOPInstanceUID"), meta.get("MediaStorageSOPClassUID"), meta.get("TransferSyntaxUID"))
    if found != (parcel.sop_uid, parcel.sop_class_uid, parcel.transfer_syntax_uid):
        raise UnreadableObject(str(parcel.path), f"its file meta information names another object than {parcel.sop_uid}")
    return Part(parcel, _head(parcel), offset, size - offset)


def _head(parcel: Parcel) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(parcel.sop_class_uid), UID(parcel.sop_uid)
    meta.TransferSyntaxUID = UID(parcel.transfer_syntax_uid)
    meta.ImplementationClassUID, meta.ImplementationVersionName = UID(IMPLEMENTATION_CLASS_UID), IMPLEMENTATION_VERSION_NAME
    written = DicomBytesIO()
    write_file_meta_info(written, meta)
    return bytes(128) + b"DICM" + written.getvalue()


def _dataset(part: Part) -> Iterator[bytes]:
    left = part.dataset
    with part.parcel.path.open("rb") as file:
        file.seek(part.offset)
        while left:
            chunk = file.read(min(_CHUNK, left))
            if not chunk:
                raise OSError(f"the stored file {part.parcel.path} became shorter while it was sent")
            left -= len(chunk)
            yield chunk
