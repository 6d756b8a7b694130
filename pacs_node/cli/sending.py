"""Commands that move or analyse studies by hand: send, analyse."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pacs_node.cli.options import AsJson, ConfigFile, print_json, print_table, print_why, settings_of


def register(app: typer.Typer) -> None:
    """Add the commands of this group."""
    app.command()(send)
    app.command()(analyse)


def send(
    folder: Annotated[Path, typer.Argument(help="A folder of DICOM files (searched through), or one file.")],
    to: Annotated[str, typer.Option("--to", help="Where to send: HOST:PORT.")],
    aet: Annotated[str, typer.Option("--aet", help="Called AE title.")],
    calling: Annotated[str, typer.Option(help="Our own AE title.")] = "PACS_NODE",
) -> None:
    """Send DICOM files over C-STORE. Exit code 1 where an instance was not taken.

    Example: pacs-node send ./study --to 127.0.0.1:11112 --aet PACS_NODE
    """
    from pacs_node.workbench.sending import send_folder

    report = send_folder(folder, to, aet, calling)
    typer.echo(report.sentence())
    for line in report.problems:
        typer.secho(line, fg="red", err=True)
    raise typer.Exit(1 if report.problems else 0)


def analyse(
    folder: Annotated[Path, typer.Argument(help="A folder with one series, or a study.")],
    bundle: Annotated[str, typer.Option("--bundle", help="Name of an installed bundle, or its folder.")],
    out: Annotated[Path, typer.Option("--out", help="Where the objects and pictures go.")],
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Run a pipeline on a folder without the network: findings, objects and pictures.

    Example: pacs-node analyse ./study --bundle ct-head --out ./out
    """
    from pacs_node.workbench.offline import analyse_folder

    rows = analyse_folder(folder, bundle, out, settings_of(config))
    if as_json:
        print_json(rows)
    else:
        table = [[row["series"], row.get("score"), row.get("verdict") or row.get("reason"), row.get("slices"), row.get("folder")] for row in rows]
        print_table("Findings (research use)", ["series", "score", "verdict or reason", "slices", "objects and pictures"], table, "no series was found")
        for row in rows:
            print_why(row, f": series {row['series']}")
    if all("score" not in row for row in rows):
        raise typer.Exit(1)
