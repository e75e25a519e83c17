"""What a rule asks about resources, compiled for its outcome.

A rule that forbids or asks is met as soon as one resource of the kind meets the test; one that allows is met if the
call names at least one of the kind and all meet it.  What a test asks and no resolver said cannot be evaluated.

A principal's name is one tenant's.  Of a resource that all tenants share, one of that name may be another tenant's: it
is not the principal's for a rule that allows, and may be an other's for a rule that forbids or asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from airside.stack.policy.bundle import ArgumentTest, ResourceTest
from airside.stack.policy.comparisons import ArgumentCheck as Comparing
from airside.stack.policy.comparisons import Arguments, compile_test
from airside.stack.resources import ResourceFact
from airside.stack.text.names import matcher
from airside.stack.values import CLEARANCES, Identity

Holds = Callable[[ResourceFact, Arguments, Identity], bool]
ResourceCheck = Callable[[tuple[ResourceFact, ...], Arguments, Identity], bool]


def compile_resource(test: ResourceTest, *, forbids: bool) -> ResourceCheck:
    """Return the check of a test whose rule forbids (or asks), or allows."""
    conditions = list(_conditions(test, forbids))

    def met(fact: ResourceFact, arguments: Arguments, identity: Identity) -> bool:
        if fact.state == "missing":
            return False
        if fact.state != "found":
            raise LookupError(f"{fact}")
        return all(holds(fact, arguments, identity) for holds in conditions)

    def check(facts: tuple[ResourceFact, ...], arguments: Arguments, identity: Identity) -> bool:
        of_kind = [fact for fact in facts if fact.kind == test.kind and test.path in (None, fact.declared)]
        # Every one is looked at, so that what cannot be evaluated denies wherever it stands.
        found = [met(fact, arguments, identity) for fact in of_kind]
        return any(found) if forbids else bool(found) and all(found)

    return check


def _conditions(test: ResourceTest, forbids: bool) -> Iterable[Holds]:
    if test.owner is not None:
        yield _owner(test.owner, forbids)
    if test.tenant is not None:
        shared = test.tenant == "shared"
        yield lambda fact, arguments, identity: fact.shared is shared
    if isinstance(test.sensitivity, str):
        within = test.sensitivity == "cleared"
        yield lambda fact, arguments, identity: _is_cleared(fact, identity) is within
    elif test.sensitivity is not None:
        listed = frozenset(test.sensitivity)
        yield lambda fact, arguments, identity: fact.sensitivity in listed
    for name, comparison in test.comparisons().items():
        yield _attribute(name, comparison, forbids)


def _owner(owner: str | list[str], forbids: bool) -> Holds:
    if isinstance(owner, list):
        is_one = matcher(owner)
        return lambda fact, arguments, identity: fact.owner is not None and is_one(fact.owner)
    if owner == "principal":
        return lambda fact, arguments, identity: fact.owner == identity.principal and (forbids or not fact.shared)
    if owner == "other":
        return lambda fact, arguments, identity: fact.owner != identity.principal or (forbids and fact.shared)
    return lambda fact, arguments, identity: fact.owner is None


def _attribute(name: str, test: ArgumentTest, forbids: bool) -> Holds:
    check: Comparing = compile_test(test, forbids=forbids)
    # Who a shared resource calls by the caller's name nobody can tell: an allow is not met by it, and anything else is.
    is_unsure = test.caller == "principal" and (test.op == "eq") is not forbids

    def holds(fact: ResourceFact, arguments: Arguments, identity: Identity) -> bool:
        if name not in fact.attributes:
            raise LookupError(f"{fact.kind} {fact.id!r:.60} has no attribute {name!r}, and a rule asks for it")
        value = fact.attributes[name]
        if is_unsure and fact.shared:
            return forbids
        return check({name: list(value) if isinstance(value, tuple) else value}, identity, arguments)

    return holds


def _is_cleared(fact: ResourceFact, identity: Identity) -> bool:
    assert fact.sensitivity is not None
    return CLEARANCES.index(fact.sensitivity) <= CLEARANCES.index(identity.clearance)
