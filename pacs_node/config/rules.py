"""``rules.yaml``, as far as its structure goes; conditions are compiled by `pacs_node.routing`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from pacs_node.config.units import Duration, Section


class Complete(Section):
    """When a study is complete for one rule; what is left out comes from `Assembly`."""

    quiet: Duration | None = None
    deadline: Duration | None = None
    on_release: bool | None = None
    expect: tuple[str, ...] = ()
    announced: bool = True  # what performed procedure steps and availability notifications say counts, where `reception` takes them
    verify_with: str | None = None  # null: nobody is asked, even where `assembly` names somebody
    fetch: bool | None = None


class Rule(Section):
    """One entry of ``rules.yaml``. ``when`` is compiled by `pacs_node.routing.conditions`."""

    name: str = Field(min_length=1, max_length=64)
    when: Mapping[str, Any] | None = None
    otherwise: bool = False
    series: Literal["largest", "all"] | Mapping[str, Any] = "largest"
    pipeline: str | None = None
    results: tuple[str, ...] | None = None
    notice: bool = True
    complete: Complete = Complete()
    send_to: tuple[str, ...] = ()
    forward: tuple[str, ...] = ()
    priority: Literal["urgent", "normal", "night"] = "normal"
    shadow: bool = False  # try the rule: its jobs run and are kept, nothing is sent or forwarded

    @model_validator(mode="after")
    def _one_trigger(self) -> Rule:
        if not self.otherwise and self.when is None:
            raise ValueError("a rule needs `when:` (conditions), `otherwise: true` (no rule without it fired), or both")
        return self


class RuleList(Section):
    """``rules.yaml`` as a whole."""

    rules: tuple[Rule, ...] = ()
