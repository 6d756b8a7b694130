"""Faults of a run: memory, device, numbers, hanging. The job goes down the ladder, its place survives the worker, and nothing is said twice."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sqlalchemy import select

from pacs_node.database import alerts, jobs
from pacs_node.database.states import JobState
from pacs_node.database.tables import AuditRow, JobRow
from pacs_node.errors import DeviceLost
from pacs_node.executors.retry import LADDER
from pacs_node.journey.heart import HUNG
from pacs_node.journey.leases import recover
from pacs_node.journey.operate import retry_job
from pacs_node.journey.run_job import run_job
from pacs_node.records import Finding
from tests.journey import support
from tests.journey.support import Town, ct_study

Make = Callable[..., Town]


def the_job(town: Town) -> JobRow:
    with town.house.store.read() as session:
        [row] = jobs.list_jobs(session)
        return row


def audited(town: Town) -> list[tuple[str, object]]:
    with town.house.store.read() as session:
        return [(row.action, row.detail.get("fault")) for row in session.scalars(select(AuditRow).where(AuditRow.subject.like("job %")).order_by(AuditRow.id))]


def work_on(town: Town, times: int) -> None:
    """Let workers run, again and again, past every pause."""
    for _ in range(times):
        town.wait(minutes=5)
        town.work()


def raising(error: BaseException) -> Callable[[str], None]:
    def script(name: str) -> None:
        raise error

    return script


@pytest.mark.parametrize(
    "error", [torch.cuda.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_out_of_memory_is_tried_with_smaller_batches_and_on_the_cpu_and_then_parked(town: Town, error: BaseException) -> None:
    town.engine.script = raising(error)
    town.send(ct_study())
    town.settle()
    work_on(town, 5)
    assert town.engine.efforts == list(LADDER)
    assert the_job(town).state is JobState.PARKED
    assert "out of memory even with one slice at a time on the CPU" in the_job(town).reason
    assert audited(town) == [("requeued", "out of memory")] * 3 + [("parked", "out of memory")]


def test_out_of_memory_with_all_slices_at_once_ends_well_with_fewer(town: Town) -> None:
    def until_few(name: str) -> None:
        if town.engine.efforts[-1].batch > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    town.engine.script = until_few
    town.send(ct_study())
    town.settle()
    work_on(town, 3)
    town.post()
    assert [effort.batch for effort in town.engine.efforts] == [32, 8, 1]
    assert (the_job(town).state, the_job(town).run) == (JobState.DONE, 1)
    assert len(town.results()) == 4


def test_the_place_on_the_ladder_survives_the_death_of_the_worker_and_not_a_retry_by_hand(town: Town) -> None:
    town.engine.script = raising(MemoryError())
    town.send(ct_study())
    town.settle()
    assert the_job(town).rung == 1
    town.restart()
    town.wait(minutes=1)
    with town.house.store.write() as session:
        assert jobs.claim(session, town.worker.name, town.clock, town.settings.executor.lease) is not None
    recover(town.house, town.worker.name, town.clock)  # it was killed in the middle, perhaps by the system for its memory
    assert the_job(town).rung == 2
    town.engine.script = raising(MemoryError())
    work_on(town, 4)
    assert town.engine.efforts == [LADDER[0], LADDER[2], LADDER[3]]
    assert the_job(town).state is JobState.PARKED
    retry_job(town.house.store, 1, town.clock)
    assert the_job(town).rung == 0


def test_a_failed_device_ends_the_process_and_the_job_is_tried_again_and_then_on_the_cpu(town: Town) -> None:
    town.engine.script = raising(torch.AcceleratorError("CUDA error: an illegal memory access was encountered"))
    town.send(ct_study())
    town.gather()
    town.wait(seconds=11)
    town.gather()
    for rung in (0, 0, 3):
        assert (the_job(town).state, the_job(town).rung) == (JobState.QUEUED, rung)
        with pytest.raises(DeviceLost, match="illegal memory access"):
            run_job(town.house, town.worker)
        town.wait(minutes=5)
    assert town.engine.efforts == [LADDER[0], LADDER[0], LADDER[3]]
    assert the_job(town).state is JobState.PARKED


@pytest.mark.parametrize("where", ["score", "slice_scores", "heat", "reconstruction", "parts"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_result_that_is_no_number_is_parked_and_never_called_unremarkable(town: Town, monkeypatch: pytest.MonkeyPatch, where: str, value: float) -> None:
    whole = support.finding

    def damaged(headers: object) -> Finding:
        found = whole(headers)  # type: ignore[arg-type]
        array = np.array(getattr(found, where)) if where not in ("score", "parts") else None
        if array is not None:
            array.flat[array.size // 2] = value
        return replace(found, **{where: value if where == "score" else {"residual": value} if where == "parts" else array})

    monkeypatch.setattr(support, "finding", damaged)
    town.send(ct_study())
    town.settle()
    town.work()
    town.post()
    assert the_job(town).state is JobState.PARKED
    assert "of model bundle ct-test is not finite" in the_job(town).reason
    assert [str(result.SOPClassUID) for result in town.results()] == ["1.2.840.10008.5.1.4.1.1.88.22"]  # a notice
    with town.house.store.read() as session:
        assert [alert.kind for alert in alerts.open_alerts(session)] == ["parked"]


def test_a_reconstruction_may_be_nothing_where_the_source_has_no_pixels(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = support.finding

    def cut(headers: object) -> Finding:
        found = whole(headers)  # type: ignore[arg-type]
        view, reconstruction = found.view.copy(), found.reconstruction.copy()
        view[0, 0, 0] = reconstruction[0, 0, 0] = np.nan
        return replace(found, view=view, reconstruction=reconstruction)

    monkeypatch.setattr(support, "finding", cut)
    town.send(ct_study())
    town.settle()
    assert the_job(town).state is JobState.DONE


def test_a_job_that_hangs_beyond_its_deadline_ends_its_process_and_is_parked_after_the_attempts(make_town: Make) -> None:
    town = make_town(executor={"job_deadline": "300ms"})
    ended, codes = threading.Event(), list[int]()

    def end(code: int) -> None:
        codes.append(code)
        ended.set()

    def hang(name: str) -> None:
        assert ended.wait(30), "the deadline passed without a word"
        ended.clear()

    town.worker = replace(town.worker, end=end)
    town.engine.script = hang
    town.send(ct_study())
    town.settle()
    assert (the_job(town).state, the_job(town).attempts) == (JobState.QUEUED, 1)
    assert "it was not done after 0:00:00.300000 (executor.job_deadline)" in the_job(town).reason
    work_on(town, 3)
    assert the_job(town).state is JobState.PARKED
    assert codes == [HUNG] * 3
    assert audited(town) == [("requeued", "not done by its deadline")] * 2 + [("parked", "not done by its deadline")]


def test_a_job_that_is_done_in_time_ends_no_process(make_town: Make, tmp_path: Path) -> None:
    town = make_town(executor={"job_deadline": "30s"})
    timers: list[float | None] = []
    town.worker = replace(town.worker, end=lambda code: pytest.fail(f"ended with {code}"), last_resort=timers.append)
    town.send(ct_study())
    town.settle()
    assert the_job(town).state is JobState.DONE
    assert timers == [90.0, None]  # the last resort was set for a while after the deadline, and taken back


def test_a_worker_that_lost_its_job_and_got_it_again_commits_only_the_attempt_it_holds(town: Town) -> None:
    def lose_it(name: str) -> None:
        if len(town.engine.calls) == 1:  # suspended for longer than its lease; meanwhile a worker of the same name took the job
            town.wait(minutes=2)
            with town.house.store.write() as session:
                jobs.requeue(session.get_one(JobRow, 1), town.clock)
            with town.house.store.write() as session:
                assert jobs.claim(session, town.worker.name, town.clock, town.settings.executor.lease) is not None

    town.engine.script = lose_it
    town.send(ct_study())
    town.settle()
    assert (the_job(town).state, the_job(town).attempts) == (JobState.RUNNING, 2)  # the other's
    assert town.results() == []
