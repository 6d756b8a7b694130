"""The states of whatever has some, and every legal move between them: one table each. Every change goes through `move`.

::

    study     receiving ⇄ complete        (late instances reopen)
                  ⇅          │
                 held ◄──────┘            (two patients under one study UID)

    job       queued ─► running ─► done | not_analysed | parked | cancelled
                 ▲         │                    (parked, not_analysed, done: `retry` queues again)
                 └─────────┘                    (lease expired, temporary fault)

    delivery  waiting ─► sending ─► delivered | refused | parked | cancelled
                 ▲          │                   (parked, refused: `retry` waits again)
                 └──────────┘                   (temporary failure, process died)
                                  refused ─► replaced   (another kind goes in its place)

              sending ─► uncommitted ─► delivered | refused | parked | cancelled   (the destination's storage commitment decides)
                 ▲            │
              waiting ◄───────┘                 (it does not have the object any more)

    announcement  in progress ─► completed | discontinued           (MPPS);  available  (instance availability notification)

    request   waiting ─► judged ─► reported | parked    (somebody asks us for storage commitment)

    notification  waiting ─► told | given up            (an event and somebody who is told of it)
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, TypeVar

from pacs_node.errors import PacsNodeError


class AnnouncementState(StrEnum):
    """Where a performed procedure step stands (PS3.4 F.7.1), or that instances were said to be available (PS3.4 R.3)."""

    IN_PROGRESS = "in progress"
    COMPLETED = "completed"
    DISCONTINUED = "discontinued"
    AVAILABLE = "available"


class StudyState(StrEnum):
    """Where a study stands."""

    RECEIVING = "receiving"  # waits for more instances, or for its rules to find it complete
    COMPLETE = "complete"  # every rule has decided; jobs exist where a rule wanted one
    HELD = "held"  # nothing is analysed or sent until an operator or a corrected re-send frees it


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    NOT_ANALYSED = "not_analysed"  # out of scope, said with a reason
    PARKED = "parked"  # failed too often, or for a reason that time does not mend
    CANCELLED = "cancelled"  # overtaken by a corrected or completed study, or by an operator


class DeliveryState(StrEnum):
    """Where one object on its way to one destination stands."""

    WAITING = "waiting"
    SENDING = "sending"
    UNCOMMITTED = "uncommitted"  # stored there with success; the destination has not committed to keep it yet
    DELIVERED = "delivered"
    REFUSED = "refused"  # the destination will never take this object
    REPLACED = "replaced"  # the destination refused it, and another kind was made to go in its place
    PARKED = "parked"  # tried for the whole limit
    CANCELLED = "cancelled"


class RequestState(StrEnum):
    """Where a peer's request for storage commitment stands (PS3.4 Annex J)."""

    WAITING = "waiting"  # for its instances to be forwarded and committed
    JUDGED = "judged"  # every instance is decided; the report is to go out
    REPORTED = "reported"
    PARKED = "parked"  # nobody took the report for the whole limit


class NotificationState(StrEnum):
    """Where an event on its way to somebody who is told of it stands."""

    WAITING = "waiting"
    TOLD = "told"
    GIVEN_UP = "given up"  # refused for good, or waited for too long


ANNOUNCEMENT_MOVES: dict[AnnouncementState, frozenset[AnnouncementState]] = {
    AnnouncementState.IN_PROGRESS: frozenset({AnnouncementState.COMPLETED, AnnouncementState.DISCONTINUED}),
    AnnouncementState.COMPLETED: frozenset(),
    AnnouncementState.DISCONTINUED: frozenset(),
    AnnouncementState.AVAILABLE: frozenset(),
}

STUDY_MOVES: dict[StudyState, frozenset[StudyState]] = {
    StudyState.RECEIVING: frozenset({StudyState.COMPLETE, StudyState.HELD}),
    StudyState.COMPLETE: frozenset({StudyState.RECEIVING, StudyState.HELD}),
    StudyState.HELD: frozenset({StudyState.RECEIVING}),
}

JOB_MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.CANCELLED}),
    JobState.RUNNING: frozenset({JobState.QUEUED, JobState.DONE, JobState.NOT_ANALYSED, JobState.PARKED, JobState.CANCELLED}),
    JobState.DONE: frozenset({JobState.QUEUED}),
    JobState.NOT_ANALYSED: frozenset({JobState.QUEUED}),
    JobState.PARKED: frozenset({JobState.QUEUED, JobState.CANCELLED}),
    JobState.CANCELLED: frozenset(),
}

DELIVERY_MOVES: dict[DeliveryState, frozenset[DeliveryState]] = {
    DeliveryState.WAITING: frozenset({DeliveryState.SENDING, DeliveryState.DELIVERED, DeliveryState.PARKED, DeliveryState.CANCELLED}),
    DeliveryState.SENDING: frozenset(
        {
            DeliveryState.WAITING,
            DeliveryState.UNCOMMITTED,
            DeliveryState.DELIVERED,
            DeliveryState.REFUSED,
            DeliveryState.PARKED,
            DeliveryState.CANCELLED,
        }
    ),
    DeliveryState.UNCOMMITTED: frozenset(
        {DeliveryState.WAITING, DeliveryState.DELIVERED, DeliveryState.REFUSED, DeliveryState.PARKED, DeliveryState.CANCELLED}
    ),
    DeliveryState.DELIVERED: frozenset(),
    DeliveryState.REFUSED: frozenset({DeliveryState.WAITING, DeliveryState.REPLACED, DeliveryState.CANCELLED}),
    DeliveryState.REPLACED: frozenset(),
    DeliveryState.PARKED: frozenset({DeliveryState.WAITING, DeliveryState.DELIVERED, DeliveryState.CANCELLED}),  # delivered: a late report
    DeliveryState.CANCELLED: frozenset({DeliveryState.DELIVERED}),  # it had left before the withdrawal was known
}

REQUEST_MOVES: dict[RequestState, frozenset[RequestState]] = {
    RequestState.WAITING: frozenset({RequestState.JUDGED}),
    RequestState.JUDGED: frozenset({RequestState.REPORTED, RequestState.PARKED}),
    RequestState.REPORTED: frozenset(),
    RequestState.PARKED: frozenset({RequestState.JUDGED}),
}

NOTIFICATION_MOVES: dict[NotificationState, frozenset[NotificationState]] = {
    NotificationState.WAITING: frozenset({NotificationState.TOLD, NotificationState.GIVEN_UP}),
    NotificationState.TOLD: frozenset(),
    NotificationState.GIVEN_UP: frozenset(),
}

GOING_ON = (JobState.QUEUED, JobState.RUNNING)  # jobs that need what they analyse
ENDED = (DeliveryState.DELIVERED, DeliveryState.REPLACED, DeliveryState.CANCELLED)  # deliveries of which nothing more is to come
STUCK = (DeliveryState.REFUSED, DeliveryState.PARKED)  # those that go on only when somebody says so; all others are unfinished

_TABLES: dict[type, dict[Any, frozenset[Any]]] = {
    StudyState: STUDY_MOVES,
    JobState: JOB_MOVES,
    DeliveryState: DELIVERY_MOVES,
    AnnouncementState: ANNOUNCEMENT_MOVES,
    RequestState: REQUEST_MOVES,
    NotificationState: NOTIFICATION_MOVES,
}

State = TypeVar("State", StudyState, JobState, DeliveryState, AnnouncementState, RequestState, NotificationState)


class IllegalMove(PacsNodeError):
    """A state change that the table does not know: a programming error, or two processes that act on one row."""


def move(current: State, target: State) -> State:
    """Return ``target`` where the move is legal (staying is); raises `IllegalMove` otherwise."""
    if target != current and target not in _TABLES[type(current)][current]:
        raise IllegalMove(f"a {type(current).__name__.removesuffix('State').lower()} cannot go from {current} to {target}")
    return target


def sources(target: State) -> tuple[State, ...]:
    """Return the states from which ``target`` may be reached: the WHERE clause of a guarded UPDATE."""
    return tuple(state for state, targets in _TABLES[type(target)].items() if target in targets)
