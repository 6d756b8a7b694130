"""Requests for storage commitment at the door: kept before they are answered, or refused with the right status."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom.sop_class import StorageCommitmentPushModel

from pacs_node.config import Reception, Settings
from pacs_node.dicom.commitment import PUSH_MODEL_INSTANCE, Request, read_request, request_dataset
from pacs_node.reception import services
from pacs_node.reception.notes import dataset_of
from tests.delivery.committing import references
from tests.reception.peers import Running

Start = Callable[..., Running]
REQUEST = Request("1.2.9.1", references(2))


def test_a_request_answered_with_success_lies_in_the_spool(start: Start) -> None:
    receiver = start(services=["commitment-request"])
    association = receiver.associate((StorageCommitmentPushModel, [ExplicitVRLittleEndian]))
    status, _ = association.send_n_action(request_dataset(REQUEST), 1, StorageCommitmentPushModel, PUSH_MODEL_INSTANCE)
    (note,) = receiver.notes()
    association.release()
    assert status.Status == 0x0000 and note.service == "commitment-request" and read_request(dataset_of(note)) == REQUEST


@pytest.mark.parametrize(
    ("action", "instance", "request_", "status"),
    [
        (2, PUSH_MODEL_INSTANCE, REQUEST, 0x0123),
        (1, "1.2.3", REQUEST, 0x0112),
        (1, PUSH_MODEL_INSTANCE, Request("1.2.9.1", ()), 0x0115),
        (1, PUSH_MODEL_INSTANCE, Request("", references(1)), 0x0115),
    ],
    ids=["another action", "another instance", "no references", "no transaction"],
)
def test_a_request_that_could_never_be_reported_on_is_refused(start: Start, action: int, instance: str, request_: Request, status: int) -> None:
    receiver = start(services=["commitment-request"])
    association = receiver.associate((StorageCommitmentPushModel, [ExplicitVRLittleEndian]))
    answer, _ = association.send_n_action(request_dataset(request_), action, StorageCommitmentPushModel, instance)
    association.release()
    assert answer.Status == status and receiver.notes() == []


def test_one_who_only_reports_to_us_cannot_ask_us(start: Start) -> None:
    receiver = start(services=["commitment-report"])
    association = receiver.associate((StorageCommitmentPushModel, [ExplicitVRLittleEndian]))
    answer, _ = association.send_n_action(request_dataset(REQUEST), 1, StorageCommitmentPushModel, PUSH_MODEL_INSTANCE)
    association.release()
    assert answer.Status == 0x0211 and receiver.notes() == []


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ({}, ()),
        ({"reception": Reception(commitment=True)}, ("commitment-request",)),
        ({"destinations": {"a": {"kind": "dicom", "ae_title": "A", "address": "h", "port": 104, "commitment": True}}}, ("commitment-report",)),
    ],
)
def test_the_configuration_turns_each_side_on(asked: dict[str, object], names: tuple[str, ...]) -> None:
    assert services.wanted(Settings.model_validate(asked)) == names
