"""Approvals: what waits for people, and their votes, each given with the credential of whoever votes."""

from __future__ import annotations

from typing import Any

import msgspec

from airside.actors.api.call import Call, look
from airside.actors.api.messages import (
    ApprovalStanding,
    Listing,
    OneVote,
    VoteCounted,
    VoteOutcome,
    VoteOutcomes,
    Votes,
)
from airside.actors.api.problems import check
from airside.actors.api.runs import written
from airside.actors.rpc.methods import GIVE_VOTE, PresentedVote
from airside.stack.approvals.book import Approval
from airside.stack.errors import InvalidInput
from airside.stack.ids import parse_approval
from airside.stack.operations.messages import VoteReply
from airside.stack.operations.questions import Approvals


async def approvals(call: Call) -> Listing[ApprovalStanding]:
    """List what waits for people, oldest first; or, by an id or a `group`, how that stands."""
    found = await _found(call, call.query)
    return Listing(items=[standing(each) for each in found.items], next=found.next)


async def approval(call: Call) -> ApprovalStanding:
    """Show one approval as it stands, each value of its call with where that comes from."""
    found = await _found(call, Approvals(approval_id=call.path["approval_id"]))
    return standing(found.items[0])


async def _found(call: Call, asked: Approvals) -> Listing[Approval]:
    return msgspec.json.decode(await look(call, "approvals", asked), type=Listing[Approval])


def standing(approval: Approval) -> ApprovalStanding:
    """Return an approval as it is shown."""
    asked = approval.request
    return ApprovalStanding(
        approval_id=asked.approval_id,
        tenant=asked.tenant,
        requester=asked.requester,
        run_id=asked.run_id,
        step=asked.step,
        tool=asked.tool,
        effect=asked.effect,
        arguments=msgspec.json.decode(asked.arguments),
        request=asked.request_text,
        rule=asked.rule,
        roles=asked.terms.roles,
        quorum=asked.terms.quorum,
        votes=len(approval.votes),
        asked_us=asked.at_us,
        expires_us=asked.expires_us,
        is_question=asked.terms.answer,
        outcome=approval.outcome,
        decided_us=approval.decided_us,
        origins=asked.origins,
        resources=asked.resources,
        rejected_before=asked.rejected_before,
        group=asked.group,
    )


async def approve(call: Call) -> VoteCounted:
    """Approve a call."""
    return await _give(call, "approve")


async def reject(call: Call) -> VoteCounted:
    """Reject a call, or a question."""
    return await _give(call, "reject")


async def edit(call: Call) -> VoteCounted:
    """Approve a call with other arguments: a new action, which is validated and gated again."""
    return await _give(call, "edit", written(call.body.arguments))


async def answer(call: Call) -> VoteCounted:
    """Answer a question of an agent's: by one of its choices, or by a text if it gives none."""
    return await _give(call, "answer", written(call.body.answer))


async def votes(call: Call) -> VoteOutcomes:
    """Give several votes, one after the other, and say of each what became of it.

    Votes are durable one by one, so they are not all or nothing: one may be refused (decided meanwhile, another role
    needed) beside others that count.  Whoever sends the same again votes no second time.
    """
    body: Votes = call.body
    ids = [parse_each(vote) for vote in body.votes]
    if len(set(ids)) != len(ids):
        raise InvalidInput("votes: an approval stands there twice")
    outcomes = []
    for vote in body.votes:
        reply = await _vote(call, vote.approval_id, vote.verdict, vote.note, b"")
        check("" if not reply.code.startswith("auth_") else reply.code, reply.message)
        outcomes.append(
            VoteOutcome(
                approval_id=vote.approval_id,
                counted=reply.ok,
                outcome=reply.outcome,
                reason_code=reply.code,
                detail=reply.message,
            )
        )
    return VoteOutcomes(votes=tuple(outcomes), all_counted=all(each.counted for each in outcomes))


def parse_each(vote: OneVote) -> str:
    """Return the id of one vote of several; raise `InvalidInput` for what is none, before any is given."""
    try:
        return parse_approval(vote.approval_id)
    except Exception:
        raise InvalidInput(f"votes: {vote.approval_id!r:.80} is no id of an approval") from None


async def _give(call: Call, verdict: str, arguments: bytes = b"") -> VoteCounted:
    approval_id = call.path["approval_id"]
    reply = await _vote(call, approval_id, verdict, call.body.note, arguments)
    check("" if reply.ok else reply.code or "invalid", reply.message)
    return VoteCounted(approval_id=approval_id, outcome=reply.outcome)


async def _vote(call: Call, approval_id: str, verdict: Any, note: str, arguments: bytes) -> VoteReply:
    return await call.stack.ask(GIVE_VOTE, PresentedVote(call.credential, approval_id, verdict, arguments, note))
