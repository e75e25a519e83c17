"""`CyclePorts`: everything a cycle uses, as its ports."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airside.stack.cycle.agent_call import UNWATCHED, Pulse
from airside.stack.cycle.alike import Alike
from airside.stack.cycle.run_log import RunLog
from airside.stack.ids import RunId
from airside.stack.policy.trace_predictor import TracePredictor
from airside.stack.ports import Approvals, Journal, Memory, Models, Policy, Tools
from airside.stack.run import instructions as do
from airside.stack.run.agents import Agent
from airside.stack.run.topology import Topology
from airside.stack.schema.toolspec import ToolSpec

if TYPE_CHECKING:
    from airside.stack.cycle.cycle import Cycle


@dataclass(frozen=True, slots=True, kw_only=True)
class CyclePorts:
    """Everything a cycle uses.  `memory` and `models` are None for an app without.

    `trace_predictor` tells of which calls policy asks where the values come from; without, all are traced.  `metered`
    are the tenants whose runs share a budget of what decisions use.  `pause` lets so many seconds pass.
    """

    journal: Journal
    policy: Policy
    tools: Tools
    approvals: Approvals
    memory: Memory | None
    agents: Mapping[str, Agent]
    routes: Mapping[str, Topology]
    specs: Sequence[ToolSpec]
    now_us: Callable[[], int]
    spawn: Callable[[Cycle, do.SpawnChildren], Awaitable[None]]
    pause: Callable[[float], Awaitable[object]] = asyncio.sleep
    traceparent: Callable[[RunId], str] = lambda run_id: ""
    pulse: Pulse = UNWATCHED
    trace_predictor: TracePredictor | None = None
    metered: frozenset[str] = frozenset()
    models: Models | None = None
    alike: Alike = field(init=False)
    unwritten: set[RunLog] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "alike", Alike(self.specs))
        object.__setattr__(self, "unwritten", set())
