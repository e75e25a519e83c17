"""What a model is told of a run."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from airside.stack.contracts.memory import Recalled
from airside.stack.contracts.models import ModelReply, ModelRequest, Prompt, RequestedCall
from airside.stack.errors import InvalidConfig, InvalidInput
from airside.stack.ids import PrincipalId, TenantId
from airside.stack.models.access import Asker, DecisionModels, ModelUnanswered
from airside.stack.models.agent import ModelAgent
from airside.stack.models.endpoints import TokenPrice
from airside.stack.models.pricing import input_bound
from airside.stack.models.prompts import REFUSED_CALL, exchanges_of, offered, prompt_of
from airside.stack.reasons import ReasonCode
from airside.stack.run.agents import ModelAccess, View
from airside.stack.run.state import StepRecord
from airside.stack.values import FREE, Action, Finish, Limits, Request, Spend, ToolResult
from tests.helpers import RUN, spec


def record(step: int, output: object = None, *, tool: str = "pay", agent: str = "clerk", **fields: Any) -> StepRecord:
    """Return a call and what came of it."""
    result = ToolResult(ok=True, output=msgspec.Raw(json.dumps(output).encode()), **fields)
    return StepRecord(step=step, agent=agent, tool=tool, arguments={"to": "eve"}, result=result)


def view(*history: StepRecord, models: ModelAccess | None = None, **fields: Any) -> View:
    """Return what the clerk decides on."""
    given: dict[str, Any] = {
        "run_id": RUN,
        "tenant": TenantId("acme"),
        "principal": PrincipalId("ann"),
        "agent": "clerk",
        "step": 1,
        "request": Request(text="pay the bill"),
        "history": history,
        "finished": (),
        "branches": (),
        "message": None,
        "recalled": (),
        "remaining": Limits(),
        "tools": (spec("pay"),),
        "labels": frozenset(),
        "models": models,
    }
    return View(**(given | fields))


def prompt(seen: View, max_bytes: int = 64_000) -> Prompt:
    return prompt_of(
        seen,
        exchanges_of(seen, seen.own_history()),
        instructions="be a clerk",
        tools=[offered(each) for each in seen.tools],
        max_bytes=max_bytes,
        max_tokens=100,
        temperature=None,
    )


def test_a_call_and_its_result_are_told_under_one_id_in_order() -> None:
    turns = prompt(view(record(1, {"a": 1}), record(3, {"b": 2}))).turns
    assert [turn.role for turn in turns] == ["user", "assistant", "tool", "assistant", "tool"]
    assert turns[1].calls[0].call_id == turns[2].call_id != turns[3].calls[0].call_id == turns[4].call_id
    assert json.loads(turns[2].text) == {"ok": True, "result": {"a": 1}, "trust": "untrusted"}


def test_what_a_tool_returns_is_marked_with_whether_an_outsider_may_have_written_it() -> None:
    trusting = view(record(1, "x"), tools=(spec("pay", trusted_output=True),))
    assert json.loads(prompt(trusting).turns[2].text)["trust"] == "trusted"


def test_a_refusal_is_told_with_its_reason() -> None:
    refused = StepRecord(
        step=1,
        agent="clerk",
        tool="pay",
        arguments={},
        result=ToolResult(ok=False, error="not to eve", reason_code=ReasonCode.POLICY_DENIED),
    )
    told = json.loads(prompt(view(refused)).turns[2].text)
    assert told == {"ok": False, "trust": "untrusted", "error": "not to eve", "reason": "policy_denied"}


def test_a_call_that_was_none_is_told_why() -> None:
    refused = StepRecord(
        step=1,
        agent="clerk",
        tool="pay" + REFUSED_CALL,
        arguments={"why": "arguments: no JSON"},
        result=ToolResult(ok=False, error="no tool pay!", reason_code=ReasonCode.TOOL_UNKNOWN),
    )
    turns = prompt(view(refused)).turns
    assert turns[1].calls[0].tool == "pay" and json.loads(turns[2].text)["error"] == "arguments: no JSON"


def test_only_its_own_calls_are_told_to_an_agent() -> None:
    assert len(prompt(view(record(1, "x", agent="other"))).turns) == 1


def test_memory_and_inputs_are_told_as_data() -> None:
    remembered = Recalled(
        record_id="mem_1",
        text="eve is trusted",
        score=0.9,
        source="mail",
        sensitivity="internal",
        kind="fact",
        created_us=0,
        expires_us=1,
    )
    seen = view(recalled=(remembered,), request=Request(text="pay", inputs=msgspec.Raw(b'{"bill": 7}')))
    text = prompt(seen).turns[0].text
    assert '"bill":7' in text and '"text":"eve is trusted"' in text and '"trust":"low"' in text


@settings(max_examples=100, deadline=None)
@given(sizes=st.lists(st.integers(0, 5_000), max_size=12), room=st.integers(4_000, 40_000))
def test_what_is_too_long_is_cut_from_the_oldest_on_and_said(sizes: list[int], room: int) -> None:
    history = [record(step, "ä" * size) for step, size in enumerate(sizes, 1)]
    try:
        made = prompt(view(*history), room)
    except InvalidInput:
        return
    whole = prompt(view(*history), 10_000_000)
    results = [turn.text for turn in made.turns if turn.role == "tool"]
    full = [turn.text for turn in whole.turns if turn.role == "tool"]
    is_cut = [short != long for short, long in zip(results, full, strict=True)]
    assert (made.left_out > 0) == any(is_cut)
    assert all("bytes left out" in short for short, cut in zip(results, is_cut, strict=True) if cut)
    big = [cut for cut, size in zip(is_cut, sizes, strict=True) if size > 400]
    assert big == sorted(big, reverse=True), "the oldest first"


def test_what_is_cut_still_says_whether_to_trust_it() -> None:
    made = prompt(view(*(record(step, "x" * 3_000) for step in range(1, 21))), 8_000)
    results = [turn.text for turn in made.turns if turn.role == "tool"]
    assert made.left_out and all('"trust":"untrusted"' in result[:60] for result in results)
    assert sum(len(result) for result in results) < 8_000


def test_a_prompt_whose_own_parts_are_too_long_says_so() -> None:
    with pytest.raises(InvalidInput, match="max_prompt_bytes"):
        prompt(view(request=Request(text="x" * 5_000)), 1_000)


class Models:
    """Answers what it is told to."""

    def __init__(self, reply: ModelReply) -> None:
        self.reply = reply
        self.spent = FREE
        self.asked: list[tuple[tuple[str, ...], Prompt]] = []

    async def ask(self, models: Any, prompt: Prompt) -> ModelReply:
        self.asked.append((tuple(models), prompt))
        return self.reply


async def test_what_an_agent_does_not_wait_for_costs_all_that_is_reserved() -> None:
    class Slow:
        async def ask(self, request: ModelRequest) -> ModelReply:
            await asyncio.Event().wait()
            raise AssertionError

    asker = Asker(identity=b"", proof="", run_id=RUN, version="1", step=1, epoch=1, timeout_ms=1_000, traceparent="")
    models, reserved = DecisionModels(Slow(), asker), Spend(tokens=500, cost_microusd=70)
    assert models.spent(reserved) == FREE
    asking = asyncio.ensure_future(models.ask(["a"], prompt(view())))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])
    assert models.spent(reserved) == reserved


class Total(BaseModel):
    total: int


async def test_an_agent_asks_its_models_and_proposes_what_they_answer() -> None:
    models = Models(ModelReply(text="done"))
    agent = ModelAgent(["a", "b"], "be a clerk")
    assert await agent.decide(view(models=models)) == Finish(answer="done")
    assert models.asked[0][0] == ("a", "b") and "be a clerk" in models.asked[0][1].instructions


async def test_an_answer_of_the_wrong_shape_is_told_to_the_model() -> None:
    reply = ModelReply(calls=(RequestedCall(tool="final_answer", arguments='{"total": "many"}'),))
    made = await ModelAgent("a", "count", answer=Total).decide(view(models=Models(reply)))
    assert isinstance(made, Action) and made.tool == "final_answer" + REFUSED_CALL and "total" in made.arguments["why"]


async def test_without_a_model_caller_an_agent_says_so() -> None:
    with pytest.raises(ModelUnanswered, match="no model caller"):
        await ModelAgent("a", "be a clerk").decide(view())


def test_a_decision_is_priced_for_the_dearest_of_its_models_and_the_longest_prompt() -> None:
    agent = ModelAgent(["a", "b"], "be a clerk", max_prompt_bytes=10_000, max_tokens=100)
    rates = {"a": TokenPrice(input=1, output=1), "b": TokenPrice(input=3, output=15)}
    priced = agent.priced_by(rates)
    assert priced.price is not None and agent.price is None
    history = [record(step, "x" * 900) for step in range(1, 12)]
    bound = input_bound(
        prompt_of(
            view(),
            exchanges_of(view(), history),
            instructions="be a clerk",
            tools=[],
            max_bytes=10_000,
            max_tokens=1,
            temperature=None,
        )
    )
    assert priced.price.tokens >= bound + 100
    assert priced.price.cost_microusd >= TokenPrice(input=3, output=15).microusd(bound, 100)


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": ""},
        {"model": []},
        {"model": 5},
        {"handoffs": "boss"},
        {"temperature": "hot"},
        {"model": ["a"] * 9},
        {"instructions": " "},
        {"answer": dict},
        {"max_tokens": 0},
        {"max_prompt_bytes": 1.5},
    ],
)
def test_a_wrong_agent_is_refused(wrong: dict[str, Any]) -> None:
    given = {"model": "a", "instructions": "be a clerk"} | wrong
    with pytest.raises(InvalidConfig, match="ModelAgent"):
        ModelAgent(given.pop("model"), given.pop("instructions"), **given)
