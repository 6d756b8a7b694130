"""The server of the page: what it answers to whom, and with which headers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from starlette.routing import Route

from pacs_node.errors import ConfigError, DatabaseUnavailable
from pacs_node.monitoring import credentials, server, web
from pacs_node.monitoring.shield import local_name
from pacs_node.monitoring.sources import Sources
from tests.monitoring.reader import Reader

Make = Callable[..., Sources]


def client(sources: Sources, host: str = "127.0.0.1:11180") -> Reader:
    return Reader(server.application(sources), host)


def test_every_answer_forbids_inline_scripts_frames_and_keeping(make_sources: Make) -> None:
    for path in ("/", "/live", "/nowhere"):
        headers = client(make_sources()).get(path).headers
        assert "script-src 'self'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert (headers["x-content-type-options"], headers["x-frame-options"], headers["cache-control"]) == ("nosniff", "DENY", "no-store")


def test_a_name_that_an_attacker_gave_our_loopback_address_is_refused(make_sources: Make) -> None:
    sources = make_sources()
    assert client(sources, "localhost:8080").get("/").status_code == 200  # through a tunnel, for instance
    refused = client(sources, "evil.example:11180").get("/")
    assert refused.status_code == 421
    assert "content-security-policy" in refused.headers


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:1", "LOCALHOST", "localhost:11180", "[::1]", "[::1]:11180", "127.9.9.9"])
def test_names_of_this_machine(host: str) -> None:
    assert local_name(host)


@pytest.mark.parametrize("host", ["", "evil.example", "10.0.0.1:11180", "127.0.0.1.evil.example", "localhost.evil.example:80", "[::2]:1"])
def test_names_of_others(host: str) -> None:
    assert not local_name(host)


def test_a_page_that_fails_is_one_sentence_and_not_a_traceback(make_sources: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(_request: object) -> None:
        raise ValueError("secret")

    def away(_request: object) -> None:
        raise DatabaseUnavailable("postgresql://h/db", "it is stopped")

    monkeypatch.setattr(web, "pages", lambda sources: [Route("/wrong", wrong), Route("/away", away)])
    pages = client(make_sources())
    assert (pages.get("/wrong").status_code, pages.get("/away").status_code) == (500, 503)
    assert "secret" not in pages.get("/wrong").text
    assert "it is stopped" in pages.get("/away").text


def test_the_page_cannot_change_the_database(make_sources: Make) -> None:
    from pacs_node.database.tables import RemovalRow

    sources = make_sources()
    with pytest.raises(DatabaseUnavailable, match="readonly"), sources.store.write() as session:
        session.add(RemovalRow(path="x"))


def test_certificates_that_are_not_there_are_named(make_sources: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"monitoring\.tls"):
        credentials.examine(make_sources(tls={"certificate": tmp_path / "none.pem", "key": tmp_path / "none.key"}).settings.monitoring)


def test_a_connection_that_says_nothing_is_closed_and_keeps_nobody_away(make_sources: Callable[..., Sources], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_FIRST_REQUEST_SECONDS", 0.3)
    stop, listening = threading.Event(), socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.serve, args=(make_sources(), listening, stop))
    thread.start()
    try:
        silent = [socket.create_connection(listening.getsockname()) for _ in range(130)]
        for one in silent:
            one.settimeout(10)
            assert one.recv(1) == b""
            one.close()
        answer = httpx.get(f"http://127.0.0.1:{listening.getsockname()[1]}/ready", timeout=10)
        assert answer.headers["content-type"].startswith("application/json")
    finally:
        stop.set()
        thread.join(15)
    assert not thread.is_alive()
