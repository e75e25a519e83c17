"""One request as its page sees it: who it is, what was sent, and the ways to ask the stack as that person."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from airside.actors.api.call import Call, look, operate
from airside.actors.console.forms import Form
from airside.actors.console.sessions import Session
from airside.actors.rpc.methods import GIVE_JOINT_VOTE, GIVE_VOTE, PresentedJointVote, PresentedVote
from airside.stack.errors import Refused
from airside.stack.operations.messages import JointVoteReply, VoteReply
from airside.stack.operations.questions import Nothing
from airside.stack.values import Value

Kind = TypeVar("Kind")

EMPTY = Form([])
NOTHING = Nothing()


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """A request of somebody who is logged in; `is_part`: a page that is there asks for what has changed of it.

    `goes_on` says whether the session does.
    """

    call: Call
    session: Session
    path: Mapping[str, str]
    query: Form = EMPTY
    form: Form = EMPTY
    is_part: bool = False
    goes_on: Callable[[], bool] = lambda: True
    now_us: int = field(default_factory=lambda: time.time_ns() // 1000)

    def ago(self, seconds: float) -> datetime:
        """Return the time so long before this visit."""
        return datetime.fromtimestamp(self.now_us / 1e6 - seconds, UTC)

    def may(self, access: str) -> bool:
        """Whether the person may do a thing of the table of access; Ingress decides, this is for what is offered."""
        return access in self.session.who.may

    async def look(self, view: str, kind: type[Kind], asked: Value = NOTHING) -> Kind:
        """Return a view's answer as a type; raise `Refused` where there is none for this person."""
        return msgspec.json.decode(await look(self.call, view, asked), type=kind)

    async def look_if(self, view: str, kind: type[Kind], asked: Value = NOTHING) -> Kind | None:
        """Return a view's answer, None for whom that view is not: a page shows its other parts."""
        if not self.may(f"view:{view}"):
            return None
        try:
            return await self.look(view, kind, asked)
        except Refused as refusal:
            if refusal.reason in ("wrong_role", "auth_scope_missing"):
                return None
            raise

    async def operate(self, action: str, scope: str, target: str, why: str, **more: Any) -> tuple[int, bytes]:
        """Give an order; return how many runs or layers it reached, and its report."""
        reply = await operate(self.call, action, scope, target, why, **more)
        return reply.reached, reply.report

    async def vote(self, approval_id: str, verdict: str, note: str, arguments: bytes = b"") -> VoteReply:
        """Give a vote, and return what became of it."""
        given = PresentedVote(self.call.credential, approval_id, verdict, arguments, note)
        reply: VoteReply = await self.call.stack.ask(GIVE_VOTE, given)
        return reply

    async def vote_on_all(self, approval_ids: Sequence[str], verdict: str, note: str) -> JointVoteReply:
        """Give one vote on several approvals, which counts on all or on none, and return what became of it."""
        given = PresentedJointVote(self.call.credential, tuple(approval_ids), verdict, note)
        reply: JointVoteReply = await self.call.stack.ask(GIVE_JOINT_VOTE, given)
        return reply


@dataclass(frozen=True, slots=True)
class Shown:
    """A page: its template and what is in it; `part` is the template of what a page that is there asks for again."""

    template: str
    context: Mapping[str, Any]
    part: str = ""
    status: int = 200


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Where a browser goes on, after what it sent was done."""

    path: str
