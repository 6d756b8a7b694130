"""`kill -9` at every named step, with dcmtk's storescu before the node and a real archive behind it that is stopped and started.

The node runs through a whole group of steps. Before each study one step is armed: the process that passes it next is killed there, and
its parent replaces it. Every study's results are to be in the archive exactly once in the end, whatever was killed, and whether the
archive was there or not.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.sop_class import ModalityPerformedProcedureStep as MPPS
from sqlalchemy import select

from pacs_node import crash
from pacs_node.database.tables import DeliveryRow, ObjectRow
from pacs_node.delivery.requestor import Requestor
from pacs_node.records import Parcel
from pacs_node.workbench.fsck import examine
from pacs_node.workbench.tables import open_store
from tests.conftest import IN_CI
from tests.journey.support import ct_study
from tests.journey.test_announced import step as step_of
from tests.node.orthanc import PLUGIN, Orthanc
from tests.node.support import NOTICE_RULES, NodeProcess, wait_until
from tests.node.test_crash_points import LEFT_BEHIND, Tool, send_until_all_are_acknowledged
from tests.node.test_processes import assert_kept, stored, write

pytestmark = [pytest.mark.slow, pytest.mark.peers]

Make = Callable[..., NodeProcess]

COUNT = 4  # instances of each study
RULES = NOTICE_RULES.replace("[research]", "[archive]")

RECEPTION = ("received", "part-written", "file-synced", "renamed", "folder-synced", "answered")
INDEX = ("indexed", "moved")
WORK = ("claimed", "analysed", "built", "stored")
SENDING = ("sent", "committed")
APART = ("noted", "retired", "swept", "told")  # not passed by a study on its way alone: each has a test of its own
NEW = tuple(step for step in crash.STEPS if step not in {*RECEPTION, *INDEX, *WORK, *SENDING, *APART})
"""Steps that were added since: they are killed like the others, and a study that does not pass one fails the test and says so."""


class Killer:
    """Kills the process that passes the step which is armed, once. All processes of a node know all steps; marks keep them from firing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        for step in crash.STEPS:
            (folder / step).touch()
        self.order = f"{folder}:{','.join(f'{step}=1' for step in crash.STEPS)}"

    def arm(self, step: str) -> None:
        (self._folder / step).unlink()

    def fired(self, step: str) -> bool:
        return (self._folder / step).exists()


@pytest.fixture
def orthanc(tmp_path: Path, tool: Tool) -> Iterator[Orthanc]:
    """Give a running archive; it is stopped at the end."""
    archive = Orthanc(tmp_path / "orthanc", tool("Orthanc"), [PLUGIN] if PLUGIN.is_file() else [])
    yield archive.start()
    archive.close()


@pytest.fixture
def killer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Killer:
    """Give what kills the processes of nodes that are started from now on."""
    made = Killer(tmp_path / "marks")
    monkeypatch.setenv(crash.VARIABLE, made.order)
    return made


class Ward:
    """A node before an archive, and what has been sent to it."""

    def __init__(self, node: NodeProcess, orthanc: Orthanc, killer: Killer, tool: Tool) -> None:
        self.node, self.orthanc, self._killer, self._tool = node, orthanc, killer, tool
        self.studies: dict[str, list[Parcel]] = {}

    @property
    def parcels(self) -> list[Parcel]:
        return [parcel for parcels in self.studies.values() for parcel in parcels]

    def kill_at(self, step: str) -> None:
        """Send a study while a step is armed, until all of it is acknowledged and the step has been passed."""
        name = f"{step[:8]}{len(self.studies)}"
        self._killer.arm(step)
        self.send(name, ct_study(COUNT, study=name, patient=name))
        wait_until(lambda: self._killer.fired(step), f"a study passes the step {step}: where none ever does, give it a test of its own", 90)

    def send(self, name: str, images: Sequence[Dataset]) -> None:
        """Send a study with storescu, again and again until all of it is acknowledged."""
        self.studies[name] = write(self.node.folder / f"in-{name}", images)
        send_until_all_are_acknowledged(self._tool, self.node, self.studies[name])

    def jobs_done(self) -> bool:
        """Tell whether each study has its job behind it; then, what is missing is in the outbox."""
        states = [job["state"] for job in self.node.jobs()]
        return states.count("not_analysed") >= len(self.studies) and not {"queued", "running"} & set(states)

    def tried(self, attempts: int) -> bool:
        """Tell whether something that is not delivered was tried that often."""
        with open_store(self.node.settings) as store, store.read() as session:
            return any(row.attempts >= attempts for row in session.scalars(select(DeliveryRow)) if row.state.value != "delivered")

    def built(self) -> dict[str, Path]:
        """Return SOP Instance UID → stored file of all results."""
        with open_store(self.node.settings) as store, store.read() as session:
            return {row.sop_uid: self.node.folder / "data" / row.path for row in session.scalars(select(ObjectRow))}

    def delivered(self) -> bool:
        with open_store(self.node.settings) as store, store.read() as session:
            states = [row.state.value for row in session.scalars(select(DeliveryRow))]
        return len(states) >= len(self.studies) and set(states) <= {"delivered", "cancelled"}


def assert_exactly_once(ward: Ward) -> None:
    """What was acknowledged is kept once; each study has one job, whose objects are in the archive once, as they were built; nothing is left over."""
    node, orthanc = ward.node, ward.orthanc
    wait_until(lambda: ward.jobs_done() and ward.delivered() and node.settled(), "everything is through", 150)
    assert len(stored(node)) == len(ward.parcels)
    assert_kept(node, ward.parcels, [parcel.sop_uid for parcel in ward.parcels])
    assert [job["state"] for job in node.jobs()] == ["not_analysed"] * len(ward.studies)
    with open_store(node.settings) as store, store.read() as session:
        assert [row.state.value for row in session.scalars(select(DeliveryRow))] == ["delivered"] * len(ward.studies)
    there, built = orthanc.instances(), ward.built()
    assert set(there) == set(built) and len(there) == len(ward.studies)
    received = [dcmread(BytesIO(orthanc.file(name))) for name in there.values()]
    sent = [dcmread(parcels[0].path) for parcels in ward.studies.values()]
    assert sorted((one.StudyInstanceUID, one.PatientID) for one in received) == sorted((one.StudyInstanceUID, one.PatientID) for one in sent)
    assert all(dataset == dcmread(built[str(dataset.SOPInstanceUID)]) for dataset in received)
    assert node.terminate() == 0
    assert {finding.what for finding in examine(node.settings, repair=True, deep=True).findings} <= LEFT_BEHIND
    assert examine(node.settings, repair=False, deep=True).findings == []


@dataclass(frozen=True)
class Setup:
    """What differs between the nodes."""

    database: str = "sqlite"
    quiet: str = "2s"
    mpps: bool = False
    web: bool = False  # results go by STOW-RS
    retention: Mapping[str, str] = field(default_factory=dict)


@pytest.fixture
def ward(make_node: Make, make_database: Callable[..., str], orthanc: Orthanc, killer: Killer, tool: Tool, request: pytest.FixtureRequest) -> Ward:
    """Give a node (not started) as the test's parameter says."""
    setup: Setup = getattr(request, "param", Setup())
    database = {} if setup.database == "sqlite" else {"database": {"url": make_database(setup.database)}}
    if setup.web and not PLUGIN.is_file():
        (pytest.fail if IN_CI else pytest.skip)(f"{PLUGIN} is not there: deploy/test.sh installs orthanc-dicomweb when it runs as root")
    place = {"kind": "stow", "url": orthanc.web, "accepts_research": True} if setup.web else orthanc.place
    node = make_node(
        rules=RULES, destinations={"archive": place}, reception={"processes": 2, "mpps": setup.mpps}, assembly={"quiet": setup.quiet},
        retention=setup.retention, **database,
    )  # fmt: skip
    return Ward(node, orthanc, killer, tool)


def kill_while_the_archive_is_away(ward: Ward, steps: Sequence[str], *, each_to_its_end: bool) -> None:
    """Kill at each step of a study; the archive comes back when results have been tried in vain."""
    ward.orthanc.stop()
    for step in steps:
        ward.kill_at(step)
        if each_to_its_end:  # a job whose worker dies three times would be parked
            wait_until(ward.jobs_done, "the job is done by the next process", 90)
    wait_until(ward.jobs_done, "all jobs are done", 90)
    wait_until(lambda: ward.tried(1), "results were tried in vain")
    ward.orthanc.start()


def kill_when_the_archive_has_answered(ward: Ward, steps: Sequence[str]) -> None:
    """Kill between the archive's answer and our note of it; then it is away, and comes back."""
    for step in steps:
        wait_until(ward.delivered, "nothing is left from before", 120)
        ward.kill_at(step)
        ward.orthanc.stop()
        wait_until(lambda: ward.delivered() or ward.tried(2), "the next process knows of it, or tried again")
        ward.orthanc.start()


@pytest.mark.parametrize(
    ("ward", "steps"),
    [(Setup(quiet="10s"), RECEPTION), (Setup(), (*INDEX, *NEW))],  # the sender is not to come back too late, or what is there gets a job of its own
    indirect=["ward"],
    ids=["reception", "index"],
)
def test_a_study_arrives_once_whichever_process_dies_before_its_job(ward: Ward, steps: Sequence[str]) -> None:
    ward.node.start()
    kill_while_the_archive_is_away(ward, steps, each_to_its_end=False)
    assert_exactly_once(ward)


def test_a_job_is_done_once_wherever_its_worker_dies(ward: Ward) -> None:
    ward.node.start()
    kill_while_the_archive_is_away(ward, WORK, each_to_its_end=True)
    assert_exactly_once(ward)


@pytest.mark.parametrize("ward", [Setup(), Setup(web=True)], indirect=True, ids=["C-STORE", "STOW-RS"])
def test_results_are_sent_once_although_the_sender_dies_between_the_answer_and_its_note(ward: Ward) -> None:
    ward.node.start()
    kill_when_the_archive_has_answered(ward, SENDING)
    assert_exactly_once(ward)


@pytest.mark.parametrize("ward", [Setup(database="postgresql")], indirect=True, ids=["postgresql"])
def test_the_same_holds_with_postgresql(ward: Ward) -> None:
    ward.node.start()
    kill_while_the_archive_is_away(ward, ("indexed", "claimed"), each_to_its_end=True)
    kill_when_the_archive_has_answered(ward, SENDING)
    assert_exactly_once(ward)


@pytest.mark.parametrize("ward", [Setup(mpps=True)], indirect=True, ids=["mpps"])
def test_what_a_modality_announced_is_taken_once_although_the_process_dies_over_it(ward: Ward, killer: Killer) -> None:
    ward.node.start()
    ward.orthanc.stop()
    images = ct_study(COUNT, study="noted", patient="noted")
    association = Requestor("CT1", 20, 20, 20).associate("127.0.0.1", ward.node.port, [build_context(MPPS, [ExplicitVRLittleEndian])], "PACS_NODE")
    assert association.send_n_create(step_of("IN PROGRESS", str(images[0].StudyInstanceUID)), MPPS, "1.2.826.0.1.3680043.9.7")[0].Status == 0x0000
    ward.send("noted", images)
    killer.arm("noted")
    assert association.send_n_set(step_of("COMPLETED", images=images), MPPS, "1.2.826.0.1.3680043.9.7")[0].Status == 0x0000
    association.release()
    wait_until(lambda: killer.fired("noted"), "the announcement is taken")
    wait_until(ward.jobs_done, "the study is complete")
    assert [job["complete_reason"] for job in ward.node.jobs()] == [f"MPPS completed, and all {COUNT} instances listed are here"]
    ward.orthanc.start()
    assert_exactly_once(ward)


@pytest.mark.parametrize("ward", [Setup(retention={"high_watermark": "0%"})], indirect=True, ids=["full"])  # above it from the start: swept at once
def test_a_start_killed_while_it_sweeps_delivers_once(ward: Ward, killer: Killer) -> None:
    results = ward.node.folder / "data/results"
    for number in range(3):
        leftover = results / f"0000/{number}.part"
        leftover.parent.mkdir(parents=True, exist_ok=True)
        leftover.write_bytes(b"half")
        os.utime(leftover, (1_000_000_000, 1_000_000_000))
    killer.arm("swept")
    ward.node.start()
    wait_until(lambda: killer.fired("swept"), "it sweeps")
    kill_while_the_archive_is_away(ward, ("claimed",), each_to_its_end=True)
    assert list(results.rglob("*.part")) == []
    assert_exactly_once(ward)


@pytest.mark.parametrize("ward", [Setup(retention={"keep": "5s"})], indirect=True, ids=["kept briefly"])
def test_results_that_wait_for_the_archive_outlive_the_process_that_removes_the_originals(ward: Ward) -> None:
    ward.node.start()
    ward.orthanc.stop()
    ward.kill_at("retired")  # the originals are given up, and still there
    wait_until(lambda: not any(path.exists() for path in stored(ward.node).values()), "the next process removes them")
    built = {uid: dcmread(path) for uid, path in ward.built().items()}
    assert len(built) == 1
    ward.orthanc.start()
    wait_until(lambda: ward.delivered() and ward.node.settled(), "everything is through", 150)
    assert {uid: dcmread(BytesIO(ward.orthanc.file(name))) for uid, name in ward.orthanc.instances().items()} == built
    assert ward.node.terminate() == 0
    assert examine(ward.node.settings, repair=False, deep=True).findings == []


def test_every_step_is_killed_in_one_place() -> None:
    places = (*RECEPTION, *INDEX, *WORK, *SENDING, *APART, *NEW)
    assert sorted(places) == sorted(crash.STEPS)
