"""The codecs that `bench representation` compares, frame by frame: what they make of a stack, how far off it is, and how long that takes.

::

    stack ─┬─ error bound k ─► our stream, JPEG-LS (NEAR = k) ──────► bytes, values
           └─ PSNR of ours ──► JPEG 2000, HTJ2K: the quality that reaches it is searched, in a few steps

Counted is what a reader needs of the pixels: of ours the whole stream, head and checksum included, of the others whole codestreams with their
markers. All of them run in one thread, of which the processor's time is taken. Ours decodes and compares within the time of its encoding; the others do not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import jpeg_ls
import numpy as np
import torch
from numpy.typing import NDArray
from openjpeg.utils import decode, encode_array

from pacs_node.autoencoder import codec
from pacs_node.autoencoder.losses import structural_similarity

Values = NDArray[np.integer]

_NEAR_ENOUGH = 0.02  # dB; a tenth is promised
_STEPS = 12
_BY_LINE, _BY_PIXEL = 1, 2  # how JPEG-LS interleaves the planes of a picture (ISO/IEC 14495-1 C.2.3); 0: it does not


@dataclass(frozen=True, slots=True)
class Stack:
    """Frames of a series as they are stored, (frames, rows, columns[, planes]): their Bits Stored, and whether the planes are red, green and blue."""

    values: Values
    bits: int
    rgb: bool = False

    @property
    def least(self) -> int:
        """The smallest value."""
        return int(self.values.min())

    @property
    def span(self) -> int:
        """Largest less smallest value: the peak of every PSNR, the dynamic range of every SSIM."""
        return max(1, int(self.values.max()) - self.least)

    @property
    def pixels(self) -> int:
        """Pixels; the planes of one together."""
        return int(np.prod(self.values.shape[:3]))


@dataclass(frozen=True, slots=True)
class Coded:
    """What a codec made of a stack: its bytes, what they decode to, the processor's seconds for both, and by which of its ways."""

    size: int
    values: Values
    encode_s: float
    decode_s: float
    way: str = ""


@dataclass(frozen=True, slots=True)
class Quality:
    """How near decoded values are: PSNR in dB against the range of the stack (infinite without loss), mean SSIM over that range, and the largest error."""

    psnr: float
    ssim: float
    largest_error: int


def quality_of(stack: Stack, found: Values) -> Quality:
    """Compare every pixel with the original."""
    error = np.abs(found.astype(np.int64) - stack.values.astype(np.int64))
    return Quality(_psnr(stack, found), _similarity(stack, found), int(error.max()))


def _psnr(stack: Stack, found: Values) -> float:
    squared = float(np.square(found.astype(np.float64) - stack.values).mean())
    return 20 * math.log10(stack.span) - 10 * math.log10(squared) if squared else math.inf


def _similarity(stack: Stack, found: Values) -> float:
    """Return the mean structural similarity (Wang et al. 2004, 7 × 7) of all planes, frame by frame: a whole series at once is large."""
    means = []
    for pair in zip(stack.values, found, strict=True):
        a, b = (torch.from_numpy((one.reshape(*one.shape[:2], -1).astype(np.float64) - stack.least) / stack.span).permute(2, 0, 1)[:, None] for one in pair)
        means.append(float(structural_similarity(a, b).mean()))
    return float(np.mean(means))


# --- with a bound of the error -------------------------------------------------------------------------------------------


def ours(stack: Stack, near: int) -> Coded:
    """Encode by this package's stream."""
    stream, encode_s = _timed(lambda: codec.encode(stack.values, near))
    found, decode_s = _timed(lambda: codec.decode(stream))
    return Coded(len(stream), found, encode_s, decode_s, codec.method_of(stream))


def jpegls(stack: Stack, near: int) -> Coded | None:
    """Encode by JPEG-LS with NEAR = ``near``, by the way that takes fewest bytes; None where none can.

    Ways: the values as they are in Bits Stored, signed ones as the unsigned numbers of the same bits (PS3.5 8.2.3), or counted from the smallest;
    the planes of a picture one by one, by line, or by pixel.
    """
    planes = stack.values.shape[3:]
    interleaves = (0, _BY_LINE, _BY_PIXEL) if planes else (0,)
    tried = [made for make in (_as_stored, _from_least) for interleave in interleaves if (made := _jpegls(stack, make(stack), near, interleave))]
    return min(tried, key=lambda one: one.size, default=None)


@dataclass(frozen=True, slots=True)
class _Unsigned:
    """Values as JPEG-LS takes them, how many bits they have, and how the stored ones are made again."""

    values: NDArray[np.unsignedinteger[Any]]
    bits: int
    back: Callable[[NDArray[np.unsignedinteger[Any]]], Values]
    name: str


def _as_stored(stack: Stack) -> _Unsigned | None:
    kind, bits = stack.values.dtype, stack.bits
    if not 2 <= bits <= 16 or kind.itemsize > 2:
        return None
    values = stack.values.astype(np.int64) & ((1 << bits) - 1)

    def back(some: NDArray[np.unsignedinteger[Any]]) -> Values:
        wide = some.astype(np.int32)
        return np.where(wide >= 1 << (bits - 1), wide - (1 << bits), wide).astype(kind) if kind.kind == "i" else some.astype(kind)

    return _Unsigned(_narrow(values, bits), bits, back, "as stored")


def _from_least(stack: Stack) -> _Unsigned | None:
    bits, least, kind = max(2, stack.span.bit_length()), stack.least, stack.values.dtype
    if bits > 16:
        return None
    return _Unsigned(_narrow(stack.values.astype(np.int64) - least, bits), bits, lambda some: (some.astype(np.int64) + least).astype(kind), "from the smallest")


def _narrow(values: NDArray[Any], bits: int) -> NDArray[np.unsignedinteger[Any]]:
    return values.astype(np.uint16) if bits > 8 else values.astype(np.uint8)


def _jpegls(stack: Stack, source: _Unsigned | None, near: int, interleave: int) -> Coded | None:
    if source is None:
        return None
    pictures = source.values
    if stack.values.ndim == 4 and not interleave:
        pictures = np.ascontiguousarray(np.moveaxis(pictures, -1, 1)).reshape(-1, *pictures.shape[1:3])
    rows, columns, planes = (*pictures.shape[1:], 1)[:3]
    loss = min(near, (2**source.bits - 1) // 2)
    try:
        streams, encode_s = _timed(
            lambda: [bytes(jpeg_ls.encode_buffer(one.tobytes(), rows, columns, planes, source.bits, loss, interleave)) for one in pictures]
        )
        found, decode_s = _timed(lambda: [np.frombuffer(jpeg_ls.decode_buffer(one)[0], pictures.dtype).reshape(pictures.shape[1:]) for one in streams])
    except (RuntimeError, ValueError):  # it has no room for the smallest pictures, and for some noise
        return None
    values = np.stack(found)
    if stack.values.ndim == 4 and not interleave:
        values = np.moveaxis(values.reshape(-1, stack.values.shape[3], rows, columns), 1, -1)
    way = f"{source.name}, {('by plane', 'by line', 'by pixel')[interleave]}" if stack.values.ndim == 4 else source.name
    return Coded(sum(map(len, streams)), source.back(values), encode_s, decode_s, way)


# --- at the same PSNR ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wavelet:
    """A codec without a bound of the error.

    ``encode`` takes a frame counted from the smallest value, its bits, whether it is RGB, and the root mean square error wanted (None: reversible);
    ``decode`` takes the bytes and the bits.
    """

    name: str
    encode: Callable[[Values, int, bool, float | None], bytes]
    decode: Callable[[bytes, int], Values]


def at_equal_quality(wavelet: Wavelet, stack: Stack, psnr: float) -> Coded | None:
    """Encode to within some hundredths of a decibel of ``psnr`` (infinite: reversibly), or as near as a few steps come; None where the codec cannot.

    The reversible stream counts where it is no larger than the other: it is the better one then. Quality goes in steps, larger ones in smaller pictures.
    """
    if stack.span > 0xFFFF or stack.values.shape[3:] not in ((), (3,)):
        return None
    exact = _coded(wavelet, stack, None)
    if math.isinf(psnr):
        return exact
    wanted = stack.span * 10 ** (-psnr / 20)
    asked, best, gap = wanted, None, math.inf
    low, high = 0.0, math.inf  # what was asked for, and came out too well, or too badly
    for _ in range(_STEPS):
        made = _coded(wavelet, stack, asked)
        off = _psnr(stack, made.values) - psnr
        if abs(off) < gap:
            best, gap = made, abs(off)
        if gap <= _NEAR_ENOUGH:
            break
        low, high = (max(low, asked), high) if off > 0 else (low, min(high, asked))
        guess = asked * 10 ** (min(20.0, max(-20.0, off)) / 20)
        asked = guess if low < guess < high else math.sqrt(max(low, high / 16) * high)
    return exact if best is None or exact.size <= best.size else best


def _coded(wavelet: Wavelet, stack: Stack, error: float | None) -> Coded:
    bits = max(2, stack.span.bit_length())
    frames = _narrow(stack.values.astype(np.int64) - stack.least, bits)
    streams, encode_s = _timed(lambda: [wavelet.encode(frame, bits, stack.rgb, error) for frame in frames])
    found, decode_s = _timed(lambda: [wavelet.decode(one, bits) for one in streams])
    values = np.stack(found).astype(np.int64).reshape(stack.values.shape) + stack.least
    return Coded(sum(map(len, streams)), values, encode_s, decode_s, "reversible" if error is None else "")


def _openjpeg_encode(frame: Values, bits: int, rgb: bool, error: float | None) -> bytes:
    ratios = None if error is None else [20 * math.log10((2**bits - 1) / error)]
    return bytes(encode_array(frame, bits, 1 if rgb else 0, rgb, signal_noise_ratios=ratios))


def _openjpeg_decode(stream: bytes, bits: int) -> Values:
    return np.asarray(decode(stream))


def _openjph_encode(frame: Values, bits: int, rgb: bool, error: float | None) -> bytes:
    import imagecodecs

    if error is not None:
        frame = frame.astype(np.uint16)  # with room around it
    depth = 8 * frame.dtype.itemsize
    step = None if error is None else error * math.sqrt(12) / 2**depth
    return bytes(imagecodecs.htj2k_encode(frame + _middle(frame.dtype, bits), step, rgb=rgb, reversible=error is None))


def _openjph_decode(stream: bytes, bits: int) -> Values:
    import imagecodecs

    found = np.asarray(imagecodecs.htj2k_decode(stream))
    return found.astype(np.int64) - int(_middle(found.dtype, bits))


def _middle(kind: np.dtype[Any], bits: int) -> Any:
    """Return what moves values of so many bits to the middle of their type: those that overshoot would turn over at its ends."""
    return np.asarray((1 << (8 * kind.itemsize - 1)) - (1 << (bits - 1)), kind)[()]


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return what was made, and the processor's seconds: the one thread waits for nothing, and what else the machine does is left out."""
    begun = time.process_time()
    made = work()
    return made, max(1e-9, time.process_time() - begun)


JPEG_2000 = Wavelet("JPEG 2000", _openjpeg_encode, _openjpeg_decode)
HTJ2K = Wavelet("HTJ2K", _openjph_encode, _openjph_decode)


def wavelets() -> tuple[Wavelet, ...]:
    """Return the codecs of this kind that are installed: imagecodecs, with HTJ2K, comes with the extra ``test`` only."""
    return (JPEG_2000, HTJ2K) if find_spec("imagecodecs") else (JPEG_2000,)
