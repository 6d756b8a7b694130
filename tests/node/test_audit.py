"""The audit trail of a running node, with its copy at a collector."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pacs_node.delivery import cstore
from tests.certificates import Authority
from tests.journey.support import ct_study
from tests.monitoring.audit_structure import faults
from tests.monitoring.collector import Collector
from tests.node.support import NodeProcess, wait_until
from tests.node.test_processes import send, write


@pytest.fixture
def collector(tmp_path: Path, tool: Callable[[str], str]) -> Iterator[tuple[Collector, Path]]:
    authority = Authority(tmp_path / "pki", tool("openssl"))
    started = Collector(authority.sign("collector"))
    yield started, authority.file
    started.stop()


def text_of(line: bytes) -> str:
    return line.partition(b"\xef\xbb\xbf")[2].decode()


@pytest.mark.slow
def test_a_node_leaves_its_life_in_the_trail_and_with_the_collector(make_node: Callable[..., NodeProcess], collector: tuple[Collector, Path]) -> None:
    there, ca = collector
    node = make_node(
        audit={"syslog": {"host": "127.0.0.1", "port": there.port, "tls": {"ca": str(ca)}}},
        reception={"reserve": "0B", "senders": [{"ae_title": "TEST"}, {"ae_title": "SENDER"}]},
    ).start()
    assert not cstore.probe(node.address, "EVE", ()).reachable
    send(node, write(node.folder / "in", ct_study(4)), [])
    wait_until(lambda: node.jobs() and node.settled(), "the study is through")
    (node.folder / "rules.yaml").write_text("rules: [{nonsense: true}]")
    node.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
    wait_until(lambda: "rules refused" in node.command("audit", "list").stdout, "the wrong rules are written down")
    wanted = {"started", "receiving", "received", "analysed", "sent", "sender refused", "rules refused"}
    wait_until(
        lambda: all(any(f'csd-code="{action}"'.encode() in line for line in list(there.messages)) for action in wanted), "all of it is with the collector"
    )
    assert node.terminate() == 0
    rows = [json.loads(line) for line in node.command("audit", "export").stdout.splitlines()]
    assert rows[0]["action"] == "started"
    assert set(rows[0]["detail"]) >= {"version", "host", "configuration", "rules"}
    assert "stopped" in {row["action"] for row in rows}
    assert [faults(text_of(line)) for line in there.messages] == [[] for _ in there.messages]
    anchor = next(json.loads(line)["anchor"] for line in node.log().splitlines() if "audit anchor" in line)
    done = node.command("audit", "verify", "--anchor", anchor)
    assert done.returncode == 0, done.stdout + done.stderr
