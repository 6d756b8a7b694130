"""Building results: which, in which order, always the same, and in which words."""

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from pacs_node.config import DicomDestination, FolderDestination, StowDestination
from pacs_node.errors import ResultRejected
from pacs_node.records import RESULT_KINDS, Notice, NoticeStatus
from pacs_node.results import BUILDERS, DEFAULT_KINDS, PLANNED, Representation, build, save, takeable
from pacs_node.results.capture import summary_rows
from pacs_node.results.files import encode
from pacs_node.results.panels import SCALES
from pacs_node.results.wording import summary
from tests.results.studies import Shape, request

NOTICE = Notice(NoticeStatus.PARTIALLY_SUCCEEDED, "one of two series could not be decoded")


def everything(**options):
    kinds = ("notice", "sr", "sc", "pm", "ko", "seg", "denoised", "raw")
    made = request(options.pop("shape", Shape(slices=3)), kinds=kinds, notice=NOTICE, **options)
    return replace(made, representation=Representation(b"packed", 0))


@pytest.fixture(scope="module")
def results():
    return build(everything())


def test_every_kind_of_result_is_built_or_planned():
    assert set(BUILDERS) | set(PLANNED) == set(RESULT_KINDS) and not set(BUILDERS) & set(PLANNED)


def test_each_kind_of_destination_has_default_kinds_that_exist():
    kinds = {model.model_fields["kind"].annotation.__args__[0] for model in (DicomDestination, StowDestination, FolderDestination)}
    assert set(DEFAULT_KINDS) == kinds
    assert all(set(defaults) <= set(BUILDERS) for defaults in DEFAULT_KINDS.values())


def test_what_is_referred_to_goes_before_what_refers_to_it(results):
    assert [one.kind for one in results] == ["pm", "seg", "sc", "denoised", "raw", "sr", "ko", "notice"]
    assert [one.order for one in results] == sorted(one.order for one in results)


def test_each_row_names_the_sop_class_that_it_makes(results):
    assert {one.kind: str(one.dataset.SOPClassUID) for one in results} == {kind: row.sop_class_uid for kind, row in BUILDERS.items()}


def test_the_same_request_gives_the_same_bytes(results):
    made = everything()
    first = [encode(one.dataset) for one in build(made)]
    assert first == [encode(one.dataset) for one in results]  # of an equal request, made apart
    again = build(replace(made, kinds=("pm", "sr")))
    assert [encode(one.dataset) for one in again if one.kind == "pm"] == first[:1]


@pytest.mark.parametrize("kind", ["pm", "seg", "sc", "denoised", "sr", "ko"])
def test_a_kind_that_needs_a_finding_says_so(kind):
    with pytest.raises(ResultRejected, match=f"the {kind} object was not released: there is no finding to tell"):
        build(replace(request(Shape(slices=1)), finding=None, kinds=(kind,)))


@pytest.mark.parametrize("kind", [*PLANNED, "seq"])
def test_a_kind_that_does_not_exist_is_refused(kind):
    with pytest.raises(ResultRejected, match="no such kind of result exists yet"):
        build(request(Shape(slices=1), kinds=("sr", kind)))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_not_reported(value):
    made = request(Shape(slices=1))
    with pytest.raises(ResultRejected, match="is no finite number"):
        build(replace(made, finding=replace(made.finding, score=value)))


def texts(dataset):
    return " ".join(str(element.value) for element in dataset.iterall() if element.VR in ("LO", "SH", "ST", "LT", "UT", "CS", "UC"))


@pytest.mark.parametrize("calibrated", [True, False])
def test_no_object_judges_the_patient(calibrated):
    made = everything(calibrated=calibrated)
    said = [texts(one.dataset) for one in build(made)]
    said += [summary(made.finding, made.run), str(summary_rows(made, made.finding)), *(scale.caption for scale in SCALES.values())]
    for text in said:
        assert not re.search(r"normal|abnormal|healthy|patholog|disease|probabilit|certain", text, re.IGNORECASE)


def test_every_object_says_that_it_is_for_research(results):
    said = {one.kind: texts(one.dataset).lower() for one in results}
    assert all("research" in text for text in said.values())


SR_AND_OTHERS = ("pm", "seg", "sc", "sr")


@pytest.mark.parametrize(
    ("refused", "fallback", "left"),
    [
        ((), (), SR_AND_OTHERS),
        (("pm",), (), ("seg", "sc", "sr")),
        (("pm", "seg", "sc"), (), ("sr",)),
        (("pm", "sc"), ("sc",), ("seg", "sc", "sr")),  # another kind goes in its place
        (("sr", "pm"), (), ("seg", "sc", "sr")),  # a report is always tried: its refusal is said
    ],
)
def test_a_destination_is_spared_what_it_is_known_to_refuse(refused, fallback, left):
    assert takeable(SR_AND_OTHERS, [BUILDERS[kind].sop_class_uid for kind in refused], fallback) == left


def test_a_destination_never_gets_only_pictures_nor_nothing_for_what_it_is_known_to_refuse():
    refused = [BUILDERS[kind].sop_class_uid for kind in ("pm", "seg")]
    assert takeable(("pm", "sc"), refused, ()) == ("pm", "sc")
    assert takeable(("pm", "seg"), refused, ()) == ("pm", "seg")
    assert takeable(("pm", "seg", "raw"), refused, ()) == ("raw",)


# --- files -------------------------------------------------------------------------------------------------------------


def test_a_saved_result_is_read_back_whole_and_its_hash_is_that_of_the_file(results, tmp_path: Path):
    for result in results:
        path = tmp_path / f"{result.kind}.dcm"
        digest = save(result, path)
        assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
        read = dcmread(path)
        assert read.SOPInstanceUID == read.file_meta.MediaStorageSOPInstanceUID == result.sop_uid
        assert read.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
        assert not str(read.file_meta.ImplementationVersionName).startswith("highdicom")
    assert {path.suffix for path in tmp_path.iterdir()} == {".dcm"}


def test_a_result_that_cannot_be_written_leaves_the_old_file(tmp_path: Path):
    (result,) = build(request(Shape(slices=1), kinds=("sr",)))
    path = tmp_path / "sr.dcm"
    save(result, path)
    before = path.read_bytes()
    (tmp_path / "sr.dcm.part").mkdir()
    with pytest.raises(IsADirectoryError):
        save(result, path)
    assert path.read_bytes() == before


@pytest.mark.slow
def test_a_study_of_135_slices_is_built_and_written(tmp_path: Path):
    made = request(Shape(slices=135, rows=512, columns=512, spacing=0.5, grid=256, grid_spacing=1.0), kinds=("pm", "seg", "sc", "sr", "ko"))
    results = build(made)
    for result in results:
        save(result, tmp_path / f"{result.kind}.dcm")
    stored = np.frombuffer(results[0].dataset.FloatPixelData, dtype="<f4")
    assert np.array_equal(stored.reshape(made.finding.heat.shape), made.finding.heat)
