"""Where pixels lie while a slab is coded, and in which order: every neighbour that predicts a pixel is known before it.

::

    slice z − 1                slice z              a pixel (z, r, c) is coded at step  c + 2 r + 4 z:
      p p p                      n n .              all pixels of a step at once, whatever slice they are of,
      p p p                  n n n n .              since their neighbours are of earlier steps
      p p p                  n n x

A slab lies in one flat array with a border: two rows above, one below, two columns on each side. Beyond the edges stand copies of pixels that
are known by then: left of a row the first pixel of the row above, right of it its own last, above a slice the first row of the slice before it,
below it its own last row. What has no such neighbour stays at the slab's fill value.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Flat = NDArray[np.int64]
_ABOVE, _BELOW, _SIDE = 2, 1, 2
_DOWN, _THROUGH = 2, 4  # steps from one row, and from one slice, to the next


@dataclass(frozen=True, slots=True)
class Grid:
    """The layout of a slab of ``slices`` × ``rows`` × ``columns``; planes of colour count as slices."""

    slices: int
    rows: int
    columns: int

    @property
    def row(self) -> int:
        """Cells from one row to the next."""
        return self.columns + 2 * _SIDE

    @property
    def through(self) -> int:
        """Cells from one slice to the next."""
        return (self.rows + _ABOVE + _BELOW) * self.row

    @property
    def size(self) -> int:
        """Cells."""
        return self.slices * self.through

    def firsts(self) -> Flat:
        """Return the cell of the first pixel of each row, (slices, rows)."""
        rows = (np.arange(self.rows) + _ABOVE) * self.row + _SIDE
        return np.asarray(np.arange(self.slices)[:, None] * self.through + rows, dtype=np.int64)

    def cells(self, index: int, rows: slice) -> Flat:
        """Return the cells of some rows of a slice, flat."""
        return np.asarray((self.firsts()[index, rows][:, None] + np.arange(self.columns)).reshape(-1), dtype=np.int64)

    def inside(self, flat: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return the pixels of a flat array, (slices, rows, columns), without the border."""
        return flat.reshape(self.slices, -1, self.row)[:, _ABOVE:-_BELOW, _SIDE:-_SIDE]

    def with_border(self, values: NDArray[np.int32], fill: int) -> NDArray[np.int32]:
        """Return the flat array of known pixels (slices, rows, columns)."""
        cells = np.full((self.slices, self.rows + _ABOVE + _BELOW, self.row), fill, np.int32)
        cells[:, _ABOVE:-_BELOW, _SIDE:-_SIDE] = values
        cells[:, _ABOVE + 1 :, :_SIDE] = values[:, :, :1]
        cells[:, _ABOVE:-_BELOW, -_SIDE:] = values[:, :, -1:]
        cells[1:, :_ABOVE, _SIDE:-_SIDE] = values[:-1, :1]
        cells[:, -_BELOW:, _SIDE:-_SIDE] = values[:, -1:]
        return cells.reshape(-1)


@dataclass(frozen=True, slots=True)
class Step:
    """The pixels of one step, as cells in the order of coding, and those of them at an edge."""

    cells: Flat
    first: Flat  # of a row
    last: Flat
    top: Flat  # of a slice
    bottom: Flat


def steps(grid: Grid) -> Iterator[Step]:
    """Yield the steps in the order of coding."""
    starts = (_THROUGH * np.arange(grid.slices)[:, None] + _DOWN * np.arange(grid.rows)).reshape(-1)
    order = np.argsort(starts, kind="stable")
    starts, firsts, rows = starts[order], grid.firsts().reshape(-1)[order], np.tile(np.arange(grid.rows), grid.slices)[order]
    numbers = np.arange(int(starts[-1]) + grid.columns)
    lows, highs = np.searchsorted(starts, numbers - grid.columns, side="right"), np.searchsorted(starts, numbers, side="right")
    for number, low, high in zip(numbers.tolist(), lows.tolist(), highs.tolist(), strict=True):
        if low < high:
            begun, row = starts[low:high], rows[low:high]
            cells = firsts[low:high] + (number - begun)
            yield Step(cells, cells[begun == number], cells[begun == number - grid.columns + 1], cells[row == 0], cells[row == grid.rows - 1])


def spread(grid: Grid, values: NDArray[np.int32], step: Step) -> None:
    """Copy the pixels of a step that has been decoded to the border, as `Grid.with_border` does for all at once."""
    row = grid.row
    for cells, offsets in (
        (step.first, (row - 1, row - 2)),
        (step.last, (1, 2)),
        (step.top, (grid.through - row, grid.through - 2 * row)),
        (step.bottom, (row,)),
    ):
        for offset in offsets if len(cells) else ():
            beyond = cells + offset
            within = beyond < grid.size
            values[beyond[within]] = values[cells[within]]
