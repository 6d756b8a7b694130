"""The learnt part of the gate: whether a series is like those that the bundle was trained on.

::

    studies of the training ─► portraits ─┬─► centre, spread, whitening ─► distance ─► limit (conformal, cross-fitted)
                                          └─► with a focal finding put in ─► directions that are not held against a series

What it says holds for the population that it was fitted on, as a calibration does: fitted on phantoms, it judges synthetic studies; fitted on
patients, it judges patients. Phantoms are too much alike: every patient would be out of scope of what was fitted on them, whatever is wrong
with the images or not. A series of the other population is judged by the rules of `gate` and the limits of `quality` alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from pacs_node.analysis import portrait
from pacs_node.analysis.look import Look, with_a_finding
from pacs_node.autoencoder.familiarity import LEAST_STUDIES, Familiarity, Portrait, contributions, distance, fit_familiarity
from pacs_node.autoencoder.scoring import Stratum

_FINDINGS = 2  # focal findings that are put into each training study, one at a time


def portray(seen: Look, stratum: Stratum, *, synthetic: bool, findings: int = _FINDINGS) -> Portrait:
    """Return the portrait of a prepared series, and the numbers of the same with each of ``findings`` focal findings.

    The findings are drawn from a generator that the images themselves seed: the same series has the same portrait.
    """
    numbers = portrait.portrait(seen)
    digest = hashlib.sha256(seen.x.numpy().tobytes()).digest() if findings else b""
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))
    spoilt = [portrait.portrait(with_a_finding(seen, generator)) for _ in range(findings)]
    return Portrait(numbers, torch.stack(spoilt) if spoilt else numbers.new_empty(0, len(numbers)), stratum.index, stratum.of, synthetic)


def fit(portraits: Sequence[Portrait], refused: float) -> Familiarity | None:
    """Fit what is usual; None where there are too few studies of either population."""
    most = max(sum(one.synthetic is kind for one in portraits) for kind in (False, True))
    return fit_familiarity(portraits, portrait.LEAST, refused) if most >= LEAST_STUDIES else None


def unlike(one: Portrait, fitted: Familiarity) -> str:
    """Return in words what makes a series unlike those of the training, an empty text where it is like them or nothing can be said of it."""
    far, limit = distance(one.numbers, one.stratum, fitted), float(fitted.limit)
    if one.synthetic is not fitted.synthetic or far <= limit:
        return ""
    found = contributions(one.numbers, one.stratum, fitted, portrait.NAMES)
    name = max(found, key=lambda name: found[name][0])
    measure = (portrait.SLICE | portrait.SERIES)[name]
    words = measure.high if found[name][1] > 0 else measure.low
    kind = "synthetic" if fitted.synthetic else "patients'"
    return f"{words}; the images are unlike the {fitted.studies} {kind} studies of the training (distance {far:.1f}, usual is up to {limit:.1f})"
