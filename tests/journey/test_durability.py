"""The order in which bytes, names and rows reach the disk: whatever a power cut takes away, nothing that was promised is in it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from pacs_node.reception import files
from tests.journey.support import Town, ct_study


@dataclass
class Record:
    """What was asked of the operating system and the database, in order: ("sync", path), ("rename", from, to), ("commit",)."""

    events: list[tuple[Any, ...]] = field(default_factory=list)

    def at(self, *event: object) -> int:
        """Return the place of an event; it has to be there."""
        assert event in self.events, f"{event} is not among {self.events}"
        return self.events.index(event)

    def renames(self, into: Path) -> list[tuple[int, Path, Path]]:
        return [(index, event[1], event[2]) for index, event in enumerate(self.events) if event[0] == "rename" and into in event[2].parents]

    def commits_after(self, index: int) -> int:
        return sum(1 for event in self.events[index:] if event == ("commit",))


@pytest.fixture
def record(town: Town, monkeypatch: pytest.MonkeyPatch) -> Record:
    """Write down every sync, rename and commit from now on."""
    kept = Record()

    def syncing(real: Callable[[int], None]) -> Callable[[int], None]:
        def sync(descriptor: int) -> None:
            real(descriptor)
            kept.events.append(("sync", Path(os.readlink(f"/proc/self/fd/{descriptor}"))))

        return sync

    def renaming(real: Callable[..., None]) -> Callable[..., None]:
        def rename(source: Any, target: Any) -> None:
            real(source, target)
            kept.events.append(("rename", Path(source), Path(target)))

        return rename

    monkeypatch.setattr(os, "fsync", syncing(os.fsync))
    monkeypatch.setattr(files, "_sync_data", syncing(files._sync_data))
    monkeypatch.setattr(os, "rename", renaming(os.rename))
    monkeypatch.setattr(os, "replace", renaming(os.replace))
    event.listen(town.house.store.engine, "commit", lambda connection: kept.events.append(("commit",)))
    return kept


def test_success_is_answered_for_bytes_and_name_on_the_disk(town: Town, record: Record) -> None:
    town.send(ct_study(3), released=True)
    taken = record.renames(town.house.spool.new)
    assert len(taken) == 4  # three objects and the end of the association
    for index, part, whole in taken:
        assert record.at("sync", part) < index
        assert ("sync", whole.parent) in record.events[index:]


def test_a_file_leaves_the_spool_only_after_its_row_is_committed_and_its_new_name_is_on_the_disk(town: Town, record: Record) -> None:
    town.send(ct_study(3))
    record.events.clear()
    town.gather()
    moved = record.renames(town.house.data / "studies")
    assert len(moved) == 3
    first, last = moved[0][0], moved[-1][0]
    studies = town.house.data / "studies"
    for folder in (studies.parent, studies, studies / "0000"):  # the new folders stand in their parents before anything is in them
        assert record.at("sync", folder) < first
    assert ("commit",) in record.events[:first]
    target, source = moved[0][2].parent, moved[0][1].parent
    assert last < record.at("sync", target) < record.events.index(("sync", source), last)


def test_a_result_is_on_the_disk_before_the_outbox_knows_of_it(town: Town, record: Record) -> None:
    town.send(ct_study(6))
    town.gather()
    town.wait(seconds=11)
    town.gather()
    record.events.clear()
    town.work()
    built = record.renames(town.house.data / "results")
    assert len(built) == 4
    for index, part, whole in built:
        assert record.at("sync", part) < index < record.events.index(("sync", whole.parent), index)
    assert record.commits_after(built[-1][0]) == 1  # the one that puts all three into the outbox
    for folder in (town.house.data, town.house.data / "results", town.house.data / "results/0000"):
        assert record.at("sync", folder) < built[0][0]


def test_a_delivery_into_a_folder_is_on_the_disk_before_it_counts_as_delivered(town: Town, record: Record) -> None:
    town.send(ct_study(6))
    town.gather()
    town.wait(seconds=11)
    town.gather()
    town.work()
    record.events.clear()
    town.post()
    sent = record.renames(town.folder / "out")
    assert len(sent) == 4
    for index, part, whole in sent:
        assert record.at("sync", part) < index
        counted = record.events.index(("commit",), index)
        assert ("sync", whole.parent) in record.events[index:counted]


def test_a_quarantined_object_is_noted_before_it_is_moved(town: Town, record: Record) -> None:
    town.send(ct_study(1, StudyInstanceUID=None))
    record.events.clear()
    town.gather()
    ((index, _, whole),) = [move for move in record.renames(town.house.spool.quarantine_folder) if move[2].suffix == ".dcm"]
    note = whole.with_suffix(".json")
    assert record.at("rename", note.with_name(note.name + ".part"), note) < index
    assert ("sync", whole.parent) in record.events[index:]
