"""Results of MR, PET, ultrasound and enhanced objects: what is said, pointed at and drawn."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import JPEG2000, EnhancedCTImageStorage, EnhancedMRImageStorage, ExplicitVRLittleEndian, JPEGBaseline8Bit, UltrasoundImageStorage

from pacs_node.analysis.modalities import READERS
from pacs_node.records import Sources
from pacs_node.results import build, check_all, drawing, panels
from pacs_node.results.files import encode
from pacs_node.results.modalities import MANNERS
from pacs_node.results.references import frame_numbers
from tests.results.modalities import CASES, enhanced, pet, ultrasound
from tests.results.studies import Shape, request


def built(made, *kinds):
    return {result.kind: result.dataset for result in build(replace(made, kinds=kinds or made.kinds))}


def items(dataset):
    """Yield all content items of a report."""
    for item in dataset.get("ContentSequence") or ():
        yield item
        yield from items(item)


def pointed(report, sop_uid):
    """Return the frame numbers of all items that point at an object; None for the whole object."""
    references = [item.ReferencedSOPSequence[0] for item in items(report) if "ReferencedSOPSequence" in item]
    values = [reference.get("ReferencedFrameNumber") for reference in references if sop_uid == reference.ReferencedSOPInstanceUID]
    return [value if value is None else [int(value)] if isinstance(value, int | str) else [int(one) for one in value] for value in values]


@pytest.mark.parametrize("name", CASES)
def test_our_own_gate_finds_nothing(name):
    made = CASES[name]()
    results = build(made)
    assert check_all(results, made.sources) == ()
    assert [result.kind for result in results] == (["sc", "sr"] if "ultrasound" in name else ["pm", "seg", "sc", "sr"])


def test_every_modality_that_can_be_read_has_a_row():
    assert set(MANNERS) == set(READERS)


# --- enhanced objects --------------------------------------------------------------------------------------------------


def test_where_all_frames_were_analysed_the_object_is_pointed_at_as_a_whole():
    made = enhanced("MR", EnhancedMRImageStorage)
    objects = built(made)
    uid = made.header.SOPInstanceUID
    assert pointed(objects["sr"], uid) == [None, [1], [2], [3], None, [1]]  # library, three slices, measurement group, region
    sources = [frame.DerivationImageSequence[0].SourceImageSequence[0] for frame in objects["pm"].PerFrameFunctionalGroupsSequence]
    assert [source.ReferencedFrameNumber for source in sources] == [4, 3, 2, 1]
    assert all("ReferencedFrameNumber" not in objects[kind].SourceImageSequence[0] for kind in ("pm", "sc"))


def test_where_some_frames_were_analysed_they_are_named_everywhere():
    made = enhanced("MR", EnhancedMRImageStorage, echoes=2)
    objects = built(made)
    uid = made.header.SOPInstanceUID
    assert pointed(objects["sr"], uid) == [[1, 3, 5, 7], [1], [3], [5], [1, 3, 5, 7], [1]]
    for kind in ("pm", "sc"):
        assert list(objects[kind].SourceImageSequence[0].ReferencedFrameNumber) == [1, 3, 5, 7]


def test_an_object_is_listed_once_as_evidence_however_many_frames_it_has():
    made = enhanced("CT", EnhancedCTImageStorage, objects=2)
    evidence = built(made, "sr")["sr"].CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert [item.ReferencedSOPInstanceUID for item in evidence] == [header.SOPInstanceUID for header in made.sources.analysed]


def test_frames_of_a_class_that_has_one_frame_are_not_numbered():
    made = ultrasound((2,))
    frames = [replace(frame, sop_class_uid=UltrasoundImageStorage) for frame in made.finding.volume.frames[:1]]
    assert frame_numbers(made.sources.analysed, frames) == {}
    assert list(frame_numbers(made.sources.analysed, made.finding.volume.frames[:1]).values()) == [[1]]


def test_a_map_whose_frames_do_not_lie_on_those_of_the_enhanced_object_is_stopped():
    made = enhanced("MR", EnhancedMRImageStorage)
    results = build(made)
    frames = results[0].dataset.PerFrameFunctionalGroupsSequence
    frames[1].DerivationImageSequence, frames[2].DerivationImageSequence = frames[2].DerivationImageSequence, frames[1].DerivationImageSequence
    assert [fault for fault in check_all(results, made.sources) if "plane of its source" in fault] == [
        f"pm: frame {number} does not lie in the plane of its source slice" for number in (2, 3)
    ]


def test_a_reference_to_a_frame_that_is_not_there_is_stopped():
    made = enhanced("MR", EnhancedMRImageStorage)
    results = build(made)
    results[0].dataset.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber = 9
    assert f"pm: there is no frame 9 in {made.header.SOPInstanceUID}" in check_all(results, made.sources)


def test_the_region_of_an_enhanced_object_is_taken_from_its_functional_groups():
    objects = built(enhanced("MR", EnhancedMRImageStorage))
    sites = [item for item in items(objects["sr"]) if item.ConceptNameCodeSequence[0].CodeMeaning == "Finding Site"]
    assert [site.ConceptCodeSequence[0].CodeMeaning for site in sites] == ["Brain"] * 2  # of the series and of its region
    assert objects["pm"].SharedFunctionalGroupsSequence[0].FrameAnatomySequence[0].AnatomicRegionSequence[0].CodeValue == "12738006"
    assert objects["sc"].BodyPartExamined == "BRAIN" and "Laterality" not in objects["sc"]


@pytest.mark.parametrize(
    ("attributes", "side"),
    [
        ({"BodyPartExamined": "HEAD"}, "U"),
        ({"BodyPartExamined": "BREAST"}, "B"),
        ({"BodyPartExamined": "BREAST", "Laterality": "R"}, "R"),
        ({"BodyPartExamined": "KNEE"}, "U"),
    ],
)
def test_a_map_says_the_side_of_a_paired_body_part(attributes, side):
    result = built(request(Shape(slices=2, attributes=attributes)), "pm")["pm"]
    assert result.SharedFunctionalGroupsSequence[0].FrameAnatomySequence[0].FrameLaterality == side


# --- ultrasound --------------------------------------------------------------------------------------------------------


def test_ultrasound_gets_no_map_no_letters_no_positions_and_no_spacing():
    made = ultrasound((None, 3))
    objects = built(made)
    spatial = {"PixelSpacing", "ImagePositionPatient", "FrameOfReferenceUID", "SequenceOfUltrasoundRegions", "SliceThickness"}
    assert not spatial & {element.keyword for dataset in objects.values() for element in dataset.iterall()}
    assert not any(" mm" in str(element.value) for element in objects["sr"].iterall() if element.VR == "UT")
    page = dcmread(BytesIO(encode(objects["sc"]))).pixel_array[1]
    for top in (drawing.PANEL_TOP, drawing.LOWER_TOP):
        small = page[top : top + drawing.ASIDE, drawing.RIGHT : drawing.RIGHT + drawing.ASIDE].astype(int)
        assert (small.max(axis=-1) == small.min(axis=-1)).all()  # grey: the letters would be amber


def test_three_dimensional_ultrasound_whose_axes_are_its_own_gets_no_letters_and_no_map():
    made = pet()
    made = replace(made, finding=replace(made.finding, volume=replace(made.finding.volume, modality="US")))
    assert [result.kind for result in build(made)] == ["seg", "sc", "sr"]
    assert "FrameOfReferenceUID" not in built(made, "seg")["seg"]
    page = built(made, "sc")["sc"].pixel_array[1]
    for top in (drawing.PANEL_TOP, drawing.LOWER_TOP):
        small = page[top : top + drawing.ASIDE, drawing.RIGHT : drawing.RIGHT + drawing.ASIDE].astype(int)
        assert (small.max(axis=-1) == small.min(axis=-1)).all()


def test_the_pages_of_ultrasound_are_labelled_by_image_and_frame():
    result = built(ultrasound((None, 3, None)), "sc")["sc"]
    assert set(result.FrameLabelVector) == {"summary", "3 frame 3", "image 5", "3 frame 2"}


def test_the_score_of_a_picture_has_a_name_of_its_own():
    meanings = [item.ConceptNameCodeSequence[0].CodeMeaning for item in items(built(ultrasound())["sr"])]
    assert meanings.count("Anomaly score of an image") == 3 and "Anomaly score of a slice" not in meanings


def test_the_report_names_ultrasound_as_procedure_modality_and_breast_as_site():
    coded = [item for item in items(built(ultrasound())["sr"]) if "ConceptCodeSequence" in item]
    said = {item.ConceptNameCodeSequence[0].CodeMeaning: item.ConceptCodeSequence[0].CodeValue for item in coded}
    assert (said["Procedure reported"], said["Modality"], said["Finding Site"]) == ("25061-3", "US", "76752008")


def test_heat_without_planes_is_drawn_where_the_grid_lies_on_the_picture():
    made = ultrasound((None,))
    found = made.finding  # heat at (12, 20) of a grid that begins at (10, 30) and steps by 2 pixels; the panel shows 0.25 pixels a pixel
    drawn = np.argwhere(panels.heat(found, 0) >= panels.SCALES[True].shown_from)
    expected = np.array([10 + 2 * 12 - 47.5, 30 + 2 * 20 - 63.5]) * 4 + 255.5
    assert np.allclose(drawn.mean(axis=0), expected, atol=0.6)


def test_pictures_are_cut_to_what_was_judged_and_heat_moves_along():
    made = ultrasound((None,))
    pixels = np.full_like(made.finding.volume.pixels, np.nan)
    pixels[0, 20:52, 50:82] = 200.0  # 32 × 32 pixels fill the panel: 16 panel pixels each
    found = replace(made.finding, volume=replace(made.finding.volume, pixels=pixels))
    assert panels.anatomy(found, 0)[8:-8, 8:-8].min() > 190
    drawn = np.argwhere(panels.heat(found, 0) >= panels.SCALES[True].shown_from)
    assert np.allclose(drawn.mean(axis=0), np.array([34 - 20 + 0.5, 70 - 50 + 0.5]) * 16 - 0.5, atol=1)


def test_a_picture_with_nothing_judged_is_drawn_black():
    made = ultrasound((None,))
    found = replace(made.finding, volume=replace(made.finding.volume, pixels=made.finding.volume.pixels * np.nan))
    assert panels.anatomy(found, 0).max() == 0


def test_pictures_of_unequal_spacing_keep_their_proportions_without_a_plane():
    made = ultrasound((None,))
    frames = tuple(replace(frame, spacing=(0.4, 0.2)) for frame in made.finding.volume.frames)
    view = panels.slice_view(replace(made.finding, volume=replace(made.finding.volume, frames=frames)), 0)
    assert view.source[0][1, 1] == pytest.approx(2 * view.source[0][0, 0])


# --- PET and MR --------------------------------------------------------------------------------------------------------


def test_uptake_is_dark():
    found = pet().finding
    picture = panels.anatomy(found, 0)
    assert picture[5, 5] == 255 and picture[256, 256] < 30
    assert panels.reconstruction(found, 0)[256, 256] == pytest.approx(255 - 1 / 5 * 255, abs=1)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("PET", "Window W 5 L 2.5 SUV by body weight, dark is high."),
        ("enhanced MR", "Window W 100 L 50 relative units."),
        ("ultrasound loop", "Window W 256 L 128 grey levels."),
        ("enhanced CT", "Window brain, W 80 L 40."),
    ],
)
def test_the_window_is_told_with_its_unit(name, words):
    assert drawing.window_line(CASES[name]().finding, 0) == words


# --- several pipelines of one study ------------------------------------------------------------------------------------

SHARED = (
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "StudyDescription", "ReferringPhysicianName",
)  # fmt: skip


def ct_and_pet():
    ct, pt = request(), pet()
    return [
        replace(made, sources=Sources(made.sources.analysed, other.sources.analysed)) for made, other in ((ct, pt), (pt, ct))
    ]  # each sees the other's series as company


def test_ct_and_pet_of_one_study_get_results_of_their_own_with_one_patient_and_study():
    ct, pt = (built(made) for made in ct_and_pet())
    objects = [*ct.values(), *pt.values()]
    assert set(ct) == {"sr", "sc", "pm"} and set(pt) == {"sr", "sc", "pm", "seg"}
    assert {len({str(dataset.get(keyword)) for dataset in objects}) for keyword in SHARED} == {1}
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        assert len({dataset[keyword].value for dataset in objects}) == len(objects)
    assert (ct["pm"].Modality, pt["pm"].Modality) == ("CT", "PT")
    assert not {dataset.SeriesDescription for dataset in ct.values()} & {dataset.SeriesDescription for dataset in pt.values()}


def test_results_of_one_pipeline_never_point_at_what_another_analysed():
    for made, other in zip(ct_and_pet(), ct_and_pet()[::-1], strict=True):
        report = built(made, "sr")["sr"]
        analysed = {str(header.SOPInstanceUID) for header in other.sources.analysed}
        assert not any(pointed(report, uid) for uid in analysed)
        others = report.PertinentOtherEvidenceSequence[0].ReferencedSeriesSequence
        assert analysed == {item.ReferencedSOPInstanceUID for series in others for item in series.ReferencedSOPSequence}


# --- encoding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "syntax", "expected"),
    [
        (None, JPEGBaseline8Bit, ("01", "ISO_10918_1")),
        ("", JPEGBaseline8Bit, ("01", "ISO_10918_1")),
        (None, JPEG2000, ("00", None)),  # may be without loss
        ("00", JPEGBaseline8Bit, ("00", None)),
        ("01", ExplicitVRLittleEndian, ("01", None)),
        (None, None, ("00", None)),
    ],
)
def test_pictures_that_came_with_loss_are_known_by_their_encoding_where_they_do_not_say_so(said, syntax, expected):
    made = ultrasound((None,))
    header = made.header
    if said is not None:
        header.LossyImageCompression = said
    if syntax is not None:
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = syntax
    result = built(made, "sc")["sc"]
    assert (result.LossyImageCompression, result.get("LossyImageCompressionMethod")) == expected
