"""Notices of approvals: what whoever must look at one is told, when it begins to wait and when it is decided.

A notice is derived from the approval alone, and so is its id: told again after a crash, it is the same notice.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from airside.stack.approvals.book import Approval, ApprovalRequested, ApprovalVoted
from airside.stack.canonical import canonical, digest
from airside.stack.values import Value


class Notification(Value):
    """That a call waits for people (`approval.requested`) or that they decided (`approval.decided`)."""

    id: str
    type: Literal["approval.requested", "approval.decided"]
    at_us: int
    data: dict[str, Any]

    def message(self) -> dict[str, Any]:
        """Return it as the `type`, `timestamp` and `data` of a Standard Webhooks payload."""
        told = datetime.fromtimestamp(self.at_us / 1e6, tz=UTC).isoformat(timespec="milliseconds")
        return {"type": self.type, "timestamp": told.replace("+00:00", "Z"), "data": self.data}

    def body(self) -> bytes:
        """Return it as the bytes that are signed and sent."""
        return canonical(self.message())


def notices_of(approvals: Iterable[Approval]) -> list[Notification]:
    """Return what there is to say of approvals as they stand.

    That calls wait which are asked about in one question is one notice; what was decided about each is one of its own.
    """
    questions: dict[str, list[Approval]] = {}
    for each in approvals:
        alone = not each.request.group or bool(each.outcome)
        questions.setdefault(each.request.approval_id if alone else each.request.group, []).append(each)
    return [notification_of(*together) for together in questions.values()]


def notification_of(approval: Approval, *beside: Approval) -> Notification:
    """Return what there is to say of an approval, or of all those of one question, as it stands and since when."""
    asked = approval.request
    kind: Literal["approval.requested", "approval.decided"]
    kind = "approval.decided" if approval.outcome else "approval.requested"
    data: dict[str, Any] = {
        "tenant": asked.tenant,
        "run_id": asked.run_id,
        "tool": asked.tool,
        "effect": asked.effect,
        **_call(asked),
        "requester": asked.requester,
        "request": asked.request_text,
        "rule": asked.rule,
        "roles": list(asked.terms.roles),
        "quorum": asked.terms.quorum,
        "expires_us": asked.expires_us,
    }
    if asked.terms.answer:
        data["is_question"] = True
    if asked.rejected_before:
        data["rejected_before"] = asked.rejected_before
    if asked.group:
        data["group"] = asked.group
    if asked.group and not approval.outcome:
        data["calls"] = [_call(each.request) for each in (approval, *beside)]
    if approval.outcome:
        data["outcome"] = approval.outcome
        data["votes"] = [_vote_fields(vote) for vote in approval.votes]
    # A dot would be ambiguous in what is signed, and an approval of a branch has one.
    about = asked.approval_id if approval.outcome else asked.group or asked.approval_id
    notice_id = "msg_" + digest(f"{about}|{kind}".encode())[:32]
    return Notification(id=notice_id, type=kind, at_us=approval.since_us, data=data)


def _call(asked: ApprovalRequested) -> dict[str, Any]:
    """Return what a person must see of one call."""
    return {
        "approval_id": asked.approval_id,
        "step": asked.step,
        "arguments": msgspec.json.decode(asked.arguments),
        "origins": [_plain(each) for each in asked.origins],
        "resources": [_plain(each) for each in asked.resources],
    }


def _plain(value: Value) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(value)
    return plain


def _vote_fields(vote: ApprovalVoted) -> dict[str, Any]:
    arguments = msgspec.json.decode(vote.arguments)
    return {"by": vote.by, "verdict": vote.verdict, "note": vote.note, "arguments": arguments}
