"""Why a score is what it is: carried by the finding, kept with the job, printed."""

from __future__ import annotations

from datetime import date

import pytest

from pacs_node.analysis import bundle as bundles
from pacs_node.analysis.pipeline import analyse_volume
from pacs_node.cli.options import print_why
from pacs_node.journey.run_job import summary
from pacs_node.monitoring import why
from tests.analysis.conftest import make_bundle, volume


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    loaded = bundles.load(make_bundle(tmp_path_factory.mktemp("why") / "tiny"))
    return summary(analyse_volume(volume(3), loaded, today=date(2026, 6, 1)))


def test_the_summary_of_a_job_holds_shares_that_add_up_to_the_score(said: dict[str, object]) -> None:
    shares, score = said["contributions"], said["score"]
    assert isinstance(shares, dict) and isinstance(score, float)
    assert sum(shares.values()) == pytest.approx(score, abs=1e-5)
    hottest = said["hottest"]
    assert isinstance(hottest, list)
    assert [place["slice"] for place in hottest] == said["top_slices"]
    for place in hottest:
        assert sum(place["contributions"].values()) == pytest.approx(place["z"], abs=1e-2)


def test_the_table_names_every_part_in_words_and_ends_with_the_sum(said: dict[str, object], capsys: pytest.CaptureFixture[str]) -> None:
    rows = why.part_rows(said)
    assert [row[0] for row in rows] == [*said["contributions"], "score"]  # type: ignore[misc]
    assert all(row[3] != row[0] for row in rows)
    print_why(said)
    printed = capsys.readouterr().out
    assert "Why this score" in printed and "Where it is hottest" in printed


def test_a_finding_of_before_has_no_reasons_to_print(capsys: pytest.CaptureFixture[str]) -> None:
    print_why({"score": 1.0, "parts": {"peak": 1.0}})
    assert capsys.readouterr().out == ""


def test_an_unknown_part_goes_by_its_name() -> None:
    assert why.words("nearest_neighbour") == "nearest neighbour"
    assert why.largest({"a": 0.001, "b": -2.0, "c": 1.5}) == "b -2.00, c +1.50"
