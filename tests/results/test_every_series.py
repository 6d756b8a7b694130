"""Every kind of result of every geometry and of every real series: what all judges say, and an archive that files and shows them."""

from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pacs_node.phantoms import PhantomSpec, write_study
from pacs_node.results import build
from pacs_node.results.files import encode
from tests.node.orthanc import Orthanc
from tests.results.everything import judgeable, requests_below, verdicts

pytestmark = pytest.mark.peers

SMALL = {"rows": 64, "slices": 4, "seed": 5}
PHANTOMS = {
    "CT": PhantomSpec("CT", **SMALL),
    "CT, tilted gantry": PhantomSpec("CT", tilt=18.0, **SMALL),
    "CT, one slice": PhantomSpec("CT", **{**SMALL, "slices": 1}),
    "CT, enhanced": PhantomSpec("CT", enhanced=True, **SMALL),
    "MR": PhantomSpec("MR", **SMALL),
    "MR, sagittal": PhantomSpec("MR", plane="sagittal", **SMALL),
    "MR, coronal": PhantomSpec("MR", plane="coronal", **SMALL),
    "MR, enhanced": PhantomSpec("MR", enhanced=True, **SMALL),
    "MR, enhanced, sagittal": PhantomSpec("MR", enhanced=True, plane="sagittal", **SMALL),
    "PET": PhantomSpec("PT", **SMALL),
    "PET, enhanced": PhantomSpec("PT", enhanced=True, **SMALL),
    "ultrasound": PhantomSpec("US", **SMALL),
    "ultrasound, loop": PhantomSpec("US", enhanced=True, **SMALL),
    "ultrasound, colour": PhantomSpec("US", colour=True, **SMALL),
    "ultrasound, loop in colour": PhantomSpec("US", enhanced=True, colour=True, **SMALL),
}
QUICK = ("CT, tilted gantry", "MR, enhanced, sagittal", "ultrasound, loop in colour")
SETS = (
    "acrin-nsclc-fdg-pet-042", "ct-ge-head-tilt", "ct-philips-headphantom-5mm", "ct-transfer-syntaxes", "dcmqi-small-ct-seg", "highdicom-test",
    "htj2k-wrapped", "mr-ge-spgr-defaced", "mr-nibabel", "mr-philips-enhanced", "mr-siemens-xa30-enhanced", "mr-transfer-syntaxes",
    "pt-ct-small-suyashkumar", "pydicom-test-files", "us-pydicom-data",
)  # fmt: skip


@pytest.mark.parametrize("calibrated", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["calibrated", "uncalibrated"])
@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in PHANTOMS])
def test_no_judge_complains_about_the_results_of_a_phantom(name: str, calibrated: bool, tmp_path: Path) -> None:
    spec = PHANTOMS[name]
    files = write_study(spec, tmp_path / "in")
    made = judgeable(files, spec.modality, calibrated=calibrated)
    assert verdicts(made, tmp_path, files[0]) == []
    kinds = {path.stem for path in tmp_path.glob("*.dcm")}
    assert kinds == {"sr", "sc", "denoised", "ko"} | ({"seg"} if calibrated else set()) | ({"pm"} if spec.modality != "US" else set())


@pytest.mark.slow
def test_no_judge_complains_where_slices_are_missing_in_between(tmp_path: Path) -> None:
    files = write_study(PhantomSpec("CT", **{**SMALL, "slices": 9}), tmp_path / "in")
    kept = [files[index] for index in (0, 1, 4, 5, 8)]
    assert verdicts(judgeable(kept, "CT"), tmp_path, kept[0]) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", SETS)
def test_no_judge_complains_about_the_results_of_a_real_set(dataset_folder: Callable[[str], Path], name: str, tmp_path: Path) -> None:
    said, count = [], 0
    for label, source, made in requests_below(dataset_folder(name)):
        folder = tmp_path / str(count)
        folder.mkdir()
        said += [f"{label}: {fault}" for fault in verdicts(made, folder, source)]
        count += 1
    assert said == [] and count > 0


# --- an archive --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory, tool: Callable[[str], str]) -> Iterator[Orthanc]:
    archive = Orthanc(tmp_path_factory.mktemp("archive") / "orthanc", tool("Orthanc")).start()
    yield archive
    archive.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_orthanc_files_every_object_and_shows_the_pictures(orthanc: Orthanc, name: str, tmp_path: Path) -> None:
    spec = PHANTOMS[name]
    made = judgeable(write_study(spec, tmp_path / "in"), spec.modality)
    for result in build(made):
        filed = orthanc.upload(encode(result.dataset))
        tags = orthanc.tags(filed)
        for keyword in ("SOPInstanceUID", "PatientID", "StudyInstanceUID", "SeriesDescription", "Modality"):
            assert tags[keyword] == str(result.dataset[keyword].value), (result.kind, keyword)
        if result.kind in ("sc", "denoised"):
            shown = np.asarray(Image.open(BytesIO(orthanc.preview(filed))).convert("RGB"))
            assert shown.shape[:2] == (result.dataset.Rows, result.dataset.Columns) and shown.max() > 100, result.kind
