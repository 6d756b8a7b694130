"""What the rules decide for a study, and the work that follows from it. Functions of values only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pacs_node.routing.conditions import Condition, Line
from pacs_node.routing.rules import SENDER, RoutingRule, Rules
from pacs_node.routing.series import SeriesView

URGENCY = ("urgent", "normal", "night")  # most urgent first


@dataclass(frozen=True, slots=True)
class Target:
    """Where results go. ``kinds`` without notices; None: the defaults of the destination's kind. ``notice``: it may get a notice.

    ``shadow_rules``: not empty where only these rules, which are tried, would send there: then nothing goes.
    """

    destination: str
    kinds: tuple[str, ...] | None
    notice: bool
    shadow_rules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SeriesTrial:
    """How a rule came out on one series: ``held`` for `when`, ``selected`` for `series`, with a line for each condition."""

    series_uid: str
    label: str
    held: bool
    selected: bool
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """What one rule decided for one study: whether it fires, on which series, what it asks for, and why."""

    rule: RoutingRule
    fired: bool
    series_uids: tuple[str, ...]
    targets: tuple[Target, ...]
    forward: tuple[str, ...]
    why: str
    trials: tuple[SeriesTrial, ...]


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A pipeline to be run on selected series; ``pipeline`` is ``""`` where only a notice is wanted. ``shadow_rules``: those of ``rules`` that are tried."""

    pipeline: str
    series_uids: tuple[str, ...]
    rules: tuple[str, ...]
    targets: tuple[Target, ...]
    priority: str
    shadow_rules: tuple[str, ...] = ()

    @property
    def shadow(self) -> bool:
        """Only rules that are tried ask for it."""
        return len(self.shadow_rules) == len(self.rules)

    def only_shadow(self) -> JobRequest:
        """Return what the rules that are tried ask for, without the others."""
        targets = tuple(target for target in self.targets if target.shadow_rules)
        return replace(self, rules=self.shadow_rules, targets=targets)


# --- route -------------------------------------------------------------------------------------------------------------


def route(rules: Rules, study: Sequence[SeriesView]) -> tuple[Decision, ...]:
    """Ask every rule about a study.

    Returns one decision for each rule, in the order of the file. Each ordinary rule that holds on a series fires; the rules with
    `otherwise` (there may be several) fire when none of those did and their conditions, if they have any, hold on a series. For them
    a rule that is only tried does not count.
    """
    ordinary = {rule.name: _decide(rule, rules, study) for rule in rules.rules if not rule.otherwise}
    winners = [name for name, decision in ordinary.items() if decision.fired and not decision.rule.shadow]
    return tuple(_fall_back(rule, rules, study, winners) if rule.otherwise else ordinary[rule.name] for rule in rules.rules)


def _decide(rule: RoutingRule, rules: Rules, study: Sequence[SeriesView]) -> Decision:
    holding = [series for series in study if rule.when.holds(series)]
    selected = _select(rule, holding)
    trials = tuple(_trial(rule, series, series in holding, series in selected) for series in study)
    if not holding:
        return _decision(rule, rules, (), "its conditions hold together on no series" if study else "the study has no series", trials)
    if not selected:
        return _decision(rule, rules, (), f"its conditions hold on {len(holding)} series, but none of them is what `series` asks for", trials)
    return _decision(rule, rules, selected, _selection_words(rule, len(holding)), trials)


def _fall_back(rule: RoutingRule, rules: Rules, study: Sequence[SeriesView], winners: Sequence[str]) -> Decision:
    if winners:
        return _decision(rule, rules, (), f"otherwise, but a rule fired: {', '.join(winners)}", ())
    decision = _decide(rule, rules, study)
    return replace(decision, why=f"no other rule fired; {decision.why}")


def _decision(rule: RoutingRule, rules: Rules, selected: Sequence[SeriesView], why: str, trials: tuple[SeriesTrial, ...]) -> Decision:
    fired = bool(selected)
    targets, unknown = _targets(rule, rules, selected) if fired else ((), ())
    if unknown:
        why += f"; no results_to is configured for the sender {', '.join(unknown)}, so nothing goes back to it"
    return Decision(rule, fired, tuple(series.series_uid for series in selected), targets, rule.forward if fired and not rule.shadow else (), why, trials)


def _select(rule: RoutingRule, holding: Sequence[SeriesView]) -> list[SeriesView]:
    if rule.selection == "largest":
        return sorted(holding, key=_by_size)[:1]
    if rule.selection == "all" or isinstance(rule.selection, str):
        return list(holding)
    return [series for series in holding if rule.selection.holds(series)]


def _by_size(series: SeriesView) -> tuple[int, bool, int, str]:
    """Most frames first, then the lowest SeriesNumber; the UID keeps the choice the same in every order of arrival."""
    return -series.frames, series.number is None, series.number or 0, series.series_uid


def _selection_words(rule: RoutingRule, holding: int) -> str:
    which = {"largest": "the largest of them is taken", "all": "all of them are taken"}
    words = which[rule.selection] if isinstance(rule.selection, str) else "those that `series` asks for are taken"
    return f"its conditions hold on {holding} series; {words}"


def _trial(rule: RoutingRule, series: SeriesView, held: bool, selected: bool) -> SeriesTrial:
    conditions: list[Condition] = [rule.when]
    if held and not isinstance(rule.selection, str):
        conditions.append(rule.selection)
    lines = tuple(line for condition in conditions for line in condition.explain(series))
    return SeriesTrial(series.series_uid, series.label, held, selected, lines)


def _targets(rule: RoutingRule, rules: Rules, selected: Iterable[SeriesView]) -> tuple[tuple[Target, ...], tuple[str, ...]]:
    """Return the targets with `sender` resolved, and the senders for which there is none."""
    calling = dict.fromkeys(series.calling_ae.strip() for series in selected)
    names: dict[str, None] = {}
    unknown: list[str] = []
    for name in rule.send_to:
        if name != SENDER:
            names[name] = None
            continue
        names |= {rules.results_to[title]: None for title in calling if title in rules.results_to}
        unknown += [title or "without AE title" for title in calling if title not in rules.results_to]
    tried = (rule.name,) if rule.shadow else ()
    return tuple(Target(name, rule.results, rule.notice, tried) for name in names), tuple(unknown)


def divert(decisions: Iterable[Decision], destination: str | None) -> tuple[Decision, ...]:
    """Return what the rules decide for a heartbeat: their pipelines run, everything goes to ``destination``, nothing is told or forwarded.

    Rules without pipeline and those that are only tried do not fire for it, nor does any where there is no ``destination``.
    """
    return tuple(_diverted(decision, destination) for decision in decisions)


def _diverted(decision: Decision, destination: str | None) -> Decision:
    rule = decision.rule
    if destination is None or rule.shadow or rule.pipeline is None:
        why = "a heartbeat, for which only rules with a pipeline fire, and only where `heartbeat` is configured"
        return replace(decision, fired=False, targets=(), forward=(), why=why) if decision.fired else decision
    return replace(decision, targets=(Target(destination, rule.results, notice=False),), forward=()) if decision.fired else decision


# --- work --------------------------------------------------------------------------------------------------------------


def jobs(decisions: Iterable[Decision], defaults: Mapping[str, Sequence[str]] | None = None) -> tuple[JobRequest, ...]:
    """Return the work that fired rules ask for: one request for each pipeline and selection of series.

    Rules that name the same one are merged: every destination of either, the union of the kinds that each destination is to get,
    the most urgent priority. ``defaults`` (destination name -> kinds) says what None stands for where it meets a list of kinds;
    without it such a destination gets its defaults only. A rule without pipeline asks for work only where it wants a notice. Rules that
    are tried join the work of the others, and change neither its priority nor what goes where: their targets stay apart.
    """
    merged: dict[tuple[str, frozenset[str]], JobRequest] = {}
    for decision in decisions:
        request = _request(decision)
        if request is not None:
            key = request.pipeline, frozenset(request.series_uids)
            merged[key] = _merge(merged[key], request, defaults or {}) if key in merged else request
    return tuple(merged.values())


def _request(decision: Decision) -> JobRequest | None:
    rule = decision.rule
    if not decision.fired or (rule.pipeline is None and not decision.targets):
        return None
    tried = (rule.name,) if rule.shadow else ()
    return JobRequest(rule.pipeline or "", decision.series_uids, (rule.name,), decision.targets, rule.priority, tried)


def _merge(one: JobRequest, other: JobRequest, defaults: Mapping[str, Sequence[str]]) -> JobRequest:
    targets = {(target.destination, bool(target.shadow_rules)): target for target in one.targets}
    for target in other.targets:
        key = target.destination, bool(target.shadow_rules)
        targets[key] = target if key not in targets else _union(targets[key], target, defaults.get(target.destination))
    live = [request for request in (one, other) if not request.shadow] or [one, other]
    priority = min((request.priority for request in live), key=URGENCY.index)
    return JobRequest(one.pipeline, one.series_uids, one.rules + other.rules, tuple(targets.values()), priority, one.shadow_rules + other.shadow_rules)


def _union(one: Target, other: Target, defaults: Sequence[str] | None) -> Target:
    kinds: tuple[str, ...] | None = None
    if one.kinds != other.kinds and (defaults is not None or None not in (one.kinds, other.kinds)):
        first, second = (tuple(defaults or ()) if target.kinds is None else target.kinds for target in (one, other))
        kinds = tuple(dict.fromkeys(first + second))
    elif one.kinds == other.kinds:
        kinds = one.kinds
    return Target(one.destination, kinds, one.notice or other.notice, one.shadow_rules + other.shadow_rules)


def forwards(decisions: Iterable[Decision]) -> tuple[str, ...]:
    """Return the destinations that are to get the study's originals, each once."""
    return tuple(dict.fromkeys(name for decision in decisions for name in decision.forward))
