"""`pacs-node fetch`: brings studies from an archive into a folder, to train and calibrate on. Nothing of it is routed.

::

    accession ─► C-FIND study ─► C-FIND series ─► C-MOVE, series by series ─► our own storage SCP ─► OUT/<study>.part/
                                                                                                       │ complete
                                                                            OUT/fetched.jsonl ◄── OUT/<study>/
"""

from __future__ import annotations

import errno
import hashlib
import shutil
import socket
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pacs_node.config import DicomDestination, Settings
from pacs_node.delivery import query
from pacs_node.delivery.counting import Moved, count_series, fetch_series
from pacs_node.dicom.header import text_of
from pacs_node.dicom.uids import is_valid_uid
from pacs_node.errors import InputError, TemporaryFailure, UnknownToArchive
from pacs_node.journey import sync_folder
from pacs_node.records import SeriesCount
from pacs_node.workbench.collecting import Collector, Wanted
from pacs_node.workbench.wishes import Fetched, Ledger

_FAILURES = 3  # of the archive, one after the other, after which the rest is left for another time


@dataclass(frozen=True, slots=True)
class Errand:
    """Whom to ask, as whom, for what.

    ``modalities``: only series of these, empty for all; ``rate``: studies a minute at most; ``peers``: further addresses that the archive
    sends from.
    """

    source: str
    accessions: tuple[str, ...]
    out: Path
    ae_title: str
    port: int = 0
    modalities: frozenset[str] = frozenset()
    rate: float = 30.0
    peers: tuple[str, ...] = ()

    @property
    def kinds(self) -> str:
        """The modalities as the ledger writes them."""
        return "+".join(sorted(self.modalities))


@dataclass
class Report:
    """What became of the list: studies fetched, those that were here already, and a line for each that failed."""

    fetched: list[Fetched] = field(default_factory=list)
    here: int = 0
    problems: list[str] = field(default_factory=list)
    left: int = 0  # not asked for, as the archive or the disk had failed

    def sentence(self) -> str:
        """Return the report in one sentence."""
        parts = [f"{len(self.fetched)} studies fetched ({sum(one.instances for one in self.fetched)} instances)"]
        parts += [f"{self.here} were here already"] if self.here else []
        parts += [f"{len(self.problems)} failed"] if self.problems else []
        parts += [f"{self.left} not asked for: give the same command again"] if self.left else []
        return ", ".join(parts)


class _Failed(Exception):
    """One study is not here; ``final``: there is no point in asking for the next one now."""

    def __init__(self, reason: str, *, final: bool = False) -> None:
        self.final = final
        super().__init__(reason)


def title_for(settings: Settings) -> str:
    """Return the AE title under which studies are fetched: the node's first one with _FETCH, at most 16 characters."""
    return settings.node.ae_titles[0][:10] + "_FETCH"


def archive_of(settings: Settings, name: str) -> DicomDestination:
    """Return the destination to fetch from; raises `InputError` where there is none of the kind dicom."""
    found = settings.destinations.get(name)
    if isinstance(found, DicomDestination):
        return found
    known = ", ".join(key for key, place in settings.destinations.items() if isinstance(place, DicomDestination))
    raise InputError(f"--from {name}: there is no destination {name} of kind dicom in the configuration; there are: {known or 'none'}")


@dataclass
class Fetcher:
    """Fetches study after study. ``wait`` and ``clock`` are others in tests; ``said`` hears what is done and the fraction that is over."""

    errand: Errand
    archive: DicomDestination
    collector: Collector
    ledger: Ledger
    wait: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    said: Callable[[str, float], None] = lambda what, fraction: None

    def run(self) -> Report:
        """Fetch all that is not here; a study that fails does not keep the others from being tried."""
        report, failures = Report(), 0
        asked = [accession for accession in self.errand.accessions if not self.ledger.has(accession, self.errand.kinds)]
        report.here = len(self.errand.accessions) - len(asked)
        for done, accession in enumerate(asked):
            self.said(f"fetching {accession}", done / len(asked))
            begin = self.clock()
            try:
                report.fetched.append(self._fetch(accession))
                failures = 0
            except _Failed as failure:
                report.problems.append(f"{accession}: {failure}")
                if failure.final:
                    report.left = len(asked) - done - 1
                    break
            except TemporaryFailure as failure:
                report.problems.append(f"{accession}: {failure}")
                failures += 1
                if failures == _FAILURES:
                    report.left = len(asked) - done - 1
                    break
            if done + 1 < len(asked):
                self.wait(max(0.0, 60.0 / self.errand.rate - (self.clock() - begin)))
        self.said("fetching", 1.0)
        return report

    def _fetch(self, accession: str) -> Fetched:
        study_uid = self._study(accession)
        series = self._series(study_uid)
        name = hashlib.sha256(f"{study_uid} {self.errand.kinds}".encode()).hexdigest()[:16]
        part, whole = self.errand.out / f"{name}.part", self.errand.out / name
        try:
            for folder in (part, whole):  # of a run that was interrupted: whole, but not in the ledger
                shutil.rmtree(folder, ignore_errors=True)
            part.mkdir()
            wanted = Wanted(study_uid, frozenset(one.series_uid for one in series), part)
            self._move(wanted, series)
            part.rename(whole)
            sync_folder(self.errand.out)
            fetched = Fetched(accession, self.errand.kinds, study_uid, name, wanted.count)
            self.ledger.add(fetched)
        except OSError as error:
            raise _Failed(f"{self.errand.out} takes no more ({error.strerror}): make room, and give the same command again", final=True) from error
        finally:
            self.collector.expect(None)
            shutil.rmtree(part, ignore_errors=True)
        return fetched

    def _study(self, accession: str) -> str:
        """Return the UID of the one study that the archive has under an accession number."""
        keys = {"AccessionNumber": accession, "StudyInstanceUID": ""}
        answers = query.find(self.archive, self.errand.ae_title, "STUDY", keys)
        found = sorted({text_of(one, "StudyInstanceUID") for one in answers if text_of(one, "AccessionNumber") == accession})
        if not found:
            raise _Failed("the archive knows no study of this accession number")
        if len(found) > 1:
            raise _Failed(f"the archive has {len(found)} studies of this accession number, and which one is meant cannot be told: none was fetched")
        if not is_valid_uid(found[0]):
            raise _Failed(f"the archive names it by a UID that is none: {found[0]!r}")
        return found[0]

    def _series(self, study_uid: str) -> list[SeriesCount]:
        counted = count_series(self.archive, self.errand.ae_title, study_uid)
        chosen = [one for one in counted if not self.errand.modalities or one.modality in self.errand.modalities]
        if not chosen:
            known = ", ".join(sorted({one.modality or "no modality" for one in counted})) or "nothing"
            raise _Failed(f"the study has no series of {self.errand.kinds or 'any modality'} (the archive names {known})")
        return chosen

    def _move(self, wanted: Wanted, series: Iterable[SeriesCount]) -> None:
        """Have the series sent, one after the other; raises `_Failed` unless every instance is on the disk."""
        self.collector.expect(wanted)
        for one in series:
            moved = self._moved(wanted.study_uid, one.series_uid)
            came = len(wanted.stored.get(one.series_uid, ()))
            if moved.failed or came < max(moved.sent, one.instances or 0) or not came:
                raise _Failed(self._incomplete(came, max(moved.sent + moved.failed, one.instances or 0)))

    def _moved(self, study_uid: str, series_uid: str) -> Moved:
        """Have one series sent; raises `OSError` where our own disk was the reason that it could not be."""
        try:
            moved = fetch_series(self.archive, self.errand.ae_title, study_uid, series_uid)
        except UnknownToArchive as error:
            raise _Failed(self._unknown(), final=True) from error
        except TemporaryFailure as error:
            if self.collector.trouble is None and not self._turned_away():
                raise
            moved = Moved(0, 0, error.status or 0)
        if self.collector.trouble is not None:
            raise self.collector.trouble
        return moved

    def _unknown(self) -> str:
        collector = self.collector
        return (
            f"{self.archive.ae_title} knows no destination {collector.ae_title}: enter it there with this machine's address and port {collector.port}"
            f" (choose the port with --port, the title with --aet){self._turned_away()}"
        )

    def _incomplete(self, came: int, expected: int) -> str:
        said = f"only {came} of {expected} instances of a series came"
        if self._turned_away():
            said += self._turned_away()
        elif not came:
            said += f": see that {self.archive.ae_title} reaches this machine on port {self.collector.port} as {self.collector.ae_title}"
        return said

    def _turned_away(self) -> str:
        peers = ", ".join(sorted(set(self.collector.turned_away)))
        return f"; associations from {peers} were rejected: name the archive's other addresses with --peer" if peers else ""


def addresses_of(host: str, further: Collection[str]) -> frozenset[str]:
    """Return the network addresses of a host and of ``further`` ones; raises `InputError` for a name that cannot be resolved."""
    found: set[str] = set()
    for name in (host, *further):
        try:
            found |= {str(info[4][0]) for info in socket.getaddrinfo(name, None)}
        except OSError as error:
            raise InputError(f"the address {name} cannot be resolved ({error.strerror or error}): correct it in the configuration, or in --peer") from error
    return frozenset(found)


def fetch(
    settings: Settings, errand: Errand, said: Callable[[str, float], None] = lambda what, fraction: None, told: Callable[[str], None] = lambda line: None
) -> Report:
    """Fetch what the errand asks for; ``told`` hears where the archive has to send to. Raises `InputError` where nothing can be fetched at all."""
    archive = archive_of(settings, errand.source)
    try:
        errand.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {errand.out} cannot be made ({error.strerror}): name one that can be written") from error
    ledger = Ledger(errand.out)
    collector = Collector(errand.ae_title, errand.port, settings.node.address, addresses_of(archive.address, errand.peers))
    try:
        collector.start()
    except OSError as error:
        why = "another program listens there" if error.errno == errno.EADDRINUSE else error.strerror
        raise InputError(f"cannot listen on {settings.node.address}:{errand.port} ({why}): choose another port with --port") from error
    try:
        told(f"listening as {collector.ae_title} on port {collector.port}: the archive has to know that destination")
        return Fetcher(errand, archive, collector, ledger, said=said).run()
    finally:
        collector.stop()
