"""Facts of runs that are done: what a model may teach memory, and what it changes of the run, which is nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from airside.memory.in_memory import InMemoryMemory
from airside.stack.contracts.memory import Candidate, LearnReply
from airside.stack.contracts.models import RequestedCall
from airside.stack.cycle.cycle import Cycle
from airside.stack.cycle.cycle_ports import CyclePorts
from airside.stack.cycle.in_memory import InMemoryApprovals, InMemoryJournal, InMemoryPolicy
from airside.stack.errors import LayerUnavailable
from airside.stack.ids import PrincipalId
from airside.stack.journal.journaling import Append, AppendReply
from airside.stack.models.calls import ModelCalls
from airside.stack.models.cassettes import CassetteModel, recorded
from airside.stack.models.endpoints import TokenPrice
from airside.stack.models.events import read_events
from airside.stack.models.extractor import NOTE_TOOL, FactExtractor
from airside.stack.models.provider import ProviderAnswer, ProviderFailure, Said
from airside.stack.models.rate_limits import RateLimits
from airside.stack.policy.bundle import load_bundle
from airside.stack.policy.gate import Gate
from airside.stack.reasons import MemoryCode, ReasonCode
from airside.stack.run import events as ev
from airside.stack.run.agents import FunctionAgent, View
from airside.stack.run.extraction import EXTRACTOR
from airside.stack.run.machine import RunMachine
from airside.stack.run.topology import SingleAgent
from airside.stack.security.identity import run_subject, seal_identity
from airside.stack.values import Action, Finish, Limits, Request, ToolResult
from airside.tools.dispatch import Dispatcher
from airside.tools.in_memory import InMemoryTools
from airside.tools.tool import tool
from tests.helpers import EXECUTOR, KEY, RUN, identity

RATES = TokenPrice(input=1.0, output=10.0)
ASKED = "Ana prefers deliveries on Tuesday mornings. Please look order 88213 up."
LAMPS = {
    "text": "Order 88213 contains two brass lamps",
    "quote": "order.number: 88213 order.contains: two brass lamps",
    "subject": "the shop",
}
TUESDAYS = {"text": "Ana prefers deliveries on Tuesdays", "quote": "ANA  prefers deliveries", "subject": "Ana"}


@tool(effect="read", trusted_output=True)
def find_order(order: str) -> dict[str, Any]:
    """Return an order."""
    return {"order": {"number": order, "contains": "two brass lamps", "note": None}}


@tool(effect="read")
def read_mail() -> str:
    """Return what an outsider wrote."""
    return "Ben's new address is the mill in Ghent"


def decide(view: View) -> Any:
    """Look the order up, and the mail if it is asked for; then answer."""
    todo = [Action(tool="find_order", arguments={"order": "88213"})]
    todo += [Action(tool="read_mail")] * ("mail" in view.request.text)
    return todo[len(view.history)] if len(view.history) < len(todo) else Finish(answer="It is on its way to the depot.")


class NotingModel:
    """Notes what it is told to, or fails."""

    rates, provider, prices, batches = RATES, "openai", "own", None

    def __init__(self, notes: object) -> None:
        self.notes = notes
        self.limits = limits()
        self.prompts: list[str] = []

    async def ask(self, prompt: Any, max_tokens: int, timeout_s: float, said: Said | None = None) -> ProviderAnswer:
        """Answer."""
        self.prompts.append(prompt.turns[0].text)
        if isinstance(self.notes, Exception):
            raise self.notes
        calls = (RequestedCall(tool=NOTE_TOOL, arguments=json.dumps(self.notes)),)
        text = self.notes if isinstance(self.notes, str) else ""
        return ProviderAnswer(
            text=text, calls=() if text else calls, finish="stop", model="m", input_tokens=70, output_tokens=7
        )


def limits() -> RateLimits:
    """Return an account's that has none."""
    return RateLimits(requests=None, tokens=None, concurrency=1, now_s=lambda: 0.0, sleep=asyncio.sleep)


class MortalJournal:
    """A runtime's way to the journal, which dies at one append, when that is written."""

    def __init__(self, store: InMemoryJournal, dies_at: int | None) -> None:
        self._store, self._dies_at = store, dies_at
        self.appends = 0

    async def append(self, append: Append) -> AppendReply:
        """Write, and die perhaps."""
        await asyncio.sleep(0)
        self.appends += 1
        reply = self._store.append_now(append)
        if self._dies_at is not None and self.appends >= self._dies_at:
            raise LayerUnavailable("the runtime died")
        return reply

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class Noting:
    """A memory that notes what it is offered."""

    def __init__(self) -> None:
        self._memory = InMemoryMemory(lambda: 1)
        self.retrieve = self._memory.retrieve
        self.offered: list[tuple[Candidate, LearnReply]] = []

    async def write_if_useful(self, candidate: Candidate) -> LearnReply:
        """Keep it, or not."""
        reply = await self._memory.write_if_useful(candidate)
        self.offered.append((candidate, reply))
        return reply

    @property
    def facts(self) -> list[Candidate]:
        """What was offered beside answers, each once."""
        return list({each.text: each for each, _ in self.offered if each.kind != "answer"}.values())


class World:
    """One run with an extractor, in as many activations as it takes."""

    def __init__(
        self, notes: object, *, text: str = ASKED, dies_at: int | None = None, model: Any = None, **bounds: int
    ) -> None:
        self.model = model or NotingModel(notes)
        self.journal, self.memory = InMemoryJournal(), Noting()
        self.mortal = MortalJournal(self.journal, dies_at)
        specs = [find_order.spec, read_mail.spec]
        count = iter(range(100_000))
        self._gate = Gate(
            bundle=load_bundle("version: v1\nrules: [{id: reads, outcome: allow, when: {effect: [read]}}]"),
            tools=specs,
            seal_key=KEY,
            now_us=lambda: 0,
            random=lambda n: next(count).to_bytes(n, "big"),
        )
        self._specs = specs
        self._tools = InMemoryTools(
            lambda: Dispatcher(
                [find_order, read_mail], seal_key=KEY, executor_id=EXECUTOR, now_us=lambda: 0, in_threads=False
            )
        )
        who = identity()
        self._submitted = ev.RunSubmitted(
            at_us=0,
            run_id=RUN,
            identity=who,
            sealed=seal_identity(KEY, who, run_subject(RUN)),
            request=Request(text=text),
            limits=Limits(**bounds),
            app_version="1",
        )

    async def _reserved(self, question: Any) -> Any:
        return self._gate.reserved(question)

    async def _spawn(self, *_: Any) -> None:
        raise AssertionError("there are no branches")

    def _models(self) -> ModelCalls:
        return ModelCalls(
            {"m": self.model},
            reserved=self._reserved,
            append=self.journal.append,
            bodies=self.journal.bodies,
            now_us=lambda: 0,
            now_s=lambda: 0.0,
            sleep=asyncio.sleep,
        )

    def activate(self, *, after: Sequence[ev.Event] = (), extractor: bool = True) -> tuple[Cycle, Any]:
        """Return the run's next activation and what it is to do."""
        machine = self.replayed()
        known = len(self.journal.bodies_of(RUN))
        activated = ev.RunActivated(at_us=0, epoch=machine.state.epoch + 1)
        instructions = machine.handle(activated)
        agents: dict[str, Any] = {"a": FunctionAgent(decide)}
        if extractor:
            agents[EXTRACTOR] = FactExtractor("m", max_tokens=100).priced_by({"m": RATES})
        layers = CyclePorts(
            journal=self.mortal if not known else self.journal,  # type: ignore[arg-type]
            policy=InMemoryPolicy(self._gate),
            tools=self._tools,
            approvals=InMemoryApprovals(KEY, lambda: 0),
            memory=self.memory,
            agents=agents,
            routes={"default": SingleAgent("a")},
            specs=self._specs,
            now_us=lambda: 0,
            spawn=self._spawn,
            models=self._models(),
        )
        cycle = Cycle(machine, layers, durable=known)
        for event in [activated] if known else machine.events:
            cycle.log.record(event)
        for event in after:
            cycle.post(event)
        return cycle, instructions

    def replayed(self) -> RunMachine:
        """Return the run as the journal has it."""
        events = [ev.decode_event(body) for body in self.journal.bodies_of(RUN)]
        return RunMachine.replay(events) if events else RunMachine(self._submitted)

    async def run(self, **how: Any) -> ev.RunEnded:
        """Activate the run until it is over; return its end."""
        for _ in range(3):
            cycle, instructions = self.activate(**how)
            with contextlib.suppress(LayerUnavailable):
                await cycle.advance(instructions)
            if (machine := self.replayed()).is_over:
                machine.check()
                return next(event for event in machine.events if isinstance(event, ev.RunEnded))
        raise AssertionError(machine.story())


def notes(*facts: object) -> dict[str, object]:
    """Return what a model notes."""
    return {"facts": list(facts)}


def is_as_ever(ended: ev.RunEnded) -> bool:
    """Whether a run ended as it would have without an extractor."""
    return ended.outcome.reason_code is ReasonCode.COMPLETED and b"on its way" in bytes(ended.outcome.answer)


async def test_facts_are_kept_with_where_they_stand_and_paid_for_by_the_run() -> None:
    world = World(notes(LAMPS, TUESDAYS))
    ended = await world.run()
    assert is_as_ever(ended) and ended.usage.cost_microusd == 140 and ended.usage.tokens == 77
    lamps, tuesdays = world.memory.facts
    assert (lamps.text, lamps.source, lamps.subject) == (LAMPS["text"], f"{RUN}#1", "")
    assert (tuesdays.text, tuesdays.source, tuesdays.subject) == (TUESDAYS["text"], f"{RUN}#0", "Ana")
    assert {each.trust for each in world.memory.facts} == {"medium"}
    codes = [reply.code for candidate, reply in world.memory.offered if candidate.kind != "answer"]
    assert codes == [MemoryCode.STORED, MemoryCode.STORED]
    (prompt,) = world.model.prompts
    assert "order.contains: two brass lamps" in prompt and "It is on its way" in prompt


async def test_what_an_outsider_may_have_written_is_trusted_little() -> None:
    mill = {"text": "Ben has moved to the mill in Ghent", "quote": "Ben's new address is the mill", "subject": "Ben"}
    world = World(notes(mill, TUESDAYS), text=ASKED + " And read the mail.")
    assert is_as_ever(await world.run())
    assert [(each.trust, each.source) for each in world.memory.facts] == [("low", f"{RUN}#2"), ("low", f"{RUN}#0")]


@pytest.mark.parametrize(
    "fact",
    [
        {"text": "Ana is allergic to latex gloves", "quote": "allergic to latex"},
        {"text": "Ana prefers deliveries on Tuesdays", "quote": "Ana"},
        {"text": "Order 99999 contains two brass lamps", "quote": "contains: two brass lamps"},
        {"text": "The parcel is on its way to the depot", "quote": "It is on its way to the depot."},
        {"text": "Ana prefers Tuesdays", "quote": "Ana prefers deliveries", "kind": "result"},
        {"text": "Ana prefers Tuesdays", "quote": "Ana prefers deliveries", "confidence": 7},
        {"text": "x" * 3_000, "quote": "Ana prefers deliveries"},
        {"text": 7, "quote": "Ana prefers deliveries"},
        "Ana prefers deliveries on Tuesdays",
        None,
    ],
    ids=["not said", "too short", "another number", "the answer's own", "kind", "confidence", "long", "no text", "text",
         "null"],
)  # fmt: skip
async def test_what_does_not_stand_on_what_the_run_saw_is_not_offered(fact: object) -> None:
    world = World(notes(fact, LAMPS | {"text": "It contains two brass lamps"}))
    assert is_as_ever(await world.run())
    assert [each.text for each in world.memory.facts] == ["It contains two brass lamps"]


async def test_what_memorys_gate_refuses_stays_refused() -> None:
    secret = {"text": "Ana said that her password is hunter2!x", "quote": "her password is hunter2!x"}
    world = World(notes(secret, TUESDAYS), text=ASKED + " And her password is hunter2!x of course.")
    assert is_as_ever(await world.run())
    codes = {candidate.text: reply.code for candidate, reply in world.memory.offered}
    assert codes[secret["text"]] == MemoryCode.SECRET and codes[TUESDAYS["text"]] == MemoryCode.STORED


@pytest.mark.parametrize(
    "failing",
    [
        ProviderFailure("no such key", is_sure=True, again=False),
        RuntimeError("broken"),
        "this is no JSON",
        "[]",
        {"facts": {"text": "x"}},
        {"facts": None},
    ],
    ids=["refused", "raises", "no json", "a list", "an object", "null"],
)
async def test_a_model_that_fails_changes_nothing_of_the_run(failing: object) -> None:
    world = World(failing)
    assert is_as_ever(await world.run()) and world.memory.facts == []
    assert [candidate.kind for candidate, _ in world.memory.offered] == ["answer"]


@pytest.mark.parametrize("bounds", [{"max_steps": 2}, {"max_tokens": 5}, {"max_cost_microusd": 5}])
async def test_a_run_that_has_nothing_left_is_done_without_facts(bounds: dict[str, int]) -> None:
    world = World(notes(LAMPS), **bounds)
    assert is_as_ever(await world.run()) and world.model.prompts == [] and world.memory.facts == []


async def test_without_an_extractor_nothing_is_asked() -> None:
    world = World(notes(LAMPS))
    assert is_as_ever(await world.run(extractor=False)) and world.model.prompts == [] and world.memory.facts == []


async def test_a_run_whose_process_dies_ends_as_it_would_have_and_the_model_is_asked_once() -> None:
    """At every append of the run's: what the model was paid for is kept, and asked for from the record."""
    whole = World(notes(LAMPS, TUESDAYS))
    await whole.run()
    for dies_at in range(1, whole.mortal.appends + 1):
        world = World(notes(LAMPS, TUESDAYS), dies_at=dies_at)
        assert is_as_ever(await world.run()), dies_at
        assert len(world.model.prompts) == 1, dies_at
        assert sorted(each.text for each in world.memory.facts) == sorted((LAMPS["text"], TUESDAYS["text"])), dies_at


async def test_whoever_kills_a_run_kills_it_also_while_facts_are_looked_for() -> None:
    world = World(notes(LAMPS))
    cycle, instructions = world.activate()

    async def killed(*_: Any, **__: Any) -> ProviderAnswer:
        cycle.post(
            ev.KillRequested(at_us=0, by=PrincipalId("ops"), reason_code=ReasonCode.KILLED_BY_OPERATOR, why="enough")
        )
        await asyncio.Event().wait()
        raise AssertionError

    world.model.ask = killed
    await asyncio.wait_for(cycle.advance(instructions), 10)
    outcome = world.replayed().state.outcome
    assert outcome is not None and outcome.reason_code is ReasonCode.KILLED_BY_OPERATOR and world.memory.facts == []


async def test_an_extractor_takes_no_part_in_the_run() -> None:
    """A call that one proposes, whatever it is, is no call of the run's."""
    world = World(notes(LAMPS))
    cycle, instructions = world.activate()

    class Acting(FactExtractor):
        async def decide(self, view: View) -> Any:
            return Action(tool="read_mail")

    cycle.layers.agents[EXTRACTOR] = Acting("m")  # type: ignore[index]
    await cycle.advance(instructions)
    events = world.replayed().events
    assert isinstance(events[-1], ev.RunEnded) and is_as_ever(events[-1])
    assert [event.tool for event in events if isinstance(event, ev.ActionGated)] == ["find_order"]


async def test_a_cassette_plays_what_was_noted(tmp_path: Path) -> None:
    first = World(notes(LAMPS))
    await first.run()
    names = [name for name in first.journal.streams if name.startswith("model/")]
    streams = {name: read_events(body.decode() for body in first.journal.bodies_of(name)) for name in names}
    path = tmp_path / "cassette.jsonl"
    path.write_text("\n".join(recorded(streams)), "utf-8")
    again = World(None, model=CassetteModel(path, RATES, limits()))
    assert is_as_ever(await again.run()) and [each.text for each in again.memory.facts] == [LAMPS["text"]]


async def test_a_prompt_is_cut_to_its_bound_and_says_so() -> None:
    history = [ev_record(step, "read_mail", f"mail {step} " + "x" * 9_000) for step in range(1, 5)]
    view = View(
        run_id=RUN, tenant=identity().tenant, principal=identity().principal, agent=EXTRACTOR, step=9,
        request=Request(text="y" * 9_000), history=history, finished=(), branches=(), message=None, recalled=(),
        remaining=Limits(), tools=(), labels=frozenset(),
    )  # fmt: skip
    prompt = FactExtractor("m", max_prompt_bytes=16_000)._prompt(view)
    text = prompt.turns[0].text
    assert len(prompt.instructions.encode()) + len(prompt.tools[0].parameters) + len(text.encode()) <= 16_000
    assert "mail 4" in text and "mail 1 " not in text and prompt.left_out > 20_000


def ev_record(step: int, name: str, output: str) -> Any:
    """Return a call and what it returned."""
    from airside.stack.run.state import StepRecord

    result = ToolResult(ok=True, output=json.dumps(output).encode())  # type: ignore[arg-type]
    return StepRecord(step=step, agent="a", tool=name, arguments={}, result=result)
