"""The notice: why there is no result."""

from dataclasses import replace

import pytest
from pydicom.uid import EnhancedSRStorage

from pacs_node.dicom.uids import node_device_uid
from pacs_node.errors import ResultRejected
from pacs_node.records import Notice, NoticeStatus, Sources
from pacs_node.results import build, check
from tests.results.studies import RUN, Shape, request
from tests.results.test_report import items

REASON = "the series has 3 slices, the bundle ct-head needs 12"


def notice_of(made):
    (result,) = build(made)
    return result.dataset


@pytest.fixture
def made():
    return request(Shape(slices=3), kinds=("notice",), notice=Notice(NoticeStatus.NOT_ATTEMPTED, REASON))


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (NoticeStatus.NOT_ATTEMPTED, "111225", "Not analysed: analysis not attempted. "),
        (NoticeStatus.FAILED, "111224", "Not analysed: analysis failed. "),
        (NoticeStatus.PARTIALLY_SUCCEEDED, "111223", "Analysed in part: analysis partially succeeded. "),
    ],
)
def test_the_status_is_coded_and_told_with_the_reason(made, status, code, words):
    result = notice_of(replace(made, notice=Notice(status, REASON)))
    assert result.SOPClassUID == EnhancedSRStorage
    assert items(result, "111065")[0].ConceptCodeSequence[0].CodeValue == code
    assert items(result, "121111")[0].TextValue.startswith(words + REASON)
    assert items(result, "121106")[0].TextValue == REASON


def test_it_points_at_the_images_that_were_meant(made):
    result = notice_of(made)
    pointed = [series.SeriesInstanceUID for series in result.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence]
    assert pointed == [made.header.SeriesInstanceUID]
    assert len(items(result, "260753009")) == 3
    assert check(result, made.sources) == ()


def test_without_an_algorithm_this_node_is_the_observer(made):
    result = notice_of(made)
    assert node_device_uid("node-1") == items(result, "121012")[0].UID
    assert [item.DeviceUID for item in result.ContributingEquipmentSequence] == [node_device_uid("node-1")]


def test_a_study_of_which_nothing_was_chosen_is_told_too(made):
    result = notice_of(replace(made, sources=Sources((), made.sources.analysed)))
    assert len(items(result, "260753009")) == 3
    assert check(result, made.sources) == ()


def test_objects_without_pixels_are_listed_but_not_shown_as_images(made):
    report = made.sources.analysed[0]
    for keyword in ("Rows", "Columns", "BitsAllocated"):
        del report[keyword]
    result = notice_of(replace(made, sources=Sources((), (report,))))
    assert items(result, "260753009") == []
    assert "CurrentRequestedProcedureEvidenceSequence" not in result
    assert result.PertinentOtherEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == report.SOPInstanceUID


def test_a_partial_study_gives_a_partial_notice(made):
    result = notice_of(replace(made, run=replace(RUN, partial=True, complete_reason="deadline of 2 h")))
    assert result.CompletionFlag == "PARTIAL"


@pytest.mark.parametrize("notice", [None, Notice(NoticeStatus.FAILED, " ")])
def test_without_a_reason_there_is_no_notice(made, notice):
    with pytest.raises(ResultRejected, match="a status and a reason are needed"):
        build(replace(made, notice=notice))
