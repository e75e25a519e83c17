"""When a call was about to be sent, by the events of its run.

The decision that allows a call is its intent: it is durable before anything that changes something leaves.  Until
format 2 of the journal there was an event of its own for that, which is read here too.
"""

from __future__ import annotations

from typing import NamedTuple

from airside.stack.ids import EffectKey, RunId, effect_key
from airside.stack.run import events as ev


class Intent(NamedTuple):
    """A call that was about to be sent, once an attempt."""

    step: int
    attempt: int
    key: EffectKey
    tool: str
    digest: str
    cost_microusd: int
    wall_ms: int
    at_us: int


def intent_of(run_id: RunId, event: ev.Event) -> Intent | None:
    """Return what an event of a run says was about to be sent, None if it says nothing of that."""
    if isinstance(event, ev.EffectIntended):
        key = event.key
    elif isinstance(event, ev.ActionGated) and event.intent:
        key = effect_key(run_id, event.step)
    else:
        return None
    return Intent(
        event.step, event.attempt, key, event.tool, event.digest, event.cost_microusd, event.wall_ms, event.at_us
    )
