"""Slices side by side: in order, not too far ahead, and nothing is left running."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from pydicom.dataset import Dataset

from pacs_node.analysis import ct, pipeline, threads
from pacs_node.analysis.bundle import load
from tests.analysis.conftest import ct_slice, make_bundle
from tests.analysis.test_pipeline import TODAY

Write = Callable[[list[Dataset]], list[Path]]


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
def test_as_many_threads_as_the_network_was_given(given: int, expected: int) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(given)
        assert threads.count() == expected
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("stop_after", [1, 5, 20])
def test_a_job_that_is_cancelled_leaves_no_threads_behind(write: Write, tmp_path: Path, stop_after: int) -> None:
    heard: list[float] = []

    def beat(fraction: float) -> None:
        heard.append(fraction)
        if len(heard) == stop_after:
            raise TimeoutError

    files = write([ct_slice(index, SyntheticData="YES") for index in range(16)])
    with pytest.raises(TimeoutError):
        pipeline.analyse(files, load(make_bundle(tmp_path / "bundle")), beat=beat, today=TODAY)
    assert len(heard) == stop_after
    assert running() == []


def test_an_undecodable_slice_in_the_middle_is_left_out_and_the_others_keep_their_places(write: Write) -> None:
    files = write([ct_slice(index) for index in range(12)])
    files[5].write_bytes(files[5].read_bytes()[:-4000])
    volume = ct.read(files)
    whole = ct.read(write([ct_slice(index) for index in range(12) if index != 5]))
    assert "1 of 12 images were left out because their pixels cannot be decoded" in volume.remarks
    np.testing.assert_array_equal(volume.pixels, whole.pixels)
    assert [frame.plane for frame in volume.frames] == [frame.plane for frame in whole.frames]
