"""Files of rules: what loads, and what is refused with line, key and remedy."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pacs_node.config import AllowedSender, Assembly
from pacs_node.errors import ConfigError
from pacs_node.routing import Rules, SeriesView, route

LOAD = Callable[..., Rules]


def test_a_rule_keeps_all_that_was_said(rules: LOAD) -> None:
    [rule] = rules("""
        rules:
          - name: head CT
            when: {Modality: CT}
            series: all
            pipeline: ct-head
            results: [sr, sc, sr, notice]
            complete: {quiet: 30s, expect: [T1]}
            send_to: [archive, sender]
            forward: [research]
            priority: night
    """).rules

    assert (rule.name, rule.selection, rule.pipeline, rule.priority) == ("head CT", "all", "ct-head", "night")
    assert rule.results == ("sr", "sc")  # each once; notices are a flag
    assert rule.notice
    assert (rule.send_to, rule.forward) == (("archive", "sender"), ("research",))
    assert (rule.complete.quiet, rule.complete.expect) == (timedelta(seconds=30), ("T1",))


def test_an_empty_file_has_no_rules(rules: LOAD) -> None:
    assert rules("").rules == ()
    assert rules("rules: []").rules == ()


@pytest.mark.parametrize(
    ("when", "facts"),
    [
        ("BurnedInAnnotation: NO", {"BurnedInAnnotation": "NO"}),
        ("BurnedInAnnotation: {any_of: [YES, NO]}", {"BurnedInAnnotation": "YES"}),
        ("StudyID: 0012", {"StudyID": "0012"}),
        ("StudyDate: {min: 2024-01-31}", {"StudyDate": "20240201"}),
        ("StudyTime: {min: 22:00}", {"StudyTime": "223000"}),
        ("SoftwareVersions: 1.10", {"SoftwareVersions": "1.10"}),
        ("PatientID: 1_000", {"PatientID": "1_000"}),
        ("Modality: {present: yes}", {}),
        ("(0029,SIEMENS CSA HEADER,10): {present: false}", {}),
        ('{"(0029,SIEMENS CSA HEADER,10)": {present: no}}', {}),
    ],
)
def test_values_mean_what_stands_in_the_file_not_what_yaml_makes_of_them(
    rules: LOAD, series: Callable[..., SeriesView], when: str, facts: dict[str, str]
) -> None:
    loaded = rules(f"rules:\n- name: one\n  when:\n    {when}\n  pipeline: ct-head\n")

    assert route(loaded, [series(**facts)])[0].fired


def test_parts_of_a_file_can_be_repeated_by_their_anchor(rules: LOAD, series: Callable[..., SeriesView]) -> None:
    loaded = rules("""
        rules:
          - {name: a, when: &thin {Modality: CT, SliceThickness: {max: 3}}, pipeline: ct-head}
          - {name: b, when: {<<: *thin, BodyPartExamined: CHEST}, pipeline: ct-body}
    """)

    assert [decision.fired for decision in route(loaded, [series(SliceThickness="1")])] == [True, False]
    assert [decision.fired for decision in route(loaded, [series(SliceThickness="1", BodyPartExamined="CHEST")])] == [True, True]


BASE = "name: one, when: {Modality: CT}"

FAULTS = [
    ("{name: one, when: {Modalty: CT}, pipeline: ct-head}", 3, "rules[1].when.Modalty", "did you mean Modality?"),
    ("{name: one, when: {(0029,ACME,10): x}, pipeline: ct-head}", 3, "rules[1].when.(0029", "in quotes for a private one"),
    ("{name: one, when: {Modality: {is: CT}}, pipeline: ct-head}", 3, "rules[1].when.Modality.is", "is no condition"),
    ("{name: one, when: {ProtocolName: {matches: '('}}, pipeline: ct-head}", 3, "rules[1].when.ProtocolName.matches", "no regular expression"),
    ("{name: one, when: {Modality: null}, pipeline: ct-head}", 3, "rules[1].when.Modality", "a value is missing"),
    ("{name: one, when: {}, pipeline: ct-head}", 3, "rules[1].when", "must be a mapping"),
    ("{name: one, pipeline: ct-head}", 3, "rules[1]", "needs `when:` (conditions)"),
    (f"{{{BASE}, series: {{SeriesDescripton: x}}, pipeline: ct-head}}", 3, "rules[1].series.SeriesDescripton", "did you mean SeriesDescription?"),
    (f"{{{BASE}, series: biggest, pipeline: ct-head}}", 3, "rules[1].series", "largest"),
    (f"{{{BASE}, pipeline: ct-haed}}", 3, "rules[1].pipeline", "'ct-haed' is no installed model bundle: did you mean 'ct-head'?"),
    (f"{{{BASE}, pipeline: mammo}}", 3, "rules[1].pipeline", "known are ct-body, ct-head"),
    (f"{{{BASE}, pipeline: ct-head, send_to: [archiv]}}", 3, "rules[1].send_to[0]", "did you mean 'archive'?"),
    (f"{{{BASE}, pipeline: ct-head, forward: [pacs]}}", 3, "rules[1].forward[0]", "'pacs' is no destination"),
    (f"{{{BASE}, pipeline: ct-head, forward: [sender]}}", 3, "rules[1].forward[0]", "back to where they came from"),
    (f"{{{BASE}, pipeline: ct-head, results: [sr, map]}}", 3, "rules[1].results[1]", "'map' is no kind of result"),
    (f"{{{BASE}, pipeline: ct-head, results: [sc, pm]}}", 3, "rules[1].results", "add sr"),
    (f"{{{BASE}, pipeline: ct-head, results: [denoised]}}", 3, "rules[1].results", "has denoised without sr"),
    (f"{{{BASE}, pipeline: ct-head, results: [sr, notice], notice: false}}", 3, "rules[1].notice", "remove one of them"),
    (f"{{{BASE}, pipeline: ct-head, results: [], send_to: [archive]}}", 3, "rules[1].results", "leave `results` out"),
    (f"{{{BASE}, pipeline: null, results: [sr], send_to: [archive]}}", 3, "rules[1].results", "no pipeline to make them"),
    (f"{{{BASE}, pipeline: null, results: [notice]}}", 3, "rules[1].results", "goes nowhere"),
    (f"{{{BASE}, pipeline: null, send_to: [archive]}}", 3, "rules[1].send_to", "nothing would be sent"),
    (f"{{{BASE}, pipeline: null, results: [], send_to: [archive]}}", 3, "rules[1].send_to", "nothing would be sent"),
    (f"{{{BASE}, pipeline: ct-head, complete: {{quiet: 2h, deadline: 1h}}}}", 3, "rules[1].complete.deadline", "shorter than the quiet time"),
    (f"{{{BASE}, pipeline: ct-head, complete: {{quiet: 3h}}}}", 3, "rules[1].complete.quiet", "shorter than the quiet time"),
    (f"{{{BASE}, pipeline: ct-head, complete: {{expect: [T1, ' ']}}}}", 3, "rules[1].complete.expect[1]", "is empty"),
    (f"{{{BASE}, pipeline: ct-head, complete: {{verify_with: nobody}}}}", 3, "rules[1].complete.verify_with", "no destination of kind dicom"),
    (f"{{{BASE}, pipeline: ct-head, complete: {{quite: 3h}}}}", 3, "rules[1].complete.quite", "did you mean 'quiet'?"),
    (f"{{{BASE}, pipeline: ct-head, priority: high}}", 3, "rules[1].priority", "urgent"),
    ("{name: First, when: {Modality: CT}, pipeline: ct-head}", 3, "rules[1].name", "names an earlier rule"),
]


@pytest.mark.parametrize(("rule", "line", "key", "words"), FAULTS, ids=[fault[3][:40] for fault in FAULTS])
def test_a_fault_names_line_key_and_remedy(rules: LOAD, rule: str, line: int, key: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        rules(f"rules:\n- {{name: first, when: {{Modality: MR}}, pipeline: ct-body}}\n- {rule}\n", assembly=Assembly())

    assert caught.value.line == line
    assert caught.value.key == key
    assert words in caught.value.problem


@pytest.mark.parametrize(("order", "line"), [(["pipeline: x", "when: {Modalty: CT}"], 3), (["when: {Modalty: CT}", "pipeline: x"], 3)])
def test_the_first_fault_in_the_files_order_is_told(rules: LOAD, order: list[str], line: int) -> None:
    with pytest.raises(ConfigError) as caught:
        rules("rules:\n  - name: one\n" + "".join(f"    {entry}\n" for entry in order))

    assert caught.value.line == line
    assert caught.value.key.startswith("rules[0]." + order[0].split(":")[0])


def test_sender_needs_somebody_whose_results_go_somewhere(rules: LOAD) -> None:
    text = "rules: [{name: one, when: {Modality: CT}, pipeline: ct-head, send_to: [sender]}]"

    assert rules(text).results_to == {"CT1": "archive"}
    with pytest.raises(ConfigError, match="results_to"):
        rules(text, senders=(AllowedSender(ae_title="CT1"),))
    with pytest.raises(ConfigError, match="not clear for CT1, which has the results_to archive and research"):
        rules(text, senders=(AllowedSender(ae_title="CT1", results_to="archive"), AllowedSender(ae_title="CT1", results_to="research")))


@pytest.mark.parametrize(("known", "words"), [({"pipelines": []}, "none is installed"), ({"destinations": {}}, "there are none; add it")])
def test_the_remedy_fits_a_node_where_nothing_is_configured(rules: LOAD, known: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        rules("rules: [{name: one, when: {Modality: CT}, pipeline: ct-head, send_to: [archive]}]", **known)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    from pacs_node.routing import load

    with pytest.raises(ConfigError, match=r"rules\.yaml: cannot be read"):
        load(tmp_path / "rules.yaml", pipelines=[], destinations={})
