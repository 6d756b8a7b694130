"""What operators and the node do at the same time, and what is written down of it."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import select

from pacs_node.database import jobs
from pacs_node.database.states import JobState, StudyState
from pacs_node.database.tables import AuditRow, JobRow, ObjectRow, StudyRow
from pacs_node.errors import InputError
from pacs_node.executors.retry import Fault
from pacs_node.journey import House
from pacs_node.journey.leases import decide_after
from pacs_node.journey.operate import cancel_job, release, retry_job
from tests.journey.support import Town, ct_slice, ct_study


def audited(town: Town) -> Counter[str]:
    with town.house.store.read() as session:
        return Counter(f"{row.action} {row.subject.split()[0]}" for row in session.scalars(select(AuditRow)))


def test_what_the_node_does_by_itself_is_written_down(town: Town) -> None:
    town.send(ct_study(5))
    town.gather()
    town.wait(seconds=11)
    town.gather()
    town.send([ct_slice(5)])
    town.settle()  # the first job is overtaken
    town.send([ct_slice(6, patient="P2")])
    town.settle()  # another patient: held
    found = audited(town)
    assert found["cancelled job"] == 1
    assert found["analysed job"] == 1
    assert found["held study"] >= 1


def test_every_action_of_an_operator_is_written_down(town: Town) -> None:
    town.send(ct_study(5))
    town.settle()
    retry_job(town.house.store, 1, town.clock)
    cancel_job(town.house.store, 1, town.clock)
    town.send([ct_slice(6, patient="P2")])
    town.settle()
    release(town.house.store, 1, town.clock)
    found = audited(town)
    assert (found["retry job"], found["cancel job"], found["release study"]) == (1, 1, 1)


def _work(house: House, name: str, chance: random.Random) -> None:
    """Claim a job and end it in one of the ways in which jobs end, as `run_job` does."""
    with house.store.write() as session:
        job = jobs.claim(session, name, house.clock(), house.settings.executor.lease)
        held = (job.id, job.attempts, job.run) if job is not None else None
    if held is None:
        return
    number, attempt, run = held
    with house.store.write() as session:
        mine = jobs.still_mine(session, number, name, attempt)
        if mine is None:
            return
        if chance.random() < 0.3:
            decide_after(house, session, mine, Fault.CRASHED, "by chance", house.clock())
            mine.not_before = house.clock()
            return
        facts = {"variant": "v", "kind": "sr", "sop_uid": f"1.{number}.{run}", "sop_class_uid": "1", "series_uid": "1", "transfer_syntax_uid": "1"}
        session.add(ObjectRow(job_id=number, run=run, path="p", sha256="", position=1, **facts))  # a second one of the same run would break its key
        jobs.finish(mine, JobState.DONE, house.clock())


def _operate(house: House, chance: random.Random, count: int) -> None:
    action: Callable[..., str] = chance.choice([retry_job, retry_job, cancel_job])
    try:
        action(house.store, chance.randint(1, count), house.clock())
    except InputError:
        return  # said in a sentence: the job is not in a state for it


def test_operators_and_workers_at_the_same_jobs_leave_each_in_one_state_with_one_result_a_run(town: Town, tmp_path: Path) -> None:
    count = 8
    with town.house.store.write() as session:
        session.add(
            StudyRow(
                id=1, study_uid="1.2", state=StudyState.COMPLETE, patient_id="", issuer="", patient_name="", birth_date="", accession="", description="",
                first_arrival=town.clock, last_arrival=town.clock,
            )
        )  # fmt: skip
        session.flush()
        for _ in range(count):
            session.add(
                JobRow(
                    study_id=1, pipeline="ct", series_uids=[], rules=[], targets=[], digest="", state=JobState.QUEUED, priority=1, complete_reason="",
                    partial=False, not_before=town.clock, created_at=town.clock,
                )
            )  # fmt: skip
    errors: list[BaseException] = []

    def again(number: int, work: bool) -> None:
        chance = random.Random(number)
        try:
            for _ in range(25):
                _work(town.house, f"w{number}", chance) if work else _operate(town.house, chance, count)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=again, args=(number, number < 3)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert errors == []
    for _ in range(40):
        _work(town.house, "last", random.Random(7))
    with town.house.store.read() as session:
        rows = session.scalars(select(JobRow)).all()
        assert {row.state for row in rows} <= {JobState.DONE, JobState.PARKED, JobState.CANCELLED, JobState.QUEUED}
        assert len({row.run for row in rows if row.run > 1}) == len([row for row in rows if row.run > 1])  # each new run has a number of its own
        done = [row.id for row in rows if row.state is JobState.DONE]
        assert all(session.scalars(select(ObjectRow.id).where(ObjectRow.job_id == number)).first() for number in done)
