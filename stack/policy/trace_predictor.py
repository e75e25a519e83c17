"""`TracePredictor`: which calls a runtime traces before it asks Policy.

To trace a call costs as much as all else of its step, and most calls no rule asks about.  A runtime has the bundle, so
it can tell nearly always what the gate will want.  This decides nothing: a call that comes untraced where a rule asks
for origins, or a person is to be asked, the gate sends back to be traced (`GateReply.untraced`), which costs a message.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from airside.stack.policy.bundle import Bundle, may_match
from airside.stack.policy.evaluator import Condition, Facts, conditions_of
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.values import Identity, Limits


class TracePredictor:
    """The rules of a bundle that ask for origins or for a person, by the tools they may be about."""

    def __init__(self, bundle: Bundle, specs: Iterable[ToolSpec]) -> None:
        asking = [(rule.when, conditions_of(rule, origins=False)) for rule in bundle.rules if rule.shows_origins]
        self._rules: dict[str, tuple[ToolSpec, list[list[Condition]]]] = {
            spec.name: (spec, [conditions for when, conditions in asking if may_match(when, spec)]) for spec in specs
        }

    def expects(
        self,
        tool: str,
        arguments: dict[str, Any],
        *,
        identity: Identity,
        labels: frozenset[str],
        remaining: Limits,
        now_us: int,
    ) -> bool:
        """Whether some rule will ask about a call, as far as is known of it; where that cannot be told, yes."""
        spec, rules = self._rules.get(tool, (None, []))
        if spec is not None and spec.answered_by is not None:
            return True
        if spec is None or not rules:
            return False
        facts = Facts(
            tool=spec,
            identity=identity,
            arguments={**spec.defaults, **arguments},
            labels=labels,
            remaining=remaining,
            now_us=now_us,
        )
        try:
            return any(all(condition(facts) for condition in rule) for rule in rules)
        except Exception:  # the gate says what is wrong
            return True
