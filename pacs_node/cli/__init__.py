"""The command line: one small file per group of commands, no logic.

Errors that pacs-node raises on purpose become one sentence on standard error and exit code 1; wrong usage is exit code 2.
"""

from __future__ import annotations

import logging
import sys
from importlib.metadata import version

import typer

from pacs_node.cli.auditing import register as register_auditing
from pacs_node.cli.benching import register as register_bench
from pacs_node.cli.comparing import register as register_comparing
from pacs_node.cli.conforming import register as register_conforming
from pacs_node.cli.database import register as register_database
from pacs_node.cli.exporting import register as register_exporting
from pacs_node.cli.fetching import register as register_fetching
from pacs_node.cli.keeping import register as register_keeping
from pacs_node.cli.models import register as register_models
from pacs_node.cli.page import register as register_page
from pacs_node.cli.phantom import register as register_phantom
from pacs_node.cli.representing import register as register_representing
from pacs_node.cli.running import register as register_running
from pacs_node.cli.sending import register as register_sending
from pacs_node.cli.tuning import register as register_tuning
from pacs_node.cli.working import register as register_working
from pacs_node.errors import PacsNodeError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    help="A DICOM-native PACS integration node: studies in over C-STORE, anomaly scores back as SR, SC and parametric maps. [bold]Research use only.[/bold]",
)


@app.callback(invoke_without_command=True)
def _main(show_version: bool = typer.Option(False, "--version", help="Print the version and stop.")) -> None:
    if show_version:
        typer.echo(f"pacs-node {version('pacs-node')}")
        raise typer.Exit


_GROUPS = (
    register_running, register_sending, register_fetching, register_exporting, register_comparing, register_working,
    register_keeping, register_auditing, register_database, register_conforming, register_page, register_models,
    register_tuning, register_phantom, register_representing, register_bench,
)  # fmt: skip
for _register in _GROUPS:
    _register(app)


def main() -> None:
    """Run the command line: the entry point of the console script."""
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # what it has to say becomes our one sentence
    try:
        app(prog_name="pacs-node")
    except PacsNodeError as error:
        typer.secho(f"error: {error}", err=True, fg="red")
        sys.exit(1)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            sys.stderr.close()
        else:
            typer.secho(f"error: {error.filename or 'the system'}: {error.strerror or error}", err=True, fg="red")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
