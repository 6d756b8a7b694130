"""Who was refused is written down for the audit trail: counted, however many knock, and never in the way of those who may send."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pacs_node.reception.refusals import MOST_PEERS, WINDOW, Peer, Refusals
from pacs_node.records import Refusal
from tests.certificates import Authority
from tests.journey.support import Town
from tests.reception.peers import Running, wait_until

Written = list[tuple[Peer, int]]


class Moved:
    """A clock that is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def counted() -> tuple[Refusals, Written, Moved]:
    written: Written = []
    moved = Moved()
    return Refusals(lambda peer, count: written.append((peer, count)), moved), written, moved


def test_the_first_is_told_at_once_and_the_others_of_a_minute_together(counted: tuple[Refusals, Written, Moved]) -> None:
    refusals, written, moved = counted
    peer = Peer("EVE", "PACS_NODE", "10.0.0.9", "calling AE title not allowed")
    for _ in range(1000):
        refusals.note(peer)
    assert written == [(peer, 1)]
    refusals.tell()
    assert len(written) == 1
    moved.now += WINDOW
    refusals.tell()
    assert written == [(peer, 1), (peer, 999)]
    moved.now += WINDOW
    refusals.tell()
    assert len(written) == 2  # silence is not written down


def test_many_names_are_counted_together(counted: tuple[Refusals, Written, Moved]) -> None:
    refusals, written, moved = counted
    for number in range(500):
        refusals.note(Peer(f"EVE{number}"))
    assert len(written) == MOST_PEERS + 1
    assert written[-1] == (Peer(), 1)
    moved.now += WINDOW
    refusals.tell()
    assert sum(count for _, count in written) == 500


def test_at_the_end_nothing_is_left_uncounted(counted: tuple[Refusals, Written, Moved]) -> None:
    refusals, written, _ = counted
    for _ in range(3):
        refusals.note(Peer("EVE"))
    refusals.tell(everything=True)
    assert sum(count for _, count in written) == 3


def markers(receiver: Running) -> list[Refusal]:
    return [entry for entry in receiver.spool.arrivals(10_000) if isinstance(entry, Refusal)]


SENDERS = [{"ae_title": "CT1", "network": "127.0.0.1/32"}, {"ae_title": "CT2", "network": "10.1.0.0/16"}]


@pytest.mark.parametrize(
    ("calling", "called", "reason"),
    [
        ("EVE", "PACS_NODE", "calling AE title not allowed"),
        ("CT2", "PACS_NODE", "calling AE title not allowed from this address"),
        ("CT1", "ELSEWHERE", "called AE title not recognised"),
    ],
)
def test_a_peer_that_may_not_send_is_written_down(start: Callable[..., Running], calling: str, called: str, reason: str) -> None:
    receiver = start(senders=SENDERS)
    for _ in range(3):
        assert receiver.associate(calling_ae=calling, called_ae=called).is_rejected
    wait_until(lambda: markers(receiver))
    (marker,) = markers(receiver)
    assert (marker.sender.calling_ae, marker.sender.called_ae, marker.sender.address) == (calling, called, "127.0.0.1")
    assert (marker.reason, marker.count) == (reason, 1)
    receiver.stop.set()
    receiver.thread.join(20)
    assert sum(one.count for one in markers(receiver)) == 3


def test_who_is_asked_to_come_later_is_no_intruder(start: Callable[..., Running]) -> None:
    receiver = start(max_associations=1)
    open_one = receiver.associate()
    assert receiver.associate().is_rejected
    open_one.release()
    receiver.stop.set()
    receiver.thread.join(20)
    assert markers(receiver) == []


def test_a_peer_without_the_certificate_that_is_asked_for_is_written_down(
    start: Callable[..., Running], tmp_path: Path, tool: Callable[[str], str], path: str
) -> None:
    if path == "stock":
        pytest.skip("TLS comes before either path")
    authority = Authority(tmp_path / "pki", tool("openssl"))
    own = authority.sign("receiver")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.certificate, own.key)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.file)
    receiver = start(tls=context)
    client = ssl.create_default_context(cafile=str(authority.file))
    client.check_hostname = False
    with socket.create_connection(("127.0.0.1", receiver.port)) as plain, pytest.raises(OSError), client.wrap_socket(plain) as peer:
        peer.sendall(b"x")
        if not peer.recv(1):
            raise ConnectionError
    socket.create_connection(("127.0.0.1", receiver.port)).close()  # a probe is nothing to speak of
    wait_until(lambda: markers(receiver))
    (marker,) = markers(receiver)
    assert marker.reason == "TLS failed: peer did not return a certificate"
    assert marker.sender.address == "127.0.0.1"


def test_refused_peers_stand_in_the_audit_trail(tmp_path: Path) -> None:
    from pacs_node.database import audit
    from pacs_node.monitoring.audit_events import Family, event_of

    town = Town(tmp_path)
    town.house.spool.refusal("EVE", "PACS_NODE", "10.0.0.9", "calling AE title not allowed", 7)
    damaged = town.house.spool.refusal("", "", "", "", 1)
    damaged.write_text("{")
    town.gather()
    with town.house.store.read() as session:
        (entry,) = audit.every(session)
    assert (entry.action, entry.subject) == ("sender refused", "peer EVE")
    assert (entry.detail["address"], entry.detail["reason"], entry.detail["count"]) == ("10.0.0.9", "calling AE title not allowed", 7)
    assert datetime.fromisoformat(entry.detail["last"]) <= datetime.now(UTC)
    assert event_of(entry.action, entry.subject).family is Family.ALERT
    assert list(town.house.spool.new.glob("*/*.refused")) == []
    town.house.store.close()


def test_failed_logins_to_the_page_stand_in_the_audit_trail(tmp_path: Path) -> None:
    from pacs_node.database import audit
    from pacs_node.monitoring.audit_messages import Source, message
    from pacs_node.monitoring.logins import Logins
    from tests.monitoring.audit_structure import faults

    town = Town(tmp_path)
    logins = Logins(town.house.data)
    for _ in range(5):
        logins.failed("eve", "10.0.0.9")
    logins.tell()
    town.gather()
    with town.house.store.read() as session:
        entries = list(audit.every(session))
    assert [(entry.actor, entry.action, entry.detail["address"]) for entry in entries] == [("eve", "login failed", "10.0.0.9")] * 2
    assert sum(entry.detail["count"] for entry in entries) == 5
    assert [faults(message(entry, Source("n", "A", "h"))) for entry in entries] == [[], []]
    town.house.store.close()
