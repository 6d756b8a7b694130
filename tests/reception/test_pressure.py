"""A disk that fills up: said, swept, new associations rejected, new instances refused, and all the way back by itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pacs_node.journey.pressure import relieve
from pacs_node.reception.listener import ReceiverConfig, Timeouts, open_socket, serve
from pacs_node.reception.pacing import SLOTS, Pacer, pause
from pacs_node.reception.pressure import Disk, Marks, Pressure, decide
from pacs_node.reception.spool import Spool
from tests.journey.support import Town, ct_slice, ct_study
from tests.reception.peers import Running, make_ct

GB = 10**9
MARKS = Marks(reserve=4 * GB, watermark=85 * GB)


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        (100, Pressure.NORMAL),
        (20.1, Pressure.NORMAL),
        (20, Pressure.WARN),
        (15.1, Pressure.WARN),
        (15, Pressure.SWEEP),
        (5.1, Pressure.SWEEP),
        (5, Pressure.REJECT),
        (4.1, Pressure.REJECT),
        (4, Pressure.REFUSE),
        (0, Pressure.REFUSE),
    ],
)
def test_each_state_of_a_disk_of_100_gb_asks_for_its_step(free: float, expected: Pressure) -> None:
    assert decide(Disk(int(free * GB), 100 * GB), MARKS) is expected


@pytest.mark.parametrize(
    ("marks", "free", "expected"),
    [
        (Marks(0, 100), 1, Pressure.WARN),  # nothing reserved: taken to the last byte
        (Marks(0, 100), 0, Pressure.REFUSE),
        (Marks(50, 85), 50, Pressure.REFUSE),  # a reserve that begins before the watermark
        (Marks(50, 85), 60, Pressure.REJECT),
        (Marks(50, 85), 63, Pressure.NORMAL),
        (Marks(200, 85), 100, Pressure.REFUSE),  # a reserve larger than the disk
        (Marks(0, 0), 99, Pressure.SWEEP),
    ],
)
def test_odd_marks_have_a_clear_answer(marks: Marks, free: int, expected: Pressure) -> None:
    assert decide(Disk(free, 100), marks) is expected


def test_less_room_never_asks_for_less() -> None:
    levels = [decide(Disk(free, 1000), Marks(40, 850)) for free in range(1000, -1, -1)]
    assert levels == sorted(levels)
    assert set(levels) == set(Pressure)


# --- a small disk ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str, str], Path]]:
    """Give a function that mounts a small disk on a folder, or changes its size; all are taken away at the end."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small disk")
    mounted: list[Path] = []

    def make(name: str, size: str) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        options = f"remount,size={size}" if folder in mounted else f"size={size}"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield make
    for folder in dict.fromkeys(mounted):
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def town(mount: Callable[[str, str], Path], tmp_path: Path) -> Iterator[Town]:
    """A house on a disk of 32 megabytes; its destination has another one."""
    destination = {"kind": "folder", "path": str(tmp_path / "out")}
    built = Town(mount("disk", "32m"), reception={"reserve": "6MB"}, retention={"high_watermark": "50%"}, destinations={"research": destination})
    yield built
    built.house.store.close()


@pytest.fixture
def receiver(town: Town) -> Iterator[Running]:
    """A receiver that writes into the town's spool."""
    config = ReceiverConfig(("PACS_NODE",), town.house.data, town.settings.reception, 0.5, Timeouts(5.0, 5.0, 20.0))
    slots, stop = [0], threading.Event()
    with open_socket("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=serve, args=(config, listening, slots, 0, stop))
        thread.start()
        yield Running(listening.getsockname()[1], Spool(town.house.data), slots, stop, thread)
        stop.set()
        thread.join(30)


def alerts(town: Town) -> list[str]:
    from pacs_node.database.alerts import open_alerts

    with town.house.store.read() as session:
        return [alert.kind for alert in open_alerts(session)]


def rejection(receiver: Running) -> tuple[int, int, int]:
    """Return the codes with which a new association is rejected; pynetdicom as requestor now and then misses one that comes at once."""
    for _ in range(10):
        newcomer = receiver.associate()
        assert not newcomer.is_established
        if newcomer.is_rejected:
            answer = newcomer.acceptor.primitive
            return answer.result, answer.result_source, answer.diagnostic
    raise AssertionError("no answer to ten requests")


def test_a_disk_fills_up_step_by_step_jobs_go_on_and_intake_comes_back_by_itself(town: Town, receiver: Running) -> None:
    abandoned = town.house.data / "spool/new/00/00.dcm.part"
    abandoned.write_bytes(bytes(9_000_000))  # of a receiver that was killed just now
    association = receiver.associate()
    for dataset in ct_study(6):
        assert association.send_c_store(dataset).Status == 0x0000
    filling: list[Pressure] = []
    rejected_while_open_ones_go_on = False
    for number in range(100):
        filling.append(relieve(town.house, town.clock))
        if filling[-1] is Pressure.REJECT:
            assert rejection(receiver) == (2, 3, 1)
            rejected_while_open_ones_go_on = True
        status = association.send_c_store(ct_slice(number, study="B", patient="P2", **big())).Status
        if status != 0x0000:
            break
    assert status == 0xA700
    assert rejected_while_open_ones_go_on
    assert relieve(town.house, town.clock) is Pressure.REFUSE
    assert filling == sorted(filling) and {*filling} == {*Pressure}
    assert alerts(town) == ["disk"]
    assert not [path for path in town.house.data.rglob("*.part") if path != abandoned]
    town.clock = max(town.clock, datetime.now(UTC))  # filling a disk takes real time, and what came carries that
    town.settle()  # results are written from the reserve
    assert len(list((town.folder.parent / "out").rglob("*.dcm"))) == 4
    assert association.send_c_store(make_ct()).Status == 0xA700
    town.wait(hours=1.1)
    relieve(town.house, town.clock)  # the half file is an hour old now
    assert not abandoned.exists()
    assert relieve(town.house, town.clock) < Pressure.REJECT
    assert alerts(town) == []
    assert association.send_c_store(make_ct()).Status == 0x0000
    association.release()
    again = receiver.associate()
    assert again.is_established
    again.release()


def big() -> dict[str, Any]:
    """Return what makes a slice half a megabyte large."""
    return {"Rows": 512, "Columns": 512, "PixelData": bytes(512 * 512 * 2), "BodyPartExamined": "CHEST"}


def test_a_job_that_finds_no_room_for_its_results_waits_and_is_never_parked(tmp_path: Path, mount: Callable[[str, str], Path]) -> None:
    town = Town(tmp_path)
    mount("data/results", "16k")
    town.send(ct_study(6))
    town.gather()
    town.wait(seconds=11)
    town.gather()
    for _ in range(5):
        town.work()
        town.wait(minutes=2)
    with town.house.store.read() as session:
        from pacs_node.database import jobs

        (job,) = jobs.jobs_of(session, 1)
    assert (job.state.value, job.attempts) == ("queued", 5)
    assert "no room" in job.reason
    assert not list((town.house.data / "results").rglob("*.dcm*"))  # no half results that would take the room away for good
    mount("data/results", "8m")
    town.work()
    town.post()
    assert len(town.results()) == 4
    town.house.store.close()


# --- too fast a sender -------------------------------------------------------------------------------------------------------


class Clock:
    """A clock that sleeping moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def pacer(rate: int, clock: Clock) -> Pacer:
    return Pacer(rate, [0.0] * SLOTS, lambda: clock.now, clock.sleep)


@pytest.mark.parametrize(
    ("paid_until", "size", "expected"),
    [
        (0.0, 50, (100.5, 0.0)),  # silent so far: half a second's worth
        (100.9, 50, (101.4, 0.4)),  # already ahead of its share
        (0.0, 100, (101.0, 0.0)),  # a second's worth is a burst that may pass
        (0.0, 100_000, (1100.0, 10.0)),  # never longer than a peer waits for an answer
    ],
)
def test_a_pause_pays_for_what_was_sent_too_fast(paid_until: float, size: int, expected: tuple[float, float]) -> None:
    assert pause(paid_until, size, 100.0, 100.0) == pytest.approx(expected)


def test_a_sender_is_slowed_to_the_rate_over_time() -> None:
    clock = Clock()
    slowing = pacer(1_000_000, clock)
    for _ in range(100):
        slowing.took("CT1", "10.0.0.1", 500_000)
    assert clock.now - 1000 == pytest.approx(49, abs=1)  # 50 MB at 1 MB/s, less the burst


def test_senders_share_evenly_however_many_associations_each_has() -> None:
    clock = Clock()
    slowing, sent = pacer(1_000_000, clock), {"CT1": 0, "CT2": 0}
    waiting = {("CT1", 0): 0.0, ("CT1", 1): 0.0, ("CT1", 2): 0.0, ("CT2", 0): 0.0}  # association → when it sends again
    slowing._sleep = lambda seconds: None  # each association sleeps for itself
    while clock.now < 1060:
        association = min(waiting, key=lambda one: waiting[one])
        clock.now = max(clock.now, waiting[association])
        waiting[association] = clock.now + slowing.took(association[0], "10.0.0.1", 100_000) + 0.001
        sent[association[0]] += 100_000
    assert sent["CT1"] == pytest.approx(sent["CT2"], rel=0.1)
    assert sum(sent.values()) == pytest.approx(60_000_000, rel=0.1)


def test_a_slow_sender_is_never_held_up_by_a_fast_one() -> None:
    clock = Clock()
    slowing = pacer(10_000_000, clock)
    for _ in range(60):
        slowing.took("FAST", "10.0.0.1", 2_000_000)
        assert slowing.took("SLOW", "10.0.0.2", 100_000) == 0.0


@pytest.mark.parametrize("path", ["fast", "stock"])
def test_a_fast_sender_gets_success_for_everything_only_later(start: Callable[..., Running], path: str) -> None:
    receiver = start(rate=400_000)
    association = receiver.associate()
    import time

    begin = time.monotonic()
    statuses = [association.send_c_store(make_ct(256)).Status for _ in range(8)]  # 131 kB each: one megabyte in all
    took = time.monotonic() - begin
    assert statuses == [0x0000] * 8
    assert took > 1.2  # 2.6 s at the rate, of which one second passes as a burst
    association.release()
    assert receiver.the_end().stored == 8
