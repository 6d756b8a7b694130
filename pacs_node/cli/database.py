"""Commands about the database: db upgrade."""

from __future__ import annotations

import typer

from pacs_node.cli.options import ConfigFile, settings_of


def register(app: typer.Typer) -> None:
    """Add the commands of this group."""
    group = typer.Typer(no_args_is_help=True)
    group.callback()(_group)
    group.command()(upgrade)
    app.add_typer(group, name="db")


def _group() -> None:
    """Look after the database.

    Example: pacs-node db upgrade
    """


def upgrade(config: ConfigFile = None) -> None:
    """Bring the database to the schema of this version; makes the tables where there are none. `run` does so at its start.

    Example: pacs-node db upgrade --config config/node.yaml
    """
    from pacs_node.workbench.tables import upgrade_database

    typer.echo(upgrade_database(settings_of(config)))
