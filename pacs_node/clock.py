"""When: one row per periodic duty, run by APScheduler in the core's memory. What is due stands in the database, so nothing is lost with the clock."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from pacs_node.errors import DatabaseUnavailable
from pacs_node.journey import House
from pacs_node.journey.assemble import assemble
from pacs_node.journey.commit import asks_for_commitment, commit
from pacs_node.journey.count import ask
from pacs_node.journey.deliver import deliver
from pacs_node.journey.drift import watch_drift
from pacs_node.journey.events import Receiver, route, tell, tidy
from pacs_node.journey.heartbeat import beat
from pacs_node.journey.leases import reap
from pacs_node.journey.pressure import relieve
from pacs_node.journey.receive import note_quarantined, receive
from pacs_node.journey.reconcile import catch_up
from pacs_node.journey.retire import retire
from pacs_node.journey.silence import listen
from pacs_node.journey.trail import forward, say_anchor
from pacs_node.journey.vouch import vouch

_ROUNDS_BETWEEN = 5  # of intake, before the studies that are due are looked at
_LAST_RUN = "pacs_node_duty_run_timestamp_seconds"
_MOST_ROUNDS = 1000  # of one duty before it lets go: the next tick goes on


@dataclass(frozen=True, slots=True)
class Duty:
    """Something done again and again. A duty never runs twice at a time; a missed tick is not made up for."""

    name: str
    every: timedelta
    run: Callable[[House], object]


def gather(house: House) -> None:
    """Take in what waits in the spool, then look at the studies that are due."""
    for _ in range(_MOST_ROUNDS):
        house.counts.set(_LAST_RUN, GATHER.name, value=time.time())  # a long tick is no hanging one
        more = _take_in(house)
        if not assemble(house, house.clock()) and not more:
            break


def _take_in(house: House) -> bool:
    """Take in some rounds of arrivals, so that steady traffic does not delay what is due; True where more may wait."""
    return all(receive(house, house.clock()) for _ in range(_ROUNDS_BETWEEN))


def watch(house: House) -> None:
    """Note what receivers put into quarantine, and look after the disk."""
    changed = house.spool.quarantine_folder.stat().st_mtime_ns
    if changed != house.quarantine_seen:  # the folder only grows: it is read again when something came
        note_quarantined(house, house.spool.quarantined(), house.clock())
        house.quarantine_seen = changed
    relieve(house, house.clock())


def repeated(step: Callable[[House, str, datetime], int], name: str) -> Callable[[House], None]:
    """Return the duty that takes a step for one destination until nothing is left to do."""

    def run(house: House) -> None:
        for _ in range(_MOST_ROUNDS):
            if not step(house, name, house.clock()):
                break

    return run


def forward_audit(house: House) -> None:
    """Send what the audit collector lacks."""
    for _ in range(_MOST_ROUNDS):
        if not forward(house, house.clock()):
            break


def ask_archive(name: str) -> Callable[[House], object]:
    """Return the duty that asks an archive about the studies that wait for its word."""
    return lambda house: ask(house, name, house.clock())


def tell_receiver(receiver: Receiver) -> Callable[[House], object]:
    """Return the duty that tells a receiver of events."""

    def run(house: House) -> None:
        for _ in range(_MOST_ROUNDS):
            if house.stopping.is_set() or not tell(house, receiver, house.clock()):
                break

    return run


CATCH_UP = Duty("catch up", timedelta(0), lambda house: house.patiently(lambda: catch_up(house)))  # once, at the start
GATHER = Duty("gather", timedelta(milliseconds=400), gather)


def duties(house: House) -> tuple[Duty, ...]:
    """Return all duties of the core. Each destination has its own, so that a slow one delays no other."""
    destinations = house.settings.destinations
    return (
        GATHER,
        Duty("watch", timedelta(seconds=2), watch),
        Duty("reap", timedelta(seconds=5), lambda house: reap(house, house.clock())),
        Duty("vouch", timedelta(seconds=1), lambda house: vouch(house, house.clock())),
        Duty("retire", timedelta(seconds=30), lambda house: retire(house, house.clock())),
        Duty("drift", timedelta(hours=1), watch_drift),
        Duty("audit anchor", timedelta(days=1), say_anchor),
        *([Duty("audit to syslog", timedelta(seconds=2), forward_audit)] if house.settings.audit.syslog else []),
        Duty("events", timedelta(seconds=1), lambda house: route(house, house.clock())),
        Duty("heartbeat", timedelta(seconds=2), lambda house: beat(house, house.clock())),
        Duty("silence", timedelta(minutes=1), lambda house: listen(house, house.clock())),
        Duty("old events", timedelta(hours=1), lambda house: tidy(house, house.clock())),
        *(Duty(f"tell {one.title}", timedelta(seconds=1), tell_receiver(one)) for one in house.settings.events.receivers),
        *(Duty(f"ask {name}", timedelta(seconds=1), ask_archive(name)) for name, at in destinations.items() if at.kind == "dicom"),
        *(Duty(f"deliver to {name}", timedelta(seconds=1), repeated(deliver, name)) for name in destinations),
        *(Duty(f"commitment of {name}", timedelta(seconds=1), repeated(commit, name)) for name, kind in destinations.items() if asks_for_commitment(kind)),
    )


def wind_up(house: House) -> BackgroundScheduler:
    """Start the clock; `shutdown(wait=True)` of what is returned stops it after the running duties."""
    every = duties(house)
    scheduler = BackgroundScheduler(
        executors={"default": ThreadPoolExecutor(len(every))}, job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None}, timezone="UTC"
    )
    for duty in every:
        scheduler.add_job(run_duty, "interval", args=(house, duty), seconds=duty.every.total_seconds(), id=duty.name, next_run_time=house.clock())
    scheduler.start()
    return scheduler


def run_duty(house: House, duty: Duty) -> None:
    """Run a duty once; whatever goes wrong is said and changes nothing for the next tick. While the database is away, ticks are left out."""
    if duty.every and house.store.outage.resting:
        house.counts.set(_LAST_RUN, duty.name, value=time.time())  # it turns, and does not hang: what it waits for is said elsewhere
        return
    try:
        duty.run(house)
        house.counts.set(_LAST_RUN, duty.name, value=time.time())
        _say_over(house, duty)
    except DatabaseUnavailable:
        return  # said once by the store; what is due stands in the spool and in the database
    except Exception as error:  # the border of a periodic duty: it is said, and tried again at the next tick
        house.counts.add("pacs_node_duty_failures", duty.name)
        structlog.get_logger().error("duty failed", duty=duty.name, traceback=traceback.format_exc())
        _say(house, duty, f"{type(error).__name__}: {error}")


_failing: set[str] = set()  # duties of this process whose last tick failed


def _say(house: House, duty: Duty, problem: str) -> None:
    _failing.add(duty.name)
    try:
        house.alert("duty", duty.name, f"the duty {duty.name!r} fails: {problem}; the log holds the details")
    except (OSError, DatabaseUnavailable):
        return


def _say_over(house: House, duty: Duty) -> None:
    if duty.name in _failing:
        house.clear("duty", duty.name)
        _failing.discard(duty.name)
