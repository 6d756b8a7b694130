"""A node that is its own destination: results come round once, are kept, and start nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.journey.support import ct_study
from tests.node.support import NodeProcess, free_port, wait_until
from tests.node.test_processes import send, write

RULES = """
rules:
  - name: everything, also what a loop would bring
    otherwise: true
    pipeline: null
    results: [notice]
    send_to: [itself]
"""


@pytest.mark.slow
def test_results_that_are_sent_to_the_node_itself_are_taken_and_start_nothing(make_node: Callable[..., NodeProcess]) -> None:
    port = free_port()
    itself = {"kind": "dicom", "ae_title": "PACS_NODE", "address": "127.0.0.1", "port": port, "accepts_research": True}
    node = make_node(rules=RULES, node={"port": port}, destinations={"itself": itself})
    node.port = port
    node.start()
    send(node, write(node.folder / "in", ct_study(4)), [])
    wait_until(lambda: node.has_tables() and node.status()["came_back"], "the result has come round")
    wait_until(node.settled, "all is through")
    assert node.status()["came_back"] == [{"instances": 1, "studies": 1}]
    assert len(node.jobs()) == 1
    assert [(item["name"], item["delivered"], item["stuck"]) for item in node.status()["destinations"] if item["name"] == "itself"] == [("itself", 1, 0)]
    assert "1 results of this node came back to it in 1 studies" in node.command("status").stdout
