"""Whose code is running: what an agent or a tool prints is shown to the operator under its name."""

from __future__ import annotations

from contextvars import ContextVar, Token

from airside.stack.ids import RunId, TenantId

OutputSource = tuple[str, TenantId, RunId]
"""The agent's or tool's name, and for whom and in which run it runs."""

_SOURCE: ContextVar[OutputSource | None] = ContextVar("output_source", default=None)


def current_source() -> OutputSource | None:
    """Return whose code runs in this context; None for the stack's own."""
    return _SOURCE.get()


class _SourceBlock:
    """A block of somebody's."""

    __slots__ = ("_source", "_token")

    def __init__(self, source: OutputSource) -> None:
        self._source = source

    def __enter__(self) -> None:
        self._token: Token[OutputSource | None] = _SOURCE.set(self._source)

    def __exit__(self, *_: object) -> None:
        _SOURCE.reset(self._token)


def output_from(name: str, tenant: TenantId, run_id: RunId) -> _SourceBlock:
    """Say whose code runs within the block; tasks and threads that copy the context inherit it."""
    return _SourceBlock((name, tenant, run_id))
