"""Asking an agent: of two bounds, its own and its run's, the one that was over is the reason."""

from __future__ import annotations

import asyncio

import pytest

from airside.stack.cycle.agent_call import UNWATCHED, NoProposal, proposal_of
from airside.stack.reasons import ReasonCode
from airside.stack.run.agents import FunctionAgent, View
from airside.stack.values import Limits, Request
from tests.helpers import RUN, identity


async def waits(_: View) -> None:
    """Wait for what never comes."""
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("left", "reason"),
    [
        (Limits(max_seconds=2), ReasonCode.MAX_SECONDS),
        (Limits(decide_ms=1), ReasonCode.AGENT_TIMEOUT),
        (Limits(max_seconds=0, decide_ms=1), ReasonCode.AGENT_TIMEOUT),
    ],
)
async def test_an_agent_that_does_not_decide_ends_its_run_by_the_bound_that_was_over(
    left: Limits, reason: ReasonCode
) -> None:
    view = View(
        run_id=RUN, tenant=identity().tenant, principal=identity().principal, agent="a", step=1,
        request=Request(text="go"), history=(), finished=(), branches=(), message=None, recalled=(),
        remaining=left, tools=(), labels=frozenset(),
    )  # fmt: skip
    made = await proposal_of(FunctionAgent(waits), view, 0.001, UNWATCHED, ())
    assert isinstance(made, NoProposal) and made.reason is reason
