"""Messages cut into PDUs in every way, right and wrong, by hand: both data paths have to take the same."""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pacs_node.reception.files import Bytes, FileLayer
from pacs_node.reception.listener import Timeouts
from tests.reception.peers import Running, wait_until
from tests.reception.raw_peer import (
    ABORT,
    ABORTED,
    COMMAND,
    DATASET,
    LAST,
    NO_DATASET,
    P_DATA,
    RELEASE,
    RELEASE_RP,
    RawPeer,
    c_cancel,
    c_echo,
    c_store,
    command_set,
    dataset,
    message,
    pdu,
    pdv,
    uid,
    us,
)
from tests.reception.test_listener import dataset_bytes_of

INSTANCE = "1.2.3.4.5"
BODY = dataset(INSTANCE, random.Random(0).randbytes(300_000))


def contents(receiver: Running) -> list[bytes]:
    return [dataset_bytes_of(arrival.path) for arrival in receiver.arrivals()]


def nothing_is_left_of_it(receiver: Running) -> bool:
    return not [path for path in receiver.spool.new.rglob("*") if path.suffix in (".dcm", ".part")]


# --- whole messages, cut in odd ways ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 4096, 65_536, 262_144, 299_999, 1 << 20])
def test_fragments_of_any_size_arrive_byte_for_byte(receiver: Running, size: int) -> None:
    body = BODY if size > 100 else dataset(INSTANCE, bytes(range(256)))
    peer = RawPeer(receiver.port)
    peer.send(message(1, c_store(7, INSTANCE), body, size))
    assert peer.answer() == (1, 7, 0x0000)
    peer.release()
    assert contents(receiver) == [body]


@pytest.mark.parametrize("path", ["fast"])
def test_one_pdu_may_hold_command_and_data_and_the_next_message_too(receiver: Running) -> None:
    """pynetdicom drops what stands behind the end of a message in the same PDU."""
    one, two, three = (dataset(f"1.2.{number}") for number in (1, 2, 3))
    peer = RawPeer(receiver.port)
    peer.send(
        pdu(pdv(1, COMMAND | LAST, c_store(1, "1.2.1")), pdv(1, 0, one[:100]), pdv(1, LAST, one[100:]), pdv(1, COMMAND, c_store(2, "1.2.2")[:20])),
        pdu(pdv(1, COMMAND | LAST, c_store(2, "1.2.2")[20:]), pdv(1, 0, b""), pdv(1, 0, two), pdv(1, LAST, b"")),
        pdu(),
        pdu(pdv(1, COMMAND | LAST, c_store(3, "1.2.3")), pdv(1, LAST, three)),
    )
    assert [peer.answer() for _ in range(3)] == [(1, number, 0x0000) for number in (1, 2, 3)]
    peer.release()
    assert contents(receiver) == [one, two, three]


@pytest.mark.parametrize("size", [1, 3, 64])
def test_bytes_that_trickle_in_are_put_together(receiver: Running, size: int) -> None:
    body, peer = dataset(INSTANCE), RawPeer(receiver.port)
    stream = message(1, c_store(1, INSTANCE), body, 200) + RELEASE
    for start in range(0, len(stream), size):
        peer.send(stream[start : start + size])
        if start % (40 * size) == 0:
            time.sleep(0.002)
    assert peer.answer() == (1, 1, 0x0000)
    assert peer.read_pdu()[0] == RELEASE_RP
    assert contents(receiver) == [body]


def test_messages_that_do_not_await_each_other_are_answered_in_their_order(receiver: Running) -> None:
    """Instances, echoes and a cancel that nothing answers, then the release, in one breath."""
    stream, expected = [], []
    for number in range(1, 13):
        if number % 4 == 0:
            stream.append(message(3, c_echo(number)))
            expected.append((3, number, 0x0000))
        else:
            stream.append(message(1, c_store(number, f"1.2.{number}"), dataset(f"1.2.{number}"), 300))
            expected.append((1, number, 0x0000))
        stream.append(message(1, c_cancel(number)))
    peer = RawPeer(receiver.port)
    peer.send(*stream)
    assert [peer.answer() for _ in expected] == expected
    peer.release()
    end = receiver.the_end()
    assert (end.released, end.stored, end.refused) == (True, 9, 0)


def test_a_release_right_behind_the_last_fragment_finds_everything_answered(receiver: Running) -> None:
    peer = RawPeer(receiver.port)
    peer.send(message(1, c_store(1, INSTANCE), BODY, 10_000), RELEASE)
    assert peer.answer() == (1, 1, 0x0000)
    assert peer.read_pdu()[0] == RELEASE_RP
    end = receiver.the_end()
    assert (end.released, end.stored) == (True, 1)


def test_each_context_keeps_its_encoding(receiver: Running) -> None:
    from pydicom import dcmread

    implicit = b"".join(
        group.to_bytes(2, "little") + tag.to_bytes(2, "little") + len(value).to_bytes(4, "little") + value
        for group, tag, value in ((8, 0x16, b"1.2.840.10008.5.1.4.1.1.2\0"), (8, 0x18, b"1.2.6\0"))
    )
    peer = RawPeer(receiver.port)
    peer.send(message(5, c_store(1, "1.2.6"), implicit), message(1, c_store(2, "1.2.7"), dataset("1.2.7")))
    assert [peer.answer(), peer.answer()] == [(5, 1, 0x0000), (1, 2, 0x0000)]
    peer.release()
    syntaxes = [str(dcmread(arrival.path).file_meta.TransferSyntaxUID) for arrival in receiver.arrivals()]
    assert syntaxes == ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"]


def test_128_contexts_with_one_encoding_each_take_an_instance_each(receiver: Running) -> None:
    from pacs_node.dicom.transfer_syntaxes import TRANSFER_SYNTAXES

    syntaxes = [syntax for syntax in TRANSFER_SYNTAXES if syntax not in ("1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")]
    contexts = list(
        itertools.islice(itertools.cycle([("1.2.840.10008.5.1.4.1.1.2", syntax) for syntax in syntaxes if syntax.startswith("1.2.840.10008.1.2.4")]), 128)
    )
    peer = RawPeer(receiver.port, contexts=contexts)
    for number in range(128):
        peer.send(message(2 * number + 1, c_store(number + 1, f"1.2.{number}"), dataset(f"1.2.{number}")))
        assert peer.answer() == (2 * number + 1, number + 1, 0x0000)
    peer.release()
    assert receiver.the_end().stored == 128


@pytest.mark.parametrize("max_pdu", [0, 32, 64, 131_072])
def test_a_response_keeps_to_the_length_that_the_peer_takes(receiver: Running, max_pdu: int) -> None:
    peer = RawPeer(receiver.port, max_pdu=max_pdu)
    assert peer.store(INSTANCE) == 0x0000
    peer.send(message(1, c_store(2, INSTANCE), dataset(INSTANCE)))
    kind, body = peer.read_pdu()
    assert kind == P_DATA and (max_pdu == 0 or len(body) <= max_pdu)


# --- datasets that are none ------------------------------------------------------------------------------------------------


def test_a_command_without_a_dataset_is_refused_and_the_association_goes_on(receiver: Running) -> None:
    peer = RawPeer(receiver.port)
    peer.send(message(1, c_store(1, INSTANCE, dataset_type=NO_DATASET)))
    assert peer.answer() == (1, 1, 0xC000)
    assert peer.store(INSTANCE, 2) == 0x0000
    peer.release()
    assert len(receiver.spool.quarantined()) == 1


def test_an_empty_dataset_is_refused_and_the_association_goes_on(receiver: Running) -> None:
    peer = RawPeer(receiver.port)
    peer.send(message(1, c_store(1, INSTANCE), b""))
    assert peer.answer() == (1, 1, 0xC000)
    assert peer.store(INSTANCE, 2) == 0x0000
    peer.release()


@pytest.mark.parametrize(("instance", "sop_class"), [("", "1.2.840.10008.5.1.4.1.1.2"), ("1.2.3", ""), ("", "")])
def test_an_object_that_says_no_more_than_its_command_what_it_is_is_refused(receiver: Running, instance: str, sop_class: str) -> None:
    peer = RawPeer(receiver.port)
    peer.send(message(1, c_store(1, instance, sop_class), dataset(instance, sop_class=sop_class)))
    assert peer.answer() == (1, 1, 0xC000)
    peer.release()
    assert contents(receiver) == [] and len(receiver.spool.quarantined()) == 1


@pytest.mark.parametrize("cut", [-100, -1, 1], ids=["shorter", "one byte short", "longer"])
def test_a_dataset_that_is_not_as_long_as_its_elements_say_is_kept_as_it_came(receiver: Running, cut: int) -> None:
    body = BODY[:cut] if cut < 0 else BODY + bytes(cut)
    peer = RawPeer(receiver.port)
    peer.send(message(1, c_store(1, INSTANCE), body, 16_000))
    assert peer.answer() == (1, 1, 0x0000)
    peer.release()
    assert contents(receiver) == [body]


def test_the_two_uids_may_be_spread_over_fragments(receiver: Running) -> None:
    body = dataset(INSTANCE)
    peer = RawPeer(receiver.port)
    peer.send(message(1, c_store(1, INSTANCE), body, 5), message(1, c_store(2, "1.2.9"), body, 5))
    assert [peer.answer()[2], peer.answer()[2]] == [0x0000, 0xC000]
    peer.release()


def test_a_command_that_is_not_written_plainly_is_read_by_pynetdicom(receiver: Running) -> None:
    """A private element, and one that stands out of its order: legal or not, such a command was never refused."""
    odd = command_set(uid(0x0002, "1.2.840.10008.5.1.4.1.1.2"), us(0x0110, 9), us(0x0100, 1), us(0x0700, 0), us(0x0800, DATASET), uid(0x1000, INSTANCE))
    body, peer = dataset(INSTANCE), RawPeer(receiver.port)
    peer.send(message(1, odd, body, 100))
    assert peer.answer() == (1, 9, 0x0000)
    assert peer.store("1.2.3", 10) == 0x0000
    peer.release()
    assert contents(receiver) == [body, dataset("1.2.3")]


# --- what breaks the rules -------------------------------------------------------------------------------------------------

STORE = pdu(pdv(1, COMMAND | LAST, c_store(1, INSTANCE)))
WRONG = {
    "data before a command": pdu(pdv(1, LAST, b"data")),
    "a context that was not accepted": message(99, c_store(1, INSTANCE), dataset(INSTANCE)),
    "a value longer than its PDU": STORE + pdu(b"\0\0\xff\xff\x01\x00" + bytes(100)),
    "a value of no length": STORE + pdu(b"\0\0\0\0\x01\x00" + bytes(100)),
    "a value of one byte": STORE + pdu(b"\0\0\0\1\x01" + pdv(1, LAST, bytes(10))),
    "an unknown PDU": STORE + b"\x0b\0\0\0\0\x04" + bytes(4),
    "an association request": STORE + b"\x01\0\0\0\0\x10" + bytes(16),
    "a longer PDU than announced": STORE + pdu(pdv(1, LAST, bytes(2 << 20))),
    "a PDU of 4 GiB": STORE + pdu(length=0xFFFFFFFF),
    "a command that cannot be read": message(1, b"\xff" * 40),
    "a command of an unknown kind": message(1, command_set(us(0x0100, 0x7777), us(0x0110, 1), us(0x0800, NO_DATASET))),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", WRONG)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # stock pynetdicom lets its thread die of some
def test_what_breaks_the_rules_ends_the_association_and_leaves_nothing(receiver: Running, what: str) -> None:
    peer, other = RawPeer(receiver.port), RawPeer(receiver.port)
    assert peer.store("1.2.1") == 0x0000
    with contextlib.suppress(ConnectionError):  # it ends before all is sent
        peer.send(WRONG[what])
    assert peer.is_aborted()
    end = receiver.the_end()
    assert (end.released, end.stored) == (False, 1)
    assert len(receiver.arrivals()) == 1 and not list(receiver.spool.new.rglob("*.part"))
    assert other.store("1.2.2") == 0x0000
    other.release()


FAST_ONLY = {
    "a command within the data": STORE + pdu(pdv(1, 0, b"data"), pdv(1, COMMAND | LAST, c_store(2, INSTANCE))),
    "data on another context": STORE + pdu(pdv(5, LAST, dataset(INSTANCE))),
    "a command on two contexts": pdu(pdv(1, COMMAND, c_store(1, INSTANCE)[:9]), pdv(5, COMMAND | LAST, c_store(1, INSTANCE)[9:])),
    "bytes behind the last value": STORE + pdu(pdv(1, 0, dataset(INSTANCE)), b"\0\0\0"),
    "a command of 2 MiB": b"".join(pdu(pdv(1, COMMAND, bytes(1 << 19))) for _ in range(4)),
}


@pytest.mark.parametrize("what", FAST_ONLY)
@pytest.mark.parametrize("path", ["fast"])
def test_the_fast_path_is_aborted_by_what_pynetdicom_overlooks(receiver: Running, what: str) -> None:
    """pynetdicom stores such an object under an encoding that is a guess, or collects without end."""
    peer = RawPeer(receiver.port)
    assert peer.store("1.2.1") == 0x0000
    peer.send(FAST_ONLY[what])
    assert peer.read_pdu()[0] == ABORTED
    assert not receiver.the_end().released and len(receiver.arrivals()) == 1


@pytest.mark.parametrize("path", ["fast"])
def test_the_data_of_other_commands_is_not_collected_without_end(receiver: Running) -> None:
    find = command_set(uid(0x0002, "1.2.840.10008.5.1.4.1.2.2.1"), us(0x0100, 0x0020), us(0x0110, 1), us(0x0700, 0), us(0x0800, DATASET))
    peer = RawPeer(receiver.port)
    with contextlib.suppress(ConnectionError):
        peer.send(pdu(pdv(1, COMMAND | LAST, find)), *(pdu(pdv(1, 0, bytes(1 << 19))) for _ in range(40)))
    assert peer.is_aborted()


# --- ends in the middle ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [0, 5, 20, 40_000, 150_000])
@pytest.mark.parametrize("way", ["abort", "release", "lost", "reset"])
def test_an_object_that_breaks_off_leaves_nothing(receiver: Running, way: str, where: int) -> None:
    peer = RawPeer(receiver.port)
    whole = [pdu(pdv(1, COMMAND | LAST, c_store(1, INSTANCE)))] + [pdu(pdv(1, 0, BODY[start : start + 20_000])) for start in range(0, 200_000, 20_000)]
    if way in ("abort", "release"):
        peer.send(*whole[: 1 + where // 20_000], ABORT if way == "abort" else RELEASE)
    else:
        peer.send(b"".join(whole)[:where])
    if way == "reset":
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    if way != "release":
        peer.socket.close()
    wait_until(lambda: receiver.slots == [0])
    wait_until(lambda: nothing_is_left_of_it(receiver))
    assert receiver.ends() == [] and receiver.arrivals() == []
    peer.socket.close()


@pytest.mark.parametrize("where", ["in a PDU", "between two"])
def test_a_peer_that_stops_in_the_middle_of_an_object_is_let_go(start: Callable[..., Running], where: str) -> None:
    receiver = start(timeouts=Timeouts(5.0, 0.3, 0.6))
    peer = RawPeer(receiver.port)
    peer.send(STORE, pdu(pdv(1, 0, BODY[:50_000])))
    if where == "in a PDU":
        peer.send(pdu(pdv(1, 0, BODY[50_000:90_000]))[:-1])
    assert peer.is_aborted()
    wait_until(lambda: receiver.slots == [0])
    wait_until(lambda: nothing_is_left_of_it(receiver))


def test_an_association_at_rest_lives_on(start: Callable[..., Running]) -> None:
    receiver = start(timeouts=Timeouts(0.3, 0.3, 20.0))
    peer = RawPeer(receiver.port)
    assert peer.store("1.2.1") == 0x0000
    time.sleep(0.8)  # more than a peer gets in the middle of a PDU
    assert peer.store("1.2.2", 2) == 0x0000
    peer.release()


def test_a_stopping_receiver_aborts_an_object_that_does_not_go_on(start: Callable[..., Running]) -> None:
    receiver = start(drain=0.2)
    peer = RawPeer(receiver.port)
    peer.send(STORE, pdu(pdv(1, 0, BODY[:50_000])))
    wait_until(lambda: receiver.slots == [1])
    receiver.stop.set()
    assert peer.is_aborted()
    receiver.thread.join(10)
    assert not receiver.thread.is_alive() and nothing_is_left_of_it(receiver)


# --- a disk that fills up --------------------------------------------------------------------------------------------------


def test_a_disk_that_fills_up_within_an_object_is_answered_at_its_end(receiver: Running, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """What comes after is read and dropped; the association goes on."""
    peer = RawPeer(receiver.port)
    written = itertools.count()
    enough = 3 if path == "fast" else 0  # the stock path writes an object in one piece

    def full(self: FileLayer, descriptor: int, part: Bytes) -> None:
        if next(written) > enough:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(FileLayer, "write", full)
        peer.send(message(1, c_store(1, INSTANCE), BODY, 10_000))
        assert peer.answer() == (1, 1, 0xA700)
    assert nothing_is_left_of_it(receiver)
    assert peer.store("1.2.3", 2) == 0x0000
    peer.release()
    end = receiver.the_end()
    assert (end.stored, end.refused) == (1, 1)
    assert [path for path in receiver.spool.new.parent.parent.rglob("*.part") if isinstance(path, Path)] == []
