"""`similar`: embeddings come with the results, go with the files, and are never of another patient; the nearest studies are named."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from pydicom.uid import RawDataStorage
from sqlalchemy import event, select

from pacs_node.analysis.bundle import Bundle, load
from pacs_node.autoencoder.embedding import embed
from pacs_node.autoencoder.similarity import distances
from pacs_node.database.states import JobState, StudyState
from pacs_node.database.tables import EmbeddingRow, JobRow, StudyRow
from pacs_node.dicom.header import read_header
from pacs_node.dicom.uids import derive_uid
from pacs_node.errors import InputError, OutOfScope
from pacs_node.journey.operate import retry_job
from pacs_node.journey.retire import retire
from pacs_node.journey.run_job import Worker, embedding_of
from pacs_node.workbench.bench_similar import Sample, bench_similar, recall
from pacs_node.workbench.similar import similar
from tests.conftest import DATABASES
from tests.journey.support import TestEngine, Town, ct_study, finding, shipped_bundles


class Seeing(TestEngine):
    """An engine whose embedding depends on the patient: P1 and P2 look more alike than P9."""

    def analyse(self, files, *others, **more):  # type: ignore[no-untyped-def]
        found = super().analyse(files, *others, **more)
        number = int(str(read_header(files[0]).PatientID)[1:])
        rng = np.random.default_rng(number)
        return replace(found, embedding=(rng.normal(size=(len(files), 48)) + number).astype(np.float16))


@pytest.fixture(params=[DATABASES[0], pytest.param(DATABASES[1], marks=pytest.mark.slow)])
def town(request: pytest.FixtureRequest, tmp_path: Path, make_database: Callable[..., str]) -> Iterator[Town]:
    """A house that has judged three studies of three patients, on each database."""
    built = Town(tmp_path, database={} if request.param == "sqlite" else {"url": make_database(request.param)})
    built.engine = Seeing()
    built.worker = Worker(built.worker.name, built.engine)
    for study, patient in (("A", "P1"), ("B", "P2"), ("C", "P9")):
        built.send(ct_study(4, study=study, patient=patient))
        built.settle()
    yield built
    built.house.store.close()


def rows(town: Town) -> list[EmbeddingRow]:
    with town.house.store.read() as session:
        return list(session.scalars(select(EmbeddingRow).order_by(EmbeddingRow.id)))


def test_each_analysed_series_has_one_embedding_with_its_study_and_bundle(town: Town) -> None:
    kept = rows(town)
    assert [(row.study_id, row.bundle, row.modality, row.slices, len(row.mean), len(row.spread)) for row in kept] == [
        (number, "ct-test", "CT", 4, 256, 256) for number in (1, 2, 3)
    ]
    assert kept[0].series_uid == derive_uid("test", "A", 1)
    assert kept[0].bundle_hash == "a" * 64


def test_the_nearest_study_is_named_first(town: Town) -> None:
    (found,) = similar(town.settings, derive_uid("test", "A"), 10)
    assert [(row["rank"], row["study"], row["accession"], row["score"]) for row in found.rows] == [(1, 2, "ACCB", 1.5), (2, 3, "ACCC", 1.5)]
    assert found.rows[0]["distance"] < found.rows[1]["distance"]
    assert len(similar(town.settings, "ACCA", 1)[0].rows) == 1


def test_a_study_is_never_its_own_neighbour(town: Town) -> None:
    for name in ("1", "2", "3"):
        (found,) = similar(town.settings, name, 10)
        assert int(name) not in {row["study"] for row in found.rows}


def test_a_run_again_replaces_the_embedding(town: Town) -> None:
    town.send(ct_study(6, study="A", patient="P1")[4:])
    town.settle()
    assert sorted((row.study_id, row.slices) for row in rows(town)) == [(1, 6), (2, 4), (3, 4)]


def test_a_name_of_several_studies_is_not_answered_for_one_of_them(town: Town) -> None:
    town.send(ct_study(4, study="D", patient="P4", AccessionNumber="ACCA"))
    town.settle()
    with pytest.raises(InputError, match="name one by its number, 1, 4"):
        similar(town.settings, "ACCA", 10)


def test_retention_forgets_the_embedding_with_the_files_and_says_so(town: Town) -> None:
    town.wait(days=30)
    retire(town.house, town.clock)
    assert rows(town) == []
    with pytest.raises(InputError, match="forgotten with the study's files"):
        similar(town.settings, "1", 10)


def test_a_corrected_patient_gets_an_embedding_of_the_corrected_study_only(town: Town) -> None:
    corrected = ct_study(4, study="A", patient="P7")
    town.send(corrected[:1])
    town.gather()
    assert 1 not in {row.study_id for row in rows(town)}
    town.send(corrected[1:])
    town.settle()
    kept = {row.study_id: row for row in rows(town)}
    headers = np.random.default_rng(7).normal(size=(4, 48)) + 7
    assert kept[1].mean == np.ascontiguousarray(embed(headers.astype(np.float16)).mean, "<f2").tobytes()


def test_a_held_study_is_neither_a_neighbour_nor_asked_about(town: Town) -> None:
    town.send(ct_study(5, study="B", patient="P8")[4:])
    town.settle()
    (found,) = similar(town.settings, "1", 10)
    assert [row["study"] for row in found.rows] == [3]
    with pytest.raises(InputError, match="pacs-node release 2"):
        similar(town.settings, "2", 10)


def test_a_study_that_nobody_judged_is_told_why(town: Town) -> None:
    town.send(ct_study(2, study="D", patient="P4", BodyPartExamined="KNEE"))
    town.settle()
    with pytest.raises(InputError, match="no bundle has judged it"):
        similar(town.settings, "4", 10)
    with pytest.raises(InputError, match=r"no study 1\.2\.3"):
        similar(town.settings, "1.2.3", 10)


def test_other_versions_of_a_bundle_are_not_compared(town: Town) -> None:
    with town.house.store.write() as session:
        for row in session.scalars(select(EmbeddingRow).where(EmbeddingRow.study_id != 1)):
            row.bundle_hash = "b" * 64
    (found,) = similar(town.settings, "1", 10)
    assert found.rows == ()
    assert "2 studies are known to other versions" in found.remark


def older(row: EmbeddingRow, **changes: object) -> EmbeddingRow:
    """The embedding that an older version of the bundle made of the same series."""
    facts = {name: getattr(row, name) for name in ("study_id", "job_id", "series_uid", "modality", "region", "bundle", "slices", "mean", "spread", "score")}
    return EmbeddingRow(**facts | {"bundle_hash": "b" * 64, "made_at": row.made_at - timedelta(days=1)} | changes)


def test_an_older_version_s_embeddings_of_the_same_studies_are_neither_shown_nor_counted(town: Town) -> None:
    with town.house.store.write() as session:
        session.add_all([older(row) for row in session.scalars(select(EmbeddingRow)).all()])
    (found,) = similar(town.settings, "1", 10)
    assert [row["study"] for row in found.rows] == [2, 3]
    assert found.remark == ""


def test_a_held_study_is_not_counted_among_those_of_other_versions(town: Town) -> None:
    with town.house.store.write() as session:
        for row in session.scalars(select(EmbeddingRow).where(EmbeddingRow.study_id != 1)):
            row.bundle_hash = "b" * 64
        session.get_one(StudyRow, 2).state = StudyState.HELD
    assert similar(town.settings, "1", 10)[0].remark.startswith("1 studies")


def test_a_run_again_that_ends_not_analysed_forgets_what_its_pipeline_saw(town: Town) -> None:
    with town.house.store.write() as session:
        session.add(older(session.scalars(select(EmbeddingRow).where(EmbeddingRow.study_id == 1)).one()))

    def refuse(name: str) -> None:
        raise OutOfScope("there are no pixels to judge")

    town.engine.script = refuse
    retry_job(town.house.store, 1, town.clock)
    town.settle()
    with town.house.store.read() as session:
        assert session.get_one(JobRow, 1).state is JobState.NOT_ANALYSED
    assert {row.study_id for row in rows(town)} == {2, 3}


def test_only_the_nearest_are_read_as_a_whole(town: Town) -> None:
    read: list[EmbeddingRow] = []

    def note(row: EmbeddingRow, context: object) -> None:
        read.append(row)

    event.listen(EmbeddingRow, "load", note)
    try:
        similar(town.settings, "1", 1)
    finally:
        event.remove(EmbeddingRow, "load", note)
    assert [row.study_id for row in read] == [1, 2]


def test_what_is_found_goes_into_no_object(town: Town) -> None:
    files = [path for path in (town.folder / "out").rglob("*.dcm") if read_header(path).SOPClassUID != RawDataStorage]  # which holds its own study's
    sent = b"".join(path.read_bytes() for path in files)
    assert sent and not any(row.mean in sent or row.spread in sent for row in rows(town))


def test_the_table_can_be_read_by_programs(town: Town) -> None:
    assert json.loads(json.dumps([one.as_json() for one in similar(town.settings, "1", 10)]))[0]["bundle"] == "ct-test"


# --- the distance ------------------------------------------------------------------------------------------------------------


def test_a_series_is_no_way_from_itself_and_the_distance_is_mutual() -> None:
    rng = np.random.default_rng(0)
    one, other = (embed(rng.normal(size=(9, 64)).astype(np.float16) + shift) for shift in (0, 1))
    assert distances(one.mean, one.spread, one.mean[None], one.spread[None]) == 0
    there = distances(one.mean, one.spread, other.mean[None], other.spread[None])
    assert there == pytest.approx(distances(other.mean, other.spread, one.mean[None], one.spread[None])) and there > 0.5


def test_series_of_one_slice_are_told_apart() -> None:
    one, near, far = (embed(np.full((1, 128), value, np.float16)) for value in (0, 1, 4))
    assert list(distances(one.mean, one.spread, np.stack([far.mean, near.mean]), np.stack([far.spread, near.spread]))) == [4.0, 1.0]


def test_recall_counts_those_alike_among_the_ten_nearest() -> None:
    rng = np.random.default_rng(1)

    def sample(number: int, label: str) -> Sample:
        features = rng.normal(size=(8, 32)) + (5 if label == "chest" else 0)
        return Sample(f"{label} {number}", "bundle", embed(features.astype(np.float16)), label)

    apart = [sample(number, label) for number in range(12) for label in ("chest", "head")]
    assert recall(apart)["recall"] == 1.0
    mixed = [Sample(one.series, one.bundle, one.embedding, str(index % 2)) for index, one in enumerate(rng.permutation(np.array(apart, dtype=object)))]
    assert recall(mixed)["recall"] < 0.9


def test_features_that_are_no_numbers_leave_no_embedding() -> None:
    broken = replace(finding(ct_study(3)), embedding=np.full((3, 4), np.nan, np.float16))
    assert embedding_of(broken) is None


def test_a_bundle_that_was_not_trained_on_phantoms_is_named() -> None:
    bundle = SimpleNamespace(manifest=SimpleNamespace(name="ct-own", modality="CT", recipe=SimpleNamespace(phantoms=None)))
    with pytest.raises(InputError, match="ct-own was not trained on phantoms"):
        bench_similar([cast("Bundle", bundle)], 2, ())


@pytest.mark.slow
def test_the_ten_nearest_phantoms_are_of_the_same_modality_and_region() -> None:
    bundles = [load(folder) for folder in shipped_bundles("ct-head", "us-breast").values()]
    region, halves = bench_similar(bundles, 4, ())
    assert (region["question"], region["samples"]) == ("same modality and region", 8)
    assert region["recall"] >= 0.95
    assert halves["samples"] == 8  # of the CT: ultrasound has no place in the patient
