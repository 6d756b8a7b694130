from __future__ import annotations

import errno
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydicom import dcmread

from pacs_node.errors import SpoolFull
from pacs_node.reception.files import Bytes, FileLayer
from pacs_node.reception.part10 import PRIVATE_INFORMATION_CREATOR, Incoming
from pacs_node.reception.spool import Spool
from pacs_node.records import Arrival, AssociationEnd, Sender

SENDER = Sender("CT1", "PACS_NODE", "192.0.2.7:51000", "0a1b2c3d")
CT, INSTANCE, EXPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4.5", "1.2.840.10008.1.2.1"
DATASET = b"\x08\x00\x18\x00UI\x0a\x001.2.3.4.5\x00"


def store(spool: Spool, sender: Sender = SENDER, parts: tuple[Bytes, ...] = (DATASET,)) -> Path:
    return spool.store(sender, CT, INSTANCE, EXPLICIT, parts)


class RecordingLayer(FileLayer):
    """Does what it is told and notes it."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def create(self, path: Path) -> int:
        self.calls.append(f"create {path.suffixes[-2]}{path.suffix}")
        return super().create(path)

    def write(self, descriptor: int, part: Bytes) -> None:
        self.calls.append("write")
        super().write(descriptor, part)

    def sync(self, descriptor: int) -> None:
        self.calls.append("sync file")
        super().sync(descriptor)

    def close(self, descriptor: int) -> None:
        self.calls.append("close")
        super().close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        self.calls.append(f"rename {source.suffix} to {target.suffix}")
        super().rename(source, target)

    def sync_folder(self, folder: Path) -> None:
        self.calls.append(f"sync {folder.name}")
        super().sync_folder(folder)


class FailingLayer(FileLayer):
    """Fails at one operation."""

    def __init__(self, operation: str, number: int) -> None:
        self.operation, self.number = operation, number

    def _fail(self, operation: str) -> None:
        if operation == self.operation:
            raise OSError(self.number, os.strerror(self.number))

    def create(self, path: Path) -> int:
        self._fail("create")
        return super().create(path)

    def write(self, descriptor: int, part: Bytes) -> None:
        self._fail("write")
        super().write(descriptor, part)

    def sync(self, descriptor: int) -> None:
        self._fail("sync")
        super().sync(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        self._fail("rename")
        super().rename(source, target)

    def sync_folder(self, folder: Path) -> None:
        if folder.parent.name == "new":
            self._fail("sync_folder")
        super().sync_folder(folder)


def test_the_file_is_synced_before_it_is_named_and_the_name_before_success(tmp_path: Path) -> None:
    layer = RecordingLayer()
    spool = Spool(tmp_path, files=layer)
    layer.calls.clear()
    shard = store(spool).parent.name
    assert layer.calls == ["create .dcm.part", "write", "write", "sync file", "close", "rename .part to .dcm", f"sync {shard}"]


def test_the_end_of_an_association_is_written_as_durably_as_an_instance(tmp_path: Path) -> None:
    layer = RecordingLayer()
    spool = Spool(tmp_path, files=layer)
    layer.calls.clear()
    spool.end_association(SENDER, released=True, stored=3, refused=1)
    assert [call.split()[0] for call in layer.calls] == ["create", "write", "sync", "close", "rename", "sync"]


def test_the_folders_themselves_are_synced_when_they_are_made(tmp_path: Path) -> None:
    layer = RecordingLayer()
    Spool(tmp_path / "data", files=layer)
    assert {"sync new", "sync spool", "sync data"} <= set(layer.calls)


def test_what_is_stored_is_a_part_10_file_with_the_bytes_as_received_and_the_sender_facts(tmp_path: Path) -> None:
    path = store(Spool(tmp_path, address="192.0.2.1:11112"), parts=(DATASET[:5], memoryview(DATASET)[5:], bytearray(b"")))
    assert path.read_bytes().endswith(DATASET)
    meta = dcmread(path).file_meta
    assert meta.SourceApplicationEntityTitle == meta.ReceivingApplicationEntityTitle == "PACS_NODE"
    assert meta.SendingApplicationEntityTitle == "CT1"
    assert meta.SendingPresentationAddress == "dicom://192.0.2.7:51000"
    assert meta.SourcePresentationAddress == meta.ReceivingPresentationAddress == "dicom://192.0.2.1:11112"
    assert meta.PrivateInformationCreatorUID == PRIVATE_INFORMATION_CREATOR
    assert (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID) == (CT, INSTANCE, EXPLICIT)
    assert meta.FileMetaInformationGroupLength == len(path.read_bytes()) - len(DATASET) - 128 - 4 - 12


def test_what_was_stored_comes_back_with_its_sender_in_the_order_of_arrival(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    before = datetime.now(UTC)
    senders = [Sender(f"CT{number}", "PACS_NODE", f"192.0.2.{number}:50000", f"{number:x}") for number in range(1, 20)]
    paths = [store(spool, sender) for sender in senders]
    spool.end_association(senders[0], released=False, stored=1, refused=0)
    entries = Spool(tmp_path).arrivals()
    assert [entry.path for entry in entries[:-1]] == paths
    assert [entry.sender for entry in entries[:-1]] == senders
    assert len({path.parent for path in paths}) > 1
    assert all(isinstance(entry, Arrival) and before - timedelta(seconds=1) < entry.received_at for entry in entries[:-1])
    end = entries[-1]
    assert isinstance(end, AssociationEnd)
    assert (end.sender, end.released, end.stored, end.refused) == (senders[0], False, 1, 0)


def test_only_the_oldest_are_returned_and_stay_until_they_are_forgotten(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    names = [store(spool).stem for _ in range(5)]
    assert [entry.name for entry in spool.arrivals(2)] == names[:2]
    first = spool.arrivals(3)
    spool.forget(*[entry for entry in first if isinstance(entry, Arrival)])
    assert [entry.name for entry in spool.arrivals()] == names[3:]


def test_names_rise_even_when_the_clock_steps_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path)
    first = store(spool)
    monkeypatch.setattr("time.time_ns", lambda: 1_000_000_000)
    second = store(spool)
    assert second.name > first.name


@pytest.mark.parametrize("association", ["", "../../etc", "A", "a b", "x" * 33])
def test_a_name_is_never_made_of_something_received(tmp_path: Path, association: str) -> None:
    with pytest.raises(ValueError, match="association identifier"):
        store(Spool(tmp_path), Sender("CT1", "PACS_NODE", "h:1", association))


@pytest.mark.parametrize("sender", [Sender("../../A", "PACS_NODE", "h:1", "a"), Sender("Ä\\B", "P", "", "b"), Sender("", "", "", "c")])
def test_odd_sender_facts_are_kept_and_read_back_without_harm(tmp_path: Path, sender: Sender) -> None:
    spool = Spool(tmp_path)
    store(spool, sender)
    (entry,) = spool.arrivals()
    assert entry.sender.association == sender.association
    assert entry.path.parent.parent == spool.new


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("operation", ["create", "write", "sync", "rename", "sync_folder"])
def test_a_disk_that_takes_no_more_leaves_nothing_partial(tmp_path: Path, operation: str, number: int) -> None:
    spool = Spool(tmp_path, files=FailingLayer(operation, number))
    with pytest.raises(SpoolFull, match="make room on its disk"):
        store(spool)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert store(Spool(tmp_path)).exists()


def test_another_fault_is_raised_as_it_is_and_leaves_nothing_partial(tmp_path: Path) -> None:
    with pytest.raises(PermissionError):
        store(Spool(tmp_path, files=FailingLayer("rename", errno.EACCES)))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_half_written_files_are_swept_and_never_seen(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    kept = store(spool)
    kept.with_name(f"{kept.stem}1.dcm.part").write_bytes(b"half")
    (spool.quarantine_folder / "x.json.part").write_bytes(b"half")
    assert [entry.path for entry in spool.arrivals()] == [kept]
    assert spool.sweep_parts() == 2
    assert not list(tmp_path.rglob("*.part"))


def test_files_of_other_names_are_left_alone(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    (spool.new / "00" / "notes.txt").write_text("by hand")
    (spool.new / "00" / "image.dcm").write_bytes(b"by hand")
    assert spool.arrivals() == []


@pytest.mark.parametrize("suffix", [".dcm", ".end"])
def test_a_damaged_entry_goes_to_quarantine_with_the_reason(tmp_path: Path, suffix: str) -> None:
    spool = Spool(tmp_path)
    good = store(spool)
    damaged = good.with_name(f"{'0' * 20}-ff-000001{suffix}")
    damaged.write_bytes(b"{not what it should be")
    assert [entry.path for entry in spool.arrivals()] == [good]
    (kept,) = spool.quarantined()
    assert kept.path.read_bytes() == b"{not what it should be"
    assert kept.reason and not damaged.exists()


def test_an_object_is_set_aside_with_its_bytes_reason_and_sender(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    path = spool.set_aside(Incoming(SENDER, CT, INSTANCE, EXPLICIT), (b"garbage",), "no SOP Instance UID")
    assert path.read_bytes().endswith(b"garbage")
    (kept,) = spool.quarantined()
    assert (kept.path, kept.reason, kept.sender) == (path, "no SOP Instance UID", SENDER)
    assert spool.arrivals() == []
    spool.forget(kept)
    assert spool.quarantined() == [] and not list(spool.quarantine_folder.iterdir())


def test_an_arrival_can_be_moved_to_quarantine_later(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    content = store(spool).read_bytes()
    (arrival,) = spool.arrivals()
    assert isinstance(arrival, Arrival)
    kept = spool.quarantine(arrival, "Rows is missing")
    assert spool.arrivals() == []
    assert spool.quarantined() == [kept]
    assert kept.path.read_bytes() == content


def test_a_quarantined_object_without_its_note_is_still_listed(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    path = spool.set_aside(Incoming(SENDER, CT, INSTANCE, EXPLICIT), (b"x",), "why")
    path.with_suffix(".json").unlink()
    (kept,) = spool.quarantined()
    assert kept.path == path and "unknown" in kept.reason


def test_room_is_what_is_left_beyond_the_reserve(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    assert spool.room(0)
    assert not spool.room(spool.capacity())


def test_an_object_is_written_as_it_comes_and_nothing_is_seen_before_it_is_committed(tmp_path: Path) -> None:
    layer = RecordingLayer()
    spool = Spool(tmp_path, files=layer)
    layer.calls.clear()
    file = spool.open(Incoming(SENDER, CT, INSTANCE, EXPLICIT))
    for piece in (DATASET[:7], memoryview(bytearray(DATASET))[7:]):
        file.write(piece)
    assert spool.arrivals() == []
    path = file.commit()
    assert layer.calls == ["create .dcm.part", "write", "write", "write", "sync file", "close", "rename .part to .dcm", f"sync {path.parent.name}"]
    assert [entry.path for entry in spool.arrivals()] == [path]
    assert path.read_bytes().endswith(DATASET)


def test_an_object_that_turns_out_wrong_goes_to_quarantine_as_durably(tmp_path: Path) -> None:
    layer = RecordingLayer()
    spool = Spool(tmp_path, files=layer)
    file = spool.open(Incoming(SENDER, CT, INSTANCE, EXPLICIT))
    file.write(DATASET)
    layer.calls.clear()
    target = file.set_aside("another object than announced")
    assert layer.calls[-4:] == ["sync file", "close", "rename .part to .dcm", "sync quarantine"]
    assert layer.calls[:-4] == ["create .json.part", "write", "sync file", "close", "rename .part to .json", "sync quarantine"]
    (kept,) = spool.quarantined()
    assert (kept.path, kept.reason) == (target, "another object than announced")
    assert spool.arrivals() == [] and not list(spool.new.rglob("*.part"))


def test_an_object_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    file = spool.open(Incoming(SENDER, CT, INSTANCE, EXPLICIT))
    file.write(DATASET)
    file.discard()
    file.discard()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("operation", ["create", "sync", "rename"])
def test_a_disk_that_takes_nothing_into_quarantine_leaves_nothing_partial(tmp_path: Path, operation: str) -> None:
    spool = Spool(tmp_path, files=(layer := FailingLayer("none", errno.ENOSPC)))
    file = spool.open(Incoming(SENDER, CT, INSTANCE, EXPLICIT))
    layer.operation = operation
    with pytest.raises(SpoolFull):
        file.set_aside("why")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_what_stays_in_memory_of_a_file_is_its_beginning(tmp_path: Path) -> None:
    """The order matters: only what is synced can be forgotten."""
    calls = []

    class Layer(RecordingLayer):
        def release(self, descriptor: int) -> None:
            calls.append(self.calls[-1])
            super().release(descriptor)

    body = DATASET + os.urandom(300_000)
    path = store(Spool(tmp_path, files=Layer()), parts=(body,))
    assert calls == ["sync file"]
    assert path.read_bytes().endswith(body)


def test_what_another_machine_may_be_writing_is_left_to_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    fresh, abandoned = spool.new / "00" / "fresh.part", spool.new / "00" / "abandoned.part"
    for path in (fresh, abandoned):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    os.utime(abandoned, (0, 0))
    assert spool.sweep_parts(untouched=600.0) == 1
    assert fresh.exists() and not abandoned.exists()
    assert spool.sweep_parts() == 1


def test_a_lock_of_another_machine_says_that_it_receives_here(tmp_path: Path) -> None:
    from pacs_node.node import _others_receive, locked

    with locked(tmp_path, ("receiver",)):
        assert not _others_receive(tmp_path)
        (tmp_path / "locks" / "other-host-receiver.lock").touch()
        assert _others_receive(tmp_path)
