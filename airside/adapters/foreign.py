"""`ForeignAgent`: what the agents of all frameworks have in common, and what they are built from."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any
from weakref import WeakSet

from airside.adapters.loop import ForeignLoop, ModelBounds, as_json
from airside.stack.contracts.models import MAX_MODELS
from airside.stack.errors import InvalidConfig, text_of
from airside.stack.ids import PrincipalId, RunId, TenantId
from airside.stack.models.agent import MAX_PARTS
from airside.stack.models.pricing import HIDDEN_TOKENS, PER_PART, Rates, cost_of
from airside.stack.models.prompts import request_text
from airside.stack.models.snippets import PYTHON_CODE
from airside.stack.run.agents import Decided, View
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.values import FREE, Limits, Request, Spend


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a framework's agent is built from: the model and the tools that it may use, and whom it works for.

    `text` is the request with its inputs, and what agents before it answered.  All of it is the same in each decision
    of a visit, and so must be what is made of it.
    """

    model: Any
    tools: list[Any]
    text: str
    inputs: dict[str, Any]
    tenant: TenantId
    principal: PrincipalId


Build = Callable[[Parts], Any]

_BUILT_HERE: WeakSet[ForeignAgent] = WeakSet()
"""Agents that were built in this process: the first time imports their framework, which takes seconds."""

_FIRST_BUILDS = ThreadPoolExecutor(1, thread_name_prefix="framework")
"""Where that is done, one after the other: it holds no event loop, and waits behind no other thread's work."""


class ForeignAgent(ABC):
    """A framework's agent as an agent of Airside's.

    `build(parts)` makes it, with `parts.model` and `parts.tools` and no other.  It is called when the app is checked,
    and again for each decision, in the runtime's process: import the framework within it.  `model` is as of a
    `ModelAgent`: a name, or several of which each is asked when those before it do not answer; without it, none is
    asked.  A decision may ask `questions` times, each with a prompt of at most `max_prompt_bytes` and an answer of at
    most `max_tokens`: that is its price.  `temperature` is as the provider takes it; what a framework's model would be
    given of settings is not passed on.
    """

    waits = True
    needs: str
    """The extra that brings the framework."""
    package: str
    """The package that the framework is imported as."""
    always_asks = True
    """Whether each of its agents asks a model."""

    def __init__(
        self,
        build: Build,
        model: str | Sequence[str] = (),
        *,
        max_tokens: int = 2_048,
        max_prompt_bytes: int = 32_000,
        questions: int = 2,
        temperature: float | None = None,
    ) -> None:
        kind = type(self).__name__
        if not callable(build):
            raise InvalidConfig(f"{kind}: build={build!r:.80}: give a function of parts that makes the agent")
        self.build = build
        self.models = (model,) if isinstance(model, str) else tuple(model)
        if len(self.models) > MAX_MODELS or not all(isinstance(each, str) and each for each in self.models):
            raise InvalidConfig(f"{kind}: model={model!r:.80}: give the name of one, or of at most {MAX_MODELS}")
        if self.always_asks and not self.models:
            raise InvalidConfig(f"{kind}: model: give the name of the one that it asks, as 'openai:NAME'")
        bounds = (("max_tokens", max_tokens), ("max_prompt_bytes", max_prompt_bytes), ("questions", questions))
        for name, given in bounds:
            if type(given) is not int or not 0 < given <= 10_000_000:
                raise InvalidConfig(f"{kind}: {name}={given!r:.40} is no whole number from 1 to 10,000,000")
        if temperature is not None and (isinstance(temperature, bool) or not isinstance(temperature, int | float)):
            raise InvalidConfig(f"{kind}: temperature={temperature!r:.40} is no number")
        self.bounds = ModelBounds(
            models=self.models, max_tokens=max_tokens, max_prompt_bytes=max_prompt_bytes, temperature=temperature
        )
        self.questions = questions
        self.price: Spend | None = None if self.models else FREE

    def priced_by(self, rates: Mapping[str, Rates]) -> ForeignAgent:
        """Return the agent with the most that one of its decisions can cost, whichever of its models answers."""
        priced = copy.copy(self)
        read = HIDDEN_TOKENS + PER_PART * MAX_PARTS + self.bounds.max_prompt_bytes
        costs = [cost_of(rates[model], read, self.bounds.max_tokens) for model in self.models] or [FREE]
        priced.price = Spend(
            tokens=self.questions * max(cost.tokens for cost in costs),
            cost_microusd=self.questions * max(cost.cost_microusd for cost in costs),
        )
        return priced

    def check(self, tools: Mapping[str, ToolSpec], agents: Collection[str]) -> None:
        """Build it once; raise `InvalidConfig` for what would go round the gate."""
        try:
            self._made(_NOBODYS, tuple(tools.values()), None)
        except ImportError as error:
            said = text_of(error, 200)
            is_framework_here = find_spec(self.package) is not None
            raise InvalidConfig(
                f"build: {said}" if is_framework_here else f"{said}: install airside[{self.needs}]"
            ) from None
        except InvalidConfig:
            raise
        except Exception as error:
            hint = " (give it parts.tools, not the app's own)" if isinstance(error, AttributeError) else ""
            raise InvalidConfig(f"build: {text_of(error, 500)}{hint}") from None

    async def decide(self, view: View) -> Decided:
        """Run the framework's loop on what is on record; return what it wants carried out, or its answer."""
        if self not in _BUILT_HERE:
            with contextlib.suppress(Exception):  # what is wrong with it is said by the build that counts
                await asyncio.get_running_loop().run_in_executor(_FIRST_BUILDS, self._made, _NOBODYS, view.tools, None)
            _BUILT_HERE.add(self)
        loop = ForeignLoop(view, self.bounds, await view.earlier())
        parts, agent = self._made(view, view.tools, loop)
        return await loop.run(lambda: self._answer(agent, parts))

    def _made(self, view: View, tools: Sequence[ToolSpec], loop: ForeignLoop | None) -> tuple[Parts, Any]:
        parts = Parts(
            model=self.model_of(loop),
            tools=[self.tool_of(spec, loop) for spec in tools if spec.name != PYTHON_CODE],
            text=request_text(view),
            inputs=view.inputs(),
            tenant=view.tenant,
            principal=view.principal,
        )
        agent = self.build(parts)
        self.validate(agent, parts)
        return parts, agent

    async def _answer(self, agent: Any, parts: Parts) -> Any:
        return as_json(await self.start(agent, parts))

    # What each framework does in its own way.  The loop is None where an agent is only looked at.

    @abstractmethod
    def model_of(self, loop: ForeignLoop | None) -> Any:
        """Return a model of the framework's that asks by the loop."""

    @abstractmethod
    def tool_of(self, spec: ToolSpec, loop: ForeignLoop | None) -> Any:
        """Return a tool of the framework's that calls by the loop."""

    @abstractmethod
    def validate(self, agent: Any, parts: Parts) -> None:
        """Raise `InvalidConfig` for what is no agent of the framework's, and for what of it goes round the gate."""

    @abstractmethod
    def start(self, agent: Any, parts: Parts) -> Awaitable[Any]:
        """Run the framework's loop; return its answer."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({getattr(self.build, '__name__', self.build)!s})"


_NOBODYS = View(
    run_id=RunId(""),
    tenant=TenantId(""),
    principal=PrincipalId(""),
    agent="",
    step=0,
    request=Request(text=""),
    history=(),
    finished=(),
    branches=(),
    message=None,
    recalled=(),
    remaining=Limits(),
    tools=(),
    labels=frozenset(),
)
"""What an agent is built for when nobody asks it yet."""
