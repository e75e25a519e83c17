"""`ModelBatches`: gathers questions into providers' batches and waits for these, across the death of whoever sent them.

A batch is of one tenant and one model.  Its stream in the journal says where it is:

    nothing -> ModelBatchPrepared -> ModelBatchSubmitted
       |              |
       +--------------+------------> ModelBatchAbandoned

1. Each member's attempt is on record, with the batch's label, before the batch is prepared; that is on record before it
   is created.  Each entry has a place that is taken once, so whoever abandons a batch that nobody has sent can be sure
   that nobody will.
2. Once its handle is on record, what the provider says of it is the only word: no member is asked again before that.
3. Between the two a process may have died, or not been answered: the provider is asked for a batch of this label.  If
   it certainly has none, the members cost nothing.  If it cannot say, they are in doubt, and count in full.

Who waits for a batch after such a death is who finds its label in the record of an attempt: batches whose members
nobody asks for any more are left to end by themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from airside.stack.contracts.models import Prompt
from airside.stack.errors import LayerUnavailable, text_of
from airside.stack.ids import TenantId
from airside.stack.journal.journaling import Append, AppendReply
from airside.stack.models.events import (
    NEVER_SENT,
    BatchEvent,
    ModelBatchAbandoned,
    ModelBatchPrepared,
    ModelBatchSubmitted,
    batch_entry,
    batch_stream,
    read_batch,
)
from airside.stack.models.pricing import input_bound
from airside.stack.models.provider import BatchedQuestion, BatchPort, ProviderFailure

MAX_MEMBERS = 5_000
MAX_BYTES = 64 * 2**20
"""Of one batch: less than any provider's bound, and what a process can hold several of."""

QUIET_S = 3.0
LONGEST_S = 60.0
"""A batch is sent when nobody has joined it for the one time, or it has been open for the other: it will take hours."""

FIRST_POLL_S = 2.0
LONGEST_POLL_S = 300.0
LIFE_S = 26 * 3600.0
"""Providers end a batch after a day."""

LOOK_AGAIN_S = 30.0
"""After which the provider is asked a second time for a batch it does not know: it may list it late."""

PATIENCE_S = 3600.0
"""How long a provider that is busy is asked again to take a batch, or whether it has one; how long a journal that is
away is asked to take what became of a batch; and how long a provider must have denied one until it is lost."""

_LOST_AFTER = 5
"""Answers in a row, by which a batch is lost if they go on: the provider does not know it, or this key may not ask."""

_KEPT = 8
"""Batches that have ended, of which the results are kept for members that still come for theirs."""

Results = Mapping[str, Any]


@dataclass(eq=False)
class Member:
    """One attempt that goes into a batch.  `begin` puts it on record under the label, and says what it is called."""

    prompt: Prompt
    max_tokens: int
    begin: Callable[[str], Awaitable[str]]
    result: asyncio.Future[Any] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def end(self, result: Any) -> None:
        """Give whoever waits what came of it; nobody may any more."""
        if not self.result.done():
            self.result.set_result(result)

    def fail(self, error: Exception) -> None:
        """Tell whoever waits that nothing came of it."""
        if not self.result.done():
            self.result.set_exception(error)


class _Gathering:
    """A batch that is still open."""

    def __init__(self, now_s: float) -> None:
        self.members: list[Member] = []
        self.size = 0
        self.began_s = self.last_s = now_s

    def add(self, member: Member, now_s: float) -> None:
        self.members.append(member)
        self.size += input_bound(member.prompt)
        self.last_s = now_s

    @property
    def is_full(self) -> bool:
        return len(self.members) >= MAX_MEMBERS or self.size >= MAX_BYTES

    @property
    def due_s(self) -> float:
        return min(self.began_s + LONGEST_S, self.last_s + QUIET_S)


class ModelBatches:
    """The batches of one model caller."""

    def __init__(
        self,
        *,
        append: Callable[[Append], Awaitable[AppendReply]],
        bodies: Callable[[Sequence[str]], Awaitable[dict[str, list[str]]]],
        now_us: Callable[[], int],
        now_s: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        mint: Callable[[], str],
    ) -> None:
        self._append = append
        self._bodies = bodies
        self._now_us = now_us
        self._now_s = now_s
        self._sleep = sleep
        self._mint = mint
        self._gathering: dict[tuple[TenantId, str], _Gathering] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._resumed: OrderedDict[str, asyncio.Task[Results]] = OrderedDict()

    async def send(self, tenant: TenantId, model: str, port: BatchPort, member: Member) -> Any:
        """Put a member into the next batch; return what came of it, None if the batch has ended without a word of it.

        Raises `ProviderFailure`, and what `begin` raises.
        """
        key, now = (tenant, model), self._now_s()
        gathering = self._gathering.get(key)
        if gathering is None:
            gathering = self._gathering[key] = _Gathering(now)
            self._keep(self._close_when_due(key, port, gathering))
        gathering.add(member, now)
        if gathering.is_full:
            self._close(key, port, gathering)
        return await member.result

    async def resume(self, tenant: TenantId, label: str, port: BatchPort) -> Results:
        """Return what came of the members of a batch that is on record; raise `ProviderFailure` for all of them."""
        task = self._resumed.get(label)
        if task is None:
            task = self._resumed[label] = self._keep(self._waited(tenant, label, port))
            for old in [each for each, ended in self._resumed.items() if ended.done()][:-_KEPT]:
                del self._resumed[old]
        try:
            return await asyncio.shield(task)
        except ProviderFailure:
            raise
        except Exception:  # nothing is known of the batch by that: who asks next looks again
            if self._resumed.get(label) is task:
                del self._resumed[label]
            raise

    def _keep(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited for it has it

    # Gathering.

    async def _close_when_due(self, key: tuple[TenantId, str], port: BatchPort, gathering: _Gathering) -> None:
        while self._gathering.get(key) is gathering and (wait_s := gathering.due_s - self._now_s()) > 0:
            await self._sleep(wait_s)
        self._close(key, port, gathering)

    def _close(self, key: tuple[TenantId, str], port: BatchPort, gathering: _Gathering) -> None:
        if self._gathering.get(key) is gathering:
            del self._gathering[key]
            self._keep(self._sent(key, port, gathering.members))

    async def _sent(self, key: tuple[TenantId, str], port: BatchPort, members: Sequence[Member]) -> None:
        """Put the members on record, send them, and give each what came of it."""
        label, begun = self._mint(), dict[str, Member]()

        async def begin(member: Member) -> None:
            try:
                begun[await member.begin(label)] = member
            except Exception as error:
                member.fail(error)

        await asyncio.gather(*map(begin, members))
        if not begun:
            return
        try:
            results = await self._created(key, label, port, begun)
        except Exception as error:
            for member in begun.values():
                member.fail(error)
        else:
            for name, member in begun.items():
                member.end(results.get(name))

    async def _created(
        self, key: tuple[TenantId, str], label: str, port: BatchPort, members: Mapping[str, Member]
    ) -> Results:
        tenant, model = key
        prepared = ModelBatchPrepared(at_us=self._now_us(), model=model, members=tuple(members))
        if not await self._record(tenant, label, 0, prepared):
            raise LayerUnavailable(f"batch {label}: another caller has abandoned it")
        questions = {name: BatchedQuestion(each.prompt, each.max_tokens) for name, each in members.items()}
        event = await self._submitted(port, label, questions, prepared)
        if not await self._persisted(tenant, label, event) and isinstance(event, ModelBatchSubmitted):
            with contextlib.suppress(ProviderFailure):
                await port.cancel(event.handle)  # whoever was first has told the members what became of it
        return await self._waited(tenant, label, port)

    async def _submitted(
        self, port: BatchPort, label: str, questions: Mapping[str, BatchedQuestion], prepared: ModelBatchPrepared
    ) -> BatchEvent:
        """Create a batch; return that it is, or what became of it."""
        pause, until_s = FIRST_POLL_S, self._now_s() + PATIENCE_S
        while True:
            try:
                handle = await port.create(label, questions)
                return ModelBatchSubmitted(at_us=self._now_us(), handle=handle)
            except ProviderFailure as failure:
                if not failure.is_sure:
                    return await self._looked_up(port, label, prepared)
                wait_s = pause if failure.after_s is None else failure.after_s
                if not failure.again or self._now_s() + wait_s >= until_s:
                    return ModelBatchAbandoned(
                        at_us=self._now_us(), is_sure=True, error=text_of(failure, 500), again=failure.again
                    )
            await self._sleep(wait_s)
            pause = min(2 * pause, LONGEST_POLL_S)

    async def _persisted(self, tenant: TenantId, label: str, event: BatchEvent) -> bool:
        """Put what became of a creation on record, if the journal is away, when it is back: nobody else knows it."""
        pause, until_s = FIRST_POLL_S, self._now_s() + PATIENCE_S
        while True:
            try:
                return await self._record(tenant, label, 1, event)
            except LayerUnavailable:
                if self._now_s() + pause >= until_s:
                    raise
            await self._sleep(pause)
            pause = min(2 * pause, LONGEST_POLL_S)

    # Waiting.

    async def _waited(self, tenant: TenantId, label: str, port: BatchPort) -> Results:
        """Return what came of a batch, from wherever it stands by its record."""
        stream = batch_stream(label)
        while True:
            events = read_batch((await self._bodies([stream]))[stream])
            match events:
                case [*_, ModelBatchAbandoned() as end]:
                    raise ProviderFailure(end.error, is_sure=end.is_sure, again=end.again, kind=end.error_type)
                case [*_, ModelBatchSubmitted() as submitted]:
                    return await self._collected(port, submitted)
                case [*_, ModelBatchPrepared() as prepared]:
                    event = await self._looked_up(port, label, prepared)
                    if isinstance(event, ModelBatchAbandoned) and event.is_sure:
                        event = msgspec.structs.replace(event, error_type=NEVER_SENT)
                case _:
                    text = "its caller died before it was sent"
                    event = ModelBatchAbandoned(at_us=self._now_us(), is_sure=True, error=text, error_type=NEVER_SENT)
            await self._record(tenant, label, len(events), event)  # where somebody else was first, that is read

    async def _looked_up(self, port: BatchPort, label: str, prepared: ModelBatchPrepared) -> BatchEvent:
        """Ask the provider whether it has a batch that may have been created."""
        until_s, pause, looked = self._now_s() + PATIENCE_S, FIRST_POLL_S, 0
        while True:
            try:
                handle = await port.find(label, prepared.at_us)
                if handle is not None:
                    return ModelBatchSubmitted(at_us=self._now_us(), handle=handle)
                looked += 1
                if looked > 1:
                    text = "the provider has no such batch"
                    return ModelBatchAbandoned(at_us=self._now_us(), is_sure=True, error=text)
                await self._sleep(LOOK_AGAIN_S)
            except ProviderFailure as failure:
                if not failure.again or self._now_s() + pause >= until_s:
                    text = f"nobody can say whether the provider has it: {text_of(failure, 400)}"
                    return ModelBatchAbandoned(at_us=self._now_us(), is_sure=False, error=text)
                await self._sleep(pause)
                pause = min(2 * pause, LONGEST_POLL_S)

    async def _collected(self, port: BatchPort, submitted: ModelBatchSubmitted) -> Results:
        """Ask for a batch until it has ended."""
        pause, lost, until_us = FIRST_POLL_S, 0, submitted.at_us + int(LIFE_S * 1_000_000)
        lost_from_s = self._now_s()
        while True:
            try:
                results = await port.results(submitted.handle)
                if results is not None:
                    return results
                lost, error = 0, "it has not ended in time"
            except ProviderFailure as failure:
                lost, error = 0 if failure.again else lost + 1, text_of(failure, 400)
            if lost <= 1:
                lost_from_s = self._now_s()
            is_lost = lost >= _LOST_AFTER and self._now_s() - lost_from_s >= PATIENCE_S
            if is_lost or self._now_us() >= until_us:
                raise ProviderFailure(f"the batch is lost: {error}", is_sure=False, again=True)
            await self._sleep(pause)
            pause = min(1.5 * pause, LONGEST_POLL_S)

    async def _record(self, tenant: TenantId, label: str, seq: int, event: BatchEvent) -> bool:
        """Put an event on record; return False if there is another one in its place."""
        stream = batch_stream(label)
        reply = await self._append(
            Append(tenant=tenant, stream=stream, epoch=0, first_seq=seq, entries=(batch_entry(event),))
        )
        if reply.verdict not in ("ok", "fenced"):
            raise LayerUnavailable(f"{stream}: the journal answered {reply.verdict}: {reply.detail}")
        return reply.verdict == "ok"
