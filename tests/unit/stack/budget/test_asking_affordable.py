"""Nobody is asked to approve a call that its budgets refuse anyway, and asking uses up nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from airside.stack.budget.ledger import Cap
from airside.stack.budget.reservations import BudgetReservations
from airside.stack.ids import effect_key
from airside.stack.policy.bundle import load_bundle
from airside.stack.policy.gate import Gate
from airside.stack.reasons import ReasonCode
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.values import Limits
from tests.helpers import KEY, RUN, identity, spec
from tests.unit.stack.policy.test_gate import ALLOW, ASK, NOW, request

TENANT = identity().tenant
CAPS = st.lists(
    st.builds(
        Cap,
        unit=st.sampled_from(["cost_microusd", "tool_calls", "tool:pay", "wall_ms", "tokens"]),
        limit=st.integers(0, 40_000),
        per=st.sampled_from(["ever", "minute", "day"]),
    ),
    max_size=3,
)


def gate(bundle: str, organisation: list[Cap], tenant: list[Cap], tool: ToolSpec) -> Gate:
    """Return a gate with these budgets."""
    count = iter(range(1000))
    return Gate(
        bundle=load_bundle(bundle.replace("QUORUM", "1")),
        tools=(tool,),
        seal_key=KEY,
        now_us=lambda: NOW,
        random=lambda n: next(count).to_bytes(n, "big"),
        spending=BudgetReservations(organisation, {TENANT: tenant}),
    )


@given(
    organisation=CAPS,
    tenant=CAPS,
    price=st.sampled_from([None, 0, 5, 20_000]),
    used=st.integers(0, 3),
    most=st.integers(0, 30_000),
)
def test_a_person_is_asked_exactly_where_the_call_could_be_granted_now(
    organisation: list[Cap], tenant: list[Cap], price: int | None, used: int, most: int
) -> None:
    """A gate whose policy asks does so where one whose policy allows grants, and refuses where that refuses."""
    tool = spec(cost_microusd=price)
    who = identity(limits=Limits(max_cost_microusd=most))
    asks, allows = gate(ASK, organisation, tenant, tool), gate(ALLOW, organisation, tenant, tool)
    for each in (asks, allows):
        for step in range(10, 10 + used):
            each.spending.reserve(who, RUN, effect_key(RUN, step), tool, now_us=NOW)
    before = asks.spending.stats()
    asked, allowed = asks.decide(request(who=who)), allows.decide(request(who=who))
    assert asks.spending.stats() == before
    assert (asked.decision.outcome == "require_approval") == (allowed.decision.outcome == "allow")
    if allowed.decision.outcome == "deny":
        assert asked.decision == allowed.decision
        assert asked.approval_id is None


def test_a_call_without_a_price_is_refused_before_anybody_is_asked() -> None:
    """Where runs share money, what a call costs is a question for the app's author, not for an approver."""
    reply = gate(ASK, [Cap(unit="cost_microusd", limit=10**9)], [], spec(cost_microusd=None)).decide(request())
    assert reply.decision.outcome == "deny"
    assert reply.decision.reason_code is ReasonCode.PRICE_UNKNOWN
