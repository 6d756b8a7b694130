"""What has to hold after every step, and when all has come to rest: the promise of the node, checked against what its senders remember."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.dataset import Dataset
from sqlalchemy import or_, select
from sqlalchemy.orm import selectinload

from pacs_node.database import audit, jobs, studies
from pacs_node.database.alerts import open_alerts
from pacs_node.database.states import DELIVERY_MOVES, JOB_MOVES, STUDY_MOVES, DeliveryState, JobState, StudyState
from pacs_node.database.tables import AsideRow, DeliveryRow, InstanceRow, JobRow, ObjectRow, SeriesRow, StudyRow
from pacs_node.dicom.header import read_header
from pacs_node.records import Parcel
from pacs_node.workbench.fsck import examine
from tests.journey.machine import RULES, Content, World, identity_of

LEFT_BEHIND = {"half-written file, never acknowledged", "result file of a run that was not committed"}

# Rule set → what is to come of a CT study: (pipeline, which series, destinations, whether a notice may come instead)
WANTED: Mapping[str, Sequence[tuple[str, str, tuple[str, ...], bool]]] = {
    "one report": [("ct-test", "largest", ("archive",), True)],
    "every series, two places, a notice where it fails": [("ct-test", "all", ("archive", "research"), True)],
    "two pipelines, complete at release": [("ct-test", "largest", ("archive",), True), ("ct-two", "largest", ("research",), True)],
    "originals and a report": [("ct-test", "largest", ("archive",), True)],
    "a notice": [("", "any", ("archive",), True)],
}
assert WANTED.keys() == RULES.keys()

_NAMES = {"one report": {"head"}, "every series, two places, a notice where it fails": {"each"}} | {
    "two pipelines, complete at release": {"first", "second"},
    "originals and a report": {"passed on"},
    "a notice": {"told"},
}


def _closure(moves: Mapping[object, frozenset[object]]) -> dict[object, set[object]]:
    reach = {state: {state, *targets} for state, targets in moves.items()}
    for _ in moves:
        for state, found in reach.items():
            reach[state] = found.union(*(reach[other] for other in found))
    return reach


_REACH = {"studies": _closure(STUDY_MOVES), "jobs": _closure(JOB_MOVES), "deliveries": _closure(DELIVERY_MOVES)}  # type: ignore[arg-type]


@dataclass
class Promises:
    """The checks. ``sent``: SOP Instance UID → digest of the first file that left under it."""

    world: World
    sent: dict[str, str] = field(default_factory=dict)
    states: dict[tuple[str, int], object] = field(default_factory=dict)

    # --- at the moment when an object leaves -------------------------------------------------------------------------

    def leaves(self, destination: str, parcel: Parcel) -> None:
        """Judge an object that is about to be sent."""
        study_uid, patient = identity_of(parcel.path)
        digest, original = self.world._digest_of(parcel.path), self._study_of(parcel.sop_uid) != "unknown"
        if original:  # a corrected one goes out again
            assert self.world.acknowledged[digest] and not self.world.contents[digest].own, "something is forwarded that nobody sent"
        else:
            assert self.sent.setdefault(parcel.sop_uid, digest) == digest, f"{parcel.sop_uid} is sent with two contents"
        patients, rejected = self.patients(study_uid), self.rejected()
        if original and parcel.sop_uid in rejected:
            return  # with the note that says so
        assert patient in patients, f"a result for {patient} is sent to {destination}, while the study is one of {sorted(patients)}"
        if len(patients) > 1:
            said = self.world.released.get(study_uid, set())
            assert patients <= said, f"a result is sent to {destination} while the study is one of {sorted(patients)} and nobody released it"
        analysed_and_rejected = set() if original else self._analysed_for(parcel.sop_uid) & rejected  # what only kept it company may still be named
        for uid in evidence(read_header(parcel.path)):
            assert self._study_of(uid) == study_uid, "a result refers to another study"
            assert uid not in analysed_and_rejected, "a result made of a rejected instance is sent"

    def _analysed_for(self, sop_uid: str) -> set[str]:
        """Return the instances of the series from which a result was made."""
        with self.world.house.store.read() as session:
            job = session.scalars(select(JobRow).join(ObjectRow).where(ObjectRow.sop_uid == sop_uid)).one()
            query = select(InstanceRow.sop_uid).join(SeriesRow, SeriesRow.id == InstanceRow.series_id)
            return set(session.scalars(query.where(SeriesRow.study_id == job.study_id, SeriesRow.series_uid.in_(job.series_uids))))

    def _study_of(self, sop_uid: str) -> str:
        return next((one.study_uid for one in self.world.contents.values() if one.sop_uid == sop_uid and not one.own and not one.damaged), "unknown")

    def patients(self, study_uid: str) -> set[str]:
        """Return the patients that the indexed objects of a study name, as the files say."""
        rejected = self.rejected()
        return {content.patient for uid, content in self.indexed(study_uid).items() if not content.own and uid not in rejected}

    def rejected(self) -> set[str]:
        """Return the instances that a note rejected, and the notes."""
        with self.world.house.store.read() as session:
            return set(session.scalars(select(InstanceRow.sop_uid).where(InstanceRow.rejected != "")))

    def indexed(self, study_uid: str) -> dict[str, Content]:
        """Return what the index holds for a study, as the files say: SOP Instance UID → content."""
        world, data = self.world, self.world.settings.node.data
        with world.house.store.read() as session:
            rows = session.scalars(select(InstanceRow).join(StudyRow, StudyRow.id == InstanceRow.study_id).where(StudyRow.study_uid == study_uid)).all()
        arrived = {path.stem: path for path in data.glob("spool/new/*/*.dcm")}
        found = {}
        for row in rows:
            if row.removed_at is not None:
                found[row.sop_uid] = Content(study_uid, row.sop_uid, row.sop_class_uid, "", row.identity[0], "", b"", own=row.own)
                continue
            path = arrived.get(row.arrival, data / studies.instance_path(row))
            assert path.is_file(), f"the file of instance {row.id} is gone"
            content = world.contents[world._digest_of(path)]
            assert (content.sop_uid, content.study_uid) == (row.sop_uid, study_uid)
            assert content.own or row.identity[0] == content.patient
            found[row.sop_uid] = content
        return found

    # --- after every step --------------------------------------------------------------------------------------------

    def hold(self) -> None:
        """Check what has to hold always."""
        self._nothing_is_lost()
        self._states_are_legal()
        self._index_and_files_agree()

    def _nothing_is_lost(self) -> None:
        world, found = self.world, Counter(self.world.files().values())
        for digest in found:
            assert digest in world.contents, "there is a file that nobody sent"
            assert found[digest] <= world.acknowledged[digest] + world.attempted[digest], "an object is kept more often than it came"
        there = {world.contents[digest].key for digest in found}
        same = Counter(world.contents[digest].key for digest in world.acknowledged if world.acknowledged[digest])
        for digest in (digest for digest, count in world.acknowledged.items() if count):
            content = world.contents[digest]
            alone = same[content.key] == 1  # nothing else that was acknowledged shows the same
            assert found[digest] or (not alone and content.key in there) or content.sop_uid in world.retired or self._unreadable(content, there), (
                f"lost: {content}"
            )

    def _unreadable(self, content: Content, there: set[tuple[str, str, str]]) -> bool:
        """An own result is dropped where the index knows it, whatever its bytes."""
        return content.own and content.key in there

    def _states_are_legal(self) -> None:
        world = self.world
        with world.house.store.read() as session:
            now: dict[tuple[str, int], object] = {}
            for row in (StudyRow, JobRow, DeliveryRow):
                now |= {(row.__tablename__, number): state for number, state in session.execute(select(row.id, row.state))}
        for key, before in self.states.items():
            assert key in now, f"{key} is gone"
            assert now[key] in _REACH[key[0]][before], f"{key} went from {before} to {now[key]}"
            if key[0] == "jobs" and before in (JobState.DONE, JobState.NOT_ANALYSED, JobState.PARKED) and now[key] not in (before, JobState.CANCELLED):
                assert ("retried", key[1]) in world.touched, f"{key} went from {before} to {now[key]}, and nobody asked for it"
        self.states = now

    def _index_and_files_agree(self) -> None:
        world, data = self.world, self.world.settings.node.data
        arrived = {path.stem for path in data.glob("spool/new/*/*.dcm")}
        with world.house.store.read() as session:
            instances, aside = session.scalars(select(InstanceRow)).all(), session.scalars(select(AsideRow)).all()
        for row in (row for row in instances if row.removed_at is None):
            assert row.arrival in arrived or (data / studies.instance_path(row)).is_file(), f"the file of instance {row.id} is gone"
        for item in aside:
            assert (data / item.path).is_file() or Path(item.path).stem in arrived, f"{item.path} is gone"
        named = {row.sop_uid for row in instances}
        somewhere = {world.contents[digest].sop_uid for path, digest in world.files().items() if path.parts[-2] == "quarantine" or path.stem in arrived}
        wanted = {world.contents[digest].sop_uid for digest, count in world.acknowledged.items() if count and not world.contents[digest].damaged}
        assert wanted <= named | somewhere, "an acknowledged object is not indexed and does not wait"

    # --- when all has come to rest -----------------------------------------------------------------------------------

    def at_rest(self) -> str:
        """Return what is still under way, "" where nothing is."""
        world = self.world
        with world.house.store.read() as session:
            timer = or_(StudyRow.state == StudyState.RECEIVING, StudyRow.look_again_at.is_not(None))
            gathering = session.scalars(select(StudyRow.id).where(timer)).all()
            busy = session.scalars(select(JobRow.id).where(JobRow.state.in_((JobState.QUEUED, JobState.RUNNING)))).all()
            untold = jobs.untold(session)
            of_held = select(JobRow.id).join(StudyRow, StudyRow.id == JobRow.study_id).where(StudyRow.state == StudyState.HELD)
            open_states = (DeliveryState.WAITING, DeliveryState.SENDING)
            waits = session.scalars(select(DeliveryRow.id).where(DeliveryRow.state.in_(open_states), DeliveryRow.job_id.not_in(of_held))).all()
        spooled = [path.name for path in world.settings.node.data.glob("spool/new/*/*")]
        left = {"spool": spooled, "studies": gathering, "jobs": busy, "deliveries": waits, "untold": [untold.id] if untold else []}
        return ", ".join(f"{name}: {numbers}" for name, numbers in left.items() if numbers)

    def kept(self) -> None:
        """Check that every study came to its results, or that somebody is told why not."""
        world = self.world
        with world.house.store.read() as session:
            alerts = {(alert.kind, alert.subject) for alert in open_alerts(session)}
            whole = selectinload(StudyRow.series).selectinload(SeriesRow.instances)
            found = session.scalars(select(StudyRow).options(whole)).all()
        told = any(kind == "cleared" for kind, _ in world.touched)
        assert told or not {kind for kind, _ in alerts} & {"assembly", "duty", "file"}, f"the node could not do its work: {alerts}"
        for study in found:
            if any(instance.usable for series in study.series for instance in series.instances):
                self._study_is_accounted_for(study, alerts)
        self._notes_are_obeyed()
        self._only_damaged_objects_are_quarantined()
        self._nothing_is_sent_twice()
        with world.house.store.read() as session:
            assert audit.follow(audit.every(session)).fault == ""
        report = examine(world.settings, repair=False, deep=True)
        assert {finding.what for finding in report.findings} <= LEFT_BEHIND, report.findings

    def _study_is_accounted_for(self, study: StudyRow, alerts: set[tuple[str, str]]) -> None:
        patients = self.patients(study.study_uid)
        if study.state is StudyState.HELD:
            assert len(patients) > 1, "a study of one patient is held"
            assert ("held", f"study {study.id}") in alerts or ("cleared", 0) in self.world.touched, "a study is held and nobody is told"
            return
        assert len(patients) == 1 or patients <= self.world.released.get(study.study_uid, set()), "a study of two patients is not held"
        assert study.state is StudyState.COMPLETE
        fired = {decision["rule"] for decision in study.decisions if decision["fired"]}
        name = next(name for name, rules in _NAMES.items() if rules == fired)
        assert name in self.world.rules_used
        if name == "originals and a report":
            self._originals_are_accounted_for(study, alerts)
        for pipeline, choice, destinations, _ in WANTED[name]:
            for series in self._chosen(study, choice):
                self._work_is_accounted_for(study, pipeline, series, destinations, alerts)

    def _chosen(self, study: StudyRow, choice: str) -> list[str]:
        sizes = {series.series_uid: sum(row.usable for row in series.instances) for series in study.series}
        there = [series for series in sorted(study.series, key=lambda series: (-sizes[series.series_uid], series.number or 0)) if sizes[series.series_uid]]
        return [series.series_uid for series in (there if choice == "all" else there[:1])]

    def _work_is_accounted_for(self, study: StudyRow, pipeline: str, series: str, destinations: Sequence[str], alerts: set[tuple[str, str]]) -> None:
        world = self.world
        with world.house.store.read() as session:
            of_study = [job for job in jobs.jobs_of(session, study.id) if job.pipeline == pipeline and (not pipeline or series in job.series_uids)]
            assert of_study, f"nothing was done for study {study.id}, pipeline {pipeline!r}"
            live = [job for job in of_study if job.state is not JobState.CANCELLED]
            usable = [row for group in study.series if group.series_uid == series for row in group.instances if row.usable]
            exact = [job for job in live if job.digest == jobs.digest(usable)]  # older than another, where what came later was rejected
            job = (exact or live or of_study)[-1]
            query = select(DeliveryRow).join(ObjectRow).where(DeliveryRow.job_id == job.id, ObjectRow.run == job.run)
            rows = session.scalars(query.options(selectinload(DeliveryRow.object), selectinload(DeliveryRow.job))).all()
        cleared, where = ("cleared", 0) in world.touched, f"study {study.id}, pipeline {pipeline!r}, job {job.id} ({job.state})"
        if job.state is JobState.CANCELLED:
            assert ("cancelled", job.id) in world.touched, f"{where}: its job was cancelled by nobody"
            return
        if job.state is JobState.PARKED:
            assert ("parked", f"job {job.id}") in alerts or cleared, f"{where}: parked, and nobody is told"
            return
        assert job.state in (JobState.DONE, JobState.NOT_ANALYSED), where
        if any(kind == "cancelled" for kind, _ in world.touched) and len(of_study) > len(live):
            return  # an operator took newer work away: what is out is older
        stuck = [row for row in rows if row.state in (DeliveryState.REFUSED, DeliveryState.PARKED)]
        for row in stuck:
            assert (row.state.value, f"delivery {row.id}") in alerts or cleared, f"{where}: a result is stuck and nobody is told"
        if job.state is JobState.DONE:
            found = {row.destination for row in rows}
            assert found == {target["destination"] for target in job.targets}, f"{where}: results for {sorted(found)}, other than its rules said"
            assert found >= set(destinations), f"{where}: results for {sorted(found)} only"  # under rules before, it may have gone to more
        for row in rows:
            if row not in stuck:
                assert row.state is DeliveryState.DELIVERED, f"{where}: {row.state}"
                self._arrived(study, row, series, where)

    def _arrived(self, study: StudyRow, row: DeliveryRow, series: str, where: str) -> None:
        """The object is there, byte for byte, names the patient of now, and refers to all that the series holds now."""
        world, uid = self.world, row.object.sop_uid
        if row.object.removed_at is not None:
            return  # long after it was delivered
        if row.destination == "archive":
            path = world.settings.node.data / row.object.path
            assert hashlib.sha256(path.read_bytes()).hexdigest() == row.object.sha256
            assert world.places.kept.get(uid) == world._digest_of(path), f"{where}: not in the archive"
        else:
            out = list((world.folder / "out").rglob(f"{uid}.dcm"))
            assert [hashlib.sha256(path.read_bytes()).hexdigest() for path in out] == [row.object.sha256], f"{where}: not in the folder"
        header = read_header(world.settings.node.data / row.object.path)
        assert str(header.PatientID) in self.patients(study.study_uid), f"{where}: the patient is another one by now"
        if row.object.kind == "sr":
            usable = [one for group in study.series if group.series_uid == series for one in group.instances if one.usable]
            lacking = {one.sop_uid: one for one in usable if one.sop_uid not in evidence(header)}
            assert all(one.removed_at is not None for one in lacking.values()), f"{where}: the report lacks what came late"
            assert row.job is not None and (row.job.partial or not lacking), f"{where}: the report does not say that it lacks what was removed before"

    def _originals_are_accounted_for(self, study: StudyRow, alerts: set[tuple[str, str]]) -> None:
        """The archive has every instance as it is by now, or somebody is told why not."""
        world = self.world
        with world.house.store.read() as session:
            found = session.scalars(select(DeliveryRow).where(DeliveryRow.study_id == study.id, DeliveryRow.job_id.is_(None))).all()
        rows = {(row.instance_id, row.version): row for row in found if row.destination == "archive"}
        for one in (one for series in study.series for one in series.instances if not one.own and one.removed_at is None):
            row = rows.get((one.id, one.version))
            assert row is not None, f"instance {one.id} of study {study.id} is not forwarded"
            if row.state in (DeliveryState.REFUSED, DeliveryState.PARKED):
                kinds = {kind for kind, _ in alerts}
                assert kinds & {"refused", "parked"} or ("cleared", 0) in world.touched, f"instance {one.id} of study {study.id} is stuck and nobody is told"
                continue
            assert row.state is DeliveryState.DELIVERED, f"instance {one.id} of study {study.id}: {row.state}"
            path = world.settings.node.data / studies.instance_path(one)
            assert world.places.kept.get(one.sop_uid) == world._digest_of(path), f"instance {one.id} of study {study.id} is another one in the archive"

    def _notes_are_obeyed(self) -> None:
        """Whatever came first, a note or what it rejects: it is not used."""
        rejected = self.rejected()
        with self.world.house.store.read() as session:
            here = set(session.scalars(select(InstanceRow.sop_uid)))
        for content in self.world.contents.values():
            if content.rejects and content.sop_uid in here:
                assert {content.sop_uid, content.rejects} & here <= rejected, "a rejection note is not obeyed"

    def _only_damaged_objects_are_quarantined(self) -> None:
        world = self.world
        for path, digest in world.files().items():
            if path.parts[-2] == "quarantine":
                assert world.contents[digest].damaged, f"a sound object lies in quarantine: {path.with_suffix('.json').read_text()}"
        with world.house.store.read() as session:
            listed = set(session.scalars(select(AsideRow.path).where(AsideRow.kind == "quarantine")))
        assert {str(path.relative_to(world.settings.node.data)) for path in world.files() if path.parts[-2] == "quarantine"} == listed

    def _nothing_is_sent_twice(self) -> None:
        """Two runs on the same content reach a destination only where somebody asked, the first was withdrawn in part, or the targets changed."""
        world = self.world
        with world.house.store.read() as session:
            query = select(DeliveryRow).options(selectinload(DeliveryRow.object), selectinload(DeliveryRow.job)).order_by(DeliveryRow.id)
            rows = session.scalars(query.where(DeliveryRow.object_id.is_not(None))).all()
        broken = {(row.job_id, row.object.run) for row in rows if row.state is DeliveryState.CANCELLED}
        seen: dict[tuple[object, ...], tuple[int, int]] = {}
        for row in rows:
            job, run = row.job, (row.job_id, row.object.run)
            if row.state is not DeliveryState.DELIVERED or run in broken or ("retried", job.id) in world.touched:
                continue
            targets = str(sorted((target["destination"], target["kinds"], target["notice"]) for target in job.targets))
            what = (job.study_id, job.pipeline, tuple(job.series_uids), job.digest, targets, row.destination, row.object.kind)
            assert seen.setdefault(what, run) == run, f"the same work was sent twice: job {seen[what]} and {run}"


def evidence(header: Dataset) -> set[str]:
    """Return the SOP Instance UIDs that an object says it was made from."""
    found = set()
    for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"):
        for study in header.get(keyword) or ():
            for series in study.ReferencedSeriesSequence:
                found |= {str(item.ReferencedSOPInstanceUID) for item in series.ReferencedSOPSequence}
    return found
