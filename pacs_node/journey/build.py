"""Finding → objects: one set of objects for each distinct set of kinds that destinations take, saved, checked by the gate.

Nothing here touches the outbox: what is built counts only when `run_job` commits it. Building again gives the same bytes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydicom.dataset import Dataset

from pacs_node import results
from pacs_node.analysis.originals import read_images
from pacs_node.autoencoder.codec_pace import OutOfTime, Pace
from pacs_node.autoencoder.embedding import Embedding, embed
from pacs_node.dicom.header import read_header
from pacs_node.errors import InputError, ResultRejected
from pacs_node.journey import House, contexts
from pacs_node.records import Finding, Notice, NoticeStatus, ResultObject, Run, Sources

_REFUSED = "the results did not pass the node's own check of DICOM objects"
_UNENCODED = "the images cannot be encoded as a compressed representation"
_MOST_A_SECOND = 100e6  # pixels that are read, encoded and compared at best
_SPARE = 0.5  # of what is left until the job's deadline, that encoding may take at most

Seconds = Callable[[], float]


@dataclass(frozen=True)
class Task:
    """What a run needs of the database, taken out of it."""

    job_id: int
    study_id: int
    study_uid: str
    pipeline: str
    run: Run
    targets: Sequence[Mapping[str, object]]
    files: tuple[Path, ...]  # of the selected series
    others: tuple[Path, ...]  # of the rest of the study
    attempts: int
    rung: int  # of the ladder in `executors.retry`
    rules: tuple[str, ...]
    heartbeat: bool = False  # a phantom of the node's own, for test destinations only


@dataclass
class Built:
    """What a run made."""

    finding: Finding | None
    notice: Notice | None
    parts: list[Part] = field(default_factory=list)
    representation: results.Representation | None = None  # made for the first variant that carries it
    unencodable: str = ""  # why there is none
    chosen: str = ""  # how the representation was made, and why so


@dataclass
class Part:
    """The objects of one variant and the destinations that get them."""

    variant: str
    destinations: list[str]
    objects: list[tuple[ResultObject, str, str, tuple[str, ...]]]  # object, path in the data folder, SHA-256, faults
    withheld: list[str] = field(default_factory=list)  # destinations that rules under trial would send them to


def sources_of(task: Task, finding: Finding | None) -> Sources:
    """Read the headers that the results refer to: the analysed objects in the order of the volume, and the rest of the study."""
    headers = {str(header.SOPInstanceUID): header for header in (read_header(path) for path in task.files)}
    others = tuple(read_header(path) for path in task.others)
    if finding is None:
        return Sources(tuple(headers.values()), others)
    analysed: dict[str, Dataset] = {frame.sop_uid: headers[frame.sop_uid] for frame in finding.volume.frames}
    return Sources(tuple(analysed.values()), (*(header for uid, header in headers.items() if uid not in analysed), *others))


def variants(house: House, task: Task, possible: frozenset[str] | None, *, shadow: bool = False) -> dict[tuple[str, ...], list[str]]:
    """Group the destinations by the kinds they get, in whatever order rules name them: one set of objects, with UIDs of its own, for each group.

    ``possible``: the kinds that can be made of the finding, None where there is no finding; ``shadow``: the destinations that rules under trial name.
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    targets = [target for target in task.targets if bool(target.get("shadow_rules")) is shadow]
    for target in targets:
        name = str(target["destination"])
        destination = house.settings.destinations.get(name)
        if destination is None or not destination.accepts_research:
            house.log.warning("destination left out", destination=name, why="not configured" if destination is None else "accepts_research is not true")
            continue
        if task.heartbeat and not destination.test:
            house.log.error("destination left out", destination=name, why="a heartbeat goes only to folders and to destinations marked as test")
            continue
        wanted = target.get("kinds")
        kinds = tuple(sorted({str(kind) for kind in wanted})) if isinstance(wanted, list | tuple) else tuple(sorted(results.DEFAULT_KINDS[destination.kind]))
        kinds = _in_place_of_results(target) if possible is None else tuple(kind for kind in kinds if kind in possible and kind != "notice")
        kinds = contexts.takeable(house, name, kinds)
        if kinds:
            groups.setdefault(kinds, []).append(name)
    if not shadow and not groups and any(possible is not None or target.get("notice") for target in targets):
        message = f"nothing of job {task.job_id} is sent: none of its destinations is configured and accepts research results"
        house.alert("not sent", f"job {task.job_id}", message)
    return groups


def _in_place_of_results(target: Mapping[str, object]) -> tuple[str, ...]:
    return ("notice",) if target.get("notice") else ()


def build_all(house: House, task: Task, built: Built, sources: Sources, beat: Callable[[], None] = lambda: None, left: Seconds = lambda: math.inf) -> None:
    """Build what each destination is to get, and what rules under trial would send: the same set once, where both ask for it.

    ``left``: seconds until the job has to be done.
    """
    possible = None if built.finding is None else results.possible_kinds(built.finding)
    live, tried = (variants(house, task, possible, shadow=shadow) for shadow in (False, True))
    for kinds in dict.fromkeys([*live, *tried]):
        beat()
        if "raw" in kinds and built.finding is not None and built.representation is None and not built.unencodable:
            _represent(house, task, built, built.finding, left())
        part = build_variant(house, task, built, sources, kinds, [*live.get(kinds, []), *tried.get(kinds, [])])
        part.destinations, part.withheld = live.get(kinds, []), tried.get(kinds, [])
        built.parts.append(part)


def build_variant(house: House, task: Task, built: Built, sources: Sources, kinds: tuple[str, ...], destinations: list[str]) -> Part:
    """Build, save and check one set of kinds; where the gate finds a fault, all of it is kept back and a notice takes its place."""
    part = Part("+".join(kinds), destinations, [])
    try:
        made = _with_representation(built, kinds)  # fewer kinds, but still a variant with UIDs of its own
        request = replace(_request(house, task, built.finding, built.notice, sources, made, part.variant), representation=built.representation)
        part.objects = _save_all(house, task, part.variant, request)
        faults = dict.fromkeys(fault for _, _, _, found in part.objects for fault in found)
        if faults and "notice" not in kinds:
            raise ResultRejected(part.variant, tuple(faults))
    except ResultRejected as error:
        house.alert("gate", f"job {task.job_id}", str(error))
        notice = Notice(NoticeStatus.FAILED, _UNENCODED if built.unencodable and kinds == ("raw",) else _REFUSED)
        request = _request(house, task, None, notice, sources, ("notice",), f"{part.variant}-notice")  # each variant's notice has its own UIDs
        replacement = _save_all(house, task, request.run.variant, request)
        if any(target.get("notice") for target in task.targets if target["destination"] in destinations):
            part.objects = [*part.objects, *replacement]
    return part


def _with_representation(built: Built, kinds: tuple[str, ...]) -> tuple[str, ...]:
    """Return the kinds that can be made: what cannot be encoded never holds up the other results."""
    if "raw" not in kinds or built.finding is None or not built.unencodable:
        return kinds
    others = tuple(kind for kind in kinds if kind != "raw")
    if not others:
        raise ResultRejected("raw", (built.unencodable,))
    return others


def _represent(house: House, task: Task, built: Built, finding: Finding, left: float) -> None:
    """Encode the analysed images, once for all variants that carry them, or note and say why they cannot be.

    What is too long for the time that there is goes as its embedding alone: that is no fault, and needs nobody.
    """
    seconds, made = min(house.settings.executor.encode_within.total_seconds(), _SPARE * left), embedded(finding)
    try:
        chosen: list[str] = []
        content = _packed(task, finding, Pace(time.monotonic() + seconds), chosen.append)
        built.representation, built.chosen = results.Representation(content, 0, made), "; ".join(chosen)
    except (OutOfTime, MemoryError) as error:
        late = f"the images could not be encoded and compared within {seconds:.1f} s (executor.encode_within)"
        why = late if isinstance(error, OutOfTime) else "there was no memory to encode the images"
        built.chosen = f"embedding only: {why}" if made is not None else f"none: {why}"
        if made is not None:
            built.representation = results.Representation(b"", 0, made, why)
        else:
            built.unencodable = why
    except InputError as error:
        built.unencodable = str(error)
        house.alert("representation", f"job {task.job_id}", f"the results of job {task.job_id} are made without the compressed representation: {error}")
    house.log.info("representation", job=task.job_id, chosen=built.chosen or f"none: {built.unencodable}")


def _packed(task: Task, finding: Finding, pace: Pace, note: Callable[[str], None]) -> bytes:
    """Read and encode the analysed images; raises `OutOfTime` as soon as that is seen to take too long, `InputError` where it cannot be done."""
    analysed = {frame.sop_uid for frame in finding.volume.frames}
    if math.prod(finding.volume.pixels.shape) > pace.left * _MOST_A_SECOND:
        raise OutOfTime
    wanted = task.files if len(task.files) == len(analysed) else [path for path in task.files if str(read_header(path).SOPInstanceUID) in analysed]
    images, left_out = read_images(pace.watch(wanted))
    if left_out:
        raise InputError(left_out[0])
    return results.pack(images, 0, finding.algorithm.device_uid, pace, note)


def embedded(finding: Finding) -> Embedding | None:
    """Return what the network saw in each slice, None where that is no numbers or too many of them."""
    try:
        return embed(finding.embedding)
    except ValueError:
        return None


def _request(
    house: House, task: Task, finding: Finding | None, notice: Notice | None, sources: Sources, kinds: tuple[str, ...], variant: str
) -> results.BuildRequest:
    node = house.settings.node
    run = replace(task.run, variant=variant)
    return results.BuildRequest(finding, notice, sources, run, node.equipment, node.uid_root, node.timezone, kinds)


def attempt_folder(task: Task) -> str:
    """Return where an attempt keeps what it builds, in the data folder; it never touches the files of another."""
    return f"results/{task.job_id // 1000:04d}/{task.job_id}/{task.run.number}-{task.attempts}"


def _save_all(house: House, task: Task, variant: str, request: results.BuildRequest) -> list[tuple[ResultObject, str, str, tuple[str, ...]]]:
    folder = f"{attempt_folder(task)}/{variant}"
    objects, saved = results.build(request), []
    structural = results.check_all(objects, request.sources, request.finding)
    for obj in objects:
        path = f"{folder}/{obj.order:03d}-{obj.kind}.dcm"
        sha256 = results.save(obj, house.folder(folder) / f"{obj.order:03d}-{obj.kind}.dcm")
        own, inherited = results.dciodvfy(house.data / path, task.files[0] if task.files else None)
        if inherited:
            house.log.info("inherited faults", job=task.job_id, kind=obj.kind, faults=list(inherited))
        saved.append((obj, path, sha256, (*structural, *own)))
    return saved
