"""Agents: the only code of the cycle that proposes.  They see a `View` and return one proposal; they hold nothing.

An agent is any object with `decide(view)`, async or not.  It may be asked again for the same step after a crash, so it
must draw what it decides on from the view, not from fields of its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, cast

import msgspec

from airside.stack.calling import explain_misuse
from airside.stack.contracts.memory import Recalled
from airside.stack.contracts.models import ModelReply, Prompt
from airside.stack.errors import AirsideError, InvalidConfig, InvalidInput
from airside.stack.ids import PrincipalId, RunId, TenantId
from airside.stack.run.earlier import EarlierDecision, nothing_earlier
from airside.stack.run.recorded_run import Decisions, RecordedRuns, below_root, recorded_decisions
from airside.stack.run.spans import decision_traceparent
from airside.stack.run.state import StepRecord
from airside.stack.run.topology import BranchEnd, StageEnd
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.values import FREE, MOST, Action, Finish, Limits, Proposal, Request, Spend


class ModelAccess(Protocol):
    """The models that one decision may ask.  What they cost is what the decision costs at least."""

    async def ask(self, models: Sequence[str], prompt: Prompt) -> ModelReply:
        """Ask the first of some models that answers, within the decision's time and price.

        What was answered before the run's process died is answered from the record: an agent that asks several times
        has to ask in the same order again.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What an agent decides on: its own tenant's, its own run's, and nothing else.

    `cause` is the number of the run's event because of which it is asked.  `models` are those it may ask, None where
    the app has none; `earlier()` returns
    what this agent decided since its visit began, with what models answered then.
    """

    run_id: RunId
    tenant: TenantId
    principal: PrincipalId
    agent: str
    step: int
    request: Request
    history: Sequence[StepRecord]
    finished: tuple[StageEnd, ...]
    branches: tuple[BranchEnd, ...]
    message: Any
    recalled: tuple[Recalled, ...]
    remaining: Limits
    tools: tuple[ToolSpec, ...]
    labels: frozenset[str]
    cause: int = -1
    models: ModelAccess | None = field(default=None, repr=False, compare=False)
    earlier: Callable[[], Awaitable[tuple[EarlierDecision, ...]]] = field(
        default=nothing_earlier, repr=False, compare=False
    )

    @property
    def traceparent(self) -> str:
        """The W3C trace context of this decision's span, for the calls to models that it takes.

        A decision that is asked for again after a crash is another one, and has another.
        """
        return decision_traceparent(self.run_id, self.cause)

    def inputs(self) -> dict[str, Any]:
        """Return the request's inputs."""
        decoded: dict[str, Any] = msgspec.json.decode(self.request.inputs)
        return decoded

    def answer_of(self, agent: str) -> Any:
        """Return the latest answer of an agent that finished before; None if it has not."""
        return next((end.answer for end in reversed(self.finished) if end.agent == agent), None)

    def own_history(self) -> list[StepRecord]:
        """Return this agent's own calls, oldest first."""
        return [record for record in self.history if record.agent == self.agent]


Decided = Proposal | Sequence[Action]
"""What an agent decides: one proposal, or several calls."""


class AgentNondeterministic(AirsideError):
    """An agent that runs from its beginning again went another way than before: nothing of it is carried out."""


class Agent(Protocol):
    """Proposes the next step.

    Its `price`, if it has that, is the most one decision can cost, which is reserved before it is asked; without one a
    decision must be free.  One with `waits = False` says that its `decide` never awaits; any other is asked in a task
    of its own.
    """

    def decide(self, view: View) -> Decided | Awaitable[Decided]:
        """Return one `Action`, `Finish` or `Handoff`, or several `Action`, or something to await for that.

        Several calls (a list or a tuple) are gated each by itself, at once if they only read and else in their order,
        and the agent is asked again when all have a result, be it that they were refused.  None of them may rest on
        what another returns.  Anything else, or an exception, ends the run.
        """


@explain_misuse()
class FunctionAgent:
    """An agent made of a function `view -> proposal`, async or not.

    A plain function runs on the runtime's event loop: it must be quick.  One that never returns is seen by the
    driver, which kills the process and names the run.
    """

    def __init__(self, function: Callable[[View], Decided | Awaitable[Decided]]) -> None:
        self.function = function
        self.price = price_of(function)
        self.waits = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 - an object with an async call
        )

    async def decide(self, view: View) -> Decided:
        """Call the function."""
        if self.waits:
            return await cast(Awaitable[Decided], self.function(view))
        return cast(Decided, self.function(view))

    def __repr__(self) -> str:
        return f"FunctionAgent({getattr(self.function, '__name__', self.function)!s})"


Decides = TypeVar("Decides", bound=Callable[..., Any])


@explain_misuse(how="@priced(tokens=..., cost_microusd=...)")
def priced(*bare: object, tokens: int = 0, cost_microusd: int = 0) -> Callable[[Decides], Decides]:
    """Decorate an agent (a function, or a class with `decide`) with the most that one of its decisions can cost.

    `priced()` says that its decisions are free.  Raises `InvalidConfig` for what is not a whole number of at least 0.
    """
    if bare:
        raise InvalidConfig(
            "priced: say the price: @priced(tokens=..., cost_microusd=...), or @priced() for a free one"
        )
    price = Spend(tokens=tokens, cost_microusd=cost_microusd)
    _check(price, "priced")

    def decorate(agent: Decides) -> Decides:
        agent.price = price  # type: ignore[attr-defined]
        return agent

    return decorate


def _check(price: Spend, where: str) -> None:
    # A `Spend` holds whatever it was made with; what is no count the journal can write, and never read again.
    for name in Spend.__struct_fields__:
        amount = getattr(price, name)
        if type(amount) is not int or not 0 <= amount <= MOST:
            raise InvalidConfig(f"{where}: {name}={amount!r:.40} is not a whole number of at least 0")


def price_of(agent: object) -> Spend | None:
    """Return the price an agent names, None if it names none; raise `InvalidConfig` for what is no price."""
    price = getattr(agent, "price", None)
    if price is not None and not isinstance(price, Spend):
        raise InvalidConfig(f"agent {agent!r:.80}: its price is {price!r:.80}; it must be a Spend, or absent")
    if price is not None:
        _check(price, f"agent {agent!r:.80}: its price")
    return price


@explain_misuse()
class ReplayAgent:
    """Plays a recorded list of calls, one a decision, then finishes: for tests, load and regression.

    `from_run` makes one of a run in a journal.

    The list is `actions` or, without it, `view.inputs()[key]`; an item is `{"tool": .., "args": {..}}`, or a list of
    these, which are proposed together.  Its place in the list is that of the calls in the run's history, so a resumed
    run goes on where it was.  The answer counts the calls
    and the ones that failed, unless `answer` makes another of the view.
    """

    def __init__(
        self,
        actions: Sequence[dict[str, Any] | list[dict[str, Any]]] | None = None,
        *,
        key: str = "actions",
        answer: Callable[[View], Any] | None = None,
    ) -> None:
        self.waits = False
        self.price = FREE
        self._actions = actions
        self._key = key
        self._answer = answer
        self._decisions: Mapping[str, Decisions] | None = None

    @classmethod
    def from_run(
        cls, journal: RecordedRuns, run_id: str, *, answer: Callable[[View], Any] | None = None
    ) -> ReplayAgent:
        """Return an agent that proposes what a run on record did, step by step: for regression tests of policies.

        `journal` is a stack, or what `open_audit` yields.  It stands for every agent of the run and of its branches, so
        give it under each of their names.  It asks no model and costs nothing; tools are called as ever.  After the
        last recorded decision it finishes; where policy has led elsewhere than the record, at a step that the record
        has no decision of, it raises `InvalidInput`.  Raises `InvalidInput` if the journal has no such run.
        """
        made = cls(answer=answer)
        made._decisions = recorded_decisions(journal, run_id)
        return made

    def _recorded(self, view: View) -> Decided | None:
        """Return what was decided at this step; None after the end of the record."""
        assert self._decisions is not None
        decisions = self._decisions.get(below_root(view.run_id), {})
        if view.step in decisions:
            return decisions[view.step]
        if view.step < max(decisions, default=0):
            raise InvalidInput(f"the recorded run decided nothing at step {view.step}: it took another way from here")
        return None

    async def decide(self, view: View) -> Decided:
        """Return the next recorded call, or those that come together, or finish."""
        if self._decisions is not None:
            recorded = self._recorded(view)
            return self._finish(view) if recorded is None else recorded
        actions = self._actions if self._actions is not None else view.inputs().get(self._key, [])
        done = view.own_history()
        left = len(done)
        for item in actions:
            if left <= 0:
                several = [Action(tool=each["tool"], arguments=each.get("args", {})) for each in _several(item)]
                return several if isinstance(item, list) else several[0]
            left -= len(_several(item))
        return self._finish(view)

    def _finish(self, view: View) -> Finish:
        if self._answer is not None:
            return Finish(answer=self._answer(view))
        done = view.own_history()
        return Finish(answer={"calls": len(done), "failed": [i for i, r in enumerate(done) if not r.result.ok]})


def _several(item: dict[str, Any] | list[dict[str, Any]]) -> list[dict[str, Any]]:
    return item if isinstance(item, list) else [item]
