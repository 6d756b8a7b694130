"""``pacs-node train``, ``calibrate`` and ``evaluate``: what people do with model bundles by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pacs_node.cli.evaluating import evaluate
from pacs_node.cli.options import bars as _bars
from pacs_node.records import Population

if TYPE_CHECKING:
    from pacs_node.workbench.training import Trained

BundleOption = Annotated[Path, typer.Option("--bundle", help="Folder with at least model.yaml.")]
DataOption = Annotated[list[Path] | None, typer.Option("--data", help="Folder of DICOM studies, NIfTI files or PNG/JPEG pictures; may be given several times.")]
LabelsOption = Annotated[
    Path | None, typer.Option("--labels", help="CSV with the columns file, label and if need be patient and mask; only what is labelled normal is used.")
]


def print_refused(refused: tuple[str, ...]) -> None:
    """Print one line for each study that was not used."""
    for line in refused:
        typer.echo(f"not used: {line}")


def train(
    bundle: BundleOption,
    data: DataOption = None,
    labels: LabelsOption = None,
    head: Annotated[bool, typer.Option("--head", help="Learn from labels of both kinds, beside the score; the network stays as it is.")] = False,
    device: Annotated[str, typer.Option("--device", help="auto (a GPU where there is one), cpu or cuda.")] = "auto",
    measure_only: Annotated[bool, typer.Option("--measure-only", help="Keep the network; measure anew what is usual, on the same studies.")] = False,
    detector_only: Annotated[bool, typer.Option("--detector-only", help="Keep the autoencoder; train its detector anew, on the same studies.")] = False,
) -> None:
    """Train a bundle by the recipe in its model.yaml; the same command resumes an interrupted run.

    Without --data the recipe's own data folders and phantoms are used. With --head the bundle stays as it is, and a small head learns from
    at least 10 studies labelled normal and 10 others, none of which the bundle should have been trained on.

    Example: pacs-node train --bundle models/ct-head --data /data/normal-heads · pacs-node train --head --bundle DIR --data DIR --labels labels.csv
    """
    if measure_only and detector_only:
        raise typer.BadParameter("--measure-only keeps the detector, --detector-only trains it: give one of them")
    if head:
        _train_head(bundle, data or [], labels)
        return
    from pacs_node.workbench import training

    with _bars() as report:
        what = training.measure if measure_only else training.train_detector if detector_only else training.train
        done = what(bundle, data or [], labels, report, device=device)
    _print_trained(bundle, done)
    typer.echo("next: pacs-node calibrate")


def _print_trained(bundle: Path, done: Trained) -> None:
    print_refused(done.refused)
    for one in done.suspects:
        typer.echo(f"stands out: {one.name} (score {one.score:.2f}, the others suggest at most {one.beyond:.2f}): look whether it is normal")
    if done.history is None:
        typer.echo(f"{bundle}: the autoencoder is as it was; measured what is usual on {done.studies} studies and {done.held_out} held out")
    else:
        best, epochs = done.history.best_epoch + 1, len(done.history.held_out)
        typer.echo(f"{bundle}: trained on {done.studies} studies, {done.held_out} held out, best epoch {best} of {epochs}")


def _train_head(bundle: Path, data: list[Path], labels: Path | None) -> None:
    from pacs_node.workbench import few_labels

    with _bars() as report:
        done = few_labels.train_head(bundle, data, labels, report)
    print_refused(done.refused)
    typer.echo(f"{bundle}: head trained on {done.normal} normal and {done.unusual} other studies of {done.patients} patients")
    for name, found in (("head (cross-validated)", done.head), ("score (no labels)", done.score), ("difference", done.difference)):
        typer.echo(f"{name:24} AUROC {found.value:+.3f} ({found.low:.3f} to {found.high:.3f})".replace("AUROC +", "AUROC "))


def calibrate(
    bundle: BundleOption,
    population: Annotated[Population, typer.Option("--population", help="Whose studies these are; only site gives verdicts on patients.")],
    data: DataOption = None,
    alpha: Annotated[float, typer.Option("--alpha", min=0.001, max=0.5, help="Promised false-positive rate; 0.05 needs 59 studies, 0.01 needs 299.")] = 0.05,
    labels: LabelsOption = None,
    unusual: Annotated[float, typer.Option("--unusual", min=0, max=0.9, help="Share of routine studies that may truly be unusual: drift begins beyond.")] = 0.2,
) -> None:
    """Score normal studies that the bundle was not trained on, and write calibration.json. Each patient counts once.

    Example: pacs-node calibrate --bundle models/ct-head --data /data/more-normal-heads --population site
    """
    from pacs_node.workbench import calibrating

    promise = calibrating.Promise(alpha, unusual)
    with _bars() as report:
        done = calibrating.calibrate(bundle, data or [], population, labels=labels, today=datetime.now(UTC).date(), promise=promise, report=report)
    print_refused(done.refused)
    if done.threshold is None:
        typer.echo(f"{bundle}: {done.studies} studies are too few for a threshold, at least {done.needed} are needed: results stay uncalibrated")
    else:
        typer.echo(f"{bundle}: calibrated on {done.studies} {population} studies, threshold {done.threshold:.3f}")
    for line in calibrating.told(done):
        typer.echo(line)


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the application."""
    for command in (train, calibrate, evaluate):
        app.command()(command)
