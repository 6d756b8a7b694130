"""What may go, and when: every kind of file, by its own age and by the disk's fill."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pacs_node.config import Retention
from pacs_node.retention.policy import (
    AHEAD,
    GRACE,
    SETTLED,
    TABLE,
    Action,
    Kind,
    StudyFacts,
    age_of,
    decide,
    in_words,
    kind_of_results,
    kind_of_study,
    youngest,
)

NOW = datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
RETENTION = Retention.model_validate(
    {"keep": "14d", "unrouted": "7d", "held": "60d", "parked": "61d", "undelivered": "62d", "aside": "63d", "quarantine": "64d", "high_watermark": "85%"}
)
DAY = timedelta(days=1)
AGES = {
    Kind.FINISHED: 14, Kind.UNROUTED: 7, Kind.HELD: 60, Kind.PARKED: 61, Kind.UNFORWARDED: 62,
    Kind.DELIVERED: 14, Kind.UNDELIVERED: 62, Kind.ASIDE: 63, Kind.QUARANTINE: 64,
}  # fmt: skip
YIELDING = {Kind.FINISHED, Kind.UNROUTED, Kind.DELIVERED}
WARNED = {Kind.HELD, Kind.PARKED, Kind.UNDELIVERED, Kind.UNFORWARDED}


def action(kind: Kind | None, age: timedelta, *, warned: timedelta | None = None, pressed: bool = False) -> Action:
    """Decide about a file of an age, of which it was said so long ago that it will go."""
    return decide(kind, NOW - age, NOW - warned if warned is not None else None, RETENTION, NOW, pressed=pressed).action


def test_the_table_has_a_row_for_each_kind() -> None:
    assert TABLE.keys() == set(Kind) == AGES.keys()
    assert {kind for kind, row in TABLE.items() if row.yields} == YIELDING
    assert {kind for kind, row in TABLE.items() if row.warned} == WARNED


@pytest.mark.parametrize("kind", Kind)
def test_each_kind_goes_at_its_own_age_and_not_before(kind: Kind) -> None:
    age = timedelta(days=AGES[kind])
    said = 2 * AHEAD if kind in WARNED else None
    assert age_of(kind, RETENTION) == age
    assert action(kind, age - timedelta(seconds=1), warned=said) is not Action.REMOVE
    assert action(kind, age, warned=said) is Action.REMOVE


@pytest.mark.parametrize("kind", Kind)
def test_a_full_disk_takes_only_what_is_finished_and_settled(kind: Kind) -> None:
    assert action(kind, SETTLED, pressed=True) is (Action.REMOVE if kind in YIELDING else Action.KEEP)
    assert action(kind, SETTLED - timedelta(seconds=1), pressed=True) is Action.KEEP


@pytest.mark.parametrize("kind", sorted(WARNED))
def test_what_somebody_could_still_mend_goes_only_after_it_was_said(kind: Kind) -> None:
    age = timedelta(days=AGES[kind])
    assert action(kind, age - AHEAD - timedelta(seconds=1)) is Action.KEEP
    assert action(kind, age - AHEAD) is Action.WARN
    assert action(kind, age * 10) is Action.WARN  # the node was off for a year
    assert action(kind, age * 10, warned=GRACE - timedelta(seconds=1)) is Action.WARN
    assert action(kind, age * 10, warned=GRACE) is Action.REMOVE
    assert action(kind, age, warned=AHEAD, pressed=True) is Action.REMOVE
    assert action(kind, age - DAY, warned=AHEAD, pressed=True) is Action.WARN


@pytest.mark.parametrize("pressed", [False, True])
def test_what_is_unfinished_stays_whatever_its_age(pressed: bool) -> None:
    assert action(None, timedelta(days=10_000), warned=timedelta(days=5000), pressed=pressed) is Action.KEEP


def test_nothing_goes_early_where_the_clock_was_set_back() -> None:
    assert action(Kind.FINISHED, -timedelta(days=400), pressed=True) is Action.KEEP


def test_the_reason_names_the_age_or_the_disk() -> None:
    since = NOW - timedelta(days=15)
    assert decide(Kind.FINISHED, since, None, RETENTION, NOW, pressed=False).why == "the study is finished, for longer than 14d"
    assert "high_watermark" in decide(Kind.FINISHED, NOW - DAY, None, RETENTION, NOW, pressed=True).why


def test_unrouted_studies_stay_as_long_as_finished_ones_unless_said_otherwise() -> None:
    assert age_of(Kind.UNROUTED, Retention.model_validate({"keep": "3d"})) == timedelta(days=3)


FACTS = [
    (StudyFacts(receiving=True, held=False, jobs=1, parked=True), None),
    (StudyFacts(receiving=False, held=False, jobs=1, parked=False, needed=("a job that goes on",)), None),
    (StudyFacts(receiving=False, held=True, jobs=1, parked=True, needed=("an open commitment request",)), None),
    (StudyFacts(receiving=False, held=True, jobs=1, parked=True), Kind.HELD),
    (StudyFacts(receiving=False, held=False, jobs=3, parked=True), Kind.PARKED),
    (StudyFacts(receiving=False, held=False, jobs=0, parked=False, unforwarded=True), Kind.UNFORWARDED),
    (StudyFacts(receiving=False, held=False, jobs=3, parked=False), Kind.FINISHED),
    (StudyFacts(receiving=False, held=False, jobs=0, parked=False), Kind.UNROUTED),
]


@pytest.mark.parametrize(("facts", "kind"), FACTS)
def test_originals_are_what_their_study_is(facts: StudyFacts, kind: Kind | None) -> None:
    assert kind_of_study(facts) is kind


@pytest.mark.parametrize(("unfinished", "stuck", "kind"), [(1, 0, None), (2, 5, None), (0, 1, Kind.UNDELIVERED), (0, 0, Kind.DELIVERED)])
def test_results_are_what_their_deliveries_are(unfinished: int, stuck: int, kind: Kind | None) -> None:
    assert kind_of_results(unfinished, stuck) is kind


def test_nothing_is_looked_at_that_is_too_young_for_every_kind() -> None:
    assert youngest(RETENTION, pressed=False, kinds=(Kind.FINISHED, Kind.UNROUTED, Kind.HELD)) == 7 * DAY
    assert youngest(RETENTION, pressed=False, kinds=(Kind.HELD, Kind.PARKED)) == 60 * DAY - AHEAD
    assert youngest(RETENTION, pressed=True, kinds=(Kind.FINISHED, Kind.HELD)) == SETTLED
    assert youngest(Retention.model_validate({"held": "1d"}), pressed=False, kinds=(Kind.HELD,)) == timedelta()


@pytest.mark.parametrize(("span", "words"), [("14d", "14d"), ("36h", "36h"), ("90min", "90min"), ("90s", "90s"), ("500ms", "0.5s")])
def test_time_spans_are_said_as_they_are_written(span: str, words: str) -> None:
    assert in_words(Retention.model_validate({"keep": span}).keep) == words
