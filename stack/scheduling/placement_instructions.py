"""What placement has done: imperative.  Each is carried out once, in any order; some are answered by an event."""

from __future__ import annotations

from airside.stack.ids import RunId, TenantId
from airside.stack.scheduling.placement_events import Termination
from airside.stack.values import Value


class PlacementInstruction(Value):
    """Base of the instructions."""


class Refuse(PlacementInstruction):
    """Tell a submitter to come back after so many seconds."""

    run_id: RunId
    retry_after_s: float


class StartProcess(PlacementInstruction):
    """Start a runtime process under this key; answered by `ProcessStarted` or `ProcessFailed`."""

    process: str


class KillProcess(PlacementInstruction):
    """End a process, however long that takes; answered by `ProcessDied` when it is certainly dead."""

    process: str


class PutDownProcess(PlacementInstruction):
    """Let a process suspend what waits there, then end it; answered by `ProcessDied`."""

    process: str


class InspectProcess(PlacementInstruction):
    """See whether a run's code holds the loop of a process; answered by `ProcessInspected`."""

    process: str
    run_id: RunId


class Claim(PlacementInstruction):
    """Make a `RunActivated` of this epoch durable, or of the one after what is found where it must be read.

    `events` are the run's, empty where they must be read first.  Answered by `Claimed`, `ClaimFailed`, or `EndReported`
    if the run turns out to be over.
    """

    run_id: RunId
    tenant: TenantId
    epoch: int
    events: tuple[bytes, ...]


class Activate(PlacementInstruction):
    """Hand a claimed run to a process; answered by `Activated` or `ActivationFailed`."""

    run_id: RunId
    process: str
    epoch: int
    events: tuple[bytes, ...]


class Deliver(PlacementInstruction):
    """Bring an event to a run in a process; answered by `MessageAnswered` or `MessageFailed`."""

    number: int
    run_id: RunId
    process: str
    event: bytes


class Answer(PlacementInstruction):
    """Tell who sent a message that it has arrived, or that its run is over."""

    number: int


class EndRun(PlacementInstruction):
    """End a run that no process has, with its branches, under epochs of their own.

    `events` are the run's, empty where they must be read.  `begun` = it may have branches and calls.  Answered by
    `EndReported` or `EndingFailed`.
    """

    run_id: RunId
    tenant: TenantId
    termination: Termination
    events: tuple[bytes, ...]
    begun: bool


class SetTimer(PlacementInstruction):
    """Say `TimerDue` after so many seconds."""

    run_id: RunId
    number: int
    seconds: float


class Finish(PlacementInstruction):
    """Give a run's end to whoever waits for it."""

    run_id: RunId
    ended: bytes


class Withdraw(PlacementInstruction):
    """Take what an ended run waited for off the list people see."""

    run_id: RunId


class CloseAccount(PlacementInstruction):
    """Have the gate close what an ended run and its branches had reserved."""

    run_id: RunId


PlacementInstructions = list[PlacementInstruction]
