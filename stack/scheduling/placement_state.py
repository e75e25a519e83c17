"""What placement knows of a run and of a runtime process.  Only `Placement` writes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from airside.stack.ids import RunId, TenantId
from airside.stack.scheduling.placement_events import Termination

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0
"""Between attempts to place a run: doubled from the first to the longest, to rush no layer that restarts."""


class PlacementState(StrEnum):
    """Where a run is."""

    QUEUED = "queued"
    """It has not begun, and waits for its turn."""

    PLACING = "placing"
    """It has its turn: a process is started for it, it is claimed, or it is handed over."""

    WORKING = "working"
    """A process has it."""

    PARKED = "parked"
    """It waits for a person, in a process or in none, and holds nobody's place."""

    IN_DOUBT = "in_doubt"
    """A process has it; it waits for somebody to say what became of a call."""

    LOST = "lost"
    """No process has it; it is placed again when its timer is due."""

    TERMINATING = "terminating"
    """It is to end, whatever else happens: no process takes it up any more."""


class Operation(StrEnum):
    """What is under way for a run; there is never a second thing."""

    RECORD = "record"
    """Its admission is being made durable."""

    START = "start"
    """Its process is being started, or waits for room."""

    CLAIM = "claim"
    ACTIVATE = "activate"
    END = "end"


class Message:
    """An event on its way to a run; `sent_to` = the process that was sent it and has not answered."""

    __slots__ = ("event", "run_id", "sent_to")

    def __init__(self, run_id: RunId, event: bytes) -> None:
        self.run_id = run_id
        self.event = event
        self.sent_to = ""


@dataclass(slots=True)
class RunEntry:
    """A run that has not ended.

    `events` are those to hand to a process (empty: to be read); `termination` = how it is to end; `is_acknowledged` =
    it was told so since its process was last looked at; `was_parked` = it or a branch may have asked people for
    something; `reported` = the number of this activation's last report.  `losses` = processes that died under it and
    others, `deaths` = those that were its alone, `broken` = activations that failed by themselves, `stalls` = layers
    that its requests held.
    """

    tenant: TenantId
    epoch: int = 0
    state: PlacementState = PlacementState.QUEUED
    operation: Operation | None = None
    reported: int = 0
    events: tuple[bytes, ...] = ()
    process: str = ""
    termination: Termination | None = None
    is_acknowledged: bool = False
    was_parked: bool = False
    timer: int = 0
    pause_s: float = FIRST_PAUSE_S
    mail: dict[int, Message] | None = None
    losses: int = 0
    deaths: int = 0
    broken: int = 0
    stalls: int = 0


class ProcessState(StrEnum):
    """Where a runtime process is."""

    WAITING = "waiting"
    """There is no room for it yet."""

    STARTING = "starting"
    LIVE = "live"
    LEAVING = "leaving"
    """It was ordered to end: nothing new goes there."""


@dataclass(slots=True)
class RuntimeProcess:
    """A runtime process: of a tenant, of a member of the pool, or of runs that are kept apart."""

    key: str
    group: str
    state: ProcessState
    runs: dict[RunId, None] = field(default_factory=dict)
    idle_since_s: float | None = None
