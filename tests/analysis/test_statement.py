"""The only place where a score becomes a verdict."""

from datetime import date, timedelta
from pathlib import Path

import pytest

from pacs_node.analysis.calibration_file import TAIL_LEVELS, Bin, CalibrationFile, NamedScore, described, read_calibration
from pacs_node.analysis.statement import lifetime, state
from pacs_node.errors import BundleError
from pacs_node.records import Origin, Population, Verdict

TODAY = date(2026, 6, 1)


def calibration(population: Population = Population.SITE, n: int = 100, **changes: object) -> CalibrationFile:
    scores = tuple(float(index) for index in range(n))
    fields: dict[str, object] = {
        "population": population,
        "studies": n,
        "alpha": 0.05,
        "confidence": 0.95,
        "threshold": 97.0,
        "made_on": TODAY,
        "newest_study": TODAY if population is Population.SITE else None,
        "weights_sha256": "a" * 64,
        "scores": scores,
        "pixel_tail": tuple(float(level) for level in range(TAIL_LEVELS)),
    }
    return CalibrationFile.model_validate({**fields, **changes})


@pytest.mark.parametrize(
    ("population", "synthetic", "verdict"),
    [
        (Population.SITE, False, Verdict.ABOVE),
        (Population.SYNTHETIC, True, Verdict.ABOVE),
        (Population.SITE, True, Verdict.UNCALIBRATED),
        (Population.SYNTHETIC, False, Verdict.UNCALIBRATED),
        (Population.FOREIGN, False, Verdict.UNCALIBRATED),
        (Population.FOREIGN, True, Verdict.UNCALIBRATED),
    ],
)
def test_only_the_own_population_gives_a_verdict(population: Population, synthetic: bool, verdict: Verdict) -> None:
    said = state(98.0, calibration(population), synthetic=synthetic, today=TODAY)
    assert said.verdict is verdict
    given = verdict is not Verdict.UNCALIBRATED
    assert [(value is not None) for value in (said.calibration, said.percentile, said.p_value, said.pixel_tail)] == [given] * 4
    assert given or "uncalibrated" in said.remarks[0]


@pytest.mark.parametrize(("score", "verdict"), [(96.0, Verdict.NOT_ABOVE), (97.0, Verdict.NOT_ABOVE), (97.001, Verdict.ABOVE)])
def test_a_score_at_the_threshold_is_not_above_it(score: float, verdict: Verdict) -> None:
    assert state(score, calibration(), synthetic=False, today=TODAY).verdict is verdict


def test_percentile_and_p_value_come_from_the_calibration_scores() -> None:
    said = state(89.5, calibration(), synthetic=False, today=TODAY)
    assert said.percentile == 90.0
    assert said.p_value == pytest.approx(11 / 101)
    assert said.calibration is not None
    assert (said.calibration.studies, said.calibration.false_positive_rate) == (100, 0.05)


def test_without_a_calibration_or_a_threshold_nothing_is_said() -> None:
    assert state(1.0, None, synthetic=False, today=TODAY).remarks == ("uncalibrated: the bundle has no calibration",)
    few = state(1.0, calibration(n=30, threshold=None), synthetic=False, today=TODAY)
    assert few.verdict is Verdict.UNCALIBRATED
    assert "at least 59 are needed" in few.remarks[0]


@pytest.mark.parametrize(
    ("age", "verdict", "warned"),
    [(0, Verdict.ABOVE, False), (59, Verdict.ABOVE, False), (60, Verdict.ABOVE, True), (90, Verdict.ABOVE, True), (91, Verdict.UNCALIBRATED, True)],
)
def test_a_site_calibration_warns_from_day_60_and_is_silent_after_day_90(age: int, verdict: Verdict, warned: bool) -> None:
    said = state(98.0, calibration(newest_study=TODAY - timedelta(days=age)), synthetic=False, today=TODAY)
    assert said.verdict is verdict
    assert bool(said.remarks) is warned


def test_a_synthetic_calibration_does_not_age() -> None:
    old = calibration(Population.SYNTHETIC, made_on=date(2020, 1, 1))
    assert state(98.0, old, synthetic=True, today=TODAY).verdict is Verdict.ABOVE


OWN = Origin("HEAD", "ACME", "SCAN 3", "CT1")
SMALL = Origin("HEAD", "ACME", "SCAN 3", "CT2")


def bin_of(origin: Origin, scores: tuple[float, ...], threshold: float | None) -> Bin:
    return Bin(region=origin.region, manufacturer=origin.manufacturer, model=origin.model, station=origin.station, threshold=threshold, scores=scores)


def with_bins() -> CalibrationFile:
    return calibration(bins=(bin_of(OWN, tuple(float(score) for score in range(60)), 59.0), bin_of(SMALL, (70.0, 80.0), None)))


def test_a_study_is_judged_by_its_own_scanner_where_that_alone_can_promise_the_rate() -> None:
    said = state(60.0, with_bins(), synthetic=False, today=TODAY, origin=OWN)
    assert said.verdict is Verdict.ABOVE
    assert said.calibration is not None
    assert (said.calibration.studies, said.calibration.threshold, said.calibration.scanner) == (60, 59.0, "ACME SCAN 3, station CT1, HEAD")
    assert (said.percentile, said.p_value) == (100.0, 1 / 61)
    assert said.remarks == ()


@pytest.mark.parametrize(("origin", "count"), [(SMALL, "2 of them are"), (Origin("HEAD", "OTHER"), "none of them is"), (Origin(), "none of them is")])
def test_a_study_of_a_scanner_with_too_few_is_judged_by_all_and_the_statement_says_so(origin: Origin, count: str) -> None:
    said = state(60.0, with_bins(), synthetic=False, today=TODAY, origin=origin)
    assert said.verdict is Verdict.NOT_ABOVE
    assert said.calibration is not None
    assert (said.calibration.studies, said.calibration.threshold, said.calibration.scanner) == (100, 97.0, "")
    assert said.remarks == (f"judged by the calibration studies of all scanners together: {count} of this scanner and body region",)


def test_a_calibration_that_tells_no_scanners_apart_says_nothing_of_them() -> None:
    said = state(60.0, calibration(), synthetic=False, today=TODAY, origin=OWN)
    assert said.remarks == ()
    assert said.calibration is not None
    assert said.calibration.scanner == ""


def test_a_calibration_is_described_with_its_scanners_its_repeats_and_what_to_look_at() -> None:
    largest = (NamedScore(study="1.2.3", score=98.5), NamedScore(study="1.2.4", score=90.0))
    repeats, scanners, look = described(with_bins().model_copy(update={"repeats": 3, "largest": largest, "suspects": 1}))
    assert repeats == "one study a patient: 3 further studies of the same patients were left out"
    assert "judged by their own studies: ACME SCAN 3, station CT1, HEAD (60 studies, threshold 59.000)" in scanners
    assert "too few alone: ACME SCAN 3, station CT2, HEAD (2)" in scanners
    assert look.startswith("SUSPECT: 1 score is larger than the others suggest")
    assert "1.2.3 (98.500)" in look and "1.2.4" not in look
    assert described(calibration(largest=largest)) == ("no score is larger than the others suggest; the largest: 1.2.3 (98.500), 1.2.4 (90.000)",)
    assert described(calibration()) == ()


def test_the_card_says_until_when_a_site_calibration_gives_verdicts() -> None:
    assert lifetime(calibration()) == "newest study of 2026-06-01: warns from 2026-07-31, gives no verdicts after 2026-08-30"
    assert lifetime(calibration(Population.SYNTHETIC)) == ""


def test_a_calibration_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    assert read_calibration(tmp_path, "a" * 64) is None
    (tmp_path / "calibration.json").write_text(calibration().model_dump_json(indent=1))
    assert read_calibration(tmp_path, "a" * 64) == calibration()
    (tmp_path / "calibration.json").write_text(with_bins().model_dump_json(indent=1))
    assert read_calibration(tmp_path, "a" * 64) == with_bins()


def test_a_calibration_of_other_weights_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "calibration.json").write_text(calibration().model_dump_json())
    with pytest.raises(BundleError, match=r"other weights: calibrate again with `pacs-node calibrate`"):
        read_calibration(tmp_path, "b" * 64)


@pytest.mark.parametrize("content", ["", "{}", "[1]", "not json", '{"format": 2}'])
def test_a_damaged_calibration_is_refused_with_the_remedy(tmp_path: Path, content: str) -> None:
    (tmp_path / "calibration.json").write_text(content)
    with pytest.raises(BundleError, match="calibrate again"):
        read_calibration(tmp_path, "a" * 64)


@pytest.mark.parametrize("changes", [{"scores": (3.0, 1.0), "studies": 2}, {"studies": 7}, {"pixel_tail": (0.0, 1.0)}, {"extra": 1}, {"unusual": 1.5}])
def test_a_contradictory_calibration_is_not_accepted(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"scores|pixel_tail|extra|unusual"):
        calibration(**changes)
