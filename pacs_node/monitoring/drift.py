"""Recent scores against the calibration that judged them: a scanner, a protocol or a population that has changed makes old thresholds wrong.

Only studies that a site's calibration has judged count, each patient once, and each against what it was judged by: the calibration studies of
its own scanner, or those of all scanners together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pacs_node.analysis.calibration_file import CalibrationFile
from pacs_node.analysis.drift import Drift, compare, threshold_of
from pacs_node.analysis.installed import CALIBRATION
from pacs_node.database.heartbeats import of_patients
from pacs_node.database.states import JobState
from pacs_node.database.tables import JobRow, StudyRow
from pacs_node.records import Population

LEAST = 50  # studies, before anything is said
WINDOW = 200  # the newest studies that count
SURE, OVER = 0.001, 0.01  # chance of what is seen where nothing drifts: an alert is raised below the first, and taken back above the second
_JOBS = 20_000  # the newest of the node that are looked at


@dataclass(frozen=True, slots=True)
class Watched:
    """What was seen of one bundle, or of one ``scanner`` that it judges by its own studies; ``drift`` None where fewer than `LEAST` studies were."""

    bundle: str
    scanner: str
    studies: int
    since: datetime
    drift: Drift | None

    @property
    def subject(self) -> str:
        """Its name in an alert."""
        return f"{self.bundle}, {self.scanner}" if self.scanner else self.bundle

    @property
    def state(self) -> str:
        """Say in a word how it stands."""
        if self.drift is None:
            return f"too few studies: {LEAST} are needed"
        return "DRIFT" if self.drift.p < SURE else "uncertain" if self.drift.p < OVER else "steady"


def watched(session: Session, bundles: Mapping[str, Path]) -> list[Watched]:
    """Compare what every bundle with a site's calibration has said lately."""
    return [one for name, folder in sorted(bundles.items()) for one in _of_bundle(session, name, folder)]


def _of_bundle(session: Session, name: str, folder: Path) -> Iterator[Watched]:
    read = site_calibration(folder)
    if read is None:
        return
    found, digest = read
    groups: dict[str, list[tuple[datetime, float]]] = {}
    for moment, finding in _recent(session, name, digest):
        groups.setdefault(str(finding.get("scanner") or ""), []).append((moment, float(finding["score"])))
    for scanner, rows in sorted(groups.items()):
        if threshold_of(found, scanner) is not None:
            yield _compared(name, scanner, rows[:WINDOW], found)


def _compared(name: str, scanner: str, rows: Sequence[tuple[datetime, float]], found: CalibrationFile) -> Watched:
    drift = compare(found, scanner, [score for _, score in rows]) if len(rows) >= LEAST else None
    return Watched(name, scanner, len(rows), min(moment for moment, _ in rows), drift)


def site_calibration(folder: Path) -> tuple[CalibrationFile, str] | None:
    """Return a site's calibration and its SHA-256; None where there is none, or it cannot be read, which those say who judge by it."""
    try:
        content = (folder / CALIBRATION).read_bytes()
        found = CalibrationFile.model_validate_json(content)
    except (OSError, ValidationError):
        return None
    return (found, hashlib.sha256(content).hexdigest()) if found.population is Population.SITE else None


def _recent(session: Session, name: str, digest: str) -> Iterator[tuple[datetime, dict[str, Any]]]:
    """Give the newest findings that this calibration has judged, one a patient, newest first."""
    newest = session.scalar(select(func.max(JobRow.id))) or 0
    columns = (JobRow.finished_at, JobRow.finding, StudyRow.id, StudyRow.issuer, StudyRow.patient_id, StudyRow.patient_name)
    query = select(*columns).join(StudyRow).where(JobRow.id > newest - _JOBS, JobRow.pipeline == name, JobRow.state == JobState.DONE, of_patients())
    seen: set[object] = set()
    for moment, finding, study, issuer, patient_id, patient_name in session.execute(query.order_by(JobRow.id.desc())):
        patient = (issuer, patient_id or patient_name) if patient_id or patient_name else study
        if finding.get("calibration") == digest and finding.get("population") == Population.SITE and moment is not None and patient not in seen:
            seen.add(patient)
            yield moment, finding
