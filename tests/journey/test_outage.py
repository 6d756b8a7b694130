"""The journey while its database is away: nothing is lost, nothing is done twice, everything goes on by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from pacs_node import clock
from pacs_node.database import outage
from pacs_node.database.engine import Store, database_url
from pacs_node.database.tables import JobRow, ObjectRow
from pacs_node.errors import BundleError, DatabaseUnavailable
from pacs_node.journey import run_job as run_job_module
from pacs_node.journey.leases import reap
from pacs_node.journey.run_job import run_job
from tests.journey.support import Town, ct_study


class FlakyStore(Store):
    """A store whose transactions fail as often as `before` and `after` say: before they begin, or when they are committed already."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.before = self.after = 0

    def _fail(self) -> None:
        self.outage.failed("gone", writes=True)
        raise DatabaseUnavailable("x", "gone")

    @contextmanager
    def read(self) -> Iterator[Session]:
        if self.before:
            self.before -= 1
            self._fail()
        with super().read() as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        if self.before:
            self.before -= 1
            self._fail()
        with super().write() as session:
            yield session
        if self.after:
            self.after -= 1
            self._fail()


@pytest.fixture
def flaky(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Town, FlakyStore]]:
    monkeypatch.setattr(outage, "_LONGEST_PAUSE", 0.01)
    town = Town(tmp_path)
    town.house.store.close()
    store = FlakyStore(database_url(None, town.settings.node.data))
    town.house.store = store
    yield town, store
    store.close()


def ready_to_work(town: Town) -> None:
    town.send(ct_study())
    town.gather()
    town.wait(seconds=11)
    town.gather()


def jobs_of(town: Town) -> list[JobRow]:
    with town.house.store.read() as session:
        return list(session.scalars(select(JobRow)))


def test_a_duty_without_database_is_no_failure_and_goes_on_by_itself(flaky: tuple[Town, FlakyStore]) -> None:
    town, store = flaky
    town.send(ct_study())
    with capture_logs() as lines:
        for _ in range(4):
            store.before = 1
            clock.run_duty(town.house, clock.GATHER)
            store.outage._ask_again = 0.0  # as if the pause were over
        store.before = 0
        clock.run_duty(town.house, clock.GATHER)
    assert [line["event"] for line in lines if line["log_level"] in ("error", "warning")] == ["database away", "database back"]
    town.settle()
    assert len(town.results()) == 4


def test_while_the_database_rests_no_tick_asks_it(flaky: tuple[Town, FlakyStore], monkeypatch: pytest.MonkeyPatch) -> None:
    town, store = flaky
    monkeypatch.setattr(outage, "_LONGEST_PAUSE", 60.0)
    store.outage.failed("gone", writes=True)
    asked = []
    clock.run_duty(town.house, clock.Duty("ask", clock.GATHER.every, lambda house: asked.append(1)))
    assert asked == []


def test_a_job_whose_results_cannot_be_committed_waits_and_commits_them_once(flaky: tuple[Town, FlakyStore]) -> None:
    town, store = flaky
    ready_to_work(town)

    def lose_it(name: str) -> None:
        store.before = 4

    town.engine.script = lose_it
    town.work()
    (job,) = jobs_of(town)
    assert (job.state.value, job.attempts, town.engine.calls) == ("done", 1, ["ct-test"])
    town.post()
    assert len(town.results()) == 4


def test_a_commit_whose_answer_is_lost_is_not_taken_for_a_lost_job(flaky: tuple[Town, FlakyStore]) -> None:
    town, store = flaky
    ready_to_work(town)

    def lose_the_answer(name: str) -> None:
        store.after = 1

    town.engine.script = lose_the_answer
    with capture_logs() as lines:
        town.work()
    (job,) = jobs_of(town)
    assert (job.state.value, job.attempts) == ("done", 1)
    assert "job finished" in [line["event"] for line in lines]
    with store.read() as session:
        assert session.scalar(select(func.count(ObjectRow.id))) == 4


def test_a_delivery_whose_outcome_cannot_be_noted_is_not_sent_again(flaky: tuple[Town, FlakyStore], monkeypatch: pytest.MonkeyPatch) -> None:
    town, store = flaky
    ready_to_work(town)
    town.work()
    from pacs_node import delivery

    real, sent = delivery.deliver, []

    def deliver(destination, parcels, calling, note, *rest):  # type: ignore[no-untyped-def]
        def note_without_database(outcome) -> None:  # type: ignore[no-untyped-def]
            sent.append(outcome.sop_uid)
            store.before, store.after = 3, 1
            note(outcome)

        real(destination, parcels, calling, note_without_database, *rest)

    monkeypatch.setattr(delivery, "deliver", deliver)
    town.post()
    assert len(sent) == len(set(sent)) == 4
    assert len(town.results()) == 4


def test_a_process_that_is_to_stop_waits_for_no_database(flaky: tuple[Town, FlakyStore]) -> None:
    town, store = flaky
    town.house.stopping.set()
    store.before = 1
    with pytest.raises(DatabaseUnavailable):
        town.house.patiently(lambda: run_job(town.house, town.worker))


def test_leases_that_ran_out_during_an_outage_are_renewed_before_they_are_taken_back(flaky: tuple[Town, FlakyStore]) -> None:
    town, store = flaky
    ready_to_work(town)
    seen = []

    def look(name: str) -> None:
        town.clock += 2 * town.settings.executor.lease
        store.outage.failed("gone", writes=True)
        store.outage.worked(writes=True)
        seen.append(reap(town.house, town.clock))
        store.outage._over = 0.0  # long ago
        seen.append(reap(town.house, town.clock))

    town.engine.script = look
    run_job(town.house, town.worker)
    assert seen == [0, 1]


def test_an_alert_that_cannot_be_kept_is_in_the_log(flaky: tuple[Town, FlakyStore]) -> None:
    town, store = flaky
    store.before = 1
    with capture_logs() as lines, pytest.raises(DatabaseUnavailable):
        town.house.alert("test", "x", "something is wrong")
    assert ("alert", "something is wrong") in [(line["event"], line.get("message")) for line in lines]


def test_a_study_goes_through_with_every_third_transaction_failing(make_flaky_town: Callable[[int], Town]) -> None:
    town = make_flaky_town(3)
    town.send(ct_study())

    def take_back() -> None:
        town.house.store.outage._over = None  # as if the outage had been over for long
        reap(town.house, town.clock)

    for _ in range(60):
        for step in (town.gather, town.work, town.post, take_back):
            with suppress(DatabaseUnavailable):
                step()
        town.wait(seconds=12)
    (job,) = jobs_of(town)
    assert job.state.value == "done"
    assert len(town.results()) == 4


@pytest.fixture
def make_flaky_town(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Town]]:
    monkeypatch.setattr(outage, "_LONGEST_PAUSE", 0.01)
    made: list[Town] = []

    class EveryNth(FlakyStore):
        n, count = 0, 0

        @contextmanager
        def write(self) -> Iterator[Session]:
            self.count += 1
            if self.n and self.count % self.n == 0:
                self.before, self.after = (1, 0) if self.count % 2 else (0, 1)
            with super().write() as session:
                yield session

    def make(n: int) -> Town:
        town = Town(tmp_path)
        town.house.store.close()
        store = EveryNth(database_url(None, town.settings.node.data))
        store.n = n
        town.house.store = store
        made.append(town)
        return town

    yield make
    for town in made:
        town.house.store.close()


def test_a_failure_that_cannot_be_told_for_lack_of_a_database_is_told_later(flaky: tuple[Town, FlakyStore], monkeypatch: pytest.MonkeyPatch) -> None:
    town, _ = flaky
    ready_to_work(town)

    def break_down(name: str) -> None:
        raise BundleError("ct-test", "is damaged")

    town.engine.script = break_down
    run_job(town.house, town.worker)
    real, calls = run_job_module.build_all, []

    def build_all(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 1:
            raise DatabaseUnavailable("x", "gone")  # where it has something to alert
        return real(*arguments)

    monkeypatch.setattr(run_job_module, "build_all", build_all)
    with pytest.raises(DatabaseUnavailable):
        run_job(town.house, town.worker)
    assert [job.told for job in jobs_of(town)] == [False]
    town.work()
    town.post()
    assert [job.told for job in jobs_of(town)] == [True]
    assert len(town.results()) == 1
