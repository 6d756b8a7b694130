"""An arrival with all that the index wants to know of it, and what one transaction decides about several of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pacs_node.assembly.rejections import Rejection, read_rejection
from pacs_node.dicom.header import identity, made_by, nested_deeper, number_of, read_header, text_of
from pacs_node.dicom.uids import node_device_uid
from pacs_node.errors import UnreadableObject
from pacs_node.journey import House
from pacs_node.records import Arrival, Instance, Series


@dataclass(frozen=True)
class Item:
    """An arrival as read: nothing is parsed inside a transaction."""

    arrival: Arrival
    instance: Instance
    series: Series
    accession: str
    description: str
    own: bool  # made by this node
    rejection: Rejection | None  # what it says, where it is a rejection note


@dataclass
class Batch:
    """What one transaction decided about files: carried out after its commit."""

    moves: list[tuple[Path, str]] = field(default_factory=list)  # spool file → path in the data folder
    drops: list[Arrival] = field(default_factory=list)  # duplicates
    studies: set[int] = field(default_factory=set)
    remarks: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    begun: set[tuple[int, str]] = field(default_factory=set)  # study and sender, as `House.begun`


def describe(house: House, arrival: Arrival) -> Item:
    """Read what is indexed of an arrived object; raises `UnreadableObject`."""
    header, most = read_header(arrival.path, f"arrival {arrival.name}"), house.settings.reception.max_nesting
    if nested_deeper(header, most):
        raise UnreadableObject(f"arrival {arrival.name}", f"its sequences are nested more than {most} deep (reception.max_nesting)")
    instance = Instance(
        sop_uid=text_of(header, "SOPInstanceUID")[:64],
        sop_class_uid=text_of(header, "SOPClassUID")[:64],
        transfer_syntax_uid=text_of(header.file_meta, "TransferSyntaxUID")[:64],
        study_uid=text_of(header, "StudyInstanceUID")[:64],
        series_uid=text_of(header, "SeriesInstanceUID")[:64],
        modality=text_of(header, "Modality")[:16],
        patient=identity(header),
        path=arrival.path,
        sender=arrival.sender,
    )
    series = Series(instance.series_uid, instance.modality, number_of(header, "SeriesNumber"), text_of(header, "SeriesDescription"), ())
    own = made_by(header, node_device_uid(house.settings.node.name))
    rejection = None if own else read_rejection(header)
    return Item(arrival, instance, series, text_of(header, "AccessionNumber"), text_of(header, "StudyDescription"), own, rejection)


def split_at_repeat(items: list[Item]) -> tuple[list[Item], list[Item]]:
    """Cut where a SOP instance comes a second time: it has to be compared with the first, once that is indexed."""
    seen: set[str] = set()
    for index, item in enumerate(items):
        if item.instance.sop_uid in seen:
            return items[:index], items[index:]
        seen.add(item.instance.sop_uid)
    return items, []
