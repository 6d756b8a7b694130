"""Rules that change, or come to no end, while studies wait."""

from __future__ import annotations

from sqlalchemy import select

from pacs_node.database import alerts
from pacs_node.database.states import StudyState
from pacs_node.database.tables import AuditRow, StudyRow
from pacs_node.journey.assemble import take_rules
from pacs_node.routing import load
from tests.journey.support import RULES, Town, ct_study

SLOW = """
rules:
  - name: head CT
    when: {Modality: CT, ProtocolName: {matches: "(xy|xyxy)+[bc]"}}
    pipeline: ct-test
    send_to: [research]
"""


def change_rules(town: Town, text: str) -> None:
    (town.folder / "rules.yaml").write_text(text)
    take_rules(town.house, load(town.folder / "rules.yaml", pipelines=town.bundles, destinations=town.settings.destinations), town.clock)


def studies_of(town: Town) -> list[tuple[StudyState, str]]:
    with town.house.store.read() as session:
        return [(row.state, row.outcome) for row in session.scalars(select(StudyRow).order_by(StudyRow.id))]


def test_studies_that_wait_are_judged_by_new_rules_at_once_and_complete_ones_are_left_alone(town: Town) -> None:
    change_rules(town, RULES.replace("pipeline: ct-test\n", "pipeline: ct-test\n    complete: {quiet: 50min}\n"))
    town.send(ct_study(study="A", Modality="DX"))
    town.settle()
    town.send(ct_study(study="B"))
    town.settle()
    assert studies_of(town) == [(StudyState.COMPLETE, "no pipeline (rule 'anything else')"), (StudyState.RECEIVING, "")]
    change_rules(town, RULES.replace("otherwise: true", "otherwise: true\n    when: {Modality: MR}"))
    town.gather()  # its timer would have run out 50 minutes later
    assert studies_of(town) == [(StudyState.COMPLETE, "no pipeline (rule 'anything else')"), (StudyState.COMPLETE, "ct-test: job 1")]
    with town.house.store.read() as session:
        assert [row.detail["rules"] for row in session.scalars(select(AuditRow).where(AuditRow.action == "rules"))] == [["head CT", "anything else"]] * 2


def test_rules_that_change_while_a_study_is_judged_judge_it_again(town: Town) -> None:
    from pacs_node.journey import assemble as module

    town.send(ct_study())
    town.gather()
    town.wait(seconds=11)
    whole = module.series_views

    def meanwhile(*arguments: object) -> object:
        module.series_views = whole  # type: ignore[assignment]
        change_rules(town, "rules: []")
        return whole(*arguments)  # type: ignore[arg-type]

    module.series_views = meanwhile  # type: ignore[assignment]
    try:
        town.gather()
    finally:
        module.series_views = whole  # type: ignore[assignment]
    assert studies_of(town) == [(StudyState.COMPLETE, "no rule fired")]


def test_a_pattern_that_comes_to_no_end_stops_no_other_study_and_is_said_until_it_is_put_right(town: Town) -> None:
    change_rules(town, SLOW)
    town.send(ct_study(study="A", ProtocolName="xy" * 32))
    town.send(ct_study(study="B", ProtocolName="xyb"))
    town.settle()
    assert [state for state, _ in studies_of(town)] == [StudyState.RECEIVING, StudyState.COMPLETE]
    with town.house.store.read() as session:
        [alert] = alerts.open_alerts(session)
    assert alert.kind == "assembly" and "(xy|xyxy)+[bc]" in alert.message
    change_rules(town, RULES)
    town.gather()
    assert [state for state, _ in studies_of(town)] == [StudyState.COMPLETE] * 2
    with town.house.store.read() as session:
        assert alerts.open_alerts(session) == []
