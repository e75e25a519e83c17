"""The stack that is under load, as the generator sees it: many things in one call, nothing of which holds its loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from airside.actors.client.client import Stack
from airside.actors.client.following import Following
from airside.actors.client.results import PendingApproval, RunResult, ended_result
from airside.actors.client.steps import drive_async
from airside.actors.jobs import Job
from airside.actors.rpc.methods import GIVE_VOTE, PENDING, PresentedVote
from airside.bench.app import APPROVER, EXPIRES_S
from airside.stack.operations.messages import Ticket

LONGEST_S = 60.0
"""A question that takes longer than this is a failure of the benchmark."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A call that waits for a person since `asked_us`."""

    approval_id: str
    tenant: str
    run_id: str
    asked_us: int


class StackTarget:
    """Made on a stack whose keys this process can read."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._backend = stack.backend
        self._connection = stack._connection
        self._following = Following(self._backend.wait)
        self._tokens: dict[str, str] = {}

    async def enter(self, jobs: Sequence[Job]) -> list[Ticket]:
        """Submit jobs, and follow those that were admitted; return what became of each."""
        tickets = await drive_async(self._backend.enter(jobs, LONGEST_S))
        self._following.add(str(ticket.run_id) for ticket in tickets if ticket.run_id)
        return tickets

    async def ends(self, wait_s: float) -> list[RunResult]:
        """Return the runs that have ended since, as soon as there is one or the wait is over."""
        found = await drive_async(self._following.next_ends(wait_s, LONGEST_S))
        return [ended_result(run_id, body, "", lambda: "") for run_id, body in found.items()]

    async def waiting(self) -> list[Waiting]:
        """Return the calls that wait for people."""
        bodies = await drive_async(self._connection.call(PENDING, None, within_s=LONGEST_S))
        asked = [PendingApproval.of(body) for body in bodies]
        return [Waiting(a.approval_id, a.tenant, a.run_id, a.expires_us - EXPIRES_S * 1_000_000) for a in asked]

    async def approve(self, calls: Sequence[Waiting]) -> None:
        """Approve calls, each as its tenant's approver."""
        votes = [PresentedVote(self._token(each.tenant), each.approval_id, "approve") for each in calls]
        await drive_async(self._connection.call_each(GIVE_VOTE, votes, within_s=LONGEST_S))

    def _token(self, tenant: str) -> str:
        if tenant not in self._tokens:
            self._tokens[tenant] = self._stack.token(tenant, APPROVER, ttl_s=86_400)
        return self._tokens[tenant]

    async def end_all(self) -> None:
        """End every run there is."""
        await asyncio.to_thread(self._stack.kill, all=True, why="the benchmark's time for them is over")
