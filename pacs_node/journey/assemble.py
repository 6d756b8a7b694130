"""Instances → jobs: when a study's timer runs out, every rule is asked whether it wants the study and finds it complete.

Headers are read and rules evaluated without a transaction; what they decide is committed only if nothing arrived meanwhile.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta

from pydicom.dataset import Dataset
from sqlalchemy.orm import Session

from pacs_node import routing
from pacs_node.assembly import completeness
from pacs_node.assembly.rejections import TITLES
from pacs_node.database import counts, deliveries, jobs, originals, studies
from pacs_node.database.alerts import audit, clear_alert
from pacs_node.database.heartbeats import is_heartbeat
from pacs_node.database.states import JobState, StudyState, move
from pacs_node.database.tables import InstanceRow, JobRow, StudyRow
from pacs_node.dicom.header import read_header
from pacs_node.errors import DatabaseUnavailable, UnreadableObject
from pacs_node.journey import House
from pacs_node.journey.facts import facts_of
from pacs_node.journey.index import is_mixed
from pacs_node.monitoring.logs import study_tag
from pacs_node.records import DEFAULT_KINDS

_PUT_OFF = timedelta(minutes=5)


@dataclass(frozen=True)
class _Pending:
    """A rule that wants the study but waits."""

    rule: str
    judgement: completeness.Judgement


def assemble(house: House, now: datetime) -> int:
    """Look at every study whose timer has run out; returns how many were looked at."""
    with house.store.read() as session:
        due = studies.due_studies(session, now, house.longest_wait)
    for study_id in due:
        try:
            _look_at(house, study_id, now)
        except (OSError, DatabaseUnavailable):
            raise  # the disk or the database: nothing is wrong with the study
        except Exception as error:  # the border of the periodic duty, study by study: one that cannot be judged stops no other
            house.log.error("study cannot be judged", id=study_id, traceback=traceback.format_exc())
            _put_off(house, study_id, f"{type(error).__name__}: {error}", now)
    return len(due)


def _put_off(house: House, study_id: int, problem: str, now: datetime) -> None:
    """Say that a study cannot be judged, and look again later."""
    house.alert("assembly", f"study {study_id}", f"study {study_id} cannot be judged by the rules ({problem}); it is looked at again every {_PUT_OFF}")
    with house.store.write() as session:
        row = studies.get_study(session, study_id, to_change=True)
        if row is not None:
            row.look_again_at, row.waiting_for = now + _PUT_OFF, f"the next attempt, after a failure ({problem})"


def take_rules(house: House, rules: routing.Rules, now: datetime) -> None:
    """Let new rules decide from now on, also about the studies that still wait: their timers were set by the former ones."""
    house.rules = rules
    with house.store.write() as session:
        studies.wake_all(session, now)
        audit(session, "node", "rules", "rules.yaml", {"rules": [rule.name for rule in rules.rules]}, now)
    house.log.info("rules in force", rules=len(rules.rules))


def _look_at(house: House, study_id: int, now: datetime) -> None:
    with house.store.read() as session:
        study = studies.get_study(session, study_id)
        assert study is not None
        if is_mixed(study):
            _say_held(house, study)
            return
        facts = facts_of(house, session, study)
        received = study.last_arrival
    rules = house.rules
    decisions = routing.route(rules, series_views(study, lambda row: _header(house, row)))
    pending: list[_Pending] = []
    reasons: dict[str, completeness.Judgement] = {}
    heartbeat = is_heartbeat(study)
    if heartbeat:
        decisions = routing.divert(decisions, house.settings.heartbeat.destination if house.settings.heartbeat is not None else None)
    for decision in decisions:
        if decision.fired:
            policy = completeness.policy(house.settings.assembly, decision.rule.complete)
            policy = replace(policy, verify_with=None, expect=()) if heartbeat else policy  # no archive has it, and it is a series only
            judgement = completeness.judge(facts, policy, now, _wanted(decision))
            reasons[decision.rule.name] = judgement
            if not judgement.complete:
                pending.append(_Pending(decision.rule.name, judgement))
    with house.store.write() as session:
        row = studies.get_study(session, study_id, to_change=True)
        if row is None or row.last_arrival != received or row.state is not StudyState.RECEIVING or house.rules is not rules:
            return  # something arrived meanwhile, or other rules are in force: the timer brings us back
        _commit(house, session, row, _Decided(decisions, reasons, pending), now)
        for one in pending:
            if one.judgement.ask:
                counts.want(session, study_id, one.judgement.ask, facts.instances, one.judgement.fetch, now)


def _wanted(decision: routing.Decision) -> frozenset[str]:
    """Return the series that a rule would judge if more of them came: all it may choose from, where it takes the largest."""
    if decision.rule.selection == "largest":
        return frozenset(trial.series_uid for trial in decision.trials if trial.held)
    return frozenset(decision.series_uids)


def _say_held(house: House, study: StudyRow) -> None:
    names = len(studies.identities(study))
    message = (
        f"study {study.id} is held: its instances name {names} different patients under one Study Instance UID; nothing of it is analysed or sent. "
        f"Correct and re-send it, or run `pacs-node release {study.id}` if they are one patient"
    )
    house.alert("held", f"study {study.id}", message)
    with house.store.write() as session:
        row = studies.get_study(session, study.id, to_change=True)
        if row is not None and row.last_arrival == study.last_arrival:
            row.state = move(row.state, StudyState.HELD)
            row.look_again_at, row.waiting_for = None, "a corrected re-send, or release by an operator"
            audit(session, "core", "held", f"study {study.id}", {"study_uid": study.study_uid, "identities": names}, house.clock())


def series_views(study: StudyRow, read: Callable[[InstanceRow], Dataset | None]) -> tuple[routing.SeriesView, ...]:
    """Read the headers of a study's series as the rules see them; our own results are left out, and what retention removed.

    ``read`` returns the header of an instance, None where it cannot be read.
    """
    views = []
    for series in study.series:
        rows = [row for row in series.instances if row.usable and row.removed_at is None]
        headers = [header for row in rows if (header := read(row)) is not None]
        if headers:
            views.append(routing.view(headers, called_ae=rows[0].called_ae, calling_ae=rows[0].calling_ae))
    return tuple(views)


def _header(house: House, row: InstanceRow) -> Dataset | None:
    try:
        return read_header(house.data / studies.instance_path(row), f"instance {row.id} of study {row.study_id}")
    except UnreadableObject as error:
        house.alert("file", f"instance {row.id}", f"a received file cannot be read any more: {error}")
        return None


@dataclass(frozen=True)
class _Decided:
    decisions: Sequence[routing.Decision]
    reasons: dict[str, completeness.Judgement]
    pending: Sequence[_Pending]


def _commit(house: House, session: Session, study: StudyRow, decided: _Decided, now: datetime) -> None:
    waiting_rules = {pending.rule for pending in decided.pending}
    ready = [decision for decision in decided.decisions if decision.fired and not _waits(decision, decided.decisions, waiting_rules)]
    outcome = []
    defaults = {name: DEFAULT_KINDS[destination.kind] for name, destination in house.settings.destinations.items()}
    for request in _one_series_each(routing.jobs(ready, defaults)):
        judgements = [decided.reasons[name] for name in request.rules]
        outcome.append(_make_job(house, session, study, request, judgements, now))
    fired = [decision for decision in decided.decisions if decision.fired]
    outcome += _forward(house, session, study, [decision for decision in fired if decision.rule.name not in waiting_rules], now)
    idle = [decision for decision in fired if decision.rule.pipeline is None and not decision.targets and not decision.forward]
    outcome += [f"no pipeline (rule {decision.rule.name!r})" for decision in idle]
    if not fired:
        outcome.append("no rule fired")
    outcome += _rejected(study)
    clear_alert(session, "assembly", f"study {study.id}", now)
    study.decisions = routing.as_json(decided.decisions)
    study.outcome = "; ".join(dict.fromkeys(outcome))
    times = [pending.judgement.look_again_at for pending in decided.pending if pending.judgement.look_again_at is not None]
    study.waiting_for = "; ".join(f"rule {pending.rule!r} waits for {pending.judgement.waiting_for}" for pending in decided.pending)
    study.look_again_at = min(times) if times else None
    if not decided.pending:
        study.state = move(study.state, StudyState.COMPLETE)
        house.log.info("study complete", study=study_tag(study.study_uid), id=study.id, outcome=study.outcome)


def _waits(decision: routing.Decision, decisions: Sequence[routing.Decision], waiting_rules: Collection[str]) -> bool:
    """Tell whether a rule or one that shares its pipeline still waits, so that their work is one job; for one under trial no other rule waits."""
    sharing = [other for other in decisions if other.fired and other.rule.pipeline == decision.rule.pipeline]
    return any(other.rule.name in waiting_rules for other in sharing if decision.rule.shadow or not other.rule.shadow)


def _forward(house: House, session: Session, study: StudyRow, ready: Sequence[routing.Decision], now: datetime) -> list[str]:
    """Put the originals of a study that is complete into the outbox; what is there already stays. Returns phrases for the study's outcome."""
    names = [name for name in routing.forwards(ready) if name in house.settings.destinations]
    count = originals.forward(session, study, names, now)
    if count:
        house.log.info("originals to be forwarded", study=study_tag(study.study_uid), id=study.id, destinations=names, count=count)
    return [f"originals to {name}" for name in names]


def _rejected(study: StudyRow) -> list[str]:
    """Say how many instances of a study were rejected, and why."""
    counted = Counter(row.rejected for series in study.series for row in series.instances if row.rejected in TITLES)
    return [f"{count} instances rejected ({TITLES[code].meaning})" for code, count in sorted(counted.items())]


def _one_series_each(requests: Sequence[routing.JobRequest]) -> list[routing.JobRequest]:
    """Split work on several series into a job for each, so that one series that cannot be judged takes no other with it."""
    return [replace(request, series_uids=(uid,)) if request.pipeline else request for request in requests for uid in _parts(request)]


def _parts(request: routing.JobRequest) -> Sequence[str]:
    return request.series_uids if request.pipeline else request.series_uids[:1]


def _make_job(house: House, session: Session, study: StudyRow, request: routing.JobRequest, judgements: Sequence[completeness.Judgement], now: datetime) -> str:
    """Make a job unless the same was made before; what it replaces is withdrawn. Returns a phrase for the study's outcome."""
    known = [row for series in study.series if series.series_uid in request.series_uids for row in series.instances if row.usable]
    chosen = [row for row in known if row.removed_at is None]
    missing, digest = len(known) - len(chosen), jobs.digest(chosen)
    same = {digest, jobs.digest(known)}  # what came again after its removal is no news
    name = request.pipeline or "notice"
    before = [
        job
        for job in jobs.jobs_of(session, study.id, to_change=True)
        if job.pipeline == request.pipeline and job.state is not JobState.CANCELLED and set(job.series_uids) & set(request.series_uids)
        if job.shadow is request.shadow  # what is under trial takes the place of no other job
    ]
    made = next((job for job in before if job.digest in same and _covers(job, request) and not deliveries.withdrawn(session, job.id, job.run)), None)
    if made is not None and set(request.shadow_rules) <= set(made.rules):
        return f"{name}: job {made.id}"
    if made is not None:  # the others' job is there already; what is under trial gets one of its own
        return _make_job(house, session, study, request.only_shadow(), judgements, now)
    for job in before:
        if job.state in (JobState.QUEUED, JobState.RUNNING, JobState.PARKED):
            jobs.finish(job, JobState.CANCELLED, now, "overtaken: more of the study arrived")
            deliveries.cancel_of_job(session, job.id, "overtaken: more of the study arrived")
            audit(session, "core", "cancelled", f"job {job.id}", {"study_uid": study.study_uid, "why": job.reason}, now)
    job = JobRow(
        study_id=study.id,
        pipeline=request.pipeline or "",
        series_uids=list(request.series_uids),
        rules=list(request.rules),
        shadow=request.shadow,
        shadow_rules=list(request.shadow_rules),
        targets=[asdict(target) for target in request.targets],
        digest=digest,
        state=JobState.QUEUED,
        priority=jobs.PRIORITIES[request.priority],
        run=jobs.highest_run(session, study.id, request.pipeline or "") + 1,
        predecessor_id=before[-1].id if before else None,
        complete_reason="; ".join([*dict.fromkeys(judgement.reason for judgement in judgements), *_removed_before(missing, len(known))]),
        partial=missing > 0 or any(judgement.partial for judgement in judgements),
        not_before=now,
        created_at=now,
    )
    session.add(job)
    session.flush()
    house.log.info("job made", study=study_tag(study.study_uid), job=job.id, pipeline=name, reason=job.complete_reason, run=job.run, shadow=job.shadow)
    return f"{name}: job {job.id}{' (shadow)' if job.shadow else ''}"


def _covers(job: JobRow, request: routing.JobRequest) -> bool:
    """Tell whether a job sends wherever a request wants something sent; of one under trial, whether it is for the same rules."""
    wanted = {target.destination for target in request.targets if request.shadow or not target.shadow_rules}
    return wanted <= {target["destination"] for target in job.targets if request.shadow or not target.get("shadow_rules")}


def _removed_before(missing: int, known: int) -> list[str]:
    return [f"{missing} of its {known} instances are not looked at: they came earlier and have been removed by retention"] if missing else []
