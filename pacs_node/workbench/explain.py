"""`pacs-node explain`: how the rules decide about files at hand, or about what was received."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from sqlalchemy import select

from pacs_node import routing
from pacs_node.analysis.installed import available
from pacs_node.config import Settings, parse_duration
from pacs_node.database import removal, studies
from pacs_node.database.states import StudyState
from pacs_node.database.tables import InstanceRow, StudyRow
from pacs_node.dicom.header import read_header
from pacs_node.errors import InputError, UnreadableObject
from pacs_node.journey import models_folder, now, rules_file
from pacs_node.journey.assemble import series_views
from pacs_node.workbench.studies import studies_below
from pacs_node.workbench.tables import open_store


@dataclass(frozen=True)
class Explained:
    """How all rules decided about one study."""

    title: str
    study_uid: str
    decisions: tuple[routing.Decision, ...]

    def lines(self) -> list[str]:
        """Return the explanation for people."""
        return [self.title, *routing.render(self.decisions), ""]

    def as_json(self) -> dict[str, Any]:
        """Return the explanation for programs."""
        return {"study_uid": self.study_uid, "rules": routing.as_json(self.decisions)}


def explain_files(settings: Settings, path: Path) -> list[Explained]:
    """Ask the rules about the studies below a path."""
    rules = _rules(settings)
    return [
        Explained(f"study {study.study_uid}: {len(study.files)} instances in {path}", study.study_uid, routing.route(rules, routing.views(study.headers)))
        for study in studies_below(path)
    ]


@dataclass(frozen=True)
class Past(Explained):
    """How the present rules would decide about a study that was received, beside what was decided then.

    ``outcome``: same, changed, not decided yet, or files are gone: then only what was decided is known.
    """

    outcome: str
    changes: tuple[str, ...]
    then: Sequence[Mapping[str, Any]]

    def lines(self) -> list[str]:
        """Return the explanation for people."""
        changes = [f"  * {change}" for change in self.changes]
        return [f"{self.title}: {self.outcome}", *changes, *(f"  {line}" for line in routing.render(self.decisions)), ""]

    def as_json(self) -> dict[str, Any]:
        """Return the explanation for programs."""
        facts = {"study_uid": self.study_uid, "title": self.title, "outcome": self.outcome, "changes": list(self.changes)}
        return facts | {"then": list(self.then), "rules": routing.as_json(self.decisions)}


def explain_past(settings: Settings, span: str) -> Iterator[Past]:
    """Ask the present rules about the studies received in a time span such as ``7d``, one after the other, as many as there may be.

    Nothing is written, and no transaction stays open from one study to the next. Raises `InputError` and `ConfigError` at the first one.
    """
    try:
        since = now() - parse_duration(span)
    except ValueError as error:
        raise InputError(f"--past: {error}") from error
    rules = _rules(settings)
    with open_store(settings) as store:
        last: int | None = 0
        while last is not None:
            with store.read() as session:
                later = select(StudyRow.id).where(StudyRow.id > last, StudyRow.last_arrival >= since).order_by(StudyRow.id).limit(1)
                last = session.scalars(later).one_or_none()
                study = None if last is None else studies.get_study(session, last)
                missing = 0 if study is None else removal.gone(session, study.id)
            if study is not None:
                yield _past(settings, rules, study, missing)


def _past(settings: Settings, rules: routing.Rules, study: StudyRow, missing: int) -> Past:
    unreadable: list[int] = []
    views = series_views(study, lambda row: _header(settings, row, unreadable))
    title = f"study {study.id} ({study.study_uid}): {study.outcome or study.state.value}"
    if missing:
        title += f". {missing} of its files are gone{', the rules were asked about what is left' if views else ''} ({study.removed_reason})"
    if unreadable:
        title += f". {len(unreadable)} of its files cannot be read"
    if not views and (missing or unreadable):
        return Past(title, study.study_uid, (), "files are gone", (), study.decisions)
    decisions = routing.route(rules, views)
    if not study.decisions or study.state is not StudyState.COMPLETE:
        return Past(title, study.study_uid, decisions, "not decided yet", (), ())
    found = routing.changes(study.decisions, routing.as_json(decisions))
    return Past(title, study.study_uid, decisions, "changed" if found else "same", found, study.decisions)


def _header(settings: Settings, row: InstanceRow, unreadable: list[int]) -> Dataset | None:
    try:
        return read_header(settings.node.data / studies.instance_path(row), f"instance {row.id}")
    except UnreadableObject:
        unreadable.append(row.id)
        return None


def _rules(settings: Settings) -> routing.Rules:
    bundles, senders = available(models_folder(settings)), settings.reception.senders
    return routing.load(rules_file(settings), pipelines=bundles, destinations=settings.destinations, senders=senders, assembly=settings.assembly)
