"""Pixels as stored: whoever indexes them sees what an array of physical values would show."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from pacs_node.analysis import ct, gate, grid, intensity
from pacs_node.analysis.manifest import read_manifest
from pacs_node.analysis.stored import StoredPixels, StoredSlice
from tests.analysis.conftest import ROWS, ct_slice, make_bundle, slice_pixels

Write = Callable[[list[Dataset]], list[Path]]


def halved(stored: np.ndarray) -> np.ndarray:
    values = stored.astype(np.float32) / 2
    values[stored == 7] = np.nan
    return values


@pytest.fixture
def both() -> tuple[StoredPixels, np.ndarray]:
    """Five slices of 6 × 4, stored and as an array; one padded pixel."""
    stored = np.arange(120, dtype=np.int16).reshape(5, 6, 4)
    return StoredPixels([StoredSlice(one, halved) for one in stored]), halved(stored)


KEYS = {
    "one slice": 3,
    "the last": -1,
    "some": slice(1, 4),
    "none": slice(4, 1),
    "every second pixel of every second slice": (slice(None, None, 2), slice(None, None, 2), slice(None, None, 2)),
    "one pixel of each": (slice(None), 0, 0),
    "one pixel": (0, 1, 3),
    "part of one": (0, 1, slice(0, 4)),
    "rows of one": (2, slice(3)),
    "by a mask": np.arange(120).reshape(5, 6, 4) > 100,
    "by numbers": [0, 3],
    "with an axis more": (slice(None), None),
    "by an ellipsis": (..., 2),
}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_indexing_gives_what_an_array_gives(both: tuple[StoredPixels, np.ndarray], key: object) -> None:
    found, expected = both[0][key], both[1][key]
    assert np.shape(found) == np.shape(expected)
    np.testing.assert_array_equal(found, expected)
    assert np.asarray(found).dtype == np.float32


def test_it_counts_compares_and_computes_like_an_array(both: tuple[StoredPixels, np.ndarray]) -> None:
    pixels, values = both
    assert (pixels.shape, pixels.ndim, len(pixels), pixels.dtype) == (values.shape, 3, 5, np.float32)
    np.testing.assert_array_equal(np.stack(list(pixels)), values)
    np.testing.assert_array_equal(np.isfinite(pixels), np.isfinite(values))
    np.testing.assert_array_equal(pixels[pixels > 20], values[values > 20])
    np.testing.assert_array_equal(2 - pixels, 2 - values)
    assert np.nanmax(pixels) == np.nanmax(values)
    with pytest.raises(IndexError):
        pixels[5]
    with pytest.raises(TypeError):
        pixels[0] = 1  # type: ignore[index]


def test_another_scale_applies_to_whatever_is_asked_for(both: tuple[StoredPixels, np.ndarray]) -> None:
    pixels, values = both
    scaled = pixels.mapped(lambda part: part * 3).mapped(lambda part: part + 1)
    np.testing.assert_array_equal(scaled[1:3, ::2], values[1:3, ::2] * 3 + 1)
    np.testing.assert_array_equal(np.asarray(pixels), values)


def test_a_series_from_files_is_scaled_without_making_its_values(write: Write) -> None:
    volume = ct.read(write([ct_slice(index, RescaleIntercept=-24, RescaleSlope=2) for index in range(4)]))
    scaled = intensity.by_foreground(volume).pixels
    assert isinstance(scaled, StoredPixels)
    plain = np.stack([slice_pixels(index).astype(np.float32) * 2 - 24 for index in range(4)])
    plain[plain < ct.BELOW_AIR] = np.nan
    low, high = intensity.foreground_limits(plain) or (0, 0)
    np.testing.assert_array_equal(scaled, (plain - np.float32(low)) * np.float32(100 / (high - low)))


def traced(files: list[Path], folder: Path) -> int:
    """Return the peak of what reading and resampling allocates, bytes."""
    manifest = read_manifest(folder)
    tracemalloc.start()
    volume = ct.read(files)
    gate.check(volume, manifest)
    grid.resample(volume, manifest.preprocessing.grid)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_grows_by_the_stored_slice_and_its_small_view_alone(write: Write, tmp_path: Path) -> None:
    """Float values would take four bytes a pixel and, on another scale, four more; stored ones take two, the header about one here."""
    folder = make_bundle(tmp_path / "bundle")
    files = write([ct_slice(index, SyntheticData="YES") for index in range(80)])
    traced(files[:10], folder)  # what is loaded once
    few, many = traced(files[:20], folder), traced(files, folder)
    view = read_manifest(folder).preprocessing.pixels ** 2 * 4
    assert (many - few) / 60 < 2 * ROWS**2 + 2 * view + ROWS**2
