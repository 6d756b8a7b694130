"""What the statement is made of: what is accepted and proposed with a configuration, and what is answered, as tables.

The classes accepted come from the functions that the receivers ask; the test of this package holds all of it against what is negotiated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pacs_node import results
from pacs_node.config import DicomDestination, Settings
from pacs_node.delivery.counting import STUDY_ROOT_MOVE
from pacs_node.delivery.query import STUDY_ROOT_FIND
from pacs_node.dicom.commitment import PUSH_MODEL
from pacs_node.dicom.sop_classes import VERIFICATION, accepted_classes, name_of
from pacs_node.dicom.transfer_syntaxes import DEFAULT, REENCODABLE
from pacs_node.reception import services

EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
QUERY_SYNTAXES = (DEFAULT, EXPLICIT, DEFLATED, BIG_ENDIAN)
COMMITMENT_SYNTAXES = (EXPLICIT, DEFAULT)
PROBE_SYNTAXES = (*REENCODABLE, DEFAULT)

NORMALIZED = {
    PUSH_MODEL: "Storage Commitment Push Model",
    "1.2.840.10008.3.1.2.3.3": "Modality Performed Procedure Step",
    "1.2.840.10008.5.1.4.33": "Instance Availability Notification",
    STUDY_ROOT_FIND: "Study Root Query/Retrieve Information Model - FIND",
    STUDY_ROOT_MOVE: "Study Root Query/Retrieve Information Model - MOVE",
    VERIFICATION: "Verification",
}


@dataclass(frozen=True, slots=True)
class Accepted:
    """An abstract syntax that the receivers accept. ``role``: ours; SCU only where the peer proposes to be the SCP (PS3.7 D.3.3.4)."""

    uid: str
    service: str
    role: str

    @property
    def name(self) -> str:
        """Its name."""
        return class_name(self.uid)


@dataclass(frozen=True, slots=True)
class Proposed:
    """A presentation context of an association that we open. ``syntaxes``: empty for that of the received object."""

    activity: str
    uid: str
    syntaxes: tuple[str, ...]
    role: str = "SCU"
    name_given: str = ""

    @property
    def name(self) -> str:
        """Its name."""
        return self.name_given or class_name(self.uid)


@dataclass(frozen=True, slots=True)
class Answer:
    """A status that we answer, and when."""

    operation: str
    status: int
    meaning: str
    when: str


def class_name(uid: str) -> str:
    """Return the name of a SOP class for people."""
    return NORMALIZED.get(uid) or (name_of(uid) if name_of(uid) != uid else "private storage class of the configuration")


def accepted(settings: Settings) -> list[Accepted]:
    """Return what the receivers accept with a configuration: Verification, storage, and the services that are turned on."""
    reception = settings.reception
    storage = accepted_classes(reception.private_sop_classes) - frozenset(reception.denied_sop_classes)
    found = [
        Accepted(uid, "C-ECHO" if uid == VERIFICATION else "C-STORE", "SCP") for uid in sorted(storage, key=lambda uid: (uid != VERIFICATION, class_name(uid)))
    ]
    for name in services.wanted(settings):
        row = services.SERVICES[name]
        operations = ", ".join(sorted(operation.upper() for operation in row.operations))
        found += [Accepted(uid, operations, "SCU" if row.peer_serves else "SCP") for uid in row.sop_classes]
    return found


def proposed(settings: Settings) -> list[Proposed]:
    """Return what we propose to archives with a configuration, activity by activity."""
    places = [place for place in settings.destinations.values() if isinstance(place, DicomDestination)]
    found: list[Proposed] = []
    if any(place.accepts_research for place in places):
        found += _of_results()
    if places:
        found.append(Proposed("forward originals", "", (), name_given="that of the received object"))
        found.append(Proposed("verify", VERIFICATION, (DEFAULT,)))
        found += [Proposed("verify", uid, PROBE_SYNTAXES) for uid in dict.fromkeys(uid for _, uid in result_classes())]
        found += [Proposed("verify", uid, PROBE_SYNTAXES) for uid in (STUDY_ROOT_FIND, PUSH_MODEL)]
        found.append(Proposed("query", STUDY_ROOT_FIND, QUERY_SYNTAXES))
        found.append(Proposed("retrieve", STUDY_ROOT_MOVE, QUERY_SYNTAXES))
    if any(place.commitment for place in places):
        found.append(Proposed("request storage commitment", PUSH_MODEL, COMMITMENT_SYNTAXES))
    if settings.reception.commitment:
        found.append(Proposed("report storage commitment", PUSH_MODEL, COMMITMENT_SYNTAXES, role="SCP"))
    return found


def _of_results() -> Iterator[Proposed]:
    for uid in dict.fromkeys(uid for _, uid in result_classes()):
        yield Proposed("send results", uid, (EXPLICIT,))
        yield Proposed("send results", uid, (DEFAULT,))


def result_classes() -> list[tuple[str, str]]:
    """Return the kinds of results with their SOP classes, those that stand in for others too."""
    built = [(kind, row.sop_class_uid) for kind, row in results.BUILDERS.items()]
    return built + [(kind, made.sop_class_uid) for kind, made in results.STAND_INS.items()]


REJECTIONS: tuple[tuple[int, int, int, str], ...] = (
    (1, 1, 7, "the called AE title is none of `node.ae_titles`"),
    (1, 1, 3, "`reception.senders` is given and does not name the calling AE title"),
    (1, 1, 1, "`reception.senders` names the calling AE title, but not with this address"),
    (2, 3, 2, "`reception.max_associations` are open"),
    (2, 3, 1, "the disk of the spool is almost filled up to `reception.reserve`"),
    (2, 2, 1, "a fault of this node, which its log describes"),
)
"""Result, source and reason of a rejected association (PS3.8 Table 9-21), and when."""

STORE_ANSWERS: tuple[Answer, ...] = (
    Answer("C-STORE", 0x0000, "Success", "the object is durable: its bytes, its name and its folder are synced to disk under a name that a restart finds"),
    Answer(
        "C-STORE",
        0xA700,
        "Refused: Out of Resources",
        "the disk is filled up to `reception.reserve`, read-only or failing, or a fault of this node; nothing is kept. Send it again",
    ),
    Answer("C-STORE", 0xA900, "Error: Data Set does not match SOP Class", "the SOP Class UID of the data set is not that of the command; kept in quarantine"),
    Answer(
        "C-STORE",
        0xC000,
        "Error: Cannot understand",
        "no SOP Class UID or SOP Instance UID in its beginning, another SOP Instance UID than the "
        "command's, or larger than `reception.max_object`; kept in quarantine",
    ),
)
ECHO_ANSWERS: tuple[Answer, ...] = (Answer("C-ECHO", 0x0000, "Success", "always"),)
NOTE_ANSWERS: tuple[Answer, ...] = (
    Answer("all", 0x0000, "Success", "the request is durable and will be dealt with"),
    Answer("all", 0x0110, "Processing failure", "its data set cannot be read to its end, or a fault of this node"),
    Answer("all", 0x0117, "Invalid SOP Instance", "its SOP Instance UID is missing or no UID"),
    Answer("all", 0x0211, "Unrecognized operation", "the service does not take this operation"),
    Answer("all", 0x0213, "Resource limitation", "the disk is filled up to `reception.reserve`, or the data set is larger than 8 MiB"),
    Answer("N-ACTION", 0x0112, "No such SOP Instance", "it is not about the Storage Commitment Push Model SOP Instance (1.2.840.10008.1.20.1.1)"),
    Answer("N-ACTION", 0x0115, "Invalid argument value", "it names no Transaction UID or no SOP Instance"),
    Answer("N-ACTION", 0x0123, "No such action", "the Action Type ID is not 1"),
)
"""Of the normalized services that are turned on: storage commitment, MPPS, instance availability."""
