from __future__ import annotations

import errno
from datetime import UTC, datetime, timedelta

import pytest
import torch

from pacs_node.errors import BundleError, NotFinite, OutOfScope
from pacs_node.executors.retry import LADDER, MAX_ATTEMPTS, Again, Effort, Fault, Park, decide, fault_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(("attempts", "pause"), [(1, 5), (2, 20)])
@pytest.mark.parametrize("fault", [Fault.CRASHED, Fault.TOO_SLOW])
def test_a_crash_or_a_missed_deadline_is_tried_again_after_a_growing_pause(fault: Fault, attempts: int, pause: int) -> None:
    assert decide(fault, attempts, "", NOW) == Again(NOW + timedelta(seconds=pause))


def test_a_job_whose_worker_died_needs_less_memory_the_next_time() -> None:
    assert decide(Fault.WORKER_DIED, 1, "", NOW, rung=0) == Again(NOW + timedelta(seconds=5), rung=1)
    assert decide(Fault.WORKER_DIED, 2, "", NOW, rung=1) == Again(NOW + timedelta(seconds=20), rung=2)
    assert decide(Fault.WORKER_DIED, 1, "", NOW, rung=2) == Again(NOW + timedelta(seconds=5), rung=2)  # not for this reason onto the CPU
    assert decide(Fault.WORKER_DIED, 1, "", NOW, rung=3) == Again(NOW + timedelta(seconds=5), rung=3)


@pytest.mark.parametrize("fault", [Fault.CRASHED, Fault.WORKER_DIED, Fault.TOO_SLOW])
def test_a_poison_job_is_parked_after_the_last_attempt_with_its_message(fault: Fault) -> None:
    decision = decide(fault, MAX_ATTEMPTS, "it fell over", NOW)
    assert isinstance(decision, Park)
    assert "it fell over" in decision.why


def test_out_of_memory_leads_down_the_ladder_to_the_cpu_and_then_to_an_operator() -> None:
    rung, efforts = 0, [LADDER[0]]
    for attempts in range(1, len(LADDER)):
        decision = decide(Fault.NO_MEMORY, attempts, "CUDA out of memory", NOW, rung)
        assert isinstance(decision, Again)
        rung = decision.rung
        efforts.append(LADDER[rung])
    assert efforts == [Effort(32), Effort(8), Effort(1), Effort(1, on_cpu=True)]
    assert decide(Fault.NO_MEMORY, len(LADDER), "no more", NOW, rung) == Park("out of memory even with one slice at a time on the CPU: no more")


def test_a_failed_device_gets_a_new_process_then_the_cpu_then_an_operator() -> None:
    assert decide(Fault.DEVICE_LOST, 1, "", NOW) == Again(NOW + timedelta(seconds=5), rung=0)
    assert decide(Fault.DEVICE_LOST, 2, "", NOW) == Again(NOW + timedelta(seconds=5), rung=len(LADDER) - 1)
    assert isinstance(decide(Fault.DEVICE_LOST, 3, "", NOW, rung=len(LADDER) - 1), Park)


def test_a_full_disk_is_waited_for_however_long_it_takes() -> None:
    decisions = [decide(Fault.NO_ROOM, attempts, "no space left", NOW, rung=1) for attempts in (1, MAX_ATTEMPTS, 1000)]
    assert decisions == [Again(NOW + timedelta(seconds=30), rung=1)] * 3


@pytest.mark.parametrize("fault", [Fault.UNUSABLE, Fault.NOT_A_NUMBER])
def test_what_time_does_not_mend_is_parked_at_once(fault: Fault) -> None:
    assert decide(fault, 1, "the bundle is damaged", NOW) == Park("the bundle is damaged")


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), Fault.NO_MEMORY),
        (MemoryError(), Fault.NO_MEMORY),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes."), Fault.NO_MEMORY),
        (RuntimeError("CUDA error: out of memory"), Fault.NO_MEMORY),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), Fault.NO_MEMORY),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), Fault.NO_MEMORY),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), Fault.DEVICE_LOST),
        (torch.AcceleratorError("CUDA error: device-side assert triggered"), Fault.DEVICE_LOST),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), Fault.DEVICE_LOST),
        (OSError(errno.ENOSPC, "No space left on device"), Fault.NO_ROOM),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), Fault.NO_ROOM),
        (OSError(errno.EIO, "Input/output error"), Fault.CRASHED),
        (BundleError("ct", "is damaged: out of memory"), Fault.UNUSABLE),
        (NotFinite("ct", "the score"), Fault.NOT_A_NUMBER),
        (OutOfScope("a description with CUDA error in it"), Fault.CRASHED),
        (ValueError("out of memory, says a header"), Fault.CRASHED),
        (RuntimeError("shapes do not fit"), Fault.CRASHED),
    ],
    ids=lambda value: f"{type(value).__name__} {value}"[:60],
)
def test_the_kind_of_a_fault_is_told_by_what_was_raised(error: BaseException, fault: Fault) -> None:
    assert fault_of(error) is fault
