"""Which audit event of PS3.15 A.5.3 each row of the trail is: one table. Codes are those of PS3.16 (CID 400, 401, 402, 403, 405)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

Code = tuple[str, str, str]  # value, scheme, meaning

STUDY_UID: Code = ("110180", "DCM", "Study Instance UID")
NODE_ID: Code = ("110182", "DCM", "Node ID")
PATIENT_NUMBER: Code = ("2", "RFC-3881", "Patient Number")
URI: Code = ("12", "RFC-3881", "URI")

APPLICATION: Code = ("110150", "DCM", "Application")
LAUNCHER: Code = ("110151", "DCM", "Application Launcher")
DESTINATION: Code = ("110152", "DCM", "Destination Role ID")
SOURCE: Code = ("110153", "DCM", "Source Role ID")
MEDIA: Code = ("110154", "DCM", "Destination Media")
MEDIA_URI: Code = ("110037", "DCM", "URI")

OWN_SCHEME = "99PACSNODE"  # of the actions of the trail, as additional event types


class Family(StrEnum):
    """The messages of PS3.15 A.5.3 that we send: the values of CID 400."""

    APPLICATION = "110100"
    LOG_USED = "110101"
    BEGIN = "110102"
    ACCESSED = "110103"
    TRANSFERRED = "110104"
    DELETED = "110105"
    EXPORT = "110106"
    ALERT = "110113"
    LOGIN = "110114"


MEANINGS: Mapping[Family, str] = {
    Family.APPLICATION: "Application Activity",
    Family.LOG_USED: "Audit Log Used",
    Family.BEGIN: "Begin Transferring DICOM Instances",
    Family.ACCESSED: "DICOM Instances Accessed",
    Family.TRANSFERRED: "DICOM Instances Transferred",
    Family.DELETED: "DICOM Study Deleted",
    Family.EXPORT: "Export",
    Family.ALERT: "Security Alert",
    Family.LOGIN: "User Authentication",
}
OF_STUDIES = frozenset({Family.BEGIN, Family.ACCESSED, Family.TRANSFERRED, Family.DELETED})
"""Messages that have to name a study; a row of theirs that knows none is sent as an alert."""

_START: Code = ("110120", "DCM", "Application Start")
_STOP: Code = ("110121", "DCM", "Application Stop")
_LOGIN: Code = ("110122", "DCM", "Login")
_NODE: Code = ("110126", "DCM", "Node Authentication")
_SOFTWARE: Code = ("110131", "DCM", "Software Configuration")
RESTRICTED: Code = ("110132", "DCM", "Use of Restricted Function")

_WELL, _MINOR, _SERIOUS = 0, 4, 8


@dataclass(frozen=True, slots=True)
class Event:
    """How an action is reported. ``inward``: the data came to us; ``operator``: a person did it."""

    family: Family
    code: str  # Event Action Code: create, read, update, delete, execute
    outcome: int = _WELL  # 0 success, 4 minor failure, 8 serious failure
    type: Code | None = None  # CID 401 and 403
    inward: bool = False
    operator: bool = False


EVENTS: Mapping[str, Event] = {
    # the node
    "started": Event(Family.APPLICATION, "E", type=_START),
    "stopped": Event(Family.APPLICATION, "E", type=_STOP),
    "rules": Event(Family.ALERT, "E", type=_SOFTWARE),
    "rules refused": Event(Family.ALERT, "E", _MINOR, type=_SOFTWARE),
    "reindex": Event(Family.ALERT, "E", type=_SOFTWARE),
    "audit read": Event(Family.LOG_USED, "R", operator=True),
    # who sent
    "receiving": Event(Family.BEGIN, "E", inward=True),
    "received": Event(Family.TRANSFERRED, "C", inward=True),
    "sender refused": Event(Family.ALERT, "E", _MINOR, type=_NODE),
    "login failed": Event(Family.LOGIN, "E", _MINOR, type=_LOGIN),
    # what was analysed by which model
    "analysed": Event(Family.ACCESSED, "R"),
    "requeued": Event(Family.ACCESSED, "R", _MINOR),
    "parked job": Event(Family.ACCESSED, "R", _SERIOUS),
    "held": Event(Family.ACCESSED, "U", _MINOR),
    "cancelled": Event(Family.ACCESSED, "U"),
    "rejected": Event(Family.ACCESSED, "U"),
    # which result went where
    "sent": Event(Family.TRANSFERRED, "R"),
    "committed": Event(Family.TRANSFERRED, "R"),
    "replaced": Event(Family.TRANSFERRED, "R", _MINOR),
    "superseded": Event(Family.TRANSFERRED, "R"),
    "refused": Event(Family.TRANSFERRED, "R", _SERIOUS),
    "parked delivery": Event(Family.TRANSFERRED, "R", _SERIOUS),
    "retired": Event(Family.ACCESSED, "D"),
    "retired study": Event(Family.DELETED, "D"),
    "export begun": Event(Family.EXPORT, "R", operator=True),
    "exported": Event(Family.EXPORT, "R", operator=True),
    "backup": Event(Family.EXPORT, "R", operator=True),
    # what operators did
    "retry": Event(Family.ACCESSED, "U", operator=True),
    "cancel": Event(Family.ACCESSED, "U", operator=True),
    "release": Event(Family.ACCESSED, "U", operator=True),
    "clear": Event(Family.ALERT, "E", type=RESTRICTED, operator=True),
    "repair": Event(Family.ALERT, "E", type=RESTRICTED, operator=True),
}
"""Action of the trail (where needed with the first word of its subject) → the event."""

OTHER = Event(Family.ALERT, "E", type=RESTRICTED)


def event_of(action: str, subject: str) -> Event:
    """Return the event of a row."""
    kind = subject.partition(" ")[0]
    return EVENTS.get(f"{action} {kind}") or EVENTS.get(action) or OTHER
