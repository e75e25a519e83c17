"""What `Activations` has done: imperative.  Each is carried out once, in order; some are answered by an event."""

from __future__ import annotations

from airside.stack.ids import RunId, TenantId
from airside.stack.run.events import Event, RunEnded
from airside.stack.run.instructions import SpawnChildren
from airside.stack.scheduling.placement_events import RunStanding
from airside.stack.values import Value


class ActivationInstruction(Value):
    """Base of the instructions: `run_id` under `epoch` is the activation they are about."""

    run_id: RunId
    epoch: int


class Post(ActivationInstruction):
    """Give an event to a run's cycle, and have it go on."""

    event: Event


class Drop(ActivationInstruction):
    """Stop a run's cycle and forget it; `error` = what is worth a line in the log."""

    error: Exception | None = None


class Report(ActivationInstruction):
    """Tell the driver how a run stands, until it has heard that, or of something later; `number` grows with each."""

    tenant: TenantId
    standing: RunStanding
    number: int
    ended: RunEnded | None = None


class ReadBranches(ActivationInstruction):
    """Read the durable events of branches; answered by `BranchesRead` or `RunGivenUp`.

    `is_contended` = somebody else claimed one of them, who may have their parent too: its epoch is read as well.
    """

    branches: tuple[RunId, ...]
    is_contended: bool = False


class ClaimBranch(ActivationInstruction):
    """Make a branch's admission, if it has none, and its activation under a new epoch durable.

    `events` are those it has.  Answered by `BranchClaimed`, `ClaimLost` or `RunGivenUp`.
    """

    branch: RunId
    number: int
    spawn: SpawnChildren
    events: tuple[Event, ...]


class TakeUp(ActivationInstruction):
    """Begin a branch's cycle; answered by its `RunTakenUp`, or its parent's `RunGivenUp`."""

    branch: RunId
    events: tuple[Event, ...]


class EndBranches(ActivationInstruction):
    """End what is left of an ended run's branches elsewhere; answered by `BranchesEnded` or `RunGivenUp`."""


class LookAgain(ActivationInstruction):
    """Say `BranchDue` after so many seconds."""

    branch: RunId
    seconds: float


ActivationInstructions = list[ActivationInstruction]
