"""``pacs-node export``: de-identified copies, for training and research."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from pacs_node.cli.options import AsJson, ConfigFile, print_json, settings_of
from pacs_node.workbench.deidentify.options import Dates, Options, Region

if TYPE_CHECKING:
    from pacs_node.workbench.exporting import Exported


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(export)


def _regions(texts: list[str] | None) -> tuple[Region, ...]:
    regions = []
    for text in texts or ():
        numbers = text.replace(" ", "").split(",")
        if len(numbers) != 4 or not all(number.isascii() and number.isdecimal() for number in numbers):
            raise typer.BadParameter(f"--clean-region {text}: four whole numbers are needed: X,Y,WIDTH,HEIGHT in pixels")
        regions.append(Region(*(int(number) for number in numbers)))
    return tuple(regions)


def export(
    out: Annotated[Path, typer.Option("--out", help="Folder for the de-identified objects.")],
    study: Annotated[list[str] | None, typer.Argument(help="Studies that the node holds: number, Study Instance UID or accession number.")] = None,
    folder: Annotated[list[Path] | None, typer.Option("--folder", help="Folder of DICOM files to export as well; may be given several times.")] = None,
    map_file: Annotated[Path | None, typer.Option("--map", help="Map of UIDs and pseudonyms; left out: export-map.db in the node's data folder.")] = None,
    dates: Annotated[Dates, typer.Option("--dates", help="remove; shift by days that depend on the patient; keep (never the birth date).")] = Dates.REMOVE,
    retain_uids: Annotated[bool, typer.Option("--retain-uids", help="Keep UIDs.")] = False,
    retain_device: Annotated[bool, typer.Option("--retain-device", help="Keep station, serial number and the like.")] = False,
    retain_institution: Annotated[bool, typer.Option("--retain-institution", help="Keep name and address of the institution.")] = False,
    retain_patient: Annotated[bool, typer.Option("--retain-patient-characteristics", help="Keep sex, age, size, weight, ….")] = False,
    clean_descriptors: Annotated[bool, typer.Option("--clean-descriptors", help="Keep descriptions as far as their words are harmless.")] = False,
    clean_region: Annotated[list[str] | None, typer.Option("--clean-region", help="X,Y,WIDTH,HEIGHT to blank where text may be burnt in; repeatable.")] = None,
    trust_stated: Annotated[bool, typer.Option("--trust-stated", help="Believe pictures of suspect kinds that say that no text is burnt in.")] = False,
    results: Annotated[bool, typer.Option("--results", help="Also the newest results that the node made of the studies.")] = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Export studies de-identified (PS3.15 Basic Profile with the options given). Exit code 1 where anything was left out.

    Examples: pacs-node export 12 --out shared · pacs-node export --folder STUDIES --out shared --dates shift --clean-descriptors
    """
    from pacs_node.workbench.deidentify.pseudonyms import MAP
    from pacs_node.workbench.exporting import Wanted
    from pacs_node.workbench.exporting import export as run

    if not study and not folder:
        raise typer.BadParameter("name studies of the node, or a folder with --folder")
    options = Options(
        retain_uids=retain_uids,
        retain_device=retain_device,
        retain_institution=retain_institution,
        retain_patient_characteristics=retain_patient,
        clean_descriptors=clean_descriptors,
        dates=dates,
        regions=_regions(clean_region),
        trust_stated=trust_stated,
    )
    settings = settings_of(config)
    wanted = Wanted(out, map_file or settings.node.data / MAP, tuple(study or ()), tuple(folder or ()), results)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("exporting", total=1.0)
        report = run(settings, wanted, options, lambda what, fraction: progress.update(task, description=what, completed=fraction))
    if as_json:
        print_json(report.as_json())
    else:
        _tell(report, wanted.map)
    raise typer.Exit(1 if report.left_out else 0)


def _tell(report: Exported, map_file: Path) -> None:
    for warning in report.warnings:
        typer.secho(f"warning: {warning}", fg="yellow", err=True)
    for one in report.left_out:
        typer.secho(f"left out: {one.source}: {one.reason}", fg="red", err=True)
    typer.echo(f"{report.sentence()}; the map that leads back: {map_file}")
