"""`pacs-node explain`: how the rules decide about files at hand, or about what was received."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from pacs_node import node, routing
from pacs_node.analysis.installed import available
from pacs_node.config import Settings, parse_duration
from pacs_node.database import removal, studies
from pacs_node.database.tables import StudyRow
from pacs_node.errors import InputError
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


def explain_past(settings: Settings, span: str) -> list[Explained]:
    """Ask the present rules about the studies received in a time span such as ``7d``."""
    try:
        since = now() - parse_duration(span)
    except ValueError as error:
        raise InputError(f"--past: {error}") from error
    house = node.make_house(settings)
    explained = []
    with open_store(settings) as store, store.read() as session:
        for study_id in session.scalars(select(StudyRow.id).where(StudyRow.last_arrival >= since).order_by(StudyRow.id)).all():
            study = studies.get_study(session, study_id)
            assert study is not None
            decisions = routing.route(house.rules, series_views(house, study))
            title = f"study {study.id} ({study.study_uid}): {study.outcome or study.state.value}{_missing(session, study)}"
            explained.append(Explained(title, study.study_uid, decisions))
    return explained


def _missing(session: Session, study: StudyRow) -> str:
    """Say that rules cannot be asked about files that retention has removed."""
    count = removal.gone(session, study.id)
    return f". {count} of its files are gone, the rules were asked about what is left ({study.removed_reason})" if count else ""


def _rules(settings: Settings) -> routing.Rules:
    bundles, senders = available(models_folder(settings)), settings.reception.senders
    return routing.load(rules_file(settings), pipelines=bundles, destinations=settings.destinations, senders=senders, assembly=settings.assembly)
