"""What is said of events to those who are told: no patient data unless asked for, one mail for a flood."""

from __future__ import annotations

import ast
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from pacs_node.config import Email, Webhook
from pacs_node.monitoring import events as words
from pacs_node.monitoring.logs import study_tag
from pacs_node.records import FAULT_KINDS, Event
from tests.conftest import ROOT

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
UID = "1.2.826.0.1.3680043.8.498.12345678901234567890"
RESULT = {
    "study_uid": UID, "job": 4, "run": 1, "pipeline": "ct-head", "bundle": "ct-head 1.2", "state": "done", "score": 1.5, "verdict": "unremarkable",
    "percentile": None, "partial": False, "reason": "", "destinations": ["archive"],
}  # fmt: skip


def hook(**more: object) -> Webhook:
    return Webhook.model_validate({"url": "https://ops.example/x", "secret_env": "S", **more})


def event(kind: str = "parked", *, over: bool = False, subject: str = "job 4", **detail: object) -> Event:
    return Event("e-1", NOW, kind, over, subject, detail)


def body(one: Event, **more: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(words.body(one, hook(**more), "node-1"))
    return found


def test_a_result_names_the_study_by_a_hash_unless_its_uid_is_asked_for() -> None:
    found = body(event("result", **RESULT))
    assert (found["id"], found["type"], found["at"], found["node"]) == ("e-1", "result", "2026-03-01T12:00:00+00:00", "node-1")
    assert found["result"] == {
        "study": study_tag(UID), "job": 4, "run": 1, "pipeline": "ct-head", "bundle": "ct-head 1.2", "state": "done", "score": 1.5,
        "verdict": "unremarkable", "partial": False, "destinations": ["archive"],
    }  # fmt: skip
    assert UID not in json.dumps(found)
    assert body(event("result", **RESULT), study="uid")["result"]["study"] == UID


def test_words_that_may_come_from_elsewhere_are_told_only_where_details_are_asked_for() -> None:
    said = "job 4 was parked: the archive said Doe^Jane"
    assert body(event(message=said))["fault"] == {
        "kind": "parked", "subject": "job 4", "message": "job 4 was given up and waits for `pacs-node retry`. `pacs-node status` says more",
    }  # fmt: skip
    assert body(event(message=said), details=True)["fault"]["message"] == said
    reason = {**RESULT, "state": "not_analysed", "reason": "the description says Doe^Jane"}
    assert "reason" not in body(event("result", **reason))["result"]
    assert body(event("result", **reason), details=True)["result"]["reason"] == "the description says Doe^Jane"


def test_the_nodes_own_words_are_told_with_uids_hashed() -> None:
    found = body(event("disk", subject="data folder", message=f"./data has 1.2 GB free at 10.0.0.9, {UID}"))
    assert found["fault"]["message"] == f"./data has 1.2 GB free at 10.0.0.9, uid:{study_tag(UID)}"


def test_the_end_of_a_fault_says_since_when_it_was() -> None:
    found = body(event("destination", over=True, subject="archive", since="2026-03-01T10:00:00+00:00"))
    assert (found["type"], found["fault"]["since"]) == ("fault.over", "2026-03-01T10:00:00+00:00")


def test_a_flood_of_faults_is_one_bounded_mail() -> None:
    email = Email.model_validate({"host": "h", "sender": "a@b.example", "to": ["c@d.example"]})
    flood = [event("quarantine", subject=f"file {number}", message="Doe^Jane") for number in range(1000)]
    subject, text = words.mail([*flood, event(over=True)], email, "node-1")
    assert subject == "pacs-node node-1: 1000 faults, 1 over"
    assert "file 0 could not be dealt with and lies in quarantine" in text
    assert "file 99 " in text
    assert "file 100 " not in text
    assert "and 901 more" in text
    assert "Doe" not in text


@pytest.mark.parametrize(
    ("kinds", "wanted"), [(["fault"], {"parked", "disk"}), (["result"], {"result"}), (["disk", "result"], {"disk", "result"}), (["parked"], {"parked"})]
)
def test_a_receiver_is_told_of_the_kinds_that_it_asks_for(kinds: list[str], wanted: set[str]) -> None:
    assert {kind for kind in ("result", "parked", "disk") if hook(kinds=kinds).wants(kind)} == wanted


def test_every_kind_of_alert_that_the_code_raises_is_known_to_receivers() -> None:
    raised = set()
    for file in (ROOT / "pacs_node").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                place = {"alert": 0, "raise_alert": 1}.get(name)
                if place is not None and len(node.args) > place and isinstance(found := node.args[place], ast.Constant):
                    raised.add(found.value)
    assert {"destination", "disk", "drift", "held", "process"} <= raised
    assert raised <= set(FAULT_KINDS)
