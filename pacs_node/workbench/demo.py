"""`pacs-node demo`: the main job, to watch. An archive and a node on free ports, real C-STORE in, results out, a table and pictures.

::

    studies ── C-STORE ──► node (own process tree) ── C-STORE ──► archive (a storage SCP that writes to a folder) ──► PNG previews
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from pacs_node.config import Settings, load_settings
from pacs_node.delivery.archive import FolderArchive
from pacs_node.delivery.cstore import probe
from pacs_node.dicom.file_meta import read_meta
from pacs_node.errors import InputError, StartError, UnreadableObject
from pacs_node.journey import now
from pacs_node.phantoms import PhantomSpec, write_study
from pacs_node.workbench import tables
from pacs_node.workbench.children import running_node
from pacs_node.workbench.previews import write_previews
from pacs_node.workbench.sending import destination_of, send_folder
from pacs_node.workbench.studies import readable

_START_SECONDS = 60.0
_SECONDS_A_STUDY = 240.0  # how long the demonstration waits for one study at most
_WIDTH = 150  # of the table where the output is no terminal
_QUIET = {True: "1s", False: "2s"}

PHANTOMS: tuple[tuple[str, PhantomSpec], ...] = (
    ("ct-head-plain", PhantomSpec(modality="CT", region="head", seed=9001)),
    ("ct-head-lesion", PhantomSpec(modality="CT", region="head", lesion="ellipsoid", seed=9002)),
    ("ct-body-plain", PhantomSpec(modality="CT", region="body", seed=9003)),
    ("ct-body-lesion", PhantomSpec(modality="CT", region="body", lesion="ellipsoid", seed=9004)),
    ("mr-brain-plain", PhantomSpec(modality="MR", seed=9005)),
    ("mr-brain-lesion", PhantomSpec(modality="MR", sequence="FLAIR", lesion="ellipsoid", seed=9006)),
    ("pt-body-plain", PhantomSpec(modality="PT", seed=9007)),
    ("pt-body-lesion", PhantomSpec(modality="PT", lesion="ellipsoid", seed=9008)),
    ("us-breast-plain", PhantomSpec(modality="US", seed=9009)),
    ("us-breast-lesion", PhantomSpec(modality="US", lesion="ellipsoid", seed=9010)),
)
_OF_QUICK = 2  # the first so many of them


@dataclass
class _Wanted:
    """A study that was sent, and what is known of it."""

    name: str
    study_uid: str
    modality: str
    instances: int
    sop_uids: set[str] = field(default_factory=set)
    not_sent: list[str] = field(default_factory=list)


def run_demo(folders: Sequence[Path], out: Path, *, quick: bool) -> int:
    """Run the demonstration; returns 0 only if every study got results or a notice, or is listed with the reason why not."""
    console = Console() if sys.stdout.isatty() else Console(width=_WIDTH)
    for folder in folders:
        if not folder.exists():
            raise InputError(f"{folder} does not exist: name folders with DICOM files")
        if out.resolve() in (folder.resolve(), *folder.resolve().parents) or folder.resolve() in out.resolve().parents:
            raise InputError(f"{folder} and the output folder {out} lie in one another: name another output folder with --out")
    _prepare(out)
    sources = list(folders) or _make_phantoms(out / "phantoms", quick=quick)
    archive = FolderArchive(out / "archive", "ARCHIVE")
    archive.start()
    try:
        config = _write_config(out, archive.port, quick=quick)
        settings = load_settings(config)
        with _running_node(config, settings, out / "node.log"):
            wanted = [study for source in sources for study in _send(source, settings, console)]
            _wait(wanted, settings)
            rows = [_row(study, settings) for study in wanted]
    finally:
        archive.stop()
    previews = _previews(rows, archive, out / "previews")
    _print(console, rows, out, previews)
    return 0 if rows and all(row["settled"] for row in rows) else 1


def _previews(rows: Sequence[dict[str, Any]], archive: FolderArchive, folder: Path) -> int:
    """Write the pictures that the archive received, named after study and pipeline; returns how many."""
    count = 0
    for row in rows:
        for job in row["jobs"]:
            for uid in job["pictures"]:
                count += len(write_previews(archive.path_of(uid), folder / row["name"], f"{job['pipeline']}-job{job['id']}"))
    return count


def _prepare(out: Path) -> None:
    """Empty the folder of an earlier demonstration; a folder that holds anything else is left alone."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: name a folder with --out")
    if out.exists():
        if any(out.iterdir()) and not (out / "demo.yaml").exists():
            raise InputError(f"{out} holds something that no demonstration wrote: name an empty folder with --out")
        shutil.rmtree(out)
    try:
        out.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"the folder {out} cannot be made ({error.strerror}): name another one with --out") from error
    (out / "demo.yaml").touch()


def _make_phantoms(folder: Path, *, quick: bool) -> list[Path]:
    chosen = PHANTOMS[:_OF_QUICK] if quick else PHANTOMS
    made = []
    with Progress(transient=True) as progress:
        for name, spec in progress.track(chosen, description="making synthetic studies"):
            write_study(spec, folder / name)
            made.append(folder / name)
    return made


def _free_port() -> int:
    with socket.socket() as probe_socket:
        probe_socket.bind(("127.0.0.1", 0))
        return int(probe_socket.getsockname()[1])


def _write_config(out: Path, archive_port: int, *, quick: bool) -> Path:
    """Write the node's configuration for the demonstration: embedded defaults, one archive."""
    rules = out / "rules.yaml"
    rules.write_text(yaml.safe_dump(_rules(), sort_keys=False))
    config = {
        "node": {"name": "demo", "ae_titles": ["PACS_NODE"], "address": "127.0.0.1", "port": _free_port(), "data": str(out / "data"), "rules": str(rules)},
        "reception": {"reserve": "200MB"},
        "assembly": {"quiet": _QUIET[quick]},
        "monitoring": {"port": 0},  # any free one: the node's log says which
        "destinations": {"archive": {"kind": "dicom", "ae_title": "ARCHIVE", "address": "127.0.0.1", "port": archive_port, "accepts_research": True}},
    }
    path = out / "demo.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def _rules() -> dict[str, Any]:
    """Take the shipped rules, sent to the demonstration's archive; studies without pipeline get a notice."""
    from pacs_node.config import shipped

    rules = yaml.safe_load((shipped("config") / "rules.yaml").read_text())
    for rule in rules["rules"]:
        if rule.get("pipeline") or "notice" in (rule.get("results") or ()):
            rule["send_to"] = ["archive"]
    return dict(rules)


@contextmanager
def _running_node(config: Path, settings: Settings, log: Path) -> Iterator[None]:
    with running_node(config, log) as process:
        _wait_until_ready(process, settings, log)
        yield


def _wait_until_ready(process: subprocess.Popen[bytes], settings: Settings, log: Path) -> None:
    me = destination_of(f"127.0.0.1:{settings.node.port}", settings.node.ae_titles[0])
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise StartError(f"the node stopped at once; {log} says: {log.read_text(errors='replace').strip().splitlines()[-1:]}")
        if probe(me, "DEMO", ()).reachable and (settings.node.data / "node.db").is_file():
            return
        time.sleep(0.2)
    raise StartError(f"the node was not ready after {_START_SECONDS:.0f} s: {log} may say why")


def _send(source: Path, settings: Settings, console: Console) -> list[_Wanted]:
    headers = [header for _, header in readable(source)]
    studies: dict[str, _Wanted] = {}
    for header in headers:
        uid = str(header.StudyInstanceUID)
        study = studies.setdefault(uid, _Wanted(source.name, uid, "", 0))
        study.instances += 1
        study.sop_uids.add(str(header.SOPInstanceUID))
        modality = str(header.get("Modality", ""))
        if modality not in study.modality.split("/"):
            study.modality = f"{study.modality}/{modality}".strip("/")
    report = send_folder(source, f"127.0.0.1:{settings.node.port}", settings.node.ae_titles[0], "DEMO")
    console.print(f"{source}: {report.sentence()}", highlight=False, markup=False)
    for problem in report.problems:
        console.print(f"  {problem}", style="yellow", highlight=False, markup=False)
    for study in studies.values():
        study.not_sent = [problem for problem in report.problems if problem.partition(":")[0] in study.sop_uids]
    return list(studies.values())


def _wait(wanted: Sequence[_Wanted], settings: Settings) -> None:
    end = time.monotonic() + _SECONDS_A_STUDY * max(1, len(wanted))
    with Progress(transient=True) as progress:
        task = progress.add_task("waiting for results", total=len(wanted))
        while time.monotonic() < end:
            done = sum(_row(study, settings)["settled"] for study in wanted)
            progress.update(task, completed=done)
            if done == len(wanted):
                return
            time.sleep(0.5)


def _row(study: _Wanted, settings: Settings) -> dict[str, Any]:
    """Return what became of a study: settled, or what is still awaited."""
    data = tables.status_tables(settings, 1000)
    row: dict[str, Any] = {"name": study.name, "modality": study.modality, "jobs": [], "settled": False, "note": ""}
    known = next((item for item in data["studies"] if item["study_uid"] == study.study_uid), None)
    aside = [item["reason"] for item in data["aside"] if item["study_uid"] == study.study_uid or _object_of(item, settings) in study.sop_uids]
    if known is None:
        row["note"] = "; ".join(dict.fromkeys(["kept aside: " + reason for reason in aside] + study.not_sent)) or "nothing of it was received"
        row["settled"] = bool(aside)
        return row
    jobs = [job for job in tables.job_rows(settings, 1000) if job["study"] == known["id"] and job["state"] != "cancelled"]
    row["jobs"] = [_job(job, settings) for job in reversed(jobs)]
    if known["state"] == "held":
        row["note"], row["settled"] = f"kept aside: {known['waiting_for']}", True
    elif known["state"] == "complete":
        row["note"] = known["outcome"] if not jobs else ""
        row["settled"] = all(job["settled"] for job in row["jobs"])
    else:
        row["note"] = f"waiting: {known['waiting_for']}"
    return row


def _object_of(aside: dict[str, Any], settings: Settings) -> str:
    """Return the SOP Instance UID of something kept aside; of what is in quarantine its file says it."""
    if aside["sop_uid"]:
        return str(aside["sop_uid"])
    try:
        return str(read_meta(settings.node.data / aside["path"]).get("MediaStorageSOPInstanceUID", ""))
    except (UnreadableObject, OSError):
        return ""


def _job(job: dict[str, Any], settings: Settings) -> dict[str, Any]:
    objects = [item for item in tables.job_page(settings, job["id"])["objects"] if "destination" in item]
    open_states = ("waiting", "sending")
    returned = [item["kind"] for item in objects if item["state"] == "delivered"]
    failed = [f"{item['kind']} {item['state']}: {item['message']}" for item in objects if item["state"] in ("refused", "parked")]
    over = job["state"] in ("done", "not_analysed", "parked") and not any(item["state"] in open_states for item in objects)
    pictures = [item["sop_uid"] for item in objects if item["state"] == "delivered" and item["kind"] == "sc"]
    return job | {"returned": returned, "problems": failed, "pictures": pictures, "settled": over and bool(returned) and not failed}


def _print(console: Console, rows: Sequence[dict[str, Any]], out: Path, previews: int) -> None:
    table = Table(title="What came back (research use only, no diagnosis)", title_justify="left", title_style="bold")
    for column in ("study", "modality", "pipeline", "score", "verdict", "seconds", "objects returned, or why not"):
        table.add_column(column, overflow="fold")
    for row in rows:
        for index, job in enumerate(row["jobs"] or [{}]):
            score = job.get("score")
            why = [", ".join(job.get("returned", ())), job.get("reason", ""), *job.get("problems", ())]
            table.add_row(
                escape(row["name"]) if index == 0 else "",
                row["modality"] if index == 0 else "",
                str(job.get("pipeline", "")),
                "" if score is None else f"{score:.3f}",
                str(job.get("verdict") or ("not analysed" if job else "")),
                "" if job.get("seconds") is None else f"{job['seconds']:.1f}",
                escape("; ".join(part for part in why if part) or row["note"]),
            )
    console.print(table)
    console.print(f"objects: {out / 'archive'}\npictures: {out / 'previews'} ({previews} PNG)\nnode's log: {out / 'node.log'}", highlight=False)
    (out / "result.json").write_text(json.dumps({"made": str(now()), "studies": list(rows)}, indent=1, default=str))
