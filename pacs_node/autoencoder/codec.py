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

__all__ = ["LARGEST_NEAR", "MOST_BYTES", "VERSION", "Claim", "StreamError", "claim_of", "decode", "encode", "encode_and_decode", "jpegls_size", "method_of"]

VERSION = 1
LARGEST_NEAR = 8
_MAGIC = b"PNS"
_SLAB = 1 << 24  # pixels
_TYPES = ("u1", "i1", "<u2", "<i2", "<u4", "<i4")
_MOST_OF_A_FRAME = 1 << 26  # pixels
MOST_BYTES = 1 << 31
"""Bytes of the values that one stream may hold."""

Stack = NDArray[np.int32]  # (frames, planes, rows, columns)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a stream says of itself: how many values it holds, and by how much they may be off."""

    values: int
    near: int


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
    streams = [made for made in (_sealed(method, head, stack) for method in range(len(_METHODS))) if made is not None]
    del stack
    for stream in sorted(streams, key=len):
        try:
            found = decode(stream)
        except StreamError:
            continue
        if found.shape == (head.shape[0], *parts[0].shape[1:]) and found.dtype == head.dtype and _furthest(found, parts) <= near:
            return stream, found
    raise ValueError(f"no method keeps these values within {near}")  # never seen; nothing that is not verified leaves


def _furthest(found: NDArray[np.integer], parts: Sequence[NDArray[np.integer]]) -> int:
    frames = chain.from_iterable(parts)
    return max(int(np.abs(one.astype(np.int64) - other.astype(np.int64)).max()) for one, other in zip(found, frames, strict=True))


def _prepared(parts: Sequence[NDArray[np.integer]], near: int) -> tuple[_Head, Stack]:
    head = _head_of(parts, near)
    frames, planes, rows, columns = head.shape
    stack = np.empty((frames, max(1, planes), rows, columns), np.int32)
    for place, frame in zip(stack, chain.from_iterable(parts), strict=True):
        place[...] = (frame.astype(np.int64) - head.least).reshape(rows, columns, -1).transpose(2, 0, 1)
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


def _sealed(method: int, head: _Head, stack: Stack) -> bytes | None:
    payload = _METHODS[method].encode(stack, head.near)
    if payload is None:
        return None
    writer = Writer()
    _Head(method, head.near, head.type, head.shape, head.least).write(writer)
    writer.raw(payload)
    content = writer.content()
    return content + zlib.crc32(content).to_bytes(4, "little")


def decode(stream: bytes) -> NDArray[np.integer]:
    """Decode a stream to values of the type and shape that were encoded. Raises `StreamError` where it is damaged or of another version."""
    head, reader = _opened(stream)
    frames, planes, rows, columns = head.shape
    try:
        stack = _METHODS[head.method].decode(reader, (frames, max(1, planes), rows, columns), head.near)
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
    values = np.empty((frames, rows, columns, planes), head.dtype)
    for found, frame in zip(values, stack, strict=True):
        found[...] = (frame.astype(np.int64) + head.least).transpose(1, 2, 0)
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
    encode: Callable[[Stack, int], bytes | None]
    decode: Callable[[Reader, tuple[int, int, int, int], int], Stack]


def _predicted(stack: Stack, near: int) -> bytes:
    frames, planes, rows, columns = stack.shape
    writer, together = Writer(), _frames_of_a_slab(planes, rows, columns)
    writer.number(int(stack.max()))
    for first in range(0, frames, together):
        some = stack[first : first + together].reshape(-1, rows, columns)
        writer.part(codec_slab.encode((some + near) // (2 * near + 1), planes))
    return writer.content()


def _unpredicted(reader: Reader, shape: tuple[int, int, int, int], near: int) -> Stack:
    frames, planes, rows, columns = shape
    most, together = reader.number(), _frames_of_a_slab(planes, rows, columns)
    stack = np.empty(shape, np.int32)
    for first in range(0, frames, together):
        slab, count = Reader(reader.part()), min(together, frames - first)
        found = codec_slab.decode(slab, (count * planes, rows, columns), planes)
        slab.end()
        stack[first : first + count] = np.minimum(found * (2 * near + 1), most).reshape(count, planes, rows, columns)
    return stack


def _frames_of_a_slab(planes: int, rows: int, columns: int) -> int:
    return max(1, _SLAB // (planes * rows * columns))


_METHODS = (
    _Method(
        "JPEG-LS",
        lambda stack, near: codec_jpegls.encode(stack, near, codec_jpegls.BY_PLANE),
        lambda reader, shape, near: codec_jpegls.decode(reader, shape, near, codec_jpegls.BY_PLANE),
    ),
    _Method(
        "JPEG-LS by line",
        lambda stack, near: codec_jpegls.encode(stack, near, codec_jpegls.BY_LINE) if stack.shape[1] > 1 else None,
        lambda reader, shape, near: codec_jpegls.decode(reader, shape, near, codec_jpegls.BY_LINE),
    ),
    _Method("prediction", _predicted, _unpredicted),
    _Method(
        "JPEG-LS by pixel",
        lambda stack, near: codec_jpegls.encode(stack, near, codec_jpegls.BY_PIXEL) if stack.shape[1] > 1 else None,
        lambda reader, shape, near: codec_jpegls.decode(reader, shape, near, codec_jpegls.BY_PIXEL),
    ),
)
