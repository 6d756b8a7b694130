"""The pixels of a series as the scanner stored them: half the memory of physical values, which are made when somebody looks.

A thousand slices of 512² are 0.5 GB as 16-bit integers; as physical values (and once more on the scale of a bundle) they would be 1 GB
(and 2 GB), of which preprocessing needs every slice once and the pictures five of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import DTypeLike, NDArray

Values = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class StoredSlice:
    """One slice as stored, (rows, columns), and what makes its values physical: pixel by pixel, so that a part may be asked for alone."""

    stored: NDArray[np.generic]
    physical: Callable[[NDArray[np.generic]], Values]

    def values(self, where: tuple[Any, ...] = ()) -> Values:
        """Return the physical values of the slice, or of the part that ``where`` indexes."""
        part = np.asarray(self.stored[where])
        return self.physical(part) if part.ndim else self.physical(part.reshape(1))[0]


def as_it_is(values: NDArray[np.generic]) -> Values:
    """Keep values that are physical already."""
    return values.astype(np.float32, copy=False)


class StoredPixels(NDArrayOperatorsMixin):
    """Looks like a float32 array (slices, rows, columns) that cannot be written to: see `records.Pixels`.

    ``pixels[3]``, ``pixels[::5, ::4, ::4]`` and iteration make the values asked for and nothing else; arithmetic, comparison, other ways of
    indexing and ``numpy.asarray`` make those of the whole series.
    """

    dtype = np.dtype(np.float32)
    ndim = 3

    def __init__(self, slices: Sequence[StoredSlice]) -> None:
        self._slices = tuple(slices)

    @property
    def shape(self) -> tuple[int, ...]:
        """Slices, rows, columns."""
        return (len(self._slices), *self._slices[0].stored.shape)

    def __len__(self) -> int:
        return len(self._slices)

    def __iter__(self) -> Iterator[Values]:
        return (one.values() for one in self._slices)

    def __getitem__(self, key: Any) -> Any:
        first, *rest = key if isinstance(key, tuple) else (key,)
        if not all(isinstance(part, int | np.integer | slice) for part in (first, *rest)):
            return np.asarray(self)[key]
        if isinstance(first, slice):
            chosen = [one.values(tuple(rest)) for one in self._slices[first]]
            return np.stack(chosen) if chosen else np.empty((0, *self.shape[1:]), dtype=self.dtype)[(slice(None), *rest)]
        return self._slices[first].values(tuple(rest))

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("the values are made anew each time: they cannot be had without a copy")
        values = np.empty(self.shape, dtype=dtype or self.dtype)
        for place, one in zip(values, self._slices, strict=True):
            place[...] = one.values()
        return values

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        """Compute with the values of the whole series."""
        return getattr(ufunc, method)(*(np.asarray(one) if isinstance(one, StoredPixels) else one for one in inputs), **options)

    def mapped(self, function: Callable[[Values], Values]) -> StoredPixels:
        """Return the same pixels on another scale; ``function`` maps values pixel by pixel and leaves what it is given as it is."""

        def scaled(physical: Callable[[NDArray[np.generic]], Values]) -> Callable[[NDArray[np.generic]], Values]:
            return lambda stored: function(physical(stored))

        return StoredPixels([StoredSlice(one.stored, scaled(one.physical)) for one in self._slices])
