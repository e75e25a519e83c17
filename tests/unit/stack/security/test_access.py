"""The table of access: nobody gets what it does not give, by any role, tenant, house or narrowed token."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airside.stack.directory import load_directory
from airside.stack.errors import AuthRefused, InvalidConfig
from airside.stack.ids import PrincipalId, TenantId
from airside.stack.security.access import (
    ACCESS,
    AREAS,
    AUDITOR,
    OPERATOR,
    Caller,
    NoAccess,
    is_within,
    narrowed,
    reach,
)
from airside.stack.security.authenticator import Authenticator, hash_api_key
from airside.stack.security.memory_orders import KEEPER
from airside.stack.values import Identity
from tests.unit.stack.security.test_authenticator import NOW, SIGNER, public_of, token

ACME, BETA, HOUSE = TenantId("acme"), TenantId("beta"), TenantId("house")
ANN, BOB = PrincipalId("ann"), PrincipalId("bob")

roles = st.sets(st.sampled_from([OPERATOR, AUDITOR, KEEPER, "clerk"]))
areas = st.none() | st.sets(st.sampled_from(sorted(AREAS))).map(frozenset)


def caller(tenant: TenantId, held: set[str], allowed: frozenset[str] | None = None) -> Caller:
    """Return Ann, of a tenant, with roles and a narrowed token."""
    return Caller(Identity(tenant=tenant, principal=ANN, roles=tuple(sorted(held))), allowed)


@given(
    name=st.sampled_from(sorted(ACCESS)),
    held=roles,
    allowed=areas,
    tenant=st.sampled_from([ACME, HOUSE]),
    house=st.sampled_from([None, HOUSE, "gone"]),
    whose=st.none() | st.tuples(st.sampled_from([ACME, BETA, HOUSE]), st.sampled_from([ANN, BOB])),
)
def test_nobody_is_given_what_the_table_does_not_give(
    name: str, held: set[str], allowed: frozenset[str] | None, tenant: TenantId, house: str | None, whose: Any
) -> None:
    """Said anew from the rule's fields: who is let to something has the role or owns it, and the area for that."""
    who, rule = caller(tenant, held, allowed), ACCESS[name]
    far = reach(name, who, house)
    by_role = bool(rule.roles & held) and (allowed is None or bool(allowed & rule.areas))
    as_own = bool(rule.own) and (allowed is None or bool(allowed & rule.own))
    crosses = by_role and tenant == house and bool(held & rule.roles & {OPERATOR, AUDITOR})
    if rule.houses and not (tenant == house and rule.roles & held & {OPERATOR, AUDITOR}):
        assert isinstance(far, NoAccess) and far.code == "wrong_role" and far.problem
        return
    if isinstance(far, NoAccess):
        assert not by_role and not as_own
        assert far.code == ("auth_scope_missing" if rule.roles & held or rule.own else "wrong_role") and far.problem
        return
    assert by_role or as_own
    if is_within(whose, who, far):
        assert whose is not None
        assert crosses or (by_role and whose[0] == tenant) or (as_own and whose == (tenant, ANN))


@pytest.mark.parametrize("name", sorted(ACCESS))
@pytest.mark.parametrize("role", [OPERATOR, AUDITOR, KEEPER])
def test_another_tenants_is_reached_from_the_house_alone(name: str, role: str) -> None:
    """And there by operators and auditors, not by who keeps memory."""
    for tenant, house in ((ACME, None), (ACME, HOUSE), (HOUSE, None), (HOUSE, ACME)):
        far = reach(name, caller(tenant, {role}), house)
        assert isinstance(far, NoAccess) or not is_within((BETA, ANN), caller(tenant, {role}), far)
    far = reach(name, caller(HOUSE, {role}), HOUSE)
    crosses = not isinstance(far, NoAccess) and is_within((BETA, BOB), caller(HOUSE, {role}), far)
    assert crosses == (role in ACCESS[name].roles and role != KEEPER)


@pytest.mark.parametrize("name", sorted(ACCESS))
def test_who_has_no_role_reaches_its_own_runs_at_most(name: str) -> None:
    """What a submitter may: submit, vote, see its runs, and cancel them."""
    far = reach(name, caller(ACME, {"clerk"}), ACME)
    own = {"submit", "offer", "vote", "order:cancel", "view:approvals", "view:approval_form"}
    own |= {f"view:{view}" for view in ("runs", "counts", "run", "events", "story", "me")}
    assert far == "own" if name in own else isinstance(far, NoAccess)


@pytest.mark.parametrize("name", sorted(ACCESS))
@pytest.mark.parametrize("claim", ["", "unknown words", "Operate AUDIT", "operate,audit", "runs:*"])
def test_a_scope_of_words_that_are_no_areas_allows_nothing(name: str, claim: str) -> None:
    """Whatever its holder's roles are."""
    far = reach(name, caller(ACME, {OPERATOR, AUDITOR, KEEPER}, narrowed(claim)), ACME)
    assert isinstance(far, NoAccess) and far.code == "auth_scope_missing"


def test_a_narrowed_operator_is_left_what_the_areas_give() -> None:
    """An operator whose token only submits may cancel what he asked for, and nothing of others."""
    who = caller(ACME, {OPERATOR}, narrowed("runs:write memory"))
    assert reach("order:cancel", who, None) == reach("submit", who, None) == "own"
    assert isinstance(reach("order:kill", who, None), NoAccess) and isinstance(reach("view:runs", who, None), NoAccess)
    assert narrowed(None) is None and caller(ACME, set()).allows([])


DIRECTORY = "{house: acme, tenants: {acme: {principals: {ann: {roles: [operator]}}}}}"


def test_a_tokens_scope_narrows_it_and_a_key_has_none() -> None:
    """Also when the token is known already; a scope that is no text is no token."""
    key = "ask_k"
    directory = load_directory(DIRECTORY.replace("{roles", f"{{api_keys: ['{hash_api_key(key)}'], roles"))
    authenticator = Authenticator(directory, public_of(SIGNER))
    narrow, wide = token(scope="audit openid runs:read"), token()
    for _ in range(2):
        assert authenticator.caller(narrow, NOW).areas == {"audit", "runs:read"}
        assert authenticator.caller(wide, NOW).areas is authenticator.caller(key, NOW).areas is None
        assert authenticator.identify(narrow, NOW) == authenticator.identify(wide, NOW)
    for wrong in (["audit"], 5, {"audit": 1}, True):
        with pytest.raises(AuthRefused) as caught:
            authenticator.caller(token(scope=wrong), NOW)
        assert caught.value.reason == "auth_claim_missing"


def test_a_house_is_one_of_the_tenants() -> None:
    """By default there is none."""
    assert load_directory(DIRECTORY).house == "acme" and load_directory("{tenants: {acme: {}}}").house is None
    for wrong, said in (("acne", "acme"), ("airside", "own name"), ("NO", "tenant")):
        with pytest.raises(InvalidConfig, match=said):
            load_directory(DIRECTORY.replace("house: acme", f"house: {wrong}"))
