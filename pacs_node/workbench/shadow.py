"""`pacs-node shadow`: what the rules under trial would have sent, and how they compare with those that send."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from statistics import median, quantiles
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from pacs_node.config import Settings, parse_duration
from pacs_node.database.states import JobState
from pacs_node.database.tables import JobRow, ObjectRow
from pacs_node.errors import ConfigError, InputError
from pacs_node.journey import now
from pacs_node.workbench.tables import open_store

_AT_A_TIME = 1000  # rows taken out of the database
_FAILED = (JobState.PARKED, JobState.NOT_ANALYSED)


@dataclass(frozen=True, slots=True)
class Fact:
    """The newest run of a job as far as the report needs it."""

    job_id: int
    study_id: int
    series: tuple[str, ...]
    pipeline: str
    state: JobState
    live_rules: tuple[str, ...]
    tried: Mapping[str, frozenset[str]]  # rule under trial → destinations that it names
    verdict: str
    score: float | None
    reason: str
    would_send: Mapping[tuple[str, str], tuple[int, int]] = field(default_factory=dict)  # (destination, kind) → objects, bytes


def report(settings: Settings, span: str) -> list[dict[str, Any]]:
    """Return one entry for each rule that was under trial in a time span such as ``7d``; raises `InputError`."""
    try:
        since = now() - parse_duration(span)
    except ValueError as error:
        raise InputError(f"--past: {error}") from error
    with open_store(settings) as store, store.read() as session:
        return summarise(_facts(session, since))


def summarise(facts: Iterable[Fact]) -> list[dict[str, Any]]:
    """Return what rules under trial came to, each in the order of its first job."""
    tried: dict[str, dict[tuple[int, str, tuple[str, ...]], Fact]] = {}
    live: dict[int, dict[str, Fact]] = defaultdict(dict)  # study → rule → its newest fact
    for fact in facts:
        if fact.state is JobState.CANCELLED:
            continue  # another job has taken its place
        for rule in fact.tried:
            tried.setdefault(rule, {})[fact.study_id, fact.pipeline, fact.series] = fact
        for rule in fact.live_rules:
            live[fact.study_id][rule] = fact
    return [_of_rule(rule, list(found.values()), live) for rule, found in tried.items()]


def _of_rule(rule: str, facts: list[Fact], live: Mapping[int, Mapping[str, Fact]]) -> dict[str, Any]:
    scores = [fact.score for fact in facts if fact.score is not None]
    return {
        "rule": rule,
        "studies": len({fact.study_id for fact in facts}),
        "jobs": dict(Counter(fact.state.value for fact in facts)),
        "verdicts": dict(Counter(fact.verdict for fact in facts if fact.verdict)),
        "scores": _quantiles(scores),
        "would_send": _would_send(rule, facts),
        "failures": [{"reason": reason, "jobs": count} for reason, count in Counter(f.reason for f in facts if f.state in _FAILED).most_common()],
        "beside": _beside(facts, live),
    }


def _quantiles(scores: list[float]) -> dict[str, float]:
    """Return minimum, quartiles, the 95th percentile and maximum; {} without scores."""
    if not scores:
        return {}
    cuts = quantiles(scores, n=20, method="inclusive") if len(scores) > 1 else scores * 19
    return {"min": min(scores), "25 %": cuts[4], "median": median(scores), "75 %": cuts[14], "95 %": cuts[18], "max": max(scores)}


def _would_send(rule: str, facts: Iterable[Fact]) -> list[dict[str, Any]]:
    totals: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for fact in facts:
        for (destination, kind), (objects, size) in fact.would_send.items():
            if destination in fact.tried[rule]:
                totals[destination, kind][0] += objects
                totals[destination, kind][1] += size
    return [{"destination": key[0], "kind": key[1], "objects": objects, "bytes": size} for key, (objects, size) in sorted(totals.items())]


def _beside(facts: Iterable[Fact], live: Mapping[int, Mapping[str, Fact]]) -> list[dict[str, Any]]:
    """Compare with what the rules that send said of the same studies."""
    pairs: dict[str, list[tuple[Fact, Fact]]] = defaultdict(list)
    for fact in facts:
        for rule, other in live.get(fact.study_id, {}).items():
            pairs[rule].append((fact, other))
    return [_compared(rule, found) for rule, found in sorted(pairs.items())]


def _compared(rule: str, pairs: list[tuple[Fact, Fact]]) -> dict[str, Any]:
    judged = [(one, other) for one, other in pairs if one.verdict and other.verdict]
    apart = [one.score - other.score for one, other in judged if one.score is not None and other.score is not None and one.pipeline == other.pipeline]
    return {
        "rule": rule,
        "studies": len({one.study_id for one, _ in pairs}),
        "same_verdict": sum(one.verdict == other.verdict for one, other in judged),
        "other_verdict": sum(one.verdict != other.verdict for one, other in judged),
        "only_here": sum(bool(one.verdict) and not other.verdict for one, other in pairs),
        "only_there": sum(bool(other.verdict) and not one.verdict for one, other in pairs),
        "median_score_difference": median(apart) if apart else None,
    }


# --- out of the database -------------------------------------------------------------------------------------------------


def _facts(session: Session, since: datetime) -> Iterator[Fact]:
    withheld = _withheld(session, since)
    columns = (JobRow.id, JobRow.study_id, JobRow.series_uids, JobRow.pipeline, JobRow.state, JobRow.rules, JobRow.shadow_rules, JobRow.targets)
    query = select(*columns, JobRow.finding, JobRow.reason).where(JobRow.created_at >= since).order_by(JobRow.id)
    for number, study, series, pipeline, state, rules, shadow_rules, targets, finding, reason in session.execute(query.execution_options(yield_per=_AT_A_TIME)):
        tried = {rule: frozenset(str(t["destination"]) for t in targets if rule in t.get("shadow_rules", ())) for rule in shadow_rules}
        live = tuple(rule for rule in rules if rule not in shadow_rules)
        verdict, score = finding.get("verdict", ""), finding.get("score")
        yield Fact(number, study, tuple(series), pipeline, state, live, tried, verdict, score, reason, withheld.get(number, {}))


def _withheld(session: Session, since: datetime) -> dict[int, dict[tuple[str, str], tuple[int, int]]]:
    """Return by job what its newest run withheld: (destination, kind) → objects, bytes."""
    query = select(ObjectRow.job_id, ObjectRow.kind, ObjectRow.size, ObjectRow.withheld).join(JobRow)
    query = query.where(JobRow.created_at >= since, ObjectRow.run == JobRow.run).execution_options(yield_per=_AT_A_TIME)
    found: dict[int, dict[tuple[str, str], tuple[int, int]]] = defaultdict(dict)
    for job_id, kind, size, destinations in session.execute(query):
        for name in destinations:
            objects, total = found[job_id].get((name, kind), (0, 0))
            found[job_id][name, kind] = objects + 1, total + size
    return found


def live_rules(settings: Settings) -> frozenset[str]:
    """Return the names of the rules in force that send what they find; none where the file is wrong."""
    from pacs_node import node

    try:
        return frozenset(rule.name for rule in node.read_rules(settings).rules if not rule.shadow)
    except ConfigError:
        return frozenset()
