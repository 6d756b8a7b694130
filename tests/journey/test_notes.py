"""Requests that peers made by DIMSE-N and receivers left in the spool: each is dealt with once in effect, and none stands in the way."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from sqlalchemy import select

from pacs_node import crash
from pacs_node.database.tables import AsideRow
from pacs_node.errors import UnreadableObject
from pacs_node.journey import House, notes
from pacs_node.reception.conversation import NoteRequest
from pacs_node.records import Note, Sender
from pacs_node.workbench.fsck import examine
from tests.journey.support import Town, ct_study
from tests.journey.test_adversity import alert_kinds

SENDER = Sender("CT1", "PACS_NODE", "127.0.0.1:4242", "note1")


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Give what a handler hears that writes names down."""
    names: list[str] = []

    def hear(house: House, note: Note, dataset: Dataset, now: datetime) -> None:
        if note.operation == "n-action":
            raise UnreadableObject("the request", "it says nothing of use")
        if note.operation == "n-event-report":
            raise KeyError("a fault")
        names.append(note.name)

    monkeypatch.setattr(notes, "HANDLERS", {"test": hear})
    yield names


def put(town: Town, service: str = "test", operation: str = "n-create", content: bytes = b"") -> Path:
    return town.house.spool.note(SENDER, service, NoteRequest(operation, "1.2", "1.2.3", None, ExplicitVRLittleEndian, content))


def left(town: Town) -> list[Path]:
    return list(town.house.spool.new.rglob("*.note"))


def test_notes_are_heard_in_the_order_in_which_they_came_and_taken_away(town: Town, heard: list[str]) -> None:
    names = [put(town).stem for _ in range(3)]
    town.send(ct_study())
    town.gather()
    assert heard == names and left(town) == []


def test_a_crash_after_a_note_was_heard_has_it_heard_once_more(town: Town, heard: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    name = put(town).stem

    def die(step: str) -> None:
        if step == "noted":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(crash, "passed", die)
        with pytest.raises(KeyboardInterrupt):
            town.gather()
    town.restart()
    town.gather()
    assert heard == [name, name] and left(town) == []


@pytest.mark.parametrize(
    ("note", "words"),
    [
        ({"service": "of tomorrow"}, "knows no service"),
        ({"operation": "n-action"}, "nothing of use"),
        ({"operation": "n-event-report"}, "KeyError"),
        ({"content": b"\x28\x00\x10\x00US\x03\x00123"}, "cannot be read"),
    ],
    ids=["unknown", "without sense", "fault of the handler", "broken dataset"],
)
def test_what_no_handler_can_deal_with_is_kept_aside_and_stops_nobody(town: Town, heard: list[str], note: dict[str, object], words: str) -> None:
    put(town, **note)  # type: ignore[arg-type]
    good = put(town).stem
    town.send(ct_study())
    town.settle()
    assert heard == [good] and left(town) == [] and town.results()
    assert alert_kinds(town) == ["quarantine"]
    with town.house.store.read() as session:
        aside = session.scalars(select(AsideRow)).one()
    assert words in aside.reason and (town.house.data / aside.path).is_file()


def test_fsck_puts_a_damaged_note_into_quarantine_and_leaves_the_others(town: Town, heard: list[str]) -> None:
    put(town).write_bytes(b"{")
    town.house.store.close()
    report = examine(town.settings, repair=True, deep=True)
    assert [finding.what for finding in report.findings] == ["request that cannot be read"]
    assert examine(town.settings, repair=False, deep=True).findings == []
