"""What a run wants done next, in the imperative.  The shell carries them out and feeds back what happened.

`cause` is the number of the event whose handling asked for it.  `durable_first` is the write-ahead rule: the shell
sends the instruction only after every event of the run so far is durable.
"""

from __future__ import annotations

from airside.stack.ids import EffectKey
from airside.stack.run.events import ActionGated
from airside.stack.run.topology import Branch
from airside.stack.values import Action, Declined, Limits, Outcome, Spend, Value


class Instruction(Value):
    """Base of all instructions."""

    step: int
    cause: int
    durable_first: bool = False


class PlanRoute(Instruction):
    """Ask the topology for the next route: answers `RoutePlanned` or `RouteFailed`."""


class Recall(Instruction):
    """Ask memory: answers `MemoryRecalled` or `RecallFailed`."""

    query: str


class AskSpend(Instruction):
    """Record what is about to be reserved for a decision: answers `SpendAsked`."""

    price: Spend | None


class Reserve(Instruction):
    """Have the gate set that aside: answers `SpendReserved` or `SpendRefused`."""

    price: Spend | None
    wall_ms: int


class Decide(Instruction):
    """Ask the agent: answers `StepDecided` or `DecideFailed`."""

    agent: str


class GateCall(Instruction):
    """Ask policy about a call: answers `ActionGated`.  `receipt` proves that people approved exactly this call.

    `sends` counts how often it was sent before, since its tool last asked something; `after_ms`: how long to wait
    before it is sent again.
    `asked` is what its tool asked before it completes the call, and `answered` or `declined` what became of that.
    """

    action: Action
    attempt: int
    sends: int = 0
    receipt: str = ""
    after_ms: int = 0
    asked: str = ""
    answered: str = ""
    declined: Declined = ""


class AskApproval(Instruction):
    """Put the call before people.  The run then waits without holding anything; answers `ApprovalDecided`."""

    gated: ActionGated


class Execute(Instruction):
    """Send the call with its grant: answers `ToolExecuted` or `ExecutionLost`.

    `round` counts what its tool `asked` before it completes it.
    """

    gated: ActionGated
    key: EffectKey
    attempt: int
    round: int = 0
    asked: str = ""


class Learn(Instruction):
    """Offer memory a candidate; nobody waits for the answer, `MemoryLearned`.

    `source_step` is the step it comes from, if that is an earlier one.
    """

    text: str
    kind: str
    subject: str = ""
    confidence: float = 1.0
    source_step: int | None = None


class SpawnChildren(Instruction):
    """Start the branches as child runs within `limits` each: answers one `ChildEnded` a branch."""

    branches: tuple[Branch, ...]
    limits: Limits


class AwaitResolution(Instruction):
    """Wait so long for a person to find out: answers `InDoubtResolved` or `InDoubtExpired`."""

    seconds: int


class Conclude(Instruction):
    """End the run: answers `RunEnded`."""

    outcome: Outcome


Instructions = list[Instruction]
