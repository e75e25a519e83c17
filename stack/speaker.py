"""Whose code is running: what an agent or a tool prints is shown to the operator under its name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from airside.stack.ids import RunId, TenantId

Speaker = tuple[str, TenantId, RunId]
"""The agent's or tool's name, and for whom and in which run it runs."""

_SPEAKER: ContextVar[Speaker | None] = ContextVar("speaker", default=None)


def speaker() -> Speaker | None:
    """Return whose code runs in this context; None for the stack's own."""
    return _SPEAKER.get()


@contextmanager
def speaking(name: str, tenant: TenantId, run_id: RunId) -> Iterator[None]:
    """Say whose code runs within the block; tasks and threads that copy the context inherit it."""
    token = _SPEAKER.set((name, tenant, run_id))
    try:
        yield
    finally:
        _SPEAKER.reset(token)
