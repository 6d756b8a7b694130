"""What programs of other makers say about our objects: dciodvfy (dicom3tools), dsr2html (DCMTK)."""

import re
import shutil
import subprocess
from dataclasses import replace

import pytest
from pydicom.uid import Comprehensive3DSRStorage

from pacs_node.records import Notice, NoticeStatus, PriorReport, Sources, Verdict
from pacs_node.results import build, check_all, dciodvfy, save
from pacs_node.results.files import encode
from tests.results import modalities
from tests.results.studies import RUN, Shape, real_request, received, request

needs_dciodvfy = pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
needs_dsr2html = pytest.mark.skipif(shutil.which("dsr2html") is None, reason="dsr2html (dcmtk) is not installed")
pytestmark = pytest.mark.peers

NOTICE = Notice(NoticeStatus.FAILED, "the pixels of 3 slices cannot be decoded")
ALL = ("pm", "seg", "sc", "denoised", "sr", "ko", "notice")


def with_all(**attributes):
    return request(Shape(slices=3, attributes=attributes), kinds=ALL, notice=NOTICE)


def as_run(made, **changes):
    return replace(made, run=replace(RUN, **changes))


def cases():
    plain = with_all()
    prior = PriorReport("1.2.3.1", Comprehensive3DSRStorage, "1.2.3.2", str(plain.header.StudyInstanceUID))
    yield "calibrated", plain
    yield "uncalibrated", request(Shape(slices=3), calibrated=False, kinds=ALL, notice=NOTICE)
    yield "not above", replace(plain, finding=replace(plain.finding, verdict=Verdict.NOT_ABOVE))
    yield "partial", as_run(plain, partial=True, complete_reason="deadline of 2 h")
    yield "rerun", as_run(plain, number=2, predecessor=prior)
    yield "tilted and uneven", request(Shape(slices=4, tilt=20.0, steps=(5.0, 1.1, 7.0)), kinds=ALL, notice=NOTICE)
    yield "no slices that stand out", replace(plain, finding=replace(plain.finding, top_slices=()))
    yield "notice alone", request(Shape(slices=2), kinds=("notice",), notice=replace(NOTICE, status=NoticeStatus.NOT_ATTEMPTED))
    yield "UTF-8", with_all(SpecificCharacterSet="ISO_IR 192", PatientName="Wang^XiaoDong=王^小东", StudyDescription="颅脑")
    yield "Japanese", with_all(SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう")
    yield "Latin-1", with_all(PatientName="Müller^Jürgen", StudyDescription="Schädel")
    yield "no character set", with_all(SpecificCharacterSet=None)
    empty = ("PatientBirthDate", "PatientSex", "StudyID", "ReferringPhysicianName", "StudyTime", "AccessionNumber", "BodyPartExamined", "SeriesDescription")
    yield "nothing of type 2", with_all(**dict.fromkeys(empty))
    yield "a paired body part", with_all(BodyPartExamined="KNEE")
    yield "a paired body part and its side", with_all(BodyPartExamined="KNEE", Laterality="R")
    yield "an unpaired body part with a side", with_all(BodyPartExamined="HEAD", Laterality="")
    yield "lossy", with_all(LossyImageCompression="01", LossyImageCompressionRatio=8, LossyImageCompressionMethod="ISO_10918_1")
    yield "de-identified", with_all(PatientIdentityRemoved="YES", DeidentificationMethod="")
    yield "with offset", with_all(TimezoneOffsetFromUTC="+0100")
    yield "with institution", replace(plain, equipment=plain.equipment.model_copy(update={"institution": "Clinic"}))


OTHERS = [
    pytest.param(make, calibrated, id=f"{name}, {'calibrated' if calibrated else 'uncalibrated'}", marks=pytest.mark.slow)
    for name, make in modalities.CASES.items()
    for calibrated in (True, False)
]


def judged(made, folder, source=None):
    """Build, check and store a request; return what the judges complain about."""
    results, said = build(made), []
    said += check_all(results, made.sources)
    for result in results:
        path = folder / f"{result.kind}.dcm"
        save(result, path)
        said += dciodvfy(path, source)[0]
    lines = rendered(folder / "sr.dcm")[0].splitlines()
    inherited = source is not None
    return said + [line for line in lines if not (inherited and line.endswith(("in PatientModule", "in GeneralStudyModule")))]  # copied as received


@needs_dciodvfy
@needs_dsr2html
@pytest.mark.parametrize(("make", "calibrated"), OTHERS)
def test_results_of_every_modality_pass(make, calibrated, tmp_path):
    assert judged(make(calibrated=calibrated), tmp_path) == []


REAL = {
    "enhanced MR, Siemens XA30": ("MR", "mr-siemens-xa30-enhanced", "In/5_anat*/*.dcm", 1.0),
    "enhanced MR, Siemens XA10, four objects": ("MR", "mr-philips-enhanced", "In/Siemens/XA10/*.dcm", 4.0),
    "enhanced MR, Philips, whole datasets in private macros": ("MR", "mr-philips-enhanced", "In/Philips/IM_0027_fMAP.dcm", 4.0),
    "legacy-converted CT": ("CT", "dcmqi-small-ct-seg", "data/segmentations/24x38x3/multiframe/mf.dcm", 0.5),
    "PET": ("PT", "acrin-nsclc-fdg-pet-042", "pt_ge_ac/00[45]*.dcm", 8.0),
    "ultrasound in colour, two stills": ("US", "us-pydicom-data", "data_store/data/US1_UNC*.dcm", 1.0),
    "ultrasound, palette, lossless": ("US", "us-pydicom-data", "data_store/data/OBXXXX1A_rle.dcm", 1.0),
    "ultrasound, two frames": ("US", "us-pydicom-data", "data_store/data/OBXXXX1A_rle_2frame.dcm", 1.0),
    "ultrasound, two frames in a single-frame class": ("US", "us-pydicom-data", "data_store/data/OBXXXX1A_2frame.dcm", 1.0),
    "ultrasound, an empty order": ("US", "us-pydicom-data", "data_store/data/JPGLossless*.dcm", 1.0),
    "ultrasound, a retired class and odd UIDs": ("US", "us-pydicom-data", "data_store/data/color-pl.dcm", 1.0),
    "ultrasound, 16-bit palette": ("US", "us-pydicom-data", "data_store/data/gdcm-US-ALOKA-16.dcm", 1.0),
}


@needs_dciodvfy
@needs_dsr2html
@pytest.mark.slow
@pytest.mark.parametrize(("modality", "data", "pattern", "millimetres"), REAL.values(), ids=REAL)
def test_results_of_real_series_of_every_modality_pass(dataset_folder, modality, data, pattern, millimetres, tmp_path):
    files = sorted(dataset_folder(data).glob(pattern))
    made = modalities.real(modality, files, millimetres=millimetres)
    assert judged(made, tmp_path, files[0]) == []
    assert (tmp_path / "pm.dcm").exists() == (modality != "US")


QUICK = ("calibrated", "uncalibrated", "Japanese")  # the others take half a minute together
CASES = [pytest.param(made, id=name, marks=() if name in QUICK else pytest.mark.slow) for name, made in cases()]


@needs_dciodvfy
@pytest.mark.parametrize("made", CASES)
def test_dciodvfy_finds_no_error_in_any_object(made, tmp_path):
    results = build(made)
    assert check_all(results, made.sources) == ()
    for result in results:
        save(result, tmp_path / "object.dcm")
        assert dciodvfy(tmp_path / "object.dcm") == ((), ()), result.kind


@needs_dciodvfy
@pytest.mark.slow
@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientSex", "X"),
        ("PatientAge", "60"),
        ("PatientBirthDate", "1960/05/04"),
        ("StudyDate", "2026-02-03"),
        ("SmokingStatus", "SOMETIMES"),
        ("SyntheticData", "YES"),  # younger than the program
    ],
)
def test_an_error_that_the_source_already_has_is_inherited_not_ours(keyword, value, tmp_path):
    made = with_all(**{keyword: value})
    source = tmp_path / "source.dcm"
    source.write_bytes(encode(received(made.header)))
    for result in build(made):
        save(result, tmp_path / "object.dcm")
        alone, _ = dciodvfy(tmp_path / "object.dcm")
        own, inherited = dciodvfy(tmp_path / "object.dcm", source)
        assert alone, result.kind
        assert (own, inherited) == ((), alone), result.kind


@needs_dciodvfy
def test_an_error_of_our_own_making_is_never_called_inherited(tmp_path):
    made = with_all(PatientSex="X")
    source = tmp_path / "source.dcm"
    source.write_bytes(encode(received(made.header)))
    (result,) = build(replace(made, kinds=("sr",)))
    result.dataset.VerificationFlag = "PERHAPS"
    save(result, tmp_path / "object.dcm")
    own, inherited = dciodvfy(tmp_path / "object.dcm", source)
    assert len(own) == 1 and "VerificationFlag" in own[0]
    assert len(inherited) == 1 and "PatientSex" in inherited[0]


# DCMTK 3.6 warns about every declared character set but Latin-1; it is declared only where a text needs it
CHARACTER_SET_WARNING = re.compile(r"W: (The VR checker does not support this Specific Character Set|Reading unknown/unsupported SpecificCharacterSet).*\n")


def rendered(path):
    """Return what dsr2html writes to the error stream, and the text of the page without markup, line by line."""
    ended = subprocess.run(["dsr2html", str(path)], capture_output=True, timeout=60, check=True)
    text = re.sub(r"<(?:br|p|div|tr|h\d)[^>]*>", "\n", ended.stdout.decode("utf-8", "replace"))
    lines = [re.sub(r"<[^>]*>", "", line).strip() for line in text.splitlines()]
    return CHARACTER_SET_WARNING.sub("", ended.stderr.decode("utf-8", "replace")), [line for line in lines if line]


@needs_dsr2html
@pytest.mark.parametrize("made", CASES)
def test_dsr2html_renders_reports_and_notices_without_a_word_of_complaint(made, tmp_path):
    for result in build(replace(made, kinds=tuple(kind for kind in made.kinds if kind in ("sr", "notice")))):
        save(result, tmp_path / "object.dcm")
        errors, lines = rendered(tmp_path / "object.dcm")
        assert errors == "", result.kind
        body = lines[lines.index("Imaging Measurement Report", 4) :]
        said = next(index for index, line in enumerate(body) if line.startswith(("Anomaly score 3.217", "Not analysed: analysis ")))
        assert not any(line.startswith("Image Library") for line in body[:said])
        assert said < 12


@needs_dsr2html
def test_the_rendered_report_begins_with_score_and_verdict(tmp_path):
    (result,) = build(request(Shape(slices=3), kinds=("sr",)))
    save(result, tmp_path / "sr.dcm")
    _, lines = rendered(tmp_path / "sr.dcm")
    assert "Anomaly score 3.217: above the threshold 2.5. AI, research use, not for diagnosis." in lines


@needs_dciodvfy
@needs_dsr2html
@pytest.mark.slow
@pytest.mark.parametrize("calibrated", [True, False])
def test_a_real_tilted_and_uneven_head_ct_passes(dataset_folder, calibrated, tmp_path):
    folder = dataset_folder("ct-ge-head-tilt")
    made = real_request(folder, calibrated=calibrated)
    results = build(made)
    assert check_all(results, made.sources) == ()
    source = next(folder.rglob("*.dcm"))
    for result in results:
        save(result, tmp_path / f"{result.kind}.dcm")
        assert dciodvfy(tmp_path / f"{result.kind}.dcm", source)[0] == ()
    assert rendered(tmp_path / "sr.dcm")[0] == ""


@needs_dciodvfy
def test_every_instance_of_a_study_can_be_the_first(tmp_path):
    made = with_all()
    turned = replace(made, sources=Sources(made.sources.analysed[::-1], made.sources.others))
    for result in build(turned):
        save(result, tmp_path / "object.dcm")
        assert dciodvfy(tmp_path / "object.dcm")[0] == ()
