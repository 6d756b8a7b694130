"""A series as the rules see it: its headers, and who sent it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pydicom.dataset import Dataset

from pacs_node.dicom.header import has_pixels, text_of
from pacs_node.dicom.values import Key, Places, places


@dataclass(frozen=True, slots=True, eq=False)
class SeriesView:
    """One series of a study.

    ``headers`` are those of its instances without pixels; ``frames`` is how many images they hold: one for a single-frame
    object, NumberOfFrames (0028,0008) for a multi-frame one, none for an object without pixels.
    """

    series_uid: str
    modality: str
    number: int | None
    description: str
    headers: tuple[Dataset, ...]
    called_ae: str = ""
    calling_ae: str = ""
    frames: int = 0
    _found: dict[Key, Places] = field(default_factory=dict, init=False, repr=False)  # several rules ask for the same attributes

    def places(self, key: Key) -> Places:
        """Return the values of an attribute in all instances, each looked up once (see `pacs_node.dicom.values.places`)."""
        if key not in self._found:
            self._found[key] = tuple(place for header in self.headers for place in places(header, key))
        return self._found[key]

    @property
    def label(self) -> str:
        """The series for people: number, description, modality and size."""
        name = f"series {self.number}" if self.number is not None else "series without number"
        quoted = f' "{self.description}"' if self.description else ""
        instances = f"{len(self.headers)} instance{'' if len(self.headers) == 1 else 's'}"
        frames = f"{self.frames} frame{'' if self.frames == 1 else 's'}"
        return f"{name}{quoted} ({self.modality or 'no modality'}, {instances}, {frames})"


def view(headers: Sequence[Dataset], *, called_ae: str = "", calling_ae: str = "") -> SeriesView:
    """Return one series from the headers of its instances (at least one); the first that says so names modality, number and description."""
    texts = {keyword: next((text for header in headers if (text := text_of(header, keyword))), "") for keyword in ("Modality", "SeriesDescription")}
    number = next((text for header in headers if (text := text_of(header, "SeriesNumber"))), "")
    return SeriesView(
        series_uid=text_of(headers[0], "SeriesInstanceUID"),
        modality=texts["Modality"],
        number=int(number) if number.lstrip("+-").isdecimal() else None,
        description=texts["SeriesDescription"],
        headers=tuple(headers),
        called_ae=called_ae,
        calling_ae=calling_ae,
        frames=sum(map(frame_count, headers)),
    )


def views(headers: Iterable[Dataset], *, called_ae: str = "", calling_ae: str = "") -> tuple[SeriesView, ...]:
    """Return the series that these headers belong to, in the order of their first instance."""
    series: dict[str, list[Dataset]] = {}
    for header in headers:
        series.setdefault(text_of(header, "SeriesInstanceUID"), []).append(header)
    return tuple(view(members, called_ae=called_ae, calling_ae=calling_ae) for members in series.values())


def frame_count(header: Dataset) -> int:
    """Return how many images an object holds (PS3.3 C.7.6.6); an unreadable NumberOfFrames counts as one image."""
    if not has_pixels(header):
        return 0
    text = text_of(header, "NumberOfFrames")
    return max(1, int(text)) if text.isdecimal() else 1
