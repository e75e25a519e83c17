"""Approvals: the book of what waits for people, durable in the journal, its decisions delivered until taken in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec

from airside.actors.approvals.notifier import GIVEN_UP_S, Notifier, OnApproval
from airside.actors.rpc.layer import LayerConfig, control, logger, now_us, steady_us
from airside.actors.rpc.methods import ASKED, CHECK, DELIVER, PENDING, REQUEST_APPROVAL, VOTE, VOTE_JOINTLY, WITHDRAW
from airside.actors.rpc.remote import Remote
from airside.actors.rpc.serving import serves
from airside.actors.rpc.stubs import RemoteJournal
from airside.actors.wardens.watched import WatchedLayer
from airside.stack.approvals.book import (
    Approval,
    ApprovalBook,
    ApprovalEvent,
    ApprovalExpired,
    ApprovalVoted,
    Question,
    VoteRefused,
    decode_approval_event,
)
from airside.stack.approvals.joint import Weighed, in_words, weigh
from airside.stack.approvals.notifications import notices_of
from airside.stack.contracts.gate import Proposed
from airside.stack.cycle.in_memory import decision_of
from airside.stack.errors import AirsideError, ItemFailed, LayerUnavailable
from airside.stack.ids import ApprovalId, GroupId, RunId, TenantId, root_of
from airside.stack.journal.journaling import AppendTogether
from airside.stack.journal.stream import Stream, append_of
from airside.stack.operations.messages import Delivery, JointVote, JointVoteReply, Vote, VoteReply
from airside.stack.run.events import ApprovalDecided, encode_event
from airside.stack.security.identity import IdentityChecker, joint_vote_subject, vote_subject
from airside.stack.values import Identity

EXPIRY_CHECK_S = 0.25

CHECK_S = 10.0
"""How long an edit waits for Policy to look at it: longer than Policy takes to be restarted, and a person waits."""


def _not_counted(_: object, why: str) -> VoteReply:
    return VoteReply(ok=False, code="unavailable", message=f"it is not known to have been counted: {why}")


def _none_counted(_: object, why: str) -> JointVoteReply:
    return JointVoteReply(ok=False, code="unavailable", message=f"they are not known to have been counted: {why}")


class _Turn:
    """Whose turn it is to change a run's approvals; `users` have it or wait for it."""

    __slots__ = ("lock", "users")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0


class Approvals(WatchedLayer):
    """One command at a time for each run: an event is durable before the book takes it in, so two approvers cannot both
    win.  Nobody waits for another run's, but whoever votes on approvals of several at once.
    """

    def __init__(self, config: LayerConfig, webhook_secret: str = "", on_approval: OnApproval | None = None) -> None:
        super().__init__(config)
        self._webhook_secret = webhook_secret
        self._on_approval = on_approval

    async def start(self) -> None:
        """Rebuild the book from the journal, and announce again what waits or was decided just before."""
        self._journal = RemoteJournal(self.config.cell)
        self._driver = Remote(self.config.cell, "driver")
        self._policy = Remote(self.config.cell, "policy")
        self._identities = IdentityChecker(self.config.seal_key)
        self._turns: dict[RunId, _Turn] = {}
        rows = await self._journal.rows("approvals")
        events = [decode_approval_event(row[0]) for row in rows]
        self._book = ApprovalBook(events)
        self._lengths: dict[ApprovalId, int] = {}
        for event in events:
            self._lengths[event.approval_id] = self._lengths.get(event.approval_id, 0) + 1
        self._notifier = Notifier(self.config.settings.webhook_target(), self._webhook_secret, self._on_approval)
        if self._notifier.is_wanted:
            await self._notify_again()
        self._deliveries: set[asyncio.Task[None]] = set()
        for approval in self._book.decided():
            self._after(approval)
        self._expiring = asyncio.ensure_future(self.forever(self._expire()))

    async def _notify_again(self) -> None:
        """Announce what waits, and what was decided so lately that its notice may not have arrived."""
        since_us = now_us() - int(GIVEN_UP_S * 1_000_000)
        rows = await self._journal.rows("decided_since", since_us)
        lately = ApprovalBook(decode_approval_event(row[0]) for row in rows)
        self._notify(*self._book.pending(), *lately.decided())

    def _notify(self, *approvals: Approval) -> None:
        """Tell of approvals as they stand; of the calls in one question, once."""
        if self._notifier.is_wanted:
            for notice in notices_of(approvals):
                self._notifier.notify(notice)

    @serves(REQUEST_APPROVAL)
    async def request(self, question: Question) -> ApprovalDecided | None:
        """Register what is new in a question durably; answer the decision about its call if there is one, else nil."""
        async with self._alone(question.asked.run_id):
            await self._register(question.asked.tenant, self._book.register(question, now_us=steady_us()))
        approval = self._book.get(question.asked.approval_id)
        assert approval is not None
        return decision_of(approval, self.config.seal_key, steady_us())

    async def _register(self, tenant: TenantId, events: list[ApprovalEvent]) -> None:
        """Make events durable, then let the book take all of them in: nobody sees a part of a question."""
        written: list[ApprovalEvent] = []
        try:
            for event in events:
                await self._write(tenant, event)
                written.append(event)
        finally:
            taken = {event.approval_id: self._book.apply(event) for event in written}
            self._notify(*taken.values())

    @serves(VOTE, unreadable=_not_counted, failed=_not_counted)
    async def vote(self, vote: Vote) -> VoteReply:
        """Count a vote, or say why it does not count."""
        try:
            return await self._count(vote)
        except LayerUnavailable as error:
            return VoteReply(ok=False, code="unavailable", message=f"{error.message}: vote again")
        except AirsideError as error:
            return VoteReply(ok=False, code="invalid", message=error.message)

    async def _count(self, vote: Vote) -> VoteReply:
        subject = vote_subject(vote.approval_id, vote.verdict, vote.arguments)
        who = self._identities.check(vote.identity, vote.proof, subject)
        if who is None:
            return VoteReply(ok=False, code="unknown", message="the identity's seal does not hold")
        objection = await self._invalid_edit(who, vote)
        if objection is not None:
            return objection
        known = self._book.get(vote.approval_id)
        async with self._alone(known.request.run_id if known is not None else RunId("")):
            event = self._validate_vote(who, vote)
            if isinstance(event, VoteRefused):
                return VoteReply(ok=False, code=event.code, message=event.message)
            approval = await self._append(event)
        self._after(approval)
        return VoteReply(ok=True, outcome=approval.outcome)

    @serves(VOTE_JOINTLY, unreadable=_none_counted, failed=_none_counted)
    async def vote_jointly(self, vote: JointVote) -> JointVoteReply:
        """Count one verdict on several approvals, each of them or none, or say which of them refuse it and why."""
        try:
            return await self._count_jointly(vote)
        except LayerUnavailable as error:
            return JointVoteReply(ok=False, code="unavailable", message=f"{error.message}: vote again")
        except AirsideError as error:
            return JointVoteReply(ok=False, code="invalid", message=error.message)

    async def _count_jointly(self, vote: JointVote) -> JointVoteReply:
        subject = joint_vote_subject(vote.approval_ids, vote.verdict)
        who = self._identities.check(vote.identity, vote.proof, subject)
        if who is None:
            return JointVoteReply(ok=False, code="unknown", message="the identity's seal does not hold")
        weighed = self._weigh(who, vote)
        if not weighed.refused:  # so that each is known, and whose turns are waited for, too
            weighed = await self._counted_together(who, vote)
        if weighed.refused:
            first, message = weighed.refused[0], in_words(weighed.refused)
            return JointVoteReply(ok=False, code=first.code, message=message, refused=weighed.refused)
        return JointVoteReply(ok=True, outcomes=tuple(each.outcome for each in self._named(vote.approval_ids)))

    def _weigh(self, who: Identity, vote: JointVote) -> Weighed:
        return weigh(self._book, who, vote.approval_ids, vote.verdict, now_us=steady_us(), note=vote.note)

    def _named(self, approval_ids: Iterable[ApprovalId]) -> list[Approval]:
        return [approval for each in approval_ids if (approval := self._book.get(each)) is not None]

    async def _counted_together(self, who: Identity, vote: JointVote) -> Weighed:
        """Weigh known approvals when it is their turn, and make the votes durable in one append."""
        async with AsyncExitStack() as turns:
            # In one order for everybody, so that no two joint votes wait for each other.
            for root in sorted({root_of(each.request.run_id) for each in self._named(vote.approval_ids)}):
                await turns.enter_async_context(self._alone(root))
            weighed = self._weigh(who, vote)
            if weighed.votes and not await self._append_together(weighed.votes):
                weighed = self._weigh(who, vote)  # by what the journal has: this very vote, or somebody else's
                if weighed.votes:
                    raise LayerUnavailable("the journal had more of these approvals than was known")
        return weighed

    async def _append_together(self, votes: Sequence[ApprovalVoted]) -> bool:
        """Make votes durable in one append, then let the book take in all; False if the journal has others there."""
        before = self._named(each.approval_id for each in votes)
        appends = [
            append_of(known.request.tenant, each.approval_id, [each], first_seq=self._lengths.get(each.approval_id, 0))
            for known, each in zip(before, votes, strict=True)
        ]
        reply = await self._journal.append_together(AppendTogether(appends=tuple(appends)))
        if reply.verdict == "error":
            raise ItemFailed(f"journal: {reply.detail}")
        if reply.verdict != "ok":
            await self._read_again(*(each.approval_id for each in votes))
            return False
        for each in votes:
            self._lengths[each.approval_id] += 1
        decided = [approval for approval in map(self._book.apply, votes) if approval.outcome]
        self._notify(*decided)
        for approval in decided:
            self._after(approval)
        return True

    def _validate_vote(self, who: Identity, vote: Vote) -> ApprovalVoted | VoteRefused:
        arguments = msgspec.Raw(vote.arguments)
        return self._book.vote(
            who, vote.approval_id, vote.verdict, now_us=steady_us(), arguments=arguments, note=vote.note
        )

    async def _invalid_edit(self, who: Identity, vote: Vote) -> VoteReply | None:
        """Return why an edit cannot count: Policy says whether the tool could take the arguments at all.

        The approval waits on: a slip in an edit ends no run.  Nobody else waits for Policy's answer meanwhile.
        """
        if vote.verdict != "edit" or isinstance(self._validate_vote(who, vote), VoteRefused):
            return None  # who may not vote is told so where votes are counted
        approval = self._book.get(vote.approval_id)
        assert approval is not None
        try:
            async with asyncio.timeout(CHECK_S):
                problem = await self._policy.call(CHECK, Proposed(tool=approval.request.tool, arguments=vote.arguments))
        except (LayerUnavailable, TimeoutError):
            message = "policy does not answer, so nobody can say whether the tool takes these arguments: vote again"
            return VoteReply(ok=False, code="unavailable", message=message)
        return VoteReply(ok=False, code="invalid", message=f"edited arguments: {problem}") if problem else None

    @serves(PENDING)
    def pending(self, tenant: str | None) -> list[bytes]:
        """Return what waits (of one tenant, or of all), oldest first, as JSON."""
        waiting = self._book.pending(None if tenant is None else TenantId(tenant))
        return [msgspec.json.encode(approval) for approval in waiting]

    @serves(ASKED)
    def asked(self, name: str) -> list[bytes]:
        """Return what waits under the id of an approval or of a question, as JSON."""
        one = self._book.get(ApprovalId(name))
        named = self._book.group(GroupId(name)) if one is None else [one]
        return [msgspec.json.encode(approval) for approval in named if not approval.outcome]

    @serves(WITHDRAW)
    async def withdraw(self, run_id: str) -> int:
        """Expire what a run that has ended still waits for; return how many."""
        root = RunId(run_id)
        async with self._alone(root):
            waiting = self._book.waiting_of(root)
            for approval in waiting:
                await self._append(ApprovalExpired(at_us=steady_us(), approval_id=approval.request.approval_id))
            for approval_id in self._book.run_ended(root):
                self._lengths.pop(approval_id, None)
        return len(waiting)

    @asynccontextmanager
    async def _alone(self, run_id: RunId) -> AsyncIterator[None]:
        """Let nobody else change the approvals of a run and its branches: what is weighed holds until it is durable."""
        root = root_of(run_id)
        turn = self._turns.setdefault(root, _Turn())
        turn.users += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.users -= 1
            if not turn.users:
                del self._turns[root]

    async def _append(self, event: ApprovalVoted | ApprovalExpired) -> Approval:
        """Make what happened to a known approval durable, then let the book take it in."""
        known = self._book.get(event.approval_id)
        assert known is not None
        await self._write(known.request.tenant, event)
        approval = self._book.apply(event)
        if approval.outcome and not known.outcome:
            self._notify(approval)
        return approval

    async def _write(self, tenant: TenantId, event: ApprovalEvent) -> None:
        approval_id = event.approval_id
        stream = Stream(self._journal, tenant, approval_id, length=self._lengths.get(approval_id, 0))
        reply = await stream.append(event)
        if reply.verdict == "error":
            raise ItemFailed(f"journal: {approval_id}: {reply.detail}")
        if reply.verdict != "ok":
            await self._read_again(approval_id)
            raise LayerUnavailable(f"journal: {reply.verdict} for {approval_id}")
        self._lengths[approval_id] = stream.length

    async def _read_again(self, *approval_ids: ApprovalId) -> None:
        """Take in what the journal has: an append whose answer never came, which was durable all the same."""
        streams = await self._journal.bodies(approval_ids)
        for approval_id in approval_ids:  # all in one turn: nobody sees a part of what was appended together
            self._book.forget(approval_id)
            self._lengths[approval_id] = len(streams[approval_id])
            for body in streams[approval_id]:
                self._book.apply(decode_approval_event(body))
        found = self._named(approval_ids)
        self._notify(*found)
        for approval in found:
            self._after(approval)

    def _after(self, approval: Approval) -> None:
        if approval.outcome:
            task = asyncio.ensure_future(self._deliver(approval))
            self._deliveries.add(task)
            task.add_done_callback(self._deliveries.discard)

    async def _deliver(self, approval: Approval) -> None:
        """Tell the run, through the Driver, until the Driver has taken it."""
        decided: ApprovalDecided | None = decision_of(approval, self.config.seal_key, steady_us())
        assert decided is not None
        delivery = Delivery(run_id=approval.request.run_id, event=encode_event(decided))
        while True:
            try:
                await self._driver.call(DELIVER, delivery)
                return
            except ItemFailed:
                logger.error("%s cannot be delivered", approval.request.approval_id, extra={"action": "undeliverable"})
                return
            except LayerUnavailable:
                logger.warning("the driver does not answer", extra={"action": "approval_undelivered"})

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(EXPIRY_CHECK_S)
            try:
                for event in self._book.due(steady_us()):
                    await self._end(event)
            except LayerUnavailable:
                logger.warning("expiries wait for the journal", extra={"action": "expiry_waits"})

    async def _end(self, event: ApprovalExpired) -> None:
        """Have an approval expire that was due, unless it was decided meanwhile."""
        due = self._book.get(event.approval_id)
        if due is not None:
            async with self._alone(due.request.run_id):
                approval = self._book.get(event.approval_id)
                if approval is not None and not approval.outcome:
                    self._after(await self._append(event))

    async def stats(self) -> dict[str, Any]:
        """Return how many wait and how many decisions are being delivered."""
        if not self._started:
            return {}
        return {
            "pending": self._book.waiting,
            "undelivered": len(self._deliveries),
            "notices": self._notifier.stats(),
        }


control(Approvals.stats)
