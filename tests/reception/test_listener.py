from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLSLossless, MRImageStorage, generate_uid
from pynetdicom import AllStoragePresentationContexts, build_context, build_role
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation

from pacs_node.delivery.requestor import Requestor
from pacs_node.dicom.transfer_syntaxes import TRANSFER_SYNTAXES
from pacs_node.errors import PortInUse, SpoolFull
from pacs_node.reception.listener import Timeouts, open_socket
from pacs_node.reception.spool import Spool
from tests.reception.peers import Running, data_set, dataset_bytes, make_ct, save, tool, wait_until


def send_raw(association: Association, sop_instance: str, content: bytes, sop_class: str = CTImageStorage) -> int:
    """Send any bytes as the dataset of a C-STORE, past everything that would make them better."""
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = sop_class, sop_instance
    request.DataSet = BytesIO(content)
    association._reactor_checkpoint.clear()
    wait_until(lambda: association._is_paused)
    association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
    _, response = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    assert response is not None, "no response"
    return int(response.Status)


# --- what is kept ------------------------------------------------------------------------------------------------------


def test_an_acknowledged_instance_lies_in_the_spool_byte_for_byte(receiver: Running, tmp_path: Path) -> None:
    path = save(make_ct(), tmp_path / "ct.dcm")
    association = receiver.associate()
    assert association.send_c_store(dcmread(path)).Status == 0x0000
    (arrival,) = receiver.arrivals()
    assert dataset_bytes(arrival.path) == dataset_bytes(path)
    assert (arrival.sender.calling_ae, arrival.sender.called_ae) == ("CT1", "PACS_NODE")
    assert arrival.sender.address == f"127.0.0.1:{association.requestor.port}"
    assert dcmread(arrival.path).file_meta.ReceivingPresentationAddress == f"dicom://127.0.0.1:{receiver.port}"
    association.release()
    end = receiver.the_end()
    assert (end.released, end.stored, end.refused, end.sender) == (True, 1, 0, arrival.sender)


@pytest.mark.parametrize("way", ["abort", "lost"])
def test_an_association_that_is_aborted_or_lost_ends_unreleased(receiver: Running, way: str) -> None:
    association = receiver.associate()
    assert association.send_c_store(make_ct()).Status == 0x0000
    if way == "abort":
        association.abort()
    else:
        association.dul.socket.socket.shutdown(socket.SHUT_RDWR)
    end = receiver.the_end()
    assert (end.released, end.stored) == (False, 1)


def test_two_associations_of_one_sender_are_told_apart(receiver: Running) -> None:
    for _ in range(2):
        association = receiver.associate()
        association.send_c_store(make_ct())
        association.release()
    wait_until(lambda: len(receiver.ends()) == 2)
    assert len({arrival.sender.association for arrival in receiver.arrivals()}) == 2
    assert {end.sender.association for end in receiver.ends()} == {arrival.sender.association for arrival in receiver.arrivals()}


def test_an_echo_is_answered_and_leaves_nothing_behind(receiver: Running) -> None:
    association = receiver.associate(("1.2.840.10008.1.1", [ImplicitVRLittleEndian]))
    assert association.send_c_echo().Status == 0x0000
    association.release()
    wait_until(lambda: receiver.slots == [0])
    assert receiver.spool.arrivals() == []


# --- what is refused ---------------------------------------------------------------------------------------------------


def test_an_object_that_is_not_what_its_command_says_is_quarantined_and_the_association_goes_on(receiver: Running, tmp_path: Path) -> None:
    content = dataset_bytes(save(image := make_ct(), tmp_path / "ct.dcm"))
    association = receiver.associate()
    assert send_raw(association, "1.2.3.4", content) == 0xC000
    assert send_raw(association, image.SOPInstanceUID, content, MRImageStorage) == 0xA900
    assert send_raw(association, image.SOPInstanceUID, content, "1.2.3.4.5.6") == 0xA900
    assert send_raw(association, image.SOPInstanceUID, content) == 0x0000
    association.release()
    end = receiver.the_end()
    assert (end.released, end.stored, end.refused) == (True, 1, 3)
    reasons = [kept.reason for kept in receiver.spool.quarantined()]
    assert ["Instance" in reason for reason in reasons] == [True, False, False]
    assert all(dataset_bytes(kept.path) == content for kept in receiver.spool.quarantined())
    assert {kept.sender for kept in receiver.spool.quarantined()} == {end.sender}


NESTED = b"\xfe\xff\x00\xe0\xff\xff\xff\xff\x08\x00\x05\x00SQ\x00\x00\xff\xff\xff\xff"
GARBAGE = {
    "text": b"this is text and no dataset at all" * 10,
    "one byte": b"\x08",
    "the class and no instance": b"\x08\x00\x16\x00UI\x1a\x001.2.840.10008.5.1.4.1.1.2\x00",
    "longer than there is": b"\x08\x00\x16\x00UI\xff\xff1.2.840",
    "all ones": b"\xff" * 4096,
    "nested 2000 deep": b"\x08\x00\x05\x00SQ\x00\x00\xff\xff\xff\xff" + NESTED * 2000,
    "html": b"<html>" + bytes(200_000),
}


def test_garbage_is_quarantined_and_the_association_goes_on(receiver: Running) -> None:
    association = receiver.associate()
    answers = {what: send_raw(association, "1.2.3.4", content) for what, content in GARBAGE.items()}
    assert answers == dict.fromkeys(GARBAGE, 0xC000)
    assert association.send_c_store(make_ct()).Status == 0x0000
    association.release()
    end = receiver.the_end()
    assert (end.released, end.stored, end.refused) == (True, 1, len(GARBAGE))
    kept = receiver.spool.quarantined()
    assert [dataset_bytes_of(one.path) for one in kept] == list(GARBAGE.values())
    assert all(one.reason for one in kept)


def dataset_bytes_of(path: Path) -> bytes:
    """Return what follows the file meta information by its length: the rest need not be a dataset."""
    content = path.read_bytes()
    return content[144 + struct.unpack("<I", content[140:144])[0] :]


def test_an_object_cut_off_behind_its_beginning_is_kept(receiver: Running, tmp_path: Path) -> None:
    """What follows the two UIDs is the core's business: the receiver keeps it."""
    content = dataset_bytes(save(image := make_ct(), tmp_path / "ct.dcm"))[:-100]
    association = receiver.associate()
    assert send_raw(association, image.SOPInstanceUID, content) == 0x0000
    association.release()
    assert receiver.the_end().stored == 1


@pytest.mark.parametrize("uid", ["../../../tmp/x", "1.2/../../3", "a" * 64, "1..2", "1.2.3\\4"])
def test_a_uid_with_path_characters_never_becomes_a_path(receiver: Running, uid: str) -> None:
    image = make_ct()
    content = b"\x08\x00\x16\x00UI\x1a\x00" + CTImageStorage.encode() + b"\0" + b"\x08\x00\x18\x00UI" + struct.pack("<H", len(uid) + len(uid) % 2)
    content += uid.encode() + b"\0" * (len(uid) % 2)
    association = receiver.associate()
    send_raw(association, uid, content)
    assert association.send_c_store(image).Status == 0x0000
    association.release()
    receiver.the_end()
    files = [path for path in receiver.spool.new.parent.parent.rglob("*") if path.is_file()]
    assert all(path.name.split("-")[0].isdigit() for path in files)


def test_when_the_reserve_is_reached_nothing_is_taken_and_it_recovers_by_itself(receiver: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    association = receiver.associate()
    with monkeypatch.context() as patch:
        patch.setattr(Spool, "room", lambda self, reserve: False)
        assert association.send_c_store(make_ct()).Status == 0xA700
        assert not receiver.associate().is_established
    assert association.send_c_store(make_ct()).Status == 0x0000
    association.release()
    end = receiver.the_end()
    assert (end.stored, end.refused) == (1, 1)


@pytest.mark.parametrize("fault", [SpoolFull(Path("spool"), "no space left"), RuntimeError("a fault of our own")])
def test_a_fault_of_our_own_is_answered_so_that_the_sender_keeps_the_object(receiver: Running, monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    association = receiver.associate()

    def fail(*_: object) -> Path:
        raise fault

    with monkeypatch.context() as patch:
        patch.setattr(Spool, "open", fail)
        assert association.send_c_store(make_ct()).Status == 0xA700
    assert association.send_c_store(make_ct()).Status == 0x0000
    association.release()


def test_a_fault_while_admitting_rejects_the_association_as_transient(receiver: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bool:
        raise RuntimeError("a fault of our own")

    with monkeypatch.context() as patch:
        patch.setattr(Spool, "room", fail)
        association = receiver.associate()
    assert association.is_rejected and association.acceptor.primitive.result == 2
    wait_until(lambda: receiver.slots == [0])


# --- admission ---------------------------------------------------------------------------------------------------------


def rejection(association: Association) -> tuple[int, int, int]:
    assert association.is_rejected
    answer = association.acceptor.primitive
    return answer.result, answer.result_source, answer.diagnostic


def test_wrong_titles_are_rejected_with_the_codes_of_the_standard(start: Callable[..., Running]) -> None:
    receiver = start(senders=[{"ae_title": "CT1", "network": "127.0.0.0/8"}, {"ae_title": "MR1", "network": "10.0.0.0/8"}])
    assert rejection(receiver.associate(called_ae="WRONG")) == (1, 1, 7)
    assert rejection(receiver.associate(calling_ae="STRANGER")) == (1, 1, 3)
    assert rejection(receiver.associate(calling_ae="MR1")) == (1, 1, 1)  # its title is right, its address is not
    second = receiver.associate(called_ae="SECOND")
    assert second.is_established
    second.release()


def test_one_association_too_many_is_rejected_as_transient_and_there_is_room_again_afterwards(start: Callable[..., Running]) -> None:
    receiver = start(max_associations=2)
    first, second = receiver.associate(), receiver.associate()
    assert receiver.slots == [2]
    assert rejection(receiver.associate()) == (2, 3, 2)
    first.release()
    wait_until(lambda: receiver.slots == [1])
    third = receiver.associate()
    assert third.is_established
    third.release()
    second.release()
    wait_until(lambda: receiver.slots == [0])


# --- negotiation -------------------------------------------------------------------------------------------------------


def test_128_contexts_with_every_transfer_syntax_are_all_accepted(receiver: Running) -> None:
    classes = [str(context.abstract_syntax) for context in AllStoragePresentationContexts][:128]
    association = receiver.associate(*[(sop_class, list(TRANSFER_SYNTAXES)[:40]) for sop_class in classes])
    assert len(association.accepted_contexts) == 128
    association.release()


def test_the_senders_first_choice_of_encoding_is_taken(receiver: Running) -> None:
    association = receiver.associate((CTImageStorage, [JPEGLSLossless, ExplicitVRLittleEndian]), (MRImageStorage, [ExplicitVRLittleEndian, JPEGLSLossless]))
    assert [context.transfer_syntax[0] for context in association.accepted_contexts] == [JPEGLSLossless, ExplicitVRLittleEndian]
    association.release()


def test_a_private_class_is_accepted_only_where_it_is_configured(start: Callable[..., Running]) -> None:
    private = "1.3.12.2.1107.5.9.1"
    contexts = ((CTImageStorage, [ExplicitVRLittleEndian]), (private, [ExplicitVRLittleEndian]))
    plain = start().associate(*contexts)
    assert [str(context.abstract_syntax) for context in plain.accepted_contexts] == [CTImageStorage]
    plain.release()
    receiver = start(private_sop_classes=[private])
    association = receiver.associate((private, [ExplicitVRLittleEndian]))
    assert association.send_c_store(make_ct(SOPClassUID=private)).Status == 0x0000
    association.release()
    assert receiver.the_end().stored == 1


def test_a_denied_class_is_not_accepted_and_the_others_are(start: Callable[..., Running]) -> None:
    receiver = start(denied_sop_classes=["EncapsulatedPDFStorage", MRImageStorage])
    pdf = "1.2.840.10008.5.1.4.1.1.104.1"
    association = receiver.associate(*((uid, [ExplicitVRLittleEndian]) for uid in (CTImageStorage, MRImageStorage, pdf)))
    assert [str(context.abstract_syntax) for context in association.accepted_contexts] == [CTImageStorage]
    assert association.send_c_store(make_ct()).Status == 0x0000
    association.release()


def test_a_retired_class_can_be_stored(receiver: Running) -> None:
    retired = "1.2.840.10008.5.1.4.1.1.6"
    association = receiver.associate((retired, [ExplicitVRLittleEndian]))
    assert association.send_c_store(make_ct(SOPClassUID=retired)).Status == 0x0000
    association.release()


def test_roles_and_extended_negotiation_do_not_confuse(receiver: Running) -> None:
    entity = Requestor("CT1", 20, 20, 20)
    extended = SOPClassExtendedNegotiation()
    extended.sop_class_uid, extended.service_class_application_information = CTImageStorage, b"\x02\x00\x00\x00\x00\x00"
    roles = [build_role(CTImageStorage, scu_role=True, scp_role=True), build_role(MRImageStorage, scu_role=False, scp_role=True)]
    contexts = [build_context(CTImageStorage, [ExplicitVRLittleEndian]), build_context(MRImageStorage, [ExplicitVRLittleEndian])]
    association = entity.associate("127.0.0.1", receiver.port, contexts, "PACS_NODE", ext_neg=[extended, *roles])
    (accepted,) = association.accepted_contexts  # to be sent images is not what a receiver is for
    assert accepted.abstract_syntax == CTImageStorage and accepted.as_scu and not accepted.as_scp
    assert association.send_c_store(make_ct()).Status == 0x0000
    association.release()


# --- hostile and slow peers --------------------------------------------------------------------------------------------


def connect(receiver: Running) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", receiver.port), timeout=20)
    connection.settimeout(20)
    return connection


def read_to_the_end(connection: socket.socket) -> bytes:
    found = b""
    try:
        while piece := connection.recv(4096):
            found += piece
    except ConnectionResetError:
        pass
    return found


@pytest.mark.parametrize(
    "opening",
    [
        b"GET / HTTP/1.1\r\nHost: node\r\n\r\n",
        b"\x01\x00\xff\xff\xff\xff",  # a request of 4 GiB
        b"\x04\x00\x00\x00\x00\x10" + bytes(16),  # data before an association
        b"\x07\x00\x00\x00\x00\x04\x00\x00\x00\x00",
        b"\x01\x00\x00\x00\x00\x10" + b"\xff" * 16,
        b"\x01\x00\x00\x00",
        b"",
    ],
    ids=["http", "4 GiB", "data first", "abort first", "broken request", "half a header", "nothing"],
)
def test_what_opens_no_association_is_cut_off_and_the_receiver_lives(start: Callable[..., Running], opening: bytes) -> None:
    receiver = start(timeouts=Timeouts(0.3, 0.3, 5.0))
    with connect(receiver) as connection:
        connection.sendall(opening)
        answer = read_to_the_end(connection)
    assert answer == b"" or answer[0] == 0x07
    association = receiver.associate()
    assert association.send_c_store(make_ct()).Status == 0x0000
    association.release()


def test_a_pdu_longer_than_announced_ends_the_association_before_it_is_read(receiver: Running) -> None:
    association = receiver.associate()
    assert association.send_c_store(make_ct()).Status == 0x0000
    association.dul.socket.socket.sendall(b"\x04\x00\xff\xff\xff\xff")
    end = receiver.the_end()
    assert (end.released, end.stored) == (False, 1)


def test_an_object_beyond_the_limit_harms_nothing_else(start: Callable[..., Running], path: str) -> None:
    """On the fast path its beginning goes to quarantine; in memory it would stand in the way, so there its association ends."""
    receiver = start(max_pdu=16384, max_object="100kB")
    association, other = receiver.associate(), receiver.associate()
    assert association.send_c_store(make_ct(128)).Status == 0x0000
    answer = association.send_c_store(make_ct(1024))
    if path == "fast":
        assert answer.Status == 0xC000
        (kept,) = receiver.spool.quarantined()
        assert "max_object" in kept.reason and len(dataset_bytes_of(kept.path)) == 100_000
        assert association.send_c_store(make_ct(128)).Status == 0x0000
        association.release()
    else:
        assert "Status" not in answer
    end = receiver.the_end()
    assert (end.released, end.stored, end.refused) == ((True, 2, 1) if path == "fast" else (False, 1, 0))
    assert other.send_c_store(make_ct()).Status == 0x0000
    other.release()


def test_a_sender_that_does_not_await_answers_gets_them_all(receiver: Running, tmp_path: Path) -> None:
    association = receiver.associate()
    association._reactor_checkpoint.clear()
    wait_until(lambda: association._is_paused)
    for number in range(30):
        request = C_STORE()
        request.MessageID, request.Priority = number + 1, 0
        image = make_ct()
        request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = CTImageStorage, image.SOPInstanceUID
        request.DataSet = BytesIO(dataset_bytes(save(image, tmp_path / "ct.dcm")))
        association.dimse.send_msg(request, 1)
    answers = [association.dimse.get_msg(block=True)[1] for _ in range(30)]
    assert [(answer.MessageIDBeingRespondedTo, answer.Status) for answer in answers] == [(number + 1, 0x0000) for number in range(30)]
    association._reactor_checkpoint.set()
    association.release()
    assert receiver.the_end().stored == 30


def test_a_peer_that_stops_in_the_middle_of_a_pdu_is_let_go(start: Callable[..., Running]) -> None:
    receiver = start(timeouts=Timeouts(5.0, 0.3, 20.0))
    association = receiver.associate()
    association.send_c_store(make_ct())
    association.dul.socket.socket.sendall(b"\x04\x00\x00\x00\x10\x00 and no more")
    assert not receiver.the_end().released


def test_a_silent_peer_is_let_go(start: Callable[..., Running]) -> None:
    receiver = start(timeouts=Timeouts(5.0, 5.0, 0.3))
    association = receiver.associate()
    association.send_c_store(make_ct())
    assert not receiver.the_end().released
    wait_until(lambda: receiver.slots == [0])


def test_connections_that_come_and_go_leave_no_thread_behind(receiver: Running) -> None:
    for _ in range(100):
        connect(receiver).close()
    wait_until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("AcceptorThread")])
    assert receiver.slots == [0]
    association = receiver.associate()
    assert association.is_established
    association.release()


def test_more_connections_than_the_limit_are_closed_at_once(start: Callable[..., Running]) -> None:
    receiver = start(max_associations=1)
    held = [connect(receiver) for _ in range(65)]
    with connect(receiver) as connection:
        assert read_to_the_end(connection) == b""
    for connection in held:
        connection.close()


# --- start and stop ----------------------------------------------------------------------------------------------------


def test_a_port_in_use_is_said_with_what_to_do() -> None:
    with open_socket("127.0.0.1", 0) as first, pytest.raises(PortInUse, match=r"node\.port"):
        open_socket("127.0.0.1", first.getsockname()[1])


def test_an_address_that_is_not_ours_cannot_be_listened_on() -> None:
    with pytest.raises(PortInUse, match=r"192\.0\.2\.1"):
        open_socket("192.0.2.1", 0)


def test_a_stopping_receiver_lets_associations_finish_and_aborts_those_that_do_not(start: Callable[..., Running]) -> None:
    patient, endless = start(drain=20.0), start(data=None, drain=0.2)
    finishing, hanging = patient.associate(), endless.associate()
    assert finishing.send_c_store(make_ct()).Status == hanging.send_c_store(make_ct()).Status == 0x0000
    patient.stop.set()
    endless.stop.set()
    assert finishing.send_c_store(make_ct()).Status == 0x0000
    finishing.release()
    patient.thread.join(10)
    endless.thread.join(10)
    assert not patient.thread.is_alive() and not endless.thread.is_alive()
    ends = {end.released: end.stored for end in patient.ends()}  # both write into one data folder
    assert ends == {True: 2, False: 1}


def test_a_receiver_that_stopped_accepts_nothing_and_the_socket_serves_the_next(start: Callable[..., Running]) -> None:
    receiver = start()
    receiver.stop.set()
    receiver.thread.join(10)
    with connect(receiver) as connection:  # the backlog takes it: the socket is its owner's
        connection.settimeout(0.3)
        connection.sendall(b"\x01")
        with pytest.raises(TimeoutError):
            connection.recv(1)


# --- other makers' programs --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.peers
@pytest.mark.parametrize("options", [[], ["-xs"], ["-xt"], ["-xv"], ["-xr"], ["-xe"], ["-xb"], ["-xi"], ["-R"]], ids=" ".join)
def test_storescu_delivers_with_each_proposal(receiver: Running, tmp_path: Path, options: list[str]) -> None:
    path = save(make_ct(), tmp_path / "ct.dcm")
    done = tool("storescu", "-v", *options, "-aec", "PACS_NODE", "127.0.0.1", receiver.port, path)
    assert done.returncode == 0, done.stderr
    assert receiver.the_end().stored == 1


@pytest.mark.peers
def test_real_images_sent_by_storescu_and_dcmsend_arrive_unchanged(receiver: Running) -> None:
    folder = data_set("ct-philips-headphantom-5mm")
    files = [path for path in sorted(folder.rglob("I*")) if path.is_file() and b"DICM" in path.read_bytes()[:132]][:6]
    originals = sorted(dataset_bytes(path) for path in files)
    for program, options in (("storescu", ["-xe"]), ("dcmsend", [])):
        done = tool(program, *options, "-aet", "SENDER", "-aec", "PACS_NODE", "127.0.0.1", receiver.port, *files)
        assert done.returncode == 0, done.stderr
        end = receiver.the_end()
        assert (end.released, end.stored, end.refused) == (True, len(files), 0)
        assert sorted(dataset_bytes(arrival.path) for arrival in receiver.arrivals()) == originals
        assert {arrival.sender for arrival in receiver.arrivals()} == {end.sender}
        assert end.sender.calling_ae == "SENDER"
        receiver.spool.forget(*receiver.arrivals(), end)


@pytest.mark.peers
def test_storescu_that_aborts_leaves_a_marker_that_says_so(receiver: Running, tmp_path: Path) -> None:
    done = tool("storescu", "--abort", "-aec", "PACS_NODE", "127.0.0.1", receiver.port, save(make_ct(), tmp_path / "ct.dcm"))
    assert done.returncode == 0, done.stderr
    end = receiver.the_end()
    assert (end.released, end.stored) == (False, 1)


@pytest.mark.peers
def test_echoscu_is_answered(receiver: Running) -> None:
    assert tool("echoscu", "-aec", "PACS_NODE", "127.0.0.1", receiver.port).returncode == 0
    assert tool("echoscu", "-aec", "OTHER", "127.0.0.1", receiver.port).returncode != 0


@pytest.mark.slow
def test_every_corner_case_file_leaves_the_association_alive(receiver: Running) -> None:
    from pydicom.errors import InvalidDicomError

    from pacs_node.dicom.file_meta import read_meta
    from pacs_node.errors import UnreadableObject

    sent = 0
    for path in sorted(data_set("pydicom-test-files").rglob("*")):
        if not path.is_file():
            continue
        try:
            meta = read_meta(path)
            sop_class, sop_uid, syntax = str(meta.MediaStorageSOPClassUID), str(meta.MediaStorageSOPInstanceUID), str(meta.TransferSyntaxUID)
            content = dataset_bytes(path)
        except (UnreadableObject, AttributeError, InvalidDicomError, OSError, ValueError, struct.error):
            continue
        if syntax not in TRANSFER_SYNTAXES or not sop_uid or not sop_class:
            continue
        association = receiver.associate((CTImageStorage, [syntax]))
        status = send_raw(association, sop_uid[:64], content, sop_class[:64])
        assert status in (0x0000, 0xC000, 0xA900), path
        assert send_raw(association, generate_uid(), b"garbage") == 0xC000
        association.release()
        sent += 1
    assert sent > 50
    wait_until(lambda: len(receiver.ends()) == sent)
    assert all(end.released for end in receiver.ends())
    assert receiver.thread.is_alive()
