"""`/live` and `/ready`: what each check says, and what counts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pacs_node.database.alerts import raise_alert
from pacs_node.database.engine import Store
from pacs_node.monitoring import health, server
from pacs_node.monitoring.counting import Counts
from pacs_node.monitoring.signs import BEAT, DUTY, GATHER
from pacs_node.monitoring.sources import Sources
from pacs_node.reception.pressure import Disk
from tests.monitoring.reader import Reader

Make = Callable[..., Sources]
PROCESSES = ("node", "receiver-0", "receiver-1", "core", "worker-0")


@pytest.fixture
def sources(make_sources: Make) -> Sources:
    """A node whose processes are all there, and whose disk is half full."""
    made = replace(make_sources(), measure=lambda _: Disk(50, 100))
    for process in PROCESSES:
        says(made, process, 0.0)
    return made


def says(sources: Sources, process: str, ago: float, gathered: float = 0.0) -> None:
    """Let a process have given its last sign of life some seconds ago, and the core have gathered some seconds before that."""
    counts = Counts(sources.counts, process)
    counts.set(BEAT, process, value=time.time() - ago)
    if process == "core":
        counts.set(DUTY, GATHER, value=time.time() - ago - gathered)


def failed(sources: Sources) -> set[str]:
    return {check.name for check in health.judge(sources).checks if not check.ok}


def test_a_node_whose_parts_all_work_is_live_and_ready(sources: Sources) -> None:
    reader = Reader(server.application(replace(sources, measure=lambda _: Disk(10**9, 2 * 10**9))))
    assert reader.get("/live").json() == {"live": True, "reasons": []}
    ready = reader.get("/ready")
    assert (ready.status_code, ready.json()["ready"], ready.json()["reasons"]) == (200, True, [])


@pytest.mark.parametrize(("process", "check"), [("core", "core"), ("worker-0", "worker")])
def test_a_process_that_hangs_is_named_and_ends_readiness(sources: Sources, process: str, check: str) -> None:
    says(sources, process, 31.0)
    reader = Reader(server.application(sources))
    live, ready = reader.get("/live"), reader.get("/ready")
    assert (live.status_code, ready.status_code) == (503, 503)
    assert any(reason.startswith(f"{process}: no sign of life for 31 s") for reason in live.json()["reasons"])
    assert any(reason.startswith(f"{check}: {process} gives no sign of life") for reason in ready.json()["reasons"])


def test_one_receiver_of_two_is_enough_to_take_in(sources: Sources) -> None:
    sources = replace(sources, measure=lambda _: Disk(10**9, 2 * 10**9))
    says(sources, "receiver-0", 100.0)
    assert failed(sources) == set()
    assert "receiver-0 gives no sign of life" in health.judge(sources).checks[0].reason
    says(sources, "receiver-1", 100.0)
    assert failed(sources) == {"intake"}


def test_an_intake_that_does_not_come_round_is_a_hanging_core(sources: Sources) -> None:
    says(sources, "core", 0.0, gathered=119.0)
    assert "core" not in failed(sources)
    says(sources, "core", 0.0, gathered=121.0)
    assert "core" in failed(sources)
    assert list(health.hanging(sources)) == ["core: its intake has not come round for 121 s"]


def test_before_processes_have_started_the_node_is_live_but_not_ready(make_sources: Make) -> None:
    fresh = make_sources()
    assert list(health.hanging(fresh)) == []
    assert {"intake", "core", "worker"} <= failed(fresh)


def test_what_runs_elsewhere_is_not_judged_here(make_sources: Make) -> None:
    core = replace(make_sources(), roles=("core",), measure=lambda _: Disk(10**9, 2 * 10**9))
    says(core, "core", 0.0)
    assert failed(core) == set()


@pytest.mark.parametrize(("free", "ready"), [(1251, True), (1250, False), (0, False)])  # the reserve is 1 kB; associations are rejected a quarter before
def test_a_full_disk_ends_readiness_where_associations_are_rejected(sources: Sources, free: int, ready: bool) -> None:
    full = replace(sources, measure=lambda _: Disk(free, 10**6))
    assert ("disk" not in failed(full)) is ready
    if not ready:
        assert any(reason.startswith("disk: ") for reason in health.judge(full).as_json()["reasons"])  # type: ignore[attr-defined]


def test_a_database_that_is_away_ends_readiness_and_not_the_answer(sources: Sources) -> None:
    away = replace(sources, store=Store("postgresql+psycopg://nobody@127.0.0.1:1/none", reads_only=True, speaks=False))
    found = health.judge(away)
    assert not found.ready
    assert {"database", "destinations", "alerts"} <= failed(away)
    text = Reader(server.application(away)).get("/metrics").text
    assert "pacs_node_database_up 0.0" in text
    assert "pacs_node_disk_free_bytes" in text
    assert "pacs_node_studies{" not in text


def test_destinations_and_alerts_are_reported_and_do_not_count(sources: Sources) -> None:
    sources = replace(sources, measure=lambda _: Disk(10**9, 2 * 10**9))
    writer = Store(sources.store.url)
    with writer.write() as session:
        raise_alert(session, "destination", "research", "it is away", datetime.now(UTC))
    found = health.judge(sources)
    assert found.ready
    assert failed(sources) == {"destinations", "alerts"}
    assert "down: research" in str(found.as_json())


def test_a_bundle_without_weights_is_named(make_sources: Make, tmp_path: Path) -> None:
    made = make_sources()
    node = made.settings.node.model_copy(update={"models": tmp_path / "models"})
    made = replace(made, settings=made.settings.model_copy(update={"node": node}))
    assert "bundles" in failed(made)
    (tmp_path / "models" / "ct-own").mkdir(parents=True)
    (tmp_path / "models" / "ct-own" / "model.yaml").write_text("name: ct-own")
    assert "ct-own without weights" in str(health.judge(made).as_json())
    (tmp_path / "models" / "ct-own" / "weights.safetensors").touch()
    assert "bundles" not in failed(made)


def test_without_room_for_signs_of_life_nothing_is_held_against_processes(make_sources: Make) -> None:
    blind = replace(make_sources(), counts=None, measure=lambda _: Disk(10**9, 2 * 10**9))
    assert failed(blind) == set()
    assert "not known" in str(health.judge(blind).as_json())


def test_the_answer_names_no_patient_and_no_study(sources: Sources) -> None:
    assert set(health.judge(sources).as_json()["checks"]) == {  # type: ignore[call-overload]
        "intake", "disk", "database", "core", "worker", "bundles", "destinations", "alerts",
    }  # fmt: skip
