"""Reading ``rules.yaml``: structure by `pacs_node.config`, then everything that only routing can know; the first fault is an error."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pacs_node.config import AllowedSender, Assembly, Complete, Destination, KeyPath, Rule, load_rule_list, unaskable
from pacs_node.records import RESULT_KINDS
from pacs_node.routing.compiling import ConditionFault, compile_when
from pacs_node.routing.conditions import ALWAYS, Condition

SENDER = "sender"  # in `send_to`: the destination in that sender's `results_to`

Fault = tuple[KeyPath, str]


@dataclass(frozen=True, slots=True)
class RoutingRule:
    """One rule, ready to be asked.

    ``selection``: which of the series that satisfy ``when`` are analysed: the largest, all, or all that satisfy a further condition.
    ``results``: the kinds without ``notice``; None: the defaults of each destination's kind. ``notice``: a notice may go out.
    ``shadow``: the rule is only tried: its jobs run, nothing of them leaves, and what the other rules do is as if it were not there.
    """

    name: str
    when: Condition
    otherwise: bool
    selection: Literal["largest", "all"] | Condition
    pipeline: str | None
    results: tuple[str, ...] | None
    notice: bool
    send_to: tuple[str, ...]
    forward: tuple[str, ...]
    priority: str
    complete: Complete
    shadow: bool = False


@dataclass(frozen=True, slots=True)
class Rules:
    """All rules in the order of the file, and where the results for each sender go (calling AE title -> destination)."""

    rules: tuple[RoutingRule, ...]
    results_to: Mapping[str, str]


def load(
    file: Path,
    *,
    pipelines: Collection[str],
    destinations: Mapping[str, Destination],
    senders: Sequence[AllowedSender] = (),
    assembly: Assembly | None = None,
) -> Rules:
    """Read and check a file of rules.

    Parameters
    ----------
    file
        ``rules.yaml``
    pipelines
        names of the installed bundles
    destinations, senders
        of ``node.yaml``
    assembly
        where given, a rule's ``complete`` is checked together with it

    Raises
    ------
    ConfigError
        for the first fault in the file's order, with its line, key and value
    """
    listed, document = load_rule_list(file)
    known = _Known(frozenset(pipelines), destinations, tuple(senders), assembly)
    written = document.as_written()
    rules: list[RoutingRule] = []
    for index, rule in enumerate(listed.rules):
        path = ("rules", index)
        faults = [*_name_taken(rule, rules), *(fault for check in _CHECKS for fault in check(rule, known))]
        compiled = _compile(rule, written["rules"][index], faults)
        if faults:
            where, problem = min(faults, key=lambda fault: document.line((*path, *fault[0])) or 0)
            raise document.error((*path, *where), problem)
        rules.append(compiled)
    return Rules(tuple(rules), {sender.ae_title: sender.results_to for sender in senders if sender.results_to is not None})


def _compile(rule: Rule, written: Mapping[str, Any], faults: list[Fault]) -> RoutingRule:
    return RoutingRule(
        name=rule.name,
        when=ALWAYS if rule.when is None else _condition(written, "when", faults),
        otherwise=rule.otherwise,
        selection=rule.series if isinstance(rule.series, str) else _condition(written, "series", faults),
        pipeline=rule.pipeline,
        results=None if rule.results is None else tuple(dict.fromkeys(kind for kind in rule.results if kind != "notice")),
        notice=rule.notice,
        send_to=rule.send_to,
        forward=rule.forward,
        priority=rule.priority,
        complete=rule.complete,
        shadow=rule.shadow,
    )


def _condition(written: Mapping[str, Any], key: str, faults: list[Fault]) -> Condition:
    """Compile the conditions under a key of a rule; what is wrong with them joins the faults."""
    try:
        return compile_when(written[key])
    except ConditionFault as fault:
        faults.append(((key, *fault.path), fault.problem))
        return ALWAYS


# --- checks: each yields (path inside the rule, problem) ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Known:
    pipelines: frozenset[str]
    destinations: Mapping[str, Destination]
    senders: tuple[AllowedSender, ...]
    assembly: Assembly | None


def _one_of(value: str, known: Collection[str], what: str, remedy: str) -> str:
    close = difflib.get_close_matches(value, sorted(known), n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(known))}" if known else remedy
    return f"{value!r} is no {what}: {hint}"


def _name_taken(rule: Rule, earlier: Sequence[RoutingRule]) -> Iterable[Fault]:
    if rule.name.casefold() in [other.name.casefold() for other in earlier]:
        yield ("name",), f"{rule.name!r} names an earlier rule: give each rule a name of its own"


def _pipeline(rule: Rule, known: _Known) -> Iterable[Fault]:
    if rule.pipeline is not None and rule.pipeline not in known.pipelines:
        yield ("pipeline",), _one_of(rule.pipeline, known.pipelines, "installed model bundle", "none is installed; put one into the models folder")


def _destinations(rule: Rule, known: _Known) -> Iterable[Fault]:
    remedy = "there are none; add it to `destinations` in node.yaml"
    for key, names in (("send_to", rule.send_to), ("forward", rule.forward)):
        for index, name in enumerate(names):
            if name == SENDER:
                yield from (((key, index), problem) for problem in _sender_problem(key, known))
            elif name not in known.destinations:
                yield (key, index), _one_of(name, known.destinations.keys(), "destination", remedy)


def _sender_problem(key: str, known: _Known) -> Iterable[str]:
    if key == "forward":
        yield "'sender' would send the originals back to where they came from: name a destination"
    targets: dict[str, set[str]] = {}
    for sender in known.senders:
        if sender.results_to is not None:
            targets.setdefault(sender.ae_title, set()).add(sender.results_to)
    if not targets:
        yield "'sender' needs at least one entry of reception.senders in node.yaml with `results_to`: add it, or name a destination"
    for title, names in targets.items():
        if len(names) > 1:
            yield f"'sender' is not clear for {title}, which has the results_to {' and '.join(sorted(names))} in reception.senders: give it one"


def _results(rule: Rule, known: _Known) -> Iterable[Fault]:
    kinds = rule.results or ()
    for index, kind in enumerate(kinds):
        if kind not in RESULT_KINDS:
            yield ("results", index), _one_of(kind, RESULT_KINDS, "kind of result", "")
    for picture in ("sc", "denoised"):
        if picture in kinds and "sr" not in kinds:
            yield ("results",), f"has {picture} without sr: a secondary capture goes only in addition to a report (IHE AIR); add sr"
    if "notice" in kinds and not rule.notice:
        yield ("notice",), "is false, but `results` asks for a notice: remove one of them"


def _without_pipeline(rule: Rule, known: _Known) -> Iterable[Fault]:
    if rule.pipeline is not None:
        return
    made = [kind for kind in rule.results or () if kind != "notice" and kind in RESULT_KINDS]
    if made:
        yield ("results",), f"asks for {', '.join(made)}, but the rule has no pipeline to make them: name one, or write [notice] or []"
    elif rule.results and not rule.send_to:
        yield ("results",), "asks for a notice that goes nowhere: add send_to"
    if rule.send_to and not rule.results:
        yield ("send_to",), "nothing would be sent, for the rule has no pipeline: name one, or write results: [notice]"


def _empty_results(rule: Rule, known: _Known) -> Iterable[Fault]:
    if rule.pipeline is not None and rule.results == () and rule.send_to:
        yield ("results",), f"is empty, but send_to names {', '.join(rule.send_to)}: list what to send, or leave `results` out for the defaults"


def _completeness(rule: Rule, known: _Known) -> Iterable[Fault]:
    own, house = rule.complete, known.assembly
    quiet = own.quiet if own.quiet is not None or house is None else house.quiet
    deadline = own.deadline if own.deadline is not None or house is None else house.deadline
    if quiet is not None and deadline is not None and deadline < quiet:
        key = "deadline" if own.deadline is not None else "quiet"
        yield ("complete", key), "the deadline is shorter than the quiet time, so no study would ever be complete: make it longer"
    if known.assembly is not None and (problem := unaskable(rule.complete.verify_with, known.destinations)):
        yield ("complete", "verify_with"), problem
    for index, text in enumerate(rule.complete.expect):
        if not text.strip():
            yield ("complete", "expect", index), "is empty: write a SeriesDescription, or a part of one"


_CHECKS: tuple[Callable[[Rule, _Known], Iterable[Fault]], ...] = (
    _pipeline,
    _destinations,
    _results,
    _without_pipeline,
    _empty_results,
    _completeness,
)
