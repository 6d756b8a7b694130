"""``pacs-node bench``: what this machine does in a second."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from pacs_node.cli.options import ConfigFile, print_table, settings_of

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


@bench.command()
def journey(
    json_file: JsonFile = None,
    studies: Annotated[int, typer.Option(min=1, help="Studies of the day; from ten on, everything that may happen to one happens.")] = 300,
    seed: Annotated[int, typer.Option(help="Another seed is another day.")] = 1,
    outage: Annotated[float, typer.Option(min=0, help="Seconds for which the archive is away.")] = 12.0,
    models: Annotated[bool, typer.Option("--models", help="Let the node's own workers judge with the shipped models; else an engine stands in.")] = False,
    scale: Annotated[bool, typer.Option("--scale", help="Measure rates with few and with many studies in the database instead, and the claim.")] = False,
    many: Annotated[int, typer.Option(min=10, help="Of --scale: the many studies; the few are ten.")] = 10_000,
    instances: Annotated[int, typer.Option(min=1000, help="Of --scale: instances in the database in which jobs are claimed.")] = 1_000_000,
    rounds: Annotated[int, typer.Option(min=1, help="Of --scale: rounds of ten studies; medians count.")] = 5,
    work: Work = None,
) -> None:
    """Send a simulated hospital day through a node of its own, with duplicates, aborts, corrections, mix-ups and an archive that is away, and
    account for every study, instance and object. Exit code 1 where anything is unaccounted for.

    Example: pacs-node bench journey --studies 300 --seed 1 --json journey.json
    """  # noqa: D205
    if scale:
        _scale(many, instances, rounds, json_file, work)
        return
    from pacs_node.workbench.bench_journey import bench_journey

    with Console(stderr=True).status("starting a node") as status:
        found = bench_journey(studies, seed, outage=outage, models=models, work=work, say=lambda what: status.update(what))
    _write(json_file, found)
    _print_day(found)
    if found["wrong"]:
        raise typer.Exit(1)


@bench.command()
def analysis(
    json_file: JsonFile = None,
    slices: Annotated[int, typer.Option(min=5, help="Slices of the series.")] = 135,
    rows: Annotated[int, typer.Option(min=64, help="Rows and columns of a slice.")] = 512,
    bundle: Annotated[str, typer.Option(help="A bundle's name or folder.")] = "ct-body",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the median counts.")] = 5,
    device: Annotated[str, typer.Option(help="Where the network runs: cpu, cuda, cuda:1, …")] = "cpu",
    agreement: Annotated[int, typer.Option(min=0, help="Also score so many phantoms in float32 and bfloat16; 20 at least are needed to judge.")] = 0,
    record: Annotated[bool, typer.Option("--record", help="Keep the agreement with the bundle: it computes in bfloat16 where that holds.")] = False,
    work: Work = None,
    config: ConfigFile = None,
) -> None:
    """Measure the analysis from the files of a phantom series to its finding: slices a second, the share of each stage, memory; with one thread and
    two, from uncompressed and JPEG-LS files, in float32 and bfloat16.

    Example: pacs-node bench analysis --bundle ct-body --json analysis.json
    """  # noqa: D205
    from pacs_node.workbench import agreeing
    from pacs_node.workbench.bench_analysis import STAGES, bench_analysis, faster
    from pacs_node.workbench.offline import find_bundle

    chosen = find_bundle(settings_of(config), bundle)
    with Console(stderr=True).status("starting") as status:
        found = bench_analysis(chosen.folder, slices, rows, rounds, device=device, work=work, say=lambda what: status.update(what))
        if agreement:
            agreed = agreeing.measure(chosen, agreement, device, faster=faster(found), report=lambda what, part: status.update(f"{what}: {part:.0%}"))
            found["agreement"] = agreed.model_dump() | {"holds": agreed.holds}
            if record:
                agreeing.record(chosen, agreed)
    _write(json_file, found)
    table = [_analysis_row(one, STAGES) for one in found["ways"]]
    columns = ["way", "slices/s (range)", "CPU", *(f"{stage} %" for stage in STAGES), "MB"]
    print_table(
        f"{found['slices']} slices of {found['rows']}² by {found['bundle']} on {found['processor']}; CPU time a slice, peak memory",
        columns,
        table,
        "nothing was measured",
    )
    if agreement:
        verdict = "it may be used here" if agreed.holds else "it is not used"
        moved = f"a score by up to {agreed.score:.3f}, at the threshold by {agreed.percentile:.2f} percentile points (0.5 allowed)"
        Console().print(f"bfloat16 moves {moved} over {agreed.studies} phantoms, and is {'' if agreed.faster else 'not '}faster: {verdict}", highlight=False)


@bench.command()
def results(
    json_file: JsonFile = None,
    slices: Annotated[int, typer.Option(min=1, help="Slices of the series.")] = 135,
    rows: Annotated[int, typer.Option(min=64, help="Rows and columns of a slice.")] = 512,
    grid: Annotated[int, typer.Option(min=32, help="Rows and columns of the analysis grid.")] = 128,
    regions: Annotated[int, typer.Option(min=0, help="Regions that stand out.")] = 10,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the median counts.")] = 3,
    work: Work = None,
) -> None:
    """Measure how long the objects of a study take to be built and written, kind by kind; the finding is made up, so that no model runs.

    Exit code 1 where all kinds together take more than 3 seconds.

    Example: pacs-node bench results --slices 135 --json results.json
    """
    from pacs_node.workbench.bench_results import Size, bench_results

    with Console(stderr=True).status("starting") as status:
        found = bench_results(Size(slices, rows, grid, regions), rounds, work=work, say=lambda what: status.update(what))
    _write(json_file, found)
    lines: list[list[object]] = [[kind, f"{one['build_s']:.2f}", f"{one['write_s']:.2f}", f"{one['mb']:.1f}"] for kind, one in found["kinds"].items()]
    title = f"{found['slices']} slices of {found['rows']}², grid {found['grid']}², {found['regions']} regions"
    print_table(title, ["kind", "built, s", "written, s", "MB"], lines, "nothing was measured")
    seconds, outside = found["seconds"], found["dciodvfy_seconds"]
    typer.echo(f"together {seconds['median']:.2f} s ({seconds['lowest']:.2f} to {seconds['highest']:.2f}); 3 s are allowed")
    typer.echo(f"the gate {found['gate_seconds']:.2f} s" + (f", dciodvfy {outside:.2f} s" if outside is not None else ""))
    raise typer.Exit(0 if seconds["median"] <= 3 else 1)


@bench.command()
def calibration(
    cache: Annotated[Path, typer.Option("--cache", help="File that keeps the scores of the phantoms; an interrupted run goes on with it.")],
    bundle: Annotated[Path, typer.Option("--bundle", help="Folder of a bundle.")] = Path("models/us-breast"),
    studies: Annotated[int, typer.Option("--studies", min=100, help="Phantoms; a third of them calibrates at most: 0.01 needs 900.")] = 2400,
    json_file: JsonFile = None,
) -> None:
    """Recalibrate 200 times for every rate and size, with scores that the pipeline gives to phantoms, and count how often the promise is kept.

    Exit code 1 where it was kept in fewer than 183 of 200.

    Example: pacs-node bench calibration --bundle models/us-breast --cache scores.jsonl
    """
    from pacs_node.workbench.bench_calibration import bench_calibration, show

    with Console(stderr=True).status("scoring phantoms") as status:
        found = bench_calibration(bundle, studies, cache, lambda what, fraction: status.update(f"{what}: {100 * fraction:.0f} %"))
    _write(json_file, found)
    columns = ["promised", "calibration studies", "kept", "median rate", "largest rate", "on the rest (due)"]
    print_table(f"{found['bundle']}: {found['pool']} phantoms", columns, show(found["rows"]), "too few phantoms")
    raise typer.Exit(0 if found["kept"] else 1)


@bench.command()
def contamination(
    bundle: Annotated[Path, typer.Option("--bundle", help="Folder of a bundle; its weights are not touched.")] = Path("models/us-breast"),
    share: Annotated[float, typer.Option("--share", min=0.01, max=0.9, help="Of the training phantoms, that get a planted lesion.")] = 0.2,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Of each of the two trainings.")] = 4,
    train: Annotated[int, typer.Option("--train", min=8, help="Phantoms to train on.")] = 40,
    normal: Annotated[int, typer.Option("--normal", min=120, help="Phantoms without a lesion to judge; half of them calibrate.")] = 200,
    lesions: Annotated[int, typer.Option("--lesions", min=16, help="Phantoms with a lesion to judge.")] = 96,
    left_out: Annotated[float, typer.Option("--left-out", min=0, max=0.49, help="Of usual pixels, that teach a detector nothing.")] = 0.08,
    json_file: JsonFile = None,
    work: Work = None,
) -> None:
    """Train twice, once with lesions among the training phantoms, and compare promise and sensitivity.

    Exit code 1 where a promise breaks or more than 10 points of sensitivity are lost.

    Example: pacs-node bench contamination --bundle models/us-breast --share 0.2
    """
    from pacs_node.workbench.bench import work_folder
    from pacs_node.workbench.bench_contamination import Trial, bench_contamination

    trial = Trial(share=share, epochs=epochs, train=train, held_out=max(4, train // 4), normal=normal, lesions=lesions, left_out=left_out)
    with Console(stderr=True).status("making phantoms") as status, work_folder(work) as folder:
        found = bench_contamination(bundle, trial, folder, lambda what, fraction: status.update(f"{what}: {100 * fraction:.0f} %"))
    _write(json_file, found)
    rows = [
        [name, f"{one['kept']} of {one['draws']}", f"{100 * one['median_rate']:.1f} %", f"{100 * one['sensitivity']:.1f} %"]
        for name, one in ((name, found[name]) for name in ("clean", "contaminated"))
    ]
    print_table(f"{found['bundle']}, 5 % promised", ["trained on", "promise kept", "median rate", "sensitivity"], rows, "nothing was measured")
    low, high = found["lost_points_ci95"]
    typer.echo(f"sensitivity lost: {found['lost_points']:.1f} points (95 % interval {low:.1f} to {high:.1f})")
    raise typer.Exit(0 if found["kept"] else 1)


@bench.command()
def similar(
    bundle: Annotated[list[str] | None, typer.Option("--bundle", help="Names or folders of bundles; left out: all that are installed.")] = None,
    count: Annotated[int, typer.Option("--count", min=2, help="Phantoms for each bundle.")] = 12,
    folder: Annotated[list[Path] | None, typer.Option("--folder", help="Series to look at as well; may be given several times.")] = None,
    json_file: JsonFile = None,
    config: ConfigFile = None,
) -> None:
    """Measure how often the nearest series are of the same region, on phantoms and on series that are given. Exit code 1 below 0.95 for the region.

    Example: pacs-node bench similar --count 12 --json similar.json
    """
    from pacs_node.analysis.installed import available
    from pacs_node.journey import models_folder
    from pacs_node.workbench.bench_similar import bench_similar
    from pacs_node.workbench.offline import find_bundle

    settings = settings_of(config)
    bundles = [find_bundle(settings, name) for name in bundle or sorted(available(models_folder(settings)))]
    with Console(stderr=True).status("starting") as status:
        found = bench_similar(bundles, count, folder or (), lambda what: status.update(what))
    _write(json_file, found)
    columns = ["question", "samples", "recall", "hit", "worst"]
    print_table("Of the 10 nearest of the same bundle", columns, [[row[name] for name in columns] for row in found], "too few series")
    raise typer.Exit(0 if found and found[0]["recall"] >= 0.95 else 1)


@bench.command()
def representation(
    folder: Annotated[list[Path] | None, typer.Option("--folder", help="Folder with DICOM series; may be given several times.")] = None,
    bundle: Annotated[list[str] | None, typer.Option("--bundle", help="Also a phantom as this bundle was trained on; name or folder, repeatable.")] = None,
    near: Annotated[list[int] | None, typer.Option("--k", min=0, max=8, help="Error bound in stored values, repeatable; left out: 0, 1, 2, 4, 8.")] = None,
    most: Annotated[int, typer.Option("--most-slices", min=1, help="Frames of a series, from its middle.")] = 12,
    json_file: JsonFile = None,
    markdown: Annotated[Path | None, typer.Option("--markdown", help="Also write the tables to this file.")] = None,
    config: ConfigFile = None,
) -> None:
    """Compare our compressed stream with JPEG-LS at the same error bound, and with JPEG 2000 and HTJ2K at the same PSNR; each in one thread.

    Every pixel is compared with its original. Exit code 1 where one is further off than k, or where our stream is larger than JPEG-LS.

    Example: pacs-node bench representation --folder STUDIES --k 0 --k 2 --most-slices 8
    """
    from pacs_node.workbench.bench import work_folder
    from pacs_node.workbench.bench_representation import (
        NEARS,
        RATE_COLUMNS,
        as_markdown,
        bench_representation,
        gain_rows,
        heading,
        rate_rows,
        series_in,
        write_phantom,
    )  # fmt: skip
    from pacs_node.workbench.offline import find_bundle

    settings = settings_of(config)
    with Console(stderr=True).status("reading") as status, work_folder(None) as made:
        series = [one for some in folder or () for one in series_in(some, most)]
        for name in bundle or ():
            series += series_in(write_phantom(find_bundle(settings, name), made, most), most, f"phantom of {Path(name).name}")
        found = bench_representation(series, near or NEARS, lambda what: status.update(what))
    _write(json_file, found)
    if markdown is not None:
        markdown.write_text(as_markdown(found))
    for one in found["series"]:
        print_table(heading(one), RATE_COLUMNS, rate_rows(one), "nothing was measured")
    print_table("Smaller than JPEG-LS by", *gain_rows(found), "nothing was measured")
    if "HTJ2K" not in found["codecs"]:
        typer.echo("HTJ2K is left out: pip install 'pacs-node[test]' brings imagecodecs, which encodes it")
    typer.echo("one thread, its processor time; megabytes of stored values; PSNR and SSIM against the range of the values; our encoder checks itself")
    for fault in found["faults"]:
        typer.secho(fault, fg="red", err=True)
    raise typer.Exit(1 if found["faults"] else 0)


def _analysis_row(one: dict[str, Any], stages: Sequence[str]) -> list[object]:
    rate = f"{one['slices_per_s']:.0f} ({one['range'][0]:.0f} to {one['range'][1]:.0f})"
    return [one["way"], rate, f"{one['processor_ms_per_slice']:.2f}", *(f"{100 * one['share'][stage]:.0f}" for stage in stages), f"{one['peak_mb']:.0f}"]


def _scale(many: int, instances: int, rounds: int, json_file: Path | None, work: Path | None) -> None:
    from pacs_node.workbench.bench_scale import bench_scale

    with Console(stderr=True).status("starting") as status:
        found = bench_scale(10, many, instances, rounds, work=work, say=lambda what: status.update(what))
    _write(json_file, found)
    rows = [[one["stage"], one["few"], one["many"], one["ratio"], one["processor_ratio"]] for one in found["ms"]]
    columns = ["ms, of a study where it is a stage", f"with {found['few']} studies", f"with {found['many']} studies", "ratio", "of processor time"]
    print_table("The same work, with a short and a long history", columns, rows, "nothing was measured")
    claim = found["claim"]
    title = f"Claiming a job: {claim['instances']} instances, {claim['jobs']} jobs, {claim['queued']} of them queued"
    rows = [[name, claim[f"{name}_ms_median"], claim[f"{name}_ms_p95"]] for name in ("claim", "transaction")]
    rows.append(["processor time of both, on average", claim["processor_ms"], None])
    print_table(title, ["ms", "median", "95 %"], rows, "nothing was measured")


def _print_day(found: dict[str, Any]) -> None:
    rows = [[one["kind"], one["studies"], ", ".join(f"{count} {how}" for how, count in one["ended"].items()), one["unaccounted"]] for one in found["kinds"]]
    print_table(f"{found['studies']} studies of a day", ["kind", "studies", "ended", "unaccounted"], rows, "no study was sent")
    print_table("Instances", ["", ""], list(found["instances"].items()), "none was sent")
    print_table("Objects", ["", ""], list(found["objects"].items()), "none was sent")
    spans = found["seconds_to_delivery"]
    figures: list[list[object]] = [
        [f"seconds from last slice to delivery, {spans['quiet']:g} s of quiet in it: median", spans["median"]],
        ["95 %", spans["p95"]],
        [f"with those that met the outage of {found['outage_s']:g} s: median", spans["median_all"]],
        ["95 %", spans["p95_all"]],
        ["instances/s while the first wave was sent", found["instances_per_s_while_sending"]],
        ["studies/s from the first instance to the last delivery", found["studies_per_s"]],
    ]
    print_table("Figures", ["", ""], figures, "nothing was measured")
    for sentence in found["wrong"]:
        Console().print(f"unaccounted: {sentence}", style="red", highlight=False, markup=False)


def _write(file: Path | None, found: Any) -> None:
    if file is not None:
        file.write_text(json.dumps(found, indent=1) + "\n")
