"""The rate table: every codec's figures are those of the pixels it gives back, and a broken promise is said."""

from __future__ import annotations

import json
import math
from pathlib import Path

import jpeg_ls
import numpy as np
import pytest
from typer.testing import CliRunner

from pacs_node.cli import app
from pacs_node.errors import InputError
from pacs_node.phantoms import PhantomSpec
from pacs_node.phantoms.study import write_study
from pacs_node.workbench import bench_codecs
from pacs_node.workbench.bench_codecs import HTJ2K, JPEG_2000, Stack, at_equal_quality, jpegls, ours, quality_of
from pacs_node.workbench.bench_representation import Series, as_markdown, bench_representation, faults_of, gains_of, series_in

Y, X = np.mgrid[:128, :144]  # in smaller pictures the quality of JPEG 2000 goes in steps of more than a tenth of a decibel
NOISE = np.random.default_rng(3)


def picture(high: float, low: float = 0.0, frames: int = 2) -> np.ndarray:
    """A smooth picture with some noise."""
    waves = (np.sin(X / 11) * np.cos(Y / 7) / 2 + 0.5) * (high - low) + low
    return np.stack([(waves + NOISE.normal(0, (high - low) / 60, waves.shape)).clip(low, high) for _ in range(frames)])


STACKS = {
    "signed": Stack(picture(1200, -1000).astype(np.int16), 16),
    "12 bits": Stack(picture(4000).astype(np.uint16), 12),
    "the whole range of 16 bits": Stack(picture(32767, -32768).astype(np.int16), 16),
    "8 bits": Stack(picture(255).astype(np.uint8), 8),
    "8 bits with letters": Stack(np.where((X // 9 + Y // 7) % 5 == 0, 255, picture(120)).astype(np.uint8), 8),
    "colour": Stack(np.stack([picture(255), picture(200), picture(120)], -1).astype(np.uint8), 8, rgb=True),
}


@pytest.mark.parametrize("name", STACKS)
def test_jpeg_ls_keeps_its_bound_and_the_smallest_of_its_ways_counts(name: str) -> None:
    stack = STACKS[name]
    for near in (0, 3):
        made = jpegls(stack, near)
        assert made is not None and quality_of(stack, made.values).largest_error <= near
    if stack.rgb:
        frames = [jpeg_ls.encode_buffer(one.tobytes(), *one.shape, 8, 3, way) for one in stack.values for way in (1, 2)]
        assert made.size <= min(sum(map(len, frames[way::2])) for way in (0, 1))


@pytest.mark.parametrize("wavelet", [JPEG_2000, HTJ2K], ids=lambda one: one.name)
@pytest.mark.parametrize("name", STACKS)
def test_codecs_without_a_bound_are_compared_at_our_quality(name: str, wavelet: bench_codecs.Wavelet) -> None:
    pytest.importorskip("imagecodecs")
    stack = STACKS[name]
    exact = at_equal_quality(wavelet, stack, math.inf)
    assert exact is not None and np.array_equal(exact.values, stack.values)
    wanted = quality_of(stack, ours(stack, 4).values).psnr
    equal = at_equal_quality(wavelet, stack, wanted)
    assert equal is not None
    assert abs(quality_of(stack, equal.values).psnr - wanted) < 0.1 or equal.size == exact.size


def test_quality_is_measured_against_the_range_of_the_values() -> None:
    stack = Stack(np.array([[[0, 50], [100, 100]]] * 2, np.uint8).repeat(8, 1).repeat(8, 2), 8)
    off = stack.values.copy()
    off[0, 0, 0] += 10
    found = quality_of(stack, off)
    assert found.largest_error == 10
    assert found.psnr == pytest.approx(10 * math.log10(100**2 / (100 / off.size)))
    assert 0 < found.ssim < 1 and quality_of(stack, stack.values).ssim == pytest.approx(1)


def test_every_codec_is_measured_on_every_series_and_ours_keeps_its_promises() -> None:
    series = [Series(name, "CT", "1.25", "RGB" if stack.rgb else "MONOCHROME2", 2, stack) for name, stack in STACKS.items()]
    found = bench_representation(series, (0, 2))
    assert found["faults"] == []
    for one in found["series"]:
        assert [(rate["near"], rate["codec"]) for rate in one["rates"]] == [(near, codec) for near in (0, 2) for codec in found["codecs"]]
        assert all(gain >= 0 for gain in gains_of(one["rates"]).values())
        assert all(rate["psnr"] is None and rate["largest_error"] == 0 for rate in one["rates"] if rate["near"] == 0)
        assert all(rate["encode_mb_s"] > 0 and rate["decode_mb_s"] > 0 for rate in one["rates"])
    json.dumps(found)
    assert "| colour | CT | 1.25 |" in as_markdown(found)


def test_a_broken_bound_and_a_larger_stream_are_named() -> None:
    rates = [
        {"codec": "ours", "near": 1, "largest_error": 2, "bytes": 90},
        {"codec": "JPEG-LS", "near": 1, "largest_error": 1, "bytes": 100},
        {"codec": "ours", "near": 2, "largest_error": 2, "bytes": 101},
        {"codec": "JPEG-LS", "near": 2, "largest_error": 2, "bytes": 100},
    ]
    assert faults_of(rates) == ["k = 1: a pixel is 2 off", "k = 2: 101 bytes, JPEG-LS takes 100"]


def test_without_imagecodecs_htj2k_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_codecs, "find_spec", lambda name: None)
    assert [one.name for one in bench_codecs.wavelets()] == ["JPEG 2000"]


def test_of_a_folder_the_middle_of_each_series_is_taken_and_repeats_count_once(tmp_path: Path) -> None:
    write_study(PhantomSpec(slices=6, rows=64), tmp_path / "ct")
    write_study(PhantomSpec(slices=6, rows=64), tmp_path / "again")
    (one,) = series_in(tmp_path, 4)
    assert (one.of, len(one.stack.values), one.modality) == (6, 4, "CT")
    with pytest.raises(InputError, match="no series to measure"):
        bench_representation([])


@pytest.mark.slow
def test_the_command_prints_and_writes_the_table(tmp_path: Path) -> None:
    write_study(PhantomSpec(slices=3, rows=64), tmp_path / "ct")
    where = ["--json", str(tmp_path / "f.json"), "--markdown", str(tmp_path / "f.md")]
    ended = CliRunner().invoke(app, ["bench", "representation", "--folder", str(tmp_path / "ct"), "--k", "0", "--k", "8", "--most-slices", "2", *where])
    assert ended.exit_code == 0, ended.output
    assert "Smaller than JPEG-LS by" in ended.output
    (one,) = json.loads((tmp_path / "f.json").read_text())["series"]
    assert one["frames"] == 2 and {rate["near"] for rate in one["rates"]} == {0, 8}
    assert "2 of 3" in (tmp_path / "f.md").read_text()
