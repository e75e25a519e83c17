"""Memory answers only to who proves whose it is, whatever a process says."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from airside.stack.contracts.memory import Candidate, RecallRequest, Warrant
from airside.stack.ids import EffectKey, ExecutorId, IssuerId, PrincipalId, RunId, TenantId
from airside.stack.security.grants import Grant, mint
from airside.stack.security.identity import run_subject, seal_identity
from airside.stack.security.memory_access import Warrants
from airside.stack.security.memory_orders import MemoryOrder, open_memory_order, seal_memory_order
from airside.stack.values import UNTRUSTED, Identity

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
NOW_US = 1_700_000_000_000_000
ACME, GLOBEX = TenantId("acme"), TenantId("globex")
RUN = RunId("run_" + "a" * 24)
WHO = Identity(tenant=ACME, principal=PrincipalId("ana"), clearance="internal")


def of_identity(key: bytes = KEY, who: Identity = WHO, run: str = RUN) -> Warrant:
    """Return the warrant that a run of `who` carries."""
    proof = seal_identity(key, who, run_subject(RUN))
    return Warrant(identity=msgspec.msgpack.encode(who), proof=proof, run_id=run)


def of_grant(key: bytes = KEY, tenant: TenantId = ACME, expires_us: int = NOW_US, **fields: Any) -> Warrant:
    """Return the warrant of a granted call."""
    values: dict[str, Any] = {"tool": "remember", **fields}
    grant = Grant(
        tenant=tenant,
        principal=PrincipalId("ana"),
        run_id=RUN,
        step=1,
        attempt=1,
        epoch=1,
        tool_version="v",
        arguments_sha256="",
        key=EffectKey(f"{RUN}:1"),
        policy_version="p",
        approval_id="",
        executor=ExecutorId("exe"),
        timeout_ms=1000,
        expires_us=expires_us,
        issuer=IssuerId("iss"),
        nonce=b"n",
        **values,
    )
    return Warrant(grant=mint(key, grant))


def request(warrant: Warrant, tenant: TenantId = ACME) -> RecallRequest:
    """Return a request with the most clearance."""
    return RecallRequest(tenant=tenant, query="q", clearance="restricted", warrant=warrant)


def test_a_run_recalls_what_is_its_owners_with_its_owners_clearance() -> None:
    allowed = Warrants(KEY, lambda: NOW_US).recall(request(of_identity()))
    assert allowed is not None and (allowed.tenant, allowed.clearance) == (ACME, "internal")


@pytest.mark.parametrize(
    "asked",
    [
        request(of_identity(), GLOBEX),
        request(of_identity(OTHER_KEY)),
        request(of_identity(run="run_" + "b" * 24)),
        request(of_identity(run="no run")),
        request(Warrant()),
        request(of_grant()),
    ],
    ids=["another tenant", "another key", "another run", "no run", "nothing", "a grant"],
)
def test_nobody_else_recalls(asked: RecallRequest) -> None:
    assert Warrants(KEY, lambda: NOW_US).recall(asked) is None


@pytest.mark.parametrize(
    ("warrant", "tenant", "trust", "allowed"),
    [
        (of_identity(), ACME, "medium", True),
        (of_identity(), GLOBEX, "medium", False),
        (of_identity(), ACME, "high", False),
        (of_grant(), ACME, "low", True),
        (of_grant(tenant=GLOBEX), ACME, "low", False),
        (of_grant(OTHER_KEY), ACME, "low", False),
        (of_grant(expires_us=NOW_US - 10**12), ACME, "low", False),
        (Warrant(), ACME, "low", False),
    ],
)
def test_who_may_offer_what(warrant: Warrant, tenant: TenantId, trust: str, allowed: bool) -> None:
    candidate = Candidate(tenant=tenant, text="t", kind="fact", source=f"{RUN}#1", trust=trust, warrant=warrant)  # type: ignore[arg-type]
    assert Warrants(KEY, lambda: NOW_US).learn(candidate) == (candidate if allowed else None)


def test_what_a_call_offers_is_as_sensitive_and_as_little_trusted_as_what_its_run_had_read() -> None:
    warrant = of_grant(labels=("restricted", UNTRUSTED))
    candidate = Candidate(tenant=ACME, text="t", kind="fact", source=f"{RUN}#1", sensitivity="public", warrant=warrant)
    kept = Warrants(KEY, lambda: NOW_US).learn(candidate)
    assert kept is not None and (kept.sensitivity, kept.trust) == ("restricted", "low")


def test_what_a_call_offers_derives_from_what_its_grant_says_whatever_the_tool_does() -> None:
    warrant = of_grant(shown=("mem_1",))
    candidate = Candidate(tenant=ACME, text="t", kind="fact", source="x", warrant=warrant, shown=("mem_2",))
    kept = Warrants(KEY, lambda: NOW_US).learn(candidate)
    assert kept is not None and kept.shown == ("mem_1",)


def test_what_a_tool_offers_by_itself_is_trusted_little_and_comes_from_its_run() -> None:
    candidate = Candidate(tenant=ACME, text="t", kind="fact", source="the board", trust="medium", warrant=of_grant())
    kept = Warrants(KEY, lambda: NOW_US).learn(candidate)
    assert kept is not None and (kept.source, kept.trust) == (f"{RUN}#1", "medium")
    other = msgspec.structs.replace(candidate, warrant=of_grant(tool="read_page"))
    kept = Warrants(KEY, lambda: NOW_US).learn(other)
    assert kept is not None and kept.trust == "low"
    forged = msgspec.structs.replace(candidate, warrant=of_identity())
    assert Warrants(KEY, lambda: NOW_US).learn(forged) is None


def test_an_undo_offers_nothing() -> None:
    candidate = Candidate(tenant=ACME, text="t", kind="fact", source=f"{RUN}#1", warrant=of_grant(undo=True))
    assert Warrants(KEY, lambda: NOW_US).learn(candidate) is None


def test_an_order_is_good_for_a_while_and_under_its_seal_only() -> None:
    order = MemoryOrder(action="erase_tenant", tenant="acme", by="operator", at_us=NOW_US, nonce=b"n")
    sealed = seal_memory_order(KEY, order)
    assert open_memory_order(KEY, sealed, NOW_US + 1) == order
    assert open_memory_order(KEY, sealed, NOW_US + 10**9) is None
    assert open_memory_order(OTHER_KEY, sealed, NOW_US) is None
    assert open_memory_order(KEY, sealed[:-1], NOW_US) is None
