"""What a STOW-RS server says about each instance: the Store Instances Response Module in JSON or XML (PS3.18 Annex I, F, PS3.19 A.1).

Servers differ: failures also stand inside a 200, sequences are left out or empty, numbers are written as text. What cannot be read says
nothing about any instance, so that nothing is taken for delivered because of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

REFERENCED_SOP_CLASS, REFERENCED_SOP_INSTANCE = "00081150", "00081155"
WARNING_REASON, FAILURE_REASON = "00081196", "00081197"
FAILED, REFERENCED, OTHER_FAILURES = "00081198", "00081199", "0008119A"

_DEEPEST = 8  # items within items; the module needs two

Model = Mapping[str, Any]  # the DICOM JSON model: tag → {"vr": …, "Value": […]}


@dataclass(frozen=True, slots=True)
class Said:
    """One item: the SOP class as the server names it, and the reason of a failure or a warning, if any."""

    sop_class_uid: str
    reason: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What was said, by SOP Instance UID; an instance may stand in both, or in none."""

    stored: Mapping[str, Said] = field(default_factory=dict)
    failed: Mapping[str, Said] = field(default_factory=dict)
    other: tuple[int, ...] = ()  # reasons of failures that name no instance


def read_answer(body: bytes | None) -> Answer:
    """Read an answer; an empty one where there is nothing that can be read."""
    models = read_models(body)
    if len(models) != 1:
        return Answer()
    model = models[0]
    failed = list(_items(model, FAILED))
    reasons = [_number(item, FAILURE_REASON) for item in (*failed, *_items(model, OTHER_FAILURES)) if not text_at(item, REFERENCED_SOP_INSTANCE)]
    return Answer(_said(_items(model, REFERENCED), WARNING_REASON), _said(failed, FAILURE_REASON), tuple(reason for reason in reasons if reason is not None))


def _said(items: Iterable[Model], reason: str) -> dict[str, Said]:
    return {text_at(item, REFERENCED_SOP_INSTANCE): Said(text_at(item, REFERENCED_SOP_CLASS), _number(item, reason)) for item in items}


def read_models(body: bytes | None) -> list[Model]:
    """Return the datasets of an answer in JSON or XML, whatever it says of itself; none where it cannot be read."""
    try:
        text = (body or b"").decode("utf-8-sig").strip()
        found = _from_xml(text) if text.startswith("<") else json.loads(text)
    except (ValueError, RecursionError, ElementTree.ParseError):
        return []
    return [model for model in (found if isinstance(found, list) else [found]) if isinstance(model, dict)]


def text_at(model: Model, tag: str) -> str:
    """Return the first value of an attribute as stripped text, ``""`` where there is none."""
    return next((str(value).strip().rstrip("\0") for value in _values(model, tag) if isinstance(value, str | int)), "")


def _values(model: Model, tag: str) -> list[Any]:
    attribute = model.get(tag)
    values = attribute.get("Value") if isinstance(attribute, dict) else None
    return values if isinstance(values, list) else []


def _items(model: Model, tag: str) -> Iterator[Model]:
    return (item for item in _values(model, tag) if isinstance(item, dict))


def _number(model: Model, tag: str) -> int | None:
    text = text_at(model, tag)
    try:
        return int(text, 16 if text.lower().startswith("0x") else 10) if text.isascii() else None
    except ValueError:
        return None


def _from_xml(text: str) -> list[Model]:
    """Read the Native DICOM Model as if it were JSON; raises ValueError for a document with a type, which is where entities come from."""
    if "<!DOCTYPE" in text:
        raise ValueError("a document type is not part of the Native DICOM Model")
    root = ElementTree.fromstring(text)  # noqa: S314 - as text, so that no other encoding can hide a document type
    return [_model(root)]


def _model(element: ElementTree.Element, depth: int = 0) -> dict[str, Any]:
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    found: dict[str, Any] = {}
    for attribute in element:
        if _local(attribute) == "DicomAttribute":
            values = [_model(part, depth + 1) if _local(part) == "Item" else part.text or "" for part in attribute if _local(part) in ("Item", "Value")]
            found[attribute.get("tag", "").upper()] = {"vr": attribute.get("vr", ""), "Value": values}
    return found


def _local(element: ElementTree.Element) -> str:
    """Return the name of an element without its name space."""
    return str(element.tag).rpartition("}")[2]
