"""Studies, series and instances: what was received and where each study stands."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import PurePosixPath

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session, selectinload
from sqlalchemy.sql.base import ExecutableOption

from pacs_node.database.engine import add_new
from pacs_node.database.states import StudyState, move
from pacs_node.database.tables import AsideRow, AssociationRow, InstanceRow, SeriesRow, StudyRow
from pacs_node.records import Arrival, AssociationEnd, Instance, PatientIdentity, Series

_NEWEST = 5_000  # instances among which those of an association that is still open are looked for


def identity_key(patient: PatientIdentity) -> list[str]:
    """Return an identity as it stands in `InstanceRow.identity`."""
    return [patient.patient_id, patient.issuer, patient.name, patient.birth_date]


def instance_path(row: InstanceRow, version: int | None = None) -> str:
    """Return an instance's file, relative to the data folder: numbers of ours, never received text."""
    name = f"{row.id}.{version or row.version}" + (f".{row.copy}" if row.copy > 1 else "")
    return str(PurePosixPath("studies", f"{row.study_id // 1000:04d}", f"{row.study_id}", f"{name}.dcm"))


def lock(session: Session, study_ids: Iterable[int]) -> Sequence[StudyRow]:
    """Return studies as they are once nobody else works on them, and keep others away until the end of the transaction."""
    query = select(StudyRow).where(StudyRow.id.in_(sorted(study_ids))).order_by(StudyRow.id)
    return session.scalars(query.with_for_update(key_share=True).execution_options(populate_existing=True)).all()


def get_study(session: Session, study_id: int, *, to_change: bool = False) -> StudyRow | None:
    """Return a study by number, with its series and instances; ``to_change``: locked."""
    if to_change:
        lock(session, [study_id])
    return session.scalars(select(StudyRow).where(StudyRow.id == study_id).options(*_whole())).one_or_none()


def _whole() -> tuple[ExecutableOption, ...]:
    return (selectinload(StudyRow.series).selectinload(SeriesRow.instances),)


def find_instances(session: Session, sop_uids: Iterable[str]) -> dict[str, InstanceRow]:
    """Return the rows of those SOP Instance UIDs that are known."""
    rows = session.scalars(select(InstanceRow).where(InstanceRow.sop_uid.in_(list(sop_uids))).options(selectinload(InstanceRow.series)))
    return {row.sop_uid: row for row in rows}


def known_arrivals(session: Session, names: Iterable[str]) -> dict[str, InstanceRow]:
    """Return the instances whose file came with one of these arrivals: what a crash left half done."""
    return {row.arrival: row for row in session.scalars(select(InstanceRow).where(InstanceRow.arrival.in_(list(names))))}


def ensure_study(session: Session, instance: Instance, arrival: Arrival, facts: Mapping[str, str]) -> StudyRow:
    """Return the study of an instance, locked, made where it is new. ``facts``: accession and description as received."""
    query = select(StudyRow).where(StudyRow.study_uid == instance.study_uid)
    query = query.with_for_update(key_share=True).execution_options(populate_existing=True)
    row = session.scalars(query).one_or_none()
    if row is None:
        patient = instance.patient
        new = StudyRow(
            study_uid=instance.study_uid,
            state=StudyState.RECEIVING,
            patient_id=patient.patient_id,
            issuer=patient.issuer,
            patient_name=patient.name,
            birth_date=patient.birth_date[:32],
            accession=facts.get("accession", "")[:64],
            description=facts.get("description", ""),
            first_arrival=arrival.received_at,
            last_arrival=arrival.received_at,
            look_again_at=arrival.received_at,
        )
        add_new(session, new, StudyRow.study_uid)
        row = session.scalars(query).one()
    return row


def ensure_series(session: Session, study: StudyRow, series: Series) -> SeriesRow:
    """Return the row of a series of the study, made where it is new."""
    query = select(SeriesRow).where(SeriesRow.study_id == study.id, SeriesRow.series_uid == series.series_uid)
    row = session.scalars(query).one_or_none()
    if row is None:
        number = series.number if series.number is not None and abs(series.number) < 1 << 31 else None  # of what an IS can hold (PS3.5 6.2)
        row = SeriesRow(study_id=study.id, series_uid=series.series_uid, modality=series.modality[:16], number=number, description=series.description)
        session.add(row)
        session.flush()
    return row


def add_instance(session: Session, series: SeriesRow, instance: Instance, arrival: Arrival, *, own: bool) -> InstanceRow:
    """Add a new instance."""
    row = InstanceRow(
        study_id=series.study_id,
        series_id=series.id,
        sop_uid=instance.sop_uid,
        sop_class_uid=instance.sop_class_uid,
        transfer_syntax_uid=instance.transfer_syntax_uid,
        version=1,
        copy=1,
        identity=identity_key(instance.patient),
        own=own,
        arrival=arrival.name,
        association=arrival.sender.association,
        calling_ae=arrival.sender.calling_ae,
        called_ae=arrival.sender.called_ae,
        address=arrival.sender.address[:128],
        received_at=arrival.received_at,
    )
    session.add(row)
    session.flush()
    return row


def replace_instance(row: InstanceRow, instance: Instance, arrival: Arrival) -> str:
    """Point an instance at a corrected object; returns the old file's path, which is kept aside."""
    old = instance_path(row)
    row.version += 1
    row.identity = identity_key(instance.patient)
    row.sop_class_uid, row.transfer_syntax_uid = instance.sop_class_uid, instance.transfer_syntax_uid
    row.arrival, row.received_at = arrival.name, arrival.received_at
    row.association = arrival.sender.association
    return old


def bring_back(row: InstanceRow, instance: Instance, arrival: Arrival, *, same: bool) -> None:
    """Give an instance whose file was removed the file that came with an arrival; ``same``: the dataset is byte for byte what it was."""
    row.copy += 1
    row.version += 0 if same else 1
    row.removed_at, row.fingerprint = None, ""
    row.identity = identity_key(instance.patient)
    row.sop_class_uid, row.transfer_syntax_uid = instance.sop_class_uid, instance.transfer_syntax_uid
    row.arrival, row.received_at, row.association = arrival.name, arrival.received_at, arrival.sender.association


def identities(study: StudyRow) -> list[list[str]]:
    """Return the different patient identities among a study's received instances (our own results excepted)."""
    found: list[list[str]] = []
    for series in study.series:
        for instance in series.instances:
            if instance.usable and instance.identity not in found:
                found.append(instance.identity)
    return found


def reopen(study: StudyRow, at: datetime, patience: tuple[timedelta, timedelta]) -> None:
    """Note an arrival: a study that had been complete begins a new gathering.

    ``patience``: after the last and after the first arrival, when the study is looked at; whichever comes first.
    """
    if study.state is not StudyState.RECEIVING:
        study.state = move(study.state, StudyState.RECEIVING)
        study.first_arrival = at
    study.last_arrival = max(study.last_arrival, at)
    study.look_again_at = min(study.last_arrival + patience[0], study.first_arrival + patience[1])


def wake_all(session: Session, now: datetime) -> None:
    """Have every study looked at now that still waits for something."""
    session.execute(update(StudyRow).where(StudyRow.state == StudyState.RECEIVING).values(look_again_at=now))


def due_studies(session: Session, now: datetime, longest: timedelta, limit: int = 50) -> Sequence[int]:
    """Return the numbers of the studies whose timer has run out, the longest waiting first (held ones, so that the hold is said).

    A timer further ahead than ``longest``, the longest legal wait, was set by a clock that has been set back since: it counts as run out.
    """
    waiting = (StudyState.RECEIVING, StudyState.HELD)
    due = or_(StudyRow.look_again_at <= now, StudyRow.look_again_at > now + longest)
    query = select(StudyRow.id).where(StudyRow.state.in_(waiting), due).order_by(StudyRow.look_again_at).limit(limit)
    return session.scalars(query).all()


def last_heard(session: Session, calling_ae: str | None, own: Collection[str] = ()) -> datetime | None:
    """Return when the last instance of a sender came (None: of any but ``own``), None where none ever did.

    An association that stays open for long is seen by the newest of its instances.
    """
    newest = (session.scalar(select(func.max(InstanceRow.id))) or 0) - _NEWEST
    over = select(func.max(AssociationRow.ended_at)).where(AssociationRow.stored > 0)
    here = select(func.max(InstanceRow.received_at)).where(InstanceRow.id > newest, ~InstanceRow.own)
    if calling_ae is not None:
        over, here = over.where(AssociationRow.calling_ae == calling_ae), here.where(InstanceRow.calling_ae == calling_ae)
    else:
        over, here = over.where(AssociationRow.calling_ae.not_in(list(own))), here.where(InstanceRow.calling_ae.not_in(list(own)))
    return max((found for found in (session.scalar(over), session.scalar(here)) if found is not None), default=None)


def add_association(session: Session, end: AssociationEnd) -> None:
    """Note that an association is over; noting it twice does no harm."""
    session.merge(
        AssociationRow(
            association=end.sender.association,
            calling_ae=end.sender.calling_ae,
            called_ae=end.sender.called_ae,
            address=end.sender.address,
            released=end.released,
            stored=end.stored,
            refused=end.refused,
            ended_at=end.ended_at,
        )
    )


def brought_by(session: Session, association: str) -> list[tuple[int, str, int]]:
    """Return the studies to which an association brought instances: number, UID, how many."""
    counted = select(InstanceRow.study_id, func.count()).where(InstanceRow.association == association).group_by(InstanceRow.study_id)
    counts = dict(session.execute(counted).tuples().all())
    named = session.execute(select(StudyRow.id, StudyRow.study_uid).where(StudyRow.id.in_(counts)).order_by(StudyRow.id)) if counts else ()
    return [(number, uid, counts[number]) for number, uid in named]


def has_sent(session: Session, study_id: int, calling_ae: str) -> bool:
    """Tell whether a sender has brought an instance of a study before."""
    query = select(InstanceRow.id).where(InstanceRow.study_id == study_id, InstanceRow.calling_ae == calling_ae[:16]).limit(1)
    return session.scalar(query) is not None


def associations_of(session: Session, study: StudyRow) -> tuple[int, bool]:
    """Return how many associations that brought the study's instances are still open, and whether all are over and none was aborted."""
    names = {instance.association for series in study.series for instance in series.instances if not instance.own}
    over = session.scalars(select(AssociationRow).where(AssociationRow.association.in_(names))).all()
    return len(names) - len(over), len(over) == len(names) and all(row.released for row in over)


def studies_of_association(session: Session, association: str) -> Sequence[StudyRow]:
    """Return the studies still being received to which an association brought instances, locked."""
    brought = select(InstanceRow.study_id).where(InstanceRow.association == association)
    query = select(StudyRow).where(StudyRow.id.in_(brought), StudyRow.state == StudyState.RECEIVING).order_by(StudyRow.id)
    return session.scalars(query.with_for_update(key_share=True, of=StudyRow)).all()


def aside_paths(session: Session, kind: str) -> set[str]:
    """Return the paths of all files of a kind that are kept aside."""
    return set(session.scalars(select(AsideRow.path).where(AsideRow.kind == kind)))


def add_aside(session: Session, row: AsideRow) -> bool:
    """Note a file that is kept aside; False where it was noted before."""
    return add_new(session, row, AsideRow.path) is not None
