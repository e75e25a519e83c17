"""Approvals: what waits for people, and their votes, each given with the credential of whoever votes."""

from __future__ import annotations

from typing import Any

import msgspec

from airside.actors.api.call import Call, look
from airside.actors.api.messages import (
    ApprovalStanding,
    JointVote,
    Listing,
    VoteCounted,
    VotesCounted,
)
from airside.actors.api.problems import check
from airside.actors.api.runs import written
from airside.actors.rpc.methods import GIVE_JOINT_VOTE, GIVE_VOTE, PresentedJointVote, PresentedVote
from airside.stack.approvals.book import Approval
from airside.stack.errors import InvalidId, InvalidInput, VotesRefused
from airside.stack.ids import parse_approval
from airside.stack.operations.messages import VoteReply, refused_on
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


async def votes(call: Call) -> VotesCounted:
    """Approve or reject several calls by one vote, which counts on all of them, or on none.

    Each is weighed as a vote on it alone would be; where one would not count, the problem says on which and why, and no
    vote is put on record.  Whoever sends the same again is told what became of the first.
    """
    body: JointVote = call.body
    for each in body.approval_ids:
        _check_id(each)
    reply = await call.stack.ask(
        GIVE_JOINT_VOTE, PresentedJointVote(call.credential, body.approval_ids, body.verdict, body.note)
    )
    if not reply.ok:
        raise VotesRefused(reply.message, reason=reply.code or "invalid", refused=refused_on(reply))
    counted = zip(body.approval_ids, reply.outcomes, strict=True)
    return VotesCounted(votes=tuple(VoteCounted(approval_id=each, outcome=outcome) for each, outcome in counted))


def _check_id(text: str) -> None:
    try:
        parse_approval(text)
    except InvalidId:
        raise InvalidInput(f"approval_ids: {text!r:.80} is no id of an approval") from None


async def _give(call: Call, verdict: str, arguments: bytes = b"") -> VoteCounted:
    approval_id = call.path["approval_id"]
    reply = await _vote(call, approval_id, verdict, call.body.note, arguments)
    check("" if reply.ok else reply.code or "invalid", reply.message)
    return VoteCounted(approval_id=approval_id, outcome=reply.outcome)


async def _vote(call: Call, approval_id: str, verdict: Any, note: str, arguments: bytes) -> VoteReply:
    return await call.stack.ask(GIVE_VOTE, PresentedVote(call.credential, approval_id, verdict, arguments, note))
