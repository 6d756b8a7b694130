"""The forms of a condition: what a found value is asked. A new form is one class and one row in `FORMS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Protocol

import regex

from pacs_node.dicom.values import Comparable, Kind, Value, comparable, plain_text
from pacs_node.errors import SlowPattern

PATIENCE = 0.25  # seconds of computing that a regular expression may take for one value
_TRIED = 64  # letters, as many as LO may have (PS3.5 6.2)


class Form(Protocol):
    """A question that a single value answers."""

    def holds(self, value: Value) -> bool:
        """Tell whether the value has what is asked for."""
        ...

    @property
    def words(self) -> str:
        """The question as the rest of a sentence that begins with the attribute."""
        ...


@dataclass(frozen=True, slots=True)
class Equals:
    """The value is this one: text without regard to case, numbers by magnitude."""

    wanted: str
    kind: Kind

    def holds(self, value: Value) -> bool:
        """See `Form`."""
        return comparable(value, self.kind) == comparable(self.wanted, self.kind)

    @property
    def words(self) -> str:
        """See `Form`."""
        return f"is {self.wanted}"


@dataclass(frozen=True, slots=True)
class AnyOf:
    """The value is one of these."""

    wanted: tuple[str, ...]
    kind: Kind

    def holds(self, value: Value) -> bool:
        """See `Form`."""
        return comparable(value, self.kind) in [comparable(one, self.kind) for one in self.wanted]

    @property
    def words(self) -> str:
        """See `Form`."""
        return f"is one of {', '.join(self.wanted)}"


@dataclass(frozen=True, slots=True)
class Contains:
    """The value's text has this in it."""

    wanted: str

    def holds(self, value: Value) -> bool:
        """See `Form`."""
        return not isinstance(value, bytes) and self.wanted.casefold() in plain_text(value).casefold()

    @property
    def words(self) -> str:
        """See `Form`."""
        return f"contains {self.wanted}"


@dataclass(frozen=True, slots=True)
class Matches:
    """The whole value matches a regular expression, without regard to case.

    Some expressions take longer than the universe lasts for a text of forty letters. Such a one is given up with `SlowPattern`, so that it
    halts nobody else; a study that it would decide about is not judged until it is put right.
    """

    wanted: str
    pattern: regex.Pattern[str] = field(compare=False)

    def holds(self, value: Value) -> bool:
        """See `Form`; raises `SlowPattern`."""
        if isinstance(value, bytes):
            return False
        try:
            return self.pattern.fullmatch(plain_text(value), timeout=PATIENCE) is not None
        except TimeoutError as error:
            raise SlowPattern(self.wanted, PATIENCE) from error

    @property
    def words(self) -> str:
        """See `Form`."""
        return f"matches {self.wanted}"


@dataclass(frozen=True, slots=True)
class Least:
    """The value is this or more."""

    wanted: str
    kind: Kind

    def holds(self, value: Value) -> bool:
        """See `Form`."""
        return _ordered(comparable(self.wanted, self.kind), comparable(value, self.kind))

    @property
    def words(self) -> str:
        """See `Form`."""
        return f"is at least {self.wanted}"


@dataclass(frozen=True, slots=True)
class Most:
    """The value is this or less."""

    wanted: str
    kind: Kind

    def holds(self, value: Value) -> bool:
        """See `Form`."""
        return _ordered(comparable(value, self.kind), comparable(self.wanted, self.kind))

    @property
    def words(self) -> str:
        """See `Form`."""
        return f"is at most {self.wanted}"


@dataclass(frozen=True, slots=True)
class Present:
    """The attribute has a value. `conditions` asks its negation (``present: false``) of the whole series."""

    wanted: bool

    def holds(self, value: Value) -> bool:
        """See `Form`: a value that was found is there."""
        return True

    @property
    def words(self) -> str:
        """See `Form`."""
        return "is present" if self.wanted else "is not present"


def _ordered(low: Comparable | None, high: Comparable | None) -> bool:
    """Tell whether low ≤ high, for two values of one type; anything else is in no order."""
    if isinstance(low, str) and isinstance(high, str):
        return low <= high
    return isinstance(low, float) and isinstance(high, float) and low <= high


# --- what is written ---------------------------------------------------------------------------------------------------


def scalar(wanted: Any) -> str:
    """Return a wanted value as text; raises ValueError for anything that is no single value."""
    if isinstance(wanted, bool):
        return "YES" if wanted else "NO"  # the only truth values that DICOM writes (e.g. BurnedInAnnotation)
    if isinstance(wanted, datetime):
        raise ValueError("a date with a time cannot be compared: ask the attributes for date and time apart")
    if isinstance(wanted, date):
        return wanted.strftime("%Y%m%d")
    if isinstance(wanted, list | tuple):
        raise ValueError("one value belongs here, not a list: for several values write {any_of: [A, B]}")
    if not isinstance(wanted, str | int | float) or not plain_text(wanted):
        raise ValueError("a value is missing: write one, or {present: false} for attributes without value")
    return plain_text(wanted)


def _typed(wanted: Any, kind: Kind) -> str:
    text = scalar(wanted)
    if comparable(text, kind) is None:
        raise ValueError(f"{text!r} is not {kind.value}, as this attribute's values are: write one")
    return text


def _any_of(wanted: Any, kind: Kind) -> AnyOf:
    if not isinstance(wanted, list | tuple) or not wanted:
        raise ValueError("must be a list with at least one value, such as [HEAD, BRAIN]")
    return AnyOf(tuple(_typed(one, kind) for one in wanted), kind)


def _contains(wanted: Any, kind: Kind) -> Contains:
    return Contains(scalar(wanted))


def _matches(wanted: Any, kind: Kind) -> Matches:
    text = scalar(wanted)
    try:
        form = Matches(text, regex.compile(text, regex.IGNORECASE | regex.DOTALL))
    except (regex.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{text!r} is no regular expression ({error}): correct it, or write {{contains: …}} for plain text") from error
    _try_out(form)
    return form


def _try_out(form: Matches) -> None:
    """Ask a pattern about long repetitions of what stands in it; raises ValueError where it does not come to an end."""
    try:
        for letter in sorted({"a", "0", " ", *form.wanted.casefold()}):
            form.holds(letter * _TRIED + "\0")
    except SlowPattern as error:
        raise ValueError(str(error)) from error


def _limit(wanted: Any, kind: Kind) -> str:
    if kind is Kind.TEXT:
        raise ValueError("this attribute's values are text, which has no order: write {any_of: […]} or {matches: …}")
    text = _typed(wanted, kind)
    if kind is Kind.UNKNOWN and comparable(text, Kind.NUMBER) is None:
        raise ValueError(f"{text!r} is not a number: write one")
    return text


def flag(wanted: Any) -> bool:
    """Return a truth value, written in YAML or as its text; raises ValueError otherwise."""
    words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    known = words.get(str(wanted).strip().casefold())
    if known is None:
        raise ValueError(f"{wanted!r}: write true or false")
    return known


FORMS: dict[str, Callable[[Any, Kind], Form]] = {
    "equals": lambda wanted, kind: Equals(_typed(wanted, kind), kind),
    "any_of": _any_of,
    "contains": _contains,
    "matches": _matches,
    "min": lambda wanted, kind: Least(_limit(wanted, kind), kind),
    "max": lambda wanted, kind: Most(_limit(wanted, kind), kind),
    "present": lambda wanted, kind: Present(flag(wanted)),
}
