"""The layers as one runtime sees them: slow, reordering, losing answers, and deaf once the runtime is dead.

Journal, policy, approvals and memory calls whose answer is lost are sent again here, as the real stubs do; a tool
call is not, because only its key makes it repeatable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import msgspec

from airside.stack.approvals.book import Question
from airside.stack.contracts.budget import SpendReply, SpendRequest
from airside.stack.contracts.execution import ExecuteReply, ExecuteRequest
from airside.stack.contracts.gate import GateReply, GateRequest
from airside.stack.contracts.memory import Candidate, LearnReply, RecallReply, RecallRequest
from airside.stack.cycle.claiming import Unfinished
from airside.stack.cycle.in_memory import InMemoryJournal
from airside.stack.errors import ItemFailed, LayerUnavailable
from airside.stack.ids import ExecutorId, RunId
from airside.stack.journal.journaling import Append, AppendReply
from airside.stack.run.events import ApprovalDecided, RunSubmitted, decode_event

if TYPE_CHECKING:
    from tests.simulation.runtime import Process
    from tests.simulation.world import World

T = TypeVar("T")


class SimJournal:
    """The durable journal.  It outlives every crash; what is acknowledged is remembered for the end."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.local = InMemoryJournal()
        self.incarnation = 0
        self.acknowledged: list[Append] = []
        self._epochs: dict[str, int] = {}

    def take(self, append: Append) -> AppendReply:
        """Take in an append: from here it survives."""
        had = len(self.local.streams.get(append.stream, []))
        reply = self.local.append_now(append)
        has = len(self.local.streams.get(append.stream, []))
        if has > had:
            self._world.trace(append.stream, append.epoch, had, *(e.body for e in append.entries[had - has :]))
            if append.epoch < self._epochs.get(append.stream, -1):
                self._world.violation(f"{append.stream}: epoch {append.epoch} wrote after a newer one")
            self._epochs[append.stream] = append.epoch
            if had == 0 and append.entries[0].type == "RunSubmitted":
                first = decode_event(append.entries[0].body)
                assert isinstance(first, RunSubmitted)
                self._world.driver.submitted.setdefault(first.run_id, first)
        self._world.point(f"journal {append.stream} has {has} ({reply.verdict})")
        return reply

    async def append(self, append: Append, alive: Callable[[], bool] = lambda: True) -> AppendReply:
        """Append as a stub does: again and again until an answer comes."""
        while True:
            await self._world.pause()
            if not alive() and self._world.rng.random() < 0.5:
                return AppendReply(verdict="error", detail="the sender is dead")
            incarnation = self.incarnation
            reply = self.take(append)
            if self._world.chance(0.5):
                self._world.later(self._world.rng.random(), lambda: self.take(append))
            await self._world.pause()
            if incarnation == self.incarnation and not self._world.chance(1.0):
                if reply.verdict == "ok":
                    self.acknowledged.append(append)
                return reply

    def ended(self, run_id: RunId) -> bool:
        """Whether the run's end is durable."""
        stream = self.local.streams.get(run_id)
        return bool(stream) and stream[-1].type == "RunEnded"

    def unfinished_runs(self) -> list[Unfinished]:
        """Return the runs and branches that were admitted and have not ended."""
        runs = [
            (s, self._epochs[run_id]) for run_id, s in self._world.driver.submitted.items() if run_id in self._epochs
        ]
        return [
            Unfinished(s.run_id, s.identity.tenant, s.parent or "", epoch, s.at_us)
            for s, epoch in runs
            if not self.ended(s.run_id)
        ]


class Port:
    """One runtime's side of a layer: what it sends travels on its own, and may arrive after the sender's death."""

    def __init__(self, world: World, runtime: Process) -> None:
        self._world = world
        self._runtime = runtime

    async def _remote(self, work: Callable[[], Awaitable[T]], *, retried: bool = True) -> T:
        world = self._world
        if self._runtime.dead:
            await asyncio.get_running_loop().create_future()
        carried: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        async def carry() -> None:
            try:
                while True:
                    await world.pause()
                    if self._runtime.dead and world.rng.random() < 0.5:
                        return
                    answer = await work()
                    world.point("answer")
                    await world.pause()
                    if not (retried and world.chance(1.0)):
                        break
                if not carried.done():
                    carried.set_result(answer)
            except Exception as error:
                if not carried.done():
                    carried.set_exception(error)

        world.start(carry())
        return await carried


class JournalPort(Port):
    """The journal, as a runtime sees it."""

    async def append(self, append: Append) -> AppendReply:
        """Make entries durable."""
        world, runtime = self._world, self._runtime
        reply = await self._remote(lambda: world.journal.append(append, lambda: not runtime.dead), retried=False)
        if world.chance(0.1):
            raise LayerUnavailable("the journal did not answer for as long as one waits")
        return reply

    async def bodies(self, streams: Sequence[str]) -> dict[str, list[str]]:
        """Return the events of runs."""
        return await self._read(lambda: self._world.journal.local.bodies(streams))

    async def unfinished_below(self, run_id: RunId) -> list[RunId]:
        """Return the branches that have not ended."""
        return await self._read(lambda: self._world.journal.local.unfinished_below(run_id))

    async def _read(self, read: Callable[[], Awaitable[T]]) -> T:
        async def work() -> T:
            if self._world.chance(0.5):
                raise LayerUnavailable("the journal did not answer")
            return await read()

        return await self._remote(work)


class PolicyPort(Port):
    """The gate."""

    async def decide(self, request: GateRequest) -> GateReply:
        """Decide about one call."""
        world = self._world

        async def work() -> GateReply:
            if world.chance(0.2):
                raise LayerUnavailable("policy is down")
            return await world.policy.decide(request)

        return await self._remote(work)

    async def spend(self, request: SpendRequest) -> SpendReply:
        """Reserve what a decision can cost."""
        world = self._world

        async def work() -> SpendReply:
            if world.chance(0.2):
                raise LayerUnavailable("policy is down")
            return await world.policy.spend(request)

        return await self._remote(work)


class ToolsPort(Port):
    """The executor."""

    async def executor_for(self, run_id: RunId) -> ExecutorId:
        """Return the present incarnation."""
        world = self._world

        async def work() -> ExecutorId:
            if world.chance(0.2):
                raise LayerUnavailable("no executor")
            return await world.tools.executor_for(run_id)

        return await self._remote(work)

    async def execute(self, run_id: RunId, request: ExecuteRequest) -> ExecuteReply:
        """Carry out a call; its answer may be lost while it still runs."""
        world = self._world

        async def work() -> ExecuteReply:
            call = world.executing(world.tools.execute(run_id, request))
            patience = world.rng.random() * 0.05 if world.chance(1.0) else None
            done, _ = await asyncio.wait([call], timeout=patience)
            if not done or call.cancelled() or world.chance(1.0):
                kind = ItemFailed if world.rng.random() < 0.2 else LayerUnavailable
                raise kind("the executor did not answer")
            # The dispatcher measures with a clock of its own, which is not part of the simulation.
            return ExecuteReply(result=msgspec.structs.replace(call.result().result, duration_us=0))

        return await self._remote(work, retried=False)

    async def answer_of(self, run_id: RunId, grant: bytes) -> ExecuteReply | None:
        """Return what a call came to; the way there may be lost too."""
        world = self._world

        async def work() -> ExecuteReply | None:
            if world.chance(10.0):
                raise LayerUnavailable("the executor did not answer")
            reply = await world.tools.answer_of(run_id, grant)
            return reply and ExecuteReply(result=msgspec.structs.replace(reply.result, duration_us=0))

        return await self._remote(work, retried=False)

    async def release(self, run_id: RunId) -> None:
        """Close what the run holds."""
        await self._remote(lambda: self._world.tools.release(run_id))


class MemoryPort(Port):
    """Memory; a small share of its answers are errors."""

    async def retrieve(self, request: RecallRequest) -> RecallReply:
        """Return what is relevant."""
        world = self._world

        async def work() -> RecallReply:
            return RecallReply(error="memory is down") if world.chance(0.1) else await world.memory.retrieve(request)

        return await self._remote(work)

    async def write_if_useful(self, candidate: Candidate) -> LearnReply:
        """Keep a candidate."""
        world = self._world

        async def work() -> LearnReply:
            if world.chance(0.5):
                raise LayerUnavailable("memory is down")
            return await world.memory.write_if_useful(candidate)

        return await self._remote(work)


class ApprovalsPort(Port):
    """Approvals."""

    async def request(self, question: Question) -> ApprovalDecided | None:
        """Register durably."""
        return await self._remote(lambda: self._world.approvals.request(question))
