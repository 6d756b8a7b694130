"""What is finished → forgotten: files go by age and by the disk's fill, rows stay and say when and why.

Each unit (a study's originals, a job's results, a file kept aside) is judged by values, given up in one short write that also lists its
files, and only then taken off the disk. Killed in between, the next look works off the list. While a backup holds the files, nothing goes,
unless the disk is about to refuse new instances.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from pacs_node import crash
from pacs_node.assembly.encoded import fingerprint
from pacs_node.database import jobs, removal, studies
from pacs_node.database.alerts import audit, clear_alert, raise_alert
from pacs_node.database.states import JobState, StudyState
from pacs_node.database.tables import JobRow, StudyRow
from pacs_node.errors import UnreadableObject
from pacs_node.journey import House
from pacs_node.monitoring.logs import study_tag
from pacs_node.reception.pressure import Pressure, pressure_of
from pacs_node.retention import policy, sweep
from pacs_node.retention.policy import Action, Kind, Verdict
from pacs_node.retention.sweep import Swept

_SECONDS = 10.0  # of a look at one of the three: the next goes on where it ended
_PAGE = 100  # units looked at in one go
_FILES = 200  # removed between two looks at the list: so long does intake wait for the folders

_ORIGINALS = (Kind.FINISHED, Kind.UNROUTED, Kind.HELD, Kind.PARKED, Kind.UNFORWARDED)
_RESULTS = (Kind.DELIVERED, Kind.UNDELIVERED)


@dataclass
class _Look:
    """One look at what is ripe: when, whether the disk presses, and until when it may last (monotonic)."""

    house: House
    now: datetime
    pressed: bool
    end: float = 0.0

    def over(self) -> bool:
        return time.monotonic() > self.end


def retire(house: House, moment: datetime) -> Swept:
    """Remove what may go, oldest first; returns what was removed. A look that takes too long is gone on with at the next one."""
    pressure = pressure_of(house.settings, house.measure(house.data))
    with sweep.unpinned(house.data) as free:
        if not free and pressure < Pressure.REJECT:
            return Swept()
        look = _Look(house, moment, pressure >= Pressure.SWEEP)
        total = work_off(house)
        for part in (_aside, _results, _originals):
            look.end = time.monotonic() + _SECONDS
            total += part(look)
    if total.files:
        house.log.info("retired", files=total.files, megabytes=round(total.bytes / 1e6, 1), disk_full=look.pressed)
    return total


def work_off(house: House) -> Swept:
    """Take the files off the disk that have been given up, then off the list."""
    total = Swept()
    while True:
        with house.store.read() as session:
            paths = removal.listed(session, _FILES)
        if not paths:
            return total
        with house.folders:  # nothing is put into a folder while it is removed
            total += sweep.remove(house.data, paths)
        with house.store.write() as session:
            removal.strike(session, paths)


# --- one kind after the other ----------------------------------------------------------------------------------------------


def _aside(look: _Look) -> Swept:
    total = Swept()
    for kind, rows in ((Kind.ASIDE, ("conflict", "superseded")), (Kind.QUARANTINE, ("quarantine",))):
        before = look.now - policy.age_of(kind, look.house.settings.retention)
        while _retire_aside(look, rows, before):
            crash.passed("retired")
            total += work_off(look.house)
            if look.over():
                break
    return total


def _retire_aside(look: _Look, kinds: tuple[str, ...], before: datetime) -> bool:
    """Give up some files that are kept aside; False where none is ripe."""
    with look.house.store.read() as session:
        if not removal.ripe_aside(session, kinds, before, 1):
            return False
    with look.house.store.write() as session:
        for row in removal.ripe_aside(session, kinds, before, _PAGE):
            removal.retire_aside(session, row, look.now)
            audit(session, "core", "retired", f"file kept aside {row.id}", {"kind": row.kind}, look.now)
    return True


def _results(look: _Look) -> Swept:
    total = Swept()
    for number in _ripe(look, "results", _RESULTS, _page_of_jobs):
        with look.house.store.read() as session:
            job = session.get_one(JobRow, number)
            stays = _stays(session, _judge_results(look, session, job), f"job {number}")
        if stays:
            continue
        with look.house.store.write() as session:
            done = _retire_results(look, session, number)
        total += _off_the_disk(look, done)
    return total


def _originals(look: _Look) -> Swept:
    total = Swept()
    for number in _ripe(look, "originals", _ORIGINALS, _page_of_studies):
        digests = _digests(look, number)
        if digests is None:
            continue
        with look.house.store.write() as session:
            done = _retire_study(look, session, number, digests)
        total += _off_the_disk(look, done)
    return total


def _off_the_disk(look: _Look, done: bool) -> Swept:
    if not done:
        return Swept()
    crash.passed("retired")
    swept = work_off(look.house)
    look.pressed = look.pressed and pressure_of(look.house.settings, look.house.measure(look.house.data)) >= Pressure.SWEEP
    return swept


_Page = Callable[[Session, datetime, removal.Place | None], list[removal.Place]]


def _ripe(look: _Look, name: str, kinds: tuple[Kind, ...], page: _Page) -> Iterator[int]:
    """Give the numbers of what may be ripe, oldest first, from where the last look ended; what has to stay is passed by, and seen again the next time round."""
    house, pressed = look.house, look.pressed
    before = look.now - policy.youngest(house.settings.retention, pressed=pressed, kinds=kinds)
    place = house.looked.pop(f"{name} {pressed}", None)
    while True:
        with house.store.read() as session:
            found = page(session, before, place)
        for at, number in found:
            if look.pressed is not pressed:
                return  # the disk has room again: the next look begins with the oldest
            yield number
            place = at, number
            if look.over():
                house.looked[f"{name} {pressed}"] = place
                return
        if len(found) < _PAGE:
            return


def _page_of_studies(session: Session, before: datetime, place: removal.Place | None) -> list[removal.Place]:
    return [(row.last_arrival, row.id) for row in removal.ripe_studies(session, before, place, _PAGE)]


def _page_of_jobs(session: Session, before: datetime, place: removal.Place | None) -> list[removal.Place]:
    return [(row.finished_at or before, row.id) for row in removal.ripe_jobs(session, before, place, _PAGE)]


# --- studies ---------------------------------------------------------------------------------------------------------------


def _digests(look: _Look, study_id: int) -> dict[str, str] | None:
    """Return path → digest of the files that may go, for repeats to be compared with; None where nothing is to be done. Without a transaction."""
    with look.house.store.read() as session:
        verdict = _judge_study(look, session, session.get_one(StudyRow, study_id))
        if _stays(session, verdict, f"study {study_id}"):
            return None
        rows = removal.files_of(session, study_id) if verdict.action is Action.REMOVE else []
        paths = {studies.instance_path(row): row.arrival for row in rows}
    if any(not (look.house.data / path).exists() and look.house.spool.find(arrival) for path, arrival in paths.items()):
        return None  # a crash left some in the spool: they have yet to be brought into place
    return {path: _digest(look.house, path) for path in paths}


def _digest(house: House, path: str) -> str:
    try:
        return fingerprint(house.data / path)[1]
    except UnreadableObject:
        return ""  # damaged, or gone: nothing will be found the same


def _judge_study(look: _Look, session: Session, study: StudyRow) -> Verdict:
    states, ended = removal.job_states(session, study.id)
    facts = policy.StudyFacts(
        receiving=study.state is StudyState.RECEIVING,
        held=study.state is StudyState.HELD,
        jobs=len(states),
        parked=JobState.PARKED in states,
        unforwarded=removal.unforwarded(session, study.id),
        needed=removal.needed_by(session, study.id),
    )
    since = max(study.last_arrival, ended) if ended is not None else study.last_arrival
    return _decide(look, session, policy.kind_of_study(facts), since, f"study {study.id}")


def _retire_study(look: _Look, session: Session, study_id: int, digests: dict[str, str]) -> bool:
    """Give a study's originals up, or say that they will go; judged once more, under the lock. True where files are to be removed."""
    study = next(iter(studies.lock(session, [study_id])), None)
    if study is None or study.removed_at is not None:
        return False
    verdict = _judge_study(look, session, study)
    _say(look, session, verdict, f"study {study_id}", f"the received files of study {study_id}")
    if verdict.action is not Action.REMOVE or not removal.retire_study(session, study, digests, look.now, verdict.why):
        return False
    audit(session, "core", "retired", f"study {study_id}", {"study_uid": study.study_uid, "files": len(digests), "why": verdict.why}, look.now)
    look.house.log.info("originals removed", study=study_tag(study.study_uid), id=study_id, files=len(digests), why=verdict.why)
    return True


# --- results ---------------------------------------------------------------------------------------------------------------


def _retire_results(look: _Look, session: Session, job_id: int) -> bool:
    """Give a job's results up, or say that they will go. True where files are to be removed."""
    job = jobs.lock(session, job_id)
    if job is None or job.removed_at is not None or job.finished_at is None:
        return False
    verdict = _judge_results(look, session, job)
    _say(look, session, verdict, f"job {job_id}", f"the undelivered results of job {job_id}")
    if verdict.action is not Action.REMOVE:
        return False
    paths = removal.retire_results(session, job, look.now, verdict.why)
    if paths:
        audit(session, "core", "retired", f"job {job_id}", {"study_uid": job.study.study_uid, "files": len(paths), "why": verdict.why}, look.now)
        look.house.log.info("results removed", job=job_id, files=len(paths), why=verdict.why)
    return bool(paths)


def _judge_results(look: _Look, session: Session, job: JobRow) -> Verdict:
    going_on, stuck, arrived = removal.outbox_of(session, job.id)
    finished = job.finished_at or look.now
    since = max(finished, arrived) if arrived is not None else finished
    return _decide(look, session, policy.kind_of_results(going_on, stuck), since, f"job {job.id}")


# --- the decision and its warning --------------------------------------------------------------------------------------------


def _decide(look: _Look, session: Session, kind: Kind | None, since: datetime, subject: str) -> Verdict:
    warned = removal.warned_at(session, subject)
    return policy.decide(kind, since, warned, look.house.settings.retention, look.now, pressed=look.pressed)


def _stays(session: Session, verdict: Verdict, subject: str) -> bool:
    """Tell whether nothing is to be written: it stays and nothing was said, or it was said that it will go."""
    said = removal.warned_at(session, subject) is not None
    return verdict.action is (Action.WARN if said else Action.KEEP)


def _say(look: _Look, session: Session, verdict: Verdict, subject: str, what: str) -> None:
    """Raise the alert that something will go, or take it back."""
    if verdict.action is not Action.WARN:
        clear_alert(session, "retention", subject, look.now)
        return
    message = f"{what} will be removed after {verdict.due:%Y-%m-%d %H:%M} UTC: {verdict.why}. `pacs-node status` says what would help"
    if raise_alert(session, "retention", subject, message, look.now):
        look.house.log.error("alert", kind="retention", subject=subject, message=message)
