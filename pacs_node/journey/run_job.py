"""Job → finding → objects: claim, analyse, build, pass the gate, and commit the finding, the objects and the outbox in one transaction.

A worker renews its lease from a thread of its own while it works. Whoever loses the lease (cancelled, or too long silent) stops at the
next sign and commits nothing: the commit asks once more whether the job is still its own.
"""

from __future__ import annotations

import os
import shutil
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from sqlalchemy.orm import Session

from pacs_node import crash
from pacs_node.analysis import pipeline
from pacs_node.analysis.bundle import Bundle, load
from pacs_node.analysis.origin import is_known, words
from pacs_node.database import deliveries, embeddings, events, jobs, studies
from pacs_node.database.alerts import clear_alert
from pacs_node.database.heartbeats import is_heartbeat
from pacs_node.database.states import JobState
from pacs_node.database.tables import JobRow, ObjectRow, StudyRow
from pacs_node.dicom.header import DAMAGED
from pacs_node.errors import BundleError, DatabaseUnavailable, DeviceLost, NotAnalysable, NotFinite, PacsNodeError
from pacs_node.executors.retry import LADDER, Effort, Fault, fault_of
from pacs_node.journey import House
from pacs_node.journey.build import Built, Part, Task, attempt_folder, build_all, embedded, sources_of
from pacs_node.journey.heart import Heart, Life, LostJob
from pacs_node.journey.leases import decide_after
from pacs_node.journey.noting import note_analysed
from pacs_node.journey.tallying import STEP, bundle_of, count_end, count_results
from pacs_node.monitoring.logs import study_tag
from pacs_node.records import Finding, HeadScore, Hottest, Notice, NoticeStatus, PriorReport, Run, SeriesEmbedding


class Engine(Protocol):
    """What judges a series: the autoencoder bundles, or a stand-in that needs no model."""

    def analyse(self, files: Sequence[Path], name: str, folders: Mapping[str, Path], beat: Callable[[float], None], effort: Effort = LADDER[0]) -> Finding:
        """Judge the series in ``files`` with the bundle ``name``, with no more memory than ``effort`` allows; raises `NotAnalysable` or `BundleError`."""


@dataclass
class Bundles:
    """The engine of the product: the installed bundles, kept warm, on one device."""

    device: str
    look_up: Callable[[], Mapping[str, Path]] = dict  # the bundles installed by now, for a name that was not there at the start
    warm: dict[tuple[str, float], Bundle] = field(default_factory=dict)

    def analyse(self, files: Sequence[Path], name: str, folders: Mapping[str, Path], beat: Callable[[float], None], effort: Effort = LADDER[0]) -> Finding:
        """Judge one series; see `Engine`."""
        device = "cpu" if effort.on_cpu else self.device
        if effort != LADDER[0] and self.device != "cpu":
            torch.cuda.empty_cache()  # what the failed attempt left
        return pipeline.analyse(files, self.bundle(folders, name), device, beat=beat, today=datetime.now(UTC).date(), batch=effort.batch)

    def bundle(self, folders: Mapping[str, Path], name: str) -> Bundle:
        """Return a bundle, loaded and verified once as long as its files do not change."""
        folder = folders.get(name) or self.look_up().get(name)
        if folder is None:
            raise BundleError(name, f"is not among the installed ones ({', '.join(sorted(folders)) or 'there are none'}): install it in the models folder")
        try:
            key = (name, max(file.stat().st_mtime for file in folder.iterdir()))
        except (OSError, ValueError) as error:
            raise BundleError(folder, f"cannot be read ({error}): install it again") from error
        if key not in self.warm:
            self.warm = {known: bundle for known, bundle in self.warm.items() if known[0] != name}
            self.warm[key] = load(folder)
        return self.warm[key]


@dataclass(frozen=True)
class Worker:
    """A worker: its name stays the same over restarts."""

    name: str
    engine: Engine
    end: Callable[[int], object] = os._exit  # of its process, where a job hangs
    last_resort: Callable[[float | None], None] = lambda seconds: None  # see `heart.Life`

    @property
    def life(self) -> Life:
        """What shows that it is there."""
        return Life(self.name, self.end, self.last_resort)


def run_job(house: House, worker: Worker) -> bool:
    """Claim one job and run it; False where none waits. Raises `DeviceLost` where the process can run no more jobs."""
    with house.store.read() as session:
        waiting, untold = jobs.something_waits(session, house.clock()), jobs.untold(session) is not None
    if not waiting:
        return untold and tell_failure(house)
    with house.store.write() as session:
        job = jobs.claim(session, worker.name, house.clock(), house.settings.executor.lease)
        task = _take_out(house, session, job) if job is not None else None
    if task is None:
        return False
    crash.passed("claimed")
    log = house.log.bind(job=task.job_id, study=study_tag(task.study_uid), pipeline=task.pipeline, run=task.run.number)
    log.info("job started", worker=worker.name, attempt=task.attempts)
    heart = Heart(house, task, worker.life)
    try:
        with heart:
            built = _run(house, worker, task, heart)
            crash.passed("built")
            with house.counts.timed(STEP, "commit", bundle_of(task)):
                house.patiently(lambda: _commit(house, worker, task, built))
            crash.passed("stored")
        count_results(house, task, built)
        verdict = built.finding.verdict.value if built.finding else built.notice.reason if built.notice else "nothing to do"
        log.info("job finished", score=round(built.finding.score, 4) if built.finding else None, verdict=verdict)
    except LostJob:
        count_end(house, task, "lost")
        log.warning("job given up", why="it was cancelled, or its lease was lost")
    except Exception as error:  # the border of the job runner: whatever goes wrong becomes a state
        _go_wrong(house, worker, task, error)
    return True


# --- taking a job out of the database ------------------------------------------------------------------------------------


def _take_out(house: House, session: Session, job: JobRow) -> Task:
    study = studies.get_study(session, job.study_id)
    assert study is not None
    before = jobs.last_report(session, job)
    prior = PriorReport(before.sop_uid, before.sop_class_uid, before.series_uid, study.study_uid) if before else None
    return Task(
        job_id=job.id,
        study_id=study.id,
        study_uid=study.study_uid,
        pipeline=job.pipeline,
        run=_run_facts(house, job, prior),
        targets=list(job.targets),
        files=_files(house, study, job.series_uids, wanted=True),
        others=_files(house, study, job.series_uids, wanted=False),
        attempts=job.attempts,
        rung=job.rung,
        rules=tuple(job.rules),
        heartbeat=is_heartbeat(study),
    )


def _run_facts(house: House, job: JobRow, prior: PriorReport | None) -> Run:
    return Run(
        job_id=job.id,
        number=job.run,
        pipeline=job.pipeline or "routing",
        node_name=house.settings.node.name,
        created_at=job.created_at,
        variant="",
        complete_reason=job.complete_reason,
        partial=job.partial,
        predecessor=prior,
    )


def _files(house: House, study: StudyRow, series_uids: Sequence[str], *, wanted: bool) -> tuple[Path, ...]:
    chosen = [series for series in study.series if (series.series_uid in series_uids) is wanted]
    return tuple(house.data / studies.instance_path(row) for series in chosen for row in series.instances if row.usable and row.removed_at is None)


# --- the run -------------------------------------------------------------------------------------------------------------


def _run(house: House, worker: Worker, task: Task, heart: Heart) -> Built:
    finding, notice = None, None
    if task.pipeline:
        try:
            with house.counts.timed(STEP, "analyse", bundle_of(task)):
                finding = worker.engine.analyse(task.files, task.pipeline, house.bundles, heart.beat, LADDER[min(task.rung, len(LADDER) - 1)])
            _refuse_what_is_no_number(finding)
        except NotAnalysable as error:
            notice = Notice(NoticeStatus.NOT_ATTEMPTED, error.reason)
    else:
        notice = Notice(NoticeStatus.NOT_ATTEMPTED, f"no analysis is configured for such studies (rule {', '.join(task.rules)})")
    crash.passed("analysed")
    built = Built(finding, notice)
    sources = sources_of(task, finding)
    with house.counts.timed(STEP, "build", bundle_of(task)):
        build_all(house, task, built, sources, lambda: heart.beat(0.9), lambda: heart.left)
    return built


def _refuse_what_is_no_number(finding: Finding) -> None:
    """Raise `NotFinite`: a comparison with such a score would call every study unremarkable."""
    seen = np.isfinite(finding.view)
    said: dict[str, ArrayLike] = {"the score": [finding.score, *finding.parts.values()], "the slice scores": finding.slice_scores, "the heat map": finding.heat}
    if finding.head is not None:
        said["the head's probability"] = finding.head.probability
    for what, values in {**said, "the reconstruction": finding.reconstruction[seen]}.items():
        if not np.isfinite(values).all():
            raise NotFinite(finding.algorithm.name, what)


# --- committing ----------------------------------------------------------------------------------------------------------


def _commit(house: House, worker: Worker, task: Task, built: Built) -> None:
    moment, embedding = house.clock(), embedding_of(built.finding) if built.finding else None
    with house.store.write() as session:
        job = jobs.still_mine(session, task.job_id, worker.name, task.attempts)
        if job is None:
            if jobs.was_ended_by(session, task.job_id, worker.name, task.run.number, task.attempts):
                return  # the connection was lost between our commit and its answer
            raise LostJob("lost")
        job.finding = {**(summary(built.finding) if built.finding else {}), **({"representation": built.chosen} if built.chosen else {})}
        for part in built.parts:
            _post(house, session, job, part, moment)
        if embedding is not None and not task.heartbeat:
            embeddings.keep(session, job, embedding, moment)
        else:
            embeddings.forget(session, job.study_id, job.series_uids, pipeline=job.pipeline)
        reason = built.notice.reason if built.notice else ""
        jobs.finish(job, JobState.DONE if built.finding else JobState.NOT_ANALYSED, moment, reason)
        clear_alert(session, "parked", f"job {job.id}", moment)
        _tell_result(session, task, job, built, moment)
        note_analysed(session, worker.name, job, built.finding, moment)


def _tell_result(session: Session, task: Task, job: JobRow, built: Built, moment: datetime) -> None:
    """Make an event of a study's result; of a job under trial and of a heartbeat nobody is told."""
    if job.shadow or task.heartbeat or not job.pipeline:
        return
    said = {name: job.finding.get(name) for name in ("bundle", "score", "verdict", "percentile")}
    places = sorted({name for part in built.parts for name in part.destinations})
    facts = {"study_uid": task.study_uid, "job": job.id, "run": job.run, "pipeline": job.pipeline, "state": job.state.value, "partial": job.partial}
    events.add(session, events.RESULT, f"job {job.id}", {**facts, **said, "reason": job.reason, "destinations": places}, moment)


def embedding_of(finding: Finding) -> SeriesEmbedding | None:
    """Return what the database keeps of a finding to find similar studies by, None where there is no embedding."""
    made = embedded(finding)
    if made is None:
        return None
    volume, bundle = finding.volume, finding.algorithm
    mean, spread = (np.ascontiguousarray(part, "<f2").tobytes() for part in (made.mean, made.spread))
    facts = (volume.series_uid, volume.modality, volume.origin.region, bundle.name, bundle.bundle_hash)
    return SeriesEmbedding(*facts, len(made.slices), mean, spread, finding.score)


def _post(house: House, session: Session, job: JobRow, part: Part, moment: datetime) -> None:
    for obj, path, sha256, faults in part.objects:
        row = ObjectRow(
            job_id=job.id,
            run=job.run,
            variant=part.variant,
            kind=obj.kind,
            sop_uid=obj.sop_uid,
            sop_class_uid=str(obj.dataset.SOPClassUID),
            series_uid=str(obj.dataset.SeriesInstanceUID),
            transfer_syntax_uid=str(obj.dataset.file_meta.TransferSyntaxUID),
            path=path,
            sha256=sha256,
            position=obj.order,
            faults=list(faults),
            size=(house.data / path).stat().st_size,
        )
        rejected = any(found for other, _, _, found in part.objects if other.kind != "notice") and obj.kind != "notice"
        may_leave = not faults and not rejected
        row.withheld = list(part.withheld) if may_leave else []
        session.add(row)
        session.flush()
        job.removed_at = None
        for destination in part.destinations if may_leave else ():
            deliveries.add(session, row, destination, moment)


def summary(finding: Finding) -> dict[str, object]:
    """Return the part of a finding that tables and pages show."""
    return {
        "score": round(finding.score, 6),
        "verdict": finding.verdict.value,
        "percentile": finding.percentile,
        "p_value": finding.p_value,
        "threshold": finding.calibration.threshold if finding.calibration else None,
        "population": finding.calibration.population.value if finding.calibration else None,
        "scanner": finding.calibration.scanner if finding.calibration else None,
        "calibration": finding.algorithm.calibration_hash if finding.calibration else None,
        "origin": words(finding.volume.origin) if is_known(finding.volume.origin) else None,
        "parts": {name: round(value, 6) for name, value in finding.parts.items()},
        "contributions": {name: round(value, 6) for name, value in finding.contributions.items()},
        "hottest": [_hottest(one) for one in finding.hottest],
        **({} if finding.head is None else {"head": _head(finding.head)}),
        "slices": len(finding.volume.frames),
        "top_slices": list(finding.top_slices),
        "bundle": f"{finding.algorithm.name} {finding.algorithm.version}",
        "remarks": list(finding.remarks),
    }


def _head(head: HeadScore) -> dict[str, object]:
    return {"probability": round(head.probability, 4), "auroc": round(head.auroc, 4), "normal": head.normal, "unusual": head.unusual}


def _hottest(one: Hottest) -> dict[str, object]:
    shares = {name: round(value, 4) for name, value in one.contributions.items()}
    return {"slice": one.index, "row": one.row, "column": one.column, "z": round(one.z, 4), "contributions": shares}


# --- when it goes wrong --------------------------------------------------------------------------------------------------


def _go_wrong(house: House, worker: Worker, task: Task, error: Exception) -> None:
    """Queue or park a job whose run raised; raises `DeviceLost` where the process has to end."""
    fault = fault_of(error)
    count_end(house, task, "failed")
    said = isinstance(error, PacsNodeError)  # in one sentence, on purpose
    house.log.error("job failed", job=task.job_id, fault=fault.value, problem=str(error), traceback=None if said else traceback.format_exc())
    if fault is Fault.NO_ROOM:  # nothing of this attempt is committed, and the database needs room to say so
        shutil.rmtree(house.data / attempt_folder(task), ignore_errors=True)
    message = str(error) if said else f"{type(error).__name__}: {error}"
    house.patiently(lambda: _end_badly(house, worker, task, fault, message))
    if fault is Fault.DEVICE_LOST:
        raise DeviceLost(worker.name, message) from error


def _end_badly(house: House, worker: Worker, task: Task, fault: Fault, message: str) -> None:
    with house.store.write() as session:
        job = jobs.still_mine(session, task.job_id, worker.name, task.attempts)
        if job is not None:
            decide_after(house, session, job, fault, message, house.clock())


def tell_failure(house: House) -> bool:
    """Send the notice of one parked job whose destinations have not been told yet; False where all are.

    Derived from the job's state, so that a job parked by whatever process, killed whenever, is told of.
    """
    with house.store.read() as session:
        job = jobs.untold(session)
        if job is None:
            return False
        task, job_id = _take_out(house, session, job), job.id
    built = Built(None, Notice(NoticeStatus.FAILED, "the analysis failed; the operators of the node have been told"))
    try:
        build_all(house, task, built, sources_of(task, None))
    except DatabaseUnavailable:
        raise  # it stays to be told
    except (PacsNodeError, OSError, *DAMAGED) as error:
        house.alert("notice", f"job {job_id}", f"the failure of job {job_id} could not be told to its destinations: {error}")
        built.parts = []
    with house.store.write() as session:
        job = jobs.get_job(session, job_id, to_change=True)
        if job is not None and job.state is JobState.PARKED and job.run == task.run.number and not job.told:
            job.told = True
            for part in built.parts:
                _post(house, session, job, part, house.clock())
    return True
