"""The command set of C-STORE, read and written without building datasets: implicit VR little endian, always (PS3.7 6.3.1, 9.3.1)."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

_C_STORE_RQ, _C_STORE_RSP, _NO_DATASET = 0x0001, 0x8001, 0x0101
_SOP_CLASS, _FIELD, _MESSAGE_ID, _ANSWERS, _DATASET_TYPE, _STATUS, _SOP_INSTANCE = 0x0002, 0x0100, 0x0110, 0x0120, 0x0800, 0x0900, 0x1000
_ONE_NUMBER = frozenset({_FIELD, _MESSAGE_ID, _ANSWERS, _DATASET_TYPE})

_element = struct.Struct("<HHI")
_number, _length = struct.Struct("<H"), struct.Struct("<I")
_uid = re.compile(rb"[0-9.]{1,64}[\0 ]?").fullmatch
_pdu = struct.Struct(">BxLLBB")  # one PDU with one presentation data value
_P_DATA_TF, _COMMAND, _LAST = 0x04, 0x01, 0x02


@dataclass(frozen=True, slots=True)
class StoreCommand:
    """A C-STORE-RQ; the UIDs as they came, padding included, because the response repeats them."""

    message_id: int
    sop_class: bytes
    sop_instance: bytes
    has_dataset: bool


def parse_store(command: bytes | bytearray | memoryview) -> StoreCommand | None:
    """Return the C-STORE request that a whole command set says.

    None where it says anything else, or says it in any way but the plain one: pynetdicom reads such commands.
    """
    numbers: dict[int, int] = {}
    uids: dict[int, bytes] = {}
    offset, previous = 0, -1
    while offset < len(command):
        if len(command) < offset + 8:
            return None
        group, tag, length = _element.unpack_from(command, offset)
        value = bytes(command[offset + 8 : offset + 8 + length])
        if group != 0 or tag <= previous or len(value) != length:
            return None
        if tag in _ONE_NUMBER:
            if length != 2:
                return None
            (numbers[tag],) = _number.unpack(value)
        elif tag in (_SOP_CLASS, _SOP_INSTANCE):
            if not _uid(value):
                return None
            uids[tag] = value
        offset, previous = offset + 8 + length, tag
    if numbers.get(_FIELD) != _C_STORE_RQ or _ANSWERS in numbers or len(numbers) != 3 or len(uids) != 2:
        return None
    return StoreCommand(numbers[_MESSAGE_ID], uids[_SOP_CLASS], uids[_SOP_INSTANCE], numbers[_DATASET_TYPE] != _NO_DATASET)


def store_response(context_id: int, command: StoreCommand, status: int, max_pdu: int = 0) -> bytes:
    """Return the P-DATA-TF PDUs that answer a request (PS3.7 Table 9.3-2, PS3.8 9.3.5): one, unless the peer takes only shorter ones.

    ``max_pdu`` is the peer's maximum length in bytes, 0 for no limit.
    """
    body = b"".join(
        (
            _text(_SOP_CLASS, command.sop_class),
            _us(_FIELD, _C_STORE_RSP),
            _us(_ANSWERS, command.message_id),
            _us(_DATASET_TYPE, _NO_DATASET),
            _us(_STATUS, status),
            _text(_SOP_INSTANCE, command.sop_instance),
        )
    )
    whole = _element.pack(0, 0, 4) + _length.pack(len(body)) + body  # begins with the group length
    size = max(max_pdu - _pdu.size + 6, 8) if max_pdu else len(whole)
    return b"".join(_fragment(context_id, whole[start : start + size], start + size >= len(whole)) for start in range(0, len(whole), size))


def _fragment(context_id: int, part: bytes, last: bool) -> bytes:
    return _pdu.pack(_P_DATA_TF, len(part) + 6, len(part) + 2, context_id, _COMMAND | _LAST if last else _COMMAND) + part


def _us(tag: int, value: int) -> bytes:
    return _element.pack(0, tag, 2) + _number.pack(value)


def _text(tag: int, value: bytes) -> bytes:
    padded = value if len(value) % 2 == 0 else value + b"\0"
    return _element.pack(0, tag, len(padded)) + padded
