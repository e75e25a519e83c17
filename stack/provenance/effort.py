"""How much may be looked for on behalf of one decision: what is over is given up, and whoever gave the limit says no.

An agent's arguments and what it has read are looked through value by value, in a process that other runs share.  The
effort is counted in characters, never in time, so that the same call comes to the same end wherever it is traced.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class EffortExceeded(Exception):
    """More would have to be looked through than the limit allows."""


class EffortLeft:
    """What is left of a limit."""

    __slots__ = ("characters",)

    def __init__(self, characters: int) -> None:
        self.characters = characters


_left: ContextVar[EffortLeft | None] = ContextVar("effort", default=None)


@contextmanager
def limit_effort(left: EffortLeft) -> Iterator[None]:
    """Let what is done within look through what is left; then `spend_effort` raises `EffortExceeded`."""
    token = _left.set(left)
    try:
        yield
    finally:
        _left.reset(token)


def spend_effort(characters: int) -> None:
    """Count what is about to be looked through; raise `EffortExceeded` if it is more than is left."""
    left = _left.get()
    if left is not None:
        left.characters -= characters
        if left.characters < 0:
            raise EffortExceeded
