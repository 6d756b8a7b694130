"""An archive that answers C-FIND and C-MOVE as a test tells it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as FIND
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelMove as MOVE

Counts = Mapping[str, int | None]
"""Series Instance UID → number of instances, None where the archive does not say it."""


@dataclass
class CountingPeer:
    """Answers each question with the next of ``answers``, and after the last with that again."""

    answers: list[Counts] = field(default_factory=list)
    modality: str = "CT"
    status: int = 0x0000
    move: Callable[[str], int] = lambda series: 0xA801  # series → status
    classes: tuple[str, ...] = (FIND, MOVE)
    hang: threading.Event | None = None  # answers only once it is set
    asked: list[str] = field(default_factory=list)  # studies
    moved: list[tuple[str, str]] = field(default_factory=list)  # series, destination
    server: Any = None

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    def start(self) -> CountingPeer:
        entity = AE("ARCHIVE")
        for uid in self.classes:
            entity.add_supported_context(uid)
        handlers = [(evt.EVT_C_FIND, self._find), (evt.EVT_C_MOVE, self._move)]
        self.server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        return self

    def stop(self) -> None:
        if self.hang is not None:
            self.hang.set()
        self.server.shutdown()

    def _find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        if self.hang is not None:
            self.hang.wait(30)
        self.asked.append(str(event.identifier.StudyInstanceUID))
        if self.status:
            yield self.status, None
            return
        counts = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        for uid, count in counts.items():
            answer = Dataset()
            answer.QueryRetrieveLevel, answer.StudyInstanceUID, answer.SeriesInstanceUID = "SERIES", event.identifier.StudyInstanceUID, uid
            answer.Modality = self.modality
            if count is not None:
                answer.NumberOfSeriesRelatedInstances = count
            yield 0xFF00, answer

    def _move(self, event: evt.Event) -> Iterable[Any]:
        series = str(event.identifier.SeriesInstanceUID)
        self.moved.append((series, event.move_destination))
        status = self.move(series)
        if status == 0xA801:
            yield None, None
            return
        yield "127.0.0.1", 1
        yield 0  # what is sent goes another way, `move` sees to it
