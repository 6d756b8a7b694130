"""What the report on rules under trial makes of jobs."""

from __future__ import annotations

from dataclasses import replace

from pacs_node.database.states import JobState
from pacs_node.workbench.shadow import Fact, summarise

TRIED = Fact(1, 1, ("1.1",), "ct", JobState.DONE, (), {"new": frozenset({"archive"})}, "above the threshold", 2.0, "")
LIVE = replace(TRIED, job_id=2, live_rules=("old",), tried={}, verdict="not above the threshold", score=1.0)


def test_the_newest_job_of_a_study_counts_and_cancelled_ones_do_not() -> None:
    facts = [TRIED, replace(TRIED, job_id=3, verdict="uncalibrated", score=3.0), replace(TRIED, job_id=4, state=JobState.CANCELLED)]
    [rule] = summarise(facts)
    assert (rule["studies"], rule["jobs"], rule["verdicts"], rule["scores"]["median"]) == (1, {"done": 1}, {"uncalibrated": 1}, 3.0)


def test_verdicts_are_compared_study_by_study_with_those_of_each_rule_that_sends() -> None:
    second = [replace(TRIED, study_id=2), replace(LIVE, study_id=2, verdict="above the threshold", score=1.5, pipeline="other")]
    third = [replace(TRIED, study_id=3), replace(LIVE, study_id=3, state=JobState.PARKED, verdict="", score=None)]
    [rule] = summarise([TRIED, LIVE, *second, *third, replace(LIVE, study_id=9)])
    [old] = rule["beside"]
    assert (old["studies"], old["same_verdict"], old["other_verdict"], old["only_here"], old["only_there"]) == (3, 1, 1, 1, 0)
    assert old["median_score_difference"] == 1.0  # scores of another pipeline do not compare


def test_objects_are_counted_for_the_destinations_of_their_own_rule() -> None:
    both = replace(TRIED, tried={"new": frozenset({"archive"}), "other": frozenset({"web"})}, would_send={("archive", "sr"): (1, 10), ("web", "sr"): (2, 20)})
    new, other = summarise([both])
    assert new["would_send"] == [{"destination": "archive", "kind": "sr", "objects": 1, "bytes": 10}]
    assert other["would_send"] == [{"destination": "web", "kind": "sr", "objects": 2, "bytes": 20}]


def test_reasons_of_failures_are_counted_most_frequent_first() -> None:
    failed = [replace(TRIED, study_id=number, state=JobState.NOT_ANALYSED, verdict="", score=None, reason="blank" if number else "few") for number in range(3)]
    [rule] = summarise(failed)
    assert rule["failures"] == [{"reason": "blank", "jobs": 2}, {"reason": "few", "jobs": 1}]
    assert rule["scores"] == {}
