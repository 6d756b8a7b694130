"""Objects → destinations: the outbox is emptied group by group; what a destination says about each object is committed at once.

Sending twice is harmless (same UID, same bytes) and happens only where the process died between an answer and its commit.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.orm import Session

from pacs_node import delivery
from pacs_node.config import Destination
from pacs_node.database import deliveries
from pacs_node.database.alerts import audit, clear_alert, raise_alert
from pacs_node.database.states import DeliveryState
from pacs_node.database.tables import DeliveryRow
from pacs_node.delivery import backoff
from pacs_node.errors import TemporaryFailure
from pacs_node.journey import House
from pacs_node.records import Outcome, Parcel

POLICY = backoff.Policy()
DOWN_AFTER = 3  # failures in a row before a destination is called down


def deliver(house: House, name: str, moment: datetime) -> int:
    """Send the oldest group that is due to a destination; returns how many objects were tried."""
    destination = house.settings.destinations[name]
    with house.store.read() as session:
        ids = deliveries.due_group(session, name, moment)
        if not ids:
            return 0
    with house.store.write() as session:
        known = deliveries.destination_row(session, name)
        if not backoff.allows(backoff.Breaker(known.failures, known.try_again_at), moment):
            return 0
        rows = deliveries.start(session, ids, moment)
    _send(house, name, destination, rows)
    return len(rows)


def _send(house: House, name: str, destination: Destination, rows: Sequence[DeliveryRow]) -> None:
    left = {row.object.sop_uid: row for row in rows}

    def note(outcome: Outcome) -> None:
        row = left.pop(outcome.sop_uid)
        _note(house, name, row, outcome)

    parcels = [_parcel(house, row) for row in rows]
    problem = "the destination gave no answer about it"
    try:
        delivery.deliver(destination, parcels, house.settings.node.ae_titles[0], note)
    except TemporaryFailure as error:
        problem = str(error)
        _failed(house, name, problem)
    for row in left.values():
        _note(house, name, row, Outcome(row.object.sop_uid, delivered=False, message=problem))


def _parcel(house: House, row: DeliveryRow) -> Parcel:
    obj = row.object
    folder = f"job-{row.job_id:06d}-{row.job.pipeline or 'notice'}"
    return Parcel(obj.sop_uid, obj.sop_class_uid, obj.transfer_syntax_uid, house.data / obj.path, folder)


def _note(house: House, name: str, row: DeliveryRow, outcome: Outcome) -> None:
    """Commit what became of one object."""
    moment = house.clock()
    with house.store.write() as session:
        current = deliveries.get(session, row.id)
        if current is None or current.state is not DeliveryState.SENDING:
            return  # cancelled meanwhile
        if outcome.delivered:
            deliveries.settle(current, DeliveryState.DELIVERED, outcome.status, outcome.message, moment)
            audit(session, "delivery", "sent", f"object {current.object_id}", {"destination": name, "kind": current.object.kind}, moment)
            known = deliveries.destination_row(session, name)
            known.failures, known.down_since, known.try_again_at, known.last_success_at, known.message = 0, None, None, moment, ""
            clear_alert(session, "destination", name, moment)
        elif outcome.permanent:
            deliveries.settle(current, DeliveryState.REFUSED, outcome.status, outcome.message, moment)
            _stuck(house, current, "was refused", name, outcome.message)
            raise_alert(session, "refused", f"delivery {current.id}", _stuck_text(current, "was refused", name, outcome.message), moment)
        else:
            _postpone(house, session, current, name, outcome, moment)
    log = house.log.info if outcome.delivered else house.log.warning
    log("delivery", destination=name, job=row.job_id, kind=row.object.kind, delivered=outcome.delivered, status=outcome.status, message=outcome.message or None)


def _postpone(house: House, session: Session, row: DeliveryRow, name: str, outcome: Outcome, moment: datetime) -> None:
    again = backoff.next_attempt(row.attempts, moment, POLICY, random.random)
    if again is None:
        deliveries.settle(row, DeliveryState.PARKED, outcome.status, outcome.message, moment)
        _stuck(house, row, "was parked", name, outcome.message)
        raise_alert(session, "parked", f"delivery {row.id}", _stuck_text(row, "was parked", name, outcome.message), moment)
    else:
        deliveries.postpone(row, again, outcome.status, outcome.message)


def _stuck_text(row: DeliveryRow, what: str, name: str, message: str) -> str:
    return f"delivery {row.id} (job {row.job_id}, {row.object.kind}) {what} by or for {name}: {message}. To send it again: `pacs-node retry delivery {row.id}`"


def _stuck(house: House, row: DeliveryRow, what: str, name: str, message: str) -> None:
    house.log.error("alert", kind="delivery", message=_stuck_text(row, what, name, message))


def _failed(house: House, name: str, problem: str) -> None:
    """Note that a destination could not be reached: after a few times it is called down and left alone for a while."""
    moment = house.clock()
    with house.store.write() as session:
        known = deliveries.destination_row(session, name)
        breaker = backoff.failed(backoff.Breaker(known.failures, known.try_again_at), moment, POLICY, random.random)
        known.failures, known.try_again_at, known.message = breaker.failures, breaker.open_until, problem
        known.down_since = known.down_since or moment
        down, since = known.failures >= DOWN_AFTER, known.down_since
        new = down and raise_alert(session, "destination", name, f"destination {name} is down since {since:%Y-%m-%d %H:%M:%S} UTC: {problem}", moment)
    if new:
        house.log.error("alert", kind="destination", subject=name, message=problem)
