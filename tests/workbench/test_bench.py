"""The benchmarks as commands: small, and nothing is timed."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median

import pytest
from typer.testing import CliRunner

from pacs_node.cli import app


@pytest.mark.slow
def test_intake_is_measured(tmp_path: Path) -> None:
    figures, work = tmp_path / "ingest.json", tmp_path / "work"
    work.mkdir()
    done = CliRunner().invoke(app, ["bench", "ingest", "--senders", "2", "--count", "5", "--rounds", "1", "--work", str(work), "--json", str(figures)])
    assert done.exit_code == 0, done.output
    found = json.loads(figures.read_text())
    assert (found["senders"], found["instances"]) == (2, 10)
    assert found["instances_per_s"] > 0 and found["disk_reference_per_s"] > 0
    assert found["mb_per_s"] / found["instances_per_s"] == pytest.approx(0.525, rel=0.01)
    assert len(found["receivers"]) == 2 and all(one["rss"] <= 120 for one in found["receivers"])
    assert list(work.iterdir()) == []


@pytest.mark.slow
def test_receivers_keep_their_size(tmp_path: Path) -> None:
    """Single figures waver by some megabytes: after a third of warming up the others are compared. A leak of two kilobytes an instance would show."""
    figures = tmp_path / "soak.json"
    done = CliRunner().invoke(app, ["bench", "soak", "--instances", "6000", "--associations", "1200", "--probes", "1200", "--json", str(figures)])
    assert done.exit_code == 0, done.output
    rows = json.loads(figures.read_text())
    assert [rows[-1][name] for name in ("instances", "associations", "probes")] == [6000, 1200, 1200]
    third = len(rows) // 3
    for sizes in zip(*(row["rss"] for row in rows), strict=True):
        early, late = median(sizes[third : 2 * third]), median(sizes[2 * third :])
        assert late - early < 3.0, f"a receiver grew from {early:.1f} to {late:.1f} MB: {sizes}"
        assert max(sizes) <= 120.0


def test_a_folder_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    from pacs_node.errors import InputError
    from pacs_node.workbench.bench import bench_ingest

    with pytest.raises(InputError, match="--work"):
        bench_ingest(1, 1, 1, tmp_path / "missing")
