"""Syslog over TLS: the form of RFC 5424 and RFC 5425, and when a batch counts as arrived."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from pacs_node.config import DestinationTLS, Syslog
from pacs_node.errors import CollectorFailed
from pacs_node.monitoring import syslog
from tests.certificates import Authority, Pair
from tests.monitoring.collector import Collector

AT = datetime(2026, 3, 1, 12, 30, 0, 250, tzinfo=timezone(timedelta(hours=1)))
HEADER = re.compile(rb"<85>1 2026-03-01T11:30:00\.000250Z (\S{1,255}) pacs-node - DICOM\+RFC3881 \[meta sequenceId=\"(\d+)\"\] \xef\xbb\xbf(.*)", re.DOTALL)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory, tool: Callable[[str], str]) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"), tool("openssl"))


@pytest.fixture(scope="module")
def good(town: Authority) -> Pair:
    return town.sign("collector")


Start = Callable[..., Collector]


@pytest.fixture
def start() -> Iterator[Start]:
    """Give a function that starts a collector."""
    running: list[Collector] = []

    def begin(own: Pair, **how: object) -> Collector:
        running.append(Collector(own, **how))  # type: ignore[arg-type]
        return running[-1]

    yield begin
    for collector in running:
        collector.stop()


def settings(collector: Collector, ca: Path, **tls: object) -> Syslog:
    return Syslog(host="127.0.0.1", port=collector.port, tls=DestinationTLS(ca=ca, **tls))  # type: ignore[arg-type]


def lines(count: int) -> list[bytes]:
    return [syslog.line(f"<AuditMessage n='{number}'>\N{SNOWMAN}\n</AuditMessage>", AT, "pacs-host", number) for number in range(1, count + 1)]


def test_a_line_is_as_rfc_5424_has_it() -> None:
    found = HEADER.fullmatch(syslog.line("<x>ä</x>", AT, "pacs-host", 7))
    assert found is not None
    assert found.groups() == (b"pacs-host", b"7", "<x>ä</x>".encode())
    assert HEADER.fullmatch(syslog.line("x", AT, "höst name " + "x" * 300, 2**31))[1].startswith(b"h?st?name?")  # type: ignore[index]
    assert HEADER.fullmatch(syslog.line("x", AT, "", 2**31))[2] == b"1"  # type: ignore[index]
    assert syslog.frame(b"abc") == b"3 abc"


def test_messages_arrive_whole_and_in_order(town: Authority, good: Pair, start: Start) -> None:
    collector, sent = start(good), lines(300)
    syslog.send(settings(collector, town.file), sent)
    assert collector.messages == sent


def test_a_collector_that_just_closes_after_the_last_octet_has_them_as_well(town: Authority, good: Pair, start: Start) -> None:
    collector = start(good, manner="closes")
    syslog.send(settings(collector, town.file), lines(5))
    assert len(collector.messages) == 5


@pytest.mark.parametrize(("manner", "said"), [("hangs", "gives no sign"), ("silent", "gives no sign"), ("breaks", "broke off")])
def test_what_is_not_known_to_have_arrived_counts_as_failed(town: Authority, good: Pair, start: Start, manner: str, said: str) -> None:
    with pytest.raises(CollectorFailed, match=said):
        syslog.send(settings(start(good, manner=manner), town.file), lines(2000), seconds=2)


def test_a_collector_that_asks_for_a_certificate_gets_ours(town: Authority, good: Pair, start: Start) -> None:
    collector, ours = start(good, ca=str(town.file)), town.sign("node-1")
    syslog.send(settings(collector, town.file, certificate=ours.certificate, key=ours.key), lines(2))
    assert len(collector.messages) == 2


def test_a_collector_that_refuses_us_says_so_though_everything_was_sent(town: Authority, good: Pair, start: Start) -> None:
    """With TLS 1.3 the refusal comes after our data, or is lost with the connection."""
    collector = start(good, ca=str(town.file))
    with pytest.raises(CollectorFailed, match=r"wants a certificate of ours|or want one"):
        syslog.send(settings(collector, town.file), lines(2))
    assert collector.messages == []


def test_wrong_certificates_get_nothing(town: Authority, start: Start, tmp_path: Path, tool: Callable[[str], str]) -> None:
    stranger = Authority(tmp_path / "other", tool("openssl"))
    for own, said in (
        (stranger.sign("stranger"), "not accepted"),
        (town.sign("old", days=-1), "has to be renewed there"),
        (town.sign("elsewhere", "elsewhere"), "tls.name"),
    ):
        collector = start(own)
        with pytest.raises(CollectorFailed, match=said):
            syslog.send(settings(collector, town.file), lines(2))
        assert collector.messages == []


def test_the_name_in_its_certificate_may_be_another_one(town: Authority, start: Start) -> None:
    collector = start(town.sign("named", "elsewhere"))
    syslog.send(settings(collector, town.file, name="pacs.example"), lines(1))
    assert len(collector.messages) == 1


def test_nobody_there_and_no_tls_there_are_said(town: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(CollectorFailed, match="cannot be reached"):
        syslog.send(Syslog(host="127.0.0.1", port=port), lines(1))
    with pytest.raises(CollectorFailed, match="cannot be read"):
        syslog.send(Syslog(host="127.0.0.1", port=port, tls=DestinationTLS(ca=Path("/nowhere.pem"))), lines(1))
