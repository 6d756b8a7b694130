"""The node as processes: started, stopped, killed, started again."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from pacs_node.delivery import cstore
from pacs_node.errors import DeliveryError
from pacs_node.records import Outcome, Parcel
from tests.journey.support import ct_study, encode_body
from tests.node.support import NodeProcess, wait_until

Make = Callable[..., NodeProcess]


def write(folder: Path, datasets: Sequence[Dataset]) -> list[Parcel]:
    folder.mkdir(parents=True, exist_ok=True)
    parcels = []
    for index, dataset in enumerate(datasets):
        path = folder / f"{index:04d}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        parcels.append(Parcel(str(dataset.SOPInstanceUID), str(dataset.SOPClassUID), str(dataset.file_meta.TransferSyntaxUID), path))
    return parcels


def send(node: NodeProcess, parcels: Sequence[Parcel], acknowledged: list[str], until: Callable[[int], None] = lambda count: None) -> None:
    """Send over one association; ``until`` hears the number of acknowledged instances after each."""

    def note(outcome: Outcome) -> None:
        if outcome.delivered:
            acknowledged.append(outcome.sop_uid)
            until(len(acknowledged))

    try:
        cstore.deliver(node.address, parcels, "SENDER", note)
    except DeliveryError:
        return  # the node went away, as it was told to


def stored(node: NodeProcess) -> dict[str, Path]:
    from sqlalchemy import select

    from pacs_node.database.studies import instance_path
    from pacs_node.database.tables import InstanceRow
    from pacs_node.workbench.tables import open_store

    with open_store(node.settings) as store, store.read() as session:
        return {row.sop_uid: node.folder / "data" / instance_path(row) for row in session.scalars(select(InstanceRow))}


def assert_kept(node: NodeProcess, parcels: Sequence[Parcel], acknowledged: Sequence[str]) -> None:
    """Every acknowledged instance is there once, byte for byte."""
    files = stored(node)
    sent = {parcel.sop_uid: parcel.path for parcel in parcels}
    assert set(acknowledged) <= set(files)
    for uid in acknowledged:
        assert files[uid].read_bytes().endswith(body(sent[uid]))


def body(path: Path) -> bytes:
    from pydicom import dcmread

    return encode_body(dcmread(path))


@pytest.mark.slow
def test_sigterm_and_then_kill_9_in_the_middle_of_a_study_lose_and_repeat_nothing(make_node: Make) -> None:
    node = make_node().start()
    parcels = write(node.folder / "in", ct_study(90))
    acknowledged: list[str] = []
    # SIGTERM after ten: the running association may go on while the node drains
    send(node, parcels[:30], acknowledged, lambda count: node.process.send_signal(signal.SIGTERM) if count == 10 else None)  # type: ignore[union-attr]
    assert node.process is not None
    assert node.process.wait(60) == 0
    node.start()
    send(node, parcels[len(acknowledged) : 60], acknowledged, lambda count: node.kill() if count == 45 else None)
    assert len(acknowledged) < 60, "the kill came too late to be in the middle"
    node.start()
    send(node, parcels[len(acknowledged) :], acknowledged)
    assert len(acknowledged) == 90
    wait_until(node.settled, "the study is through")
    assert_kept(node, parcels, acknowledged)
    assert len(stored(node)) == 90
    finished = [job for job in node.jobs() if job["state"] == "not_analysed"]
    results = list((node.folder / "out").rglob("*.dcm"))
    assert len(results) == len(finished)  # one notice for each gathering that was complete, none twice


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["receiver", "core", "worker"])
def test_a_killed_child_is_replaced_and_the_study_goes_on(make_node: Make, victim: str) -> None:
    node = make_node(reception={"processes": 1}).start()
    parcels = write(node.folder / "in", ct_study(20))
    acknowledged: list[str] = []
    send(node, parcels[:10], acknowledged)
    pids = [pid for pid in node.children() if victim in Path(f"/proc/{pid}/cmdline").read_text()]
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(node.children()) == 3, "the child is replaced")
    wait_until(lambda: cstore.probe(node.address, "TEST", ()).problem == "", "the node answers")
    send(node, parcels[10:], acknowledged)
    assert len(acknowledged) == 20
    wait_until(node.settled, "the study is through")
    assert_kept(node, parcels, acknowledged)
    assert "process died" in node.log()


@pytest.mark.slow
def test_children_of_a_killed_parent_stop_and_free_the_data_folder(make_node: Make) -> None:
    node = make_node().start()
    family = node.children()
    assert node.process is not None
    node.process.kill()
    node.process.wait()
    node.start()  # waits for the lock that the orphans still hold
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in family), "the orphans are gone")
    assert cstore.probe(node.address, "TEST", ()).problem == ""


@pytest.mark.slow
def test_a_second_node_on_the_same_data_folder_is_refused_in_one_sentence(make_node: Make) -> None:
    node = make_node().start()
    second = node.command("run")
    assert second.returncode == 1
    assert second.stderr.strip().splitlines()[-1].startswith("error: the data folder ")
    assert "is in use by another node" in second.stderr
    assert "Traceback" not in second.stderr


@pytest.mark.slow
def test_a_port_in_use_is_said_in_one_sentence(make_node: Make) -> None:
    node = make_node()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", node.port))
        other.listen()
        refused = node.command("run")
    assert refused.returncode == 1
    assert f"cannot listen on 127.0.0.1:{node.port}" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_an_unknown_keyword_in_the_rules_is_said_with_its_line(make_node: Make) -> None:
    node = make_node(rules="rules:\n  - name: head\n    when: {Modalty: CT}\n    pipeline: null\n    results: []\n")
    refused = node.command("run")
    assert refused.returncode == 1
    assert "rules.yaml:3" in refused.stderr
    assert "Modality" in refused.stderr  # did you mean
    assert "Traceback" not in refused.stderr


@pytest.mark.slow
def test_sighup_takes_valid_rules_over_and_never_wrong_ones_whatever_dies_meanwhile(make_node: Make) -> None:
    node = make_node(reception={"processes": 1}).start()
    assert node.process is not None
    rules = node.folder / "rules.yaml"
    valid = rules.read_text()
    rules.write_text(valid.replace("Modality: CT", "Modalty: CT"))
    node.process.send_signal(signal.SIGHUP)
    [alert] = wait_until(lambda: [alert for alert in node.status()["alerts"] if alert["kind"] == "rules"], "the wrong rules are said")
    line = valid.splitlines().index("    when: {Modality: CT}") + 1
    assert f"{rules}:{line}: rules[0].when.Modalty: 'Modalty' is no keyword of PS3.6; did you mean Modality?" in alert["message"]
    checked = node.command("check")
    assert checked.returncode == 1
    assert f"{rules}:{line}: rules[0].when.Modalty: 'Modalty'" in checked.stdout
    for pid in [pid for pid in node.children() if "receiver" not in Path(f"/proc/{pid}/cmdline").read_text()]:
        os.kill(pid, signal.SIGKILL)  # core and worker start again while the wrong file lies there
    send(node, write(node.folder / "in", ct_study(3)), [])
    wait_until(node.settled, "the study is through, by the former rules")
    assert [job["rules"] for job in node.jobs()] == [["tell"]]
    rules.write_text(valid.replace("name: tell", "name: tell again"))
    node.process.send_signal(signal.SIGHUP)
    wait_until(lambda: not [alert for alert in node.status()["alerts"] if alert["kind"] == "rules"], "the valid rules are taken over")
    wait_until(lambda: "rules in force" in node.log(), "the core follows")
    send(node, write(node.folder / "more", ct_study(3, study="B")), [])
    wait_until(lambda: len(node.jobs()) == 2 and node.settled(), "the next study is through")
    assert node.jobs()[0]["rules"] == ["tell again"]


@pytest.mark.slow
def test_a_role_runs_alone_and_another_one_takes_over_its_files(make_node: Make) -> None:
    node = make_node()
    import subprocess
    import sys

    line = [sys.executable, "-m", "pacs_node.cli", "run", "--role", "receiver", "--config", str(node.config)]
    receiver = subprocess.Popen(line)
    try:
        wait_until(lambda: cstore.probe(node.address, "TEST", ()).reachable, "the receiver answers")
        acknowledged: list[str] = []
        send(node, write(node.folder / "in", ct_study(5)), acknowledged)
        assert len(acknowledged) == 5
        assert not (node.folder / "data" / "node.db").exists()  # a receiver has no database
        core = subprocess.Popen([sys.executable, "-m", "pacs_node.cli", "run", "--role", "core", "--config", str(node.config)])
        try:
            wait_until(lambda: node.has_tables() and node.jobs(), "the core makes a job")
        finally:
            core.terminate()
            assert core.wait(60) == 0
    finally:
        receiver.terminate()
        assert receiver.wait(60) == 0


@pytest.mark.slow
def test_senders_on_several_receivers_share_one_port(make_node: Make) -> None:
    node = make_node(reception={"processes": 3}).start()
    acknowledged: list[str] = []
    threads = [
        threading.Thread(target=send, args=(node, write(node.folder / f"in{number}", ct_study(10, study=f"S{number}")), acknowledged)) for number in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(acknowledged) == 60
    wait_until(lambda: len(node.status()["studies"]) == 6 and node.settled(), "all studies are through")
    assert sum(study["instances"] for study in node.status()["studies"]) == 60


@pytest.mark.slow
def test_a_fast_sender_is_slowed_over_all_receivers_and_loses_nothing(make_node: Make) -> None:
    node = make_node(reception={"processes": 3, "rate": "20kB"}).start()
    parcels = write(node.folder / "in", ct_study(60))
    acknowledged: list[str] = []
    begin = time.monotonic()
    threads = [threading.Thread(target=send, args=(node, parcels[part::3], acknowledged)) for part in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    size = sum(parcel.path.stat().st_size for parcel in parcels)
    assert len(acknowledged) == 60
    assert time.monotonic() - begin > size / 20_000 - 3  # one sender over three associations has one share; a second's worth passes at once
    wait_until(node.settled, "the study is through")
    assert_kept(node, parcels, acknowledged)
