"""Airside: governed LLM agent jobs on Ray.

    import airside

    @airside.tool(effect="read")
    def lookup(customer: str) -> dict: ...

    app = airside.App(agents={"clerk": decide}, tools=[lookup], policy=Path("policy.yaml"), directory=...)
    with airside.start(app) as stack:
        print(stack.submit("...", tenant="acme", principal="ana").result().story())

Importing it is light: Ray, torch, LanceDB and DuckDB are loaded when they are first needed.

What fewer apps need has modules of its own: `airside.batches`, `airside.mcp`, `airside.memory`, `airside.models`,
`airside.tools`, `airside.directory`, `airside.resources`, `airside.jobs`, `airside.webhooks`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airside.stack.lazy_names import lazy_names

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

__getattr__, __dir__, _ = lazy_names(__name__, _HOME)
