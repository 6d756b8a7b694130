"""Commands about the audit trail: audit verify, audit list, audit export."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pacs_node.cli.options import AsJson, ConfigFile, print_json, print_table, settings_of


def register(app: typer.Typer) -> None:
    """Add the commands of this group."""
    group = typer.Typer(no_args_is_help=True)
    group.callback()(_group)
    group.command()(verify)
    group.command("list")(list_rows)
    group.command()(export)
    app.add_typer(group, name="audit")


def _group() -> None:
    """Look at the audit trail: who sent, what was analysed by which model, which result went where, what operators did.

    Examples: pacs-node audit verify · pacs-node audit list
    """


def verify(
    anchor: Annotated[str, typer.Option(help="A hash that was the trail's last at some time: without its row, the end was cut off.")] = "",
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Follow the hashes of the trail from its first row to its last; exit code 1 with the first row that was changed, removed or moved.

    Example: pacs-node audit verify --anchor 3f1c…
    """
    from dataclasses import asdict

    from pacs_node.workbench import auditing

    chain = auditing.verify(settings_of(config), anchor)
    if as_json:
        print_json(asdict(chain))
    else:
        typer.echo(auditing.sentence(chain))
    raise typer.Exit(1 if chain.fault else 0)


def list_rows(config: ConfigFile = None, as_json: AsJson = False, limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 50) -> None:
    """List the newest rows of the trail.

    Example: pacs-node audit list --limit 20
    """
    from pacs_node.workbench import auditing

    rows = auditing.listed(settings_of(config), limit)
    if as_json:
        print_json(rows)
        return
    cells = [[row["number"], row["at"], row["actor"], row["action"], row["subject"], _facts(row["detail"])] for row in rows]
    print_table("Audit trail", ["number", "at", "actor", "action", "subject", "facts"], cells, "nothing yet")


def _facts(detail: object) -> str:
    return ", ".join(f"{name}: {value}" for name, value in detail.items()) if isinstance(detail, dict) else str(detail)


def export(
    out: Annotated[Path | None, typer.Option(help="New file; without it to standard output.")] = None,
    form: Annotated[str, typer.Option(help="json, or dicom: the audit messages of PS3.15 A.5, without patients.")] = "json",
    config: ConfigFile = None,
) -> None:
    """Copy the whole trail, oldest row first, one row a line.

    Examples: pacs-node audit export --out audit.jsonl · pacs-node audit export --form dicom
    """
    from pacs_node.workbench import auditing

    if form not in tuple(auditing.Form):
        raise typer.BadParameter(f"{form!r} is none of {', '.join(auditing.Form)}", param_hint="--form")
    lines = auditing.exported(settings_of(config), auditing.Form(form))
    if out is None:
        sys.stdout.writelines(f"{line}\n" for line in lines)
        return
    with out.open("x", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
    typer.echo(f"the audit trail is in {out}")
