"""The head of a spooled Part 10 file: preamble, prefix and file meta information with the sender facts (PS3.10 7.1)."""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass
from pathlib import Path

from pacs_node.dicom.file_meta import read_meta
from pacs_node.dicom.header import DAMAGED
from pacs_node.dicom.sop_classes import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pacs_node.dicom.uids import derive_uid
from pacs_node.errors import UnreadableObject
from pacs_node.records import Sender

PRIVATE_INFORMATION_CREATOR = derive_uid("pacs-node private information: association identifier")

_LONG_VRS = (b"OB", b"UR")  # two reserved bytes and a length of four bytes (PS3.5 7.1.2)
_PADDING = {b"UI": b"\0", b"OB": b"\0", b"AE": b" ", b"SH": b" ", b"UR": b" "}


@dataclass(frozen=True, slots=True)
class Incoming:
    """What is known of an instance before its bytes are read: who sends it and what the C-STORE command says."""

    sender: Sender
    sop_class: str
    sop_instance: str
    transfer_syntax: str


def head(incoming: Incoming, receiver: str = "") -> bytes:
    """Return everything that stands before the dataset.

    The source AE and address (0002,0016), (0002,0026) name who wrote the file, which is this node; the sending ones (0002,0017),
    (0002,0027) the peer; the receiving ones (0002,0018), (0002,0028) this node again. ``receiver`` is this node's ``host:port``.
    The association identifier stands in the private information (0002,0102).
    """
    before, after = _around(incoming.sender, incoming.sop_class, incoming.transfer_syntax, receiver)
    body = before + _element(0x0003, b"UI", incoming.sop_instance) * bool(incoming.sop_instance) + after
    return bytes(128) + b"DICM" + struct.pack("<HH2sHI", 0x0002, 0x0000, b"UL", 4, len(body)) + body


@functools.lru_cache(maxsize=256)
def _around(sender: Sender, sop_class: str, transfer_syntax: str, receiver: str) -> tuple[bytes, bytes]:
    """Return what stands before and after the SOP Instance UID: the same for all instances of a series."""
    before = [(0x0001, b"OB", "\0\x01"), (0x0002, b"UI", sop_class)]
    after = [
        (0x0010, b"UI", transfer_syntax),
        (0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
        (0x0013, b"SH", IMPLEMENTATION_VERSION_NAME),
        (0x0016, b"AE", sender.called_ae),
        (0x0017, b"AE", sender.calling_ae),
        (0x0018, b"AE", sender.called_ae),
        (0x0026, b"UR", _url(receiver)),
        (0x0027, b"UR", _url(sender.address)),
        (0x0028, b"UR", _url(receiver)),
        (0x0100, b"UI", PRIVATE_INFORMATION_CREATOR),
        (0x0102, b"OB", sender.association),
    ]
    return _elements(before), _elements(after)


def _elements(values: list[tuple[int, bytes, str]]) -> bytes:
    return b"".join(_element(number, vr, text) for number, vr, text in values if text)


def _element(number: int, vr: bytes, text: str) -> bytes:
    value = text.encode("ascii", "replace")
    if len(value) % 2:
        value += _PADDING[vr]
    if vr in _LONG_VRS:
        return struct.pack("<HH2sHI", 0x0002, number, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", 0x0002, number, vr, len(value)) + value


def _url(address: str) -> str:
    """Write ``host:port`` as a presentation address (PS3.10 7.1.1.1: scheme ``dicom`` for the upper layer protocol)."""
    return f"dicom://{address}" if address else ""


def sender_of(path: Path) -> Sender:
    """Read the sender facts back from a spooled file; raises `UnreadableObject` where it has no file meta information of ours."""
    meta = read_meta(path)
    try:
        return Sender(
            calling_ae=str(meta.get("SendingApplicationEntityTitle") or ""),
            called_ae=str(meta.get("ReceivingApplicationEntityTitle") or ""),
            address=str(meta.get("SendingPresentationAddress") or "").removeprefix("dicom://"),
            association=bytes(meta.PrivateInformation).decode("ascii").rstrip("\0"),
        )
    except DAMAGED as error:
        raise UnreadableObject(path.name, "its file meta information does not name the association it came over") from error
