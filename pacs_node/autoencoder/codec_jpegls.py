"""A stack as JPEG-LS pictures (ISO/IEC 14495-1) without the markers that are the same for all of them.

Each picture: its number of bits, the preset parameters that its encoder wrote (LSE, for more than 12 bits), and its entropy-coded segment, the last
two with their lengths before them. The decoder puts SOI, SOF55, SOS and EOI back.
"""

from __future__ import annotations

import struct

import jpeg_ls
import numpy as np
from numpy.typing import NDArray

from pacs_node.autoencoder.codec_bytes import Reader, StreamError, Writer
from pacs_node.autoencoder.codec_pace import UNHURRIED, Pace

BY_PLANE, BY_LINE, BY_PIXEL = 0, 1, 2
"""How the planes of a colour picture are coded: one after the other, or together line by line or pixel by pixel."""

_EOI = b"\xff\xd9"
_MOST_ROWS, _MOST_PLANES = 0xFFFF, 0xFF  # that SOF55 can say; rows or columns
_USUAL = {1: (8,), 2: (12, 16)}  # by bytes of a value: numbers of bits that are tried beside the fewest, for a code may be some bytes shorter with them
_LEAST_BYTES = 3  # that a picture takes in a stream


def encode(stack: NDArray[np.int32], near: int, interleave: int, pace: Pace = UNHURRIED) -> bytes | None:
    """Encode values ≥ 0 of shape (frames, planes, rows, columns) with an error of at most ``near``; None where JPEG-LS cannot.

    Its encoder has no room for the smallest pictures, and for some noise. Raises `OutOfTime` as soon as it is seen that there is no time to
    encode them all and to decode them again.
    """
    writer = Writer()
    if not _can_say(stack.shape):
        return None
    pictures = _pictures(stack, interleave)
    for picture in pace.foresee(pictures, len(pictures), after=len(pictures)):
        least = max(2, int(picture.max()).bit_length())
        usual = _USUAL[1 + (least > 8)] if pace == UNHURRIED else ()  # in haste each picture is coded once
        coded = [made for bits in sorted({least, *usual}) if bits >= least and (made := _coded(picture, bits, near, interleave))]
        if not coded:
            return None
        bits, preset, segment = min(coded, key=lambda one: len(one[1]) + len(one[2]))
        writer.number(bits)
        writer.part(preset)
        writer.part(segment)
    return writer.content()


def _coded(picture: NDArray[np.int32], bits: int, near: int, interleave: int) -> tuple[int, bytes, bytes] | None:
    """Return bits, preset parameters and entropy-coded segment of a picture (rows, columns, planes), None where its encoder cannot."""
    loss = min(near, (2**bits - 1) // 2)
    rows, columns, planes = picture.shape
    pixels = picture.astype("<u2" if bits > 8 else np.uint8).tobytes()
    try:
        stream = bytes(jpeg_ls.encode_buffer(pixels, rows, columns, planes, bits, loss, interleave))
    except (RuntimeError, ValueError):
        return None
    frame, scan = _markers(bits, picture.shape, loss, interleave)
    at = stream.find(scan, len(frame))
    if not stream.startswith(frame) or at < 0 or not stream.endswith(_EOI):
        return None
    return bits, stream[len(frame) : at], stream[at + len(scan) : -len(_EOI)]


def decode(reader: Reader, shape: tuple[int, int, int, int], near: int, interleave: int, pace: Pace = UNHURRIED) -> NDArray[np.int32]:
    """Decode what `encode` made of a stack of ``shape``; raises `StreamError`, or `OutOfTime`."""
    frames, planes, rows, columns = shape
    together = 1 if interleave == BY_PLANE else planes
    if not _can_say(shape):
        raise StreamError(f"JPEG-LS has no pictures of {rows} rows, {columns} columns, {planes} planes")
    if reader.left < frames * planes // together * _LEAST_BYTES:
        raise StreamError("it is cut short")
    pictures = np.empty((frames * planes // together, together, rows, columns), np.int32)
    for index in pace.watch(range(len(pictures))):
        bits = reader.number()
        if not 2 <= bits <= 16:
            raise StreamError(f"a picture says that it has {bits} bits")
        frame, scan = _markers(bits, (rows, columns, together), min(near, (2**bits - 1) // 2), interleave)
        stream = b"".join((frame, reader.part(), scan, reader.part(), _EOI))
        try:
            pixels, _ = jpeg_ls.decode_buffer(stream)
            values = np.frombuffer(pixels, "<u2" if bits > 8 else np.uint8).reshape(rows, columns, together)
        except (RuntimeError, ValueError) as error:
            raise StreamError(f"a JPEG-LS picture is damaged ({error})") from error
        pictures[index] = values.transpose(2, 0, 1)
    return pictures.reshape(shape)


def _can_say(shape: tuple[int, ...]) -> bool:
    _, planes, rows, columns = shape
    return max(rows, columns) <= _MOST_ROWS and planes <= _MOST_PLANES


def whole_size(stack: NDArray[np.int32], near: int) -> int | None:
    """Return how many bytes the JPEG-LS codestreams of a stack take, markers included, the smallest way where planes can be coded in several."""
    sizes = []
    for interleave in ways(stack.shape[1]):
        content, together = encode(stack, near, interleave), 1 if interleave == BY_PLANE else stack.shape[1]
        if content is not None:
            reader, pictures = Reader(content), len(stack) * stack.shape[1] // together
            markers = sum(map(len, _markers(8, (1, 1, together), 0, interleave))) + len(_EOI)
            sizes.append(sum(_length(reader) + markers for _ in range(pictures)))
    return min(sizes, default=None)


def _length(reader: Reader) -> int:
    reader.number()
    return len(reader.part()) + len(reader.part())


def ways(planes: int) -> tuple[int, ...]:
    """Return how pictures of so many planes can be coded."""
    return (BY_PLANE,) if planes == 1 else (BY_PLANE, BY_LINE, BY_PIXEL)


def _pictures(stack: NDArray[np.int32], interleave: int) -> NDArray[np.int32]:
    """Return (pictures, rows, columns, planes of a picture)."""
    frames, planes, rows, columns = stack.shape
    return stack.reshape(frames * planes, rows, columns, 1) if interleave == BY_PLANE else stack.transpose(0, 2, 3, 1)


def _markers(bits: int, shape: tuple[int, ...], near: int, interleave: int) -> tuple[bytes, bytes]:
    """Return SOI with SOF55, and SOS (ISO/IEC 14495-1 C.2), of a picture (rows, columns, planes)."""
    rows, columns, planes = shape
    frame = b"".join(bytes((index + 1, 0x11, 0)) for index in range(planes))
    scan = b"".join(bytes((index + 1, 0)) for index in range(planes))
    start = b"\xff\xd8\xff\xf7" + struct.pack(">HBHHB", 8 + len(frame), bits, rows, columns, planes) + frame
    return start, b"\xff\xda" + struct.pack(">HB", 6 + len(scan), planes) + scan + bytes((near, interleave, 0))
