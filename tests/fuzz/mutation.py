"""Damaging bytes as networks, bad software and enemies do: turned bits, cuts, insertions, wrong lengths, odd values, deep nesting."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from hypothesis import strategies as st

Draw = Callable[[st.SearchStrategy[Any]], Any]
Order = Literal["little", "big"]

UNDEFINED = 0xFFFFFFFF
ODD_UIDS = (
    b"", b"\0", b" ", b"1", b".", b"..", b"1..2", b"01.02", b"../../../tmp/x", b"1.2/../../3", b"1.2\\1.3", b"1.2.3\0\0\0", b"\xff\xfe",
    b"1." * 32, b"1." * 33, b"9" * 64, b"9" * 65, b"1.2.\n3", b" 1.2.3", b"1.2.840.10008.1.1", b"%00", b"NUL", b"1" * 1000,
)  # fmt: skip
_LONG_VRS = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_UIDS = frozenset((0x0002, 0x1000, 0x00080016, 0x00080018, 0x0020000D, 0x0020000E))  # of commands, of images
_ODD_VRS = (b"SQ", b"UN", b"UI", b"OB", b"UT", b"FD", b"IS", b"AT", b"PN", b"XX", b"\0\0", b"??")


@dataclass(frozen=True, slots=True)
class Length:
    """A field of bytes that says how long something is."""

    offset: int
    size: int
    order: Order


@dataclass(frozen=True, slots=True)
class Element:
    """An element of a dataset or command: where its head begins, its value, and the place of its length."""

    tag: int
    start: int
    vr: bytes
    length: Length
    value: slice


# --- finding the places that matter ------------------------------------------------------------------------------------------


def elements(data: bytes, implicit: bool = True, order: Order = "little") -> Iterator[Element]:
    """Walk over the elements of a dataset, into sequences too, as far as they make sense."""
    sign, offset = "<" if order == "little" else ">", 0
    while offset + 8 <= len(data):
        group, number = struct.unpack_from(sign + "HH", data, offset)
        vr = b"" if implicit or group == 0xFFFE else data[offset + 4 : offset + 6]
        if not vr:
            field = Length(offset + 4, 4, order)
        elif vr in _LONG_VRS:
            field = Length(offset + 8, 4, order)
        else:
            field = Length(offset + 6, 2, order)
        begin = field.offset + field.size
        length = int.from_bytes(data[field.offset : begin], order)
        enters = group == 0xFFFE or vr == b"SQ" or length == UNDEFINED
        end = begin if enters else min(begin + length, len(data))
        yield Element(group << 16 | number, offset, vr, field, slice(begin, end))
        offset = end


def pdus(stream: bytes) -> Iterator[slice]:
    """Walk over the PDUs of a stream, the last of which may be cut short."""
    offset = 0
    while offset < len(stream):
        length = int.from_bytes(stream[offset + 2 : offset + 6], "big")
        yield slice(offset, min(offset + 6 + length, len(stream)))
        offset += 6 + length


def pdu_lengths(pdu: bytes) -> list[Length]:
    """Return the length fields of a PDU: its own, those of its values (PS3.8 9.3.5) or of its items (9.3.2)."""
    found = [Length(2, 4, "big")]
    if pdu[:1] == b"\x04":
        offset = 6
        while offset + 6 <= len(pdu):
            found.append(Length(offset, 4, "big"))
            offset += 4 + int.from_bytes(pdu[offset : offset + 4], "big")
    elif pdu[:1] == b"\x01":
        offset = 74
        while offset + 4 <= len(pdu):
            found.append(Length(offset + 2, 2, "big"))
            kind = pdu[offset]
            inside = {0x20: 8, 0x50: 4}.get(kind)  # items with items in them
            offset += inside if inside else 4 + int.from_bytes(pdu[offset + 2 : offset + 4], "big")
    return found


# --- bytes -------------------------------------------------------------------------------------------------------------------


def damaged(draw: Draw, data: bytes, lengths: list[Length], most: int = 3) -> bytes:
    """Return the bytes with up to ``most`` damages; ``lengths`` are the length fields in them."""
    for _ in range(draw(st.integers(1, most))):
        kind = draw(st.sampled_from(("length", "turn", "insert", "cut", "end", "repeat", "zero")))
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        if kind == "length":
            fitting = [field for field in lengths if field.offset + field.size <= len(data)]
            data = _with_length(draw, data, draw(st.sampled_from(fitting))) if fitting else data
        elif kind == "turn":
            data = data[:at] + bytes(byte ^ draw(st.integers(1, 255)) for byte in data[at : at + 1]) + data[at + 1 :]
        elif kind == "insert":
            data = data[:at] + draw(st.binary(min_size=1, max_size=12)) + data[at:]
        elif kind == "cut":
            data = data[:at] + data[at + draw(st.integers(1, 64)) :]
        elif kind == "end":
            data = data[:at]
        elif kind == "repeat":
            data = data[: at + draw(st.integers(1, 64))] + data[at:]
        else:
            count = draw(st.integers(1, 32))
            data = data[:at] + bytes(len(data[at : at + count])) + data[at + count :]
    return data


def _with_length(draw: Draw, data: bytes, field: Length) -> bytes:
    top = (1 << 8 * field.size) - 1
    now = int.from_bytes(data[field.offset : field.offset + field.size], field.order)
    around = [now - 1, now + 1, now - 2, now + 2, now * 2]
    value = draw(st.sampled_from((0, 1, 2, 3, 7, top, top - 1, (top + 1) // 2, 1 << 20, 65_535, *around)) | st.integers(0, top))
    return data[: field.offset] + (value & top).to_bytes(field.size, field.order) + data[field.offset + field.size :]


# --- datasets ----------------------------------------------------------------------------------------------------------------


def damaged_dataset(draw: Draw, data: bytes, implicit: bool = True, order: Order = "little", most: int = 3) -> bytes:
    """Return an encoded dataset, or a command, with up to ``most`` damages to what it says or to how it says it."""
    for _ in range(draw(st.integers(1, most))):
        found = list(elements(data, implicit, order))
        way = draw(st.sampled_from(("bytes", "value", "drop", "twice", "vr", "nest", "odd uid", "move")))
        if way == "bytes" or not found:
            data = damaged(draw, data, [element.length for element in found], 1)
            continue
        uids = [element for element in found if element.vr == b"UI" or element.tag in _UIDS]
        element = draw(st.sampled_from(uids if way == "odd uid" and uids else found))
        whole = slice(element.start, element.value.stop)
        if way in ("value", "odd uid"):
            odd = st.sampled_from(ODD_UIDS)
            data = _with_value(data, element, draw(odd if way == "odd uid" else odd | st.binary(max_size=40) | st.just(b"9" * 5000)))
        elif way == "drop":
            data = data[: whole.start] + data[whole.stop :]
        elif way == "twice":
            data = data[: whole.stop] + data[whole] + data[whole.stop :]
        elif way == "move":
            at = draw(st.sampled_from(found)).start
            rest = data[: whole.start] + data[whole.stop :]
            data = rest[:at] + data[whole] + rest[at:]
        elif way == "vr" and element.vr:
            data = data[: element.start + 4] + draw(st.sampled_from(_ODD_VRS)) + data[element.start + 6 :]
        elif way == "nest":
            depth = draw(st.sampled_from((1, 2, 8, 63, 64, 65, 66, 120, 300, 2000)))
            data = data[: element.start] + nested(draw, depth, element.tag, implicit, order) + data[element.start :]
    return data


def _with_value(data: bytes, element: Element, value: bytes) -> bytes:
    """Put a value in the place of another, with the right length as far as the field takes it."""
    field, top = element.length, (1 << 8 * element.length.size) - 1
    length = min(len(value), top).to_bytes(field.size, field.order)
    return data[: field.offset] + length + data[field.offset + field.size : element.value.start] + value + data[element.value.stop :]


def nested(draw: Draw, depth: int, tag: int, implicit: bool, order: Order) -> bytes:
    """Return ``depth`` sequences within each other, of defined or undefined length, perhaps without their ends."""
    sign = "<" if order == "little" else ">"
    defined, ended = draw(st.booleans()), draw(st.booleans())
    group, number = tag >> 16, tag & 0xFFFF
    head = struct.pack(sign + "HH", group if group != 0xFFFE else 0x0040, number) + (b"" if implicit else b"SQ\0\0")
    item = partial(struct.pack, sign + "HHL")
    if not defined:
        begin = head + struct.pack(sign + "L", UNDEFINED) + item(0xFFFE, 0xE000, UNDEFINED)
        return begin * depth + (item(0xFFFE, 0xE00D, 0) + item(0xFFFE, 0xE0DD, 0)) * depth * ended
    content = b""
    for _ in range(depth):
        inner = item(0xFFFE, 0xE000, len(content)) + content
        content = head + struct.pack(sign + "L", len(inner)) + inner
    return content
