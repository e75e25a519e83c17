"""Approvals: the book of what waits for people, durable in the journal, its decisions delivered until taken in."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from airside.actors.layer import Layer, control, logger, now_us
from airside.actors.stubs import Remote, RemoteJournal, encode, encode_json
from airside.stack.approvals import (
    Approval,
    ApprovalBook,
    ApprovalEvent,
    ApprovalExpired,
    ApprovalRequested,
    VoteRefused,
    decode_approval_event,
)
from airside.stack.errors import AirsideError, LayerUnavailable
from airside.stack.events import ApprovalDecided, encode_event
from airside.stack.identity import IdentityChecker, vote_subject
from airside.stack.ids import ApprovalId, RunId, TenantId
from airside.stack.journaling import Append, Entry
from airside.stack.local import decision_of
from airside.stack.messages import Delivery, Vote, VoteReply

EXPIRY_CHECK_S = 0.25


class Approvals(Layer):
    """One command at a time: an event is durable before the book takes it in, so two approvers cannot both win."""

    async def start(self) -> None:
        """Rebuild the book from the journal."""
        self._journal = RemoteJournal(self.config.settings)
        self._driver = Remote(self.config.settings, "driver")
        self._identities = IdentityChecker(self.config.seal_key)
        self._request = msgspec.json.Decoder(ApprovalRequested).decode
        self._vote = msgspec.msgpack.Decoder(Vote).decode
        self._writing = asyncio.Lock()
        rows = await self._journal.remote.insist("rows", "approvals")
        events = [decode_approval_event(row[0]) for row in rows]
        self._book = ApprovalBook(events)
        self._lengths: dict[ApprovalId, int] = {}
        for event in events:
            self._lengths[event.approval_id] = self._lengths.get(event.approval_id, 0) + 1
        self._deliveries = {asyncio.ensure_future(self._deliver(a)) for a in self._book.decided()}
        self._expiring = asyncio.ensure_future(self.forever(self._expire()))

    async def request(self, batch: list[bytes]) -> list[bytes]:
        """Register approvals durably; answer the decision of those that have one, else nil."""
        await self.ready()

        async def one(item: bytes) -> bytes:
            wanted = self._request(item)
            async with self._writing:
                approval = self._book.get(wanted.approval_id) or await self._append(wanted)
            return encode_json(decision_of(approval, self.config.seal_key, now_us()))

        return await self.answer_each(batch, one)

    async def vote(self, batch: list[bytes]) -> list[bytes]:
        """Count votes, or say why they do not count."""
        await self.ready()

        async def one(item: bytes) -> bytes:
            try:
                return encode(await self._count(self._vote(item)))
            except AirsideError as error:
                return encode(VoteReply(ok=False, code="invalid", message=error.message))

        return await self.answer_each(batch, one)

    async def _count(self, vote: Vote) -> VoteReply:
        subject = vote_subject(vote.approval_id, vote.verdict, vote.arguments)
        who = self._identities.check(vote.identity, vote.proof, subject)
        if who is None:
            return VoteReply(ok=False, code="unknown", message="the identity's seal does not hold")
        async with self._writing:
            event = self._book.vote(
                who,
                vote.approval_id,
                vote.verdict,
                now_us=now_us(),
                arguments=msgspec.Raw(vote.arguments),
                note=vote.note,
            )
            if isinstance(event, VoteRefused):
                return VoteReply(ok=False, code=event.code, message=event.message)
            approval = await self._append(event)
        self._after(approval)
        return VoteReply(ok=True, outcome=approval.outcome)

    async def pending(self, tenant: TenantId | None = None) -> list[bytes]:
        """Return what waits (of one tenant, or of all), oldest first, as JSON."""
        await self.ready()
        return [msgspec.json.encode(approval) for approval in self._book.pending(tenant)]

    async def withdraw(self, run_id: RunId) -> int:
        """Expire what a run that has ended still waits for; return how many."""
        await self.ready()
        waiting = [a for a in self._book.pending() if a.request.run_id.partition(".")[0] == run_id]
        async with self._writing:
            for approval in waiting:
                await self._append(ApprovalExpired(at_us=now_us(), approval_id=approval.request.approval_id))
        return len(waiting)

    async def _append(self, event: ApprovalEvent) -> Approval:
        """Make an event durable, then let the book take it in."""
        known = self._book.get(event.approval_id)
        tenant = event.tenant if isinstance(event, ApprovalRequested) else known.request.tenant if known else None
        assert tenant is not None
        seq = self._lengths.get(event.approval_id, 0)
        entry = Entry(type=type(event).__name__, step=0, at_us=event.at_us, cause=-1, body=msgspec.json.encode(event))
        reply = await self._journal.append(
            Append(tenant=tenant, stream=event.approval_id, epoch=0, first_seq=seq, entries=(entry,))
        )
        if reply.verdict != "ok":
            raise LayerUnavailable(f"journal: {reply.verdict} for {event.approval_id}")
        self._lengths[event.approval_id] = seq + 1
        return self._book.apply(event)

    def _after(self, approval: Approval) -> None:
        if approval.outcome:
            task = asyncio.ensure_future(self._deliver(approval))
            self._deliveries.add(task)
            task.add_done_callback(self._deliveries.discard)

    async def _deliver(self, approval: Approval) -> None:
        """Tell the run, through the Driver, until the Driver has taken it."""
        decided: ApprovalDecided | None = decision_of(approval, self.config.seal_key, now_us())
        assert decided is not None
        delivery = encode(Delivery(run_id=approval.request.run_id, event=encode_event(decided)))
        while True:
            try:
                await self._driver.insist("deliver", [delivery])
                return
            except LayerUnavailable:
                logger.warning("the driver does not answer", extra={"action": "approval_undelivered"})

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(EXPIRY_CHECK_S)
            try:
                async with self._writing:
                    for event in self._book.due(now_us()):
                        self._after(await self._append(event))
            except LayerUnavailable:
                logger.warning("expiries wait for the journal", extra={"action": "expiry_waits"})

    async def stats(self) -> dict[str, Any]:
        """Return how many wait and how many decisions are being delivered."""
        if not self._started:
            return {}
        return {"pending": len(self._book.pending()), "undelivered": len(self._deliveries)}


control(Approvals.stats)
