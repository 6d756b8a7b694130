"""Reading YAML so that every error names file, line, key and value (`pacs_node.errors.ConfigError`)."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from pacs_node.config.rules import RuleList
from pacs_node.config.settings import Settings
from pacs_node.errors import ConfigError

M = TypeVar("M", bound=BaseModel)
KeyPath = tuple[str | int, ...]


class Document:
    """A parsed YAML file that remembers the line of each key, and the text it was read from."""

    def __init__(self, file: Path | str, data: Any, lines: Mapping[KeyPath, int], text: str = "") -> None:
        self.file, self.data, self._lines, self._text = file, data, lines, text

    def as_written(self) -> Any:
        """Return the data with every scalar as the text that stands in the file.

        YAML makes ``NO`` a truth value, ``0012`` the number ten and ``22:00`` a sexagesimal one; where the meaning of a value
        is known from elsewhere, as with DICOM attributes, that is no help.
        """
        return yaml.load(self._text, Loader=_WrittenLoader)  # noqa: S506 - a safe loader that resolves even less

    def line(self, path: KeyPath) -> int | None:
        """Return the 1-based line of the key at ``path``, or of the nearest part of the path that is in the file."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path)

    def error(self, path: KeyPath, problem: str) -> ConfigError:
        """Return an error about the key at ``path``, ready to be raised."""
        return ConfigError(self.file, self.line(path), dotted(path), problem)


def dotted(path: KeyPath) -> str:
    """Write a key path as people do: ``reception.senders[0].network``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


class _WrittenLoader(yaml.SafeLoader):
    """The safe loader without implicit types; only null and merge keys mean what they mean elsewhere."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own protocol: first character -> [(tag, pattern)]
        first: [row for row in rows if row[0] in ("tag:yaml.org,2002:null", "tag:yaml.org,2002:merge")]
        for first, rows in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def read_yaml(file: Path) -> Document:
    """Read a YAML file with safe loading; raises `ConfigError` where it cannot be read, is no YAML, or names a key twice."""
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(file, None, "", f"is not UTF-8 text (byte {error.start}): save it as UTF-8") from error
    except OSError as error:
        raise ConfigError(file, None, "", f"cannot be read: {error.strerror}") from error
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        lines: dict[KeyPath, int] = {}
        if root is not None:
            _collect_lines(root, (), lines, file)
        return Document(file, yaml.safe_load(text), lines, text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(file, mark.line + 1 if mark else None, "", f"is no valid YAML: {problem}") from error
    except RecursionError as error:
        raise ConfigError(file, None, "", "is nested too deeply, or an alias (*name) stands inside its own anchor (&name): remove it") from error


def _collect_lines(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], file: Path) -> None:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise ConfigError(file, key.start_mark.line + 1, dotted(path), "has a list or mapping as a key: write one word")
            where = (*path, key.value)
            if where in lines:
                raise ConfigError(file, key.start_mark.line + 1, dotted(where), f"is given twice (first in line {lines[where]}): remove one")
            lines[where] = key.start_mark.line + 1
            _collect_lines(value, where, lines, file)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _collect_lines(value, (*path, index), lines, file)


def load_settings(file: Path | None) -> Settings:
    """Read ``node.yaml``; None gives the defaults. Raises `ConfigError` for the first fault in the file's order."""
    document = Document("defaults", {}, {}) if file is None else read_yaml(file)
    return parse(Settings, document)


def load_rule_list(file: Path) -> tuple[RuleList, Document]:
    """Read ``rules.yaml`` as far as its structure goes, with the document for line numbers. Conditions are compiled by `routing`."""
    document = read_yaml(file)
    return parse(RuleList, document), document


def parse(model: type[M], document: Document) -> M:
    """Validate a document; raises `ConfigError` for the first fault in the file's order."""
    data = {} if document.data is None else document.data
    if not isinstance(data, dict):
        raise document.error((), f"must be a mapping with the keys {', '.join(model.model_fields)}")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        faults = [(_clean_location(fault["loc"], data, missing=fault["type"] == "missing"), fault) for fault in error.errors()]
        path, fault = min(faults, key=lambda item: document.line(item[0]) or 0)
        raise document.error(path, _explain(model, path, dict(fault))) from error


def _clean_location(location: Sequence[str | int], data: Any, *, missing: bool) -> KeyPath:
    """Drop what pydantic adds to a location (the names of union members), so that the path is one in the file."""
    path: list[str | int] = []
    for index, part in enumerate(location):
        known = (isinstance(data, dict) and part in data) or (isinstance(data, list) and isinstance(part, int) and part < len(data))
        if known:
            path.append(part)
            data = data[part]
        elif missing and index == len(location) - 1:
            path.append(part)
    return tuple(path)


_MESSAGES = {  # pydantic's type of fault -> what people are told
    "tuple_type": "write a list, such as [A, B]",
    "model_type": "write a mapping, such as {key: value}",
    "dict_type": "write a mapping, such as {key: value}",
    "mapping_type": "write a mapping, such as {key: value}",
    "too_short": "give at least one value",
    "string_too_short": "give at least one character",
    "union_tag_invalid": "`kind` is none of dicom, stow and folder",
}


def _explain(model: type[BaseModel], path: KeyPath, fault: Mapping[str, Any]) -> str:
    kind, value = fault["type"], fault.get("input")
    if kind == "extra_forbidden":
        close = difflib.get_close_matches(str(path[-1]), sorted(_all_keys(model)), n=1)
        return f"is no known key{f'; did you mean {close[0]!r}?' if close else ': remove it, or look the keys up in the README'}"
    if kind == "missing":
        return "is missing: add it"
    if kind == "value_error":
        return str(fault["ctx"]["error"])
    if kind == "union_tag_not_found":
        return "has no `kind`: give it dicom, stow or folder"
    message = _MESSAGES.get(kind, str(fault["msg"])[:1].lower() + str(fault["msg"])[1:])
    return f"{value!r}: {message}" if not isinstance(value, dict | list) else message


def _all_keys(model: type[BaseModel]) -> set[str]:
    keys: set[str] = set()
    for name, info in model.model_fields.items():
        keys.add(name)
        for part in _models_in(info.annotation):
            keys |= _all_keys(part)
    return keys


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models_in(part)]


def shipped(name: Literal["models", "config"]) -> Path:
    """Return the folder of default bundles or configuration, in an installed wheel as in a checkout."""
    package = Path(__file__).parent.parent
    installed = package / "_bundled" / name
    return installed if installed.is_dir() else package.parent / name
