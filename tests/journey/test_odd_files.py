"""Every file of a collection of odd ones through the whole node: over one association, and of each it can be said where it ended and why."""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filereader import read_preamble
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import split_dataset
from sqlalchemy import select

from pacs_node.assembly import grouping
from pacs_node.config import Reception
from pacs_node.database import alerts, studies
from pacs_node.database.states import DeliveryState, JobState, StudyState
from pacs_node.database.tables import AsideRow, AssociationRow, DeliveryRow, InstanceRow, JobRow
from pacs_node.delivery.requestor import Requestor
from pacs_node.dicom.header import DAMAGED
from pacs_node.dicom.sop_classes import VERIFICATION
from pacs_node.errors import OutOfScope
from pacs_node.executors.retry import LADDER, Effort
from pacs_node.journey.run_job import Worker
from pacs_node.reception.listener import ReceiverConfig, Timeouts, open_socket, serve
from pacs_node.records import Finding
from tests.journey.support import TestEngine, Town
from tests.reception.peers import NO_RESERVE, dataset_bytes, wait_until

pytestmark = pytest.mark.slow

RULES = """
rules:
  - name: slices
    when: {Modality: {any_of: [CT, MR]}}
    series: all
    pipeline: ct-test
    notice: true
    send_to: [research]
  - name: pictures and doses
    when: {Modality: {any_of: [CR, DX, US, XA, NM, OT, RTDOSE]}}
    pipeline: null
    results: [notice]
    send_to: [research]
  - name: anything else
    otherwise: true
    pipeline: null
    results: []
"""

RESULTS, NOTICE, NO_PIPELINE, HELD = "a job with results", "a job with a notice", "a study without a pipeline", "a study held"
ASIDE, DUPLICATE, REFUSED, NOT_SENT = "kept aside", "a duplicate", "refused", "not sent"
KINDS = (RESULTS, NOTICE, NO_PIPELINE, HELD, ASIDE, DUPLICATE, REFUSED, NOT_SENT)


@dataclass(frozen=True)
class Ending:
    """Where a file ended."""

    file: str
    kind: str  # one of `KINDS`
    reason: str


def table_of(endings: Sequence[Ending]) -> str:
    """Return how many files ended where, and every file with the reason: for people."""
    counts = Counter(ending.kind for ending in endings)
    lines = [f"{counts[kind]:5d}  {kind}" for kind in KINDS] + [f"{len(endings):5d}  files"]
    return "\n".join(["", *lines, "", *(f"{ending.kind:28s} {ending.file}: {ending.reason}" for ending in endings)])


# --- what is sent ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Letter:
    """A file as a sender reads it: the facts of its C-STORE and the bytes of its dataset."""

    file: str  # its path in the collection
    sop_class: str
    sop_uid: str
    syntax: str
    content: bytes


def open_letter(file: str, path: Path) -> Letter:
    """Read a file as a tolerant sender does, with or without file meta; raises ValueError where it holds no SOP instance."""
    try:
        dataset = dcmread(path, force=True)
        found = [str(dataset.get(keyword) or dataset.file_meta.get(f"MediaStorage{keyword}") or "") for keyword in ("SOPClassUID", "SOPInstanceUID")]
    except DAMAGED as error:
        raise ValueError(f"it cannot be read: {error}") from error
    if not all(found):
        raise ValueError("it holds no SOP Class UID and SOP Instance UID")
    return Letter(file, found[0], found[1], _syntax(dataset), _content(path))


def _syntax(dataset: Dataset) -> str:
    implicit, little = dataset.original_encoding
    guessed = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    return str(dataset.file_meta.get("TransferSyntaxUID") or guessed)


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        has_meta = read_preamble(file, force=True) is not None
    return path.read_bytes()[split_dataset(path)[1] :] if has_meta else path.read_bytes()


@dataclass(frozen=True)
class Sent:
    """What became of a letter at the door."""

    letter: Letter
    arrival: Path | None  # its file as it lay in the spool, None where it was not taken
    refusal: str = ""  # why it was not taken


def send_all(association: Association, letters: Sequence[Letter], town: Town, copies: Path) -> list[Sent]:
    """Send every letter over one association, which answers a C-ECHO after each; what was taken is copied as it lies in the spool."""
    contexts = {(context.abstract_syntax, context.transfer_syntax[0]): context.context_id for context in association.accepted_contexts}
    done = []
    for letter in letters:
        context = contexts.get((UID(letter.sop_class), UID(letter.syntax)))
        if context is None:
            done.append(Sent(letter, None, f"no presentation context for {UID(letter.sop_class).name} in {UID(letter.syntax).name}"))
            continue
        before = set(town.house.spool.new.rglob("*.dcm")), {item.path for item in town.house.spool.quarantined()}
        status = store(association, context, letter)
        new = [path for path in town.house.spool.new.rglob("*.dcm") if path not in before[0]]
        refused = [item for item in town.house.spool.quarantined() if item.path not in before[1]]
        assert (len(new), len(refused)) == ((1, 0) if status == 0 else (0, 1)), (letter.file, hex(status), new, refused)
        done.append(Sent(letter, Path(shutil.copy(new[0], copies))) if new else Sent(letter, None, f"0x{status:04X}: {refused[0].reason}"))
        assert association.send_c_echo().Status == 0x0000, letter.file
    return done


def store(association: Association, context: int, letter: Letter) -> int:
    """Send a letter's bytes as they are, past everything that would make them better."""
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = letter.sop_class, letter.sop_uid
    request.DataSet = BytesIO(letter.content)
    association._reactor_checkpoint.clear()
    wait_until(lambda: association._is_paused)
    association.dimse.send_msg(request, context)
    _, response = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    assert response is not None, f"no response to {letter.file}"
    return int(response.Status)


@contextmanager
def receiver_of(town: Town) -> Iterator[int]:
    """Open the town's own listener; gives its port."""
    config = ReceiverConfig(("PACS_NODE",), town.settings.node.data, Reception(reserve=NO_RESERVE), 0.5, Timeouts(5.0, 5.0, 60.0))
    listening, stop = open_socket("127.0.0.1", 0), threading.Event()
    thread = threading.Thread(target=serve, args=(config, listening, [0], 0, stop))
    thread.start()
    try:
        yield int(listening.getsockname()[1])
    finally:
        stop.set()
        thread.join(30)
        listening.close()


# --- where it ended ----------------------------------------------------------------------------------------------------


class CarefulEngine(TestEngine):
    """Judges nothing that it cannot place."""

    def analyse(self, files: Sequence[Path], name: str, folders: Mapping[str, Path], beat: Callable[[float], None], effort: Effort = LADDER[0]) -> Finding:
        headers = [dcmread(file, stop_before_pixels=True) for file in files]
        for keyword in ("ImagePositionPatient", "FrameOfReferenceUID", "Rows"):
            if any(not header.get(keyword) for header in headers):
                raise OutOfScope(f"an image has no {keyword}")
        return super().analyse(files, name, folders, beat, effort)


def ending_of(town: Town, sent: Sent) -> Ending:
    """Say where a file ended, from the node's own tables; what is kept is kept byte for byte."""
    file, arrival = sent.letter.file, sent.arrival
    if arrival is None:
        return Ending(file, REFUSED, sent.refusal)
    with town.house.store.read() as session:
        rows = list(session.scalars(select(InstanceRow).where(InstanceRow.arrival == arrival.stem)))
        asides = [aside for aside in session.scalars(select(AsideRow)) if _is_of(town, aside, arrival)]
        assert len(rows) + len(asides) <= 1, (file, rows, asides)
        if rows:
            assert dataset_bytes(town.house.data / studies.instance_path(rows[0])) == sent.letter.content, file
            return _of_study(town, file, rows[0])
        if asides:
            assert dataset_bytes(town.house.data / asides[0].path) == sent.letter.content, file
            return Ending(file, ASIDE, f"{asides[0].kind}: {asides[0].reason}")
        same = session.scalars(select(InstanceRow).where(InstanceRow.sop_uid == sent.letter.sop_uid)).one()
        repeat = grouping.compare(town.house.data / studies.instance_path(same), arrival)
    assert repeat.likeness in (grouping.Likeness.SAME, grouping.Likeness.SAME_PIXELS), f"{file} is lost: {repeat}"
    return Ending(file, DUPLICATE, repeat.why)


def _is_of(town: Town, aside: AsideRow, arrival: Path) -> bool:
    """Tell whether what is kept aside is this arrival; what was superseded lies under its study's number."""
    path = town.house.data / aside.path
    return path.read_bytes() == arrival.read_bytes() if aside.kind == "superseded" else path.stem == arrival.stem


def _of_study(town: Town, file: str, row: InstanceRow) -> Ending:
    study = row.series.study
    if study.state is StudyState.HELD:
        return Ending(file, HELD, study.held_reason)
    assert study.state is StudyState.COMPLETE, (file, study.state, study.waiting_for)
    with town.house.store.read() as session:
        jobs = session.scalars(select(JobRow).where(JobRow.study_id == study.id)).all()
        mine = [job for job in jobs if row.series.series_uid in job.series_uids or not job.pipeline]  # a notice speaks for the study
        if not mine:
            return Ending(file, NO_PIPELINE, study.outcome)
        delivered = session.scalars(select(DeliveryRow).where(DeliveryRow.job_id == mine[0].id, DeliveryRow.state == DeliveryState.DELIVERED))
        kinds = sorted(delivery.object.kind for delivery in delivered)
    state = (mine[0].state, kinds)
    made = ["pm", "raw", "sc", "sr"], ["pm", "sc", "sr"]  # the latter where the images cannot be encoded, as an alert says
    assert state in (*((JobState.DONE, kinds) for kinds in made), (JobState.NOT_ANALYSED, ["notice"])), (file, *state, mine[0].reason)
    return Ending(file, RESULTS if "sr" in kinds else NOTICE, f"job {mine[0].id}, {mine[0].reason or mine[0].complete_reason}")


# --- the whole journey -------------------------------------------------------------------------------------------------


KNOWN = {
    "test_files/CT_small.dcm": RESULTS,
    "test_files/dicomdirtests/98892003/MR700/4467": RESULTS,
    "test_files/dicomdirtests/TINY_ALPHA/PT000000/ST000000/SE000000/IM000000": NOTICE,
    "test_files/image_dfl.dcm": NOTICE,
    "charset_files/chrJapMulti.dcm": NOTICE,
    "test_files/test-SR.dcm": NO_PIPELINE,
    "test_files/waveform_ecg.dcm": NO_PIPELINE,
    "test_files/rtstruct.dcm": NO_PIPELINE,
    "test_files/MR_truncated.dcm": ASIDE,
    "test_files/MR_small_padded.dcm": ASIDE,
    "test_files/MR_small_RLE.dcm": DUPLICATE,
    "test_files/MR_small_bigendian.dcm": DUPLICATE,
    "test_files/UN_sequence.dcm": REFUSED,
    "test_files/dicomdirtests/DICOMDIR": REFUSED,
    "test_files/README.txt": NOT_SENT,
    "test_files/zipMR.gz": NOT_SENT,
}


def test_every_file_of_the_collection_ends_in_one_place_with_a_reason(dataset_folder: Callable[[str], Path], town: Town, tmp_path: Path) -> None:
    folder = dataset_folder("pydicom-test-files")
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    endings = send_collection(make_careful(town), files, tmp_path / "copies")
    table = table_of(endings)
    assert sorted(ending.file for ending in endings) == sorted(files), table
    assert all(ending.kind in KINDS and ending.reason for ending in endings), table
    found = {name: ending.kind for name in KNOWN for ending in endings if ending.file.endswith(f"/{name}")}
    assert found == KNOWN, table
    assert_node_counts_as_the_sender(town, endings)
    assert_people_are_told(town, table)


def make_careful(town: Town) -> Town:
    """Give a town the rules of this collection and an engine that takes odd objects."""
    (town.folder / "rules.yaml").write_text(RULES)
    town.restart()
    town.worker = Worker("test:worker-0", CarefulEngine())
    return town


def send_collection(town: Town, files: Mapping[str, Path], copies: Path) -> list[Ending]:
    """Send every file, let time pass, and say of every one where it ended."""
    letters, endings = [], []
    for file, path in files.items():
        try:
            letters.append(open_letter(file, path))
        except ValueError as error:
            endings.append(Ending(file, NOT_SENT, str(error)))
    copies.mkdir()
    with receiver_of(town) as port:
        pairs = dict.fromkeys((letter.sop_class, letter.syntax) for letter in letters)
        contexts = [build_context(VERIFICATION), *(build_context(*pair) for pair in pairs)]
        association = Requestor("CT1", 20, 20, 20).associate("127.0.0.1", port, contexts, "PACS_NODE")
        assert association.is_established
        sent = send_all(association, letters, town, copies)
        association.release()
        assert association.is_released
        wait_until(lambda: list(town.house.spool.new.rglob("*.end")))
    town.clock = datetime.now(UTC)
    town.settle()
    return [*endings, *(ending_of(town, one) for one in sent)]


def assert_node_counts_as_the_sender(town: Town, endings: Sequence[Ending]) -> None:
    counts = Counter(ending.kind for ending in endings)
    refused = sum(ending.reason.startswith("0x") for ending in endings if ending.kind == REFUSED)  # the others had no presentation context
    with town.house.store.read() as session:
        end = session.scalars(select(AssociationRow)).one()
    assert (end.released, end.stored, end.refused) == (True, len(endings) - counts[NOT_SENT] - counts[REFUSED], refused)
    assert not [path for path in town.house.spool.new.rglob("*") if path.is_file()]


def assert_people_are_told(town: Town, table: str) -> None:
    """There is an alert for every file that is kept aside, and no other; a superseded object needs nobody: the whole one took its place."""
    with town.house.store.read() as session:
        kinds = Counter(alert.kind for alert in alerts.open_alerts(session))
        asides = Counter(aside.kind for aside in session.scalars(select(AsideRow)))
    assert kinds == {kind: count for kind, count in asides.items() if kind != "superseded"}, table
