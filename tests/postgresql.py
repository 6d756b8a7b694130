"""A PostgreSQL server of our own for the length of a test session: on a Unix socket, nothing outside can reach it."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

USER = "postgres"  # initdb and the server refuse to run as root


def binaries() -> Path | None:
    """Return the folder of the newest server programs that are installed."""
    found = [folder for folder in Path("/usr/lib/postgresql").glob("*/bin") if (folder / "initdb").is_file()]
    path = shutil.which("initdb")
    newest = max(found, key=lambda folder: int(folder.parent.name), default=None)
    return newest or (Path(path).resolve().parent if path else None)


class PostgresServer:
    """One server with an empty cluster in a folder of its own; databases are made by name."""

    def __init__(self, programs: Path, *, fsync: bool = False) -> None:
        self.programs = programs
        self.folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))  # short: the path of a socket has at most 107 characters
        self.owner = USER if os.geteuid() == 0 else None
        if self.owner is not None:
            account = pwd.getpwnam(self.owner)
            os.chown(self.folder, account.pw_uid, account.pw_gid)
        self.process: subprocess.Popen[bytes] | None = None
        line = [programs / "initdb", "-D", self.folder / "data", "-U", USER, "-A", "trust", "-E", "UTF8", "--locale", "C.UTF-8", "--no-sync"]
        subprocess.run(line, check=True, capture_output=True, **self._identity())
        options = ["listen_addresses = ''", f"unix_socket_directories = '{self.folder}'", "max_connections = 200", "timezone = 'Asia/Kolkata'"]
        options += [] if fsync else ["fsync = off", "full_page_writes = off"]
        with (self.folder / "data" / "postgresql.conf").open("a") as file:
            file.write("\n".join(options) + "\n")

    def _identity(self) -> dict[str, object]:
        return {"user": self.owner, "group": self.owner, "extra_groups": [], "cwd": self.folder} if self.owner else {"cwd": self.folder}

    def start(self) -> PostgresServer:
        """Start the server and wait until it answers."""
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen([self.programs / "postgres", "-D", self.folder / "data"], stdout=log, stderr=log, **self._identity())  # type: ignore[call-overload]
        deadline = time.monotonic() + 60
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"PostgreSQL did not start: {(self.folder / 'server.log').read_text()[-2000:]}")
            time.sleep(0.05)
        return self

    def answers(self) -> bool:
        """Tell whether the server takes connections."""
        try:
            psycopg.connect(host=str(self.folder), user=USER, dbname="postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: SIGINT ends all connections in order, SIGQUIT at once, as a crash would."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(60)
        self.process = None

    def remove(self) -> None:
        """Stop the server and remove all that it kept."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Run a statement outside a transaction."""
        with psycopg.connect(host=str(self.folder), user=USER, dbname=database, autocommit=True) as connection:
            connection.execute(statement)  # type: ignore[call-overload]

    def url(self, database: str) -> str:
        """Return the URL of a database as `database.url` takes it."""
        return f"postgresql+psycopg://{USER}@/{database}?host={self.folder}"
