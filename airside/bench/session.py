"""One phase of load: what is open, and what became of everything that was asked for.

A run's latency is from when it was *due* to when its end is known here, so that a stack (or a generator) that falls
behind is not spared what it held up: not the coordinated omission of a generator that waits for answers before it asks
again.  What a person took is left out of it: from when a call was asked about to when the vote was sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from airside.actors.client.results import RunResult
from airside.actors.jobs import Job
from airside.bench.app import REQUEST
from airside.bench.latencies import Latencies
from airside.bench.mix import Plan
from airside.bench.pace import MOST_AT_ONCE, Clock
from airside.bench.target import Waiting
from airside.stack.operations.messages import Ticket
from airside.stack.reasons import ReasonCode

ASK_S, PAUSE_S = 0.02, 0.005
"""How long a question for ends waits, and the pause until the next one: ends of that time come in one reply.

A run that began meanwhile is asked about by the next question, so the first is how late an end can be seen where there
are so few that no other ends sooner.
"""

LOOK_S = 0.1
"""Between two looks at what waits for people."""

MOST_OPEN = 20_000
"""Open runs with which a phase is given up: the stack is far behind, and what is held here has a bound."""


class Target(Protocol):
    """What is under load (`airside.bench.target.StackTarget`)."""

    async def enter(self, jobs: Sequence[Job]) -> list[Ticket]:
        """Submit jobs; return what became of each."""

    async def ends(self, wait_s: float) -> list[RunResult]:
        """Return the runs that have ended since."""

    async def waiting(self) -> list[Waiting]:
        """Return the calls that wait for people."""

    async def approve(self, calls: Sequence[Waiting]) -> None:
        """Approve calls."""

    async def end_all(self) -> None:
        """End every run there is."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A run that is asked for: by whom, to do what, and when it is due by the clock."""

    tenant: str
    plan: Plan
    due_s: float

    def job(self) -> Job:
        """Return it as a stack takes it."""
        return Job.model_construct(
            request=REQUEST, tenant=self.tenant, principal=self.plan.principal, inputs=self.plan.inputs()
        )


@dataclass(slots=True)
class Tally:
    """What became of the runs of some tenants.  Nothing in it grows with their number."""

    whole: Latencies = field(default_factory=Latencies)
    by_tenant: dict[str, Latencies] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    unexpected: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    lost: int = 0

    def ask(self, asked: Asked) -> None:
        """Count a run that is asked for."""
        self.asked[asked.tenant] += 1
        self.kinds[asked.plan.kind] += 1

    def refuse(self, asked: Asked, reason: ReasonCode) -> None:
        """Count a refusal; of one that the plan provides for, nothing was asked of the stack that it did not do."""
        if reason is asked.plan.ending:
            self.done[asked.tenant] += 1
        else:
            self.refused[reason.value] += 1

    def end(self, asked: Asked, result: RunResult, seconds: float) -> None:
        """Count a run that has ended."""
        self.steps[asked.tenant] += result.steps
        if result.reason_code is asked.plan.ending:
            self.done[asked.tenant] += 1
        else:
            self.unexpected[f"{asked.plan.kind}: {result.reason_code.value}"] += 1
        self._record(asked.tenant, seconds)

    def lose(self, asked: Asked, seconds: float) -> None:
        """Count a run that has not ended after so many seconds; it counts with these, and would have taken longer."""
        self.lost += 1
        self._record(asked.tenant, seconds)

    def _record(self, tenant: str, seconds: float) -> None:
        self.whole.record(seconds)
        if tenant not in self.by_tenant:
            self.by_tenant[tenant] = Latencies()
        self.by_tenant[tenant].record(seconds)


@dataclass(slots=True)
class Load:
    """What became of all runs of one phase, those of usual tenants apart from those of aggressors."""

    usual: Tally = field(default_factory=Tally)
    aggressors: Tally = field(default_factory=Tally)
    lag: Latencies = field(default_factory=Latencies)
    window: Latencies = field(default_factory=Latencies)
    """Latencies of usual tenants' runs that ended in the present window; whoever reads it puts a new one."""

    window_lag: Latencies = field(default_factory=Latencies)
    collapsed: bool = False

    def of(self, tenant: str) -> Tally:
        """Return the tally that a tenant's runs belong to."""
        return self.aggressors if is_aggressor(tenant) else self.usual


def tenant_names(count: int) -> list[str]:
    """Return the usual tenants' names, the busiest first."""
    return [f"tenant-{i}" for i in range(count)]


def aggressor_names(count: int) -> list[str]:
    """Return the aggressors' names."""
    return [f"aggressor-{i}" for i in range(count)]


def is_aggressor(tenant: str) -> bool:
    """Whether a tenant is one of the aggressors."""
    return tenant.startswith("aggressor-")


class Session:
    """The runs that are open on a target.  What it begins, it begins in a task group, which a failure ends."""

    def __init__(self, target: Target, load: Load, clock: Clock, group: asyncio.TaskGroup) -> None:
        self._target = target
        self._load = load
        self._clock = clock
        self._group = group
        self._open: dict[str, Asked] = {}
        self._early: dict[str, RunResult] = {}
        """Ends that were known before the answer to the submission was dealt with."""

        self._under_way = 0
        self._by_people_s: dict[str, float] = {}
        self._ended = asyncio.Event()
        self._is_over = False
        """Whether what has no answer yet counts as lost."""
        self.ends = 0

    @property
    def open(self) -> int:
        """How many runs have been asked for and have not ended."""
        return len(self._open) + self._under_way

    def send(self, asked: list[Asked]) -> bool:
        """Begin to submit runs, and return whether more may be."""
        now_s = self._clock.now()
        for each in asked:
            self._load.of(each.tenant).ask(each)
            self._load.lag.record(now_s - each.due_s)
            self._load.window_lag.record(now_s - each.due_s)
        self._under_way += len(asked)
        for first in range(0, len(asked), MOST_AT_ONCE):
            self._group.create_task(self._enter(asked[first : first + MOST_AT_ONCE]))
        if self.open > MOST_OPEN:
            self._load.collapsed = True
        return not self._load.collapsed

    async def _enter(self, asked: list[Asked]) -> None:
        tickets = await self._target.enter([each.job() for each in asked])
        self._under_way -= len(asked)
        if self._is_over:
            for each in asked:
                self._load.of(each.tenant).lose(each, self._clock.now() - each.due_s)
            await self._target.end_all()
            return
        for each, ticket in zip(asked, tickets, strict=True):
            if not ticket.run_id:
                self._load.of(each.tenant).refuse(each, ticket.reason_code or ReasonCode.INTERNAL_ERROR)
                self._ended.set()
            elif (early := self._early.pop(ticket.run_id, None)) is not None:
                self._end(each, early)
            else:
                self._open[ticket.run_id] = each

    async def follow(self) -> None:
        """Take in what ends, until cancelled."""
        while True:
            for result in await self._target.ends(ASK_S):
                asked = self._open.pop(result.run_id, None)
                if asked is None:
                    self._early[result.run_id] = result
                else:
                    self._end(asked, result)
            await self._clock.sleep(PAUSE_S)

    def _end(self, asked: Asked, result: RunResult) -> None:
        seconds = self._clock.now() - asked.due_s - self._by_people_s.pop(result.run_id, 0.0)
        self._load.of(asked.tenant).end(asked, result, seconds)
        if not is_aggressor(asked.tenant):
            self._load.window.record(seconds)
        self.ends += 1
        self._ended.set()

    async def approve(self, rng: Random, mean_s: float) -> None:
        """Approve what waits, each call after a delay of its own, until cancelled."""
        due_s: dict[str, float] = {}
        while True:
            waiting = await self._target.waiting()
            now_s = self._clock.now()
            due_s = {
                each.approval_id: due_s.get(each.approval_id) or now_s + rng.expovariate(1 / mean_s) for each in waiting
            }
            calls = [each for each in waiting if due_s[each.approval_id] <= now_s]
            if calls:
                now_us = time.time_ns() // 1000
                for each in calls:
                    waited_s = (now_us - each.asked_us) / 1e6  # of a run with several approvals, each counts
                    self._by_people_s[each.run_id] = self._by_people_s.get(each.run_id, 0.0) + waited_s
                await self._target.approve(calls)
            await self._clock.sleep(LOOK_S)

    async def keep(self, count: int, make: Callable[[], Asked], until_s: float) -> None:
        """Keep so many runs in flight until then: the closed loop."""
        while self._clock.now() < until_s:
            self._ended.clear()
            missing = count - self.open
            if missing > 0:
                self.send([make() for _ in range(missing)])
            await self._clock.sleep(PAUSE_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), max(0.0, until_s - self._clock.now()))

    async def drain(self, within_s: float) -> None:
        """Wait until all has ended; what has not within the time is ended, and counts as lost."""
        until_s = self._clock.now() + within_s
        while self.open and self._clock.now() < until_s:
            await self._clock.sleep(PAUSE_S)
        if not self.open:
            return
        now_s = self._clock.now()
        for run_id, asked in self._open.items():
            seconds = now_s - asked.due_s - self._by_people_s.pop(run_id, 0.0)
            self._load.of(asked.tenant).lose(asked, max(seconds, 0.0))
            if not is_aggressor(asked.tenant):
                self._load.window.record(seconds)
        self._open.clear()
        self._is_over = True
        await self._target.end_all()
