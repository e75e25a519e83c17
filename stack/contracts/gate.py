"""What the gate is asked about a proposed call, and its decision."""

from __future__ import annotations

from airside.stack.contracts.budget import Settlement
from airside.stack.ids import ApprovalId, ExecutorId, RunId
from airside.stack.resources import ResourceFact
from airside.stack.values import Decision, Declined, EffectClass, Limits, Risk, Value, ValueOrigin


class GateRequest(Value, array_like=True):
    """A proposed call with its context.  `arguments` is the JSON the agent gave; `identity` its owner's, encoded.

    `origins` say where the values of the arguments come from, as the runtime traced them, None if it did not; `settled`
    and `share` are as in `SpendRequest`.  `preview` = what would be decided is asked, before it is the call's turn:
    nothing is granted, reserved or counted.
    `asked` is what the tool asked before it completes this call, sealed by the executor; `answered` proves what a
    person answered to that, and `declined` says that nobody does.  `shown` are the records of memory that the
    run was shown.  `attempt` counts what the gate was asked, `sends` how often the call was sent before.
    """

    identity: bytes
    proof: str
    run_id: RunId
    step: int
    attempt: int
    epoch: int
    tool: str
    arguments: bytes
    labels: tuple[str, ...]
    remaining: Limits
    executor: ExecutorId
    receipt: str = ""
    version: str = ""
    origins: tuple[ValueOrigin, ...] | None = ()
    settled: tuple[Settlement, ...] = ()
    share: Limits | None = None
    preview: bool = False
    asked: str = ""
    answered: str = ""
    declined: Declined = ""
    shown: tuple[str, ...] = ()
    sends: int = 0


class GateReply(Value, array_like=True):
    """The decision about the exact call; `grant` is given with an allow and with nothing else.

    `counted` = it uses up a shared budget, so its intent must be durable before it leaves even if it is a read: a gate
    that is restarted counts from the journal.  `wall_ms` is the time that was reserved for it, 0 if nobody counts that.
    `origins` are those of every value of the complete arguments, if the call was traced; `resources` is what was known
    of those that rules ask about.  `untraced` = nothing is decided: a rule asks for origins that the request lacks, or
    a person is to be shown them.  `question` is what people are asked, if it is for the tool and not about the call.
    """

    decision: Decision
    effect: EffectClass = "irreversible"
    risk: Risk = "high"
    tool_version: str = ""
    repeatable: bool = False
    cost_microusd: int = 0
    arguments: bytes = b"null"
    digest: str = ""
    approval_id: ApprovalId | None = None
    grant: bytes = b""
    counted: bool = False
    wall_ms: int = 0
    trusted_output: bool = False
    origins: tuple[ValueOrigin, ...] = ()
    resources: tuple[ResourceFact, ...] = ()
    untraced: bool = False
    question: bytes = b""


class Proposed(Value, array_like=True):
    """Arguments that somebody proposes for a tool: what `Gate.check` looks at before they become a call."""

    tool: str
    arguments: bytes
