"""``pacs-node train``, ``calibrate`` and ``evaluate``: what people do with model bundles by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from pacs_node.records import Population

BundleOption = Annotated[Path, typer.Option("--bundle", help="Folder with at least model.yaml.")]
DataOption = Annotated[list[Path] | None, typer.Option("--data", help="Folder of DICOM studies; may be given several times.")]


@contextmanager
def _bars() -> Iterator[Callable[[str, float], None]]:
    """Show one progress bar for each stage that reports itself; a stage is told by the words before its first colon."""
    tasks: dict[str, TaskID] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:

        def report(what: str, fraction: float) -> None:
            stage = what.split(":")[0]
            if stage not in tasks:
                tasks[stage] = progress.add_task(what, total=1.0)
            progress.update(tasks[stage], description=what, completed=fraction)

        yield report


def _print_refused(refused: tuple[str, ...]) -> None:
    for line in refused:
        typer.echo(f"not used: {line}")


def train(
    bundle: BundleOption,
    data: DataOption = None,
    labels: Annotated[Path | None, typer.Option("--labels", help="CSV with the columns file and label; only what is labelled normal is used.")] = None,
) -> None:
    """Train a bundle by the recipe in its model.yaml; the same command resumes an interrupted run.

    Without --data the recipe's own data folders and phantoms are used.

    Example: pacs-node train --bundle models/ct-head --data /data/normal-heads
    """
    from pacs_node.workbench import training

    with _bars() as report:
        done = training.train(bundle, data or [], labels, report)
    _print_refused(done.refused)
    best, epochs = done.history.best_epoch + 1, len(done.history.held_out)
    typer.echo(f"{bundle}: trained on {done.studies} studies, {done.held_out} held out, best epoch {best} of {epochs}")
    typer.echo("next: pacs-node calibrate")


def calibrate(
    bundle: BundleOption,
    population: Annotated[Population, typer.Option("--population", help="Whose studies these are; only site gives verdicts on patients.")],
    data: DataOption = None,
    alpha: Annotated[float, typer.Option("--alpha", min=0.001, max=0.5, help="Promised false-positive rate; 0.05 needs 59 studies, 0.01 needs 299.")] = 0.05,
    unusual: Annotated[float, typer.Option("--unusual", min=0, max=0.9, help="Share of routine studies that may truly be unusual: drift begins beyond.")] = 0.2,
) -> None:
    """Score normal studies that the bundle was not trained on, and write calibration.json. Each patient counts once.

    Example: pacs-node calibrate --bundle models/ct-head --data /data/more-normal-heads --population site
    """
    from pacs_node.workbench import calibrating

    promise = calibrating.Promise(alpha, unusual)
    with _bars() as report:
        done = calibrating.calibrate(bundle, data or [], population, today=datetime.now(UTC).date(), promise=promise, report=report)
    _print_refused(done.refused)
    if done.threshold is None:
        typer.echo(f"{bundle}: {done.studies} studies are too few for a threshold, at least {done.needed} are needed: results stay uncalibrated")
    else:
        typer.echo(f"{bundle}: calibrated on {done.studies} {population} studies, threshold {done.threshold:.3f}")
    for line in calibrating.told(done):
        typer.echo(line)


def evaluate(
    bundle: BundleOption,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the table as JSON.")] = None,
    normal: Annotated[int, typer.Option("--normal", min=10, help="Phantoms without a lesion.")] = 40,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Phantoms of each family, contrast and size of lesion (16 combinations).")] = 3,
) -> None:
    """Look for planted lesions in held-out phantoms, beside the baselines, and write CARD.md.

    Example: pacs-node evaluate --bundle models/ct-head --json evaluation.json
    """
    from pacs_node.analysis.bundle import load
    from pacs_node.workbench import card, evaluation

    with _bars() as report:
        result = evaluation.evaluate(bundle, json_file, normal=normal, rounds=rounds, report=report)
    path = card.write_card(load(bundle), result)
    for name, row in {**result["score"], **result["baselines"]}.items():
        typer.echo(f"{name:12} AUROC {row['auroc']:.3f} ({row['ci95'][0]:.3f} to {row['ci95'][1]:.3f})")
    typer.echo(f"wrote {path}")


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the application."""
    for command in (train, calibrate, evaluate):
        app.command()(command)
