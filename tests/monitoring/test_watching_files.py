"""The alert rules and the dashboard: valid, and about metrics that exist."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pacs_node.monitoring.metrics import TABLE, Kind

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
ALERTS, BOARD = DEPLOY / "prometheus" / "alerts.yaml", DEPLOY / "grafana" / "pacs-node.json"
LABELS = {series: set(metric.labels) | ({"le"} if series.endswith("_bucket") else set()) | {"instance"} for metric in TABLE for series in metric.series}


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def board() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(BOARD.read_text())
    return found


def questions() -> Iterator[tuple[str, str]]:
    """Give (where, expression) of every rule and panel, and of what fills the choices of the dashboard."""
    for rule in rules():
        yield f"alert {rule['alert']}", rule["expr"]
    for panel in board()["panels"]:
        for target in panel.get("targets", ()):
            yield f"panel {panel['title']}", target["expr"]
    for choice in board()["templating"]["list"]:
        if choice["type"] == "query":
            yield f"choice {choice['name']}", choice["query"]["query"]


@pytest.mark.parametrize(("where", "expression"), list(questions()))
def test_every_metric_and_label_that_is_asked_for_exists(where: str, expression: str) -> None:
    asked = re.findall(r"(pacs_node_\w+)(?:\{([^}]*)\})?", expression)
    assert asked or "up{" in expression, where
    for name, selector in asked:
        assert name in LABELS, f"{where}: there is no {name}"
        assert {label for label, _ in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"', selector)} <= LABELS[name], where
    for by in re.findall(r"by \(([^)]*)\)", expression):
        known = set().union(*(LABELS[name] for name, _ in asked))
        assert {label.strip() for label in by.split(",")} <= known, where


def test_every_metric_is_on_the_dashboard_or_in_an_alert_or_needs_none() -> None:
    text = " ".join(expression for _, expression in questions())
    seen = {metric.name for metric in TABLE if any(series in text for series in metric.series)}
    needs_none = {"pacs_node_aside", "pacs_node_duty_run_timestamp_seconds", "pacs_node_associations_accepted", "pacs_node_disk_capacity_bytes"}
    assert {metric.name for metric in TABLE} - seen <= needs_none


def test_counters_are_asked_for_by_their_growth() -> None:
    counters = [metric.shown for metric in TABLE if metric.kind is Kind.COUNTER]
    for where, expression in questions():
        for name in counters:
            if re.search(rf"{name}\b", expression):
                assert re.search(rf"(rate|increase)\({name}\b", expression), where


def test_every_alert_says_what_to_do() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert set(rule["annotations"]) == {"summary", "remedy"}


def test_prometheus_takes_the_rules_and_they_fire_when_they_should(tool: Callable[[str], str]) -> None:
    promtool = tool("promtool")
    for command in (["check", "rules", "alerts.yaml"], ["test", "rules", "alerts_test.yaml"], ["check", "config", "--syntax-only", "prometheus.yaml"]):
        done = subprocess.run([promtool, *command], cwd=ALERTS.parent, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_understands_every_question_of_the_dashboard(tool: Callable[[str], str], tmp_path: Path) -> None:
    asked = [expression for where, expression in questions() if where.startswith("panel")]
    plain = [expression.replace("$__rate_interval", "5m").replace("$__interval", "5m") for expression in asked]
    recorded = [{"record": f"panel_{number}", "expr": expression} for number, expression in enumerate(plain)]
    (tmp_path / "board.yaml").write_text(yaml.safe_dump({"groups": [{"name": "board", "rules": recorded}]}))
    done = subprocess.run([tool("promtool"), "check", "rules", str(tmp_path / "board.yaml")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_panels_do_not_lie_on_one_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in board()["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
