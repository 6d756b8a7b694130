"""Wires the parts, starts and supervises the processes: the only module that knows everything.

::

    parent ── lock on the data folder, listening socket, migrations
      ├── receiver 0 … n   inherit the socket; no database, no torch
      ├── core             assembly, routing, clock, delivery
      ├── worker 0 … n     one per device
      └── page             status page, health and metrics: only reads; with the core

SIGTERM drains and stops, SIGHUP re-reads the rules. A child that dies is replaced; when the parent dies, the children stop by themselves.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, MutableSequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import structlog

from pacs_node.config import FolderDestination, Settings, StowDestination
from pacs_node.errors import ConfigError, DatabaseUnavailable, DataFolderInUse, PacsNodeError
from pacs_node.executors import local
from pacs_node.monitoring import logs
from pacs_node.monitoring.counting import Counts, counting

if TYPE_CHECKING:
    import ssl

    from pacs_node.journey import House
    from pacs_node.routing import Rules

Role = Literal["all", "receiver", "core", "worker"]
ROLES: Mapping[str, tuple[str, ...]] = {"all": ("receiver", "core", "worker"), "receiver": ("receiver",), "core": ("core",), "worker": ("worker",)}

DRAIN_SECONDS = 10.0  # that running associations get after SIGTERM
STOP_SECONDS = 30.0  # after which a child is ended by force
_RESTARTS_BEFORE_ALERT = 3
_COUNTERS = 8  # bytes of a receiver's two association counters, without and with TLS
_ABANDONED_SECONDS = 600.0  # after which a half-written file is nobody's: ten times as long as a sender may be silent in the middle of a PDU
_ORPHANS_SECONDS = 30.0  # how long the children of a dead parent may hold the lock


@dataclass(frozen=True)
class Orders:
    """What a child process is told."""

    role: str
    name: str
    index: int
    settings: Settings
    rules: Rules | None = None  # as accepted by the parent: a file that went wrong since does not matter
    listening: int = -1  # file descriptor of the listening socket
    secured: int = -1  # that of the one for TLS, where there is one
    slots: int = -1  # file descriptor of the shared association counters
    paid: int = -1  # that of what each sender has paid for, where senders share a rate
    roles: tuple[str, ...] = ()  # that run below the same parent: what the page can tell about
    counts: Path | None = None  # the folder in which processes count
    device: str = "cpu"


# --- what is not there yet -----------------------------------------------------------------------------------------------


def unsupported(settings: Settings) -> list[tuple[str, str]]:
    """Return (key, why) of what the configuration asks for and this version cannot do: refused, never ignored in silence."""
    found = [
        ("executor.kind", settings.executor.kind == "ray", "the Ray executor is not available in this version: use local"),
    ]
    return [(key, why) for key, asked, why in found if asked]


def refuse_unsupported(settings: Settings, file: Path | str = "configuration") -> None:
    """Raise `ConfigError` for the first thing that this version cannot do."""
    for key, why in unsupported(settings):
        raise ConfigError(file, None, key, why)


# --- building the house ---------------------------------------------------------------------------------------------------


def make_house(settings: Settings, rules: Rules | None = None, stopping: threading.Event | None = None) -> House:
    """Open the database and the spool, with ``rules`` or those of the file; raises `ConfigError` where the file is wrong. Connects to nothing yet."""
    from pacs_node import journey
    from pacs_node.analysis.installed import available
    from pacs_node.database.engine import Store, database_url
    from pacs_node.reception.spool import Spool

    bundles = available(journey.models_folder(settings))
    store = Store(database_url(settings.database.url, settings.node.data))
    house = journey.House(settings, store, read_rules(settings) if rules is None else rules, bundles, Spool(settings.node.data))
    house.stopping = stopping or house.stopping
    return house


def read_rules(settings: Settings) -> Rules:
    """Read and check the rules in force; raises `ConfigError`."""
    from pacs_node import journey
    from pacs_node.analysis.installed import available
    from pacs_node.routing import load

    bundles, file = available(journey.models_folder(settings)), journey.rules_file(settings)
    return load(file, pipelines=bundles, destinations=settings.destinations, senders=settings.reception.senders, assembly=settings.assembly)


# --- the parent -----------------------------------------------------------------------------------------------------------


def run(settings: Settings, role: Role = "all") -> int:
    """Run the node in the foreground until SIGTERM or SIGINT; returns the exit code. Raises `StartError` or `ConfigError` at once."""
    refuse_unsupported(settings)
    from pacs_node.reception.spool import Spool

    log = structlog.get_logger()
    if role in ("all", "receiver"):
        _look_at_own_certificate(settings)
    with ExitStack() as stack:
        locks = stack.enter_context(locked(settings.node.data, ROLES[role]))
        house = None
        if role != "receiver":
            house = make_house(settings)
            house.store.upgrade()
            house.clear_all("process")
            _look_at_certificates(house)
            house.store.close()
        if role in ("all", "receiver"):
            Spool(settings.node.data).sweep_parts(_ABANDONED_SECONDS if _others_receive(settings.node.data) else 0.0)  # of a dead receiver: never acknowledged
        children = local.Children(_children(settings, role, house.rules if house else None, stack, locks))
        own = _told_to_count(children, settings, role, stack)
        _say_open_door(settings, role)
        stop, reload = threading.Event(), threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        signal.signal(signal.SIGHUP, lambda *_: reload.set())
        _note_run(house, role, "started")
        children.start()
        log.info("node started", name=settings.node.name, role=role, port=settings.node.port, data=str(settings.node.data), processes=len(children.children))
        while not stop.wait(0.2):
            own.beat()
            children.watch(lambda child, code: _say_died(house, own, child, code))
            if reload.is_set() and house is not None:
                reload.clear()
                _reload_rules(house, children)
        log.info("node stopping")
        forced = children.stop(STOP_SECONDS)
        _note_run(house, role, "stopped")
        log.info("node stopped", forced=forced)
    return 0


def _note_run(house: House | None, role: Role, action: str) -> None:
    """Write into the audit trail that the node was started or stopped, and what it was started with; receivers alone have no database."""
    if house is None:
        return
    from pacs_node.database.alerts import audit
    from pacs_node.journey import rules_file
    from pacs_node.journey.operate import operator

    settings = house.settings
    facts = {"role": role, "host": socket.gethostname(), "version": version("pacs-node")}
    if action == "started":
        facts["configuration"] = hashlib.sha256(settings.model_dump_json().encode()).hexdigest()
        facts["rules"] = hashlib.sha256(rules_file(settings).read_bytes()).hexdigest()
    with suppress(DatabaseUnavailable), house.store.write() as session:
        audit(session, operator(), action, f"node {settings.node.name}", facts, house.clock())
    house.store.close()


def _told_to_count(children: local.Children, settings: Settings, role: Role, stack: ExitStack) -> Counts:
    """Tell the children where to count; return what this process counts."""
    own = "node" if role == "all" else f"node-{role}"
    folder = stack.enter_context(counting(settings.node.data, (own, *(child.name for child in children.children))))
    for child in children.children:
        assert isinstance(child.orders, Orders)
        child.orders = replace(child.orders, counts=folder)
    return Counts(folder, own)


def _look_at_own_certificate(settings: Settings) -> None:
    """Refuse to start with a certificate that no peer would accept; say what is going to be wrong."""
    from pacs_node.dicom.certificates import examine_reception

    for warning in examine_reception(settings, datetime.now(UTC)):
        structlog.get_logger().warning("certificate", warning=warning)


def _look_at_certificates(house: House) -> None:
    """Say what is wrong with those, and other secrets, shown to destinations: a fault there delays results, it does not stop intake."""
    from pacs_node.delivery import web
    from pacs_node.dicom.certificates import examine_destination

    house.clear_all("certificate")
    for name, destination in house.settings.destinations.items():
        if not isinstance(destination, FolderDestination):
            try:
                warnings = list(examine_destination(name, destination, house.clock()))
                warnings += web.examine(name, destination) if isinstance(destination, StowDestination) else []
                for warning in warnings:
                    house.log.warning("certificate", warning=warning)
            except ConfigError as error:
                house.alert("certificate", f"destination {name}", f"{error.key}: {error.problem}; results for {name} wait until then")


def _say_open_door(settings: Settings, role: Role) -> None:
    if role in ("all", "receiver") and not settings.reception.senders:
        structlog.get_logger().warning("any sender may send", remedy="list the allowed ones in reception.senders")


def _say_died(house: House | None, counts: Counts, child: local.Child, code: int) -> None:
    counts.add("pacs_node_process_deaths", child.name)
    structlog.get_logger().error("process died", process_name=child.name, exit_code=code)
    if house is not None and child.restarts >= _RESTARTS_BEFORE_ALERT:
        message = f"process {child.name} has died {child.restarts} times in a row (exit code {code}) and is started again; the log says why"
        with suppress(DatabaseUnavailable):  # said in the log, and again with the next death
            house.alert("process", child.name, message)


def _reload_rules(house: House, children: local.Children) -> None:
    """Take new rules over; wrong ones change nothing and are said."""
    try:
        house.rules = read_rules(house.settings)
    except ConfigError as error:
        house.log.error("rules not taken over", problem=str(error))
        with suppress(DatabaseUnavailable):
            house.alert("rules", "rules.yaml", f"the new rules were not taken over, the former ones stay in force: {error}")
            _note_refused_rules(house)
        return
    for child in children.children:
        assert isinstance(child.orders, Orders)
        child.orders = replace(child.orders, rules=house.rules)
    children.signal("core", signal.SIGHUP)
    with suppress(DatabaseUnavailable):
        house.clear("rules", "rules.yaml")
    house.log.info("rules read again", rules=len(house.rules.rules))


def _note_refused_rules(house: House) -> None:
    from pacs_node.database.alerts import audit

    with house.store.write() as session:
        audit(session, "node", "rules refused", "rules.yaml", {}, house.clock())


def _children(settings: Settings, role: Role, rules: Rules | None, stack: ExitStack, locks: tuple[int, ...]) -> list[local.Child]:
    children: list[local.Child] = []
    roles = ROLES[role]
    if "receiver" in roles:
        from pacs_node.reception.listener import open_socket
        from pacs_node.reception.pacing import SLOT_BYTES, SLOTS

        listening = stack.enter_context(open_socket(settings.node.address, settings.node.port)).fileno()
        secured = -1
        if settings.node.tls_port is not None:
            secured = stack.enter_context(open_socket(settings.node.address, settings.node.tls_port)).fileno()
        counters = _shared(stack, _COUNTERS * settings.reception.processes)
        paid = _shared(stack, SLOTS * SLOT_BYTES) if settings.reception.rate is not None else -1
        inherited = (*(descriptor for descriptor in (listening, secured, counters, paid) if descriptor >= 0), *locks)
        for index in range(settings.reception.processes):
            orders = Orders("receiver", f"receiver-{index}", index, settings, None, listening, secured, counters, paid)
            children.append(local.Child(orders.name, orders, inherited))
    if "core" in roles:
        children.append(local.Child("core", Orders("core", "core", 0, settings, rules), locks))
        if settings.monitoring.port is not None:
            children.append(_page_child(settings, roles, stack, locks))
    if "worker" in roles:
        devices = local.devices(settings.executor.devices)
        share = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // len(devices))))}  # waiting threads spin
        for index, device in enumerate(devices):
            orders = Orders("worker", f"worker-{index}", index, settings, rules, device=device)
            children.append(local.Child(orders.name, orders, locks, share))
    return children


def _page_child(settings: Settings, roles: tuple[str, ...], stack: ExitStack, locks: tuple[int, ...]) -> local.Child:
    """Open the port of the status page here, so that one that is taken is said at once; raises `PortInUse`."""
    from pacs_node.monitoring.credentials import examine
    from pacs_node.reception.listener import open_socket

    assert settings.monitoring.port is not None
    examine(settings.monitoring)
    listening = stack.enter_context(open_socket(settings.monitoring.address, settings.monitoring.port, key="monitoring.port"))
    host, port = listening.getsockname()[:2]
    scheme = "https" if settings.monitoring.tls is not None else "http"
    structlog.get_logger().info("status page", url=f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/")
    orders = Orders("page", "page", 0, settings, listening=listening.fileno(), roles=roles)
    return local.Child(orders.name, orders, (listening.fileno(), *locks))


def _shared(stack: ExitStack, size: int) -> int:
    """Return the descriptor of zeroed memory that several processes can map."""
    file = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
    file.truncate(size)
    return file.fileno()


@contextmanager
def locked(data: Path, roles: tuple[str, ...]) -> Iterator[tuple[int, ...]]:
    """Hold one lock per role and host on the data folder. The children inherit it: it is free only when the last of them is gone."""
    folder = data / "locks"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"the data folder {data} cannot be made ({error.strerror}): name one that can be written"
        raise ConfigError("configuration", None, "node.data", problem) from error
    with ExitStack() as stack:
        descriptors = []
        for role in roles:
            descriptor = os.open(folder / f"{socket.gethostname()}-{role}.lock", os.O_RDWR | os.O_CREAT, 0o644)
            stack.callback(os.close, descriptor)
            _lock(descriptor, data)
            descriptors.append(descriptor)
        yield tuple(descriptors)


def _others_receive(data: Path) -> bool:
    """Tell whether other machines have received into this data folder: they may be doing so now, and what they write is not ours to sweep."""
    return any(path.name != f"{socket.gethostname()}-receiver.lock" for path in (data / "locks").glob("*-receiver.lock"))


def _lock(descriptor: int, data: Path) -> None:
    end = time.monotonic() + _ORPHANS_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError as error:
            owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            if _alive(owner) or time.monotonic() > end:
                raise DataFolderInUse(data, f"process {owner or 'unknown'}") from error
            time.sleep(0.2)  # its parent is gone: its last children are about to stop
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)


def _alive(owner: str) -> bool:
    try:
        os.kill(int(owner), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


# --- the children ---------------------------------------------------------------------------------------------------------


def child() -> int:
    """Entry of a child process: read the orders, do the role until told to stop."""
    stop, reload = threading.Event(), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, lambda *_: reload.set())
    orders = local.receive_orders(stop)
    assert isinstance(orders, Orders)
    logs.configure(process=orders.name)
    counts = Counts(orders.counts, orders.name)
    if orders.role in ("core", "worker", "page"):  # a receiver's own loop says that it turns
        threading.Thread(target=_beat, args=(counts, stop), name="beat", daemon=True).start()
    try:
        {"receiver": _receiver, "core": _core, "worker": _worker, "page": _page}[orders.role](orders, counts, stop, reload)
    except DatabaseUnavailable:
        if not stop.is_set():
            raise
        structlog.get_logger().warning("stopped while the database is away", more="what was under way is taken up at the next start")
    return 0


def _beat(counts: Counts, stop: threading.Event) -> None:
    """Say that the process is there, whatever it waits for or works on: whether a job hangs is `journey.heart`'s to judge, of duties the clock says it."""
    while True:
        counts.beat()
        if stop.wait(0.5):
            return


def _receiver(orders: Orders, counts: Counts, stop: threading.Event, _reload: threading.Event) -> None:
    from pacs_node.dicom.tls import server_context
    from pacs_node.monitoring.intake import ReceptionTally
    from pacs_node.reception import services
    from pacs_node.reception.listener import ReceiverConfig, devote_process, serve
    from pacs_node.reception.pacing import SLOT_BYTES, SLOTS

    devote_process()
    settings = orders.settings
    processes = settings.reception.processes
    counters = memoryview(mmap.mmap(orders.slots, _COUNTERS * processes)).cast("i")
    slots = cast("MutableSequence[int]", counters)
    slots[orders.index] = slots[processes + orders.index] = 0  # what a predecessor left
    paid = cast("MutableSequence[float]", memoryview(mmap.mmap(orders.paid, SLOTS * SLOT_BYTES)).cast("d")) if orders.paid >= 0 else None
    tally = ReceptionTally(counts)
    config = ReceiverConfig(
        settings.node.ae_titles, settings.node.data, settings.reception, DRAIN_SECONDS, services=services.wanted(settings), paid=paid, tally=tally
    )
    ports: list[tuple[socket.socket, int, ssl.SSLContext | None]] = [(socket.socket(fileno=orders.listening), orders.index, None)]
    if settings.reception.tls is not None:  # with a counter of its own
        ports.append((socket.socket(fileno=orders.secured), processes + orders.index, server_context(settings.reception.tls)))

    def serve_port(listening: socket.socket, index: int, tls: ssl.SSLContext | None) -> None:
        try:
            serve(config, listening, slots, index, stop, tls)
        finally:
            stop.set()  # a port that fails ends the process, which is then replaced

    threads = [threading.Thread(target=serve_port, args=port, name=f"port {port[1]}") for port in ports]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _core(orders: Orders, counts: Counts, stop: threading.Event, reload: threading.Event) -> None:
    from pacs_node import clock
    from pacs_node.journey import commit, deliver

    house = make_house(orders.settings, orders.rules, stop)
    house.counts = counts
    house.patiently(lambda: deliver.recover(house, house.clock()))
    house.patiently(lambda: commit.recover(house, house.clock()))
    house.patiently(lambda: house.clear_all("duty"))
    _follow_rules(house, reload)
    clock.run_duty(house, clock.CATCH_UP)  # what arrived before the last stop is indexed before anything else happens
    scheduler = clock.wind_up(house)
    house.log.info("core ready")
    while not stop.wait(0.25):
        _follow_rules(house, reload)
    scheduler.shutdown(wait=True)
    house.store.close()


def _follow_rules(house: House, reload: threading.Event) -> None:
    from pacs_node.journey.assemble import take_rules

    if not reload.is_set():
        return
    reload.clear()
    try:
        take_rules(house, read_rules(house.settings), house.clock())
    except ConfigError as error:  # the parent found it right a moment ago
        house.log.error("rules not taken over", problem=str(error))
    except DatabaseUnavailable:
        reload.set()  # the next time round


def _worker(orders: Orders, counts: Counts, stop: threading.Event, _reload: threading.Event) -> None:
    from pacs_node.analysis.installed import available
    from pacs_node.journey import models_folder
    from pacs_node.journey.leases import recover
    from pacs_node.journey.run_job import Bundles, Worker, run_job

    house = make_house(orders.settings, orders.rules, stop)
    house.counts = counts
    engine = Bundles(orders.device, lambda: available(models_folder(orders.settings)))
    worker = Worker(f"{socket.gethostname()}:{orders.name}", engine, last_resort=local.end_process_after)
    house.patiently(lambda: recover(house, worker.name, house.clock()))
    local.work(lambda: house.patiently(lambda: run_job(house, worker)), stop)
    house.store.close()


def _page(orders: Orders, _counts: Counts, stop: threading.Event, _reload: threading.Event) -> None:
    from pacs_node.database.engine import Store, database_url
    from pacs_node.monitoring.server import serve
    from pacs_node.monitoring.sources import Sources

    settings = orders.settings
    store = Store(database_url(settings.database.url, settings.node.data), reads_only=True)
    with socket.socket(fileno=orders.listening) as listening:
        serve(Sources(settings, store, orders.roles, orders.counts), listening, stop)
    store.close()


if __name__ == "__main__":
    from pacs_node.node import child as entry  # this module by its own name: the orders are of its classes

    try:
        sys.exit(entry())
    except PacsNodeError as error:
        structlog.get_logger().error("process cannot start", problem=str(error))
        sys.exit(1)
