"""DIMSE-N requests: what is answered with success lies in the spool as a note."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid
from pynetdicom import build_context, build_role
from pynetdicom.association import Association
from pynetdicom.sop_class import InstanceAvailabilityNotification, ModalityPerformedProcedureStep, StorageCommitmentPushModel

from pacs_node.delivery.requestor import Requestor
from pacs_node.errors import SpoolFull, UnreadableObject
from pacs_node.reception import notes, services
from pacs_node.reception.conversation import NoteRequest
from pacs_node.reception.notes import dataset_of
from pacs_node.reception.spool import Spool
from pacs_node.records import Note, Sender
from tests.reception.peers import Running, make_ct
from tests.reception.test_spool import FailingLayer, RecordingLayer

Start = Callable[..., Running]
SENDER = Sender("CT1", "PACS_NODE", "192.0.2.7:51000", "0a1b2c3d")
REQUEST = NoteRequest("n-create", ModalityPerformedProcedureStep, "1.2.3", None, ExplicitVRLittleEndian, b"")


def step(status: str = "IN PROGRESS") -> Dataset:
    dataset = Dataset()
    dataset.PerformedProcedureStepStatus, dataset.PatientName, dataset.SpecificCharacterSet = status, "Müller^Jörg", "ISO_IR 100"
    return dataset


def associate(receiver: Running, syntax: str = ExplicitVRLittleEndian) -> Association:
    return receiver.associate((ModalityPerformedProcedureStep, [syntax]), (CTImageStorage, [ExplicitVRLittleEndian]))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_request_answered_with_success_lies_in_the_spool_between_the_instances_of_its_association(start: Start, syntax: str) -> None:
    receiver = start(services=["mpps"])
    association, uid = associate(receiver, syntax), generate_uid()
    assert association.send_n_create(step(), ModalityPerformedProcedureStep, uid)[0].Status == 0x0000
    assert association.send_c_store(make_ct()).Status == 0x0000
    assert association.send_n_set(step("COMPLETED"), ModalityPerformedProcedureStep, uid)[0].Status == 0x0000
    first, _, last = receiver.spool.arrivals()
    association.release()
    assert isinstance(first, Note) and isinstance(last, Note)
    assert [(note.service, note.operation, note.sop_uid) for note in (first, last)] == [("mpps", "n-create", uid), ("mpps", "n-set", uid)]
    assert first.sender.calling_ae == "CT1" and first.sender.association == last.sender.association
    assert dataset_of(first).PatientName == "Müller^Jörg" and dataset_of(last).PerformedProcedureStepStatus == "COMPLETED"


def test_what_the_configuration_does_not_turn_on_is_not_accepted(start: Start) -> None:
    association = start().associate((ModalityPerformedProcedureStep, [ExplicitVRLittleEndian]), (InstanceAvailabilityNotification, [ExplicitVRLittleEndian]))
    assert association.accepted_contexts == []


def test_a_request_that_no_service_knows_is_refused_and_the_association_goes_on(start: Start) -> None:
    receiver = start(services=["mpps"])
    association = associate(receiver)
    assert association.send_n_delete(ModalityPerformedProcedureStep, "1.2.3").Status == 0x0211
    assert association.send_n_get([], ModalityPerformedProcedureStep, "1.2.3")[0].Status == 0x0211
    assert association.send_c_store(make_ct()).Status == 0x0000
    association.release()
    assert receiver.notes() == []


def test_a_request_that_names_no_instance_is_refused(start: Start) -> None:
    receiver = start(services=["mpps"])
    association = associate(receiver)
    assert association.send_n_create(step(), ModalityPerformedProcedureStep, None)[0].Status == 0x0117
    association.release()
    assert receiver.notes() == []


def test_a_request_too_large_is_refused_and_the_association_goes_on(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notes, "MOST_CONTENT", 100)
    receiver = start(services=["mpps"])
    association, large = associate(receiver), step()
    large.CommentsOnThePerformedProcedureStep = "x" * 1000
    assert association.send_n_create(large, ModalityPerformedProcedureStep, "1.2.3")[0].Status == 0x0213
    assert association.send_n_create(step(), ModalityPerformedProcedureStep, "1.2.3")[0].Status == 0x0000
    association.release()


def test_without_room_a_request_is_refused_so_that_its_sender_tries_again(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    receiver = start(services=["mpps"])
    association = associate(receiver)
    with monkeypatch.context() as patch:
        patch.setattr(Spool, "room", lambda self, reserve: False)
        assert association.send_n_create(step(), ModalityPerformedProcedureStep, "1.2.3")[0].Status == 0x0213
    assert association.send_n_create(step(), ModalityPerformedProcedureStep, "1.2.3")[0].Status == 0x0000
    association.release()


def test_a_fault_of_our_own_is_a_processing_failure(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    receiver = start(services=["mpps"])
    association = associate(receiver)

    def fall(*_: object) -> Path:
        raise RuntimeError("on purpose")

    monkeypatch.setattr(Spool, "note", fall)
    assert association.send_n_create(step(), ModalityPerformedProcedureStep, "1.2.3")[0].Status == 0x0110
    assert association.send_c_store(make_ct()).Status == 0x0000
    association.release()


def test_a_peer_may_take_the_other_role_where_the_service_says_so(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    report = services.Service((StorageCommitmentPushModel,), frozenset({"n-event-report"}), lambda settings: True, peer_serves=True)
    monkeypatch.setattr(services, "SERVICES", {**services.SERVICES, "report": report})
    receiver = start(services=["mpps", "report"])
    roles = [build_role(uid, scu_role=False, scp_role=True) for uid in (StorageCommitmentPushModel, CTImageStorage)]
    contexts = [build_context(uid, [ExplicitVRLittleEndian]) for uid in (StorageCommitmentPushModel, CTImageStorage)]
    association = Requestor("ARCHIVE", 20, 20, 20).associate("127.0.0.1", receiver.port, contexts, "PACS_NODE", ext_neg=roles)
    (accepted,) = association.accepted_contexts  # to be sent images is not what a receiver is for
    assert accepted.abstract_syntax == StorageCommitmentPushModel and accepted.as_scp and not accepted.as_scu
    said, _ = association.send_n_event_report(step(), 2, StorageCommitmentPushModel, "1.2.840.10008.1.20.1.1")
    assert said.Status == 0x0000
    association.release()
    (note,) = receiver.notes()
    assert (note.service, note.operation, note.number) == ("report", "n-event-report", 2)


# --- the spool -------------------------------------------------------------------------------------------------------------


def test_a_note_is_written_as_durably_as_an_instance(tmp_path: Path) -> None:
    layer = RecordingLayer()
    spool = Spool(tmp_path, files=layer)
    layer.calls.clear()
    shard = spool.note(SENDER, "mpps", REQUEST).parent.name
    assert layer.calls == ["create .note.part", "write", "sync file", "close", "rename .part to .note", f"sync {shard}"]


@pytest.mark.parametrize("operation", ["create", "write", "sync", "rename", "sync_folder"])
def test_a_note_that_the_disk_does_not_take_leaves_nothing(tmp_path: Path, operation: str) -> None:
    spool = Spool(tmp_path, files=FailingLayer(operation, errno.ENOSPC))
    with pytest.raises(SpoolFull):
        spool.note(SENDER, "mpps", REQUEST)
    assert [path for path in spool.new.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"sender": {}, "service": "mpps"}', b"\xff", b"[" * 100_000])
def test_a_damaged_note_goes_to_quarantine_with_the_reason(tmp_path: Path, content: bytes) -> None:
    spool = Spool(tmp_path)
    spool.note(SENDER, "mpps", REQUEST).write_bytes(content)
    good = spool.note(SENDER, "mpps", REQUEST)
    assert [entry.path for entry in spool.arrivals()] == [good]
    (item,) = spool.quarantined()
    assert item.path.suffix == ".note" and "the note of a request is damaged" in item.reason and item.path.read_bytes() == content


ITEM = b"\x40\x00\x40\x03SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"  # a sequence, and the beginning of its item
ODD = {"a number of three bytes": b"\x28\x00\x10\x00US\x03\x00123", "no tag": b"\x08\0\x05", "nested 1000 deep": ITEM * 1000}


@pytest.mark.parametrize("content", ODD.values(), ids=ODD)
def test_a_dataset_that_cannot_be_read_is_refused(content: bytes) -> None:
    with pytest.raises(UnreadableObject):
        notes.decode(content, ExplicitVRLittleEndian)
    request = NoteRequest("n-create", ModalityPerformedProcedureStep, "1.2.3", None, ExplicitVRLittleEndian, content)
    assert notes.problem_of(request)[0] == 0x0110
