"""Commands that write documents: conformance, reference."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pacs_node.cli.options import ConfigFile, settings_of


def register(app: typer.Typer) -> None:
    """Add the commands of this group."""
    app.command()(conformance)
    app.command()(reference)


def conformance(
    config: ConfigFile = None,
    out: Annotated[Path | None, typer.Option(help="Write to this file instead of printing.")] = None,
) -> None:
    """Print the DICOM Conformance Statement of a node with this configuration, as Markdown in the structure of PS3.2.

    Example: pacs-node conformance --config config/node.yaml --out conformance.md
    """
    from pacs_node.workbench.conformance import statement

    _give(statement(settings_of(config)), out)


def reference(out: Annotated[Path | None, typer.Option(help="Write to this file instead of printing.")] = None) -> None:
    """Print the configuration reference: every key with its type, default and meaning, as Markdown.

    Example: pacs-node reference --out config/REFERENCE.md
    """
    from pacs_node.workbench.reference import reference as made

    _give(made(), out)


def _give(text: str, out: Path | None) -> None:
    if out is None:
        typer.echo(text, nl=False)
    else:
        out.write_text(text, encoding="utf-8")
