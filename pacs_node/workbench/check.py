"""`pacs-node check`: everything that can be known to be wrong before a study arrives, one line for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from sqlalchemy import func, select, text

from pacs_node import node, results
from pacs_node.analysis.bundle import Bundle, load
from pacs_node.analysis.calibration_file import CalibrationFile, described
from pacs_node.analysis.installed import available
from pacs_node.analysis.statement import age, ageing
from pacs_node.config import DicomDestination, FolderDestination, Settings, StowDestination
from pacs_node.database.engine import Store, database_url, revision_of
from pacs_node.database.tables import StudyRow
from pacs_node.delivery import cstore, stow, web
from pacs_node.delivery.query import STUDY_ROOT_FIND
from pacs_node.dicom.certificates import examine_destination, examine_reception, examine_tls
from pacs_node.dicom.commitment import PUSH_MODEL
from pacs_node.errors import CollectorFailed, ConfigError, DatabaseUnavailable, PacsNodeError
from pacs_node.journey import models_folder, rules_file
from pacs_node.monitoring import credentials, syslog
from pacs_node.reception.pressure import WORDS, Pressure, measure, pressure_of
from pacs_node.records import FALLBACKS, Population
from pacs_node.routing import load as load_rules
from pacs_node.workbench import check_events
from pacs_node.workbench.deidentify.pseudonyms import MAP, too_open

Line = tuple[str, str]  # ok | warning | fault, text


@dataclass(frozen=True)
class Report:
    """The lines of a check."""

    lines: tuple[Line, ...]

    @property
    def faults(self) -> int:
        """How many things are wrong."""
        return sum(1 for mark, _ in self.lines if mark == "fault")


def examine(config: Path | None, read: Callable[[Path | None], Settings], *, echo: bool) -> Report:
    """Check a configuration and what it names; nothing is raised, everything is a line."""
    try:
        settings = read(config)
    except ConfigError as error:
        return Report((("fault", str(error)),))
    checks: list[Callable[[Settings], Iterator[Line]]] = [
        _supported,
        _rules,
        _bundles,
        _disk,
        _database,
        _map,
        _senders,
        _certificates,
        _destinations,
        _page,
        check_events.examine,
        check_events.heartbeat,
    ]
    if echo:
        checks += [_echo, _collector, check_events.ask]
    lines: list[Line] = [("ok", f"configuration of node {settings.node.name!r}: AE titles {', '.join(settings.node.ae_titles)}, port {settings.node.port}")]
    for check in checks:
        lines += check(settings)
    return Report(tuple(lines))


def _supported(settings: Settings) -> Iterator[Line]:
    for key, why in node.unsupported(settings):
        yield "fault", f"{key}: {why}"


def _rules(settings: Settings) -> Iterator[Line]:
    file = rules_file(settings)
    try:
        bundles = available(models_folder(settings))
        rules = load_rules(file, pipelines=bundles, destinations=settings.destinations, senders=settings.reception.senders, assembly=settings.assembly)
    except PacsNodeError as error:
        yield "fault", str(error)
        return
    yield "ok", f"{len(rules.rules)} rules in {file}"
    for rule in rules.rules:
        later = [kind for kind in rule.results or () if kind in results.PLANNED]
        if later:
            yield "warning", f"rule {rule.name!r}: {', '.join(later)} cannot be made by this version and will be left out"
        for name in rule.send_to:
            destination = settings.destinations.get(name)
            if isinstance(destination, DicomDestination | StowDestination) and destination.test:
                yield "warning", f"rule {rule.name!r} sends studies of patients to {name}, which is marked `test: true`"
            if destination is not None and not destination.accepts_research:
                remedy = f"set destinations.{name}.accepts_research to true where research results are wanted"
                yield "warning", f"rule {rule.name!r} sends to {name}, which gets nothing: {remedy}"


def _bundles(settings: Settings) -> Iterator[Line]:
    folder = models_folder(settings)
    try:
        found = available(folder)
    except PacsNodeError as error:
        yield "fault", str(error)
        return
    if not found:
        yield "warning", f"no model bundle in {folder}: studies can be received, but nothing is analysed"
    for name, path in sorted(found.items()):
        try:
            bundle = load(path)
        except PacsNodeError as error:
            yield "fault", str(error)
        else:
            yield "ok", f"bundle {name} {bundle.algorithm.version}, {_calibration(bundle)}"
            yield from _calibration_warnings(name, bundle.calibration)


def _calibration(bundle: Bundle) -> str:
    found = bundle.calibration
    if found is None:
        return "not calibrated: scores without verdict"
    newest = f", the newest {age(found, _today())} days old" if found.population is Population.SITE else ""
    return f"calibrated on {found.studies} {found.population.value} studies{newest}"


def _calibration_warnings(name: str, found: CalibrationFile | None) -> Iterator[Line]:
    """Say what a person should do about a calibration: it ages, and may hold studies that do not belong."""
    if found is None:
        return
    if old := ageing(found, _today()):
        yield "warning", f"bundle {name}: {old}"
    if found.suspects:
        yield "warning", f"bundle {name}: {described(found)[-1]}"


def _today() -> date:
    return datetime.now(UTC).date()


def _disk(settings: Settings) -> Iterator[Line]:
    data = settings.node.data
    folder = next(part for part in (data.resolve(), *data.resolve().parents) if part.is_dir())
    disk = measure(folder)
    reserve, pressure = settings.reception.reserve.bytes_of(disk.capacity), pressure_of(settings, disk)
    if pressure >= Pressure.REJECT:
        room = f"{disk.free / 1e9:.1f} GB free, not enough beyond reception.reserve ({reserve / 1e9:.1f} GB)"
        yield "fault", f"{folder} has {room}: instances would be refused; free some space or lower it"
    elif pressure >= Pressure.WARN:
        yield "warning", f"{folder} has {disk.free / 1e9:.1f} GB free: {WORDS[pressure]}"
    else:
        yield "ok", f"data folder {data}: {disk.free / 1e9:.0f} GB free, {reserve / 1e9:.1f} GB kept in reserve"


def _database(settings: Settings) -> Iterator[Line]:
    url = database_url(settings.database.url, settings.node.data)
    if settings.database.url is None and not (settings.node.data / "node.db").is_file():
        yield "ok", "database: made at the first start"
        return
    try:
        with closing(Store(url, speaks=False)) as store:
            yield _database_line(store)
    except ConfigError as error:
        yield "fault", f"{error.key}: {error.problem}"
    except DatabaseUnavailable as error:
        yield "fault", f"database.url: {error}"


def _map(settings: Settings) -> Iterator[Line]:
    path = settings.node.data / MAP
    if path.is_file() and too_open(path):
        yield "fault", f"{path} leads from exported studies back to patients, and others may read it: `chmod 600` it, and ask who has read it"


def _database_line(store: Store) -> Line:
    with store.read() as session:
        if store.kind == "postgresql":
            encoding = session.scalar(text("SHOW server_encoding"))
            if encoding != "UTF8":
                return "fault", f"database.url: {store.shown} is encoded in {encoding}, which lacks letters that names of patients have: make it with -E UTF8"
        if revision_of(session.connection()) is None:
            return "ok", f"database {store.shown}: reachable and empty, its tables are made at the first start"
        count = session.scalar(select(func.count(StudyRow.id)))
    return "ok", f"database: reachable, {count} studies"


def _senders(settings: Settings) -> Iterator[Line]:
    if not settings.reception.senders:
        yield "warning", "ANY sender may send studies to this node: list the allowed ones in reception.senders"
    known = {sender.ae_title for sender in settings.reception.senders}
    places = {name: place for name, place in settings.destinations.items() if isinstance(place, DicomDestination)}
    for name, place in places.items():
        if known and place.commitment and place.ae_title not in known:
            yield "warning", f"destination {name}: its storage commitment reports may come as {place.ae_title}, which is not among reception.senders"
    if settings.reception.commitment:
        yield from _askers(settings, {place.ae_title for place in places.values()})


def _askers(settings: Settings, reachable: set[str]) -> Iterator[Line]:
    """Name the senders that may ask for storage commitment and cannot be told the outcome."""
    if not settings.reception.senders:
        yield "warning", "reception.commitment: reports go to senders whose `port` is in reception.senders, which is empty, and to destinations"
    for sender in settings.reception.senders:
        if sender.port is None and sender.ae_title not in reachable:
            yield "warning", f"reception.commitment: where {sender.ae_title} listens for reports is not known: add its `port` in reception.senders"


def _certificates(settings: Settings) -> Iterator[Line]:
    now = datetime.now(UTC)
    looks = [examine_reception(settings, now)]
    looks += [examine_destination(name, place, now) for name, place in settings.destinations.items() if not isinstance(place, FolderDestination)]
    looks += [web.examine(name, place) for name, place in settings.destinations.items() if isinstance(place, StowDestination)]
    if settings.audit.syslog is not None:
        looks.append(examine_tls(settings.audit.syslog.tls, "audit.syslog.tls", now))
    for look in looks:
        try:
            for warning in look:
                yield "warning", warning
        except ConfigError as error:
            yield "fault", f"{error.key}: {error.problem}"
    tls = settings.reception.tls
    if tls is not None:
        yield "ok", f"TLS on port {settings.node.tls_port}" + ("" if tls.require_client else ", without asking senders for certificates")


def _destinations(settings: Settings) -> Iterator[Line]:
    for name, destination in settings.destinations.items():
        if isinstance(destination, FolderDestination):
            yield "ok", f"destination {name}: folder {destination.path}"
        elif not destination.accepts_research:
            yield "warning", f"destination {name} gets no results: accepts_research is not true"
        elif isinstance(destination, DicomDestination):
            yield "ok", f"destination {name}: {destination.ae_title} at {destination.address}:{destination.port}"
        else:
            yield "ok", f"destination {name}: DICOMweb at {destination.url}"


def _page(settings: Settings) -> Iterator[Line]:
    monitoring = settings.monitoring
    if monitoring.port is None:
        yield "ok", "status page: off (monitoring.port is null)"
        return
    try:
        credentials.examine(monitoring)
    except ConfigError as error:
        yield "fault", f"{error.key}: {error.problem}"
        return
    yield "ok", f"status page: {'https' if monitoring.tls else 'http'}://{monitoring.address}:{monitoring.port}/"
    if monitoring.public and monitoring.tls is None and monitoring.auth is not None and monitoring.auth.users_file is not None:
        yield "warning", "the status page sends passwords in clear: name a certificate in monitoring.tls, or put a proxy with https in front of it"


def _echo(settings: Settings) -> Iterator[Line]:
    for name, destination in settings.destinations.items():
        if isinstance(destination, StowDestination):
            yield _ask(name, destination)
        if not isinstance(destination, DicomDestination):
            continue
        classes = {kind: builder.sop_class_uid for kind, builder in results.BUILDERS.items()}
        classes |= {kind: made.sop_class_uid for kind, made in results.STAND_INS.items()}
        found = cstore.probe(destination, settings.node.ae_titles[0], (*classes.values(), STUDY_ROOT_FIND, PUSH_MODEL))
        if not found.reachable:
            yield "fault", f"destination {name}: {found.problem}"
            continue
        yield from _taken(name, destination, {kind for kind, uid in classes.items() if uid in found.accepted})
        if destination.verify_identity and STUDY_ROOT_FIND not in found.accepted:
            yield "fault", f"destination {name} takes no queries (Study Root C-FIND), which verify_identity needs: let it accept them, or set that to false"
        if destination.commitment and PUSH_MODEL not in found.accepted:
            yield "fault", f"destination {name} takes no storage commitment, which its commitment asks for: turn it on there, or set that to false"


def _taken(name: str, destination: DicomDestination, taken: set[str]) -> Iterator[Line]:
    """Say which kinds of results a destination would take, and what becomes of the others."""
    kinds = list(results.BUILDERS)
    yield "ok", f"destination {name} answers and takes {', '.join(kind for kind in kinds if kind in taken) or 'nothing'}"
    for kind, instead in destination.fallback.items():
        if kind not in taken and instead in taken:
            yield "ok", f"destination {name} does not accept {kind}: {instead} goes there in its place"
    refused = [kind for kind in kinds if kind not in taken and destination.fallback.get(kind) not in taken]
    if refused:
        helps = [f"{kind}: {instead}" for kind, instead in FALLBACKS.items() if kind in refused and instead in taken and kind not in destination.fallback]
        remedy = f"; it would take {', '.join(helps)} in `fallback`" if helps else ""
        yield "warning", f"destination {name} does not accept {', '.join(refused)}: those results would be refused there{remedy}"


def _collector(settings: Settings) -> Iterator[Line]:
    """Say whether the collector of the audit trail can be had; nothing is sent to it."""
    collector = settings.audit.syslog
    if collector is not None:
        try:
            syslog.send(collector, [])
            yield "ok", f"audit collector {collector.name} answers"
        except CollectorFailed as error:
            yield "fault", str(error)


def _ask(name: str, destination: StowDestination) -> Line:
    there, said = stow.probe(destination)
    if not there:
        return "fault", f"destination {name}: {said}"
    return ("warning", f"destination {name} {said}") if said else ("ok", f"destination {name} answers; which results it takes shows with the first of them")
