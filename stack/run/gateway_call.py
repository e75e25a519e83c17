"""A call that somebody outside makes through the gateway: a run of one call, and what its record says became of it.

The request's inputs are the call, `{"tool": NAME, "arguments": {...}}`.  Whose word they are is for ingress to say,
which labels the request `untrusted` unless the directory vouches for who makes it (`Principal.gateway`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

from airside.stack.errors import InvalidInput
from airside.stack.ids import PrincipalId, RunId, TenantId
from airside.stack.reasons import ReasonCode, RunStatus
from airside.stack.run import events as ev
from airside.stack.run.agents import Decided, View
from airside.stack.run.machine import RunMachine
from airside.stack.values import FREE, Action, Finish, Value, decode_json

GATEWAY = "gateway"
"""The route of such runs, and the agent that proposes their call."""

MAX_KEY_CHARS = 256
"""A client's idempotency key: longer than any UUID with a prefix."""


class GatewayCall(Value):
    """What a client calls."""

    tool: str
    arguments: dict[str, Any] = {}


def read_call(inputs: bytes | msgspec.Raw) -> GatewayCall:
    """Return the call of a request's inputs; raise `InvalidInput` for inputs that are none."""
    call: GatewayCall = decode_json(inputs, GatewayCall, where="inputs of a call through the gateway")
    return call


class GatewayAgent:
    """Proposes the call of its request, once, and ends when it has a result, whatever that is."""

    waits = False
    price = FREE

    def decide(self, view: View) -> Decided:
        """Return the call, or the end."""
        if view.own_history():
            return Finish(answer=None)
        call = read_call(view.request.inputs)
        return Action(tool=call.tool, arguments=call.arguments)


_IDLE = (ev.RunActivated, ev.RunSuspended)
"""What is no news of the call: a run that waits is put down, and taken up again."""

Phase = Literal["working", "waiting", "done", "refused", "cancelled"]
"""`waiting` = for people; `refused` = there is no result of a tool, and there will be none."""


class CallStanding(Value):
    """How a call stands: whose it is, and what became of it.

    `output` is what the tool returned, of a call that is done; otherwise `reason_code` and `message` say why not.
    `changed_to` are other arguments than were asked for, which a person chose.
    """

    run_id: RunId
    tenant: TenantId
    principal: PrincipalId
    call: GatewayCall
    phase: Phase
    created_us: int
    updated_us: int
    output: Any = None
    reason_code: ReasonCode = ReasonCode.COMPLETED
    message: str = ""
    changed_to: dict[str, Any] | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen."""
        return self.phase in ("done", "refused", "cancelled")

    def is_of(self, tenant: str, principal: str) -> bool:
        """Whether somebody made it; nobody else is told of it, no auditor either: their way is the journal."""
        return (self.tenant, self.principal) == (tenant, principal)


def standing_of(bodies: Iterable[str]) -> CallStanding:
    """Return how the call of a run on record stands; raise `InvalidInput` for one that is no call of the gateway's."""
    events = [ev.decode_event(body) for body in bodies]
    first = events[0] if events else None
    if not isinstance(first, ev.RunSubmitted) or first.request.route != GATEWAY:
        raise InvalidInput("this is no call of the gateway's")
    call = read_call(first.request.inputs)
    standing = CallStanding(
        run_id=first.run_id,
        tenant=first.identity.tenant,
        principal=first.identity.principal,
        call=call,
        phase="waiting" if _waits(events) else "working",
        created_us=first.at_us,
        updated_us=events[-1].at_us,
    )
    end = next((event.outcome for event in reversed(events) if isinstance(event, ev.RunEnded)), None)
    if end is None:
        return standing
    history = RunMachine.replay(events).state.history
    result = history[-1].result if history and end.status == RunStatus.COMPLETED else None
    if result is not None and result.ok:
        sent = history[-1].arguments
        changed = sent if _was_edited(events) else None
        return msgspec.structs.replace(standing, phase="done", output=result.value(), changed_to=changed)
    reason, message = (result.reason_code, result.error) if result is not None else (end.reason_code, end.detail)
    phase: Phase = "cancelled" if end.status == RunStatus.CANCELLED else "refused"
    message = message or reason.sentence
    return msgspec.structs.replace(standing, phase=phase, reason_code=reason, message=message)


def _waits(events: Sequence[ev.Event]) -> bool:
    """Whether people are to say something: whether it may be, or what became of it."""
    last = next((each for each in reversed(events) if not isinstance(each, _IDLE)), None)
    if isinstance(last, ev.ActionGated):
        return last.decision.outcome == "require_approval"
    return isinstance(last, ev.ExecutionLost) and last.started


def _was_edited(events: Iterable[ev.Event]) -> bool:
    return any(isinstance(each, ev.ApprovalDecided) and each.outcome == "edited" for each in events)
