"""Recent scores against the calibration that judged them: an alert where they have drifted, and its end."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from pacs_node.analysis.calibration_file import TAIL_LEVELS, Bin, CalibrationFile
from pacs_node.analysis.origin import words
from pacs_node.autoencoder.calibration import threshold
from pacs_node.clock import duties
from pacs_node.database.states import JobState, StudyState
from pacs_node.database.tables import AlertRow, JobRow, StudyRow
from pacs_node.journey.drift import watch_drift
from pacs_node.journey.run_job import summary
from pacs_node.monitoring.drift import watched
from pacs_node.records import Calibration, Population
from pacs_node.workbench import tables
from tests.journey.support import Town, ct_study, finding

NORMAL = np.sort(np.random.default_rng(1).gumbel(size=200))
CT1 = Bin(region="HEAD", manufacturer="ACME", model="S3", station="CT1", threshold=threshold(NORMAL[::2].tolist(), 0.05), scores=tuple(NORMAL[::2].tolist()))


def calibrate(folder: Path, **changes: object) -> str:
    """Write a calibration into a bundle's folder; returns its SHA-256."""
    facts = {
        "population": Population.SITE, "studies": len(NORMAL), "alpha": 0.05, "confidence": 0.95, "threshold": threshold(NORMAL.tolist(), 0.05),
        "made_on": "2026-01-01", "weights_sha256": "a" * 64, "scores": tuple(NORMAL.tolist()), "pixel_tail": tuple(range(TAIL_LEVELS)),
    }  # fmt: skip
    content = CalibrationFile.model_validate(facts | changes).model_dump_json().encode()
    (folder / "calibration.json").write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def judge(town: Town, digest: str, scores: Sequence[float], patient: str = "", **finding: object) -> None:
    """Let studies of different patients (or of one, where it is named) have been judged with these scores."""
    with town.house.store.write() as session:
        first = len(session.scalars(select(StudyRow.id)).all())
        for number, score in enumerate(scores, start=first):
            study = StudyRow(
                study_uid=f"1.{number}", state=StudyState.COMPLETE, patient_id=patient or f"P{number}", issuer="", patient_name="", birth_date="",
                accession="", description="", first_arrival=town.clock, last_arrival=town.clock,
            )  # fmt: skip
            session.add(study)
            session.flush()
            said = {"score": float(score), "population": "site", "scanner": "", "calibration": digest}
            session.add(
                JobRow(
                    study_id=study.id, pipeline="ct-test", series_uids=[], rules=[], targets=[], digest="", state=JobState.DONE, priority=1,
                    complete_reason="", partial=False, not_before=town.clock, created_at=town.clock, finished_at=town.clock + timedelta(seconds=number),
                    finding=said | finding,
                )
            )  # fmt: skip


def alerts(town: Town) -> dict[str, str]:
    with town.house.store.read() as session:
        rows = session.scalars(select(AlertRow).where(AlertRow.cleared_at.is_(None), AlertRow.kind == "drift"))
        return {row.subject: row.message for row in rows}


def scores(count: int, shift: float = 0.0, seed: int = 2) -> list[float]:
    return list(np.random.default_rng(seed).gumbel(size=count) + shift)


def test_scores_as_in_the_calibration_raise_nothing(town: Town) -> None:
    judge(town, calibrate(town.folder), scores(80))
    watch_drift(town.house)
    assert alerts(town) == {}
    with town.house.store.read() as session:
        (found,) = watched(session, town.house.bundles)
    assert (found.bundle, found.studies, found.state) == ("ct-test", 80, "steady")


def test_drifted_scores_raise_an_alert_that_says_what_was_expected_and_seen_until_it_is_over(town: Town) -> None:
    digest = calibrate(town.folder)
    judge(town, digest, scores(80, 4.0))
    watch_drift(town.house)
    message = alerts(town)["ct-test"]
    assert "the scores of ct-test have drifted: of 80 patients since" in message
    assert "at most 24 % were expected; scores are higher than those of the calibration" in message
    assert "calibrate again" in message
    watch_drift(town.house)
    assert len(alerts(town)) == 1
    judge(town, digest, scores(200, seed=3))  # the window holds nothing else now
    watch_drift(town.house)
    assert alerts(town) == {}


def test_a_new_calibration_ends_the_alert_and_begins_to_count_anew(town: Town) -> None:
    judge(town, calibrate(town.folder), scores(80, 4.0))
    watch_drift(town.house)
    assert alerts(town)
    calibrate(town.folder, made_on="2026-02-01")
    watch_drift(town.house)
    assert alerts(town) == {}


@pytest.mark.parametrize(
    ("changes", "finding", "patient"),
    [
        ({}, {"calibration": "another"}, ""),
        ({}, {"population": "synthetic"}, ""),
        ({"population": Population.SYNTHETIC}, {"population": "synthetic"}, ""),
        ({}, {}, "P1"),
    ],
    ids=["judged by another calibration", "synthetic studies", "a synthetic calibration", "one patient again and again"],
)
def test_what_is_not_of_the_calibrations_population_does_not_count(town: Town, changes: dict[str, object], finding: dict[str, object], patient: str) -> None:
    judge(town, calibrate(town.folder, **changes), scores(80, 4.0), patient, **finding)
    watch_drift(town.house)
    assert alerts(town) == {}


def test_a_job_remembers_which_calibration_has_judged_it_and_by_which_scanner() -> None:
    bare = finding(ct_study(1))
    judged = Calibration(Population.SITE, 100, 1.0, 0.05, date(2026, 1, 1), "ACME S3, station CT1, HEAD")
    said = summary(replace(bare, calibration=judged, algorithm=replace(bare.algorithm, calibration_hash="c" * 64)))
    assert (said["scanner"], said["calibration"], said["population"]) == ("ACME S3, station CT1, HEAD", "c" * 64, "site")
    assert (summary(bare)["scanner"], summary(bare)["calibration"]) == (None, None)


def test_few_studies_say_nothing_yet(town: Town) -> None:
    judge(town, calibrate(town.folder), scores(49, 4.0))
    watch_drift(town.house)
    assert alerts(town) == {}
    with town.house.store.read() as session:
        assert [one.state for one in watched(session, town.house.bundles)] == ["too few studies: 50 are needed"]


def test_a_scanner_that_drifts_is_named_and_the_others_are_steady(town: Town) -> None:
    digest = calibrate(town.folder, bins=(CT1,))
    judge(town, digest, scores(60, 4.0), scanner=words(CT1.origin))
    judge(town, digest, scores(60, seed=5))
    watch_drift(town.house)
    assert set(alerts(town)) == {"ct-test, ACME S3, station CT1, HEAD"}


def test_a_damaged_calibration_is_left_to_those_who_judge_by_it(town: Town) -> None:
    (town.folder / "calibration.json").write_text("damaged")
    watch_drift(town.house)
    assert alerts(town) == {}


def test_the_duty_is_on_the_clock_and_status_shows_the_table(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    assert any(duty.name == "drift" and duty.run is watch_drift for duty in duties(town.house))
    judge(town, calibrate(town.folder), scores(80, 4.0))
    monkeypatch.setattr(tables, "available", lambda folder: town.house.bundles)
    (row,) = tables.status_tables(town.settings)["drift"]
    assert (row["bundle"], row["patients"], row["state"]) == ("ct-test", 80, "DRIFT")
    assert row["above"] > row["expected"] == 0.24
