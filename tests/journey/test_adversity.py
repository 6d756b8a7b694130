"""What may go wrong on the way: odd objects, corrections at the worst moment, clocks, vanished files. Nothing is lost, nothing stands still."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from sqlalchemy import select
from sqlalchemy.orm import Session

from pacs_node import crash
from pacs_node.database import alerts, deliveries, jobs
from pacs_node.database.states import DeliveryState, JobState, StudyState
from pacs_node.database.tables import AsideRow, StudyRow
from pacs_node.delivery import folder as folder_delivery
from pacs_node.errors import BundleError, OutOfScope, ResultRejected
from pacs_node.journey import build
from pacs_node.journey.deliver import deliver, recover
from pacs_node.journey.leases import reap
from pacs_node.journey.operate import release
from pacs_node.records import Sender
from tests.journey.support import Town, ct_slice, ct_study, encode_body

Make = Callable[..., Town]


def alert_kinds(town: Town) -> list[str]:
    with town.house.store.read() as session:
        return sorted(alert.kind for alert in alerts.open_alerts(session))


def states_of_jobs(town: Town) -> list[JobState]:
    with town.house.store.read() as session:
        return [job.state for job in reversed(jobs.list_jobs(session))]


def raw(*elements: tuple[int, str, bytes]) -> bytes:
    """Return elements in explicit VR little endian, whatever they hold."""
    body = b""
    for tag, vr, value in elements:
        head = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little") + vr.encode()
        body += head + (b"\0\0" + len(value).to_bytes(4, "little") if vr in ("OW", "OB", "SQ", "UN") else len(value).to_bytes(2, "little")) + value
    return body


def odd_body(study: Dataset, *changes: tuple[int, str, bytes]) -> bytes:
    """Return a minimal object of a study in which some elements are odd."""
    base = {
        0x00080016: ("UI", study.SOPClassUID.encode() + b"\0"),
        0x00080018: ("UI", b"1.2.826.0.1.99.7777\0"),
        0x00080060: ("CS", b"CT"),
        0x00100010: ("PN", b"Odd^One "),
        0x00100020: ("LO", b"ODD1"),
        0x0020000D: ("UI", b"1.2.826.0.1.99.1234\0"),
        0x0020000E: ("UI", b"1.2.826.0.1.99.123\0"),
    }
    base |= {tag: (vr, value) for tag, vr, value in changes}
    return raw(*((tag, vr, value) for tag, (vr, value) in sorted(base.items())))


ODD = {
    "an infinite series number": [(0x00200011, "IS", b"Infinity")],
    "a series number beyond all numbers": [(0x00200011, "IS", b"1E400 ")],
    "a series number with a superscript": [(0x00200011, "LO", "²".encode("latin-1") + b" ")],
    "a series number with two signs": [(0x00200011, "LO", b"--5 ")],
    "a series number of twenty nines": [(0x00200011, "LO", b"9" * 20)],
    "a series number of three bytes": [(0x00200011, "US", b"123")],
    "a patient name of three bytes": [(0x00100010, "US", b"123")],
    "a patient ID of half a double": [(0x00100020, "FD", b"1234")],
    "contributing equipment that is text": [(0x0018A001, "LO", b"no sequence ")],
    "an infinite number of frames": [(0x00280008, "IS", b"Infinity")],
    "a number of frames of 5000 digits": [(0x00280008, "LO", b"9" * 5000)],
    "a patient name with NUL": [(0x00100010, "PN", b"A\0B\0")],
}


@pytest.mark.parametrize("name", ODD)
def test_one_odd_object_stops_no_other_study(town: Town, name: str) -> None:
    sender = Sender("CT1", "PACS_NODE", "127.0.0.1:1", "odd1")
    good = ct_study()
    town.house.spool.store(sender, str(good[0].SOPClassUID), "1.2.826.0.1.99.7777", "1.2.840.10008.1.2.1", [odd_body(good[0], *ODD[name])])
    town.send(good)
    town.settle()
    town.restart()
    town.settle()
    assert JobState.DONE in states_of_jobs(town)
    assert len({str(result.StudyInstanceUID) for result in town.results()} & {str(good[0].StudyInstanceUID)}) == 1
    assert not list((town.settings.node.data / "spool" / "new").rglob("*.dcm"))


def test_a_dataset_cut_inside_an_element_is_quarantined_and_said(town: Town) -> None:
    sender = Sender("CT1", "PACS_NODE", "127.0.0.1:1", "cut1")
    body = odd_body(ct_slice(0)) + b"\xe0\x7f\x10\x00OW\0\0"
    town.house.spool.store(sender, str(ct_slice(0).SOPClassUID), "1.2.826.0.1.99.7777", "1.2.840.10008.1.2.1", [body])
    town.send(ct_study())
    town.settle()
    assert JobState.DONE in states_of_jobs(town)


ITEM_OUTSIDE = b"\xfe\xff\x00\xe0\x00\x00\x00\x00"
CUT_ITEM = raw((0x00080006, "SQ", b"\xfe\xff\x00\xe0"))
CAME_TWICE = {  # what stands before and behind an object, and when it comes again
    "an item outside of a sequence": (b"", ITEM_OUTSIDE, b"", ITEM_OUTSIDE),
    "a sequence that ends within an item": (CUT_ITEM, b"", b"", b""),
    "a repeat with a sequence that ends within an item": (b"", b"", CUT_ITEM, b""),
}


@pytest.mark.parametrize("name", CAME_TWICE)
def test_an_object_that_cannot_be_taken_apart_stops_nobody_also_when_it_comes_again(town: Town, name: str) -> None:
    before, behind, before_again, behind_again = CAME_TWICE[name]
    good, body = ct_study(), odd_body(ct_slice(0), (0x00080060, "CS", b"SR"))  # without pixels, so that the attributes are compared
    sender = Sender("CT1", "PACS_NODE", "127.0.0.1:1", "odd1")
    for content in (before + body + behind, before_again + body + behind_again):
        town.house.spool.store(sender, str(good[0].SOPClassUID), "1.2.826.0.1.99.7777", "1.2.840.10008.1.2.1", [content])
    town.send(good)
    town.settle()
    assert JobState.DONE in states_of_jobs(town)
    assert not list((town.settings.node.data / "spool" / "new").rglob("*.dcm"))
    with town.house.store.read() as session:
        assert all(aside.reason for aside in session.scalars(select(AsideRow)))


def test_a_file_of_the_spool_whose_head_is_damaged_stops_nobody(town: Town) -> None:
    sender = Sender("CT1", "PACS_NODE", "127.0.0.1:1", "odd1")
    path = town.house.spool.store(sender, str(ct_slice(0).SOPClassUID), "1.2.826.0.1.99.7777", "1.2.840.10008.1.2.1", [odd_body(ct_slice(0))])
    content = bytearray(path.read_bytes())
    content[132 + 6] = 7  # the length of (0002,0000), which is an unsigned long
    path.write_bytes(content)
    town.send(ct_study())
    town.settle()
    assert JobState.DONE in states_of_jobs(town)
    assert alert_kinds(town) == ["quarantine"]


def test_a_deflated_object_that_would_fill_the_memory_is_quarantined_unopened(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    from pacs_node.dicom import header

    monkeypatch.setattr(header, "_MOST_INFLATED", 1 << 20)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = odd_body(ct_slice(0)) + raw((0x7FE00010, "OW", bytes(8 << 20)))
    packed = deflate.compress(body) + deflate.flush()
    sender = Sender("CT1", "PACS_NODE", "127.0.0.1:1", "bomb1")
    town.house.spool.store(sender, str(ct_slice(0).SOPClassUID), "1.2.826.0.1.99.7777", "1.2.840.10008.1.2.1.99", [packed])
    town.gather()
    with town.house.store.read() as session:
        aside = session.scalars(select(AsideRow)).one()
    assert "grows beyond" in aside.reason
    assert alert_kinds(town) == ["quarantine"]


def test_a_whole_object_takes_the_place_of_one_that_was_cut_short(town: Town) -> None:
    cut = ct_study()
    body = encode_body(cut[2])[:-100]
    town.send([*cut[:2], *cut[3:]])
    sender = Sender("CT1", "PACS_NODE", "127.0.0.1:1", "cut2")
    town.house.spool.store(sender, str(cut[2].SOPClassUID), str(cut[2].SOPInstanceUID), str(cut[2].file_meta.TransferSyntaxUID), [body])
    town.gather()
    town.send([cut[2]])
    town.settle()
    assert states_of_jobs(town)[-1] is JobState.DONE
    assert not list((town.settings.node.data / "spool" / "new").rglob("*.dcm"))


def test_a_file_that_vanished_is_healed_by_sending_it_again(town: Town) -> None:
    town.send(ct_study())
    town.gather()
    next((town.settings.node.data / "studies").rglob("*.dcm")).unlink()
    town.send(ct_study())
    town.settle()
    assert states_of_jobs(town)[-1] is JobState.DONE
    assert len(town.results()) == 4


def test_a_correction_that_comes_while_results_are_sent_stops_the_rest_and_is_said(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    town.send(ct_study(patient="WRONG"))
    town.gather()
    town.wait(seconds=11)
    town.gather()
    town.work()
    plain, sent = folder_delivery._copy, []

    def copy(source: Path, target: Path) -> bool:
        done = plain(source, target)
        if not sent:
            town.send(ct_study(patient="RIGHT"))
            town.gather()
        sent.append(target)
        return done

    monkeypatch.setattr(folder_delivery, "_copy", copy)
    town.post()
    assert len(sent) == 1  # the others were stopped
    assert alert_kinds(town) == ["identity"]
    with town.house.store.read() as session:
        found = [row.state for row in deliveries.list_deliveries(session)]
    assert sorted(found) == [DeliveryState.CANCELLED, DeliveryState.CANCELLED, DeliveryState.CANCELLED, DeliveryState.DELIVERED]


def test_a_study_held_while_a_group_is_chosen_is_not_sent(town: Town) -> None:
    town.send(ct_study())
    town.gather()
    town.wait(seconds=11)
    town.gather()
    town.work()
    with town.house.store.read() as session:
        ids = deliveries.due_group(session, "research", town.clock)
    assert ids
    with town.house.store.write() as session:
        session.scalars(select(StudyRow)).one().state = StudyState.HELD
    with town.house.store.write() as session:
        assert deliveries.start(session, ids, town.clock) == []


def test_a_fault_in_the_middle_of_sending_leaves_nothing_stuck(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    town.send(ct_study())
    town.gather()
    town.wait(seconds=11)
    town.gather()
    town.work()

    def fall(*_: object) -> bool:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(folder_delivery, "_copy", fall)
        with pytest.raises(MemoryError):
            town.post()
    town.wait(minutes=2)
    town.post()
    town.wait(minutes=2)
    town.post()
    assert len(town.results()) == 4


def test_what_was_withdrawn_is_made_again_for_the_part_of_a_study_that_did_not_change(make_town: Make) -> None:
    rules = "rules:\n  - name: all\n    when: {Modality: CT}\n    series: all\n    pipeline: ct-test\n    send_to: [research]\n"
    town = make_town(rules=rules)
    town.send([*ct_study(4, patient="P1"), *ct_study(4, patient="P2", series=2)])
    town.settle()
    release(town.house.store, 1, town.clock)
    town.gather()
    town.work()  # both series are analysed, nothing is sent yet
    town.send(ct_study(4, patient="P3"))
    town.gather()
    with town.house.store.read() as session:
        assert session.scalars(select(StudyRow)).one().state is StudyState.HELD
    release_and_settle(town)
    assert {str(result.PatientID) for result in town.results()} == {"P3", "P2"}


def release_and_settle(town: Town) -> None:
    town.wait(seconds=11)
    town.gather()
    release(town.house.store, 1, town.clock)
    town.settle()


def test_our_own_result_sent_back_with_another_name_changes_nothing(town: Town) -> None:
    town.send(ct_study())
    town.settle()
    own = next(result for result in town.results() if result.Modality == "SR")
    town.send([own])
    town.gather()
    own.PatientName = "Somebody^Else"
    town.send([own])
    town.settle()
    assert states_of_jobs(town) == [JobState.DONE]
    assert alert_kinds(town) == []


def test_a_clock_that_was_set_back_keeps_no_study_waiting(town: Town) -> None:
    town.send(ct_study())
    town.wait(days=400)
    town.send(ct_study(study="B"))
    town.gather()
    town.clock -= timedelta(days=400)
    town.settle()
    assert states_of_jobs(town) == [JobState.DONE, JobState.DONE]


def test_results_for_a_destination_that_is_not_configured_any_more_are_parked_and_said(make_town: Make, tmp_path: Path) -> None:
    two = {"research": {"kind": "folder", "path": str(tmp_path / "out")}, "old": {"kind": "folder", "path": str(tmp_path / "old")}}
    rules = "rules:\n  - name: all\n    when: {Modality: CT}\n    pipeline: ct-test\n    send_to: [research, old]\n"
    town = make_town(rules=rules, destinations=two)
    town.send(ct_study())
    town.gather()
    town.wait(seconds=11)
    town.gather()
    town.work()
    town.house.settings = town.settings = town.settings.model_copy(update={"destinations": {"research": town.settings.destinations["research"]}})
    recover(town.house, town.clock)
    town.post()
    with town.house.store.read() as session:
        found = {(row.destination, row.state) for row in deliveries.list_deliveries(session)}
    assert found == {("research", DeliveryState.DELIVERED), ("old", DeliveryState.PARKED)}
    assert alert_kinds(town) == ["destination"]


def test_a_stored_result_that_was_changed_is_never_sent(town: Town) -> None:
    town.send(ct_study())
    town.gather()
    town.wait(seconds=11)
    town.gather()
    town.work()
    report = next((town.settings.node.data / "results").rglob("*sr.dcm"))
    report.write_bytes(report.read_bytes().replace(b"Test^P1", b"Test^XX"))
    town.post()
    assert "SR" not in {str(result.Modality) for result in town.results()}
    assert alert_kinds(town) == ["refused"]


def test_a_job_whose_worker_is_silent_for_a_lease_returns_to_the_queue(town: Town) -> None:
    town.send(ct_study())
    town.gather()
    town.wait(seconds=11)
    town.gather()
    with town.house.store.write() as session:
        jobs.claim(session, "another machine", town.clock, timedelta(seconds=60))
    assert reap(town.house, town.clock) == 0
    town.wait(seconds=61)
    assert reap(town.house, town.clock) == 1
    town.wait(minutes=1)
    town.settle()
    assert states_of_jobs(town) == [JobState.DONE]


def test_a_job_that_kills_its_worker_again_and_again_is_parked_and_told(town: Town) -> None:
    town.send(ct_study())
    town.gather()
    town.wait(seconds=11)
    town.gather()
    for _ in range(3):
        with town.house.store.write() as session:
            assert jobs.claim(session, "w", town.clock, timedelta(seconds=60)) is not None
        town.wait(minutes=5)
        reap(town.house, town.clock)
        town.wait(minutes=5)
    assert states_of_jobs(town) == [JobState.PARKED]
    town.work()
    town.post()
    assert [str(result.SOPClassUID) for result in town.results()] == ["1.2.840.10008.5.1.4.1.1.88.22"]


def test_a_parked_job_whose_files_are_gone_kills_no_worker(town: Town) -> None:
    def damaged(name: str) -> None:
        for path in (town.settings.node.data / "studies").rglob("*.dcm"):
            path.unlink()
        raise BundleError(name, "is damaged")

    town.engine.script = damaged
    town.send(ct_study())
    town.settle()
    assert states_of_jobs(town) == [JobState.PARKED]
    assert alert_kinds(town) == ["notice", "parked"]


def test_two_variants_that_fail_the_gate_end_in_two_notices(make_town: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two = {"research": {"kind": "folder", "path": str(tmp_path / "out")}, "second": {"kind": "folder", "path": str(tmp_path / "second")}}
    rule = "  - name: {0}\n    when: {{Modality: CT}}\n    pipeline: ct-test\n    results: [{1}]\n    send_to: [{2}]\n"
    town = make_town(rules="rules:\n" + rule.format("a", "sr", "research") + rule.format("b", "sr, sc", "second"), destinations=two)
    whole = build.results.build

    def reject(request: build.results.BuildRequest) -> object:
        if request.notice is None:
            raise ResultRejected("sr", ("on purpose",))
        return whole(request)

    monkeypatch.setattr(build.results, "build", reject)
    town.send(ct_study())
    town.settle()
    assert states_of_jobs(town) == [JobState.DONE]
    assert alert_kinds(town) == ["gate"]
    assert len(list((tmp_path / "out").rglob("*.dcm"))) == len(list((tmp_path / "second").rglob("*.dcm"))) == 1


def test_nothing_that_could_be_sent_is_an_alert(make_town: Make, tmp_path: Path) -> None:
    archive = {"archive": {"kind": "dicom", "ae_title": "A", "address": "127.0.0.1", "port": 104}}
    town = make_town(rules="rules:\n  - name: a\n    when: {Modality: CT}\n    pipeline: ct-test\n    send_to: [archive]\n", destinations=archive)
    town.send(ct_study())
    town.settle()
    assert alert_kinds(town) == ["not sent"]


def test_out_of_scope_is_told_without_an_alert(town: Town) -> None:
    def refuse(name: str) -> None:
        raise OutOfScope("the images show nothing but air")

    town.engine.script = refuse
    town.send(ct_study())
    town.settle()
    assert alert_kinds(town) == []
    assert "nothing but air" in town.results()[0].to_json()


def test_a_correction_named_before_what_a_crash_left_in_the_spool_still_supersedes_it(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is set back in between, so that the correction has the earlier name."""

    class Killed(BaseException):
        pass

    def die(step: str) -> None:
        if step == "indexed":
            raise Killed

    town.send([ct_slice(0, patient="WRONG")])
    with monkeypatch.context() as patch:
        patch.setattr(crash, "passed", die)
        with pytest.raises(Killed):
            town.gather()
    left = next(town.house.spool.new.rglob("*.dcm"))
    town.send([ct_slice(0, patient="RIGHT")])
    correction = next(path for path in town.house.spool.new.rglob("*.dcm") if path != left)
    correction.rename(correction.with_name(f"{int(left.name[:20]) - 1:020d}{correction.name[20:]}"))
    town.gather()
    with town.house.store.read() as session:
        assert session.scalars(select(StudyRow)).one().patient_id == "RIGHT"
        superseded = session.scalars(select(AsideRow)).one()
    assert (town.settings.node.data / superseded.path).is_file()
    assert not list(town.house.spool.new.rglob("*.dcm"))


def test_names_in_the_spool_go_on_where_the_clock_was_set_back_before_a_restart(town: Town) -> None:
    town.wait(days=1)
    town.send([ct_slice(0, patient="WRONG")])
    town.wait(days=-1)
    town.restart()
    sender, right = Sender("CT1", "PACS_NODE", "127.0.0.1:1", "later"), ct_slice(0, patient="RIGHT")
    town.house.spool.store(sender, str(right.SOPClassUID), str(right.SOPInstanceUID), str(right.file_meta.TransferSyntaxUID), [encode_body(right)])
    town.gather()
    with town.house.store.read() as session:
        assert session.scalars(select(StudyRow)).one().patient_id == "RIGHT"


def test_results_that_are_withdrawn_as_they_are_taken_up_are_no_failure(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    town.send(ct_study())
    town.gather()
    town.wait(seconds=11)
    town.gather()
    town.work()
    look = deliveries.due_group

    def withdrawn_since(session: Session, name: str, now: datetime) -> list[int]:
        ids = look(session, name, now)
        with town.house.store.write() as other:
            deliveries.cancel_unfinished(other, 1, "an object of the study was corrected")
        return ids

    monkeypatch.setattr(deliveries, "due_group", withdrawn_since)
    assert deliver(town.house, "research", town.clock) == 4
    assert deliver(town.house, "research", town.clock) == 0
    with town.house.store.read() as session:
        assert {row.state for row in deliveries.list_deliveries(session)} == {DeliveryState.CANCELLED}
    assert town.results() == []
