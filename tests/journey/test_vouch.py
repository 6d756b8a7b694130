"""Senders that ask us for storage commitment: we vouch for what an archive has committed to, and for nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian

from pacs_node.database import removal
from pacs_node.database.states import RequestState
from pacs_node.database.tables import CommitmentRequestRow
from pacs_node.delivery import backoff, commitment
from pacs_node.dicom.commitment import PUSH_MODEL, PUSH_MODEL_INSTANCE, Reference, Report, Request, Standing, judge, read_report, request_dataset
from pacs_node.journey import vouch
from pacs_node.journey.commit import commit
from pacs_node.journey.operate import retry_parked
from pacs_node.journey.receive import receive
from pacs_node.reception.conversation import NoteRequest
from pacs_node.records import Sender
from tests.delivery.committing import CommittingArchive
from tests.delivery.test_commitment import Asker
from tests.journey.support import Town, ct_slice, ct_study
from tests.journey.test_adversity import alert_kinds
from tests.journey.test_archive import messages
from tests.journey.test_commitment import encoded

FORWARD = """
rules:
  - name: CT
    when: {Modality: CT}
    pipeline: null
    results: []
    forward: [archive]
  - name: anything else
    otherwise: true
    pipeline: null
    results: []
"""
CT = "1.2.840.10008.5.1.4.1.1.2"
Make = Callable[..., Town]


@pytest.fixture(autouse=True)
def short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commitment, "LINGER", 0.5)


@pytest.fixture
def archive() -> Iterator[CommittingArchive]:
    with CommittingArchive() as one:
        yield one


@pytest.fixture
def asker() -> Iterator[Asker]:
    one = Asker()
    with one as place:
        one.port = place.port  # type: ignore[attr-defined]
        yield one


def town_with(make_town: Make, archive: CommittingArchive | None, port: int | None, rules: str = FORWARD, *, commits: bool = True) -> Town:
    target = {"kind": "dicom", "ae_title": "ARCHIVE", "address": "127.0.0.1", "port": archive.port if archive else 1, "commitment": commits}
    sender = {"ae_title": "CT1", "network": "127.0.0.1/32", **({"port": port} if port else {})}
    return make_town(rules=rules, destinations={"archive": target}, reception={"commitment": True, "senders": [sender]})


def names(datasets: Sequence[Dataset]) -> tuple[Reference, ...]:
    return tuple(Reference(str(dataset.SOPClassUID), str(dataset.SOPInstanceUID)) for dataset in datasets)


def request(town: Town, references: Sequence[Reference], uid: str = "1.2.7.1") -> None:
    """Let CT1 ask a receiver for commitment."""
    content = encoded(request_dataset(Request(uid, tuple(references))))
    note = NoteRequest("n-action", PUSH_MODEL, PUSH_MODEL_INSTANCE, 1, ImplicitVRLittleEndian, content)
    town.house.spool.note(Sender("CT1", "PACS_NODE", "127.0.0.1:4242", "note1"), "commitment-request", note)


def go_on(town: Town) -> None:
    """Let everything that is due happen, and some time pass."""
    town.gather()
    town.post()
    while commit(town.house, "archive", town.clock):
        pass
    vouch.vouch(town.house, town.clock)
    town.wait(seconds=12)


def settle(town: Town, rounds: int = 4) -> None:
    for _ in range(rounds):
        go_on(town)


def states(town: Town) -> list[RequestState]:
    with town.house.store.read() as session:
        return [row.state for row in session.query(CommitmentRequestRow).order_by(CommitmentRequestRow.id)]


def heard(asker: Asker) -> list[Report]:
    found = []
    while not asker.heard.empty():
        found.append(read_report(asker.heard.get()[1]))
    return found


def test_the_report_goes_out_only_after_the_archives_own(make_town: Make, archive: CommittingArchive, asker: Asker) -> None:
    archive.when = "never"
    town = town_with(make_town, archive, asker.port)
    town.send(ct_study())
    request(town, names(ct_study()))
    settle(town)
    assert len(archive.kept) == 6 and heard(asker) == [] and states(town) == [RequestState.WAITING]
    from tests.journey.test_commitment import bring

    bring(town, archive.verdict(archive.requests[0]))
    settle(town, 1)
    (report,) = heard(asker)
    assert report.transaction_uid == "1.2.7.1" and set(report.committed) == set(names(ct_study())) and report.failed == {}
    settle(town)
    assert heard(asker) == [] and states(town) == [RequestState.REPORTED] and alert_kinds(town) == []


def test_a_request_that_comes_before_its_instances_are_indexed_is_judged_after_them(make_town: Make, archive: CommittingArchive, asker: Asker) -> None:
    town = town_with(make_town, archive, asker.port)
    study = ct_study()
    town.send(study)
    request(town, names(study))
    note = next(town.house.spool.new.rglob("*.note"))
    hidden = [(path, path.with_suffix(".hidden")) for path in town.house.spool.new.rglob("*.dcm")]
    for path, away in hidden:
        path.rename(away)  # a listing of the spool that missed them
    receive(town.house, town.clock)
    assert not note.exists()
    for path, away in hidden:
        away.rename(path)
    vouch.vouch(town.house, town.clock)
    assert states(town) == [RequestState.WAITING]
    settle(town)
    (report,) = heard(asker)
    assert len(report.committed) == 6 and not report.failed


def test_what_was_never_received_fails_at_once_and_what_no_rule_forwards_too(make_town: Make, archive: CommittingArchive, asker: Asker) -> None:
    town = town_with(make_town, archive, asker.port, FORWARD.replace("Modality: CT", "Modality: MR"))
    study = ct_study(2)
    town.send(study)
    stranger, wrong = Reference(CT, "1.2.3.4.5"), Reference("1.2.840.10008.5.1.4.1.1.4", study[1].SOPInstanceUID)
    request(town, [*names(study[:1]), stranger, wrong])
    town.wait(seconds=11)
    settle(town, 2)
    (report,) = heard(asker)
    assert report.failed == {names(study)[0]: 0x0110, stranger: 0x0112, wrong: 0x0119} and not report.committed


def test_where_no_rule_forwards_to_an_archive_that_commits_nobody_waits_for_the_study(make_town: Make, archive: CommittingArchive, asker: Asker) -> None:
    town = town_with(make_town, archive, asker.port, commits=False)
    town.send(ct_study(1))
    request(town, names(ct_study(1)))
    receive(town.house, town.clock)
    vouch.vouch(town.house, town.clock)
    assert [list(report.failed.values()) for report in heard(asker)] == [[0x0110]]


def test_an_instance_that_the_archive_refuses_is_reported_as_failed(make_town: Make, archive: CommittingArchive, asker: Asker) -> None:
    study = ct_study(3)
    archive.reasons = {str(study[1].SOPInstanceUID): 0x0122}
    town = town_with(make_town, archive, asker.port)
    town.send(study)
    request(town, names(study))
    settle(town)
    (report,) = heard(asker)
    first, second, third = names(study)
    assert set(report.committed) == {first, third} and report.failed == {second: 0x0110}


def test_a_transaction_uid_that_is_in_use_is_reported_as_a_duplicate(make_town: Make, archive: CommittingArchive, asker: Asker) -> None:
    archive.when = "never"
    town = town_with(make_town, archive, asker.port)
    town.send(ct_study(2))
    request(town, names(ct_study(2)))
    settle(town)
    request(town, names(ct_study(2)))
    settle(town, 2)
    (report,) = heard(asker)
    assert set(report.failed.values()) == {0x0131} and len(report.failed) == 2
    assert states(town) == [RequestState.WAITING, RequestState.REPORTED]


def test_an_instance_corrected_since_counts_only_as_it_is_now(make_town: Make, archive: CommittingArchive, asker: Asker) -> None:
    town = town_with(make_town, archive, asker.port)
    town.send([ct_slice(0)])
    settle(town)
    archive.when = "never"
    corrected = ct_slice(0, patient="P2")
    town.send([corrected])
    request(town, names([corrected]))
    settle(town)
    assert heard(asker) == [] and states(town) == [RequestState.WAITING]


def test_a_report_that_nobody_takes_is_tried_again_over_restarts_parked_and_sent_by_one_command(
    make_town: Make, archive: CommittingArchive, asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vouch, "POLICY", backoff.Policy(give_up_after=timedelta(minutes=2)))
    asker.status = 0x0110
    town = town_with(make_town, archive, asker.port)
    town.send(ct_study(1))
    request(town, names(ct_study(1)))
    settle(town)
    assert "0x0110" in " ".join(messages(town)) and states(town) == [RequestState.JUDGED]
    town.restart()
    for _ in range(12):
        town.wait(minutes=2)
        go_on(town)
    assert states(town) == [RequestState.PARKED] and len(heard(asker)) > 3
    asker.status = 0x0000
    retry_parked(town.house.store, town.clock)
    settle(town, 1)
    assert states(town) == [RequestState.REPORTED] and len(heard(asker)) == 1 and alert_kinds(town) == []


def test_one_whose_port_nobody_knows_is_said_with_the_key(make_town: Make, archive: CommittingArchive) -> None:
    town = town_with(make_town, archive, None)
    town.send(ct_study(1))
    request(town, names(ct_study(1)))
    settle(town)
    assert states(town) == [RequestState.JUDGED]
    assert any("`port` in reception.senders" in message for message in messages(town))


def test_a_destination_of_the_askers_title_is_where_the_report_goes(make_town: Make, archive: CommittingArchive, asker: Asker) -> None:
    target = {"kind": "dicom", "ae_title": "ARCHIVE", "address": "127.0.0.1", "port": archive.port, "commitment": True}
    console = {"kind": "dicom", "ae_title": "CT1", "address": "127.0.0.1", "port": asker.port}
    town = make_town(rules=FORWARD, destinations={"archive": target, "console": console}, reception={"commitment": True})
    town.send(ct_study(1))
    request(town, names(ct_study(1)))
    settle(town)
    assert len(heard(asker)) == 1


def test_a_crash_between_the_report_and_its_commit_sends_it_once_more(
    make_town: Make, archive: CommittingArchive, asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    town = town_with(make_town, archive, asker.port)
    town.send(ct_study(1))
    request(town, names(ct_study(1)))

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(vouch, "_reported", die)
        with pytest.raises(KeyboardInterrupt):
            settle(town, 6)
    town.restart()
    town.wait(minutes=2)
    settle(town, 1)
    first, second = heard(asker)
    assert first == second and states(town) == [RequestState.REPORTED]


def test_a_note_taken_in_twice_is_one_request(make_town: Make, archive: CommittingArchive, asker: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    from pacs_node import crash

    town = town_with(make_town, archive, asker.port)
    town.send(ct_study(1))
    request(town, names(ct_study(1)))

    def die(step: str) -> None:
        if step == "noted":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(crash, "passed", die)
        with pytest.raises(KeyboardInterrupt):
            town.gather()
    town.restart()
    settle(town)
    (report,) = heard(asker)
    assert report.committed and not report.failed and states(town) == [RequestState.REPORTED]


def test_originals_stay_as_long_as_somebody_waits_for_our_word_on_them(make_town: Make, archive: CommittingArchive, asker: Asker) -> None:
    town = town_with(make_town, archive, asker.port)
    town.send(ct_study(1))
    request(town, names(ct_study(1)))
    receive(town.house, town.clock)
    with town.house.store.read() as session:
        assert "a storage commitment request" in removal.needed_by(session, 1)
    settle(town)
    with town.house.store.read() as session:
        assert removal.needed_by(session, 1) == ()


@pytest.mark.parametrize(
    ("standing", "forwards", "patient", "reason"),
    [
        (None, True, True, 0x0112),
        (Standing(False, True, False, True), True, True, 0x0119),
        (Standing(True, True, False, True), False, False, 0),
        (Standing(True, False, True, True), True, True, None),
        (Standing(True, False, False, False), True, True, None),
        (Standing(True, False, False, False), False, True, 0x0110),
        (Standing(True, False, False, True), True, True, 0x0110),
        (Standing(True, False, True, True), True, False, 0x0110),
    ],
    ids=["unknown", "other class", "committed", "on its way", "undecided", "no rule forwards", "not forwarded", "waited too long"],
)
def test_what_we_vouch_for(standing: Standing | None, forwards: bool, patient: bool, reason: int | None) -> None:
    assert judge(standing, forwards=forwards, patient=patient) == reason
