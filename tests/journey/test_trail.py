"""What the audit trail says of a study's journey, and its way to a collector: complete, in order, and never of whom."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from pacs_node import clock
from pacs_node.database import audit
from pacs_node.database.alerts import audit as note
from pacs_node.database.alerts import open_alerts
from pacs_node.journey import trail
from pacs_node.journey.operate import cancel_job, clear, release, retry_job
from pacs_node.journey.receive import receive
from pacs_node.monitoring.audit_messages import message
from pacs_node.records import AuditEntry
from tests.certificates import Authority, Pair
from tests.journey.support import Town, ct_slice, ct_study
from tests.monitoring.audit_structure import faults
from tests.monitoring.collector import Collector

NAMES = ("Verysecret", "SECRETID77", "19451231", "ACCSECRET")


def rows(town: Town) -> list[AuditEntry]:
    with town.house.store.read() as session:
        return list(audit.every(session))


def told(town: Town, action: str) -> list[dict[str, Any]]:
    return [entry.detail for entry in rows(town) if entry.action == action]


def test_a_study_leaves_its_whole_way_in_the_trail(town: Town) -> None:
    town.send(ct_study(5), calling="CT7", association="assoc1")
    town.settle()
    study_uid = str(ct_slice(0).StudyInstanceUID)
    assert [entry.action for entry in rows(town)][:3] == ["receiving", "received", "analysed"]
    who = {"calling_ae": "CT7", "called_ae": "PACS_NODE", "address": "127.0.0.1:4242"}
    assert told(town, "receiving") == [{"study_uid": study_uid, **who}]
    end = {"association": "assoc1", "released": True, "stored": 5, "refused": 0}
    assert told(town, "received") == [{"study_uid": study_uid, "instances": 5, **who, **end}]
    (analysed,) = told(town, "analysed")
    assert analysed["study_uid"] == study_uid
    assert (analysed["bundle"], analysed["bundle_hash"], analysed["config_hash"]) == ("ct-test 1.0", "a" * 64, "b" * 64)
    sent = told(town, "sent")
    assert {fact["sop_uid"] for fact in sent} == {str(result.SOPInstanceUID) for result in town.results()}
    assert all((fact["study_uid"], fact["destination"], fact["job"]) == (study_uid, "research", 1) for fact in sent)
    with town.house.store.read() as session:
        assert audit.follow(audit.every(session)).fault == ""


def test_a_sender_that_opens_an_association_for_each_instance_begins_once(town: Town) -> None:
    for dataset in ct_study(4):
        town.send([dataset])
    town.gather()
    town.restart()
    town.send([ct_slice(4)])
    town.gather()
    assert len(told(town, "receiving")) == 1
    assert [fact["instances"] for fact in told(town, "received")] == [1] * 5
    town.send([ct_slice(5)], calling="CT2")
    town.gather()
    assert [fact["calling_ae"] for fact in told(town, "receiving")] == ["CT1", "CT2"]


def test_an_association_that_brought_nothing_new_is_written_down_too(town: Town) -> None:
    town.send(ct_study(2))
    town.gather()
    town.send(ct_study(2), calling="CT2", association="again")
    town.gather()
    last = rows(town)[-1]
    assert (last.action, last.subject, last.detail["stored"]) == ("received", "association again", 2)


def test_the_end_of_an_association_that_is_met_twice_is_written_down_once(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    town.send(ct_study(2))
    with monkeypatch.context() as patch:
        patch.setattr(type(town.house.spool), "forget", lambda *_: None)  # a crash before the marker is taken away
        receive(town.house, town.clock)
    town.gather()
    assert len(told(town, "received")) == 1


def test_originals_are_counted_and_not_listed(make_town: Callable[..., Town], tmp_path: Path) -> None:
    rules = "rules: [{name: through, when: {Modality: CT}, pipeline: null, results: [], forward: [research]}]"
    town = make_town(rules=rules)
    town.send(ct_study(7))
    town.settle()
    sent = [fact for fact in told(town, "sent") if fact["kind"] == "original"]
    assert sum(fact["instances"] for fact in sent) == 7
    assert len(sent) == 1
    assert "sop_uid" not in sent[0]


def everything_happens(town: Town) -> None:
    """Let a patient with a telling name go through all that the trail tells of."""
    secret = {"patient": NAMES[1], "PatientName": f"{NAMES[0]}^Ada", "PatientBirthDate": NAMES[2], "AccessionNumber": NAMES[3]}
    town.send([ct_slice(index, **secret) for index in range(5)])
    town.settle()
    retry_job(town.house.store, 1, town.clock)
    cancel_job(town.house.store, 1, town.clock)
    town.send([ct_slice(6, patient="OTHER")])
    town.settle()
    release(town.house.store, 1, town.clock)
    town.engine.script = failing
    for _ in range(6):
        town.settle()
        town.wait(hours=1)
    clear(town.house.store, None, town.clock)


def failing(name: str) -> None:
    raise ValueError(f"{NAMES[0]}^Ada is no number")


def test_neither_trail_nor_messages_name_the_patient(town: Town) -> None:
    everything_happens(town)
    entries = rows(town)
    actions = {entry.action for entry in entries}
    assert actions >= {"receiving", "received", "analysed", "sent", "retry", "cancel", "held", "release", "requeued", "parked", "clear"}
    source = trail.source_of(town.settings)
    for entry in entries:
        text = message(entry, source)
        assert faults(text) == [], entry
        opened = text + "".join(base64.b64decode(one.get("value", "")).decode() for one in ET.fromstring(text).iter("ParticipantObjectDetail"))
        for secret in NAMES:
            assert secret not in json.dumps(audit.as_line(entry)), entry
            assert secret not in opened, entry


# --- to a collector ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory, tool: Callable[[str], str]) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"), tool("openssl"))


@pytest.fixture(scope="module")
def own(authority: Authority) -> Pair:
    return authority.sign("collector")


@pytest.fixture
def collector(own: Pair) -> Iterator[Collector]:
    started = Collector(own)
    yield started
    started.stop()


Reporting = Callable[..., Town]


@pytest.fixture
def reporting(make_town: Callable[..., Town], authority: Authority, collector: Collector) -> Reporting:
    """Give a function that builds a house that reports to the collector."""

    def make(**audit_settings: object) -> Town:
        return make_town(audit={"syslog": {"host": "127.0.0.1", "port": collector.port, "tls": {"ca": str(authority.file)}}, **audit_settings})

    return make


def write(town: Town, count: int) -> None:
    with town.house.store.write() as session:
        for number in range(count):
            note(session, "ada", "retry", f"job {number}", {"study_uid": "1.2.3"}, town.clock)


def arrived(collector: Collector) -> list[int]:
    """Return the numbers of the rows that the collector has, in the order in which they came."""
    return [int(line.partition(b'sequenceId="')[2].partition(b'"')[0]) for line in collector.messages]


def test_every_row_reaches_the_collector_once_and_in_order(reporting: Reporting, collector: Collector) -> None:
    town = reporting()
    town.send(ct_study(5))
    town.settle()
    clock.forward_audit(town.house)
    write(town, trail.BATCH + 5)
    clock.forward_audit(town.house)
    clock.forward_audit(town.house)  # nothing is left
    assert arrived(collector) == [entry.number for entry in rows(town)]
    for line, entry in zip(collector.messages, rows(town), strict=True):
        text = line.partition(b"\xef\xbb\xbf")[2].decode()
        assert faults(text) == []
        assert entry.hash in base64.b64decode(text.partition('type="audit hash" value="')[2].partition('"')[0]).decode()


def test_a_restart_goes_on_where_the_collector_stands(reporting: Reporting, collector: Collector) -> None:
    town = reporting()
    write(town, 4)
    assert trail.forward(town.house, town.clock) == 4
    town.restart()
    write(town, 3)
    assert trail.forward(town.house, town.clock) == 3
    assert arrived(collector) == list(range(1, 8))


def test_a_collector_that_is_away_is_left_alone_said_and_given_everything_later(
    reporting: Reporting, own: Pair, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    town = reporting()
    collector.stop()
    write(town, 3)
    tries = 0
    for _ in range(60):
        with town.house.store.read() as session:
            place = session.get(trail.AuditPlaceRow, f"syslog 127.0.0.1:{collector.port}")
        due = place is None or place.try_again_at <= town.clock
        tries += due
        assert trail.forward(town.house, town.clock) == 0
        town.wait(seconds=10)
    assert 4 < tries < 12  # ten minutes, ever more rarely
    town.send(ct_study(4))
    town.settle()  # which hinders nothing
    assert len(town.results()) > 0
    with town.house.store.read() as session:
        alert = next(alert for alert in open_alerts(session) if alert.kind == "audit")
    assert "waits in the database" in alert.message
    again = Collector(own, port=collector.port)
    try:
        town.wait(minutes=20)
        assert trail.forward(town.house, town.clock) > 3
        assert arrived(again) == [entry.number for entry in rows(town)]
    finally:
        again.stop()
    with town.house.store.read() as session:
        assert [alert for alert in open_alerts(session) if alert.kind == "audit"] == []


def test_what_broke_off_in_the_middle_comes_again_as_a_whole(reporting: Reporting, own: Pair, collector: Collector) -> None:
    town = reporting()
    write(town, 6)
    collector.manner = "breaks"
    assert trail.forward(town.house, town.clock) == 0
    collector.manner = "orderly"
    town.wait(minutes=1)
    assert trail.forward(town.house, town.clock) == 6
    assert arrived(collector) == list(range(1, 7))


def test_the_patient_id_goes_along_only_where_it_is_asked_for(reporting: Reporting, collector: Collector) -> None:
    town = reporting(patient_ids=True)
    town.send(ct_study(3))
    town.gather()
    trail.forward(town.house, town.clock)
    text = collector.messages[0].decode()
    assert 'ParticipantObjectID="P1"' in text
    assert "Test^P1" not in text
    assert "P1" not in json.dumps([audit.as_line(entry) for entry in rows(town)])


def test_the_duty_is_there_only_where_a_collector_is_configured(reporting: Reporting, town: Town) -> None:
    named = {duty.name: duty for duty in clock.duties(reporting().house)}
    assert "audit to syslog" in named
    assert named["audit anchor"].every == timedelta(days=1)
    assert "audit to syslog" not in {duty.name for duty in clock.duties(town.house)}


def test_the_log_holds_the_anchor(town: Town, capsys: pytest.CaptureFixture[str]) -> None:
    town.send(ct_study(3))
    town.gather()
    trail.say_anchor(town.house)
    said = capsys.readouterr()
    assert rows(town)[-1].hash in said.out + said.err
