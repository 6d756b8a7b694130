"""``pacs-node evaluate``: how well a bundle finds what is unusual, on phantoms, planted lesions and labelled studies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pacs_node.cli.options import bars

_Folders = list[Path] | None


def evaluate(
    bundle: Annotated[Path, typer.Option("--bundle", help="Folder with at least model.yaml.")],
    data: Annotated[_Folders, typer.Option("--data", help="Folder of studies that the bundle was not trained on; may be given several times.")] = None,
    labels: Annotated[_Folders, typer.Option("--labels", help="CSV with file, label[, patient][, mask]: one set; may be given several times.")] = None,
    planted: Annotated[_Folders, typer.Option("--planted", help="Folder of a healthy series to plant lesions into; may be given several times.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the tables as JSON.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for pictures; the example maps show the studies' own pixels.")] = None,
    phantoms: Annotated[bool | None, typer.Option("--phantoms/--no-phantoms", help="Held-out phantoms; by default where no other set is given.")] = None,
    normal: Annotated[int, typer.Option("--normal", min=10, help="Phantoms without a lesion.")] = 40,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Lesions of each family, contrast and size (36 combinations).")] = 5,
    name: Annotated[str, typer.Option("--name", help="What the labelled set is called in tables; else the name of its folder.")] = "",
    gate: Annotated[bool, typer.Option("--gate", help="Measure what the gate lets in and refuses, instead of the scores.")] = False,
    processes: Annotated[int, typer.Option("--processes", min=1, help="Processes that make and judge studies.")] = 2,
    card_only: Annotated[bool, typer.Option("--card-only", help="Evaluate nothing: write CARD.md from the tables in the bundle's folder card.")] = False,
) -> None:
    """Measure how well a bundle tells unusual studies from normal ones, beside its baselines, with intervals by patient.

    Without --data or --planted, lesions are planted into phantoms that neither training nor calibration saw, and CARD.md is written anew; it
    shows every table in the bundle's folder card, where --json may put others. An interrupted evaluation goes on where it was. With
    --gate: other modalities, other regions, artefacts and physical phantoms, and for each series below --data whether it is in scope, and why not.

    Example: pacs-node evaluate --bundle models/ct-head --json evaluation.json
    """
    if gate:
        _gate(bundle, data or [], json_file)
        return
    from pacs_node.analysis.bundle import load
    from pacs_node.workbench import card, evaluation, evaluation_report
    from pacs_node.workbench.evaluation_request import Request, run

    loaded = load(bundle)
    if card_only:
        typer.echo(f"wrote {card.write_card(loaded)}")
        return
    request = Request(tuple(data or ()), tuple(labels or ()), tuple(planted or ()), phantoms, normal, rounds, name)
    with bars() as report:
        done = run(loaded, request, processes=processes, report=report)
    for item in evaluation_report.shown(done):
        Console().print(item, highlight=False)
    if json_file is not None:
        evaluation.write_json(json_file, [one.table for one in done])
    for path in evaluation_report.written(loaded, done, out):
        typer.echo(f"wrote {path}")


def _gate(folder: Path, data: list[Path], json_file: Path | None) -> None:
    """Print the table of the gate, put it into the card, and write it as JSON where that is asked."""
    from pacs_node.analysis.bundle import load
    from pacs_node.workbench import card, gating

    loaded = load(folder)
    with bars() as report:
        found = gating.table(loaded.manifest, loaded.familiarity, report=report)
    if data:
        found["real"] = gating.real(data, loaded.manifest, loaded.familiarity)
    for line in gating.lines(found):
        typer.echo(line)
    if json_file is not None:
        json_file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    typer.echo(f"wrote {card.write_gate(loaded, found)}")
