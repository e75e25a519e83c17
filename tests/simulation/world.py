"""One seed, run: all layers, all runs, all crashes, under one clock and one source of randomness."""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from random import Random
from typing import Any

from airside.memory.in_memory import InMemoryMemory
from airside.memory.storage.erasure import Erasure
from airside.stack.budget.recorded_usage import RecordedUsage, recorded_usage
from airside.stack.budget.reservations import BudgetReservations
from airside.stack.contracts.memory import Candidate
from airside.stack.ids import NO_ISSUER, IssuerId, RunId, TenantId, mint_executor, root_of
from airside.stack.policy.gate import Gate
from airside.stack.policy.lookups import Lookups
from airside.stack.run import events as ev
from airside.stack.scheduling.placement_events import Moment
from airside.stack.security.identity import run_subject, seal_identity
from airside.tools.dispatch import Dispatcher
from airside.tools.in_memory import InMemoryTools
from tests.simulation.clock import ManualLoop
from tests.simulation.ledger import Ledger, make_tools
from tests.simulation.owners import OWNER, Mortal, make_task
from tests.simulation.people import SEAL, People, SimApprovals
from tests.simulation.plan import BUNDLES, Plan, make_plan
from tests.simulation.ports import SimJournal
from tests.simulation.runtime import Driver
from tests.simulation.things import SimPolicy, SimResolvers, Things

LONGEST_S = 3_600.0
"""Nothing a run may wait for takes an hour: what has not ended by then never will."""


class World:
    """Everything of one seed."""

    def __init__(self, seed: int, plan: Plan | None = None, *, make: Callable[[Random], Plan] = make_plan) -> None:
        self.rng = Random(seed)
        self.plan = plan or make(self.rng)
        self.loop = ManualLoop()
        self.loop.set_task_factory(make_task)
        self.loop.set_exception_handler(lambda loop, context: None)
        self.now_us = self.loop.now_us
        self.log: list[str] = []
        self.violations: list[str] = []
        self.points = 0
        self.crashes = 0
        self.closed = False
        self._names = 0
        self._hash = hashlib.sha256()
        self._over: asyncio.Future[None] = self.loop.create_future()
        self.journal = SimJournal(self)
        self.ledger = Ledger(self)
        self.toolbox = make_tools(self)
        self.specs = tuple(tool.spec for tool in self.toolbox)
        self.calls: dict[asyncio.Task[Any], None] = {}
        self.gates = 0
        self.issuer = NO_ISSUER
        self.tools = InMemoryTools(self._dispatcher)
        self.things = Things(self)
        self.granted: Counter[str] = Counter()
        self.resolvers = SimResolvers(self)
        self.policy = self._policy()
        self.memory = InMemoryMemory(self.now_us)
        self.forgotten: set[str] = set()
        self.approvals = SimApprovals(self)
        self.people = People(self)
        self.driver = Driver(self)
        self.driver.boot()

    # What everything in the world uses.

    def start(self, work: Coroutine[Any, Any, None], owner: Mortal | None = None) -> None:
        """Run a task; with an owner, it and all tasks it starts die with the owner."""
        context = contextvars.copy_context()
        context.run(OWNER.set, owner)
        self.loop.create_task(self._watched(work), context=context)

    async def _watched(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            self.violation(f"{getattr(work, '__qualname__', work)}: {type(error).__name__}: {error}"[:300])

    def later(self, delay_s: float, act: Callable[[], Any]) -> None:
        """Do something when the clock is there."""
        self.loop.call_later(delay_s, act, context=contextvars.Context())

    def moment(self) -> Moment:
        """Return the present moment."""
        return Moment(self.now_us(), self.loop.time())

    def mint(self) -> str:
        """Return a name that was never given."""
        self._names += 1
        return f"{self._names}"

    async def pause(self) -> None:
        """Take a random time: mostly milliseconds, now and then half a second."""
        slow = self.rng.random() < 0.01
        await asyncio.sleep(self.rng.random() * 0.5 if slow else self.rng.expovariate(500))

    def chance(self, weight: float) -> bool:
        """Whether a fault of this weight happens now."""
        return self.plan.faults > 0 and self.rng.random() < self.plan.faults * weight

    def point(self, what: str) -> None:
        """Pass a point at which the plan may have something crash."""
        self.points += 1
        kind = self.plan.crashes.get(self.points)
        if kind is not None:
            self.crash(kind, f"at point {self.points}: {what}")

    def crash(self, kind: str, where: str) -> None:
        """Have something crash now."""
        self.crashes += 1
        self.note(f"CRASH {kind} {where}")
        _CRASHES[kind](self)

    def trace(self, *parts: Any) -> None:
        """Add to the hash of everything that happened."""
        for part in parts:
            self._hash.update(part if isinstance(part, bytes) else f"|{part}|".encode())

    def note(self, text: str) -> None:
        """Keep a line of the story."""
        self.log.append(f"+{self.loop.elapsed_us / 1e6:9.4f}s  {text}")

    def violation(self, text: str) -> None:
        """Report that a promise was broken."""
        self.note(f"VIOLATION {text}")
        if text not in self.violations:
            self.violations.append(text)

    def abandon(self) -> None:
        """End the simulation here: it would not end by itself."""
        if not self._over.done():
            self._over.set_result(None)

    def tenant_of(self, run_id: RunId) -> TenantId:
        """Return the tenant a run was submitted for."""
        return self.driver.submitted[root_of(run_id)].identity.tenant

    def executing(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start work that belongs to the present executor."""
        context = contextvars.copy_context()
        context.run(OWNER.set, None)
        task = self.loop.create_task(work, context=context)
        self.calls[task] = None
        task.add_done_callback(self._called)
        return task

    def _called(self, task: asyncio.Task[Any]) -> None:
        if self.calls.pop(task, self) is None and (task.cancelled() or task.exception() is not None):
            self.violation("Dispatcher.execute raised instead of returning a result")

    # Running it.

    def run(self) -> None:
        """Play the seed to its end."""
        try:
            self.loop.run_until_complete(self._play())
        finally:
            self.close()

    def close(self) -> None:
        """Let go of what still waits."""
        self.closed = True
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        for _ in range(3):
            self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()

    async def _play(self) -> None:
        for run in self.plan.runs:
            identity = run.identity
            submitted = ev.RunSubmitted(
                run_id=run.run_id,
                identity=identity,
                sealed=seal_identity(SEAL, identity, run_subject(run.run_id)),
                request=run.request,
                limits=run.limits,
                app_version="app-1",
                at_us=self.now_us(),
            )
            self.later(run.start_s, lambda s=submitted: self.driver.submit(s))
            self.people.interfere(run)
        if self.plan.forgets:
            await self._remember()
        self.start(self._watch())
        await self._over

    async def _remember(self) -> None:
        """Keep a record of each subject, and erase what is about it at some time."""
        for tenant in self.plan.tenants:
            for subject in ("ana", "ben", "cleo"):
                text = f"{subject} has the yearly report go to room {subject[:1]}"
                fact = Candidate(tenant=tenant, text=text, kind="fact", source="x", subject=subject, trust="high")
                self.violations += [] if (await self.memory.write_if_useful(fact)).kept else ["nothing to recall"]
                order = Erasure(tenant=tenant, what="subject", target=subject)
                self.later(self.rng.random() * 4, lambda order=order: self.start(self._forget(order)))

    async def _forget(self, order: Erasure) -> None:
        plan = await self.memory.erase(order)
        self.forgotten |= set(plan.ids)
        self.note(f"FORGET {order.tenant} {order.target}: {len(plan.ids)} records")

    async def _watch(self) -> None:
        """End the simulation when all runs have ended, or when they never will."""
        while self.loop.time() < LONGEST_S:
            await asyncio.sleep(1.0 if self.loop.time() < 120 else 60.0)
            if all(self.journal.ended(run) for run in [r.run_id for r in self.plan.runs] + [*self.driver.submitted]):
                break
        # What is still on its way (a call of a run that was killed) arrives before the books are closed.
        await asyncio.sleep(10.0)
        self.abandon()

    def fingerprint(self) -> str:
        """Return a hash of everything that happened."""
        self.trace(self.points, self.crashes, self.loop.elapsed_us, sorted(self.ledger.counts.items()), *self.log)
        return self._hash.hexdigest()

    # Crashes.

    def _dispatcher(self) -> Dispatcher:
        return Dispatcher(
            self.toolbox,
            seal_key=SEAL,
            executor_id=mint_executor(self.rng.randbytes),
            now_us=self.now_us,
            in_threads=False,
            issuer=self.issuer,
            journal=self.journal.append,
        )

    def _policy(self) -> SimPolicy:
        """Make a gate as the actor does: the executor is fenced first, then the journal says what was spent."""
        bundle = BUNDLES[1 if self.rng.random() < 0.2 else 0]
        self.gates += 1
        self.issuer = IssuerId(f"iss_{self.gates}")
        self.tools.dispatcher.grants.issuer = self.issuer
        lookups = Lookups(
            self.resolvers,
            {"thing": self.resolvers.resolver.terms},
            seal_key=SEAL,
            issuer=self.issuer,
            now_us=self.now_us,
            at_work_ms=max(spec.timeout_ms for spec in self.specs) if self.gates > 1 else 0,
        )
        gate = Gate(
            bundle=bundle,
            tools=self.specs,
            seal_key=SEAL,
            now_us=self.now_us,
            random=self.rng.randbytes,
            spending=BudgetReservations((), self.plan.budgets, self._spent()),
            issuer=self.issuer,
            on_change=lookups.changed,
        )
        return SimPolicy(self, gate, lookups)

    def _spent(self) -> Iterator[RecordedUsage]:
        for stream, entries in self.journal.local.streams.items():
            run_id = RunId(stream)
            if not entries or entries[0].type != "RunSubmitted":
                continue
            is_over = self.journal.ended(root_of(run_id))
            for spent in recorded_usage(
                self.tenant_of(run_id), [ev.decode_event(e.body) for e in entries], is_over=is_over
            ):
                yield spent._replace(key="") if is_over else spent

    def crash_runtime(self, key: str, *, lingers: bool = False) -> None:
        """Lose a runtime process; it may go on for a while beside its successor, as if cut off."""
        lingers_s = self.rng.random() * 3 if lingers else 0.0
        self.driver.lose(key, excused=self.rng.random() < 0.7, lingers_s=lingers_s)

    def crash_executor(self) -> None:
        """Lose the executor and every call in flight."""
        calls, self.calls = self.calls, {}
        self.tools.restart()
        for call in calls:
            call.cancel()

    def restart_policy(self) -> None:
        """Replace the gate, perhaps by one with another bundle."""
        self.policy = self._policy()

    def crash_journal(self) -> None:
        """Lose every answer the journal has not given."""
        self.journal.incarnation += 1


def _one(world: World, *, lingers: bool = False) -> None:
    if world.driver.processes:
        world.crash_runtime(world.rng.choice(list(world.driver.processes)), lingers=lingers)


def _all(world: World) -> None:
    for key in list(world.driver.processes):
        world.crash_runtime(key)


_CRASHES: dict[str, Callable[[World], None]] = {
    "runtime": _one,
    "runtimes": _all,
    "partition": lambda world: _one(world, lingers=True),
    "driver": lambda world: world.driver.crash(),
    "executor": World.crash_executor,
    "policy": World.restart_policy,
    "approvals": lambda world: world.approvals.restart(),
    "journal": World.crash_journal,
}
