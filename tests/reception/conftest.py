from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from pacs_node.config import Reception
from pacs_node.reception.listener import ReceiverConfig, Timeouts, open_socket, serve
from pacs_node.reception.spool import Spool
from tests.reception.peers import NO_RESERVE, Running
from tests.reception.raw_peer import RawPeer


@pytest.fixture(autouse=True)
def _close_raw_peers() -> Iterator[None]:
    yield
    while RawPeer.opened:
        RawPeer.opened.pop().socket.close()


@pytest.fixture(params=["fast", "stock"])
def path(request: pytest.FixtureRequest) -> str:
    """Name the way of the data: past pynetdicom or through it. Every test that starts a receiver runs over both."""
    return str(request.param)


@pytest.fixture
def start(tmp_path: Path, path: str) -> Iterator[Callable[..., Running]]:
    """Start receivers in threads; they are stopped at the end of the test."""
    running: list[Running] = []
    sockets = []

    def begin(
        data: Path | None = None,
        drain: float = 0.5,
        timeouts: Timeouts | None = None,
        tls: ssl.SSLContext | None = None,
        services: Sequence[str] = (),
        **reception: object,
    ) -> Running:
        settings = Reception.model_validate({"reserve": NO_RESERVE, "fast_path": path == "fast", **reception})
        config = ReceiverConfig(("PACS_NODE", "SECOND"), data or tmp_path / "data", settings, drain, timeouts or Timeouts(5.0, 5.0, 20.0), services)
        listening = open_socket("127.0.0.1", 0)
        sockets.append(listening)
        slots, stop = [0], threading.Event()
        thread = threading.Thread(target=serve, args=(config, listening, slots, 0, stop, tls))
        thread.start()
        running.append(Running(listening.getsockname()[1], Spool(config.data), slots, stop, thread))
        return running[-1]

    yield begin
    for receiver in running:
        receiver.stop.set()
    for receiver in running:
        receiver.thread.join(30)
        assert not receiver.thread.is_alive()
    for listening in sockets:
        listening.close()


@pytest.fixture
def receiver(start: Callable[..., Running]) -> Running:
    return start()
