"""`pacs-node similar`: which studies the node has analysed look most like one, by the embeddings in its database. Local: nothing of it is sent.

Embeddings of two models cannot be compared. So each of a study's embeddings is compared with those that the same bundle, in the same version, has made of
other studies; a bundle judges one modality and region, which the neighbours share therefore.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from pacs_node.autoencoder.similarity import distances
from pacs_node.config import Settings
from pacs_node.database import embeddings
from pacs_node.database.states import StudyState
from pacs_node.database.tables import EmbeddingRow, StudyRow
from pacs_node.errors import InputError
from pacs_node.workbench.studies import row_named
from pacs_node.workbench.tables import open_store


@dataclass(frozen=True)
class Neighbours:
    """What lies near one analysed series: rows of the table, and what is to be known about them."""

    bundle: str
    series_uid: str
    rows: tuple[dict[str, Any], ...]
    remark: str

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {"bundle": self.bundle, "series_uid": self.series_uid, "neighbours": list(self.rows), "remark": self.remark}


def similar(settings: Settings, name: str, limit: int) -> list[Neighbours]:
    """Return the nearest studies of each analysed series of a study (Study Instance UID, accession number, or number).

    Raises `InputError` where there is no such study, or why it cannot be compared.
    """
    with open_store(settings) as store, store.read() as session:
        study = row_named(session, name)
        if study.state is StudyState.HELD:
            raise InputError(f"study {study.id} is held: whose it is, is not certain; free it first with `pacs-node release {study.id}`")
        mine = embeddings.of_study(session, study.id)
        if not mine:
            raise InputError(f"study {study.id} has no embedding: {_why(study)}")
        others = {one: _Others.of(embeddings.of_others(session, one, study.id)) for one in {row.bundle_hash for row in mine}}
        return [_near(session, row, others[row.bundle_hash], limit) for row in mine]


def _why(study: StudyRow) -> str:
    if study.removed_at is not None:
        return f"it was forgotten with the study's files ({study.removed_reason})"
    if study.state is StudyState.RECEIVING:
        return "the study is not complete yet"
    return "no bundle has judged it, or it was corrected since; `pacs-node jobs` says why, and `pacs-node retry job ID` judges it again"


@dataclass(frozen=True)
class _Others:
    """What one bundle version says of other studies: numbers of embeddings and studies, (embeddings, 128) means and spreads."""

    ids: list[int]
    studies: list[int]
    means: NDArray[np.float16]
    spreads: NDArray[np.float16]

    @classmethod
    def of(cls, stored: Sequence[embeddings.Stored]) -> _Others:
        means, spreads = (_stack([getattr(one, part) for one in stored]) for part in ("mean", "spread"))
        return cls([one.id for one in stored], [one.study_id for one in stored], means, spreads)


def _near(session: Session, query: EmbeddingRow, others: _Others, limit: int) -> Neighbours:
    far = embeddings.other_versions(session, query.bundle, query.bundle_hash, query.study_id)
    remark = f"{far} studies are known to other versions of the bundle only, and cannot be compared" if far else ""
    if not others.ids:
        return Neighbours(query.bundle, query.series_uid, (), remark or "this version of the bundle has judged no other study")
    found = distances(vector(query.mean), vector(query.spread), others.means, others.spreads)
    nearest: dict[int, int] = {}
    for index in np.argsort(found, kind="stable"):
        nearest.setdefault(others.studies[index], int(index))  # a study counts once, by its nearest series
        if len(nearest) == limit:
            break
    rows = embeddings.with_studies(session, (others.ids[index] for index in nearest.values()))
    table = (_row(rank, float(found[index]), rows[others.ids[index]]) for rank, index in enumerate(nearest.values(), 1))
    return Neighbours(query.bundle, query.series_uid, tuple(table), remark)


def vector(stored: bytes) -> NDArray[np.float16]:
    """Return 128 × float16 as they are stored."""
    return np.frombuffer(stored, "<f2").astype(np.float16)


def _stack(stored: Sequence[bytes]) -> NDArray[np.float16]:
    return vector(b"".join(stored)).reshape(len(stored), -1 if stored else 0)


def _row(rank: int, distance: float, row: EmbeddingRow) -> dict[str, Any]:
    return {
        "rank": rank,
        "distance": round(distance, 4),
        "study": row.study_id,
        "study_uid": row.study.study_uid,
        "accession": row.study.accession,
        "modality": row.modality,
        "region": row.region,
        "received": row.study.last_arrival.astimezone().strftime("%Y-%m-%d"),
        "score": round(row.score, 4),
    }
