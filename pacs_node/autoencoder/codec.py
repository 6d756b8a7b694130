"""Stacks of stored values as bytes with a bounded error: of JPEG-LS and prediction with a range coder, whichever is smaller.

::

    values (frames, rows, columns[, planes]) ─ minus the least ─┬─► JPEG-LS, NEAR = k ──────────────────────────────┐
                                                                └─► steps of 2k + 1 ─► slabs ─► prediction, coder ──┴─► the smaller, decoded again

The format is described in FORMAT.md beside this file. Every pixel of what `decode` returns lies within k of what `encode` got, on every machine:
the decoder calculates with whole numbers only.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from pacs_node.autoencoder import codec_jpegls, codec_slab
from pacs_node.autoencoder.codec_bytes import Reader, StreamError, Writer
from pacs_node.autoencoder.codec_pace import UNHURRIED, OutOfTime, Pace

__all__ = [
    "LARGEST_NEAR",
    "MOST_BYTES",
    "VERSION",
    "Claim",
    "Coded",
    "OutOfTime",
    "Pace",
    "StreamError",
    "claim_of",
    "decode",
    "encode",
    "encode_and_decode",
    "encode_within",
    "jpegls_size",
    "method_of",
]

VERSION = 1
LARGEST_NEAR = 8
_MAGIC = b"PNS"
_SLAB = 1 << 24  # pixels
_TYPES = ("u1", "i1", "<u2", "<i2", "<u4", "<i4")
_MOST_OF_A_FRAME = 1 << 26  # pixels
MOST_BYTES = 1 << 31
"""Bytes of the values that one stream may hold."""
_MOST_A_SECOND = 4e6  # pixels that prediction encodes and decodes at best
_TRIAL = 128  # rows and columns on which it is measured

Stack = NDArray[np.int32]  # (frames, planes, rows, columns)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a stream says of itself: how many values it holds, and by how much they may be off."""

    values: int
    near: int


@dataclass(frozen=True, slots=True)
class Coded:
    """A verified stream, what it decodes to, and in words which method was taken and why."""

    stream: bytes
    values: NDArray[np.integer]
    chosen: str


@dataclass(frozen=True, slots=True)
class _Head:
    """What is needed to decode the payload."""

    method: int
    near: int
    type: int
    shape: tuple[int, int, int, int]  # frames, planes, rows, columns
    least: int

    @property
    def dtype(self) -> np.dtype[np.integer]:
        return np.dtype(_TYPES[self.type])

    @property
    def values(self) -> int:
        frames, planes, rows, columns = self.shape
        return frames * max(1, planes) * rows * columns

    def fits(self) -> bool:
        """Tell whether a reader takes so many values."""
        return self.values > 0 and self.shape[2] * self.shape[3] <= _MOST_OF_A_FRAME and self.values * self.dtype.itemsize <= MOST_BYTES

    def write(self, writer: Writer) -> None:
        writer.raw(_MAGIC + bytes((VERSION, self.method, self.near, self.type)))
        for size in self.shape:
            writer.number(size)
        writer.signed(self.least)


def encode(values: NDArray[np.integer], near: int) -> bytes:
    """Encode stored values, (frames, rows, columns) or (frames, rows, columns, planes), with an error of at most ``near`` (0 … 8; 0: none).

    Any integers whose range is below 2¹⁶. What is returned was decoded and compared. Raises `ValueError` for anything else.
    """
    return encode_and_decode([values], near)[0]


def encode_and_decode(parts: Sequence[NDArray[np.integer]], near: int) -> tuple[bytes, NDArray[np.integer]]:
    """Encode stacks of one type and size of frame as the one that they make together; returns also what the stream decodes to.

    They are put together frame by frame, without another copy of all: a long series is large.
    """
    head, stack = _prepared(parts, near)
    streams = [made for made in (_sealed(method, head, stack, UNHURRIED) for method in range(len(_METHODS))) if made is not None]
    del stack
    if (found := _verified(streams, head, parts, UNHURRIED)) is not None:
        return found
    raise ValueError(f"no method keeps these values within {near}")  # never seen; nothing that is not verified leaves


def encode_within(parts: Sequence[NDArray[np.integer]], near: int, pace: Pace) -> Coded:
    """Encode as `encode_and_decode` does as far as there is time: JPEG-LS first, prediction where that fits into what is left then.

    Raises `OutOfTime` where there is not even time for JPEG-LS.
    """
    head, stack = _prepared(parts, near)
    sure = _verified(_made_quickly(head, stack, pace), head, parts, pace)
    try:
        seconds, left = _seconds_of_prediction(head, stack, pace), pace.left
        if seconds > left:
            return _settled(sure, f"prediction would take more than the {max(0.0, left):.1f} s that are left")
        stream = _sealed(_PREDICTION, head, stack, pace)
        if stream is None or (sure is not None and len(sure[0]) <= len(stream)):
            return _settled(sure, "smaller than prediction")
        found = _verified([stream], head, parts, pace)
    except OutOfTime:
        return _settled(sure, "prediction was given up when the time was over")
    return _settled(sure, "prediction does not keep the error") if found is None else Coded(*found, f"{_METHODS[_PREDICTION].name}: smaller than JPEG-LS")


def _made_quickly(head: _Head, stack: Stack, pace: Pace) -> list[bytes]:
    """Return the streams of the ways of JPEG-LS for which there is time; raises `OutOfTime` where there is none for the first."""
    streams: list[bytes] = []
    for method in _QUICK:
        try:
            made = _sealed(method, head, stack, pace)
        except OutOfTime:
            if not streams:
                raise
            break
        if made is not None:
            streams.append(made)
    return streams


def _settled(sure: tuple[bytes, NDArray[np.integer]] | None, why: str) -> Coded:
    if sure is None:
        raise OutOfTime
    return Coded(*sure, f"{method_of(sure[0])}: {why}")


def _seconds_of_prediction(head: _Head, stack: Stack, pace: Pace) -> float:
    """Return how long prediction takes for a stack, decoding included: from a trial on some pixels in its middle, where it might fit at all."""
    if stack.size > pace.left * _MOST_A_SECOND:
        return stack.size / _MOST_A_SECOND
    frames, _, rows, columns = stack.shape
    some = stack[(frames - 1) // 2 :][:4, :, (rows - 1) // 4 :, (columns - 1) // 4 :][:, :, :_TRIAL, :_TRIAL]
    if some.size * 4 > stack.size:
        return 0.0  # sooner done than measured
    begun = pace.clock()
    shape = (some.shape[0], head.shape[1], *some.shape[2:])
    stream = _sealed(_PREDICTION, _Head(_PREDICTION, head.near, head.type, shape, head.least), np.ascontiguousarray(some), pace)
    if stream is not None:
        decode(stream)
    return (pace.clock() - begun) * stack.size / some.size


def _verified(streams: Sequence[bytes], head: _Head, parts: Sequence[NDArray[np.integer]], pace: Pace) -> tuple[bytes, NDArray[np.integer]] | None:
    """Return the smallest stream whose every pixel is as near as it says, with what it decodes to."""
    for stream in sorted(streams, key=len):
        try:
            found = _decoded(stream, pace)
        except StreamError:
            continue
        if found.shape == (head.shape[0], *parts[0].shape[1:]) and found.dtype == head.dtype and _furthest(found, parts) <= head.near:
            return stream, found
    return None


def _furthest(found: NDArray[np.integer], parts: Sequence[NDArray[np.integer]]) -> int:
    frames, wide = chain.from_iterable(parts), _wide(found.dtype)
    return max(int(np.abs(one.astype(wide) - other.astype(wide)).max()) for one, other in zip(found, frames, strict=True))


def _wide(dtype: np.dtype[np.integer]) -> type[np.signedinteger]:
    """Return a type in which differences of two values of ``dtype`` have room."""
    return np.int32 if dtype.itemsize <= 2 else np.int64


def _prepared(parts: Sequence[NDArray[np.integer]], near: int) -> tuple[_Head, Stack]:
    head = _head_of(parts, near)
    frames, planes, rows, columns = head.shape
    stack = np.empty((frames, max(1, planes), rows, columns), np.int32)
    for place, frame in zip(stack, chain.from_iterable(parts), strict=True):
        place[...] = (frame.astype(_wide(head.dtype)) - head.least).reshape(rows, columns, -1).transpose(2, 0, 1)
    return head, stack


def _head_of(parts: Sequence[NDArray[np.integer]], near: int) -> _Head:
    types, first = [np.dtype(name) for name in _TYPES], parts[0]
    for part in parts:
        alike = (part.dtype, part.shape[1:]) == (first.dtype, first.shape[1:])
        if not alike or part.ndim not in (3, 4) or not part.size or part.dtype.newbyteorder("<") not in types:
            raise ValueError(f"{part.dtype} of shape {part.shape}: integers of shape (frames, rows, columns[, planes]) are needed")
    if isinstance(near, bool) or not isinstance(near, int) or not 0 <= near <= LARGEST_NEAR:
        raise ValueError(f"an error of at most {near}: a whole number from 0 to {LARGEST_NEAR} is needed")
    least, most = min(int(part.min()) for part in parts), max(int(part.max()) for part in parts)
    if most - least > 0xFFFF:
        raise ValueError(f"values from {least} to {most}: a range of at most 65535 can be coded")
    frames, (rows, columns, *planes) = sum(map(len, parts)), first.shape[1:]
    head = _Head(0, near, types.index(first.dtype.newbyteorder("<")), (frames, planes[0] if planes else 0, rows, columns), least)
    if not head.fits():
        raise ValueError(f"{frames} frames of {first.shape[1:]} values are more than one stream may hold")
    return head


def _sealed(method: int, head: _Head, stack: Stack, pace: Pace = UNHURRIED) -> bytes | None:
    payload = _METHODS[method].encode(stack, head.near, pace)
    if payload is None:
        return None
    writer = Writer()
    _Head(method, head.near, head.type, head.shape, head.least).write(writer)
    writer.raw(payload)
    content = writer.content()
    return content + zlib.crc32(content).to_bytes(4, "little")


def decode(stream: bytes) -> NDArray[np.integer]:
    """Decode a stream to values of the type and shape that were encoded. Raises `StreamError` where it is damaged or of another version."""
    return _decoded(stream, UNHURRIED)


def _decoded(stream: bytes, pace: Pace) -> NDArray[np.integer]:
    head, reader = _opened(stream)
    frames, planes, rows, columns = head.shape
    try:
        stack = _METHODS[head.method].decode(reader, (frames, max(1, planes), rows, columns), head.near, pace)
        reader.end()
        values = _values(stack, head)
    except (ValueError, IndexError, OverflowError, MemoryError) as error:
        raise error if isinstance(error, StreamError) else StreamError(f"it is damaged ({error})") from error
    return values if planes else values[..., 0]


def _values(stack: Stack, head: _Head) -> NDArray[np.integer]:
    """Return (frames, rows, columns, planes) of the type that was encoded; raises `StreamError` for values that it cannot hold."""
    limits, lowest, highest = np.iinfo(head.dtype), head.least + int(stack.min()), head.least + int(stack.max())
    if not limits.min <= lowest <= highest <= limits.max:
        raise StreamError(f"its values, {lowest} to {highest}, are none of its type {head.dtype}")
    frames, planes, rows, columns = stack.shape
    values, wide = np.empty((frames, rows, columns, planes), head.dtype), _wide(head.dtype)
    for found, frame in zip(values, stack, strict=True):
        found[...] = (frame.astype(wide, copy=False) + head.least).transpose(1, 2, 0)
    return values


def _opened(stream: bytes) -> tuple[_Head, Reader]:
    if not stream.startswith(_MAGIC):
        raise StreamError("it is no stream of this format")
    if len(stream) < 20:
        raise StreamError("it is cut short")
    if stream[3] != VERSION:
        raise StreamError(f"it is of version {stream[3]}, this reader knows {VERSION}: decode it with the pacs-node that made it, or a newer one")
    if zlib.crc32(stream[:-4]) != int.from_bytes(stream[-4:], "little"):
        raise StreamError("its checksum is wrong: it was damaged or cut short")
    reader = Reader(stream[4:-4])
    method, near, kind = reader.raw(3)
    frames, planes, rows, columns = (reader.number() for _ in range(4))
    if method >= len(_METHODS) or near > LARGEST_NEAR or kind >= len(_TYPES):
        raise StreamError(f"it asks for method {method}, error {near}, type {kind}, which this reader does not know")
    head = _Head(method, near, kind, (frames, planes, rows, columns), reader.signed())
    if not head.fits():
        raise StreamError(f"it claims {frames} × {rows} × {columns} × {planes} values, more than a stream may hold")
    return head, reader


def jpegls_size(values: NDArray[np.integer], near: int) -> int | None:
    """Return how many bytes the JPEG-LS codestreams of all frames take with NEAR = ``near``, None where its encoder cannot."""
    return codec_jpegls.whole_size(_prepared([values], near)[1], near)


def claim_of(stream: bytes) -> Claim:
    """Return what a stream says of itself, without decoding it; raises `StreamError` as `decode` does."""
    head = _opened(stream)[0]
    return Claim(head.values, head.near)


def method_of(stream: bytes) -> str:
    """Return the name of the method that a stream is coded with."""
    return _METHODS[_opened(stream)[0].method].name


# --- methods -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Method:
    """One way to code a stack; a stream names it by its place in the table."""

    name: str
    encode: Callable[[Stack, int, Pace], bytes | None]
    decode: Callable[[Reader, tuple[int, int, int, int], int, Pace], Stack]


def _predicted(stack: Stack, near: int, pace: Pace) -> bytes:
    frames, planes, rows, columns = stack.shape
    writer, together = Writer(), _frames_of_a_slab(planes, rows, columns)
    writer.number(int(stack.max()))
    for first in range(0, frames, together):
        some = stack[first : first + together].reshape(-1, rows, columns)
        writer.part(codec_slab.encode((some + near) // (2 * near + 1), planes, pace))
    return writer.content()


def _unpredicted(reader: Reader, shape: tuple[int, int, int, int], near: int, pace: Pace) -> Stack:
    frames, planes, rows, columns = shape
    most, together = reader.number(), _frames_of_a_slab(planes, rows, columns)
    stack = np.empty(shape, np.int32)
    for first in range(0, frames, together):
        slab, count = Reader(reader.part()), min(together, frames - first)
        found = codec_slab.decode(slab, (count * planes, rows, columns), planes, pace)
        slab.end()
        stack[first : first + count] = np.minimum(found * (2 * near + 1), most).reshape(count, planes, rows, columns)
    return stack


def _frames_of_a_slab(planes: int, rows: int, columns: int) -> int:
    return max(1, _SLAB // (planes * rows * columns))


_METHODS = (
    _Method(
        "JPEG-LS",
        lambda stack, near, pace: codec_jpegls.encode(stack, near, codec_jpegls.BY_PLANE, pace),
        lambda reader, shape, near, pace: codec_jpegls.decode(reader, shape, near, codec_jpegls.BY_PLANE, pace),
    ),
    _Method(
        "JPEG-LS by line",
        lambda stack, near, pace: codec_jpegls.encode(stack, near, codec_jpegls.BY_LINE, pace) if stack.shape[1] > 1 else None,
        lambda reader, shape, near, pace: codec_jpegls.decode(reader, shape, near, codec_jpegls.BY_LINE, pace),
    ),
    _Method("prediction", _predicted, _unpredicted),
    _Method(
        "JPEG-LS by pixel",
        lambda stack, near, pace: codec_jpegls.encode(stack, near, codec_jpegls.BY_PIXEL, pace) if stack.shape[1] > 1 else None,
        lambda reader, shape, near, pace: codec_jpegls.decode(reader, shape, near, codec_jpegls.BY_PIXEL, pace),
    ),
)
_QUICK, _PREDICTION = (0, 1, 3), 2
