"""Commands about compressed representations: encode, decode."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pacs_node.cli.options import AsJson, ConfigFile, print_json, settings_of


def register(app: typer.Typer) -> None:
    """Add the commands of this group."""
    app.command()(encode)
    app.command()(decode)


def encode(
    folder: Annotated[Path, typer.Argument(help="A file, or a folder with the images of one study.")],
    out: Annotated[Path, typer.Option(help="The Raw Data file to write.")],
    near: Annotated[int, typer.Option("--near", "-k", help="By how many stored values a pixel may be off, 0 to 8; 0: no loss.")] = 0,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Compress images with a bounded error into a Raw Data object. It holds the images and whose they are: treat it as the originals.

    Example: pacs-node encode ./ct-series --out ct.raw.dcm --near 0
    """
    from dataclasses import asdict

    from pacs_node.workbench.representing import encode_folder

    with Console(stderr=True).status("encoding"):
        made = encode_folder(folder, out, near, settings_of(config))
    if as_json:
        print_json(asdict(made))
        return
    for why in made.left_out:
        typer.secho(f"left out: {why}", err=True, fg="yellow")
    ratio = made.pixel_bytes / made.object_bytes
    error = "without loss" if not near else f"every pixel within {near}"
    typer.echo(f"{out}: {made.images} images of {made.series} series, {error}, {made.object_bytes / 1e6:.2f} MB, {ratio:.2f} times smaller than the pixels")


def decode(
    file: Annotated[Path, typer.Argument(help="A Raw Data file, or a folder with some.")],
    out: Annotated[Path, typer.Option(help="Folder for the images, one below it for each series.")],
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Make images again from Raw Data objects: new instances in new series, marked as derived.

    Example: pacs-node decode ct.raw.dcm --out ./decoded
    """
    from dataclasses import asdict

    from pacs_node.workbench.representing import decode_files

    with Console(stderr=True).status("decoding"):
        made = decode_files(file, out, settings_of(config))
    if as_json:
        print_json(asdict(made))
        return
    for what in made.stripped:
        typer.secho(f"an archive has taken out of {what}", err=True, fg="yellow")
    typer.echo(f"{out}: {made.images} images" + (f", every pixel within {made.near} of the original" if made.near else ", pixels as in the originals"))
