"""A node between scanner and archive: storescu sends to it, Orthanc gets the originals and then what was made of them, each once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pacs_node import crash
from pacs_node.workbench import tables
from tests.journey.support import ct_study, encode_body
from tests.node.orthanc import Orthanc
from tests.node.support import NodeProcess, wait_until
from tests.node.test_crash_points import COUNT, fired, order, send_until_all_are_acknowledged
from tests.node.test_processes import write

RULES = """
rules:
  - name: through
    when: {Modality: CT}
    pipeline: null
    results: [notice]
    send_to: [orthanc]
    forward: [orthanc]
"""


@pytest.fixture
def orthanc(tmp_path: Path, tool: Callable[[str], str]) -> Iterator[Orthanc]:
    made = Orthanc(tmp_path / "orthanc", tool("Orthanc"), DicomAlwaysAllowFind=True)
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.peers
def test_an_archive_that_was_off_and_a_core_that_dies_while_it_forwards_leave_each_instance_there_once(
    make_node: Callable[..., NodeProcess], orthanc: Orthanc, tool: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make_node(rules=RULES, destinations={"orthanc": {**orthanc.place, "verify_identity": True}}, reception={"processes": 1})
    monkeypatch.setenv(crash.VARIABLE, order(node.folder / "crashes", ["sent", "committed"], 3))
    node.start()
    study = ct_study(COUNT)
    send_until_all_are_acknowledged(tool, node, write(node.folder / "in", study))
    wait_until(lambda: any(row["attempts"] for row in tables.delivery_rows(node.settings, 50)), "it is tried while the archive is off")
    orthanc.start()
    wait_until(lambda: node.settled() and len(orthanc.instances()) == COUNT + 1, "all is there", 150)
    assert fired(node.folder / "crashes") == {"sent", "committed"}
    there = orthanc.instances()
    for ds in study:
        assert _body(orthanc.file(there[str(ds.SOPInstanceUID)])) == encode_body(ds)
    (notice,) = there.keys() - {str(ds.SOPInstanceUID) for ds in study}
    assert orthanc.tags(there[notice])["Modality"] == "SR"
    assert {row["state"] for row in tables.delivery_rows(node.settings, 50)} == {"delivered"}
    assert node.status()["alerts"] == []


def _body(content: bytes) -> bytes:
    """Return what comes after the file meta information of a Part 10 file."""
    length = int.from_bytes(content[140:144], "little")
    return content[144 + length :]
