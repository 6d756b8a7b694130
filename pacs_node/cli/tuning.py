"""``pacs-node tune``: which recipe is best for these studies."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from pacs_node.cli.models import BundleOption, DataOption, print_refused
from pacs_node.cli.options import bars, print_table


def tune(
    bundle: BundleOption,
    data: DataOption = None,
    labels: Annotated[Path | None, typer.Option("--labels", help="CSV with the columns file and label: what is not normal is to be told from what is.")] = None,
    grid: Annotated[Path | None, typer.Option("--grid", help="YAML: keys of model.yaml with lists of values; without it three learning rates.")] = None,
    folds: Annotated[int, typer.Option("--folds", min=2, help="Parts of the patients: each is measured on in turn.")] = 5,
    fold: Annotated[int | None, typer.Option("--fold", min=1, help="Measure on this one only, to save time.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="A short schedule for every recipe.")] = None,
    most: Annotated[int | None, typer.Option("--most", min=4, help="Use the normal studies of so many patients (or phantoms) only.")] = None,
    device: Annotated[str, typer.Option("--device", help="auto (a GPU where there is one), cpu or cuda.")] = "auto",
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the table as JSON, with Markdown for the card.")] = None,
) -> None:
    """Train and measure every recipe of a grid by k-fold cross-validation, and write the best one's keys to tuned.yaml.

    The same command goes on where it was interrupted. Nothing of the bundle but tuned.yaml and tuning.jsonl is written.

    Example: pacs-node tune --bundle models/ct-head --data /data/heads --grid grid.yaml --fold 1 --epochs 4
    """
    from pacs_node.workbench import tuning, tuning_table
    from pacs_node.workbench.grid import read_grid

    plan = tuning.Plan(folds, fold, epochs, most, device)
    with bars() as report:
        done = tuning.tune(bundle, data or [], labels, read_grid(grid) if grid else None, plan, report)
    print_refused(done.refused)
    result = tuning_table.table(done, bundle.resolve().name, f"pacs-node {shlex.join(sys.argv[1:])}")
    print_table(f"Recipes for {bundle}", tuning_table.columns(result), tuning_table.lines_of(result), "none")
    typer.echo(tuning_table.verdict(result))
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    typer.echo(f"wrote {tuning_table.write_tuned(bundle, result)}: put its keys in the place of those in {bundle / 'model.yaml'}, then run pacs-node train")


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(tune)
