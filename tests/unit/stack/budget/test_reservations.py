"""What decisions and calls use: reserved before, settled after, rebuilt from the journal to the same."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airside.actors.journal.store import JournalStore
from airside.stack.budget.ledger import Cap
from airside.stack.budget.recorded_usage import RecordedUsage, recorded_usage
from airside.stack.budget.reservations import BudgetReservations
from airside.stack.contracts.budget import ReservationRequest, Settlement, SpendRequest, decision_key, wall_key
from airside.stack.errors import InvalidInput
from airside.stack.ids import EffectKey, IssuerId, RunId, TenantId, child_run, effect_key
from airside.stack.journal.journaling import Append
from airside.stack.journal.stream import entry_of
from airside.stack.policy.bundle import load_bundle
from airside.stack.policy.gate import Gate
from airside.stack.reasons import ReasonCode
from airside.stack.run import events as ev
from airside.stack.run.intents import intent_of
from airside.stack.security.identity import run_subject, seal_identity
from airside.stack.values import MOST, Finish, Limits, Outcome, Spend, Usage
from tests.helpers import KEY, identity, spec
from tests.unit.stack.policy.test_gate import request as proposed
from tests.unit.stack.run.test_machine import Walk

ACME = TenantId("acme")
RUN = RunId("run_" + "0" * 24)
NOW = 1_700_000_000_000_000
LATEST_US = 2**62
MINUTE_US = 60_000_000
ENDED = ev.RunEnded(
    outcome=Outcome(status="stopped", reason_code=ReasonCode.MAX_TOKENS), usage=Usage(), at_us=NOW, cause=2
)


def told(number: int, seed: int) -> list[ev.Event]:
    """Return the events of a random run, of which some calls are timed."""
    walk, luck, run_id = Walk(seed), random.Random(seed), RunId(f"run_{number:024}")
    walk.steps(60)
    events: list[ev.Event] = []
    for event in walk.run.machine.events:
        if isinstance(event, ev.RunSubmitted):
            event = msgspec.structs.replace(event, run_id=run_id)
        if isinstance(event, ev.ActionGated | ev.EffectIntended):
            event = msgspec.structs.replace(event, tool="pay", wall_ms=luck.choice([0, 50]), cost_microusd=3)
        if isinstance(event, ev.SpendAsked):
            event = msgspec.structs.replace(event, wall_ms=luck.choice([0, 100]))  # 0: it waits for a batch
        if isinstance(event, ev.EffectIntended):
            event = msgspec.structs.replace(event, key=effect_key(run_id, event.step))
        if isinstance(event, ev.ToolExecuted):
            result = msgspec.structs.replace(event.result, duration_us=luck.randint(0, 60_000))
            event = msgspec.structs.replace(event, result=result)
        events.append(event)
    return events if luck.random() < 0.5 else [each for event in events for each in of_format_1(run_id, event)]


def of_format_1(run_id: RunId, event: ev.Event) -> list[ev.Event]:
    """Return what an older version journaled where there is an event: an intent was one of its own."""
    intent = intent_of(run_id, event)
    if intent is None or not isinstance(event, ev.ActionGated):
        return [event]
    values = intent._asdict()
    return [msgspec.structs.replace(event, intent=False), ev.EffectIntended(cause=1, **values)]


def write(store: JournalStore, events: list[ev.Event]) -> None:
    """Put a run's events on record, each under the epoch it was written in."""
    assert isinstance(events[0], ev.RunSubmitted)
    epoch, appends = 0, []
    for seq, event in enumerate(events):
        epoch = event.epoch if isinstance(event, ev.RunActivated) else epoch
        entry = entry_of(event)
        appends.append(Append(tenant=ACME, stream=events[0].run_id, epoch=epoch, first_seq=seq, entries=(entry,)))
    assert {reply.verdict for reply in store.commit(appends)} == {"ok"}


def summed(spent: list[RecordedUsage]) -> Counter[tuple[str, str]]:
    """Add reservations up by tool and unit."""
    total: Counter[tuple[str, str]] = Counter()
    for each in spent:
        for unit, amount in each.used().items():
            total[each.tool, unit] += amount
    return +total


@settings(max_examples=25, deadline=None)
@given(seeds=st.lists(st.integers(0, 10**6), min_size=1, max_size=6, unique=True))
def test_the_journals_query_says_the_same_as_the_events(seeds: list[int]) -> None:
    runs = [told(number, seed) for number, seed in enumerate(seeds)]
    with tempfile.TemporaryDirectory() as folder:
        store = JournalStore(Path(folder), KEY)
        for events in runs:
            write(store, events)
        rows = [RecordedUsage(*row) for row in store.rows("spent", 0, 0, 0, LATEST_US)]
        store.close()
    over = {events[0].run_id for events in runs if isinstance(events[-1], ev.RunEnded)}  # type: ignore[attr-defined]
    wanted = [
        each for events in runs for each in recorded_usage(ACME, events, is_over=isinstance(events[-1], ev.RunEnded))
    ]
    assert sorted(row for row in rows if row.key) == sorted(each for each in wanted if each.run_id not in over)
    assert summed([row for row in rows if not row.key]) == summed([each for each in wanted if each.run_id in over])


def test_a_gate_begins_again_however_much_ended_runs_say_they_used() -> None:
    """No agent can keep the gate from being rebuilt: sums stop at the most a cap can be."""
    most = Spend(tokens=MOST, cost_microusd=MOST)
    proposal = Finish(answer="x", spend=most)
    with tempfile.TemporaryDirectory() as folder:
        store = JournalStore(Path(folder), KEY)
        for number in range(2):
            events = told(number, 0)[:2]
            events.append(ev.StepDecided(step=1, agent="a", proposal=proposal, at_us=NOW, cause=1))
            events.append(ENDED)
            write(store, events)
        rows = [RecordedUsage(*row) for row in store.rows("spent", 0, 0, 0, LATEST_US)]
        store.close()
    assert [row.key for row in rows] == [""]
    spending = BudgetReservations((), {"acme": [Cap(unit="tokens", limit=MOST)]}, rows)
    assert spending.stats()["tenant/acme"] == {"tokens": MOST}
    assert spending.reserve_decision(identity(), RUN, decision(tokens=1), now_us=NOW) is not None


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-5, 600), min_size=1, max_size=12), st.integers(0, 3))
def test_what_a_clock_that_was_ahead_stamped_counts_when_it_can_have_happened(minutes: list[int], later: int) -> None:
    """Each counts no later than the next entry with a right stamp, and never later than now."""
    stamps = [NOW + minute * MINUTE_US for minute in minutes] + [NOW - MINUTE_US * i for i in range(later)]
    spend = Spend(tokens=1, cost_microusd=1)
    with tempfile.TemporaryDirectory() as folder:
        store = JournalStore(Path(folder), KEY)
        for number, at_us in enumerate(stamps):
            decided = ev.StepDecided(step=1, agent="a", proposal=Finish(answer="x", spend=spend), at_us=at_us, cause=1)
            write(store, [*told(number, 0)[:2], decided])
        rows = {row.run_id: row.at_us for row in (RecordedUsage(*row) for row in store.rows("spent", 0, 0, 0, NOW))}
        store.close()
    assert len(rows) == len(stamps)
    for number, at_us in enumerate(stamps):
        expected = at_us if at_us <= NOW else min([NOW, *(s for s in stamps[number:] if s <= NOW)])
        # The runs' own first entries are of long ago, and right.
        if at_us <= NOW or number == len(stamps) - 1:
            assert rows[RunId(f"run_{number:024}")] == expected
        assert rows[RunId(f"run_{number:024}")] <= NOW


def test_the_walks_have_every_kind_of_use() -> None:
    """What the test above compares is there to be compared."""
    found = [each for seed in range(60) for each in recorded_usage(ACME, told(0, seed), is_over=False)]
    assert {each.is_open for each in found if each.steps} == {each.is_open for each in found if each.wall_ms}
    assert any(each.tool and each.calls for each in found) and any("/wall@" in each.key for each in found)


# The gate.


def gate(*caps: Cap, cost: int | None = 0) -> Gate:
    """Return a gate whose tenant shares these budgets."""
    return Gate(
        bundle=load_bundle("version: v1\nrules: [{id: all, outcome: allow}]\n"),
        tools=[spec(cost_microusd=cost)],
        seal_key=KEY,
        now_us=lambda: NOW,
        random=lambda size: b"r" * size,
        spending=BudgetReservations((), {"acme": caps}),
        issuer=IssuerId("iss"),
    )


def request(run_id: RunId = RUN, **fields: Any) -> SpendRequest:
    """Return a run's request."""
    who = identity(limits=fields.pop("limits", Limits()))
    proof = seal_identity(KEY, who, run_subject(run_id))
    return SpendRequest(identity=msgspec.msgpack.encode(who), proof=proof, run_id=run_id, version="1", **fields)


def decision(step: int = 1, run_id: RunId = RUN, wall_ms: int = 1000, **price: int) -> ReservationRequest:
    """Return one decision."""
    return ReservationRequest(key=decision_key(run_id, step, 1), price=Spend(**price), wall_ms=wall_ms)


def test_a_decision_is_reserved_at_its_price_and_settled_at_what_it_cost() -> None:
    it = gate(Cap(unit="tokens", limit=100))
    assert it.spend(request(wanted=decision(1, tokens=60))).reason_code is None
    short = it.spend(request(wanted=decision(2, tokens=60)))
    assert short.reason_code is ReasonCode.BUDGET_EXHAUSTED and "40 of 100 left" in short.detail
    settled = (Settlement(key=decision_key(RUN, 1, 1), used={"tokens": 10, "steps": 1}),)
    assert it.spend(request(wanted=decision(2, tokens=60), settled=settled)).reason_code is None
    assert it.spending.stats()["tenant/acme"] == {"tokens": 70}


def test_what_has_no_price_is_refused_where_runs_share_a_budget_of_money_or_tokens() -> None:
    unpriced = ReservationRequest(key=decision_key(RUN, 1, 1), price=None, wall_ms=1)
    for unit in ("tokens", "cost_microusd"):
        assert gate(Cap(unit=unit, limit=9)).spend(request(wanted=unpriced)).reason_code is ReasonCode.PRICE_UNKNOWN
    assert gate(Cap(unit="steps", limit=9)).spend(request(wanted=unpriced)).reason_code is None


@pytest.mark.parametrize("unit", ["steps", "wall_ms"])
def test_steps_and_time_are_shared_too(unit: str) -> None:
    it = gate(Cap(unit=unit, limit=2000 if unit == "wall_ms" else 2))
    codes = [it.spend(request(wanted=decision(step))).reason_code for step in (1, 2, 3)]
    assert codes == [None, None, ReasonCode.BUDGET_EXHAUSTED]


@pytest.mark.parametrize(
    ("limits", "price", "reason"),
    [
        (Limits(max_tokens=9), {"tokens": 10}, ReasonCode.MAX_TOKENS),
        (Limits(max_cost_microusd=9), {"cost_microusd": 10}, ReasonCode.MAX_COST),
    ],
)
def test_a_runs_own_limits_hold_at_the_gate(limits: Limits, price: dict[str, int], reason: ReasonCode) -> None:
    assert gate().spend(request(limits=limits, wanted=decision(**price))).reason_code is reason
    assert gate().spend(request(share=limits, wanted=decision(**price))).reason_code is reason


def test_a_branch_has_its_share_and_its_run_what_all_branches_use() -> None:
    it, limits = gate(), Limits(max_tokens=100)
    share = Limits(max_tokens=50)
    one, two, three = (child_run(RUN, 1, n) for n in range(3))

    def ask(run_id: RunId, step: int, tokens: int) -> ReasonCode | None:
        # A branch shows its root's proof: an identity is bound to the root run.
        wanted = ReservationRequest(key=decision_key(run_id, step, 1), price=Spend(tokens=tokens), wall_ms=1)
        return it.spend(request(run_id, limits=limits, share=share, wanted=wanted)).reason_code

    assert ask(one, 1, 51) is ReasonCode.MAX_TOKENS
    assert ask(one, 1, 50) is None and ask(one, 2, 1) is ReasonCode.MAX_TOKENS
    assert ask(two, 1, 50) is None
    assert ask(three, 1, 1) is ReasonCode.MAX_TOKENS, "the run has none left, whatever the branch's share"


def test_a_forged_identity_and_another_runs_reservation_are_refused() -> None:
    it = gate(Cap(unit="tokens", limit=100))
    forged = msgspec.structs.replace(request(wanted=decision(tokens=1)), proof="x")
    assert it.spend(forged).reason_code is ReasonCode.POLICY_ERROR
    others = (Settlement(key="run_other:1/decide@1", used={"tokens": 1}),)
    assert it.spend(request(settled=others)).reason_code is ReasonCode.POLICY_ERROR
    with pytest.raises(InvalidInput, match="not a reservation of"):
        it.spending.settle(identity(), RUN, others, now_us=NOW)


@pytest.mark.parametrize(
    "key",
    [f"{RUN}:1", f"{RUN}:1/wall@1", "run_other:1/decide@1", f"{child_run(RUN, 1, 0)}:1/decide@1", f"{RUN}:1/decide@1 "],
)
def test_a_decision_is_reserved_under_a_key_of_its_own(key: str) -> None:
    """Under another run's key it would deny that run its decision; under a call's, the call could be taken back."""
    reply = gate().spend(request(wanted=ReservationRequest(key=key, price=Spend(), wall_ms=1)))
    assert reply.reason_code is ReasonCode.POLICY_ERROR and "not a decision of" in reply.detail


def test_a_call_cannot_be_taken_back() -> None:
    it = gate(Cap(unit="tool_calls", limit=1))
    key = effect_key(RUN, 1)
    it.spend(request(wanted=ReservationRequest(key=key, price=Spend(), wall_ms=1)))
    assert it.spending.reserve(identity(), RUN, key, spec(), now_us=NOW) is None
    it.spend(request(settled=(Settlement(key=key, used={}),)))
    assert it.spending.stats()["tenant/acme"] == {"tool_calls": 1}
    short = it.spending.reserve(identity(), RUN, effect_key(RUN, 2), spec(), now_us=NOW)
    assert short is not None and short.unit == "tool_calls"


@pytest.mark.parametrize(
    ("key", "unit"), [(f"{RUN}:1", "tokens"), (f"{RUN}:1/undo@1", "tokens"), (f"{RUN}:1/decide@1", "tool_calls")]
)
def test_only_decisions_and_times_are_settled_and_only_in_their_units(key: str, unit: str) -> None:
    it = gate(Cap(unit=unit, limit=9))
    reply = it.spend(request(settled=(Settlement(key=key, used={unit: 5}),)))
    assert reply.reason_code is ReasonCode.POLICY_ERROR
    assert it.spending.stats()["tenant/acme"] == {unit: 0}


def test_a_settlement_of_what_was_not_reserved_counts() -> None:
    """An agent that names no price spends before anybody can refuse."""
    it = gate(Cap(unit="tokens", limit=10))
    it.spend(request(settled=(Settlement(key=decision_key(RUN, 1, 1), used={"tokens": 7}),)))
    assert it.spending.stats()["tenant/acme"] == {"tokens": 7}
    it.spending.ledger.check()


def test_a_timed_call_is_reserved_for_its_deadline_and_settled_at_what_it_took() -> None:
    spending = BudgetReservations((), {"acme": [Cap(unit="wall_ms", limit=100)]})
    tool, key = spec(), EffectKey(f"{RUN}:1")
    first = spending.reserve(identity(), RUN, key, tool, now_us=NOW, wall_key=wall_key(RUN, 1, 1), wall_ms=80)
    assert first is None
    other = EffectKey(f"{RUN}:2")
    short = spending.reserve(identity(), RUN, other, tool, now_us=NOW, wall_key=wall_key(RUN, 2, 1), wall_ms=80)
    assert short is not None and short.unit == "wall_ms"
    spending.settle(identity(), RUN, [Settlement(key=wall_key(RUN, 1, 1), used={"wall_ms": 5})], now_us=NOW)
    assert spending.reserve(identity(), RUN, other, tool, now_us=NOW, wall_key=wall_key(RUN, 2, 1), wall_ms=80) is None
    assert spending.stats()["tenant/acme"] == {"wall_ms": 85}


def test_a_call_that_is_refused_for_want_of_calls_gives_its_time_back() -> None:
    caps = [Cap(unit="wall_ms", limit=100), Cap(unit="tool_calls", limit=0)]
    spending = BudgetReservations((), {"acme": caps})
    key = wall_key(RUN, 1, 1)
    short = spending.reserve(identity(), RUN, effect_key(RUN, 1), spec(), now_us=NOW, wall_key=key, wall_ms=80)
    assert short is not None and short.unit == "tool_calls"
    assert spending.stats()["tenant/acme"]["wall_ms"] == 0


def test_a_gate_that_is_restarted_holds_what_was_asked_and_grants_it_again_only_if_it_fits() -> None:
    asked = [RecordedUsage(ACME, RUN, decision_key(RUN, step, 1), NOW, True, steps=1, tokens=60) for step in (1, 2)]
    spending = BudgetReservations((), {"acme": [Cap(unit="tokens", limit=100)]}, asked)
    first = spending.reserve_decision(identity(), RUN, decision(1, tokens=60), now_us=NOW)
    assert first is not None, "both do not fit, and nobody knows which was granted"
    assert spending.reserve_decision(identity(), RUN, decision(2, tokens=60), now_us=NOW) is None
    spending.ledger.check()


def test_an_unpriced_tool_is_refused_only_where_money_is_shared() -> None:
    for caps, reason in (((Cap(unit="cost_microusd", limit=9),), ReasonCode.PRICE_UNKNOWN), ((), ReasonCode.ALLOWED)):
        reply = gate(*caps, cost=None).decide(proposed())
        assert reply.decision.reason_code is reason and bool(reply.grant) is (reason is ReasonCode.ALLOWED)


DECISION = decision_key(RUN, 1, 1)
ASKED = ReservationRequest(key=DECISION, price=Spend(tokens=100, cost_microusd=1_000), wall_ms=0)
COST = Spend(tokens=60, cost_microusd=700)


def with_a_decision() -> BudgetReservations:
    """Return budgets of a tenant with a cap, of which one decision is reserved."""
    caps = [Cap(unit="tokens", limit=1_000), Cap(unit="cost_microusd", limit=10_000)]
    spending = BudgetReservations((), {"acme": caps})
    assert spending.reserve_decision(identity(), RUN, ASKED, now_us=1) is None
    return spending


def used(spending: BudgetReservations) -> tuple[int, int]:
    """Return what the tenant has committed of tokens and money."""
    return (
        spending.ledger.used("tenant/acme", "tokens")[1],
        spending.ledger.used("tenant/acme", "cost_microusd")[1],
    )


@pytest.mark.parametrize("said", [{}, {"tokens": 1, "cost_microusd": 1}, {"tokens": 60, "cost_microusd": 700}])
@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize("times", [1, 3])
def test_a_decision_is_settled_at_no_less_than_its_models_cost(said: dict[str, int], is_late: bool, times: int) -> None:
    spending = with_a_decision()

    def tell() -> None:
        for _ in range(times):
            spending.note_spent(identity(), RUN, DECISION, COST, now_us=2)

    if not is_late:
        tell()
    spending.settle(identity(), RUN, [Settlement(key=DECISION, used=said)], now_us=3)
    if is_late:
        tell()
    assert used(spending) == (60, 700)


def test_what_a_run_says_beyond_what_models_cost_counts() -> None:
    spending = with_a_decision()
    spending.note_spent(identity(), RUN, DECISION, COST, now_us=2)
    spending.settle(identity(), RUN, [Settlement(key=DECISION, used={"tokens": 90, "cost_microusd": 10})], now_us=3)
    assert used(spending) == (90, 700)


def test_what_is_told_after_a_runs_end_counts_on_its_tenant_once() -> None:
    spending = with_a_decision()
    spending.settle(identity(), RUN, [Settlement(key=DECISION, used={})], now_us=3)
    spending.close(RUN)
    for _ in range(3):
        spending.note_spent(identity(), RUN, DECISION, COST, now_us=4)
    assert used(spending) == (60, 700)


def test_what_is_no_decision_of_the_run_is_not_taken_in() -> None:
    spending = with_a_decision()
    spending.note_spent(identity(), RUN, wall_key(RUN, 1, 1), COST, now_us=2)
    spending.note_spent(identity(), RunId("run_" + "9" * 24), DECISION, COST, now_us=2)
    assert used(spending) == (0, 0)
