"""TLS with dcmtk's programs on the other side: in over `storescu +tls`, out to `storescp +tls`."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from pacs_node.config import DicomDestination, Reception
from pacs_node.delivery import cstore
from pacs_node.delivery.cstore import Timeouts, probe
from pacs_node.dicom.tls import SUITES, server_context
from pacs_node.errors import TemporaryFailure
from pacs_node.reception import listener
from pacs_node.reception.listener import ReceiverConfig, open_socket, serve
from pacs_node.reception.spool import Spool
from pacs_node.records import Outcome
from tests.certificates import Authority, Pair
from tests.journey.support import ct_slice, ct_study
from tests.node.support import NodeProcess, free_port, wait_until
from tests.node.test_processes import assert_kept, write
from tests.reception.peers import NO_RESERVE, Running, dataset_bytes, make_ct, save

Tool = Callable[[str], str]
QUICK = Timeouts(connect=5.0, associate=5.0, response=10.0)
BY_AUTHORITY = "-rc"
NO_CERTIFICATE_NEEDED = "-ic"


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory, tool: Tool) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), tool("openssl"))


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory, tool: Tool) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"), tool("openssl"))


@pytest.fixture(scope="session")
def good(authority: Authority) -> Pair:
    return authority.sign("node")


# --- out -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def start_scp(tmp_path: Path, tool: Tool, authority: Authority) -> Iterator[Callable[..., int]]:
    """Give a function that starts a storescp with TLS and returns its port; what it stores is in ``tmp_path/stored``."""
    running: list[subprocess.Popen[bytes]] = []
    (tmp_path / "stored").mkdir()

    def start(pair: Pair | None, client: str = BY_AUTHORITY) -> int:
        port = free_port()
        tls = ["+tls", pair.key, pair.certificate, "+cf", authority.file, client] if pair else []
        line = [tool("storescp"), "-v", "+xa", "-od", tmp_path / "stored", *tls, port]
        log = tmp_path / f"storescp{port}.log"
        with log.open("wb") as output:
            running.append(subprocess.Popen([str(word) for word in line], stdout=output, stderr=output))
        wait_until(lambda: listens(port), "storescp listens")
        return port

    yield start
    for process in running:
        process.kill()
        process.wait()


def listens(port: int) -> bool:
    """Tell whether something listens on a port, without connecting: storescp would say so in its log."""
    return f"{port:04X} 00000000:0000 0A" in Path("/proc/net/tcp").read_text()


def place(port: int, address: str = "127.0.0.1", **tls: object) -> DicomDestination:
    return DicomDestination.model_validate({"kind": "dicom", "ae_title": "ARCHIVE", "address": address, "port": port, "tls": tls or None})


def deliver(destination: DicomDestination, tmp_path: Path) -> list[Outcome]:
    outcomes: list[Outcome] = []
    cstore.deliver(destination, write(tmp_path / "in", ct_study(3)), "PACS_NODE", outcomes.append, QUICK)
    return outcomes


@pytest.mark.peers
def test_results_go_out_to_a_destination_that_asks_for_our_certificate(start_scp: Callable[..., int], tmp_path: Path, authority: Authority, good: Pair) -> None:
    port = start_scp(authority.sign("archive"))
    destination = place(port, ca=str(authority.file), certificate=str(good.certificate), key=str(good.key))
    assert probe(destination, "PACS_NODE", (), QUICK).problem == ""
    assert [outcome.delivered for outcome in deliver(destination, tmp_path)] == [True, True, True]
    assert len(list((tmp_path / "stored").iterdir())) == 3


@pytest.mark.peers
def test_results_go_out_to_a_destination_that_asks_for_none(start_scp: Callable[..., int], tmp_path: Path, authority: Authority) -> None:
    port = start_scp(authority.sign("archive"), NO_CERTIFICATE_NEEDED)
    assert all(outcome.delivered for outcome in deliver(place(port, ca=str(authority.file)), tmp_path))


@pytest.mark.peers
def test_what_is_wrong_with_a_destinations_certificate_is_said_and_nothing_is_sent(
    start_scp: Callable[..., int], tmp_path: Path, authority: Authority, stranger: Authority
) -> None:
    ca = str(authority.file)
    cases: list[tuple[Pair, dict[str, object], str]] = [
        (authority.sign("old", days=-1), {"ca": ca}, "renewed there"),
        (stranger.sign("foreign"), {"ca": ca}, "name its authority in the destination's tls.ca"),
        (authority.sign("elsewhere", "elsewhere"), {"ca": ca}, "set the destination's tls.name"),
        (authority.sign("nameless", "nameless"), {"ca": ca}, "tls.check_name to false"),
        (authority.sign("archive"), {"ca": ca, "name": "pacs.example"}, "set the destination's tls.name"),
    ]
    for pair, tls, words in cases:
        with pytest.raises(TemporaryFailure, match=words):
            deliver(place(start_scp(pair, NO_CERTIFICATE_NEEDED), **tls), tmp_path)
    assert not list((tmp_path / "stored").iterdir())


@pytest.mark.peers
def test_names_in_certificates_can_be_given_or_passed_over(start_scp: Callable[..., int], tmp_path: Path, authority: Authority) -> None:
    elsewhere = start_scp(authority.sign("elsewhere", "elsewhere"), NO_CERTIFICATE_NEEDED)
    for tls in ({"name": "pacs.example"}, {"check_name": False}):
        assert all(outcome.delivered for outcome in deliver(place(elsewhere, ca=str(authority.file), **tls), tmp_path))
    nameless = start_scp(authority.sign("nameless", "nameless"), NO_CERTIFICATE_NEEDED)
    assert all(outcome.delivered for outcome in deliver(place(nameless, ca=str(authority.file), check_name=False), tmp_path))
    pinned = start_scp(authority.sign("pinned", "nameless", signer=None), NO_CERTIFICATE_NEEDED)
    assert all(outcome.delivered for outcome in deliver(place(pinned, ca=str(authority.folder / "pinned.pem"), check_name=False), tmp_path))


@pytest.mark.peers
def test_what_a_destination_does_not_like_about_us_is_said(
    start_scp: Callable[..., int], tmp_path: Path, authority: Authority, stranger: Authority, good: Pair
) -> None:
    port, ca = start_scp(authority.sign("archive")), str(authority.file)
    foreign = stranger.sign("foreign")
    for tls, words in [
        ({}, "certificate|handshake"),
        ({"certificate": str(foreign.certificate), "key": str(foreign.key)}, "does not know the authority|does not accept our certificate"),
    ]:
        with pytest.raises(TemporaryFailure, match=words):
            deliver(place(port, ca=ca, **tls), tmp_path)
    plain = start_scp(None)
    with pytest.raises(TemporaryFailure, match="speak TLS on this port"):
        deliver(place(plain, ca=ca), tmp_path)
    with pytest.raises(TemporaryFailure, match="cannot be reached, or broke off"):
        deliver(place(port), tmp_path)  # without TLS to a port that wants it
    gone = tmp_path / "gone.pem"
    with pytest.raises(TemporaryFailure, match=r"tls.ca: .*gone.pem cannot be read"):
        deliver(place(port, ca=str(gone)), tmp_path)


# --- in --------------------------------------------------------------------------------------------------------------------

Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path, authority: Authority, good: Pair) -> Iterator[Start]:
    """Give a function that starts a receiver on a TLS port; it is stopped at the end."""
    running: list[Running] = []
    sockets: list[socket.socket] = []

    def begin(*, fast: bool = True, **tls: object) -> Running:
        values = {"certificate": good.certificate, "key": good.key, "ca": authority.file, **tls}
        settings = Reception.model_validate({"reserve": NO_RESERVE, "fast_path": fast, "tls": values})
        secured, context = open_socket("127.0.0.1", 0), server_context(settings.tls)  # type: ignore[arg-type]
        sockets.append(secured)
        config = ReceiverConfig(("PACS_NODE",), tmp_path / "data", settings, 0.5, listener.Timeouts(3.0, 5.0, 20.0))
        slots, stop = [0], threading.Event()
        thread = threading.Thread(target=serve, args=(config, secured, slots, 0, stop, context))
        thread.start()
        running.append(Running(secured.getsockname()[1], Spool(config.data), slots, stop, thread))
        return running[-1]

    yield begin
    for receiver in running:
        receiver.stop.set()
        receiver.thread.join(30)
        assert not receiver.thread.is_alive()
    for listening in sockets:
        listening.close()


def storescu(tool: Tool, port: int, tls: Sequence[object], *files: Path) -> int:
    """Send files with storescu and return its exit code."""
    line = [tool("storescu"), "-aec", "PACS_NODE", *tls, "-ta", "10", "127.0.0.1", port, *files]
    return subprocess.run([str(word) for word in line], capture_output=True, timeout=60, check=False).returncode


def with_certificate(pair: Pair, ca: Path) -> list[object]:
    return ["+tls", pair.key, pair.certificate, "+cf", ca]


@pytest.mark.peers
@pytest.mark.parametrize("fast", [True, False], ids=["fast", "stock"])
def test_objects_come_in_over_tls_byte_for_byte(start: Start, tool: Tool, tmp_path: Path, authority: Authority, fast: bool) -> None:
    receiver = start(fast=fast)
    files = [save(make_ct(rows), tmp_path / f"{rows}.dcm") for rows in (16, 512, 2048)]  # up to 8 MB: many records of TLS
    assert storescu(tool, receiver.port, with_certificate(authority.sign("ct1"), authority.file), *files) == 0
    assert [dataset_bytes(arrival.path) for arrival in receiver.arrivals()] == [dataset_bytes(path) for path in files]
    assert receiver.the_end().released


@pytest.mark.peers
def test_who_shows_no_good_certificate_stays_outside_and_the_next_one_comes_in(
    start: Start, tool: Tool, tmp_path: Path, authority: Authority, stranger: Authority
) -> None:
    receiver, image, ca = start(), save(make_ct(), tmp_path / "ct.dcm"), authority.file
    outside = {
        "no certificate": ["+tla", "+cf", ca],
        "one of a stranger": with_certificate(stranger.sign("foreign"), ca),
        "one that has expired": with_certificate(authority.sign("old", days=-1), ca),
        "no TLS": [],
    }
    assert {who: storescu(tool, receiver.port, tls, image) != 0 for who, tls in outside.items()} == dict.fromkeys(outside, True)
    assert receiver.arrivals() == []
    assert storescu(tool, receiver.port, with_certificate(authority.sign("ct1"), ca), image) == 0
    assert len(receiver.arrivals()) == 1
    wait_until(lambda: receiver.slots == [0], "nothing is left open")


@pytest.mark.peers
def test_without_require_client_anyone_may_come_but_not_with_a_strangers_certificate(
    start: Start, tool: Tool, tmp_path: Path, authority: Authority, stranger: Authority
) -> None:
    receiver, image = start(require_client=False), save(make_ct(), tmp_path / "ct.dcm")
    assert storescu(tool, receiver.port, ["+tla", "+cf", authority.file], image) == 0
    assert storescu(tool, receiver.port, with_certificate(stranger.sign("foreign"), authority.file), image) != 0


def offer(authority: Authority, pair: Pair, newest: ssl.TLSVersion, ciphers: str = "DEFAULT") -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.file))
    context.load_cert_chain(pair.certificate, pair.key)
    context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.MINIMUM_SUPPORTED, newest
    return context


def test_only_the_suites_of_the_profile_are_spoken(start: Start, authority: Authority, good: Pair) -> None:
    receiver = start()

    def speak(context: ssl.SSLContext) -> str | None:
        with socket.create_connection(("127.0.0.1", receiver.port), timeout=10) as plain:
            try:
                with context.wrap_socket(plain, server_hostname="localhost") as connection:
                    spoken = connection.cipher()
                    return spoken[0] if spoken else None
            except OSError:
                return None

    rsa = [suite for suite in SUITES if "RSA" in suite.split("-")]
    assert [speak(offer(authority, good, ssl.TLSVersion.TLSv1_2, suite)) for suite in rsa] == rsa
    assert (speak(offer(authority, good, ssl.TLSVersion.TLSv1_3)) or "").startswith("TLS_")
    for suite in ("ECDHE-RSA-AES128-SHA256", "ECDHE-RSA-AES128-SHA", "AES128-GCM-SHA256", "DHE-RSA-AES128-GCM-SHA256"):
        assert speak(offer(authority, good, ssl.TLSVersion.TLSv1_2, suite)) is None
    with pytest.warns(DeprecationWarning):
        old = offer(authority, good, ssl.TLSVersion.TLSv1_1)
    assert speak(old) is None


@pytest.mark.slow
@pytest.mark.parametrize("opening", [b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n"], ids=["nothing", "half a hello", "http"])
def test_who_begins_no_handshake_is_let_go_in_time(start: Start, opening: bytes, tool: Tool, authority: Authority, tmp_path: Path) -> None:
    receiver = start()
    with socket.create_connection(("127.0.0.1", receiver.port), timeout=10) as silent:
        silent.sendall(opening)
        image = save(make_ct(), tmp_path / "ct.dcm")
        assert storescu(tool, receiver.port, with_certificate(authority.sign("ct1"), authority.file), image) == 0  # nobody waits for it
        while silent.recv(4096):
            continue


@pytest.mark.slow
@pytest.mark.peers
def test_a_node_takes_studies_on_both_its_ports(make_node: Callable[..., NodeProcess], tool: Tool, authority: Authority, good: Pair) -> None:
    port, tls = free_port(), {"certificate": str(good.certificate), "key": str(good.key), "ca": str(authority.file)}
    node = make_node(node={"tls_port": port}, reception={"tls": tls, "processes": 2}).start()
    parcels = write(node.folder / "in", [*ct_study(4), ct_slice(9)])
    own = with_certificate(authority.sign("ct1"), authority.file)
    assert storescu(tool, port, own, *(parcel.path for parcel in parcels[:4])) == 0
    assert storescu(tool, node.port, [], parcels[4].path) == 0
    assert storescu(tool, port, [], parcels[4].path) != 0
    asking = place(port, **tls).model_copy(update={"ae_title": "PACS_NODE"})
    assert probe(asking, "TEST", (), QUICK).problem == ""
    wait_until(node.settled, "the study is through")
    assert_kept(node, parcels, [parcel.sop_uid for parcel in parcels])
    assert node.terminate() == 0


@pytest.mark.slow
def test_a_node_with_an_expired_certificate_says_so_and_does_not_start(make_node: Callable[..., NodeProcess], authority: Authority) -> None:
    old = authority.sign("old", days=-1)
    node = make_node(node={"tls_port": free_port()}, reception={"tls": {"certificate": str(old.certificate), "key": str(old.key), "require_client": False}})
    refused = node.command("run")
    assert refused.returncode == 1
    last = refused.stderr.strip().splitlines()[-1]
    assert last.startswith(f"error: configuration: reception.tls.certificate: {old.certificate} has expired on ")
    assert "have a new one issued" in last
    assert f"fault   reception.tls.certificate: {old.certificate} has expired" in node.command("check").stdout
