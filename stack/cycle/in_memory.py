"""The ports, in one process: for tests, the simulator, and trying an app out without a cluster.

They keep the same contracts as the layers behind the actors: one suite, `tests/contract/test_contracts.py`, runs over
both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from airside.stack.approvals.book import (
    Approval,
    ApprovalBook,
    ApprovalEvent,
    ApprovalVoted,
    Question,
    receipt_for,
    seal_approval,
)
from airside.stack.contracts.budget import SpendReply, SpendRequest
from airside.stack.contracts.gate import GateReply, GateRequest
from airside.stack.ids import RunId, TenantId
from airside.stack.journal.journaling import (
    Append,
    AppendReply,
    AppendTogether,
    Entry,
    Head,
    admit_together,
    appends_of,
)
from airside.stack.policy.gate import Gate
from airside.stack.policy.lookups import Lookups, open_request, seal_reply
from airside.stack.resources import Key, ResolveReply, Resource
from airside.stack.run.events import ApprovalDecided
from airside.stack.values import NULL


class InMemoryJournal:
    """A journal in memory."""

    def __init__(self) -> None:
        self.streams: dict[str, list[Entry]] = {}
        self._heads: dict[str, Head] = {}

    async def append(self, append: Append) -> AppendReply:
        """Keep the entries the stream does not have yet."""
        return self.append_now(append)

    async def append_together(self, write: AppendTogether) -> AppendReply:
        """Keep the entries of several streams, all or none."""
        return self.append_now(write)

    def append_now(self, write: Append | AppendTogether) -> AppendReply:
        """Keep the entries, without a coroutine."""
        appends = appends_of(write)
        reply, entries, heads = admit_together(appends, lambda name: self._heads.get(name, Head()), self._stored)
        self._heads.update(heads)
        for append, fresh in zip(appends, entries, strict=True):
            if fresh:
                self.streams.setdefault(append.stream, []).extend(fresh)
        return reply

    def _stored(self, stream: str, first: int, count: int) -> list[bytes]:
        return self.bodies_of(stream)[first : first + count]

    def bodies_of(self, stream: str) -> list[bytes]:
        """Return a stream's events as JSON, oldest first, without a coroutine."""
        return [entry.body for entry in self.streams.get(stream, [])]

    async def bodies(self, streams: Sequence[str]) -> dict[str, list[str]]:
        """Return the events of streams, oldest first."""
        return {stream: [body.decode() for body in self.bodies_of(stream)] for stream in streams}

    async def unfinished_below(self, run_id: RunId) -> list[RunId]:
        """Return the branches that have not ended."""
        return [RunId(s) for s in self.streams if s.startswith(f"{run_id}.") and not self._heads[s].ended]


class InMemoryPolicy:
    """The gate, called directly; without `lookups` no resource is known."""

    def __init__(self, gate: Gate, lookups: Lookups | None = None) -> None:
        self._gate = gate
        self._lookups = lookups

    async def decide(self, request: GateRequest) -> GateReply:
        """Decide about one call."""
        wanted = None if self._lookups is None else self._gate.needed_resources(request)
        if self._lookups is None or wanted is None:
            return self._gate.decide(request)
        return self._gate.decide(request, await self._lookups.answers(wanted))

    async def spend(self, request: SpendRequest) -> SpendReply:
        """Reserve what a decision can cost."""
        return self._gate.spend(request)


class InMemoryResolvers:
    """Resources in a table, by tenant, kind and id: what is not there is unknown."""

    def __init__(self, seal_key: bytes, now_us: Callable[[], int], issuer: str = "") -> None:
        self.known: dict[tuple[TenantId, Key], Resource] = {}
        self._key = seal_key
        self._now_us = now_us
        self._issuer = issuer

    async def resolve(self, run_id: RunId, request: bytes) -> bytes:
        """Answer a question of the gate's."""
        return seal_reply(self._key, request, self._reply(request))

    def _reply(self, request: bytes) -> ResolveReply:
        asked = open_request(self._key, request)
        if asked is None or asked.issuer != self._issuer or asked.expires_us <= self._now_us():
            return ResolveReply(state="failed", detail="not a question of the present gate's")
        resource = self.known.get((asked.tenant, (asked.kind, asked.id)))
        return ResolveReply(state="found" if resource else "unknown", resource=resource)


class InMemoryApprovals:
    """An approval book in memory."""

    def __init__(self, seal_key: bytes, now_us: Callable[[], int]) -> None:
        self.book = ApprovalBook()
        self._key = seal_key
        self._now_us = now_us

    async def request(self, question: Question) -> ApprovalDecided | None:
        """Register what is new in a question and return the decision about the call asked for if there is one."""
        for event in self.book.register(question, now_us=self._now_us()):
            self.book.apply(event)
        approval = self.book.get(question.asked.approval_id)
        assert approval is not None
        return decision_of(approval, self._key, self._now_us())

    def apply(self, event: ApprovalEvent) -> ApprovalDecided | None:
        """Take in a vote or an expiry and return the decision it makes."""
        return decision_of(self.book.apply(event), self._key, self._now_us())


def _deciding(approval: Approval) -> tuple[ApprovalVoted, ...]:
    """Return the votes that decided: who rejects or edits does so alone, and what expired nobody decided."""
    if approval.outcome == "expired":
        return ()
    return approval.votes if approval.outcome == "approved" else approval.votes[-1:]


def decision_of(approval: Approval, key: bytes, now_us: int) -> ApprovalDecided | None:
    """Return the event a run is told of a decided approval, with its sealed receipt; None while it waits."""
    if not approval.outcome:
        return None
    edit = approval.votes[-1] if approval.outcome == "edited" else None
    said = _deciding(approval)
    granted = approval.outcome in ("approved", "edited", "answered")
    return ApprovalDecided(
        at_us=now_us,
        step=approval.request.step,
        approval_id=approval.request.approval_id,
        outcome=approval.outcome,
        by=tuple(vote.by for vote in said),
        arguments=edit.arguments if edit else NULL,
        receipt=seal_approval(key, receipt_for(approval)) if granted else "",
        note="; ".join(vote.note for vote in said if vote.note),
        apart=approval.outcome == "rejected",
    )
