"""A whole node in one process that can be ended between any two of its lines, the world around it, and a memory of all that it acknowledged.

The house is real: SQLite file, spool, folders, rules, builders. What stands in: the engine, the archive, the clock.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog
from pydicom.uid import ExplicitVRLittleEndian
from sqlalchemy import select
from sqlalchemy.orm import Session

from pacs_node import clock, crash, delivery
from pacs_node.config import DicomDestination, FolderDestination
from pacs_node.database.engine import Store, database_url
from pacs_node.database.tables import InstanceRow
from pacs_node.delivery import folder as folder_delivery
from pacs_node.dicom.header import read_header
from pacs_node.dicom.uids import derive_uid
from pacs_node.errors import BundleError, OutOfScope, TemporaryFailure, UnreadableObject
from pacs_node.journey import House
from pacs_node.journey.deliver import recover as recover_deliveries
from pacs_node.journey.leases import recover as recover_jobs
from pacs_node.journey.run_job import Worker, run_job
from pacs_node.reception import returning, spool
from pacs_node.reception.crashing import CrashingLayer
from pacs_node.reception.spool import Spool
from pacs_node.records import Outcome, Parcel, Sender
from pacs_node.routing import load
from tests.journey.support import TestEngine, Town, ct_slice, encode_body
from tests.journey.test_rejected import rejection

DAY = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
PATIENTS = ("P1", "P2")
STUDIES = ("A", "B")
SERIES = (1, 2)
SLICES = 3  # of a series
LOOKS = ("plain", "plain", "plain", "other pixels", "retouched")

FILE_STEPS = ("part-written", "file-synced", "renamed", "folder-synced")  # while an object is received
STEPS = ("indexed", "moved", "claimed", "analysed", "built", "stored", "sent", "committed", "before a commit", "before a write", "after a write")
PAUSES = ("indexed", "claimed", "analysed", "built", "sent", "before a write", "after a write", "analysing", "offering", "taken")

RULES = {
    "one report": """
rules:
  - {name: head, when: {Modality: CT, BodyPartExamined: HEAD}, pipeline: ct-test, results: [sr], send_to: [archive]}
  - {name: else, otherwise: true, pipeline: null, results: []}
""",
    "every series, two places, a notice where it fails": """
rules:
  - {name: each, when: {Modality: CT}, series: all, pipeline: ct-test, results: [sr], notice: true, send_to: [archive, research], complete: {quiet: 30s}}
""",
    "two pipelines, complete at release": """
rules:
  - {name: first, when: {Modality: CT}, pipeline: ct-test, results: [sr], send_to: [archive], complete: {on_release: true}}
  - {name: second, when: {Modality: CT}, pipeline: ct-two, results: [sr], send_to: [research], priority: urgent}
""",
    "originals and a report": """
rules:
  - {name: passed on, when: {Modality: CT}, pipeline: ct-test, results: [sr], send_to: [archive], forward: [archive]}
""",
    "a notice": """
rules:
  - {name: told, when: {Modality: CT}, pipeline: null, results: [notice], send_to: [archive]}
""",
}


class Crash(BaseException):
    """The process ends here, as by `kill -9`."""


@dataclass
class Seam:
    """Stands in for `crash.passed`: something happens at the n-th pass through a step."""

    step: str = ""
    left: int = 0
    act: Callable[[], None] = lambda: None

    def arm(self, step: str, count: int, act: Callable[[], None]) -> None:
        self.step, self.left, self.act = step, count, act

    def disarm(self) -> None:
        self.step = ""

    def __call__(self, step: str) -> None:
        if step == self.step:
            self.left -= 1
            if self.left <= 0:
                self.disarm()
                self.act()


class BrittleStore(Store):
    """A database whose transactions pass steps: before they begin, before they are committed, after that."""

    @contextmanager
    def write(self) -> Iterator[Session]:
        crash.passed("before a write")
        with super().write() as session:
            yield session
            session.flush()
            crash.passed("before a commit")
        crash.passed("after a write")


# --- what is sent --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Content:
    """One object as a modality sends it. Objects of one ``key`` are the same image of the same patient."""

    study_uid: str
    sop_uid: str
    sop_class_uid: str
    syntax: str
    patient: str
    pixels: str
    body: bytes = field(repr=False)
    digest: str = ""
    damaged: bool = False
    own: bool = False
    rejects: str = ""  # SOP Instance UID

    @property
    def key(self) -> tuple[str, str, str]:
        return self.sop_uid, self.patient, self.pixels


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


@cache
def image(study: str, series: int, index: int, patient: str, look: str = "plain") -> Content:
    """Return a slice; ``look``: as the modality made it, with other pixels, or with another attribute only."""
    changes: dict[str, object] = {"other pixels": {"PixelData": bytes(512)}, "retouched": {"StationName": "OTHER"}}.get(look, {})
    ds = ct_slice(index, study=study, series=series, patient=patient, **changes)
    body = encode_body(ds)
    syntax = str(ds.file_meta.TransferSyntaxUID)
    pixels = _digest(bytes(ds.PixelData))
    return Content(str(ds.StudyInstanceUID), str(ds.SOPInstanceUID), str(ds.SOPClassUID), syntax, patient, pixels, body, _digest(body))


@cache
def rejection_note(study: str, series: int, index: int, patient: str) -> Content:
    """Return the note that rejects a slice for good, for the safety of patients."""
    one = ct_slice(index, study=study, series=series, patient=patient)
    sop = str(one.SOPInstanceUID)
    note = rejection([one], "113037", SOPInstanceUID=derive_uid("note", study, series, index, patient))
    note.SeriesInstanceUID = derive_uid("notes", study)
    body = encode_body(note)
    return Content(
        str(note.StudyInstanceUID), str(note.SOPInstanceUID), str(note.SOPClassUID), ExplicitVRLittleEndian, patient, "", body, _digest(body), rejects=sop
    )


@cache
def damaged(study: str, index: int) -> Content:
    """Return the beginning of a slice, cut within its header."""
    whole = image(study, 1, index, PATIENTS[0])
    body = whole.body[:331] + bytes([index])
    return Content("", f"2.25.99{index}", whole.sop_class_uid, whole.syntax, "", "", body, _digest(body), damaged=True)


def content_of(path: Path) -> bytes:
    """Return the dataset's bytes of a Part 10 file."""
    raw = path.read_bytes()
    return raw[144 + int.from_bytes(raw[140:144], "little") :]


# --- who gets it ---------------------------------------------------------------------------------------------------------


@dataclass
class Places:
    """The destinations: an archive with moods, and a folder. Both tell `leaves` of each object before they take it."""

    leaves: Callable[[str, Parcel], None]
    mood: str = "up"
    kept: dict[str, str] = field(default_factory=dict)  # in the archive: SOP Instance UID → digest of the dataset's bytes

    MOODS = ("up", "up", "away", "refuses", "busy", "warns", "breaks off")

    def archive(self, destination: DicomDestination, parcels: Sequence[Parcel], calling_ae: str, note: delivery.OnOutcome, wanted: delivery.Wanted) -> None:
        """Deliver to the archive; the interface is that of `pacs_node.delivery.cstore`."""
        name = "ARCHIVE at nowhere"
        if self.mood == "away":
            raise TemporaryFailure(name, "cannot be reached")
        for parcel in parcels:
            crash.passed("offering")
            if not wanted(parcel):
                continue
            if self.mood == "refuses":
                note(Outcome(parcel.sop_uid, delivered=False, permanent=True, status=0xA900, message="does not like it"))
            elif self.mood == "busy":
                note(Outcome(parcel.sop_uid, delivered=False, status=0xA700, message="out of resources"))
                return
            else:
                self._keep(parcel)
                if self.mood == "breaks off":
                    raise TemporaryFailure(name, "closed the association before all objects were sent")
                note(Outcome(parcel.sop_uid, delivered=True, status=0xB000 if self.mood == "warns" else 0, message="taken"))

    def _keep(self, parcel: Parcel) -> None:
        self.leaves("archive", parcel)
        self.kept[parcel.sop_uid] = _digest(content_of(parcel.path))
        crash.passed("taken")

    def folder(self, destination: FolderDestination, parcels: Sequence[Parcel], calling_ae: str, note: delivery.OnOutcome, wanted: delivery.Wanted) -> None:
        """Deliver to the folder, really."""

        def judged(parcel: Parcel) -> bool:
            crash.passed("offering")
            go = wanted(parcel)
            if go:
                self.leaves("research", parcel)
            return go

        folder_delivery.deliver(destination, parcels, calling_ae, note, judged)


class Moody(TestEngine):
    """The engine that needs no model, in a mood for the next run."""

    def __init__(self) -> None:
        super().__init__(self._act)
        self.mood = "well"

    def _act(self, name: str) -> None:
        mood, self.mood = self.mood, "well"
        crash.passed("analysing")
        match mood:
            case "out of scope":
                raise OutOfScope("this is no head")
            case "crashes":
                raise RuntimeError("the model fell over")
            case "unusable":
                raise BundleError(name, "is damaged")


# --- the world -----------------------------------------------------------------------------------------------------------


class World(Town):
    """A town that remembers what was acknowledged, and whose node can be ended at any step."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, leaves: Callable[[str, Parcel], None]) -> None:
        self.seam = Seam()
        self.places = Places(leaves)
        self.acknowledged: Counter[str] = Counter()  # digest → how often success was answered for it
        self.attempted: Counter[str] = Counter()  # digest → how often it was begun and not acknowledged: it may be there, too
        self.contents: dict[str, Content] = {}
        self.released: dict[str, set[str]] = {}  # Study Instance UID → patients that an operator declared to be one
        self.retired: set[str] = set()  # SOP Instance UIDs whose files retention removed
        self.touched: set[tuple[str, int]] = set()  # what operators did: ("retried", job), ("cancelled", job), ("cleared", 0)
        self.late = 0  # slices that came late
        self.open: list[tuple[Sender, int]] = []  # associations that are not over
        self.running: set[str] = set()
        self.names = {"left": "left-0", "right": "right-0"}  # of the two workers
        self.rules_used = ["one report"]
        clock_of = SimpleNamespace(time_ns=lambda: int(self.clock.timestamp() * 1e9), time=lambda: self.clock.timestamp())
        for module in (spool, returning):
            patch.setattr(module, "time", clock_of)
        patch.setattr(crash, "passed", self.seam)
        patch.setitem(delivery.DESTINATIONS, "dicom", SimpleNamespace(deliver=self._to_archive))  # type: ignore[arg-type]
        patch.setitem(delivery.DESTINATIONS, "folder", SimpleNamespace(deliver=self._to_folder))  # type: ignore[arg-type]
        destinations = {
            "archive": {"kind": "dicom", "ae_title": "ARCHIVE", "address": "127.0.0.1", "port": 1, "accepts_research": True},
            "research": {"kind": "folder", "path": str(folder / "out")},
        }
        super().__init__(
            folder,
            RULES["one report"],
            {"ct-test": folder, "ct-two": folder},
            destinations=destinations,
            reception={"reserve": "0B"},
            retention={"high_watermark": "100%", "keep": "14d"} | dict.fromkeys(("unrouted", "held", "parked", "undelivered", "aside", "quarantine"), "3650d"),
        )
        self.clock = DAY
        random.seed(0)

    def _to_archive(
        self, destination: DicomDestination, parcels: Sequence[Parcel], ae: str, note: delivery.OnOutcome, wanted: delivery.Wanted, contexts: delivery.Contexts
    ) -> None:
        self.places.archive(destination, parcels, ae, note, wanted)

    def _to_folder(self, destination: FolderDestination, parcels: Sequence[Parcel], ae: str, note: delivery.OnOutcome, wanted: delivery.Wanted) -> None:
        self.places.folder(destination, parcels, ae, note, wanted)

    # --- life and death ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the node as its processes do: sweep, recover, catch up."""
        self.clock = getattr(self, "clock", DAY)
        data = self.settings.node.data
        data.mkdir(exist_ok=True)
        rules = load(self.folder / "rules.yaml", pipelines=self.bundles, destinations=self.settings.destinations)
        store = BrittleStore(database_url(None, data))
        store.upgrade()
        silent = structlog.wrap_logger(structlog.PrintLogger(), wrapper_class=structlog.make_filtering_bound_logger("critical"))
        self.house = House(self.settings, store, rules, self.bundles, Spool(data, files=CrashingLayer()), lambda: self.clock, log=silent)
        self.engine = Moody()
        self.open, self.running = [], set()
        self.house.spool.sweep_parts()
        recover_deliveries(self.house, self.clock)
        clock.CATCH_UP.run(self.house)
        for name in self.names.values():
            recover_jobs(self.house, name, self.clock)

    def restart(self) -> None:
        """End the node wherever it is and start it again; where a crash is ordered for the start, that is survived, too."""
        while True:
            self.house.store.close()
            with suppress(Crash):
                self.start()
                return

    def survive(self, action: Callable[[], object]) -> bool:
        """Do something; where the process ends on the way, start it again. Returns whether it was survived without."""
        try:
            action()
        except Crash:
            self.restart()
            return False
        return True

    def die(self) -> None:
        raise Crash

    # --- what the node does ------------------------------------------------------------------------------------------

    def _alone(self, name: str, action: Callable[[], object]) -> None:
        """Do what never runs twice at a time."""
        if name in self.running:
            return
        self.running.add(name)
        try:
            action()
        finally:
            self.running.discard(name)

    def duties(self) -> list[str]:
        return [duty.name for duty in clock.duties(self.house)]

    def do(self, name: str) -> None:
        """Run a duty of the core."""
        duty = next(duty for duty in clock.duties(self.house) if duty.name == name)
        try:
            self._alone(name, lambda: duty.run(self.house))
        finally:
            if name == "retire":
                self._note_retired()

    def _note_retired(self) -> None:
        with self.house.store.read() as session:
            self.retired |= set(session.scalars(select(InstanceRow.sop_uid).where(InstanceRow.removed_at.is_not(None))))

    def run_worker(self, side: str) -> None:
        """Let one of the two workers run one job."""
        self._alone(side, lambda: run_job(self.house, Worker(self.names[side], self.engine)))

    def lose_worker(self, side: str) -> None:
        """Forget a worker: its machine is gone, another one takes its place under a new name."""
        stem, _, number = self.names[side].partition("-")
        self.names[side] = f"{stem}-{int(number) + 1}"
        self.running.discard(side)

    def pass_through(self) -> None:
        """Let what is here go all the way, as far as destinations allow."""
        self.do("gather")
        self.wait(seconds=31)
        self.do("gather")
        for _ in range(4):
            self.run_worker("left")
        for name in self.duties():
            self.do(name)

    def take_rules(self, name: str) -> None:
        """Read other rules, as after SIGHUP."""
        (self.folder / "rules.yaml").write_text(RULES[name])
        self.house.rules = load(self.folder / "rules.yaml", pipelines=self.bundles, destinations=self.settings.destinations)
        self.rules_used.append(name)

    # --- what senders do ---------------------------------------------------------------------------------------------

    def deliver_in(self, contents: Sequence[Content], *, end: str = "released") -> None:
        """Send objects over one association; each counts as acknowledged when the spool has it. ``end``: released, aborted or open."""
        sender = Sender("CT1", "PACS_NODE", "127.0.0.1:4242", f"a{next(self._count):08d}")
        for content in contents:
            self.contents[content.digest] = content
            self.attempted[content.digest] += 1
            self.house.spool.store(sender, content.sop_class_uid, content.sop_uid, content.syntax, [content.body])
            self.acknowledged[content.digest] += 1
            self.attempted[content.digest] -= 1
        if end == "open":
            self.open.append((sender, len(contents)))
        else:
            self.house.spool.end_association(sender, released=end == "released", stored=len(contents), refused=0)

    def end_associations(self) -> None:
        """Let the open associations end."""
        while self.open:
            sender, count = self.open.pop()
            self.house.spool.end_association(sender, released=True, stored=count, refused=0)

    def results_come_back(self) -> None:
        """Let the archive send what it got from us back to us."""
        back = []
        for path in sorted((self.folder / "out").rglob("*.dcm")):
            header, body = read_header(path), content_of(path)
            study, sop, sop_class = str(header.StudyInstanceUID), str(header.SOPInstanceUID), str(header.SOPClassUID)
            back.append(Content(study, sop, sop_class, str(header.file_meta.TransferSyntaxUID), str(header.PatientID), "", body, _digest(body), own=True))
        self.deliver_in(back[:2])

    # --- what lies where ---------------------------------------------------------------------------------------------

    def files(self) -> dict[Path, str]:
        """Return the received objects on the disk: path → digest of the dataset's bytes."""
        data = self.settings.node.data
        found = [path for pattern in ("spool/new/*/*.dcm", "studies/*/*/*.dcm", "aside/*.dcm", "quarantine/*.dcm") for path in data.glob(pattern)]
        return {path: self._digest_of(path) for path in found}

    def _digest_of(self, path: Path) -> str:
        facts = path.stat()
        return _file_digest(str(path), facts.st_ino, facts.st_mtime_ns, facts.st_size)


@lru_cache(maxsize=20_000)
def _file_digest(path: str, *facts: int) -> str:
    return _digest(content_of(Path(path)))


def identity_of(path: Path) -> tuple[str, str]:
    """Return Study Instance UID and Patient ID of an object that leaves."""
    try:
        header = read_header(path)
    except UnreadableObject as error:
        raise AssertionError(f"an object leaves that cannot be read: {error}") from error
    return str(header.StudyInstanceUID), str(header.PatientID)


LONG = timedelta(hours=3, minutes=5)
"""Longer than any pause between attempts."""
