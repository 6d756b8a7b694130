"""A real node that is killed around the telling of an event, and one that sends itself a heartbeat."""

from __future__ import annotations

import base64
import signal
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from standardwebhooks import Webhook as Verifier

from pacs_node import crash
from pacs_node.database import heartbeats
from pacs_node.dicom.header import read_header
from pacs_node.records import HEARTBEAT_PATIENT
from pacs_node.workbench.tables import open_store
from tests.delivery.hook import Hook
from tests.node.support import NOTICE_RULES, NodeProcess, free_port, wait_until

pytestmark = pytest.mark.slow

Make = Callable[..., NodeProcess]
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


def a_node_that_tells(make_node: Make, tmp_path: Path, port: int) -> NodeProcess:
    (tmp_path / "secret").write_text(SECRET)
    return make_node(events={"webhooks": [{"url": f"http://127.0.0.1:{port}/", "secret_file": str(tmp_path / "secret"), "name": "ops"}]})


def break_rules(node: NodeProcess) -> None:
    """Make a fault of which the parent process writes the event: new rules that cannot be read."""
    assert node.process is not None
    wait_until(node.has_tables, "the core has made its tables")
    (node.folder / "rules.yaml").write_text("rules: {")
    node.process.send_signal(signal.SIGHUP)
    wait_until(lambda: [alert for alert in node.status()["alerts"] if alert["kind"] == "rules"], "the fault is said")


def test_an_event_of_a_node_that_was_killed_before_it_was_told_arrives_after_its_next_start(make_node: Make, tmp_path: Path) -> None:
    port = free_port()
    node = a_node_that_tells(make_node, tmp_path, port).start()
    break_rules(node)
    node.kill()
    (node.folder / "rules.yaml").write_text(NOTICE_RULES)
    with closing(Hook(port)) as hook:
        node.start()
        post = wait_until(lambda: next((one for one in hook.posts if one.event.get("fault", {}).get("kind") == "rules"), None), "it is told", 120)
        assert Verifier(SECRET).verify(post.body, dict(post.headers))["fault"]["subject"] == "rules.yaml"


def test_an_event_that_was_told_when_the_process_was_killed_comes_again_as_the_same(make_node: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    monkeypatch.setenv(crash.VARIABLE, f"{marks}:told=1")
    with closing(Hook()) as hook:
        node = a_node_that_tells(make_node, tmp_path, hook.port).start()
        break_rules(node)
        wait_until(lambda: (marks / "told").exists(), "the core was killed after it told")
        told = wait_until(lambda: len(found := [one for one in hook.posts if one.event.get("fault", {}).get("kind") == "rules"]) > 1 and found, "again", 120)
        first, second = told[:2]
        assert (first.headers["webhook-id"], first.body) == (second.headers["webhook-id"], second.body)


RULES = """
rules:
  - name: head CT
    when: {Modality: CT, BodyPartExamined: HEAD}
    pipeline: ct-head
    results: [sr]
    send_to: [research]
  - {name: anything else, otherwise: true, pipeline: null, results: []}
"""


def test_a_node_sends_itself_a_heartbeat_that_comes_back(make_node: Make, tmp_path: Path) -> None:
    probe = {"kind": "folder", "path": str(tmp_path / "probe")}
    node = make_node(rules=RULES, destinations={"probe": probe}, heartbeat={"destination": "probe", "every": "1h", "within": "10min"})
    node.start()
    wait_until(node.has_tables, "the core has made its tables")
    with open_store(node.settings) as store:

        def back() -> object:
            with store.read() as session:
                return heartbeats.latest_back(session)

        row = wait_until(back, "the heartbeat is back", 200)
        assert row.begun_at <= row.sent_at
        assert row.begun_at < row.received_at <= row.analysed_at <= row.delivered_at
    headers = [read_header(path) for path in (tmp_path / "probe").rglob("*.dcm")]
    assert {str(header.PatientID) for header in headers} == {HEARTBEAT_PATIENT}
    assert not list((node.folder / "out").rglob("*.dcm"))
