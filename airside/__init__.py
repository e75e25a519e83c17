"""Airside: governed LLM agent jobs on Ray.

    import airside

    @airside.tool(effect="read")
    def lookup(customer: str) -> dict: ...

    app = airside.App(agents={"clerk": decide}, tools=[lookup], policy=Path("policy.yaml"), directory=...)
    with airside.start(app) as stack:
        print(stack.submit("...", tenant="acme", principal="ana").result().story())

Importing it is light: Ray, torch, LanceDB and DuckDB are loaded when they are first needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airside.actors.app import App
    from airside.actors.client.client import RunHandle, Stack
    from airside.actors.client.results import PendingApproval, RunResult
    from airside.actors.jobs import Job
    from airside.actors.launch import connect, start
    from airside.stack.errors import AirsideError
    from airside.stack.policy.bundle import DEFAULT_POLICY
    from airside.stack.reasons import ReasonCode, RunStatus
    from airside.stack.run.agents import FunctionAgent, ReplayAgent, View, priced
    from airside.stack.run.topology import FanOutFanIn, Handoffs, Pipeline, SingleAgent
    from airside.stack.values import Action, Finish, Handoff, Limits, Spend
    from airside.tools.tool import Tool, ToolContext, ToolError, Toolset, tool

_HOME = {
    "airside.actors.app": ["App"],
    "airside.actors.client.client": ["RunHandle", "Stack"],
    "airside.actors.jobs": ["Job"],
    "airside.actors.launch": ["connect", "start"],
    "airside.actors.client.results": ["PendingApproval", "RunResult"],
    "airside.stack.run.agents": ["FunctionAgent", "ReplayAgent", "View", "priced"],
    "airside.stack.errors": ["AirsideError"],
    "airside.stack.policy.bundle": ["DEFAULT_POLICY"],
    "airside.stack.reasons": ["ReasonCode", "RunStatus"],
    "airside.stack.run.topology": ["FanOutFanIn", "Handoffs", "Pipeline", "SingleAgent"],
    "airside.stack.values": ["Action", "Finish", "Handoff", "Limits", "Spend"],
    "airside.tools.tool": ["Tool", "ToolContext", "ToolError", "Toolset", "tool"],
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [  # noqa: RUF022 - as `sorted` has it, which a test holds
    "Action",
    "AirsideError",
    "App",
    "DEFAULT_POLICY",
    "FanOutFanIn",
    "Finish",
    "FunctionAgent",
    "Handoff",
    "Handoffs",
    "Job",
    "Limits",
    "PendingApproval",
    "Pipeline",
    "ReasonCode",
    "ReplayAgent",
    "RunHandle",
    "RunResult",
    "RunStatus",
    "SingleAgent",
    "Spend",
    "Stack",
    "Tool",
    "ToolContext",
    "ToolError",
    "Toolset",
    "View",
    "connect",
    "priced",
    "start",
    "tool",
]


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'airside' has no attribute {name!r}")
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return sorted(__all__)
