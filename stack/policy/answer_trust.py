"""Whose answers count as a person's word: of who could have approved, alone, whatever the rules ask about origins.

An answer may be the value of a later call, as a choice that a planted text wrote.  So it vouches for no more than its
author could have approved as that call: for nothing, if some rule asks people in other roles, or more than one, or if
some rule trusts answers in calls of a tool about which nobody is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from airside.stack.policy.bundle import Bundle, Rule
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.text.names import matcher
from airside.stack.values import Answer, Identity


class _Approvers(NamedTuple):
    """Who approves what one rule asks about, in the tenants it is about."""

    covers: Callable[[str], bool]
    tools: frozenset[str]
    roles: frozenset[str]
    quorum: int


class _Trusting(NamedTuple):
    """The tools of whose calls one rule takes an answer, in the tenants it is about."""

    covers: Callable[[str], bool]
    tools: frozenset[str]


class AnswerTrust:
    """The rules of a bundle that ask people because of where values come from, and those that take their answers."""

    def __init__(self, bundle: Bundle, specs: Iterable[ToolSpec]) -> None:
        acting = [spec for spec in specs if not spec.answered_by]  # nobody approves a question
        meant = [(rule, frozenset(spec.name for spec in bundle.matched_tools(rule, acting))) for rule in bundle.rules]
        self._rules = [
            _Approvers(_tenants(rule), tools, frozenset(rule.approval.roles), rule.approval.quorum)
            for rule, tools in meant
            if rule.approval is not None and rule.when.origins is not None and tools
        ]
        self._trusting = [_Trusting(_tenants(rule), tools) for rule, tools in meant if trusts_answers(rule) and tools]

    def vouches(self, answer: Answer | None, requester: Identity) -> bool:
        """Whether an answer in a run of the requester's is a person's word; the requester's own is not.

        Where nobody is asked about origins, nobody may approve, and no answer counts.
        """
        if answer is None or answer.by == requester.principal:
            return False
        asked = [rule for rule in self._rules if rule.covers(requester.tenant)]
        approvable = frozenset[str]().union(*(rule.tools for rule in asked))
        return (
            bool(asked)
            and all(rule.quorum == 1 and not rule.roles.isdisjoint(answer.roles) for rule in asked)
            and all(rule.tools <= approvable for rule in self._trusting if rule.covers(requester.tenant))
        )


def trusts_answers(rule: Rule) -> bool:
    """Whether a rule is milder because a value is what a person answered."""
    return any(test.trusts_answers(rule.outcome) for test in rule.when.origins or ())


def _tenants(rule: Rule) -> Callable[[str], bool]:
    return matcher(rule.when.tenant or ["*"])
