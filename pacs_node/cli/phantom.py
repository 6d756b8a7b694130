"""``pacs-node phantom``: synthetic studies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from pacs_node.phantoms import ARTEFACTS, LESIONS, MODALITIES, PhantomSpec, write_study

_DEFAULT = PhantomSpec()


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(name="phantom")(phantom)


def phantom(
    out: Annotated[Path, typer.Option(help="Folder for the studies; each gets a folder of its own in it.")],
    modality: Annotated[str, typer.Option(help=f"One of {', '.join(MODALITIES)}.")] = "CT",
    region: Annotated[str, typer.Option(help="A region of the modality, such as head or body.")] = "head",
    lesion: Annotated[str | None, typer.Option(help=f"One of {', '.join(LESIONS)}; left out: none.")] = None,
    artefact: Annotated[str | None, typer.Option(help=f"One of {', '.join(ARTEFACTS)}; left out: none.")] = None,
    seed: Annotated[int, typer.Option(help="Chooses anatomy, noise and patient; the same seed gives the same bytes.")] = 0,
    count: Annotated[int, typer.Option(min=1, help="How many studies, with seeds that rise by one.")] = 1,
    slices: Annotated[int, typer.Option(help="Slices of each study.")] = _DEFAULT.slices,
    contrast: Annotated[float, typer.Option(help="Strength of the lesion in standard deviations of the tissue around it.")] = _DEFAULT.contrast,
    size: Annotated[float, typer.Option(help="Area of the lesion as a fraction of the body in the slice that holds most of it.")] = _DEFAULT.size,
) -> None:
    """Make synthetic studies as DICOM files: for tests and demonstrations, never clinical evidence.

    Example: pacs-node phantom --modality CT --region head --lesion ellipsoid --out phantoms --seed 7 --count 3
    """
    spec = PhantomSpec(modality=modality, region=region, lesion=lesion, artefact=artefact, seed=seed, slices=slices, contrast=contrast, size=size)
    console, files = Console(stderr=True), 0
    for number in track(range(seed, seed + count), description="Making phantoms", console=console):
        spec = replace(spec, seed=number)
        files += len(write_study(spec, out / folder_name(spec)))
    typer.echo(f"{count} {'study' if count == 1 else 'studies'}, {files} files in {out}")


def folder_name(spec: PhantomSpec) -> str:
    """Return the name of a study's folder, such as ``ct-head-ellipsoid-7``."""
    parts = (spec.modality.lower(), spec.region, spec.lesion or "plain", spec.artefact or "", str(spec.seed))
    return "-".join(part.replace("_", "-") for part in parts if part)
