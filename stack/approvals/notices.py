"""Notices of approvals: what whoever must look at one is told, when it begins to wait and when it is decided.

A notice is derived from the approval alone, and so is its id: told again after a crash, it is the same notice.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from airside.stack.approvals.book import Approval, ApprovalVoted
from airside.stack.canonical import canonical, digest
from airside.stack.values import Value


class Notice(Value):
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


def notice_of(approval: Approval) -> Notice:
    """Return what there is to say of an approval as it stands, and since when it does."""
    asked = approval.request
    kind: Literal["approval.requested", "approval.decided"]
    kind = "approval.decided" if approval.outcome else "approval.requested"
    data: dict[str, Any] = {
        "approval_id": asked.approval_id,
        "tenant": asked.tenant,
        "run_id": asked.run_id,
        "step": asked.step,
        "tool": asked.tool,
        "effect": asked.effect,
        "arguments": msgspec.json.decode(asked.arguments),
        "origins": [_plain(each) for each in asked.origins],
        "resources": [_plain(each) for each in asked.resources],
        "requester": asked.requester,
        "request": asked.request_text,
        "rule": asked.rule,
        "roles": list(asked.terms.roles),
        "quorum": asked.terms.quorum,
        "expires_us": asked.expires_us,
    }
    if asked.rejected_before:
        data["rejected_before"] = asked.rejected_before
    if approval.outcome:
        data["outcome"] = approval.outcome
        data["votes"] = [_told(vote) for vote in approval.votes]
    # A dot would be ambiguous in what is signed, and an approval of a branch has one.
    notice_id = "msg_" + digest(f"{asked.approval_id}|{kind}".encode())[:32]
    return Notice(id=notice_id, type=kind, at_us=approval.since_us, data=data)


def _plain(value: Value) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(value)
    return plain


def _told(vote: ApprovalVoted) -> dict[str, Any]:
    arguments = msgspec.json.decode(vote.arguments)
    return {"by": vote.by, "verdict": vote.verdict, "note": vote.note, "arguments": arguments}
