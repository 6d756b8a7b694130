"""Regular expressions of rules: as in Python, but given up in time."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable

import pytest

from pacs_node.errors import SlowPattern
from pacs_node.routing import SeriesView
from pacs_node.routing.compiling import ConditionFault, compile_when

SLOW = "(xy|xyxy)+[bc]"  # doubles its time with every xy


@pytest.mark.parametrize("pattern", ["(a|aa)+[bc]", r"(?:(a*)\1)+[bc]"])
def test_a_pattern_that_comes_to_no_end_is_refused_with_its_place(pattern: str) -> None:
    with pytest.raises(ConditionFault) as caught:
        compile_when({"or": [{"ProtocolName": {"matches": pattern}}]})
    assert caught.value.path == ("or", 0, "ProtocolName", "matches")
    assert "simplify it" in caught.value.problem


def test_a_pattern_that_only_some_values_make_slow_is_given_up_in_time(series: Callable[..., SeriesView]) -> None:
    condition = compile_when({"ProtocolName": {"matches": SLOW}})
    assert condition.holds(series(ProtocolName="xyxyb"))
    begin = time.process_time()
    with pytest.raises(SlowPattern, match=r"took more than 0\.25 s on one value"):
        condition.holds(series(ProtocolName="xy" * 32))
    assert time.process_time() - begin < 5


@pytest.mark.parametrize("pattern", [".*.*.*.*.*x", "(a+)+b", r"(\w+\s?)*[!?]", r".*(?<![^\W\d_])(head|brain).*", "T[12].*", "c[eé]r[eé]br.*"])
def test_what_comes_to_an_end_is_taken(pattern: str) -> None:
    compile_when({"ProtocolName": {"matches": pattern}})


def test_a_compiled_pattern_travels_to_other_processes(series: Callable[..., SeriesView]) -> None:
    condition = pickle.loads(pickle.dumps(compile_when({"ProtocolName": {"matches": "t[12]\\b.*"}})))
    assert condition.holds(series(ProtocolName="T1 weighted"))
    assert not condition.holds(series(ProtocolName="T10 weighted"))
