"""Embeddings of analysed series: one row for each study, series and bundle version. Local: none is ever sent anywhere.

They are patient data as the images are: retention forgets them with a study's files, and so does whatever makes them say of other pixels
than those that are here (corrected, replaced, rejected objects).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import delete, select
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


def forget(session: Session, study_id: int, series_uids: Iterable[str] | None = None) -> None:
    """Delete the embeddings of a study, or of some of its series."""
    query = delete(EmbeddingRow).where(EmbeddingRow.study_id == study_id)
    session.execute(query if series_uids is None else query.where(EmbeddingRow.series_uid.in_(list(series_uids))))


def of_study(session: Session, study_id: int) -> Sequence[EmbeddingRow]:
    """Return a study's embeddings, newest first."""
    return session.scalars(select(EmbeddingRow).where(EmbeddingRow.study_id == study_id).order_by(EmbeddingRow.made_at.desc(), EmbeddingRow.id.desc())).all()


def of_others(session: Session, bundle_hash: str, study_id: int) -> Sequence[EmbeddingRow]:
    """Return what one bundle version says of other studies; of a held study it is not certain whose it is, so that it is left out."""
    query = select(EmbeddingRow).join(StudyRow).options(joinedload(EmbeddingRow.study))
    where = (EmbeddingRow.bundle_hash == bundle_hash, EmbeddingRow.study_id != study_id, StudyRow.state != StudyState.HELD)
    return session.scalars(query.where(*where).order_by(EmbeddingRow.id)).all()


def other_versions(session: Session, bundle: str, bundle_hash: str) -> int:
    """Return of how many studies other versions of a bundle have embeddings, which cannot be compared."""
    query = select(EmbeddingRow.study_id).where(EmbeddingRow.bundle == bundle, EmbeddingRow.bundle_hash != bundle_hash).distinct()
    return len(session.scalars(query).all())
