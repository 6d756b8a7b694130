"""The configuration reference, made from the models that read ``node.yaml`` and ``rules.yaml``: no key can be missing, and none invented.

::

    models of `config` ── keys, types, defaults, limits ──┐
    their docstrings and the comments beside the fields ──┼─► config/REFERENCE.md      (`pacs-node reference`)
    config/node.yaml ── comments beside the keys ─────────┘
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Iterator, Mapping
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pacs_node.config import Rule, Section, Settings, Size, shipped
from pacs_node.retention.policy import in_words

_HEAD = """# Configuration reference

Made by `pacs-node reference --out config/REFERENCE.md`: do not edit it. `config/node.yaml` holds every key with its default, to copy and to change.
Relative paths are relative to the working directory. Sizes take B, kB, MB, GB, KiB, MiB, GiB or %, times ms, s, min, h, d. An unknown key is an error.
"""

_WORDS = {
    Any: "condition",
    IPv4Network: "network",
    IPv6Network: "network",
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Path: "path",
    timedelta: "time",
    Size: "size, or % of the disk",
}
_OF_VALIDATORS = {"_ae_title": "AE title", "_byte_count": "size", "_sop_class": "UID or keyword of a SOP class"}


def reference() -> str:
    """Return the reference as Markdown."""
    said = _comments(shipped("config") / "node.yaml")
    parts = [_HEAD, "## node.yaml"]
    for path, model in _sections("", Settings):
        parts.append(f"### {path}" if path else "")
        parts.append(_summary(model))
        parts.append(_table(path, model, said))
    parts += ["## rules.yaml: each item of `rules`", "Conditions are listed at the top of `config/rules.yaml`."]
    for path, model in _sections("", Rule):
        parts += [f"### {path}", _summary(model)] if path else []
        parts.append(_table(path, model, {}))
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def keys() -> list[str]:
    """Return every key of ``node.yaml`` with its path, in the order of the reference."""
    return [f"{path}.{name}".lstrip(".") for path, model in _sections("", Settings) for name in model.model_fields]


def _sections(path: str, model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """Give a model and all those within it, each where it first stands."""
    if _table_rows(model):
        yield path, model
    for name, field in model.model_fields.items():
        inner = list(_models(field.annotation))
        for one in inner:
            below = f"{path}.{name}".lstrip(".")
            kind = _kind(one) if len(inner) > 1 else ""
            yield from _sections(f"{below}, kind {kind}" if kind else below, one)


def _kind(model: type[BaseModel]) -> str:
    field = model.model_fields.get("kind")
    return str(get_args(field.annotation)[0]) if field is not None else ""


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if annotation is not Size:
            yield annotation
        return
    for part in get_args(annotation):
        yield from _models(part)


def _table_rows(model: type[BaseModel]) -> list[tuple[str, FieldInfo]]:
    """Return the fields that are values, or may be left out: sections that are always there have tables of their own."""
    return [
        (name, field)
        for name, field in model.model_fields.items()
        if not (field.annotation and isinstance(field.annotation, type) and list(_models(field.annotation)))
    ]


def _summary(model: type[BaseModel]) -> str:
    text = " ".join((inspect.getdoc(model) or "").split("\n\n")[0].split())
    return text.replace("``", "`").replace("None:", "null:").replace(" None ", " null ")


def _table(path: str, model: type[BaseModel], said: Mapping[str, str]) -> str:
    beside = _beside(model)
    rows = []
    for name, field in _table_rows(model):
        below = f"{path}.{name}".lstrip(".")
        text = said.get(below) or beside.get(name) or ("see below" if list(_models(field.annotation)) else "")
        rows.append(f"| `{name}` | {_type(field.annotation, field.metadata)} | {_default(field)} | {_plain(text)} |")
    return "\n".join(("| key | value | default | meaning |", "|---|---|---|---|", *rows))


def _plain(text: str) -> str:
    return re.sub(r"^noqa: \w+( - )?", "", text).replace("|", "\\|").replace("None:", "null:")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be given"
    value = field.default if field.default is not PydanticUndefined else field.default_factory() if field.default_factory else None  # type: ignore[call-arg]
    return f"`{_written(value)}`"


def _written(value: Any) -> str:
    """Write a default as it would stand in YAML."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, timedelta):
        return in_words(value)
    if isinstance(value, Size):
        return f"{value.number:g}%" if value.percent else f"{value.number / 1e9:g}GB"
    if isinstance(value, BaseModel):
        return "{" + ", ".join(f"{name}: {_written(getattr(value, name))}" for name in type(value).model_fields) + "}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_written(one)}" for name, one in value.items()) + "}"
    if isinstance(value, tuple | list | frozenset):
        return f"[{', '.join(map(_written, value))}]"
    return f"{value / 2**30:g}GiB" if isinstance(value, int) and value >= 2**30 else str(value)


def _type(annotation: Any, metadata: list[Any] | tuple[Any, ...] = ()) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    named = next((_OF_VALIDATORS[name] for one in metadata if (name := getattr(getattr(one, "func", None), "__name__", "")) in _OF_VALIDATORS), "")
    if named:
        return named
    if origin is Annotated:
        return _type(arguments[0], [inner for one in arguments[1:] for inner in (one.metadata if isinstance(one, FieldInfo) else [one])])
    if origin is Literal:
        return ", ".join(str(one) for one in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type(one, metadata) for one in arguments if one is not type(None))) + (", or null" if type(None) in arguments else "")
    if origin is tuple:
        return f"list: {_type(arguments[0])}"
    if origin is not None and issubclass(origin, Mapping):
        return f"mapping of names to {_type(arguments[1])}"
    if list(_models(annotation)):
        return "section"
    return _WORDS.get(annotation, getattr(annotation, "__name__", "value")) + _limits(metadata)


def _limits(metadata: list[Any] | tuple[Any, ...]) -> str:
    low = next((one.ge for one in metadata if getattr(one, "ge", None) is not None), None)
    high = next((one.le for one in metadata if getattr(one, "le", None) is not None), None)
    return f", {low} to {high}" if low is not None and high is not None else f", at least {low}" if low is not None else ""


def _beside(model: type[BaseModel]) -> dict[str, str]:
    """Return the comments that stand beside the fields of a model in its source, by name."""
    found = {}
    lines = (line for each in reversed(model.__mro__) if issubclass(each, Section) for line in inspect.getsource(each).splitlines())
    for line in lines:
        if match := re.match(r"    (\w+): .*?  # (.+)$", line):
            found[match[1]] = match[2]
    return found


def _comments(file: Path) -> dict[str, str]:
    """Return the comments that stand beside the keys of a YAML file, by path."""
    found: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        match = re.match(r"( *)([a-z_]+):(?: [^#]*?| )?(?: *# (.*))?$", line)
        if match is None:
            continue
        indent, name, text = len(match[1]), match[2], match[3]
        above = [(depth, key) for depth, key in above if depth < indent] + [(indent, name)]
        if text:
            found[".".join(key for _, key in above)] = text
    return found
