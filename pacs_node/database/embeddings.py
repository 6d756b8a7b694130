"""Embeddings of analysed series: one row for each study, series and bundle version. Local: none is ever sent anywhere.

They are patient data as the images are: retention forgets them with a study's files, and so does whatever makes them say of other pixels
than those that are here (corrected, replaced, rejected objects).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import delete, distinct, func, select
from sqlalchemy.orm import Session, joinedload

from pacs_node.database.states import StudyState
from pacs_node.database.tables import EmbeddingRow, JobRow, StudyRow
from pacs_node.records import SeriesEmbedding


def keep(session: Session, job: JobRow, found: SeriesEmbedding, now: datetime) -> None:
    """Write down what a job found of a series, in the place of what an earlier run of the same bundle said of it."""
    same = (EmbeddingRow.study_id == job.study_id, EmbeddingRow.series_uid == found.series_uid, EmbeddingRow.bundle_hash == found.bundle_hash)
    session.execute(delete(EmbeddingRow).where(*same))
    session.add(
        EmbeddingRow(
            study_id=job.study_id,
            job_id=job.id,
            series_uid=found.series_uid,
            modality=found.modality,
            region=found.region,
            bundle=found.bundle,
            bundle_hash=found.bundle_hash,
            slices=found.slices,
            mean=found.mean,
            spread=found.spread,
            score=found.score,
            made_at=now,
        )
    )


def forget(session: Session, study_id: int, series_uids: Iterable[str] | None = None, *, pipeline: str | None = None) -> None:
    """Delete the embeddings of a study, or of some of its series; ``pipeline``: only those that its jobs have made, with any version of the bundle."""
    query = delete(EmbeddingRow).where(EmbeddingRow.study_id == study_id)
    if series_uids is not None:
        query = query.where(EmbeddingRow.series_uid.in_(list(series_uids)))
    if pipeline is not None:
        query = query.where(EmbeddingRow.job_id.in_(select(JobRow.id).where(JobRow.study_id == study_id, JobRow.pipeline == pipeline)))
    session.execute(query)


def of_study(session: Session, study_id: int) -> list[EmbeddingRow]:
    """Return a study's embeddings, newest first; of each series and bundle the newest version's only."""
    query = select(EmbeddingRow).where(EmbeddingRow.study_id == study_id).order_by(EmbeddingRow.made_at.desc(), EmbeddingRow.id.desc())
    newest: dict[tuple[str, str], EmbeddingRow] = {}
    for row in session.scalars(query):
        newest.setdefault((row.bundle, row.series_uid), row)
    return list(newest.values())


class Stored(NamedTuple):
    """What a search needs of one embedding; the rest is read of the nearest only."""

    id: int
    study_id: int
    mean: bytes
    spread: bytes


def of_others(session: Session, bundle_hash: str, study_id: int) -> list[Stored]:
    """Return what one bundle version says of other studies; of a held study it is not certain whose it is, so that it is left out."""
    query = select(EmbeddingRow.id, EmbeddingRow.study_id, EmbeddingRow.mean, EmbeddingRow.spread).join(StudyRow)
    where = (EmbeddingRow.bundle_hash == bundle_hash, EmbeddingRow.study_id != study_id, StudyRow.state != StudyState.HELD)
    return [Stored(*row) for row in session.execute(query.where(*where).order_by(EmbeddingRow.id))]


def with_studies(session: Session, ids: Iterable[int]) -> dict[int, EmbeddingRow]:
    """Return embeddings with their studies, by their numbers."""
    query = select(EmbeddingRow).where(EmbeddingRow.id.in_(list(ids))).options(joinedload(EmbeddingRow.study))
    return {row.id: row for row in session.scalars(query)}


def other_versions(session: Session, bundle: str, bundle_hash: str, study_id: int) -> int:
    """Return how many other studies cannot be compared: only other versions of a bundle have embeddings of them; held ones are left out here, too."""
    comparable = select(EmbeddingRow.study_id).where(EmbeddingRow.bundle_hash == bundle_hash)
    query = select(func.count(distinct(EmbeddingRow.study_id))).join(StudyRow).where(StudyRow.state != StudyState.HELD)
    where = (EmbeddingRow.bundle == bundle, EmbeddingRow.study_id != study_id, EmbeddingRow.study_id.not_in(comparable))
    return session.scalar(query.where(*where)) or 0
