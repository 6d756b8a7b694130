"""What processes count, and what `/metrics` makes of it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pacs_node.monitoring import counting, exposition, server
from pacs_node.monitoring.counting import MOST_VALUES, OTHER, Counts
from pacs_node.monitoring.intake import REASONS, ReceptionTally
from pacs_node.monitoring.metrics import METRICS, TABLE, Kind, documentation
from pacs_node.monitoring.sources import Sources
from pacs_node.reception.admission import LOCAL_FAULT, Rejection, Request, Terms, decide
from tests.monitoring.reader import Reader

Make = Callable[..., Sources]
Values = dict[tuple[str, tuple[tuple[str, str], ...]], float]
DOCUMENT = Path(__file__).parent.parent.parent / "deploy" / "prometheus" / "METRICS.md"


def values(text: str) -> Values:
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for family in text_string_to_metric_families(text) for sample in family.samples}


def scraped(sources: Sources) -> Values:
    return values(Reader(server.application(sources)).get("/metrics").text)


def of(found: Values, name: str, **labels: str) -> float:
    return found[name, tuple(sorted(labels.items()))]


def test_counts_of_all_processes_are_added_up(make_sources: Make) -> None:
    sources = make_sources()
    for process in ("receiver-0", "receiver-1"):
        tally = ReceptionTally(Counts(sources.counts, process))
        tally.accepted()
        tally.answered(0, 1000, 0.02)
        tally.answered(0xC000, 10, 0.3)
        tally.answered(0xA700, 5, None)
    tally.rejected(Rejection(1, 1, 7, "…"))
    tally.ended(released=True)
    found = scraped(sources)
    assert of(found, "pacs_node_associations_accepted_total") == 2
    assert of(found, "pacs_node_associations_rejected_total", reason="called AE title") == 1
    assert of(found, "pacs_node_associations_rejected_total", reason="disk") == 0  # there before the first one
    assert of(found, "pacs_node_associations_ended_total", how="released") == 1
    assert [of(found, "pacs_node_associations_open", process=name) for name in ("receiver-0", "receiver-1")] == [1, 0]
    assert [of(found, "pacs_node_instances_answered_total", answer=answer) for answer in ("stored", "quarantined", "refused")] == [2, 2, 2]
    assert of(found, "pacs_node_received_bytes_total") == 2030
    assert [of(found, "pacs_node_spool_sync_seconds_bucket", le=bound) for bound in ("0.01", "0.025", "0.25", "0.5", "+Inf")] == [0, 2, 2, 4, 4]
    assert of(found, "pacs_node_spool_sync_seconds_count") == 4
    assert of(found, "pacs_node_spool_sync_seconds_sum") == pytest.approx(0.64)


def test_a_killed_process_leaves_its_counts_and_its_successor_goes_on(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from pacs_node.monitoring.counting import Counts
counts = Counts(Path({str(tmp_path)!r}), "worker-0")
for _ in range(5):
    counts.add("pacs_node_jobs_ended", "ct-head", "done")
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    Counts(tmp_path, "worker-0").add("pacs_node_jobs_ended", "ct-head", "done")
    (family,) = exposition.counted(tmp_path)
    assert [sample.value for sample in family.samples] == [6]


def test_without_room_nothing_is_counted_and_nothing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    counts = Counts(tmp_path, "core")
    counts.add("pacs_node_duty_failures", "gather")
    monkeypatch.setattr(os, "posix_fallocate", full)
    for number in range(3000):  # more than the file has room for
        counts.add("pacs_node_delivery_attempts", f"place {number:050d} {'x' * 100}", f"{number}")
    other = Counts(tmp_path, "worker-0")
    other.beat()
    other.add("pacs_node_duty_failures", "gather")
    assert capsys.readouterr().out.count("nothing is counted any more") == 2  # said once by each
    assert (tmp_path / "counter_core.db").stat().st_blocks * 512 >= (tmp_path / "counter_core.db").stat().st_size  # claimed: no write can fail


def test_a_file_grows_when_there_is_room(tmp_path: Path) -> None:
    counts = Counts(tmp_path, "core")
    for number in range(1000):
        counts.add("pacs_node_delivery_attempts", f"place {number:03d} {'x' * 100}", "failed")
    counts.add("pacs_node_delivery_attempts", f"place 999 {'x' * 100}", "failed")
    (family,) = exposition.counted(tmp_path)
    assert sum(sample.value for sample in family.samples) == 1001
    assert (tmp_path / "counter_core.db").stat().st_size > 1 << 16


def test_headers_cannot_make_values_without_end(tmp_path: Path) -> None:
    counts = Counts(tmp_path, "worker-0")
    for number in range(2 * MOST_VALUES):
        counts.observe("pacs_node_score", "ct-head", f"scanner {number}", value=1.0)
    (family,) = exposition.counted(tmp_path)
    ends = {sample.labels["scanner"]: sample.value for sample in family.samples if sample.name == "pacs_node_score_count"}
    assert len(ends) == MOST_VALUES + 1
    assert ends[OTHER] == MOST_VALUES
    assert sum(ends.values()) == 2 * MOST_VALUES


def test_a_damaged_file_ends_nothing(tmp_path: Path, make_sources: Make) -> None:
    sources = make_sources()
    assert sources.counts is not None
    (sources.counts / "counter_core.db").write_bytes(b"\xff\xff\x00\x00" + os.urandom(9000))
    Counts(sources.counts, "core").add("pacs_node_duty_failures", "gather")
    assert of(scraped(sources), "pacs_node_database_up") == 1


def test_markup_and_quotes_in_a_scanner_name_stay_one_label(make_sources: Make) -> None:
    sources = make_sources()
    name = 'A"CME\n\\ <script>} 1'
    Counts(sources.counts, "worker-0").observe("pacs_node_score", "ct-head", name, value=2.0)
    assert of(scraped(sources), "pacs_node_score_count", bundle="ct-head", scanner=name) == 1


def test_every_reason_to_reject_has_a_label_of_its_own() -> None:
    everyone = Request("NODE", "CT", "10.0.0.1", 1, True)
    terms = Terms(["NODE"], (), 4)
    requests = [
        (Request("X", "CT", "10.0.0.1", 1, True), terms, "called AE title"),
        (Request("NODE", "CT", "10.0.0.1", 5, True), terms, "too many associations"),
        (Request("NODE", "CT", "10.0.0.1", 1, False), terms, "disk"),
    ]
    for request, asked, label in requests:
        found = decide(request, asked)
        assert isinstance(found, Rejection)
        assert REASONS[found.source, found.reason] == label
    assert not isinstance(decide(everyone, terms), Rejection)
    assert REASONS[LOCAL_FAULT.source, LOCAL_FAULT.reason] == "a fault of this node"


def test_values_of_labels_are_told_from_a_wrong_number_of_them(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="has the labels"):
        Counts(tmp_path, "core").add("pacs_node_jobs_ended", "ct-head")


def test_the_folder_is_empty_at_the_start_ours_alone_and_gone_at_the_end(tmp_path: Path) -> None:
    with counting.counting(tmp_path, ("core",)) as folder:
        assert folder is not None
        assert folder.stat().st_mode & 0o777 == 0o700
        Counts(folder, "core").add("pacs_node_duty_failures", "gather")
        assert exposition.counted(folder)
        with counting.counting(tmp_path, ("worker-0",)) as same:  # another role on the same data folder
            assert same == folder
            assert exposition.counted(folder)
        assert folder.is_dir()
    assert not folder.exists()


def test_a_folder_of_someone_else_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "_MEMORY", tmp_path)
    folder = counting.folder_for(tmp_path)
    folder.symlink_to(tmp_path)
    with counting.counting(tmp_path, ("core",)) as found:
        assert found is None
    folder.unlink()
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    with counting.counting(tmp_path, ("core",)) as found:
        assert found is None


def test_folders_of_nodes_that_were_killed_are_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "_MEMORY", tmp_path)
    dead = counting.folder_for(tmp_path / "other")
    dead.mkdir()
    (dead / "owner-999999999").touch()
    (dead / "counter_core.db").touch()
    with counting.counting(tmp_path, ("core",)):
        assert not dead.exists()


def test_prometheus_finds_nothing_to_say_about_names_and_help(make_sources: Make, tool: Callable[[str], str]) -> None:
    sources = make_sources()
    counts = Counts(sources.counts, "core")
    for metric in TABLE:
        labels = tuple("x" for _ in metric.labels)
        if metric.kind is Kind.COUNTER:
            counts.add(metric.name, *labels)
        elif metric.kind is Kind.HISTOGRAM:
            counts.observe(metric.name, *labels, value=1.0)
    text = Reader(server.application(sources)).get("/metrics").text
    linted = subprocess.run([tool("promtool"), "check", "metrics"], input=text, capture_output=True, text=True)
    assert (linted.returncode, linted.stdout + linted.stderr) == (0, "")
    assert {name for name, _ in values(text)} <= {series for metric in TABLE for series in metric.series}


def test_the_documented_list_is_the_table() -> None:
    assert documentation() in DOCUMENT.read_text(encoding="utf-8")
    assert len(METRICS) == len(TABLE)
