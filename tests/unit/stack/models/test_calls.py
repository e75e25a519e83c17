"""`ModelCalls`: what is sent to models, what it may cost, and what is on record of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airside.stack.contracts.models import (
    ModelReply,
    ModelRequest,
    Prompt,
    RequestedCall,
    ReservedQuestion,
    ReservedReply,
    Turn,
)
from airside.stack.errors import LayerUnavailable
from airside.stack.ids import TenantId
from airside.stack.journal.journaling import Append, AppendReply
from airside.stack.models.blobs import InMemoryBlobs, prompt_of_blob
from airside.stack.models.calls import ModelCalls
from airside.stack.models.endpoints import TokenPrice
from airside.stack.models.events import ModelAnswered, ModelAsked, ModelFailed, read_events, spent_under, stream_of
from airside.stack.models.pricing import cost_of, fits, input_bound
from airside.stack.models.provider import MAX_ANSWER_BYTES, ProviderAnswer, ProviderFailure, Said
from airside.stack.models.question import MAX_ATTEMPTS_PER_MODEL
from airside.stack.models.rate_limits import RateLimits
from airside.stack.reasons import ReasonCode
from airside.stack.values import FREE, Spend, plus
from tests.helpers import RUN

PROMPT = Prompt(instructions="be brief", turns=(Turn(role="user", text="hello"),), tools=(), max_tokens=100)
RATES = TokenPrice(input=1.0, output=10.0)
MOST = cost_of(RATES, input_bound(PROMPT), 100)
STREAM = stream_of(RUN, 1)

BUSY = ProviderFailure("busy", is_sure=True, again=True)
CUT = ProviderFailure("cut", is_sure=False, again=True)
DENIED = ProviderFailure("no such key", is_sure=True, again=False)


def said(text: str = "hi", *, used: tuple[int, int] | None = (50, 10)) -> ProviderAnswer:
    """Return an answer, with the tokens it read and wrote."""
    read, wrote = used or (None, None)
    return ProviderAnswer(text=text, calls=(), finish="stop", model="m-1", input_tokens=read, output_tokens=wrote)


class FakeModel:
    """Says what it is told to say, one after the other, the last one again and again."""

    def __init__(self, *sayings: ProviderAnswer | Exception, limits: RateLimits, gate: asyncio.Event | None = None):
        self.rates = RATES
        self.provider = "openai"
        self.prices = "own"
        self.batches = None
        self.limits = limits
        self.sayings = list(sayings)
        self.gate = gate
        self.asked: list[int] = []

    async def ask(self, prompt: Prompt, max_tokens: int, timeout_s: float, said: Said | None = None) -> ProviderAnswer:
        self.asked.append(max_tokens)
        if self.gate is not None:
            await self.gate.wait()
        saying = self.sayings.pop(0) if len(self.sayings) > 1 else self.sayings[0]
        if isinstance(saying, Exception):
            raise saying
        return saying


@dataclass
class World:
    """The layers round a model caller, and its clock."""

    price: Spend | None = MOST
    reason: ReasonCode | None = None
    streams: dict[str, list[bytes]] = field(default_factory=dict)
    journal_away: bool = False
    clock_s: float = 0.0
    slept: list[float] = field(default_factory=list)
    told: list[Spend] = field(default_factory=list)
    prompts: Any = None

    async def reserved(self, question: ReservedQuestion) -> ReservedReply:
        self.told.append(question.spent)
        return ReservedReply(price=self.price, tenant=TenantId("acme"), reason_code=self.reason, error="")

    async def append(self, append: Append) -> AppendReply:
        if self.journal_away:
            raise LayerUnavailable("journal: away")
        there = self.streams.setdefault(append.stream, [])
        if append.first_seq != len(there):
            return AppendReply(verdict="fenced")
        there += [entry.body for entry in append.entries]
        return AppendReply(verdict="ok")

    async def bodies(self, streams: Sequence[str]) -> dict[str, list[str]]:
        return {stream: [body.decode() for body in self.streams.get(stream, [])] for stream in streams}

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock_s += seconds
        await asyncio.sleep(0)

    def limits(self, **fields: Any) -> RateLimits:
        given = {"requests": None, "tokens": None, "concurrency": 8} | fields
        return RateLimits(now_s=lambda: self.clock_s, sleep=self.sleep, **given)

    def calls(self, **models: FakeModel) -> ModelCalls:
        return ModelCalls(
            models,
            reserved=self.reserved,
            append=self.append,
            bodies=self.bodies,
            now_us=lambda: int(self.clock_s * 1_000_000),
            now_s=lambda: self.clock_s,
            sleep=self.sleep,
            prompts=self.prompts,
        )

    def events(self) -> list[Any]:
        return read_events(body.decode() for body in self.streams.get(STREAM, []))


def request(*models: str, epoch: int = 1, nth: int = 0, seconds: float = 60) -> ModelRequest:
    """Return a run's question."""
    return ModelRequest(
        identity=b"",
        proof="",
        run_id=RUN,
        version="1",
        step=1,
        epoch=epoch,
        nth=nth,
        models=models or ("a",),
        prompt=PROMPT,
        timeout_ms=int(seconds * 1000),
    )


async def test_an_attempt_is_on_record_before_it_is_sent_and_its_answer_after() -> None:
    world = World()
    seen: list[list[Any]] = []

    class Watching(FakeModel):
        async def ask(
            self, prompt: Prompt, max_tokens: int, timeout_s: float, said: Said | None = None
        ) -> ProviderAnswer:
            seen.append(world.events())
            return await super().ask(prompt, max_tokens, timeout_s)

    reply = await world.calls(a=Watching(said(), limits=world.limits())).ask(request())
    assert reply.text == "hi" and reply.reason_code is None and reply.attempts == 1
    assert reply.spend == cost_of(RATES, 50, 10)
    assert [type(event) for event in seen[0]] == [ModelAsked] and seen[0][0].reserved == MOST
    assert [type(event) for event in world.events()] == [ModelAsked, ModelAnswered]


async def test_what_was_answered_is_never_asked_again() -> None:
    world = World()
    model = FakeModel(said("one"), said("two"), limits=world.limits())
    first = await world.calls(a=model).ask(request())
    again = await world.calls(a=model).ask(request(epoch=2))
    changed = msgspec.structs.replace(request(epoch=3), prompt=msgspec.structs.replace(PROMPT, instructions="other"))
    third = await world.calls(a=model).ask(changed)
    lost = await world.calls(a=model).ask(request())
    assert [first.text, again.text, third.text] == ["one"] * 3 and len(model.asked) == 1
    assert not first.recorded and again.recorded and again.spend == FREE
    assert lost.spend == first.spend, "its answer was lost on the way, and the decision is the same"


async def test_the_same_question_twice_at_once_is_one_and_outlives_whoever_asks() -> None:
    world, gate = World(), asyncio.Event()
    model = FakeModel(said(), limits=world.limits(), gate=gate)
    calls = world.calls(a=model)
    asking = [asyncio.ensure_future(calls.ask(request())) for _ in range(2)]
    while not model.asked:  # noqa: ASYNC110
        await asyncio.sleep(0)
    asking[0].cancel()
    gate.set()
    assert (await asking[1]).text == "hi" and len(model.asked) == 1
    assert isinstance(world.events()[-1], ModelAnswered)


async def test_what_nobody_reserved_is_not_asked() -> None:
    world = World(price=None)
    model = FakeModel(said(), limits=world.limits())
    reply = await world.calls(a=model).ask(request())
    assert reply.reason_code is ReasonCode.PRICE_UNKNOWN and not model.asked and not world.events()


@pytest.mark.parametrize("reason", [ReasonCode.SWITCHED_OFF, ReasonCode.POLICY_ERROR])
async def test_what_the_gate_refuses_is_not_asked(reason: ReasonCode) -> None:
    world = World(reason=reason)
    model = FakeModel(said(), limits=world.limits())
    assert (await world.calls(a=model).ask(request())).reason_code is reason and not model.asked


async def test_who_joins_a_question_is_looked_at_first() -> None:
    world, gate = World(), asyncio.Event()
    model = FakeModel(said("of acme"), limits=world.limits(), gate=gate)
    calls = world.calls(a=model)
    first = asyncio.ensure_future(calls.ask(request()))
    while not model.asked:  # noqa: ASYNC110
        await asyncio.sleep(0)
    world.reason = ReasonCode.POLICY_ERROR  # as the gate says of a seal that does not hold
    forged = await calls.ask(request())
    world.reason = None
    gate.set()
    assert forged.reason_code is ReasonCode.POLICY_ERROR and not forged.text
    assert (await first).text == "of acme"
    world.reason = ReasonCode.POLICY_ERROR
    assert not (await calls.ask(request())).text, "nor is the record read to it"


async def test_a_decision_that_is_made_again_has_its_own_time_and_price() -> None:
    world, gate = World(), asyncio.Event()
    model = FakeModel(CUT, said(), limits=world.limits(), gate=gate)
    calls = world.calls(a=model)
    first = asyncio.ensure_future(calls.ask(request()))
    while not model.asked:  # noqa: ASYNC110
        await asyncio.sleep(0)
    second = asyncio.ensure_future(calls.ask(request(epoch=2)))
    gate.set()
    assert (await first).reason_code is ReasonCode.MAX_COST and (await second).text == "hi"


async def test_what_is_switched_off_between_two_attempts_is_not_asked_again() -> None:
    world = World()
    model = FakeModel(BUSY, said(), limits=world.limits())
    slept = world.sleep

    async def sleep(seconds: float) -> None:
        world.reason = ReasonCode.SWITCHED_OFF
        await slept(seconds)

    world.sleep = sleep  # type: ignore[method-assign]
    reply = await world.calls(a=model).ask(request())
    assert reply.reason_code is ReasonCode.SWITCHED_OFF and len(model.asked) == 1


async def test_the_gate_is_told_what_a_decision_cost_before_its_run_is() -> None:
    world = World()
    await world.calls(a=FakeModel(said(), limits=world.limits())).ask(request())
    assert world.told[-1] == cost_of(RATES, 50, 10)


SURROGATE = chr(0xD800)


@pytest.mark.parametrize(
    "answer",
    [
        replace(said(f"a {SURROGATE}"), model=SURROGATE),
        replace(said(), calls=(RequestedCall(tool=f"pay{SURROGATE}", arguments=SURROGATE, call_id=SURROGATE),)),
        replace(said("x" * 3_000_000), model="m" * 10_000),
        replace(said(), calls=(RequestedCall(tool="t" * 10_000, arguments="{" * 3_000_000),) * 20_000),
        replace(said(), input_tokens=2**62, output_tokens=2**62),
        replace(said(), input_tokens=-5, output_tokens=10),
    ],
    ids=["text", "call", "long", "many", "usage", "negative"],
)
async def test_what_a_provider_returns_is_bounded_before_it_is_written_down(answer: ProviderAnswer) -> None:
    world = World()
    reply = await world.calls(a=FakeModel(answer, limits=world.limits())).ask(request())
    assert reply.reason_code is None and fits(reply.spend, MOST)
    assert isinstance(world.events()[-1], ModelAnswered) and len(world.streams[STREAM][-1]) < 3 * MAX_ANSWER_BYTES
    again = await world.calls(a=FakeModel(said(), limits=world.limits())).ask(request(epoch=2))
    assert again.recorded and again.text == reply.text


async def test_an_answer_that_was_too_long_is_not_carried_out() -> None:
    world = World()
    long = replace(said(), calls=(RequestedCall(tool="pay", arguments=" " * MAX_ANSWER_BYTES + "{}"),))
    reply = await world.calls(a=FakeModel(long, limits=world.limits())).ask(request())
    assert reply.finish == "length"


async def test_a_gate_that_is_away_is_a_no() -> None:
    world = World()

    async def away(_: ReservedQuestion) -> ReservedReply:
        raise LayerUnavailable("policy: away")

    world.reserved = away  # type: ignore[method-assign]
    model = FakeModel(said(), limits=world.limits())
    assert (await world.calls(a=model).ask(request())).reason_code is ReasonCode.MODEL_UNAVAILABLE and not model.asked


async def test_nothing_is_sent_that_cannot_be_put_on_record() -> None:
    world = World(journal_away=True)
    models = {name: FakeModel(said(), limits=world.limits()) for name in "ab"}
    reply = await world.calls(**models).ask(request("a", "b"))
    assert reply.reason_code is ReasonCode.MODEL_UNAVAILABLE and reply.spend == FREE
    assert not models["a"].asked and not models["b"].asked


class Tries:
    """The pauses of whoever goes on trying to write: each ends when the test says so."""

    def __init__(self) -> None:
        self.due = asyncio.Semaphore(0)

    async def sleep(self, seconds: float) -> None:
        await self.due.acquire()


async def settled() -> None:
    """Let whoever can go on do so."""
    for _ in range(20):
        await asyncio.sleep(0)


class LosingJournal(World):
    """A world whose journal is away from when a model has been asked until the test brings it back."""

    def losing(self, *sayings: ProviderAnswer | Exception) -> FakeModel:
        world = self

        class Model(FakeModel):
            async def ask(self, prompt: Prompt, max_tokens: int, timeout_s: float) -> ProviderAnswer:
                world.journal_away = True
                return await super().ask(prompt, max_tokens, timeout_s)

        return Model(*sayings, limits=self.limits())


async def test_an_answer_that_cannot_be_written_down_is_there_when_it_is_asked_for_again() -> None:
    """The run is told that there is none; the model, which is paid, is not asked twice."""
    world, tries = LosingJournal(), Tries()
    model = world.losing(said("yes"))
    calls = world.calls(a=model)
    calls._unwritten._sleep = tries.sleep
    reply = await calls.ask(request("a"))
    assert reply.reason_code is ReasonCode.MODEL_UNAVAILABLE and calls.unwritten == 1
    assert (await calls.ask(request("a"))).reason_code is ReasonCode.MODEL_UNAVAILABLE and len(model.asked) == 1
    world.journal_away = False
    again = await calls.ask(request("a"))
    assert again.text == "yes" and again.recorded and len(model.asked) == 1 and calls.unwritten == 0
    assert again.spend == cost_of(RATES, 50, 10)


async def test_an_answer_that_nobody_asks_for_again_is_written_when_the_journal_is_back() -> None:
    world, tries = LosingJournal(), Tries()
    calls = world.calls(a=world.losing(said("yes")))
    calls._unwritten._sleep = tries.sleep
    await calls.ask(request("a"))
    tries.due.release()
    await settled()
    assert len(world.events()) == 1 and calls.unwritten == 1, "it is still away"
    world.journal_away = False
    tries.due.release()
    await settled()
    assert [type(event) for event in world.events()] == [ModelAsked, ModelAnswered] and calls.unwritten == 0
    assert not calls._unwritten._writing


async def test_an_end_that_another_caller_was_faster_with_is_dropped() -> None:
    """What is on record counts."""
    world, tries = LosingJournal(), Tries()
    calls = world.calls(a=world.losing(said("yes")))
    calls._unwritten._sleep = tries.sleep
    await calls.ask(request("a"))
    world.streams[STREAM].append(msgspec.json.encode(msgspec.structs.replace(world.events()[0], attempt=2)))
    world.journal_away = False
    tries.due.release()
    await settled()
    assert calls.unwritten == 0 and [type(event) for event in world.events()] == [ModelAsked, ModelAsked]


async def test_what_cannot_be_asked_is_not_held() -> None:
    """An attempt that is not on record was not sent."""
    world = World(journal_away=True)
    calls = world.calls(a=FakeModel(said(), limits=world.limits()))
    await calls.ask(request("a"))
    assert calls.unwritten == 0


async def test_a_model_nobody_knows_is_refused() -> None:
    assert (await World().calls().ask(request("b"))).reason_code is ReasonCode.MODEL_UNAVAILABLE


async def test_one_that_is_busy_is_asked_again_and_costs_nothing_for_it() -> None:
    world = World()
    model = FakeModel(BUSY, said(), limits=world.limits())
    reply = await world.calls(a=model).ask(request())
    assert reply.text == "hi" and reply.attempts == 2 and reply.spend == cost_of(RATES, 50, 10)
    assert [type(event) for event in world.events()] == [ModelAsked, ModelFailed, ModelAsked, ModelAnswered]
    assert [event.attempt for event in world.events()] == [1, 1, 2, 2]


async def test_nothing_is_sent_before_the_provider_said_that_it_may_be() -> None:
    world = World()
    model = FakeModel(
        ProviderFailure("slow down", is_sure=True, again=True, after_s=7.0), said(), limits=world.limits()
    )
    await world.calls(a=model).ask(request())
    assert world.clock_s >= 7.0 and len(model.asked) == 2


async def test_after_so_many_attempts_another_model_is_asked() -> None:
    world = World()
    a, b = FakeModel(BUSY, limits=world.limits()), FakeModel(said("from b"), limits=world.limits())
    reply = await world.calls(a=a, b=b).ask(request("a", "b"))
    assert reply.text == "from b" and len(a.asked) == MAX_ATTEMPTS_PER_MODEL and len(b.asked) == 1


async def test_what_a_provider_will_never_answer_is_not_asked_twice() -> None:
    world = World()
    a, b = FakeModel(DENIED, limits=world.limits()), FakeModel(said(), limits=world.limits())
    assert (await world.calls(a=a, b=b).ask(request("a", "b"))).text == "hi"
    assert len(a.asked) == 1


async def test_what_was_cut_off_counts_in_full_and_leaves_nothing_for_another_attempt() -> None:
    world = World()
    a, b = FakeModel(CUT, limits=world.limits()), FakeModel(said(), limits=world.limits())
    reply = await world.calls(a=a, b=b).ask(request("a", "b"))
    assert reply.reason_code is ReasonCode.MAX_COST and reply.spend == MOST and not b.asked


async def test_an_answer_without_usage_costs_all_that_was_reserved() -> None:
    world = World()
    reply = await world.calls(a=FakeModel(said(used=None), limits=world.limits())).ask(request())
    assert reply.text == "hi" and reply.spend == MOST


async def test_an_answer_may_be_as_long_as_what_is_left_pays_for() -> None:
    little = cost_of(RATES, input_bound(PROMPT), 7)
    world = World(price=little)
    model = FakeModel(said(), limits=world.limits())
    await world.calls(a=model).ask(request())
    assert model.asked == [7]


async def test_what_was_under_way_when_the_caller_died_counts_in_full_and_is_another_attempt_after() -> None:
    world = World(price=Spend(tokens=2 * MOST.tokens, cost_microusd=2 * MOST.cost_microusd))
    asked = ModelAsked(
        at_us=0, step=1, epoch=1, nth=0, attempt=1, model="a", prompt_sha256="", reserved=MOST, prices="own", left_out=0
    )
    world.streams[STREAM] = [msgspec.json.encode(asked)]
    model = FakeModel(CUT, limits=world.limits())
    reply = await world.calls(a=model).ask(request())
    assert len(model.asked) == 1 and reply.reason_code is ReasonCode.MAX_COST
    assert reply.spend == plus(MOST, MOST)
    assert [event.attempt for event in world.events()] == [1, 2, 2]


async def test_questions_of_one_decision_share_what_it_reserved() -> None:
    world = World()
    model = FakeModel(said(used=(50, 90)), said(), limits=world.limits())
    calls = world.calls(a=model)
    await calls.ask(request())
    second = await calls.ask(request(nth=1))
    assert second.reason_code is ReasonCode.MAX_COST and fits(spent_under(world.events(), 1), MOST)


async def test_questions_of_one_decision_that_are_asked_at_once_take_turns() -> None:
    world = World(price=Spend(tokens=3 * MOST.tokens, cost_microusd=3 * MOST.cost_microusd))
    calls = world.calls(a=FakeModel(said(), limits=world.limits()))
    replies = await asyncio.gather(*(calls.ask(request(nth=nth)) for nth in range(3)))
    assert [reply.text for reply in replies] == ["hi"] * 3
    assert [event.attempt for event in world.events()] == [1, 1, 2, 2, 3, 3]


async def test_what_never_fits_a_rate_limit_says_so() -> None:
    world = World()
    reply = await world.calls(a=FakeModel(said(), limits=world.limits(tokens=10))).ask(request())
    assert reply.reason_code is ReasonCode.MODEL_UNAVAILABLE and "a minute" in reply.error
    assert not world.events()


_SAYINGS: dict[str, Callable[[], ProviderAnswer | Exception]] = {
    "answers": said,
    "says nothing of usage": lambda: said(used=None),
    "busy": lambda: BUSY,
    "cut": lambda: CUT,
    "denied": lambda: DENIED,
    "breaks": lambda: ValueError("a fault of the client's"),
}


@settings(max_examples=200, deadline=None)
@given(
    sayings=st.lists(st.sampled_from(sorted(_SAYINGS)), min_size=1, max_size=12),
    share=st.floats(0.2, 4.0),
    questions=st.lists(st.tuples(st.integers(1, 3), st.integers(0, 2)), min_size=1, max_size=5),
    dies_at=st.integers(0, 12),
)
def test_no_decision_ever_costs_more_than_it_reserved(
    sayings: list[str], share: float, questions: list[tuple[int, int]], dies_at: int
) -> None:
    """Whatever models say, whatever is asked again under which epoch, and whenever the caller dies."""

    async def play() -> None:
        price = Spend(tokens=int(MOST.tokens * share), cost_microusd=int(MOST.cost_microusd * share))
        world = World(price=price)
        model = FakeModel(*(_SAYINGS[each]() for each in sayings), limits=world.limits())
        count = 0
        append = world.append

        async def dying(entries: Append) -> AppendReply:
            nonlocal count
            count += 1
            if count == dies_at:
                raise LayerUnavailable("the caller died here")
            return await append(entries)

        world.append = dying  # type: ignore[method-assign]
        told: dict[int, list[ModelReply]] = {}
        for epoch, nth in questions:
            told.setdefault(nth, []).append(await world.calls(a=model).ask(request(epoch=epoch, nth=nth)))
        for epoch in (1, 2, 3):
            assert fits(spent_under(world.events(), epoch), price), world.events()
        of = {event.attempt: event.nth for event in world.events() if isinstance(event, ModelAsked)}
        answered = [of[event.attempt] for event in world.events() if isinstance(event, ModelAnswered)]
        assert len(answered) == len(set(answered))
        for replies in told.values():
            assert all(reply.text == "hi" for reply in replies if reply.reason_code is None)

    asyncio.run(play())


class BrokenBlobs(InMemoryBlobs):
    """Blobs on a disk that fails."""

    async def put(self, tenant: TenantId, data: bytes) -> str:
        raise LayerUnavailable("blobs: no space left on the device")


async def test_prompts_are_kept_where_that_is_wanted_and_before_anything_is_sent() -> None:
    world = World(prompts=InMemoryBlobs())
    await world.calls(a=FakeModel(BUSY, said(), limits=world.limits())).ask(request("a"))
    first, _, second, _ = world.events()
    assert first.prompt_blob == second.prompt_blob and len(world.prompts.kept) == 1, "the same prompt is kept once"
    assert prompt_of_blob(await world.prompts.get(TenantId("acme"), first.prompt_blob)) == PROMPT
    broken = World(prompts=BrokenBlobs())
    model = FakeModel(said(), limits=broken.limits())
    reply = await broken.calls(a=model).ask(request("a"))
    assert reply.reason_code is ReasonCode.MODEL_UNAVAILABLE and not model.asked and not broken.events()


async def test_prompts_are_not_kept_where_nobody_said_so() -> None:
    world = World()
    await world.calls(a=FakeModel(said(), limits=world.limits())).ask(request("a"))
    assert not world.events()[0].prompt_blob


def test_entries_of_before_there_were_blobs_are_read() -> None:
    asked = (
        '{"type":"ModelAsked","at_us":1,"step":1,"epoch":1,"nth":0,"attempt":1,"model":"m","prompt_sha256":"p",'
        '"reserved":{"tokens":1,"cost_microusd":1},"prices":"own","left_out":0}'
    )
    answer = (
        '{"type":"ModelAnswered","at_us":2,"step":1,"attempt":1,"model":"m","finish":"stop","text":"hi","calls":[],'
        '"input_tokens":1,"output_tokens":1,"spent":{"tokens":2,"cost_microusd":1},"took_ms":5}'
    )
    first, second = read_events([asked, answer])
    assert isinstance(first, ModelAsked) and not first.prompt_blob
    assert isinstance(second, ModelAnswered) and second.text == "hi"
