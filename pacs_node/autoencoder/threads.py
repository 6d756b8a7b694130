"""Slices side by side: decoders, sparse products, morphology and the network let go of the interpreter's lock, so that threads are enough.

Each thread computes alone. The threads that a tensor library starts inside each operation wait for each other by spinning: on processors that
anybody else uses too, as the node's own receivers do, they cost many times what they gain.
"""

from __future__ import annotations

import ctypes
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

_FEWEST, _MOST = 2, 8  # one waits for the disk while another works
_PIECE = 8  # slices a thread takes at a time: handing over costs as much as a small slice
_MALLOPT = {-3: 32 << 20, -1: 256 << 20}  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of mallopt(3), bytes

Item = TypeVar("Item")
Result = TypeVar("Result")


def count() -> int:
    """Return how many threads are worth while: ``OMP_NUM_THREADS``, else one for each processor that this process may use; two at least."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(_FEWEST, min(_MOST, int(given) if given.isdigit() else processors))


def keep_memory() -> None:
    """Let this process keep what a piece of work gives back for the next one, where the C library is told so by ``mallopt``.

    Else every map of a few megabytes is taken from the system and given back, and its pages are filled with zeros first: a third of the
    time that maps and networks take. What was used for larger ones is given back as before.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in _MALLOPT.items():
            mallopt(option, value)


@contextmanager
def alone() -> Iterator[None]:
    """Let the tensor library compute in the calling thread only (see the top of the module); also a decorator."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_order(work: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result]:
    """Give ``work(item)`` for each item in its order, made by threads that are a handful of items ahead.

    Whatever ends the iteration (close the iterator), also ends the threads: what has not begun is given up, what has is awaited.
    """
    rest, threads = iter(items), count()
    first = list(islice(rest, 2 * threads))
    if len(first) < 2:  # thousands of pictures are a series of one slice each
        with alone():
            yield from map(work, first)
        return
    with alone(), ThreadPoolExecutor(threads, "analysis") as pool:
        waiting: deque[Future[Result]] = deque(pool.submit(work, one) for one in first)
        try:
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(work, one) for one in islice(rest, 1))
        finally:
            for future in waiting:
                future.cancel()


def pieces(length: int, size: int = _PIECE) -> list[slice]:
    """Cut ``length`` slices into pieces."""
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def in_pieces(work: Callable[[slice], Sequence[Result]], length: int, size: int = _PIECE) -> list[Result]:
    """Return the joined results of ``work(piece)`` for ``length`` slices; each piece gives one result a slice."""
    return [one for made in in_order(work, pieces(length, size)) for one in made]


def by_slice(function: Callable[..., NDArray[Any]], *arrays: NDArray[Any]) -> NDArray[Any]:
    """Return ``function(*arrays)`` of arrays of as many slices, computed some slices at a time; it may look at nothing but the slices it is given."""
    return np.concatenate(list(in_order(lambda some: function(*(array[some] for array in arrays)), pieces(len(arrays[0])))))
