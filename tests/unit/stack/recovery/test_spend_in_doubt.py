"""Spend in doubt: what counts in full because nobody knows, and what becomes of it when somebody finds out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from airside.actors.audit import journal_file
from airside.actors.driver import spend_in_doubt as listing
from airside.actors.driver.spend_in_doubt import SpendResolver
from airside.stack.budget.ledger import Cap
from airside.stack.budget.reservations import ORG, BudgetReservations
from airside.stack.contracts.budget import ReservationRequest, decision_key
from airside.stack.cycle.in_memory import InMemoryJournal
from airside.stack.errors import InvalidInput, LayerUnavailable
from airside.stack.ids import RunId, TenantId
from airside.stack.journal.journaling import Append, Entry
from airside.stack.journal.stream import append_of
from airside.stack.models.calls import MAX_QUESTION_S
from airside.stack.models.events import ModelAnswered, ModelAsked, ModelEvent, ModelFailed, model_entry, stream_of
from airside.stack.operations.messages import Order
from airside.stack.recovery.related_entries import RelatedEntry, describe_related
from airside.stack.recovery.spend_in_doubt import (
    DIED,
    NO_USAGE,
    Attempt,
    SpendInDoubt,
    open_spend,
    parse_spend_key,
    spend_in_doubt,
    spend_key,
    spend_stream,
)
from airside.stack.run import events as ev
from airside.stack.values import FREE, Spend
from tests.commands import airside
from tests.helpers import KEY, RUN, Driven, identity
from tests.recorded import write

ACME = TenantId("acme")
MOST = Spend(tokens=1_000, cost_microusd=900)
LATER_US = int(MAX_QUESTION_S * 1_000_000) * 2
MONTH_US = 40 * 86_400_000_000


def asked(attempt: int, at_us: int = 2_500) -> ModelAsked:
    return ModelAsked(
        at_us=at_us,
        step=1,
        epoch=1,
        nth=0,
        attempt=attempt,
        model="house",
        prompt_sha256="",
        reserved=MOST,
        prices="own",
    )


def failed(attempt: int, spent: Spend = MOST) -> ModelFailed:
    return ModelFailed(at_us=3_000, step=1, attempt=attempt, error="the line was cut", spent=spent, took_ms=1)


def answered(attempt: int, used: tuple[int | None, int | None] = (90, 10), spent: Spend | None = None) -> ModelAnswered:
    return ModelAnswered(
        at_us=3_000,
        step=1,
        attempt=attempt,
        model="m",
        finish="stop",
        text="",
        calls=(),
        input_tokens=used[0],
        output_tokens=used[1],
        spent=spent or MOST,
        took_ms=1,
    )


@pytest.mark.parametrize(
    ("events", "causes"),
    [
        ([asked(1), failed(1)], ["the line was cut"]),
        ([asked(1), failed(1, FREE)], []),
        ([asked(1), answered(1, spent=Spend(tokens=100, cost_microusd=40))], []),
        ([asked(1), answered(1, (None, None))], [NO_USAGE]),
        ([asked(1), answered(1, (10**9, 10**9))], [NO_USAGE]),
        ([asked(1), answered(1, (900, 100))], []),
        ([asked(1), asked(2), answered(2, spent=Spend(tokens=100))], [DIED]),
        ([asked(1)], [DIED]),
        ([asked(1, LATER_US - 1_000)], []),
        ([asked(1), failed(1), asked(2), failed(2), asked(3), failed(3, FREE)], ["the line was cut"] * 2),
    ],
)
def test_what_nobody_knows_the_cost_of_is_in_doubt(events: list[ModelEvent], causes: list[str]) -> None:
    """And nothing that may be under way, was refused, or says what it used."""
    found = spend_in_doubt(Attempt(RUN, 1, 0), ACME, events, now_us=LATER_US)
    assert [doubt.cause for doubt in found] == causes and all(doubt.reserved == MOST for doubt in found)
    assert [parse_spend_key(doubt.key) for doubt in found] == [Attempt(RUN, 1, doubt.attempt) for doubt in found]


@pytest.mark.parametrize("key", ["", RUN, f"{RUN}:1", f"{RUN}:x/model@1", f"{RUN}:1/model@1 ", "run_x:1/model@1"])
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(InvalidInput):
        parse_spend_key(key)


def ended() -> Driven:
    """Return a run that reserved a decision and ended without it."""
    run = Driven()
    run.activate()
    run.visit(price=MOST)
    run.reserve()
    run.send(ev.KillRequested, by="op", why="x")
    run.end()
    return run


class World:
    """The journal and the gate's budgets, as the driver sees them."""

    def __init__(self, *events: ModelEvent, run: Driven | None = None) -> None:
        self.journal: Any = InMemoryJournal()
        self.run = run or ended()
        self.recounted = 0
        self.is_away = False
        self.journal.append_now(append_of(ACME, RUN, self.run.machine.events))
        entries = tuple(model_entry(event) for event in events)
        self.journal.append_now(Append(tenant=ACME, stream=stream_of(RUN, 1), epoch=0, first_seq=0, entries=entries))
        self.resolver = SpendResolver(self.journal, KEY, self.recount)

    async def recount(self) -> None:
        if self.is_away:
            raise LayerUnavailable("policy is away")
        self.recounted += 1

    async def resolve(self, attempt: int = 1, **fields: Any) -> int:
        order = {"target": spend_key(RUN, 1, attempt), "cost_microusd": 300, "tokens": 400, "why": "the bill"} | fields
        return await self.resolver.resolve(Order(action="resolve_spend", scope="run", by="op", at_us=9, **order))

    def on_record(self, attempt: int = 1) -> list[bytes]:
        bodies: list[bytes] = self.journal.bodies_of(spend_stream(spend_key(RUN, 1, attempt)))
        return bodies


@pytest.mark.parametrize("body", [b"{}", b"no json"])
async def test_what_is_on_record_unsealed_is_nobodys_word(body: bytes) -> None:
    """Whoever resolves is told what is in the way."""
    world = World(asked(1), failed(1))
    entry = Entry(type="SpendResolved", step=0, at_us=1, cause=0, body=body)
    stream = spend_stream(spend_key(RUN, 1, 1))
    world.journal.append_now(Append(tenant=ACME, stream=stream, epoch=0, first_seq=0, entries=(entry,)))
    with pytest.raises(InvalidInput, match="not sealed by the driver"):
        await world.resolve()


async def test_what_is_found_out_is_on_record_once_and_the_gate_is_told() -> None:
    world = World(asked(1), failed(1))
    assert await world.resolve() == 1 and world.recounted == 1
    (body,) = world.on_record()
    found = open_spend(KEY, body.decode(), ACME)
    assert found is not None and found.back == Spend(tokens=600, cost_microusd=600)
    began = next(event.at_us for event in world.run.machine.events if isinstance(event, ev.SpendAsked))
    assert found.counted_us == began and "op resolved" in str(found)
    with pytest.raises(InvalidInput, match="it cost 400 tokens, 300 micro-USD the bill; what is on record stays"):
        await world.resolve(cost_microusd=0)


async def test_tokens_that_nobody_names_stay_as_they_are_counted() -> None:
    world = World(asked(1), failed(1))
    await world.resolve(tokens=None)
    found = open_spend(KEY, world.on_record()[0].decode(), ACME)
    assert found is not None and found.spent.tokens == MOST.tokens and found.back.tokens == 0


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"cost_microusd": 901}, "the most it could cost"),
        ({"tokens": 1_001}, "the most it could cost"),
        ({"attempt": 2}, "nothing of what it cost is in doubt"),
        ({"attempt": 7}, "nothing of what it cost is in doubt"),
        ({"target": spend_key(RunId("run_" + "f" * 24), 1, 1)}, "the journal has no run"),
        ({"target": "run"}, "is no key of spend in doubt"),
    ],
)
async def test_what_cannot_be_so_is_refused_and_nothing_is_written(fields: dict[str, Any], said: str) -> None:
    world = World(asked(1), failed(1), asked(2), failed(2, FREE))
    with pytest.raises(InvalidInput, match=said):
        await world.resolve(**fields)
    assert not world.on_record() and not world.on_record(2) and not world.recounted


async def test_a_run_that_goes_on_is_resolved_when_it_has_ended() -> None:
    run = Driven()
    run.activate()
    world = World(asked(1), failed(1), run=run)
    with pytest.raises(InvalidInput, match="has not ended"):
        await world.resolve()


async def test_a_gate_that_is_away_counts_so_from_its_next_start() -> None:
    world = World(asked(1), failed(1))
    world.is_away = True
    with pytest.raises(LayerUnavailable, match="on record, so it counts from the gate's next start"):
        await world.resolve()
    assert len(world.on_record()) == 1


async def test_a_gate_gives_nothing_back_that_the_driver_has_not_sealed() -> None:
    """Not to another tenant, and no other amount, whoever writes to the journal."""
    world = World(asked(1), failed(1))
    await world.resolve()
    body = world.on_record()[0].decode()
    found = open_spend(KEY, body, ACME)
    assert found is not None
    more = msgspec.json.encode(msgspec.structs.replace(found, back=Spend(tokens=10**9))).decode()
    forged = [(KEY, more, ACME), (KEY, body, TenantId("globex")), (KEY, "{}", ACME), (b"j" * 32, body, ACME)]
    assert [open_spend(*each) for each in forged] == [None] * 4


def budgets() -> BudgetReservations:
    """Return the budgets of a tenant with a cap a month, and of an organisation with one for ever."""
    cost = {"unit": "cost_microusd", "limit": 1_000}
    return BudgetReservations([Cap(**cost)], {"acme": [Cap(**cost, per="month"), Cap(unit="tokens", limit=9_999)]})


def spent(it: BudgetReservations, at_us: int) -> None:
    """Have a run reserve a decision in full, and end without it."""
    wanted = ReservationRequest(key=decision_key(RUN, 1, 1), price=MOST, wall_ms=0)
    assert it.reserve_decision(identity(), RUN, wanted, now_us=at_us) is None
    it.close(RUN)


def test_what_was_counted_too_much_goes_back_once_where_it_was_counted() -> None:
    it = budgets()
    spent(it, 1_000)
    for _ in range(2):
        it.give_back(ACME, "key", Spend(tokens=600, cost_microusd=600), at_us=1_000)
    assert it.ledger.used("tenant/acme", "cost_microusd", "month", now_us=1_000) == (0, 300)
    assert it.ledger.used("tenant/acme", "tokens") == (0, 400) and it.ledger.used(ORG, "cost_microusd") == (0, 300)
    it.ledger.check()


def test_a_window_that_is_over_gets_nothing_back() -> None:
    it = budgets()
    spent(it, MONTH_US)
    it.give_back(ACME, "key", Spend(cost_microusd=600), at_us=1_000)
    assert it.ledger.used("tenant/acme", "cost_microusd", "month", now_us=MONTH_US) == (0, 900)
    assert it.ledger.used(ORG, "cost_microusd") == (0, 300), "a cap for ever is always open"


def test_nothing_is_counted_below_zero() -> None:
    it = budgets()
    it.give_back(ACME, "key", Spend(tokens=600, cost_microusd=600), at_us=1_000)
    spent(it, 1_000)
    it.give_back(ACME, "other", Spend(tokens=10**6), at_us=1_000)
    assert it.ledger.used("tenant/acme", "tokens") == (0, 0) and it.ledger.used(ORG, "cost_microusd") == (0, 900)


@pytest.fixture
async def state(tmp_path: Path) -> Path:
    """Return a state directory with three attempts in doubt, one of which was resolved."""
    world = World(asked(1), failed(1), asked(2), answered(2, (None, None)), asked(3))
    await world.resolve(attempt=2)
    write(world.journal, tmp_path)
    return tmp_path


async def test_the_journal_lists_what_nobody_has_resolved(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "now_us", lambda: LATER_US)
    journal = journal_file(state)
    found = journal.spend_in_doubt()
    assert [(doubt.attempt, doubt.cause) for doubt in found] == [(1, "the line was cut"), (3, DIED)]
    assert found == journal.spend_in_doubt("acme") and journal.spend_in_doubt("globex") == []
    assert "spend resolved by op: attempt 2 cost 400 tokens, 300 micro-USD: the bill" in journal.story(RUN)
    journal.close()


async def test_the_command_lists_them_and_says_how_each_is_resolved(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert airside(monkeypatch, "in-doubt", "spend", "--state-dir", str(state)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [msgspec.json.decode(line, type=SpendInDoubt).attempt for line in lines] == [1, 3]
    assert airside(monkeypatch, "in-doubt", "--state-dir", str(state)) == 0
    told = capsys.readouterr().out
    assert f"airside in-doubt resolve-spend {spend_key(RUN, 1, 1)} --cost USD" in told
    assert "counts as $0.0009 and 1000 tokens, the most it could cost" in told


def test_a_resolution_that_cannot_be_read_is_said_in_the_story() -> None:
    entry = RelatedEntry(at_us=1, stream=spend_stream(spend_key(RUN, 1, 1)), type="SpendResolved", body="{}")
    ((_, text),) = describe_related(ended().machine.events, [entry])
    assert "cannot be read" in text


def test_what_is_out_in_a_batch_may_take_days_before_it_is_in_doubt() -> None:
    """Its provider answers within a day, and it is waited for."""
    attempt = Attempt(RUN, 1, 1)
    out = msgspec.structs.replace(asked(1), batch="label")
    assert spend_in_doubt(attempt, ACME, [out], now_us=48 * 3_600_000_000) == []
    assert [each.cause for each in spend_in_doubt(attempt, ACME, [out], now_us=MONTH_US)] == [DIED]
    assert len(spend_in_doubt(attempt, ACME, [asked(1)], now_us=LATER_US)) == 1
