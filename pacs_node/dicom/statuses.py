"""What a C-STORE response status means for the sender: one table (PS3.4 B.2.3, PS3.7 9.1.1.1.9 and Annex C)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class StatusClass(StrEnum):
    """What to do about a status."""

    SUCCESS = "success"
    WARNING = "warning"  # stored, but something was changed or dropped
    PERMANENT = "permanent"  # never offer this object again as it is
    TEMPORARY = "temporary"  # try again later


@dataclass(frozen=True, slots=True)
class Status:
    """One row: the codes ``first`` … ``last``, their class, what they mean, and the clause that says so."""

    first: int
    last: int
    kind: StatusClass
    meaning: str
    clause: str


SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
CLASS_MISMATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000
DUPLICATE = 0x0111
COERCED = 0xB000

# Of the DIMSE-N services (PS3.7 Annex C)
PROCESSING_FAILURE = 0x0110
INVALID_ARGUMENT = 0x0115
INVALID_INSTANCE = 0x0117
NO_SUCH_ACTION = 0x0123
UNRECOGNISED_OPERATION = 0x0211
RESOURCE_LIMITATION = 0x0213

STATUSES: tuple[Status, ...] = (  # the first row that holds the code counts
    Status(SUCCESS, SUCCESS, StatusClass.SUCCESS, "stored", "PS3.7 C.1.1"),
    Status(0x0001, 0x0001, StatusClass.WARNING, "stored; optional attributes are not supported", "PS3.7 C.4"),
    Status(0x0107, 0x0107, StatusClass.WARNING, "stored; attribute list error", "PS3.7 C.4.2"),
    Status(0x0116, 0x0116, StatusClass.WARNING, "stored; attribute value out of range", "PS3.7 C.4.1"),
    Status(COERCED, COERCED, StatusClass.WARNING, "stored; data elements were coerced", "PS3.4 B.2.3"),
    Status(0xB006, 0xB006, StatusClass.WARNING, "stored; elements were discarded", "PS3.4 B.2.3"),
    Status(0xB007, 0xB007, StatusClass.WARNING, "stored; the data set does not match its SOP class", "PS3.4 B.2.3"),
    Status(0xB001, 0xBFFF, StatusClass.WARNING, "stored with a warning", "PS3.7 C.1.3"),
    Status(0x0110, 0x0110, StatusClass.TEMPORARY, "processing failure", "PS3.7 C.5.21, PS3.18 I.2.2"),
    Status(DUPLICATE, DUPLICATE, StatusClass.TEMPORARY, "an instance of this UID is there already; whether it is this one is not known", "PS3.7 C.5.5"),
    Status(0x0122, 0x0122, StatusClass.PERMANENT, "the SOP class is not supported", "PS3.7 C.5.6"),
    Status(0x0124, 0x0124, StatusClass.TEMPORARY, "not authorised", "PS3.7 C.5.22"),
    Status(0xA700, 0xA7FF, StatusClass.TEMPORARY, "out of resources", "PS3.4 B.2.3"),
    Status(0xA900, 0xA9FF, StatusClass.PERMANENT, "the data set does not match its SOP class", "PS3.4 B.2.3"),
    Status(0xC000, 0xCFFF, StatusClass.PERMANENT, "cannot understand", "PS3.4 B.2.3"),
)


def classify(code: int) -> Status:
    """Return the row for a status code; an unknown code is a temporary failure, because giving up is the worse mistake."""
    for status in STATUSES:
        if status.first <= code <= status.last:
            return status
    return Status(code, code, StatusClass.TEMPORARY, "a failure that the standard does not define for C-STORE", "PS3.7 C")
