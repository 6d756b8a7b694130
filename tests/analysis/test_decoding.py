"""Many files at once: cancelled, damaged, or as if one after the other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from pacs_node.analysis import ct, pipeline
from pacs_node.analysis.bundle import load
from tests.analysis.conftest import ct_slice, make_bundle
from tests.analysis.test_pipeline import TODAY

Write = Callable[[list[Dataset]], list[Path]]


@pytest.mark.parametrize("stop_after", [1, 5, 18])
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
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("analysis")]


def test_an_undecodable_slice_in_the_middle_is_left_out_and_the_others_keep_their_places(write: Write) -> None:
    files = write([ct_slice(index) for index in range(12)])
    files[5].write_bytes(files[5].read_bytes()[:-4000])
    volume = ct.read(files)
    whole = ct.read(write([ct_slice(index) for index in range(12) if index != 5]))
    assert "1 of 12 images were left out because their pixels cannot be decoded" in volume.remarks
    np.testing.assert_array_equal(volume.pixels, whole.pixels)
    assert [frame.plane for frame in volume.frames] == [frame.plane for frame in whole.frames]
