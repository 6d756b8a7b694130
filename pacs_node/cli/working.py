"""Commands about the work of a running node: status, jobs, job, deliveries, retry, cancel, release."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from pacs_node.cli.options import AsJson, ConfigFile, print_json, print_table, print_why, settings_of


def register(app: typer.Typer) -> None:
    """Add the commands of this group."""
    for command in (status, jobs, job, shadow, deliveries, retry, cancel, release, clear, fsck):
        app.command()(command)


_MOST_ALERTS = 20


def status(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Show alerts, studies and what they wait for, destinations, and what is kept aside.

    Example: pacs-node status
    """
    from pacs_node.workbench.tables import status_tables

    data = status_tables(settings_of(config))
    if as_json:
        print_json(data)
        return
    console = Console()
    for alert in data["alerts"][:_MOST_ALERTS]:
        console.print(f"[bold red]ALERT {alert['id']}[/] since {alert['since']}: {escape(alert['message'])}", highlight=False)
    if len(data["alerts"]) > _MOST_ALERTS:
        console.print(f"[red]and {len(data['alerts']) - _MOST_ALERTS} older alerts: `pacs-node status --json` lists all, `pacs-node clear` takes them back[/]")
    print_table(
        "Studies",
        ["id", "state", "modality", "instances", "accession", "waits for", "outcome", "files removed"],
        [[s["id"], s["state"], s["modality"], s["instances"], s["accession"], s["waiting_for"], s["outcome"], s["removed"]] for s in data["studies"]],
        "none received yet",
    )
    print_table(
        "Destinations",
        ["name", "state", "waiting", "of these uncommitted", "delivered", "replaced", "refused or parked", "problem"],
        [[d["name"], d["state"], d["waiting"], d["uncommitted"], d["delivered"], d["replaced"], d["stuck"], d["problem"]] for d in data["destinations"]],
        "none configured",
    )
    for disk in data["disk"]:
        if disk["pressure"] != "normal":
            console.print(f"[yellow]disk: {disk['meaning']} ({disk['free_gb']} GB free)[/]", highlight=False)
    if data["drift"]:
        columns = ["bundle", "scanner", "patients", "since", "above", "expected", "higher", "lower", "state"]
        print_table("Scores against the calibration", columns, [[row[name] for name in columns] for row in data["drift"]], "")
    for own in data["came_back"]:
        console.print(f"[dim]{own['instances']} results of this node came back to it in {own['studies']} studies: kept, not analysed[/]", highlight=False)
    print_table("Kept aside", ["kind", "file", "reason"], [[a["kind"], a["path"], a["reason"]] for a in data["aside"]], "nothing")


def jobs(config: ConfigFile = None, as_json: AsJson = False, limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 50) -> None:
    """List the newest jobs.

    Example: pacs-node jobs --limit 20
    """
    from pacs_node.workbench.tables import job_rows

    rows = job_rows(settings_of(config), limit)
    if as_json:
        print_json(rows)
        return
    columns = ["id", "study", "pipeline", "run", "state", "score", "verdict", "seconds", "reason"]
    cells = [[f"{row[name]} (shadow)" if name == "state" and row["shadow"] else row[name] for name in columns] for row in rows]
    print_table("Jobs", columns, cells, "none yet")


def job(job_id: Annotated[int, typer.Argument(help="Number of the job.")], config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Show one job: why it was made, what was found, which objects it built and where they went.

    Example: pacs-node job 12
    """
    from pacs_node.workbench.tables import job_page

    page = job_page(settings_of(config), job_id)
    if as_json:
        print_json(page)
        return
    found = page["facts"].pop("finding")
    facts = {**page["facts"], **{name: value for name, value in found.items() if name not in ("contributions", "hottest", "head")}}
    print_table(f"Job {job_id}", ["", ""], [[name, value] for name, value in facts.items()], "")
    print_why(found)
    columns = ["kind", "sop_uid", "destination", "state", "attempts", "status", "message"]
    print_table("Objects", columns, [[row.get(name) for name in columns] for row in page["objects"]], "none")


def shadow(past: Annotated[str, typer.Option(help="Of the jobs made in this time.")] = "7d", config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Show what rules under trial (`shadow: true`) found and would have sent, beside what the others said of the same studies.

    Example: pacs-node shadow --past 7d
    """
    from pacs_node.workbench.shadow import report

    rules = report(settings_of(config), past)
    if as_json:
        print_json(rules)
        return
    if not rules:
        typer.echo(f"no rule was under trial in the last {past}: give one `shadow: true` in the rules")
    for rule in rules:
        facts = {"studies": rule["studies"], "jobs": _counted(rule["jobs"]), "verdicts": _counted(rule["verdicts"]), "scores": _counted(rule["scores"])}
        print_table(f"Rule {rule['rule']}", ["", ""], [[name, value] for name, value in facts.items()], "")
        for title, rows, empty in (
            ("would have sent", rule["would_send"], "nothing"),
            ("without a result", rule["failures"], "none"),
            ("beside the rules that send", rule["beside"], "no other rule looked at these studies"),
        ):
            print_table(title, list(rows[0]) if rows else [], [list(row.values()) for row in rows], empty)


def _counted(counts: Mapping[str, float]) -> str:
    return ", ".join(f"{name}: {value:.3f}" if isinstance(value, float) else f"{value} {name}" for name, value in counts.items()) or "none"


def deliveries(config: ConfigFile = None, as_json: AsJson = False, limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 100) -> None:
    """List the newest deliveries: each object on its way to each destination.

    Example: pacs-node deliveries
    """
    from pacs_node.workbench.tables import delivery_rows

    rows = delivery_rows(settings_of(config), limit)
    if as_json:
        print_json(rows)
        return
    columns = ["id", "study", "job", "kind", "count", "destination", "state", "attempts", "next_attempt", "status", "message"]
    print_table("Deliveries", columns, [[row[name] for name in columns] for row in rows], "none yet")


def retry(
    what: Annotated[str | None, typer.Argument(help="job or delivery")] = None,
    number: Annotated[int | None, typer.Argument(help="Its number.")] = None,
    parked: Annotated[bool, typer.Option("--parked", help="All parked jobs, and all parked and refused deliveries.")] = False,
    config: ConfigFile = None,
) -> None:
    """Run a job or send an object again.

    Examples: pacs-node retry job 12 · pacs-node retry delivery 30 · pacs-node retry --parked
    """
    from pacs_node.journey import now, operate
    from pacs_node.workbench.shadow import live_rules
    from pacs_node.workbench.tables import open_store

    if parked == (what is not None) or (what is not None and (what not in ("job", "delivery") or number is None)):
        raise typer.BadParameter("say `job NUMBER`, `delivery NUMBER` or --parked")
    settings = settings_of(config)
    with open_store(settings) as store:
        if parked:
            typer.echo(operate.retry_parked(store, now(), live_rules(settings)))
        elif what == "job" and number is not None:
            typer.echo(operate.retry_job(store, number, now(), live_rules(settings)))
        elif number is not None:
            typer.echo(operate.retry_delivery(store, number, now()))


def cancel(job_id: Annotated[int, typer.Argument(help="Number of the job.")], config: ConfigFile = None) -> None:
    """Cancel a job that has not finished, and what it has not sent.

    Example: pacs-node cancel 12
    """
    from pacs_node.journey import now, operate
    from pacs_node.workbench.tables import open_store

    with open_store(settings_of(config)) as store:
        typer.echo(operate.cancel_job(store, job_id, now()))


def release(study_id: Annotated[int, typer.Argument(help="Number of the held study.")], config: ConfigFile = None) -> None:
    """Free a held study: you say that the patients named in it are one.

    Example: pacs-node release 7
    """
    from pacs_node.journey import now, operate
    from pacs_node.workbench.tables import open_store

    with open_store(settings_of(config)) as store:
        typer.echo(operate.release(store, study_id, now()))


def clear(
    alert_id: Annotated[int | None, typer.Argument(help="Number of the alert, as `status` shows it.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All alerts.")] = False,
    config: ConfigFile = None,
) -> None:
    """Take alerts back that have been dealt with. What still holds is raised again.

    Examples: pacs-node clear 4 · pacs-node clear --all
    """
    from pacs_node.journey import now, operate
    from pacs_node.workbench.tables import open_store

    if everything == (alert_id is not None):
        raise typer.BadParameter("give the number of an alert, or --all")
    with open_store(settings_of(config)) as store:
        typer.echo(operate.clear(store, alert_id, now()))


def fsck(
    config: ConfigFile = None,
    repair: Annotated[bool, typer.Option("--repair", help="Put right what can be; without it nothing is changed. The node must not run.")] = False,
    deep: Annotated[bool, typer.Option("--deep", help="Also read the beginning of every received file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare spool, study folders, results and database; one line for each difference. Exit code 1 where one remains.

    Examples: pacs-node fsck · pacs-node fsck --deep --repair
    """
    from pacs_node.workbench.fsck import Finding, examine

    def say(finding: Finding) -> None:
        if not as_json:
            typer.echo(finding.line(repair))

    report = examine(settings_of(config), repair=repair, deep=deep, said=say)
    if as_json:
        print_json(report.as_json())
    else:
        typer.echo(report.sentence())
    raise typer.Exit(1 if report.open else 0)
