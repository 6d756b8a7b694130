"""C-STORE to a storage SCP: one association, the objects in order, an outcome for each as soon as it is known (PS3.4 Annex B)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pynetdicom import _config, build_context
from pynetdicom.association import Association

from pacs_node.config import DicomDestination
from pacs_node.delivery.association import Timeouts, associated, place, requestor
from pacs_node.delivery.doubts import Doubts
from pacs_node.dicom.file_meta import read_meta
from pacs_node.dicom.header import read_object
from pacs_node.dicom.sop_classes import MAX_CONTEXTS, VERIFICATION, name_of
from pacs_node.dicom.statuses import SUCCESS, StatusClass, classify
from pacs_node.dicom.transfer_syntaxes import DEFAULT, REENCODABLE
from pacs_node.errors import TemporaryFailure, UnreadableObject
from pacs_node.records import Outcome, Parcel

# A path given to send_c_store is then sent byte for byte in chunks, never decoded. pynetdicom has no other switch for this.
_config.STORE_SEND_CHUNKED_DATASET = True

Context = tuple[str, str]  # SOP class, transfer syntax

_MOST_FAILURES = 3  # temporary ones of originals in a row: it is the destination then, and not one instance


@dataclass(frozen=True, slots=True)
class Probe:
    """What a destination said when it was asked without being sent anything."""

    reachable: bool  # it opened an association
    problem: str  # "" where it answered C-ECHO with success
    accepted: frozenset[str]  # those of the SOP classes asked for


@dataclass(frozen=True, slots=True)
class Contexts:
    """What is to be found out beside delivering: whether SOP classes of results are accepted.

    ``ask``: classes that are proposed although nothing of them is sent; ``told`` gets class → accepted for those and for all results offered.
    """

    ask: frozenset[str] = frozenset()
    told: Callable[[Mapping[str, bool]], None] = lambda facts: None


def deliver(
    destination: DicomDestination,
    parcels: Sequence[Parcel],
    calling_ae: str,
    on_outcome: Callable[[Outcome], None],
    timeouts: Timeouts = Timeouts(),
    wanted: Callable[[Parcel], bool] = lambda parcel: True,
    contexts: Contexts = Contexts(),
) -> None:
    """Send ``parcels`` in order and report each outcome at once; one that is not ``wanted`` any more when its turn comes is left out.

    The file's dataset bytes go out as they are. Only where the destination refuses the transfer syntax of an uncompressed result but
    takes the default one, the object is written again in that (no pixel changes); an original never is. Raises `TemporaryFailure`
    where the association cannot be opened or is lost, and stops after a temporary failure of one result, since later ones may refer to
    it, or of several originals in a row; what was not reported is still to be sent.
    """
    failures, doubts = 0, Doubts(destination, calling_ae, timeouts)
    for batch in _batches(parcels):
        proposed = dict.fromkeys(context for parcel in batch for context in _contexts(parcel))
        proposed = dict.fromkeys([*proposed, *_asked(contexts, batch)][:MAX_CONTEXTS])
        with associated(destination, requestor(calling_ae, timeouts), [build_context(*context) for context in proposed]) as association:
            accepted = {(str(context.abstract_syntax), str(context.transfer_syntax[0])) for context in association.accepted_contexts}
            if accepted:  # where nothing at all is, the archive says something of this association, not of kinds of results
                contexts.told(_facts(batch, [*proposed], accepted))
            for parcel in batch:
                if not wanted(parcel):
                    continue
                outcome = _send(association, doubts, parcel, accepted)
                on_outcome(outcome)
                failures = failures + 1 if outcome.temporary else 0
                if failures >= (_MOST_FAILURES if parcel.original else 1):
                    return


def probe(destination: DicomDestination, calling_ae: str, sop_classes: Sequence[str], timeouts: Timeouts = Timeouts()) -> Probe:
    """Ask with C-ECHO whether the destination is there, and which of ``sop_classes`` it would accept."""
    asked = [VERIFICATION, *dict.fromkeys(sop_classes)][:MAX_CONTEXTS]
    contexts = [build_context(sop_class, [*REENCODABLE, DEFAULT] if sop_class != VERIFICATION else [DEFAULT]) for sop_class in asked]
    try:
        with associated(destination, requestor(calling_ae, timeouts), contexts) as association:
            accepted = frozenset(str(context.abstract_syntax) for context in association.accepted_contexts)
            problem = _echo(association) if VERIFICATION in accepted else "does not accept the Verification SOP class (C-ECHO)"
            return Probe(True, problem, accepted - {VERIFICATION})
    except TemporaryFailure as error:
        return Probe(False, str(error), frozenset())


def _echo(association: Association) -> str:
    status = association.send_c_echo()
    if "Status" not in status:
        return "gave no answer to C-ECHO"
    return "" if status.Status == SUCCESS else f"answered C-ECHO with status 0x{status.Status:04X}"


def _contexts(parcel: Parcel) -> list[Context]:
    """Return what has to be proposed for a parcel: its own encoding, and the default one where it could be written so."""
    own = [(parcel.sop_class_uid, parcel.transfer_syntax_uid)]
    fallback = None if parcel.original else REENCODABLE.get(parcel.transfer_syntax_uid)
    return own if fallback is None else [*own, (parcel.sop_class_uid, fallback)]


def _asked(contexts: Contexts, batch: Sequence[Parcel]) -> list[Context]:
    """Return what is proposed only to learn of it, beside results: in the encoding that results are written in, and in the default one."""
    if all(parcel.original for parcel in batch):
        return []
    return [(sop_class, syntax) for sop_class in sorted(contexts.ask) for syntax in (*REENCODABLE, DEFAULT)]


def _facts(batch: Sequence[Parcel], proposed: Sequence[Context], accepted: set[Context]) -> dict[str, bool]:
    """Return SOP class → accepted for what was proposed, the encodings of originals left out: those say nothing of results."""
    originals = {context for parcel in batch if parcel.original for context in _contexts(parcel)}
    facts: dict[str, bool] = {}
    for context in proposed:
        if context not in originals:
            facts[context[0]] = facts.get(context[0], False) or context in accepted
    return facts


def _batches(parcels: Sequence[Parcel]) -> Iterator[list[Parcel]]:
    """Split parcels into runs whose contexts fit into one association, keeping their order."""
    batch: list[Parcel] = []
    contexts: set[Context] = set()
    for parcel in parcels:
        grown = contexts.union(_contexts(parcel))
        if len(grown) > MAX_CONTEXTS:
            yield batch
            batch, grown = [], set(_contexts(parcel))
        batch.append(parcel)
        contexts = grown
    if batch:
        yield batch


# --- one object --------------------------------------------------------------------------------------------------------


def _send(association: Association, doubts: Doubts, parcel: Parcel, accepted: set[Context]) -> Outcome:
    destination = doubts.destination
    usable = next((context for context in _contexts(parcel) if context in accepted), None)
    if usable is None:
        what = f"{name_of(parcel.sop_class_uid)} in {name_of(parcel.transfer_syntax_uid)}"
        return Outcome(parcel.sop_uid, delivered=False, permanent=True, message=f"the destination accepts no {what}", unsupported=True)
    try:
        _check_file(parcel)
        content = parcel.path if usable[1] == parcel.transfer_syntax_uid else read_object(parcel.path)
    except FileNotFoundError:
        return Outcome(parcel.sop_uid, delivered=False, permanent=True, message=f"the stored file {parcel.path} is gone")
    except UnreadableObject as error:
        return Outcome(parcel.sop_uid, delivered=False, permanent=True, message=str(error))
    try:
        status = association.send_c_store(content)
    except RuntimeError as error:  # pynetdicom: no association any more
        raise TemporaryFailure(place(destination), "closed the association before all objects were sent") from error
    except OSError as error:  # in the middle of the file: the peer waits for a rest that will not come
        association.abort()
        raise TemporaryFailure(place(destination), f"the stored file {parcel.path} could not be read to its end ({error})") from error
    except (ValueError, AttributeError) as error:  # pynetdicom: a dataset that it cannot encode
        return Outcome(parcel.sop_uid, delivered=False, permanent=True, message=f"the stored file {parcel.path} cannot be encoded ({error})")
    return doubts.settle(parcel, status, _outcome(destination, parcel, status))


def _check_file(parcel: Parcel) -> None:
    """Raise `UnreadableObject` where the stored file is gone, damaged, or another object than the parcel says."""
    meta = read_meta(parcel.path)
    found = (meta.get("MediaStorageSOPInstanceUID"), meta.get("MediaStorageSOPClassUID"), meta.get("TransferSyntaxUID"))
    if found != (parcel.sop_uid, parcel.sop_class_uid, parcel.transfer_syntax_uid):
        raise UnreadableObject(str(parcel.path), f"its file meta information names another object than {parcel.sop_uid}")


def _outcome(destination: DicomDestination, parcel: Parcel, status: Dataset) -> Outcome:
    if "Status" not in status:
        raise TemporaryFailure(place(destination), f"gave no answer to the C-STORE of {parcel.sop_uid}")
    code = int(status.Status)
    meaning = classify(code)
    comment = str(status.get("ErrorComment") or "").strip()
    return Outcome(
        parcel.sop_uid,
        delivered=meaning.kind in (StatusClass.SUCCESS, StatusClass.WARNING),
        permanent=meaning.kind is StatusClass.PERMANENT,
        status=code,
        message=f"{meaning.meaning}: {comment}" if comment else meaning.meaning,
        unsupported=meaning.kind is StatusClass.PERMANENT,
    )
