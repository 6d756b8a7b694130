"""An explanation shows what decided, as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable

from pacs_node.routing import Rules, SeriesView, as_json, render, route
from pacs_node.routing.conditions import Line
from pacs_node.routing.explanation import shorten, telling

RULES = """
    rules:
      - name: head
        when: {Modality: CT, SliceThickness: {max: 6}, or: [{BodyPartExamined: HEAD}, {StudyDescription: {contains: brain}}]}
        series: {SeriesNumber: {max: 5}}
        pipeline: ct-head
        send_to: [archive]
      - {name: rest, otherwise: true, pipeline: null, results: [notice], send_to: [research], forward: [archive]}
"""


def test_a_rule_that_fires_shows_its_work_and_the_alternatives_that_held(rules: Callable[..., Rules], series: Callable[..., SeriesView]) -> None:
    study = [series(SliceThickness="5", SeriesNumber="2", StudyDescription="Brain"), series(SliceThickness="5", SeriesNumber="9", StudyDescription="Brain")]

    assert render(route(rules(RULES), study)) == [
        "rule 'head' fires: its conditions hold on 2 series; those that `series` asks for are taken",
        "  pipeline ct-head on 1 series; default results to archive; priority normal",
        "  series 2 (CT, 3 instances, 3 frames): selected",
        "    yes Modality: is CT  (true of 3 of 3 instances; found CT)",
        "    yes SliceThickness: is at most 6  (true of 3 of 3 instances; found 5)",
        "    yes or: at least one of these holds  (1 of 2 hold)",
        "      yes StudyDescription: contains brain  (true of 3 of 3 instances; found Brain)",
        "    yes SeriesNumber: is at most 5  (true of 3 of 3 instances; found 2)",
        "  series 9 (CT, 3 instances, 3 frames): the conditions hold, not selected",
        "    no  SeriesNumber: is at most 5  (true of 0 of 3 instances; found 9)",
        "rule 'rest' does not fire: otherwise, but a rule fired: head",
    ]


def test_a_rule_that_does_not_fire_shows_what_failed(rules: Callable[..., Rules], series: Callable[..., SeriesView]) -> None:
    lines = render(route(rules(RULES), [series(SliceThickness="7", BodyPartExamined="CHEST", StudyDescription="Brain")]))

    assert lines[:3] == [
        "rule 'head' does not fire: its conditions hold together on no series",
        "  series without number (CT, 3 instances, 3 frames): the conditions do not hold",
        "    no  SliceThickness: is at most 6  (true of 0 of 3 instances; found 7)",
    ]
    assert lines[3:] == [
        "rule 'rest' fires: no other rule fired; its conditions hold on 1 series; the largest of them is taken",
        "  no pipeline; notice to research; originals to archive; priority normal",
        "  series without number (CT, 3 instances, 3 frames): selected",
    ]


def test_everything_can_be_shown(rules: Callable[..., Rules], series: Callable[..., SeriesView]) -> None:
    decisions = route(rules(RULES), [series(SliceThickness="7", BodyPartExamined="CHEST")])

    assert "      no  BodyPartExamined: is HEAD  (true of 0 of 3 instances; found CHEST)" in render(decisions, everything=True)


def test_the_same_can_be_written_as_json(rules: Callable[..., Rules], series: Callable[..., SeriesView]) -> None:
    decisions = route(rules(RULES), [series(SliceThickness="5", SeriesNumber="2", BodyPartExamined="HEAD", SeriesInstanceUID="1.9")])

    head, rest = json.loads(json.dumps(as_json(decisions)))

    assert (head["rule"], head["fired"], head["pipeline"], head["series"]) == ("head", True, "ct-head", ["1.9"])
    assert head["send_to"] == [{"destination": "archive", "kinds": None, "notice": True}]
    assert head["trials"][0]["conditions"][0] == {
        "key": "Modality", "wanted": "is CT", "found": "CT", "held": True, "why": "true of 3 of 3 instances", "depth": 0,
    }  # fmt: skip
    assert (rest["fired"], rest["send_to"], rest["forward"]) == (False, [], [])
    assert len(as_json(decisions, everything=True)[0]["trials"][0]["conditions"]) == 6


def test_a_not_turns_round_which_of_its_parts_tell() -> None:
    def line(key: str, held: bool, depth: int) -> Line:
        return Line(key, "", "", held, "", depth)

    excluded = [line("A", True, 0), line("not", False, 0), line("or", True, 1), line("B", False, 2), line("C", True, 2), line("D", True, 0)]
    allowed = [line("not", True, 0), line("or", False, 1), line("B", False, 2), line("C", False, 2)]

    assert [told.key for told in telling(excluded)] == ["not", "or", "C"]
    assert [told.key for told in telling(allowed)] == ["not", "or", "B", "C"]


def test_long_values_are_cut_to_one_line() -> None:
    assert shorten("a\nb  c") == "a b c"
    assert len(shorten("x" * 500)) == 60
