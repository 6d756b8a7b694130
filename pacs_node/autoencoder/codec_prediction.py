"""What a pixel will be, and how surely: linear predictors with whole weights, fitted to the slab and stored with it.

::

    8 neighbours in the slice ──┐                    ┌─► activity × mismatch ─► class ─► weights ─► prediction (64ths)
    9 in the slice it refers to ┴─ differences to W ─┤                                                │
    11 errors made nearby ───────────────────────────┴─► expected error ─► bin ─┬─ third of a step ◄──┘
                                                                                └─► context of the entropy coder

All arithmetic that decoder and encoder share is done on whole numbers. Those that pass through float64 stay below 2⁵³ (differences below 2¹⁷,
errors below 2²³, weights below 2¹⁵, seventeen products), so that every sum is exact in whatever order a processor adds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pacs_node.autoencoder.codec_bytes import Reader, StreamError, Writer
from pacs_node.autoencoder.codec_grid import Flat, Grid

IN_SLICE = ((0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0), (-2, 1), (-1, -2))
"""Rows and columns of the neighbours in the slice; the first is W, then N, NW, NE."""
IN_REFERENCE = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))
ERRORS_IN_SLICE = ((0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0))
ERRORS_IN_REFERENCE = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0))

FRACTION = 6  # binary digits of a prediction behind the point
LARGEST_ERROR = 1 << 22  # in 64ths; larger ones count as this
PHASES = 3  # by how far a prediction lies from a whole number
_WEIGHT = 12  # binary digits of a weight behind the point
_LARGEST_WEIGHT = (1 << 15) - 1


@dataclass(frozen=True, slots=True)
class Kind:
    """How the pixels of some slices are predicted.

    ``reference`` slices before each lies the one that it refers to, 0: none. ``activity`` and ``mismatch`` are the limits between classes;
    ``weights`` (neighbours − 1, classes) and ``energies`` (features of the expected error,) are whole numbers in 4096ths.
    """

    reference: int
    activity: NDArray[np.int64]
    mismatch: NDArray[np.int64]
    weights: NDArray[np.float64]
    energies: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of some pixels before they are: prediction in 64ths, (n,), and expected error in 64ths, (n,)."""

    prediction: Flat
    expected: Flat


@dataclass(frozen=True, slots=True)
class Field:
    """The neighbours of some pixels: ``west`` (n,), ``differences`` to it (neighbours − 1, n), ``slopes`` (4 or 8, n), all whole numbers."""

    west: NDArray[np.int32]
    differences: NDArray[np.int32]
    slopes: NDArray[np.int32]

    @property
    def activity(self) -> NDArray[np.int32]:
        """How much the slice varies around the pixels."""
        return np.asarray(self.slopes[:3].sum(axis=0))

    @property
    def mismatch(self) -> NDArray[np.int32]:
        """How much the reference differs from the slice there."""
        return np.asarray(self.slopes[3:7].sum(axis=0))


def references(slices: int, planes: int) -> NDArray[np.int64]:
    """Return how many slices before each its reference lies: the plane before it, of the first plane that of the frame before; 0: none."""
    index = np.arange(slices)
    of_plane = np.where(index % planes > 0, 1, planes)
    return np.asarray(np.where(index == 0, 0, of_plane), dtype=np.int64)


def kinds_of(slices: int, planes: int) -> NDArray[np.int64]:
    """Return the number of the kind of each slice: by its plane, and by whether it is of the first frame."""
    index = np.arange(slices)
    return np.asarray(index % planes + np.where(index < planes, 0, planes), dtype=np.int64)


def _offsets(places: Sequence[tuple[int, int]], grid: Grid, slices: int = 0) -> Flat:
    return np.array([row * grid.row + column - slices * grid.through for row, column in places], np.int64)


def field_of(values: NDArray[np.int32], cells: Flat, grid: Grid, reference: int) -> Field:
    """Look at the neighbours of the pixels in ``cells``."""
    offsets = _offsets(IN_SLICE, grid)
    if reference:
        offsets = np.concatenate([offsets, _offsets(IN_REFERENCE, grid, reference)])
    around = values.take(offsets[:, None] + cells)
    west, differences = around[0], around[1:] - around[0]
    north, northwest, northeast = differences[:3]
    slopes = [northwest, north - northwest, northeast - north]
    if reference:
        below = around[len(IN_SLICE) :]
        slopes += [around[1] - below[4], around[0] - below[3], around[2] - below[8], around[3] - below[7], below[1] - below[0]]
        slopes += [(around[1] - below[4]) - (around[0] - below[3])]
    return Field(west, differences, np.abs(np.stack(slopes)))


def predict(field: Field, kind: Kind, highest: int) -> Flat:
    """Return predictions in 64ths of whole values between 0 and ``highest``."""
    chosen = np.searchsorted(kind.activity, field.activity, side="right")
    if kind.reference:
        chosen = chosen * (len(kind.mismatch) + 1) + np.searchsorted(kind.mismatch, field.mismatch, side="right")
    weighed = np.einsum("ij,ij->j", field.differences.astype(np.float64), kind.weights.take(chosen, axis=1)).astype(np.int64)
    shift = _WEIGHT - FRACTION
    predicted = (field.west.astype(np.int64) << FRACTION) + ((weighed + (1 << (shift - 1))) >> shift)
    return np.asarray(predicted.clip(0, highest << FRACTION), dtype=np.int64)


def features_of_error(field: Field, errors: NDArray[np.int32], cells: Flat, grid: Grid, reference: int) -> NDArray[np.float64]:
    """Return what the expected error is reckoned from, (features, n): errors made nearby, and slopes, both in 64ths."""
    offsets = _offsets(ERRORS_IN_SLICE, grid)
    if reference:
        offsets = np.concatenate([offsets, _offsets(ERRORS_IN_REFERENCE, grid, reference)])
    return np.concatenate([errors.take(offsets[:, None] + cells), field.slopes << FRACTION]).astype(np.float64)


def expect(features: NDArray[np.float64], kind: Kind) -> Flat:
    """Return the expected errors in 64ths."""
    return np.asarray((kind.energies @ features).astype(np.int64) >> _WEIGHT)


def error_of(values: NDArray[np.int32], predictions: Flat) -> NDArray[np.int32]:
    """Return by how much predictions were wrong, in 64ths."""
    return np.asarray(np.abs((values.astype(np.int64) << FRACTION) - predictions).clip(max=LARGEST_ERROR), dtype=np.int32)


def rounded(predictions: Flat) -> tuple[Flat, Flat, Flat]:
    """Return whole predictions, the side (±1) on which more is to be expected, and how far they lie from a whole number (0 … `PHASES` − 1)."""
    whole = (predictions + (1 << (FRACTION - 1))) >> FRACTION
    beyond = predictions - (whole << FRACTION)
    return whole, np.where(beyond < 0, -1, 1), np.abs(beyond) * PHASES // ((1 << (FRACTION - 1)) + 1)


# --- as bytes ------------------------------------------------------------------------------------------------------------


def write(kinds: Sequence[Kind], writer: Writer) -> None:
    """Add kinds to a stream."""
    packed = Writer()
    for kind in kinds:
        for limits in (kind.activity, kind.mismatch):
            packed.number(len(limits))
            for limit in limits:
                packed.number(int(limit))
        packed.raw(kind.weights.astype("<i2").tobytes() + kind.energies.astype("<i2").tobytes())
    writer.deflated(packed.content())


def read(references_of_kinds: Sequence[int], reader: Reader) -> list[Kind]:
    """Take kinds from a stream; raises `StreamError`."""
    packed = Reader(reader.deflated())
    kinds = []
    for reference in references_of_kinds:
        activity, mismatch = (np.array([packed.number() for _ in range(_few(packed.number()))], np.int64) for _ in range(2))
        classes = (len(activity) + 1) * (len(mismatch) + 1)
        features = len(IN_SLICE) - 1 + (len(IN_REFERENCE) if reference else 0)
        weights = np.frombuffer(packed.raw(2 * features * classes), "<i2").reshape(features, classes)
        energies = np.frombuffer(packed.raw(2 * energies_of(reference)), "<i2")
        kinds.append(Kind(reference, activity, mismatch, weights.astype(np.float64), energies.astype(np.float64)))
    packed.end()
    return kinds


def energies_of(reference: int) -> int:
    """Return how many features the expected error has."""
    return len(ERRORS_IN_SLICE) + 3 + (len(ERRORS_IN_REFERENCE) + 6 if reference else 0)


def _few(count: int) -> int:
    if count > 63:
        raise StreamError(f"it says that it has {count} classes")
    return count


def as_weights(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return weights as the whole numbers that are stored."""
    return np.asarray(np.rint(values * (1 << _WEIGHT)).clip(-_LARGEST_WEIGHT, _LARGEST_WEIGHT), dtype=np.float64)
