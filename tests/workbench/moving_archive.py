"""An archive that answers C-FIND and C-MOVE from what it holds, and misbehaves as a test tells it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, build_context, evt
from pynetdicom.sop_class import CTImageStorage
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as FIND
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelMove as MOVE


@dataclass
class MovingArchive:
    """Holds ``images``; knows our application entity at ``ports[title]`` only.

    ``keep_back``: so many instances of each series it leaves out; ``instead`` changes an image before it is sent; ``ignore_keys``: C-FIND
    answers with everything; ``off_after``: it refuses associations after so many moves.
    """

    images: list[Dataset]
    ports: dict[str, int] = field(default_factory=dict)
    keep_back: int = 0
    counts: bool = True
    ignore_keys: bool = False
    instead: Callable[[Dataset], Dataset] = lambda image: image
    move_status: int | None = None
    moved: list[str] = field(default_factory=list)  # Series Instance UIDs
    asked: list[str] = field(default_factory=list)  # accession numbers
    server: Any = None

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    def start(self) -> MovingArchive:
        entity = AE("ARCHIVE")
        for uid in (FIND, MOVE):
            entity.add_supported_context(uid)
        entity.requested_contexts = [build_context(CTImageStorage)]
        self.server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, self._find), (evt.EVT_C_MOVE, self._move)])
        return self

    def stop(self) -> None:
        if self.server is not None:
            self.server.shutdown()
            self.server = None

    def _find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        asked = event.identifier
        if asked.QueryRetrieveLevel == "STUDY":
            self.asked.append(str(asked.AccessionNumber))
            matching = [image for image in self.images if self.ignore_keys or image.AccessionNumber == asked.AccessionNumber]
            for uid in dict.fromkeys(image.StudyInstanceUID for image in matching):
                number = next(image.AccessionNumber for image in matching if image.StudyInstanceUID == uid)
                yield 0xFF00, _answer("STUDY", StudyInstanceUID=uid, AccessionNumber=number)
            return
        inside = [image for image in self.images if image.StudyInstanceUID == asked.StudyInstanceUID]
        for uid in dict.fromkeys(image.SeriesInstanceUID for image in inside):
            series = [image for image in inside if image.SeriesInstanceUID == uid]
            count = {"NumberOfSeriesRelatedInstances": len(series)} if self.counts else {}
            yield 0xFF00, _answer("SERIES", StudyInstanceUID=asked.StudyInstanceUID, SeriesInstanceUID=uid, Modality=series[0].Modality, **count)

    def _move(self, event: evt.Event) -> Iterable[Any]:
        uid = str(event.identifier.SeriesInstanceUID)
        self.moved.append(uid)
        port = self.ports.get(str(event.move_destination))
        if port is None:
            yield None, None
            return
        chosen: Sequence[Dataset] = [image for image in self.images if image.SeriesInstanceUID == uid]
        chosen = chosen[: len(chosen) - self.keep_back]
        yield "127.0.0.1", port
        yield len(chosen)
        if self.move_status is not None:
            yield self.move_status, None
            return
        for image in chosen:
            yield 0xFF00, self.instead(image)


def _answer(level: str, **values: object) -> Dataset:
    answer = Dataset()
    answer.QueryRetrieveLevel = level
    for keyword, value in values.items():
        setattr(answer, keyword, value)
    return answer
