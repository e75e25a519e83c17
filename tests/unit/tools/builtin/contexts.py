"""The context of a call, for tools that are called directly."""

from __future__ import annotations

from typing import Any

from airside.stack.ids import EffectKey, PrincipalId, RunId, TenantId
from airside.tools.tool import ToolContext


def context(key: str = "run_1:1", *, tenant: str = "acme", attempt: int = 1, deadline_s: float = 30.0) -> ToolContext:
    """Return the context of a call."""
    fields: dict[str, Any] = {"tenant": TenantId(tenant), "principal": PrincipalId("ann"), "run_id": RunId("run_1")}
    fields |= {"step": 1, "attempt": attempt, "idempotency_key": EffectKey(key), "approval_id": ""}
    return ToolContext(**fields, deadline_s=deadline_s)
