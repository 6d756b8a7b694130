"""The data paths under TLS: bytes come in records, and some wait where the kernel does not know of them."""

from __future__ import annotations

import random
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pacs_node.reception.listener import Timeouts
from tests.certificates import Authority
from tests.reception.peers import Running, dataset_bytes, make_ct, save, wait_until
from tests.reception.raw_peer import COMMAND, LAST, RELEASE, RELEASE_RP, RawPeer, c_store, dataset, message, pdu, pdv
from tests.reception.test_listener import dataset_bytes_of

Tool = Callable[[str], str]
INSTANCE = "1.2.3.4.5"
BODY = dataset(INSTANCE, random.Random(1).randbytes(400_001))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory, tool: Tool) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), tool("openssl"))


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def client(request: pytest.FixtureRequest, authority: Authority) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.file))
    context.check_hostname = False
    context.minimum_version = context.maximum_version = request.param
    return context


@pytest.fixture(scope="module")
def server(authority: Authority) -> ssl.SSLContext:
    own = authority.sign("receiver")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.certificate, own.key)
    return context


@pytest.mark.parametrize("size", [1000, 16_384, 100_000, 1 << 20])
def test_an_object_arrives_byte_for_byte(start: Callable[..., Running], server: ssl.SSLContext, client: ssl.SSLContext, size: int) -> None:
    receiver = start(tls=server)
    peer = RawPeer(receiver.port, client)
    for number in (1, 2):
        peer.send(message(1, c_store(number, INSTANCE), BODY, size))
        assert peer.answer() == (1, number, 0x0000)
    peer.send(RELEASE)
    assert peer.read_pdu()[0] == RELEASE_RP
    assert [dataset_bytes_of(arrival.path) for arrival in receiver.arrivals()] == [BODY, BODY]
    assert receiver.the_end().released


def test_messages_that_came_in_one_record_are_all_served(start: Callable[..., Running], server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    """The second and third wait decrypted in the TLS layer, where no poll finds them."""
    receiver = start(tls=server)
    peer = RawPeer(receiver.port, client)
    peer.send(b"".join(message(1, c_store(number, INSTANCE), dataset(INSTANCE)) for number in (1, 2, 3)))
    assert [peer.answer()[1] for _ in range(3)] == [1, 2, 3]
    peer.release()


def test_a_record_that_brings_no_data_ends_nothing(start: Callable[..., Running], server: ssl.SSLContext, authority: Authority) -> None:
    """Half a record is readable for the kernel and brings nothing: whoever waited for its data would let a peer at rest go."""
    receiver = start(tls=server, timeouts=Timeouts(5.0, 0.4, 20.0))
    context = ssl.create_default_context(cafile=str(authority.file))
    context.check_hostname = False
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    peer = _ByHand(receiver.port, context, incoming, outgoing)
    peer.tls.write(message(1, c_store(1, INSTANCE), dataset(INSTANCE)))
    record = outgoing.read()
    peer.socket.sendall(record[:10])
    time.sleep(1.0)  # more than a peer gets in the middle of a PDU
    peer.socket.sendall(record[10:])
    wait_until(lambda: len(receiver.arrivals()) == 1)


class _ByHand:
    """An association over TLS whose records the test sends itself."""

    def __init__(self, port: int, context: ssl.SSLContext, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> None:
        from tests.reception.raw_peer import association_request

        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        RawPeer.opened.append(self)  # type: ignore[arg-type]
        self.tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.socket.sendall(outgoing.read())
                incoming.write(self.socket.recv(65536))
        self.tls.write(association_request())
        self.socket.sendall(outgoing.read())
        while True:
            incoming.write(self.socket.recv(65536))
            try:
                assert self.tls.read(65536)[0] == 0x02
                return
            except ssl.SSLWantReadError:
                continue


@pytest.mark.parametrize("opening", [b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n", b"\x01\x00\x00\x00\x00\x10" + bytes(16)])
def test_what_does_not_speak_tls_is_cut_off_and_holds_nobody_up(
    start: Callable[..., Running], server: ssl.SSLContext, client: ssl.SSLContext, opening: bytes
) -> None:
    receiver = start(tls=server, timeouts=Timeouts(0.5, 0.5, 5.0))
    with socket.create_connection(("127.0.0.1", receiver.port), timeout=20) as silent:
        silent.sendall(opening)
        peer = RawPeer(receiver.port, client)
        assert peer.store(INSTANCE) == 0x0000
        peer.release()
        while True:
            try:
                if not silent.recv(4096):
                    break
            except ConnectionError:
                break
    wait_until(lambda: receiver.slots == [0])


def test_a_peer_that_is_lost_in_the_middle_leaves_nothing(start: Callable[..., Running], server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    receiver = start(tls=server)
    peer = RawPeer(receiver.port, client)
    peer.send(pdu(pdv(1, COMMAND | LAST, c_store(1, INSTANCE))), pdu(pdv(1, 0, BODY[:70_000])))
    peer.socket.close()
    wait_until(lambda: receiver.slots == [0])
    wait_until(lambda: not [path for path in receiver.spool.new.rglob("*") if path.is_file()])


@pytest.mark.peers
def test_storescu_delivers_over_tls(start: Callable[..., Running], server: ssl.SSLContext, authority: Authority, tool: Tool, tmp_path: Path) -> None:
    import subprocess

    receiver = start(tls=server)
    paths = [save(make_ct(512), tmp_path / f"{number}.dcm") for number in range(3)]
    arguments = [tool("storescu"), "+tla", "+cf", authority.file, "-aec", "PACS_NODE", "localhost", receiver.port, *paths]
    done = subprocess.run([str(argument) for argument in arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert [dataset_bytes(arrival.path) for arrival in receiver.arrivals()] == [dataset_bytes(path) for path in paths]
