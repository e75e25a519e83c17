"""When a call was about to be sent, and what came of it, by the events of its run.

The decision that allows a call is its intent: it is durable before anything that changes something leaves.  Until
format 2 of the journal there was an event of its own for that, which is read here too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from airside.stack.ids import EffectKey, RunId, effect_key
from airside.stack.run import events as ev
from airside.stack.values import ToolResult


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


class SentCall(NamedTuple):
    """A call that was sent: its decision, its first and its latest attempt, and its result, if there is one, and when.

    What a person found out while the run waited is a result.
    """

    gate: ev.ActionGated
    first: Intent
    latest: Intent
    result: ToolResult | None = None
    answered_us: int = 0


def call_history(events: Sequence[ev.Event]) -> list[SentCall]:
    """Return the calls of a run that were sent, by their steps, whatever became of them."""
    run = events[0]
    assert isinstance(run, ev.RunSubmitted)
    gates: dict[int, ev.ActionGated] = {}
    sent: dict[int, SentCall] = {}
    for event in events:
        if isinstance(event, ev.ActionGated):
            gates[event.step] = event
        if (intent := intent_of(run.run_id, event)) is not None:
            before = sent.get(intent.step) or SentCall(gates[intent.step], intent, intent)
            gate = gates[intent.step]  # of this attempt there is no result yet, whatever an earlier one came to
            sent[intent.step] = before._replace(gate=gate, latest=intent, result=None, answered_us=0)
        elif isinstance(event, ev.ToolExecuted | ev.InDoubtResolved) and (call := sent.get(event.step)) is not None:
            sent[event.step] = call._replace(result=_result_of(event), answered_us=event.at_us)
    return [call for _, call in sorted(sent.items())]


def _result_of(event: ev.ToolExecuted | ev.InDoubtResolved) -> ToolResult:
    return event.result if isinstance(event, ev.ToolExecuted) else ToolResult(ok=event.happened, output=event.output)
