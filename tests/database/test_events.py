"""The outbox of events: written with what it tells of, or not at all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from pacs_node.database import events
from pacs_node.database.alerts import clear_alert, clear_kind, clear_number, open_alerts, raise_alert
from pacs_node.database.engine import Store
from pacs_node.database.states import NotificationState
from pacs_node.database.tables import EventRow, NotificationRow

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def told(store: Store) -> list[tuple[str, bool, str]]:
    with store.read() as session:
        return [(row.kind, row.over, row.subject) for row in session.scalars(select(EventRow).order_by(EventRow.id))]


def test_raising_and_clearing_an_alert_are_events_once_each(store: Store) -> None:
    for message in ("down", "down", "still down"):
        with store.write() as session:
            raise_alert(session, "destination", "archive", message, NOW)
    for _ in range(2):
        with store.write() as session:
            clear_alert(session, "destination", "archive", NOW + timedelta(hours=1))
    assert told(store) == [("destination", False, "archive"), ("destination", True, "archive")]
    with store.read() as session:
        rows = session.scalars(select(EventRow).order_by(EventRow.id)).all()
        assert [row.detail for row in rows] == [{"message": "down"}, {"since": NOW.isoformat()}]
        assert len({row.uid for row in rows}) == 2


def test_alerts_cleared_by_kind_or_number_are_events_too(store: Store) -> None:
    with store.write() as session:
        for name in ("a", "b"):
            raise_alert(session, "process", name, "dies", NOW)
        raise_alert(session, "disk", "data folder", "full", NOW)
    with store.write() as session:
        clear_kind(session, "process", NOW)
        clear_number(session, open_alerts(session)[0].id, NOW)
    assert sorted(told(store)[3:]) == [("disk", True, "data folder"), ("process", True, "a"), ("process", True, "b")]


def test_what_is_rolled_back_is_no_event(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.write() as session:
        raise_alert(session, "disk", "data folder", "full", NOW)
        raise ZeroDivisionError
    assert told(store) == []


def test_an_event_that_commits_after_a_later_one_is_told_all_the_same(store: Store) -> None:
    if store.kind == "sqlite":
        pytest.skip("one transaction writes at a time")
    with store.write() as slow:
        events.add(slow, "disk", "slow", {}, NOW)
        slow.flush()
        with store.write() as quick:
            events.add(quick, "disk", "quick", {}, NOW)
        with store.write() as session:
            (first,) = events.unrouted(session, 10)
            events.route(session, first, ["hook"], NOW)
    with store.read() as session:
        assert (first.subject, [row.subject for row in events.unrouted(session, 10)]) == ("quick", ["slow"])


def test_events_end_once_and_are_forgotten_when_nobody_waits(store: Store) -> None:
    with store.write() as session:
        for number in range(3):
            events.add(session, "disk", str(number), {}, NOW + timedelta(days=number))
    with store.write() as session:
        for row in events.unrouted(session, 10):
            events.route(session, row, ["hook", "gone"], NOW)
    with store.write() as session:
        first, second, _ = events.waiting(session, "hook", 10)
        assert [first.event.subject, second.event.subject] == ["0", "1"]
        events.end(session, [first.id], NotificationState.TOLD, NOW)
        events.end(session, [first.id], NotificationState.GIVEN_UP, NOW, "too late")
        assert events.forget(session, NOW + timedelta(days=9), 10) == 0  # somebody waits for each of them
        assert events.give_up_old(session, NOW + timedelta(hours=1), ["hook"]) == 3  # those of the receiver that is not there any more
        assert events.forget(session, NOW + timedelta(days=9), 10) == 1
    with store.read() as session:
        left = session.scalars(select(NotificationRow).where(NotificationRow.receiver == "hook")).all()
        assert [(row.state, row.event.subject) for row in left] == [(NotificationState.WAITING, "1"), (NotificationState.WAITING, "2")]
