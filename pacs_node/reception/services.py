"""The DIMSE-N services that a receiver takes requests of: one row each (PS3.4 Annexes F, J and R; PS3.7 chapter 10).

A request is not judged here: it is kept as a note in the spool, answered, and handed to the core (`pacs_node.journey.notes`), which alone knows
the studies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pacs_node.config import DicomDestination, Settings
from pacs_node.dicom.commitment import NO_SUCH_INSTANCE, PUSH_MODEL, PUSH_MODEL_INSTANCE, REQUEST, read_request
from pacs_node.dicom.statuses import INVALID_ARGUMENT, NO_SUCH_ACTION, SUCCESS
from pacs_node.errors import UnreadableObject
from pacs_node.reception.conversation import NoteRequest
from pacs_node.reception.notes import decode


@dataclass(frozen=True, slots=True)
class Service:
    """One row: what is accepted, and when.

    ``peer_serves``: the peer that opens the association is the SCP of the service and we are its SCU (PS3.7 D.3.3.4), as where an archive
    reports what it has committed. Several rows may share a SOP class; each takes the operations that it names.
    """

    sop_classes: tuple[str, ...]
    operations: frozenset[str]  # n-create, n-set, n-action, n-event-report, n-get, n-delete
    turned_on: Callable[[Settings], bool]
    peer_serves: bool = False
    problem: Callable[[NoteRequest], tuple[int, str]] = lambda request: (SUCCESS, "")  # status and reason of a refusal before it is kept


def _commitment_problem(request: NoteRequest) -> tuple[int, str]:
    """Refuse what can never be answered with a report (PS3.4 J.3.2)."""
    if request.number != REQUEST:
        return NO_SUCH_ACTION, f"storage commitment knows no action {request.number}"
    if request.sop_instance != PUSH_MODEL_INSTANCE:
        return NO_SUCH_INSTANCE, "it is not about the Storage Commitment Push Model SOP Instance"
    try:
        read_request(decode(request.content, request.transfer_syntax))
    except UnreadableObject as error:
        return INVALID_ARGUMENT, error.reason
    return SUCCESS, ""


def _commits(settings: Settings) -> bool:
    return any(isinstance(destination, DicomDestination) and destination.commitment for destination in settings.destinations.values())


SERVICES: Mapping[str, Service] = {
    "mpps": Service(("1.2.840.10008.3.1.2.3.3",), frozenset({"n-create", "n-set"}), lambda settings: settings.reception.mpps),
    "availability": Service(("1.2.840.10008.5.1.4.33",), frozenset({"n-create"}), lambda settings: settings.reception.availability),
    "commitment-request": Service((PUSH_MODEL,), frozenset({"n-action"}), lambda settings: settings.reception.commitment, problem=_commitment_problem),
    "commitment-report": Service((PUSH_MODEL,), frozenset({"n-event-report"}), _commits, peer_serves=True),
}
"""Name of a service → its row. The name stands in the notes of the spool."""


def wanted(settings: Settings) -> tuple[str, ...]:
    """Return the services that the configuration turns on."""
    return tuple(name for name, service in SERVICES.items() if service.turned_on(settings))


def classes_of(names: Iterable[str]) -> frozenset[str]:
    """Return the SOP classes of services."""
    return frozenset(uid for name in names for uid in SERVICES[name].sop_classes)


def served_by_peers(names: Iterable[str]) -> frozenset[str]:
    """Return the SOP classes of which the peer may be the SCP."""
    return frozenset(uid for name in names if SERVICES[name].peer_serves for uid in SERVICES[name].sop_classes)


def service_of(names: Iterable[str], sop_class: str, operation: str) -> str | None:
    """Return the service that takes an operation on a SOP class, None where none of ``names`` does."""
    return next((name for name in names if sop_class in SERVICES[name].sop_classes and operation in SERVICES[name].operations), None)


def refusal_of(name: str, request: NoteRequest) -> tuple[int, str]:
    """Return the status and the reason with which a service refuses a request before it is kept; success where it does not."""
    return SERVICES[name].problem(request)
