"""`ForeignLoop`: what is on record is found again, and a loop that goes another way is refused."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from airside.adapters import loop as loops
from airside.adapters.foreign import ForeignAgent, Parts
from airside.adapters.langgraph import LangGraphAgent
from airside.adapters.loop import CallRefused, ForeignLoop, ModelBounds
from airside.adapters.pydantic_ai import PydanticAIAgent
from airside.stack.contracts.models import ModelReply, Prompt, Turn, prompt_digest
from airside.stack.errors import InvalidConfig
from airside.stack.reasons import ReasonCode, RunStatus
from airside.stack.run.agents import Decided, View
from airside.stack.run.topology import Pipeline
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.values import Limits
from tests.unit.airside.adapters.frameworks import DENY, FRAMEWORKS, REFUND, World, pydantic_ai_agent, says

AMPLE = Limits(max_tokens=10**6, max_cost_microusd=10**7)


class PlainAgent(ForeignAgent):
    """A framework that is a coroutine function of the loop."""

    needs = ""

    def __init__(self, code: Callable[[ForeignLoop], Awaitable[Any]]) -> None:
        super().__init__(lambda parts: code, "house", max_prompt_bytes=4_000)

    def model_of(self, loop: ForeignLoop | None) -> Any:
        return loop

    def tool_of(self, spec: ToolSpec, loop: ForeignLoop | None) -> Any:
        return spec.name

    def validate(self, agent: Any, parts: Parts) -> None:
        if not callable(agent):
            raise InvalidConfig("no code")

    def start(self, agent: Any, parts: Parts) -> Awaitable[Any]:
        return agent(parts.model)  # type: ignore[no-any-return]


async def ask(loop: ForeignLoop, text: str) -> ModelReply:
    """Ask a question."""
    return await loop.ask("", [Turn(role="user", text=text)], [])


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nobody wait for a loop that went another way."""
    monkeypatch.setattr(loops, "PATIENCE_S", 0.0)


async def test_a_call_that_comes_with_other_arguments_when_the_loop_is_run_again_is_refused(hasty: None) -> None:
    """Else it would be carried out once more with each decision."""
    numbers = itertools.count()

    async def code(loop: ForeignLoop) -> Any:
        return await loop.call("refund", {"order_id": f"o-{next(numbers)}", "cents": 1})

    world = World(PlainAgent(code))
    outcome = await world.run()
    assert outcome.reason_code == ReasonCode.AGENT_NONDETERMINISTIC and len(world.effects) == 1
    assert "a call of refund" in outcome.detail and "no clock" in outcome.detail


async def test_a_question_that_comes_in_other_words_is_refused_and_no_model_asked(hasty: None) -> None:
    numbers = itertools.count()

    async def code(loop: ForeignLoop) -> Any:
        await ask(loop, f"it is {next(numbers)} o'clock")
        return await loop.call("find_order", {"order_id": "o-7"})

    world = World(PlainAgent(code), [says("well")])
    outcome = await world.run()
    assert outcome.reason_code == ReasonCode.AGENT_NONDETERMINISTIC and len(world.model.prompts) == 1


async def test_a_loop_that_ends_without_asking_for_what_is_on_record_is_refused() -> None:
    ways = iter([True, False])

    async def code(loop: ForeignLoop) -> Any:
        return await loop.call("find_order", {"order_id": "o-7"}) if next(ways) else "done"

    outcome = await World(PlainAgent(code)).run()
    assert outcome.reason_code == ReasonCode.AGENT_NONDETERMINISTIC


async def test_a_decision_that_is_made_again_and_asks_something_else_is_refused(hasty: None) -> None:
    """What it asked before is paid and on record: the answer to it answers nothing else."""
    numbers = itertools.count()

    async def code(loop: ForeignLoop) -> Any:
        return (await ask(loop, f"number {next(numbers)}")).text

    quiet = World(PlainAgent(lambda loop: ask_text(loop)), [says("well")])
    await quiet.run()
    reasons = set()
    for point in range(1, quiet.points + 1):
        numbers = itertools.count()
        world = World(PlainAgent(code), [says("well")], limits=AMPLE, crashes=frozenset({point}))
        reasons.add((await world.run()).reason_code)
        assert len(world.model.prompts) == 1
    assert reasons == {ReasonCode.AGENT_NONDETERMINISTIC, ReasonCode.COMPLETED}


async def ask_text(loop: ForeignLoop) -> str:
    """Ask once, and end with what was said."""
    return (await ask(loop, "number")).text


async def test_branches_may_come_in_any_order() -> None:
    """Each finds its own answers and results, whichever comes first."""
    turns = itertools.count()

    async def branch(loop: ForeignLoop, name: str) -> str:
        for _ in range(next(turns) % 3):
            await asyncio.sleep(0)
        await ask(loop, f"which order is {name}?")
        found = await loop.call("find_order", {"order_id": name})
        return f"{found['order_id']} {(await ask(loop, f'and {name}?')).text}"

    async def code(loop: ForeignLoop) -> Any:
        return await asyncio.gather(branch(loop, "a"), branch(loop, "b"), branch(loop, "c"))

    world = World(PlainAgent(code), [says("lost")], limits=AMPLE)
    outcome = await world.run()
    assert outcome.status == RunStatus.COMPLETED, outcome
    assert bytes(outcome.answer) == b'["a lost","b lost","c lost"]'
    assert sorted(world.found) == ["a", "b", "c"] and len(world.model.prompts) == 6


async def test_branches_that_ask_in_another_order_after_a_crash_have_their_answers() -> None:
    """They run in threads, say: the answer on record is another branch's, and both go on."""
    turns = itertools.count()

    async def code(loop: ForeignLoop) -> Any:
        names = ["a", "b", "c"]
        asked = names if next(turns) % 2 else list(reversed(names))
        replies = await asyncio.gather(*(ask(loop, name) for name in asked))
        return sorted(reply.text for reply in replies)

    def world(*crashes: int) -> World:
        agent = PlainAgent(code)
        agent.questions = 3
        return World(agent, [says("well")], limits=AMPLE, crashes=frozenset(crashes))

    quiet = world()
    await quiet.run()
    for point in range(1, quiet.points + 1):
        for first in (0, 1):
            turns = itertools.count(first)
            crashed = world(point)
            assert (await crashed.run()).status == RunStatus.COMPLETED, point
            assert len(crashed.model.prompts) == 3, "no model is asked twice"


async def test_the_same_call_twice_is_two_calls() -> None:
    async def code(loop: ForeignLoop) -> Any:
        return [await loop.call("refund", REFUND), await loop.call("refund", REFUND)]

    world = World(PlainAgent(code))
    assert (await world.run()).status == RunStatus.COMPLETED and len(world.effects) == 2


async def test_a_loop_that_heeds_no_cancellation_gets_nothing_more_done() -> None:
    async def code(loop: ForeignLoop) -> Any:
        for order in ("o-1", "o-2", "o-3"):
            try:
                await loop.call("refund", {"order_id": order, "cents": 1})
            except BaseException:
                continue
        return "done"

    world = World(PlainAgent(code))
    outcome = await world.run()
    assert outcome.status == RunStatus.COMPLETED, outcome
    assert [effect["order_id"] for effect in world.effects.values()] == ["o-1", "o-2", "o-3"], "one a decision"


async def test_a_loop_that_heeds_no_cancellation_asks_nothing_more_once_its_run_was_stopped() -> None:
    """Each question is paid."""
    asked: list[str] = []
    under_way = asyncio.Event()

    class Models:
        async def ask(self, models: Any, prompt: Prompt) -> ModelReply:
            asked.append(prompt.turns[-1].text)
            under_way.set()
            for _ in range(50):
                await asyncio.sleep(0)
            return ModelReply(text="well", prompt_sha256=prompt_digest(prompt))

    async def decide() -> Decided:
        bounds = ModelBounds(models=("m",), max_tokens=5, max_prompt_bytes=4_000)
        loop = ForeignLoop(SimpleNamespace(models=Models()), bounds, ())  # type: ignore[arg-type]

        async def code() -> Any:
            for number in range(4):
                with suppress(asyncio.CancelledError):
                    await ask(loop, f"question {number}")
            return "done"

        return await loop.run(code)

    deciding = asyncio.ensure_future(decide())
    await under_way.wait()
    deciding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await deciding
    assert asked == ["question 0"]


async def test_what_a_loop_raises_ends_the_run_as_any_agents_error() -> None:
    async def code(loop: ForeignLoop) -> Any:
        raise KeyError("shop")

    outcome = await World(PlainAgent(code)).run()
    assert outcome.reason_code == ReasonCode.AGENT_ERROR and "KeyError" in outcome.detail


async def test_an_answer_that_is_no_json_is_refused() -> None:
    async def code(loop: ForeignLoop) -> Any:
        return object()

    outcome = await World(PlainAgent(code)).run()
    assert outcome.reason_code == ReasonCode.AGENT_ERROR and "it is no JSON" in outcome.detail


async def test_a_question_that_is_too_long_is_not_sent() -> None:
    async def code(loop: ForeignLoop) -> Any:
        return (await ask(loop, "x" * 5_000)).text

    world = World(PlainAgent(code))
    outcome = await world.run()
    assert outcome.reason_code == ReasonCode.AGENT_ERROR and "raise max_prompt_bytes" in outcome.detail
    assert not world.model.prompts


async def test_a_call_that_no_journal_can_hold_is_told_to_the_loop() -> None:
    async def code(loop: ForeignLoop) -> Any:
        with pytest.raises(CallRefused):
            await loop.call("refund", {"order_id": "o-7", "cents": float("nan")})
        return "told"

    world = World(PlainAgent(code))
    assert (await world.run()).status == RunStatus.COMPLETED and not world.effects


async def test_code_in_a_thread_asks_and_calls_as_code_on_the_loop_does() -> None:
    """LangGraph runs plain functions in threads."""

    def think(parts: Parts) -> Any:
        from langgraph.graph import START, MessagesState, StateGraph

        def node(state: MessagesState) -> dict[str, Any]:
            answer = parts.model.invoke(state["messages"])
            tools = {tool.name: tool for tool in parts.tools}
            found = tools["find_order"].invoke({"order_id": answer.text})
            denied = tools["refund"].invoke({"type": "tool_call", "id": "c", "name": "refund", "args": REFUND})
            return {"messages": [("ai", f"{found} {denied.status}")]}

        graph = StateGraph(MessagesState)
        graph.add_node("node", node)
        graph.add_edge(START, "node")
        return graph.compile()

    limits = Limits(max_refusals=1)
    world = World(LangGraphAgent(think, "house", max_prompt_bytes=8_000), [says("o-7")], policy=DENY, limits=limits)
    outcome = await world.run()
    assert outcome.status == RunStatus.COMPLETED, outcome
    assert b"lost" in bytes(outcome.answer) and bytes(outcome.answer).endswith(b' error"')
    assert world.found == ["o-7"] and not world.effects and len(world.model.prompts) == 1


async def test_code_in_a_thread_with_an_event_loop_of_its_own_asks_and_calls() -> None:
    """Plain functions run what is async so."""

    def build(parts: Parts) -> Any:
        from langgraph.graph import START, MessagesState, StateGraph

        def node(state: MessagesState) -> dict[str, Any]:
            answer = asyncio.run(parts.model.ainvoke(state["messages"]))
            tools = {tool.name: tool for tool in parts.tools}
            return {"messages": [("ai", asyncio.run(tools["find_order"].ainvoke({"order_id": answer.text})))]}

        graph = StateGraph(MessagesState)
        graph.add_node("node", node)
        graph.add_edge(START, "node")
        return graph.compile()

    world = World(LangGraphAgent(build, "house", max_prompt_bytes=8_000), [says("o-7")])
    outcome = await world.run()
    assert outcome.status == RunStatus.COMPLETED and b"lost" in bytes(outcome.answer), outcome
    assert world.found == ["o-7"] and len(world.model.prompts) == 1


@pytest.mark.parametrize("name", ["config", "run_manager", "self", "callbacks", "runtime", "state", "tool_call_id"])
async def test_an_argument_of_langgraphs_tools_may_have_any_name(name: str) -> None:
    """By keyword the library would take some for its own, and the call be another one."""
    from langchain_core.messages import AIMessage
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.prebuilt import ToolNode

    arguments, called = {"service": "web", name: {"replicas": 0}}, []

    class Loop:
        async def call(self, tool: str, arguments: dict[str, Any]) -> Any:
            called.append(arguments)
            return "deployed"

    schema = {"type": "object", "properties": {"service": {}, name: {}}}
    spec = SimpleNamespace(name="deploy", description="Deploy.", parameters=schema)
    tool = LangGraphAgent(len).tool_of(spec, Loop())  # type: ignore[arg-type]
    graph = StateGraph(MessagesState)
    graph.add_node("tools", ToolNode([tool]))
    graph.add_edge(START, "tools")
    call = {"name": "deploy", "args": arguments, "id": "1", "type": "tool_call"}
    ended = await graph.compile().ainvoke({"messages": [AIMessage("", tool_calls=[call])]})
    assert called == [arguments] and ended["messages"][-1].content == "deployed"


async def test_a_thread_that_waits_for_a_call_ends_with_its_decision() -> None:
    ended, loop = asyncio.Semaphore(0), asyncio.get_running_loop()

    def build(parts: Parts) -> Any:
        from langgraph.graph import START, MessagesState, StateGraph

        def node(state: MessagesState) -> dict[str, Any]:
            try:
                return {"messages": [("ai", parts.tools[0].invoke({"order_id": "o-7"}))]}
            finally:
                loop.call_soon_threadsafe(ended.release)

        graph = StateGraph(MessagesState)
        graph.add_node("node", node)
        graph.add_edge(START, "node")
        return graph.compile()

    world = World(LangGraphAgent(build))
    assert (await world.run()).status == RunStatus.COMPLETED and world.found == ["o-7"]
    for _ in range(2):
        await ended.acquire()


async def test_an_agent_is_first_built_in_a_thread_so_that_importing_its_framework_holds_no_loop() -> None:
    built: list[int] = []

    def build(parts: Parts) -> Any:
        built.append(threading.get_ident())
        return pydantic_ai_agent(parts)

    await World(PydanticAIAgent(build, "house", max_prompt_bytes=8_000)).run()
    assert built[0] != threading.get_ident() and set(built[1:]) == {threading.get_ident()}


async def test_who_decides_by_it_is_not_cancelled_with_its_loop() -> None:
    async def code(loop: ForeignLoop) -> Any:
        return await loop.call("find_order", {"order_id": "o-7"})

    class Careful(PlainAgent):
        async def decide(self, view: View) -> Decided:
            decided = await super().decide(view)
            task = asyncio.current_task()
            assert task is not None and not task.cancelling()
            return decided

    assert (await World(Careful(code)).run()).status == RunStatus.COMPLETED


async def test_an_answer_of_a_shape_is_asked_for_until_it_is_one() -> None:
    """By Pydantic AI's own loop, within the questions of one decision."""

    def build(parts: Parts) -> Any:
        from pydantic import BaseModel
        from pydantic_ai import Agent

        class Refunded(BaseModel):
            cents: int

        return Agent(parts.model, output_type=Refunded, tools=parts.tools)

    agent = PydanticAIAgent(build, "house", max_prompt_bytes=8_000)
    world = World(agent, [says(final_result={"cents": "all"}), says(final_result={"cents": 1200})])
    outcome = await world.run()
    assert outcome.status == RunStatus.COMPLETED and bytes(outcome.answer) == b'{"cents":1200}'
    assert world.machine.state.usage.steps == 1 and len(world.model.prompts) == 2


async def test_a_stage_that_comes_twice_begins_its_loop_anew() -> None:
    """What it asked and called in its first visit is no record of the second."""

    async def code(loop: ForeignLoop) -> Any:
        found = await loop.call("find_order", {"order_id": "o-7"})
        return [found["order_id"], (await ask(loop, f"visit {len(loop.view.finished)}")).text]

    world = World(PlainAgent(code), [says("well")], limits=AMPLE, topology=Pipeline("clerk", "clerk"))
    outcome = await world.run()
    assert outcome.status == RunStatus.COMPLETED, outcome
    assert world.found == ["o-7", "o-7"] and len(world.model.prompts) == 2


@pytest.mark.parametrize("name", sorted(FRAMEWORKS))
async def test_a_model_that_calls_what_is_no_tool_is_told_so(name: str) -> None:
    world = World(FRAMEWORKS[name](), [says(nonesuch={"a": 1}), says("I see.")], limits=AMPLE)
    outcome = await world.run()
    assert outcome.status == RunStatus.COMPLETED and bytes(outcome.answer) == b'"I see."', outcome
    assert len(world.model.prompts) == 2 and "nonesuch" in str(world.model.prompts[-1].turns[-1])


async def test_what_langgraph_would_send_to_its_maker_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment says."""
    from langchain_core.tracers import langchain as tracers
    from langsmith import utils

    made: list[Any] = []
    monkeypatch.setenv("LANGSMITH_TRACING", "true")
    utils.get_env_var.cache_clear()
    monkeypatch.setattr(tracers.LangChainTracer, "__init__", lambda self, *given, **fields: made.append(given))
    outcome = await World(FRAMEWORKS["langgraph"]()).run()
    utils.get_env_var.cache_clear()
    assert outcome.status == RunStatus.COMPLETED and not made


async def test_what_the_openai_sdk_would_send_to_its_maker_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    from agents.tracing import processors

    sent: list[Any] = []
    monkeypatch.setattr(processors.BatchTraceProcessor, "on_trace_start", lambda self, trace: sent.append(trace))
    monkeypatch.setattr(processors.BatchTraceProcessor, "on_span_start", lambda self, span: sent.append(span))
    outcome = await World(FRAMEWORKS["openai_agents"]()).run()
    assert outcome.status == RunStatus.COMPLETED and not sent


async def test_the_temperature_that_is_given_is_what_models_are_asked_with() -> None:
    agent = PydanticAIAgent(pydantic_ai_agent, "house", max_prompt_bytes=8_000, temperature=0.25)
    world = World(agent)
    await world.run()
    assert {prompt.temperature for prompt in world.model.prompts} == {0.25}
