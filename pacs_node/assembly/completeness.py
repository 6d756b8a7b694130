"""Is a study complete? A decision about values, for a stated reason.

::

    first arrival ─┬──────────────┬── last arrival ───── quiet ─────► complete: quiet
                   │              └── associations released ────────► complete: released (on_release)
                   └──────────────────── deadline ──────────────────► complete, and PARTIAL where it still waited for something
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from pacs_node.config import Assembly, Complete


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a study that is being gathered. Times are timezone-aware; late instances begin a new gathering.

    ``open_associations``: of those that brought its instances, how many are still open; ``all_released``: all of them are over and
    none was aborted or lost.
    """

    first_arrival: datetime
    last_arrival: datetime
    open_associations: int
    all_released: bool
    series_descriptions: frozenset[str]
    instances: int


@dataclass(frozen=True, slots=True)
class Policy:
    """When a study counts as complete for one rule."""

    quiet: timedelta  # since the last instance
    deadline: timedelta  # since the first
    on_release: bool  # a release of all associations is enough
    expect: tuple[str, ...]  # each has to be in some SeriesDescription


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether a study is complete.

    ``reason`` says for people why it is (it stays on the job), ``waiting_for`` why it is not. ``partial``: the deadline came
    first. ``look_again_at``: when time alone may change the answer; None where it is final, or only an instance can change it.
    """

    complete: bool
    reason: str
    partial: bool
    waiting_for: str
    look_again_at: datetime | None


def policy(assembly: Assembly, complete: Complete) -> Policy:
    """Return the house's policy with what a rule overrides."""
    return Policy(
        quiet=assembly.quiet if complete.quiet is None else complete.quiet,
        deadline=assembly.deadline if complete.deadline is None else complete.deadline,
        on_release=assembly.on_release if complete.on_release is None else complete.on_release,
        expect=complete.expect,
    )


def judge(facts: Facts, policy: Policy, now: datetime) -> Judgement:
    """Judge a study. Quiet time or a release counts only once every expected series is there; the deadline counts always."""
    if facts.instances == 0:
        return Judgement(False, "", False, "its first instance", None)
    missing = missing_series(facts.series_descriptions, policy.expect)
    reason = "" if missing else _settled(facts, policy, now)
    if reason:
        return Judgement(True, reason, False, "", None)
    deadline_at = facts.first_arrival + policy.deadline
    quiet_at = facts.last_arrival + policy.quiet
    waiting = _awaited(missing, policy, facts)
    if now >= deadline_at:
        return Judgement(True, f"the deadline of {for_people(policy.deadline)} came while it waited for {waiting}", True, "", None)
    if facts.first_arrival - now > policy.deadline:  # the study would wait for as long as the clock was set back
        return Judgement(True, f"its arrival lies in the future, so the clock was set back; it waited for {waiting}", True, "", None)
    return Judgement(False, "", False, waiting, deadline_at if missing else min(quiet_at, deadline_at))


def _settled(facts: Facts, policy: Policy, now: datetime) -> str:
    """Return why nothing more is expected, ``""`` where it still is."""
    also = f" and {', '.join(policy.expect)} {'is' if len(policy.expect) == 1 else 'are'} there" if policy.expect else ""
    if policy.on_release and facts.all_released and facts.open_associations == 0:
        return f"its sender released the association{also}"
    if now - facts.last_arrival >= policy.quiet:
        return f"no instance came for {for_people(policy.quiet)}{also}"
    return ""


def _awaited(missing: tuple[str, ...], policy: Policy, facts: Facts) -> str:
    if missing:
        return f"series {', '.join(missing)}"
    release = " or the release of its associations" if policy.on_release and facts.open_associations else ""
    return f"{for_people(policy.quiet)} without an instance{release}"


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
