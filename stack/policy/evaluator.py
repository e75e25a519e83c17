"""What a bundle decides: its rules, compiled to closures over the facts of one call.

All of a rule's conditions must hold for it to match, each of them as the rule's outcome needs it: what forbids is met
by one value that is as it says, what allows by all (`stack/policy/comparisons.py`).  Among the rules that match, deny
overrides (that a rule takes only sandboxed tools is one; a deny that asks where values come from stands after the
others), then require_approval (the largest quorum first, then by rule id), then allow.  Nothing matched is a deny, and
so is any exception: a condition that cannot be evaluated
denies (`policy_error`) rather than being skipped.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time
from typing import Any, NamedTuple, get_args
from zoneinfo import ZoneInfo

import msgspec

from airside.stack.contracts.labels import tidy_label
from airside.stack.errors import text_of
from airside.stack.policy.bundle import (
    DAYS,
    ArgumentTest,
    Bundle,
    OriginTest,
    RemainingTest,
    ResourceTest,
    Rule,
    TimeWindow,
    When,
)
from airside.stack.policy.comparisons import compile_test
from airside.stack.policy.resource_rules import compile_resource
from airside.stack.reasons import ReasonCode
from airside.stack.resources import ResourceFact
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.text.names import matcher
from airside.stack.values import ApprovalRule, Decision, EffectClass, Identity, Limits, ValueOrigin


class NotTraced(Exception):
    """Nobody traced the values of a call that a rule asks about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a decision may depend on; `origins` is None for a call that was not traced."""

    tool: ToolSpec
    identity: Identity
    arguments: dict[str, Any]
    labels: frozenset[str]
    remaining: Limits
    now_us: int
    origins: tuple[ValueOrigin, ...] | None = ()
    resources: tuple[ResourceFact, ...] = ()


Condition = Callable[[Facts], bool]
_EFFECTS: tuple[EffectClass, ...] = get_args(EffectClass)


class _Compiled(NamedTuple):
    """A rule: all its conditions, those on resources last, and how many stand before these."""

    decision: Decision
    when: When
    conditions: list[Condition]
    plain: int

    def may_match(self, facts: Facts) -> bool:
        """Whether every condition holds that is not on resources."""
        return all(condition(facts) for condition in self.conditions[: self.plain])


class Evaluator:
    """A bundle, compiled: for each effect class, the rules that could match, each a list of closures over `Facts`."""

    def __init__(self, bundle: Bundle) -> None:
        self.version = bundle.version
        order = {"deny": 0, "require_approval": 1, "allow": 2}
        rules = sorted(bundle.rules, key=lambda r: (order[r.outcome], -_quorum(r), _is_steered(r), r.id))
        compiled = [self._without_sandbox(rule) for rule in rules if rule.require is not None]
        compiled += [self._compiled(rule) for rule in rules]
        self._rules = {
            effect: [each for each in compiled if effect in (each.when.effect or [effect])] for effect in _EFFECTS
        }

    def evaluate(self, facts: Facts) -> Decision:
        """Return the decision; an exception anywhere is a deny with `policy_error`.

        Raises `NotTraced` if a rule asks for the origins of a call without, or a person is to be shown them.
        """
        try:
            first: Decision | None = None
            # Every rule is evaluated even when one has matched, so that an error denies wherever it stands.
            for decision, _, conditions, _ in self._rules[facts.tool.effect]:
                for condition in conditions:
                    if not condition(facts):
                        break
                else:
                    first = first or decision
        except NotTraced:
            raise
        except Exception as error:
            return self.error(text_of(error))
        if facts.origins is None and first is not None and first.approval is not None:
            raise NotTraced
        return first or self.deny(ReasonCode.POLICY_DENIED, "no rule allows it")

    def asked(self, facts: Facts) -> frozenset[tuple[str, str]]:
        """Return the declared resources of a call that some rule asks about whose other conditions hold.

        None, if the call is denied whatever they are, or some rule cannot be evaluated, which `evaluate` says.
        Raises `NotTraced` if a rule asks for the origins of a call without.
        """
        asked: frozenset[tuple[str, str]] = frozenset()
        try:
            for rule in self._rules[facts.tool.effect]:
                asks = rule.when.asks(facts.tool)
                if asks and rule.may_match(facts):
                    asked |= asks
                elif rule.when.resource is None and rule.decision.outcome == "deny" and rule.may_match(facts):
                    return frozenset()
        except NotTraced:
            raise
        except Exception:
            return frozenset()
        return asked

    def deny(self, reason: ReasonCode, detail: str, rule: str = "default-deny") -> Decision:
        """Return a deny that no rule of the bundle made."""
        return Decision(
            outcome="deny", reason_code=reason, rule=rule, policy_version=self.version, detail=detail[:2000]
        )

    def error(self, detail: str) -> Decision:
        """Return the deny for a policy that could not be evaluated."""
        return self.deny(ReasonCode.POLICY_ERROR, detail, rule="error")

    def _compiled(self, rule: Rule) -> _Compiled:
        plain = conditions_of(rule)
        about = [_resource_condition(test, rule.outcome != "allow") for test in rule.when.resource or ()]
        return _Compiled(self._decision(rule), rule.when, plain + about, len(plain))

    def _without_sandbox(self, rule: Rule) -> _Compiled:
        """Return the deny of what a rule matches whose tool has no sandbox, as the rule requires."""
        same = self._compiled(rule)
        denied = self.deny(ReasonCode.SANDBOX_REQUIRED, rule.description, rule=rule.id)
        decision = msgspec.structs.replace(denied, code=rule.code)
        return _Compiled(decision, rule.when, [lambda f: f.tool.lane != "sandbox", *same.conditions], same.plain + 1)

    def _decision(self, rule: Rule) -> Decision:
        terms = rule.approval
        approval = None
        if terms is not None:
            approval = ApprovalRule(
                roles=tuple(terms.roles), quorum=terms.quorum, expires_after_s=terms.expires_after_s
            )
        return Decision(
            outcome=rule.outcome,
            reason_code=ReasonCode.POLICY_DENIED if rule.outcome == "deny" else ReasonCode.ALLOWED,
            rule=rule.id,
            code=rule.code,
            policy_version=self.version,
            detail=rule.description,
            approval=approval,
            steered=_is_steered(rule),
        )


_GIVEN = frozenset({"origins", "tool", "effect", "risk", "lane", "labels", "tenant", "principal", "roles", "scopes"})
"""Conditions by which an agent learns nothing but where a value comes from, however often it tries."""


def _is_steered(rule: Rule) -> bool:
    """Whether a rule denies for where a value comes from, and for nothing else that an agent could feel its way along.

    By a rule that also compares an argument, a resource, what is left or the time it could find out the bound.
    """
    given = {name for name in When.model_fields if getattr(rule.when, name) is not None}
    return rule.outcome == "deny" and "origins" in given and given <= _GIVEN


def _quorum(rule: Rule) -> int:
    return rule.approval.quorum if rule.approval else 0


def conditions_of(rule: Rule, *, origins: bool = True) -> list[Condition]:
    """Compile the conditions but those on resources, cheapest first; the effect's is the list the rule is in.

    `origins` = those on origins, too.
    """
    when, forbids = rule.when, rule.outcome != "allow"
    found: list[Condition] = []
    if when.risk is not None:
        risks = frozenset(when.risk)
        found.append(lambda f: f.tool.risk in risks)
    if when.lane is not None:
        lanes = frozenset(when.lane)
        found.append(lambda f: f.tool.lane in lanes)
    found += _name_conditions(when)
    if when.roles is not None:
        roles = frozenset(when.roles)
        found.append(lambda f: not roles.isdisjoint(f.identity.roles))
    if when.scopes is not None:
        scopes = frozenset(when.scopes)
        found.append(lambda f: scopes.issubset(f.identity.scopes))
    if when.labels is not None:
        found.append(_label_condition(frozenset(when.labels), forbids))
    found += [_remaining_condition(test) for test in when.remaining or []]
    found += [_argument_condition(test, forbids) for test in when.arguments or []]
    if origins:
        found += [_origin_condition(test, test.trusts(rule.outcome), forbids) for test in when.origins or []]
    if when.time is not None:
        found.append(_time_condition(when.time))
    return found


def _name_conditions(when: When) -> list[Condition]:
    found: list[Condition] = []
    if when.tool is not None:
        tool = matcher(when.tool)
        found.append(lambda f: tool(f.tool.name))
    if when.tenant is not None:
        tenant = matcher(when.tenant)
        found.append(lambda f: tenant(f.identity.tenant))
    if when.principal is not None:
        principal = matcher(when.principal)
        found.append(lambda f: principal(f.identity.principal))
    return found


_COMPARE: dict[str, Callable[[int, int], bool]] = {
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}


def _label_condition(labels: frozenset[str], forbids: bool) -> Condition:
    if not forbids:
        return lambda f: not labels.isdisjoint(f.labels)
    # Runs that began before labels were tidied where they enter may hold others.
    return lambda f: not labels.isdisjoint(f.labels) or any(tidy_label(each) in labels for each in f.labels)


def _remaining_condition(test: RemainingTest) -> Condition:
    compare = _COMPARE[test.op]
    return lambda f: compare(getattr(f.remaining, test.unit), test.value)


def _argument_condition(test: ArgumentTest, forbids: bool) -> Condition:
    check = compile_test(test, forbids=forbids)
    return lambda f: check(f.arguments, f.identity, f.arguments)


def _resource_condition(test: ResourceTest, forbids: bool) -> Condition:
    check = compile_resource(test, forbids=forbids)
    return lambda f: check(f.resources, f.arguments, f.identity)


def _origin_condition(test: OriginTest, trusts: bool, forbids: bool) -> Condition:
    listed, is_within = frozenset(test.outside or test.within or ()), test.within is not None
    parts = ("authority", "content") if test.of == "any" else (test.of,)

    def is_listed(traced: ValueOrigin) -> bool:
        if traced.origin in listed:
            return True
        # What a run made, or the request names, a tool returned all the same.
        if traced.origin not in ("tool", "created", "named"):
            return False
        # A name that a directory returns may hold a planted address: a part of a value vouches for nothing.
        is_by_name = f"tool:{traced.detail.partition(',')[0]}" in listed
        return "tool" in listed or (is_by_name and (traced.whole or not trusts))

    def meets(facts: Facts) -> Iterator[bool]:
        if facts.origins is None:
            raise NotTraced
        return (is_listed(traced) is is_within for traced in facts.origins if traced.part in parts)

    if forbids:
        return lambda facts: any(meets(facts))
    return lambda facts: all(meets(facts)) and (is_within or any(meets(facts)))


def _time_condition(window: TimeWindow) -> Condition:
    zone, days = ZoneInfo(window.zone), frozenset(DAYS.index(day) for day in window.days)
    start, end = time.fromisoformat(window.start), time.fromisoformat(window.end)

    def holds(facts: Facts) -> bool:
        now = datetime.fromtimestamp(facts.now_us / 1e6, tz=UTC).astimezone(zone)
        clock = now.time().replace(second=0, microsecond=0)
        if start <= end:
            return now.weekday() in days and start <= clock <= end
        # Over midnight: the small hours belong to the day the window began on.
        began = now.weekday() if clock >= start else (now.weekday() - 1) % 7
        return began in days and (clock >= start or clock <= end)

    return holds
