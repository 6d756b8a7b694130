"""Why a score is what it is, as rows for tables and pages, made from what a job keeps of its finding (`journey.run_job.summary`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

WORDS = {
    "peak": "the most unusual few neighbouring slices",
    "extent": "how much of the slices is unusual",
    "embedding": "the slices as a whole, in the network's own terms",
    "usual": "what every study of this kind has",
    "offset": "brighter or darker than expected",
    "energy": "strong residual, in units of what is usual there",
    "structure": "another structure than expected",
    "low_band": "another coarse shape than normal slices have",
    "error": "strong residual as it is",
    "change": "where the network says that something was changed",
    "outline": "edges unlike those of the nearest normal slices",
    "shape": "a shape, without level and contrast, unlike normal ones",
}
"""Names of score parts and pixel maps in words; a part without a row here goes by its name."""

Summary = Mapping[str, Any]


def words(name: str) -> str:
    """Return what a part means, for people."""
    return WORDS.get(name, name.replace("_", " "))


def part_rows(summary: Summary) -> list[list[object]]:
    """Return a row for each part of the score: name, its own value, what it adds, in words; the last row is their sum, the score."""
    shares = summary.get("contributions") or {}
    if not shares:
        return []
    rows = [[name, summary["parts"].get(name), float(share), words(name)] for name, share in shares.items()]
    return [*rows, ["score", None, float(summary["score"]), "the sum"]]


def place_rows(summary: Summary) -> list[list[object]]:
    """Return a row for the hottest place of each slice that stands out: slice (from 1), z, and the maps that add to it, the largest first."""
    return [[place["slice"] + 1, float(place["z"]), largest(place["contributions"])] for place in summary.get("hottest") or ()]


def head_line(summary: Summary) -> str:
    """Say what the head of a site's few labels makes of a study, "" without a head."""
    head = summary.get("head")
    if not head:
        return ""
    rests = f"{head['normal']} normal and {head['unusual']} other labelled studies, AUROC {head['auroc']:.2f} in cross-validation"
    return f"probability {head['probability']:.2f} of being unlike what is labelled normal ({rests}); not calibrated, no verdict"


def largest(shares: Mapping[str, float]) -> str:
    """Name the parts that add something, the largest first."""
    return ", ".join(f"{name.replace('_', ' ')} {share:+.2f}" for name, share in sorted(shares.items(), key=lambda item: -abs(item[1])) if round(share, 2))


PART_COLUMNS: Sequence[str] = ("part", "value", "adds to the score", "which is")
PLACE_COLUMNS: Sequence[str] = ("slice", "z at its hottest place", "made up of")
