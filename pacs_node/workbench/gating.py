"""How well the gate of a bundle tells what it was made for from what it was not, measured on phantoms; and what it says of real series.

::

    phantoms: usual · with a lesion · other modality or region (named as if they were right) · each artefact · physical phantoms
        └─► rules, limits of quality ─► refused: farthest of all
                    └─► distance of `familiar` ─► AUROC against usual phantoms, share refused at the shipped limit

A lesion is no reason to refuse: its share of refused studies stands beside the others. A local artefact (a clip, a metal part) changes no more
of a series than a lesion does, so the two cannot both be told from usual studies by the gate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pacs_node.analysis import familiar, gate
from pacs_node.analysis.manifest import WEIGHTS, Manifest, PhantomPart
from pacs_node.analysis.pipeline import prepare, read_series
from pacs_node.autoencoder.familiarity import Familiarity, distance
from pacs_node.dicom.header import text_of
from pacs_node.errors import InputError, NotAnalysable, OutOfScope
from pacs_node.phantoms import LESIONS, MODALITIES, PhantomSpec, make_volume
from pacs_node.phantoms.qa import qa_volume
from pacs_node.records import Volume
from pacs_node.workbench import material, metrics
from pacs_node.workbench.material import Report
from pacs_node.workbench.studies import studies_below

REFUSED = 1e6  # stands for a distance where a rule refuses
USUAL, LESION, FOREIGN, ARTEFACT, QA = "usual", "with a lesion", "another modality or region", "artefact", "physical phantom"
_FIRST = 500_000  # after the seeds of an evaluation, so that no phantom serves twice


@dataclass(frozen=True, slots=True)
class Reading:
    """How far a series is from what is usual (`REFUSED` where a rule refuses it), and why it is refused, "" where it is not."""

    distance: float
    reason: str


def read(volume: Volume, manifest: Manifest, fitted: Familiarity | None) -> Reading:
    """Pass a series through the gate."""
    try:
        prepared = prepare(volume, manifest)
    except NotAnalysable as refusal:
        return Reading(REFUSED, refusal.reason)
    if fitted is None:
        return Reading(0.0, "")
    one = familiar.portray(prepared.seen, prepared.stratum, synthetic=volume.synthetic, findings=0)
    try:
        gate.check_familiar(one, fitted, manifest)
    except OutOfScope as refusal:
        return Reading(distance(one.numbers, one.stratum, fitted), refusal.reason)
    return Reading(distance(one.numbers, one.stratum, fitted), "")


# --- phantoms --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Group:
    """Phantoms of one kind: ``make(index)`` gives one."""

    kind: str
    name: str
    make: Callable[[int], Volume]


def groups(manifest: Manifest) -> list[Group]:
    """Return every group of phantoms that a bundle is measured on, the usual ones first; raises `InputError` where its recipe names none."""
    part = manifest.recipe.phantoms
    if part is None:
        raise InputError(f"the recipe of {manifest.name} names no phantoms: add `phantoms` to its recipe, they are what the gate is measured on")

    own = partial(_own, part, manifest)
    made = [Group(USUAL, USUAL, own)]
    made += [Group(LESION, family, partial(own, lesion=family)) for family in LESIONS]
    made += [Group(ARTEFACT, name, partial(own, artefact=name)) for name in MODALITIES[manifest.modality].ARTEFACTS]
    made.append(Group(QA, QA, lambda index: qa_volume(own(index), index)))
    return [*made, *_foreign(part, manifest)]


def _own(part: PhantomPart, manifest: Manifest, index: int, **what: object) -> Volume:
    return make_volume(material.spec(part, manifest, _seed(index), **what)).volume


def _seed(index: int) -> int:
    return material.SEEDS["evaluate"] + _FIRST + index


def _foreign(part: PhantomPart, manifest: Manifest) -> Iterator[Group]:
    """Phantoms of every other modality and region, their headers saying what the bundle wants to hear."""
    for modality, made in MODALITIES.items():
        for region in made.REGIONS:
            if (modality, region) != (manifest.modality, part.region):
                yield Group(FOREIGN, f"{modality} {region}", partial(_disguised, manifest, modality, region))


def _disguised(manifest: Manifest, modality: str, region: str, index: int) -> Volume:
    wanted = manifest.scope.weightings
    weighting = wanted[index % len(wanted)] if wanted else ""
    return replace(make_volume(PhantomSpec(modality, region, seed=_seed(index))).volume, modality=manifest.modality, weighting=weighting)


# --- the table -------------------------------------------------------------------------------------------------------------------


def table(manifest: Manifest, fitted: Familiarity | None, *, count: int = 20, usual: int = 60, report: Report = lambda what, fraction: None) -> dict[str, Any]:
    """Measure the gate on ``usual`` usual phantoms and ``count`` of every other group.

    Returns ``limit`` and ``studies`` of the learnt gate, and ``groups``: kind, name, n, auroc and ci95 against the usual ones, ``refused``
    (share) and ``by_rules`` (share refused before the distance is asked); the pooled rows are named ``all``.
    """
    wanted = groups(manifest)
    readings: dict[tuple[str, str], list[Reading]] = {}
    for done, group in enumerate(wanted, start=1):
        size = usual if group.kind == USUAL else count
        readings[group.kind, group.name] = [read(group.make(index), manifest, fitted) for index in _indices(group, size, usual)]
        report("measuring the gate", done / len(wanted))
    base = readings.pop((USUAL, USUAL))
    rows = [_row(USUAL, USUAL, base, base)]
    for kind in (FOREIGN, ARTEFACT, QA, LESION):
        of_kind = {name: found for (one, name), found in readings.items() if one == kind}
        rows += [_row(kind, name, found, base) for name, found in of_kind.items()]
        if len(of_kind) > 1:
            rows.append(_row(kind, "all", [one for found in of_kind.values() for one in found], base))
    learnt = {"limit": float(fitted.limit), "studies": fitted.studies} if fitted else {"limit": None, "studies": 0}
    return {"bundle": manifest.name, "weights_sha256": manifest.files.get(WEIGHTS, ""), **learnt, "groups": rows}


def _indices(group: Group, size: int, usual: int) -> range:
    """Other seeds than the usual phantoms have: a spoilt twin of one of them would be compared with itself."""
    return range(size) if group.kind == USUAL else range(usual, usual + size)


def _row(kind: str, name: str, found: Sequence[Reading], base: Sequence[Reading]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "kind": kind,
        "name": name,
        "n": len(found),
        "refused": float(np.mean([bool(one.reason) for one in found])),
        "by_rules": float(np.mean([one.distance >= REFUSED for one in found])),
        "reason": next((one.reason for one in found if one.reason), ""),
    }
    if kind != USUAL:
        scores, positive = [one.distance for one in (*base, *found)], [False] * len(base) + [True] * len(found)
        drawn = metrics.draws([str(index) for index in range(len(scores))], positive)
        area = metrics.measure("auroc", scores, positive, drawn)
        row |= {"auroc": area.value, "ci95": [area.low, area.high]}
    return row


def real(folders: Sequence[Path], manifest: Manifest, fitted: Familiarity | None) -> list[dict[str, Any]]:
    """Return for each DICOM series of the bundle's modality below ``folders`` whether the gate lets it in, and why not."""
    rows = []
    for folder in folders:
        for files in _series(folder, manifest.modality):
            try:
                reading = read(read_series(files, manifest), manifest, fitted)
            except NotAnalysable as refusal:
                reading = Reading(REFUSED, refusal.reason)
            rows.append({"series": str(files[0].parent), "files": len(files), "in": not reading.reason, "reason": reading.reason})
    return rows


def _series(folder: Path, modality: str) -> list[list[Path]]:
    """The files of every series of a modality, all of a study's: the gate is asked about each."""
    found: dict[str, list[Path]] = {}
    for study in studies_below(folder):
        for path, header in zip(study.files, study.headers, strict=True):
            if text_of(header, "Modality") == modality:
                found.setdefault(str(header.SeriesInstanceUID), []).append(path)
    return list(found.values())


def lines(found: dict[str, Any]) -> list[str]:
    """Return the table as lines of Markdown, and a line for each real series."""
    learnt = f"fitted on {found['studies']} studies, limit {found['limit']:.2f}" if found["studies"] else "rules and limits alone: nothing was learnt"
    made = [f"The gate of {found['bundle']}: {learnt}.", "", "| kind | group | n | AUROC (95 %) | refused | by rules alone |", "|---|---|---|---|---|---|"]
    for row in found["groups"]:
        area = f"{row['auroc']:.3f} ({row['ci95'][0]:.3f}–{row['ci95'][1]:.3f})" if "auroc" in row else "–"
        made.append(f"| {row['kind']} | {row['name']} | {row['n']} | {area} | {row['refused']:.0%} | {row['by_rules']:.0%} |")
    return [*made, *(f"{row['series']} ({row['files']} files): {'in' if row['in'] else 'out: ' + row['reason']}" for row in found.get("real", ()))]


def for_the_card(found: dict[str, Any]) -> dict[str, Any]:
    """Return the table with the number of real series instead of their folders, which may bear names of patients."""
    series = found.get("real", [])
    counted = {"real_series": len(series), "real_in": sum(row["in"] for row in series)} if series else {}
    return {key: value for key, value in found.items() if key != "real"} | counted
