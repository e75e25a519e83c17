"""Replays: another agent is shown exactly what the recorded one was, and nothing of what it proposes happens."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from airside.actors.audit import journal_file
from airside.actors.replay import replay_run
from airside.memory.in_memory import InMemoryMemory
from airside.stack.canonical import digest
from airside.stack.contracts.memory import Candidate, Recalled
from airside.stack.contracts.models import ModelReply, Prompt, RecordedAnswer, Turn
from airside.stack.cycle.cycle import Cycle
from airside.stack.cycle.replay import Clocks, PolicyPreview, Replay, ReplayedStep
from airside.stack.errors import InvalidInput
from airside.stack.ids import TenantId
from airside.stack.models.pricing import cost_of, input_bound
from airside.stack.models.provider import ModelPort
from airside.stack.policy.bundle import load_bundle
from airside.stack.run import events as ev
from airside.stack.run.agents import Agent, FunctionAgent, View
from airside.stack.run.machine import RunMachine
from airside.stack.run.recorded_run import events_of
from airside.stack.run.state import Phase
from airside.stack.run.topology import Handoffs
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.values import Action, Finish, Handoff, Spend
from tests.apps.replayed import create_app
from tests.commands import airside
from tests.helpers import KEY, RUN, spec
from tests.recorded import Queried, write
from tests.unit.stack.cycle.test_cycle import World
from tests.unit.stack.models.test_calls import RATES, FakeModel, said
from tests.unit.stack.models.test_calls import World as Models

POLICY = """
version: v2
rules:
  - {id: large, outcome: deny, when: {tool: [pay], arguments: [{path: amount, op: gt, value: 100}]}}
  - {id: origin, outcome: deny, when: {tool: [pay], origins: [{of: any, outside: [request]}]}}
  - {id: rest, outcome: allow, when: {tool: [pay]}}
"""

PROMPT = Prompt(instructions="be brief", turns=(Turn(role="user", text="hello"),), tools=(), max_tokens=100)


class Seen:
    """Decides by a script, and keeps what it was shown."""

    price = Spend(tokens=10)

    def __init__(self) -> None:
        self.views: list[View] = []

    async def decide(self, view: View) -> Any:
        self.views.append(replace(view, history=tuple(view.history), models=None))
        script: dict[tuple[str, int], Any] = {
            ("a", 0): Action(tool="pay", arguments={"amount": 3}, spend=Spend(tokens=5)),
            ("a", 1): Handoff(agent="b", message={"go": "on"}),
            ("b", 1): [Action(tool="pay", arguments={"amount": n}) for n in (4, 5)],
            ("b", 3): Finish(answer="paid"),
        }
        return script[view.agent, len(view.history)]


async def recorded(agent: Any, memory: InMemoryMemory | None = None) -> World:
    """Return a world in which a run has ended, of two agents who are the same."""
    world = World(agent, Handoffs("a", ("a", "b")))
    ports = world.cycle.layers
    ticks = itertools.count(1_000_000, 350_000)
    ports = replace(ports, agents={"a": agent, "b": agent}, memory=memory, now_us=lambda: next(ticks))
    world.cycle = Cycle(world.cycle.machine, ports, durable=0)
    for event in world.cycle.machine.events:
        world.cycle.log.record(event)
    await world.run()
    assert world.phase is Phase.COMPLETED
    return world


def replay(
    agent: Agent,
    models: dict[str, ModelPort] | None = None,
    max_cost_microusd: int = 10**6,
    specs: Sequence[ToolSpec] = (spec("pay"),),
) -> Replay:
    """Return a replay with an agent, by a policy that denies large amounts."""
    world = Models()
    return Replay(
        agent,
        specs=specs,
        preview=PolicyPreview(load_bundle(POLICY), specs, KEY, "2"),
        models=models or {},
        clocks=Clocks(now_us=lambda: 0, now_s=lambda: world.clock_s, sleep=world.sleep),
        app_version="2",
        max_cost_microusd=max_cost_microusd,
    )


async def remembering() -> tuple[InMemoryMemory, dict[str, Recalled]]:
    """Return a memory with a record that runs are shown, and that by its id."""
    memory = InMemoryMemory(lambda: 500_000)
    reply = await memory.write_if_useful(
        Candidate(tenant=TenantId("acme"), text="go is what ann says to have invoices paid", kind="fact", source="ann")
    )
    assert reply.kept
    index = memory._tenants[TenantId("acme")]
    record = index.records[reply.record_id]
    shown = Recalled(
        record_id=record.record_id,
        text=record.text,
        score=0.0,
        source="; ".join(record.sources),
        sensitivity=record.sensitivity,
        kind=record.kind,
        created_us=record.created_us,
        expires_us=record.expires_us,
        trust=record.trust,
        importance=record.importance,
        subject=record.subject,
        labels=record.labels,
        met=record.met,
    )
    return memory, {record.record_id: shown}


def bare(view: View) -> View:
    """Return a view without what of recalled records is not on record: by what they were found."""
    kept = [
        msgspec.structs.replace(record, score=round(record.score, 4), cosine=0.0, bm25=0.0, rank=0.0, age_s=0.0)
        for record in view.recalled
    ]
    return replace(view, recalled=tuple(kept))


async def test_the_other_agent_is_shown_what_the_recorded_one_was() -> None:
    """History, messages, memory, what is left, labels, tools and the trace's ids, at every decision."""
    memory, kept = await remembering()
    first, second = Seen(), Seen()
    world = await recorded(first, memory)
    assert any(view.recalled for view in first.views), "something was recalled"
    steps = await replay(second, specs=world.cycle.layers.specs).steps(events_of(Queried(world.journal), RUN), kept)
    assert [bare(view) for view in second.views] == [bare(view) for view in first.views]
    assert all(step.same and not step.forgotten for step in steps) and [step.agent for step in steps] == list("aabb")


async def test_the_other_agent_may_ask_for_the_answers_of_earlier_decisions() -> None:
    """As the recorded one could: those that models gave to its own decisions."""
    world = await recorded(Seen())
    answer = RecordedAnswer(prompt_sha256="p", reply=ModelReply(text="yes", recorded=True))
    seen: list[list[tuple[int, tuple[RecordedAnswer, ...]]]] = []

    async def asks_back(view: View) -> Any:
        seen.append([(one.step, one.answers) for one in await view.earlier()])
        return Finish(answer="paid")

    steps = await replay(FunctionAgent(asks_back)).steps(
        events_of(Queried(world.journal), RUN), {}, answers={1: (answer,)}
    )
    assert len(steps) == 4 and seen[0] == [] and seen[1] == [(1, (answer,))]


async def test_what_memory_has_no_more_is_said() -> None:
    memory, kept = await remembering()
    world = await recorded(Seen(), memory)
    steps = await replay(Seen()).steps(events_of(Queried(world.journal), RUN), {})
    assert steps[0].forgotten == tuple(kept)


async def test_what_memory_says_otherwise_by_now_is_not_shown_as_what_it_said() -> None:
    """A record keeps its id when the same is learned again in other words; the recorded agent never saw these."""
    memory, kept = await remembering()
    world = await recorded(Seen(), memory)
    text = "GO is what Ann says to have invoices paid"
    again = Candidate(tenant=TenantId("acme"), text=text, kind="fact", source="mail", trust="high")
    (record_id,) = kept
    assert (await memory.write_if_useful(again)).record_id == record_id
    record = memory._tenants[TenantId("acme")].records[record_id]
    changed = msgspec.structs.replace(kept[record_id], text=record.text, trust=record.trust, met=record.met)
    assert changed.text == text
    second = Seen()
    steps = await replay(second).steps(events_of(Queried(world.journal), RUN), {record_id: changed})
    assert steps[0].forgotten == (record_id,) and not any(view.recalled for view in second.views)


async def test_policy_says_what_it_would_of_each_call_and_nothing_happens() -> None:
    world = await recorded(Seen())
    paid, entries = list(world.paid), {name: len(each) for name, each in world.journal.streams.items()}
    steps = await replay(FunctionAgent(lambda view: Action(tool="pay", arguments={"amount": 500}))).steps(
        events_of(Queried(world.journal), RUN), {}, instead_of="a"
    )
    first = steps[0]
    assert [step.step for step in steps] == [1, 2] and not first.same
    assert (first.recorded.calls[0].outcome, first.recorded.calls[0].on_record) == ("deny", "allow")
    assert first.recorded.calls[0].rule == "origin", "where values come from is traced as it was"
    assert (first.proposed.calls[0].outcome, first.proposed.calls[0].rule) == ("deny", "large")
    assert world.paid == paid and {name: len(each) for name, each in world.journal.streams.items()} == entries


async def test_an_agent_that_fails_says_why_at_that_step_and_the_others_are_asked() -> None:
    world = await recorded(Seen())

    def fails(view: View) -> Any:
        if view.step == 1:
            raise KeyError("lost")
        return Finish(answer="paid")

    steps = await replay(FunctionAgent(fails)).steps(events_of(Queried(world.journal), RUN), {})
    assert "agent_error" in steps[0].proposed.error and "lost" in steps[0].proposed.error
    assert steps[-1].same


async def asks(view: View) -> Any:
    """Ask the model, and finish with its answer."""
    assert view.models is not None
    return Finish(answer=(await view.models.ask(["m"], PROMPT)).text)


async def test_models_are_asked_for_no_more_than_the_replay_may_cost() -> None:
    """What is reserved for each question is bounded by what is left, whatever its agent may cost."""
    world = await recorded(Seen())
    most = cost_of(RATES, input_bound(PROMPT), 100)
    agent = FunctionAgent(asks)
    agent.price = Spend(tokens=10**6, cost_microusd=10**6)
    cost = cost_of(RATES, 50, 10).cost_microusd
    model = FakeModel(said("yes"), limits=Models().limits())
    made = replay(agent, {"m": model}, most.cost_microusd + cost)
    steps = await made.steps(events_of(Queried(world.journal), RUN), {})
    assert [step.cost_microusd for step in steps] == [cost, cost, cost, cost]
    assert steps[0].proposed.finish == Finish(answer="yes")
    assert made.spent.cost_microusd <= most.cost_microusd + cost


@pytest.mark.parametrize("way", ["left", "sent", "earlier"])
async def test_a_question_that_no_decision_under_way_asks_is_paid_from_nothing(way: str) -> None:
    """One that is sent and not waited for counts in full, and one by an earlier view is refused."""
    world = await recorded(Seen())
    model = FakeModel(said("yes", used=(1_000, 90)), limits=Models().limits())
    most = cost_of(RATES, input_bound(PROMPT), 100).cost_microusd
    asked: list[asyncio.Future[Any]] = []
    views: list[View] = []

    async def decide(view: View) -> Finish:
        views.append(view)
        by = views[max(0, len(views) - 2)] if way == "earlier" else view
        assert by.models is not None
        if way != "earlier" or len(views) > 1:
            asked.append(asyncio.ensure_future(by.models.ask(["m"], PROMPT)))
        while way == "sent" and not model.asked and not asked[-1].done():  # noqa: ASYNC110
            await asyncio.sleep(0)
        return Finish(answer="done")

    agent = FunctionAgent(decide)
    agent.price = Spend(tokens=10**6, cost_microusd=10**6)
    made = replay(agent, {"m": model}, most)
    await made.steps(events_of(Queried(world.journal), RUN), {})
    await asyncio.gather(*asked, return_exceptions=True)
    assert len(model.asked) == (0 if way == "earlier" else 1)
    assert made.spent.cost_microusd == (0 if way == "earlier" else most)
    assert made.left.cost_microusd == most - made.spent.cost_microusd


async def test_what_cannot_be_paid_for_is_not_asked() -> None:
    world = await recorded(Seen())
    agent = FunctionAgent(asks)
    agent.price = Spend(tokens=10**6, cost_microusd=10**6)
    model = FakeModel(said("yes"), limits=Models().limits())
    steps = await replay(agent, {"m": model}, 0).steps(events_of(Queried(world.journal), RUN), {})
    assert not model.asked and all("max_cost" in step.proposed.error for step in steps)


async def test_an_agent_that_may_cost_nothing_asks_no_model() -> None:
    world = await recorded(Seen())
    model = FakeModel(said("yes"), limits=Models().limits())
    steps = await replay(FunctionAgent(asks), {"m": model}).steps(events_of(Queried(world.journal), RUN), {})
    assert not model.asked and all("price_unknown" in step.proposed.error for step in steps)


async def test_a_decision_that_failed_on_record_is_replayed_as_one() -> None:
    world = World(FunctionAgent(lambda view: 1 / 0))
    await world.run()
    steps = await replay(FunctionAgent(lambda view: Finish())).steps(events_of(Queried(world.journal), RUN), {})
    assert "ZeroDivisionError" in steps[0].recorded.error and steps[0].proposed.finish == Finish()


async def test_a_run_without_a_decision_of_that_agent_is_refused() -> None:
    world = await recorded(Seen())
    with pytest.raises(InvalidInput, match="no decision of an agent 'nobody'"):
        await replay(Seen()).steps(events_of(Queried(world.journal), RUN), {}, instead_of="nobody")


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the state directory of a stack that has carried a run out, and does not run."""
    folder = tmp_path_factory.mktemp("state")
    clerk = FunctionAgent(create_app().agents["clerk"])
    world = World(clerk)
    asyncio.run(world.run())
    assert world.paid == [3]
    write(world.journal, folder)
    return folder


def command(state: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> int:
    return airside(monkeypatch, "replay", RUN, "--app", "tests.apps.replayed", "--state-dir", str(state), *more)


def test_the_command_shows_each_decision_beside_the_other_agents(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(state, monkeypatch, "--agent", "generous") == 0
    told = capsys.readouterr().out
    assert "step 1  a: differs" in told and "step 2  a: the same" in told
    assert 'recorded  pay {"amount": 3} -> allow by rest; then allow' in told
    assert 'proposed  pay {"amount": 500} -> deny by large' in told
    assert "recorded with the app's version 1; tools and policy are of 2" in told
    assert "2 decisions, 1 the same; 0 tokens, $0.0000" in told


def test_the_command_gives_everything_as_json(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(state, monkeypatch, "--agent", "clerk", "--json") == 0
    report = msgspec.json.decode(capsys.readouterr().out)
    assert [step["same"] for step in report["steps"]] == [True, True] and report["run_id"] == RUN
    assert msgspec.convert(report["steps"], list[ReplayedStep])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--agent", "nobody"), "the app has no agent 'nobody'; there are clerk, generous"),
        (("--agent", "clerk", "--max-cost", "-1"), "--max-cost -1.0: give USD"),
        (("--agent", "clerk", "--instead-of", "zoe"), "the run has no decision of an agent 'zoe'"),
    ],
)
def test_what_cannot_be_replayed_is_said(
    more: tuple[str, ...],
    said: str,
    state: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command(state, monkeypatch, *more) == 2
    assert said in capsys.readouterr().err


def test_a_replay_changes_nothing_of_the_directory(state: Path) -> None:
    def files() -> dict[str, str]:
        return {str(path): digest(path.read_bytes()) for path in state.rglob("*") if path.is_file()}

    before = files()
    journal = journal_file(state)
    report = replay_run(journal, RUN, create_app().checked(), "clerk", state_dir=state, max_cost_microusd=0)
    journal.close()
    assert report.version == "2" and files() == before


def test_the_events_of_a_view_are_those_of_the_run(state: Path) -> None:
    journal = journal_file(state)
    events = events_of(journal, RUN)
    journal.close()
    assert RunMachine.replay(events).is_over and isinstance(events[-1], ev.RunEnded)
