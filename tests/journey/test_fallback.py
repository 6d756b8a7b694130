"""An archive that does not take a kind of object gets the one that the configuration names, once, whatever happens in between."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from pacs_node.database import alerts, deliveries
from pacs_node.database.tables import DeliveryRow
from pacs_node.delivery.archive import FolderArchive, Script
from pacs_node.journey import fallback
from pacs_node.journey.operate import retry_delivery, retry_parked
from pacs_node.workbench import tables
from pacs_node.workbench.fsck import examine
from tests.journey.support import Town, ct_study

REPORT, CAPTURE, MAP = "1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.7.4", "1.2.840.10008.5.1.4.1.1.30"
ENHANCED, PICTURE = "1.2.840.10008.5.1.4.1.1.88.22", "1.2.840.10008.5.1.4.1.1.7"
RULES = """
rules:
  - name: head CT
    when: {Modality: CT}
    pipeline: ct-test
    send_to: [archive, research]
"""
Make = Callable[..., Town]


def town_with(make_town: Make, folder: Path, *ports: int, instead: dict[str, str] | None = None) -> Town:
    names = ["archive", "second"][: len(ports)]
    wanted = {"sr": "enhanced-sr", "sc": "single-frame"} if instead is None else instead
    destinations: dict[str, object] = {
        name: {"kind": "dicom", "ae_title": "ARCHIVE", "address": "127.0.0.1", "port": port, "accepts_research": True, "fallback": wanted}
        for name, port in zip(names, ports, strict=True)
    }
    destinations["research"] = {"kind": "folder", "path": str(folder / "out")}
    return make_town(rules=RULES.replace("archive, research", ", ".join([*names, "research"])), destinations=destinations)


def got(archive: FolderArchive) -> dict[str, list[Dataset]]:
    found: dict[str, list[Dataset]] = {}
    for uid in archive.received:
        dataset = dcmread(archive.path_of(uid))
        found.setdefault(str(dataset.SOPClassUID), []).append(dataset)
    return found


def rows(town: Town, name: str = "archive") -> list[DeliveryRow]:
    with town.house.store.read() as session:
        return [row for row in reversed(deliveries.list_deliveries(session, 1000)) if row.destination == name]


def messages(town: Town) -> list[str]:
    with town.house.store.read() as session:
        return [alert.message for alert in alerts.open_alerts(session)]


def pointed(dataset: Dataset) -> set[str]:
    return {element.value for element in dataset.iterall() if element.keyword == "ReferencedSOPInstanceUID"}


@pytest.mark.parametrize("script", [Script(refused_classes=frozenset({REPORT})), *(Script(statuses={REPORT: code}) for code in (0x0122, 0xA900, 0xC123))])
def test_a_report_that_is_not_taken_goes_as_an_enhanced_one(make_town: Make, tmp_path: Path, script: Script) -> None:
    with FolderArchive(tmp_path / "archive", "ARCHIVE", script=script) as archive:
        town = town_with(make_town, tmp_path, archive.port)
        town.send(ct_study())
        town.settle()
        kinds = got(archive)
        town.restart()
        town.settle()
        town.wait(hours=5)
        town.post()
        assert len(archive.received) == 3  # nothing twice
    (report,) = kinds[ENHANCED]
    assert set(kinds) == {MAP, CAPTURE, ENHANCED}
    assert {str(kinds[MAP][0].SOPInstanceUID), str(kinds[CAPTURE][0].SOPInstanceUID)} <= pointed(report)
    assert [(row.kind, row.state.value) for row in rows(town)] == [
        ("pm", "delivered"), ("sc", "delivered"), ("sr", "replaced"), ("enhanced-sr", "delivered"),
    ]  # fmt: skip
    assert messages(town) == []
    page = tables.job_page(town.settings, 1)["objects"]
    assert any(row["state"] == "replaced" and "enhanced-sr went into the outbox in its place" in row["message"] for row in page)
    (place,) = [row for row in tables.status_tables(town.settings)["destinations"] if row["name"] == "archive"]
    assert (place["replaced"], place["stuck"]) == (1, 0)
    assert town.engine.calls == ["ct-test"]  # no model ran again
    assert examine(town.settings, repair=False, deep=False).findings == []


def test_a_capture_that_is_not_taken_goes_as_pictures_and_the_report_points_at_them(make_town: Make, tmp_path: Path) -> None:
    with FolderArchive(tmp_path / "archive", "ARCHIVE", script=Script(refused_classes=frozenset({CAPTURE}))) as archive:
        town = town_with(make_town, tmp_path, archive.port)
        town.send(ct_study())
        town.settle()
        kinds, order = got(archive), list(archive.received)
    (report,), pictures = kinds[REPORT], {str(one.SOPInstanceUID) for one in kinds[PICTURE]}
    assert len(pictures) == 2 and pictures <= pointed(report) and order[-1] == report.SOPInstanceUID
    elsewhere = {str(result.SOPClassUID): result for result in town.results()}
    assert str(elsewhere[CAPTURE].SOPInstanceUID) not in pointed(report)
    assert str(elsewhere[CAPTURE].SOPInstanceUID) in pointed(elsewhere[REPORT])  # the other destination has what was built first
    assert report.SOPInstanceUID != elsewhere[REPORT].SOPInstanceUID and messages(town) == []


def test_an_archive_of_old_gets_pictures_and_an_enhanced_report_of_them_without_the_map(make_town: Make, tmp_path: Path) -> None:
    with FolderArchive(tmp_path / "archive", "ARCHIVE", script=Script(refused_classes=frozenset({CAPTURE, REPORT, MAP}))) as archive:
        town = town_with(make_town, tmp_path, archive.port)
        town.send(ct_study())
        town.settle()
        kinds = got(archive)
    (report,) = kinds[ENHANCED]
    assert set(kinds) == {PICTURE, ENHANCED}
    sources = {str(ds.SOPInstanceUID) for ds in ct_study()}
    assert pointed(report) == sources | {str(one.SOPInstanceUID) for one in kinds[PICTURE]}
    (message,) = messages(town)
    assert "pm" in message and "was refused" in message  # what nothing stands in for is said as before


def test_where_nothing_stands_in_for_a_map_the_report_does_not_point_at_it(make_town: Make, tmp_path: Path) -> None:
    with FolderArchive(tmp_path / "archive", "ARCHIVE", script=Script(refused_classes=frozenset({MAP}))) as archive:
        town = town_with(make_town, tmp_path, archive.port)
        town.send(ct_study())
        town.settle()
        kinds = got(archive)
        town.restart()
        town.settle()
        assert len(archive.received) == 2  # nothing twice
    (report,), (capture,) = kinds[REPORT], kinds[CAPTURE]
    assert set(kinds) == {REPORT, CAPTURE}
    assert pointed(report) == {str(ds.SOPInstanceUID) for ds in ct_study()} | {str(capture.SOPInstanceUID)}
    (message,) = messages(town)
    assert "pm" in message and "was refused" in message and "retry delivery" in message
    assert sorted(row.state.value for row in rows(town)) == ["delivered", "delivered", "refused"]


def test_two_archives_get_the_same_stand_in(make_town: Make, tmp_path: Path) -> None:
    script = Script(refused_classes=frozenset({REPORT}))
    with FolderArchive(tmp_path / "a", "ARCHIVE", script=script) as one, FolderArchive(tmp_path / "b", "ARCHIVE", script=script) as two:
        town = town_with(make_town, tmp_path, one.port, two.port)
        town.send(ct_study())
        town.settle()
        assert [report.SOPInstanceUID for report in got(one)[ENHANCED]] == [report.SOPInstanceUID for report in got(two)[ENHANCED]]


def test_without_a_fallback_a_refusal_is_said_as_before(make_town: Make, tmp_path: Path) -> None:
    with FolderArchive(tmp_path / "archive", "ARCHIVE", script=Script(refused_classes=frozenset({REPORT}))) as archive:
        town = town_with(make_town, tmp_path, archive.port, instead={})
        town.send(ct_study())
        town.settle()
        assert set(got(archive)) == {MAP, CAPTURE}
    assert [row.state.value for row in rows(town)] == ["delivered", "delivered", "refused"] and "retry delivery" in messages(town)[0]


def test_a_stand_in_that_is_refused_too_is_said_and_can_be_sent_again(make_town: Make, tmp_path: Path) -> None:
    with FolderArchive(tmp_path / "archive", "ARCHIVE", script=Script(refused_classes=frozenset({REPORT, ENHANCED}))) as archive:
        town = town_with(make_town, tmp_path, archive.port)
        town.send(ct_study())
        town.settle()
        assert [(row.kind, row.state.value) for row in rows(town)][2:] == [("sr", "replaced"), ("enhanced-sr", "refused")]
        archive.script = Script()
        assert "1 deliveries are due now" in retry_parked(town.house.store, town.clock)
        town.post()
        assert set(got(archive)) == {MAP, CAPTURE, ENHANCED} and messages(town) == []


@pytest.mark.parametrize("step", ["_make", "_commit"])
def test_a_process_that_dies_between_refusal_and_stand_in_makes_it_at_the_next_look(
    make_town: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    class Killed(BaseException):
        """The process ends here."""

    def die(*_: object) -> None:
        raise Killed

    with FolderArchive(tmp_path / "archive", "ARCHIVE", script=Script(refused_classes=frozenset({CAPTURE, REPORT}))) as archive:
        town = town_with(make_town, tmp_path, archive.port)
        town.send(ct_study())
        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr(fallback, step, die)
            town.settle()
        assert set(got(archive)) == {MAP}
        town.restart()
        town.post()
        kinds = got(archive)
    assert {uid: len(found) for uid, found in kinds.items()} == {MAP: 1, PICTURE: 2, ENHANCED: 1}
    assert {str(one.SOPInstanceUID) for one in kinds[PICTURE]} <= pointed(kinds[ENHANCED][0])


def test_a_disk_that_is_full_puts_the_stand_in_off_and_a_damaged_file_is_said(make_town: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with FolderArchive(tmp_path / "archive", "ARCHIVE", script=Script(refused_classes=frozenset({REPORT}))) as archive:
        town = town_with(make_town, tmp_path, archive.port)
        town.send(ct_study())
        with monkeypatch.context() as patched:
            patched.setattr(fallback, "_make", full)
            town.settle()
        assert any("cannot be written yet" in message for message in messages(town))
        (place,) = [row for row in tables.status_tables(town.settings)["destinations"] if row["name"] == "archive"]
        assert (place["waiting"], place["stuck"]) == (1, 0)
        town.wait(minutes=2)
        town.post()
        assert set(got(archive)) == {MAP, CAPTURE, ENHANCED} and messages(town) == []
        town.send(ct_study(study="B"))
        with monkeypatch.context() as patched:
            patched.setattr(fallback, "_make", full)
            town.settle()
        (report,) = [row for row in rows(town) if row.kind == "sr" and row.job_id == 2]
        assert report.object is not None
        (town.house.data / report.object.path).write_bytes(b"damaged")
        town.wait(minutes=2)
        town.post()
        assert any("no enhanced-sr could be made in its place" in message and "run the job again" in message for message in messages(town))


def test_an_operator_may_send_what_was_refused_again_before_anything_stands_in_for_it(make_town: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FolderArchive(tmp_path / "archive", "ARCHIVE", script=Script(refused_classes=frozenset({REPORT}))) as archive:
        town = town_with(make_town, tmp_path, archive.port)
        town.send(ct_study())
        with monkeypatch.context() as patched:
            patched.setattr(fallback, "make_due", lambda *_: 0)
            town.settle()
        (report,) = [row for row in rows(town) if row.kind == "sr"]
        assert (report.state.value, report.fallback) == ("refused", "enhanced-sr")
        archive.script = Script()
        retry_delivery(town.house.store, report.id, town.clock)
        town.post()
        assert set(got(archive)) == {MAP, CAPTURE, REPORT}
