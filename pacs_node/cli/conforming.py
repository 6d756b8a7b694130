"""Commands about what the node speaks: conformance."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pacs_node.cli.options import ConfigFile, settings_of


def register(app: typer.Typer) -> None:
    """Add the commands of this group."""
    app.command()(conformance)


def conformance(
    config: ConfigFile = None,
    out: Annotated[Path | None, typer.Option(help="Write to this file instead of printing.")] = None,
) -> None:
    """Print the DICOM Conformance Statement of a node with this configuration, as Markdown in the structure of PS3.2.

    Example: pacs-node conformance --config config/node.yaml --out conformance.md
    """
    from pacs_node.workbench.conformance import statement

    text = statement(settings_of(config))
    if out is None:
        typer.echo(text, nl=False)
    else:
        out.write_text(text, encoding="utf-8")
