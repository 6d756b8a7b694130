"""From the readings of a set to its table: every score part and every baseline a row, with intervals by patient; strata; the verdict.

Everything is a function of values. A number that cannot be told (one group only, no mask) is left out or None, never NaN: JSON knows none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pacs_node.autoencoder.baselines import BASELINES
from pacs_node.workbench import map_metrics, metrics
from pacs_node.workbench.evaluation_readings import STUDY, MapReading, Reading
from pacs_node.workbench.evaluation_sets import STRATA, Stratum
from pacs_node.workbench.metrics import Estimate, Floats

CALIPER = 0.2  # of the standard deviation of brightness: normal and other studies no further apart are matched (Austin 2011)
PROMISES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
_LEAST = 10  # pairs of a matched subset that are worth a row

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


def table(readings: Sequence[Reading]) -> Table:
    """Return the numbers of a set: ``n``, ``lesions`` (studies that are not normal), ``score``, ``baselines``, ``differences``, and what the set allows."""
    group = Group.of(readings)
    rows = {name: row(group, name) for name in group.names}
    result: Table = {
        "n": len(group.readings),
        "lesions": sum(group.truth),
        "score": {name: one for name, one in rows.items() if name not in BASELINES},
        "baselines": {name: one for name, one in rows.items() if name in BASELINES},
        "differences": differences(group),
        "fusion": fusion(rows),
        "healthy": healthy(group),
        **flagged(group),
    }
    for name, part in (("labels", labels(group)), ("matched", intensity_matched(group)), ("families", families(group)), ("strata", strata(group))):
        if part:
            result[name] = part
    if result.get("strata"):
        result["verdict"] = verdict(result["strata"])
    return result


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


# --- comparisons -----------------------------------------------------------------------------------------------------------


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


def fusion(rows: Table) -> Table:
    """Return which score is best by AUROC, and how far below it the study score is (0 where it is the best itself)."""
    known = {name: one["auroc"] for name, one in rows.items() if one["auroc"] is not None}
    if not known:
        return {}
    best = max(known, key=lambda name: known[name])
    return {"best": best, "auroc": known[best], "below_best": known[best] - known[STUDY]}


def intensity_matched(group: Group) -> Table:
    """Return AUROCs in a subset whose normal and other studies are equally bright (pairs within `CALIPER` standard deviations), {} with too few pairs."""
    brightness = [one.brightness for one in group.readings]
    if any(one.subject.planted for one in group.readings) or len(set(group.truth)) < 2:
        return {}
    kept = metrics.matched(brightness, group.truth, CALIPER * float(np.std(brightness)))
    if len(kept) < 2 * _LEAST:
        return {}
    chosen = Group.of(group.readings[index] for index in kept)
    return {"n": len(kept), "caliper": CALIPER, "scores": {name: _auroc(chosen, name) for name in chosen.names}}


def _auroc(group: Group, name: str) -> Table:
    found = said("auroc", metrics.measure("auroc", group.scores(name), group.truth, group.weights))
    return {"auroc": found["auroc"], "ci95": found["auroc_ci95"]}


def labels(group: Group) -> Table:
    """Return for each label AUROCs of its studies against all normal ones; {} where lesions were planted or there is one label only."""
    present = sorted({one.subject.label for one in group.readings if one.subject.positive})
    if len(present) < 2 or any(one.subject.planted for one in group.readings):
        return {}
    result: Table = {}
    for label in present:
        chosen = Group.of(one for one in group.readings if one.subject.label == label or not one.subject.positive)
        result[label] = {"n": sum(chosen.truth), "scores": {name: _auroc(chosen, name) for name in chosen.names}}
    return result


# --- normal studies --------------------------------------------------------------------------------------------------------


def healthy(group: Group) -> Table:
    """Return how well normal studies are reconstructed within the foreground: root mean square error (input units 0…1), PSNR in dB, SSIM."""
    normal = Group.of(one for one in group.readings if not one.subject.positive)
    if not normal.readings:
        return {}
    errors = [one.error for one in normal.readings]
    values = {
        "error": errors,
        "psnr_db": [map_metrics.peak_signal_to_noise(error) for error in errors],
        "ssim": [one.similarity for one in normal.readings],
    }
    result: Table = {"n": len(normal.readings)}
    for name, table_of in values.items():
        result |= said(name, metrics.mean(table_of, normal.weights))
    return result


def flagged(group: Group) -> Table:
    """Return which share of normal studies the shipped threshold flags, and for promised rates which share had a p-value at or below them."""
    normal = Group.of(one for one in group.readings if not one.subject.positive)
    p_values = np.array([one.p_value for one in normal.readings if one.p_value is not None])
    result: Table = {"false_positive_rate": None}
    if any(one.flagged is not None for one in normal.readings):
        flags = [math.nan if one.flagged is None else float(one.flagged) for one in normal.readings]
        result |= said("false_positive_rate", metrics.mean(flags, normal.weights))
    if len(p_values):
        result["promised_and_seen"] = [[promise, float(np.mean(p_values <= promise))] for promise in PROMISES]
    return result


# --- planted lesions -------------------------------------------------------------------------------------------------------


def _planted(group: Group, chosen: Callable[[Stratum], bool]) -> Group:
    """Return studies with lesions that are ``chosen``, and all normal ones."""
    return Group.of(one for one in group.readings if not one.subject.positive or (one.subject.planted is not None and chosen(one.subject.planted)))


def families(group: Group) -> Table:
    """Return by family of lesions AUROC, pixel AP and hits of the bundle and each baseline."""
    present = sorted({one.subject.planted.family for one in group.readings if one.subject.planted})
    return {family: _family(_planted(group, lambda stratum, family=family: stratum.family == family)) for family in present}  # type: ignore[misc]


def _family(group: Group) -> Table:
    result: Table = {}
    for name in _detectors(group):
        found = row(group, name)
        result[name] = {key: found.get(key) for key in ("auroc", "ci95", "pixel_ap", "pixel_ap_ci95", "hottest_place_in_lesion")}
    return result


def _detectors(group: Group) -> list[str]:
    return [STUDY, *(name for name in group.names if name in BASELINES)]


def strata(group: Group) -> list[Table]:
    """Return for each family, contrast and size the AUROC and pixel AP of the bundle and each baseline, and the paired differences."""
    result = []
    for stratum in STRATA:
        chosen = _planted(group, lambda one, wanted=stratum: one == wanted)  # type: ignore[misc]
        if any(chosen.truth) and not all(chosen.truth):
            result.append(_stratum(stratum, chosen))
    return result


def _stratum(stratum: Stratum, group: Group) -> Table:
    scores: Table = {}
    for name in _detectors(group):
        scores[name] = _auroc(group, name) | said("pixel_ap", metrics.mean(group.on_maps(name, lambda one: one.pixel_ap), group.weights))
    against = {name: one for name, one in differences(group).items() if name in BASELINES}
    return {**stratum._asdict(), "n": sum(group.truth), "scores": scores, "differences": against}


def verdict(rows: Sequence[Table]) -> Table:
    """Return for AUROC and pixel AP: the worst stratum, the strata in which a baseline is better beyond the interval, and the means over strata.

    ``passed``: no stratum is below any baseline within its interval, and the mean over strata is above every baseline's.
    """
    return {key: _verdict(rows, key) for key in ("auroc", "pixel_ap")}


def _verdict(rows: Sequence[Table], key: str) -> Table:
    means = {name: _mean(one["scores"][name][key] for one in rows) for name in rows[0]["scores"]}
    worst = min(rows, key=lambda one: math.inf if one["scores"][STUDY][key] is None else one["scores"][STUDY][key])
    below = [
        {"stratum": _named(one), "baseline": name, "difference": gap[key], "ci95": gap[f"{key}_ci95"]}
        for one in rows
        for name, gap in one["differences"].items()
        if gap.get(f"{key}_ci95") and gap[f"{key}_ci95"][1] is not None and gap[f"{key}_ci95"][1] < 0
    ]
    above = all(means[STUDY] > value for name, value in means.items() if name != STUDY)
    worst_said = {"stratum": _named(worst), "value": worst["scores"][STUDY][key]}
    return {"worst": worst_said, "below_a_baseline": below, "means": means, "above_all_on_the_mean": above, "passed": above and not below}


def _mean(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / max(1, len(known))


def _named(one: Table) -> str:
    return f"{one['family'].replace('_', ' ')}, {one['contrast']:g} σ, {100 * one['size']:g} %"
