"""Options that several commands share, and printing."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from pacs_node.config import Settings, load_settings

ConfigFile = Annotated[Path | None, typer.Option("--config", "-c", help="The configuration; without it config/node.yaml where that exists, else defaults.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

DEFAULT_FILE = Path("config/node.yaml")


def settings_of(config: Path | None) -> Settings:
    """Read the configuration that a command is to use."""
    return load_settings(config_path(config))


def config_path(config: Path | None) -> Path | None:
    """Return the file that a command is to use; None: defaults."""
    return config if config is not None else DEFAULT_FILE if DEFAULT_FILE.is_file() else None


def print_json(data: Any) -> None:
    """Print data for programs."""
    sys.stdout.write(json.dumps(data, indent=1, ensure_ascii=False, default=str) + "\n")


def print_json_list(items: Iterable[Any]) -> None:
    """Print a list for programs, one item after the other: it may be long."""
    sys.stdout.write("[")
    for number, item in enumerate(items):
        sys.stdout.write((",\n" if number else "\n") + json.dumps(item, ensure_ascii=False, default=str))
    sys.stdout.write("\n]\n")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], empty: str) -> None:
    """Print a table for people, or one sentence where there is nothing."""
    console = Console()
    if not rows:
        console.print(f"{title}: {empty}", style="dim", highlight=False)
        return
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    console.print(table)


def print_why(summary: Mapping[str, Any], of: str = "") -> None:
    """Print what the parts add to a score, where the summary of a finding says it."""
    from pacs_node.monitoring import why

    if rows := why.part_rows(summary):
        print_table(f"Why this score{of}", why.PART_COLUMNS, rows, "")
        print_table(f"Where it is hottest{of}", why.PLACE_COLUMNS, why.place_rows(summary), "nowhere")
    if line := why.head_line(summary):
        typer.echo(f"Head of the labels{of}: {line}")


def _cell(value: object) -> str:
    from rich.markup import escape

    if value is None:
        return ""
    return escape(f"{value:.3f}" if isinstance(value, float) else str(value))


@contextmanager
def bars() -> Iterator[Callable[[str, float], None]]:
    """Show one progress bar for each stage that reports itself; a stage is told by the words before its first colon."""
    tasks: dict[str, TaskID] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:

        def report(what: str, fraction: float) -> None:
            stage = what.split(":")[0]
            if stage not in tasks:
                tasks[stage] = progress.add_task(what, total=1.0)
            progress.update(tasks[stage], description=what, completed=fraction)

        yield report
