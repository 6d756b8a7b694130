"""`pacs-node analyse`: the pipeline without the network: findings, objects, pictures and a page about each series from a folder."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from rich.progress import Progress

from pacs_node import results
from pacs_node.analysis import pipeline
from pacs_node.analysis.bundle import Bundle, load
from pacs_node.analysis.installed import available
from pacs_node.config import Settings
from pacs_node.errors import InputError, NotAnalysable
from pacs_node.journey import models_folder
from pacs_node.journey.run_job import summary
from pacs_node.records import Finding, Run, Sources
from pacs_node.workbench.previews import write_previews
from pacs_node.workbench.report import write_pictures, write_report
from pacs_node.workbench.studies import FolderStudy, studies_below


def find_bundle(settings: Settings, name: str) -> Bundle:
    """Load a bundle by its name among the installed ones, or by its folder."""
    if (Path(name) / "model.yaml").is_file():
        return load(Path(name))
    found = available(models_folder(settings))
    if name not in found:
        raise InputError(f"there is no bundle {name!r}: installed are {', '.join(sorted(found)) or 'none'}; or name a folder with a model.yaml")
    return load(found[name])


def analyse_folder(folder: Path, bundle: str, out: Path, settings: Settings) -> list[dict[str, Any]]:
    """Analyse each series below a folder; returns a row for each: finding, or why not."""
    model = find_bundle(settings, bundle)
    rows = []
    for study in studies_below(folder):
        for uid, indices in _series(study).items():
            rows.append(_analyse_series(study, uid, indices, model, out, settings))
    return rows


def _series(study: FolderStudy) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for index, header in enumerate(study.headers):
        groups.setdefault(str(header.SeriesInstanceUID), []).append(index)
    return groups


def _analyse_series(study: FolderStudy, uid: str, indices: list[int], model: Bundle, out: Path, settings: Settings) -> dict[str, Any]:
    moment = datetime.now(UTC)
    header = study.headers[indices[0]]
    row: dict[str, Any] = {"series": f"{header.get('SeriesNumber', '')} {header.get('SeriesDescription', '')}".strip() or uid, "series_uid": uid}
    with Progress(transient=True) as progress:
        task = progress.add_task(f"analysing {row['series']}", total=1.0)
        try:
            finding = pipeline.analyse(
                [study.files[index] for index in indices], model, "cpu", beat=lambda part: progress.update(task, completed=part), today=moment.date()
            )
        except NotAnalysable as error:
            return row | {"verdict": "not analysed", "reason": error.reason}
    folder = out / f"series-{header.get('SeriesNumber') or indices[0]}-{uid.rsplit('.', 1)[-1][-8:]}"
    analysed = _write(study, finding, folder, settings, moment)
    write_pictures(finding, folder)
    page = write_report(finding, model, analysed, folder)
    return row | summary(finding) | {"folder": str(folder), "report": str(page)}


def _write(study: FolderStudy, finding: Finding, folder: Path, settings: Settings, moment: datetime) -> tuple[Dataset, ...]:
    """Write the objects and their previews; returns the headers of what was analysed."""
    by_uid = {str(header.SOPInstanceUID): header for header in study.headers}
    analysed = {frame.sop_uid: by_uid[frame.sop_uid] for frame in finding.volume.frames}
    sources = Sources(tuple(analysed.values()), tuple(header for uid, header in by_uid.items() if uid not in analysed))
    kinds = tuple(kind for kind in results.DEFAULT_KINDS["folder"] if kind != "raw")  # `pacs-node encode` makes that of the same folder
    run = Run(0, 1, finding.algorithm.name, settings.node.name, moment, "+".join(sorted(kinds)), "analysed from a folder", partial=False)
    request = results.BuildRequest(finding, None, sources, run, settings.node.equipment, settings.node.uid_root, settings.node.timezone, kinds)
    folder.mkdir(parents=True, exist_ok=True)
    for obj in results.build(request):
        path = folder / f"{obj.kind}.dcm"
        results.save(obj, path)
        write_previews(path, folder, obj.kind)
    return sources.analysed
