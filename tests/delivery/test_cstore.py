from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import CTImageStorage, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLSLossless, MRImageStorage

from pacs_node.config import DicomDestination
from pacs_node.delivery import DESTINATIONS, cstore, deliver
from pacs_node.delivery.archive import FolderArchive
from pacs_node.delivery.cstore import Timeouts, probe
from pacs_node.dicom.sop_classes import STORAGE_CLASSES
from pacs_node.errors import TemporaryFailure
from pacs_node.records import Outcome, Parcel
from tests.delivery.places import destination_at, free_port
from tests.reception.peers import data_set, dataset_bytes, make_ct, tool_path, wait_until

MakeParcel = Callable[..., Parcel]
Archive = Callable[..., FolderArchive]
QUICK = Timeouts(connect=5.0, associate=5.0, response=1.0)


def send(where: FolderArchive | int, parcels: Sequence[Parcel], timeouts: Timeouts = Timeouts(5.0, 5.0, 20.0)) -> list[Outcome]:
    outcomes: list[Outcome] = []
    cstore.deliver(destination_at(where if isinstance(where, int) else where.port), parcels, "PACS_NODE", outcomes.append, timeouts)
    return outcomes


def test_objects_arrive_in_order_byte_for_byte(archive: Archive, parcel: MakeParcel) -> None:
    there = archive()
    parcels = [parcel(), parcel(SOPClassUID=MRImageStorage), parcel()]
    outcomes = send(there, parcels)
    assert [(outcome.sop_uid, outcome.delivered, outcome.status) for outcome in outcomes] == [(one.sop_uid, True, 0x0000) for one in parcels]
    assert there.received == [one.sop_uid for one in parcels]
    assert all(dataset_bytes(there.path_of(one.sop_uid)) == dataset_bytes(one.path) for one in parcels)


def test_each_object_gets_the_outcome_of_its_own_status(archive: Archive, parcel: MakeParcel) -> None:
    expected = {  # status → delivered, permanent
        0x0000: (True, False),
        0xB000: (True, False),
        0xB006: (True, False),
        0xB007: (True, False),
        0x0111: (False, False),
        0x0122: (False, True),
        0xA700: (False, False),
        0xA900: (False, True),
        0xC123: (False, True),
        0x0110: (False, False),
    }
    parcels = [parcel() for _ in expected]
    statuses = {one.sop_uid: status for one, status in zip(parcels, expected, strict=True)}
    there = archive(statuses=statuses)
    outcomes = [outcome for one in parcels for outcome in send(there, [one])]
    assert {outcome.status: (outcome.delivered, outcome.permanent) for outcome in outcomes} == expected
    assert all(outcome.message for outcome in outcomes)
    assert there.received == [outcome.sop_uid for outcome in outcomes if outcome.delivered]


def test_after_a_temporary_failure_what_may_refer_to_the_object_is_kept_for_later(archive: Archive, parcel: MakeParcel) -> None:
    first, second, third = parcel(), parcel(), parcel()
    there = archive(statuses={second.sop_uid: 0xA700})
    assert [outcome.sop_uid for outcome in send(there, [first, second, third])] == [first.sop_uid, second.sop_uid]
    assert there.received == [first.sop_uid]


def test_one_original_that_is_to_be_tried_again_holds_up_no_other_and_several_in_a_row_end_the_attempt(archive: Archive, parcel: MakeParcel) -> None:
    parcels = [replace(parcel(), original=True) for _ in range(7)]
    there = archive(statuses={parcels[index].sop_uid: 0xA700 for index in (1, 3, 4, 5)})
    outcomes = send(there, parcels)
    assert [outcome.delivered for outcome in outcomes] == [True, False, True, False, False, False]
    assert there.received == [parcels[0].sop_uid, parcels[2].sop_uid]


def test_an_original_is_never_written_in_another_encoding(archive: Archive, parcel: MakeParcel) -> None:
    there = archive(transfer_syntaxes=frozenset({ImplicitVRLittleEndian}))
    (outcome,) = send(there, [replace(parcel(), original=True)])
    assert (outcome.delivered, outcome.permanent, outcome.unsupported) == (False, True, True) and there.received == []


def test_a_refused_class_is_permanent_for_that_object_and_the_others_go_on(archive: Archive, parcel: MakeParcel) -> None:
    there = archive(refused_classes=frozenset({MRImageStorage}))
    outcomes = send(there, [parcel(SOPClassUID=MRImageStorage), parcel()])
    assert [(outcome.delivered, outcome.permanent) for outcome in outcomes] == [(False, True), (True, False)]
    assert "MR Image Storage" in outcomes[0].message


def test_when_nothing_at_all_is_accepted_every_object_is_refused(archive: Archive, parcel: MakeParcel) -> None:
    outcomes = send(archive(refused_classes=frozenset({CTImageStorage})), [parcel(), parcel()])
    assert [(outcome.delivered, outcome.permanent) for outcome in outcomes] == [(False, True), (False, True)]


def test_an_encoding_that_is_refused_is_permanent_where_it_cannot_be_rewritten(archive: Archive, parcel: MakeParcel) -> None:
    image = make_ct()
    image.file_meta.TransferSyntaxUID = JPEGLSLossless
    image["PixelData"].VR = "OB"
    image.PixelData = b"\xfe\xff\x00\xe0\x00\x00\x00\x00\xfe\xff\x00\xe0\x04\x00\x00\x00\xff\xd8\xff\xd9"
    image["PixelData"].is_undefined_length = True
    there = archive(transfer_syntaxes=frozenset({ExplicitVRLittleEndian, ImplicitVRLittleEndian}))
    (outcome,) = send(there, [parcel(image)])
    assert (outcome.delivered, outcome.permanent) == (False, True)
    assert "JPEG-LS" in outcome.message


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_a_destination_of_the_default_encoding_gets_the_object_rewritten(archive: Archive, parcel: MakeParcel, syntax: str) -> None:
    there = archive(transfer_syntaxes=frozenset({ImplicitVRLittleEndian}))
    image = make_ct()
    image.file_meta.TransferSyntaxUID = syntax
    one = parcel(image)
    (outcome,) = send(there, [one])
    assert outcome.delivered
    kept = dcmread(there.path_of(one.sop_uid))
    assert kept.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    assert kept == dcmread(one.path)


def test_a_destination_that_is_off_is_a_temporary_failure_that_names_it(parcel: MakeParcel) -> None:
    port = free_port()
    with pytest.raises(TemporaryFailure, match=rf"ARCHIVE at 127\.0\.0\.1:{port}.*cannot be reached"):
        send(port, [parcel()])


def test_an_address_that_does_not_resolve_is_a_temporary_failure(parcel: MakeParcel) -> None:
    destination = DicomDestination.model_validate({"kind": "dicom", "ae_title": "ARCHIVE", "address": "no.such.host.invalid", "port": 104})
    with pytest.raises(TemporaryFailure, match=r"no\.such\.host\.invalid"):
        cstore.deliver(destination, [parcel()], "PACS_NODE", lambda outcome: None, QUICK)


@pytest.mark.parametrize(("codes", "word"), [((1, 1, 7), "Called AE title"), ((1, 1, 3), "Calling AE title"), ((2, 3, 2), "Local limit")])
def test_a_rejected_association_is_temporary_and_says_why(archive: Archive, parcel: MakeParcel, codes: tuple[int, int, int], word: str) -> None:
    with pytest.raises(TemporaryFailure, match=f"(?i)rejected.*{word}"):
        send(archive(rejection=codes), [parcel()])


def test_an_abort_between_objects_leaves_the_outcomes_so_far(archive: Archive, parcel: MakeParcel) -> None:
    parcels = [parcel(), parcel(), parcel()]
    there = archive(abort=frozenset({parcels[1].sop_uid}))
    outcomes: list[Outcome] = []
    with pytest.raises(TemporaryFailure, match=parcels[1].sop_uid):
        cstore.deliver(destination_at(there.port), parcels, "PACS_NODE", outcomes.append, QUICK)
    assert [outcome.sop_uid for outcome in outcomes] == [parcels[0].sop_uid]


def test_a_destination_that_hangs_is_a_temporary_failure(archive: Archive, parcel: MakeParcel) -> None:
    one = parcel()
    with pytest.raises(TemporaryFailure, match="no answer"):
        send(archive(hang=frozenset({one.sop_uid})), [one], QUICK)


def test_something_that_listens_and_says_nothing_is_a_temporary_failure(parcel: MakeParcel) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute, pytest.raises(TemporaryFailure):
        send(mute.getsockname()[1], [parcel()], Timeouts(1.0, 0.5, 1.0))


def test_a_file_that_is_gone_damaged_or_another_object_is_permanent_and_the_others_go_on(archive: Archive, parcel: MakeParcel) -> None:
    gone, damaged, other, good = parcel(), parcel(), parcel(), parcel()
    gone.path.unlink()
    damaged.path.write_bytes(b"no DICOM")
    other.path.write_bytes(parcel().path.read_bytes())
    there = archive()
    outcomes = send(there, [gone, damaged, other, good])
    assert [(outcome.delivered, outcome.permanent) for outcome in outcomes] == [(False, True)] * 3 + [(True, False)]
    assert there.received == [good.sop_uid]


def test_more_kinds_of_objects_than_one_association_can_name_go_over_several(archive: Archive, parcel: MakeParcel) -> None:
    there = archive()
    parcels = [parcel(SOPClassUID=sop_class) for sop_class in list(STORAGE_CLASSES)[:70]]  # two contexts each
    outcomes = send(there, parcels)
    assert [outcome.delivered for outcome in outcomes] == [True] * 70
    assert there.received == [one.sop_uid for one in parcels]


# --- asking without sending --------------------------------------------------------------------------------------------


def test_a_probe_tells_which_classes_would_be_accepted(archive: Archive) -> None:
    there = archive(refused_classes=frozenset({MRImageStorage}))
    found = probe(destination_at(there.port), "PACS_NODE", [CTImageStorage, MRImageStorage], QUICK)
    assert (found.reachable, found.problem, found.accepted) == (True, "", frozenset({CTImageStorage}))


def test_a_probe_of_a_destination_that_is_off_says_so() -> None:
    found = probe(destination_at(free_port()), "PACS_NODE", [CTImageStorage], QUICK)
    assert not found.reachable and "cannot be reached" in found.problem and found.accepted == frozenset()


def test_a_destination_without_verification_is_reachable_with_a_remark(archive: Archive) -> None:
    there = archive(refused_classes=frozenset({"1.2.840.10008.1.1"}))
    found = probe(destination_at(there.port), "PACS_NODE", [CTImageStorage], QUICK)
    assert found.reachable and "Verification" in found.problem and found.accepted == {CTImageStorage}


# --- kinds -------------------------------------------------------------------------------------------------------------


def test_every_kind_of_destination_has_a_module_that_delivers() -> None:
    assert set(DESTINATIONS) == {"dicom", "stow", "folder"}
    assert all(callable(module.deliver) for module in DESTINATIONS.values())


def test_which_classes_are_accepted_is_told_of_results_and_of_what_is_asked_for_beside_them(archive: Archive, parcel: MakeParcel) -> None:
    there, told = archive(refused_classes=frozenset({MRImageStorage})), list[object]()
    destination, pet, mesh = destination_at(there.port), "1.2.840.10008.5.1.4.1.1.128", "1.2.840.10008.5.1.4.1.1.68.1"
    parcels = [parcel(), parcel(SOPClassUID=MRImageStorage)]
    asking = cstore.Contexts(frozenset({pet}), told.append)
    deliver(destination, parcels, "PACS_NODE", lambda outcome: None, contexts=asking)
    assert told == [{CTImageStorage: True, MRImageStorage: False, pet: True}] and there.received == [parcels[0].sop_uid]
    del told[:]
    cstore.deliver(
        destination,
        [replace(one, original=True) for one in parcels],
        "PACS_NODE",
        lambda outcome: None,
        contexts=cstore.Contexts(frozenset({mesh}), told.append),
    )
    assert told == [{}]  # how originals are encoded says nothing of results


def test_an_archive_that_refuses_everything_in_an_association_says_nothing_of_kinds(archive: Archive, parcel: MakeParcel) -> None:
    there, told = archive(refused_classes=frozenset({CTImageStorage})), list[object]()
    deliver(destination_at(there.port), [parcel()], "PACS_NODE", lambda outcome: None, contexts=cstore.Contexts(frozenset(), told.append))
    assert told == []


def test_the_kind_of_the_destination_decides(archive: Archive, parcel: MakeParcel) -> None:
    outcomes: list[Outcome] = []
    deliver(destination_at(archive().port), [parcel()], "PACS_NODE", outcomes.append)
    assert [outcome.delivered for outcome in outcomes] == [True]


# --- other makers' programs --------------------------------------------------------------------------------------------


@pytest.mark.peers
def test_storescp_keeps_what_is_delivered_byte_for_byte(tmp_path: Path) -> None:
    program, port, folder = tool_path("storescp"), free_port(), tmp_path / "kept"
    folder.mkdir()
    files = sorted(data_set("acrin-nsclc-fdg-pet-042").rglob("*.dcm"))[:3]  # JPEG-LS
    parcels = []
    for path in files:
        meta = dcmread(path, stop_before_pixels=True).file_meta
        parcels.append(Parcel(str(meta.MediaStorageSOPInstanceUID), str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID), path))
    with subprocess.Popen([program, "+xa", "-B", "-od", str(folder), str(port)]) as process:
        try:
            wait_until(lambda: probe(destination_at(port), "PACS_NODE", [], QUICK).reachable)
            outcomes = send(port, parcels)
        finally:
            process.terminate()
    assert [outcome.delivered for outcome in outcomes] == [True] * 3
    assert sorted(dataset_bytes(path) for path in folder.iterdir()) == sorted(dataset_bytes(path) for path in files)
