"""A run's state: what its events add up to.  Only `RunMachine` writes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from airside.stack.run.events import ActionGated, ChildEnded, RunSubmitted
from airside.stack.run.extraction import GroundedFact
from airside.stack.run.rejections import Rejections
from airside.stack.run.topology import BranchEnd, Done, FanOut, StageEnd, Visit
from airside.stack.values import Action, Declined, Outcome, Spend, ToolResult, Usage, Value


class Phase(StrEnum):
    """Where a run stands.  The first group works, the second waits, the third is over."""

    QUEUED = "queued"
    PLANNING = "planning"
    RECALLING = "recalling"
    ASKING = "asking"
    RESERVING = "reserving"
    DECIDING = "deciding"
    GATING = "gating"
    READING = "reading"
    INTENDING = "intending"
    EXECUTING = "executing"
    RESUMING = "resuming"
    CONCLUDING = "concluding"

    AWAITING_APPROVAL = "awaiting_approval"
    AWAITING_CHILDREN = "awaiting_children"
    IN_DOUBT = "in_doubt"
    SUSPENDED = "suspended"

    COMPLETED = "completed"
    REFUSED = "refused"
    STOPPED = "stopped"
    FAILED = "failed"
    CANCELLED = "cancelled"
    KILLED = "killed"
    ENDED_IN_DOUBT = "ended_in_doubt"


OVER = frozenset(
    {Phase.COMPLETED, Phase.REFUSED, Phase.STOPPED, Phase.FAILED}
    | {Phase.CANCELLED, Phase.KILLED, Phase.ENDED_IN_DOUBT}
)
PARKED = frozenset({Phase.AWAITING_APPROVAL, Phase.IN_DOUBT, Phase.SUSPENDED})
"""A person is waited for: the run holds no worker, and its active time stands still."""

TIMED = frozenset(set(Phase) - OVER - PARKED - {Phase.QUEUED, Phase.CONCLUDING})


class StepRecord(Value):
    """One call an agent made, and what came of it: the history an agent decides on."""

    step: int
    agent: str
    tool: str
    arguments: dict[str, Any]
    result: ToolResult


@dataclass(slots=True)
class OpenCall:
    """A call of a decision that proposed several: one that is still to come, or a read that is under way.

    `gated` is the decision a read under way was allowed by; `after_ms` how long one that is sent again waits before.
    """

    step: int
    action: Action
    attempt: int = 0
    sends: int = 0
    gated: ActionGated | None = None
    after_ms: int = 0


@dataclass(slots=True)
class RunState:
    """Mutable, and written by `RunMachine` alone.

    `reserved` is what is set aside for the decision that an agent is asked for, under `reserved_epoch`; lost, it counts
    as spent, unless the decision is `batched`: then it goes on with it.
    `ambiguous` says that an earlier attempt of the present call may have happened, and `why` nobody knows, if anybody
    said; `charged` is what the present call was counted and paid for as, None before; `in_doubt_keys` are the keys of
    calls that were intended and whose outcome is not known; `approved` are the calls that people approved, by step, and
    `rejected` those that they said no to.
    `asked` is what the present call's tool asked last, `rounds` how often it did; `answered` or `declined` is what
    became of that.

    `shown` are the records of memory that the run was shown, with those of its branches and, until then, of its parent:
    at most `MAX_SHOWN`, and one more if there were more.

    `base` and `last` are the first and the last step of the present decision's calls, `seen` the labels it was made
    under; `later` are those that are still to come, and `reading` the reads that are under way at once, by step.

    `ending` is what a run is done with that an extractor is looking at, and `facts` what that found.
    """

    submitted: RunSubmitted
    phase: Phase = Phase.QUEUED
    resume_to: Phase = Phase.QUEUED
    epoch: int = 0
    step: int = 0
    last_us: int = 0
    usage: Usage = field(default_factory=Usage)
    labels: frozenset[str] = frozenset()
    shown: tuple[str, ...] = ()
    visit: Visit | None = None
    metered: bool = False
    price: Spend | None = None
    batched: bool = False
    reserved: Spend | None = None
    reserved_epoch: int = 0
    holder: str | None = None
    message: Any = None
    finished: tuple[StageEnd, ...] = ()
    history: list[StepRecord] = field(default_factory=list)
    repeats: dict[str, int] = field(default_factory=dict)
    base: int = 0
    last: int = 0
    seen: frozenset[str] = frozenset()
    later: list[OpenCall] = field(default_factory=list)
    reading: dict[int, OpenCall] = field(default_factory=dict)
    action: Action | None = None
    attempt: int = 0
    sends: int = 0
    receipt: str = ""
    gated: ActionGated | None = None
    allowed: tuple[int, int] | None = None
    ambiguous: bool = False
    why: str = ""
    charged: int | None = None
    asked: str = ""
    rounds: int = 0
    answered: str = ""
    declined: Declined = ""
    in_doubt_keys: dict[str, int] = field(default_factory=dict)
    approved: dict[int, ActionGated] = field(default_factory=dict)
    rejected: Rejections = field(default_factory=Rejections)
    fan_out: FanOut | None = None
    children: dict[int, ChildEnded] = field(default_factory=dict)
    branches: tuple[BranchEnd, ...] | None = None
    ending: Done | None = None
    facts: tuple[GroundedFact, ...] = ()
    outcome: Outcome | None = None

    @property
    def decision_epoch(self) -> int:
        """The epoch under which the present decision was begun: by it its reservation and questions are known."""
        return self.epoch if self.reserved is None else self.reserved_epoch
