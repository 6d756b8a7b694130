"""Results and faults reach those who are to be told: in order, again after a crash, without holding anything up."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import func, select

from pacs_node.clock import duties
from pacs_node.config import Email, Webhook
from pacs_node.database import events
from pacs_node.database.alerts import open_alerts
from pacs_node.database.states import NotificationState
from pacs_node.database.tables import EventRow, NotificationRow
from pacs_node.errors import DatabaseUnavailable
from pacs_node.journey.events import KEPT, WAITS, route, tell, tidy
from pacs_node.monitoring.logs import study_tag
from tests.delivery.hook import Answer, Hook
from tests.delivery.test_mail import Post
from tests.journey.support import RULES, Town, ct_study

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
Make = Callable[..., Town]


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()
    yield made
    made.stop()


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, object]]:
    """Give a function that configures a receiver on a port."""
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    return lambda port, **more: {"url": f"http://127.0.0.1:{port}/x", "secret_env": "HOOK_SECRET", "name": "hook", **more}


def tell_all(town: Town) -> None:
    """Do what the duties do, as often as they find something."""
    while route(town.house, town.clock):
        pass
    for receiver in town.settings.events.receivers:
        while tell(town.house, receiver, town.clock):
            pass


def waiting(town: Town, name: str = "hook") -> int:
    with town.house.store.read() as session:
        return len(events.waiting(session, name, 1000))


def told(hook: Hook) -> list[tuple[str, str]]:
    """Return type and subject of what came."""
    found = [post.event for post in hook.posts]
    return [(one["type"], one["fault"]["subject"] if "fault" in one else f"job {one['result']['job']}") for one in found]


def test_the_result_of_a_study_is_told_signed_and_without_patient_data(make_town: Make, hook: Hook, webhook: Callable[..., dict[str, object]]) -> None:
    town = make_town(events={"webhooks": [webhook(hook.port)]})
    images = ct_study()
    town.send(images)
    town.settle()
    tell_all(town)
    (post,) = hook.posts
    assert post.event["result"] == {
        "study": study_tag(str(images[0].StudyInstanceUID)), "job": 1, "run": 1, "pipeline": "ct-test", "bundle": "ct-test 1.0", "state": "done",
        "score": 1.5, "verdict": post.event["result"]["verdict"], "partial": False, "destinations": ["research"],
    }  # fmt: skip
    for secret in ("P1", "Test^P1", str(images[0].StudyInstanceUID), "ACCA", "19700101"):
        assert secret.encode() not in post.body
    tell_all(town)
    assert len(hook.posts) == 1


def test_nobody_is_told_of_rules_under_trial(make_town: Make, hook: Hook, webhook: Callable[..., dict[str, object]]) -> None:
    rules = RULES.replace("    send_to: [research]", "    send_to: [research]\n    shadow: true")
    town = make_town(rules=rules, events={"webhooks": [webhook(hook.port)]})
    town.send(ct_study())
    town.settle()
    tell_all(town)
    assert (town.engine.calls, hook.posts) == (["ct-test"], [])


def test_a_fault_and_its_end_are_told_in_order(make_town: Make, hook: Hook, webhook: Callable[..., dict[str, object]]) -> None:
    town = make_town(events={"webhooks": [webhook(hook.port)]})
    town.house.alert("disk", "data folder", "full")
    town.house.alert("disk", "data folder", "fuller")
    town.house.clear("disk", "data folder")
    town.house.alert("held", "study 3", "two patients")
    tell_all(town)
    assert told(hook) == [("fault.raised", "data folder"), ("fault.over", "data folder"), ("fault.raised", "study 3")]
    assert hook.posts[1].event["fault"]["since"]


def test_a_receiver_that_fails_gets_everything_later_in_order_and_once(make_town: Make, hook: Hook, webhook: Callable[..., dict[str, object]]) -> None:
    town = make_town(events={"webhooks": [webhook(hook.port)]})
    hook.script = lambda post: Answer(500)
    for number in range(3):
        town.house.alert("held", f"study {number}", "two patients")
    attempts = 0
    for _ in range(6):
        tell_all(town)
        assert len(hook.posts) <= attempts + 1  # one attempt, not one for each event
        attempts = len(hook.posts)
        town.wait(minutes=16)
    assert attempts == 6
    assert len({post.headers["webhook-id"] for post in hook.posts}) == 1  # each attempt is the same event
    with town.house.store.read() as session:
        assert [alert.kind for alert in open_alerts(session)] == ["events", "held", "held", "held"]
    hook.script = lambda post: Answer()
    hook.posts.clear()
    tell_all(town)
    tell_all(town)
    assert told(hook)[:4] == [("fault.raised", "study 0"), ("fault.raised", "study 1"), ("fault.raised", "study 2"), ("fault.raised", "hook")]
    assert told(hook)[4:] == [("fault.over", "hook")]
    assert waiting(town) == 0


def test_a_receiver_that_is_away_is_left_alone_longer_and_longer(make_town: Make, webhook: Callable[..., dict[str, object]]) -> None:
    town = make_town(events={"webhooks": [webhook(1)]})
    town.house.alert("held", "study 1", "two patients")
    route(town.house, town.clock)
    (receiver,) = town.settings.events.receivers
    pauses = []
    for _ in range(8):
        assert tell(town.house, receiver, town.clock) == 0
        with town.house.store.read() as session:
            row = events.receiver(session, "hook")
            assert row.try_again_at is not None
            pauses.append((row.try_again_at - town.clock).total_seconds())
            town.clock = row.try_again_at
    assert pauses[0] <= 6.25
    assert pauses == sorted(pauses)
    assert max(pauses) <= 15 * 60 * 1.25


def test_one_receiver_that_is_away_holds_up_no_other(make_town: Make, hook: Hook, webhook: Callable[..., dict[str, object]]) -> None:
    town = make_town(events={"webhooks": [webhook(1, name="away"), webhook(hook.port, kinds=["fault"])]})
    town.house.alert("held", "study 1", "two patients")
    for _ in range(3):
        tell_all(town)
        town.wait(minutes=16)
    tell_all(town)
    assert told(hook) == [("fault.raised", "study 1"), ("fault.raised", "away")]
    assert hook.posts[1].event["fault"]["kind"] == "events"


def test_an_event_that_a_receiver_will_never_take_is_given_up_and_the_next_goes(make_town: Make, hook: Hook, webhook: Callable[..., dict[str, object]]) -> None:
    town = make_town(events={"webhooks": [webhook(hook.port)]})
    answers = itertools.chain([Answer(422)], itertools.repeat(Answer()))
    hook.script = lambda post: next(answers)
    for number in range(2):
        town.house.alert("held", f"study {number}", "two patients")
    tell_all(town)
    with town.house.store.read() as session:
        rows = session.scalars(select(NotificationRow).order_by(NotificationRow.event_id)).all()
        assert [row.state for row in rows] == [NotificationState.GIVEN_UP, NotificationState.TOLD]
        assert "422" in rows[0].message


def test_what_was_told_but_not_noted_is_told_again_with_the_same_identifier(
    make_town: Make, hook: Hook, webhook: Callable[..., dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    town = make_town(events={"webhooks": [webhook(hook.port)]})
    town.house.alert("held", "study 1", "two patients")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("pacs_node.journey.events._end", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        tell_all(town)
    town.restart()
    tell_all(town)
    first, second = hook.posts
    assert (first.headers["webhook-id"], first.body) == (second.headers["webhook-id"], second.body)


def test_an_event_written_before_the_process_died_is_told_by_the_next(make_town: Make, hook: Hook, webhook: Callable[..., dict[str, object]]) -> None:
    town = make_town(events={"webhooks": [webhook(hook.port)]})
    town.send(ct_study())
    town.settle()
    town.house.alert("held", "study 1", "two patients")
    town.restart()  # nothing was routed
    route(town.house, town.clock)
    town.restart()  # nothing was told
    tell_all(town)
    assert told(hook) == [("result", "job 1"), ("fault.raised", "study 1")]


def test_a_database_that_is_away_while_it_is_noted_delays_and_repeats_nothing(
    make_town: Make, hook: Hook, webhook: Callable[..., dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    town = make_town(events={"webhooks": [webhook(hook.port)]})
    town.house.alert("held", "study 1", "two patients")
    route(town.house, town.clock)
    real, failures = town.house.store.write, iter([True])

    def write() -> object:
        if next(failures, False):
            raise DatabaseUnavailable("db", "away")
        return real()

    monkeypatch.setattr(town.house.store, "write", write)
    tell_all(town)
    assert (len(hook.posts), waiting(town)) == (1, 0)


def test_events_for_a_receiver_that_is_away_are_given_up_after_days_and_old_ones_deleted(make_town: Make, webhook: Callable[..., dict[str, object]]) -> None:
    town = make_town(events={"webhooks": [webhook(1)]})
    town.house.alert("held", "study 1", "two patients")
    tell_all(town)
    town.wait(days=WAITS.days - 1)
    tidy(town.house, town.clock)
    assert waiting(town) == 1
    town.wait(days=2)
    tidy(town.house, town.clock)
    assert waiting(town) == 0
    town.wait(days=KEPT.days)
    tidy(town.house, town.clock)
    with town.house.store.read() as session:
        assert session.scalar(select(func.count(EventRow.id))) == 0


def test_without_receivers_events_pass_by(town: Town) -> None:
    town.house.alert("held", "study 1", "two patients")
    tell_all(town)
    with town.house.store.read() as session:
        assert events.unrouted(session, 10) == []
        assert session.scalar(select(func.count(NotificationRow.id))) == 0


# --- mail ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def post() -> Iterator[Post]:
    server = Post()
    yield server
    server.stop()


def email(post: Post, **more: object) -> dict[str, object]:
    base = {"host": "127.0.0.1", "port": post.port, "security": "none", "sender": "node@hospital.example", "to": ["team@hospital.example"]}
    return {**base, **more}


def test_a_flood_of_faults_is_one_mail_and_the_next_waits_its_time(make_town: Make, post: Post) -> None:
    town = make_town(events={"email": email(post)})
    for number in range(40):
        town.house.alert("quarantine", f"file {number}", "Doe^Jane")
    town.house.clear("quarantine", "file 3")
    tell_all(town)
    assert post.mails == []  # it collects
    town.wait(seconds=61)
    tell_all(town)
    (mail,) = post.mails
    assert mail["Subject"] == "pacs-node test: 40 faults, 1 over"
    assert b"Doe" not in bytes(mail)
    town.house.alert("disk", "data folder", "it has 1.0 GB free")
    town.wait(minutes=5)
    tell_all(town)
    assert len(post.mails) == 1  # at most one in 15 minutes
    town.wait(minutes=11)
    tell_all(town)
    assert [one["Subject"] for one in post.mails] == ["pacs-node test: 40 faults, 1 over", "pacs-node test: 1 faults"]
    town.wait(hours=2)
    tell_all(town)
    assert len(post.mails) == 2  # silence is no mail


def test_results_are_mailed_only_where_they_are_asked_for(make_town: Make, post: Post) -> None:
    town = make_town(events={"email": email(post)})
    town.send(ct_study())
    town.settle()
    town.wait(minutes=2)
    tell_all(town)
    assert post.mails == []


def test_mail_waits_for_its_server_and_other_receivers_hear_of_that(make_town: Make, hook: Hook, webhook: Callable[..., dict[str, object]], post: Post) -> None:
    post.refuse = "451 later"
    town = make_town(events={"email": email(post), "webhooks": [webhook(hook.port)]})
    town.house.alert("held", "study 1", "two patients")
    town.wait(minutes=2)
    for _ in range(4):
        tell_all(town)
        town.wait(minutes=16)
    assert ("fault.raised", "e-mail") in told(hook)
    post.refuse = ""
    town.wait(minutes=16)
    tell_all(town)
    (mail,) = post.mails
    assert "held: two patients" in str(mail.get_payload())
    town.wait(minutes=16)
    tell_all(town)
    assert ("fault.over", "e-mail") in told(hook)


def test_receivers_are_part_of_the_clock(make_town: Make, webhook: Callable[..., dict[str, object]]) -> None:
    town = make_town(events={"webhooks": [webhook(1)], "email": {"host": "h", "sender": "a@b.example", "to": ["c@d.example"]}})
    names = [duty.name for duty in duties(town.house)]
    assert {"events", "old events", "tell hook", "tell e-mail"} <= set(names)
    assert [type(one) for one in town.settings.events.receivers] == [Webhook, Email]
