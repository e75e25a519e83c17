"""Providers' batches: what is asked in them is asked once and paid once, whoever dies when."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airside.stack.contracts.models import ModelReply, ModelRequest, Prompt, ReservedQuestion, ReservedReply, Turn
from airside.stack.errors import LayerUnavailable
from airside.stack.ids import RunId, TenantId
from airside.stack.journal.journaling import Append, AppendReply
from airside.stack.models.batches import LIFE_S, MAX_MEMBERS, PATIENCE_S, QUIET_S, ModelBatches
from airside.stack.models.calls import ModelCalls
from airside.stack.models.endpoints import TokenPrice
from airside.stack.models.events import ModelAnswered, ModelAsked, ModelFailed, read_batch, read_events, stream_of
from airside.stack.models.pricing import ReducedRates, cost_of, input_bound
from airside.stack.models.provider import BatchedQuestion, ProviderAnswer, ProviderFailure, Said
from airside.stack.models.rate_limits import RateLimits
from airside.stack.reasons import ReasonCode
from airside.stack.values import Spend
from tests.helpers import RUN

USUAL = TokenPrice(input=1.0, output=10.0)
HALF = ReducedRates(USUAL, 0.5)
RUNS = [RunId(f"{RUN}{number}") for number in range(6)]


def prompt_of(run_id: RunId) -> Prompt:
    """Return what a run asks: its own id."""
    turns = (Turn(role="user", text=run_id),)
    return Prompt(instructions="be brief", turns=turns, tools=(), max_tokens=100)


MOST = cost_of(HALF, input_bound(prompt_of(RUNS[0])), 100)
PAID = cost_of(HALF, 100, 20)
BUSY = ProviderFailure("busy", is_sure=True, again=True)
CUT = ProviderFailure("cut", is_sure=False, again=True)


class Died(BaseException):
    """The process ends here, and nothing that it had begun goes on."""


def answer(text: str) -> ProviderAnswer:
    """Return an answer that read 100 tokens and wrote 20."""
    return ProviderAnswer(text=text, calls=(), finish="stop", model="m-1", input_tokens=100, output_tokens=20)


@dataclass
class Provider:
    """What a provider has of batches; it outlives whoever asks it.  `says` is what comes of each question."""

    rates: ReducedRates = HALF
    batches: dict[str, tuple[str, dict[str, Prompt]]] = field(default_factory=dict)
    says: Callable[[str], object] = answer
    ready: bool = True
    can_find: bool = True
    takes: list[ProviderFailure] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)

    async def create(self, label: str, questions: Mapping[str, BatchedQuestion]) -> str:
        await asyncio.sleep(0)
        if self.takes:
            raise self.takes.pop(0)
        handle = f"batch-{len(self.batches)}"
        self.batches[handle] = (label, {name: each.prompt for name, each in questions.items()})
        await asyncio.sleep(0)
        return handle

    async def find(self, label: str, since_us: int) -> str | None:
        await asyncio.sleep(0)
        if not self.can_find:
            raise ProviderFailure("it says nothing of labels", is_sure=False, again=False)
        return next((handle for handle, (its, _) in self.batches.items() if its == label), None)

    async def results(self, handle: str) -> Mapping[str, Any] | None:
        await asyncio.sleep(0)
        if not self.ready:
            return None
        return {name: self.says(prompt.turns[0].text) for name, prompt in self.batches[handle][1].items()}

    async def cancel(self, handle: str) -> None:
        self.cancelled.append(handle)

    def read(self, result: Any, prompt: Prompt) -> ProviderAnswer:
        if isinstance(result, ProviderFailure):
            raise result
        assert isinstance(result, ProviderAnswer)
        return result

    @property
    def asked(self) -> list[str]:
        """Return the questions of all batches that were created and not cancelled."""
        live = (found for handle, (_, found) in self.batches.items() if handle not in self.cancelled)
        return sorted(prompt.turns[0].text for found in live for prompt in found.values())


@dataclass
class Port:
    """A model that takes batches."""

    batches: Provider | None
    limits: RateLimits
    provider: str = "own"
    rates: TokenPrice = USUAL
    prices: str = "own"

    async def ask(self, prompt: Prompt, max_tokens: int, timeout_s: float, said: Said | None = None) -> ProviderAnswer:
        raise AssertionError("nothing is asked by itself in this lane")


@dataclass
class World:
    """The journal and the gate, which outlive model callers, and the clock."""

    provider: Provider | None = field(default_factory=Provider)
    streams: dict[str, list[bytes]] = field(default_factory=dict)
    refused: set[RunId] = field(default_factory=set)
    clock_s: float = 0.0
    labels: Any = field(default_factory=itertools.count)
    dies_in: int | None = None
    """After how many entries of the journal the caller dies: before the next one is written, or once it is."""

    dies_after: bool = False
    is_dead: bool = False
    gathers: ModelBatches | None = None

    async def reserved(self, question: ReservedQuestion) -> ReservedReply:
        await asyncio.sleep(0)
        if question.run_id in self.refused:
            return ReservedReply(reason_code=ReasonCode.SWITCHED_OFF, error="off")
        return ReservedReply(price=MOST, tenant=TenantId("acme"))

    async def append(self, append: Append) -> AppendReply:
        await asyncio.sleep(0)
        if self.is_dead:
            raise Died
        dies = self.is_dead = self.dies_in == 0
        if self.dies_in is not None and not dies:
            self.dies_in -= 1
        if dies and not self.dies_after:
            raise Died
        there = self.streams.setdefault(append.stream, [])
        bodies = [entry.body for entry in append.entries]
        taken = there[append.first_seq : append.first_seq + len(bodies)]
        if taken != bodies:
            if len(there) != append.first_seq:
                return AppendReply(verdict="fenced")
            there += bodies
        if dies:
            raise Died
        return AppendReply(verdict="ok")

    async def bodies(self, streams: Sequence[str]) -> dict[str, list[str]]:
        await asyncio.sleep(0)
        return {stream: [body.decode() for body in self.streams.get(stream, [])] for stream in streams}

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self.clock_s += seconds

    def caller(self) -> ModelCalls:
        """Return a model caller that has just begun."""
        limits = RateLimits(requests=None, tokens=None, concurrency=8, now_s=lambda: self.clock_s, sleep=self.sleep)
        self.gathers = batches = ModelBatches(
            append=self.append,
            bodies=self.bodies,
            now_us=lambda: int(self.clock_s * 1_000_000),
            now_s=lambda: self.clock_s,
            sleep=self.sleep,
            mint=lambda: f"label-{next(self.labels)}",
        )
        return ModelCalls(
            {"a": Port(self.provider, limits)},
            reserved=self.reserved,
            append=self.append,
            bodies=self.bodies,
            now_us=lambda: int(self.clock_s * 1_000_000),
            now_s=lambda: self.clock_s,
            sleep=self.sleep,
            batches=batches,
        )

    def events(self, run_id: RunId) -> list[Any]:
        return read_events(body.decode() for body in self.streams.get(stream_of(run_id, 1), []))

    def batch(self, number: int) -> list[str]:
        found = read_batch(body.decode() for body in self.streams.get(f"model-batch/label-{number}", []))
        return [type(event).__name__ for event in found]


def question(run_id: RunId) -> ModelRequest:
    """Return a run's question."""
    return ModelRequest(
        identity=b"",
        proof="",
        run_id=run_id,
        version="1",
        step=1,
        epoch=1,
        nth=0,
        models=("a",),
        prompt=prompt_of(run_id),
        timeout_ms=75 * 3_600_000,
        lane="provider_batch",
    )


def asked_of(caller: ModelCalls, runs: Sequence[RunId] = RUNS) -> list[asyncio.Future[ModelReply]]:
    """Have runs ask."""
    return [asyncio.ensure_future(caller.ask(question(run_id))) for run_id in runs]


async def test_questions_are_gathered_into_one_batch_at_half_the_price() -> None:
    """Each has its own answer, and one batch was created."""
    world = World()
    replies = await asyncio.gather(*asked_of(world.caller()))
    assert [reply.text for reply in replies] == list(RUNS)
    assert {reply.spend for reply in replies} == {PAID} and PAID.cost_microusd * 2 == USUAL.microusd(100, 20)
    assert world.provider is not None and len(world.provider.batches) == 1
    assert world.batch(0) == ["ModelBatchPrepared", "ModelBatchSubmitted"]
    assert [type(event) for event in world.events(RUNS[0])] == [ModelAsked, ModelAnswered]


async def test_a_run_that_may_ask_no_more_when_the_batch_is_sent_is_not_in_it() -> None:
    """Nothing of it was sent, so nothing is paid."""
    world = World()
    caller = world.caller()
    asking = asked_of(caller)
    while world.gathers is None or not world.gathers._gathering:  # noqa: ASYNC110
        await asyncio.sleep(0)
    world.refused = {RUNS[0]}
    replies = await asyncio.gather(*asking)
    assert replies[0].reason_code is ReasonCode.SWITCHED_OFF and replies[0].spend == Spend()
    assert world.provider is not None and world.provider.asked == sorted(RUNS[1:])
    assert not world.events(RUNS[0])


async def test_a_batch_waits_for_more_until_it_is_quiet_or_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is full is sent at once, whatever the time."""
    assert MAX_MEMBERS > 1_000
    monkeypatch.setattr("airside.stack.models.batches.MAX_MEMBERS", 2)
    world = World()
    await asyncio.gather(*asked_of(world.caller()))
    assert world.provider is not None and len(world.provider.batches) == 3
    monkeypatch.undo()
    quiet = World()
    assert quiet.provider is not None
    quiet.provider.ready = True
    await asyncio.gather(*asked_of(quiet.caller(), RUNS[:1]))
    assert quiet.clock_s >= QUIET_S


async def test_who_does_not_wait_any_more_keeps_nobody_from_its_answer() -> None:
    """Each member is told by itself."""
    world = World()
    caller = world.caller()
    asking = asked_of(caller)
    while world.gathers is None or not world.gathers._gathering:  # noqa: ASYNC110
        await asyncio.sleep(0)
    (gathering,) = world.gathers._gathering.values()
    gathering.members[0].result.cancel()
    replies = await asyncio.gather(*asking, return_exceptions=True)
    assert [reply.text for reply in replies if isinstance(reply, ModelReply) and reply.text] == list(RUNS[1:])


async def test_a_provider_that_is_busy_is_asked_again_to_take_the_batch() -> None:
    """What it refused costs nothing, and the members wait."""
    world = World()
    assert world.provider is not None
    world.provider.takes = [BUSY, BUSY]
    replies = await asyncio.gather(*asked_of(world.caller()))
    assert {reply.spend for reply in replies} == {PAID} and len(world.provider.batches) == 1


async def test_what_expired_is_asked_again_and_only_a_few_times() -> None:
    """A member that was never its turn is not paid; three times is enough."""
    world, left = World(), dict.fromkeys(RUNS, 1)
    left[RUNS[0]] = 9
    assert world.provider is not None

    def says(text: str) -> object:
        left[RunId(text)] -= 1
        return answer(text) if left[RunId(text)] < 0 else ProviderFailure("expired", is_sure=True, again=True)

    world.provider.says = says
    first, *others = await asyncio.gather(*asked_of(world.caller()))
    assert first.reason_code is ReasonCode.MODEL_UNAVAILABLE and first.spend == Spend()
    assert [reply.text for reply in others] == list(RUNS[1:]) and {reply.spend for reply in others} == {PAID}
    assert len(world.provider.batches) == 3


async def test_a_model_that_takes_no_batches_is_not_asked_by_itself() -> None:
    """The run is told so: it had asked for the cheaper lane."""
    world = World(provider=None)
    (reply,) = await asyncio.gather(*asked_of(world.caller(), RUNS[:1]))
    assert reply.reason_code is ReasonCode.MODEL_UNAVAILABLE and "takes no batches" in reply.error


async def test_a_member_the_batch_says_nothing_of_counts_in_full() -> None:
    """Nobody can say that it was not answered and billed."""
    world = World()
    assert world.provider is not None
    world.provider.says = lambda text: None if text == RUNS[0] else answer(text)
    first, *others = await asyncio.gather(*asked_of(world.caller()))
    assert first.spend == MOST and first.reason_code is ReasonCode.MAX_COST
    assert {reply.spend for reply in others} == {PAID}


async def test_a_creation_that_was_not_answered_is_looked_up_and_found() -> None:
    """The batch that is there is waited for, and none is created beside it."""
    world = World()
    assert world.provider is not None
    created = world.provider.create

    async def cut(label: str, questions: Mapping[str, BatchedQuestion]) -> str:
        await created(label, questions)
        raise CUT

    world.provider.create = cut  # type: ignore[method-assign]
    replies = await asyncio.gather(*asked_of(world.caller()))
    assert {reply.spend for reply in replies} == {PAID} and world.provider.asked == sorted(RUNS)


@pytest.mark.parametrize("can_find", [True, False])
async def test_a_creation_that_never_came_about_costs_nothing_if_the_provider_can_say_so(can_find: bool) -> None:
    """It is sent again then; where nobody can say, it counts in full, and nothing is left to ask again with."""
    world = World()
    assert world.provider is not None
    world.provider.can_find, world.provider.takes = can_find, [CUT]
    replies = await asyncio.gather(*asked_of(world.caller()))
    if can_find:
        assert {reply.spend for reply in replies} == {PAID} and world.provider.asked == sorted(RUNS)
    else:
        assert {reply.reason_code for reply in replies} == {ReasonCode.MAX_COST}
        assert {reply.spend for reply in replies} == {MOST} and not world.provider.asked


async def died(world: World, caller: ModelCalls, asking: Sequence[asyncio.Future[ModelReply]]) -> None:
    """Let the caller go on until it dies, or waits for the provider; nothing of it goes on after."""
    assert world.provider is not None
    for _ in range(150):  # while the clock goes on, less than a batch lives
        if world.is_dead:
            break
        await asyncio.sleep(0)
    own = {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}
    for task in own:
        task.cancel()
    await asyncio.gather(*own, *asking, return_exceptions=True)


@pytest.mark.parametrize("is_there", [True, False])
async def test_an_attempt_out_in_a_batch_of_a_model_that_is_gone_counts(is_there: bool) -> None:
    """It was sent and may be paid: another model is not asked beyond what was reserved."""
    world = World()
    assert world.provider is not None
    world.provider.ready = False
    caller = world.caller()
    await died(world, caller, asked_of(caller, RUNS[:1]))
    world.provider.ready = True
    caller = world.caller()
    port = caller.port("a")
    caller.models = {"b": port, "a": Port(None, port.limits)} if is_there else {"b": port}
    reply = await caller.ask(msgspec.structs.replace(question(RUNS[0]), models=("b",)))
    assert reply.reason_code is ReasonCode.MAX_COST and reply.spend == MOST
    assert world.provider.asked == [RUNS[0]]
    assert [type(event) for event in world.events(RUNS[0])] == [ModelAsked, ModelFailed]


@pytest.mark.parametrize("is_back", [True, False])
async def test_a_journal_that_is_away_as_a_batch_was_created_is_told_of_it_when_it_is_back(is_back: bool) -> None:
    """The handle is nowhere else; its members wait, though not for ever."""
    world = World()
    assert world.provider is not None
    world.provider.can_find = False
    caller, tries = world.caller(), 0

    async def append(it: Append) -> AppendReply:
        nonlocal tries
        if it.stream.startswith("model-batch/") and it.first_seq == 1:
            tries += 1
            if tries < 3 or not is_back:
                raise LayerUnavailable("the journal is away")
        return await world.append(it)

    assert caller.batches is not None
    caller.batches._append = append
    replies = await asyncio.gather(*asked_of(caller))
    assert len(world.provider.batches) == 1 and not world.provider.cancelled
    if is_back:
        assert {reply.spend for reply in replies} == {PAID} and tries == 3
    else:
        assert {reply.reason_code for reply in replies} == {ReasonCode.MODEL_UNAVAILABLE}
        assert world.clock_s < 2 * PATIENCE_S


@pytest.mark.parametrize("denials", [6, 10**6])
async def test_a_batch_is_lost_only_if_it_is_denied_for_a_while(denials: int) -> None:
    """A key may be wrong for some minutes; one that stays so keeps nobody waiting for a day."""
    world, asked = World(), 0
    assert world.provider is not None
    results = world.provider.results

    async def denied(handle: str) -> Mapping[str, Any] | None:
        nonlocal asked
        asked += 1
        if asked <= denials:
            raise ProviderFailure("no such key", is_sure=True, again=False)
        return await results(handle)

    world.provider.results = denied  # type: ignore[method-assign]
    replies = await asyncio.gather(*asked_of(world.caller()))
    if denials == 6:
        assert {reply.spend for reply in replies} == {PAID}
    else:
        assert {reply.spend for reply in replies} == {MOST} and PATIENCE_S <= world.clock_s < LIFE_S / 4


async def test_what_broke_as_a_batch_was_waited_for_is_not_what_became_of_it() -> None:
    """Who asks next looks again."""
    world = World()
    assert world.provider is not None
    world.provider.ready = False
    caller = world.caller()
    await died(world, caller, asked_of(caller))
    caller, results = world.caller(), world.provider.results

    async def broken(handle: str) -> Mapping[str, Any] | None:
        raise RuntimeError("a fault of ours")

    world.provider.ready, world.provider.results = True, broken  # type: ignore[method-assign]
    failed = await asyncio.gather(*asked_of(caller), return_exceptions=True)
    assert {type(each) for each in failed} == {RuntimeError}
    world.provider.results = results  # type: ignore[method-assign]
    replies = await asyncio.gather(*asked_of(caller))
    assert {reply.spend for reply in replies} == {PAID} and world.provider.asked == sorted(RUNS)


@settings(deadline=None, max_examples=60)
@given(
    crashes=st.lists(st.tuples(st.integers(0, 30), st.booleans(), st.booleans()), max_size=4),
    again=st.integers(1, len(RUNS)),
)
@example(crashes=[(1, False, False), (3, False, False), (3, False, False)], again=1)  # none was ever sent
@example(crashes=[(2, False, False), (5, False, False), (8, False, False)], again=1)
async def test_whoever_dies_when_each_question_is_asked_once_and_paid_once(
    crashes: list[tuple[int, bool, bool]], again: int
) -> None:
    """The caller dies at any entry of the journal, before it is written or just after, again and again."""
    world = World()
    assert world.provider is not None
    for dies_in, dies_after, ready in crashes:
        world.dies_in, world.dies_after, world.provider.ready, world.is_dead = dies_in, dies_after, ready, False
        caller = world.caller()
        await died(world, caller, asked_of(caller, RUNS[:again]))
    world.dies_in, world.provider.ready, world.is_dead = None, True, False
    replies = await asyncio.gather(*asked_of(world.caller()))
    assert [reply.text for reply in replies] == list(RUNS)
    assert {reply.spend for reply in replies} == {PAID}
    assert world.provider.asked == sorted(RUNS)
    for run_id in RUNS:
        events = world.events(run_id)
        assert sum(isinstance(event, ModelAnswered) for event in events) == 1
        assert all(event.spent == Spend() for event in events if isinstance(event, ModelFailed))
