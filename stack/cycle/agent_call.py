"""Asking an agent: whatever its code does, the run gets a proposal the journal can hold, or an ordinary error."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Generator, Sequence
from itertools import islice
from typing import Any, NamedTuple, Protocol

import msgspec

from airside.stack.canonical import check_bounds
from airside.stack.cycle.output_source import output_from
from airside.stack.errors import InvalidInput
from airside.stack.ids import RunId
from airside.stack.input.error_places import UserCodeError, describe_error
from airside.stack.models.access import ModelUnanswered
from airside.stack.reasons import ReasonCode
from airside.stack.run.agents import Agent, AgentNondeterministic, FunctionAgent, View
from airside.stack.schema.toolspec import MAX_OUTPUT_BYTES, ToolSpec
from airside.stack.values import MAX_CALLS, Action, Finish, Handoff, Limits, Proposal, Spend, ToolCall


class AgentTimeout(Exception):
    """The agent did not decide before its deadline."""


class Pulse(Protocol):
    """Is told when code that is not ours takes the event loop, and when it gives it back.  Neither call may fail."""

    def enter(self, run_id: RunId) -> None:
        """A run's agent or topology is about to run."""

    def leave(self) -> None:
        """It returned, or awaits something."""


class NoPulse:
    """For where nobody watches."""

    def enter(self, run_id: RunId) -> None:
        """Do nothing."""

    def leave(self) -> None:
        """Do nothing."""


UNWATCHED: Pulse = NoPulse()


async def _decision(agent: Agent, view: View) -> object:
    answer: Any = agent.decide(view)
    return await answer if inspect.isawaitable(answer) else answer  # `decide` may be a plain function


class _ObservedAwaitable(Awaitable[object]):
    """A decision with every stretch of the agent's code between `enter` and `leave`."""

    def __init__(self, agent: Agent, view: View, pulse: Pulse) -> None:
        self._agent = agent
        self._view = view
        self._pulse = pulse

    def __await__(self) -> Generator[Any, Any, object]:
        # Driven as `await` drives it: a coroutine of ours, which takes whatever an agent may return or raise.
        steps = _decision(self._agent, self._view)
        thrown: BaseException | None = None
        while True:
            self._pulse.enter(self._view.run_id)
            try:
                waits_for = steps.send(None) if thrown is None else steps.throw(thrown)
            except StopIteration as end:
                return end.value
            finally:
                self._pulse.leave()
            thrown = None
            try:
                yield waits_for
            except BaseException as error:
                thrown = error


class _StartedCall:
    """An agent that was called, and has given something to await."""

    def __init__(self, answer: Awaitable[Any]) -> None:
        self._answer = answer

    async def decide(self, view: View) -> Any:
        """Wait for it."""
        return await self._answer


class NoProposal(NamedTuple):
    """Why an agent proposed nothing."""

    reason: ReasonCode
    error: str


async def proposal_of(
    agent: Agent, view: View, seconds: float, pulse: Pulse, specs: Sequence[ToolSpec]
) -> tuple[Proposal, tuple[ToolCall, ...]] | NoProposal:
    """Ask an agent; return its proposal and, of several calls, those after the first, or why there is none."""
    reason = ReasonCode.AGENT_ERROR
    try:
        answer = await call_agent(agent, view, seconds, pulse)
        reason = ReasonCode.AGENT_INVALID_ACTION
        pulse.enter(view.run_id)  # what it returned may have methods of its own
        made = several(answer, specs) if isinstance(answer, list | tuple) else (validate_proposal(answer, specs), ())
    except AgentTimeout:
        return _undecided(view.remaining, seconds)
    except ModelUnanswered as failure:
        return NoProposal(failure.reason, failure.message)
    except AgentNondeterministic as failure:
        return NoProposal(ReasonCode.AGENT_NONDETERMINISTIC, failure.message)
    except Exception as failure:
        pulse.enter(view.run_id)
        error = describe_error(failure, code_of(agent))
        pulse.leave()
        return NoProposal(reason, error)
    pulse.leave()
    return made


def _undecided(left: Limits, seconds: float) -> NoProposal:
    """Return why an agent has not decided: its own time was over, or before that the run's."""
    if seconds >= left.decide_ms / 1000:
        return NoProposal(ReasonCode.AGENT_TIMEOUT, f"no decision in {seconds:.1f} s")
    return NoProposal(ReasonCode.MAX_SECONDS, f"no decision in the {left.max_seconds} s that the run had left")


async def call_agent(agent: Agent, view: View, seconds: float, pulse: Pulse) -> object:
    """Return what the agent proposes; raise `AgentTimeout`, or what it raised as an ordinary exception.

    An agent that waits does so in a task of its own: one that does not heed its cancellation is left behind, so that
    neither a kill nor the deadline waits for it.
    """
    if not getattr(agent, "waits", True):
        answer = await _contain_exits(agent, view, pulse)
        if not inspect.isawaitable(answer):
            return answer
        agent = _StartedCall(answer)  # a plain function that gives a coroutine, as a decorator may make of an async one
    task = asyncio.ensure_future(_contain_exits(agent, view, pulse))
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if not done:
        task.cancel()
        raise AgentTimeout
    if task.cancelled():
        raise InvalidInput("the agent cancelled itself")
    return task.result()


async def _contain_exits(agent: Agent, view: View, pulse: Pulse) -> object:
    """Let no exit, interrupt or foreign exception of an agent's leave its run."""
    try:
        with output_from(view.agent, view.tenant, view.run_id):
            return await _ObservedAwaitable(agent, view, pulse)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise InvalidInput("the agent cancelled itself") from None  # nobody asked for it: it is an error of its own
    except Exception:
        raise
    except BaseException as error:
        pulse.enter(view.run_id)
        text = describe_error(error, code_of(agent))
        pulse.leave()
        raise UserCodeError(text) from None


def code_of(agent: Any) -> Any:
    """Return what of an agent is called to decide."""
    return agent.function if isinstance(agent, FunctionAgent) else getattr(agent, "decide", agent)


def several(answer: Sequence[object], tools: Sequence[ToolSpec] = ()) -> tuple[Proposal, tuple[ToolCall, ...]]:
    """Return the first of several calls that an agent proposes, with what all of them cost, and those after it.

    Raises `InvalidInput` for what is no call, for none, and for too many.
    """
    answer = list(islice(answer, MAX_CALLS + 1))  # it may have methods of its own
    if not 0 < len(answer) <= MAX_CALLS:
        raise InvalidInput(f"an agent returned {len(answer)} calls: give 1 to {MAX_CALLS}, or a Finish")
    wrong = next((type(each).__name__ for each in answer if not isinstance(each, Action)), None)
    if wrong is not None:
        alone = ": return that alone" if wrong in ("Finish", "Handoff") else ""
        raise InvalidInput(f"several proposals are several Action, and one of them is {wrong}{alone}")
    actions = [validate_proposal(each, tools) for each in answer]
    size = sum(len(msgspec.json.encode(each)) for each in actions)
    if size > max(longest(each, tools) for each in actions):
        raise InvalidInput(f"{len(actions)} calls: {size:,} bytes are over the bound of one proposal; propose fewer")
    spent = [each.spend for each in actions]
    spend = Spend(tokens=sum(each.tokens for each in spent), cost_microusd=sum(each.cost_microusd for each in spent))
    first, *later = [each for each in actions if isinstance(each, Action)]
    calls = tuple(ToolCall(tool=each.tool, arguments=each.arguments) for each in later)
    return validate_proposal(msgspec.structs.replace(first, spend=spend), tools), calls


def only_reads(calls: Sequence[Proposal | ToolCall], tools: Sequence[ToolSpec]) -> bool:
    """Whether all of these are calls of tools that are declared to change nothing."""
    reads = {spec.name for spec in tools if spec.effect == "read"}
    return all(isinstance(call, Action | ToolCall) and call.tool in reads for call in calls)


def longest(proposal: Proposal, tools: Sequence[ToolSpec]) -> int:
    """Return how many bytes a proposal may have."""
    if not isinstance(proposal, Action):
        return MAX_OUTPUT_BYTES
    return max((MAX_OUTPUT_BYTES, *(spec.max_argument_bytes for spec in tools if spec.name == proposal.tool)))


def validate_proposal(proposal: object, tools: Sequence[ToolSpec] = ()) -> Proposal:
    """Return a proposal that is one of the three and holds only JSON within bounds; raise `InvalidInput` otherwise.

    It may be as long as a tool's output (`MAX_OUTPUT_BYTES`) or, where one of `tools` takes longer arguments, as those.
    """
    if isinstance(proposal, Action):
        if not isinstance(proposal.tool, str) or not isinstance(proposal.arguments, dict):
            raise InvalidInput("Action: tool must be text and arguments an object")
        content: object = proposal.arguments
    elif isinstance(proposal, Finish):
        content = proposal.answer
    elif isinstance(proposal, Handoff):
        content = [proposal.agent, proposal.message]
    else:
        raise InvalidInput(f"an agent returns Action (or several), Finish or Handoff, not {type(proposal).__name__}")
    where = type(proposal).__name__
    check_bounds(content, where=where)
    most = longest(proposal, tools)
    try:
        # A copy that the agent holds no part of, and that the journal can certainly give back.
        data = msgspec.json.encode(proposal)
        if len(data) > most:
            raise InvalidInput(f"{where}: {len(data):,} bytes are over the bound of {most:,}")
        copy: Proposal = msgspec.json.decode(data, type=Proposal)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{where}: {error}") from None
    return copy
