"""Slices side by side: decoders, sparse products and morphology let go of the interpreter's lock, so that threads are enough."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch

_FEWEST, _MOST = 2, 8  # one waits for the disk while another works
_PIECE = 8  # slices a thread takes at a time: handing over costs as much as a small slice

Item = TypeVar("Item")
Result = TypeVar("Result")


def count() -> int:
    """Return how many threads are worth while: as many as this process was given for the network (``OMP_NUM_THREADS``), two at least."""
    return max(_FEWEST, min(_MOST, torch.get_num_threads()))


def in_order(work: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result]:
    """Give ``work(item)`` for each item in its order, made by threads that are a handful of items ahead.

    Whatever ends the iteration (close the iterator), also ends the threads: what has not begun is given up, what has is awaited.
    """
    rest, threads = iter(items), count()
    with ThreadPoolExecutor(threads, thread_name_prefix="analysis") as pool:
        waiting: deque[Future[Result]] = deque(pool.submit(work, one) for one in islice(rest, 2 * threads))
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


def in_pieces(work: Callable[[slice], Sequence[Result]], length: int) -> list[Result]:
    """Return the joined results of ``work(piece)`` for ``length`` slices; each piece gives one result a slice."""
    return [one for made in in_order(work, pieces(length)) for one in made]
