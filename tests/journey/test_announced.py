"""Performed procedure steps (MPPS) and availability notifications: a study is complete when what they list is here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from io import BytesIO

import pytest
from pydicom.dataset import Dataset
from pydicom.filebase import DicomFileLike
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian

from pacs_node import crash
from pacs_node.database import jobs
from pacs_node.database.states import StudyState
from pacs_node.journey import operate
from pacs_node.journey.reconcile import catch_up
from pacs_node.reception.conversation import NoteRequest
from pacs_node.records import Sender
from pacs_node.workbench import tables
from tests.journey.support import RULES, Town, ct_slice, ct_study
from tests.journey.test_adversity import alert_kinds

MPPS, IAN = "1.2.840.10008.3.1.2.3.3", "1.2.840.10008.5.1.4.33"
Make = Callable[..., Town]


@pytest.fixture
def town(make_town: Make) -> Town:
    return make_town(reception={"mpps": True, "availability": True})


def item(**values: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def referenced(instances: Iterable[Dataset], **more: object) -> list[Dataset]:
    return [item(ReferencedSOPClassUID=one.SOPClassUID, ReferencedSOPInstanceUID=one.SOPInstanceUID, **more) for one in instances]


def step(status: str, study: str = "", images: Iterable[Dataset] | None = None) -> Dataset:
    dataset = item(PerformedProcedureStepStatus=status)
    if study:
        dataset.ScheduledStepAttributesSequence = [item(StudyInstanceUID=study)]
    if images is not None:
        dataset.PerformedSeriesSequence = [item(SeriesInstanceUID="1.2.3", ReferencedImageSequence=referenced(images))]
    return dataset


def available(images: list[Dataset], availability: str = "ONLINE", study: str = "") -> Dataset:
    series = item(SeriesInstanceUID="1.2.3", ReferencedSOPSequence=referenced(images, InstanceAvailability=availability))
    return item(StudyInstanceUID=study or images[0].StudyInstanceUID, ReferencedSeriesSequence=[series])


def say(town: Town, service: str, operation: str, dataset: Dataset, uid: str = "1.2.9") -> None:
    """Put a request into the spool, as a receiver would."""
    buffer = BytesIO()
    file = DicomFileLike(buffer)
    file.is_little_endian, file.is_implicit_VR = True, False
    write_dataset(file, dataset)
    sop_class = MPPS if service == "mpps" else IAN
    request = NoteRequest(operation, sop_class, uid, None, ExplicitVRLittleEndian, buffer.getvalue())
    town.house.spool.note(Sender("CT1", "PACS_NODE", "127.0.0.1:4242", "mpps1"), service, request)


def reasons(town: Town) -> list[tuple[str, bool]]:
    with town.house.store.read() as session:
        return [(job.complete_reason, job.partial) for job in reversed(jobs.list_jobs(session))]


def waits_for(town: Town) -> str:
    with town.house.store.read() as session:
        (row,) = tables.study_rows(session, 10)
        return str(row["waiting_for"])


def pass_time(town: Town, **span: float) -> None:
    town.gather()
    town.wait(**span)
    town.gather()


# --- performed procedure steps ---------------------------------------------------------------------------------------------


def test_a_study_is_complete_as_soon_as_all_is_here_that_its_completed_step_lists(town: Town) -> None:
    images = ct_study()
    say(town, "mpps", "n-create", step("IN PROGRESS", images[0].StudyInstanceUID))
    town.send(images[:4])
    say(town, "mpps", "n-set", step("COMPLETED", images=images))
    pass_time(town, seconds=60)
    assert reasons(town) == [] and "2 of the 6 instances that its MPPS lists" in waits_for(town)
    town.send(images[4:])
    town.gather()  # no quiet time is waited for
    assert reasons(town) == [("MPPS completed, and all 6 instances listed are here", False)]


def test_the_step_may_be_completed_after_all_has_come(town: Town) -> None:
    images = ct_study()
    town.send(images)
    say(town, "mpps", "n-create", step("IN PROGRESS", images[0].StudyInstanceUID))
    pass_time(town, minutes=5)
    assert reasons(town) == [] and "MPPS in progress" in waits_for(town)
    say(town, "mpps", "n-set", step("COMPLETED", images=images))
    town.gather()
    assert reasons(town) == [("MPPS completed, and all 6 instances listed are here", False)]


def test_a_step_that_never_ends_is_ended_by_the_deadline(town: Town) -> None:
    images = ct_study()
    say(town, "mpps", "n-create", step("IN PROGRESS", images[0].StudyInstanceUID))
    town.send(images)
    pass_time(town, minutes=59)
    assert reasons(town) == []
    pass_time(town, minutes=2)
    ((reason, partial),) = reasons(town)
    assert partial and "MPPS in progress" in reason


def test_a_discontinued_step_leaves_it_to_quiet_time_and_is_said(town: Town) -> None:
    images = ct_study()
    say(town, "mpps", "n-create", step("IN PROGRESS", images[0].StudyInstanceUID))
    town.send(images[:4])
    say(town, "mpps", "n-set", step("DISCONTINUED", images=images))
    pass_time(town, seconds=11)
    assert reasons(town) == [("no instance came for 10 s; its performed procedure step was discontinued (MPPS)", False)]


def test_a_discontinued_step_whose_images_are_all_here_is_no_reason_to_wait(town: Town) -> None:
    images = ct_study(4)
    say(town, "mpps", "n-create", step("IN PROGRESS", images[0].StudyInstanceUID))
    town.send(images)
    say(town, "mpps", "n-set", step("DISCONTINUED", images=images))
    town.gather()
    assert reasons(town) == [("MPPS discontinued, and all 4 instances listed are here", False)]


def test_two_steps_of_one_study_have_both_to_end(town: Town) -> None:
    first, second = ct_study(3), ct_study(3, series=2)
    for uid in ("1.2.1", "1.2.2"):
        say(town, "mpps", "n-create", step("IN PROGRESS", first[0].StudyInstanceUID), uid)
    town.send(first)
    say(town, "mpps", "n-set", step("COMPLETED", images=first), "1.2.1")
    pass_time(town, seconds=60)
    assert reasons(town) == []
    town.send(second)
    say(town, "mpps", "n-set", step("COMPLETED", images=second), "1.2.2")
    town.gather()
    assert [reason for reason, _ in reasons(town)] == ["MPPS completed, and all 6 instances listed are here"]


def test_a_step_of_two_studies_waits_in_each_for_its_own_images(town: Town) -> None:
    one, other = ct_study(3, study="A"), ct_study(3, study="B", patient="P1")
    both = step("IN PROGRESS", one[0].StudyInstanceUID)
    both.ScheduledStepAttributesSequence.append(item(StudyInstanceUID=other[0].StudyInstanceUID))
    say(town, "mpps", "n-create", both)
    say(town, "mpps", "n-set", step("COMPLETED", images=[*one, *other]))
    town.send(one)
    pass_time(town, seconds=60)
    assert reasons(town) == []  # nothing says to which of them the missing ones belong
    town.send(other)
    town.gather()
    assert [reason for reason, _ in reasons(town)] == ["MPPS completed, and all 6 instances listed are here"] * 2


@pytest.mark.parametrize("again", ["create", "set"])
def test_a_step_heard_twice_changes_nothing(town: Town, again: str) -> None:
    images = ct_study()
    uid = images[0].StudyInstanceUID
    messages = {"create": ("n-create", step("IN PROGRESS", uid)), "set": ("n-set", step("COMPLETED", images=images))}
    for operation, dataset in (*messages.values(), messages[again]):
        say(town, "mpps", operation, dataset)
    town.send(images)
    town.gather()
    assert [reason for reason, _ in reasons(town)] == ["MPPS completed, and all 6 instances listed are here"]
    assert alert_kinds(town) == []


def test_what_was_said_survives_a_restart_and_a_crash_between_hearing_and_forgetting(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    images = ct_study()
    say(town, "mpps", "n-create", step("IN PROGRESS", images[0].StudyInstanceUID))
    say(town, "mpps", "n-set", step("COMPLETED", images=images))
    town.send(images[:5])

    def die(name: str) -> None:
        if name == "noted":
            raise KeyboardInterrupt

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(crash, "passed", die)
            with pytest.raises(KeyboardInterrupt):
                town.gather()
        town.restart()
    pass_time(town, seconds=60)
    assert reasons(town) == [] and "1 of the 6 instances" in waits_for(town)
    town.send(images[5:])
    town.gather()
    assert len(reasons(town)) == 1


def test_a_rule_may_leave_announcements_out_of_account(make_town: Make) -> None:
    town = make_town(rules=RULES.replace("pipeline: ct-test", "pipeline: ct-test\n    complete: {announced: false}"), reception={"mpps": True})
    images = ct_study()
    say(town, "mpps", "n-create", step("IN PROGRESS", images[0].StudyInstanceUID))
    town.send(images)
    pass_time(town, seconds=11)
    assert reasons(town) == [("no instance came for 10 s", False)]


def test_where_a_service_was_turned_off_what_it_said_before_holds_nothing_up(town: Town) -> None:
    images = ct_study()
    say(town, "mpps", "n-create", step("IN PROGRESS", images[0].StudyInstanceUID))
    town.send(images)
    town.gather()
    town.settings = town.settings.model_copy(update={"reception": town.settings.reception.model_copy(update={"mpps": False})})
    town.restart()
    town.wait(seconds=11)
    catch_up(town.house)  # at the start of the core
    town.gather()
    assert reasons(town) == [("no instance came for 10 s", False)]


def test_a_late_instance_that_no_step_lists_is_looked_at_like_any_other(town: Town) -> None:
    images = ct_study(7)
    say(town, "mpps", "n-create", step("IN PROGRESS", images[0].StudyInstanceUID))
    say(town, "mpps", "n-set", step("COMPLETED", images=images[:6]))
    town.send(images[:6])
    town.gather()
    town.work()
    town.send(images[6:])
    town.gather()
    town.work()
    with town.house.store.read() as session:
        assert [job.run for job in jobs.jobs_of(session, 1)] == [1, 2]


def test_a_study_held_for_two_patients_is_not_freed_by_its_step(town: Town) -> None:
    images = [*ct_study(3), *(ct_slice(index, patient="P2") for index in range(3, 6))]
    say(town, "mpps", "n-create", step("IN PROGRESS", images[0].StudyInstanceUID))
    town.send(images)
    say(town, "mpps", "n-set", step("COMPLETED", images=images))
    pass_time(town, seconds=11)
    assert reasons(town) == [] and alert_kinds(town) == ["held"]
    operate.release(town.house.store, 1, town.clock)
    town.gather()
    assert [reason for reason, _ in reasons(town)] == ["MPPS completed, and all 6 instances listed are here"]


def test_a_status_that_the_standard_does_not_know_is_kept_aside(town: Town) -> None:
    say(town, "mpps", "n-create", step("ALMOST", "1.2.3"))
    town.gather()
    assert alert_kinds(town) == ["quarantine"]


# --- availability ----------------------------------------------------------------------------------------------------------


def test_a_study_is_complete_when_all_is_here_that_was_said_to_be_available(town: Town) -> None:
    images = ct_study()
    say(town, "availability", "n-create", available(images))
    town.send(images[:5])
    pass_time(town, seconds=60)
    assert reasons(town) == [] and "1 of the 6 instances that its availability notification lists" in waits_for(town)
    town.send(images[5:])
    town.gather()
    assert reasons(town) == [("availability notification, and all 6 instances listed are here", False)]


def test_an_instance_said_to_be_unavailable_is_not_waited_for(town: Town) -> None:
    images = ct_study()
    say(town, "availability", "n-create", available(images[:5]), "1.2.1")
    say(town, "availability", "n-create", available(images[5:], "UNAVAILABLE"), "1.2.2")
    town.send(images[:5])
    town.gather()
    assert reasons(town) == [("availability notification, and all 5 instances listed are here", False)]


def test_a_notification_of_our_own_results_opens_nothing_and_holds_nothing_up(town: Town) -> None:
    images = ct_study()
    town.send(images)
    town.settle()
    say(town, "availability", "n-create", available(town.results(), study=images[0].StudyInstanceUID))
    pass_time(town, seconds=60)
    with town.house.store.read() as session:
        assert [row["state"] for row in tables.study_rows(session, 10)] == [StudyState.COMPLETE]
    town.send(ct_study(7)[6:])
    pass_time(town, seconds=11)
    assert len(reasons(town)) == 2
