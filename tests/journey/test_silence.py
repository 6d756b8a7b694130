"""Senders that are expected to send: an alert when they do not, taken back by the next instance."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from pacs_node.clock import duties
from pacs_node.database.alerts import open_alerts
from pacs_node.journey.silence import listen
from tests.journey.support import Town, ct_study

Make = Callable[..., Town]
EVERY_DAY = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


def alerts(town: Town) -> dict[str, str]:
    listen(town.house, town.clock)
    with town.house.store.read() as session:
        return {alert.subject: alert.message for alert in open_alerts(session) if alert.kind == "silence"}


def silence(**more: object) -> dict[str, object]:
    return {"silence": {"after": "4h", "days": EVERY_DAY, "hours": "00:00-24:00", **more}}


def test_a_sender_that_stops_is_said_and_its_next_instance_takes_that_back(make_town: Make) -> None:
    town = make_town(events=silence(senders=["CT1", "CT2"]))
    town.send(ct_study(study="A"), calling="CT1")
    town.send(ct_study(study="B"), calling="CT2")
    town.gather()
    town.wait(hours=3, minutes=59)
    assert alerts(town) == {}
    town.send(ct_study(study="C"), calling="CT2", released=None)  # its association stays open
    town.gather()
    town.wait(minutes=2)
    found = alerts(town)
    assert set(found) == {"sender CT1"}
    assert "CT1 has sent nothing since" in found["sender CT1"]
    town.send(ct_study(study="D"), calling="CT1")
    town.gather()
    assert alerts(town) == {}


def test_a_sender_that_never_sent_is_said_from_the_start_of_the_node_on(make_town: Make) -> None:
    town = make_town(events=silence(senders=["CT1"]))
    assert alerts(town) == {}
    town.wait(hours=5)
    assert "since the node was started" in alerts(town)["sender CT1"]


def test_without_names_anybody_will_do_but_the_node_itself(make_town: Make) -> None:
    town = make_town(events=silence())
    town.send(ct_study(), calling="CT7")
    town.gather()
    town.wait(hours=5)
    town.send(ct_study(study="B"), calling="PACS_NODE")
    town.gather()
    assert set(alerts(town)) == {"sender anybody"}
    town.send(ct_study(study="C"), calling="CT8")
    town.gather()
    assert alerts(town) == {}


def test_nights_and_weekends_are_silent_by_right(make_town: Make) -> None:
    town = make_town(events=silence(days=["mon"], hours="08:00-18:00", senders=["CT1"]))
    town.clock = town.house.began = datetime(2026, 3, 6, 12, 0, tzinfo=UTC)  # a Friday
    town.wait(days=2)
    assert alerts(town) == {}
    town.wait(days=1, hours=12)
    assert set(alerts(town)) == {"sender CT1"}


def test_an_alert_goes_with_its_configuration(make_town: Make) -> None:
    town = make_town(events=silence(senders=["CT1"]))
    town.wait(hours=5)
    assert set(alerts(town)) == {"sender CT1"}
    later = make_town()
    later.clock = town.clock
    assert alerts(later) == {}
    assert "silence" in [duty.name for duty in duties(later.house)]
