"""`pacs-node check --echo`: what a destination would take, asked by the negotiation with which it is sent."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from pacs_node.config import Settings
from pacs_node.delivery.archive import FolderArchive, Script
from pacs_node.workbench.check import examine

REPORT, CAPTURE, MAP = "1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.7.4", "1.2.840.10008.5.1.4.1.1.30"


def ask(folder: Path, script: Script, **changes: Any) -> list[tuple[str, str]]:
    with FolderArchive(folder / "archive", "ARCHIVE", script=script) as archive:
        place = {"kind": "dicom", "ae_title": "ARCHIVE", "address": "127.0.0.1", "port": archive.port, "accepts_research": True, **changes}
        settings = Settings.model_validate({"node": {"data": str(folder / "data")}, "destinations": {"pacs": place}})
        return [line for line in examine(None, lambda _: settings, echo=True).lines if line[1].startswith("destination pacs ")]


def nothing(_: Dataset) -> Iterable[tuple[int, Dataset | None]]:
    return []


def test_a_destination_that_takes_all_is_praised(tmp_path: Path) -> None:
    ((mark, text),) = ask(tmp_path, Script())
    assert mark == "ok" and all(kind in text for kind in ("pm", "sc", "sr", "notice")) and "enhanced-sr" not in text


def test_a_kind_that_is_not_taken_is_named_with_the_fallback_that_would_help(tmp_path: Path) -> None:
    (ok, warning) = ask(tmp_path, Script(refused_classes=frozenset({REPORT, MAP})))
    assert ok[0] == "ok" and "sc" in ok[1]
    assert warning[0] == "warning" and "does not accept pm, sr" in warning[1] and "sr: enhanced-sr in `fallback`" in warning[1]


def test_a_kind_with_a_fallback_that_is_taken_is_no_warning(tmp_path: Path) -> None:
    lines = ask(tmp_path, Script(refused_classes=frozenset({REPORT, CAPTURE})), fallback={"sr": "enhanced-sr", "sc": "single-frame"})
    assert [mark for mark, _ in lines] == ["ok"] * 3
    assert "sr: enhanced-sr goes there in its place" in lines[1][1]


@pytest.mark.parametrize(("script", "marks"), [(Script(), ["ok", "fault"]), (Script(find=nothing), ["ok"])])
def test_comparing_the_patient_needs_queries(tmp_path: Path, script: Script, marks: list[str]) -> None:
    lines = ask(tmp_path, script, verify_identity=True)
    assert [mark for mark, _ in lines] == marks
    assert marks == ["ok"] or "takes no queries" in lines[1][1]
