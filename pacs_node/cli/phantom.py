"""``pacs-node phantom``: synthetic studies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from pacs_node.phantoms import ARTEFACTS, LESIONS, MODALITIES, PLANES, SEQUENCES, USUAL, PhantomSpec, write_study

_DEFAULT = PhantomSpec()
_REGIONS = "; ".join(f"{name}: {', '.join(made.REGIONS)}" for name, made in MODALITIES.items())


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(name="phantom")(phantom)


def phantom(
    out: Annotated[Path, typer.Option(help="Folder for the studies; each gets a folder of its own in it.")],
    modality: Annotated[str, typer.Option(help=f"One of {', '.join(MODALITIES)}.")] = "CT",
    region: Annotated[str, typer.Option(help=f"A region of the modality ({_REGIONS}); left out: its first.")] = "",
    lesion: Annotated[str | None, typer.Option(help=f"One of {', '.join(LESIONS)}; left out: none.")] = None,
    artefact: Annotated[str | None, typer.Option(help=f"One of {', '.join(ARTEFACTS)}; left out: none.")] = None,
    seed: Annotated[int, typer.Option(help="Chooses anatomy, noise and patient; the same seed gives the same bytes.")] = 0,
    count: Annotated[int, typer.Option(min=1, help="How many studies, with seeds that rise by one.")] = 1,
    slices: Annotated[int, typer.Option(help="Slices, or ultrasound images, of each study; left out: as many as usual.", show_default=False)] = USUAL,
    contrast: Annotated[float, typer.Option(help="Strength of the lesion in standard deviations of the tissue around it.")] = _DEFAULT.contrast,
    size: Annotated[float, typer.Option(help="Area of the lesion as a fraction of the body in the slice that holds most of it.")] = _DEFAULT.size,
    sequence: Annotated[str, typer.Option(help=f"MR: one of {', '.join(SEQUENCES)}.")] = _DEFAULT.sequence,
    plane: Annotated[str, typer.Option(help=f"MR: one of {', '.join(PLANES)}.")] = _DEFAULT.plane,
    enhanced: Annotated[bool, typer.Option("--enhanced", help="One multi-frame object instead of single-frame ones.")] = False,
    colour: Annotated[bool, typer.Option("--colour", help="US: RGB pixels.")] = False,
) -> None:
    """Make synthetic studies as DICOM files: for tests and demonstrations, never clinical evidence.

    Example: pacs-node phantom --modality CT --region head --lesion ellipsoid --out phantoms --seed 7 --count 3
    """
    spec = PhantomSpec(
        modality=modality,
        region=region,
        lesion=lesion,
        artefact=artefact,
        seed=seed,
        slices=slices,
        contrast=contrast,
        size=size,
        sequence=sequence,
        plane=plane,
        enhanced=enhanced,
        colour=colour,
    )
    console, files = Console(stderr=True), 0
    for number in track(range(seed, seed + count), description="Making phantoms", console=console):
        spec = replace(spec, seed=number)
        files += len(write_study(spec, out / folder_name(spec)))
    typer.echo(f"{count} {'study' if count == 1 else 'studies'}, {files} files in {out}")


def folder_name(spec: PhantomSpec) -> str:
    """Return the name of a study's folder, such as ``ct-head-ellipsoid-7``."""
    shown = (spec.sequence.lower(), spec.plane) if spec.modality == "MR" else ()
    encoded = ("colour" if spec.colour else "", "enhanced" if spec.enhanced else "")
    parts = (spec.modality.lower(), spec.region, *shown, spec.lesion or "plain", spec.artefact or "", *encoded, str(spec.seed))
    return "-".join(part.replace("_", "-") for part in parts if part)
