"""What was asked of ``pacs-node evaluate``, and the sets that come of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pacs_node.analysis.bundle import Bundle
from pacs_node.errors import InputError
from pacs_node.workbench import material
from pacs_node.workbench.evaluation import phantom_set
from pacs_node.workbench.evaluation_sets import EvaluationSet, PlainSet
from pacs_node.workbench.material import Report


@dataclass(frozen=True, slots=True)
class Request:
    """Folders of studies, tables of labels (a set each), and how many phantoms; ``phantoms`` None: where nothing else is asked for."""

    data: tuple[Path, ...] = ()
    labels: tuple[Path, ...] = ()
    phantoms: bool | None = None
    normal: int = 40
    rounds: int = 5
    name: str = ""


def sets_of(bundle: Bundle, request: Request, report: Report) -> Iterator[EvaluationSet]:
    """Yield the sets one after the other, so that only one is in memory; raises `InputError` where what was asked for fits no set."""
    if request.labels and not request.data:
        raise InputError(f"{request.labels[0]} labels studies, but no folder was given: name the folder that holds them with --data")
    if request.phantoms or (request.phantoms is None and not request.data):
        yield phantom_set(bundle, request.normal, request.rounds)
    if request.data and not request.labels:
        series = material.series_in(request.data, bundle.manifest.modality)
        yield PlainSet(tuple(series), bundle.manifest, request.name or request.data[0].resolve().name)
