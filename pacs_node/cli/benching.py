"""``pacs-node bench``: what this machine does in a second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from pacs_node.cli.options import print_table

bench = typer.Typer(no_args_is_help=True, help="Measure this node on this machine.\n\nExample: pacs-node bench ingest --json ingest.json")

JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write the figures to this file.")]
Work = Annotated[Path | None, typer.Option(help="Folder on the disk to be measured; left out: the temporary folder.")]


def register(app: typer.Typer) -> None:
    """Add the group to the application."""
    app.add_typer(bench, name="bench")


@bench.command()
def ingest(
    json_file: JsonFile = None,
    senders: Annotated[int, typer.Option(min=1, max=64, help="Associations at once.")] = 4,
    count: Annotated[int, typer.Option(min=1, help="Instances a sender and round, 525 kB each.")] = 100,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the median counts.")] = 3,
    work: Work = None,
) -> None:
    """Measure durable intake over C-STORE: instances and megabytes a second, the disk's own reference, memory, idle processor share.

    Example: pacs-node bench ingest --senders 4 --json ingest.json
    """
    from pacs_node.workbench.bench import bench_ingest

    with Console(stderr=True).status("sending"):
        found = bench_ingest(senders, count, rounds, work)
    _write(json_file, found)
    rows: list[list[object]] = [
        [f"instances/s, durable, {senders} senders ({found['sender']})", f"{found['instances_per_s']:.0f}"],
        ["MB/s", f"{found['mb_per_s']:.0f}"],
        ["disk reference, files/s (4 threads, a folder sync each)", f"{found['disk_reference_per_s']:.0f}"],
        ["instances/s against the disk reference", f"{found['disk_ratio']:.2f}"],
        ["processor share with one association at rest, % of a core", f"{found['idle_cpu_percent']:.1f}"],
    ]
    rows += [[f"receiver {number}, MB resident (its share)", f"{one['rss']:.0f} ({one['pss']:.0f})"] for number, one in enumerate(found["receivers"])]
    print_table("Intake", ["", ""], rows, "nothing was measured")


@bench.command()
def soak(
    json_file: JsonFile = None,
    instances: Annotated[int, typer.Option(min=1, help="Small instances to send.")] = 100_000,
    associations: Annotated[int, typer.Option(min=1, help="Associations to send them over.")] = 10_000,
    probes: Annotated[int, typer.Option(min=0, help="Connections that say nothing of use and close.")] = 10_000,
    work: Work = None,
) -> None:
    """Send very many small instances over very many associations and show what the receivers occupy on the way.

    Example: pacs-node bench soak --instances 100000 --associations 10000 --probes 10000
    """
    from pacs_node.workbench.bench import bench_soak

    with Console(stderr=True).status("sending"):
        rows = bench_soak(instances, associations, probes, work=work)
    _write(json_file, rows)
    table = [
        [row["instances"], row["associations"], row["probes"], " ".join(f"{one:.1f}" for one in row["rss"]), " ".join(f"{one:.1f}" for one in row["pss"])]
        for row in rows
    ]
    print_table("Memory of the receivers", ["instances", "associations", "probes", "resident, MB", "share, MB"], table, "nothing was measured")


def _write(file: Path | None, found: Any) -> None:
    if file is not None:
        file.write_text(json.dumps(found, indent=1) + "\n")
