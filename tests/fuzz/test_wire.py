"""Whatever bytes come over a connection: the receiver lives, keeps what it acknowledged, and nothing else.

Exchanges are damaged and sent to a running receiver, and what it says is compared with what lies in the spool afterwards, and with what the stream
says to a second reader (`tests.fuzz.reference`).
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import pytest
import structlog
from hypothesis import strategies as st
from pydicom.filereader import read_dataset

from pacs_node.config import Reception
from pacs_node.dicom.file_meta import read_meta
from pacs_node.dicom.header import DAMAGED
from pacs_node.reception.listener import ReceiverConfig, Timeouts, open_socket, serve
from pacs_node.reception.spool import Spool
from pacs_node.records import Arrival, AssociationEnd
from tests.fuzz import reference
from tests.fuzz.exchanges import Exchange, exchanges
from tests.fuzz.exploring import Explorer, peak_memory
from tests.fuzz.recordings import BIG, IMPLICIT, Recording, by_hand, from_pynetdicom
from tests.reception.peers import NO_RESERVE
from tests.reception.raw_peer import RawPeer, c_echo, message
from tests.reception.test_listener import dataset_bytes_of

LOOK_EVERY = 10  # exchanges, after which a good peer has to be served
MOST_MEMORY = 256 << 20  # bytes that many exchanges may add to the process
MOST_DESCRIPTORS = 8
_TALKATIVE = ("pynetdicom", "pydicom")  # about what they cannot read
FAULTS = ("reception failed", "connection failed")
BORDER = "upper layer failed, the association is aborted"  # what pynetdicom dies of ends one association
FAST_SECONDS = Timeouts(associate=2.0, stall=2.0, idle=30.0)
STOCK_SECONDS = Timeouts(associate=0.5, stall=0.5, idle=30.0)  # stock pynetdicom waits for them more often

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # stock pynetdicom's die of some


@dataclass
class Target:
    """A running receiver and what was there before anything came."""

    port: int
    spool: Spool
    slots: list[int]
    fast: bool
    thread: threading.Thread
    log: list[structlog.typing.EventDict]
    count: Iterator[int] = field(default_factory=itertools.count)
    memory: int = 0
    descriptors: int = 0

    def files(self) -> dict[str, list[Path]]:
        """Return what lies in the spool and in quarantine, by suffix, in the order of arrival."""
        found: dict[str, list[Path]] = {"kept": [], "end": [], "refused": [], "part": []}
        for folder in (self.spool.new, self.spool.quarantine_folder):
            for path in sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.name):
                kept = "kept" if folder is self.spool.new else "refused"
                kind = {".dcm": kept, ".end": "end", ".part": "part"}.get(path.suffix)
                if kind is not None:
                    found[kind].append(path)
        return found

    def clear(self) -> None:
        """Take everything away that lies in the spool and in quarantine."""
        for folder in (self.spool.new, self.spool.quarantine_folder):
            for path in folder.rglob("*"):
                if path.is_file():
                    path.unlink()


@contextlib.contextmanager
def running(folder: Path, *, fast: bool, timeouts: Timeouts | None = None) -> Iterator[Target]:
    """Start a receiver in a thread; its log is kept in place of printed."""
    reception, usual = Reception(reserve=NO_RESERVE, fast_path=fast), FAST_SECONDS if fast else STOCK_SECONDS
    config = ReceiverConfig(("PACS_NODE",), folder, reception, 0.5, timeouts or usual)
    listening, stop, slots = open_socket("127.0.0.1", 0), threading.Event(), [0]
    thread = threading.Thread(target=serve, args=(config, listening, slots, 0, stop))
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    with structlog.testing.capture_logs() as log:
        thread.start()
        try:
            yield Target(listening.getsockname()[1], Spool(folder), slots, fast, thread, log)
        finally:
            stop.set()
            thread.join(30)
            listening.close()
            for name in _TALKATIVE:
                logging.getLogger(name).setLevel(logging.NOTSET)
    assert not thread.is_alive()


@pytest.fixture(scope="module", params=["fast", "stock"])
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with running(tmp_path_factory.mktemp("data"), fast=request.param == "fast") as target:
        yield target


@pytest.fixture(scope="module")
def recordings(target: Target) -> list[Recording]:
    found = [from_pynetdicom(target.port), *by_hand()]
    wait_until_alone(target)
    target.clear()
    return found


# --- one exchange --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Heard:
    """What the receiver said, and whether the connection ended so that some of it may be lost."""

    stream: bytes
    broken: bool


def speak(port: int, exchange: Exchange) -> Heard:
    """Send an exchange and listen until the connection ends."""
    (request, *pieces), end = exchange
    with socket.create_connection(("127.0.0.1", port), timeout=20) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        heard = b""
        try:
            peer.sendall(request)
            heard = _first_words(peer)
            for piece in pieces:
                peer.sendall(piece)
            if end != "half":
                if end == "reset":
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                return Heard(heard, broken=True)
            peer.shutdown(socket.SHUT_WR)
        except OSError:
            return Heard(heard, broken=True)
        return _listen(peer, heard)


def _first_words(peer: socket.socket) -> bytes:
    """Wait for an answer to the association request, which a damaged one may not get."""
    peer.settimeout(0.05)
    try:
        return peer.recv(65536)
    except TimeoutError:
        return b""
    finally:
        peer.settimeout(20)


def _listen(peer: socket.socket, heard: bytes) -> Heard:
    try:
        while piece := peer.recv(65536):
            heard += piece
            if reference.read_acceptor(heard).end != "open":
                break  # a release or an abort: now it is ours to close
    except ConnectionError:
        return Heard(heard, broken=True)
    return Heard(heard, broken=False)


def wait_until_alone(target: Target, seconds: float = 10.0) -> None:
    """Wait until no association and no connection is left."""
    deadline = time.monotonic() + seconds
    while target.slots != [0] or any(thread.name.startswith("AcceptorThread") for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "an association or its thread is left behind"
        time.sleep(0.0005)


# --- what has to hold ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Talk:
    """What was said and answered over a connection, and what is kept of it; ``broken``: some answers may not have come through."""

    said: reference.Stream
    answered: reference.Stream
    answers: Sequence[tuple[int, int, str]]
    files: dict[str, list[Path]]
    broken: bool


def check(target: Target, exchange: Exchange) -> None:
    """Send an exchange and compare what was answered, what was said, and what is kept."""
    try:
        heard = speak(target.port, exchange)
        wait_until_alone(target)
        said, answered = reference.read_requestor(b"".join(exchange[0])), reference.read_acceptor(heard.stream)
        broken = heard.broken or (not target.fast and answered.end != "release")  # stock pynetdicom reads on while an instance is written
        talk = Talk(said, answered, reference.responses(answered), target.files(), broken)
        assert not talk.files["part"], "a half-written file is left"
        assert {status for _, status, _ in talk.answers} <= {0x0000, 0xA900, 0xC000}, "a fault of this node was answered"
        check_kept(talk, bytewise=target.fast or (said.end != "wrong" and not said.shared))
        check_end(target.spool, talk)
        if target.fast:
            check_everything(talk)
            check_log(target, (*FAULTS, BORDER) if answered.accepted else FAULTS)  # pynetdicom stumbles over requests, which is known
    finally:
        target.log.clear()
        target.clear()
    if next(target.count) % LOOK_EVERY == 0:
        check_health(target)


def check_kept(talk: Talk, *, bytewise: bool) -> None:
    """What was acknowledged is kept under its own UIDs, in its order; more is kept only where the connection broke before we heard of it.

    ``bytewise``: it is kept as it was sent; stock pynetdicom overlooks values that stand behind the end of a message, and broken rules.
    """
    kept, answers = talk.files["kept"], [answer for answer in talk.answers if answer[1] == 0]
    assert len(kept) >= len(answers), "an acknowledged instance is lost"
    assert talk.broken or len(kept) == len(answers), "an instance is kept that was not acknowledged"
    for path, (_, _, uid) in zip(kept, answers, strict=False):
        assert uid and str(read_meta(path).get("MediaStorageSOPInstanceUID")) == uid
    bodies = iter([one.data for one in talk.said.messages])
    for path in kept:
        meta, body = read_meta(path), dataset_bytes_of(path)
        assert body, "an instance without a dataset is kept"
        found = _uids_as_pydicom_reads(body, str(meta.TransferSyntaxUID))
        assert found in (None, (str(meta.MediaStorageSOPClassUID), str(meta.MediaStorageSOPInstanceUID)))
        assert not bytewise or body in bodies, "what is kept was never sent like that, or not in this order"


def _uids_as_pydicom_reads(body: bytes, syntax: str) -> tuple[str, str] | None:
    """Return the two UIDs of a whole dataset, None where pydicom cannot read it."""
    try:
        dataset = read_dataset(BytesIO(body), syntax == IMPLICIT, syntax != BIG, stop_when=lambda tag, vr, length: tag > 0x00080018)
        return str(dataset.SOPClassUID).strip(" \0"), str(dataset.SOPInstanceUID).strip(" \0")
    except DAMAGED:
        return None


def check_end(spool: Spool, talk: Talk) -> None:
    """The end of an association that brought anything is written down, with the right counts."""
    entries, files = spool.arrivals(1000), talk.files
    ends = [entry for entry in entries if isinstance(entry, AssociationEnd)]
    assert [entry.path for entry in entries if isinstance(entry, Arrival)] == files["kept"]
    if not files["kept"] and not files["refused"]:
        assert not ends
        return
    (end,) = ends
    assert (end.stored, end.refused) == (len(files["kept"]), len(files["refused"]))
    assert talk.broken or end.released == (talk.answered.end == "release")


def check_everything(talk: Talk) -> None:
    """On the fast path every message that can be read in one way only is answered, in its order, and kept somewhere as it came."""
    plain = list(itertools.takewhile(lambda one: one.context in talk.answered.accepted and reference.is_plain(one), talk.said.messages))
    stores = [one for one in plain if one.number(0x0100) == reference.C_STORE_RQ]
    kept = sorted([*talk.files["kept"], *talk.files["refused"]], key=lambda path: path.name)
    for one, (message_id, _, uid) in zip(stores, talk.answers, strict=False):
        assert (one.number(0x0110), one.uid(0x1000)) == (message_id, uid)
    for one, path in zip(stores, kept, strict=False):
        meta = read_meta(path)
        assert dataset_bytes_of(path) == (one.data or b"")
        assert (str(meta.MediaStorageSOPClassUID), str(meta.MediaStorageSOPInstanceUID)) == (one.uid(0x0002), one.uid(0x1000))
        assert talk.broken or str(meta.TransferSyntaxUID) == talk.answered.accepted[one.context]
    if not talk.broken:
        assert len(talk.answers) >= len(stores), "a complete instance got no answer"
        refused = talk.said.end == "wrong" and talk.answered.accepted
        assert not refused or talk.answered.end == "abort", "who breaks the rules is not told so"


def check_log(target: Target, events: Sequence[str]) -> None:
    """Nothing that a peer says is a fault of ours."""
    faults = [entry for entry in target.log if entry["event"] in events]
    assert not faults, faults


def check_health(target: Target) -> None:
    """A good peer is served, and nothing has been collected on the way."""
    assert target.thread.is_alive()
    peer = RawPeer(target.port)
    assert peer.store("1.2.3.4.5") == 0x0000
    peer.send(message(3, c_echo(2)))
    assert peer.answer() == (3, 2, 0x0000)
    peer.release()
    RawPeer.opened.clear()
    wait_until_alone(target)
    assert len(target.files()["kept"]) == 1
    target.clear()
    memory, descriptors = peak_memory(), len(os.listdir("/proc/self/fd"))
    target.memory, target.descriptors = target.memory or memory, target.descriptors or descriptors
    assert memory < target.memory + MOST_MEMORY, "the receiver collects memory"
    assert descriptors < target.descriptors + MOST_DESCRIPTORS, "the receiver collects descriptors"


@pytest.mark.slow
def test_whatever_comes_the_receiver_lives_and_keeps_what_it_acknowledges(explore: Explorer, target: Target, recordings: list[Recording]) -> None:
    explore(exchanges(recordings), lambda exchange: check(target, exchange), examples=400 if target.fast else 40)


# --- connections on which nothing comes any more ---------------------------------------------------------------------------------


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[Target]:
    with running(tmp_path, fast=True, timeouts=Timeouts(associate=0.4, stall=0.4, idle=0.8)) as target:
        yield target


def check_silence(target: Target, held: Sequence[tuple[Exchange, int]]) -> None:
    """Open connections that fall silent anywhere: others are served meanwhile, and in the end all are let go and nothing is left."""
    try:
        peers = [_silent(target.port, exchange, kept) for exchange, kept in held]
        peer = RawPeer(target.port)
        assert peer.store("1.2.3.4.5") == 0x0000
        peer.release()
        RawPeer.opened.clear()
        wait_until_alone(target, 6.0)
        for silent in peers:
            silent.close()
        files = target.files()
        assert not files["part"]
        assert "1.2.3.4.5" in [str(read_meta(path).MediaStorageSOPInstanceUID) for path in files["kept"]]
        check_log(target, FAULTS)
    finally:
        target.log.clear()
        target.clear()


def _silent(port: int, exchange: Exchange, kept: int) -> socket.socket:
    """Say the first ``kept`` bytes of an exchange and leave it at that."""
    (request, *pieces), _ = exchange
    peer = socket.create_connection(("127.0.0.1", port), timeout=20)
    with contextlib.suppress(OSError):
        peer.sendall(request[:kept])
        if kept > len(request):
            _first_words(peer)
            peer.sendall(b"".join(pieces)[: kept - len(request)])
    return peer


def test_connections_that_fall_silent_anywhere_are_let_go(explore: Explorer, impatient: Target) -> None:
    recordings = [from_pynetdicom(impatient.port), *by_hand()]
    wait_until_alone(impatient)
    impatient.clear()
    held = st.lists(st.tuples(exchanges(recordings), st.integers(0, 400) | st.integers(0, 20_000)), min_size=1, max_size=24)
    explore(held, lambda some: check_silence(impatient, some), examples=4)
