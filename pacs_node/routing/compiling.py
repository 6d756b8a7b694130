"""From what stands in a rule to conditions. A new way to combine conditions is one row in `_COMBINATIONS`."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pacs_node.dicom.values import Key, Kind, Places, kind_of, parse_key
from pacs_node.routing.conditions import All, Attribute, Condition, Not, Or
from pacs_node.routing.forms import FORMS, Form, Least, Most, Present, flag
from pacs_node.routing.series import SeriesView

T = TypeVar("T")
Path = tuple[str | int, ...]  # from the `when:` mapping down to a key


class ConditionFault(ValueError):
    """A condition cannot be compiled: ``path`` leads from the `when:` mapping to the key at fault."""

    def __init__(self, path: Path, problem: str) -> None:
        self.path, self.problem = path, problem
        super().__init__(problem)


def compile_when(when: Any) -> Condition:
    """Compile a `when:` mapping (scalars as written or typed by YAML); raises `ConditionFault` with the path of the key at fault."""
    return _mapping(when, ())


def _mapping(when: Any, path: Path) -> Condition:
    if not isinstance(when, Mapping) or not when:
        raise ConditionFault(path, "must be a mapping of attributes to conditions, such as {Modality: CT}")
    parts = tuple(_entry(str(key), wanted, (*path, str(key))) for key, wanted in when.items())
    return parts[0] if len(parts) == 1 else All(parts)


def _entry(key: str, wanted: Any, path: Path) -> Condition:
    combine = _COMBINATIONS.get(key)
    return combine(wanted, path) if combine else _attribute(key, wanted, path)


def _several(wanted: Any, path: Path) -> tuple[Condition, ...]:
    if not isinstance(wanted, list | tuple) or not wanted:
        raise ConditionFault(path, "must be a list of conditions, such as [{StationName: CT1}, {StationName: CT2}]")
    return tuple(_mapping(part, (*path, index)) for index, part in enumerate(wanted))


def _negation(wanted: Any, path: Path) -> Condition:
    if not isinstance(wanted, Mapping):
        raise ConditionFault(path, "must be a mapping; to exclude several things write not: {or: [{…}, {…}]}")
    return Not(_mapping(wanted, path))


_COMBINATIONS: dict[str, Callable[[Any, Path], Condition]] = {
    "and": lambda wanted, path: All(_several(wanted, path)),
    "or": lambda wanted, path: Or(_several(wanted, path)),
    "not": _negation,
}


# Sources are named functions and values, no closures: compiled rules travel to other processes.


def _called(series: SeriesView) -> Places:
    return ((series.called_ae.strip(),),) if series.called_ae.strip() else ((),)


def _calling(series: SeriesView) -> Places:
    return ((series.calling_ae.strip(),),) if series.calling_ae.strip() else ((),)


# Not attributes of the objects: how they came (PS3.8 9.3.2)
_ASSOCIATION: dict[str, Callable[[SeriesView], Places]] = {"CalledAETitle": _called, "CallingAETitle": _calling}


@dataclass(frozen=True, slots=True)
class _Looked:
    """Where the values of an attribute come from: the headers of a series."""

    key: Key

    def __call__(self, series: SeriesView) -> Places:
        return series.places(self.key)


def _attribute(key: str, wanted: Any, path: Path) -> Attribute:
    source, vr = _source(key, path)
    asked = wanted if isinstance(wanted, Mapping) else {"equals": wanted}
    if vr == "SQ" and set(asked) - {"present", "all"}:
        raise ConditionFault(path, f"is a sequence: ask for an attribute in it ({key}.Keyword), or {{present: true}}")
    if not isinstance(wanted, Mapping):
        return Attribute(key, source, (_guarded(lambda: FORMS["equals"](wanted, kind_of(vr)), path),))
    every = _guarded(lambda: flag(wanted["all"]), (*path, "all")) if "all" in wanted else False
    forms = tuple(_form(str(name), value, kind_of(vr), path) for name, value in wanted.items() if name != "all")
    _check_together(wanted, forms, path)
    return Attribute(key, source, forms, every)


def _check_together(wanted: Mapping[str, Any], forms: tuple[Form, ...], path: Path) -> None:
    if not forms:
        raise ConditionFault(path, f"asks for nothing: write a value, or one of {', '.join(FORMS)}")
    if len(wanted) > 1 and any(isinstance(form, Present) and not form.wanted for form in forms):
        raise ConditionFault((*path, "present"), "what is not present can have no other condition: remove one of them")
    least, most = (next((form for form in forms if isinstance(form, kind)), None) for kind in (Least, Most))
    if isinstance(least, Least) and isinstance(most, Most) and not most.holds(least.wanted):
        raise ConditionFault((*path, "min"), f"min {least.wanted} is above max {most.wanted}, so no value lies between them: exchange them")


def _source(key: str, path: Path) -> tuple[Callable[[SeriesView], Places], str | None]:
    if key in _ASSOCIATION:
        return _ASSOCIATION[key], "AE"
    words = [*_ASSOCIATION, *_COMBINATIONS]
    close = [word for word in words if word.casefold() == key.casefold()] or difflib.get_close_matches(key, words, n=1, cutoff=0.85)
    try:
        parsed = parse_key(key)
    except ValueError as error:
        raise ConditionFault(path, f"{key!r} is no keyword of PS3.6; did you mean {close[0]}?" if close else str(error)) from error
    return _Looked(parsed), parsed.vr


def _form(name: str, wanted: Any, kind: Kind, path: Path) -> Form:
    if name not in FORMS:
        close = difflib.get_close_matches(name, [*FORMS, "all"], n=1)
        hint = f"did you mean {close[0]}?" if close else f"the conditions are {', '.join(FORMS)} and all; a key with a comma inside braces needs quotes"
        raise ConditionFault((*path, name), f"is no condition: {hint}")
    build = FORMS[name]
    return _guarded(lambda: build(wanted, kind), (*path, name))


def _guarded(build: Callable[[], T], path: Path) -> T:
    try:
        return build()
    except ConditionFault:
        raise
    except ValueError as error:
        raise ConditionFault(path, str(error)) from error
