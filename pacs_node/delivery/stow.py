"""STOW-RS to a DICOMweb server: objects in requests of bounded size, an outcome for each from what the server says about it (PS3.18 10.5).

::

    request ─► whole answer 2xx, 409 ──► each instance: stored ─► delivered · failed ─► by its reason · duplicate, or not a word ─► asked by QIDO-RS
          ├──► 400, 413, 415, 422 ─────► several objects: each again alone · one: refused
          ├──► 5xx ────────────────────► several: each again alone · one: asked by QIDO-RS, which also tells whether the server is alive
          └──► 401, 403, 404, 3xx, 429, 503, no connection, no answer ─► the destination as a whole, later
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from pacs_node.config import StowDestination
from pacs_node.delivery.multipart import Part, body_of, part_of
from pacs_node.delivery.store_answer import Answer, Said, read_answer, read_models, text_at
from pacs_node.delivery.web import Reply, Service, Timeouts
from pacs_node.dicom.header import read_header, text_of
from pacs_node.dicom.statuses import COERCED, DUPLICATE, SUCCESS, StatusClass, classify
from pacs_node.dicom.uids import is_valid_uid
from pacs_node.errors import TemporaryFailure, UnreadableObject
from pacs_node.records import Outcome, Parcel

MOST_OBJECTS = 32  # in one request
MOST_FAILURES = 3  # requests in a row with originals that are to be tried again: it is the server then
MOST_BYTES = 64 << 20  # of their files; a larger object goes alone

_SOP_INSTANCE, _PATIENT_ID = "00080018", "00100020"


class Meaning(StrEnum):
    """What an HTTP status tells about a request."""

    READ = "read the answer"
    OBJECT = "an object is at fault"
    PLACE = "the address is at fault"
    ACCESS = "we may not"
    BUSY = "not now"
    FAULT = "a fault of the server, by itself or because of an object"


@dataclass(frozen=True, slots=True)
class Row:
    """The HTTP statuses ``first`` … ``last``, what they mean, and what people are told."""

    first: int
    last: int
    meaning: Meaning
    text: str


HTTP: tuple[Row, ...] = (  # the first row that holds the status counts (PS3.18 10.5.3.1, 8.5; RFC 9110 15)
    Row(200, 299, Meaning.READ, "taken"),
    Row(300, 399, Meaning.PLACE, "points to another address, which is not followed: set the destination's url to where the service is"),
    Row(400, 400, Meaning.OBJECT, "the server does not understand the object"),
    Row(401, 401, Meaning.ACCESS, "does not know us: check the destination's auth (user and password, or token)"),
    Row(403, 403, Meaning.ACCESS, "does not let us store: have the right to store given to the user of the destination's auth"),
    Row(404, 405, Meaning.PLACE, "offers no STOW-RS at this address: check the destination's url, which is the part before /studies"),
    Row(406, 406, Meaning.PLACE, "answers neither in DICOM JSON nor in DICOM XML: check the destination's url"),
    Row(407, 407, Meaning.ACCESS, "is behind a proxy that does not let us pass: have it opened for this machine"),
    Row(408, 408, Meaning.BUSY, "found us too slow"),
    Row(409, 409, Meaning.READ, "not stored because of a conflict"),
    Row(410, 410, Meaning.PLACE, "offers no STOW-RS at this address any more: check the destination's url"),
    Row(413, 413, Meaning.OBJECT, "the object is larger than the server takes"),
    Row(415, 415, Meaning.OBJECT, "the server does not take objects of this kind or encoding"),
    Row(422, 422, Meaning.OBJECT, "the server cannot process the object"),
    Row(425, 425, Meaning.BUSY, "is not ready"),
    Row(429, 429, Meaning.BUSY, "gets too much at a time"),
    Row(501, 501, Meaning.PLACE, "offers no STOW-RS: check the destination's url"),
    Row(503, 503, Meaning.BUSY, "is not available at present"),
    Row(507, 507, Meaning.BUSY, "has no room left"),
    Row(511, 511, Meaning.ACCESS, "is behind a gateway that wants us to log in: have it opened for this machine"),
)
_OTHER = Row(100, 599, Meaning.FAULT, "the server failed")
_WHOLE = (Meaning.PLACE, Meaning.ACCESS, Meaning.BUSY)


class Found(StrEnum):
    """What a query shows of an object."""

    THERE = "there"
    OTHER = "an instance of this UID under another Patient ID"
    ABSENT = "not there"
    UNKNOWN = "the server cannot be asked"


def deliver(
    destination: StowDestination,
    parcels: Sequence[Parcel],
    calling_ae: str,
    on_outcome: Callable[[Outcome], None],
    timeouts: Timeouts = Timeouts(),
    wanted: Callable[[Parcel], bool] = lambda parcel: True,
) -> None:
    """Send ``parcels`` in order and report each outcome; one that is not ``wanted`` any more when its request begins is left out.

    The dataset bytes go out as they are stored. Raises `TemporaryFailure` where the server as a whole cannot be had, and stops after a
    temporary failure of one result, since later ones may refer to it, or in several requests with originals in a row; what was not reported is
    still to be sent. ``calling_ae`` is what every kind of destination is told; HTTP has no place for it.
    """
    failures = 0
    with Service(destination, timeouts) as service:
        for batch in batches(parcels):
            failures = 0 if _offer(service, batch, on_outcome, wanted) else failures + 1
            if failures >= (MOST_FAILURES if batch[0].original else 1):
                return


def batches(parcels: Sequence[Parcel]) -> Iterator[list[Parcel]]:
    """Split parcels into those that share a request, keeping their order.

    Only neighbours of one SOP class do: they do not refer to one another, so that nothing can be stored whose references were refused in
    the same request.
    """
    batch: list[Parcel] = []
    total = 0
    for parcel in parcels:
        size = parcel.path.stat().st_size if parcel.path.is_file() else 0
        if batch and (parcel.sop_class_uid != batch[0].sop_class_uid or len(batch) == MOST_OBJECTS or total + size > MOST_BYTES):
            yield batch
            batch, total = [], 0
        batch.append(parcel)
        total += size
    if batch:
        yield batch


def probe(destination: StowDestination, timeouts: Timeouts = Timeouts()) -> tuple[bool, str]:
    """Ask without sending anything: (whether it is there and knows us, a remark or what is wrong).

    Which objects it would take cannot be asked.
    """
    try:
        with Service(destination, timeouts) as service:
            reply = service.get("/studies", {"limit": "1"})
    except TemporaryFailure as error:
        return False, str(error)
    row = row_of(reply.status)
    if reply.status in (404, 405, 501):
        return True, f"answers queries with {reply.said}: check the url; what it says it has already cannot be verified"
    return row.meaning is Meaning.READ, "" if row.meaning is Meaning.READ else f"{row.text} ({reply.said})"


def row_of(status: int) -> Row:
    """Return the row for an HTTP status."""
    return next((row for row in HTTP if row.first <= status <= row.last), _OTHER)


# --- one request -------------------------------------------------------------------------------------------------------


def _offer(service: Service, batch: Sequence[Parcel], report: Callable[[Outcome], None], wanted: Callable[[Parcel], bool]) -> bool:
    """Send what is wanted in one request and report; False where something is to be tried later."""
    parts = [part for parcel in batch if wanted(parcel) and (part := _ready(parcel, report)) is not None]
    if not parts:
        return True
    well, alone = True, list[Part]()
    for part, outcome in _outcomes(service, parts, _store(service, parts)):
        if outcome is None:
            alone.append(part)
        else:
            report(outcome)
            well = well and not outcome.temporary
    return well and all(_offer(service, [part.parcel], report, wanted) for part in alone)


def _ready(parcel: Parcel, report: Callable[[Outcome], None]) -> Part | None:
    try:
        return part_of(parcel)
    except UnreadableObject as error:
        report(Outcome(parcel.sop_uid, delivered=False, permanent=True, message=str(error)))
        return None


def _store(service: Service, parts: Sequence[Part]) -> Reply:
    body = body_of(parts)
    try:
        return service.post("/studies", iter(body), body.size, body.content_type)
    except OSError as error:
        raise TemporaryFailure(service.name, f"a stored file could not be read to its end ({error})") from error


def _outcomes(service: Service, parts: Sequence[Part], reply: Reply) -> Iterator[tuple[Part, Outcome | None]]:
    """Give what became of each object, what is certain first; None: it is to be sent again without the others."""
    row, alone = row_of(reply.status), len(parts) == 1
    if row.meaning in _WHOLE:
        raise TemporaryFailure(service.name, f"{row.text} ({reply.said})", retry_after=reply.retry_after)
    if row.meaning is not Meaning.READ and not alone:
        yield from ((part, None) for part in parts)
        return
    if row.meaning is Meaning.OBJECT:
        message, kind = f"{row.text} ({reply.said})", reply.status == 415
        yield parts[0], Outcome(parts[0].parcel.sop_uid, delivered=False, permanent=True, message=message, unsupported=kind)
        return
    answer = read_answer(reply.body) if row.meaning is Meaning.READ else Answer()
    judged = [(part, judge(part.parcel, answer, alone=alone)) for part in parts]
    yield from ((part, _whose(service, part.parcel, outcome)) for part, outcome in judged if outcome is not None)
    for part in (part for part, outcome in judged if outcome is None):
        yield part, _asked(service, part.parcel, reply, answer.failed.get(part.parcel.sop_uid), alone=alone)


def judge(parcel: Parcel, answer: Answer, *, alone: bool) -> Outcome | None:
    """Return what an answer says about an object, None where it says nothing that counts: then a query has to decide.

    Stored counts for this very instance and class only, and not where the same answer calls it failed. A duplicate counts for
    nothing. ``alone``: nothing else was in the request, so that a failure that names no instance is this one's.
    """
    stored, failed = answer.stored.get(parcel.sop_uid), answer.failed.get(parcel.sop_uid)
    if failed is None and stored is None and alone and answer.other:
        failed = Said(parcel.sop_class_uid, answer.other[0])
    if stored is not None and failed is None and stored.sop_class_uid in ("", parcel.sop_class_uid):
        status = classify(stored.reason or SUCCESS)
        if status.kind in (StatusClass.SUCCESS, StatusClass.WARNING):
            return Outcome(parcel.sop_uid, delivered=True, status=stored.reason or SUCCESS, message=status.meaning)
    if failed is not None and stored is None and failed.reason not in (None, DUPLICATE):
        status = classify(failed.reason or SUCCESS)
        if status.kind in (StatusClass.PERMANENT, StatusClass.TEMPORARY):
            permanent = status.kind is StatusClass.PERMANENT
            return Outcome(parcel.sop_uid, delivered=False, permanent=permanent, status=failed.reason, message=status.meaning, unsupported=permanent)
    return None


def _asked(service: Service, parcel: Parcel, reply: Reply, failed: Said | None, *, alone: bool) -> Outcome | None:
    """Return what became of an object by what a query shows, None where it is worth being sent alone."""
    found = look_up(service, parcel)
    reason = failed.reason if failed else None
    if found is Found.THERE:
        return Outcome(parcel.sop_uid, delivered=True, status=reason, message=f"a query shows that it is there; the answer was {reply.said}")
    if found is Found.OTHER:
        return Outcome(parcel.sop_uid, delivered=False, permanent=True, status=reason, message=f"the server has {found}: correct it there")
    if found is Found.UNKNOWN and row_of(reply.status).meaning is Meaning.FAULT:
        raise TemporaryFailure(service.name, f"{_OTHER.text} ({reply.said})", retry_after=reply.retry_after)
    if reply.status == 409 and failed is None and not alone:
        return None
    said = classify(reason).meaning if reason else f"the server does not say that it was stored ({reply.said})"
    return Outcome(parcel.sop_uid, delivered=False, status=reason, message=f"{said}; asked for it: {found}")


def _whose(service: Service, parcel: Parcel, outcome: Outcome) -> Outcome:
    """Look under which patient an object lies that was stored with changed elements (PS3.18 I.2.1: B000)."""
    if outcome.status != COERCED:
        return outcome
    try:
        found = look_up(service, parcel)
    except TemporaryFailure:
        return outcome  # stored, which is what counts; the status itself is logged
    return replace(outcome, coerced="a query finds them under another Patient ID" if found is Found.OTHER else "")


# --- asking ------------------------------------------------------------------------------------------------------------


def look_up(service: Service, parcel: Parcel) -> Found:
    """Ask by QIDO-RS (PS3.18 10.6) whether this very object is there: its UID in its series and study, under its Patient ID where the answer has one."""
    try:
        header = read_header(parcel.path)
    except UnreadableObject:
        return Found.UNKNOWN
    study, series = text_of(header, "StudyInstanceUID"), text_of(header, "SeriesInstanceUID")
    if not is_valid_uid(study) or not is_valid_uid(series):
        return Found.UNKNOWN
    reply = service.get(f"/studies/{study}/series/{series}/instances", {"SOPInstanceUID": parcel.sop_uid, "includefield": _PATIENT_ID})
    if reply.status not in (200, 204, 404):
        return Found.UNKNOWN
    matches = [model for model in read_models(reply.body) if text_at(model, _SOP_INSTANCE) == parcel.sop_uid] if reply.status == 200 else []
    patients = {text_at(model, _PATIENT_ID) for model in matches} - {""}
    if not matches:
        return Found.ABSENT
    return Found.OTHER if patients - {text_of(header, "PatientID")} else Found.THERE
