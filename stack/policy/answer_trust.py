"""Whose answers count as a person's word: of who could have approved, alone, whatever the rules ask about origins.

An answer may be the value of a later call, as a choice that a planted text wrote.  So it vouches for no more than its
author could have approved as that call: for nothing, if some rule asks people in other roles, or more than one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from airside.stack.policy.bundle import Bundle
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.text.names import matcher
from airside.stack.values import Answer, Identity


class _Approvers(NamedTuple):
    """Who approves what one rule asks about, in the tenants it is about."""

    covers: Callable[[str], bool]
    roles: frozenset[str]
    quorum: int


class AnswerTrust:
    """The rules of a bundle that ask people because of where values come from."""

    def __init__(self, bundle: Bundle, specs: Iterable[ToolSpec]) -> None:
        tools = list(specs)
        self._rules = [
            _Approvers(matcher(rule.when.tenant or ["*"]), frozenset(rule.approval.roles), rule.approval.quorum)
            for rule in bundle.rules
            if rule.approval is not None and rule.when.origins is not None and bundle.matched_tools(rule, tools)
        ]

    def vouches(self, answer: Answer | None, requester: Identity) -> bool:
        """Whether an answer in a run of the requester's is a person's word; the requester's own is not.

        Where nobody is asked about origins, nobody may approve, and no answer counts.
        """
        if answer is None or answer.by == requester.principal:
            return False
        asked = [rule for rule in self._rules if rule.covers(requester.tenant)]
        return bool(asked) and all(rule.quorum == 1 and not rule.roles.isdisjoint(answer.roles) for rule in asked)
