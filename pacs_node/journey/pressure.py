"""What the core does when the disk fills up: say it, and remove what is nobody's. Receivers decide by the same table (`reception.pressure`).

::

    WARN      said
    SWEEP     half-written files and results of uncommitted runs go (here), then what is finished, oldest first (`retire`), until there is room
    REJECT    said as an alert; the sweep goes on, and takes what a backup holds as well
    REFUSE    as before; jobs write their results from the reserve
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import select

from pacs_node import crash
from pacs_node.database.states import JobState
from pacs_node.database.tables import JobRow, ObjectRow
from pacs_node.journey import House
from pacs_node.reception.pressure import WORDS, Pressure, pressure_of

_ABANDONED = timedelta(hours=1)  # after its last change nobody writes a half file any more: peers that stall are let go in a minute
_SWEEP_EVERY = timedelta(minutes=1)


@dataclass(frozen=True)
class Swept:
    """What a sweep removed."""

    files: int = 0
    bytes: int = 0


def relieve(house: House, moment: datetime) -> Pressure:
    """Look at the disk, say what changed, and sweep where the time has come."""
    disk = house.measure(house.data)
    pressure = pressure_of(house.settings, disk)
    if pressure is not house.pressure:
        (house.log.info if pressure is Pressure.NORMAL else house.log.warning)("disk", state=WORDS[pressure], free_gb=round(disk.free / 1e9, 1))
        house.pressure = pressure
    if pressure >= Pressure.SWEEP and (house.swept_at is None or not timedelta() <= moment - house.swept_at < _SWEEP_EVERY):
        house.swept_at = moment
        swept = sweep(house, moment)
        house.log.warning("swept", files=swept.files, megabytes=round(swept.bytes / 1e6, 1), more="finished studies go next")
    if pressure >= Pressure.REJECT:
        house.alert("disk", "data folder", f"{house.data} has {disk.free / 1e9:.1f} GB free: {WORDS[pressure]}. Make room on it; jobs go on meanwhile")
    else:
        house.clear("disk", "data folder")
    return pressure


def sweep(house: House, moment: datetime) -> Swept:
    """Remove what was abandoned; nothing that was acknowledged, and nothing that a committed run names."""
    oldest = (moment - _ABANDONED).timestamp()
    files = size = 0
    for path in (*half_files(house.data), *uncommitted(house)):
        try:
            facts = path.stat()
            if facts.st_mtime < oldest:
                path.unlink()
                files, size = files + 1, size + facts.st_size
                crash.passed("swept")
        except FileNotFoundError:
            continue  # its writer came to an end after all
    return Swept(files, size)


def half_files(data: Path) -> Iterator[Path]:
    """Give the half-written files of the data folder: they become whole under another name, or they were never acknowledged."""
    for folder in ("spool/new", "quarantine", "results"):
        yield from sorted((data / folder).rglob("*.part"))


def uncommitted(house: House) -> Iterator[Path]:
    """Give the result files that no row names and no running job is about to commit: what a killed or overtaken attempt left.

    Those of jobs that the database does not know are left alone: then it is the database that lacks something.
    """
    root = house.data / "results"
    with house.store.read() as session:
        known = set(session.scalars(select(ObjectRow.path)))
        jobs = set(session.scalars(select(JobRow.id)))
        running = {f"{job.id}/{job.run}-{job.attempts}" for job in session.scalars(select(JobRow).where(JobRow.state == JobState.RUNNING))}
    for path in sorted(root.glob("[0-9]*/[0-9]*/*/*/*.dcm")):
        _, job, attempt, *_ = path.relative_to(root).parts
        if job.isdecimal() and int(job) in jobs and str(path.relative_to(house.data)) not in known and f"{job}/{attempt}" not in running:
            yield path
