"""Exchanges that go wrong: messages damaged, dropped, repeated and out of order, cut into PDUs in every way, and connections that end anywhere."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.mutation import Draw, damaged, damaged_dataset, pdu_lengths, pdus
from tests.fuzz.recordings import Recording, Said
from tests.reception.raw_peer import ABORT, COMMAND, LAST, RELEASE, pdu, pdv

Exchange = tuple[tuple[bytes, ...], str]
"""What is sent, piece by piece, the association request first; and how the connection ends: ``half`` (we send no more), ``close`` or ``reset``."""

_FOREIGN = (
    b"\x02\0\0\0\0\4\0\1\0\0",
    b"\x03\0\0\0\0\4\0\1\1\1",
    b"\x06\0\0\0\0\4\0\0\0\0",
    b"\x0b\0\0\0\0\0",
    b"GET / HTTP/1.1\r\n\r\n",
    b"\4\0\xff\xff\xff\xff",
)


@st.composite
def exchanges(draw: Draw, recordings: Sequence[Recording]) -> Exchange:
    """Draw an exchange: a recorded one with damages at every level, or at none."""
    recording = draw(st.sampled_from(list(recordings)))
    levels = draw(st.sets(st.sampled_from(("request", "messages", "content", "cutting", "pdus", "bytes", "pieces")), max_size=3))
    request = _request(draw, recording.request) if "request" in levels else recording.request
    messages = list(recording.messages)
    if "messages" in levels:
        messages = _rearranged(draw, messages, most=8)
    if "content" in levels:
        messages = [_damaged_message(draw, message) for message in messages]
    parts = [part for message in messages for part in _cut(draw, message, "cutting" in levels)] + [RELEASE]
    if "pdus" in levels:
        parts = _odd_pdus(draw, parts)
    stream = b"".join(parts)
    if "bytes" in levels:
        stream = _damaged_stream(draw, stream)
    pieces = _pieces(draw, stream) if "pieces" in levels else (stream,)
    return (request, *pieces), draw(st.sampled_from(("half", "half", "close", "reset")))


def _request(draw: Draw, request: bytes) -> bytes:
    return damaged(draw, request, pdu_lengths(request), 2)


def _rearranged(draw: Draw, parts: list[Any], most: int) -> list[Any]:
    """Drop, repeat and exchange parts."""
    for _ in range(draw(st.integers(1, 3))):
        if not parts:
            break
        here, there = (draw(st.integers(0, len(parts) - 1)) for _ in range(2))
        way = draw(st.sampled_from(("drop", "repeat", "swap", "end")))
        if way == "drop":
            del parts[here]
        elif way == "repeat" and len(parts) < most:
            parts.insert(there, parts[here])
        elif way == "swap":
            parts[here], parts[there] = parts[there], parts[here]
        elif way == "end":
            del parts[here:]
    return parts


def _damaged_message(draw: Draw, said: Said) -> Said:
    way = draw(st.sampled_from(("neither", "command", "dataset", "both")))
    command, letter = said.command, said.letter
    if way in ("command", "both"):
        command = damaged_dataset(draw, command, most=2)
    if letter is not None and way in ("dataset", "both"):
        body = damaged_dataset(draw, letter.body, letter.implicit, letter.order, most=2)
        letter = type(letter)(letter.sop_class, letter.sop_uid, letter.syntax, body)
    return Said(said.context, command, letter)


def _cut(draw: Draw, said: Said, oddly: bool) -> list[bytes]:
    """Cut a message into PDUs: as one does, or into values of any size, several of which may share a PDU."""
    if not oddly:
        whole = [pdu(pdv(said.context, COMMAND | LAST, said.command))]
        return whole if said.letter is None else [*whole, *(pdu(value) for value in _values(said, 0, said.letter.body, (4096,)))]
    sizes = draw(st.lists(st.sampled_from((1, 2, 7, 30, 100, 500, 4000, 16_000)), min_size=1, max_size=5))
    values = _values(said, COMMAND, said.command, sizes)
    if said.letter is not None:
        values += _values(said, 0, said.letter.body, [max(size, len(said.letter.body) // 60) for size in sizes])
    joined, together = [], draw(st.lists(st.integers(0, 4), min_size=1, max_size=5))
    while values:
        count = together[len(joined) % len(together)]
        joined.append(pdu(*values[:count]))
        values = values[max(count, 1) :] if count else values
        together = together if any(together) else [1]
    return joined


def _values(said: Said, control: int, data: bytes, sizes: Sequence[int]) -> list[bytes]:
    found, start = [], 0
    while start < len(data) or not found:
        end = start + sizes[len(found) % len(sizes)]
        found.append(pdv(said.context, control | (LAST if end >= len(data) else 0), data[start:end]))
        start = end
    return found


def _odd_pdus(draw: Draw, parts: list[bytes]) -> list[bytes]:
    way = draw(st.sampled_from(("rearranged", "foreign", "abort", "lengths", "lengths", "context", "context", "control")))
    here = draw(st.integers(0, len(parts) - 1))
    if way == "rearranged":
        return _rearranged(draw, parts, most=120)
    if way == "foreign":
        return [*parts[:here], draw(st.sampled_from(_FOREIGN) | st.binary(max_size=20)), *parts[here:]]
    if way == "abort":
        return [*parts[:here], ABORT, *parts[here:]]
    changed = damaged(draw, parts[here], pdu_lengths(parts[here]) * 3, 2)
    if way == "context":
        changed = parts[here][:10] + bytes((draw(st.sampled_from((0, 1, 2, 3, 5, 7, 99, 255))),)) + parts[here][11:]
    elif way == "control":
        changed = parts[here][:11] + bytes((draw(st.sampled_from((0, 1, 2, 3, 4, 255))),)) + parts[here][12:]
    return [*parts[:here], changed, *parts[here + 1 :]]


def _damaged_stream(draw: Draw, stream: bytes) -> bytes:
    starts = [where.start for where in pdus(stream)]
    at = draw(st.sampled_from(starts)) if starts else 0
    return stream[:at] + damaged(draw, stream[at:], pdu_lengths(stream[at : at + 4096]))


def _pieces(draw: Draw, stream: bytes) -> tuple[bytes, ...]:
    """Cut a stream into what is sent at once, without regard to PDUs."""
    places = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    bounds = [0, *places, len(stream)]
    return tuple(stream[begin:end] for begin, end in itertools.pairwise(bounds) if begin < end)
