"""The command about the status page: its users."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pacs_node.cli.options import ConfigFile, settings_of


def register(app: typer.Typer) -> None:
    """Add the commands of this group."""
    app.command()(user)


def user(
    name: Annotated[str, typer.Argument(help="The user's name.")],
    config: ConfigFile = None,
    file: Annotated[Path | None, typer.Option("--file", help="The users' file; without it that of monitoring.auth.users_file.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the user out.")] = False,
) -> None:
    """Add a user of the status page, or change the password: asked for twice, or the first line of standard input. A running node sees it at once.

    Example: pacs-node user anna --file config/users
    """
    from pacs_node.monitoring.users import set_user

    there = set_user(_file(file, config), name, None if remove else _password())
    typer.echo(f"{name}: {'taken out' if remove and there else 'was no user' if remove else 'password changed' if there else 'added'}")


def _file(file: Path | None, config: Path | None) -> Path:
    if file is not None:
        return file
    auth = settings_of(config).monitoring.auth
    if auth is None or auth.users_file is None:
        raise typer.BadParameter("give --file, or name the file in monitoring.auth.users_file")
    return auth.users_file


def _password() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
