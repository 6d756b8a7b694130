"""Every modality with the shipped bundles, from the spool to the destination: what comes back is valid, readable, complete and of this patient."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    ParametricMapStorage,
    RawDataStorage,
    SegmentationStorage,
)

from pacs_node.database import alerts, jobs
from pacs_node.database.states import JobState
from pacs_node.database.tables import JobRow
from pacs_node.journey.run_job import Bundles, Worker
from pacs_node.phantoms import PhantomSpec, make_study
from pacs_node.results import dciodvfy
from tests.journey.support import Town, shipped_bundles
from tests.journey.test_real_pipeline import assert_report_reads_well

pytestmark = [pytest.mark.slow, pytest.mark.peers]

SR, SC, PM = str(Comprehensive3DSRStorage), str(MultiFrameTrueColorSecondaryCaptureImageStorage), str(ParametricMapStorage)
RAW = str(RawDataStorage)

RULE = "  - name: {pipeline}\n    when: {{Modality: {modality}}}\n    series: all\n    pipeline: {pipeline}\n    notice: true\n    send_to: [research]\n"

PHANTOMS: dict[str, tuple[str, PhantomSpec]] = {
    "MR, T1, axial": ("mr-brain", PhantomSpec(modality="MR", lesion="ellipsoid", slices=8, rows=128, seed=601)),
    "MR, T2, sagittal": ("mr-brain", PhantomSpec(modality="MR", sequence="T2", plane="sagittal", slices=24, rows=256, seed=602)),
    "PET": ("pt-body", PhantomSpec(modality="PT", lesion="ellipsoid", slices=12, rows=64, seed=603)),
    "ultrasound": ("us-breast", PhantomSpec(modality="US", slices=4, seed=604)),
    "ultrasound in colour": ("us-breast", PhantomSpec(modality="US", lesion="ellipsoid", slices=4, colour=True, seed=605)),
    "ultrasound, a loop": ("us-breast", PhantomSpec(modality="US", slices=4, enhanced=True, seed=606)),
    "CT, enhanced": ("ct-head", PhantomSpec(region="head", slices=8, rows=128, enhanced=True, seed=607)),
    "MR, enhanced": ("mr-brain", PhantomSpec(modality="MR", slices=8, rows=128, enhanced=True, seed=608)),
    "PET, enhanced": ("pt-body", PhantomSpec(modality="PT", slices=12, rows=64, enhanced=True, seed=609)),
}

# What tells a patient and a study from others: the same in all results of a study
IDENTITY = (
    "PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName", "StudyDescription",
)  # fmt: skip
# What scanners of one study may know differently: as in the series that was analysed
CIRCUMSTANCES = ("PatientAge", "PatientSize", "PatientWeight", "TimezoneOffsetFromUTC")


@pytest.fixture(scope="module")
def engine() -> Bundles:
    """Keep the bundles warm from test to test."""
    return Bundles("cpu")


@dataclass(frozen=True)
class Delivered:
    """What came back of a study."""

    sources: Sequence[Dataset]
    jobs: Mapping[str, JobRow]  # by pipeline
    files: Sequence[Path]
    results: Mapping[Path, Dataset]

    def of(self, pipeline: str) -> dict[Path, Dataset]:
        """Return the results of a pipeline."""
        folder = f"job-{self.jobs[pipeline].id:06d}-{pipeline}"
        return {path: result for path, result in self.results.items() if path.parent.name == folder}

    def source_of(self, pipeline: str) -> Dataset:
        """Return the first image of the series that a pipeline analysed."""
        return next(source for source in self.sources if source.SeriesInstanceUID in self.jobs[pipeline].series_uids)


@pytest.fixture
def deliver(make_town: Callable[..., Town], engine: Bundles) -> Callable[..., Delivered]:
    """Give a function that sends a study through a town and returns what lies at its destination."""

    def through(sources: Sequence[Dataset], pipelines: Mapping[str, str]) -> Delivered:
        rules = "rules:\n" + "".join(RULE.format(modality=modality, pipeline=pipeline) for modality, pipeline in pipelines.items())
        town = make_town(rules=rules, bundles=shipped_bundles(*pipelines.values()))
        town.worker = Worker("test:worker-0", engine)
        town.send(sources)
        town.settle()
        with town.house.store.read() as session:
            made = {job.pipeline: job for job in jobs.list_jobs(session)}
            open_alerts = [alert.message for alert in alerts.open_alerts(session)]
        assert {job.state for job in made.values()} == {JobState.DONE}, [job.reason for job in made.values()]
        assert (made.keys(), open_alerts) == (set(pipelines.values()), [])
        files = sorted((town.folder / "out").rglob("*.dcm"))
        return Delivered(sources, made, files, {file: dcmread(file) for file in files})

    return through


# --- what is asked of every delivery -----------------------------------------------------------------------------------


def assert_valid(delivered: Delivered, tool: Callable[[str], str], folder: Path) -> None:
    """No Error line of our making by another maker's program, and reports that another maker's program shows without complaint."""
    tool("dciodvfy")
    for pipeline, job in delivered.jobs.items():
        source = folder / f"source-of-{pipeline}.dcm"
        delivered.source_of(pipeline).save_as(source, enforce_file_format=True)
        for path, result in delivered.of(pipeline).items():
            assert dciodvfy(path, source)[0] == (), path
            if result.Modality == "SR":
                assert_report_reads_well(tool("dsr2html"), path, str(job.finding["verdict"]))


def assert_one_patient_and_study(delivered: Delivered) -> None:
    """Every result is of the patient and the study of all sources, in a series of its own."""
    series = {str(dataset.SeriesInstanceUID) for dataset in delivered.sources}
    for pipeline in delivered.jobs:
        source = delivered.source_of(pipeline)
        for path, result in delivered.of(pipeline).items():
            for keyword in (*IDENTITY, *CIRCUMSTANCES):
                assert text_of(result, keyword) == text_of(source, keyword), (path, keyword)
            for keyword in IDENTITY:
                assert text_of(result, keyword) == text_of(delivered.sources[0], keyword), (path, keyword)
            assert str(result.SeriesInstanceUID) not in series, path
            series.add(str(result.SeriesInstanceUID))


def text_of(dataset: Dataset, keyword: str) -> str:
    """Return an attribute's value, whether absent or empty; a time without the zeros of its fraction, which scanners write or do not."""
    text = str(dataset.get(keyword) or "")
    return text.rstrip("0").rstrip(".") if keyword.endswith("Time") and "." in text else text


def assert_references_resolve(delivered: Delivered) -> None:
    """What a result names is there: the object, of that class, with a frame of that number."""
    known = {str(dataset.SOPInstanceUID): dataset for dataset in (*delivered.sources, *delivered.results.values())}
    for path, result in delivered.results.items():
        found = list(references(result))
        assert found, path
        for item in found:
            target = known[str(item.ReferencedSOPInstanceUID)]
            assert item.ReferencedSOPClassUID == target.SOPClassUID, path
            numbers = item.get("ReferencedFrameNumber") or 1
            assert max(numbers if isinstance(numbers, Sequence) else [numbers]) <= int(target.get("NumberOfFrames", 1)), path


def assert_segmentation_is_reported(delivered: Delivered) -> None:
    """There is a segmentation where, and only where, the report has regions that refer to it."""
    made = {str(result.SOPInstanceUID) for result in delivered.results.values() if result.Modality == "SEG"}
    [report] = (result for result in delivered.results.values() if result.Modality == "SR")
    named = {str(item.ReferencedSOPInstanceUID) for item in references(report) if item.ReferencedSOPClassUID == SegmentationStorage}
    assert made == named and len(made) <= 1


def references(dataset: Dataset) -> Iterator[Dataset]:
    """Yield all items of a dataset that name a SOP instance."""
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                if "ReferencedSOPInstanceUID" in item:
                    yield item
                yield from references(item)


@pytest.mark.parametrize("name", PHANTOMS)
def test_results_of_every_modality_come_back_valid_readable_and_of_this_patient(
    deliver: Callable[..., Delivered], tool: Callable[[str], str], tmp_path: Path, name: str
) -> None:
    pipeline, spec = PHANTOMS[name]
    delivered = deliver(make_study(spec), {spec.modality: pipeline})
    wanted = [SR, SC, RAW] if spec.modality == "US" else [SR, SC, PM, RAW]
    assert sorted(str(result.SOPClassUID) for result in delivered.results.values() if result.Modality != "SEG") == sorted(wanted)
    assert_segmentation_is_reported(delivered)
    assert_valid(delivered, tool, tmp_path)
    assert_one_patient_and_study(delivered)
    assert_references_resolve(delivered)


def test_a_study_of_ct_and_pet_gets_the_results_of_both_pipelines(
    deliver: Callable[..., Delivered], dataset_folder: Callable[[str], Path], tool: Callable[[str], str], tmp_path: Path
) -> None:
    folder = dataset_folder("acrin-nsclc-fdg-pet-042")
    chosen = {"CT": sorted((folder / "ct_ge_pet").glob("*.dcm"))[40:60], "PT": sorted((folder / "pt_ge_ac").glob("*.dcm"))[40:60]}
    delivered = deliver([dcmread(path) for paths in chosen.values() for path in paths], {"CT": "ct-body", "PT": "pt-body"})
    assert len(delivered.files) == 8  # uncalibrated for a patient: no segmentation
    for modality, pipeline in (("CT", "ct-body"), ("PT", "pt-body")):
        own = {str(result.SOPClassUID): result for result in delivered.of(pipeline).values()}
        assert own.keys() == {SR, SC, PM, RAW}
        assert {pipeline in str(result.SeriesDescription) for result in own.values()} == {True}
        analysed = {str(source.SOPInstanceUID) for source in delivered.sources if source.Modality == modality}
        derived = {str(item.ReferencedSOPInstanceUID) for frame in own[PM].PerFrameFunctionalGroupsSequence for item in references(frame)}
        assert derived == analysed  # the map of the PET shows nothing of the CT, nor the reverse
        assert str(delivered.jobs[pipeline].finding["verdict"]) == "uncalibrated"  # a patient, and no population of the site's own
    assert_valid(delivered, tool, tmp_path)
    assert_one_patient_and_study(delivered)
    assert_references_resolve(delivered)
