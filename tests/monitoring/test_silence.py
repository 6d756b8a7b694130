"""Working time between two moments, in the node's own time zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pacs_node.config import Silence
from pacs_node.monitoring.silence import worked, zone_of

BERLIN = zone_of("Europe/Berlin")
WEEK = Silence.model_validate({"after": "4h", "days": ["mon", "tue", "wed", "thu", "Friday"], "hours": "08:00-18:00"})
ALWAYS = Silence.model_validate({"after": "4h", "days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "hours": "00:00-24:00"})


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("since", "now", "hours"),
    [
        ("2026-03-02 09:00", "2026-03-02 12:00", 3),  # a Monday in winter: 10:00 to 13:00 there
        ("2026-03-02 03:00", "2026-03-02 09:00", 2),  # from 08:00 on
        ("2026-03-02 16:30", "2026-03-03 07:30", 1),  # an evening and a morning
        ("2026-03-06 16:00", "2026-03-09 08:00", 2),  # over a weekend
        ("2026-03-07 09:00", "2026-03-08 20:00", 0),  # a weekend
        ("2026-06-01 05:00", "2026-06-01 07:00", 1),  # summer time: 08:00 is 06:00 UTC
        ("2026-03-02 12:00", "2026-03-02 09:00", 0),  # a clock that was set back
    ],
)
def test_only_working_time_counts(since: str, now: str, hours: float) -> None:
    assert worked(at(since), at(now), WEEK, BERLIN) == timedelta(hours=hours)


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-06-01", 24)])
def test_a_day_on_which_clocks_change_has_the_hours_that_it_has(day: str, hours: int) -> None:
    begin = datetime.fromisoformat(day).replace(tzinfo=BERLIN).astimezone(UTC)
    end = (datetime.fromisoformat(day) + timedelta(days=1)).replace(tzinfo=BERLIN).astimezone(UTC)
    assert abs(worked(begin, end, ALWAYS, BERLIN) - timedelta(hours=hours)) < timedelta(seconds=1)


def test_years_of_silence_are_not_counted_day_by_day() -> None:
    assert worked(at("1990-01-01 00:00"), at("2026-03-02 00:00"), ALWAYS, BERLIN) <= timedelta(days=61)
