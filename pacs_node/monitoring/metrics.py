"""What is measured: one table, from which `/metrics` and its documentation are made. Names follow Prometheus' conventions, units are in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """How a metric behaves, in Prometheus' words."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class From(Enum):
    """Where a value comes from."""

    RECEIVERS = "counted by the receivers"
    CORE = "counted by the core"
    WORKERS = "counted by the workers"
    PROCESSES = "said by every process"
    DATABASE = "read from the database when it is asked for"
    DISK = "read from the disk when it is asked for"
    PAGE = "known to the page's process"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. ``bounds`` are the upper bounds of a histogram's buckets, +Inf left out; counters are named without ``_total``, which is added."""

    name: str
    kind: Kind
    source: From
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()

    @property
    def shown(self) -> str:
        """The name by which a counter, a gauge, or the family of a histogram is asked for."""
        return f"{self.name}_total" if self.kind is Kind.COUNTER else self.name

    @property
    def series(self) -> tuple[str, ...]:
        """The names of its time series."""
        if self.kind is Kind.HISTOGRAM:
            return (f"{self.name}_bucket", f"{self.name}_sum", f"{self.name}_count")
        return (self.shown,)


_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)  # seconds
_WORK = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0)
_STUDY = (5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 21_600.0, 86_400.0)
_SCORES = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.5, 10.0, 15.0, 20.0, 50.0)
_PERCENTILES = (5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0)

_C, _G, _H = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM

TABLE: tuple[Metric, ...] = (
    # 1 reception
    Metric("pacs_node_associations_accepted", _C, From.RECEIVERS, "Associations that were accepted."),
    Metric("pacs_node_associations_rejected", _C, From.RECEIVERS, "Associations that were rejected, by why (PS3.8 9.3.4).", ("reason",)),
    Metric(
        "pacs_node_associations_ended", _C, From.RECEIVERS,
        "Accepted associations that are over: released, or aborted by either side or the network.", ("how",),
    ),
    Metric("pacs_node_associations_open", _G, From.RECEIVERS, "Associations that are open now, by process.", ("process",)),
    Metric("pacs_node_instances_answered", _C, From.RECEIVERS, "C-STORE requests by how they were answered (PS3.4 Table B.2-1).", ("answer",)),
    Metric("pacs_node_received_bytes", _C, From.RECEIVERS, "Bytes of datasets that were taken in, refused ones included."),
    Metric(
        "pacs_node_spool_sync_seconds", _H, From.RECEIVERS,
        "Time from the last byte of an instance until it was durable: its file synced, named, and the folder synced.", (), _FAST,
    ),
    # 2 assembly, 3 routing
    Metric("pacs_node_spool_entries", _G, From.DISK, "Acknowledged instances and marks of ended associations that the core has not taken in yet."),
    Metric("pacs_node_studies", _G, From.DATABASE, "Studies by state.", ("state",)),
    Metric(
        "pacs_node_study_oldest_receiving_seconds", _G, From.DATABASE,
        "Age of the oldest study that is not complete yet, since its first instance; 0: none.",
    ),
    # 4 analysis, 5 results
    Metric("pacs_node_jobs", _G, From.DATABASE, "Jobs by state.", ("state",)),
    Metric("pacs_node_job_queue_oldest_seconds", _G, From.DATABASE, "Age of the oldest job that waits for a worker; 0: none."),
    Metric(
        "pacs_node_job_step_seconds", _H, From.WORKERS,
        "Time of one step of a job: analyse, build (objects and their gate), commit.", ("step", "bundle"), _WORK,
    ),
    Metric("pacs_node_jobs_ended", _C, From.WORKERS, "Runs of jobs by how they ended: done, not_analysed, failed, lost.", ("bundle", "outcome")),
    Metric(
        "pacs_node_study_results_seconds", _H, From.WORKERS,
        "Time from the creation of a job, when its study was complete, until its results were committed.", (), _STUDY,
    ),
    Metric(
        "pacs_node_score", _H, From.WORKERS,
        "Scores of analysed series: dimensionless, larger is less like the training studies.", ("bundle", "scanner"), _SCORES,
    ),
    Metric(
        "pacs_node_score_percentile", _H, From.WORKERS,
        "Percentiles of scores among the calibration studies, where there are any.", ("bundle", "scanner"), _PERCENTILES,
    ),
    # 6 delivery
    Metric(
        "pacs_node_delivery_attempts", _C, From.CORE,
        "Attempts to deliver an object, by what came of it: delivered, refused, failed.", ("destination", "outcome"),
    ),
    Metric("pacs_node_deliveries", _G, From.DATABASE, "Objects on their way, or at their end, by destination and state.", ("destination", "state")),
    Metric(
        "pacs_node_delivery_oldest_waiting_seconds", _G, From.DATABASE,
        "How long the oldest undelivered object of a destination is due; 0: none.", ("destination",),
    ),
    Metric("pacs_node_destination_up", _G, From.DATABASE, "1: the destination takes objects, as far as is known; 0: it is down.", ("destination",)),
    Metric("pacs_node_destination_down_seconds", _G, From.DATABASE, "How long a destination is down; 0: it is up.", ("destination",)),
    # the house
    Metric("pacs_node_alerts_open", _G, From.DATABASE, "Alerts that nobody has cleared, by kind.", ("kind",)),
    Metric("pacs_node_events_waiting", _G, From.DATABASE, "Events that a receiver (webhook or e-mail) has not been told of yet.", ("receiver",)),
    Metric("pacs_node_heartbeat_seconds", _G, From.DATABASE, "How long the newest heartbeat that came back was under way, from sending to delivery."),
    Metric("pacs_node_heartbeat_age_seconds", _G, From.DATABASE, "How long ago the newest heartbeat left that came back."),
    Metric("pacs_node_aside", _G, From.DATABASE, "Received objects that are kept aside: quarantined, in conflict, superseded.", ("kind",)),
    Metric("pacs_node_database_up", _G, From.DATABASE, "1: the database answers."),
    Metric("pacs_node_disk_free_bytes", _G, From.DISK, "Room on the data folder's disk, for an ordinary user."),
    Metric("pacs_node_disk_capacity_bytes", _G, From.DISK, "Size of the data folder's disk."),
    Metric("pacs_node_disk_reserve_bytes", _G, From.DISK, "`reception.reserve`: at or below so much room, instances are refused."),
    Metric("pacs_node_disk_pressure", _G, From.DISK, "0 normal, 1 warned, 2 finished files go, 3 associations are rejected, 4 instances are refused."),
    Metric("pacs_node_duty_run_timestamp_seconds", _G, From.CORE, "When a periodic duty of the core last came to an end, Unix time.", ("duty",)),
    Metric("pacs_node_duty_failures", _C, From.CORE, "Ticks of periodic duties that failed.", ("duty",)),
    Metric("pacs_node_process_beat_timestamp_seconds", _G, From.PROCESSES, "Last sign of life of a process, Unix time.", ("process",)),
    Metric("pacs_node_process_start_timestamp_seconds", _G, From.PROCESSES, "When a process was started, Unix time.", ("process",)),
    Metric("pacs_node_process_resident_memory_bytes", _G, From.PROCESSES, "Resident memory of a process.", ("process",)),
    Metric("pacs_node_process_deaths", _C, From.PROCESSES, "Processes that ended unasked and were replaced.", ("process",)),
    Metric("pacs_node_ready", _G, From.PAGE, "1: `/ready` says so."),
    Metric("pacs_node_info", _G, From.PAGE, "Always 1; the labels say which node and version this is.", ("node", "version")),
)  # fmt: skip

METRICS: Mapping[str, Metric] = {metric.name: metric for metric in TABLE}
"""Name → metric."""


def documentation() -> str:
    """Return the table as Markdown, for people."""
    rows = ["| metric | kind | labels | what it says |", "|---|---|---|---|"]
    for metric in TABLE:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        rows.append(f"| `{metric.shown}` | {metric.kind.value} | {labels} | {metric.help} ({metric.source.value}) |")
    return "\n".join(rows) + "\n"
