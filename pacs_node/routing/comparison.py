"""What other rules would change: two sets of decisions on one study, as `explanation.as_json` writes them, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Decisions = Sequence[Mapping[str, Any]]

_ASPECTS: dict[str, Callable[[Mapping[str, Any]], str]] = {  # what a rule that fires asks for, in the words for people
    "pipeline": lambda decided: decided.get("pipeline") or "no pipeline",
    "series": lambda decided: f"{len(decided.get('series', ()))} series ({', '.join(sorted(decided.get('series', ())))})",
    "send_to": lambda decided: ", ".join(sorted(map(_target, decided.get("send_to", ())))) or "nobody",
    "forward": lambda decided: ", ".join(sorted(decided.get("forward", ()))) or "nobody",
    "priority": lambda decided: decided.get("priority", "normal"),
    "shadow": lambda decided: "under trial" if decided.get("shadow") else "in force",
}


def _target(target: Mapping[str, Any]) -> str:
    kinds = "defaults" if target.get("kinds") is None else "+".join(target["kinds"]) or "no results"
    return f"{target['destination']} ({kinds}{', notice' if target.get('notice') else ''})"


def changes(then: Decisions, now: Decisions) -> tuple[str, ...]:
    """Return in sentences what is decided differently ``now``; () where the same would be done."""
    before, after = ({str(decided["rule"]): decided for decided in decisions} for decisions in (then, now))
    found: list[str] = []
    for rule in dict.fromkeys([*before, *after]):
        one, other = before.get(rule, {}), after.get(rule, {})
        if one.get("fired") and not other.get("fired"):
            found.append(f"rule {rule!r} fired and would not now: {other['why'] if other else 'it is not there any more'}")
        elif other.get("fired") and not one.get("fired"):
            found.append(f"rule {rule!r} would fire now: {other['why']}")
        elif one.get("fired"):
            found += [f"rule {rule!r}: {name} was {say(one)}, would be {say(other)}" for name, say in _ASPECTS.items() if say(one) != say(other)]
    return tuple(found)
