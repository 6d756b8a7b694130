"""``pacs-node evaluate``: how well a bundle tells unusual studies from normal ones, beside the baselines it has to beat.

::

    sets ─► readings (a study's numbers, kept over an interruption) ─► table ─► JSON, console, pictures, card

Phantoms come from seeds that neither training nor calibration saw; the four families of lesions are none of the training's corruptions.
Numbers on phantoms and on planted lesions are no clinical evidence.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pacs_node.analysis import bundle as bundles
from pacs_node.analysis.bundle import Bundle
from pacs_node.analysis.manifest import WEIGHTS, sha256
from pacs_node.autoencoder import scoring
from pacs_node.errors import InputError, NotAnalysable
from pacs_node.workbench import evaluation_readings, evaluation_tables
from pacs_node.workbench.evaluation_readings import Kept, Reading
from pacs_node.workbench.evaluation_sets import FAMILIES, PHANTOMS, STRATA, Case, EvaluationSet, PhantomSet, Subject, cases, make_phantom
from pacs_node.workbench.map_metrics import is_hit
from pacs_node.workbench.material import Planted, Report

__all__ = ["FAMILIES", "PHANTOMS", "STRATA", "Case", "Evaluated", "cases", "evaluate", "evaluate_set", "is_hit", "judged", "make", "phantom_set", "write_json"]

_LEAST_FOR_A_POOL = 16


def make(bundle: Bundle, case: Case) -> Planted:
    """Make and prepare the phantom of one case; raises `InputError` where the bundle's recipe names no phantoms."""
    return make_phantom(phantom_set(bundle, 1, 1).part, bundle.manifest, case)


def judged(bundle: Bundle, planted: Planted) -> scoring.Scores:
    """Score one prepared phantom as the node would."""
    return evaluation_readings.judge(bundle, planted.prepared)[1]


def phantom_set(bundle: Bundle, normal: int, rounds: int) -> PhantomSet:
    """Return the bundle's phantoms: ``normal`` without a lesion, ``rounds`` of each stratum; raises `InputError` where its recipe names none."""
    part = bundle.manifest.recipe.phantoms
    if part is None:
        raise InputError(f"the recipe of {bundle.folder} names no phantoms: give studies with --data or --planted, or add `phantoms` to its recipe")
    return PhantomSet(part, bundle.manifest, tuple(cases(normal, rounds)))


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What came of a set: its table, the readings behind it, and who was not judged with the reason."""

    known: EvaluationSet
    table: dict[str, Any]
    readings: tuple[Reading, ...]
    refused: tuple[str, ...]


def evaluate(
    bundle_dir: Path, json_file: Path | None = None, *, normal: int = 40, rounds: int = 3, processes: int = 1, report: Report = lambda what, fraction: None
) -> dict[str, Any]:
    """Evaluate the bundle on ``normal`` phantoms without and 36 × ``rounds`` with a lesion; returns, and writes, the table."""
    bundle = bundles.load(bundle_dir)
    result = evaluate_set(bundle, phantom_set(bundle, normal, rounds), processes=processes, report=report)
    if json_file is not None:
        write_json(json_file, [result.table])
    return result.table


def evaluate_set(bundle: Bundle, known: EvaluationSet, *, processes: int = 1, report: Report = lambda what, fraction: None) -> Evaluated:
    """Judge everybody in a set and draw up its table; an interrupted evaluation of a slow set goes on where it was.

    Raises `InputError` where nobody is left.
    """
    kept = Kept(bundle) if known.slow else None
    readings: dict[Subject, Reading] = {}
    refused: list[str] = []
    for subject in known.subjects:
        found = None if kept is None else kept.get(known, subject)
        if found is not None:
            readings[subject] = found
    todo = [subject for subject in known.subjects if subject not in readings]
    for done, (subject, outcome) in enumerate(_outcomes(bundle, known, todo, processes), start=1):
        if isinstance(outcome, str):
            refused.append(f"{subject.name}: {outcome}")
        else:
            readings[subject] = outcome
            if kept is not None:
                kept.add(known, outcome)
        report(f"evaluating on {known.name}", done / len(todo))
    if kept is not None:
        kept.tidy()
    ordered = tuple(readings[subject] for subject in known.subjects if subject in readings)
    if not ordered:
        raise InputError(f"none of the {len(known.subjects)} studies of {known.name} can be judged: {refused[0] if refused else 'there are none'}")
    return Evaluated(known, _headed(bundle, known, evaluation_tables.table(ordered)), ordered, tuple(refused))


def _headed(bundle: Bundle, known: EvaluationSet, table: dict[str, Any]) -> dict[str, Any]:
    facts = {"bundle": bundle.name, "version": bundle.manifest.version, "weights_sha256": sha256(bundle.folder / WEIGHTS)}
    return facts | {"set": known.name, "unit": known.unit} | table


def write_json(file: Path, tables: Sequence[dict[str, Any]]) -> None:
    """Write the first table, with the others under ``others``; raises `InputError` where the file cannot be written."""
    content = dict(tables[0]) | ({"others": list(tables[1:])} if len(tables) > 1 else {})
    try:
        file.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {file} ({error.strerror or error}): name a file in a folder that can be written") from error


# --- the work --------------------------------------------------------------------------------------------------------------

Outcome = Reading | str


def _outcomes(bundle: Bundle, known: EvaluationSet, todo: Sequence[Subject], processes: int) -> Iterator[tuple[Subject, Outcome]]:
    """Yield everybody's reading, or the reason why there is none, as they come."""
    if processes < 2 or not known.slow or len(todo) < _LEAST_FOR_A_POOL:
        for subject in todo:
            yield subject, _outcome(bundle, known, subject)
        return
    fresh = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    with ProcessPoolExecutor(processes, mp_context=fresh, initializer=_begin, initargs=(bundle.folder, known)) as pool:
        waiting = {pool.submit(_in_a_child, subject): subject for subject in todo}
        try:
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _outcome(bundle: Bundle, known: EvaluationSet, subject: Subject) -> Outcome:
    try:
        return evaluation_readings.read(bundle, subject, known.make(subject))
    except NotAnalysable as reason:
        return str(reason)


_here: tuple[Bundle, EvaluationSet] | None = None  # of a child process


def _begin(folder: Path, known: EvaluationSet) -> None:
    global _here
    torch.set_num_threads(1)
    _here = (bundles.load(folder), known)


def _in_a_child(subject: Subject) -> Outcome:
    assert _here is not None
    return _outcome(*_here, subject)
