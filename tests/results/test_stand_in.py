"""What goes in the place of a kind that is not taken: made of the stored object, valid, and pointing only at what is there."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedSRStorage, SecondaryCaptureImageStorage

from pacs_node.errors import ResultRejected
from pacs_node.records import FALLBACKS, ResultObject
from pacs_node.results import (
    BUILDERS,
    STAND_INS,
    Reference,
    build,
    check,
    dciodvfy,
    header_of,
    redirected,
    refers_to,
    save,
    sources_as_stored,
    stand_ins,
)
from pacs_node.results.files import encode
from tests.results.studies import Shape, request


def stored_as(dataset: Dataset) -> Dataset:
    return dcmread(BytesIO(encode(dataset)))


@pytest.fixture(scope="module")
def stored() -> dict[str, Dataset]:
    """Give the objects of a run as they are read back from the disk."""
    return {one.kind: stored_as(one.dataset) for one in build(request(Shape(slices=3), kinds=("pm", "sc", "sr")))}


def pointed(dataset: Dataset) -> set[str]:
    return {element.value for element in dataset.iterall() if element.keyword == "ReferencedSOPInstanceUID"}


def test_every_fallback_of_the_configuration_has_what_makes_it() -> None:
    assert set(FALLBACKS.values()) == set(STAND_INS) and set(FALLBACKS) <= set(BUILDERS)


def test_an_enhanced_report_says_the_same_of_the_same_images_as_another_instance(stored: dict[str, Dataset]) -> None:
    (made,) = stand_ins(stored["sr"], "enhanced-sr", {}, None)
    assert made.SOPClassUID == made.file_meta.MediaStorageSOPClassUID == EnhancedSRStorage
    assert made.ContentSequence == stored["sr"].ContentSequence
    assert made.CurrentRequestedProcedureEvidenceSequence == stored["sr"].CurrentRequestedProcedureEvidenceSequence
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber"):
        assert made[keyword].value != stored["sr"][keyword].value
    assert (made.PatientID, made.StudyInstanceUID, made.ContentDate) == (stored["sr"].PatientID, stored["sr"].StudyInstanceUID, stored["sr"].ContentDate)


def test_each_page_of_a_capture_becomes_a_picture_of_its_own_in_one_series(stored: dict[str, Dataset]) -> None:
    pages = stand_ins(stored["sc"], "single-frame", {}, None)
    whole = stored["sc"].pixel_array
    assert len(pages) == stored["sc"].NumberOfFrames == len(whole)
    for index, page in enumerate(pages):
        assert page.SOPClassUID == SecondaryCaptureImageStorage and "NumberOfFrames" not in page and page.InstanceNumber == index + 1
        assert np.array_equal(stored_as(page).pixel_array, whole[index])
        assert page.SourceImageSequence == stored["sc"].SourceImageSequence
        assert page.BurnedInAnnotation == "YES"
    assert len({page.SeriesInstanceUID for page in pages}) == 1 and len({page.SOPInstanceUID for page in pages}) == len(pages)
    assert [page.ImageComments for page in pages] == list(stored["sc"].FrameLabelVector)


@pytest.mark.parametrize(("kind", "instead"), FALLBACKS.items())
def test_a_stand_in_passes_the_gate_and_dciodvfy(stored: dict[str, Dataset], tmp_path: Path, kind: str, instead: str) -> None:
    for index, made in enumerate(stand_ins(stored[kind], instead, {}, None)):
        assert check(made, sources_as_stored(stored[kind])) == ()
        save(ResultObject(instead, made, 1), tmp_path / f"{index}.dcm")
        assert dciodvfy(tmp_path / f"{index}.dcm") == ((), ())


def test_making_it_again_gives_the_same_bytes(stored: dict[str, Dataset]) -> None:
    for kind, instead in FALLBACKS.items():
        once, again = (tuple(map(encode, stand_ins(stored[kind], instead, {}, "1.2.3"))) for _ in range(2))
        assert once == again


def test_a_report_points_at_what_stands_in_and_not_at_what_was_refused(stored: dict[str, Dataset], tmp_path: Path) -> None:
    pages = stand_ins(stored["sc"], "single-frame", {}, None)
    there = [Reference(str(page.StudyInstanceUID), str(page.SeriesInstanceUID), str(page.SOPClassUID), str(page.SOPInstanceUID)) for page in pages]
    refused, gone = str(stored["sc"].SOPInstanceUID), str(stored["pm"].SOPInstanceUID)
    assert refers_to(stored["sr"], [refused]) and refers_to(stored["sr"], [gone])
    for made in (redirected(stored["sr"], {refused: there, gone: ()}, None), *stand_ins(stored["sr"], "enhanced-sr", {refused: there, gone: ()}, None)):
        assert not pointed(made) & {refused, gone}
        assert pointed(stored["sr"]) - {refused, gone} < pointed(made) >= {one.sop_uid for one in there}
        assert check(made, sources_as_stored(stored["sr"]), [header_of(stored["sr"], one) for one in there]) == ()
        assert made.SOPInstanceUID != stored["sr"].SOPInstanceUID
        save(ResultObject("sr", made, 3), tmp_path / "made.dcm")
        assert dciodvfy(tmp_path / "made.dcm") == ((), ())


def test_a_region_whose_segmentation_was_refused_keeps_its_numbers_and_images() -> None:
    made = request(Shape(slices=4))
    both = {one.kind: stored_as(one.dataset) for one in build(replace(made, kinds=("seg", "sr")))}
    (redone,) = (redirected(both["sr"], {str(both["seg"].SOPInstanceUID): ()}, None),)
    assert str(both["seg"].SOPInstanceUID) not in pointed(redone)
    assert check(redone, sources_as_stored(both["sr"])) == ()
    groups = [item for item in redone.ContentSequence[-1].ContentSequence if "ContentTemplateSequence" in item]
    assert [group.ContentTemplateSequence[0].TemplateIdentifier for group in groups] == ["1501", "1501"]
    before = both["sr"].ContentSequence[-1].ContentSequence[-1]
    assert before.ContentTemplateSequence[0].TemplateIdentifier == "1411"
    assert [item.MeasuredValueSequence for item in groups[1].ContentSequence if item.ValueType == "NUM"] == [
        item.MeasuredValueSequence for item in before.ContentSequence if item.ValueType == "NUM"
    ]


def test_the_gate_sees_a_stand_in_of_another_patient(stored: dict[str, Dataset]) -> None:
    (made,) = stand_ins(stored["sr"], "enhanced-sr", {}, None)
    made.PatientID = "SOMEBODY ELSE"
    assert "the patient is not the source's" in check(made, sources_as_stored(stored["sr"]))


def test_a_kind_that_nothing_makes_is_refused(stored: dict[str, Dataset]) -> None:
    with pytest.raises(ResultRejected, match="nothing makes such a stand-in"):
        stand_ins(stored["sr"], "sculpture", {}, None)
