"""What pages, health and metrics read: the configuration, the database and the files. None of them changes anything."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy.orm import Session

from pacs_node.config import Settings
from pacs_node.database.engine import Store
from pacs_node.reception.pressure import Disk, measure


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Sources:
    """Read-only access to a node. ``store`` is one that refuses to write (`Store(…, reads_only=True)`)."""

    settings: Settings
    store: Store
    roles: tuple[str, ...] = ("receiver", "core", "worker")  # that run on this machine, below the same parent
    counts: Path | None = None  # the folder in which the processes count; None: they do not
    clock: Callable[[], datetime] = _now  # a moved one in tests
    measure: Callable[[Path], Disk] = measure  # a made-up disk in tests
    started: datetime = field(default_factory=_now)

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.settings.node.data

    def read(self) -> AbstractContextManager[Session]:
        """Give a session for queries; raises `DatabaseUnavailable`."""
        return self.store.read()
