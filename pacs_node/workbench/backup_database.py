"""The database of a backup: copied at one moment while others write, and asked which files it names."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath

from sqlalchemy import select, text
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

from pacs_node.database import removal, studies
from pacs_node.database.engine import Store
from pacs_node.database.states import JobState, StudyState
from pacs_node.database.tables import AsideRow, InstanceRow, ObjectRow, StudyRow
from pacs_node.errors import InputError
from pacs_node.retention import policy

LEFT_OUT = "left out of the backup that this node was restored from"


@dataclass
class Named:
    """A copied database and the files that it names, relative to the data folder."""

    file: Path
    paths: set[str] = field(default_factory=set)  # that should be there
    removed: set[str] = field(default_factory=set)  # of tombstones, or on their way off the disk: no newcomers
    arrivals: dict[str, str] = field(default_factory=dict)  # name in the spool → where its row wants it


def copy_database(store: Store, scratch: Path) -> Named:
    """Copy the database into a folder, and read what that copy names; raises `InputError` where it cannot be copied."""
    return _copy_sqlite(store, scratch) if store.kind == "sqlite" else _dump_postgresql(store, scratch)


def _copy_sqlite(store: Store, scratch: Path) -> Named:
    """Copy by SQLite's online backup: in one step, under one read lock, which in WAL mode hinders no writer."""
    source, file = make_url(store.url).database, scratch / "node.db"
    with closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as live, closing(sqlite3.connect(file)) as copy:
        try:
            live.backup(copy)
            said = [row[0] for row in copy.execute("PRAGMA quick_check(3)")]
        except sqlite3.DatabaseError as error:
            said = [str(error)]
    if said != ["ok"]:
        raise InputError(f"the database {source} is damaged ({'; '.join(said)}): `pacs-node fsck` says what to do")
    named, copied = Named(file), Store(f"sqlite:///{file}")
    try:
        with copied.read() as session:
            _read_names(session, named)
    finally:
        copied.close()
    return named


def _dump_postgresql(store: Store, scratch: Path) -> Named:
    """Dump what one transaction sees, and read the names in that same transaction."""
    program = shutil.which("pg_dump")
    if program is None:
        raise InputError("pg_dump is not installed, without which PostgreSQL cannot be copied: install the client of the server's version")
    named = Named(scratch / "database.dump")
    with store.engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection, Session(bind=connection) as session:
        session.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))  # a dump takes its time
        snapshot = session.scalar(text("SELECT pg_export_snapshot()"))
        _read_names(session, named)
        line = [program, "--format=custom", "--no-owner", f"--snapshot={snapshot}", f"--file={named.file}"]
        done = subprocess.run(line, env=os.environ | _environment(store.url), capture_output=True, text=True, check=False)
        if done.returncode:
            said = [*done.stderr.strip().splitlines(), f"it ended with {done.returncode}"][0]
            raise InputError(f"pg_dump could not copy {store.shown}: {said}")
    return named


def _environment(url: str) -> dict[str, str]:
    """Return what libpq reads from the environment, so that no password stands in a list of processes."""
    parsed = make_url(url)
    host = parsed.host or str(parsed.query.get("host") or "")
    facts = {"PGHOST": host, "PGPORT": str(parsed.port or ""), "PGUSER": parsed.username, "PGPASSWORD": parsed.password, "PGDATABASE": parsed.database}
    return {name: str(value) for name, value in facts.items() if value}


def _read_names(session: Session, named: Named) -> None:
    for row in session.scalars(select(InstanceRow).execution_options(yield_per=1000)):
        path = studies.instance_path(row)
        if row.removed_at is None:
            named.paths.add(path)
            named.arrivals[row.arrival] = path
        else:
            named.removed.add(path)
        session.expunge(row)
    for aside in session.scalars(select(AsideRow)):
        file = PurePosixPath(aside.path)
        kept = named.paths if aside.removed_at is None else named.removed
        kept.add(aside.path)
        if aside.kind == "quarantine":
            kept.add(str(file.with_suffix(".json")))
        elif aside.kind == "conflict" and aside.removed_at is None:
            named.arrivals[file.stem] = aside.path
    for path, removed_at in session.execute(select(ObjectRow.path, ObjectRow.removed_at)):
        (named.paths if removed_at is None else named.removed).add(path)
    named.removed.update(removal.listed(session))


def leave_out_finished(named: Named, now: datetime) -> int:
    """Make tombstones, in the copied database, of the studies whose originals retention could take one day unasked; returns how many."""
    copied, count = Store(f"sqlite:///{named.file}"), 0
    try:
        with copied.write() as session:
            rows = session.scalars(select(StudyRow).where(StudyRow.removed_at.is_(None), StudyRow.state == StudyState.COMPLETE)).all()
            for study in [row for row in rows if _is_finished(session, row)]:
                paths = {studies.instance_path(row) for row in removal.files_of(session, study.id)}
                count += removal.retire_study(session, study, dict.fromkeys(paths, ""), now, LEFT_OUT)
                removal.strike(session, sorted(paths))
                named.paths -= paths
                named.removed |= paths
        with copied.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        copied.close()
    named.arrivals = {name: path for name, path in named.arrivals.items() if path in named.paths}
    return count


def _is_finished(session: Session, study: StudyRow) -> bool:
    states, _ = removal.job_states(session, study.id)
    facts = policy.StudyFacts(
        receiving=False,
        held=False,
        jobs=len(states),
        parked=JobState.PARKED in states,
        unforwarded=removal.unforwarded(session, study.id),
        needed=removal.needed_by(session, study.id),
    )
    kind = policy.kind_of_study(facts)
    return kind is not None and policy.TABLE[kind].yields
