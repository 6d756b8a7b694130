"""``pacs-node similar``: which analysed studies look most like one."""

from __future__ import annotations

from typing import Annotated

import typer

from pacs_node.cli.options import AsJson, ConfigFile, print_json, print_table, settings_of


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(similar)


def similar(
    study: Annotated[str, typer.Argument(help="Study Instance UID, accession number, or number of the study.")],
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many neighbours of each analysed series.")] = 10,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Show the analysed studies that look most like one, nearest first. Local: nothing of it goes into any object.

    Distance 1: as far apart as the slices of one series are from each other.

    Example: pacs-node similar 2.25.188178597719290296877060626371580646440
    """
    from pacs_node.workbench.similar import similar as look

    found = look(settings_of(config), study, limit)
    if as_json:
        print_json([one.as_json() for one in found])
        return
    columns = ["rank", "distance", "study", "accession", "modality", "region", "received", "score"]
    for one in found:
        print_table(f"Similar to its series as {one.bundle} sees it", columns, [[row[name] for name in columns] for row in one.rows], one.remark)
        if one.rows and one.remark:
            typer.echo(one.remark)
