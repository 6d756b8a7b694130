"""From the readings of a set to its table: every score part and every baseline a row, with intervals by patient; strata; the verdict.

Everything is a function of values. A number that cannot be told (one group only, no mask) is left out or None, never NaN: JSON knows none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pacs_node.autoencoder.baselines import BASELINES
from pacs_node.workbench import map_metrics, metrics
from pacs_node.workbench.evaluation_readings import STUDY, Reading
from pacs_node.workbench.evaluation_rows import Group, Table, auroc, differences, row, said
from pacs_node.workbench.evaluation_strata import families, strata, verdict

CALIPER = 0.2  # of the standard deviation of brightness: normal and other studies no further apart are matched (Austin 2011)
PROMISES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
_LEAST = 10  # pairs of a matched subset that are worth a row


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


# --- comparisons -----------------------------------------------------------------------------------------------------------


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
    return {"n": len(kept), "caliper": CALIPER, "scores": {name: auroc(chosen, name) for name in chosen.names}}


def labels(group: Group) -> Table:
    """Return for each label AUROCs of its studies against all normal ones; {} where lesions were planted or there is one label only."""
    present = sorted({one.subject.label for one in group.readings if one.subject.positive})
    if len(present) < 2 or any(one.subject.planted for one in group.readings):
        return {}
    result: Table = {}
    for label in present:
        chosen = Group.of(one for one in group.readings if one.subject.label == label or not one.subject.positive)
        result[label] = {"n": sum(chosen.truth), "scores": {name: auroc(chosen, name) for name in chosen.names}}
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
