"""`explain --past`: what present rules would change of what was decided."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from pacs_node.analysis import installed
from pacs_node.database.tables import AlertRow, StudyRow
from pacs_node.errors import InputError
from pacs_node.workbench import explain
from pacs_node.workbench.explain import explain_past
from tests.journey.support import RULES, Town, ct_study


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    bundle = tmp_path / "models" / "ct-test"
    bundle.mkdir(parents=True)
    (bundle / installed.MODEL).touch()
    built = Town(tmp_path, bundles={"ct-test": bundle})
    node = built.settings.node.model_copy(update={"models": tmp_path / "models"})
    built.settings = built.settings.model_copy(update={"node": node})
    built.restart()
    yield built
    built.house.store.close()


def edit(town: Town, old: str, new: str) -> None:
    (town.folder / "rules.yaml").write_text(RULES.replace(old, new))


def outcomes(town: Town) -> list[str]:
    return [past.outcome for past in explain_past(town.settings, "7d")]


def test_each_study_is_the_same_or_changed_or_not_decided_yet(town: Town) -> None:
    for study, modality in (("A", "CT"), ("B", "DX")):
        town.send(ct_study(study=study, Modality=modality))
        town.settle()
    town.send(ct_study(study="C"))
    town.gather()
    assert outcomes(town) == ["same", "same", "not decided yet"]
    edit(town, "BodyPartExamined: HEAD", "BodyPartExamined: CHEST")
    assert outcomes(town) == ["changed", "same", "not decided yet"]
    changed = next(explain_past(town.settings, "7d"))
    assert changed.changes[0] == "rule 'head CT' fired and would not now: its conditions hold together on no series"
    assert changed.changes[1].startswith("rule 'anything else' would fire now")
    assert [decided["fired"] for decided in changed.as_json()["then"]] == [True, False]
    assert changed.lines()[0].endswith("ct-test: job 1: changed")
    assert any("BodyPartExamined: is CHEST" in line for line in changed.lines())


def test_a_study_whose_files_are_gone_is_listed_with_what_was_decided_and_nothing_is_written(town: Town) -> None:
    town.send(ct_study())
    town.settle()
    for path in (town.settings.node.data / "studies").rglob("*.dcm"):
        path.unlink()
    [past] = explain_past(town.settings, "7d")
    assert (past.outcome, past.changes) == ("files are gone", ())
    assert [decided["fired"] for decided in past.as_json()["then"]] == [True, False]
    with town.house.store.read() as session:
        assert session.scalars(select(AlertRow)).all() == []


def test_studies_are_taken_out_one_after_the_other(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    town.send(ct_study(2))
    town.settle()
    with town.house.store.write() as session:
        first = session.get_one(StudyRow, 1)
        facts = {column.key: getattr(first, column.key) for column in StudyRow.__mapper__.column_attrs if column.key not in ("id", "study_uid", "last_arrival")}
        for number in range(2, 3002):
            when = first.last_arrival if number % 2 else first.last_arrival - timedelta(days=30)
            session.add(StudyRow(id=number, study_uid=f"1.2.{number}", last_arrival=when, **facts))
    loaded: list[int] = []
    whole = explain.studies.get_study
    monkeypatch.setattr(explain.studies, "get_study", lambda session, number: loaded.append(number) or whole(session, number))
    past = explain_past(town.settings, "7d")
    assert [next(past).study_uid for _ in range(3)][1:] == ["1.2.3", "1.2.5"]
    assert loaded == [1, 3, 5]  # no more than were asked for
    assert sum(1 for _ in past) == 1498


def test_a_time_that_is_none_is_said(town: Town) -> None:
    with pytest.raises(InputError, match="--past: 'a week' is no time span"):
        next(explain_past(town.settings, "a week"))
