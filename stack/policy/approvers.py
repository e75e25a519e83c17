"""Who could approve what a rule asks people about, as far as the directory says: others of the asker's own tenant.

Of an open tenant anybody may hold its open roles, so there are as many of those as are wanted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from airside.stack.directory import Directory, Principal, Tenant
from airside.stack.policy.bundle import Bundle, Rule, When, may_match
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.text.names import matcher

_NAMED = 10
UNLISTED = ""
"""Whoever an open tenant does not list."""


def tenants_of(directory: Directory, patterns: Sequence[str] | None) -> dict[str, Tenant]:
    """Return the tenants whose names fit one of the patterns; None fits all."""
    return {name: entry for name, entry in directory.tenants.items() if patterns is None or matcher(patterns)(name)}


def people_of(entry: Tenant) -> Iterator[tuple[str, Principal]]:
    """Yield the principals of a tenant, and of an open one somebody with all that anybody of it may have."""
    yield from entry.principals.items()
    if entry.open:
        yield UNLISTED, Principal(roles=entry.open_roles, scopes=entry.open_scopes)


def most_approvers(rule: Rule, specs: Iterable[ToolSpec], entry: Tenant) -> float | None:
    """Return how many people of a tenant could approve what another of it asks by a rule; None if nobody can ask.

    Of all who can ask it is the one with most others to answer.
    """
    wanted = set(rule.approval.roles if rule.approval else ())
    meant = [spec for spec in specs if may_match(rule.when, spec)]
    askers = [name for name, who in people_of(entry) if may_ask(rule.when, meant, name, who)]
    if entry.open and not wanted.isdisjoint(entry.open_roles):
        return float("inf") if askers else None
    holders = {name for name, who in entry.principals.items() if not wanted.isdisjoint(who.roles)}
    return max((len(holders - {asker}) for asker in askers), default=None)


def may_ask(when: When, specs: Iterable[ToolSpec], name: str, who: Principal) -> bool:
    """Whether a rule with these conditions may be about what a principal's runs ask for with one of the tools."""
    return (
        (when.principal is None or name == UNLISTED or matcher(when.principal)(name))
        and (when.roles is None or not set(when.roles).isdisjoint(who.roles))
        and set(when.scopes or ()) <= set(who.scopes)
        and any(set(spec.scopes) <= set(who.scopes) for spec in specs)
    )


def find_unapprovable(bundle: Bundle, directory: Directory, specs: Sequence[ToolSpec]) -> tuple[str, ...]:
    """Return a sentence for the rules whose questions nobody of some tenants can answer: such calls expire."""
    found: dict[tuple[tuple[str, ...], int, tuple[str, ...]], list[str]] = {}
    for rule in bundle.rules:
        if rule.approval is None:
            continue
        most = {name: most_approvers(rule, specs, e) for name, e in tenants_of(directory, rule.when.tenant).items()}
        short = tuple(sorted(name for name, n in most.items() if n is not None and n < rule.approval.quorum))
        if short:
            found.setdefault((tuple(rule.approval.roles), rule.approval.quorum, short), []).append(rule.id)
    return tuple(_said(roles, quorum, tenants, rules) for (roles, quorum, tenants), rules in found.items())


def _said(roles: Sequence[str], quorum: int, tenants: Sequence[str], rules: Sequence[str]) -> str:
    people = "nobody" if quorum == 1 else f"fewer than the {quorum} people needed"
    return (
        f"{name_list('rule', rules)} can be approved by nobody in {name_list('tenant', tenants)}: beside whoever asks "
        f"{people} "
        f"there can hold {_either(roles)}, so what these rules ask about waits and expires: give somebody the role in "
        "the directory"
    )


def _either(roles: Sequence[str]) -> str:
    return f"the role {roles[0]!r}" if len(roles) == 1 else f"one of the roles {sorted(roles)}"


def name_list(kind: str, names: Sequence[str]) -> str:
    """Return names with what they are names of, the first few of many."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{kind}{'s' if len(names) > 1 else ''} {', '.join(names[:_NAMED])}{more}"


def lacking_approvers(rule: Rule, specs: Sequence[ToolSpec], tenants: Mapping[str, Tenant]) -> int | None:
    """Return the most people that could approve in any of the tenants if they are too few, None if there are enough."""
    most = [n for entry in tenants.values() if (n := most_approvers(rule, specs, entry)) is not None]
    quorum = rule.approval.quorum if rule.approval else 0
    return int(max(most)) if most and max(most) < quorum else None
