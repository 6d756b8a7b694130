"""What other rules would change, in sentences."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pacs_node.routing import Rules, SeriesView, as_json, changes, route

LOAD, MAKE = Callable[..., Rules], Callable[..., SeriesView]
RULE = "{name: head, when: {Modality: CT}, pipeline: ct-head, send_to: [archive]}"


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (RULE, ()),
        ("{name: head, when: {Modality: CT, not: {Modality: MR}}, pipeline: ct-head, send_to: [archive]}", ()),  # other words, the same to do
        ("{name: head, when: {Modality: MR}, pipeline: ct-head}", ("rule 'head' fired and would not now: its conditions hold together on no series",)),
        ("{name: other, when: {Modality: MR}, pipeline: ct-head}", ("rule 'head' fired and would not now: it is not there any more",)),
        (RULE.replace("ct-head", "ct-body"), ("rule 'head': pipeline was ct-head, would be ct-body",)),
        (RULE.replace("[archive]", "[research]"), ("rule 'head': send_to was archive (defaults, notice), would be research (defaults, notice)",)),
        (RULE.replace("[archive]", "[archive], results: [sr, sc]"), ("rule 'head': send_to was archive (defaults, notice), would be archive (sr+sc, notice)",)),
        (RULE.replace("[archive]", "[archive], priority: urgent"), ("rule 'head': priority was normal, would be urgent",)),
        (RULE.replace("[archive]", "[archive], forward: [research]"), ("rule 'head': forward was nobody, would be research",)),
        (RULE.replace("[archive]", "[archive], series: all"), ("rule 'head': series was 1 series (1.1), would be 2 series (1.1, 1.2)",)),
    ],
    ids=lambda value: str(value)[:60],
)
def test_changes_are_said_rule_by_rule(rules: LOAD, series: MAKE, now: str, expected: tuple[str, ...]) -> None:
    study = [series(SeriesInstanceUID="1.1", count=3), series(SeriesInstanceUID="1.2", count=2)]
    then = as_json(route(rules(f"rules: [{RULE}]"), study))
    assert changes(then, as_json(route(rules(f"rules: [{now}]"), study))) == expected


def test_a_rule_that_begins_to_fire_is_said_and_one_put_on_trial_as_well(rules: LOAD, series: MAKE) -> None:
    study = [series()]
    then = as_json(route(rules(f"rules: [{RULE}]"), study))
    tried = RULE.replace("[archive]", "[archive], shadow: true")
    found = changes(then, as_json(route(rules(f"rules: [{tried}, {{name: new, when: {{Modality: CT}}, pipeline: ct-body}}]"), study)))
    assert found[0] == "rule 'head': shadow was in force, would be under trial"
    assert found[1].startswith("rule 'new' would fire now: its conditions hold on 1 series")
