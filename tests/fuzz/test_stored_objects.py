"""Whatever lies in the spool: the core says of every object where it ended and why, loses none, and goes on."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import structlog
from hypothesis import strategies as st
from sqlalchemy import select

from pacs_node.assembly import grouping
from pacs_node.database import studies
from pacs_node.database.states import JobState, StudyState
from pacs_node.database.tables import AsideRow, InstanceRow, JobRow, StudyRow
from pacs_node.errors import UnreadableObject
from pacs_node.journey.reconcile import unknown_files
from pacs_node.reception.part10 import Incoming, head
from pacs_node.records import Arrival, Sender
from tests.fuzz.exploring import Explorer
from tests.fuzz.mutation import Draw, damaged_dataset
from tests.fuzz.recordings import BIG, DEFLATED, EXPLICIT, IMPLICIT, JPEG, Letter, encoded, phantoms
from tests.journey.support import Town, ct_study
from tests.reception.test_listener import dataset_bytes_of

pytestmark = pytest.mark.filterwarnings("ignore")  # what pydicom thinks of damaged values is not the question

Posted = tuple[tuple[str, str, str, bytes], ...]
"""SOP class, SOP instance, transfer syntax and bytes of objects, in the order in which they came."""

RULES = """
rules:
  - name: pictures
    when: {Modality: {any_of: [CT, MR, PT, US]}}
    series: all
    pipeline: ct-test
    notice: true
    send_to: [research]
  - name: anything else
    otherwise: true
    pipeline: null
    results: []
"""


@pytest.fixture(scope="module")
def letters() -> list[Letter]:
    """Give images of every modality, in the encodings that are read in different ways."""
    syntaxes = itertools.cycle((EXPLICIT, IMPLICIT, EXPLICIT, DEFLATED, EXPLICIT, JPEG, BIG))
    return [encoded(image, syntax) for image, syntax in zip(phantoms(), syntaxes, strict=False)]


@pytest.fixture
def quiet() -> Iterator[list[structlog.typing.EventDict]]:
    """Keep the log in place of printing it."""
    with structlog.testing.capture_logs() as log:
        yield log


@st.composite
def posted(draw: Draw, letters: list[Letter]) -> Posted:
    """Draw some objects, whole and damaged; some come again, as they were or otherwise."""
    few = draw(st.lists(st.sampled_from(letters), min_size=1, max_size=2))
    found: list[Letter] = draw(st.lists(st.sampled_from(few), min_size=1, max_size=4))
    sent = []
    for letter in found:
        body, way = letter.body, draw(st.sampled_from(("whole", "other pixels", "damaged", "damaged", "damaged")))
        if way == "damaged":
            body = damaged_dataset(draw, body, letter.implicit, letter.order)
        elif way == "other pixels":
            body = body[:-9] + bytes((body[-9] ^ 1,)) + body[-8:]
        sent.append((letter.sop_class, letter.sop_uid, letter.syntax, body))
    return tuple(sent)


def post(town: Town, sent: Posted) -> None:
    """Put objects into the spool as a receiver does."""
    sender = Sender("CT1", "PACS_NODE", "127.0.0.1:4242", "a0000001")
    for sop_class, sop_uid, syntax, body in sent:
        town.house.spool.store(sender, sop_class, sop_uid, syntax, [body])
    town.house.spool.end_association(sender, released=True, stored=len(sent), refused=0)


def endings(town: Town, arrivals: Sequence[Arrival]) -> list[str]:
    """Say where each arrival ended: stored, quarantine, conflict or superseded, its file being there byte for byte; or duplicate."""
    with town.house.store.read() as session:
        instances = {row.arrival: (studies.instance_path(row), "stored") for row in session.scalars(select(InstanceRow))}
        asides = [(row.path, row.kind) for row in session.scalars(select(AsideRow)) if row.reason]
    aside = {Path(path).stem: (path, kind) for path, kind in asides if kind != "superseded"}
    superseded = [path for path, kind in asides if kind == "superseded"]
    found = []
    for arrival in arrivals:
        path, kind = instances.get(arrival.name) or aside.get(arrival.name) or ("", "duplicate")
        assert not path or (town.house.data / path).is_file(), f"the file of an object is gone: {path}"
        found.append(kind)
    assert all((town.house.data / path).is_file() for path in superseded)
    assert found.count("stored") == len(instances), "an instance is indexed that never came"
    return found


def check(log: list[structlog.typing.EventDict], sent: Posted, *, whole: bool) -> None:
    """Let a house take objects in, a good study among them, and with ``whole`` do all that follows."""
    folder = Path(tempfile.mkdtemp())
    town = Town(folder, RULES)
    try:
        good = ct_study(2)
        post(town, sent)
        town.send(good)
        arrivals = [entry for entry in town.house.spool.arrivals() if isinstance(entry, Arrival)]
        town.gather()
        assert not [path for path in town.house.spool.new.rglob("*") if path.is_file()], "the spool is not emptied"
        found = endings(town, arrivals)
        assert found[len(sent) :] == ["stored", "stored"]
        for arrival, (_, _, syntax, body), ending in zip(arrivals, sent, found, strict=False):
            check_kept(town, arrival, syntax, body, ending)
        assert not list(unknown_files(town.house)), "a file lies there that no row names"
        if whole:
            town.restart()
            town.settle()
            check_studies(town, str(good[0].StudyInstanceUID))
    finally:
        town.house.store.close()
        log.clear()
        shutil.rmtree(folder)


def check_kept(town: Town, arrival: Arrival, syntax: str, body: bytes, ending: str) -> None:
    """An object is kept as it came; of a duplicate something is kept that shows the same."""
    assert not arrival.path.exists()
    files = list(town.house.data.rglob("*.dcm"))
    if any(dataset_bytes_of(path) == body for path in files):
        return
    assert ending == "duplicate", f"an object that is {ending} is kept nowhere as it came"
    copy = town.folder / "copy.dcm"
    copy.write_bytes(head(Incoming(arrival.sender, "", "", syntax)) + body)
    assert any(_shows_the_same(path, copy) for path in files), "an object is dropped as a duplicate of nothing"


def _shows_the_same(one: Path, other: Path) -> bool:
    try:
        return grouping.compare(one, other).likeness in (grouping.Likeness.SAME, grouping.Likeness.SAME_PIXELS)
    except UnreadableObject:
        return False


def check_studies(town: Town, good: str) -> None:
    """Nothing waits for ever, and the good study has been judged."""
    with town.house.store.read() as session:
        for study in session.scalars(select(StudyRow)):
            assert study.state in (StudyState.COMPLETE, StudyState.HELD), (study.state, study.waiting_for)
        for job in session.scalars(select(JobRow)):
            assert job.state not in (JobState.RUNNING,), job.reason
        judged = session.scalars(select(JobRow).join(StudyRow, JobRow.study_id == StudyRow.id).where(StudyRow.study_uid == good)).all()
        assert [job.state for job in judged] == [JobState.DONE]


@pytest.mark.slow
def test_every_stored_object_ends_somewhere_with_a_reason(explore: Explorer, letters: list[Letter], quiet: list[structlog.typing.EventDict]) -> None:
    explore(posted(letters), lambda sent: check(quiet, sent, whole=False), examples=80)


@pytest.mark.slow
def test_the_core_goes_on_whatever_was_stored(explore: Explorer, letters: list[Letter], quiet: list[structlog.typing.EventDict]) -> None:
    explore(posted(letters), lambda sent: check(quiet, sent, whole=True), examples=12)
