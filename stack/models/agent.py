"""`ModelAgent`: an agent that a model decides for."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import orjson
from pydantic import BaseModel, ValidationError

from airside.stack.calling import explain_misuse
from airside.stack.contracts.models import MAX_MODELS, OfferedTool
from airside.stack.errors import InvalidConfig, InvalidInput, text_of
from airside.stack.models.access import ModelUnanswered
from airside.stack.models.code_mode import offered_code, play_snippets
from airside.stack.models.interpreter import check_interpreter
from airside.stack.models.pricing import HIDDEN_TOKENS, PER_PART, Rates, cost_of
from airside.stack.models.prompts import exchanges_of, offered, prompt_of
from airside.stack.models.proposals import ANSWER_TOOL, HANDOFF_PREFIX, proposed
from airside.stack.models.snippets import PYTHON_CODE
from airside.stack.models.tool_stubs import check_names
from airside.stack.reasons import ReasonCode
from airside.stack.run.agents import Agent, Decided, View
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.values import Spend

MAX_PARTS = 192
"""Turns, calls and tools of a prompt that the price of a decision allows for."""


@runtime_checkable
class AsksModels(Protocol):
    """An agent that asks models: what its decisions can cost follows from which ones it names."""

    models: tuple[str, ...]

    def priced_by(self, rates: Mapping[str, Rates]) -> Agent:
        """Return the agent with the price of its decisions."""

    def check(self, tools: Mapping[str, ToolSpec], agents: Collection[str]) -> None:
        """Raise `InvalidConfig` for what of it does not fit an app's tools and agents."""


@explain_misuse()
class ModelAgent:
    """Decides with a model: it is told the request, the run's calls and what these returned, and proposes the next.

    `model` is `"openai:NAME"`, `"anthropic:NAME"`, `"google:NAME"` or the name of an endpoint in `App(models=...)`; of
    a list, each is asked when those before it do not answer.  `instructions` say what the agent is for.  `answer` is a
    Pydantic model of the run's answer; without one it is a text.  `handoffs` are agents that control may be given to.
    An answer has at most `max_tokens`, a prompt at most `max_prompt_bytes`: what earlier calls returned is cut beyond
    that, the oldest first.  Both bound what a decision can cost, which is reserved before the model is asked; where the
    tokens of a prompt cannot be counted for free, its bytes bound them, and 64 tokens for each turn, call and tool.
    With `code_mode` the model is offered `python_code` instead of the tools: it writes Python in which they are
    functions, and each call that the code makes is one of the run's.
    """

    waits = True

    def __init__(
        self,
        model: str | Sequence[str],
        instructions: str,
        *,
        answer: type[BaseModel] | None = None,
        handoffs: Sequence[str] = (),
        max_tokens: int = 2_048,
        max_prompt_bytes: int = 64_000,
        temperature: float | None = None,
        code_mode: bool = False,
    ) -> None:
        if not isinstance(model, str | Sequence):
            raise InvalidConfig(
                f"ModelAgent: model={model!r:.80}: give a name; an endpoint goes into App(models={{name: ...}})"
            )
        if isinstance(handoffs, str):
            raise InvalidConfig(f"ModelAgent: handoffs={handoffs!r:.80}: give a list of agents' names")
        self.models = (model,) if isinstance(model, str) else tuple(model)
        if not 0 < len(self.models) <= MAX_MODELS or not all(isinstance(each, str) and each for each in self.models):
            raise InvalidConfig(f"ModelAgent: model={model!r:.80}: give the name of one, or of at most {MAX_MODELS}")
        if not isinstance(instructions, str) or not instructions.strip():
            raise InvalidConfig("ModelAgent: instructions: say in a text what the agent is for")
        if answer is not None and not (isinstance(answer, type) and issubclass(answer, BaseModel)):
            raise InvalidConfig(f"ModelAgent: answer={answer!r:.80} is no Pydantic model")
        for name, given in (("max_tokens", max_tokens), ("max_prompt_bytes", max_prompt_bytes)):
            if type(given) is not int or not 0 < given <= 10_000_000:
                raise InvalidConfig(f"ModelAgent: {name}={given!r:.40} is no whole number from 1 to 10,000,000")
        if temperature is not None and (isinstance(temperature, bool) or not isinstance(temperature, int | float)):
            raise InvalidConfig(f"ModelAgent: temperature={temperature!r:.40} is no number")
        if not isinstance(code_mode, bool):
            raise InvalidConfig(f"ModelAgent: code_mode={code_mode!r:.40} is neither True nor False")
        self.instructions = instructions
        self.answer = answer
        self.handoffs = frozenset(handoffs)
        self.max_tokens = max_tokens
        self.max_prompt_bytes = max_prompt_bytes
        self.temperature = temperature
        self.code_mode = code_mode
        self.price: Spend | None = None
        self.batch_price: Spend | None = None
        self._own_tools = self._ways_to_end()

    def priced_by(self, rates: Mapping[str, Rates]) -> ModelAgent:
        """Return the agent with the most that one of its decisions can cost, whichever of its models answers."""
        priced = copy.copy(self)
        priced.price = self._most(rates)
        return priced

    def batched_by(self, rates: Mapping[str, Rates]) -> ModelAgent:
        """Return the agent with the most that one of its decisions can cost in batches of its models' providers."""
        priced = copy.copy(self)
        priced.batch_price = self._most(rates)
        return priced

    def _most(self, rates: Mapping[str, Rates]) -> Spend:
        read = HIDDEN_TOKENS + PER_PART * MAX_PARTS + self.max_prompt_bytes
        costs = [cost_of(rates[model], read, self.max_tokens) for model in self.models]
        return Spend(tokens=max(cost.tokens for cost in costs), cost_microusd=max(cost.cost_microusd for cost in costs))

    def check(self, tools: Mapping[str, ToolSpec], agents: Collection[str]) -> None:
        """Raise `InvalidConfig` for a handoff to no agent, a tool that is named like a way to end, or code mode without
        what it needs.
        """
        missing = sorted(self.handoffs - set(agents))
        if missing:
            raise InvalidConfig(f"handoffs: there is no agent {missing[0]!r:.80}; there are {sorted(agents)}")
        taken = next((tool.name for tool in self._own_tools if tool.name in tools), None)
        if taken is not None:
            raise InvalidConfig(f"a tool is called {taken}, which is how the model ends: rename the tool")
        if self.code_mode:
            check_interpreter()
            check_names(tools)

    def _ways_to_end(self) -> list[OfferedTool]:
        ways = []
        if self.answer is not None:
            schema = orjson.dumps(self.answer.model_json_schema())
            ways.append(OfferedTool(name=ANSWER_TOOL, description="End with this answer.", parameters=schema))
        message = {"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]}
        for agent in sorted(self.handoffs):
            text = f"Give control to {agent}, with a message."
            ways.append(OfferedTool(name=HANDOFF_PREFIX + agent, description=text, parameters=orjson.dumps(message)))
        return ways

    async def decide(self, view: View) -> Decided:
        """Ask the model, and return what it proposes; in code mode first what its code calls."""
        if view.models is None:
            raise ModelUnanswered(ReasonCode.MODEL_UNAVAILABLE, "this stack asks no models: there is no model caller")
        if self.code_mode:
            exchanges, waits = await play_snippets(view)
            if waits is not None:
                return waits.calls if len(waits.calls) > 1 else waits.calls[0]
            tools = [offered_code(view.tools)]
        else:
            exchanges = exchanges_of(view, view.own_history())
            tools = [offered(spec) for spec in view.tools if spec.name != PYTHON_CODE]
        prompt = prompt_of(
            view,
            exchanges,
            instructions=self.instructions,
            tools=[*tools, *self._own_tools],
            max_bytes=self.max_prompt_bytes,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
        )
        reply = await view.models.ask(self.models, prompt)
        return proposed(
            reply,
            handoffs=self.handoffs,
            answer=None if self.answer is None else self._answered,
            only=PYTHON_CODE if self.code_mode else None,
        )

    def _answered(self, given: Any) -> Any:
        assert self.answer is not None
        try:
            return self.answer.model_validate(given).model_dump(mode="json")
        except ValidationError as error:
            problems = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()[:8]]
            raise InvalidInput("not the answer that is asked for: " + "; ".join(problems)) from None
        except Exception as error:  # a validator of the app's may raise anything
            raise InvalidInput(f"not the answer that is asked for: {text_of(error, 500)}") from None

    def described(self) -> dict[str, Any]:
        """Return what its answers depend on, as JSON."""
        return {
            "models": list(self.models),
            "instructions": self.instructions,
            "answer": None if self.answer is None else self.answer.model_json_schema(),
            "handoffs": sorted(self.handoffs),
            "max_tokens": self.max_tokens,
            "max_prompt_bytes": self.max_prompt_bytes,
            "temperature": self.temperature,
            "code_mode": self.code_mode,
        }

    def __repr__(self) -> str:
        return f"ModelAgent({', '.join(self.models)})"
