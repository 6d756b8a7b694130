"""What a grid of recipes gave: one row a recipe with intervals, as data, as Markdown, and the keys of the best one for ``model.yaml``.

A fold's AUROC is taken within the fold, whose scores one network made, and averaged over the folds. Intervals are those of a bootstrap over
patients, the same draws for every recipe, so that two recipes are compared on the same patients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from pacs_node.errors import InputError
from pacs_node.workbench import metrics
from pacs_node.workbench.metrics import Estimate
from pacs_node.workbench.trial import STUDY, Trial
from pacs_node.workbench.tuning import Line, Tuned

TUNED = "tuned.yaml"
_CALLED = {"auroc": "AUROC", "loss": "loss"}

Table = dict[str, Any]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Measured:
    """A number and its rounds of the bootstrap."""

    value: float
    rounds: Floats

    @property
    def estimate(self) -> Estimate:
        known = self.rounds[np.isfinite(self.rounds)]
        low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (math.nan, math.nan)
        return Estimate(self.value, float(low), float(high))


def _weights(lines: Sequence[Line]) -> Floats:
    """How often each study of the lines counts in each round: a patient of several folds is drawn for all of them."""
    trials = [trial for line in lines for trial in line.trials]
    return metrics.draws([trial.patient for trial in trials], [trial.unusual for trial in trials])


def _auroc(lines: Sequence[Line], detector: str, weights: Floats, kind: str = "scores") -> _Measured | None:
    """The AUROC of one detector, averaged over the folds; None where a fold has studies of one kind only."""
    values, rounds, start = [], [], 0
    for line in lines:
        positive = np.array([trial.unusual for trial in line.trials])
        if len(set(positive.tolist())) < 2:
            return None
        scores = np.array([getattr(trial, kind)[detector] for trial in line.trials])
        values.append(metrics.MEASURES["auroc"](scores, positive, np.ones((1, len(scores))))[0])
        rounds.append(metrics.MEASURES["auroc"](scores, positive, weights[:, start : start + len(scores)]))
        start += len(scores)
    return _Measured(float(np.mean(values)), np.mean(rounds, axis=0))


def _mean(lines: Sequence[Line], of: str, weights: Floats) -> _Measured:
    """The mean of a number over all normal studies."""
    numbers = [getattr(trial, of) for line in lines for trial in line.trials]
    known = np.array([number is not None for number in numbers])
    values, counted = np.array([number or 0.0 for number in numbers]), weights * known
    return _Measured(float(values[known].mean()), (counted @ values) / np.maximum(counted.sum(1), 1e-9))


def table(tuned: Tuned, name: str, command: str) -> Table:
    """Return everything that is worth keeping of a run: the recipes in the grid's order, which is best and by what, and Markdown.

    ``name`` is the bundle's, ``command`` made the table. Raises `InputError` where nothing was measured.
    """
    found = {cell.name: tuned.lines[cell.name] for cell in tuned.cells}
    if not all(lines and all(line.trials for line in lines) for lines in found.values()):
        raise InputError("no study was left to measure on: add studies, or ask for fewer folds")
    aurocs = {cell: _auroc(lines, STUDY, _weights(lines)) for cell, lines in found.items()}
    losses = {cell: _mean(lines, "loss", _weights(lines)) for cell, lines in found.items()}
    by = "auroc" if all(aurocs.values()) else "loss"
    measured = {cell: one for cell, one in (aurocs if by == "auroc" else losses).items() if one is not None}
    best = (max if by == "auroc" else min)(measured, key=lambda cell: measured[cell].value)
    rows = [_row(cell, tuned, found, measured, best) | _numbers(aurocs[cell], losses[cell]) for cell in found]
    some = found[best][0].trials
    result: Table = {"bundle": name, "command": command, "set": _set(some), "n": _studies(found[best]), "unusual": _studies(found[best], unusual=True)}
    result |= {"folds": tuned.plan.folds, "fold": tuned.plan.fold, "epochs": tuned.plan.epochs, "criterion": by, "best": best, "cells": rows}
    result["baselines"] = _detectors(found[best], [*some[0].baselines], "baselines") if by == "auroc" else {}
    return result | {"markdown": markdown(result)}


def _set(trials: Sequence[Trial]) -> str:
    if not any(trial.unusual for trial in trials):
        return "normal studies"
    return "phantoms with planted lesions" if any(trial.patient.startswith("planted ") for trial in trials) else "labelled studies"


def _studies(lines: Sequence[Line], *, unusual: bool = False) -> int:
    return len({trial.name for line in lines for trial in line.trials if trial.unusual or not unusual})


def _row(cell: str, tuned: Tuned, found: Mapping[str, Sequence[Line]], measured: Mapping[str, _Measured], best: str) -> Table:
    lines = found[cell]
    row: Table = {"name": cell, "settings": tuned.keys[cell], "epochs": [line.epochs for line in lines], "seconds": sum(line.seconds for line in lines)}
    if (parts := lines[0].trials[0].scores) and any(trial.unusual for trial in lines[0].trials):
        row["parts"] = _detectors(lines, [part for part in parts if part != STUDY], "scores")
    if cell == best or not _same_studies(lines, found[best]):
        return row | {"difference": None}
    apart = _Measured(measured[cell].value - measured[best].value, measured[cell].rounds - measured[best].rounds)
    return row | {"difference": _as_json(apart), "distinct": not apart.estimate.low <= 0 <= apart.estimate.high}


def _same_studies(lines: Sequence[Line], others: Sequence[Line]) -> bool:
    return [trial.name for line in lines for trial in line.trials] == [trial.name for line in others for trial in line.trials]


def _numbers(auroc: _Measured | None, loss: _Measured) -> Table:
    return {"auroc": _as_json(auroc), "loss": _as_json(loss)}


def _detectors(lines: Sequence[Line], names: Sequence[str], kind: str) -> Table:
    weights = _weights(lines)
    return {name: _as_json(_auroc(lines, name, weights, kind)) for name in names}


def _as_json(measured: _Measured | None) -> Table | None:
    """A value with its interval, rounded; without one where there is none to tell."""
    if measured is None:
        return None
    found = measured.estimate
    return {"value": round(found.value, 4), "ci95": None if math.isnan(found.low) else [round(found.low, 4), round(found.high, 4)]}


# --- for people ------------------------------------------------------------------------------------------------------------


def shown(number: Table | None) -> str:
    """Write a value with its interval."""
    if number is None:
        return "–"
    interval = f" ({number['ci95'][0]:.3f} to {number['ci95'][1]:.3f})" if number["ci95"] else ""
    return f"{number['value']:.3f}{interval}"


def columns(result: Table) -> list[str]:
    """Return the heads of the table's columns."""
    return ["recipe", "AUROC (95 %)", "held-out loss (95 %)", f"{_CALLED[result['criterion']]} less the best's (95 %)", "best epoch"]


def lines_of(result: Table) -> list[list[str]]:
    """Return the table's rows for people: the recipes, the best one marked, then the baselines."""
    rows = [
        [
            f"{row['name']} (best)" if row["name"] == result["best"] else row["name"],
            shown(row["auroc"]),
            shown(row["loss"]),
            shown(row["difference"]),
            ", ".join(str(epoch) for epoch in row["epochs"]),
        ]
        for row in result["cells"]
    ]
    return rows + [[f"baseline: {name}", shown(number), "–", "–", "–"] for name, number in result["baselines"].items()]


def verdict(result: Table) -> str:
    """Say in a sentence which recipe is best, which others cannot be told from it, and which baselines it is not above."""
    alike = [row["name"] for row in result["cells"] if row.get("distinct") is False]
    doubt = f"; not to be told from it here: {', '.join(alike)}" if alike else ""
    best = next(row for row in result["cells"] if row["name"] == result["best"])
    above = [f"{name} ({number['value']:.3f})" for name, number in result["baselines"].items() if number["value"] >= best["auroc"]["value"]]
    simpler = f"; not above the baseline {' and '.join(above)}" if above else ""
    return f"best by {_CALLED[result['criterion']]}: {result['best']}{doubt}{simpler}"


def markdown(result: Table) -> str:
    """Return the table and what it rests on as Markdown."""
    fold = f"fold {result['fold']} of {result['folds']}" if result["fold"] else f"all {result['folds']} folds"
    epochs = f", {result['epochs']} epochs each" if result["epochs"] else ""
    heads = columns(result)
    table_lines = [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *lines_of(result))]
    intro = f"{len(result['cells'])} recipes on {result['set']}: {result['n']} studies, {result['unusual']} of them unusual; {fold} by patient{epochs}."
    outro = ["", f"{verdict(result)}.", "", f"Made by `{result['command']}`."]
    return "\n".join([intro, "In brackets 95 % bootstrap intervals by patient.", "", *table_lines, *outro])


def write_tuned(bundle_dir: Path, result: Table) -> Path:
    """Write the best recipe's keys beside ``model.yaml``; returns the path."""
    best = next(row for row in result["cells"] if row["name"] == result["best"])
    head = [
        f"# Chosen by `{result['command']}` among {len(result['cells'])} recipes:",
        f"# {verdict(result)}.",
        "# Put these keys in the place of those in model.yaml, then train again.",
    ]
    path = bundle_dir / TUNED
    path.write_text("\n".join(head) + "\n" + yaml.safe_dump(best["settings"], sort_keys=False), encoding="utf-8")
    return path
