"""The journey of a study: in over the spool, out to a folder, without network and without a model."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from pacs_node.database import alerts, deliveries, jobs
from pacs_node.database.states import DeliveryState, JobState, StudyState
from pacs_node.database.tables import AsideRow, InstanceRow, StudyRow
from pacs_node.dicom.uids import node_device_uid
from pacs_node.errors import BundleError
from pacs_node.journey.operate import release, retry_job
from tests.journey.support import Town, ct_slice, ct_study


def study_of(town: Town) -> StudyRow:
    with town.house.store.read() as session:
        return session.scalars(select(StudyRow)).one()


def job_states(town: Town) -> list[tuple[JobState, int]]:
    with town.house.store.read() as session:
        return [(job.state, job.run) for job in reversed(jobs.list_jobs(session))]


def alert_kinds(town: Town) -> list[str]:
    with town.house.store.read() as session:
        return [alert.kind for alert in alerts.open_alerts(session)]


def test_a_study_comes_back_as_report_picture_map_and_representation(town: Town) -> None:
    town.send(ct_study())
    town.settle()
    assert sorted(result.SOPClassUID.name for result in town.results()) == [
        "Comprehensive 3D SR Storage",
        "Multi-frame True Color Secondary Capture Image Storage",
        "Parametric Map Storage",
        "Raw Data Storage",
    ]
    assert {str(result.StudyInstanceUID) for result in town.results()} == {str(ct_slice(0).StudyInstanceUID)}
    assert {str(result.PatientID) for result in town.results()} == {"P1"}
    assert job_states(town) == [(JobState.DONE, 1)]
    assert alert_kinds(town) == []


def test_nothing_is_done_before_the_quiet_time_is_over(town: Town) -> None:
    town.send(ct_study(3))
    town.gather()
    town.wait(seconds=6)
    town.send(ct_study(6)[3:])
    town.gather()
    town.wait(seconds=6)  # 12 s after the first, 6 s after the last
    town.gather()
    assert job_states(town) == []
    town.wait(seconds=11)
    town.gather()
    assert job_states(town) == [(JobState.QUEUED, 1)]


def test_the_reason_of_completeness_is_on_the_job(town: Town) -> None:
    town.send(ct_study())
    town.settle()
    with town.house.store.read() as session:
        assert "10 s" in jobs.list_jobs(session)[0].complete_reason


def test_a_study_that_never_falls_quiet_is_analysed_as_partial_at_the_deadline(make_town) -> None:
    town = make_town(assembly={"quiet": "10s", "deadline": "30s"})
    for index in range(8):
        town.send([ct_slice(index)])
        town.gather()
        town.wait(seconds=5)
    town.gather()
    with town.house.store.read() as session:
        job = jobs.list_jobs(session)[-1]
    assert job.partial
    assert "deadline" in job.complete_reason


def test_a_restart_forgets_no_timer_and_no_file(town: Town) -> None:
    town.send(ct_study())
    town.restart()
    town.gather()
    town.restart()
    town.wait(seconds=11)
    town.gather()
    town.restart()
    town.work()
    town.restart()
    town.post()
    assert len(town.results()) == 4


def test_a_study_sent_twice_is_analysed_once(town: Town) -> None:
    town.send(ct_study())
    town.settle()
    town.send(ct_study())
    town.settle()
    assert job_states(town) == [(JobState.DONE, 1)]
    assert len(town.results()) == 4
    assert not list((town.settings.node.data / "spool" / "new").rglob("*.dcm"))


def test_a_late_slice_makes_a_second_run_that_names_its_predecessor(town: Town) -> None:
    town.send(ct_study(6))
    town.settle()
    first = next(result for result in town.results() if result.Modality == "SR")
    town.send([ct_slice(6)])
    town.settle()
    assert job_states(town) == [(JobState.DONE, 1), (JobState.DONE, 2)]
    reports = [result for result in town.results() if result.Modality == "SR"]
    second = next(report for report in reports if report.SOPInstanceUID != first.SOPInstanceUID)
    named = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    assert named == first.SOPInstanceUID


def test_a_corrected_patient_identity_is_analysed_again_and_the_old_results_are_reported(town: Town) -> None:
    town.send(ct_study(patient="WRONG"))
    town.settle()
    town.send(ct_study(patient="RIGHT"))
    town.settle()
    assert study_of(town).patient_id == "RIGHT"
    assert job_states(town) == [(JobState.DONE, 1), (JobState.DONE, 2)]
    assert alert_kinds(town) == ["identity"]
    assert {str(result.PatientID) for result in town.results()} == {"WRONG", "RIGHT"}


def test_results_under_a_corrected_identity_never_leave_once_the_correction_is_known(town: Town) -> None:
    town.send(ct_study(patient="WRONG"))
    town.gather()
    town.wait(seconds=11)
    town.gather()
    town.work()  # built, not sent yet
    town.send(ct_study(patient="RIGHT"))
    town.settle()
    assert {str(result.PatientID) for result in town.results()} == {"RIGHT"}
    assert alert_kinds(town) == []


def test_a_half_corrected_study_is_held_and_freed_by_the_rest(town: Town) -> None:
    town.send(ct_study(patient="WRONG"))
    town.gather()
    town.send(ct_study(patient="RIGHT")[:3])
    town.settle()
    assert study_of(town).state is StudyState.HELD
    assert alert_kinds(town) == ["held"]
    town.send(ct_study(patient="RIGHT")[3:])
    town.settle()
    assert alert_kinds(town) == []
    assert {str(result.PatientID) for result in town.results()} == {"RIGHT"}


def test_two_patients_under_one_study_uid_are_held_until_released(town: Town) -> None:
    town.send([*ct_study(3, patient="P1"), *ct_study(6, patient="P2")[3:]])
    town.settle()
    study = study_of(town)
    assert (study.state, alert_kinds(town), town.results()) == (StudyState.HELD, ["held"], [])
    release(town.house.store, study.id, town.clock)
    town.settle()
    assert alert_kinds(town) == ["representation"]  # images of two patients are never packed into one object
    assert len(town.results()) == 3


def test_another_patient_in_a_running_study_stops_what_has_not_been_sent(town: Town) -> None:
    town.send(ct_study(6))
    town.gather()
    town.wait(seconds=11)
    town.gather()
    town.work()
    town.send([ct_slice(0, study="A", patient="P2", series=2)])
    town.gather()
    town.post()
    assert town.results() == []


def test_the_same_uid_with_other_pixels_is_kept_aside_and_said(town: Town) -> None:
    town.send(ct_study())
    town.settle()
    changed = ct_slice(2, PixelData=bytes(16 * 16 * 2))
    town.send([changed])
    town.settle()
    with town.house.store.read() as session:
        aside = session.scalars(select(AsideRow)).one()
    assert aside.kind == "conflict"
    assert (town.settings.node.data / aside.path).is_file()
    assert alert_kinds(town) == ["conflict"]
    assert job_states(town) == [(JobState.DONE, 1)]


def test_our_own_results_that_come_back_are_indexed_and_never_routed(town: Town) -> None:
    town.send(ct_study())
    town.settle()
    own = [result for result in town.results() if result.Modality == "SR"]
    assert any(item.DeviceUID == node_device_uid("test") for item in own[0].ContributingEquipmentSequence)
    town.send(own)
    town.settle()
    assert job_states(town) == [(JobState.DONE, 1)]
    with town.house.store.read() as session:
        assert [row.own for row in session.scalars(select(InstanceRow).where(InstanceRow.own))] == [True]


def test_a_study_without_pixels_gets_a_notice_with_the_reason(town: Town) -> None:
    town.send(ct_study(ImagePositionPatient=None))
    town.settle()
    notice = town.results()
    assert [str(item.SOPClassUID) for item in notice] == ["1.2.840.10008.5.1.4.1.1.88.22"]
    assert "no pixels" in notice[0].to_json()
    assert job_states(town) == [(JobState.NOT_ANALYSED, 1)]


def test_a_study_that_no_rule_wants_is_listed_as_such(town: Town) -> None:
    town.send(ct_study(Modality="DX"))
    town.settle()
    assert study_of(town).outcome == "no pipeline (rule 'anything else')"
    assert job_states(town) == []


def test_a_crash_is_tried_again_and_then_parked_with_a_notice(town: Town) -> None:
    def crash(name: str) -> None:
        raise ValueError("the model fell over")

    town.engine.script = crash
    town.send(ct_study())
    town.settle()
    assert job_states(town) == [(JobState.QUEUED, 1)]
    for _ in range(3):
        with town.house.store.write() as session:
            jobs.list_jobs(session)[0].not_before = town.clock
        town.work()
    assert job_states(town) == [(JobState.PARKED, 1)]
    assert alert_kinds(town) == ["parked"]
    town.post()
    assert [str(item.SOPClassUID) for item in town.results()] == ["1.2.840.10008.5.1.4.1.1.88.22"]


def test_a_parked_job_runs_again_as_a_new_run(town: Town) -> None:
    def damaged(name: str) -> None:
        raise BundleError(name, "weights.safetensors is damaged: install it again")

    town.engine.script = damaged
    town.send(ct_study())
    town.settle()
    assert job_states(town) == [(JobState.PARKED, 1)]
    town.engine.script = lambda name: None
    retry_job(town.house.store, 1, town.clock)
    town.work()
    town.post()
    assert job_states(town) == [(JobState.DONE, 2)]
    assert alert_kinds(town) == []
    assert len(town.results()) == 5  # the notice, and the results that replace it


def test_a_job_cancelled_while_it_runs_commits_nothing(town: Town) -> None:
    def cancel(name: str) -> None:
        with town.house.store.write() as session:
            jobs.cancel_unfinished(session, 1, town.clock, "test")

    town.engine.script = cancel
    town.send(ct_study())
    town.settle()
    assert job_states(town) == [(JobState.CANCELLED, 1)]
    assert town.results() == []


def test_every_object_goes_out_once_and_is_marked_delivered(town: Town) -> None:
    town.send(ct_study())
    town.settle()
    town.post()
    with town.house.store.read() as session:
        rows = deliveries.list_deliveries(session)
    assert [row.state for row in rows] == [DeliveryState.DELIVERED] * 4
    assert [row.attempts for row in rows] == [1, 1, 1, 1]


@pytest.mark.parametrize("step", ["after commit", "before commit"])
def test_a_crash_around_the_commit_of_arrivals_loses_and_repeats_nothing(town: Town, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from pacs_node.journey import index as module

    class Killed(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    town.send(ct_study())
    with monkeypatch.context() as patch:
        patch.setattr(module if step == "after commit" else module.studies, "_carry_out" if step == "after commit" else "add_instance", die)
        with pytest.raises(Killed):
            town.gather()
    town.restart()
    town.settle()
    assert len(town.results()) == 4
    with town.house.store.read() as session:
        assert len(session.scalars(select(InstanceRow)).all()) == 6
