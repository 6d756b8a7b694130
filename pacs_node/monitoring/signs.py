"""Signs of life: when each process on this machine last said that it is there (`counting.Counts.beat`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.multiprocess import MultiProcessCollector

from pacs_node.monitoring.counting import UNREADABLE

BEAT, DUTY, GATHER = "pacs_node_process_beat_timestamp_seconds", "pacs_node_duty_run_timestamp_seconds", "gather"


@dataclass(frozen=True, slots=True)
class Signs:
    """Unix times: of the last sign of each process, and of the last round of the core's intake, None before the first."""

    beats: Mapping[str, float] = field(default_factory=dict)
    gathered: float | None = None


def read_signs(folder: Path | None) -> Signs:
    """Read what the processes said; a file that comes or goes meanwhile is left out."""
    beats: dict[str, float] = {}
    gathered = None
    for file in sorted(folder.glob("gauge_*.db")) if folder is not None else []:
        try:
            metrics = list(MultiProcessCollector.merge([str(file)]))
        except UNREADABLE:
            continue
        for sample in (sample for metric in metrics for sample in metric.samples):
            if sample.name == BEAT:
                beats[sample.labels["process"]] = sample.value
            elif sample.name == DUTY and sample.labels["duty"] == GATHER:
                gathered = sample.value
    return Signs(beats, gathered)
