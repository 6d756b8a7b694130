from __future__ import annotations

import contextlib
import logging
import os
import sys
from pathlib import Path

import pytest
import structlog

from pacs_node.monitoring import logs
from pacs_node.monitoring.logs import study_tag
from tests.journey.support import Town, ct_study


def test_a_study_has_a_short_name_that_says_nothing_about_the_patient() -> None:
    assert study_tag("1.2.3") == study_tag("1.2.3") != study_tag("1.2.4")
    assert len(study_tag("1.2.3")) == 12


def test_the_log_of_a_journey_names_no_patient(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    town = Town(tmp_path)
    town.send(ct_study(patient="SECRET4711"))
    town.settle()
    town.send(ct_study(patient="OTHER0815"))
    town.settle()
    town.house.store.close()
    said = capsys.readouterr()
    text = said.out + said.err
    assert "job finished" in text
    assert "delivery" in text
    for word in ("SECRET4711", "OTHER0815", "19700101", "Test^"):
        assert word not in text


def test_a_log_that_nobody_reads_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w", buffering=1) as pipe:
        monkeypatch.setattr(sys, "stderr", pipe)
        logs.configure(process="test", json_lines=True)
        structlog.get_logger().info("heard")
        assert '"event": "heard"' in os.read(reader, 1000).decode()
        os.close(reader)
        structlog.get_logger().error("not heard any more")
        logging.getLogger("somebody").warning("nor this")
        with contextlib.suppress(BrokenPipeError):
            pipe.close()
    structlog.get_logger().error("nor this")
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    logging.getLogger().handlers = [handler for handler in logging.getLogger().handlers if "_Stderr" not in repr(getattr(handler, "stream", ""))]
