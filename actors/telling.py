"""A run's story from the journal, whoever reads that: the stack's actor, or the file where no stack runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airside.stack.beside import Beside, told_beside
from airside.stack.errors import InvalidInput
from airside.stack.events import decode_event
from airside.stack.ids import parse_run, root_of
from airside.stack.story import tell

Ask = Callable[..., Any]
"""`(method, *arguments) -> answer`, of the journal's `read` and `bodies`."""


def story_of(ask: Ask, run_id: str) -> str:
    """Tell a run, with what other streams have of it; raise `InvalidInput` if the journal has no such run."""
    run = parse_run(run_id)
    bodies = ask("bodies", [run])[run]
    if not bodies:
        raise InvalidInput(f"the journal has no run {run}")
    events = [decode_event(body) for body in bodies]
    beside = (Beside(at_us=at, stream=s, type=t, body=b) for at, s, t, b in ask("read", "beside", [run, root_of(run)]))
    return tell(events, told_beside(events, beside))
