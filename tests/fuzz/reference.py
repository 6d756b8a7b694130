"""What a stream of bytes says, read slowly and by the letter of PS3.7 and PS3.8: the second opinion on what a receiver makes of it."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from pynetdicom.pdu import A_ASSOCIATE_AC

from tests.fuzz.mutation import pdus
from tests.reception.raw_peer import VERIFICATION

C_STORE_RQ, C_STORE_RSP, C_ECHO_RQ, C_CANCEL_RQ = 0x0001, 0x8001, 0x0030, 0x0FFF
LONGEST_PDU = 1 << 20  # bytes, as receivers announce it
_COMMAND, _LAST, _NO_DATASET = 1, 2, 0x0101


@dataclass(frozen=True, slots=True)
class Message:
    """A message that came to its end."""

    context: int
    command: bytes
    data: bytes | None

    def fields(self) -> list[tuple[int, int, bytes]]:
        """Return (group, element, value) of the command's elements, the last of which may be cut short."""
        found, offset = [], 0
        while offset + 8 <= len(self.command):
            group, number, length = struct.unpack_from("<HHL", self.command, offset)
            found.append((group, number, self.command[offset + 8 : offset + 8 + length]))
            offset += 8 + length
        return found

    def field(self, tag: int) -> bytes | None:
        """Return the value of a command element, the last where there are several, None where there is none."""
        return next((value for group, number, value in reversed(self.fields()) if (group, number) == (0, tag)), None)

    def number(self, tag: int) -> int | None:
        """Return a command element of two bytes."""
        value = self.field(tag)
        return int.from_bytes(value, "little") if value is not None and len(value) == 2 else None

    def uid(self, tag: int) -> str:
        """Return a UID without its padding."""
        return (self.field(tag) or b"").decode("latin-1").strip(" \0")


@dataclass
class Stream:
    """Everything that one side says on an association, as far as it keeps to the rules.

    ``answers``: it is the side that answers; ``end``: how it ends: ``open`` (not at all), ``release``, ``abort``, or ``wrong`` where a rule is
    broken; ``accepted``, in answers: the transfer syntax of each context; ``shared``: some PDU holds several values.
    """

    answers: bool
    messages: list[Message] = field(default_factory=list)
    end: str = "open"
    accepted: dict[int, str] = field(default_factory=dict)
    shared: bool = False
    _context: int = 0
    _command: bytes = b""
    _data: bytes | None = None  # None: the command is not complete

    def take_pdu(self, pdu: bytes) -> None:
        """Take a PDU, the last of which may be cut short."""
        kind, length = struct.unpack_from(">BxL", pdu)
        if kind == 0x04 and length <= LONGEST_PDU:
            self._take_values(pdu[6:], length)
        elif len(pdu) < 6 + length:
            return
        elif kind == 0x02 and self.answers:
            self.accepted = _accepted(pdu)
        else:
            self.end = {0x05: "release", 0x06: "release", 0x07: "abort"}.get(kind, "wrong")

    def _take_values(self, body: bytes, length: int) -> None:
        place = 0
        while place < length and self.end == "open":
            if place + 6 > length:
                self.end = "wrong"
            if place + 6 > min(length, len(body)):
                return
            size, context, control = struct.unpack_from(">LBB", body, place)
            value = body[place + 6 : place + 4 + size]
            self.shared |= place > 0
            if size < 2 or place + 4 + size > length:
                self.end = "wrong"
            elif len(value) == size - 2:
                self._take_value(context, control, value)
            place += 4 + size

    def _take_value(self, context: int, control: int, value: bytes) -> None:
        is_command, is_last = bool(control & _COMMAND), bool(control & _LAST)
        begins = not self._command and self._data is None
        if is_command != (self._data is None) or not (begins or context == self._context):
            self.end = "wrong"
            return
        self._context = context
        if self._data is None:
            self._command += value
        else:
            self._data += value
        if not is_last:
            return
        message = Message(context, self._command, self._data)
        if self._data is None and message.number(0x0800) != _NO_DATASET:
            self._data = b""
            return
        self.messages.append(message)
        self._command, self._data = b"", None


def read_requestor(stream: bytes) -> Stream:
    """Read what a requestor says behind its association request, which is as long as it says."""
    opening = next(pdus(stream), slice(0, 0))
    return _read(Stream(answers=False), stream[opening.stop :])


def read_acceptor(stream: bytes) -> Stream:
    """Read what the other side answers, to the request and afterwards."""
    return _read(Stream(answers=True), stream)


def _read(found: Stream, stream: bytes) -> Stream:
    for where in pdus(stream):
        if found.end != "open" or where.stop - where.start < 6:
            break
        found.take_pdu(stream[where])
    return found


def _accepted(pdu: bytes) -> dict[int, str]:
    answer = A_ASSOCIATE_AC()
    answer.decode(pdu)
    return {item.context_id: str(item.transfer_syntax) for item in answer.presentation_context if item.result == 0}


def is_plain(message: Message) -> bool:
    """Tell whether a command can be read in one way only, and is a C-STORE, a C-ECHO or a C-CANCEL as the standard has them."""
    tags = [(group, number) for group, number, _ in message.fields()]
    read = sum(8 + len(value) for _, _, value in message.fields())
    if read != len(message.command) or tags != sorted(set(tags)) or {group for group, _ in tags} != {0}:
        return False
    kind, answers, dataset = message.number(0x0100), message.field(0x0120), message.number(0x0800)
    if kind == C_STORE_RQ:
        uids = [message.field(tag) or b"" for tag in (0x0002, 0x1000)]
        return answers is None and dataset is not None and message.number(0x0110) is not None and all(map(_plain_uid, uids))
    if kind == C_ECHO_RQ:
        return message.uid(0x0002) == VERIFICATION and message.number(0x0110) is not None and answers is None and dataset == _NO_DATASET
    return kind == C_CANCEL_RQ and message.number(0x0120) is not None and dataset == _NO_DATASET


_plain_uid = re.compile(rb"[0-9.]{1,64}[\0 ]?").fullmatch


def responses(stream: Stream) -> Sequence[tuple[int, int, str]]:
    """Return (message ID responded to, status, SOP Instance UID) of the C-STORE responses in a stream."""
    found = [message for message in stream.messages if message.number(0x0100) == C_STORE_RSP]
    return [(_present(message, 0x0120), _present(message, 0x0900), message.uid(0x1000)) for message in found]


def _present(message: Message, tag: int) -> int:
    number = message.number(tag)
    assert number is not None, f"a response without (0000,{tag:04X})"
    return number
