"""What performed procedure steps and availability notifications say, as far as completeness asks."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from pacs_node.assembly.announcements import read_availability, read_step
from pacs_node.errors import UnreadableObject
from pacs_node.records import Announcement
from tests.journey.test_announced import item


def test_a_step_names_images_and_other_objects_of_all_its_series() -> None:
    dataset = item(
        PerformedProcedureStepStatus="COMPLETED",
        ScheduledStepAttributesSequence=[item(StudyInstanceUID="1.1"), item(StudyInstanceUID="1.2"), item(StudyInstanceUID="1.1")],
        PerformedSeriesSequence=[
            item(ReferencedImageSequence=[item(ReferencedSOPInstanceUID="2.1"), item(ReferencedSOPInstanceUID="2.2")]),
            item(ReferencedNonImageCompositeSOPInstanceSequence=[item(ReferencedSOPInstanceUID="2.3")], ReferencedImageSequence=[]),
        ],
    )
    assert read_step(dataset) == Announcement(("1.1", "1.2"), "completed", frozenset({"2.1", "2.2", "2.3"}))


def test_a_message_says_no_more_than_it_holds() -> None:
    assert read_step(Dataset()) == Announcement((), "", None)
    assert read_step(item(PerformedSeriesSequence=[])) == Announcement((), "", frozenset())


@pytest.mark.parametrize("status", ["ALMOST", "completed!", "COMPLETED\\IN PROGRESS"])
def test_an_unknown_status_is_no_step(status: str) -> None:
    with pytest.raises(UnreadableObject, match="none of IN PROGRESS"):
        read_step(item(PerformedProcedureStepStatus=status))


def test_a_notification_without_a_study_says_nothing() -> None:
    with pytest.raises(UnreadableObject, match="names no study"):
        read_availability(Dataset())
