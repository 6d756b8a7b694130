"""What can go wrong: one tree. Every message is built from typed arguments, names the thing at fault and says what to do.

::

    PacsNodeError
    ├── ConfigError             a configuration file asks for something unknown, impossible or contradictory
    ├── StartError              the node cannot start
    │   ├── DataFolderInUse     another node works on the same data folder
    │   └── PortInUse           another program listens on the port
    ├── DatabaseUnavailable     the database cannot be reached, is locked, or takes no more: what was asked is done later
    ├── InputError              a file, folder or address given to a command is not usable
    ├── ReceptionError          an instance could not be taken in
    │   └── SpoolFull           the spool's disk takes no more: full, over quota, read-only or failing
    ├── UnreadableObject        bytes that are no DICOM object, or whose beginning cannot be read
    ├── BundleError             a model bundle is missing, damaged or of another format
    ├── NotAnalysable           the study is outside what a pipeline can judge (a reason, not a fault)
    │   ├── UndecodablePixels   no decoder for the transfer syntax, or the stream is damaged
    │   └── OutOfScope          wrong modality, region, too few slices, blank, …
    ├── SlowPattern             a regular expression of a rule takes too long: it tries the same text in too many ways
    ├── NotFinite               a model's output is no number: the bundle is at fault, or the numbers overflow
    ├── DeviceLost              the device fails this process: another one has to take over
    ├── ResultRejected          a built object did not pass the gate
    ├── CollectorFailed         a copy of the audit trail did not reach its collector
    └── DeliveryError           an object did not reach a destination
        ├── PermanentRefusal    the destination will never do what it is asked
        └── TemporaryFailure    worth another try later
            ├── NotKnownYet     the destination is there, and lacks what the objects belong to
            └── UnknownToArchive  the archive does not know where to send what it is asked for
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path


class PacsNodeError(Exception):
    """Base of everything that pacs-node raises on purpose. ``str(error)`` is one sentence for an administrator."""


class ConfigError(PacsNodeError):
    """A configuration file is wrong at one place.

    Parameters
    ----------
    file
        the file, or a word such as ``defaults`` where there is none
    line
        1-based line of the offending key, or None where it cannot be told
    key
        dotted path of the key, ``""`` for the file as a whole
    problem
        what is wrong and what to do about it
    """

    def __init__(self, file: Path | str, line: int | None, key: str, problem: str) -> None:
        self.file, self.line, self.key, self.problem = file, line, key, problem
        place = f"{file}:{line}" if line is not None else f"{file}"
        super().__init__(f"{place}: {key}: {problem}" if key else f"{place}: {problem}")


class StartError(PacsNodeError):
    """The node cannot start; the message says why."""


class DataFolderInUse(StartError):
    """Another node holds the lock of the data folder."""

    def __init__(self, folder: Path, owner: str) -> None:
        super().__init__(f"the data folder {folder} is in use by another node ({owner}): stop that node, or give this one its own node.data")


class PortInUse(StartError):
    """Another program listens on the address and port; ``key`` names where the configuration says them."""

    def __init__(self, address: str, port: int, reason: str, key: str = "node.port, node.tls_port") -> None:
        super().__init__(f"cannot listen on {address}:{port} ({reason}): stop the program that uses the port, or set another one ({key})")


class DatabaseUnavailable(PacsNodeError):
    """The database does not do what it is asked at present. Nothing is wrong with the data: whoever meets this tries again later.

    ``database`` is its address without a password, ``reason`` what it or the driver said.
    """

    def __init__(self, database: str, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the database {database} cannot be used ({reason}): {_database_remedy(reason)}")


_DATABASE_REMEDIES = (  # what the reason holds, what to do
    ("password", "give its user's password in PGPASSWORD or a password file, or correct database.url"),
    ("no pg_hba.conf entry", "allow this machine in the server's pg_hba.conf"),
    ("role ", "make the user on the server (createuser), or correct the one in database.url"),
    ("does not exist", "make it on the server (createdb), or correct its name in database.url"),
    ("is locked", "find the program that keeps it locked and let it finish"),
    ("unable to open", "see that its folder exists and can be written"),
    ("disk", "make room on the database's disk"),
    ("malformed", "stop the node and put a copy of it back, or move it away: it is made again from the files"),
)


def _database_remedy(reason: str) -> str:
    return next((remedy for word, remedy in _DATABASE_REMEDIES if word in reason), "start the server, or correct host and port in database.url")


class InputError(PacsNodeError):
    """Something given to a command cannot be used; the message names it."""


class UnreadableObject(PacsNodeError):
    """Bytes that cannot be read as a DICOM object as far as needed."""

    def __init__(self, what: str, reason: str) -> None:
        self.reason = reason
        super().__init__(f"{what} is not a readable DICOM object: {reason}")


class ReceptionError(PacsNodeError):
    """An instance could not be taken in; the sender was told so and keeps it."""


class SpoolFull(ReceptionError):
    """The disk of the spool takes no more."""

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(f"the spool in {folder} takes no more ({reason}): make room on its disk, or move node.data to another one")


class BundleError(PacsNodeError):
    """A model bundle cannot be used."""

    def __init__(self, bundle: Path | str, problem: str) -> None:
        super().__init__(f"model bundle {bundle}: {problem}")


class NotAnalysable(PacsNodeError):
    """The study is not judged by the pipeline. ``reason`` is shown to the radiologist as it is."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class UndecodablePixels(NotAnalysable):
    """Pixels that no decoder here can read."""

    def __init__(self, sop_uid: str, transfer_syntax: str, reason: str) -> None:
        super().__init__(f"pixels of instance {sop_uid} ({transfer_syntax}) cannot be decoded: {reason}")


class OutOfScope(NotAnalysable):
    """The gate refused the series for this bundle."""


class SlowPattern(PacsNodeError):
    """A regular expression did not come to an end in time."""

    def __init__(self, pattern: str, seconds: float) -> None:
        problem = "it repeats what repeats, or has several ways to match the same text: simplify it, or write {contains: …}"
        super().__init__(f"the regular expression {pattern!r} took more than {seconds:g} s on one value; {problem}")


class NotFinite(PacsNodeError):
    """A model's output holds values that are no numbers: nothing may be said about the study."""

    def __init__(self, bundle: str, what: str) -> None:
        super().__init__(f"{what} of model bundle {bundle} is not finite: check the bundle with `pacs-node evaluate`, or install another version of it")


class DeviceLost(PacsNodeError):
    """The device (a GPU) has failed in a way that no process gets over; its job is back in the queue and the process has to end."""

    def __init__(self, device: str, reason: str) -> None:
        super().__init__(f"device {device} failed ({reason}): the process is started again; if that does not help, restart the machine's driver")


class ResultRejected(PacsNodeError):
    """A built result did not pass the gate and must not leave."""

    def __init__(self, kind: str, faults: tuple[str, ...]) -> None:
        self.faults = faults
        super().__init__(f"the {kind} object was not released: {'; '.join(faults)}")


class CollectorFailed(PacsNodeError):
    """Audit messages did not reach the syslog collector, or it is not known whether they did; they are sent again."""

    def __init__(self, collector: str, problem: str) -> None:
        self.problem = problem
        super().__init__(f"audit collector {collector}: {problem}")


class DeliveryError(PacsNodeError):
    """An object did not reach a destination.

    ``status`` is the DIMSE status (PS3.7 Annex C) where one was received.
    """

    def __init__(self, destination: str, problem: str, status: int | None = None) -> None:
        self.destination, self.status = destination, status
        code = f" (status 0x{status:04X})" if status is not None else ""
        super().__init__(f"destination {destination}: {problem}{code}")


class PermanentRefusal(DeliveryError):
    """The destination will never do what it is asked, however often it is asked."""


class TemporaryFailure(DeliveryError):
    """The destination may take the object later. ``retry_after``: how long it asked to be left alone."""

    def __init__(self, destination: str, problem: str, status: int | None = None, retry_after: timedelta | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(destination, problem, status)


class NotKnownYet(TemporaryFailure):
    """The destination answers, and does not know yet what the objects belong to: nothing is wrong with the destination."""


class UnknownToArchive(TemporaryFailure):
    """An archive knows no application entity of the title to which it is to move objects (status A801, PS3.4 C.4.2.1.5)."""

    def __init__(self, destination: str, ae_title: str) -> None:
        super().__init__(destination, f"knows no destination {ae_title}: enter this node there with its address and port")
