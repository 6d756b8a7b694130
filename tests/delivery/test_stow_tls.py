"""STOW-RS over https with an authority of one's own: what fits goes through, what does not is said with its remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pacs_node.config import TLS, StowDestination
from pacs_node.delivery import stow
from pacs_node.delivery.web import Timeouts
from pacs_node.dicom.tls import server_context
from pacs_node.errors import TemporaryFailure
from pacs_node.records import Outcome, Parcel
from tests.certificates import Authority, Pair
from tests.delivery.web_archive import WebArchive

Start = Callable[..., WebArchive]
MakeParcel = Callable[..., Parcel]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory, tool: Callable[[str], str]) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), tool("openssl"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory, tool: Callable[[str], str]) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"), tool("openssl"))


@pytest.fixture
def start(authority: Authority) -> Iterator[Start]:
    """Give a function that starts a server with a certificate; it is stopped at the end."""
    running: list[WebArchive] = []

    def begin(pair: Pair, *, mutual: bool = False) -> WebArchive:
        running.append(WebArchive(server_context(TLS(certificate=pair.certificate, key=pair.key, ca=authority.file, require_client=mutual))))
        return running[-1]

    yield begin
    for archive in running:
        archive.stop()


def place(web: WebArchive, host: str = "localhost", **tls: object) -> StowDestination:
    return StowDestination.model_validate({"kind": "stow", "url": f"https://{host}:{web.port}/dicom-web", "tls": tls or None})


def send(destination: StowDestination, parcels: list[Parcel]) -> list[bool]:
    outcomes: list[Outcome] = []
    stow.deliver(destination, parcels, "PACS_NODE", outcomes.append, Timeouts(5.0, 10.0))
    return [outcome.delivered for outcome in outcomes]


def test_results_go_over_tls_to_a_server_of_an_authority_that_we_name(start: Start, parcel: MakeParcel, authority: Authority) -> None:
    web = start(authority.sign("web"))
    for host in ("localhost", "127.0.0.1"):
        assert send(place(web, host, ca=str(authority.file)), [parcel(), parcel()]) == [True, True]
    assert len(web.kept) == 4
    assert stow.probe(place(web, ca=str(authority.file))) == (True, "")


def test_our_certificate_is_shown_where_the_server_asks_for_it(start: Start, parcel: MakeParcel, authority: Authority, stranger: Authority) -> None:
    web, own, foreign = start(authority.sign("web"), mutual=True), authority.sign("node"), stranger.sign("foreign")
    ca = str(authority.file)
    assert send(place(web, ca=ca, certificate=str(own.certificate), key=str(own.key)), [parcel()]) == [True]
    for tls in ({"ca": ca}, {"ca": ca, "certificate": str(foreign.certificate), "key": str(foreign.key)}):
        with pytest.raises(TemporaryFailure, match=r"certificate|handshake|authority"):
            send(place(web, **tls), [parcel()])
    assert len(web.kept) == 1


def test_names_in_certificates_can_be_given_or_passed_over(start: Start, parcel: MakeParcel, authority: Authority) -> None:
    web, ca = start(authority.sign("elsewhere", "elsewhere")), str(authority.file)
    for tls in ({"name": "pacs.example"}, {"check_name": False}):
        assert send(place(web, ca=ca, **tls), [parcel()]) == [True]


def test_what_is_wrong_with_the_servers_certificate_is_said_and_nothing_is_sent(
    start: Start, parcel: MakeParcel, authority: Authority, stranger: Authority, tmp_path: Path
) -> None:
    ca = str(authority.file)
    cases: list[tuple[Pair, dict[str, object], str]] = [
        (authority.sign("old", days=-1), {"ca": ca}, "renewed there"),
        (stranger.sign("foreign"), {"ca": ca}, "name its authority in the destination's tls.ca"),
        (authority.sign("private"), {}, "name its authority in the destination's tls.ca"),
        (authority.sign("elsewhere", "elsewhere"), {"ca": ca}, "set the destination's tls.name"),
        (authority.sign("gone"), {"ca": str(tmp_path / "gone.pem")}, r"tls.ca: .*gone.pem cannot be read"),
    ]
    for pair, tls, words in cases:
        web = start(pair)
        with pytest.raises(TemporaryFailure, match=words):
            send(place(web, **tls), [parcel()])
        assert web.kept == {}


def test_a_server_without_tls_on_the_port_is_said(parcel: MakeParcel, authority: Authority) -> None:
    web = WebArchive()
    try:
        with pytest.raises(TemporaryFailure, match="speak TLS on this port"):
            send(place(web, ca=str(authority.file)), [parcel()])
    finally:
        web.stop()


def test_a_server_with_tls_that_is_asked_without_it_is_a_temporary_failure(start: Start, parcel: MakeParcel, authority: Authority) -> None:
    web = start(authority.sign("web"))
    with pytest.raises(TemporaryFailure, match=str(web.port)):
        send(StowDestination(kind="stow", url=f"http://localhost:{web.port}/dicom-web"), [parcel()])
    assert web.kept == {}
