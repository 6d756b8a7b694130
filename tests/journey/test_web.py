"""Results over STOW-RS: what the outbox makes of what a DICOMweb server says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from sqlalchemy import select

from pacs_node.database.alerts import open_alerts
from pacs_node.database.tables import DeliveryRow
from tests.delivery.web_archive import Reply, Request, WebArchive, item, said
from tests.journey.support import RULES, Town, ct_study, encode_body

Make = Callable[..., Town]
COMPREHENSIVE_3D_SR, ENHANCED_SR = "1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.88.22"


@pytest.fixture
def web() -> Iterator[WebArchive]:
    archive = WebArchive()
    yield archive
    archive.stop()


@pytest.fixture
def town(make_town: Make, web: WebArchive) -> Town:
    """Give a house whose results go to a DICOMweb server."""
    place = {"kind": "stow", "url": web.place().url, "accepts_research": True, "auth": {"bearer_env": "STOW_TOKEN"}}
    return make_town(rules=RULES.replace("research", "web"), destinations={"web": place})


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("STOW_TOKEN", "top-secret-token")
    return "top-secret-token"


def deliveries(town: Town) -> list[DeliveryRow]:
    with town.house.store.read() as session:
        return list(session.scalars(select(DeliveryRow).order_by(DeliveryRow.position)))


def states(town: Town) -> set[str]:
    return {row.state.value for row in deliveries(town)}


def alerts(town: Town) -> list[str]:
    with town.house.store.read() as session:
        return [row.message for row in open_alerts(session)]


def test_results_are_stored_at_a_web_server_once_each(town: Town, web: WebArchive) -> None:
    town.send(ct_study())
    town.settle()
    town.wait(hours=3)
    town.post()
    assert states(town) == {"delivered"} and len(web.kept) == len(deliveries(town)) == 3
    assert len(web.requests) == 3  # each class of objects in its own, none twice
    town.restart()
    town.post()
    assert len(web.requests) == 3


def test_a_server_that_asks_to_be_left_alone_is_left_alone_as_long_as_it_said(town: Town, web: WebArchive) -> None:
    web.on_store = lambda request: Reply(503, headers={"Retry-After": "1800"})
    town.send(ct_study())
    town.settle()
    assert len(web.requests) == 1
    web.on_store = web.keep
    for _ in range(29):
        town.wait(minutes=1)
        town.post()
    assert len(web.requests) == 1 and states(town) == {"waiting"}
    town.wait(minutes=1)
    town.post()
    assert states(town) == {"delivered"}


def test_a_server_that_asks_for_years_is_asked_again_after_hours(town: Town, web: WebArchive) -> None:
    web.on_store = lambda request: Reply(429, headers={"Retry-After": "999999999"})
    town.send(ct_study())
    town.settle()
    web.on_store = web.keep
    town.wait(hours=3, minutes=1)
    town.post()
    assert states(town) == {"delivered"}


def test_a_server_that_does_not_know_us_is_an_alert_with_the_remedy_and_without_the_secret(town: Town, web: WebArchive, token: str) -> None:
    web.authorised = lambda header: False
    town.send(ct_study())
    town.settle()
    for _ in range(4):
        town.wait(minutes=2)
        town.post()
    (alert,) = alerts(town)
    assert "destination web is down" in alert and "check the destination's auth" in alert and "HTTP 401" in alert and token not in alert
    assert web.requests[0].headers["Authorization"] == f"Bearer {token}"
    web.authorised = lambda header: header == f"Bearer {token}"
    town.wait(hours=2)
    town.post()
    assert states(town) == {"delivered"} and alerts(town) == []
    assert all(token not in file.read_text(errors="replace") for file in Path(town.folder).rglob("*.db"))


def test_a_class_that_is_refused_blocks_no_other_and_is_said(town: Town, web: WebArchive) -> None:
    map_class = "1.2.840.10008.5.1.4.1.1.30"

    def no_maps(request: object) -> Reply:
        kept = web.keep(request)  # type: ignore[arg-type]
        if map_class.encode() + b'"' in kept.body:
            (uid,) = request.objects  # type: ignore[attr-defined]
            del web.kept[uid]
            return Reply(409, said([], [item(uid, reason=0x0122)]))
        return kept

    web.on_store = no_maps
    town.send(ct_study())
    town.settle()
    assert sorted(row.state.value for row in deliveries(town)) == ["delivered", "delivered", "refused"]
    assert [row.status for row in deliveries(town) if row.state.value == "refused"] == [0x0122]
    assert any("SOP class is not supported" in alert for alert in alerts(town))


def test_a_report_that_is_refused_goes_as_the_fallback_kind(make_town: Make, web: WebArchive) -> None:
    place = {"kind": "stow", "url": web.place().url, "accepts_research": True, "fallback": {"sr": "enhanced-sr"}}
    town = make_town(rules=RULES.replace("research", "web"), destinations={"web": place})

    def no_3d_reports(request: Request) -> Reply:
        (uid,) = request.objects
        refused = str(dcmread(BytesIO(request.objects[uid])).SOPClassUID) == COMPREHENSIVE_3D_SR
        return Reply(409, said([], [item(uid, reason=0x0122)])) if refused else web.keep(request)

    web.on_store = no_3d_reports
    town.send(ct_study())
    town.settle()
    town.wait(minutes=1)
    town.post()
    assert sorted(row.state.value for row in deliveries(town)) == ["delivered", "delivered", "delivered", "replaced"]
    classes = {str(dcmread(BytesIO(content)).SOPClassUID) for content in web.kept.values()}
    assert COMPREHENSIVE_3D_SR not in classes and ENHANCED_SR in classes


def test_originals_are_forwarded_to_a_web_server_as_they_came(make_town: Make, web: WebArchive) -> None:
    rules = RULES.replace("send_to: [research]", "send_to: []\n    forward: [web]")
    town = make_town(rules=rules, destinations={"web": {"kind": "stow", "url": web.place().url}})
    images = ct_study(40)
    town.send(images)
    town.settle()
    assert states(town) == {"delivered"} and len(deliveries(town)) == 40
    assert [len(request.objects) for request in web.requests] == [32, 8]
    assert all(web.kept[str(image.SOPInstanceUID)].endswith(encode_body(image)) for image in images)
    assert all(b"CT1" not in web.kept[str(image.SOPInstanceUID)][:600] for image in images)  # who sent it concerns nobody else
