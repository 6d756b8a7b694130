from __future__ import annotations

import itertools

import pytest

from pacs_node.database.states import DELIVERY_MOVES, JOB_MOVES, STUDY_MOVES, DeliveryState, IllegalMove, JobState, StudyState, move, sources

TABLES = [(StudyState, STUDY_MOVES), (JobState, JOB_MOVES), (DeliveryState, DELIVERY_MOVES)]


@pytest.mark.parametrize(("states", "moves"), TABLES)
def test_every_state_has_its_row(states, moves) -> None:
    assert set(moves) == set(states)


@pytest.mark.parametrize(("states", "moves"), TABLES)
def test_only_the_moves_of_the_table_are_possible(states, moves) -> None:
    for current, target in itertools.product(states, states):
        if target == current or target in moves[current]:
            assert move(current, target) is target
        else:
            with pytest.raises(IllegalMove):
                move(current, target)


@pytest.mark.parametrize(("states", "moves"), TABLES)
def test_sources_are_the_table_read_backwards(states, moves) -> None:
    for target in states:
        assert set(sources(target)) == {state for state in states if target in moves[state]}


def test_what_was_delivered_stays_so_and_what_was_withdrawn_is_never_sent_again() -> None:
    assert DELIVERY_MOVES[DeliveryState.DELIVERED] == frozenset()
    assert DELIVERY_MOVES[DeliveryState.CANCELLED] == frozenset({DeliveryState.DELIVERED})  # said only of what had left already
    assert JOB_MOVES[JobState.CANCELLED] == frozenset()
