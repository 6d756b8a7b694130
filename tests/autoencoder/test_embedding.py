from __future__ import annotations

import hashlib

import numpy as np
import pytest

from pacs_node.autoencoder.embedding import WIDTH, embed


def features(slices: int, width: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, (slices, width)).astype(np.float16)


@pytest.mark.parametrize("width", [16, 127, 128, 129, 256, 768])
def test_every_width_of_network_gives_128_half_floats_a_slice_with_mean_and_spread(width: int) -> None:
    made = embed(features(7, width))
    assert made.slices.shape == (7, WIDTH) and made.mean.shape == made.spread.shape == (WIDTH,)
    assert {made.slices.dtype, made.mean.dtype, made.spread.dtype} == {np.dtype(np.float16)}
    assert np.allclose(made.mean, made.slices.astype(float).mean(0), atol=0.01) and np.allclose(made.spread, made.slices.astype(float).std(0), atol=0.01)


def test_a_network_of_the_right_width_is_taken_as_it_is_and_a_narrow_one_gets_zeros() -> None:
    wide, narrow = features(3, 128), features(3, 96)
    assert np.array_equal(embed(wide).slices, wide)
    assert np.array_equal(embed(narrow).slices[:, :96], narrow) and not embed(narrow).slices[:, 96:].any()


def test_narrowing_keeps_who_is_near_to_whom() -> None:
    wide = np.concatenate([features(12, 512, 1) * np.float16(0.1) + features(1, 512, group) for group in range(4)])
    small = embed(wide).slices.astype(float)
    nearest = [np.argsort(((small - one) ** 2).sum(1))[1:12] // 12 for one in small]
    assert all((near == index // 12).all() for index, near in enumerate(nearest))


def test_the_order_of_addition_does_not_matter_and_the_numbers_never_change() -> None:
    wide = features(5, 768)
    alone = np.concatenate([embed(wide[index : index + 1]).slices for index in range(5)])
    assert np.array_equal(embed(wide).slices, alone)
    known = embed((np.arange(2 * 256) % 37 - 18).reshape(2, 256).astype(np.float16)).slices
    assert hashlib.sha256(known.astype("<f2").tobytes()).hexdigest()[:16] == "2a29112b20788030"


def test_one_slice_has_no_spread() -> None:
    assert not embed(features(1, 256)).spread.any()


@pytest.mark.parametrize("bad", [np.zeros((0, 128)), np.zeros(128), np.zeros((2, 0)), np.zeros((1, 5000)), np.array([[np.nan, 1]]), np.array([[np.inf]])])
def test_what_cannot_be_embedded_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="features"):
        embed(bad.astype(np.float16))
