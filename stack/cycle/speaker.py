"""Whose code is running: what an agent or a tool prints is shown to the operator under its name."""

from __future__ import annotations

from contextvars import ContextVar, Token

from airside.stack.ids import RunId, TenantId

Speaker = tuple[str, TenantId, RunId]
"""The agent's or tool's name, and for whom and in which run it runs."""

_SPEAKER: ContextVar[Speaker | None] = ContextVar("speaker", default=None)


def speaker() -> Speaker | None:
    """Return whose code runs in this context; None for the stack's own."""
    return _SPEAKER.get()


class _Speaking:
    """A block of somebody's."""

    __slots__ = ("_speaker", "_token")

    def __init__(self, speaker: Speaker) -> None:
        self._speaker = speaker

    def __enter__(self) -> None:
        self._token: Token[Speaker | None] = _SPEAKER.set(self._speaker)

    def __exit__(self, *_: object) -> None:
        _SPEAKER.reset(self._token)


def speaking(name: str, tenant: TenantId, run_id: RunId) -> _Speaking:
    """Say whose code runs within the block; tasks and threads that copy the context inherit it."""
    return _Speaking((name, tenant, run_id))
