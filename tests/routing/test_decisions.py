"""Which rules fire on a study, on which series, and the work that follows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from pydicom.dataset import Dataset

from pacs_node.routing import Decision, JobRequest, Rules, SeriesView, Target, forwards, jobs, route, views

MAKE = Callable[..., SeriesView]
LOAD = Callable[..., Rules]


def fired(decisions: tuple[Decision, ...]) -> list[str]:
    return [decision.rule.name for decision in decisions if decision.fired]


def test_every_rule_that_holds_fires_and_otherwise_only_when_none_did(rules: LOAD, series: MAKE) -> None:
    loaded = rules("""
        rules:
          - {name: nothing else, otherwise: true, pipeline: null, results: []}
          - {name: ct, when: {Modality: CT}, pipeline: ct-body}
          - {name: thin, when: {SliceThickness: {max: 2}}, pipeline: ct-head}
          - {name: log too, otherwise: true, pipeline: null, results: []}
    """)

    assert fired(route(loaded, [series(SliceThickness="1")])) == ["ct", "thin"]
    assert fired(route(loaded, [series(SliceThickness="5")])) == ["ct"]
    assert fired(route(loaded, [series(Modality="MR")])) == ["nothing else", "log too"]
    assert [decision.rule.name for decision in route(loaded, [])] == ["nothing else", "ct", "thin", "log too"]
    assert fired(route(loaded, [])) == []


def test_the_conditions_of_a_rule_have_to_hold_on_one_series(rules: LOAD, series: MAKE) -> None:
    loaded = rules("rules: [{name: one, when: {BodyPartExamined: HEAD, SliceThickness: {max: 2}}, pipeline: ct-head}]")
    head, thin = series(BodyPartExamined="HEAD", SliceThickness="5"), series(BodyPartExamined="CHEST", SliceThickness="1")

    assert fired(route(loaded, [head, thin])) == []
    assert fired(route(loaded, [head, thin, series(BodyPartExamined="HEAD", SliceThickness="1")])) == ["one"]


@pytest.mark.parametrize(
    ("selection", "chosen"),
    [
        ("largest", ["1.3"]),
        ("all", ["1.1", "1.2", "1.3", "1.4"]),
        ("{SeriesDescription: {contains: bone}}", ["1.2", "1.4"]),
        ("{SeriesDescription: lung}", []),
    ],
)
def test_series_selects_among_those_on_which_the_conditions_hold(rules: LOAD, series: MAKE, selection: str, chosen: list[str]) -> None:
    study = [
        series(count=5, SeriesInstanceUID="1.1", SeriesNumber="4"),
        series(count=5, SeriesInstanceUID="1.2", SeriesNumber="3", SeriesDescription="Bone"),
        series(count=5, SeriesInstanceUID="1.3", SeriesNumber="2"),
        series(count=4, SeriesInstanceUID="1.4", SeriesNumber="1", SeriesDescription="bone thin"),
        series(count=9, SeriesInstanceUID="1.5", SeriesNumber="1", Modality="MR"),
    ]

    [decision] = route(rules(f"rules: [{{name: one, when: {{Modality: CT}}, series: {selection}, pipeline: ct-head}}]"), study)

    assert list(decision.series_uids) == chosen
    assert decision.fired is bool(chosen)  # a rule that selects nothing leaves the study to `otherwise`
    assert [trial.series_uid for trial in decision.trials if trial.selected] == chosen
    assert [trial.held for trial in decision.trials] == [True, True, True, True, False]


def test_the_largest_series_is_the_same_in_every_order_and_counts_frames(rules: LOAD, series: MAKE, header: Callable[..., Dataset]) -> None:
    loaded = rules("rules: [{name: one, when: {Modality: {any_of: [CT, SR]}}, pipeline: ct-head}]")
    enhanced = series(header(Modality="CT", SeriesInstanceUID="1.1", NumberOfFrames="40"))
    single = series(count=39, SeriesInstanceUID="1.2", SeriesNumber="1")
    twin = replace(enhanced, series_uid="1.0", headers=enhanced.headers)
    reports = views(Dataset() for _ in range(0))

    assert (enhanced.frames, single.frames, reports) == (40, 39, ())
    for study in ([enhanced, single, twin], [twin, single, enhanced]):
        assert route(loaded, study)[0].series_uids == ("1.0",)


def test_a_view_takes_its_facts_from_the_first_header_that_has_them(header: Callable[..., Dataset]) -> None:
    report = header(SeriesInstanceUID="1.2", Modality="SR")
    del report.Rows
    members = [
        header(SeriesInstanceUID="1.1"),
        report,
        header(SeriesInstanceUID="1.1", Modality="CT", SeriesNumber="3", SeriesDescription="axial", NumberOfFrames="0"),
    ]

    first, second = views(members, called_ae="NODE", calling_ae="CT1")

    assert (first.series_uid, first.modality, first.number, first.description, first.frames) == ("1.1", "CT", 3, "axial", 2)
    assert (first.called_ae, first.calling_ae) == ("NODE", "CT1")
    assert (second.number, second.frames) == (None, 0)  # an object without pixels has no frames
    assert first.label == 'series 3 "axial" (CT, 2 instances, 2 frames)'
    assert second.label == "series without number (SR, 1 instance, 0 frames)"


def test_sender_stands_for_the_senders_own_destination(rules: LOAD, series: MAKE) -> None:
    loaded = rules("rules: [{name: one, when: {Modality: CT}, series: all, pipeline: ct-head, send_to: [sender, research]}]")

    [known] = route(loaded, [series(calling="CT1 ")])
    [unknown] = route(loaded, [series(calling="CT2")])

    assert [target.destination for target in known.targets] == ["archive", "research"]
    assert [target.destination for target in unknown.targets] == ["research"]
    assert "no results_to is configured for the sender CT2" in unknown.why


def test_rules_that_name_the_same_work_are_one_job(rules: LOAD, series: MAKE) -> None:
    loaded = rules("""
        rules:
          - {name: a, when: {Modality: CT}, pipeline: ct-head, results: [sr], notice: false, send_to: [archive], priority: night}
          - {name: b, when: {Modality: CT}, pipeline: ct-head, results: [sr, sc], send_to: [archive, research], priority: urgent}
          - {name: c, when: {Modality: CT}, pipeline: ct-body, send_to: [research]}
          - {name: d, when: {Modality: CT}, series: all, pipeline: ct-head}
    """)
    study = [series(count=2, SeriesInstanceUID="1.1"), series(count=1, SeriesInstanceUID="1.2")]

    assert jobs(route(loaded, study)) == (
        JobRequest("ct-head", ("1.1",), ("a", "b"), (Target("archive", ("sr", "sc"), True), Target("research", ("sr", "sc"), True)), "urgent"),
        JobRequest("ct-body", ("1.1",), ("c",), (Target("research", None, True),), "normal"),
        JobRequest("ct-head", ("1.1", "1.2"), ("d",), (), "normal"),
    )
    assert len(jobs(route(loaded, study[:1]))) == 2  # there `all` and `largest` are the same


def test_defaults_and_a_list_of_kinds_are_united_where_the_defaults_are_known(rules: LOAD, series: MAKE) -> None:
    decisions = route(rules("""
        rules:
          - {name: a, when: {Modality: CT}, pipeline: ct-head, send_to: [research, archive]}
          - {name: b, when: {Modality: CT}, pipeline: ct-head, results: [sr, denoised], send_to: [research]}
    """), [series()])  # fmt: skip

    [job] = jobs(decisions, {"research": ("sr", "sc", "raw"), "archive": ("sr", "sc")})
    [without] = jobs(decisions)

    assert job.targets == (Target("research", ("sr", "sc", "raw", "denoised"), True), Target("archive", None, True))
    assert without.targets[0].kinds is None


def test_a_rule_without_pipeline_asks_for_work_only_where_it_wants_a_notice(rules: LOAD, series: MAKE) -> None:
    loaded = rules("""
        rules:
          - {name: silent, when: {Modality: PT}, pipeline: null, results: [], forward: [archive]}
          - {name: told, when: {Modality: MR}, pipeline: null, results: [notice], send_to: [archive], forward: [archive, research]}
          - {name: other, otherwise: true, pipeline: null, results: [notice], send_to: [research]}
    """)

    assert jobs(route(loaded, [series(Modality="PT")])) == ()
    [told] = jobs(route(loaded, [series(Modality="MR", SeriesInstanceUID="1.7")]))
    assert told == JobRequest("", ("1.7",), ("told",), (Target("archive", (), True),), "normal")
    [other] = jobs(route(loaded, [series(Modality="US")]))
    assert (other.rules, other.targets) == (("other",), (Target("research", (), True),))
    assert forwards(route(loaded, [series(Modality="PT"), series(Modality="MR")])) == ("archive", "research")
    assert forwards(route(loaded, [series(Modality="US")])) == ()


def test_routing_the_same_study_twice_decides_the_same(rules: LOAD, series: MAKE) -> None:
    loaded = rules("rules: [{name: one, when: {Modality: CT, not: {KVP: {min: 100}}}, pipeline: ct-head}]")
    study = [series(), series(Modality="MR")]

    assert route(loaded, study) == route(loaded, study)


def test_a_fall_back_with_conditions_fires_only_where_they_hold(rules: LOAD, series: MAKE) -> None:
    loaded = rules("""
        rules:
          - {name: head, when: {Modality: CT}, pipeline: ct-head}
          - {name: rest, otherwise: true, when: {Modality: MR}, results: []}
    """)

    assert [fired(route(loaded, [series(Modality=modality)])) for modality in ("CT", "MR", "US")] == [["head"], ["rest"], []]
