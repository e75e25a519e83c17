"""Client stubs: the ports of `stack.ports` over the table of remote methods."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from airside.actors.rpc.methods import (
    ANSWER_OF,
    APPEND,
    APPEND_TOGETHER,
    ASK_MODEL,
    BODIES,
    DECIDE,
    EXECUTE,
    INCARNATION,
    RELEASE,
    REQUEST_APPROVAL,
    RESOLVE,
    RETRIEVE,
    ROWS,
    SPEND,
    WRITE_IF_USEFUL,
    NamedQuery,
    Rows,
)
from airside.actors.rpc.names import CellAddress
from airside.actors.rpc.remote import Remote
from airside.actors.rpc.transport import Channel
from airside.stack.approvals.book import Question
from airside.stack.contracts.budget import SpendReply, SpendRequest
from airside.stack.contracts.execution import ExecuteReply, ExecuteRequest
from airside.stack.contracts.gate import GateReply, GateRequest
from airside.stack.contracts.memory import Candidate, LearnReply, RecallReply, RecallRequest
from airside.stack.contracts.models import ModelReply, ModelRequest
from airside.stack.errors import LayerUnavailable
from airside.stack.ids import ExecutorId, RunId, root_of
from airside.stack.journal.journaling import Append, AppendReply, AppendTogether
from airside.stack.run.events import ApprovalDecided

encode = msgspec.msgpack.Encoder().encode
encode_json = msgspec.json.Encoder().encode
"""For messages that carry JSON as it is (`Raw`), which MessagePack cannot embed."""

FRESH_S = 0.2
"""How long an executor that answered over Ray is taken to be the same: a call granted to one that died meanwhile is in
doubt, though it never began, if its tool must not be called twice.  Asking costs a millisecond, and a busy one is not
asked.  One that is connected is the same as long as the connection is.
"""

_ASK_AGAIN_S = (0.05, 0.1, 0.2, 0.4)
"""Pauses between questions for a lost answer: an executor that died is another one, or still none, after them."""


class RemoteJournal:
    """The `Journal` port, and reading.  Sent again until answered: an append taken in already is answered `ok`."""

    def __init__(self, cell: CellAddress) -> None:
        self._remote = Remote(cell, "journal")

    async def append(self, append: Append) -> AppendReply:
        """Make entries durable; raise `LayerUnavailable` if they cannot be for now."""
        reply = await self._remote.call(APPEND, append)
        if reply.verdict == "later":
            raise LayerUnavailable(f"journal: {reply.detail}")
        return reply

    async def append_together(self, write: AppendTogether) -> AppendReply:
        """Make entries of several streams durable, all or none; as `append`."""
        reply = await self._remote.call(APPEND_TOGETHER, write)
        if reply.verdict == "later":
            raise LayerUnavailable(f"journal: {reply.detail}")
        return reply

    async def bodies(self, streams: Sequence[str]) -> dict[str, list[str]]:
        """Return the events of streams as JSON, oldest first."""
        return await self._remote.call(BODIES, list(streams))

    async def unfinished_below(self, run_id: RunId) -> list[RunId]:
        """Return the branches of a run, and theirs, that have not ended."""
        return [RunId(row[0]) for row in await self.rows("unfinished_below", run_id)]

    async def rows(self, name: str, *parameters: Any) -> Rows:
        """Return the rows of a named query."""
        return await self._remote.call(ROWS, NamedQuery(name, parameters))


class RemotePolicy:
    """The `Policy` port."""

    def __init__(self, cell: CellAddress) -> None:
        self._remote = Remote(cell, "policy")

    async def decide(self, request: GateRequest) -> GateReply:
        """Decide about one call."""
        return await self._remote.call(DECIDE, request)

    async def spend(self, request: SpendRequest) -> SpendReply:
        """Reserve what a decision can cost."""
        return await self._remote.call(SPEND, request)


class RemoteModels:
    """The `Models` port."""

    def __init__(self, cell: CellAddress) -> None:
        self._remote = Remote(cell, "models")

    async def ask(self, request: ModelRequest) -> ModelReply:
        """Answer a question, or say why not."""
        return await self._remote.call(ASK_MODEL, request)


class RemoteMemory:
    """The `Memory` port."""

    def __init__(self, cell: CellAddress) -> None:
        self._remote = Remote(cell, "memory")

    async def retrieve(self, request: RecallRequest) -> RecallReply:
        """Return what is relevant."""
        return await self._remote.call(RETRIEVE, request)

    async def write_if_useful(self, candidate: Candidate) -> LearnReply:
        """Keep a candidate if it is worth it; sent twice, the second is a duplicate."""
        return await self._remote.call(WRITE_IF_USEFUL, candidate)


class RemoteApprovals:
    """The `Approvals` port."""

    def __init__(self, cell: CellAddress) -> None:
        self._remote = Remote(cell, "approvals")

    async def request(self, question: Question) -> ApprovalDecided | None:
        """Register durably; return the decision if there is one already."""
        return await self._remote.call(REQUEST_APPROVAL, question)


class _Executor:
    """One executor of the pool as a caller sees it, and its present incarnation."""

    def __init__(self, cell: CellAddress, index: int) -> None:
        self.remote = Remote(cell, "executor", str(index))
        self.incarnation: ExecutorId | None = None
        self.answered_s = 0.0
        self._channel: Channel | None = None
        self.lock = asyncio.Lock()

    @property
    def _is_fresh(self) -> bool:
        if self.incarnation is None:
            return False
        if self._channel is not None:
            return self.remote.channel is self._channel
        return time.monotonic() - self.answered_s < FRESH_S

    async def known(self) -> ExecutorId:
        """Return the present incarnation, asking (and waiting through a restart) unless it has just answered."""
        if not self._is_fresh:
            async with self.lock:
                if not self._is_fresh:
                    self.incarnation = ExecutorId(await self.remote.call(INCARNATION, None))
                    self.answered_s, self._channel = time.monotonic(), self.remote.channel
        assert self.incarnation is not None
        return self.incarnation


class RemoteResolvers:
    """The `Resolvers` port over the pool: a run's executor is asked, and another one if that does not answer."""

    def __init__(self, cell: CellAddress) -> None:
        self._pool = [Remote(cell, "executor", str(i)) for i in range(cell.executors)]

    async def resolve(self, run_id: RunId, request: bytes) -> bytes:
        """Answer a question; raise `LayerUnavailable` if no executor does."""
        first = executor_of(run_id, len(self._pool))
        for executor in self._pool[first:] + self._pool[:first]:
            try:
                return await executor.call(RESOLVE, request)
            except LayerUnavailable as error:
                away = error
        raise away


def executor_of(run_id: RunId, executors: int) -> int:
    """Return which executor of the pool a run's calls go to; a branch's go to its root's."""
    return int(root_of(run_id)[-8:], 16) % executors


class RemoteTools:
    """The `Tools` port over the pool.  A run's calls all go to one executor, which may hold its toolsets' state."""

    def __init__(self, cell: CellAddress) -> None:
        self._pool = [_Executor(cell, i) for i in range(cell.executors)]

    def index_of(self, run_id: RunId) -> int:
        """Return which executor of the pool a run's calls go to; a branch's go to its root's."""
        return executor_of(run_id, len(self._pool))

    def _of(self, run_id: RunId) -> _Executor:
        return self._pool[self.index_of(run_id)]

    async def executor_for(self, run_id: RunId) -> ExecutorId:
        """Return the incarnation that will carry out the run's calls."""
        return await self._of(run_id).known()

    async def execute(self, run_id: RunId, request: ExecuteRequest) -> ExecuteReply:
        """Carry out a call; after an error or a refusal the incarnation is asked for again."""
        executor = self._of(run_id)
        try:
            reply = await executor.remote.call(EXECUTE, request)
        except LayerUnavailable:
            executor.incarnation = None
            raise
        executor.answered_s = time.monotonic()
        if reply.result.reason_code == "grant_invalid":
            executor.incarnation = None
        return reply

    async def answer_of(self, run_id: RunId, grant: bytes) -> ExecuteReply | None:
        """Return what a call came to whose answer was lost; None if its executor is gone, or knows of no such call."""
        executor = self._of(run_id)
        for pause in _ASK_AGAIN_S:
            try:
                return await executor.remote.call(ANSWER_OF, grant)
            except LayerUnavailable:
                executor.incarnation = None
                await asyncio.sleep(pause)
        return None

    async def release(self, run_id: RunId) -> None:
        """Let the executor close what it holds for the run."""
        await self._of(run_id).remote.call(RELEASE, run_id)
