"""Events → those who are told: results and faults leave the database's outbox by webhook and e-mail, in the order in which they happened.

::

    state change ─┬─ event (one transaction)
                  └─ route: who wants it? ─► a notification each ─► tell: webhook one by one, e-mail many at once ─► told | given up

What is told and not yet marked when the process dies is told again with the same identifier. A receiver that is away holds up nobody else:
each has a duty, a back-off and an alert of its own.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from datetime import datetime, timedelta

from pacs_node import crash
from pacs_node.config import Email, Webhook
from pacs_node.database import events
from pacs_node.database.alerts import clear_alert, raise_alert
from pacs_node.database.states import NotificationState
from pacs_node.database.tables import EventRow, NotificationRow, ReceiverRow
from pacs_node.delivery import backoff, mail, webhook
from pacs_node.errors import PermanentRefusal, TemporaryFailure
from pacs_node.journey import House
from pacs_node.monitoring import events as words
from pacs_node.records import Event

Receiver = Webhook | Email

POLICY = backoff.Policy(first=timedelta(seconds=5), longest=timedelta(minutes=15), give_up_after=timedelta.max)  # given up by age, see `tidy`
WAITS = timedelta(days=7)  # how long an event waits for a receiver that is away
KEPT = timedelta(days=30)  # how long events stay in the database
_DOWN_AFTER = 3  # failures in a row before an alert
_BATCH = 500


def route(house: House, now: datetime) -> int:
    """Find out who is to be told of what happened; returns how many events were looked at."""
    with house.store.read() as session:
        if not events.unrouted(session, 1):
            return 0
    receivers = house.settings.events.receivers
    with house.store.write() as session:
        rows = events.unrouted(session, _BATCH)
        for row in rows:
            events.route(session, row, [one.title for one in receivers if one.wants(row.kind)], now)
    return len(rows)


def tell(house: House, receiver: Receiver, now: datetime) -> int:
    """Tell a receiver what waits for it, as far as it is due; returns how many events it was told of."""
    with house.store.read() as session:
        known = session.get(ReceiverRow, receiver.title)
        if known is not None and _rests(known, now):
            return 0
        rows = events.waiting(session, receiver.title, _BATCH if isinstance(receiver, Email) else 1)
    if not rows or (isinstance(receiver, Email) and not _due(receiver, rows[0], known, now)):
        return 0
    try:
        _send(house, receiver, rows, now)
    except PermanentRefusal as error:
        _end(house, receiver, rows, NotificationState.GIVEN_UP, str(error), now)
    except TemporaryFailure as error:
        _failed(house, receiver, error, now)
        return 0
    else:
        crash.passed("told")
        _end(house, receiver, rows, NotificationState.TOLD, "", now)
    return len(rows)


def _rests(known: ReceiverRow, now: datetime) -> bool:
    """Tell whether a receiver that failed is left alone for now; a rest that a clock set since has made too long is over."""
    return known.try_again_at is not None and now < known.try_again_at <= now + 2 * POLICY.longest


def _due(email: Email, oldest: NotificationRow, known: ReceiverRow | None, now: datetime) -> bool:
    last = known.last_success_at if known is not None else None
    return not timedelta() <= now - oldest.event.at < email.collect and not (last is not None and timedelta() <= now - last < email.every)


def _send(house: House, receiver: Receiver, rows: Sequence[NotificationRow], now: datetime) -> None:
    told, node = [_event(row.event) for row in rows], house.settings.node.name
    if isinstance(receiver, Webhook):
        for event in told:
            webhook.post(receiver, event.uid, words.body(event, receiver, node), now)
        return
    subject, text = words.mail(told, receiver, node)
    mail.send(receiver, hashlib.sha256(" ".join(event.uid for event in told).encode()).hexdigest()[:32], subject, text, now)


def _event(row: EventRow) -> Event:
    return Event(row.uid, row.at, row.kind, row.over, row.subject, row.detail)


def _end(house: House, receiver: Receiver, rows: Sequence[NotificationRow], state: NotificationState, problem: str, now: datetime) -> None:
    def write() -> None:
        with house.store.write() as session:
            events.end(session, [row.id for row in rows], state, now, problem)
            known = events.receiver(session, receiver.title)
            known.failures, known.down_since, known.try_again_at, known.message = 0, None, None, problem
            if state is NotificationState.TOLD:
                known.last_success_at = now
                clear_alert(session, "events", receiver.title, now)

    house.patiently(write)
    if problem:
        house.log.warning("event given up", receiver=receiver.title, kinds=[row.event.kind for row in rows], problem=problem)
    else:
        house.log.info("told", receiver=receiver.title, events=len(rows))


def _failed(house: House, receiver: Receiver, error: TemporaryFailure, now: datetime) -> None:
    """Leave a receiver alone for a while; after a few failures in a row an alert says so, of which the other receivers are told."""
    problem, new = _without_address(str(error), receiver), False
    with house.store.write() as session:
        known = events.receiver(session, receiver.title)
        known.failures, known.message, known.down_since = known.failures + 1, problem, known.down_since or now
        breaker = backoff.Breaker(known.failures, backoff.next_attempt(known.failures, now, POLICY, random.random))
        known.try_again_at = backoff.rest_until(breaker, now, error.retry_after, POLICY.longest)
        if known.failures >= _DOWN_AFTER:
            text = f"{receiver.title} cannot be told of events since {known.down_since:%Y-%m-%d %H:%M:%S} UTC: {problem}. They wait for {WAITS.days} days"
            new = raise_alert(session, "events", receiver.title, text, now)
    (house.log.error if new else house.log.warning)("events wait", receiver=receiver.title, problem=problem)


def _without_address(problem: str, receiver: Receiver) -> str:
    return problem.replace(receiver.url, receiver.title) if isinstance(receiver, Webhook) else problem


def tidy(house: House, now: datetime) -> None:
    """Give up what has waited for too long, and delete what is old; both are bounded, the next tick goes on."""
    with house.store.write() as session:
        given_up = events.give_up_old(session, now - WAITS, [one.title for one in house.settings.events.receivers])
        events.forget(session, now - KEPT, _BATCH)
    if given_up:
        why = f"they waited for more than {WAITS.days} days, or for a receiver that is not configured any more"
        house.log.warning("events given up", count=given_up, why=why)
