"""Joint votes: one person's verdict on several approvals, which counts on all of them or on none.

Each approval is weighed as a vote on it alone would be, at one moment; what any one of them refuses, refuses all.  The
votes carry the joint vote's name, made of its approvals and its verdict: whoever gives the same one again, because an
answer was lost, is told what became of the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec

from airside.stack.approvals.book import ApprovalBook, ApprovalVoted, Verdict, VoteRefused
from airside.stack.canonical import digest
from airside.stack.ids import ApprovalId
from airside.stack.values import Identity, Value

JointVerdict = Literal["approve", "reject"]
"""What may be said of several at once: an edit, or an answer, is of one."""

MAX_JOINT = 100
"""Approvals of one vote: more nobody weighs at one sitting, and for so long the runs of all of them wait for one
another's turn."""


class NotCounted(Value, array_like=True):
    """An approval on which a joint vote would not count, and why."""

    approval_id: ApprovalId
    code: str
    message: str


class Weighed(NamedTuple):
    """The votes to make durable together, none if they are already; or what refuses them."""

    votes: tuple[ApprovalVoted, ...] = ()
    refused: tuple[NotCounted, ...] = ()


def weigh(
    book: ApprovalBook,
    who: Identity,
    approval_ids: Sequence[ApprovalId],
    verdict: Verdict,
    *,
    now_us: int,
    note: str = "",
) -> Weighed:
    """Weigh a joint vote against a book, which it leaves as it is."""
    problem = _malformed(approval_ids, verdict)
    if problem:
        return Weighed(refused=(NotCounted(approval_id=ApprovalId(""), code="invalid", message=problem),))
    name = joint_name(approval_ids, verdict)
    if all(_is_given(book, who, each, name) for each in approval_ids):
        return Weighed()
    weighed = [(each, book.vote(who, each, verdict, now_us=now_us, note=note)) for each in approval_ids]
    refused = [
        NotCounted(approval_id=each, code=vote.code, message=vote.message)
        for each, vote in weighed
        if isinstance(vote, VoteRefused)
    ]
    if refused:
        return Weighed(refused=tuple(refused))
    votes = [vote for _, vote in weighed if isinstance(vote, ApprovalVoted)]
    return Weighed(votes=tuple(msgspec.structs.replace(vote, joint=name) for vote in votes))


def joint_name(approval_ids: Sequence[ApprovalId], verdict: str) -> str:
    """Return the name of a joint vote, whichever order its approvals are given in."""
    return digest("|".join((*sorted(approval_ids), verdict)).encode())


def _malformed(approval_ids: Sequence[ApprovalId], verdict: Verdict) -> str:
    if verdict not in ("approve", "reject"):
        return f"several are approved or rejected together; {verdict} them one by one"
    if not 0 < len(approval_ids) <= MAX_JOINT:
        return f"{len(approval_ids)} approvals: 1 to {MAX_JOINT} are voted on together"
    if len(set(approval_ids)) != len(approval_ids):
        return "an approval stands there twice"
    return ""


def _is_given(book: ApprovalBook, who: Identity, approval_id: ApprovalId, name: str) -> bool:
    """Whether somebody's vote on an approval is part of the joint vote of this name."""
    approval = book.get(approval_id)
    if approval is None or approval.request.tenant != who.tenant:
        return False
    return any(vote.by == who.principal and vote.joint == name for vote in approval.votes)


def in_words(refused: Sequence[NotCounted]) -> str:
    """Return which approvals refuse a joint vote, and why, to be shown whoever gave it; of many the first ones."""
    said = [f"{each.approval_id}: {each.message}" if each.approval_id else each.message for each in refused[:_SAID]]
    more = f"; and {len(refused) - _SAID} more" if len(refused) > _SAID else ""
    return f"no vote was counted: {'; '.join(said)}{more}"


_SAID = 5
