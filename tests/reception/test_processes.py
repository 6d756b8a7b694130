"""Receivers as they run: processes that share one listening socket, and a disk that is too small."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pacs_node.config import Reception
from pacs_node.dicom.header import read_header
from pacs_node.reception.listener import ReceiverConfig, open_socket, serve_until_terminated
from pacs_node.reception.spool import Spool
from pacs_node.records import Arrival, AssociationEnd, Sender
from tests.reception.peers import NO_RESERVE, Running, make_ct, wait_until


@pytest.mark.slow
def test_two_receivers_share_a_socket_and_the_limit_of_associations(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    config = ReceiverConfig(("PACS_NODE",), tmp_path, Reception(max_associations=4, reserve=NO_RESERVE), drain=0.5)
    slots = context.RawArray("i", 2)
    with open_socket("127.0.0.1", 0) as listening:
        peer = Running(listening.getsockname()[1], Spool(tmp_path), [], None, None)
        processes = [context.Process(target=serve_until_terminated, args=(config, listening, slots, index)) for index in range(2)]
        for process in processes:
            process.start()
        associations = [peer.associate() for _ in range(4)]
        assert all(association.is_established for association in associations)
        assert sum(slots) == 4
        assert not peer.associate().is_established
        for association in associations:
            assert association.send_c_store(make_ct()).Status == 0x0000
            association.release()
        wait_until(lambda: sum(slots) == 0)
        associations[0] = peer.associate()
        processes[0].kill()  # the socket and its backlog live on
        processes[0].join(20)
        second = [peer.associate() for _ in range(3)]
        assert any(association.is_established for association in second)
        for association in (associations[0], *second):
            association.abort()
        processes[1].terminate()
        processes[1].join(20)
        assert processes[1].exitcode == 0
    entries = Spool(tmp_path).arrivals()
    assert len([entry for entry in entries if isinstance(entry, Arrival)]) == 4
    assert len([entry for entry in entries if isinstance(entry, AssociationEnd) and entry.released]) == 4
    assert [entry.name for entry in entries] == sorted(entry.name for entry in entries)


@pytest.mark.slow
def test_what_was_acknowledged_before_a_receiver_was_killed_is_in_the_spool(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    config = ReceiverConfig(("PACS_NODE",), tmp_path, Reception(reserve=NO_RESERVE))
    spool = Spool(tmp_path)
    acknowledged: list[str] = []
    slots = context.RawArray("i", 1)
    with open_socket("127.0.0.1", 0) as listening:
        process = context.Process(target=serve_until_terminated, args=(config, listening, slots, 0))
        process.start()
        association = Running(listening.getsockname()[1], spool, [], None, None).associate()
        killer = threading.Timer(0.5, process.kill)
        killer.start()
        while "Status" in (answer := association.send_c_store(image := make_ct())):
            assert answer.Status == 0x0000
            acknowledged.append(image.SOPInstanceUID)
        killer.join()
        process.join(20)
    spool.sweep_parts()
    kept = [str(read_header(entry.path).SOPInstanceUID) for entry in spool.arrivals(100_000)]
    assert acknowledged and kept[: len(acknowledged)] == acknowledged
    assert len(kept) <= len(acknowledged) + 1  # the last one may have been kept without its answer getting out
    assert not list(tmp_path.rglob("*.part"))


def test_a_receiver_process_loads_neither_torch_nor_a_database() -> None:
    code = "import sys, pacs_node.reception.listener; print([name for name in ('torch', 'sqlalchemy', 'scipy', 'highdicom') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes, taken away at the end."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small disk")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_answered_with_out_of_resources_and_recovers(small_disk: Path, start: Callable[..., Running]) -> None:
    receiver = start(data=small_disk / "data")
    association = receiver.associate()
    statuses = [association.send_c_store(make_ct(512)).Status for _ in range(5)]  # 0.5 MB each
    assert statuses[0] == 0x0000 and statuses[-1] == 0xA700
    assert not list(small_disk.rglob("*.part"))
    assert len(receiver.arrivals()) == statuses.count(0x0000)
    receiver.spool.forget(*receiver.arrivals())
    assert association.send_c_store(make_ct(512)).Status == 0x0000
    association.release()
    end = receiver.the_end()
    assert (end.stored, end.refused) == (statuses.count(0x0000) + 1, statuses.count(0xA700))


def test_a_reserve_that_is_reached_rejects_new_associations_as_transient(small_disk: Path, start: Callable[..., Running]) -> None:
    receiver = start(data=small_disk / "data", reserve="50%")
    association = receiver.associate()
    assert association.send_c_store(make_ct(512)).Status == 0x0000
    filling = Spool(small_disk / "data").store(Sender(association="f"), "1.2", "1.2.3", "1.2.840.10008.1.2.1", (bytes(700_000),))
    assert association.send_c_store(make_ct()).Status == 0xA700
    refused = receiver.associate()
    assert refused.is_rejected and (refused.acceptor.primitive.result, refused.acceptor.primitive.result_source) == (2, 3)
    filling.unlink()
    assert association.send_c_store(make_ct()).Status == 0x0000
    association.release()
    assert receiver.the_end().stored == 2
