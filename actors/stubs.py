"""Client stubs: the ports of `stack.ports` over Ray, and the calls between actors.

`Remote` finds an actor by name, coalesces calls to one of its list methods, and waits through a restart: a call that
may safely be sent twice is sent again until `layer_patience_s` is over, any other raises `LayerUnavailable` at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec
import ray
from ray.exceptions import RayActorError, RayError

from airside.actors.batching import Coalescer
from airside.actors.names import NAMESPACE, actor_name
from airside.actors.serving import NO_ANSWER, TICKET, not_refused
from airside.actors.settings import Settings
from airside.stack.approvals import ApprovalRequested
from airside.stack.errors import LayerUnavailable, text_of
from airside.stack.events import ApprovalDecided
from airside.stack.gate import GateReply, GateRequest
from airside.stack.ids import ExecutorId, RunId, root_of
from airside.stack.journaling import Append, AppendReply
from airside.stack.metering import SpendReply, SpendRequest
from airside.stack.ports import Candidate, ExecuteReply, ExecuteRequest, LearnReply, RecallReply, RecallRequest

encode = msgspec.msgpack.Encoder().encode
encode_json = msgspec.json.Encoder().encode
"""For messages that carry JSON as it is (`Raw`), which MessagePack cannot embed."""

Reply = TypeVar("Reply")

FRESH_S = 0.2
"""How long an executor that answered is taken to be the same: a call granted to one that died meanwhile is in doubt,
though it never began, if its tool must not be called twice.  Asking costs a millisecond, and a busy one is not asked.
"""

_ASK_AGAIN_S = (0.05, 0.1, 0.2, 0.4)
"""Pauses between questions for a lost answer: an executor that died is another one, or still none, after them."""

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 0.5


class Remote:
    """One layer's actor, by name."""

    def __init__(self, settings: Settings, layer: str, key: str = "") -> None:
        self.name = actor_name(settings.stack, layer, key)
        self._settings = settings
        self._handle: Any = None

    async def handle(self) -> Any:
        """Return the actor's handle; raise `LayerUnavailable` if no such actor exists now."""
        if self._handle is None:
            try:
                self._handle = await asyncio.to_thread(ray.get_actor, self.name, NAMESPACE)
            except ValueError:
                raise LayerUnavailable(f"{self.name}: there is no such actor") from None
        return self._handle

    async def call(self, method: str, *args: Any) -> Any:
        """Call once; raise `LayerUnavailable` if the actor is dead or dies."""
        handle = await self.handle()
        try:
            return await getattr(handle, method).remote(*args)
        except RayActorError as error:
            self._handle = None
            raise LayerUnavailable(f"{self.name}.{method}: {type(error).__name__}") from None
        except RayError as error:
            cause = getattr(error, "cause", None) or error
            raise LayerUnavailable(f"{self.name}.{method}: {text_of(cause, 500)}") from None

    async def insist(self, method: str, *args: Any) -> Any:
        """Call until it is answered, for at most `layer_patience_s`; only for what may be sent twice."""
        return await self._patiently(self.call, method, *args)

    async def _patiently(self, call: Callable[..., Any], *args: Any) -> Any:
        until = time.monotonic() + self._settings.layer_patience_s
        pause = _FIRST_PAUSE_S
        while True:
            try:
                return await call(*args)
            except LayerUnavailable:
                if time.monotonic() + pause > until:
                    raise
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_S)

    def coalesced(
        self,
        method: str,
        reply: type[Reply],
        *,
        insist: bool = True,
        encoder: Callable[[Any], bytes] = encode,
        json_reply: bool = False,
    ) -> Callable[[Any], Any]:
        """Return a coroutine function for single items, which sends them in batches and decodes the answers.

        It raises `LayerUnavailable`, and `ItemFailed` for an item the layer refused without an answer of its own.
        """
        decode = (msgspec.json.Decoder(reply) if json_reply else msgspec.msgpack.Decoder(reply)).decode
        settings = self._settings

        async def send(batch: list[bytes]) -> Sequence[bytes]:
            # Sent once: what is sent again is each item by itself, so that none goes on which nobody waits for.
            answers: Sequence[bytes] = await self.call(method, batch)
            return answers

        coalescer = Coalescer(send, max_batch=settings.max_batch, in_flight=_in_flight(settings))

        async def settled(data: bytes, answer: bytes | None) -> Reply:
            while True:
                answer = not_refused(await coalescer.call(data) if answer is None else answer)
                if not answer.startswith(TICKET):
                    return decode(answer)
                try:
                    answer = await self.call("collect", answer)
                except LayerUnavailable:
                    if not insist:
                        raise
                    answer = None  # it died with the ticket, and is asked anew
                else:
                    return decode(not_refused(answer))

        async def call(item: Any) -> Reply:
            data = encoder(item)
            try:
                answer: bytes = await coalescer.call(data)
                if not answer.startswith(NO_ANSWER):
                    return decode(answer)  # nearly always; every further coroutine is paid for by every step
                return await settled(data, answer)
            except LayerUnavailable:
                if not insist:
                    raise
            reply: Reply = await self._patiently(settled, data, None)
            return reply

        return call

    def batched(self, method: str) -> Callable[[bytes], Any]:
        """Return a coroutine function that coalesces items for a method with plain answers, one an item, sent once."""

        async def send(batch: list[bytes]) -> Sequence[Any]:
            answers: Sequence[Any] = await self.call(method, batch)
            return answers

        settings = self._settings
        coalescer = Coalescer(send, max_batch=settings.max_batch, in_flight=_in_flight(settings))

        async def call(item: bytes) -> Any:
            return not_refused(await coalescer.call(item))

        return call


def _in_flight(settings: Settings) -> int:
    """One item a call means that nobody waits for anybody: then calls are not held back either."""
    return settings.calls_in_flight if settings.max_batch > 1 else 1_000_000


class RemoteJournal:
    """The `Journal` port.  Sent again until answered: an append that was taken in already is answered `ok`."""

    def __init__(self, settings: Settings) -> None:
        self.remote = Remote(settings, "journal")
        self._append = self.remote.coalesced("append", AppendReply)

    async def append(self, append: Append) -> AppendReply:
        """Make entries durable; raise `LayerUnavailable` if they cannot be for now."""
        reply: AppendReply = await self._append(append)
        if reply.verdict == "later":
            raise LayerUnavailable(f"journal: {reply.detail}")
        return reply


class RemotePolicy:
    """The `Policy` port."""

    def __init__(self, settings: Settings) -> None:
        remote = Remote(settings, "policy")
        self._decide = remote.coalesced("decide", GateReply)
        self._spend = remote.coalesced("spend", SpendReply)

    async def decide(self, request: GateRequest) -> GateReply:
        """Decide about one call."""
        reply: GateReply = await self._decide(request)
        return reply

    async def spend(self, request: SpendRequest) -> SpendReply:
        """Reserve what a decision can cost."""
        reply: SpendReply = await self._spend(request)
        return reply


class RemoteMemory:
    """The `Memory` port."""

    def __init__(self, settings: Settings) -> None:
        remote = Remote(settings, "memory")
        self._retrieve = remote.coalesced("retrieve", RecallReply)
        self._write = remote.coalesced("write_if_useful", LearnReply)

    async def retrieve(self, request: RecallRequest) -> RecallReply:
        """Return what is relevant."""
        reply: RecallReply = await self._retrieve(request)
        return reply

    async def write_if_useful(self, candidate: Candidate) -> LearnReply:
        """Keep a candidate if it is worth it; sent twice, the second is a duplicate."""
        reply: LearnReply = await self._write(candidate)
        return reply


class RemoteApprovals:
    """The `Approvals` port."""

    def __init__(self, settings: Settings) -> None:
        self._request = Remote(settings, "approvals").coalesced(
            "request",
            ApprovalDecided | None,  # type: ignore[arg-type]
            encoder=encode_json,
            json_reply=True,
        )

    async def request(self, request: ApprovalRequested) -> ApprovalDecided | None:
        """Register durably; return the decision if there is one already."""
        reply: ApprovalDecided | None = await self._request(request)
        return reply


class _Executor:
    """One executor of the pool as a caller sees it: its present incarnation, and its coalesced calls."""

    def __init__(self, settings: Settings, index: int) -> None:
        self.remote = Remote(settings, "executor", str(index))
        self.execute = self.remote.coalesced("execute", ExecuteReply, insist=False, json_reply=True)
        self.answer: Callable[[bytes], Awaitable[ExecuteReply | None]] = self.remote.coalesced(
            "answers",
            ExecuteReply | None,  # type: ignore[arg-type]
            insist=False,
            encoder=bytes,
            json_reply=True,
        )
        self.release = self.remote.coalesced("release", bool, insist=False)
        self.incarnation: ExecutorId | None = None
        self.answered_s = 0.0
        self.lock = asyncio.Lock()

    @property
    def _is_fresh(self) -> bool:
        return self.incarnation is not None and time.monotonic() - self.answered_s < FRESH_S

    async def known(self) -> ExecutorId:
        """Return the present incarnation, asking (and waiting through a restart) unless it has just answered."""
        if not self._is_fresh:
            async with self.lock:
                if not self._is_fresh:
                    self.incarnation = ExecutorId(await self.remote.insist("incarnation"))
                    self.answered_s = time.monotonic()
        assert self.incarnation is not None
        return self.incarnation


class RemoteResolvers:
    """The `Resolvers` port over the pool: a run's executor is asked, and another one if that does not answer."""

    def __init__(self, settings: Settings) -> None:
        self._pool: list[Callable[[bytes], Awaitable[bytes]]] = [
            Remote(settings, "executor", str(i)).coalesced("resolve", bytes, insist=False, encoder=bytes)
            for i in range(settings.executors)
        ]

    async def resolve(self, run_id: RunId, request: bytes) -> bytes:
        """Answer a question; raise `LayerUnavailable` if no executor does."""
        first = executor_of(run_id, len(self._pool))
        for ask in self._pool[first:] + self._pool[:first]:
            try:
                return await ask(request)
            except LayerUnavailable as error:
                away = error
        raise away


def executor_of(run_id: RunId, executors: int) -> int:
    """Return which executor of the pool a run's calls go to; a branch's go to its root's."""
    return int(root_of(run_id)[-8:], 16) % executors


class RemoteTools:
    """The `Tools` port over the pool.  A run's calls all go to one executor, which may hold its toolsets' state."""

    def __init__(self, settings: Settings) -> None:
        self._pool = [_Executor(settings, i) for i in range(settings.executors)]

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
            reply: ExecuteReply = await executor.execute(request)
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
                return await executor.answer(grant)
            except LayerUnavailable:
                executor.incarnation = None
                await asyncio.sleep(pause)
        return None

    async def release(self, run_id: RunId) -> None:
        """Let the executor close what it holds for the run."""
        await self._of(run_id).release(run_id)
