"""Encoding that has to be done in time: what fits is taken, JPEG-LS at least, and nothing that was not compared."""

from __future__ import annotations

import numpy as np
import pytest

from pacs_node.autoencoder import codec
from pacs_node.autoencoder.codec import OutOfTime, Pace, encode_within
from tests.autoencoder.test_codec import smooth


class Ticking:
    """A clock that is a second further each time somebody looks at it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def pace(seconds: float) -> Pace:
    return Pace(seconds, Ticking())


VALUES = (smooth(5, 48, 56) - 1000).astype(np.int16)


def test_with_time_enough_the_same_is_written_as_without_haste() -> None:
    coded = encode_within([VALUES], 0, pace(1e6))
    assert coded.stream == codec.encode(VALUES, 0) and codec.method_of(coded.stream) == "prediction"
    assert np.array_equal(coded.values, VALUES) and coded.chosen == "prediction: smaller than JPEG-LS"


def test_prediction_that_is_seen_not_to_fit_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "_MOST_A_SECOND", 1.0)
    monkeypatch.setattr(codec.codec_slab, "encode", lambda *_: pytest.fail("it was begun"))
    coded = encode_within([VALUES], 0, pace(1000))
    assert codec.method_of(coded.stream) == "JPEG-LS" and np.array_equal(codec.decode(coded.stream), VALUES)
    assert coded.chosen.startswith("JPEG-LS: prediction would take more than the 9")


def test_prediction_is_measured_on_a_part_before_the_whole_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "_TRIAL", 8)
    begun = []
    encode = codec.codec_slab.encode
    monkeypatch.setattr(codec.codec_slab, "encode", lambda values, planes, pace: begun.append(values.shape) or encode(values, planes, pace))
    coded = encode_within([VALUES], 0, pace(2000))  # the trial takes some 100 s for 1/52 of the pixels
    assert begun == [(3, 8, 8)] and "prediction would take more than" in coded.chosen


def test_prediction_is_given_up_when_the_time_is_over() -> None:
    coded = encode_within([VALUES], 0, pace(200))
    assert codec.method_of(coded.stream) == "JPEG-LS" and np.array_equal(codec.decode(coded.stream), VALUES)
    assert coded.chosen == "JPEG-LS: prediction was given up when the time was over"


@pytest.mark.parametrize("seconds", [0, 3, 12])
def test_without_time_for_jpeg_ls_nothing_is_made(seconds: float) -> None:
    with pytest.raises(OutOfTime):
        encode_within([VALUES], 0, pace(seconds))


def test_what_will_not_be_done_in_time_is_given_up_after_a_few() -> None:
    done = []
    with pytest.raises(OutOfTime):
        for item in pace(100).foresee(range(1000), 1000):
            done.append(item)  # noqa: PERF402 - those before the end are what is looked at
    assert done == [0, 1, 2, 3]


def test_an_error_is_kept_to_in_haste_as_well() -> None:
    coded = encode_within([VALUES], 3, pace(200))
    assert np.abs(coded.values.astype(int) - VALUES).max() <= 3


def test_no_part_takes_the_time_of_those_after_it() -> None:
    whole = Pace(100.0, lambda: 20.0)
    assert whole.share(0.25).left == 20.0 and Pace().share(0.25) == Pace()


def test_of_colour_the_way_that_was_done_in_time_is_taken_where_there_is_none_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    colour = np.stack([smooth(2, 24, 32)] * 3, axis=-1).astype(np.uint8)
    encode = codec.codec_jpegls.encode

    def late(stack: object, near: int, way: object, pace: Pace) -> bytes | None:
        if way != codec.codec_jpegls.BY_PLANE:
            raise OutOfTime
        return encode(stack, near, way, pace)  # type: ignore[arg-type]

    monkeypatch.setattr(codec.codec_jpegls, "encode", late)
    coded = encode_within([colour], 0, pace(1e6))
    assert codec.method_of(coded.stream) in ("JPEG-LS", "prediction") and np.array_equal(coded.values, colour)
