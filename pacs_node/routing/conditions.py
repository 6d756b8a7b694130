"""Conditions on a series: frozen values that can be asked and can explain themselves. `compiling` makes them from `when:` mappings.

::

    {Modality: CT, not: {SeriesDescription: {contains: scout}}}

    All ─┬─ Attribute  Modality is CT
         └─ Not ─ All ── Attribute  SeriesDescription contains scout

An attribute's condition holds where **any** instance of the series (any frame of an enhanced object, any value of a multi-valued
attribute) answers all its forms, with ``all: true`` where every instance (frame) does. A missing attribute answers no form.
``present: false`` holds where no instance has a value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pacs_node.dicom.values import Places, Value, plain_text
from pacs_node.routing.forms import Form, Present
from pacs_node.routing.series import SeriesView

_SHOWN_VALUES = 5


@dataclass(frozen=True, slots=True)
class Line:
    """How one condition came out for one series.

    ``depth`` is how far it stands inside ``not`` and ``or``; ``key`` and ``wanted`` together read as a sentence; ``found`` lists
    the values met (header contents: for operators, not for logs); ``why`` says how often the condition held.
    """

    key: str
    wanted: str
    found: str
    held: bool
    why: str
    depth: int = 0


class Condition(Protocol):
    """What can be asked of a series."""

    def holds(self, series: SeriesView) -> bool:
        """Tell whether the condition holds on the series."""
        ...

    def explain(self, series: SeriesView, depth: int = 0) -> list[Line]:
        """Return how it and everything inside it came out."""
        ...


@dataclass(frozen=True, slots=True)
class Attribute:
    """Forms that one value has to answer together."""

    name: str
    source: Callable[[SeriesView], Places]
    forms: tuple[Form, ...]
    every: bool = False

    def holds(self, series: SeriesView) -> bool:
        """See `Condition`."""
        return self._holds(self.source(series))

    def _holds(self, found: Places) -> bool:
        if self._unwanted:
            return not any(found)
        held = map(self._answers, found)
        return bool(found) and all(held) if self.every else any(held)

    @property
    def _unwanted(self) -> bool:
        return any(isinstance(form, Present) and not form.wanted for form in self.forms)

    def _answers(self, place: tuple[Value, ...]) -> bool:
        return any(all(form.holds(value) for form in self.forms) for value in place)

    def explain(self, series: SeriesView, depth: int = 0) -> list[Line]:
        """See `Condition`."""
        found = self.source(series)
        wanted = " and ".join(form.words for form in self.forms) + (" in every instance" if self.every else "")
        where = "instances" if len(found) == len(series.headers) else "frames" if len(found) > len(series.headers) else "places"
        return [Line(self.name, wanted, _shown(found), self._holds(found), self._why(found, where), depth)]

    def _why(self, found: Places, where: str) -> str:
        having = sum(map(bool, found))
        if not having:
            return f"no value in any of {len(found)} {where}"
        if self._unwanted:
            return f"a value in {having} of {len(found)} {where}"
        missing = f", no value in {len(found) - having}" if having < len(found) else ""
        return f"true of {sum(map(self._answers, found))} of {len(found)} {where}{missing}"


def _shown(found: Places) -> str:
    values = list(dict.fromkeys(f"{len(value)} bytes" if isinstance(value, bytes) else plain_text(value) for place in found for value in place))
    return ", ".join(values[:_SHOWN_VALUES]) + (f" and {len(values) - _SHOWN_VALUES} more" if len(values) > _SHOWN_VALUES else "")


@dataclass(frozen=True, slots=True)
class All:
    """Every part holds; without parts, always."""

    parts: tuple[Condition, ...]

    def holds(self, series: SeriesView) -> bool:
        """See `Condition`."""
        return all(part.holds(series) for part in self.parts)

    def explain(self, series: SeriesView, depth: int = 0) -> list[Line]:
        """See `Condition`: the lines of the parts, at the same depth."""
        return [line for part in self.parts for line in part.explain(series, depth)]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one part holds."""

    parts: tuple[Condition, ...]

    def holds(self, series: SeriesView) -> bool:
        """See `Condition`."""
        return any(part.holds(series) for part in self.parts)

    def explain(self, series: SeriesView, depth: int = 0) -> list[Line]:
        """See `Condition`: one line for itself, one for each alternative, and deeper those of the alternatives."""
        count = sum(part.holds(series) for part in self.parts)
        lines = [Line("or", "at least one of these holds", "", count > 0, f"{count} of {len(self.parts)} hold", depth)]
        for part in self.parts:
            group = isinstance(part, All)
            if group:
                lines.append(Line("and", "all of these hold", "", part.holds(series), "", depth + 1))
            lines.extend(part.explain(series, depth + 2 if group else depth + 1))
        return lines


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: Condition

    def holds(self, series: SeriesView) -> bool:
        """See `Condition`."""
        return not self.part.holds(series)

    def explain(self, series: SeriesView, depth: int = 0) -> list[Line]:
        """See `Condition`: one line for itself, and deeper those of what must not hold together."""
        wanted = "these do not hold together" if isinstance(self.part, All) else "this does not hold"
        return [Line("not", wanted, "", self.holds(series), "", depth), *self.part.explain(series, depth + 1)]


ALWAYS = All(())
