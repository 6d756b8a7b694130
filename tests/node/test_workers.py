"""Workers as processes: killed, suspended, hanging in the middle of a job. The job is done once, and its results come once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from pacs_node import crash
from pacs_node.journey.heart import HUNG
from pacs_node.workbench.tables import job_page
from tests.journey.support import ct_study
from tests.node.support import NodeProcess, wait_until
from tests.node.test_processes import send, write

pytestmark = pytest.mark.slow

Make = Callable[..., NodeProcess]


def stopped_worker(node: NodeProcess) -> int | None:
    """Return the process number of a worker that is suspended."""
    for pid in node.children():
        if "worker" in Path(f"/proc/{pid}/cmdline").read_text() and Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T":
            return pid
    return None


def assert_done_once(node: NodeProcess, attempts: int) -> None:
    wait_until(node.settled, "the study is through")
    [job] = node.jobs()
    assert job["state"] == "not_analysed"
    assert len(list((node.folder / "out").rglob("*.dcm"))) == 1
    assert job_page(node.settings, job["id"])["facts"]["attempts"] == attempts


@pytest.mark.parametrize("others", [0, 1], ids=["it takes the job again", "another worker has done it"])
def test_a_worker_suspended_beyond_its_lease_that_goes_on_later_does_nothing_twice(make_node: Make, monkeypatch: pytest.MonkeyPatch, others: int) -> None:
    node = make_node(reception={"processes": 1}, executor={"lease": "2s", "devices": ["cpu"] * (1 + others)})
    monkeypatch.setenv(crash.VARIABLE, f"{node.folder}:built=1+stop")
    node.start()
    send(node, write(node.folder / "in", ct_study(3)), [])
    pid = wait_until(lambda: stopped_worker(node), "a worker is suspended with its work done and not committed")
    done = "not_analysed" if others else "queued"
    wait_until(lambda: node.jobs()[0]["state"] == done, "its lease is over")
    os.kill(pid, signal.SIGCONT)
    assert_done_once(node, attempts=2)
    wait_until(lambda: "job given up" in node.log(), "the suspended worker notices that its job is lost")
    assert "process died" not in node.log()
    assert len(list((node.folder / "out").rglob("*.dcm"))) == 1


def test_a_worker_that_hangs_beyond_the_deadline_of_its_job_is_replaced_and_the_job_is_done_once(make_node: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    node = make_node(reception={"processes": 1}, executor={"job_deadline": "15s"})
    monkeypatch.setenv(crash.VARIABLE, f"{node.folder}:analysed=1+hang")
    node.start()
    send(node, write(node.folder / "in", ct_study(3)), [])
    wait_until(lambda: "process died" in node.log(), "the process that hangs is ended")
    assert f"exit_code={HUNG}" in node.log() or f'"exit_code": {HUNG}' in node.log()
    assert_done_once(node, attempts=2)
    assert "job hangs" in node.log()


def test_a_worker_killed_in_the_middle_of_its_job_is_replaced_and_the_job_is_done_once(make_node: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    node = make_node(reception={"processes": 1})
    monkeypatch.setenv(crash.VARIABLE, f"{node.folder}:built=1")
    node.start()
    send(node, write(node.folder / "in", ct_study(3)), [])
    wait_until(lambda: "process died" in node.log(), "the worker is killed")
    assert_done_once(node, attempts=2)
