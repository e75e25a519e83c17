"""What happens to placement: events in the past tense, each with the moment at which the driver heard of it.

They come from four sides: clients and operators (`Submitted`, `MessageArrived`, `TerminationRequested`), runtimes
(`RunReported`, `EndReported`), the watch over processes (`ProcessDied`, `ProcessStalled`, `LayerStalled`), and the
answers to placement's own instructions, one to each: `Claim` is answered by `Claimed`, `ClaimFailed` or `EndReported`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from airside.stack.ids import RunId, TenantId
from airside.stack.run.events import CancelRequested, KillRequested
from airside.stack.values import Value

Termination = KillRequested | CancelRequested
"""What a run that is to end is told."""

Standing = Literal["parked", "in_doubt", "working", "lost", "broken"]
"""How a run stands in its runtime: it waits for a person, for somebody to settle a doubt, or works; it was given up
because a layer was gone (`lost`), or for an error of its own (`broken`)."""

RunStanding = Literal[Standing, "ended"]
"""The same of a run that may be over."""


class Moment(NamedTuple):
    """When: the time of day, and the seconds of a clock that nobody sets."""

    at_us: int
    boot_s: float


class PlacementEvent(Value):
    """Base of the events."""

    at: Moment


# Runs that come, and what is found after a restart of the driver.


class Submitted(PlacementEvent):
    """A request is to become a run; answered by `Refuse`, or by nothing: then its admission is to be recorded."""

    run_id: RunId
    tenant: TenantId
    admitted_us: int
    priority: int = 0


class AdmissionRecorded(PlacementEvent):
    """A run's admission is durable; `events` empty = it was before, and what the run is must be read."""

    run_id: RunId
    events: tuple[bytes, ...] = ()


class AdmissionFailed(PlacementEvent):
    """A run's admission can never be durable: there is no such run."""

    run_id: RunId


class ProcessFound(PlacementEvent):
    """A runtime process outlived the driver before this one."""

    process: str


class RunFound(PlacementEvent):
    """An unfinished run was found in the journal.

    `process` = who says that it has it, under which epoch (`held_epoch`), and how it stands there.  `priority` is that
    of one that never began.
    """

    run_id: RunId
    tenant: TenantId
    epoch: int
    admitted_us: int
    priority: int = 0
    events: tuple[bytes, ...] = ()
    process: str = ""
    held_epoch: int = 0
    standing: Standing = "working"


# Processes.


class ProcessStarted(PlacementEvent):
    """A runtime process is up."""

    process: str


class ProcessFailed(PlacementEvent):
    """A runtime process could not be started."""

    process: str


class ProcessDied(PlacementEvent):
    """A runtime process is certainly dead, or its lease is over; `excused` = no run that was there is suspected."""

    process: str
    excused: bool


class ProcessStalled(PlacementEvent):
    """A runtime's loop is held; by which run ("": unknown), for how long, and where in the code."""

    process: str
    run_id: str
    held_s: float
    where: str


class ProcessInspected(PlacementEvent):
    """A process was looked at; `holds` = the code of the run has its loop and does not yield."""

    process: str
    run_id: RunId
    holds: bool


class LayerStalled(PlacementEvent):
    """A layer was killed because its loop was held; by the request of which run ("": unknown)."""

    layer: str
    run_id: str
    held_s: float
    where: str


class LatenessMeasured(PlacementEvent):
    """How late the latest process is."""

    late_s: float


# Answers to placement's instructions.


class Claimed(PlacementEvent):
    """A run is claimed under an epoch; `events` are all of its own, the last of which activates it."""

    run_id: RunId
    epoch: int
    events: tuple[bytes, ...]


class ClaimFailed(PlacementEvent):
    """A claim is not durable: the journal was away, or somebody else wrote to the run."""

    run_id: RunId


class Activated(PlacementEvent):
    """A process has taken a run up."""

    run_id: RunId
    epoch: int


class ActivationFailed(PlacementEvent):
    """A process did not say that it has taken a run up; `broken` = for an error of the run's own."""

    run_id: RunId
    epoch: int
    broken: bool = False


class EndingFailed(PlacementEvent):
    """A run could not be ended yet."""

    run_id: RunId


class MessageAnswered(PlacementEvent):
    """A process took a message in; `present` = the run is there.

    `reports` = the number of its last report before that: what it and those before it say may be so no more.
    """

    number: int
    run_id: RunId
    process: str
    present: bool
    reports: int = 0


class MessageFailed(PlacementEvent):
    """A process did not answer."""

    number: int
    run_id: RunId
    process: str


class TimerDue(PlacementEvent):
    """A timer that was set is due."""

    run_id: RunId
    number: int


class Ticked(PlacementEvent):
    """Time went on: what is late is to end, and what idles to be put down."""


# What runtimes report, and what people and operators want.


class RunReported(PlacementEvent):
    """How a run (or a branch of one) stands, as its process under this epoch says; `number` grows (0: not counted)."""

    run_id: RunId
    epoch: int
    standing: Standing
    number: int = 0


class EndReported(PlacementEvent):
    """A run has ended, durably; `ended` is its `RunEnded`, `steps` what it took."""

    run_id: RunId
    tenant: TenantId
    ended: bytes
    steps: int


class MessageArrived(PlacementEvent):
    """An event for a run, or a branch of it, came from outside; `Answer` says when it has arrived."""

    number: int
    run_id: RunId
    event: bytes


class TerminationRequested(PlacementEvent):
    """Somebody wants a run ended."""

    run_id: RunId
    termination: Termination
