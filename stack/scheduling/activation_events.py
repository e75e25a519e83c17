"""What happens to the runs of one process: events in the past tense, each with the moment and the activation it is of.

Events of an activation that is over change nothing: a process has one of a run at a time, each under an epoch of its
own.
"""

from __future__ import annotations

from collections.abc import Mapping

from airside.stack.ids import RunId, TenantId
from airside.stack.run.events import Event, RunEnded
from airside.stack.run.instructions import SpawnChildren
from airside.stack.scheduling.placement_events import Standing
from airside.stack.values import Value


class ActivationEvent(Value):
    """Base of the events: `run_id` under `epoch` is the activation that it happened to."""

    run_id: RunId
    epoch: int
    at_us: int


class RunTakenUp(ActivationEvent):
    """A run is here; `parent` = the run that it is a branch of."""

    tenant: TenantId
    parent: RunId | None = None


class MessageBrought(ActivationEvent):
    """An event for a run came from outside its cycle."""

    message: Event


class PutDownRequested(ActivationEvent):
    """A run that waits for a person is to be suspended, so that its process can go."""


class RunRested(ActivationEvent):
    """A run's cycle does nothing until something comes; `standing` = how it stands."""

    standing: Standing


class RunConcluded(ActivationEvent):
    """A run has ended, durably; `open_branches` = those of which it does not know that they have."""

    ended: RunEnded
    open_branches: tuple[RunId, ...] = ()


class RunGivenUp(ActivationEvent):
    """An activation broke off, or cannot go on; `error` = why, None if it was put down in good order."""

    error: Exception | None = None


class RunFenced(ActivationEvent):
    """Somebody else has a run, under a newer epoch; `branches` = those that it waited for here."""

    branches: tuple[RunId, ...] = ()


# Branches: each event is of the activation of their parent.


class BranchesWanted(ActivationEvent):
    """A run waits for branches; `known` = those, by their number, whose ends it knows."""

    spawn: SpawnChildren
    known: frozenset[int] = frozenset()


class BranchesRead(ActivationEvent):
    """The durable events of branches, oldest first; `parent_epoch` = the latest of their parent, if that was read."""

    found: Mapping[RunId, tuple[Event, ...]]
    parent_epoch: int = 0


class BranchClaimed(ActivationEvent):
    """A branch's activation is durable; `events` are all it has, the last of which activates it."""

    branch: RunId
    events: tuple[Event, ...]


class ClaimLost(ActivationEvent):
    """Somebody else wrote to a branch first."""

    branch: RunId


class BranchDue(ActivationEvent):
    """It is time to look at a branch again."""

    branch: RunId


class BranchesEnded(ActivationEvent):
    """No branch of an ended run is left, here or elsewhere."""
