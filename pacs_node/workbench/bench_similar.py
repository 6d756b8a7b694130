"""`pacs-node bench similar`: how often the nearest series are of the same region, on phantoms and on series that are given.

::

    series ─► pipeline ─► embedding ─┬─ whole ─────────► 10 nearest of the same bundle ─► of the same modality and region?
                                     └─ upper and lower half, apart ─► 10 nearest ─► of the same half?
                                     (with MR also: of the same plane and weighting?)

A bundle judges one region, so the first question is answered by the search itself (same bundle only); the others show what the embedding knows.
recall@10: of those among the 10 nearest that are alike, the share of all that could be there (10, or as many as there are alike).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pacs_node.analysis import pipeline
from pacs_node.analysis.bundle import Bundle
from pacs_node.autoencoder.embedding import Embedding, embed
from pacs_node.autoencoder.similarity import distances
from pacs_node.errors import InputError, NotAnalysable
from pacs_node.phantoms import PhantomSpec, make_volume
from pacs_node.records import Finding
from pacs_node.workbench.studies import studies_below

NEAREST = 10


@dataclass(frozen=True)
class Sample:
    """A series, or a part of one: whose, by which bundle, how it looks to it, and what it shows."""

    series: str
    bundle: str
    embedding: Embedding
    label: str


def bench_similar(bundles: Sequence[Bundle], count: int, folders: Sequence[Path], said: Callable[[str], None] = lambda what: None) -> list[dict[str, Any]]:
    """Return one row for each question: what was asked, of how many, recall@10 and hit@10, and the worst bundle's recall."""
    findings = [(bundle, name, finding) for bundle in bundles for name, finding in _findings(bundle, count, folders, said)]
    whole = [Sample(name, bundle.manifest.name, embed(one.embedding), f"{one.volume.modality} {_region(bundle)}") for bundle, name, one in findings]
    halves = [Sample(name, bundle.manifest.name, part, half) for bundle, name, one in findings if one.planes[0] is not None for half, part in _halves(one)]
    views = [Sample(name, bundle.manifest.name, embed(one.embedding), _view(one)) for bundle, name, one in findings if one.volume.modality == "MR"]
    asked = (("same modality and region", whole), ("same half of the series", halves), ("same plane and weighting (MR)", views))
    return [{"question": question, **recall(samples)} for question, samples in asked if len(samples) > 1]


def recall(samples: Sequence[Sample]) -> dict[str, Any]:
    """Return how often the nearest samples, of the same bundle and of other series, have the same label."""
    found: dict[str, list[float]] = {}
    hits = 0
    for sample in samples:
        others = [one for one in samples if one.bundle == sample.bundle and one.series != sample.series]
        alike = sum(one.label == sample.label for one in others)
        if not alike:
            continue
        means, spreads = (np.stack([getattr(one.embedding, part) for one in others]) for part in ("mean", "spread"))
        near = np.argsort(distances(sample.embedding.mean, sample.embedding.spread, means, spreads), kind="stable")[:NEAREST]
        right = sum(others[index].label == sample.label for index in near)
        found.setdefault(sample.bundle, []).append(right / min(NEAREST, alike))
        hits += right > 0
    everything = [value for values in found.values() for value in values]
    worst = min(found, key=lambda name: float(np.mean(found[name])), default="")
    return {
        "samples": len(everything),
        "recall": round(float(np.mean(everything)), 4) if everything else None,
        "hit": round(hits / len(everything), 4) if everything else None,
        "worst": f"{worst}: {np.mean(found[worst]):.3f}" if worst else "",
    }


def _findings(bundle: Bundle, count: int, folders: Sequence[Path], said: Callable[[str], None]) -> list[tuple[str, Finding]]:
    found, today = [], datetime.now(UTC).date()
    for number in range(count):
        said(f"{bundle.manifest.name}: phantom {number + 1} of {count}")
        spec = _spec(bundle, number)
        found.append((f"phantom {number}", pipeline.analyse_volume(make_volume(spec).volume, bundle, today=today)))
    for name, files in _series(folders, bundle.manifest.modality):
        said(f"{bundle.manifest.name}: {name}")
        try:
            found.append((name, pipeline.analyse(files, bundle, today=today)))
        except NotAnalysable:
            continue  # of another region: another bundle's
    return found


def _spec(bundle: Bundle, number: int) -> PhantomSpec:
    part = bundle.manifest.recipe.phantoms
    if part is None:
        raise InputError(f"the bundle {bundle.manifest.name} was not trained on phantoms: name others with --bundle")
    sequences, planes = part.sequences, part.planes
    spec = PhantomSpec(modality=bundle.manifest.modality, region=part.region, seed=700_000 + number)
    return replace(spec, sequence=sequences[number % len(sequences)], plane=planes[number // len(sequences) % len(planes)])


def _series(folders: Sequence[Path], modality: str) -> list[tuple[str, tuple[Path, ...]]]:
    found: dict[str, list[Path]] = {}
    for folder in folders:
        for study in studies_below(folder):
            for file, header in zip(study.files, study.headers, strict=True):
                if header.get("Modality") == modality:
                    found.setdefault(str(header.SeriesInstanceUID), []).append(file)
    return [(f"series {uid}", tuple(files)) for uid, files in found.items()]


def _region(bundle: Bundle) -> str:
    return bundle.manifest.name.partition("-")[2]


def _halves(finding: Finding) -> list[tuple[str, Embedding]]:
    """Return the half of the slices that lies more to the head (or back, or left), and the other one, embedded by themselves."""
    if len(finding.embedding) < 4:
        return []
    places = np.array([plane.position for plane in finding.planes if plane is not None])
    axis = int(np.argmax(np.ptp(places, axis=0)))
    order: NDArray[np.intp] = np.argsort(places[:, axis], kind="stable")
    middle = len(order) // 2
    return [(f"{'xyz'[axis]} {name}", embed(finding.embedding[part])) for name, part in (("low", order[:middle]), ("high", order[middle:]))]


def _view(finding: Finding) -> str:
    places = np.array([plane.position for plane in finding.planes if plane is not None])
    return f"{finding.volume.weighting} across {'xyz'[int(np.argmax(np.ptp(places, axis=0)))]}"
