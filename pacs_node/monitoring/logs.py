"""Structured logs: one line per event, for people on a terminal, as JSON elsewhere. No patient data.

A study is named by its number and a short hash of its UID, never by the patient. Standard-library logging (pynetdicom, APScheduler,
warnings) ends in the same stream.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import sys
from typing import Any, TextIO, cast

import structlog

_SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
]


class _Stderr(io.TextIOBase):
    """Standard error as it is at the time of writing. Where nobody reads it any more, the line is lost and nothing else."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):  # a broken pipe, a full disk, a closed file
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()


def configure(*, process: str, json_lines: bool | None = None) -> None:
    """Set logging up for this process; ``json_lines`` None: JSON unless standard error is a terminal."""
    as_json = not sys.stderr.isatty() if json_lines is None else json_lines
    renderer: Any = structlog.processors.JSONRenderer(ensure_ascii=False) if as_json else structlog.dev.ConsoleRenderer(pad_event_to=0)
    last: list[Any] = [structlog.processors.format_exc_info, renderer] if as_json else [renderer]
    shared = [_of(process), *_SHARED]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Stderr())),
        cache_logger_on_first_use=False,  # what is configured later holds for all
    )
    handler = logging.StreamHandler(_Stderr())
    formatter = structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last])
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.captureWarnings(True)
    logging.getLogger("pynetdicom").setLevel(logging.ERROR)
    logging.getLogger("apscheduler").setLevel(logging.ERROR)  # a duty that takes longer than its interval is nothing to warn of
    logging.getLogger("py.warnings").setLevel(logging.ERROR)  # remarks on other makers' files; what matters is reported by us


def _of(process: str) -> Any:
    """Return what names the process in every line, whatever thread writes it."""

    def name(_logger: object, _method: str, event: dict[str, Any]) -> dict[str, Any]:
        event.setdefault("process", process)
        return event

    return name


def study_tag(study_uid: str) -> str:
    """Return a short name of a study for logs that says nothing about the patient."""
    return hashlib.sha256(study_uid.encode()).hexdigest()[:12]
