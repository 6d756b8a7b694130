"""Notes → their services: what peers told us by DIMSE-N requests, dealt with in the order in which they came.

A handler commits what a note says, and only then the note is taken from the spool: a crash in between has it handled once more, which changes
nothing. What no handler can deal with goes to quarantine and is said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from pydicom.dataset import Dataset

from pacs_node import crash
from pacs_node.errors import UnreadableObject
from pacs_node.journey import House, commit, vouch
from pacs_node.journey.announcements import take_availability, take_step
from pacs_node.reception.notes import dataset_of
from pacs_node.records import Note

Handler = Callable[[House, Note, Dataset, datetime], None]
"""Commits what a note says, once or several times to the same effect; raises `UnreadableObject` for one that says nothing of use."""

HANDLERS: Mapping[str, Handler] = {
    "mpps": take_step,
    "availability": take_availability,
    "commitment-report": commit.take_note,
    "commitment-request": vouch.take_note,
}
"""Service (a name in `pacs_node.reception.services.SERVICES`) → what becomes of its notes."""


def take_note(house: House, note: Note, now: datetime) -> None:
    """Deal with one note and take it from the spool; raises `UnreadableObject` where it has to be kept aside instead."""
    handler = HANDLERS.get(note.service)
    if handler is None:
        raise UnreadableObject(f"note {note.name}", f"this version knows no service {note.service!r}")
    handler(house, note, dataset_of(note), now)
    crash.passed("noted")
    house.spool.forget(note)
