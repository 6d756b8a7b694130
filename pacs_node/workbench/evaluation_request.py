"""What was asked of ``pacs-node evaluate``, and the sets that come of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pacs_node.analysis.bundle import Bundle
from pacs_node.errors import InputError
from pacs_node.workbench import material
from pacs_node.workbench.evaluation import Evaluated, evaluate_set, phantom_set
from pacs_node.workbench.evaluation_sets import EvaluationSet, LabelledSet, PlainSet
from pacs_node.workbench.material import Report
from pacs_node.workbench.planting import planted_set


@dataclass(frozen=True, slots=True)
class Request:
    """Folders of studies, tables of labels (a set each), healthy series to plant lesions into, and how many phantoms.

    ``phantoms`` None: where nothing else is asked for. ``name``: of the labelled, planted or plain set, else what its folder is called.
    """

    data: tuple[Path, ...] = ()
    labels: tuple[Path, ...] = ()
    planted: tuple[Path, ...] = ()
    phantoms: bool | None = None
    normal: int = 40
    rounds: int = 5
    name: str = ""


def run(bundle: Bundle, request: Request, *, processes: int, report: Report) -> list[Evaluated]:
    """Evaluate a bundle on every set that was asked for; each table says by which command it is made."""
    found = []
    for known, command in sets_of(bundle, request, report):
        done = evaluate_set(bundle, known, processes=processes, report=report)
        table = done.table | {"command": f"pacs-node evaluate --bundle {_short(bundle.folder)}{command}"}
        found.append(replace(done, table=table))
    return found


def sets_of(bundle: Bundle, request: Request, report: Report) -> Iterator[tuple[EvaluationSet, str]]:
    """Yield the sets one after the other, each with the options that ask for it; raises `InputError` where what was asked for fits no set."""
    if request.labels and not request.data:
        raise InputError(f"{request.labels[0]} labels studies, but no folder was given: name the folder that holds them with --data")
    if request.phantoms or (request.phantoms is None and not request.data and not request.planted):
        yield phantom_set(bundle, request.normal, request.rounds), f" --normal {request.normal} --rounds {request.rounds}"
    if request.planted:
        name = request.name or f"lesions planted into {' and '.join(place.resolve().name for place in request.planted)}"
        yield planted_set(request.planted, bundle.manifest, request.rounds, name, report), f"{_options('planted', request.planted)} --rounds {request.rounds}"
    for labels in request.labels:
        studies = material.labelled(list(request.data), bundle.manifest, labels, report)
        name = request.name or f"{labels.resolve().parent.name} {labels.stem}"
        yield LabelledSet(tuple(studies), name), _options("data", request.data) + _options("labels", (labels,))
    if request.data and not request.labels:
        series = material.series_in(request.data, bundle.manifest.modality)
        yield PlainSet(tuple(series), bundle.manifest, request.name or request.data[0].resolve().name), _options("data", request.data)


def _options(name: str, places: Sequence[Path]) -> str:
    return "".join(f" --{name} {_short(place)}" for place in places)


def _short(place: Path) -> str:
    """The end of a path: where a site keeps its folders is nobody else's matter."""
    return "/".join(place.resolve().parts[-2:])
