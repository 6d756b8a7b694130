from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pacs_node.executors.retry import MAX_ATTEMPTS, Again, Fault, Park, decide

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(("attempts", "pause"), [(1, 5), (2, 20)])
@pytest.mark.parametrize("fault", [Fault.CRASHED, Fault.WORKER_DIED])
def test_a_crash_or_a_dead_worker_is_tried_again_after_a_growing_pause(fault: Fault, attempts: int, pause: int) -> None:
    assert decide(fault, attempts, "", NOW) == Again(NOW + timedelta(seconds=pause))


@pytest.mark.parametrize("fault", [Fault.CRASHED, Fault.WORKER_DIED])
def test_a_poison_job_is_parked_after_the_last_attempt_with_its_message(fault: Fault) -> None:
    decision = decide(fault, MAX_ATTEMPTS, "it fell over", NOW)
    assert isinstance(decision, Park)
    assert "it fell over" in decision.why


def test_a_full_disk_is_waited_for_however_long_it_takes() -> None:
    assert [decide(Fault.NO_ROOM, attempts, "no space left", NOW) for attempts in (1, MAX_ATTEMPTS, 1000)] == [Again(NOW + timedelta(seconds=30))] * 3


def test_what_time_does_not_mend_is_parked_at_once() -> None:
    assert decide(Fault.UNUSABLE, 1, "the bundle is damaged", NOW) == Park("the bundle is damaged")
