"""Objects → destinations: the outbox is emptied group by group; what a destination says about each object is committed at once.

A group is what one job sends to one destination, or a batch of a study's originals where a rule forwards them.

Before each object goes, the database is asked once more whether it may: a correction or a hold that came meanwhile stops it. Sending
twice is harmless (same UID, same bytes) and happens only where the process died between an answer and its commit.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from pacs_node import crash, delivery
from pacs_node.config import Destination
from pacs_node.database import deliveries, studies
from pacs_node.database.alerts import clear_alert, raise_alert
from pacs_node.database.states import DeliveryState
from pacs_node.database.tables import DeliveryRow, DestinationRow
from pacs_node.delivery import backoff
from pacs_node.dicom.statuses import SUCCESS
from pacs_node.errors import NotKnownYet, TemporaryFailure
from pacs_node.journey import House, contexts, fallback, supersede, verify
from pacs_node.journey.commit import asks_for_commitment
from pacs_node.journey.noting import note_sent
from pacs_node.journey.repeats import say_old_identity
from pacs_node.journey.telling import say_coerced, say_stuck
from pacs_node.records import Outcome, Parcel

POLICY = backoff.Policy()
DOWN_AFTER = 3  # failures in a row before a destination is called down
_AFTER_A_FAULT = timedelta(minutes=1)  # before what a fault of ours left in the middle is tried again
_TOGETHER, _TOGETHER_SECONDS = 50, 2.0  # originals that are committed at once, and how long the first of them waits for that


def deliver(house: House, name: str, moment: datetime) -> int:
    """Send the oldest group that is due to a destination; returns how many objects were tried.

    Never run twice at a time for one destination: what stands as being sent when it begins was left by a fault.
    """
    destination = house.settings.destinations[name]
    fallback.make_due(house, name, moment)
    supersede.make_due(house, name, moment)
    with house.store.read() as session:
        left = deliveries.left_sending(session, name)
        ids = [] if _rests(session, name, moment) else deliveries.due_group(session, name, moment)
    if left:
        with house.store.write() as session:
            deliveries.give_back(session, left, moment + _AFTER_A_FAULT)
        house.log.warning("deliveries taken up again", destination=name, count=len(left))
    if not ids:
        return 0
    with house.store.write() as session:
        rows = deliveries.start(session, ids, moment)
    if rows:  # else they were withdrawn since they were looked at
        _send(house, name, destination, rows)
    return len(ids)


def _rests(session: Session, name: str, moment: datetime) -> bool:
    """Tell whether a destination that failed is left alone for now; a rest that a clock set since has made too long is over."""
    known = session.get(DestinationRow, name)
    rest = known.try_again_at if known is not None else None
    if known is None or rest is None or rest > moment + deliveries.LONGEST_PAUSE:
        return False
    return not backoff.allows(backoff.Breaker(known.failures, rest), moment)


def recover(house: House, moment: datetime) -> None:
    """At the start of the core: take up what a dead process left in the middle, and park what has no destination any more."""
    known = house.settings.destinations
    with house.store.write() as session:
        for name in known:
            deliveries.give_back(session, deliveries.left_sending(session, name), moment)
        gone = deliveries.park_unknown(session, known)
    for name in gone:
        house.alert("destination", name, f"results wait for {name}, which is not configured any more: configure it, then `pacs-node retry --parked`")


def _send(house: House, name: str, destination: Destination, rows: Sequence[DeliveryRow]) -> None:
    left = {row.sop_uid: row for row in rows}
    ends = _Ends(house, name)
    replacing = False  # what comes after may refer to what will stand in for a refused object

    def note(outcome: Outcome) -> None:
        nonlocal replacing
        row = left.pop(outcome.sop_uid)
        replacing = replacing or fallback.kind_instead(destination, row, outcome) != ""
        ends.add(row, outcome)

    def wanted(parcel: Parcel) -> bool:
        if replacing:
            return False
        if house.patiently(lambda: _still_sending(house, left[parcel.sop_uid])):
            return True
        row = left.pop(parcel.sop_uid)
        house.log.warning("delivery stopped", destination=name, what=row.origin, why="its study was corrected or held meanwhile")
        return False

    problem = "the destination gave no answer about it, or did not take what goes before it"
    try:
        if verify.held(house, name, destination, rows[0]):
            return
        parcels = [parcel for row in rows if (parcel := _parcel(house, row, note)) is not None]
        delivery.deliver(destination, parcels, house.settings.node.ae_titles[0], note, wanted, contexts.learner(house, name))
    except NotKnownYet as error:
        problem = str(error)
    except TemporaryFailure as error:
        problem = str(error)
        after = error.retry_after
        ends.commit()  # first: an arrival makes a destination that failed a good one again
        house.patiently(lambda: _failed(house, name, problem, after))
    ends.commit()
    if replacing:
        house.patiently(lambda: _not_tried(house, left.values()))
        return
    for row in left.values():
        ends.add(row, Outcome(row.sop_uid, delivered=False, message=problem))
    ends.commit()


class _Ends:
    """What became of the objects of a group, committed at once; originals that simply arrived are committed together, as there are thousands of them.

    A process that dies in between sends those once more: the same bytes under the same UIDs.
    """

    def __init__(self, house: House, name: str) -> None:
        self._house, self._name, self._waiting, self._since = house, name, list[tuple[DeliveryRow, Outcome]](), 0.0

    def add(self, row: DeliveryRow, outcome: Outcome) -> None:
        """Take what became of one object."""
        plain = row.object is None and outcome.delivered and outcome.status in (None, SUCCESS) and not outcome.coerced
        self._since = self._since if self._waiting else time.monotonic()
        self._waiting.append((row, outcome))
        if not plain or len(self._waiting) >= _TOGETHER or time.monotonic() - self._since > _TOGETHER_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Commit what waits for it."""
        ends, self._waiting = self._waiting, []
        if ends:
            self._house.patiently(lambda: _note(self._house, self._name, ends))


def _still_sending(house: House, row: DeliveryRow) -> bool:
    with house.store.read() as session:
        return deliveries.still_sending(session, row.id)


def _not_tried(house: House, rows: Iterable[DeliveryRow]) -> None:
    with house.store.write() as session:
        deliveries.not_tried(session, [row.id for row in rows], house.clock())


def _parcel(house: House, row: DeliveryRow, note: delivery.OnOutcome) -> Parcel | None:
    """Return what is stored ready to go; a result that is gone or not what was built is refused here and said."""
    if row.object is None or row.job is None:
        return _original(house, row)
    obj = row.object
    path = house.data / obj.path
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        note(Outcome(obj.sop_uid, delivered=False, permanent=True, message=f"the stored file {path} cannot be read ({error.strerror})"))
        return None
    if found != obj.sha256:
        note(Outcome(obj.sop_uid, delivered=False, permanent=True, message=f"the stored file {path} is not what was built: run the job again"))
        return None
    folder = f"job-{row.job_id:06d}-{row.job.pipeline or 'notice'}"
    return Parcel(obj.sop_uid, obj.sop_class_uid, obj.transfer_syntax_uid, path, folder)


def _original(house: House, row: DeliveryRow) -> Parcel:
    """Return a received instance ready to go as it was received: it is read only while it is sent, however large it is."""
    assert row.instance is not None
    path = house.data / studies.instance_path(row.instance, row.version)
    return Parcel(row.sop_uid, row.sop_class_uid, row.transfer_syntax_uid, path, f"study-{row.study_id:06d}-originals", original=True)


def _note(house: House, name: str, ends: Sequence[tuple[DeliveryRow, Outcome]]) -> None:
    """Commit what became of objects."""
    crash.passed("sent")
    moment, noted = house.clock(), list[tuple[DeliveryRow, Outcome]]()
    with house.store.write() as session:
        rows = deliveries.get_all(session, [row.id for row, _ in ends])
        if any(outcome.delivered for _, outcome in ends):
            _reached(session, name, moment)
        for row, outcome in ends:
            current = rows.get(row.id)
            if current is None or (current.state is not DeliveryState.SENDING and not outcome.delivered):
                continue  # withdrawn meanwhile, and it did not arrive
            _settle(house, session, current, outcome, moment)
            noted.append((row, outcome))
        note_sent(house, session, [(rows[row.id], outcome) for row, outcome in noted if outcome.delivered], moment)
    crash.passed("committed")
    for row, outcome in noted:
        house.counts.add("pacs_node_delivery_attempts", name, "delivered" if outcome.delivered else "refused" if outcome.permanent else "failed")
        log = house.log.info if outcome.delivered and outcome.status in (None, SUCCESS) else house.log.warning
        what = {"job": row.job_id} if row.job_id is not None else {"study": row.study_id}
        log("delivery", destination=name, **what, kind=row.kind, delivered=outcome.delivered, status=outcome.status, message=outcome.message or None)


def _settle(house: House, session: Session, row: DeliveryRow, outcome: Outcome, moment: datetime) -> None:
    if outcome.delivered:
        _arrived(house, session, row, outcome, moment)
    elif outcome.permanent:
        _refused(house, session, row, outcome, moment)
    else:
        _postpone(house, session, row, outcome, moment)


def _refused(house: House, session: Session, row: DeliveryRow, outcome: Outcome, moment: datetime) -> None:
    """Note a refusal for good; where another kind is to go in its place, that is noted in the same commit, and made by `fallback`."""
    deliveries.settle(row, DeliveryState.REFUSED, outcome.status, outcome.message, moment)
    row.fallback = fallback.kind_instead(house.settings.destinations[row.destination], row, outcome)
    if not row.fallback:
        say_stuck(house, session, row, "refused", outcome.message, moment)


def _reached(session: Session, name: str, moment: datetime) -> None:
    """Note that a destination takes objects: whatever was wrong with it is over."""
    known = deliveries.destination_row(session, name)
    known.failures, known.down_since, known.try_again_at, known.last_success_at, known.message = 0, None, None, moment, ""
    clear_alert(session, "destination", name, moment)


def _arrived(house: House, session: Session, row: DeliveryRow, outcome: Outcome, moment: datetime) -> None:
    withdrawn = row.state is DeliveryState.CANCELLED
    awaits = asks_for_commitment(house.settings.destinations.get(row.destination)) and not withdrawn and row.committed_at is None
    deliveries.settle(row, DeliveryState.UNCOMMITTED if awaits else DeliveryState.DELIVERED, outcome.status, outcome.message, moment)
    row.afterwards = "" if withdrawn else supersede.follows(house.settings.destinations.get(row.destination), row)
    if outcome.coerced:
        say_coerced(house, session, row, outcome, moment)
    if withdrawn:
        say_old_identity(house, session, row.study_id, moment)


def _postpone(house: House, session: Session, row: DeliveryRow, outcome: Outcome, moment: datetime) -> None:
    again = backoff.next_attempt(row.attempts, moment, POLICY, random.random)
    if again is None:
        deliveries.settle(row, DeliveryState.PARKED, outcome.status, outcome.message, moment)
        say_stuck(house, session, row, "parked", outcome.message, house.clock())
    else:
        deliveries.postpone(row, again, outcome.status, outcome.message)


def _failed(house: House, name: str, problem: str, asked: timedelta | None) -> None:
    """Note that a destination could not be had: after a few times it is called down and left alone for a while, at once for as long as it ``asked``."""
    moment = house.clock()
    with house.store.write() as session:
        known = deliveries.destination_row(session, name)
        breaker = backoff.failed(backoff.Breaker(known.failures, known.try_again_at), moment, POLICY, random.random)
        known.failures, known.message = breaker.failures, problem
        known.try_again_at = backoff.rest_until(breaker, moment, asked, deliveries.LONGEST_PAUSE)
        known.down_since = known.down_since or moment
        down, since = known.failures >= DOWN_AFTER, known.down_since
        new = down and raise_alert(session, "destination", name, f"destination {name} is down since {since:%Y-%m-%d %H:%M:%S} UTC: {problem}", moment)
    if new:
        house.log.error("alert", kind="destination", subject=name, message=problem)
