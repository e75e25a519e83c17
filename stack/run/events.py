"""What happened to a run, in the past tense.  The journal is the list of these, and a run is their fold.

`at_us` is UTC microseconds.  `cause` is the number of the event (in the same run) whose handling asked for what
happened, so that `story()` can answer "why" from the log alone; -1 means that it came from outside the run.
`step` ties an event to the step it belongs to.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from airside.stack.ids import ApprovalId, EffectKey, ExecutorId, PrincipalId, RunId
from airside.stack.reasons import ReasonCode
from airside.stack.resources import ResourceFact
from airside.stack.run.topology import Done, Route
from airside.stack.values import (
    NULL,
    Action,
    Count,
    Decision,
    EffectClass,
    Finish,
    Handoff,
    Identity,
    Limits,
    Outcome,
    Request,
    Risk,
    Spend,
    ToolCall,
    ToolResult,
    Usage,
    Value,
    ValueOrigin,
)

OUTSIDE = -1


class Event(Value):
    """Base of all events."""

    at_us: int
    cause: int = OUTSIDE


class RunSubmitted(Event, tag=True):
    """Admitted: the request, who asked, and what it may use.  `sealed` is Ingress's proof of the identity.

    A branch's request is written by a topology; `asked` is then what the principal asked, the request of its root, and
    `shown` are the records of memory that its parent had been shown.
    """

    run_id: RunId
    identity: Identity
    sealed: str
    request: Request
    limits: Limits
    app_version: str
    parent: RunId | None = None
    depth: int = 0
    asked: Request | None = None
    shown: tuple[str, ...] = ()


class RunActivated(Event, tag=True):
    """The run is taken up under a new epoch; anything an older epoch still does is refused.

    `claim` is random: of two who claim the same epoch in the same microsecond, the journal takes one in.
    """

    epoch: int
    claim: str = ""


class RoutePlanned(Event, tag=True, omit_defaults=True):
    """The topology said where the run goes next.

    `metered` = the agent's decision is reserved before it is asked; `price` is the most it can cost, if it says.
    `batched` = what it asks of models goes into a provider's batch: it waits for that as for a person, in no active
    time, and a decision whose process dies goes on with what was reserved for it.
    `ending` = the run is done with this, and the visit is the extractor's, which proposes facts of it.
    """

    step: int
    route: Route
    metered: bool = False
    price: Spend | None = None
    batched: bool = False
    ending: Done | None = None


class RouteFailed(Event, tag=True):
    """The topology asked for something that does not exist, or raised."""

    step: int
    reason_code: ReasonCode
    error: str


class MemoryRecalled(Event, tag=True):
    """Memory answered.  Ids and scores only: what a record says stays in memory, where it can be erased.

    `met` says how often each had been changed by then, by which it is seen that one was changed since.
    """

    step: int
    records: tuple[tuple[str, float], ...] = ()
    labels: tuple[str, ...] = ()
    met: tuple[int, ...] = ()


class RecallFailed(Event, tag=True):
    """Memory did not answer."""

    step: int
    error: str


class SpendAsked(Event, tag=True):
    """What one decision can cost is about to be reserved.  Durable before the gate is asked: a gate that is restarted
    counts from the journal.
    """

    step: int
    epoch: int
    price: Spend | None
    wall_ms: Count


class SpendReserved(Event, tag=True):
    """The gate set that aside; the agent may be asked."""

    step: int


class SpendRefused(Event, tag=True):
    """There is too little left for the decision, or nobody knows what it costs."""

    step: int
    reason_code: ReasonCode
    detail: str


class StepDecided(Event, tag=True, omit_defaults=True):
    """The agent proposed its next step.

    Of several calls the first is `proposal`, with what the decision cost; `later` are the others, each under the step
    after the one before.  `reads` = all of them are declared to change nothing, so they may be under way at once.
    """

    step: int
    agent: str
    proposal: Action | Finish | Handoff
    later: tuple[ToolCall, ...] = ()
    reads: bool = False

    @property
    def calls(self) -> dict[int, Action]:
        """The calls that were proposed, by step."""
        if not isinstance(self.proposal, Action):
            return {}
        actions = [Action(tool=call.tool, arguments=call.arguments) for call in self.later]
        return dict(enumerate((self.proposal, *actions), self.step))


class DecideFailed(Event, tag=True):
    """The agent raised, was too slow, or proposed something invalid."""

    step: int
    agent: str
    reason_code: ReasonCode
    error: str


class ActionGated(Event, tag=True, omit_defaults=True):
    """Policy decided about the exact call: `arguments` are validated, complete and canonical; `digest` is theirs.

    `origins` say where its values come from, if policy may look at that or a person is asked; `resources` is what was
    known of the resources that rules ask about.  `intent` = it is allowed, and about to be sent: durable before it
    leaves, for every tool that changes something.
    `question` is what people are asked for the tool, which needs it to complete the call that was allowed before.
    """

    step: int
    attempt: int
    decision: Decision
    tool: str
    tool_version: str = ""
    effect: EffectClass = "irreversible"
    risk: Risk = "high"
    repeatable: bool = False
    cost_microusd: int = 0
    arguments: Raw = NULL
    digest: str = ""
    approval_id: ApprovalId | None = None
    executor: ExecutorId = ExecutorId("")
    counted: bool = False
    wall_ms: Count = 0
    trusted_output: bool = False
    origins: tuple[ValueOrigin, ...] = ()
    resources: tuple[ResourceFact, ...] = ()
    intent: bool = False
    question: Raw = NULL

    @property
    def asks_for_tool(self) -> bool:
        """Whether people are asked something for the tool, and not whether the call may be."""
        return bytes(self.question) != b"null"


class ApprovalDecided(Event, tag=True):
    """People decided.  For `edited`, `arguments` are the new ones, which are gated again as a new action.

    What was `answered` to a question is in the receipt.

    `by` are those whose votes decided; of what expired, nobody.

    `apart` = a rejection counts by `Limits.max_rejections`; one from before there was that bound is a refusal.
    """

    step: int
    approval_id: ApprovalId
    outcome: str
    by: tuple[PrincipalId, ...] = ()
    arguments: Raw = NULL
    receipt: str = ""
    note: str = ""
    apart: bool = False


class EffectIntended(Event, tag=True):
    """The call is about to be sent: what a journal of before format 2 says apart from `ActionGated`."""

    step: int
    attempt: int
    key: EffectKey
    tool: str
    digest: str
    cost_microusd: Count = 0
    wall_ms: Count = 0


class ToolExecuted(Event, tag=True):
    """The call was carried out, or refused by the executor before anything started."""

    step: int
    attempt: int
    result: ToolResult


class ExecutionLost(Event, tag=True):
    """Nobody knows what became of the call; `started` is False when it certainly never began."""

    step: int
    attempt: int
    started: bool
    error: str


class InDoubtResolved(Event, tag="DoubtSettled"):
    """A person found out: the effect happened (with this result), or it did not (and is not tried again).

    `ordered_us` is when that person's clock says it was ordered, by which one order is known that comes twice.
    """

    step: int
    by: PrincipalId
    happened: bool
    output: Raw = NULL
    ordered_us: int = 0
    note: str = ""


class InDoubtExpired(Event, tag="DoubtExpired"):
    """Nobody found out in time."""

    step: int


class MemoryLearned(Event, tag=True):
    """Memory took a candidate, or did not, and why."""

    step: int
    record_id: str
    code: str


class ChildEnded(Event, tag=True):
    """A branch ended, and what it used is the parent's use too."""

    step: int
    branch: int
    run_id: RunId
    outcome: Outcome
    usage: Usage


class CancelRequested(Event, tag=True):
    """The owner withdrew the run."""

    by: PrincipalId
    why: str = ""


class KillRequested(Event, tag=True):
    """An operator or the driver ends the run, whatever it is doing."""

    by: str
    why: str
    reason_code: ReasonCode = ReasonCode.KILLED_BY_OPERATOR


class RunSuspended(Event, tag=True):
    """The runtime put the run down in good order; the next activation takes it up where it stands."""

    why: str


class LayerFailed(Event, tag=True):
    """A layer broke its contract while carrying out an instruction."""

    step: int
    error: str


class RunEnded(Event, tag=True):
    """The end, once: what became of the run, why, and all it used.

    `job_id` is that of its request: whoever reads a result by its run has the end, and not what it began with.
    """

    outcome: Outcome
    usage: Usage
    job_id: str = ""


AnyEvent = (
    RunSubmitted
    | RunActivated
    | RoutePlanned
    | RouteFailed
    | MemoryRecalled
    | RecallFailed
    | SpendAsked
    | SpendReserved
    | SpendRefused
    | StepDecided
    | DecideFailed
    | ActionGated
    | ApprovalDecided
    | EffectIntended
    | ToolExecuted
    | ExecutionLost
    | InDoubtResolved
    | InDoubtExpired
    | MemoryLearned
    | ChildEnded
    | CancelRequested
    | KillRequested
    | RunSuspended
    | LayerFailed
    | RunEnded
)

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(AnyEvent)


def encode_event(event: Event) -> bytes:
    """Encode as the JSON the journal chains and keeps."""
    return _encoder.encode(event)


def decode_event(data: bytes | str) -> Any:
    """Decode what `encode_event` wrote; every field's type is checked."""
    return _decoder.decode(data)
