"""The rows of an evaluation's tables: the numbers of one score over a group of studies, and paired differences, all with intervals by patient."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pacs_node.workbench import map_metrics, metrics
from pacs_node.workbench.evaluation_readings import STUDY, MapReading, Reading
from pacs_node.workbench.metrics import Estimate, Floats

Table = dict[str, Any]


@dataclass(frozen=True)
class Group:
    """Some readings and the bootstrap's weights for them, so that all rows of a table are drawn alike."""

    readings: tuple[Reading, ...]
    weights: Floats

    @classmethod
    def of(cls, readings: Iterable[Reading]) -> Group:
        """Draw the patients of the readings."""
        chosen = tuple(readings)
        return cls(chosen, metrics.draws([one.subject.patient for one in chosen], [one.subject.positive for one in chosen]))

    @property
    def truth(self) -> list[bool]:
        """Which are to be told from the normal ones."""
        return [one.subject.positive for one in self.readings]

    @property
    def names(self) -> list[str]:
        """Every score: the study's, its parts, the baselines."""
        return list(self.readings[0].scores)

    def scores(self, name: str) -> list[float]:
        """One score of everybody."""
        return [one.scores[name] for one in self.readings]

    def on_maps(self, name: str, value: Callable[[MapReading], float | None]) -> list[float]:
        """A value of one map of everybody, NaN where there is no mask or no such value."""
        found = [one.maps.get(name) for one in self.readings]
        values = [None if reading is None else value(reading) for reading in found]
        return [math.nan if one is None else float(one) for one in values]


def row(group: Group, name: str) -> Table:
    """Return the numbers of one score: AUROC, average precision, sensitivity at 95 % specificity, and those of its map where masks exist."""
    found: Table = {}
    for key, label in (("auroc", "auroc"), ("ap", "ap"), ("sensitivity", "sensitivity_at_95_specificity")):
        estimate = metrics.measure(key, group.scores(name), group.truth, group.weights)
        found |= said(label, estimate)
    found["ci95"] = found.pop("auroc_ci95")
    return found | _map_row(group, name)


def _map_row(group: Group, name: str) -> Table:
    curves = [one.maps[name].dice for one in group.readings if name in one.maps]
    if not curves:
        return {}
    best = map_metrics.best_threshold(np.asarray(curves, dtype=np.float32))
    found = said("pixel_ap", metrics.mean(group.on_maps(name, lambda one: one.pixel_ap), group.weights))
    found["hottest_place_in_lesion"] = metrics.mean(group.on_maps(name, lambda one: one.hit), group.weights).value
    found |= said("oracle_dice", metrics.mean(group.on_maps(name, lambda one: one.dice[best]), group.weights))
    calibrated = metrics.mean(group.on_maps(name, lambda one: one.dice_calibrated), group.weights)
    return found | (said("dice_at_p_0.001", calibrated) if math.isfinite(calibrated.value) else {})


def said(name: str, estimate: Estimate) -> Table:
    """Return value and interval as two entries of a table."""
    return {name: _finite(estimate.value), f"{name}_ci95": [_finite(estimate.low), _finite(estimate.high)]}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def auroc(group: Group, name: str) -> Table:
    """Return the AUROC of one score and its interval, nothing else."""
    found = said("auroc", metrics.measure("auroc", group.scores(name), group.truth, group.weights))
    return {"auroc": found["auroc"], "ci95": found["auroc_ci95"]}


def differences(group: Group) -> Table:
    """Return by how much the study score is better by AUROC, and its map by pixel AP, than each part and baseline: paired, by patient."""
    result: Table = {}
    for name in group.names:
        if name != STUDY:
            found = metrics.difference("auroc", group.scores(STUDY), group.scores(name), group.truth, group.weights)
            result[name] = said("auroc", found) | _map_difference(group, name)
    return result


def _map_difference(group: Group, name: str) -> Table:
    if not any(name in one.maps for one in group.readings):
        return {}
    return said("pixel_ap", _map_gain(group, name))


def _map_gain(group: Group, name: str) -> Estimate:
    pairs = zip(group.on_maps(STUDY, lambda one: one.pixel_ap), group.on_maps(name, lambda one: one.pixel_ap), strict=True)
    return metrics.mean([own - other for own, other in pairs], group.weights)
