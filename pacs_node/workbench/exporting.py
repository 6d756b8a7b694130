"""`pacs-node export`: studies that the node holds, and folders, de-identified into another folder.

::

    node: rows, files ─┐                                        ┌─► OUT/<pseudonym>/<study>/<series>/<object>.dcm
                       ├─► traces of the study ─► each object ──┤
    folders ───────────┘     clean · mark · look for traces     └─► left out, with the reason

What is left out is told on the console only, by the source's own name: OUT holds nothing but de-identified objects.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import reduce
from io import BytesIO
from operator import or_
from pathlib import Path
from secrets import token_hex
from typing import Any

from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from pydicom.uid import RawDataStorage
from sqlalchemy import select
from sqlalchemy.orm import Session

from pacs_node.config import Settings
from pacs_node.database import jobs, removal
from pacs_node.database.alerts import audit
from pacs_node.database.states import JobState, StudyState
from pacs_node.database.studies import identity_key, instance_path
from pacs_node.database.tables import InstanceRow, JobRow, ObjectRow, StudyRow
from pacs_node.dicom.header import DAMAGED, PIXEL_KEYWORDS, identity, number_of, read_header, read_object, text_of
from pacs_node.dicom.sop_classes import name_of
from pacs_node.errors import InputError, UnreadableObject
from pacs_node.journey import now
from pacs_node.journey.operate import operator
from pacs_node.workbench.deidentify.cleaning import Cleaner, public_words
from pacs_node.workbench.deidentify.heads import shows_face
from pacs_node.workbench.deidentify.options import Dates, Options
from pacs_node.workbench.deidentify.pixels import Refused, clean_pixels
from pacs_node.workbench.deidentify.pseudonyms import Pseudonyms
from pacs_node.workbench.deidentify.traces import Traces, traces_of
from pacs_node.workbench.studies import ACCESSION, other_meanings, rows_named, studies_below
from pacs_node.workbench.tables import open_store

_PARTIAL = "it is still being received: what is here so far is exported"
_REPORTS = "1.2.840.10008.5.1.4.1.1.88."  # structured reports and key object selections


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to export and where to. ``studies``: numbers, Study Instance UIDs or accession numbers; ``results``: also what the node made of them."""

    out: Path
    map: Path
    studies: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()
    results: bool = False


@dataclass(frozen=True, slots=True)
class LeftOut:
    """One object, or study, that was not exported."""

    source: str
    reason: str


@dataclass
class Exported:
    """What became of everything."""

    studies: int = 0
    written: int = 0
    left_out: list[LeftOut] = field(default_factory=list)
    warnings: dict[str, None] = field(default_factory=dict)  # in their order, each once
    pseudonyms: dict[str, None] = field(default_factory=dict)
    places: set[Path] = field(default_factory=set)  # of what was written

    def sentence(self) -> str:
        """Sum it up."""
        parts = [f"{self.written} objects of {self.studies} studies and {len(self.pseudonyms)} patients exported"]
        return ", ".join(parts + [f"{len(self.left_out)} left out"] * bool(self.left_out))

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        facts: dict[str, Any] = {"studies": self.studies, "written": self.written, "pseudonyms": list(self.pseudonyms)}
        return facts | {"left_out": [asdict(one) for one in self.left_out], "warnings": list(self.warnings)}


@dataclass(frozen=True, slots=True)
class _Source:
    """A study's files; ``number``: of the node's study; ``folder``: in which it was found, if it is none of the node's.

    ``problem``: why nothing of it may go; ``patients``: whose it may be.
    """

    name: str
    files: tuple[Path, ...]
    number: int | None = None
    folder: Path | None = None
    problem: str = ""
    patients: frozenset[tuple[str, ...]] = frozenset()  # as `InstanceRow.identity`; empty: anybody's

    @property
    def subject(self) -> str:
        """What the audit table calls it."""
        return f"study {self.number}" if self.folder is None else "a study in a folder"


def export(settings: Settings, wanted: Wanted, options: Options, said: Callable[[str, float], None] = lambda what, fraction: None) -> Exported:
    """Export; ``said`` hears of each study and the fraction that is over. Raises `InputError` where nothing can be done at all."""
    _refuse_places(settings, wanted)
    exported = Exported()
    sources = [*_of_node(settings, wanted, exported), *_of_folders(wanted.folders, exported)]
    try:
        wanted.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {wanted.out} cannot be made ({error.strerror}): name one that can be written with --out") from error
    with Pseudonyms(wanted.map) as pseudonyms:
        if not pseudonyms.keep_options(wanted.out, options):
            exported.warnings[f"{wanted.out} held files before: with which options they were exported is not in the map {wanted.map}"] = None
        audited = _can_be_audited(settings, sources, exported)
        for done, source in enumerate(sources):
            said(f"exporting {source.name}", done / len(sources))
            with _noted(settings if audited else None, source, options, exported):
                _Study(source, wanted.out, options, pseudonyms, exported).export()
    said("exporting", 1.0)
    return exported


def _refuse_places(settings: Settings, wanted: Wanted) -> None:
    """Raise `InputError` where what is exported would lie among originals, or the map among what is exported."""
    if _within(wanted.map, wanted.out):
        raise InputError(f"the map {wanted.map} leads back to patients and must not lie in the exported folder {wanted.out}: name another file with --map")
    for folder in (*wanted.folders, settings.node.data):
        if _within(wanted.out, folder) or _within(folder, wanted.out):
            raise InputError(f"{wanted.out} and {folder}, which holds originals, must not lie in each other: name another folder with --out")


def _within(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


# --- sources -----------------------------------------------------------------------------------------------------------------


def _of_folders(folders: tuple[Path, ...], exported: Exported) -> Iterator[_Source]:
    for folder in folders:
        for study in studies_below(folder, lambda file, reason: exported.left_out.append(LeftOut(str(file), reason))):
            yield _Source(f"study {study.study_uid} in {folder}", study.files, folder=folder.resolve())


def _of_node(settings: Settings, wanted: Wanted, exported: Exported) -> list[_Source]:
    if not wanted.studies:
        return []
    with open_store(settings) as store, store.read() as session:
        rows = {row.id: row for name in wanted.studies for row in rows_named(session, name)}
        exported.warnings |= dict.fromkeys(one for name in wanted.studies for one in _ambiguous(session, name))
        exported.warnings |= dict.fromkeys(f"study {row.id}: {_PARTIAL}" for row in rows.values() if row.state is StudyState.RECEIVING)
        return [_source(settings, session, row, results=wanted.results) for row in rows.values()]


def _ambiguous(session: Session, name: str) -> Iterator[str]:
    """Give the warnings about a name that may mean several studies."""
    rows = rows_named(session, name)
    if len(rows) > 1:
        yield f"{len(rows)} studies have the accession number {name}: {', '.join(str(row.id) for row in rows)}"
    for other in other_meanings(session, name):
        yield f"{name} is the number of study {rows[0].id}, and the accession number of study {other}, which `{ACCESSION}{name}` names"


def _source(settings: Settings, session: Session, row: StudyRow, *, results: bool) -> _Source:
    name = f"study {row.id}"
    if row.state is StudyState.HELD:
        held = f"it is held: {row.held_reason or 'whose it is, is not certain'}; free it first with `pacs-node release {row.id}`"
        return _Source(name, (), row.id, problem=held)
    here = (InstanceRow.study_id == row.id, InstanceRow.removed_at.is_(None), ~InstanceRow.own, InstanceRow.rejected == "")
    instances = session.scalars(select(InstanceRow).where(*here).order_by(InstanceRow.id)).all()
    paths = [instance_path(one) for one in instances]
    if results:
        paths += [one.path for job in _jobs_that_hold(session, row) for one in _objects_of(job)]
    gone = f"its files were removed ({row.removed_reason})" if row.removed_at else "none of its objects may be used"
    files = tuple(settings.node.data / path for path in paths)
    return _Source(name, files, row.id, problem="" if paths else gone, patients=frozenset(tuple(one.identity) for one in instances))


def _jobs_that_hold(session: Session, row: StudyRow) -> list[JobRow]:
    """Return the newest job of each pipeline and series whose results say of the study what it is now: not of other instances, nor of another patient."""
    done = [job for job in jobs.jobs_of(session, row.id) if job.state is JobState.DONE and not job.shadow]
    newest = {(job.pipeline, *sorted(job.series_uids)): job for job in done if job.digest == removal.present_digest(session, job)}
    return sorted(newest.values(), key=lambda job: job.id)


def _objects_of(job: JobRow) -> list[ObjectRow]:
    """Return the objects of a job's last run that are here, without the variants that the gate has kept back."""
    last = [one for one in job.objects if one.run == job.run]
    rejected = {one.variant for one in last if one.faults}
    return [one for one in last if one.variant not in rejected and one.removed_at is None]


def _can_be_audited(settings: Settings, sources: list[_Source], exported: Exported) -> bool:
    """Tell whether there is an audit table to write into; studies of the node come from beside it, of folders alone it may be missing, which is said."""
    try:
        with open_store(settings):
            return True
    except InputError as error:
        if any(source.folder is None for source in sources):
            raise
        exported.warnings[f"this export is written into no audit table: {error}"] = None
        return False


@contextmanager
def _noted(settings: Settings | None, source: _Source, options: Options, exported: Exported) -> Iterator[None]:
    """Count a study; note in the audit table, where there is one, that it is exported, before anything leaves, and what has left, also after a failure."""
    used = sorted(name for name, value in asdict(options).items() if value and name != "dates")
    before, detail = exported.written, {"dates": options.dates.value, "options": used}
    _note_in_audit(settings, source, "export begun", detail)
    try:
        yield
    finally:
        exported.studies += exported.written > before
        _note_in_audit(settings, source, "exported", {"objects": exported.written - before, **detail})


def _note_in_audit(settings: Settings | None, source: _Source, what: str, detail: dict[str, Any]) -> None:
    if settings is not None:
        with open_store(settings) as store, store.write() as session:
            audit(session, operator(), what, source.subject, detail, now())


# --- one study -----------------------------------------------------------------------------------------------------------------


@dataclass
class _Study:
    """One study on its way out."""

    source: _Source
    out: Path
    options: Options
    pseudonyms: Pseudonyms
    exported: Exported

    def export(self) -> None:
        if self.source.problem:
            self.exported.left_out.append(LeftOut(self.source.name, self.source.problem))
            return
        readable = list(self._readable())
        traces = reduce(or_, (traces_of(header, self.options) for _, header in readable), Traces())
        self._note_in_map(readable, traces)
        for file, header in readable:
            try:
                self._warn(header)
                made, data = self._made(file, traces)
                self._write(self._place(made), data)
                self.exported.written += 1
                self.exported.pseudonyms[str(made.PatientID)] = None
            except (Refused, UnreadableObject) as refusal:
                self._leave_out(file, str(refusal))
            except DAMAGED as error:
                self._leave_out(file, f"it cannot be taken apart and put together again ({type(error).__name__}: {error})")

    def _note_in_map(self, readable: list[tuple[Path, Dataset]], traces: Traces) -> None:
        """Write down what stands for what before anything is written that only the map leads back from."""
        for _, header in readable:
            self.pseudonyms.patient(identity(header), text_of(header, "StudyInstanceUID"))
        for uid in traces.uids:
            self.pseudonyms.uid(uid)
        self.pseudonyms.save()

    def _readable(self) -> Iterator[tuple[Path, Dataset]]:
        for file in self.source.files:
            try:
                yield file, read_header(file)
            except UnreadableObject as error:
                self._leave_out(file, error.reason)

    def _leave_out(self, file: Path, reason: str) -> None:
        self.exported.left_out.append(LeftOut(str(file), reason))

    def _warn(self, header: Dataset) -> None:
        face = shows_face(header)
        kind = text_of(header, "Modality")
        if face is not False:
            why = "shows a head" if face else "does not say which region it shows"
            self._say(f"{kind} {why}: a face could be made of it, and none is removed (defacing is not done here)")
        if kind == "PT" and (self.options.dates is Dates.REMOVE or not self.options.retain_patient_characteristics):
            advice = "--dates shift and --retain-patient-characteristics keep what SUV needs"
            self._say(f"no SUV can be computed of the exported PET without times and weight: {advice}")

    def _say(self, warning: str) -> None:
        self.exported.warnings[f"{self.source.name}: {warning}"] = None

    def _made(self, file: Path, traces: Traces) -> tuple[Dataset, bytes]:
        """Return what is made of an object, and its bytes."""
        dataset = read_object(file)
        _refuse_kind(dataset)
        if self.source.patients and tuple(identity_key(identity(dataset))) not in self.source.patients:
            raise Refused("it names another patient than the study")
        face = shows_face(dataset)
        own = replace(traces, uids=traces_of(dataset, self.options).uids)
        cleaned = clean_pixels(dataset, self.options)
        Cleaner(self.options, self.pseudonyms, traces).clean(dataset, pixels=cleaned)
        if face:
            dataset.RecognizableVisualFeatures = "YES"
        encoded = BytesIO()
        dcmwrite(encoded, dataset, enforce_file_format=True)
        public = public_words(dataset)
        left = own.left_in(encoded.getvalue(), public) or own.left_in_texts(dcmread(BytesIO(encoded.getvalue())), public)
        if left:
            raise Refused(f"a value that identifies (of {left}) still stood in what was made of it")
        self.pseudonyms.save()
        return dataset, encoded.getvalue()

    def _write(self, path: Path, data: bytes) -> None:
        """Write a file as a whole or not at all; none is replaced by another object or by the same one otherwise de-identified."""
        try:
            if path.exists() and path.read_bytes() != data:
                here = (
                    "in this run" if path in self.exported.places else "earlier, from another state of it or with other options: name another folder with --out"
                )
                raise Refused(f"another object with the same SOP Instance UID and other content was exported {here}")
            _write_whole(path, data)
        except OSError as error:
            raise InputError(f"{path} cannot be written ({error.strerror}): the export ends here, and can be begun again into the same folder") from error
        self.exported.places.add(path)

    def _place(self, dataset: Dataset) -> Path:
        study, series, sop = (hashlib.sha256(str(dataset[name].value).encode()).hexdigest()[:16] for name in _LEVELS)
        return self.out / str(dataset.PatientID) / study / series / f"{sop}.dcm"


def _write_whole(path: Path, data: bytes) -> None:
    """Write a file as a whole or not at all, whoever else writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.stem}.{token_hex(4)}.part")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


_LEVELS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


def _refuse_kind(dataset: Dataset) -> None:
    """Raise `Refused` for kinds of objects whose content no rule here cleans."""
    uid = text_of(dataset, "SOPClassUID")
    if not uid.startswith(_REPORTS) and not any(keyword in dataset for keyword in PIXEL_KEYWORDS):
        if number_of(dataset, "Rows"):
            raise Refused("it is an image without pixels")
        why = "it may hold the originals: decode it and export the images" if uid == RawDataStorage else "what it holds cannot be cleaned here"
        raise Refused(f"only images, structured reports and key objects are exported, this is {name_of(uid)}: {why}")
