"""Planted lesions by family, contrast and size, and whether any baseline is better anywhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from pacs_node.autoencoder.baselines import BASELINES
from pacs_node.workbench import metrics
from pacs_node.workbench.evaluation_readings import STUDY
from pacs_node.workbench.evaluation_rows import Group, Table, auroc, differences, row, said
from pacs_node.workbench.evaluation_sets import STRATA, Stratum


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
        scores[name] = auroc(group, name) | said("pixel_ap", metrics.mean(group.on_maps(name, lambda one: one.pixel_ap), group.weights))
    against = {name: one for name, one in differences(group).items() if name in BASELINES}
    return {**stratum._asdict(), "n": sum(group.truth), "scores": scores, "differences": against}


def verdict(rows: Sequence[Table]) -> Table:
    """Return for AUROC and pixel AP: the worst stratum, the strata in which a baseline is better beyond the interval, and the means over strata.

    ``untold``: strata with too few lesions for an interval. ``passed``: every stratum has one, none is below any baseline beyond it, and the mean
    over strata is above every baseline's.
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
    untold = sum(any(None in gap.get(f"{key}_ci95", [None]) for gap in one["differences"].values()) for one in rows)
    above = all(means[STUDY] > value for name, value in means.items() if name != STUDY)
    worst_said = {"stratum": _named(worst), "value": worst["scores"][STUDY][key]}
    passed = above and not below and not untold
    return {"worst": worst_said, "below_a_baseline": below, "untold": untold, "means": means, "above_all_on_the_mean": above, "passed": passed}


def _mean(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / max(1, len(known))


def _named(one: Table) -> str:
    return f"{one['family'].replace('_', ' ')}, {one['contrast']:g} σ, {100 * one['size']:g} %"
