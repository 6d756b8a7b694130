"""Timers of studies: they stand in the database, in UTC, so that neither a restart nor a moved clock loses a study or holds it for ever."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from pacs_node.database import jobs
from pacs_node.database.states import JobState
from pacs_node.reception.part10 import Incoming
from pacs_node.records import Sender
from pacs_node.workbench import tables
from tests.journey.support import RULES, Town, ct_slice, ct_study, encode_body
from tests.journey.test_adversity import alert_kinds, states_of_jobs
from tests.journey.test_announced import reasons, waits_for

Make = Callable[..., Town]
BERLIN = ZoneInfo("Europe/Berlin")


def slices_of_runs(town: Town) -> list[int]:
    with town.house.store.read() as session:
        return [job.finding["slices"] for job in reversed(jobs.list_jobs(session)) if job.finding]


def changes_of_the_hour() -> list[datetime]:
    """Return the next two moments at which Berlin sets its clocks, UTC."""
    moment, found = datetime.now(UTC).replace(minute=0, second=0, microsecond=0), list[datetime]()
    while len(found) < 2:
        after = moment + timedelta(hours=1)
        if moment.astimezone(BERLIN).utcoffset() != after.astimezone(BERLIN).utcoffset():
            found.append(after)
        moment = after
    return found


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()
    assert "Europe/Berlin" not in os.environ.get("TZ", "")


@pytest.mark.parametrize("change", [0, 1])
def test_quiet_time_over_a_change_of_the_hour_is_as_long_as_any_other(town: Town, berlin: None, change: int) -> None:
    town.clock = changes_of_the_hour()[change] - timedelta(seconds=5)
    town.send(ct_study())
    town.gather()
    town.wait(seconds=9)
    town.gather()
    assert states_of_jobs(town) == []
    town.wait(seconds=2)
    town.gather()
    assert reasons(town) == [("no instance came for 10 s", False)]


@pytest.mark.parametrize("days", [1, -1])
def test_a_clock_that_jumps_a_day_in_the_middle_of_a_study_loses_and_holds_nothing(town: Town, days: int) -> None:
    images = ct_study()
    town.send(images[:3])
    town.gather()
    town.clock += timedelta(days=days)
    send_at_the_clock(town, images[3:])
    for _ in range(3):
        town.settle()
    assert slices_of_runs(town)[-1] == 6
    assert set(states_of_jobs(town)) <= {JobState.DONE, JobState.CANCELLED}
    assert alert_kinds(town) == []


def send_at_the_clock(town: Town, images: list[object]) -> None:
    """Put objects into the spool at the moved clock's time, even where it lies in the past."""
    sender = Sender("CT1", "PACS_NODE", "127.0.0.1:4242", "moved1")
    spool = town.house.spool
    for index, image in enumerate(images):
        syntax = str(image.file_meta.TransferSyntaxUID)  # type: ignore[attr-defined]
        path = spool.store(sender, str(image.SOPClassUID), str(image.SOPInstanceUID), syntax, [encode_body(image)])  # type: ignore
        path.rename(path.with_name(f"{int(town.clock.timestamp() * 1e9) + index:020d}-moved1-{index:06d}.dcm"))


def test_a_restart_on_another_day_finds_the_quiet_time_over(town: Town) -> None:
    town.send(ct_study())
    town.gather()
    town.wait(days=1)
    town.restart()
    town.gather()
    assert len(states_of_jobs(town)) == 1


# --- what still comes in -----------------------------------------------------------------------------------------------------


def test_a_sibling_series_that_still_comes_in_holds_the_study(town: Town) -> None:
    town.send(ct_study())
    for index in range(8):
        town.wait(seconds=6)
        town.send([ct_slice(index, series=2)])
        town.gather()
        assert states_of_jobs(town) == []
    town.wait(seconds=11)
    town.gather()
    assert reasons(town) == [("no instance came for 10 s", False)]


def test_an_object_that_comes_in_slowly_holds_its_study_and_no_other(town: Town) -> None:
    town.send(ct_study(), association="slow1", released=None)
    town.send(ct_study(study="B"), association="quick1")
    town.gather()
    late = ct_slice(6)
    sender = Sender("CT1", "PACS_NODE", "127.0.0.1:4242", "slow1")
    file = town.house.spool.open(Incoming(sender, str(late.SOPClassUID), str(late.SOPInstanceUID), str(late.file_meta.TransferSyntaxUID)))
    file.write(encode_body(late))
    town.wait(seconds=11)
    town.gather()
    assert len(states_of_jobs(town)) == 1
    with town.house.store.read() as session:
        assert "an object that is coming in" in str([row["waiting_for"] for row in tables.study_rows(session, 10)])
    file.commit()
    for _ in range(2):
        town.gather()
        town.wait(seconds=11)
    town.gather()
    town.work()
    assert slices_of_runs(town) == [6, 7]


def test_an_object_that_stopped_coming_in_holds_nothing(town: Town) -> None:
    town.send(ct_study(), association="slow1", released=None)
    sender = Sender("CT1", "PACS_NODE", "127.0.0.1:4242", "slow1")
    town.house.spool.open(Incoming(sender, "1.2", "1.2.3", "1.2.840.10008.1.2.1"))
    (part,) = town.house.spool.new.rglob("*.part")
    os.utime(part, (time.time() - 120, time.time() - 120))
    town.gather()
    town.wait(seconds=11)
    town.gather()
    assert len(states_of_jobs(town)) == 1


def test_a_release_counts_where_the_rule_says_so_and_not_while_the_association_is_open(make_town: Make) -> None:
    town = make_town(rules=RULES.replace("pipeline: ct-test", "pipeline: ct-test\n    complete: {on_release: true, quiet: 5min, expect: [axial]}"))
    images = ct_study()
    town.send(images[:3], association="one", released=None)
    town.gather()
    town.wait(seconds=30)
    town.gather()
    assert states_of_jobs(town) == [] and "or the release of its associations" in waits_for(town)
    town.send(images[3:], association="one")
    town.gather()
    assert reasons(town) == [("its sender released the association and axial is there", False)]
