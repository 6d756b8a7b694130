"""A phantom on a schedule: over a real association into the spool, through rules, engine and delivery, and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pynetdicom import AE, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import CTImageStorage
from sqlalchemy import func, select

from pacs_node.clock import duties
from pacs_node.database import heartbeats
from pacs_node.database.alerts import open_alerts
from pacs_node.database.tables import DeliveryRow, EmbeddingRow, EventRow, InstanceRow, JobRow, StudyRow
from pacs_node.dicom.header import is_synthetic, read_header
from pacs_node.journey.heartbeat import KEPT, beat
from pacs_node.records import HEARTBEAT_PATIENT, Sender
from tests.journey.support import Town, ct_study
from tests.node.support import free_port

Make = Callable[..., Town]

RULES = """
rules:
  - name: head CT
    when: {Modality: CT, BodyPartExamined: HEAD}
    pipeline: ct-test
    complete: {expect: [bone]}
    send_to: [research]
    forward: [research]
  - name: tried
    when: {Modality: CT}
    pipeline: ct-test
    shadow: true
    send_to: [research]
  - name: told
    when: {Modality: CT}
    pipeline: null
    results: [notice]
    send_to: [research]
"""


class Port:
    """What listens for the town: every instance that comes is put into its spool, or refused."""

    def __init__(self, town: Town, port: int) -> None:
        self.synthetic: list[bool] = []
        self.status = 0x0000
        self._open = True
        ae = AE("PACS_NODE")
        ae.add_supported_context(CTImageStorage)

        def store(event: Event) -> int:
            if self.status:
                return self.status
            request = event.request
            self.synthetic.append(is_synthetic(event.dataset))
            sender = Sender(str(event.assoc.requestor.ae_title), "PACS_NODE", "127.0.0.1:4242", f"hb{id(event.assoc)}")
            syntax = str(event.context.transfer_syntax)
            body = request.DataSet.getvalue()
            town.house.spool.store(sender, str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID), syntax, [body])
            return 0

        self._server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])

    def close(self) -> None:
        if self._open:
            self._server.shutdown()
        self._open = False


@pytest.fixture
def make_heart(make_town: Make, tmp_path: Path) -> Iterator[Callable[..., tuple[Town, Port]]]:
    """Give a function that makes a town with a heartbeat, and what listens for it."""
    ports: list[Port] = []

    def make(**heartbeat: Any) -> tuple[Town, Port]:
        port = free_port()
        places = {name: {"kind": "folder", "path": str(tmp_path / name)} for name in ("research", "probe")}
        town = make_town(rules=RULES, destinations=places, heartbeat={"destination": "probe", "address": "127.0.0.1", "port": port, "slices": 6, **heartbeat})
        ports.append(Port(town, port))
        return town, ports[-1]

    yield make
    for one in ports:
        one.close()


def pulse(town: Town) -> None:
    """Do what the duty does; making and sending a phantom takes real time."""
    beat(town.house, town.clock)
    town.clock = max(town.clock, datetime.now(UTC))


def rows(town: Town) -> list[Any]:
    with town.house.store.read() as session:
        return list(heartbeats.recent(session, 10))


def count(town: Town, column: Any, *where: Any) -> int:
    with town.house.store.read() as session:
        return session.scalar(select(func.count(column)).where(*where)) or 0


def alerts(town: Town) -> dict[str, str]:
    with town.house.store.read() as session:
        return {alert.kind: alert.message for alert in open_alerts(session)}


def test_a_heartbeat_goes_the_whole_way_and_its_latency_is_kept(make_heart: Callable[..., tuple[Town, Port]]) -> None:
    town, port = make_heart()
    pulse(town)
    assert port.synthetic == [True] * 6
    town.settle()
    pulse(town)
    (row,) = rows(town)
    assert row.begun_at <= row.received_at <= row.analysed_at <= row.delivered_at == row.ended_at
    assert row.problem == ""
    with town.house.store.read() as session:
        back = heartbeats.latest_back(session)
        assert back is not None
        assert timedelta() < (heartbeats.latency(back) or timedelta()) < timedelta(minutes=1)
    assert alerts(town) == {}
    assert town.engine.calls == ["ct-test"]  # once: not for the rule under trial, nor for the one that only tells


def test_it_reaches_its_own_destination_only_whatever_rules_say(make_heart: Callable[..., tuple[Town, Port]]) -> None:
    town, _ = make_heart()
    pulse(town)
    town.settle()
    sent = list((town.folder / "probe").rglob("*.dcm"))
    assert sent
    assert not list((town.folder / "research").rglob("*.dcm"))
    assert {str(dcmread(path).PatientID) for path in sent} == {HEARTBEAT_PATIENT}
    assert count(town, DeliveryRow.id, DeliveryRow.destination != "probe") == 0
    assert count(town, DeliveryRow.id, DeliveryRow.instance_id.is_not(None)) == 0  # nothing is forwarded


def test_it_is_no_study_of_a_patient(make_heart: Callable[..., tuple[Town, Port]]) -> None:
    town, _ = make_heart()
    pulse(town)
    town.send(ct_study(SeriesDescription="bone"))
    town.settle()
    with town.house.store.read() as session:
        of_patients = session.scalars(select(StudyRow.patient_id).where(heartbeats.of_patients())).all()
        embedded = set(session.scalars(select(EmbeddingRow.study_id)))
        phantom = session.scalars(select(StudyRow).where(~heartbeats.of_patients())).one()
        told = [row.subject for row in session.scalars(select(EventRow).where(EventRow.kind == "result"))]
        mine = session.scalars(select(JobRow.id).where(JobRow.study_id == phantom.id)).all()
    assert of_patients == ["P1"]
    assert phantom.id not in embedded
    assert not {f"job {number}" for number in mine} & set(told)
    assert told


def test_the_next_one_leaves_when_its_time_has_come_also_after_a_restart(make_heart: Callable[..., tuple[Town, Port]]) -> None:
    town, _ = make_heart(every="1h")
    for _ in range(3):
        pulse(town)
        town.settle()
        town.restart()
    assert len(rows(town)) == 1
    town.wait(hours=1)
    pulse(town)
    town.settle()
    pulse(town)
    found = rows(town)
    assert len(found) == 2
    assert len({row.study_uid for row in found}) == 2
    assert count(town, InstanceRow.id) == 12 + count(town, InstanceRow.id, InstanceRow.own)


def test_one_that_does_not_come_back_is_an_alert_until_the_next_does(make_heart: Callable[..., tuple[Town, Port]]) -> None:
    town, _ = make_heart(within="10min", every="1h")
    pulse(town)
    town.gather()
    town.wait(seconds=11)
    town.gather()  # the job waits: nobody works
    town.wait(minutes=9)
    pulse(town)
    assert alerts(town) == {}
    town.wait(minutes=1)
    pulse(town)
    assert "was not back after 10min: job 1 is queued" in alerts(town)["heartbeat"]
    town.work()
    town.post()
    town.wait(hours=1)
    pulse(town)
    town.settle()
    pulse(town)
    assert alerts(town) == {}
    assert [row.problem for row in rows(town)] == ["", "job 1 is queued"]


@pytest.mark.parametrize(("status", "words"), [(0xA700, "instances were not taken"), (None, "could not be sent")])
def test_one_that_the_port_does_not_take_is_said(make_heart: Callable[..., tuple[Town, Port]], status: int | None, words: str) -> None:
    town, port = make_heart(within="1min")
    if status is None:
        port.close()
    else:
        port.status = status
    pulse(town)
    town.wait(minutes=2)
    pulse(town)
    assert re.search(words, alerts(town)["heartbeat"])
    assert not list((town.settings.node.data / "heartbeat").iterdir())


def test_its_files_are_gone_soon_here_and_in_its_folder(make_heart: Callable[..., tuple[Town, Port]]) -> None:
    town, _ = make_heart(every="2h")
    other = town.folder / "probe" / "kept.dcm"
    other.parent.mkdir()
    other.write_bytes(b"somebody else's")
    pulse(town)
    town.send(ct_study(SeriesDescription="bone"))
    town.settle()
    pulse(town)
    assert list((town.folder / "probe").rglob("*-ct-test/*.dcm"))
    town.wait(seconds=KEPT.total_seconds() + 60)
    pulse(town)
    assert [path.name for path in (town.folder / "probe").rglob("*.dcm")] == ["kept.dcm"]
    with town.house.store.read() as session:
        phantom = session.scalars(select(StudyRow).where(~heartbeats.of_patients())).one()
        patient = session.scalars(select(StudyRow).where(heartbeats.of_patients())).one()
    assert phantom.removed_at is not None
    assert patient.removed_at is None
    left = [read_header(path).PatientID for path in (town.settings.node.data / "studies").rglob("*.dcm")]
    assert set(left) == {"P1"}


def test_a_phantom_of_another_node_goes_nowhere(make_town: Make) -> None:
    town = make_town()
    town.send(ct_study(patient=HEARTBEAT_PATIENT.lower()))
    town.settle()
    assert town.engine.calls == []
    assert town.results() == []


def test_the_heartbeat_is_a_duty_of_the_clock(town: Town) -> None:
    assert "heartbeat" in [duty.name for duty in duties(town.house)]
    pulse(town)
    assert rows(town) == []
