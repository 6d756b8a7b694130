"""`pacs-node bench`: how fast this machine takes instances in, and whether the receivers' memory stays flat. Ratios tell; the machine is never idle.

What is counted is durable: file, name and folder are synced before success is answered.
"""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from pacs_node.errors import InputError
from pacs_node.reception.spool import SUFFIXES
from pacs_node.workbench.receivers import AE_TITLE, Receivers, running_receivers
from pacs_node.workbench.sender import Sender

_ROWS = 512  # pixels: a CT slice of 525 kB
_IDLE_SECONDS = 3.0


@contextmanager
def work_folder(parent: Path | None) -> Iterator[Path]:
    """Give a folder of its own in ``parent``, or among the temporary ones, that is removed at the end; raises `InputError` where none can be made."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="pacs-node-bench-", dir=parent))
    except OSError as error:
        raise InputError(f"no folder can be made in {parent or tempfile.gettempdir()} ({error.strerror}): name another one with --work") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def bench_ingest(senders: int, count: int, rounds: int, work: Path | None = None) -> dict[str, Any]:
    """Measure intake from ``senders`` associations at once, ``count`` instances each, in ``rounds`` rounds.

    Returns instances/s and MB/s (medians), the same disk's reference, memory of each receiver (MB), and the share of a processor (%) that they use
    with one open association at rest.
    """
    with work_folder(work) as folder:
        sizes = [_make_instances(folder / f"sender{number}", count, number) for number in range(senders)]
        with running_receivers(folder) as receivers:
            program = shutil.which("storescu")
            rates = [senders * count / _send_all(receivers, folder, senders, program) for _ in range(rounds)]
            memory, idle = receivers.memory(), _idle_cpu(receivers)
        reference = _disk_reference(folder / "disk", sum(sizes) // (senders * count))
    rate = float(np.median(rates))
    return {
        "senders": senders,
        "instances": senders * count * rounds,
        "sender": "storescu" if program else "own sender",
        "instances_per_s": rate,
        "mb_per_s": rate * sum(sizes) / (senders * count) / 1e6,
        "disk_reference_per_s": reference,
        "disk_ratio": rate / reference,
        "receivers": memory,
        "idle_cpu_percent": idle,
    }


def bench_soak(instances: int, associations: int, probes: int = 0, steps: int = 10, work: Path | None = None) -> list[dict[str, Any]]:
    """Send small instances over many associations, and ``probes`` connections that never become one; return what the receivers occupy on the way.

    There is a row after each of ``steps`` equal parts (MB); the first was taken after an eighth of a part, when everything has been used once.
    """
    with work_folder(work) as folder, running_receivers(folder) as receivers:
        image, data = _image(0, 64), folder / "data" / "spool" / "new"
        rows, sent, opened, probed = [], 0, 0, 0
        for step in range(steps + 1):
            share = step / steps if step else 1 / (8 * steps)
            while sent < instances * share or opened < associations * share or probed < probes * share:
                waiting = max(round(instances * share) - sent, 0) / max(round(associations * share) - opened, 1)
                sent += _send_some(receivers, image, min(int(waiting + 0.999), 1000))
                opened += 1
                while probed < probes * share and probed * associations < probes * opened:
                    _probe(receivers.port, probed)
                    probed += 1
                _empty(data)
            memory = receivers.memory()
            row = {"instances": sent, "associations": opened, "probes": probed}
            rows.append(row | {"rss": [one["rss"] for one in memory], "pss": [one["pss"] for one in memory]})
    return rows


_PROBES = (b"", b"GET / HTTP/1.0\r\n\r\n", b"\x01\x00\x00", b"\x01\x00\x00\x00\x00\xce\x00\x01", b"\x04\x00\xff\xff\xff\xff")
"""What a port scanner, a load balancer's health check or a broken peer sends before it goes away."""


def _probe(port: int, number: int) -> None:
    """Connect, say little or nothing, and close; every other time with a reset."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as probe:
        probe.sendall(_PROBES[number % len(_PROBES)])
        if number % 2:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _send_some(receivers: Receivers, image: Dataset, count: int) -> int:
    """Open an association, send ``count`` instances with new UIDs, release it; returns how many were sent."""
    with Sender(receivers.port, AE_TITLE) as sender:
        for _ in range(count):
            image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            sender.send(image)
    return count


def _empty(spool: Path) -> None:
    """Take away what has arrived, as the core would."""
    for path in spool.rglob("*.*"):
        if path.suffix in SUFFIXES:
            path.unlink(missing_ok=True)


# --- senders ---------------------------------------------------------------------------------------------------------------


def _image(number: int, rows: int = _ROWS) -> Dataset:
    pixels = np.random.default_rng(number).integers(0, 4000, (rows, rows)).astype("<u2")
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, generate_uid()
    image.StudyInstanceUID, image.SeriesInstanceUID = generate_uid(), generate_uid()
    image.PatientID, image.PatientName, image.Modality = "BENCH", "Bench", "CT"
    image.Rows = image.Columns = rows
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.PixelData = pixels.tobytes()
    return image


def _make_instances(folder: Path, count: int, number: int) -> int:
    """Write the files of one sender; returns their bytes."""
    folder.mkdir()
    image = _image(number)
    for index in range(count):
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dcmwrite(folder / f"{index:05d}.dcm", image, enforce_file_format=True)
    return sum(path.stat().st_size for path in folder.iterdir())


def _send_all(receivers: Receivers, folder: Path, senders: int, program: str | None) -> float:
    """Send every sender's folder at once; returns the seconds until the last has finished. Raises `InputError` where one fails."""
    before = _arrived(folder)
    work: Callable[[Path], None] = _with_storescu(receivers, program) if program else _with_own_sender(receivers)
    begin = time.perf_counter()
    with ThreadPoolExecutor(senders) as pool:
        list(pool.map(work, [folder / f"sender{number}" for number in range(senders)]))
    seconds = time.perf_counter() - begin
    missing = sum(len(list((folder / f"sender{number}").iterdir())) for number in range(senders)) - (_arrived(folder) - before)
    if missing:
        raise InputError(f"{missing} instances did not arrive: see that storescu reaches 127.0.0.1:{receivers.port}")
    return seconds


def _arrived(folder: Path) -> int:
    return sum(1 for _ in (folder / "data" / "spool" / "new").rglob("*.dcm"))


def _with_storescu(receivers: Receivers, program: str) -> Callable[[Path], None]:
    def send(folder: Path) -> None:
        command = [program, "-aec", AE_TITLE, "--max-send-pdu", "131072", "+sd", "127.0.0.1", str(receivers.port), str(folder)]
        environment = {**os.environ, "TCP_NODELAY": "1"}  # else it waits 40 ms for an acknowledgement, instance by instance
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise InputError(f"storescu failed: {done.stderr.strip()[:300]}")

    return send


def _with_own_sender(receivers: Receivers) -> Callable[[Path], None]:
    def send(folder: Path) -> None:
        with Sender(receivers.port, AE_TITLE) as sender:
            for path in sorted(folder.iterdir()):
                sender.send(dcmread(path))

    return send


# --- beside the rate -------------------------------------------------------------------------------------------------------


def _idle_cpu(receivers: Receivers) -> float:
    """Return the share of one processor (%) that the receivers use while one association is open and silent."""
    with Sender(receivers.port, AE_TITLE):
        time.sleep(0.5)
        begin, used = time.perf_counter(), receivers.cpu_seconds()
        time.sleep(_IDLE_SECONDS)
        share = (receivers.cpu_seconds() - used) / (time.perf_counter() - begin)
    return 100.0 * share


def _disk_reference(folder: Path, size: int, files: int = 200, threads: int = 4) -> float:
    """Return the files/s that this disk makes durable with a folder sync each: a reference, which syncs that meet can beat."""
    folder.mkdir()
    content, lock, names = os.urandom(size), threading.Lock(), iter(range(files))

    def write_some() -> None:
        while True:
            with lock:
                number = next(names, None)
            if number is None:
                return
            part = folder / f"{number}.part"
            with part.open("wb", buffering=0) as file:
                file.write(content)
                os.fsync(file.fileno())
            part.rename(folder / f"{number}.dcm")
            descriptor = os.open(folder, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)

    begin = time.perf_counter()
    running = [threading.Thread(target=write_some) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return files / (time.perf_counter() - begin)
