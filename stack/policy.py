"""Policy bundles: a versioned list of rules, closed and typed, evaluated to one `Decision`.

All of a rule's conditions must hold for it to match.  Among the rules that match, deny overrides, then
require_approval (the largest quorum first, then by rule id), then allow.  Nothing matched is a deny, and so is any
exception: a condition that cannot be evaluated denies (`policy_error`) rather than being skipped.
"""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from airside.stack.reasons import ReasonCode
from airside.stack.toolspec import ToolSpec
from airside.stack.values import ApprovalRule, Decision, EffectClass, Identity, Limits, Origin, Risk, Traced
from airside.stack.yaml_source import load_yaml

DEFAULT_POLICY = Path(__file__).parent / "policies" / "default.yaml"
"""The bundle that ships: reads and ordinary writes pass, what an outsider's text may have steered is asked about."""


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Operator = Literal[
    "eq", "ne", "lt", "le", "gt", "ge", "in", "not_in", "matches", "contains", "starts_with", "ends_with", "exists"
]
Unit = Literal["max_cost_microusd", "max_tokens", "max_tool_calls", "max_steps", "max_seconds", "max_output_bytes"]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
Strings = Annotated[list[str], Field(min_length=1)]


_OPERANDS: dict[str, tuple[type, ...]] = {
    "lt": (int, float),
    "le": (int, float),
    "gt": (int, float),
    "ge": (int, float),
    "in": (list,),
    "not_in": (list,),
    "matches": (str,),
    "starts_with": (str,),
    "ends_with": (str,),
    "exists": (bool,),
}


def _check_operand(op: str, value: Any) -> None:
    """Raise `ValueError` for a value the operator could only fail on."""
    wanted = _OPERANDS.get(op)
    if wanted is not None and (type(value) not in wanted):
        raise ValueError(f"{op} takes {' or '.join(kind.__name__ for kind in wanted)}, not {value!r:.40}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{op} takes a finite number")
    if op == "matches":
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"{value!r:.60} is not a regular expression: {error}") from None


class ArgumentTest(_Closed):
    """A condition on the arguments.  `path` is dotted, `*` stands for every item of a list (all must satisfy).

    Compare with `value`, or with a fact about the caller: `identity: principal`, `tenant` or `attributes.NAME`.
    A path the arguments do not have satisfies only `exists: false`.
    """

    path: Annotated[str, Field(pattern=r"^[A-Za-z0-9_*]+(\.[A-Za-z0-9_*]+)*$")]
    op: Operator
    value: Any = None
    identity: Annotated[str, Field(pattern=r"^(principal|tenant|attributes\.[A-Za-z0-9_]+)$")] | None = None

    @model_validator(mode="after")
    def _has_one_operand(self) -> ArgumentTest:
        given = self.model_fields_set
        if ("value" in given) == ("identity" in given):
            raise ValueError("give either value or identity")
        if "value" in given:
            _check_operand(self.op, self.value)
        elif self.op not in ("eq", "ne", "in", "not_in"):
            raise ValueError(f"{self.op} compares with a value, not with the identity")
        return self


class OriginTest(_Closed):
    """A condition on where the arguments' values come from (`stack/provenance.py`).

    `outside`: at least one value (`of: authority`, `content`, or `any`) has an origin that is not listed; `within`: all
    have one that is.  `tool:NAME` lists what one tool returned: where a rule trusts it, only a whole value of a tool
    that no outsider writes into; a word within a value may be planted.
    """

    of: Literal["authority", "content", "any"] = "any"
    outside: Strings | None = None
    within: Strings | None = None

    @field_validator("outside", "within")
    @classmethod
    def _origins_exist(cls, names: list[str] | None) -> list[str] | None:
        for name in names or ():
            if name not in get_args(Origin) and not name.startswith("tool:"):
                raise ValueError(f"no origin {name!r:.60}: {', '.join(get_args(Origin))}, or tool:NAME")
        return names

    @model_validator(mode="after")
    def _has_one_list(self) -> OriginTest:
        if (self.outside is None) == (self.within is None):
            raise ValueError("give either outside or within")
        return self

    def trusts(self, outcome: str) -> bool:
        """Whether the rule is milder because of what is listed, not stricter."""
        return (self.within is not None) == (outcome == "allow")


class RemainingTest(_Closed):
    """A condition on what the run may still use."""

    unit: Unit
    op: Literal["lt", "le", "gt", "ge"]
    value: Annotated[int, Field(ge=0)]


class TimeWindow(_Closed):
    """A window of the week in a named time zone; `start` > `end` reaches over midnight."""

    days: Annotated[list[Day], Field(min_length=1)] = list(_DAYS)
    start: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")] = "00:00"
    end: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")] = "23:59"
    zone: str = "UTC"

    @field_validator("zone")
    @classmethod
    def _zone_exists(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError) as error:
            raise ValueError(f"no time zone {name!r}: {error}") from None
        return name


class When(_Closed):
    """The conditions of a rule; one that is not given always holds.  Names may use `*` and `?`."""

    tool: Strings | None = None
    effect: Annotated[list[EffectClass], Field(min_length=1)] | None = None
    tenant: Strings | None = None
    principal: Strings | None = None
    roles: Strings | None = None
    scopes: Strings | None = None
    labels: Strings | None = None
    risk: Annotated[list[Risk], Field(min_length=1)] | None = None
    arguments: Annotated[list[ArgumentTest], Field(min_length=1)] | None = None
    origins: Annotated[list[OriginTest], Field(min_length=1)] | None = None
    remaining: Annotated[list[RemainingTest], Field(min_length=1)] | None = None
    time: TimeWindow | None = None


class ApprovalTerms(_Closed):
    """Who must approve: `quorum` different people, each holding one of `roles`, within `expires_after_s`."""

    roles: Strings
    quorum: Annotated[int, Field(ge=1, le=16)] = 1
    expires_after_s: Annotated[int, Field(ge=1, le=30 * 86_400)] = 3600


class Rule(_Closed):
    """One rule; `code` is its own reason code, shown beside the stack's."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    outcome: Literal["allow", "deny", "require_approval"]
    code: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,64}$")] = ""
    description: str = ""
    when: When = When()
    approval: ApprovalTerms | None = None

    @model_validator(mode="after")
    def _approval_fits(self) -> Rule:
        if (self.outcome == "require_approval") != (self.approval is not None):
            raise ValueError("outcome require_approval needs approval, and only that outcome has it")
        return self


class Bundle(_Closed):
    """A policy bundle.  `version` names it in every decision."""

    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    description: str = ""
    rules: Annotated[list[Rule], Field(min_length=1)]

    @model_validator(mode="after")
    def _ids_differ(self) -> Bundle:
        ids = [rule.id for rule in self.rules]
        repeated = sorted({i for i in ids if ids.count(i) > 1})
        if repeated:
            raise ValueError(f"rule ids given twice: {', '.join(repeated)}")
        return self

    def traced(self, specs: Iterable[ToolSpec]) -> frozenset[str]:
        """Return the tools of whose calls some rule may ask where the values come from, or may ask a person."""
        asking = [rule.when for rule in self.rules if rule.approval is not None or rule.when.origins is not None]
        return frozenset(spec.name for spec in specs if any(_may_match(when, spec) for when in asking))


def _may_match(when: When, spec: ToolSpec) -> bool:
    """Whether a rule with these conditions may be about a call of this tool."""
    return (
        (when.effect is None or spec.effect in when.effect)
        and (when.risk is None or spec.risk in when.risk)
        and (when.tool is None or _names(when.tool)(spec.name))
    )


def load_bundle(source: str | Path) -> Bundle:
    """Load a bundle from a file or YAML text; raise `InvalidConfig` naming the line of whatever is wrong."""
    return load_yaml(source, Bundle, name="policy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a decision may depend on."""

    tool: ToolSpec
    identity: Identity
    arguments: dict[str, Any]
    labels: frozenset[str]
    remaining: Limits
    now_us: int
    origins: tuple[Traced, ...] = ()


Condition = Callable[[Facts], bool]
_EFFECTS: tuple[EffectClass, ...] = get_args(EffectClass)


class Evaluator:
    """A bundle, compiled: for each effect class, the rules that could match, each a list of closures over `Facts`."""

    def __init__(self, bundle: Bundle) -> None:
        self.version = bundle.version
        order = {"deny": 0, "require_approval": 1, "allow": 2}
        rules = sorted(bundle.rules, key=lambda rule: (order[rule.outcome], -_quorum(rule), rule.id))
        compiled = [(rule.when.effect, self._decision(rule), _conditions(rule)) for rule in rules]
        self._rules = {
            effect: [
                (decision, conditions) for effects, decision, conditions in compiled if effect in (effects or [effect])
            ]
            for effect in _EFFECTS
        }

    def evaluate(self, facts: Facts) -> Decision:
        """Return the decision; an exception anywhere is a deny with `policy_error`."""
        try:
            first: Decision | None = None
            # Every rule is evaluated even when one has matched, so that an error denies wherever it stands.
            for decision, conditions in self._rules[facts.tool.effect]:
                for condition in conditions:
                    if not condition(facts):
                        break
                else:
                    first = first or decision
        except Exception as error:
            return self.error(f"{type(error).__name__}: {error}")
        return first or self.deny(ReasonCode.POLICY_DENIED, "no rule allows it")

    def deny(self, reason: ReasonCode, detail: str, rule: str = "default-deny") -> Decision:
        """Return a deny that no rule of the bundle made."""
        return Decision(
            outcome="deny", reason_code=reason, rule=rule, policy_version=self.version, detail=detail[:2000]
        )

    def error(self, detail: str) -> Decision:
        """Return the deny for a policy that could not be evaluated."""
        return self.deny(ReasonCode.POLICY_ERROR, detail, rule="error")

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
        )


def _quorum(rule: Rule) -> int:
    return rule.approval.quorum if rule.approval else 0


def _conditions(rule: Rule) -> list[Condition]:
    """Compile the conditions, cheapest first; the effect's is the choice of the list the rule is in."""
    when = rule.when
    found: list[Condition] = []
    if when.risk is not None:
        risks = frozenset(when.risk)
        found.append(lambda f: f.tool.risk in risks)
    found += _name_conditions(when)
    if when.roles is not None:
        roles = frozenset(when.roles)
        found.append(lambda f: not roles.isdisjoint(f.identity.roles))
    if when.scopes is not None:
        scopes = frozenset(when.scopes)
        found.append(lambda f: scopes.issubset(f.identity.scopes))
    if when.labels is not None:
        labels = frozenset(when.labels)
        found.append(lambda f: not labels.isdisjoint(f.labels))
    found += [_remaining_condition(test) for test in when.remaining or []]
    found += [_argument_condition(test) for test in when.arguments or []]
    found += [_origin_condition(test, test.trusts(rule.outcome)) for test in when.origins or []]
    if when.time is not None:
        found.append(_time_condition(when.time))
    return found


def _name_conditions(when: When) -> list[Condition]:
    found: list[Condition] = []
    if when.tool is not None:
        tool = _names(when.tool)
        found.append(lambda f: tool(f.tool.name))
    if when.tenant is not None:
        tenant = _names(when.tenant)
        found.append(lambda f: tenant(f.identity.tenant))
    if when.principal is not None:
        principal = _names(when.principal)
        found.append(lambda f: principal(f.identity.principal))
    return found


def _names(patterns: list[str]) -> Callable[[str], bool]:
    match = re.compile("|".join(fnmatch.translate(p) for p in patterns)).match
    return lambda name: match(name) is not None


_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda a, b: _same(a, b),
    "ne": lambda a, b: not _same(a, b),
    "lt": lambda a, b: _number(a) < _number(b),
    "le": lambda a, b: _number(a) <= _number(b),
    "gt": lambda a, b: _number(a) > _number(b),
    "ge": lambda a, b: _number(a) >= _number(b),
    "in": lambda a, b: any(_same(a, item) for item in _collection(b)),
    "not_in": lambda a, b: not any(_same(a, item) for item in _collection(b)),
    "matches": lambda a, b: re.fullmatch(b, _string(a)) is not None,
    "contains": lambda a, b: b in a if isinstance(a, str) else any(_same(item, b) for item in _collection(a)),
    "starts_with": lambda a, b: _string(a).startswith(b),
    "ends_with": lambda a, b: _string(a).endswith(b),
}


def _same(a: Any, b: Any) -> bool:
    """Equality that does not take true for 1."""
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r:.40} is not a number")
    return value


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is not text")
    return value


def _collection(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        raise TypeError(f"{value!r:.40} is not a list")
    return value


def _remaining_condition(test: RemainingTest) -> Condition:
    compare = _COMPARE[test.op]
    return lambda f: compare(getattr(f.remaining, test.unit), test.value)


def _argument_condition(test: ArgumentTest) -> Condition:
    parts = test.path.split(".")
    if test.op == "exists":
        return lambda f: bool(_select(f.arguments, parts)) == test.value
    compare = _COMPARE[test.op]
    if test.identity is None and len(parts) == 1 and parts[0] != "*":
        name, value = parts[0], test.value
        return lambda f: name in f.arguments and bool(compare(f.arguments[name], value))

    def holds(facts: Facts) -> bool:
        operand = test.value if test.identity is None else _identity_fact(facts.identity, test.identity)
        found = _select(facts.arguments, parts)
        return bool(found) and all(compare(value, operand) for value in found)

    return holds


def _origin_condition(test: OriginTest, trusts: bool) -> Condition:
    listed = frozenset(test.outside or test.within or ())
    parts = ("authority", "content") if test.of == "any" else (test.of,)

    def is_listed(traced: Traced) -> bool:
        if traced.origin == "tool" and f"tool:{traced.detail.partition(',')[0]}" in listed:
            # A name that a directory returns may hold a planted address: a part of a value vouches for nothing.
            return traced.whole or not trusts or "tool" in listed
        return traced.origin in listed

    def all_within(facts: Facts) -> bool:
        return all(is_listed(traced) for traced in facts.origins if traced.part in parts)

    return all_within if test.within is not None else lambda facts: not all_within(facts)


def _identity_fact(identity: Identity, name: str) -> Any:
    if name.startswith("attributes."):
        return identity.attributes.get(name.removeprefix("attributes."), ())
    return getattr(identity, name)


def _select(value: Any, parts: list[str]) -> list[Any]:
    """Return the values at a path; none if the path does not exist, or not for every item a `*` stands for."""
    if len(parts) == 1 and parts[0] != "*":
        return [value[parts[0]]] if parts[0] in value else []
    found = [value]
    for part in parts:
        following: list[Any] = []
        for item in found:
            if part == "*" and isinstance(item, list):
                following += item
            elif isinstance(item, dict) and part in item:
                following.append(item[part])
            elif isinstance(item, list) and part.isdigit() and int(part) < len(item):
                following.append(item[int(part)])
            else:
                return []
        found = following
    return found


def _time_condition(window: TimeWindow) -> Condition:
    zone, days = ZoneInfo(window.zone), frozenset(_DAYS.index(day) for day in window.days)
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
