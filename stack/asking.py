"""Asking an agent: whatever its code does, the run gets a proposal the journal can hold, or an ordinary error."""

from __future__ import annotations

import asyncio

import msgspec

from airside.stack.agents import Agent, View
from airside.stack.canonical import check_bounds
from airside.stack.errors import InvalidInput
from airside.stack.values import Action, Finish, Handoff, Proposal


class AgentLate(Exception):
    """The agent did not decide before its deadline."""


async def ask(agent: Agent, view: View, seconds: float) -> object:
    """Return what the agent proposes; raise `AgentLate`, or what it raised as an ordinary exception.

    An agent that waits does so in a task of its own: one that does not heed its cancellation is left behind, so that
    neither a kill nor the deadline waits for it.
    """
    if not getattr(agent, "waits", True):
        return await _guarded(agent, view)
    task = asyncio.ensure_future(_guarded(agent, view))
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if not done:
        task.cancel()
        raise AgentLate
    if task.cancelled():
        raise InvalidInput("the agent cancelled itself")
    return task.result()


async def _guarded(agent: Agent, view: View) -> object:
    """Let no exit, interrupt or foreign exception of an agent's leave its run."""
    try:
        return await agent.decide(view)
    except (Exception, asyncio.CancelledError):
        raise
    except BaseException as error:
        raise RuntimeError(f"{type(error).__name__}: {error}") from None


def checked(proposal: object) -> Action | Finish | Handoff:
    """Return a proposal that is one of the three and holds only JSON; raise `InvalidInput` otherwise."""
    if isinstance(proposal, Action):
        if not isinstance(proposal.tool, str) or not isinstance(proposal.arguments, dict):
            raise InvalidInput("Action: tool must be text and arguments an object")
        content: object = proposal.arguments
    elif isinstance(proposal, Finish):
        content = proposal.answer
    elif isinstance(proposal, Handoff):
        content = [proposal.agent, proposal.message]
    else:
        raise InvalidInput(f"an agent returns Action, Finish or Handoff, not {type(proposal).__name__}")
    where = type(proposal).__name__
    check_bounds(content, where=where)
    try:
        # A copy that the agent holds no part of, and that the journal can certainly give back.
        copy: Action | Finish | Handoff = msgspec.json.decode(msgspec.json.encode(proposal), type=Proposal)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{where}: {error}") from None
    return copy
