"""The shipped bundles on synthetic and real CT, from the spool to the destination, checked by other makers' programs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from pacs_node.config import shipped
from pacs_node.database import jobs
from pacs_node.database.states import JobState
from pacs_node.journey.run_job import Bundles, Worker
from pacs_node.phantoms import PhantomSpec, make_study
from pacs_node.results import dciodvfy
from tests.journey.support import Town, ct_study

pytestmark = pytest.mark.slow

RULES = """
rules:
  - name: CT
    when: {Modality: CT}
    pipeline: ct-test
    send_to: [research]
"""


def real_town(make_town: Callable[..., Town], bundle: str) -> Town:
    town = make_town(rules=RULES)
    town.house.bundles = {"ct-test": shipped("models") / bundle}
    town.worker = Worker("test:worker-0", Bundles("cpu"))
    return town


def sent_files(name: str, dataset_folder: Callable[[str], Path]) -> list[Dataset]:
    if name == "tilted head, uneven spacing":
        return [dcmread(path) for path in sorted((dataset_folder("ct-ge-head-tilt") / "In").rglob("*")) if path.is_file() and _is_dicom(path)]
    if name == "head phantom":
        return make_study(PhantomSpec(region="head", lesion="ellipsoid", seed=501, slices=16))
    if name == "tilted head phantom":
        return make_study(PhantomSpec(region="head", seed=502, slices=12, tilt=15.0))
    return make_study(PhantomSpec(region="body", lesion="texture", seed=503, slices=12))


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


@pytest.mark.peers
@pytest.mark.parametrize("name", ["head phantom", "tilted head phantom", "body phantom", "tilted head, uneven spacing"])
def test_what_comes_back_is_valid_readable_and_lies_on_the_source_slices(
    make_town: Callable[..., Town], dataset_folder: Callable[[str], Path], tool: Callable[[str], str], tmp_path: Path, name: str
) -> None:
    sources = sent_files(name, dataset_folder)
    town = real_town(make_town, "ct-body" if name.startswith("body") else "ct-head")
    town.send(sources)
    town.settle()
    with town.house.store.read() as session:
        job = jobs.list_jobs(session)[0]
    assert job.state is JobState.DONE, job.reason
    files = sorted((town.folder / "out").rglob("*.dcm"))
    segmented = ["SEG"] if name.endswith("phantom") else []  # a patient's map is uncalibrated here: no regions
    assert sorted(dcmread(file, stop_before_pixels=True).Modality for file in files) == sorted(["CT", "OT", "OT", *segmented, "SR"])
    source = tmp_path / "source.dcm"
    sources[0].save_as(source, enforce_file_format=True)
    tool("dciodvfy")
    for file in files:
        own, _ = dciodvfy(file, source)
        assert own == (), file
    results = {dataset.SOPClassUID.keyword: dataset for dataset in map(dcmread, files)}
    assert_report_reads_well(tool("dsr2html"), next(file for file in files if dcmread(file).Modality == "SR"), str(job.finding["verdict"]))
    known = {str(dataset.SOPInstanceUID) for dataset in (*sources, *results.values())}
    assert set(referenced(results["Comprehensive3DSRStorage"])) <= known
    assert_map_on_slices(results["ParametricMapStorage"], sources)
    for result in results.values():
        assert (result.PatientID, result.StudyInstanceUID) == (sources[0].PatientID, sources[0].StudyInstanceUID)


def assert_report_reads_well(program: str, report: Path, verdict: str) -> None:
    rendered = subprocess.run([program, str(report)], capture_output=True, text=True, timeout=60)
    assert rendered.returncode == 0
    assert rendered.stderr == ""
    first = rendered.stdout[rendered.stdout.index("<body") :][:6000]
    assert verdict in first
    assert "esearch use" in first


def referenced(dataset: Dataset) -> Iterator[str]:
    for element in dataset.iterall():
        if element.keyword == "ReferencedSOPInstanceUID":
            yield str(element.value)


def assert_map_on_slices(heat: Dataset, sources: list[Dataset]) -> None:
    """Each frame lies in the plane of the slice it was derived from: its first pixel is 0.01 mm or less off that plane."""
    by_uid = {str(source.SOPInstanceUID): source for source in sources}
    assert heat.FrameOfReferenceUID == sources[0].FrameOfReferenceUID
    shared = heat.SharedFunctionalGroupsSequence[0]
    for frame in heat.PerFrameFunctionalGroupsSequence:
        source = by_uid[frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID]
        orientation = frame.get("PlaneOrientationSequence", shared.get("PlaneOrientationSequence"))[0].ImageOrientationPatient
        assert np.allclose(orientation, source.ImageOrientationPatient, atol=1e-4)
        row, column = np.array(source.ImageOrientationPatient[:3], float), np.array(source.ImageOrientationPatient[3:], float)
        offset = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float) - np.array(source.ImagePositionPatient, float)
        assert abs(offset @ np.cross(row, column)) <= 0.01


def test_objects_without_pixels_get_a_notice_that_says_so(make_town: Callable[..., Town]) -> None:
    town = real_town(make_town, "ct-head")
    bare = ct_study(8)
    for dataset in bare:
        del dataset.PixelData
    town.send(bare)
    town.settle()
    with town.house.store.read() as session:
        job = jobs.list_jobs(session)[0]
    assert job.state is JobState.NOT_ANALYSED
    assert "pixel" in job.reason
    assert [str(result.SOPClassUID) for result in town.results()] == ["1.2.840.10008.5.1.4.1.1.88.22"]


def test_a_truncated_object_among_good_ones_is_named_and_loses_no_other(make_town: Callable[..., Town]) -> None:
    town = real_town(make_town, "ct-head")
    study = make_study(PhantomSpec(region="head", seed=504, slices=12))
    study[3].PixelData = study[3].PixelData[:1000]
    town.send(study)
    town.settle()
    with town.house.store.read() as session:
        job = jobs.list_jobs(session)[0]
    assert job.state in (JobState.DONE, JobState.NOT_ANALYSED)
    said = f"{job.reason} {job.finding.get('remarks')}"
    assert str(study[3].SOPInstanceUID) in said or "1 " in said
    assert town.results()


@pytest.mark.parametrize("damage", ["missing weights", "damaged weights", "no bundle"])
def test_a_bundle_that_cannot_be_used_parks_the_job_in_one_clear_sentence(make_town: Callable[..., Town], tmp_path: Path, damage: str) -> None:
    town = real_town(make_town, "ct-head")
    bundle = tmp_path / "ct-head"
    shutil.copytree(shipped("models") / "ct-head", bundle)
    weights = bundle / "weights.safetensors"
    if damage == "missing weights":
        weights.unlink()
    elif damage == "damaged weights":
        weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    town.house.bundles = {} if damage == "no bundle" else {"ct-test": bundle}
    town.send(make_study(PhantomSpec(region="head", seed=505, slices=8)))
    town.settle()
    with town.house.store.read() as session:
        job = jobs.list_jobs(session)[0]
    assert job.state is JobState.PARKED
    assert job.attempts == 1  # time does not mend it
    assert "model bundle" in job.reason
    assert damage == "no bundle" or "weights.safetensors" in job.reason
    assert [str(result.SOPClassUID) for result in town.results()] == ["1.2.840.10008.5.1.4.1.1.88.22"]  # someone is told


def test_the_same_study_gives_the_same_score_and_the_lesion_the_higher_one(make_town: Callable[..., Town]) -> None:
    town = real_town(make_town, "ct-head")
    for spec in (PhantomSpec(region="head", seed=506, slices=16), PhantomSpec(region="head", seed=506, slices=16, lesion="ellipsoid", contrast=4.0)):
        town.send(make_study(spec))
    town.settle()
    with town.house.store.read() as session:
        plain, lesion = sorted(jobs.list_jobs(session), key=lambda job: job.id)
    assert lesion.finding["score"] > plain.finding["score"]
