"""An evaluation in pictures: ROC, promised against seen rates, histograms of scores, example heat maps, and the latents on a plane.

They need matplotlib (extra ``train``), and no screen. The example maps show the studies' own pixels: for a site's studies they stay at the site.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import roc_curve

from pacs_node.analysis.bundle import Bundle
from pacs_node.autoencoder.baselines import BASELINES
from pacs_node.errors import InputError
from pacs_node.workbench.evaluation import Evaluated
from pacs_node.workbench.evaluation_readings import STUDY, Reading, judge
from pacs_node.workbench.material import NORMAL

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A4FBF", "#8C5A2B")
"""Told apart by people who see colours differently too (after Okabe & Ito 2008)."""

_GREY, _DARK = "#9A9A9A", "#303030"
_EXAMPLES = 4
_GROUPS = 4  # k-means prototypes of the latents
_HOT = 6.0  # z at which the map is at its brightest
_BINS = 30

Figure = Any


def draw(bundle: Bundle, done: Evaluated, folder: Path, prefix: str, *, examples: bool = True) -> list[Path]:
    """Draw a set's pictures as ``<prefix>-<kind>.png`` into ``folder``; returns those that the set has numbers for.

    Raises `InputError` where matplotlib is missing or the folder cannot be written.
    """
    drawn = []
    for kind, picture in PICTURES.items():
        figure = picture(bundle, done) if examples or kind != "maps" else None
        if figure is not None:
            drawn.append(_saved(figure, folder / f"{prefix}-{kind}.png"))
    return drawn


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure as Made
    except ImportError as error:
        raise InputError("pictures are drawn by matplotlib, which is not here: install the extra with pip install 'pacs-node[train]'") from error
    return Made(figsize=(width, height), layout="constrained")


def _saved(figure: Figure, path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=100, metadata={"Software": None})
    except OSError as error:
        raise InputError(f"cannot draw {path} ({error.strerror or error}): name a folder that can be written") from error
    return path


def _axes(figure: Figure, title: str, across: str, up: str) -> Any:
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _truth(readings: Sequence[Reading]) -> NDArray[np.bool_]:
    return np.array([one.subject.positive for one in readings])


# --- curves ----------------------------------------------------------------------------------------------------------------


def roc(bundle: Bundle, done: Evaluated) -> Figure | None:
    """Draw the ROC of the study score, of its best part and of every baseline."""
    truth = _truth(done.readings)
    if truth.all() or not truth.any():
        return None
    rows = done.table["score"] | done.table["baselines"]
    parts = [name for name in done.table["score"] if name != STUDY]
    best = max(parts, key=lambda name: rows[name]["auroc"], default=None)
    figure = _figure(8.0, 5.0)
    axes = _axes(figure, f"{bundle.name}: ROC on {done.known.name}", "false-positive rate", "sensitivity")
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=0.8, linestyle=":")
    names = [STUDY, *([best] if best else []), *done.table["baselines"]]
    for number, name in enumerate(names):
        across, up, _ = roc_curve(truth, [one.scores[name] for one in done.readings])
        label = "study score" if name == STUDY else f"baseline: {name}" if name in BASELINES else f"best part: {name}"
        style = {"linewidth": 2.6 if name == STUDY else 1.4, "linestyle": "-" if name in BASELINES or name == STUDY else "--"}
        axes.plot(across, up, color=COLOURS[number % len(COLOURS)], label=f"{label} ({rows[name]['auroc']:.3f})", **style)
    axes.legend(title="AUROC", loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=8)
    return figure


def calibration(bundle: Bundle, done: Evaluated) -> Figure | None:
    """Draw which share of normal studies has a p-value of at most α, against α; the band is where 95 % of such shares fall by chance."""
    found = np.sort([one.p_value for one in done.readings if one.p_value is not None and not one.subject.positive])
    if len(found) < 2:
        return None
    promised = np.linspace(0, 1, 201)
    seen = np.searchsorted(found, promised, "right") / len(found)
    chance = 1.96 * np.sqrt(promised * (1 - promised) / len(found))
    figure = _figure(5.2, 4.8)
    axes = _axes(figure, f"{bundle.name}: p-values of {len(found)} normal studies\n{done.known.name}", "promised rate α", "share with p ≤ α")
    axes.fill_between(promised, np.clip(promised - chance, 0, 1), np.clip(promised + chance, 0, 1), color=COLOURS[5], alpha=0.25, label="by chance (95 %)")
    axes.plot([0, 1], [0, 1], color=_DARK, linewidth=0.8, linestyle=":", label="as promised")
    axes.step(promised, seen, where="post", color=COLOURS[0], linewidth=2, label="seen")
    axes.legend(loc="upper left", frameon=False, fontsize=9)
    axes.set_aspect("equal")
    return figure


def histogram(bundle: Bundle, done: Evaluated) -> Figure:
    """Draw how the study scores of normal and of other studies are spread, one row a label, with the threshold of the calibration."""
    groups = _by_label(done.readings)
    scores = np.array([one.scores[STUDY] for one in done.readings])
    low, high = np.percentile(scores, [0, 99])
    edges = np.linspace(low, max(high, low + 1e-6), _BINS)
    threshold = None if bundle.calibration is None else bundle.calibration.threshold
    figure = _figure(7.0, 1.2 * len(groups) + 1.2)
    rows = figure.subplots(len(groups), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (label, chosen), colour in zip(rows, groups.items(), _colours(groups), strict=True):
        axes.hist(np.clip(scores[chosen], edges[0], edges[-1]), edges, color=colour)
        axes.set_ylabel(f"{label.replace('_', ' ')}\n({len(chosen)})", rotation=0, ha="right", va="center", fontsize=9)
        axes.yaxis.get_major_locator().set_params(integer=True, nbins=3)
        axes.spines[["top", "right"]].set_visible(False)
        if threshold is not None:
            axes.axvline(min(threshold, edges[-1]), color=_DARK, linewidth=1.2, linestyle="--")
    told = "" if threshold is None else f" (dashed: threshold {threshold:.2f})"
    rows[-1].set_xlabel(f"study score{told}")
    figure.suptitle(f"{bundle.name}: studies by score, {done.known.name}", fontsize=11)
    return figure


def _colours(groups: Iterable[str]) -> list[str]:
    """One colour a label, grey for normal."""
    others = cycle(COLOURS)
    return [_GREY if label == NORMAL else next(others) for label in groups]


def _by_label(readings: Sequence[Reading]) -> dict[str, NDArray[np.intp]]:
    """Return the indices of each label, normal first."""
    labels = np.array([one.subject.label for one in readings])
    names = sorted(set(labels.tolist()), key=lambda name: (name != NORMAL, name))
    return {name: np.flatnonzero(labels == name) for name in names}


# --- pictures of studies ---------------------------------------------------------------------------------------------------


def maps(bundle: Bundle, done: Evaluated) -> Figure:
    """Draw examples: original, reconstruction, heat map over the original and, where known, the true place.

    Of each label the study in the middle of its group by score, so that no picture is better than most; of the normal ones too.
    """
    chosen = [_middle(done.readings, indices) for indices in _by_label(done.readings).values()][: _EXAMPLES + 1]
    figure = _figure(8.4, 2.05 * len(chosen) + 0.5)
    grid = figure.subplots(len(chosen), 4, squeeze=False)
    for row, reading in zip(grid, chosen, strict=True):
        _example(bundle, done, reading, row)
    for axes, title in zip(grid[0], ("original", "reconstruction", f"heat map (z up to {_HOT:g})", "marked by hand or planted"), strict=True):
        axes.set_title(title, fontsize=9)
    figure.suptitle(f"{bundle.name}: {done.known.name}", fontsize=11)
    return figure


def _middle(readings: Sequence[Reading], indices: NDArray[np.intp]) -> Reading:
    ordered: list[Reading] = sorted((readings[index] for index in indices), key=lambda one: one.scores[STUDY])
    return ordered[len(ordered) // 2]


def _example(bundle: Bundle, done: Evaluated, reading: Reading, row: Any) -> None:
    sample = done.known.make(reading.subject)
    seen, scores = judge(bundle, sample.prepared)
    held = None if sample.mask is None or not sample.mask.any() else sample.mask
    index = int(scores.slices.argmax()) if held is None else int(held.sum((1, 2)).argmax())
    x, z = sample.prepared.x[index].numpy(), scores.z[index].numpy()
    pictures = (x, seen.mean[index].numpy(), x, x)
    for axes, picture in zip(row, pictures, strict=True):
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
    row[2].imshow(np.ma.masked_less(z, 1.0), cmap="inferno", vmin=0, vmax=_HOT, alpha=0.7, interpolation="nearest")
    if held is not None:
        row[3].contour(held[index], levels=[0.5], colors=[COLOURS[5]], linewidths=1.2)
    stratum = reading.subject.planted
    told = "" if stratum is None else f"\n{stratum.contrast:g} σ, {100 * stratum.size:g} %"
    row[0].set_ylabel(f"{reading.subject.label.replace('_', ' ')}{told}\nscore {reading.scores[STUDY]:.2f}", fontsize=8)


def latents(bundle: Bundle, done: Evaluated) -> Figure | None:
    """Draw the mean embedding of each study on its two main axes, coloured by label, with the prototypes that k-means finds in them."""
    table = np.array([one.embedding for one in done.readings])
    if len(table) <= _GROUPS or not table.std(0).any():
        return None
    white = (table - table.mean(0)) / np.maximum(table.std(0), 1e-6)
    plane = PCA(2, random_state=0).fit(white)
    places, share = plane.transform(white), plane.explained_variance_ratio_
    groups = KMeans(_GROUPS, n_init=10, random_state=0).fit(white)
    figure = _figure(7.0, 5.0)
    across, up = (f"{name} axis ({100 * part:.0f} % of the spread)" for name, part in zip(("first", "second"), share, strict=True))
    axes = _axes(figure, f"{bundle.name}: latents of {done.known.name}", across, up)
    labels = _by_label(done.readings)
    for (label, chosen), colour in zip(labels.items(), _colours(labels), strict=True):
        axes.scatter(*places[chosen].T, s=18, color=colour, alpha=0.75, linewidths=0, label=label.replace("_", " "))
    centres = plane.transform(groups.cluster_centers_)
    axes.scatter(*centres.T, s=200, facecolors="white", edgecolors=_DARK, linewidths=1.4, zorder=3)
    for number, centre in enumerate(centres):
        axes.annotate(str(np.count_nonzero(groups.labels_ == number)), centre, ha="center", va="center", fontsize=8, zorder=4)
    axes.plot([], [], "o", markerfacecolor="white", markeredgecolor=_DARK, label="k-means prototype,\nnumber of its studies")
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return figure


PICTURES: dict[str, Callable[[Bundle, Evaluated], Figure | None]] = {
    "roc": roc,
    "calibration": calibration,
    "scores": histogram,
    "maps": maps,
    "latents": latents,
}
"""Kind of picture, as in its file's name, to what draws it; None where the set has no numbers for it."""
