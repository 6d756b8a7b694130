from __future__ import annotations

import threading

import pytest

from pacs_node.executors import local


@pytest.mark.parametrize(("restarts", "seconds"), [(0, 0.0), (1, 0.5), (3, 2.0), (50, 10.0)])
def test_a_child_that_dies_again_and_again_is_restarted_ever_more_slowly(restarts: int, seconds: float) -> None:
    assert local.restart_pause(restarts) == seconds


def test_the_loop_of_a_worker_rests_only_where_nothing_waits() -> None:
    stop, answers = threading.Event(), iter([True, True, False])

    def run_one() -> bool:
        answer = next(answers)
        if not answer:
            stop.set()
        return answer

    local.work(run_one, stop, idle_seconds=0.0)
    assert next(answers, None) is None


def test_named_devices_are_taken_as_they_are() -> None:
    assert local.devices(("cpu", "cuda:1")) == ("cpu", "cuda:1")


def test_auto_is_at_least_the_processor() -> None:
    assert local.devices("auto")
