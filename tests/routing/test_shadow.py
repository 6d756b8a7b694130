"""Rules under trial: they decide as any other, and change nothing for the others."""

from __future__ import annotations

import json
from collections.abc import Callable

from pacs_node.routing import JobRequest, Rules, SeriesView, Target, as_json, forwards, jobs, render, route

LOAD, MAKE = Callable[..., Rules], Callable[..., SeriesView]


def test_a_rule_under_trial_names_its_targets_and_forwards_nothing(rules: LOAD, series: MAKE) -> None:
    decisions = route(
        rules("rules: [{name: new, when: {Modality: CT}, pipeline: ct-head, send_to: [archive], forward: [research], shadow: true}]"),
        [series(SeriesInstanceUID="1.1")],
    )
    assert jobs(decisions) == (JobRequest("ct-head", ("1.1",), ("new",), (Target("archive", None, True, ("new",)),), "normal", ("new",)),)
    assert jobs(decisions)[0].shadow
    assert forwards(decisions) == ()
    assert "  pipeline ct-head on 1 series; default results to archive; originals to research; priority normal; shadow: this is tried" in render(decisions)[1]
    assert json.loads(json.dumps(as_json(decisions)))[0]["shadow"] is True


def test_a_rule_under_trial_keeps_no_fall_back_from_firing(rules: LOAD, series: MAKE) -> None:
    loaded = rules("""
        rules:
          - {name: new, when: {Modality: CT}, pipeline: ct-head, shadow: true}
          - {name: rest, otherwise: true, pipeline: null, results: [notice], send_to: [research]}
    """)
    assert [decision.fired for decision in route(loaded, [series()])] == [True, True]


def test_a_rule_under_trial_joins_the_work_of_another_and_changes_neither_its_priority_nor_its_targets(rules: LOAD, series: MAKE) -> None:
    loaded = rules("""
        rules:
          - {name: new, when: {Modality: CT}, pipeline: ct-head, results: [sr, sc], send_to: [archive, research], priority: urgent, shadow: true}
          - {name: old, when: {Modality: CT}, pipeline: ct-head, results: [sr], send_to: [archive], priority: night}
          - {name: newer, when: {Modality: CT}, pipeline: ct-head, results: [pm], send_to: [archive], priority: urgent, shadow: true}
    """)
    [job] = jobs(route(loaded, [series(SeriesInstanceUID="1.1")]))
    assert not job.shadow
    assert (job.rules, job.shadow_rules, job.priority) == (("new", "old", "newer"), ("new", "newer"), "night")
    assert set(job.targets) == {
        Target("archive", ("sr",), True),
        Target("archive", ("sr", "sc", "pm"), True, ("new", "newer")),
        Target("research", ("sr", "sc"), True, ("new",)),
    }
    alone = job.only_shadow()
    assert alone.shadow and alone.rules == ("new", "newer") and Target("archive", ("sr",), True) not in alone.targets


def test_of_rules_under_trial_alone_the_most_urgent_counts(rules: LOAD, series: MAKE) -> None:
    loaded = rules("""
        rules:
          - {name: a, when: {Modality: CT}, pipeline: ct-head, priority: night, shadow: true}
          - {name: b, when: {Modality: CT}, pipeline: ct-head, priority: urgent, shadow: true}
    """)
    [job] = jobs(route(loaded, [series()]))
    assert (job.shadow, job.priority) == (True, "urgent")
