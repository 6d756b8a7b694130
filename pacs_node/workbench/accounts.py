"""What became of a simulated day: every study, every instance and every object accounted for, from the database, the disk and the archive."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session, selectinload

from pacs_node.config import Settings
from pacs_node.database import deliveries, jobs
from pacs_node.database.alerts import open_alerts
from pacs_node.database.states import DeliveryState, JobState, StudyState
from pacs_node.database.tables import AsideRow, DeliveryRow, JobRow, ObjectRow, StudyRow
from pacs_node.dicom.header import read_header
from pacs_node.errors import UnreadableObject
from pacs_node.workbench.hospital import KINDS, DayStudy
from pacs_node.workbench.tables import open_store

_HEAD = 144  # bytes before the length of the file meta information counts
_LOUD = ("conflict", "quarantine")


@dataclass(frozen=True, slots=True)
class Ending:
    """How a study ended: results, notice, held, no pipeline, or a sentence. ``wrong``: what is not as it has to be, "" where all is."""

    study: DayStudy
    how: str
    wrong: str
    seconds: float | None = None  # from its last instance to its last delivery
    attempts: int = 0  # of the delivery that took most


@dataclass
class Accounts:
    """The whole day. ``wrong``: one sentence for each thing that is not accounted for."""

    endings: list[Ending]
    instances: dict[str, int]
    objects: dict[str, int]
    wrong: list[str] = field(default_factory=list)

    def by_kind(self) -> list[dict[str, Any]]:
        """Return for each kind of study how many there were and how they ended."""
        rows = []
        for kind in KINDS:
            of_kind = [ending for ending in self.endings if ending.study.kind == kind]
            ended = Counter(ending.how for ending in of_kind)
            rows.append({"kind": kind, "studies": len(of_kind), "ended": dict(ended), "unaccounted": sum(bool(ending.wrong) for ending in of_kind)})
        return rows

    def seconds(self) -> dict[str, float | None]:
        """Return median and 95 % of the time from last slice to delivery: of what went out at the first attempt, and of all. Studies of one wave only."""
        timed = [ending for ending in self.endings if ending.seconds is not None and ending.study.waves[1] is None]
        at_once = [ending.seconds for ending in timed if ending.attempts == 1]
        every = [ending.seconds for ending in timed]
        named = {"median": (at_once, 50), "p95": (at_once, 95), "median_all": (every, 50), "p95_all": (every, 95)}
        return {name: float(np.percentile(np.array(values, float), share)) if values else None for name, (values, share) in named.items()}


def at_rest(settings: Settings) -> bool:
    """Tell whether nothing waits: no arrival, no study that gathers, no job, no delivery of a study that is not held."""
    spool = settings.node.data / "spool" / "new"
    if any(name.suffix in (".dcm", ".end") for shard in spool.iterdir() for name in shard.iterdir()):
        return False
    held = select(StudyRow.id).where(StudyRow.state == StudyState.HELD)
    timer = or_(StudyRow.state == StudyState.RECEIVING, StudyRow.look_again_at.is_not(None))
    queries = (
        select(StudyRow.id).where(timer),
        select(JobRow.id).where(JobRow.state.in_((JobState.QUEUED, JobState.RUNNING))),
        select(DeliveryRow.id).where(DeliveryRow.state.in_(deliveries.UNFINISHED), DeliveryRow.study_id.not_in(held)),
    )
    with open_store(settings) as store, store.read() as session:
        return jobs.untold(session) is None and all(session.scalars(query.limit(1)).first() is None for query in queries)


def account(settings: Settings, day: Sequence[DayStudy], acknowledged: Counter[str], archive: Path, received: Sequence[str], *, forgiving: bool) -> Accounts:
    """Draw the day up.

    ``acknowledged``: digest of a dataset → how often it was answered with success; ``received``: UIDs in the archive's order; ``forgiving``: a
    notice may stand in the place of results, as where models judge images that are none.
    """
    with open_store(settings) as store, store.read() as session:
        rows = {row.study_uid: row for row in session.scalars(select(StudyRow).options(selectinload(StudyRow.series)))}
        alerts = {(alert.kind, alert.subject) for alert in open_alerts(session)}
        endings = [_ending(session, archive, study, rows.get(study.study_uid), alerts, forgiving=forgiving) for study in day]
        aside = Counter(session.scalars(select(AsideRow.kind)))
        delivered = set(session.scalars(select(ObjectRow.sop_uid).join(DeliveryRow).where(DeliveryRow.state == DeliveryState.DELIVERED)))
        repeats = session.scalar(select(func.count()).where(DeliveryRow.attempts > 1)) or 0
    kept = Counter(_digest(path) for path in _files(settings))
    accounts = Accounts(endings, _instances(acknowledged, kept, aside), _objects(delivered, received, repeats, archive))
    accounts.wrong = [f"{ending.study.kind}, study {ending.study.study_uid}: {ending.wrong}" for ending in endings if ending.wrong]
    accounts.wrong += _wrong_instances(accounts.instances, acknowledged, kept, day, aside) + _wrong_objects(accounts.objects)
    return accounts


# --- studies -----------------------------------------------------------------------------------------------------------------


def _ending(session: Session, archive: Path, study: DayStudy, row: StudyRow | None, alerts: set[tuple[str, str]], *, forgiving: bool) -> Ending:
    wanted = KINDS[study.kind]
    if row is None:
        return Ending(study, "lost", "the node knows nothing of it")
    if row.state is StudyState.HELD:
        said = ("held", f"study {row.id}") in alerts
        return Ending(study, "held", "" if said and wanted.ends == "held" else "it is held, and should not be" if said else "it is held, and nobody is told")
    live = [job for job in jobs.jobs_of(session, row.id) if job.state is not JobState.CANCELLED]
    if not live:
        how = "no pipeline" if "no pipeline" in row.outcome or "no rule fired" in row.outcome else f"{row.state}: {row.outcome or row.waiting_for}"
        return Ending(study, how, "" if how == wanted.ends else f"it ended as {how!r} instead of {wanted.ends!r}")
    query = select(DeliveryRow).join(ObjectRow).where(DeliveryRow.job_id == live[-1].id, ObjectRow.run == live[-1].run)
    sent = session.scalars(query.options(selectinload(DeliveryRow.object))).all()
    how = _how(live[-1], sent)
    wrong = "" if how == wanted.ends or (forgiving and how == "notice") else f"it ended as {how!r} instead of {wanted.ends!r}"
    last = max((item.delivered_at for item in sent if item.delivered_at is not None), default=None)
    return Ending(study, how, wrong or _wrong_results(study, sent, archive), _span(row.last_arrival, last), max((item.attempts for item in sent), default=0))


def _span(begin: datetime, end: datetime | None) -> float | None:
    return None if end is None else (end - begin).total_seconds()


def _how(job: JobRow, sent: Sequence[DeliveryRow]) -> str:
    if sent and all(item.state is DeliveryState.DELIVERED for item in sent):
        return "notice" if all(item.kind == "notice" for item in sent) else "results"
    states = ", ".join(sorted({item.state.value for item in sent})) or "nothing to send"
    return f"job {job.state.value}, {states}"


def _wrong_results(study: DayStudy, sent: Sequence[DeliveryRow], archive: Path) -> str:
    """Look at the objects in the archive: there, of this study, for the right patient, made from all its images."""
    for item in sent:
        assert item.object is not None
        try:
            header = read_header(archive / f"{item.object.sop_uid}.dcm")
        except UnreadableObject as error:
            return f"the archive lacks what was delivered: {error}"
        if (str(header.StudyInstanceUID), str(header.PatientID)) != (study.study_uid, study.patient_id):
            return f"the archive has {item.kind} under another study or patient"
        if item.kind == "sr":
            series = [one for group in header.CurrentRequestedProcedureEvidenceSequence for one in group.ReferencedSeriesSequence]
            named = sum(len(one.ReferencedSOPSequence) for one in series)
            if named != study.images:
                return f"its report was made from {named} of {study.images} images"
    return ""


# --- instances ---------------------------------------------------------------------------------------------------------------


def _files(settings: Settings) -> list[Path]:
    patterns = ("spool/new/*/*.dcm", "studies/*/*/*.dcm", "aside/*.dcm", "quarantine/*.dcm")
    return [path for pattern in patterns for path in settings.node.data.glob(pattern)]


def _digest(path: Path) -> str:
    raw = path.read_bytes()
    return hashlib.sha256(raw[_HEAD + int.from_bytes(raw[_HEAD - 4 : _HEAD], "little") :]).hexdigest()


def _instances(acknowledged: Counter[str], kept: Counter[str], aside: Counter[str]) -> dict[str, int]:
    return {
        "acknowledged": acknowledged.total(),
        "kept": kept.total(),
        "in studies": kept.total() - aside.total(),
        **{name: aside[name] for name in ("superseded", "conflict", "quarantine")},
        "duplicates dropped": acknowledged.total() - kept.total(),
        "lost": sum(1 for digest in acknowledged if not kept[digest]),
        "not acknowledged, kept": sum(1 for digest in kept if not acknowledged[digest]),
    }


def _wrong_instances(found: dict[str, int], acknowledged: Counter[str], kept: Counter[str], day: Sequence[DayStudy], aside: Counter[str]) -> list[str]:
    """Every distinct dataset that was acknowledged is kept once, byte for byte; aside lies what was to come aside."""
    wrong = [f"{found['lost']} acknowledged instances are lost"] * bool(found["lost"])
    twice = sum(1 for digest in acknowledged if kept[digest] > 1)
    wrong += [f"{twice} instances are kept more than once"] * bool(twice)
    for kind in _LOUD:
        wanted = sum(1 for study in day if KINDS[study.kind].aside == kind)
        wrong += [f"{aside[kind]} objects are kept aside ({kind}) instead of {wanted}"] * (aside[kind] != wanted)
    return wrong


# --- objects -----------------------------------------------------------------------------------------------------------------


def _objects(delivered: set[str], received: Sequence[str], repeats: int, archive: Path) -> dict[str, int]:
    there = {path.stem for path in archive.glob("*.dcm")}
    return {
        "delivered": len(delivered),
        "in the archive": len(there),
        "delivered and not there": len(delivered - there),
        "there and not delivered": len(there - delivered),
        "sent again": len(received) - len(set(received)),
        "needed several attempts": repeats,
    }


def _wrong_objects(found: dict[str, int]) -> list[str]:
    lacks = f"{found['delivered and not there']} objects count as delivered and are not in the archive"
    more = f"{found['there and not delivered']} objects are in the archive and do not count as delivered"
    return [lacks] * bool(found["delivered and not there"]) + [more] * bool(found["there and not delivered"])
