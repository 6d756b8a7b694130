"""What `check` says of those who are told of events."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from standardwebhooks import Webhook as Verifier

from pacs_node.config import Settings
from pacs_node.workbench import check_events
from tests.delivery.hook import Hook

SECRET = "whsec_" + "QUJD" * 12


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()
    yield made
    made.stop()


def settings(tmp_path: Path, port: int, secret: str = SECRET) -> Settings:
    (tmp_path / "secret").write_text(secret)
    (tmp_path / "secret").chmod(0o644)
    return Settings.model_validate({"events": {"webhooks": [{"url": f"http://127.0.0.1:{port}/", "secret_file": tmp_path / "secret", "name": "ops"}]}})


def test_secrets_that_others_can_read_or_that_are_none_are_said(tmp_path: Path) -> None:
    lines = list(check_events.examine(settings(tmp_path, 1)))
    assert [mark for mark, _ in lines] == ["warning", "ok"]
    assert "chmod 600" in lines[0][1]
    assert [mark for mark, _ in check_events.examine(settings(tmp_path, 1, "short"))] == ["fault"]


def test_a_receiver_is_asked_with_a_signed_test(tmp_path: Path, hook: Hook) -> None:
    assert list(check_events.ask(settings(tmp_path, hook.port))) == [("ok", "events: ops takes them")]
    assert Verifier(SECRET).verify(hook.posts[0].body, dict(hook.posts[0].headers))["type"] == "test"
    hook.stop()
    ((mark, text),) = check_events.ask(settings(tmp_path, hook.port))
    assert (mark, "cannot be reached" in text) == ("fault", True)


def test_where_heartbeats_go_is_said(tmp_path: Path) -> None:
    settings = Settings.model_validate({"heartbeat": {"destination": "research"}})
    assert list(check_events.heartbeat(settings)) == [("ok", "heartbeat: a phantom every 1h, whose results go to research only")]
    assert list(check_events.heartbeat(Settings())) == []
