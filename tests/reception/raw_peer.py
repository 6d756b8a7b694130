"""A peer that speaks PDUs by hand, right or wrong, so that a test says every byte."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Sequence
from typing import ClassVar

from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

VERIFICATION = "1.2.840.10008.1.1"
PROPOSED = ((CTImageStorage, ExplicitVRLittleEndian), (VERIFICATION, "1.2.840.10008.1.2"), (CTImageStorage, "1.2.840.10008.1.2"))
COMMAND, LAST = 1, 2  # bits of the message control header
NO_DATASET, DATASET = 0x0101, 0x0000
RELEASE = struct.pack(">BxLxxxx", 0x05, 4)
ABORT = struct.pack(">BxLxxBB", 0x07, 4, 0, 0)
P_DATA, RELEASE_RP, ABORTED = 0x04, 0x06, 0x07


def element(tag: int, value: bytes) -> bytes:
    return struct.pack("<HHI", 0, tag, len(value)) + value


def us(tag: int, value: int) -> bytes:
    return element(tag, struct.pack("<H", value))


def uid(tag: int, value: str) -> bytes:
    return element(tag, value.encode() + b"\0" * (len(value) % 2))


def command_set(*elements: bytes) -> bytes:
    body = b"".join(elements)
    return element(0, struct.pack("<I", len(body))) + body


def c_store(message_id: int, instance: str, sop_class: str = CTImageStorage, dataset_type: int = DATASET) -> bytes:
    """Return the command set of a C-STORE-RQ."""
    fields = uid(0x0002, sop_class), us(0x0100, 0x0001), us(0x0110, message_id), us(0x0700, 0), us(0x0800, dataset_type), uid(0x1000, instance)
    return command_set(*fields)


def c_echo(message_id: int) -> bytes:
    return command_set(uid(0x0002, VERIFICATION), us(0x0100, 0x0030), us(0x0110, message_id), us(0x0800, NO_DATASET))


def c_cancel(message_id: int) -> bytes:
    return command_set(us(0x0100, 0x0FFF), us(0x0120, message_id), us(0x0800, NO_DATASET))


def dataset(instance: str, pixels: bytes = bytes(512), sop_class: str = CTImageStorage) -> bytes:
    """Return a small image in explicit VR little endian."""
    heads = b"".join(
        struct.pack("<HH2sH", 8, tag, b"UI", len(text) + len(text) % 2) + text.encode() + b"\0" * (len(text) % 2)
        for tag, text in ((0x16, sop_class), (0x18, instance))
    )
    return heads + struct.pack("<HH2sxxI", 0x7FE0, 0x0010, b"OW", len(pixels)) + pixels


def pdv(context: int, control: int, fragment: bytes) -> bytes:
    return struct.pack(">LBB", len(fragment) + 2, context, control) + fragment


def pdu(*pdvs: bytes, length: int | None = None) -> bytes:
    body = b"".join(pdvs)
    return struct.pack(">BxL", P_DATA, len(body) if length is None else length) + body


def message(context: int, command: bytes, data: bytes | None = None, size: int = 1 << 30) -> bytes:
    """Return the PDUs of a whole message, one presentation data value each, of at most ``size`` bytes."""
    return pdu(pdv(context, COMMAND | LAST, command)) + (b"" if data is None else fragments(context, data, size))


def fragments(context: int, data: bytes, size: int) -> bytes:
    starts = range(0, max(len(data), 1), size)
    return b"".join(pdu(pdv(context, LAST if start + size >= len(data) else 0, data[start : start + size])) for start in starts)


class RawPeer:
    """A connection with an association on it: context 1 CT, 3 verification, 5 CT in another encoding, unless ``contexts`` says otherwise."""

    opened: ClassVar[list[RawPeer]] = []  # closed by a fixture at the end of a test

    def __init__(self, port: int, tls: ssl.SSLContext | None = None, max_pdu: int = 16384, contexts: Sequence[tuple[str, str]] = ()) -> None:
        self.opened.append(self)
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket)
        self.send(association_request(contexts or PROPOSED, max_pdu))
        kind, _ = self.read_pdu()
        assert kind == 0x02, "the association was not accepted"

    def send(self, *parts: bytes) -> None:
        self.socket.sendall(b"".join(parts))

    def read_pdu(self) -> tuple[int, bytes]:
        """Return type and body of the next PDU; (0, b"") where the connection has ended."""
        try:
            head = self._exactly(6)
            kind, length = struct.unpack(">BxL", head)
            return kind, self._exactly(length)
        except (ConnectionError, ssl.SSLError):
            return 0, b""

    def _exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            piece = self.socket.recv(size - len(found))
            if not piece:
                raise ConnectionError
            found += piece
        return found

    def answer(self) -> tuple[int, int, int]:
        """Return (context, message ID being responded to, status) of the next response, put together from its fragments."""
        command = b""
        while True:
            kind, body = self.read_pdu()
            assert kind == P_DATA, f"a PDU of type {kind} came in place of a response"
            length, context, control = struct.unpack_from(">LBB", body)
            assert length == len(body) - 4 and control & COMMAND
            command += body[6:]
            if control & LAST:
                break
        fields = {}
        while command:
            _, tag, length = struct.unpack_from("<HHI", command)
            fields[tag], command = command[8 : 8 + length], command[8 + length :]
        return context, int.from_bytes(fields[0x0120], "little"), int.from_bytes(fields[0x0900], "little")

    def store(self, instance: str, message_id: int = 1) -> int:
        self.send(message(1, c_store(message_id, instance), dataset(instance)))
        context, answered, status = self.answer()
        assert (context, answered) == (1, message_id)
        return status

    def release(self) -> None:
        self.send(RELEASE)
        assert self.read_pdu()[0] == RELEASE_RP
        self.socket.close()

    def is_aborted(self) -> bool:
        """Tell whether the other side ends the association, with an A-ABORT or without."""
        return self.read_pdu()[0] in (0, ABORTED)


def _item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(body)) + body


def association_request(contexts: Sequence[tuple[str, str]] = PROPOSED, max_pdu: int = 16384) -> bytes:
    """Return an A-ASSOCIATE-RQ (PS3.8 9.3.2) with one transfer syntax a context."""
    proposed = b"".join(
        _item(0x20, bytes((2 * number + 1, 0, 0, 0)) + _item(0x30, sop_class.encode()) + _item(0x40, syntax.encode()))
        for number, (sop_class, syntax) in enumerate(contexts)
    )
    user = _item(0x50, _item(0x51, struct.pack(">L", max_pdu)) + _item(0x52, b"1.2.3.4"))
    body = struct.pack(">Hxx16s16s32x", 1, b"PACS_NODE".ljust(16), b"RAW".ljust(16)) + _item(0x10, b"1.2.840.10008.3.1.1.1") + proposed + user
    return struct.pack(">BxL", 0x01, len(body)) + body
