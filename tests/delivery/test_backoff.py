from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pacs_node.delivery.backoff import Breaker, Policy, allows, failed, next_attempt, succeeded

NOW = datetime(2026, 3, 29, 0, 59, 50, tzinfo=UTC)  # ten seconds before a change to summer time
POLICY = Policy(first=timedelta(seconds=10), factor=2, longest=timedelta(minutes=10), jitter=0.25, give_up_after=timedelta(hours=2), breaker_after=3)


def middle() -> float:
    return 0.5


@pytest.mark.parametrize(("attempts", "seconds"), [(1, 10), (2, 20), (3, 40), (6, 320), (7, 600), (8, 600), (12, 600)])
def test_the_wait_doubles_up_to_the_longest(attempts: int, seconds: int) -> None:
    assert next_attempt(attempts, NOW, POLICY, middle) == NOW + timedelta(seconds=seconds)


@pytest.mark.parametrize(("random", "seconds"), [(0.0, 7.5), (0.5, 10.0), (0.999999, 12.5)])
def test_jitter_keeps_within_its_share(random: float, seconds: float) -> None:
    moment = next_attempt(1, NOW, POLICY, lambda: random)
    assert moment is not None
    assert (moment - NOW).total_seconds() == pytest.approx(seconds, abs=0.001)


def test_after_the_limit_the_delivery_is_parked() -> None:
    planned = [next_attempt(attempts, NOW, POLICY, middle) for attempts in range(1, 30)]
    tries = planned.index(None)
    assert planned[tries:] == [None] * (29 - tries)
    waited = sum(((moment - NOW) for moment in planned[:tries] if moment is not None), timedelta())
    assert timedelta(hours=1, minutes=50) <= waited <= timedelta(hours=2)


def test_the_default_policy_tries_for_days_and_many_attempts_do_not_overflow() -> None:
    assert next_attempt(50, NOW, Policy(), middle) is not None
    assert next_attempt(10_000, NOW, Policy(), middle) is None


def test_the_breaker_opens_after_failures_in_a_row_and_lets_one_try_through() -> None:
    breaker = Breaker()
    for _ in range(2):
        breaker = failed(breaker, NOW, POLICY, middle)
        assert allows(breaker, NOW)
    breaker = failed(breaker, NOW, POLICY, middle)
    assert not allows(breaker, NOW) and not allows(breaker, NOW + timedelta(seconds=9))
    later = NOW + timedelta(seconds=10)
    assert allows(breaker, later)
    breaker = failed(breaker, later, POLICY, middle)
    assert not allows(breaker, later + timedelta(seconds=19)) and allows(breaker, later + timedelta(seconds=20))
    assert succeeded(breaker) == Breaker()


def test_a_success_in_between_starts_the_count_anew() -> None:
    breaker = failed(failed(Breaker(), NOW, POLICY, middle), NOW, POLICY, middle)
    breaker = failed(succeeded(breaker), NOW, POLICY, middle)
    assert allows(breaker, NOW)


def test_the_rest_of_a_breaker_never_grows_beyond_the_longest_wait() -> None:
    breaker = Breaker()
    for _ in range(200):
        breaker = failed(breaker, NOW, POLICY, middle)
    assert allows(breaker, NOW + POLICY.longest)
