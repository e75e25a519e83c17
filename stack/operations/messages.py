"""What travels between clients, Ingress, Driver, Approvals and runtimes, beyond the ports of a step."""

from __future__ import annotations

from typing import Literal

from airside.stack.approvals.book import Verdict
from airside.stack.approvals.joint import NotCounted
from airside.stack.ids import ApprovalId, PrincipalId, RunId, TenantId
from airside.stack.policy.kill_switches import SwitchScope
from airside.stack.reasons import ReasonCode
from airside.stack.scheduling.placement_events import RunStanding
from airside.stack.values import Count, EffectClass, Value


class Submission(Value, array_like=True):
    """What a client sends Ingress: a credential and a request (JSON, so that its bounds are checked on arrival).

    `nonce` is the client's, random: the same submission sent again, whose answer got lost, is the same run.  Where
    it is made of a key of somebody's (`is_keyed`), it may come with another request, which is then said.
    """

    credential: str
    request: bytes
    nonce: bytes
    is_keyed: bool = False


class Admit(Value, array_like=True):
    """What Ingress sends the Driver: an encoded identity with its proof, and the request as JSON."""

    identity: bytes
    proof: str
    request: bytes


class OfferRequest(Value, array_like=True):
    """Whoever holds a credential asks who that is and, `with_tools`, what may be called through the gateway."""

    credential: str
    with_tools: bool = False


class ServedTool(Value, array_like=True):
    """A tool as clients of the gateway are told of it; `parameters` is its JSON Schema."""

    name: str
    description: str
    parameters: bytes
    effect: EffectClass
    repeatable: bool


class ToolOffer(Value, array_like=True):
    """Who somebody is, and the tools there are for it; or a problem, with its code."""

    tenant: TenantId = TenantId("")
    principal: PrincipalId = PrincipalId("")
    tools: tuple[ServedTool, ...] = ()
    code: str = ""
    problem: str = ""


class Ticket(Value, array_like=True):
    """What became of a submission: a run, or a refusal; `is_anothers`: its key is that of a run of another request."""

    run_id: RunId = RunId("")
    reason_code: ReasonCode | None = None
    message: str = ""
    retry_after_s: float = 0.0
    is_anothers: bool = False


class Activation(Value, array_like=True):
    """A run for a runtime to take up: its events as JSON, the last of which is the `RunActivated` of this epoch."""

    run_id: RunId
    events: tuple[bytes, ...]
    epoch: int


class Delivery(Value, array_like=True):
    """An event from outside for a run, as JSON."""

    run_id: RunId
    event: bytes


class Report(Value, array_like=True):
    """What a runtime tells the Driver: a run ended (with its `RunEnded` as JSON), waits, works, or stopped early.

    `epoch` is that of the activation which says so: what an older one says of a run that is elsewhere counts no more.
    `number` grows with each report of a process: one that is sent again and comes late counts no more, either.
    """

    run_id: RunId
    tenant: TenantId
    epoch: int
    state: RunStanding
    ended: bytes = b""
    number: int = 0


class Vote(Value, array_like=True):
    """What Ingress sends Approvals: who (encoded identity and proof) says what about which approval."""

    identity: bytes
    proof: str
    approval_id: ApprovalId
    verdict: Verdict
    arguments: bytes = b""
    note: str = ""


class VoteReply(Value, array_like=True):
    """What became of a vote: `outcome` is the approval's after it (empty while it waits for more).

    `code` says why it does not count; after `unavailable` the same vote may be given again.
    """

    ok: bool
    outcome: str = ""
    code: str = ""
    message: str = ""


class JointVote(Value, array_like=True):
    """What Ingress sends Approvals: who (encoded identity and proof) says the same about each of several approvals."""

    identity: bytes
    proof: str
    approval_ids: tuple[ApprovalId, ...]
    verdict: Verdict
    note: str = ""


class JointVoteReply(Value, array_like=True):
    """What became of a joint vote: it counts on all, with the `outcomes` of each after it; or on none.

    `code` and `message` say why, and `refused` on which approvals it would not have counted.
    """

    ok: bool
    outcomes: tuple[str, ...] = ()
    code: str = ""
    message: str = ""
    refused: tuple[NotCounted, ...] = ()


def refused_on(reply: JointVoteReply) -> tuple[tuple[str, str, str], ...]:
    """Return on which approvals a joint vote would not have counted, as `VotesRefused` has it."""
    return tuple((each.approval_id, each.code, each.message) for each in reply.refused if each.approval_id)


class Order(Value, array_like=True):
    """An operator's order, sealed with the stack's key: `run`, `tenant` or `all` is to be killed or cancelled.

    `settle` says what became of a call in doubt (`target` is the run's id, or a key of it); `rollback` takes back what
    an ended run did; `resolve_spend` says what an attempt at a question to a model cost (`target` is its key; `tokens`
    None: as counted); `switch_off` and `switch_on` throw a kill switch of any scope; `batch` changes the batch that
    `target` names, by the `BatchChange` that `output` is.

    `tenant` is that of whose operator the order is, empty for those who run the stack.
    """

    action: Literal["kill", "cancel", "settle", "rollback", "resolve_spend", "switch_off", "switch_on", "batch"]
    scope: SwitchScope
    target: str
    by: str
    why: str
    at_us: int
    happened: bool = False
    output: bytes = b"null"
    until_us: int = 0
    tokens: Count | None = None
    cost_microusd: Count = 0
    tenant: str = ""


ORDER_PURPOSE = "order"
"""What an operator's order is sealed for: the driver and the gate open it."""
