"""Whole numbers to bytes and back: a range coder (constriction) with one table of frequencies for each context.

A residual is cut into a low part of so many binary digits as its context says, coded as if all values were equally frequent, and a high part
coded by the context's table. What lies beyond the table is coded as an escape, and stands in a list of its own. Frequencies are stored as 8 times
their logarithm to base 2, and made of whole numbers again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import constriction
import numpy as np
from numpy.typing import NDArray

from pacs_node.autoencoder.codec_bytes import Reader, StreamError, Writer

Whole = NDArray[np.int64]
_LEVELS = 12  # typical size of a high part
_REACH = 48  # high parts −48 … 47 stand in tables
_EIGHTHS = np.array([256, 279, 304, 332, 362, 395, 431, 470], np.int64)  # 256 · 2^(i / 8)
_MOST_LOW = 16


@dataclass(frozen=True, slots=True)
class Table:
    """One context: ``low`` binary digits are coded as they are; ``logs[i]`` says how frequent the high part ``first + i`` is, the last an escape."""

    low: int
    first: int
    logs: bytes
    model: object = field(init=False, repr=False, compare=False)
    lows: object = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", constriction.stream.model.Categorical(_frequencies(self.logs), perfect=False))
        object.__setattr__(self, "lows", constriction.stream.model.Uniform(1 << self.low) if self.low else None)

    @property
    def escape(self) -> int:
        """The symbol that says that a residual stands in the list."""
        return len(self.logs) - 1


def _frequencies(logs: bytes) -> NDArray[np.float64]:
    """Return whole numbers below 2⁴⁰, 0 for what was never seen (the coder leaves it a little room)."""
    steps = np.frombuffer(logs, np.uint8).astype(np.int64)
    seen = _EIGHTHS[(steps - 1) % 8] << ((steps - 1).clip(0) // 8)
    return np.asarray(np.where(steps == 0, 0, seen), dtype=np.float64)


def tables_for(residuals: NDArray[np.int32], contexts: NDArray[np.uint8], count: int) -> list[Table]:
    """Count how frequent residuals are in each of ``count`` contexts."""
    order = np.argsort(contexts, kind="stable")
    ends = np.cumsum(np.bincount(contexts, minlength=count))
    return [_table(some) for some in np.split(residuals[order], ends[:-1])]


def _table(residuals: NDArray[np.int32]) -> Table:
    if not len(residuals):
        return Table(0, 0, b"\1\1")
    size = int(np.abs(residuals).mean())
    low = min(_MOST_LOW, max(0, (size // _LEVELS).bit_length()))
    high = residuals >> low
    inside = high[(high >= -_REACH) & (high < _REACH)]
    first = int(inside.min()) if len(inside) else 0
    counts = np.append(np.bincount(inside - first) if len(inside) else [0], len(high) - len(inside))
    logs = np.where(counts == 0, 0, 1 + np.rint(8 * np.log2(np.maximum(counts, 1))))
    logs[-1] = max(1, logs[-1])
    return Table(low, first, logs.astype(np.uint8).tobytes())


def write(tables: list[Table], writer: Writer) -> None:
    """Add tables to a stream."""
    packed = Writer()
    for table in tables:
        packed.number(table.low)
        packed.signed(table.first)
        packed.part(table.logs)
    writer.deflated(packed.content())


def read(count: int, reader: Reader) -> list[Table]:
    """Take tables from a stream; raises `StreamError`."""
    packed = Reader(reader.deflated())
    tables = []
    for _ in range(count):
        low, first, logs = packed.number(), packed.signed(), packed.part()
        if low > _MOST_LOW or not -_REACH <= first <= _REACH or not 2 <= len(logs) <= 2 * _REACH + 1:
            raise StreamError("a table of frequencies is damaged")
        tables.append(Table(low, first, logs))
    packed.end()
    return tables


def size_of(tables: list[Table]) -> float:
    """Return how many bits the counted residuals will take, and the tables themselves."""
    writer, bits = Writer(), 0.0
    write(tables, writer)
    for table in tables:
        counts = _frequencies(table.logs) / 256
        counts, total = counts[counts > 0], counts.sum()
        bits += float((counts * np.log2(total / counts)).sum() + total * table.low)
    return bits + 8 * len(writer.content())


class _Groups:
    """Pixels sorted by context: ``order``, and of each context that occurs its number and its stretch among the sorted ones."""

    def __init__(self, contexts: NDArray[np.uint8]) -> None:
        self.order = np.argsort(contexts, kind="stable")
        self.contexts = contexts[self.order]
        counts = np.bincount(contexts)
        present, ends = np.flatnonzero(counts), counts.cumsum()
        self.stretches = list(zip(present.tolist(), (ends - counts)[present].tolist(), ends[present].tolist(), strict=True))


class _Columns:
    """The tables' numbers side by side, to be looked up for many pixels at once."""

    def __init__(self, tables: list[Table]) -> None:
        self.low, self.first, self.escape = (np.array(some, np.int32) for some in zip(*((t.low, t.first, t.escape) for t in tables), strict=True))
        self.models = [table.model for table in tables]
        self.lows = [table.lows for table in tables]


class Encoder:
    """Codes residuals."""

    def __init__(self, tables: list[Table]) -> None:
        self._columns, self._coder, self._escaped = _Columns(tables), constriction.stream.queue.RangeEncoder(), Writer()

    def add(self, residuals: NDArray[np.int32], contexts: NDArray[np.uint8]) -> None:
        """Code some residuals: their high parts context by context, then their low parts."""
        columns, groups = self._columns, _Groups(contexts)
        residuals, low, escape = residuals[groups.order], columns.low[groups.contexts], columns.escape[groups.contexts]
        symbols = (residuals >> low) - columns.first[groups.contexts]
        beyond = (symbols < 0) | (symbols >= escape)
        if beyond.any():
            symbols = np.where(beyond, escape, symbols)
            for residual in residuals[beyond].tolist():
                self._escaped.signed(residual)
        for context, start, end in groups.stretches:
            self._coder.encode(symbols[start:end], columns.models[context])
        lows = residuals & ((1 << low) - 1)
        for context, start, end in groups.stretches:
            if columns.lows[context] is not None:
                self._coder.encode(lows[start:end], columns.lows[context])

    def write(self, writer: Writer) -> None:
        """Add all that was coded to a stream."""
        writer.deflated(self._escaped.content())
        writer.part(self._coder.get_compressed().astype("<u4").tobytes())


class Decoder:
    """Gives residuals back in the order in which they were coded."""

    def __init__(self, tables: list[Table], reader: Reader) -> None:
        self._columns, self._escaped, coded = _Columns(tables), Reader(reader.deflated()), reader.part()
        if len(coded) % 4:
            raise StreamError("it is cut short")
        self._coder = constriction.stream.queue.RangeDecoder(np.frombuffer(coded, "<u4").astype(np.uint32))

    def take(self, contexts: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Return the residuals of pixels with these contexts; raises `StreamError`."""
        columns, groups = self._columns, _Groups(contexts)
        symbols, lows = np.empty(len(contexts), np.int32), np.zeros(len(contexts), np.int32)
        try:
            for context, start, end in groups.stretches:
                symbols[start:end] = self._coder.decode(columns.models[context], end - start)
            for context, start, end in groups.stretches:
                if columns.lows[context] is not None:
                    lows[start:end] = self._coder.decode(columns.lows[context], end - start)
        except (AssertionError, ValueError) as error:
            raise StreamError("the coded pixels are damaged") from error
        residuals = ((symbols + columns.first[groups.contexts]) << columns.low[groups.contexts]) + lows
        beyond = np.flatnonzero(symbols == columns.escape[groups.contexts])
        if len(beyond):
            residuals[beyond] = [self._escaped.signed() for _ in range(len(beyond))]
        found = np.empty(len(contexts), np.int32)
        found[groups.order] = residuals
        return found
