"""Phantoms to train, calibrate and evaluate on. The seeds of the uses are disjoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from pacs_node.analysis import familiar
from pacs_node.analysis.manifest import Manifest, PhantomPart
from pacs_node.analysis.pipeline import Prepared, prepare
from pacs_node.autoencoder.familiarity import Portrait
from pacs_node.autoencoder.normals import Example
from pacs_node.errors import OutOfScope
from pacs_node.phantoms import PhantomSpec, make_volume
from pacs_node.workbench.material.masks import on_grid
from pacs_node.workbench.material.studies import Report, example

SEEDS = {"train": 1_000_000, "held out": 2_000_000, "calibrate": 3_000_000, "evaluate": 4_000_000, "gate": 5_000_000, "tune": 6_000_000}
"""First phantom seed of each use, far enough apart that none is used twice."""


@dataclass(frozen=True, slots=True)
class Planted:
    """A prepared phantom and where its lesion lies on the analysis grid, (slices, P, P)."""

    prepared: Prepared
    lesion: NDArray[np.bool_]


def spec(part: PhantomPart, manifest: Manifest, seed: int, **what: object) -> PhantomSpec:
    """Return the recipe's phantom of a seed; ``what`` are further fields of `PhantomSpec`, such as ``lesion`` and ``contrast``."""
    turns = list(product(part.planes, part.sequences))
    plane, sequence = turns[seed % len(turns)]
    usual = {"modality": manifest.modality, "region": part.region, "slices": part.slices, "rows": part.rows, "plane": plane, "sequence": sequence}
    return PhantomSpec(seed=seed, **(usual | what))  # type: ignore[arg-type]


def phantom(part: PhantomPart, manifest: Manifest, seed: int, **what: object) -> Planted:
    """Make and prepare one phantom; see `spec`."""
    made = make_volume(spec(part, manifest, seed, **what))
    prepared = prepare(made.volume, manifest)
    return Planted(prepared, on_grid(made.lesion, prepared.resampled.places, manifest.preprocessing.pixels))


def phantoms(part: PhantomPart, manifest: Manifest, use: str, count: int, report: Report) -> Iterator[Example]:
    """Make ``count`` normal phantoms for one of the uses in `SEEDS`."""
    for index in range(count):
        yield example(phantom(part, manifest, SEEDS[use] + index).prepared)
        report(f"making phantoms ({use})", (index + 1) / count)


_FEW, _MANY = {"US": (1, 8)}, (5, 30)  # slices
_TILTED = 0.3  # share of CT scans with a tilted gantry


def of_other_protocols(part: PhantomPart, manifest: Manifest, count: int, report: Report) -> Iterator[Portrait]:
    """Make ``count`` normal phantoms of other matrices, numbers of slices and tilts than the recipe's, for the gate only.

    How a study was taken is no reason to refuse it, and one recipe takes all of them alike. Those that the scope refuses (too little of the
    body) are left out.
    """
    for index in range(count):
        rng = np.random.default_rng(SEEDS["gate"] + index)
        least, most = _FEW.get(manifest.modality, _MANY)
        what = {"slices": int(rng.integers(least, most + 1)), "rows": int(rng.choice((64, 96, 128, 192, 256)))}
        tilt = {"tilt": float(rng.uniform(-20, 20))} if manifest.modality == "CT" and rng.random() < _TILTED else {}
        with suppress(OutOfScope):
            prepared = phantom(part, manifest, SEEDS["gate"] + index, **what, **tilt).prepared
            yield familiar.portray(prepared.seen, prepared.stratum, synthetic=True)
        report("making phantoms (gate)", (index + 1) / count)
