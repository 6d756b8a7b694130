"""What was asked for: frozen pydantic models of ``node.yaml`` and ``rules.yaml``. Nothing here is global; each room gets its section.

Every error names file, line, key and value (`pacs_node.errors.ConfigError`). Relative paths are relative to the working directory.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from pacs_node.errors import ConfigError

# --- units -------------------------------------------------------------------------------------------------------------

_TIME_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def _split_number(text: object, units: Sequence[str], what: str) -> tuple[float, str]:
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z%]+)\s*", str(text))
    if not match or match[2] not in units:
        raise ValueError(f"{text!r} is no {what}: write a number and one of {', '.join(units)}")
    return float(match[1]), match[2]


def parse_duration(text: object) -> timedelta:
    """Turn ``10s``, ``2h`` or ``14d`` into a time span; raises ValueError otherwise."""
    if isinstance(text, timedelta):
        return text
    number, unit = _split_number(text, list(_TIME_UNITS), "time span")
    return timedelta(seconds=number * _TIME_UNITS[unit])


class Size(BaseModel):
    """An amount of disk: bytes, or a percentage of the disk."""

    model_config = ConfigDict(frozen=True)
    number: float
    percent: bool = False

    def bytes_of(self, total: int) -> int:
        """Return the size in bytes on a disk of ``total`` bytes."""
        return int(total * self.number / 100) if self.percent else int(self.number)


def parse_size(text: object) -> Size:
    """Turn ``5GB``, ``512MiB`` or ``85%`` into a `Size`; raises ValueError otherwise."""
    if isinstance(text, Size):
        return text
    number, unit = _split_number(text, [*_SIZE_UNITS, "%"], "size")
    if unit == "%":
        if number > 100:
            raise ValueError(f"{text!r} is more than the whole disk")
        return Size(number=number, percent=True)
    return Size(number=number * _SIZE_UNITS[unit])


def _ae_title(text: object) -> str:
    title = str(text).strip()
    if not 1 <= len(title) <= 16 or "\\" in title or not title.isascii() or not title.isprintable():
        raise ValueError(f"{text!r} is no AE title: 1 to 16 printable ASCII characters without backslash (PS3.5 6.2)")
    return title


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
DiskSize = Annotated[Size, BeforeValidator(parse_size)]
AETitle = Annotated[str, BeforeValidator(_ae_title)]
Port = Annotated[int, Field(ge=0, le=65535)]  # 0: any free port


class Section(BaseModel):
    """Base of every part of the configuration: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


# --- node.yaml ---------------------------------------------------------------------------------------------------------


class Equipment(Section):
    """What results say about the device that made them (PS3.3 C.7.5.2, never empty)."""

    manufacturer: str = Field("pacs-node open source project", min_length=1, max_length=64)
    serial: str = Field("0", min_length=1, max_length=64)
    institution: str | None = Field(None, max_length=64)


class Node(Section):
    """Who this node is and where it listens and writes."""

    name: str = Field("node-1", min_length=1, max_length=64)
    ae_titles: tuple[AETitle, ...] = Field(("PACS_NODE",), min_length=1)
    address: str = "0.0.0.0"  # noqa: S104 - a DICOM destination has to be reachable; `check` says loudly when any sender may send
    port: Port = 11112
    tls_port: Port | None = None
    data: Path = Path("./data")
    models: Path | None = None
    rules: Path | None = None
    timezone: str | None = None
    uid_root: str | None = None
    equipment: Equipment = Equipment()

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str | None) -> str | None:
        try:
            return value if value is None or ZoneInfo(value) else None
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"{value!r} is no time zone of the IANA database, such as Europe/Berlin") from error

    @field_validator("uid_root")
    @classmethod
    def _valid_root(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[0-2](\.(0|[1-9][0-9]*))+", value):
            raise ValueError(f"{value!r} is no UID root: digits and dots, no leading zeros (PS3.5 9.1)")
        if value is not None and len(value) > 24:
            raise ValueError("a UID root may have 24 characters at most: 39 are needed for what follows it")
        return value


class Database(Section):
    """Where the state is kept. ``url`` None: SQLite in the data folder."""

    url: str | None = None


class TLS(Section):
    """A certificate of our own and the authority that peers must come from."""

    certificate: Path
    key: Path
    ca: Path | None = None
    require_client: bool = True


class AllowedSender(Section):
    """One peer that may send."""

    ae_title: AETitle
    network: IPv4Network | IPv6Network | None = None
    results_to: str | None = None


class Reception(Section):
    """How instances are taken in."""

    processes: int = Field(2, ge=1, le=64)
    max_associations: int = Field(64, ge=1, le=10_000)
    max_pdu: int = Field(1_048_576, ge=4096, le=16_777_216)
    senders: tuple[AllowedSender, ...] = ()
    tls: TLS | None = None
    private_sop_classes: tuple[str, ...] = ()
    commitment: bool = False
    reserve: DiskSize = Size(number=5e9)


class Assembly(Section):
    """When a study counts as complete, unless a rule says otherwise."""

    quiet: Duration = timedelta(seconds=10)
    deadline: Duration = timedelta(hours=2)
    on_release: bool = False
    verify_with: str | None = None

    @model_validator(mode="after")
    def _deadline_after_quiet(self) -> Assembly:
        if self.deadline < self.quiet:
            raise ValueError("deadline is shorter than quiet: a study could never become complete by quiet time")
        return self


class Executor(Section):
    """Where the models run."""

    kind: Literal["local", "ray"] = "local"
    devices: Literal["auto"] | tuple[str, ...] = "auto"
    address: str | None = None
    gpus_per_worker: float | None = None


class DicomDestination(Section):
    """A storage SCP."""

    kind: Literal["dicom"]
    ae_title: AETitle
    address: str
    port: Annotated[int, Field(ge=1, le=65535)]
    tls: TLS | None = None
    commitment: bool = False
    verify_identity: bool = False
    accepts_research: bool = False
    fallback: Mapping[str, str] = {}


class StowDestination(Section):
    """A DICOMweb server."""

    kind: Literal["stow"]
    url: str
    accepts_research: bool = False


class FolderDestination(Section):
    """A folder on this machine."""

    kind: Literal["folder"]
    path: Path

    @property
    def accepts_research(self) -> bool:
        """A folder always takes research results."""
        return True


Destination = Annotated[DicomDestination | StowDestination | FolderDestination, Field(discriminator="kind")]


class Retention(Section):
    """How long files stay."""

    keep: Duration = timedelta(days=14)
    high_watermark: DiskSize = Size(number=85, percent=True)


class Monitoring(Section):
    """The status page."""

    address: str = "127.0.0.1"
    port: Port = 11180
    auth: Mapping[str, str] | None = None


class Settings(Section):
    """``node.yaml`` as a whole."""

    node: Node = Node()
    database: Database = Database()
    reception: Reception = Reception()
    assembly: Assembly = Assembly()
    executor: Executor = Executor()
    destinations: Mapping[str, Destination] = {"research": FolderDestination(kind="folder", path=Path("./out"))}
    retention: Retention = Retention()
    monitoring: Monitoring = Monitoring()

    @model_validator(mode="after")
    def _known_destinations(self) -> Settings:
        if "sender" in self.destinations:
            raise ValueError("destinations: 'sender' is the word with which rules mean the sender's own destination: give this one another name")
        for sender in self.reception.senders:
            if sender.results_to is not None and sender.results_to not in self.destinations:
                known = ", ".join(self.destinations) or "there are none"
                raise ValueError(f"results_to of sender {sender.ae_title}: {sender.results_to!r} is none of the destinations ({known})")
        return self


# --- rules.yaml --------------------------------------------------------------------------------------------------------


class Complete(Section):
    """When a study is complete for one rule; what is left out comes from `Assembly`."""

    quiet: Duration | None = None
    deadline: Duration | None = None
    on_release: bool | None = None
    expect: tuple[str, ...] = ()


class Rule(Section):
    """One entry of ``rules.yaml``. ``when`` is compiled by `pacs_node.routing.conditions`."""

    name: str = Field(min_length=1, max_length=64)
    when: Mapping[str, Any] | None = None
    otherwise: bool = False
    series: Literal["largest", "all"] | Mapping[str, Any] = "largest"
    pipeline: str | None = None
    results: tuple[str, ...] | None = None
    notice: bool = True
    complete: Complete = Complete()
    send_to: tuple[str, ...] = ()
    forward: tuple[str, ...] = ()
    priority: Literal["urgent", "normal", "night"] = "normal"

    @model_validator(mode="after")
    def _one_trigger(self) -> Rule:
        if self.otherwise == (self.when is not None):
            raise ValueError("a rule has either `when:` (conditions) or `otherwise: true`")
        return self


class RuleList(Section):
    """``rules.yaml`` as a whole."""

    rules: tuple[Rule, ...] = ()


# --- what comes with the package ---------------------------------------------------------------------------------------


def shipped(name: Literal["models", "config"]) -> Path:
    """Return the folder of default bundles or configuration, in an installed wheel as in a checkout."""
    package = Path(__file__).parent
    installed = package / "_bundled" / name
    return installed if installed.is_dir() else package.parent / name


# --- reading -----------------------------------------------------------------------------------------------------------

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
        faults = [(_clean_location(fault["loc"], data), fault) for fault in error.errors()]
        path, fault = min(faults, key=lambda item: document.line(item[0]) or 0)
        raise document.error(path, _explain(model, path, dict(fault))) from error


def _clean_location(location: Sequence[str | int], data: Any) -> KeyPath:
    """Drop what pydantic adds to a location (the names of union members), so that the path is one in the file."""
    path: list[str | int] = []
    for index, part in enumerate(location):
        known = (isinstance(data, dict) and part in data) or (isinstance(data, list) and isinstance(part, int) and part < len(data))
        if known:
            path.append(part)
            data = data[part]
        elif index == len(location) - 1 and isinstance(data, dict) and isinstance(part, str):
            path.append(part)  # a missing key
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
