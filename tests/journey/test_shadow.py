"""Rules under trial on their journey: scored and stored, nothing sent, and the rules that send do as if they were not there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from pacs_node.database import jobs
from pacs_node.database.states import JobState
from pacs_node.database.tables import DeliveryRow, JobRow, ObjectRow
from pacs_node.errors import BundleError
from pacs_node.journey.operate import retry_job
from pacs_node.workbench.shadow import report
from pacs_node.workbench.tables import job_page, job_rows
from tests.journey.support import Town, ct_slice, ct_study

Make = Callable[..., Town]

NEW = """
  - name: new
    when: {Modality: CT}
    pipeline: ct-test
    send_to: [archive]
    forward: [archive]
    shadow: true
"""
OLD = """
  - name: old
    when: {Modality: CT}
    pipeline: ct-test
    results: [sr]
    send_to: [research]
"""


@pytest.fixture
def make(make_town: Make, tmp_path: Path) -> Callable[[str], Town]:
    places = {"research": {"kind": "folder", "path": str(tmp_path / "out")}, "archive": {"kind": "folder", "path": str(tmp_path / "archive")}}
    return lambda rules: make_town(rules=f"rules:{rules}", destinations=places)


def rule_of(town: Town) -> Mapping[str, Any]:
    [rule] = report(town.settings, "7d")
    return rule


def sent(town: Town) -> int:
    with town.house.store.read() as session:
        return len(session.scalars(select(DeliveryRow)).all())


def all_jobs(town: Town) -> list[JobRow]:
    with town.house.store.read() as session:
        return list(reversed(jobs.list_jobs(session)))


def test_what_is_under_trial_is_scored_and_stored_and_nothing_of_it_leaves(make: Callable[[str], Town]) -> None:
    town = make(NEW)
    town.send(ct_study())
    town.settle()
    assert [(job.state, job.shadow) for job in all_jobs(town)] == [(JobState.DONE, True)]
    assert sent(town) == 0
    assert not (town.folder / "archive").exists()
    with town.house.store.read() as session:
        objects = session.scalars(select(ObjectRow)).all()
        assert {obj.kind for obj in objects} == {"sr", "sc", "pm", "raw"}
        assert all(obj.withheld == ["archive"] and obj.size == (town.house.data / obj.path).stat().st_size for obj in objects)
    assert job_rows(town.settings, 10)[0]["shadow"] is True
    assert {row["state"] for row in job_page(town.settings, 1)["objects"]} == {"shadow: not sent"}


def test_the_report_says_what_would_have_been_sent_where_and_how_much(make: Callable[[str], Town]) -> None:
    town = make(NEW)
    for study in "AB":
        town.send(ct_study(study=study))
    town.settle()
    rule = rule_of(town)
    assert (rule["rule"], rule["studies"], rule["jobs"], rule["verdicts"]) == ("new", 2, {"done": 2}, {"uncalibrated": 2})
    assert rule["scores"] == {"min": 1.5, "25 %": 1.5, "median": 1.5, "75 %": 1.5, "95 %": 1.5, "max": 1.5}
    assert [(row["destination"], row["kind"], row["objects"]) for row in rule["would_send"]] == [
        ("archive", "pm", 2),
        ("archive", "raw", 2),
        ("archive", "sc", 2),
        ("archive", "sr", 2),
    ]
    with town.house.store.read() as session:
        assert sum(row["bytes"] for row in rule["would_send"]) == sum(obj.size for obj in session.scalars(select(ObjectRow)))
    assert rule["failures"] == [] and rule["beside"] == []


def test_a_rule_that_sends_and_one_under_trial_share_one_job_and_only_the_first_sends(make: Callable[[str], Town]) -> None:
    town = make(NEW + OLD)
    town.send(ct_study())
    town.settle()
    [job] = all_jobs(town)
    assert (job.shadow, job.rules, job.shadow_rules, len(town.engine.calls)) == (False, ["new", "old"], ["new"], 1)
    assert [str(result.Modality) for result in town.results()] == ["SR"]
    assert not (town.folder / "archive").exists()
    rule = rule_of(town)
    assert [row["kind"] for row in rule["would_send"]] == ["pm", "raw", "sc", "sr"]
    [beside] = rule["beside"]
    assert (beside["rule"], beside["studies"], beside["same_verdict"], beside["median_score_difference"]) == ("old", 1, 1, 0.0)


def test_a_rule_that_sends_does_not_wait_for_one_under_trial_which_then_gets_a_job_of_its_own(make: Callable[[str], Town]) -> None:
    town = make(NEW + "    complete: {quiet: 10min}\n" + OLD)
    town.send(ct_study())
    town.settle()
    assert len(town.results()) == 1
    town.wait(minutes=11)
    town.gather()
    town.work()
    town.post()
    assert [(job.shadow, job.state) for job in all_jobs(town)] == [(False, JobState.DONE), (True, JobState.DONE)]
    assert len(town.results()) == 1
    assert rule_of(town)["studies"] == 1


def test_a_failure_under_trial_is_told_to_the_operator_and_to_no_destination(make: Callable[[str], Town]) -> None:
    def damaged(name: str) -> None:
        raise BundleError(name, "is damaged")

    town = make(NEW)
    town.engine.script = damaged
    town.send(ct_study())
    town.settle()
    town.work()
    town.post()
    assert sent(town) == 0
    rule = rule_of(town)
    assert rule["failures"] == [{"reason": "model bundle ct-test: is damaged", "jobs": 1}]
    assert [(row["kind"], row["objects"]) for row in rule["would_send"]] == [("notice", 1)]


def test_ending_the_trial_sends_nothing_old_unless_it_is_asked_for(make: Callable[[str], Town]) -> None:
    town = make(NEW.replace("forward: [archive]", "notice: true"))
    town.send(ct_study(study="A"))
    town.settle()
    rules = town.folder / "rules.yaml"
    rules.write_text(rules.read_text().replace("    shadow: true\n", ""))
    town.restart()
    town.wait(hours=1)
    town.settle()
    assert sent(town) == 0
    retry_job(town.house.store, 1, town.clock, ["another"])  # of a rule that is still under trial
    town.work()
    assert sent(town) == 0
    retry_job(town.house.store, 1, town.clock, ["new"])
    town.work()
    town.post()
    results = list((town.folder / "archive").rglob("*.dcm"))
    assert len(results) == 4
    [job] = all_jobs(town)
    assert (job.shadow, job.shadow_rules, job.run) == (False, [], 3)


def test_more_of_a_study_after_the_trial_replaces_no_report_that_never_left(make: Callable[[str], Town]) -> None:
    town = make(NEW.replace("    forward: [archive]\n", "").replace("[archive]", "[research]"))
    town.send(ct_study(5))
    town.settle()
    rules = town.folder / "rules.yaml"
    rules.write_text(rules.read_text().replace("    shadow: true\n", ""))
    town.restart()
    town.send([ct_slice(5)])
    town.settle()
    assert [(job.shadow, job.state) for job in all_jobs(town)] == [(True, JobState.DONE), (False, JobState.DONE)]
    [sr] = [result for result in town.results() if result.Modality == "SR"]
    assert "PredecessorDocumentsSequence" not in sr


def test_what_is_under_trial_overtakes_only_its_own_kind(make: Callable[[str], Town]) -> None:
    town = make(NEW + "    complete: {quiet: 10min}\n" + OLD)
    town.send(ct_study())
    town.gather()
    town.wait(seconds=11)
    town.gather()  # the job of the rule that sends is queued, and stays so
    town.wait(minutes=11)
    town.gather()
    assert [(job.shadow, job.state) for job in all_jobs(town)] == [(False, JobState.QUEUED), (True, JobState.QUEUED)]
