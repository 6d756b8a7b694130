"""``pacs-node fetch``: studies from an archive, to train and calibrate on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from pacs_node.cli.options import ConfigFile, settings_of


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(fetch)


def fetch(
    source: Annotated[str, typer.Option("--from", help="A destination of kind dicom in the configuration.")],
    accessions: Annotated[Path, typer.Option("--accessions", help="CSV with a column accession; where none is called so, the first column.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the studies; the same folder resumes.")],
    modality: Annotated[list[str] | None, typer.Option("--modality", help="Only series of this modality; may be given several times.")] = None,
    rate: Annotated[float, typer.Option("--rate", min=0.1, max=600, help="Studies a minute at most; one at a time.")] = 30.0,
    aet: Annotated[str | None, typer.Option("--aet", help="Our AE title; left out: the node's first one with _FETCH.")] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Where the archive sends to; 0: any free port.")] = 0,
    peer: Annotated[list[str] | None, typer.Option("--peer", help="A further address that the archive sends from; may be given several times.")] = None,
    config: ConfigFile = None,
) -> None:
    """Bring studies from an archive (C-FIND and C-MOVE) into a folder; nothing of it is routed. Exit code 1 where one failed.

    The archive has to know our AE title with this machine's address and port. The same command goes on where it was interrupted.

    Example: pacs-node fetch --from archive --accessions normals.csv --out normals --modality CT --port 11113
    """
    from pacs_node.workbench.fetching import Errand, title_for
    from pacs_node.workbench.fetching import fetch as bring
    from pacs_node.workbench.wishes import read_accessions

    settings = settings_of(config)
    title = aet or title_for(settings)
    if not title.strip() or len(title) > 16 or "\\" in title or not title.isprintable():
        raise typer.BadParameter(f"--aet {title!r}: an AE title has 1 to 16 characters")
    kinds = frozenset(kind.strip().upper() for kind in modality or ())
    errand = Errand(source, tuple(read_accessions(accessions)), out, title, port, kinds, rate, tuple(peer or ()))
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("fetching", total=1.0)
        report = bring(settings, errand, lambda what, fraction: progress.update(task, description=what, completed=fraction), typer.echo)
    for line in report.problems:
        typer.secho(line, fg="red", err=True)
    typer.echo(report.sentence())
    raise typer.Exit(1 if report.problems or report.left else 0)
