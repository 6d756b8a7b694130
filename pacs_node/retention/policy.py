"""What may go, and when: a table of the kinds of files, and a pure decision.

::

    kind          what it is                                    age of            the disk's fill  said before
                                                                `retention.…`     may take it      it goes
    finished      originals of a study whose results are built  keep              yes              –
    unrouted      originals that no rule wanted                 unrouted          yes              –
    held          originals of a held study                     held              –                an alert
    parked        originals of a parked job                     parked            –                an alert
    unforwarded   originals that an archive refused, or given up undelivered       –                an alert
    delivered     results that are where they should be         keep              yes              –
    undelivered   results that were refused or given up         undelivered       –                an alert
    aside         conflicting and superseded objects            aside             –                –
    quarantine    objects that cannot be dealt with             quarantine        –                –
    (none)        whatever is unfinished                        never             –                –

Unfinished: a study that gathers; originals that a job, a forwarding or an open commitment request needs; results that wait for their
destination. Results that wait do not keep the originals.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from pacs_node.config import Retention

SETTLED = timedelta(minutes=10)  # before the disk's fill takes what is finished: late instances should find their study whole
AHEAD = timedelta(days=7)  # so long before it goes is it said
GRACE = timedelta(days=1)  # so long at least has it been said, whatever its age


class Kind(StrEnum):
    """What a file is to us."""

    FINISHED = "finished"
    UNROUTED = "unrouted"
    HELD = "held"
    PARKED = "parked"
    UNFORWARDED = "unforwarded"
    DELIVERED = "delivered"
    UNDELIVERED = "undelivered"
    ASIDE = "aside"
    QUARANTINE = "quarantine"


@dataclass(frozen=True, slots=True)
class Row:
    """What holds for a kind. ``key``: whose age, of `Retention`; ``yields``: to a full disk; ``warned``: an alert goes before."""

    what: str
    key: str
    yields: bool = False
    warned: bool = False


TABLE: dict[Kind, Row] = {
    Kind.FINISHED: Row("the study is finished", "keep", yields=True),
    Kind.UNROUTED: Row("no rule wanted the study", "unrouted", yields=True),
    Kind.HELD: Row("the study was held and nobody freed it", "held", warned=True),
    Kind.PARKED: Row("a job of the study was parked and nobody ran it again", "parked", warned=True),
    Kind.UNFORWARDED: Row("it was to be forwarded, was refused or given up, and nobody sent it again", "undelivered", warned=True),
    Kind.DELIVERED: Row("its results are delivered", "keep", yields=True),
    Kind.UNDELIVERED: Row("its results were refused or given up and nobody sent them again", "undelivered", warned=True),
    Kind.ASIDE: Row("it was kept aside", "aside"),
    Kind.QUARANTINE: Row("it was in quarantine", "quarantine"),
}


@dataclass(frozen=True, slots=True)
class StudyFacts:
    """What the decision about a study's originals needs. ``needed``: by what, in words (see `database.removal.needed_by`)."""

    receiving: bool
    held: bool
    jobs: int
    parked: bool
    unforwarded: bool = False  # refused or given up on its way to an archive
    needed: tuple[str, ...] = ()


class Action(StrEnum):
    """What becomes of files."""

    KEEP = "keep"
    WARN = "warn"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of files, why (part of a sentence), and when they go at the earliest."""

    action: Action
    why: str
    due: datetime | None = None


def kind_of_study(facts: StudyFacts) -> Kind | None:
    """Return what a study's originals are; None where something of it is unfinished."""
    if facts.receiving or facts.needed:
        return None
    if facts.held:
        return Kind.HELD
    if facts.parked:
        return Kind.PARKED
    if facts.unforwarded:
        return Kind.UNFORWARDED
    return Kind.FINISHED if facts.jobs else Kind.UNROUTED


def kind_of_results(unfinished: int, stuck: int) -> Kind | None:
    """Return what a job's results are, from the numbers of its deliveries that go on and that were refused or given up."""
    if unfinished:
        return None
    return Kind.UNDELIVERED if stuck else Kind.DELIVERED


def age_of(kind: Kind, retention: Retention) -> timedelta:
    """Return how long files of a kind stay."""
    age: timedelta | None = getattr(retention, TABLE[kind].key)
    return retention.keep if age is None else age


def youngest(retention: Retention, *, pressed: bool, kinds: tuple[Kind, ...]) -> timedelta:
    """Return the age below which no file of these kinds needs a look."""
    ages = (age_of(kind, retention) for kind in kinds)
    shortest = min(age - AHEAD if TABLE[kind].warned else age for kind, age in zip(kinds, ages, strict=True))
    return max(timedelta(), min(shortest, SETTLED) if pressed else shortest)


def decide(kind: Kind | None, since: datetime, warned_at: datetime | None, retention: Retention, now: datetime, *, pressed: bool) -> Verdict:
    """Decide what becomes of files.

    ``since``: when the last thing happened to them; ``warned_at``: since when an alert says that they will go; ``pressed``: the disk is
    filled above the watermark. A moment ``since`` in the future (a clock set back) counts as now: nothing goes too early.
    """
    if kind is None:
        return Verdict(Action.KEEP, "it is unfinished")
    row, age, spent = TABLE[kind], age_of(kind, retention), now - since
    if row.warned:
        due = max(since + age, (warned_at or now) + GRACE)
        if due <= now:
            return Verdict(Action.REMOVE, f"{row.what} for longer than {in_words(age)}", due)
        return Verdict(Action.WARN if spent >= age - AHEAD else Action.KEEP, row.what, due)
    if spent >= age:
        return Verdict(Action.REMOVE, f"{row.what}, for longer than {in_words(age)}", since + age)
    if pressed and row.yields and spent >= SETTLED:
        return Verdict(Action.REMOVE, f"{row.what}, and the disk was filled up to retention.high_watermark", now)
    return Verdict(Action.KEEP, row.what, since + age)


def in_words(span: timedelta) -> str:
    """Return a time span as an administrator writes it."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if span and span.total_seconds() % length == 0:
            return f"{span.total_seconds() / length:.0f}{unit}"
    return f"{span.total_seconds():g}s"
