"""Decisions for people (`pacs-node explain`) and for the status page.

Both show what stands in the headers, names included: they are for operators and belong in no log.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any

from pacs_node.routing.conditions import Line
from pacs_node.routing.decisions import Decision, SeriesTrial

_WIDTH = 60  # characters of one value in a line of text


def render(decisions: Iterable[Decision], *, everything: bool = False) -> list[str]:
    """Return plain lines of text: for each rule its decision, then for each series the conditions that decided, with what was found.

    ``everything`` shows the other conditions too, such as those that held on a series on which another one did not.
    """
    lines: list[str] = []
    for decision in decisions:
        lines.append(f"rule {decision.rule.name!r} {'fires' if decision.fired else 'does not fire'}: {decision.why}")
        if decision.fired:
            lines.append(f"  {_work(decision)}")
        for trial in decision.trials:
            lines.append(f"  {trial.label}: {_outcome(trial)}")
            lines.extend(_condition(line) for line in (trial.lines if everything else telling(trial.lines)))
    return lines


def telling(lines: Sequence[Line]) -> list[Line]:
    """Return the lines that made the outcome what it is.

    Of a failed "all of these" these are the parts that failed, of an "or" that holds the alternatives that hold; a ``not`` turns
    it round. So a line counts where its parent does, and its outcome is the parent's, or the opposite inside a ``not``.
    """
    outcome = all(line.held for line in lines if line.depth == 0)
    wanted: dict[int, bool | None] = {0: outcome}  # by depth: the outcome that tells there; None where the parent does not count
    kept: list[Line] = []
    for line in lines:
        counts = line.held == wanted[line.depth]
        wanted[line.depth + 1] = (line.held != (line.key == "not")) if counts else None
        if counts:
            kept.append(line)
    return kept


def _outcome(trial: SeriesTrial) -> str:
    if trial.selected:
        return "selected"
    return "the conditions hold, not selected" if trial.held else "the conditions do not hold"


def _work(decision: Decision) -> str:
    rule = decision.rule
    work = f"pipeline {rule.pipeline} on {len(decision.series_uids)} series" if rule.pipeline else "no pipeline"
    kinds = "default results" if rule.results is None else ", ".join(rule.results) or ("notice" if rule.pipeline is None and rule.notice else "no results")
    sends = f"; {kinds} to {', '.join(target.destination for target in decision.targets)}" if decision.targets else "; nothing is sent"
    forwarded = f"; originals to {', '.join(rule.forward)}" if rule.forward else ""
    tried = "; shadow: this is tried, nothing of it is sent" if rule.shadow else ""
    return f"{work}{sends}{forwarded}; priority {rule.priority}{tried}"


def _condition(line: Line) -> str:
    mark = "yes" if line.held else "no "
    found = f"; found {shorten(line.found)}" if line.found else ""
    why = f"  ({line.why}{found})" if line.why else ""
    return f"    {'  ' * line.depth}{mark} {line.key}: {shorten(line.wanted)}{why}"


def shorten(text: str) -> str:
    """Return a text on one line, cut where it is long."""
    text = " ".join(text.split())
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"


def as_json(decisions: Iterable[Decision], *, everything: bool = False) -> list[dict[str, Any]]:
    """Return the same as values that `json` can write; without ``everything`` the conditions that decided, long texts cut."""
    return [
        {
            "rule": decision.rule.name,
            "fired": decision.fired,
            "why": decision.why,
            "pipeline": decision.rule.pipeline,
            "priority": decision.rule.priority,
            "shadow": decision.rule.shadow,
            "series": list(decision.series_uids),
            "send_to": [{"destination": target.destination, "kinds": _listed(target.kinds), "notice": target.notice} for target in decision.targets],
            "forward": list(decision.forward),
            "trials": [_trial(trial, everything=everything) for trial in decision.trials],
        }
        for decision in decisions
    ]


def _listed(kinds: tuple[str, ...] | None) -> list[str] | None:
    return None if kinds is None else list(kinds)


def _trial(trial: SeriesTrial, *, everything: bool) -> dict[str, Any]:
    lines = trial.lines if everything else [replace(line, wanted=shorten(line.wanted), found=shorten(line.found)) for line in telling(trial.lines)]
    conditions = [asdict(line) for line in lines]
    return {"series": trial.series_uid, "label": trial.label, "held": trial.held, "selected": trial.selected, "conditions": conditions}
