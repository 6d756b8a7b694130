"""The page as a process of the node."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.node.support import NodeProcess, free_port, wait_until

Make = Callable[..., NodeProcess]


def ask(port: int, path: str) -> httpx.Response | None:
    try:
        return httpx.get(f"http://127.0.0.1:{port}{path}", timeout=5)
    except httpx.TransportError:
        return None


def process_named(node: NodeProcess, name: str) -> int:
    return next(pid for pid in node.children() if Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").endswith(name.encode()))


@pytest.mark.slow
def test_the_page_is_served_and_served_again_after_its_process_was_killed(make_node: Make) -> None:
    port = free_port()
    node = make_node(monitoring={"port": port}).start()
    wait_until(lambda: ask(port, "/live"), "the page answers")
    assert ask(port, "/").status_code == 200  # type: ignore[union-attr]
    os.kill(process_named(node, "page"), signal.SIGKILL)
    wait_until(lambda: "process died" in node.log(), "its death is noticed")
    wait_until(lambda: (found := ask(port, "/live")) is not None and found.status_code == 200, "the page answers again")
    assert node.terminate() == 0


@pytest.mark.slow
def test_a_port_of_the_page_that_is_taken_is_said_in_one_sentence(make_node: Make) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        refused = make_node(monitoring={"port": taken}).command("run")
    assert refused.returncode == 1
    assert f"cannot listen on 127.0.0.1:{taken}" in refused.stderr
    assert "monitoring.port" in refused.stderr
    assert "Traceback" not in refused.stderr
