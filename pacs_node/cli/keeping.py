"""Commands about keeping a node's data: backup."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pacs_node.cli.options import AsJson, ConfigFile, config_path, print_json, settings_of


def register(app: typer.Typer) -> None:
    """Add the commands of this group."""
    app.command()(backup)


def backup(
    out: Annotated[Path, typer.Option(help="New folder, or new file whose name ends in .tar; best on another disk.")],
    without_originals: Annotated[bool, typer.Option("--without-originals", help="Leave the received files of finished studies out.")] = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Copy database, files and configuration of a node, which may run meanwhile. Exit code 1 where a file could not be copied.

    Example: pacs-node backup --out /backup/node-1.tar
    """
    from dataclasses import asdict

    from pacs_node.workbench.backup import back_up

    copied = back_up(settings_of(config), config_path(config), out, originals=not without_originals)
    if as_json:
        print_json(asdict(copied))
    else:
        typer.echo(copied.sentence())
    raise typer.Exit(1 if copied.missing else 0)
