"""When a study counts as complete, and what it says while it does not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pacs_node.assembly.completeness import Facts, Judgement, Policy, for_people, judge, missing_series, policy
from pacs_node.config import Assembly, Complete

START = datetime(2024, 5, 1, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def facts(**changes: Any) -> Facts:
    """First instance at 0 s, last at 60 s, over one association that is still open."""
    known: dict[str, Any] = {"first_arrival": at(0), "last_arrival": at(60), "open_associations": 1, "all_released": False, "instances": 30}
    return Facts(**{**known, "series_descriptions": frozenset({"AX T1 SE", "Scout"}), **changes})


def rule(**changes: Any) -> Policy:
    return Policy(**{"quiet": timedelta(seconds=10), "deadline": timedelta(minutes=10), "on_release": False, "expect": (), **changes})


RELEASED = {"open_associations": 0, "all_released": True}
ABORTED = {"open_associations": 0, "all_released": False}

# (facts, policy, now in s) -> (complete, partial, look again in s, a word of reason or of what it waits for)
TABLE = [
    # quiet time
    ({}, {}, 60, False, False, 70, "10 s without an instance"),
    ({}, {}, 69.9, False, False, 70, "10 s without an instance"),
    ({}, {}, 70, True, False, None, "no instance came for 10 s"),
    ({}, {}, 5000, True, False, None, "no instance came for 10 s"),  # nobody looked in time, but it was quiet
    (RELEASED, {}, 60, False, False, 70, "10 s without an instance"),  # a release alone is not asked for
    # release
    (RELEASED, {"on_release": True}, 60, True, False, None, "released the association"),
    ({}, {"on_release": True}, 60, False, False, 70, "or the release of its associations"),
    ({}, {"on_release": True}, 70, True, False, None, "no instance came"),  # an association kept open holds nothing up
    (ABORTED, {"on_release": True}, 60, False, False, 70, "10 s without an instance"),
    (ABORTED, {"on_release": True}, 70, True, False, None, "no instance came"),
    ({"open_associations": 1, "all_released": True}, {"on_release": True}, 60, False, False, 70, "release"),
    # expected series
    ({}, {"expect": ("t1",)}, 70, True, False, None, "and t1 is there"),
    ({}, {"expect": ("T1", "scout")}, 70, True, False, None, "and T1, scout are there"),
    ({}, {"expect": ("T1", "FLAIR", "DWI")}, 70, False, False, 600, "series FLAIR, DWI"),
    (RELEASED, {"expect": ("FLAIR",), "on_release": True}, 61, False, False, 600, "series FLAIR"),
    ({}, {"expect": ("FLAIR",)}, 600, True, True, None, "the deadline of 10 min came while it waited for series FLAIR"),
    # deadline
    ({"last_arrival": at(595)}, {}, 599, False, False, 600, "10 s without an instance"),  # whatever comes first
    ({"last_arrival": at(595)}, {}, 600, True, True, None, "the deadline of 10 min came while it waited for 10 s without an instance"),
    ({"last_arrival": at(595)}, {}, 605, True, False, None, "no instance came"),
    ({"first_arrival": at(300), "last_arrival": at(895)}, {}, 899, False, False, 900, "10 s"),  # of this gathering, not of the study
    # nothing there, and a clock that was set back
    ({"instances": 0}, {}, 5000, False, False, None, "its first instance"),
    ({}, {}, -300, False, False, 70, "10 s"),
    ({}, {}, -3600, True, True, None, "the clock was set back"),
]


@pytest.mark.parametrize(("known", "asked", "now", "complete", "partial", "again", "words"), TABLE)
def test_a_study_is_judged(known: dict[str, Any], asked: dict[str, Any], now: float, complete: bool, partial: bool, again: float | None, words: str) -> None:
    judgement = judge(facts(**known), rule(**asked), at(now))

    assert (judgement.complete, judgement.partial) == (complete, partial)
    assert judgement.look_again_at == (None if again is None else at(again))
    assert words in (judgement.reason if complete else judgement.waiting_for)
    assert (judgement.waiting_for == "") is complete
    assert (judgement.reason == "") is not complete


@pytest.mark.parametrize("asked", [{}, {"expect": ("FLAIR",)}, {"on_release": True}, {"quiet": timedelta(minutes=30)}], ids=str)
def test_looking_again_when_told_always_ends(asked: dict[str, Any]) -> None:
    now, looks = at(60), 0
    judgement = judge(facts(), rule(**asked), now)
    while not judgement.complete:
        assert judgement.look_again_at is not None
        assert judgement.look_again_at > now
        now, looks = judgement.look_again_at, looks + 1
        judgement = judge(facts(), rule(**asked), now)

    assert looks == 1


def test_quiet_time_of_zero_means_at_once() -> None:
    expected = Judgement(True, "no instance came for 0 s", False, "", None)

    assert judge(facts(), rule(quiet=timedelta(0)), at(60)) == expected


def test_a_rule_overrides_the_house_only_in_what_it_says() -> None:
    house = Assembly(quiet=timedelta(seconds=20), deadline=timedelta(hours=1), on_release=True)

    assert policy(house, Complete()) == Policy(timedelta(seconds=20), timedelta(hours=1), True, ())
    assert policy(house, Complete(quiet=timedelta(0), on_release=False, expect=("T1",))) == Policy(timedelta(0), timedelta(hours=1), False, ("T1",))


def test_an_expected_text_may_be_part_of_a_description() -> None:
    descriptions = frozenset({"t1_mprage_sag", "T2 FLAIR"})

    assert missing_series(descriptions, (" T1 ", "flair", "DWI")) == ("DWI",)
    assert missing_series(frozenset(), ()) == ()


@pytest.mark.parametrize(("seconds", "text"), [(0, "0 s"), (0.5, "0.5 s"), (90, "90 s"), (120, "2 min"), (7200, "2 h"), (86400, "1 d")])
def test_time_spans_read_well(seconds: float, text: str) -> None:
    assert for_people(timedelta(seconds=seconds)) == text
