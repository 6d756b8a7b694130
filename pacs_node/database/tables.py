"""The tables. Times are UTC; `JSON` columns hold what is only shown or passed on, never what is searched for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Enum,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    event,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from pacs_node.database.states import AnnouncementState, DeliveryState, JobState, NotificationState, RequestState, StudyState


class UTCTime(TypeDecorator[datetime]):
    """A moment: stored as UTC without offset, given back timezone-aware; a naive value is refused."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn an aware time into naive UTC."""
        if value is not None and value.tzinfo is None:
            raise ValueError("a time without timezone must not reach the database")
        return value and value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn naive UTC into an aware time."""
        return value and value.replace(tzinfo=UTC)


def _states(kind: type[StudyState] | type[JobState] | type[DeliveryState] | type[AnnouncementState] | type[RequestState] | type[NotificationState]) -> Enum:
    return Enum(kind, native_enum=False, length=16, values_callable=lambda states: [state.value for state in states])


HEAD_START = (timedelta(0), timedelta(hours=2), timedelta(hours=12))
"""By priority (0 urgent, 1 normal, 2 night): how much later an urgent job may come and still be claimed first; so nothing waits for ever."""


def turn_of(priority: int, since: datetime) -> datetime:
    """Return the moment that stands for a job in the queue: the earliest is claimed first."""
    return since + HEAD_START[priority]


class _Inserting(Protocol):
    def get_current_parameters(self) -> dict[str, Any]: ...


def _turn(inserting: _Inserting) -> datetime:
    facts = inserting.get_current_parameters()
    return turn_of(facts["priority"], facts["created_at"])


class Base(DeclarativeBase):
    """Base of all tables."""

    type_annotation_map = {datetime: UTCTime, dict[str, Any]: JSON, list[Any]: JSON, list[str]: JSON}  # noqa: RUF012 - SQLAlchemy's own protocol


@event.listens_for(Base, "attribute_instrument", propagate=True)
def _bound_texts(_row: type[Base], _key: str, attribute: Any) -> None:
    """Cut what is longer than its column: headers hold anything, and PostgreSQL refuses what SQLite would take."""
    column = getattr(attribute.property, "columns", [None])[0]
    length = getattr(column.type, "length", None) if column is not None and not isinstance(column.type, Enum) else None
    if length is not None:
        event.listen(attribute, "set", lambda _instance, value, *_: value[:length] if isinstance(value, str) else value, retval=True)


class StudyRow(Base):
    """A study: where it stands and when it is looked at again."""

    __tablename__ = "studies"
    id: Mapped[int] = mapped_column(primary_key=True)
    study_uid: Mapped[str] = mapped_column(String(64), unique=True)
    state: Mapped[StudyState] = mapped_column(_states(StudyState))
    patient_id: Mapped[str] = mapped_column(Text)  # normalised identity of the study as a whole
    issuer: Mapped[str] = mapped_column(Text)
    patient_name: Mapped[str] = mapped_column(Text)
    birth_date: Mapped[str] = mapped_column(String(32))
    accession: Mapped[str] = mapped_column(String(64), index=True)
    description: Mapped[str] = mapped_column(Text)
    first_arrival: Mapped[datetime]  # of the present gathering: late instances begin a new one
    last_arrival: Mapped[datetime]
    look_again_at: Mapped[datetime | None]  # the timer of assembly
    waiting_for: Mapped[str] = mapped_column(Text, default="")
    outcome: Mapped[str] = mapped_column(Text, default="")  # for people: what the rules decided
    held_reason: Mapped[str] = mapped_column(Text, default="")
    released_identities: Mapped[list[str]] = mapped_column(default=list)  # those an operator declared to be one patient
    decisions: Mapped[list[Any]] = mapped_column(default=list)  # how each rule decided, for `explain` and the status page
    removed_at: Mapped[datetime | None]  # since when no file of it is here: the rows are its tombstone
    removed_reason: Mapped[str] = mapped_column(Text, default="")  # why files were removed the last time
    series: Mapped[list[SeriesRow]] = relationship(back_populates="study", cascade="all, delete-orphan", order_by="SeriesRow.id")

    @property
    def waits_for(self) -> str:
        """What it waits for, for people; ``""`` where it waits for nothing."""
        return self.held_reason or self.waiting_for or ("quiet time" if self.look_again_at else "")

    __table_args__ = (
        Index("ix_studies_due", "state", "look_again_at"),
        Index("ix_studies_newest", "last_arrival"),
        Index("ix_studies_retention", "removed_at", "last_arrival", "id"),
    )


class SeriesRow(Base):
    """A series of a study."""

    __tablename__ = "series"
    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True)
    series_uid: Mapped[str] = mapped_column(String(64))
    modality: Mapped[str] = mapped_column(String(16))
    number: Mapped[int | None]
    description: Mapped[str] = mapped_column(Text)
    study: Mapped[StudyRow] = relationship(back_populates="series")
    instances: Mapped[list[InstanceRow]] = relationship(back_populates="series", cascade="all, delete-orphan", order_by="InstanceRow.id")
    __table_args__ = (UniqueConstraint("study_id", "series_uid"),)


class InstanceRow(Base):
    """A SOP instance. Its file is `studies/<study>/<instance>.<version>.dcm`, made of numbers only (see `studies.instance_path`)."""

    __tablename__ = "instances"
    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"), index=True)
    sop_uid: Mapped[str] = mapped_column(String(64), unique=True)
    sop_class_uid: Mapped[str] = mapped_column(String(64))
    transfer_syntax_uid: Mapped[str] = mapped_column(String(64))
    version: Mapped[int] = mapped_column(default=1)  # rises when a corrected object replaces the file
    copy: Mapped[int] = mapped_column(default=1)  # rises when it is received again after its file was removed: no path is used twice
    removed_at: Mapped[datetime | None]  # when retention removed the file
    fingerprint: Mapped[str] = mapped_column(String(64), default="")  # of the dataset whose file was removed: what a repeat is compared with
    identity: Mapped[list[str]]  # patient id, issuer, name, birth date: normalised
    own: Mapped[bool] = mapped_column(default=False)  # made by this node: never routed
    rejected: Mapped[str] = mapped_column(String(16), default="")  # code of the note that rejects it, or "note" where it is one: kept, not used
    arrival: Mapped[str] = mapped_column(String(96), unique=True)  # name of the newest spool file taken in
    association: Mapped[str] = mapped_column(String(64), default="", index=True)
    calling_ae: Mapped[str] = mapped_column(String(16), default="")
    called_ae: Mapped[str] = mapped_column(String(16), default="")
    address: Mapped[str] = mapped_column(String(128), default="")
    received_at: Mapped[datetime]
    series: Mapped[SeriesRow] = relationship(back_populates="instances")

    @property
    def usable(self) -> bool:
        """Whether rules and pipelines look at it: it came from elsewhere, and nobody has rejected it."""
        return not self.own and not self.rejected

    __table_args__ = (Index("ix_instances_own", "study_id", sqlite_where=text("own = 1"), postgresql_where=text("own")),)


class AssociationRow(Base):
    """An association that is over."""

    __tablename__ = "associations"
    association: Mapped[str] = mapped_column(String(64), primary_key=True)
    calling_ae: Mapped[str] = mapped_column(String(16))
    called_ae: Mapped[str] = mapped_column(String(16))
    address: Mapped[str] = mapped_column(String(128))
    released: Mapped[bool]
    stored: Mapped[int]
    refused: Mapped[int]
    ended_at: Mapped[datetime]
    __table_args__ = (Index("ix_associations_heard", "calling_ae", "ended_at"),)


class AsideRow(Base):
    """A received object that is kept but goes no further: quarantined, in conflict, or superseded; with the reason."""

    __tablename__ = "aside"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))  # quarantine | conflict | superseded
    reason: Mapped[str] = mapped_column(Text)
    path: Mapped[str] = mapped_column(Text, unique=True)  # relative to the data folder
    sop_uid: Mapped[str] = mapped_column(Text, default="")
    study_uid: Mapped[str] = mapped_column(Text, default="")
    calling_ae: Mapped[str] = mapped_column(String(16), default="")
    received_at: Mapped[datetime]
    removed_at: Mapped[datetime | None]
    __table_args__ = (Index("ix_aside_retention", "removed_at", "received_at", "id"),)


class AnnouncementRow(Base):
    """What a peer said about a study: a performed procedure step, or an availability notification. One row for each study that it names."""

    __tablename__ = "announcements"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))  # the service: mpps | availability
    sop_uid: Mapped[str] = mapped_column(String(64))
    study_uid: Mapped[str] = mapped_column(String(64), index=True)  # "": not said yet
    state: Mapped[AnnouncementState] = mapped_column(_states(AnnouncementState))
    instances: Mapped[list[str]] = mapped_column(default=list)  # SOP Instance UIDs that it lists
    calling_ae: Mapped[str] = mapped_column(String(16), default="")
    said_at: Mapped[datetime]
    __table_args__ = (UniqueConstraint("kind", "sop_uid", "study_uid"),)


class RejectionRow(Base):
    """That a rejection note names an instance, which may not have come yet."""

    __tablename__ = "rejections"
    id: Mapped[int] = mapped_column(primary_key=True)
    sop_uid: Mapped[str] = mapped_column(String(64), index=True)  # of the instance
    note_uid: Mapped[str] = mapped_column(String(64))
    code: Mapped[str] = mapped_column(String(16))
    said_at: Mapped[datetime]
    __table_args__ = (UniqueConstraint("note_uid", "sop_uid"),)


class CountRow(Base):
    """What an archive answered when it was asked how many instances a study has."""

    __tablename__ = "counts"
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), primary_key=True)
    destination: Mapped[str] = mapped_column(String(64), primary_key=True)
    next_at: Mapped[datetime] = mapped_column(index=True)  # when it is asked again
    asked: Mapped[int] = mapped_column(default=0)  # times, since the last instance came
    asked_at: Mapped[datetime | None]
    received: Mapped[int] = mapped_column(default=0)  # instances of the study that were here when it was asked: with others the answer is stale
    answer: Mapped[list[Any] | None]  # [[series, modality, count], …], None: no answer yet
    before: Mapped[list[Any] | None]  # the answer before that
    problem: Mapped[str] = mapped_column(Text, default="")  # why the last question was not answered
    fetch: Mapped[list[str]] = mapped_column(default=list)  # series that are to be fetched
    fetched: Mapped[int] = mapped_column(default=0)  # how often something was


class JobRow(Base):
    """One run of a pipeline on selected series of a study."""

    __tablename__ = "jobs"
    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True)
    pipeline: Mapped[str] = mapped_column(String(64))  # "": a notice only
    series_uids: Mapped[list[str]]
    rules: Mapped[list[str]]
    shadow_rules: Mapped[list[str]] = mapped_column(default=list, server_default="[]")  # those of `rules` that are only tried
    targets: Mapped[list[Any]]  # [{destination, kinds | null, notice, shadow_rules}]
    digest: Mapped[str] = mapped_column(String(64))  # of what is analysed: series, instances, versions, identity
    state: Mapped[JobState] = mapped_column(_states(JobState))
    shadow: Mapped[bool] = mapped_column(default=False, server_default=false())  # all its rules are only tried: nothing of it is sent
    priority: Mapped[int]  # 0 urgent, 1 normal, 2 night
    turn: Mapped[datetime] = mapped_column(default=_turn, server_default="2000-01-01 00:00:00.000000")  # the order in which jobs are claimed
    run: Mapped[int] = mapped_column(default=1)
    predecessor_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    complete_reason: Mapped[str] = mapped_column(Text)
    partial: Mapped[bool]
    attempts: Mapped[int] = mapped_column(default=0)
    rung: Mapped[int] = mapped_column(default=0, server_default="0")  # how far down the ladder of `executors.retry` it has come
    not_before: Mapped[datetime]
    lease_until: Mapped[datetime | None]
    worker: Mapped[str] = mapped_column(String(128), default="")
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    progress: Mapped[float] = mapped_column(default=0.0)
    reason: Mapped[str] = mapped_column(Text, default="")  # why not analysed, parked or cancelled
    told: Mapped[bool] = mapped_column(default=False)  # a parked job: its destinations were told, as far as they want to be
    finding: Mapped[dict[str, Any]] = mapped_column(default=dict)  # score, verdict, parts, remarks, for tables and pages
    removed_at: Mapped[datetime | None]  # since when none of its result files is here
    study: Mapped[StudyRow] = relationship()
    objects: Mapped[list[ObjectRow]] = relationship(back_populates="job", order_by="ObjectRow.id")
    __table_args__ = (
        Index("ix_jobs_claim", "state", "turn", "id"),
        Index("ix_jobs_lease", "state", "lease_until"),
        Index("ix_jobs_retention", "removed_at", "finished_at", "id"),
    )


class ObjectRow(Base):
    """A built result object; the stored file is what every retry sends."""

    __tablename__ = "objects"
    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"), index=True)
    run: Mapped[int]
    variant: Mapped[str] = mapped_column(String(64))
    kind: Mapped[str] = mapped_column(String(16))
    sop_uid: Mapped[str] = mapped_column(String(64), unique=True)
    sop_class_uid: Mapped[str] = mapped_column(String(64))
    series_uid: Mapped[str] = mapped_column(String(64))
    transfer_syntax_uid: Mapped[str] = mapped_column(String(64))
    path: Mapped[str] = mapped_column(Text)  # relative to the data folder
    sha256: Mapped[str] = mapped_column(String(64))
    position: Mapped[int]  # what is referenced goes first
    faults: Mapped[list[str]] = mapped_column(default=list)  # not empty: kept back by the gate
    size: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")  # bytes of the file
    withheld: Mapped[list[str]] = mapped_column(default=list, server_default="[]")  # destinations that a shadow rule would have sent it to
    removed_at: Mapped[datetime | None]  # when retention removed the file
    stands_for: Mapped[str] = mapped_column(String(64), default="", server_default="")  # SOP Instance UID of the one that a destination did not take
    job: Mapped[JobRow] = relationship(back_populates="objects")


class EmbeddingRow(Base):
    """What a bundle's network says of a series in 128 numbers (see `autoencoder.embedding`): local, for `similar`, and in no object."""

    __tablename__ = "embeddings"
    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"))
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"), index=True)
    series_uid: Mapped[str] = mapped_column(String(64))
    modality: Mapped[str] = mapped_column(String(16))
    region: Mapped[str] = mapped_column(String(64))  # Body Part Examined, normalised; "" where it is not said
    bundle: Mapped[str] = mapped_column(String(64))  # its name
    bundle_hash: Mapped[str] = mapped_column(String(64), index=True)  # only embeddings of equal bytes can be compared
    slices: Mapped[int]
    mean: Mapped[bytes] = mapped_column(LargeBinary)  # 128 × float16, little endian
    spread: Mapped[bytes] = mapped_column(LargeBinary)  # the same
    score: Mapped[float]
    made_at: Mapped[datetime]
    study: Mapped[StudyRow] = relationship()
    __table_args__ = (UniqueConstraint("study_id", "series_uid", "bundle_hash"),)


class DeliveryRow(Base):
    """One object on its way to one destination: the outbox. A result names its object and job, a forwarded original its instance and version."""

    __tablename__ = "deliveries"
    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"))
    object_id: Mapped[int | None] = mapped_column(ForeignKey("objects.id"))
    job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    instance_id: Mapped[int | None] = mapped_column(ForeignKey("instances.id"))
    version: Mapped[int | None]  # of the instance, as it was when a rule forwarded it
    destination: Mapped[str] = mapped_column(String(64))
    position: Mapped[int]
    state: Mapped[DeliveryState] = mapped_column(_states(DeliveryState))
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime]
    first_attempt_at: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]
    status: Mapped[int | None]  # the last DIMSE status
    message: Mapped[str] = mapped_column(Text, default="")
    fallback: Mapped[str] = mapped_column(String(16), default="")  # of a refused object: the kind that is to be made to go in its place
    afterwards: Mapped[str] = mapped_column(String(16), default="", server_default="")  # of a delivered report: what is to be made once all is there
    stored_at: Mapped[datetime | None]  # where the destination's commitment decides: when it had last said that it stored the object
    ask_at: Mapped[datetime | None]  # of an uncommitted one: when something is to be done about its commitment
    asked_at: Mapped[datetime | None]  # when the destination took the request that is open; None: it is to be asked
    asks: Mapped[int] = mapped_column(default=0)  # requests that the destination took
    ask_failures: Mapped[int] = mapped_column(default=0)  # requests in a row that it did not take
    committed_at: Mapped[datetime | None]  # when it reported that it keeps the object
    object: Mapped[ObjectRow | None] = relationship()
    job: Mapped[JobRow | None] = relationship()
    instance: Mapped[InstanceRow | None] = relationship()
    study: Mapped[StudyRow] = relationship()
    __table_args__ = (
        UniqueConstraint("object_id", "destination"),
        UniqueConstraint("instance_id", "version", "destination"),
        Index("ix_deliveries_due", "destination", "state", "job_id", "next_attempt_at"),
        Index("ix_deliveries_study", "study_id", "destination", "state"),
        Index("ix_deliveries_afterwards", "destination", sqlite_where=text("afterwards <> ''"), postgresql_where=text("afterwards <> ''")),
    )

    @property
    def kind(self) -> str:
        """Kind of the result, or ``original``."""
        return self.object.kind if self.object is not None else "original"

    @property
    def sop_uid(self) -> str:
        """SOP Instance UID of what is sent."""
        return self._sent.sop_uid

    @property
    def sop_class_uid(self) -> str:
        """SOP Class UID of what is sent."""
        return self._sent.sop_class_uid

    @property
    def transfer_syntax_uid(self) -> str:
        """Transfer syntax of the stored file."""
        return self._sent.transfer_syntax_uid

    @property
    def removed(self) -> bool:
        """Whether retention has removed the file."""
        return self._sent.removed_at is not None

    @property
    def _sent(self) -> ObjectRow | InstanceRow:
        sent = self.object or self.instance
        assert sent is not None
        return sent

    @property
    def subject(self) -> str:
        """What an alert about it is about: a study's originals are thousands, so that they share one for each destination."""
        return f"delivery {self.id}" if self.job_id is not None else f"study {self.study_id} at {self.destination}"[:96]

    @property
    def origin(self) -> str:
        """Where it comes from, for people: the job, or the study."""
        return f"job {self.job_id}" if self.job_id is not None else f"study {self.study_id}"


class CommitmentRow(Base):
    """A transaction in which we ask a destination to commit to what it stored (PS3.4 Annex J); written before it is asked."""

    __tablename__ = "commitments"
    id: Mapped[int] = mapped_column(primary_key=True)
    transaction_uid: Mapped[str] = mapped_column(String(64), unique=True)
    destination: Mapped[str] = mapped_column(String(64))
    begun_at: Mapped[datetime]
    accepted_at: Mapped[datetime | None]  # the destination took the request
    reported_at: Mapped[datetime | None]  # its first report came


class CommitmentItemRow(Base):
    """One delivery that a transaction is about."""

    __tablename__ = "commitment_items"
    id: Mapped[int] = mapped_column(primary_key=True)
    commitment_id: Mapped[int] = mapped_column(ForeignKey("commitments.id"), index=True)
    delivery_id: Mapped[int] = mapped_column(ForeignKey("deliveries.id"), index=True)


class CommitmentRequestRow(Base):
    """A transaction in which a peer asks us to commit to what it sent (PS3.4 Annex J)."""

    __tablename__ = "commitment_requests"
    id: Mapped[int] = mapped_column(primary_key=True)
    note: Mapped[str] = mapped_column(String(96), unique=True)  # name of the spool's note: taken in once
    transaction_uid: Mapped[str] = mapped_column(String(64), index=True)
    calling_ae: Mapped[str] = mapped_column(String(16))
    called_ae: Mapped[str] = mapped_column(String(16))
    address: Mapped[str] = mapped_column(String(128))
    received_at: Mapped[datetime]
    state: Mapped[RequestState] = mapped_column(_states(RequestState))
    next_at: Mapped[datetime]  # when it is judged, or reported, next
    attempts: Mapped[int] = mapped_column(default=0)  # to report
    judged_at: Mapped[datetime | None]
    reported_at: Mapped[datetime | None]
    message: Mapped[str] = mapped_column(Text, default="")
    items: Mapped[list[RequestedRow]] = relationship(back_populates="request", order_by="RequestedRow.id")
    __table_args__ = (Index("ix_commitment_requests_due", "state", "next_at"),)


class RequestedRow(Base):
    """One instance that a peer asks us to commit to. ``reason``: None undecided, 0 committed, else the failure reason (PS3.3 C.14.1.1)."""

    __tablename__ = "commitment_requested"
    id: Mapped[int] = mapped_column(primary_key=True)
    request_id: Mapped[int] = mapped_column(ForeignKey("commitment_requests.id"), index=True)
    sop_class_uid: Mapped[str] = mapped_column(String(64))
    sop_uid: Mapped[str] = mapped_column(String(64), index=True)
    reason: Mapped[int | None]
    request: Mapped[CommitmentRequestRow] = relationship(back_populates="items")


class IdentityHoldRow(Base):
    """An archive knows another patient under a study's UID: what is to go there waits until both agree, or an operator says that they are one."""

    __tablename__ = "identity_holds"
    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"))
    destination: Mapped[str] = mapped_column(String(64))
    ours: Mapped[list[str]]  # patient id, issuer, name, birth date, accession number: normalised
    theirs: Mapped[list[str]]
    held_at: Mapped[datetime]
    released_at: Mapped[datetime | None]
    __table_args__ = (UniqueConstraint("study_id", "destination"),)


class RemovalRow(Base):
    """A file that retention has given up and that may still be on the disk: written with the tombstone, taken away when the file is gone."""

    __tablename__ = "removals"
    id: Mapped[int] = mapped_column(primary_key=True)
    path: Mapped[str] = mapped_column(Text, unique=True)  # relative to the data folder


class DestinationRow(Base):
    """What is known of a destination: up, or down since when."""

    __tablename__ = "destinations"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    failures: Mapped[int] = mapped_column(default=0)  # in a row
    down_since: Mapped[datetime | None]
    try_again_at: Mapped[datetime | None]
    last_success_at: Mapped[datetime | None]
    message: Mapped[str] = mapped_column(Text, default="")


class ContextRow(Base):
    """Whether a destination was seen to take objects of a SOP class."""

    __tablename__ = "contexts"
    destination: Mapped[str] = mapped_column(String(64), primary_key=True)
    sop_class_uid: Mapped[str] = mapped_column(String(64), primary_key=True)
    accepted: Mapped[bool]
    config: Mapped[str] = mapped_column(String(64))  # digest of the destination's section, as it was then
    seen_at: Mapped[datetime]


class AlertRow(Base):
    """Something that a person should know about, until it is cleared."""

    __tablename__ = "alerts"
    id: Mapped[int] = mapped_column(primary_key=True)
    raised_at: Mapped[datetime]
    cleared_at: Mapped[datetime | None]
    kind: Mapped[str] = mapped_column(String(32))
    subject: Mapped[str] = mapped_column(String(96))  # e.g. "study 12", "job 4", "destination archive"
    message: Mapped[str] = mapped_column(Text)
    __table_args__ = (
        Index("ix_alerts_open", "cleared_at", "kind", "subject"),
        Index("ix_alerts_once", "kind", "subject", unique=True, sqlite_where=text("cleared_at IS NULL"), postgresql_where=text("cleared_at IS NULL")),
    )


class EventRow(Base):
    """Something that happened and that others may be told of: written in the transaction in which it happened."""

    __tablename__ = "events"
    id: Mapped[int] = mapped_column(primary_key=True)
    uid: Mapped[str] = mapped_column(String(36), unique=True)  # for receivers: an event that comes twice has the same
    at: Mapped[datetime] = mapped_column(index=True)
    kind: Mapped[str] = mapped_column(String(32))  # "result", or the kind of the alert
    over: Mapped[bool] = mapped_column(default=False)  # an alert was taken back
    subject: Mapped[str] = mapped_column(String(96))
    detail: Mapped[dict[str, Any]] = mapped_column(default=dict)
    routed_at: Mapped[datetime | None]  # since when it stands in `notifications` who is told
    __table_args__ = (Index("ix_events_new", "id", sqlite_where=text("routed_at IS NULL"), postgresql_where=text("routed_at IS NULL")),)


class NotificationRow(Base):
    """One event on its way to one receiver: the outbox of events."""

    __tablename__ = "notifications"
    id: Mapped[int] = mapped_column(primary_key=True)
    event_id: Mapped[int] = mapped_column(ForeignKey("events.id"))
    receiver: Mapped[str] = mapped_column(String(96))
    state: Mapped[NotificationState] = mapped_column(_states(NotificationState))
    attempts: Mapped[int] = mapped_column(default=0)
    told_at: Mapped[datetime | None]
    message: Mapped[str] = mapped_column(Text, default="")
    event: Mapped[EventRow] = relationship()
    __table_args__ = (UniqueConstraint("event_id", "receiver"), Index("ix_notifications_due", "receiver", "state", "event_id"))


class ReceiverRow(Base):
    """What is known of a receiver of events: up, or failing since when."""

    __tablename__ = "receivers"
    name: Mapped[str] = mapped_column(String(96), primary_key=True)
    failures: Mapped[int] = mapped_column(default=0)  # in a row
    down_since: Mapped[datetime | None]
    try_again_at: Mapped[datetime | None]
    last_success_at: Mapped[datetime | None]
    message: Mapped[str] = mapped_column(Text, default="")


class HeartbeatRow(Base):
    """A phantom that the node sent itself, and when it got how far."""

    __tablename__ = "heartbeats"
    id: Mapped[int] = mapped_column(primary_key=True)
    study_uid: Mapped[str] = mapped_column(String(64), unique=True)
    begun_at: Mapped[datetime]
    sent_at: Mapped[datetime | None]  # the last success answer to its C-STORE
    received_at: Mapped[datetime | None]  # of its first instance
    analysed_at: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]  # the last of its results
    ended_at: Mapped[datetime | None]  # it was back, or given up
    problem: Mapped[str] = mapped_column(Text, default="")  # how far it came where it was not back in time
    swept_at: Mapped[datetime | None]  # when its files were given up


class AuditRow(Base):
    """Who did what. Rows are only added, and linked by hashes: see `database.audit`."""

    __tablename__ = "audit"
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    actor: Mapped[str] = mapped_column(String(96))
    action: Mapped[str] = mapped_column(String(32))
    subject: Mapped[str] = mapped_column(String(96))
    detail: Mapped[dict[str, Any]] = mapped_column(default=dict)
    hash: Mapped[str] = mapped_column(String(64), default="", server_default="")  # over this row and the hash of the one before


class AuditPlaceRow(Base):
    """How far a copy of the audit trail has come that is kept elsewhere."""

    __tablename__ = "audit_places"
    name: Mapped[str] = mapped_column(String(300), primary_key=True)  # "syslog HOST:PORT"
    number: Mapped[int] = mapped_column(default=0)  # of the last row that is known to be there
    failures: Mapped[int] = mapped_column(default=0)  # in a row
    try_again_at: Mapped[datetime | None]
    message: Mapped[str] = mapped_column(Text, default="")
