"""Heartbeats and events that wait, as `/metrics` says them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from datetime import timedelta

import pytest

from pacs_node.config import Events
from pacs_node.database import events, heartbeats
from pacs_node.database.engine import Store
from pacs_node.database.tables import HeartbeatRow
from pacs_node.monitoring.gauges import look
from pacs_node.monitoring.sources import Sources


def test_the_newest_heartbeat_that_came_back_gives_latency_and_age(make_sources: Callable[..., Sources]) -> None:
    sources = make_sources()
    assert not [row for row in look(sources)[0] if row[0].startswith("pacs_node_heartbeat")]
    now = sources.clock()
    with closing(Store(f"sqlite:///{(sources.data / 'node.db').resolve()}")) as store:
        with store.write() as session:
            for number, (ago, lasted) in enumerate([(7200, 30.0), (3600, 45.0), (60, None)]):
                begun = now - timedelta(seconds=ago)
                back = begun + timedelta(seconds=lasted) if lasted is not None else None
                session.add(HeartbeatRow(study_uid=f"1.{number}", begun_at=begun, delivered_at=back, ended_at=back, problem=""))
        with store.read() as session:
            assert [row.study_uid for row in heartbeats.under_way(session)] == ["1.2"]
    said = {name: value for name, _, value in look(sources)[0]}
    assert said["pacs_node_heartbeat_seconds"] == pytest.approx(45, abs=0.1)
    assert said["pacs_node_heartbeat_age_seconds"] == pytest.approx(3600, abs=60)


def test_events_that_wait_are_counted_by_receiver(make_sources: Callable[..., Sources]) -> None:
    sources = make_sources()
    receiver = {"url": "https://ops.example/", "secret_env": "S", "name": "ops"}
    object.__setattr__(sources, "settings", sources.settings.model_copy(update={"events": Events.model_validate({"webhooks": [receiver]})}))
    assert ("pacs_node_events_waiting", ("ops",), 0) in look(sources)[0]
    with closing(Store(f"sqlite:///{(sources.data / 'node.db').resolve()}")) as store, store.write() as session:
        events.add(session, "disk", "data folder", {}, sources.clock())
        session.flush()
        for event in events.unrouted(session, 10):
            events.route(session, event, ["ops"], sources.clock())
    assert ("pacs_node_events_waiting", ("ops",), 1) in look(sources)[0]
