"""Is a study complete? A decision about values, for a stated reason.

::

    first arrival ─┬──────────────┬── last arrival ───── quiet ─────► complete: quiet ───────┐ verify_with: only when the archive
                   │              └── associations released ────────► complete: released ────┘ counts no more than is here
                   ├── MPPS completed, or availability notified, and all that it lists is here ─► complete: announced
                   └──────────────────── deadline ──────────────────► complete, and PARTIAL where it still waited for something
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pacs_node.assembly.verification import compare
from pacs_node.config import Assembly, Complete
from pacs_node.records import ArchiveAnswer

_KINDS = {"mpps": "MPPS", "availability": "availability notification"}


@dataclass(frozen=True, slots=True)
class Announced:
    """What one performed procedure step or availability notification says of a study; ``missing``: what it lists and is not here."""

    kind: str  # mpps | availability
    state: str  # in progress | completed | discontinued | available
    listed: frozenset[str]
    missing: frozenset[str]


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a study that is being gathered. Times are timezone-aware; late instances begin a new gathering.

    ``open_associations``: of those that brought its instances, how many are still open; ``all_released``: all of them are over and
    none was aborted or lost; ``arriving``: over one of them an object is coming in at this moment. ``here``: the instances of each series, our
    own results left out; ``modalities`` of the series; ``own_series``: those of our results. ``answers``: what archives count, by destination.
    """

    first_arrival: datetime
    last_arrival: datetime
    open_associations: int
    all_released: bool
    series_descriptions: frozenset[str]
    instances: int
    arriving: bool = False
    announced: tuple[Announced, ...] = ()
    here: Mapping[str, int] = field(default_factory=dict)
    modalities: Mapping[str, str] = field(default_factory=dict)
    own_series: frozenset[str] = frozenset()
    answers: Mapping[str, ArchiveAnswer] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Policy:
    """When a study counts as complete for one rule."""

    quiet: timedelta  # since the last instance
    deadline: timedelta  # since the first
    on_release: bool  # a release of all associations is enough
    expect: tuple[str, ...]  # each has to be in some SeriesDescription
    announced: bool = True  # what MPPS and availability notifications say counts
    verify_with: str | None = None  # the archive that is asked how many instances there are
    fetch: bool = False  # what it has more is fetched from it


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether a study is complete.

    ``reason`` says for people why it is (it stays on the job), ``waiting_for`` why it is not. ``partial``: the deadline came
    first. ``look_again_at``: when time alone may change the answer; None where it is final, or only an instance can change it. ``ask``: the
    archive whose answer is awaited; ``fetch``: the series that are to be fetched from it.
    """

    complete: bool
    reason: str
    partial: bool
    waiting_for: str
    look_again_at: datetime | None
    ask: str = ""
    fetch: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Opinion:
    """What one way of looking at a study says: a reason why it is complete, or what it waits for and until when, or neither."""

    reason: str = ""
    waiting_for: str = ""
    until: datetime | None = None  # None: the deadline
    ask: str = ""
    fetch: tuple[str, ...] = ()


def policy(assembly: Assembly, complete: Complete) -> Policy:
    """Return the house's policy with what a rule overrides."""
    return Policy(
        quiet=assembly.quiet if complete.quiet is None else complete.quiet,
        deadline=assembly.deadline if complete.deadline is None else complete.deadline,
        on_release=assembly.on_release if complete.on_release is None else complete.on_release,
        expect=complete.expect,
        announced=complete.announced,
        verify_with=complete.verify_with if "verify_with" in complete.model_fields_set else assembly.verify_with,
        fetch=assembly.fetch if complete.fetch is None else complete.fetch,
    )


def judge(facts: Facts, policy: Policy, now: datetime, wanted: frozenset[str] = frozenset()) -> Judgement:
    """Judge a study for a rule that wants the series ``wanted``.

    Quiet time, a release or an announcement counts only once every expected series is there; the deadline counts always.
    """
    if facts.instances == 0:
        return Judgement(False, "", False, "its first instance", None)
    opinion = _expected(facts, policy) or _announced(facts, policy) or _settled(facts, policy, now, wanted)
    if opinion.reason:
        return Judgement(True, opinion.reason, False, "", None)
    deadline_at = facts.first_arrival + policy.deadline
    if now >= deadline_at:
        return Judgement(True, f"the deadline of {for_people(policy.deadline)} came while it waited for {opinion.waiting_for}", True, "", None)
    if facts.first_arrival - now > policy.deadline:  # the study would wait for as long as the clock was set back
        return Judgement(True, f"its arrival lies in the future, so the clock was set back; it waited for {opinion.waiting_for}", True, "", None)
    again = deadline_at if opinion.until is None else min(opinion.until, deadline_at)
    return Judgement(False, "", False, opinion.waiting_for, again, opinion.ask, opinion.fetch)


def _expected(facts: Facts, policy: Policy) -> _Opinion | None:
    missing = missing_series(facts.series_descriptions, policy.expect)
    return _Opinion(waiting_for=f"series {', '.join(missing)}") if missing else None


def _announced(facts: Facts, policy: Policy) -> _Opinion | None:
    """Return what announcements say; None where there are none, or only of a step that was broken off before all that it lists had come."""
    if not policy.announced or not facts.announced:
        return None
    if any(one.state == "in progress" for one in facts.announced):
        return _Opinion(waiting_for="the end of its performed procedure step (MPPS in progress)")
    whole = [one for one in facts.announced if one.state != "discontinued"]
    missing = frozenset[str]().union(*(one.missing for one in whole))
    listed = frozenset[str]().union(*(one.listed for one in facts.announced))
    if missing:
        kinds = " and ".join(dict.fromkeys(_KINDS[one.kind] for one in whole if one.missing))
        return _Opinion(waiting_for=f"{len(missing)} of the {len(listed)} instances that its {kinds} lists")
    if not listed or any(one.missing for one in facts.announced):
        return None
    words = " and ".join(dict.fromkeys(_words(one) for one in facts.announced))
    return _Opinion(reason=f"{words}, and all {len(listed)} instances listed are here{_also(policy)}")


def _words(one: Announced) -> str:
    return _KINDS[one.kind] if one.state == "available" else f"{_KINDS[one.kind]} {one.state}"


def _settled(facts: Facts, policy: Policy, now: datetime, wanted: frozenset[str]) -> _Opinion:
    """Return why nothing more is expected, or what is waited for, as far as time, associations and the archive tell."""
    quiet_at = facts.last_arrival + policy.quiet
    released = policy.on_release and facts.all_released and facts.open_associations == 0
    if released:
        reason = f"its sender released the association{_also(policy)}"
    elif now < quiet_at:
        release = " or the release of its associations" if policy.on_release and facts.open_associations else ""
        return _Opinion(waiting_for=f"{for_people(policy.quiet)} without an instance{release}", until=quiet_at)
    elif facts.arriving:
        return _Opinion(waiting_for="an object that is coming in", until=now + max(policy.quiet, _LEAST_PAUSE))
    else:
        reason = f"no instance came for {for_people(policy.quiet)}{_also(policy)}{_broken_off(facts, policy)}"
    if policy.verify_with is None:
        return _Opinion(reason=reason)
    return _verified(facts, policy, wanted, reason)


_LEAST_PAUSE = timedelta(seconds=1)


def _verified(facts: Facts, policy: Policy, wanted: frozenset[str], reason: str) -> _Opinion:
    assert policy.verify_with is not None
    name = policy.verify_with
    verdict = compare(name, facts.answers.get(name), facts.here, facts.modalities, facts.own_series, wanted)
    if verdict.settled:
        return _Opinion(reason=f"{reason}; {verdict.words}")
    return _Opinion(waiting_for=verdict.words, ask=name, fetch=verdict.more if policy.fetch else ())


def _also(policy: Policy) -> str:
    return f" and {', '.join(policy.expect)} {'is' if len(policy.expect) == 1 else 'are'} there" if policy.expect else ""


def _broken_off(facts: Facts, policy: Policy) -> str:
    broken_off = policy.announced and any(one.state == "discontinued" for one in facts.announced)
    return "; its performed procedure step was discontinued (MPPS)" if broken_off else ""


def missing_series(descriptions: frozenset[str], expect: tuple[str, ...]) -> tuple[str, ...]:
    """Return the expected texts that are part of no SeriesDescription; case and outer blanks do not matter."""
    present = [description.casefold() for description in descriptions]
    return tuple(text for text in expect if not any(text.strip().casefold() in description for description in present))


def for_people(span: timedelta) -> str:
    """Write a time span in the largest unit of which it is a whole number: ``90 s``, ``2 h``."""
    seconds = span.total_seconds()
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:g} s"
