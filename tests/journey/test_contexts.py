"""What an archive was seen to refuse is known before the next results are built; what it takes again is known at once."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from pacs_node.config import DicomDestination
from pacs_node.database import alerts, contexts
from pacs_node.delivery.archive import FolderArchive, Script
from pacs_node.journey import build
from tests.delivery.places import free_port
from tests.journey.support import Town, ct_study
from tests.journey.test_fallback import CAPTURE, MAP, REPORT, pointed, rows, town_with
from tests.reception.peers import tool_path, wait_until

Make = Callable[..., Town]
WITHOUT_MAP = Script(refused_classes=frozenset({MAP}))


def send(town: Town, name: str) -> list[tuple[str, str]]:
    """Let a study go all the way; returns kind and state of what its job sends to the archive."""
    known = {row.id for row in rows(town)}
    town.send(ct_study(study=name))
    town.wait(seconds=30)  # however long sending took on a busy machine
    town.settle()
    return [(row.kind, row.state.value) for row in rows(town) if row.id not in known]


def said(town: Town) -> list[str]:
    with town.house.store.read() as session:
        return [alert.message for alert in alerts.open_alerts(session) if alert.kind == "contexts"]


def of_study(archive: FolderArchive, name: str) -> list[Dataset]:
    found = (dcmread(archive.path_of(uid)) for uid in archive.received)
    return [dataset for dataset in found if dataset.StudyInstanceUID == ct_study(study=name)[0].StudyInstanceUID]


def test_after_one_refusal_no_report_refers_to_what_the_archive_does_not_get(make_town: Make, tmp_path: Path) -> None:
    with FolderArchive(tmp_path / "archive", "ARCHIVE", script=WITHOUT_MAP) as archive:
        town = town_with(make_town, tmp_path, archive.port, instead={})
        assert ("pm", "refused") in send(town, "A") and said(town) == []  # what is not known is tried
        assert send(town, "B") == [("sc", "delivered"), ("sr", "delivered")]
        second = of_study(archive, "B")
    [report] = [dataset for dataset in second if dataset.SOPClassUID == REPORT]
    sources = {str(one.SOPInstanceUID) for one in ct_study(study="B")}
    assert {str(one.SOPClassUID) for one in second} == {REPORT, CAPTURE}
    assert pointed(report) <= sources | {str(one.SOPInstanceUID) for one in second}
    [message] = said(town)
    assert message.startswith("archive accepts no Parametric Map Storage: its results are made without pm.")
    folder = [result for result in town.results() if result.StudyInstanceUID == report.StudyInstanceUID]
    assert MAP in {str(result.SOPClassUID) for result in folder}  # the other destination gets all, in objects of its own
    assert report.SOPInstanceUID not in {result.SOPInstanceUID for result in folder}


def test_an_archive_that_takes_the_kind_again_gets_it_with_the_next_study_but_one(make_town: Make, tmp_path: Path) -> None:
    with FolderArchive(tmp_path / "archive", "ARCHIVE", script=WITHOUT_MAP) as archive:
        town, port = town_with(make_town, tmp_path, archive.port, instead={}), archive.port
        send(town, "A")
        send(town, "B")
        assert len(said(town)) == 1
    with FolderArchive(tmp_path / "upgraded", "ARCHIVE", port=port):
        assert send(town, "C") == [("sc", "delivered"), ("sr", "delivered")]  # built before it was asked
        assert said(town) == []
        assert send(town, "D") == [("pm", "delivered"), ("sc", "delivered"), ("sr", "delivered")]


def plan(town: Town, **changes: object) -> tuple[str, ...]:
    """Return what the archive would get of the next job, at a moment and with a configuration of the destination."""
    archive = town.settings.destinations["archive"]
    assert isinstance(archive, DicomDestination)
    town.house.settings = town.settings.model_copy(update={"destinations": {"archive": archive.model_copy(update=changes)}})
    return build.contexts.takeable(town.house, "archive", ("pm", "sc", "sr"))


def test_what_was_learnt_is_forgotten_after_a_week_and_when_the_destination_is_configured_anew(make_town: Make, tmp_path: Path) -> None:
    with FolderArchive(tmp_path / "archive", "ARCHIVE", script=WITHOUT_MAP) as archive:
        town = town_with(make_town, tmp_path, archive.port, instead={})
        send(town, "A")
    everything, less = ("pm", "sc", "sr"), ("sc", "sr")
    assert plan(town) == less
    assert plan(town, address="10.0.0.9") == everything and plan(town, ae_title="OTHER") == everything
    town.wait(days=contexts.HOLDS.days, hours=-1)
    assert plan(town) == less
    town.wait(hours=2)
    assert plan(town) == everything


def test_an_archive_that_was_never_reached_is_taken_to_accept_what_the_rule_says(make_town: Make, tmp_path: Path) -> None:
    town = town_with(make_town, tmp_path, free_port(), instead={})
    assert {kind for kind, _ in send(town, "A")} == {"pm", "sc", "sr"}
    assert {kind for kind, _ in send(town, "B")} == {"pm", "sc", "sr"} and said(town) == []


def test_a_kind_that_another_may_stand_in_for_is_still_built(make_town: Make, tmp_path: Path) -> None:
    with FolderArchive(tmp_path / "archive", "ARCHIVE", script=Script(refused_classes=frozenset({CAPTURE}))) as archive:
        town = town_with(make_town, tmp_path, archive.port, instead={"sc": "single-frame"})
        first = send(town, "A")
        assert ("sc", "replaced") in first and sorted(send(town, "B")) == sorted(first)


def test_facts_are_written_down_once_and_again_when_they_are_old(make_town: Make, tmp_path: Path) -> None:
    town = make_town()
    now = town.clock
    with town.house.store.write() as session:
        contexts.learn(session, "archive", "1", {MAP: False, REPORT: True}, now)
    with town.house.store.write() as session:
        assert contexts.news(session, "archive", "1", {MAP: False, REPORT: True}, now) == {}
        assert contexts.news(session, "archive", "1", {MAP: True}, now) == {MAP: True}
        assert contexts.news(session, "archive", "2", {MAP: False}, now) == {MAP: False}
        assert contexts.news(session, "archive", "1", {MAP: False}, now + timedelta(hours=2)) == {MAP: False}
        assert contexts.refused(session, "archive", "1", now) == {MAP}
        contexts.learn(session, "archive", "1", {MAP: True}, now)
        assert contexts.refused(session, "archive", "1", now) == contexts.refused(session, "other", "1", now) == frozenset()


PROFILE = f"""
[[TransferSyntaxes]]
[Uncompressed]
TransferSyntax1 = LocalEndianExplicit
TransferSyntax2 = LittleEndianImplicit
[[PresentationContexts]]
[Old]
PresentationContext1 = {CAPTURE}\\Uncompressed
PresentationContext2 = {REPORT}\\Uncompressed
[[Profiles]]
[Restricted]
PresentationContexts = Old
"""


@pytest.mark.peers
def test_a_storescp_that_is_configured_for_few_classes_is_learnt(make_town: Make, tmp_path: Path) -> None:
    program, port, folder = tool_path("storescp"), free_port(), tmp_path / "kept"
    folder.mkdir()
    (tmp_path / "storescp.cfg").write_text(PROFILE)
    log = (tmp_path / "storescp.log").open("wb")
    with log, subprocess.Popen([program, "-xf", tmp_path / "storescp.cfg", "Restricted", "-od", folder, str(port)], stdout=log, stderr=log) as peer:
        try:
            wait_until(lambda: f":{port:04X} " in Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text())
            town = town_with(make_town, tmp_path, port, instead={})
            assert ("pm", "refused") in send(town, "A")
            assert send(town, "B") == [("sc", "delivered"), ("sr", "delivered")]
        finally:
            peer.terminate()
            peer.wait()
    assert {dcmread(path).SOPClassUID for path in folder.iterdir()} == {CAPTURE, REPORT}
