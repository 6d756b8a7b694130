"""What travels between the rooms: frozen dataclasses without behaviour that touches disk, network or database.

::

    Arrival ─► Instance ─► Series ─► Study ─► Volume ─► Finding ─► ResultObject
    (spool)    (indexed)                       (pixels)  (score)    (to be sent)

Coordinates are those of DICOM's patient system (LPS, millimetres, PS3.3 C.7.6.2). Times are timezone-aware UTC.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

# --- reception ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sent something over which association."""

    calling_ae: str = ""
    called_ae: str = ""
    address: str = ""  # presentation address of the sender, host:port
    association: str = ""  # identifier made by the receiver, unique over restarts


@dataclass(frozen=True, slots=True)
class Arrival:
    """One acknowledged instance in the spool: a Part 10 file whose file meta holds the sender facts (PS3.10 7.1)."""

    path: Path
    name: str  # unique and time-ordered; the only key that links spool and database
    received_at: datetime
    sender: Sender


@dataclass(frozen=True, slots=True)
class AssociationEnd:
    """The synced marker that a receiver writes when an association is over."""

    path: Path
    name: str
    sender: Sender
    released: bool  # False: aborted or lost
    stored: int  # instances answered with success
    refused: int
    ended_at: datetime


@dataclass(frozen=True, slots=True)
class Refusal:
    """The marker that a receiver writes when it has refused a peer for who it is, or could not agree with it on TLS, or the page a login; counted."""

    path: Path
    name: str  # unique and time-ordered, like an arrival's
    sender: Sender  # as it called itself; ``address`` is its host
    reason: str
    count: int
    refused_at: datetime  # the last time
    kind: str = "sender"  # or "login": the sender's calling AE title is the user then


@dataclass(frozen=True, slots=True)
class Note:
    """A DIMSE-N request that a receiver has answered and left to the core (PS3.7 chapter 10). The dataset is as it was received."""

    path: Path
    name: str  # unique and time-ordered, like an arrival's
    received_at: datetime
    sender: Sender
    service: str  # a name in `pacs_node.reception.services.SERVICES`
    operation: str  # n-create, n-set, n-action, n-event-report
    sop_class_uid: str
    sop_uid: str
    number: int | None  # Action Type ID or Event Type ID
    transfer_syntax_uid: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Quarantined:
    """An object that was kept although it could not be accepted as it is."""

    path: Path
    name: str
    reason: str
    sender: Sender
    received_at: datetime


# --- assembly ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PatientIdentity:
    """Whose images these are; every field normalised by `pacs_node.dicom.header.identity`, so that equality means the same patient."""

    patient_id: str
    issuer: str
    name: str
    birth_date: str  # YYYYMMDD or ""


@dataclass(frozen=True, slots=True)
class Instance:
    """One SOP instance as indexed."""

    sop_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    study_uid: str
    series_uid: str
    modality: str
    patient: PatientIdentity
    path: Path
    sender: Sender = Sender()


@dataclass(frozen=True, slots=True)
class Series:
    """A series and what was received of it."""

    series_uid: str
    modality: str
    number: int | None
    description: str
    instances: tuple[Instance, ...]


@dataclass(frozen=True, slots=True)
class Announcement:
    """What a peer says of a study by a performed procedure step or an availability notification, as far as completeness asks for it.

    ``studies`` are Study Instance UIDs, none where the message leaves them out; ``state`` is one of `AnnouncementState`'s values, ``""`` where it
    is not said; ``instances`` are the SOP Instance UIDs that it lists, None where it has no list.
    """

    studies: tuple[str, ...]
    state: str
    instances: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class SeriesCount:
    """What an archive says of a series: Number of Series Related Instances (0020,1209), None where it does not say."""

    series_uid: str
    modality: str
    instances: int | None


@dataclass(frozen=True, slots=True)
class ArchiveAnswer:
    """What an archive counts of a study: its last answer and the one before (None: there was none), or why it gave none.

    ``fresh``: it was asked after the last instance had come.
    """

    series: tuple[SeriesCount, ...] | None
    before: tuple[SeriesCount, ...] | None
    problem: str
    fresh: bool


@dataclass(frozen=True, slots=True)
class Study:
    """A study and what was received of it."""

    study_uid: str
    patient: PatientIdentity
    series: tuple[Series, ...]


# --- analysis ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Plane:
    """Where a two-dimensional grid of pixels lies in the patient (PS3.3 C.7.6.2.1.1)."""

    position: tuple[float, float, float]  # centre of the first pixel, mm
    orientation: tuple[float, float, float, float, float, float]  # direction of a row (column index rising), then of a column
    spacing: tuple[float, float]  # between rows, between columns, mm
    thickness: float | None = None  # mm


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a slice of a volume came from."""

    sop_uid: str
    sop_class_uid: str
    number: int | None  # 1-based frame number, None in a single-frame object
    plane: Plane | None  # None without spatial information (plain ultrasound)
    spacing: tuple[float, float] | None = None  # between rows, between columns, mm, where they are known without a plane


class Pixels(Protocol):
    """What can be relied on of a volume's pixels: float32 of shape (slices, rows, columns), read by index.

    An array of numpy is one. What was read from files keeps the stored integers and makes values when they are asked for
    (`analysis.stored`): take one slice, or every n-th pixel, at a time; ``numpy.asarray`` makes all of them, which for a long series is much.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Slices, rows, columns."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[NDArray[np.float32]]: ...

    def __getitem__(self, key: Any, /) -> Any: ...

    def __array__(self) -> NDArray[Any]: ...


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a series comes from, as its header says it and `analysis.origin` normalises it; "" where it does not."""

    region: str = ""  # Body Part Examined (0018,0015)
    manufacturer: str = ""
    model: str = ""
    station: str = ""


@dataclass(frozen=True, slots=True)
class Volume:
    """The pixels of one series in physical units, in geometric order.

    ``pixels`` is float32 of shape (slices, rows, columns) in ``unit`` (UCUM: ``[hnsf'U]`` for CT); padding and everything
    outside the scanner's field of view is NaN.
    """

    pixels: Pixels
    unit: str
    frames: tuple[Frame, ...]  # one per slice
    modality: str
    series_uid: str
    frame_of_reference_uid: str | None = None
    synthetic: bool = False  # Synthetic Data (0008,001C) is YES
    remarks: tuple[str, ...] = ()  # what was skipped or noticed on the way, for people
    weighting: str = ""  # of MR: T1, T2, FLAIR, DWI, other, unknown
    origin: Origin = Origin()
    picture: bool = False  # a PNG or JPEG: one slice of grey values 0…255 without place, scale or unit


@dataclass(frozen=True, slots=True)
class Place:
    """Where the analysis grid lies on the pixels of a source slice: grid pixel (i, j) has its centre at (row + i·row_step, column + j·column_step)."""

    row: float  # counted from 0 at the centre of the source's first pixel
    column: float
    row_step: float  # source pixels from one grid row to the next
    column_step: float


@dataclass(frozen=True, slots=True)
class Algorithm:
    """Which model judged; the same values stand in every object of a run."""

    name: str  # the bundle's name
    version: str
    manufacturer: str
    bundle_hash: str  # SHA-256 over the bundle's bytes, hexadecimal
    config_hash: str  # SHA-256 over model.yaml
    calibration_hash: str  # SHA-256 over calibration.json, "" without one
    device_uid: str  # changes whenever the model's bytes change


class Population(StrEnum):
    """Whose studies a calibration was made on."""

    SITE = "site"
    FOREIGN = "foreign"
    SYNTHETIC = "synthetic"


@dataclass(frozen=True, slots=True)
class Calibration:
    """The facts of a calibration that people need beside a score."""

    population: Population
    studies: int
    threshold: float  # in units of the study score
    false_positive_rate: float  # promised, with 95 % confidence
    made_on: date
    scanner: str = ""  # the one whose studies alone are counted here, in words; "": all scanners together


class Verdict(StrEnum):
    """The only words said about a study. An anomaly score is no diagnosis."""

    ABOVE = "above the threshold"
    NOT_ABOVE = "not above the threshold"
    UNCALIBRATED = "uncalibrated"
    NOT_ANALYSED = "not analysed"


@dataclass(frozen=True, slots=True)
class Hottest:
    """Where the map of one slice is hottest, and why; ``row`` and ``column`` are pixels of the analysis grid."""

    index: int  # of the slice
    row: int
    column: int
    z: float  # of the fused map at that pixel
    contributions: Mapping[str, float]  # what each pixel map adds to ``z``; they add up to it


@dataclass(frozen=True, slots=True)
class HeadScore:
    """What a head trained on a site's few labels says: no calibrated score, and no ground for a verdict."""

    probability: float  # 0…1 that the study is like those not labelled normal, where both kinds are equally frequent
    normal: int  # labelled studies that it learnt from
    unusual: int
    auroc: float  # cross-validated by patient on those


@dataclass(frozen=True, slots=True)
class Finding:
    """What a pipeline says about one series.

    All maps are float32 of shape (slices, height, width) on the analysis grid, which lies in the plane of each source slice:
    ``planes[i]`` for slice i, in the frame of reference of the source.
    """

    volume: Volume
    algorithm: Algorithm
    score: float  # the study statistic, dimensionless; larger means less like the training studies
    verdict: Verdict
    calibration: Calibration | None  # the one that gave the verdict; None when uncalibrated for this study
    percentile: float | None  # 0…100 among the calibration studies, None when uncalibrated
    p_value: float | None  # conformal, (0, 1]
    parts: Mapping[str, float]  # named parts of the score
    slice_scores: NDArray[np.float32]  # (slices,)
    top_slices: tuple[int, ...]  # indices into the slices, most anomalous first
    heat: NDArray[np.float32]  # −log10 of the calibrated pixel tail, 0…4; or the relative map, 0…1
    heat_calibrated: bool
    planes: tuple[Plane | None, ...]
    view: NDArray[np.float32]  # the model's input back in physical units; NaN where the source has no pixels
    reconstruction: NDArray[np.float32]  # the pseudo-healthy image in physical units
    embedding: NDArray[np.float16]  # (slices, features)
    window: tuple[float, float]  # usual display window: centre, width in the volume's unit
    remarks: tuple[str, ...] = ()
    places: tuple[Place, ...] = ()  # one per slice, also where there is no plane; empty where only the planes say it
    contributions: Mapping[str, float] = field(default_factory=dict)  # what each part adds to the score; they add up to it
    hottest: tuple[Hottest, ...] = ()  # one for each of ``top_slices``
    head: HeadScore | None = None  # beside the score, where the bundle has a head


@dataclass(frozen=True, slots=True)
class SeriesEmbedding:
    """What a bundle says of a series in few numbers, as the database keeps it; ``mean`` and ``spread``: 128 × float16, little endian."""

    series_uid: str
    modality: str
    region: str
    bundle: str
    bundle_hash: str
    slices: int
    mean: bytes
    spread: bytes
    score: float


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A received object with the values as the scanner stored them.

    ``header`` holds all but the pixels; ``values`` are integers of shape (frames, rows, columns) or (frames, rows, columns, planes);
    ``photometric`` is what they mean now that they are decoded (PS3.3 C.7.6.3.1.2).
    """

    header: Dataset
    values: NDArray[np.integer[Any]]
    photometric: str


# --- events ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FaultKind:
    """A kind of alert for those who are told from outside. ``own_words``: its messages hold nothing that came from headers or other systems."""

    what: str
    own_words: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, for those who are told of it."""

    uid: str  # the same however often it is told
    at: datetime
    kind: str  # "result", or one of `FAULT_KINDS`
    over: bool  # the fault is over
    subject: str  # e.g. "job 4"
    detail: Mapping[str, Any]  # of a fault: `message`, or `since` where it is over; of a result what `journey.run_job` says of it


HEARTBEAT_PATIENT = "PACS-NODE-HEARTBEAT"
"""Patient ID of the phantoms that a node sends itself: whatever bears it is no patient's, and goes to test destinations only."""

FAULT_KINDS: Mapping[str, FaultKind] = {
    "parked": FaultKind("was given up and waits for `pacs-node retry`"),
    "refused": FaultKind("was refused for good by its destination"),
    "destination": FaultKind("does not take results: they wait, or have no place to go"),
    "commitment": FaultKind("has trouble with storage commitment"),
    "coerced": FaultKind("may lie under another patient in the archive"),
    "disk": FaultKind("is filling up", own_words=True),
    "drift": FaultKind("gives other scores than its calibration", own_words=True),
    "held": FaultKind("is held: its instances name different patients", own_words=True),
    "verify": FaultKind("is held: the archive knows another patient or order under its UID"),
    "identity": FaultKind("went out under a patient identity that has been corrected since", own_words=True),
    "rejected": FaultKind("was rejected after results of it had gone out"),
    "silence": FaultKind("sends nothing although it is expected to", own_words=True),
    "heartbeat": FaultKind("did not come back in time", own_words=True),
    "events": FaultKind("cannot be told of events"),
    "process": FaultKind("dies again and again", own_words=True),
    "duty": FaultKind("fails: the log says why"),
    "assembly": FaultKind("cannot be judged by the rules"),
    "gate": FaultKind("made results that the node's own check kept back"),
    "not sent": FaultKind("has results and no destination that takes them", own_words=True),
    "notice": FaultKind("failed, and its destinations could not be told"),
    "representation": FaultKind("has results without the compressed representation"),
    "contexts": FaultKind("takes other kinds of objects than before"),
    "audit": FaultKind("does not take the audit trail: its copy waits"),
    "fallback": FaultKind("was refused, and what is to go in its place cannot be made yet"),
    "fetch": FaultKind("lacks instances that could not be fetched"),
    "quarantine": FaultKind("could not be dealt with and lies in quarantine"),
    "conflict": FaultKind("came with other content under a known UID and is kept aside"),
    "file": FaultKind("cannot be read any more"),
    "retention": FaultKind("will be removed soon although it is not finished", own_words=True),
    "certificate": FaultKind("has a certificate or a secret that cannot be used"),
    "rules": FaultKind("was not taken over: the former rules stay in force"),
}
"""Kind of alert → what it says of its subject (``job 4``, ``destination archive``) to those who are told by webhook or e-mail."""


# --- results -----------------------------------------------------------------------------------------------------------

_USUAL = ("sr", "pm", "seg", "sc")
DEFAULT_KINDS: Mapping[str, tuple[str, ...]] = {"dicom": _USUAL, "stow": _USUAL, "folder": (*_USUAL, "raw")}  # by kind of destination
FALLBACKS: Mapping[str, str] = {"sr": "enhanced-sr", "sc": "single-frame"}  # kind → the one that may go in its place where it is not taken
RESULT_KINDS = ("sr", "pm", "seg", "sc", "raw", "denoised", "ko", "notice")


@dataclass(frozen=True, slots=True)
class Run:
    """The facts of one run of a job. Everything that makes a UID or a date in a result comes from here, never from the clock."""

    job_id: int
    number: int  # 1 for the first run of this study and pipeline
    pipeline: str
    node_name: str
    created_at: datetime  # UTC, of the job's row: the content date and time of all objects
    variant: str  # which set of kinds, e.g. "sr+sc+pm"
    complete_reason: str  # why the study counted as complete
    partial: bool  # True: the deadline came before the study was complete
    predecessor: PriorReport | None = None


@dataclass(frozen=True, slots=True)
class PriorReport:
    """The report of an earlier run that this one replaces (Predecessor Documents Sequence, PS3.3 C.17.2)."""

    sop_uid: str
    sop_class_uid: str
    series_uid: str
    study_uid: str


@dataclass(frozen=True, slots=True)
class Sources:
    """The study as the results refer to it: headers without pixels, as received.

    ``analysed`` holds the headers of the analysed series in the order of its volume's frames (each object once);
    ``others`` what else of the study was looked at or kept the study company.
    """

    analysed: tuple[Dataset, ...]
    others: tuple[Dataset, ...] = ()


@dataclass(frozen=True, slots=True)
class ResultObject:
    """A built object, ready for the gate."""

    kind: str  # one of RESULT_KINDS
    dataset: Dataset  # with file_meta
    order: int  # what is referenced goes before what refers to it

    @property
    def sop_uid(self) -> str:
        """SOP Instance UID."""
        return str(self.dataset.SOPInstanceUID)


class NoticeStatus(StrEnum):
    """Why there is no (full) result: CID 6042 of PS3.16."""

    NOT_ATTEMPTED = "111225"
    FAILED = "111224"
    PARTIALLY_SUCCEEDED = "111223"


@dataclass(frozen=True, slots=True)
class Notice:
    """What a notice tells the destination instead of, or beside, a result."""

    status: NoticeStatus
    reason: str


# --- delivery ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a destination said about one object."""

    sop_uid: str
    delivered: bool
    permanent: bool = False  # only where not delivered: no use trying again
    status: int | None = None  # DIMSE status
    message: str = ""
    coerced: str = ""  # where it was delivered: why it may lie under another patient now
    unsupported: bool = False  # only where permanent: the destination takes no objects of this kind, perhaps those of another

    @property
    def temporary(self) -> bool:
        """Worth another try later."""
        return not self.delivered and not self.permanent


@dataclass(frozen=True, slots=True)
class Parcel:
    """One stored object on its way to one destination."""

    sop_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    path: Path
    folder: str = ""  # a name for people (study and pipeline), used by `folder` destinations
    original: bool = False  # as received: never encoded in another way, and nothing in its group refers to it


# --- audit ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """A row of the audit trail. It names studies and objects by their UIDs, never a patient."""

    number: int  # rises by one from row to row
    at: datetime
    actor: str  # an operator, a process, a sender
    action: str
    subject: str  # e.g. "study 12"
    detail: Any  # facts as JSON has them
    hash: str = ""  # over all this and the hash of the row before


@dataclass(frozen=True, slots=True)
class AuditChain:
    """How far the hashes of the trail hold."""

    length: int  # rows that follow each other from the first on
    head: str  # hash of the last of them: the anchor
    bad: int | None = None  # number of the first row that does not belong where it stands
    fault: str = ""  # what is wrong, "" where nothing is
