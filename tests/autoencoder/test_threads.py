"""Slices side by side: in order, not too far ahead, and nothing is left running."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import closing

import numpy as np
import pytest
import torch

from pacs_node.autoencoder import threads


def running() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("analysis")]


def test_results_come_in_the_order_of_the_items() -> None:
    assert list(threads.in_order(lambda number: number * number, range(50))) == [number * number for number in range(50)]
    assert threads.in_pieces(lambda some: list(range(some.start, some.stop)), 21) == list(range(21))
    assert threads.in_pieces(lambda some: [1], 0) == []


def test_no_more_than_a_handful_of_items_is_taken_ahead() -> None:
    begun: list[int] = []
    with closing(threads.in_order(begun.append, range(1000))) as results:
        next(results)
    assert len(begun) <= 2 * threads.count() + 1
    assert running() == []


def test_a_fault_in_a_thread_is_raised_where_the_result_is_asked_for() -> None:
    def work(number: int) -> float:
        return 1 / (number - 3)

    with pytest.raises(ZeroDivisionError):
        list(threads.in_order(work, range(10)))
    assert running() == []


@pytest.mark.parametrize(("given", "expected"), [(1, 2), (4, 4), (64, 8)])
def test_as_many_threads_as_this_process_was_given(monkeypatch: pytest.MonkeyPatch, given: int, expected: int) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", str(given))
    assert threads.count() == expected


def test_each_thread_computes_alone_and_afterwards_all_is_as_before() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert set(threads.in_order(lambda number: torch.get_num_threads(), range(9))) == {1}
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_an_array_is_mapped_some_slices_at_a_time() -> None:
    values, inside = np.arange(21 * 6, dtype=np.float32).reshape(21, 2, 3), np.arange(21 * 6).reshape(21, 2, 3) % 4 > 0
    found = threads.by_slice(lambda some, where: np.where(where, some, 0), values, inside)
    np.testing.assert_array_equal(found, np.where(inside, values, 0))


def test_memory_that_is_given_back_stays_with_the_process_where_the_c_library_can_be_told() -> None:
    mapped = """
import ctypes, sys
from pacs_node.autoencoder import threads
class Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]
library = ctypes.CDLL(None)
if not hasattr(library, "mallinfo2"):
    sys.exit(77)
library.mallinfo2.restype, library.malloc.restype = Mallinfo2, ctypes.c_void_p
before = library.mallinfo2().hblks
library.malloc(8 << 20)
print(library.mallinfo2().hblks - before)
threads.keep_memory()
before = library.mallinfo2().hblks
library.malloc(8 << 20)
print(library.mallinfo2().hblks - before)
"""
    done = subprocess.run([sys.executable, "-c", mapped], capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("this C library counts no mapped blocks")
    assert done.stdout.split() == ["1", "0"], done.stderr  # blocks of 8 MB that were taken from the system alone
