"""`pacs-node check` names who could not be told, or could not tell us, the outcome of a storage commitment."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pacs_node.config import Settings, load_settings
from pacs_node.workbench.check import examine
from tests.delivery.committing import CommittingArchive

ARCHIVE = {"kind": "dicom", "ae_title": "ARCHIVE", "address": "127.0.0.1", "port": 104, "accepts_research": True, "commitment": True}


@pytest.mark.parametrize(
    ("reception", "words"),
    [
        ({"senders": [{"ae_title": "CT1"}]}, "may come as ARCHIVE, which is not among reception.senders"),
        ({"senders": [{"ae_title": "ARCHIVE"}]}, ""),
        ({"commitment": True, "senders": [{"ae_title": "ARCHIVE"}, {"ae_title": "CT1"}]}, "where CT1 listens for reports is not known"),
        ({"commitment": True, "senders": [{"ae_title": "ARCHIVE"}, {"ae_title": "CT1", "port": 105}]}, ""),
        ({"commitment": True}, "reports go to senders whose `port` is in reception.senders"),
    ],
    ids=["archive not allowed", "archive allowed", "port unknown", "port known", "no senders"],
)
def test_what_stands_in_the_way_of_a_report_is_named(tmp_path: Path, reception: dict[str, object], words: str) -> None:
    config = tmp_path / "node.yaml"
    config.write_text(yaml.safe_dump({"node": {"data": str(tmp_path / "data")}, "reception": reception, "destinations": {"archive": ARCHIVE}}))
    warnings = [text for mark, text in examine(config, load_settings, echo=False).lines if mark == "warning" and ("commitment" in text or "reports" in text)]
    assert any(words in text for text in warnings) if words else warnings == []


@pytest.mark.parametrize("commits", [True, False])
def test_an_archive_that_takes_no_storage_commitment_is_a_fault_before_anything_is_sent(tmp_path: Path, commits: bool) -> None:
    with CommittingArchive(commits=commits) as archive:
        settings = Settings.model_validate({"node": {"data": str(tmp_path / "data")}, "destinations": {"archive": {**ARCHIVE, "port": archive.port}}})
        faults = [text for mark, text in examine(None, lambda _: settings, echo=True).lines if mark == "fault" and "takes no storage commitment" in text]
    assert len(faults) == (0 if commits else 1)
