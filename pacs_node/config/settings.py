"""``node.yaml``: one frozen model per section; the defaults are those of the README."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, field_validator, model_validator

from pacs_node.config.events import Events
from pacs_node.config.heartbeat import Heartbeat
from pacs_node.config.monitoring import Monitoring
from pacs_node.config.tls import TLS, DestinationTLS
from pacs_node.config.units import AETitle, ByteCount, DiskSize, Duration, Port, Section, Size, SOPClass
from pacs_node.records import FALLBACKS


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


class AllowedSender(Section):
    """One peer that may send."""

    ae_title: AETitle
    network: IPv4Network | IPv6Network | None = None
    results_to: str | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None  # where it listens for storage commitment reports, at the address that it called from


class Reception(Section):
    """How instances are taken in."""

    processes: int = Field(2, ge=1, le=64)
    max_associations: int = Field(64, ge=1, le=10_000)
    max_pdu: int = Field(1_048_576, ge=4096, le=16_777_216)
    fast_path: bool = True  # C-STORE data goes from the socket straight to the spool; false: through pynetdicom, object by object in memory
    senders: tuple[AllowedSender, ...] = ()
    tls: TLS | None = None
    private_sop_classes: tuple[str, ...] = ()
    denied_sop_classes: tuple[SOPClass, ...] = ()
    max_object: ByteCount = 4 << 30
    max_nesting: int = Field(64, ge=8, le=100)  # pydicom cannot write much deeper ones
    rate: ByteCount | None = None  # bytes a second of all senders together, shared evenly among them
    mpps: bool = False  # take Modality Performed Procedure Steps (PS3.4 Annex F)
    availability: bool = False  # take Instance Availability Notifications (PS3.4 Annex R)
    commitment: bool = False
    reserve: DiskSize = Size(number=5e9)


class Assembly(Section):
    """When a study counts as complete, unless a rule says otherwise."""

    quiet: Duration = timedelta(seconds=10)
    deadline: Duration = timedelta(hours=2)
    on_release: bool = False
    verify_with: str | None = None  # a destination of kind dicom that is asked how many instances a study has
    fetch: bool = False  # what it has more is fetched from it by C-MOVE

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
    job_deadline: Duration = timedelta(hours=1)  # a run that is not done by then is ended with its process, and tried again
    encode_within: Duration = timedelta(milliseconds=1800)  # for the result kind `raw`: what of it does not fit into this is left out, and said
    lease: Duration = timedelta(seconds=60)  # how long a worker may be silent before its job returns to the queue

    @model_validator(mode="after")
    def _spans_that_make_sense(self) -> Executor:
        if self.lease < timedelta(seconds=1):
            raise ValueError("lease is shorter than a second: workers could not renew it in time")
        if self.job_deadline <= timedelta(0):
            raise ValueError("job_deadline is zero: every job would be ended at once")
        return self


def _known_fallbacks(value: Mapping[str, str]) -> Mapping[str, str]:
    for kind, instead in value.items():
        if FALLBACKS.get(kind) != instead:
            known = ", ".join(f"{one}: {other}" for one, other in FALLBACKS.items())
            raise ValueError(f"{kind}: {instead} is no kind that can go in the place of another: there are {known}")
    return value


Fallback = Annotated[Mapping[str, str], AfterValidator(_known_fallbacks)]


class DicomDestination(Section):
    """A storage SCP."""

    kind: Literal["dicom"]
    ae_title: AETitle
    address: str
    port: Annotated[int, Field(ge=1, le=65535)]
    tls: DestinationTLS | None = None
    commitment: bool = False  # an object counts as delivered when the archive has committed to keep it (PS3.4 Annex J)
    commitment_within: Duration = timedelta(hours=24)  # of a request: how long its report is waited for
    verify_identity: bool = False
    accepts_research: bool = False
    test: bool = False  # no patient's results lie there: it may get heartbeats
    reject_superseded: bool = False  # when the results of a re-run have arrived, a rejection note for those of earlier runs follows
    fallback: Fallback = Field(default_factory=dict)


class Basic(Section):
    """A user and a password (RFC 7617). The password stands in a file or in an environment variable, never here."""

    user: str = Field(min_length=1, pattern=r"^[^:\x00-\x1f\x7f]+$")
    password_file: Path | None = None
    password_env: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Basic:
        if (self.password_file is None) == (self.password_env is None):
            raise ValueError("give one of password_file and password_env: where the password is read from")
        return self


class Auth(Section):
    """How we show a DICOMweb server who we are. Secrets are read anew for every delivery, so that they can be changed while the node runs."""

    basic: Basic | None = None
    bearer_file: Path | None = None  # RFC 6750: a file whose only line is the token
    bearer_env: str | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Auth:
        if sum(way is not None for way in (self.basic, self.bearer_file, self.bearer_env)) != 1:
            raise ValueError("give one of basic, bearer_file and bearer_env")
        return self


class StowDestination(Section):
    """A DICOMweb server: ``url`` is its base, to which ``/studies`` is added (PS3.18 10.5). https without ``tls``: the system's authorities."""

    kind: Literal["stow"]
    url: str
    tls: DestinationTLS | None = None
    auth: Auth | None = None
    accepts_research: bool = False
    test: bool = False  # no patient's results lie there: it may get heartbeats
    reject_superseded: bool = False  # as of a DICOM destination
    fallback: Fallback = Field(default_factory=dict)

    @field_validator("url")
    @classmethod
    def _base_of_a_service(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not re.search(r"[^!-~]", value)
        except ValueError:
            known = False
        if not known:
            raise ValueError("is no address of a DICOMweb server: write https://HOST[:PORT]/PATH, the part before /studies")
        if parts.username is not None or parts.password is not None:
            raise ValueError("holds a user or a password: take them out, and name them in `auth`")
        if parts.query or parts.fragment:
            raise ValueError("has a query or a fragment: write the base of the service only, the part before /studies")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _no_tls_without_https(self) -> StowDestination:
        if self.tls is not None and not self.url.startswith("https:"):
            raise ValueError("tls is given, but the url does not begin with https: change one of them")
        return self

    @property
    def in_clear(self) -> bool:
        """Whether what is sent, secrets included, can be read on the way to another machine."""
        return self.url.startswith("http:") and urlsplit(self.url).hostname not in ("localhost", "127.0.0.1", "::1")


class FolderDestination(Section):
    """A folder on this machine."""

    kind: Literal["folder"]
    path: Path

    @property
    def accepts_research(self) -> bool:
        """A folder always takes research results."""
        return True

    @property
    def test(self) -> bool:
        """A folder may always get heartbeats."""
        return True


Destination = Annotated[DicomDestination | StowDestination | FolderDestination, Field(discriminator="kind")]


def unaskable(name: str | None, destinations: Mapping[str, Destination]) -> str:
    """Return why a destination cannot be asked by C-FIND, ``""`` where it can (or nobody is to be asked)."""
    known = [known for known, destination in destinations.items() if isinstance(destination, DicomDestination)]
    if name is None or name in known:
        return ""
    remedy = f"name one of {', '.join(known)}" if known else "there is none; add one to `destinations`, or leave it null"
    return f"{name!r} is no destination of kind dicom, which could be asked: {remedy}"


class Retention(Section):
    """How long files stay: an age for each kind, counted from the last thing that happened to it. What is unfinished stays whatever its age."""

    keep: Duration = timedelta(days=14)  # originals of finished studies, delivered results
    unrouted: Duration | None = None  # originals that no rule wanted; None: as `keep`
    held: Duration = timedelta(days=90)  # originals of held studies
    parked: Duration = timedelta(days=90)  # originals of parked jobs
    undelivered: Duration = timedelta(days=90)  # results that were refused or given up
    aside: Duration = timedelta(days=90)  # objects in conflict, and what corrected ones replaced
    quarantine: Duration = timedelta(days=90)
    high_watermark: DiskSize = Size(number=85, percent=True)


class Syslog(Section):
    """Where audit messages are collected: a syslog server with TLS (RFC 5425). ``tls`` left out: the system's authorities, no certificate of ours."""

    host: str = Field(min_length=1, max_length=253)
    port: Annotated[int, Field(ge=1, le=65535)] = 6514
    tls: DestinationTLS = DestinationTLS()

    @property
    def name(self) -> str:
        """Its address, for people and as the name under which is kept how far it has been sent to."""
        return f"{self.host}:{self.port}"


class Audit(Section):
    """The audit trail outside of the database: DICOM audit messages (PS3.15 A.5) to a collector."""

    patient_ids: bool = False  # true: messages name the Patient ID; false: the word "withheld" stands there
    syslog: Syslog | None = None


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
    audit: Audit = Audit()
    events: Events = Events()
    heartbeat: Heartbeat | None = None

    @model_validator(mode="after")
    def _tls_port_and_certificates(self) -> Settings:
        port, tls = self.node.tls_port, self.reception.tls
        if port is not None and tls is None:
            raise ValueError("node.tls_port is given, but no certificate: add reception.tls, or leave the port null")
        if tls is not None and port is None:
            raise ValueError("reception.tls is given, but no port to use it on: add node.tls_port (2762 is the registered one), or leave it null")
        if port is not None and port == self.node.port != 0:
            raise ValueError(f"node.port and node.tls_port are both {port}: give TLS a port of its own, such as 2762")
        return self

    @model_validator(mode="after")
    def _heartbeat_stays_among_tests(self) -> Settings:
        if self.heartbeat is None:
            return self
        name, node = self.heartbeat.destination, self.node
        place = self.destinations.get(name)
        if place is None:
            raise ValueError(f"heartbeat.destination: {name!r} is none of the destinations ({', '.join(self.destinations) or 'there are none'})")
        if not place.test:
            raise ValueError(f"heartbeat.destination: {name!r} is neither a folder nor marked `test: true`: no phantom goes where patients' results lie")
        if not place.accepts_research:
            raise ValueError(f"heartbeat.destination: {name!r} gets no results: set its accepts_research to true")
        if not (self.heartbeat.port or node.port):
            raise ValueError("heartbeat: node.port is 0, any free port: give it a number, or name one in heartbeat.port")
        title = self.heartbeat.sent_as or node.ae_titles[0]
        if self.reception.senders and title not in {sender.ae_title for sender in self.reception.senders}:
            raise ValueError(f"heartbeat: it is sent as {title}, which is not among reception.senders: add {{ae_title: {title}, network: 127.0.0.1/32}}")
        return self

    @model_validator(mode="after")
    def _archive_can_be_asked(self) -> Settings:
        if problem := unaskable(self.assembly.verify_with, self.destinations):
            raise ValueError(f"assembly.verify_with: {problem}")
        return self

    @model_validator(mode="after")
    def _known_destinations(self) -> Settings:
        if "sender" in self.destinations:
            raise ValueError("destinations: 'sender' is the word with which rules mean the sender's own destination: give this one another name")
        for sender in self.reception.senders:
            if sender.results_to is not None and sender.results_to not in self.destinations:
                known = ", ".join(self.destinations) or "there are none"
                raise ValueError(f"results_to of sender {sender.ae_title}: {sender.results_to!r} is none of the destinations ({known})")
        return self
