"""One slab of a stack, predicted and coded; encoder and decoder make each decision with the same lines.

::

    values ─► prediction ─► residual, context ─► tables ─► range coder        (encoder: slice by slice, then in steps)
    values ◄─ prediction ◄─ residual ◄──────────────────── range decoder      (decoder: step by step)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pacs_node.autoencoder import codec_entropy as entropy
from pacs_node.autoencoder import codec_prediction as prediction
from pacs_node.autoencoder.codec_bytes import Reader, StreamError, Writer
from pacs_node.autoencoder.codec_fitting import fit, fit_energies, sample
from pacs_node.autoencoder.codec_grid import Flat, Grid, spread, steps
from pacs_node.autoencoder.codec_pace import UNHURRIED, Pace
from pacs_node.autoencoder.codec_prediction import PHASES, Kind

_BINS = 24  # of the expected error, at most
_CONTEXTS = ((1, PHASES), (2, PHASES), (2, 1), (4, 1), (8, 1), (24, 1))  # bins put together, phases told apart
_LONG = 1 << 22  # pixels for which no context is spared
_AT_A_TIME = 1 << 15  # pixels that the encoder looks at together: few stay in a processor's cache


@dataclass(frozen=True, slots=True)
class _Rules:
    """All that decides on predictions and contexts."""

    grid: Grid
    kinds: tuple[Kind, ...]
    kind_of: NDArray[np.int64]  # (slices,)
    highest: int  # value
    limits: NDArray[np.int64]  # between bins of the expected error
    phases: int = PHASES  # that are told apart: all, or 1

    @property
    def contexts(self) -> int:
        return (len(self.limits) + 1) * self.phases

    def context(self, expected: NDArray[np.integer], phases: NDArray[np.integer]) -> NDArray[np.uint8]:
        bins = np.searchsorted(self.limits, expected, side="right")
        return np.asarray(bins * PHASES + phases if self.phases == PHASES else bins, dtype=np.uint8)

    def split(self, cells: Flat) -> Iterator[tuple[Kind, Flat]]:
        """Yield the cells of each kind, in the order of kinds."""
        numbers = self.kind_of[cells // self.grid.through]
        for number in np.unique(numbers).tolist():
            yield self.kinds[number], cells[numbers == number]


def encode(values: NDArray[np.int32], planes: int, pace: Pace = UNHURRIED) -> bytes:
    """Encode whole values ≥ 0, (slices, rows, columns), where ``planes`` slices make a picture; raises `OutOfTime`."""
    grid, highest, fill = Grid(*values.shape), int(values.max()), _usual_edge(values)
    cells = grid.with_border(values, fill)
    rules, errors = _fitted(cells, grid, planes, highest, pace)
    residuals, contexts, limits = _residuals(cells, errors, rules, pace)
    pace.check()
    rules, contexts, tables = _fewest_bytes(replace(rules, limits=limits), residuals, contexts)
    writer = Writer()
    writer.number(highest)
    writer.number(fill)
    prediction.write(rules.kinds, writer)
    writer.number(rules.phases)
    writer.number(len(rules.limits))
    for limit in rules.limits.tolist():
        writer.number(limit)
    entropy.write(tables, writer)
    coder = entropy.Encoder(tables)
    for step in pace.watch(steps(grid)):
        for _, some in rules.split(step.cells):
            coder.add(residuals.take(some), contexts.take(some))
    coder.write(writer)
    return writer.content()


def _fewest_bytes(rules: _Rules, residuals: NDArray[np.int32], contexts: NDArray[np.uint8]) -> tuple[_Rules, NDArray[np.uint8], list[entropy.Table]]:
    """Put contexts together where their tables would take more than they save; a long series keeps all."""
    seen = np.asarray(rules.grid.inside(residuals)).reshape(-1), np.asarray(rules.grid.inside(contexts)).reshape(-1)
    best: tuple[float, _Rules, NDArray[np.uint8], list[entropy.Table]] | None = None
    for together, phases in _CONTEXTS if len(seen[0]) < _LONG else _CONTEXTS[:1]:
        fewer = np.arange(256) // PHASES // together * phases + (np.arange(256) % PHASES if phases > 1 else 0)
        tried = replace(rules, limits=rules.limits[together - 1 :: together], phases=phases)
        tables = entropy.tables_for(seen[0], fewer.astype(np.uint8)[seen[1]], tried.contexts)
        size = entropy.size_of(tables)
        if best is None or size < best[0]:
            best = size, tried, fewer.astype(np.uint8), tables
    assert best is not None
    return best[1], best[2][contexts], best[3]


def decode(reader: Reader, shape: tuple[int, int, int], planes: int, pace: Pace = UNHURRIED) -> NDArray[np.int32]:
    """Decode what `encode` made of values of ``shape``; raises `StreamError`, or `OutOfTime`."""
    grid, highest, fill = Grid(*shape), reader.number(), reader.number()
    if highest > 0xFFFF or fill > highest:
        raise StreamError("its range of values is damaged")
    kinds = tuple(prediction.read(_references_of_kinds(grid.slices, planes), reader))
    phases, bins = reader.number(), reader.number()
    if phases not in (1, PHASES) or bins >= _BINS:
        raise StreamError("its contexts are damaged")
    limits = np.array([reader.number() for _ in range(bins)], np.int64)
    rules = _Rules(grid, kinds, prediction.kinds_of(grid.slices, planes), highest, limits, phases)
    coder = entropy.Decoder(entropy.read(rules.contexts, reader), reader)
    cells, errors = np.full(grid.size, fill, np.int32), np.zeros(grid.size, np.int32)
    for step in pace.watch(steps(grid)):
        for kind, some in rules.split(step.cells):
            field = prediction.field_of(cells, some, grid, kind.reference)
            predicted = prediction.predict(field, kind, highest)
            whole, side, phase = prediction.rounded(predicted)
            expected = prediction.expect(prediction.features_of_error(field, errors, some, grid, kind.reference), kind)
            found = (whole + side * coder.take(rules.context(expected, phase))).clip(0, highest).astype(np.int32)
            cells[some], errors[some] = found, prediction.error_of(found, predicted)
        spread(grid, cells, step)
    return np.asarray(grid.inside(cells), dtype=np.int32)


def _references_of_kinds(slices: int, planes: int) -> list[int]:
    references, kinds = prediction.references(slices, planes), prediction.kinds_of(slices, planes)
    return [int(references[kinds == kind][0]) for kind in range(int(kinds.max()) + 1)]


def _usual_edge(values: NDArray[np.int32]) -> int:
    return int(np.bincount(np.concatenate([values[:, 0].reshape(-1), values[:, :, 0].reshape(-1)])).argmax())


def _pieces(grid: Grid, index: int) -> Iterator[Flat]:
    """Yield the cells of a slice, some rows at a time."""
    rows = max(1, _AT_A_TIME // grid.columns)
    for first in range(0, grid.rows, rows):
        yield grid.cells(index, slice(first, first + rows))


def _fitted(cells: NDArray[np.int32], grid: Grid, planes: int, highest: int, pace: Pace) -> tuple[_Rules, NDArray[np.int32]]:
    """Fit all kinds; returns the rules, without limits between bins, and the errors that the predictors make."""
    kind_of, errors = prediction.kinds_of(grid.slices, planes), np.zeros(grid.size, np.int32)
    kinds = []
    for number, reference in enumerate(pace.watch(_references_of_kinds(grid.slices, planes))):
        slices = np.flatnonzero(kind_of == number)
        kinds.append(fit(cells, sample(grid, slices), grid, reference, len(slices) * grid.rows * grid.columns))
    for index in pace.watch(range(grid.slices)):
        kind = kinds[kind_of[index]]
        for some in _pieces(grid, index):
            predicted = prediction.predict(prediction.field_of(cells, some, grid, kind.reference), kind, highest)
            errors[some] = prediction.error_of(cells.take(some), predicted)
    for number, kind in enumerate(kinds):
        at = sample(grid, np.flatnonzero(kind_of == number))
        kinds[number] = replace(kind, energies=fit_energies(cells, errors, at, grid, kind))
    return _Rules(grid, tuple(kinds), kind_of, highest, np.zeros(0, np.int64)), errors


def _residuals(
    cells: NDArray[np.int32], errors: NDArray[np.int32], rules: _Rules, pace: Pace
) -> tuple[NDArray[np.int32], NDArray[np.uint8], NDArray[np.int64]]:
    """Return residuals and contexts of all cells, and the limits between bins of the expected error."""
    grid = rules.grid
    residuals, phases, expected = np.zeros(grid.size, np.int32), np.zeros(grid.size, np.uint8), np.zeros(grid.size, np.int32)
    for index in pace.watch(range(grid.slices)):
        kind = rules.kinds[rules.kind_of[index]]
        for some in _pieces(grid, index):
            field = prediction.field_of(cells, some, grid, kind.reference)
            whole, side, phases[some] = prediction.rounded(prediction.predict(field, kind, rules.highest))
            residuals[some] = side * (cells.take(some) - whole)
            expected[some] = prediction.expect(prediction.features_of_error(field, errors, some, grid, kind.reference), kind).clip(max=2**31 - 1)
    drawn = expected.take(sample(grid, np.arange(grid.slices)))
    drawn = drawn[drawn > drawn.min()]  # a background without errors is a bin of its own
    limits = np.unique(np.quantile(drawn, np.arange(_BINS - 1) / _BINS).astype(np.int64)) if len(drawn) else np.zeros(0, np.int64)
    contexts = np.zeros(grid.size, np.uint8)
    for index in range(grid.slices):
        for some in _pieces(grid, index):
            contexts[some] = replace(rules, limits=limits).context(expected.take(some), phases.take(some))
    return residuals, contexts, limits
