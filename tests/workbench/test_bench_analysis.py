"""The benchmark of the analysis as a command: small, and nothing is timed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import JPEGLSLossless
from typer.testing import CliRunner

from pacs_node.analysis.bundle import load
from pacs_node.analysis.manifest import read_manifest
from pacs_node.analysis.pipeline import prepare, read_series
from pacs_node.cli import app
from pacs_node.config import shipped
from pacs_node.errors import InputError
from pacs_node.workbench.bench_analysis import STAGES
from pacs_node.workbench.bench_series import write_series
from tests.analysis.conftest import make_bundle


@pytest.mark.slow
def test_the_analysis_is_measured_in_every_way_and_says_the_same_in_each(tmp_path: Path) -> None:
    figures, work = tmp_path / "analysis.json", tmp_path / "work"
    work.mkdir()
    asked = ["--slices", "8", "--rows", "128", "--rounds", "1", "--work", str(work), "--json", str(figures)]
    done = CliRunner().invoke(app, ["bench", "analysis", *asked])
    assert done.exit_code == 0, done.output
    found = json.loads(figures.read_text())
    assert (found["slices"], found["rows"], found["device"]) == (8, 128, "cpu")
    assert any(one["way"].startswith("JPEG-LS") for one in found["ways"])
    for one in found["ways"]:
        assert set(one["share"]) == set(STAGES)
        assert sum(one["share"].values()) == pytest.approx(1)
        assert one["range"][0] <= one["slices_per_s"] <= one["range"][1]
        assert 150 < one["peak_mb"] < 2048
    exact = [one["score"] for one in found["ways"] if "bfloat16" not in one["way"]]
    assert exact == pytest.approx([exact[0]] * len(exact), abs=1e-4)
    assert list(work.iterdir()) == []


@pytest.mark.parametrize("bundle", ["ct-body", "mr-brain", "pt-body", "us-breast", "ct-head"])
def test_a_series_longer_than_what_is_made_is_one_that_the_bundle_judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundle: str) -> None:
    monkeypatch.setattr("pacs_node.workbench.bench_series._MADE", 6)
    manifest = load(shipped("models") / bundle).manifest
    files = write_series(manifest, 10, 128, tmp_path)
    volumes = [read_series(files[name], manifest) for name in ("uncompressed", "JPEG-LS")]
    assert dcmread(files["JPEG-LS"][9]).file_meta.TransferSyntaxUID == JPEGLSLossless
    for volume in volumes:
        assert len(volume.frames) == 10
        assert prepare(volume, manifest).foreground.any()
    assert [one.tobytes() for one in volumes[0].pixels] == [one.tobytes() for one in volumes[1].pixels]


def test_a_bundle_without_phantoms_cannot_be_measured(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "tiny")
    text = (folder / "model.yaml").read_text()
    (folder / "model.yaml").write_text("\n".join(line for line in text.splitlines() if "phantoms:" not in line))
    with pytest.raises(InputError, match=r"recipe\.phantoms"):
        write_series(read_manifest(folder), 8, 128, tmp_path / "work")
