"""Commands that run or examine the node: run, check, explain, demo."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pacs_node.cli.options import AsJson, ConfigFile, print_json_list, settings_of


class RoleName(StrEnum):
    """What this process is to do."""

    ALL = "all"
    RECEIVER = "receiver"
    CORE = "core"
    WORKER = "worker"


def register(app: typer.Typer) -> None:
    """Add the commands of this group."""
    app.command()(run)
    app.command()(check)
    app.command()(explain)
    app.command()(demo)


def run(config: ConfigFile = None, role: Annotated[RoleName, typer.Option(help="Run all, or one part of the node.")] = RoleName.ALL) -> None:
    """Run the node in the foreground. SIGTERM drains and stops it, SIGHUP re-reads the rules.

    Example: pacs-node run --config config/node.yaml
    """
    from pacs_node import node
    from pacs_node.monitoring import logs

    logs.configure(process="node")
    raise typer.Exit(node.run(settings_of(config), role.value))


def check(
    config: ConfigFile = None,
    echo: Annotated[bool, typer.Option("--echo", help="Also ask every destination by C-ECHO, and which result kinds it would accept.")] = False,
) -> None:
    """Check configuration, rules, bundles, disk and database. Exit code 1 and one line for each fault.

    Example: pacs-node check --config config/node.yaml --echo
    """
    from pacs_node.workbench.check import examine

    report = examine(config, settings_of, echo=echo)
    for mark, text in report.lines:
        typer.secho(f"{mark:<8}{text}", fg={"ok": "green", "warning": "yellow", "fault": "red"}.get(mark))
    raise typer.Exit(1 if report.faults else 0)


def explain(
    path: Annotated[Path | None, typer.Argument(help="A DICOM file or a folder of them.")] = None,
    config: ConfigFile = None,
    past: Annotated[str | None, typer.Option(help="Instead of files: the studies received in this time, e.g. 7d.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say which rules fire for DICOM files, on which series, and why or why not; of what was received, what present rules would change.

    Examples: pacs-node explain ./study · pacs-node explain --past 7d
    """
    from pacs_node.workbench.explain import Explained, explain_files, explain_past

    if (path is None) == (past is None):
        raise typer.BadParameter("give a file or folder, or --past with a time span")
    settings = settings_of(config)
    studies: Iterable[Explained] = explain_files(settings, path) if path is not None else explain_past(settings, past or "")
    if as_json:
        print_json_list(study.as_json() for study in studies)
        return
    found: Counter[str] = Counter()
    for study in studies:
        typer.echo("\n".join(study.lines()))
        found[getattr(study, "outcome", "")] += 1
    if past is not None:
        typer.echo(f"{found.total()} studies" + "".join(f", {count} {outcome}" for outcome, count in sorted(found.items())))


def demo(
    studies: Annotated[list[Path] | None, typer.Argument(help="Study folders to send; without them synthetic studies are made.")] = None,
    out: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("demo-out"),
    quick: Annotated[bool, typer.Option("--quick", help="Fewer and smaller studies.")] = False,
) -> None:
    """Start an archive and a node on free ports, send studies over C-STORE, show what comes back.

    Example: pacs-node demo ./study --out demo-out
    """
    from pacs_node.workbench.demo import run_demo

    raise typer.Exit(run_demo(list(studies or []), out, quick=quick))
