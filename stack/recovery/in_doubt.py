"""Calls in doubt: what a person has to find out, for runs that wait for it and for runs that ended without it.

A call is in doubt when it was sent and nobody knows whether it happened.  A run waits `Limits.doubt_wait_s` for
somebody who says, and goes on; one that ended first named the keys in its outcome, and what is found out later is put
on record as `EffectResolved`, in a stream of the key's own that takes one entry: it changes no run, and is said once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw

from airside.stack.ids import EffectKey, PrincipalId, RunId, TenantId
from airside.stack.journal.journaling import Append
from airside.stack.journal.stream import append_of
from airside.stack.run import events as ev
from airside.stack.run.calls import UNKNOWN_OUTCOMES
from airside.stack.run.intents import SentCall, call_history
from airside.stack.run.machine import RunMachine
from airside.stack.run.state import Phase
from airside.stack.values import NULL, Value


class InDoubtCall(Value):
    """A call in doubt: sent, and nobody knows whether it happened.

    It may have happened since `since_us`.  Its run waits until `until_us` for somebody who says, or has ended (0).
    `undo`: it is the undo of a call that nobody can vouch for; the call itself happened.
    `cause` is why nobody knows, as far as it is on record.
    """

    run_id: RunId
    tenant: TenantId
    step: int
    tool: str
    arguments: dict[str, Any]
    key: EffectKey
    since_us: int
    until_us: int = 0
    undo: bool = False
    cause: str = ""


class EffectResolved(Value, tag="EffectSettled"):
    """A person found out what became of a call whose run had ended: it happened (with this result), or it did not."""

    at_us: int
    run_id: RunId
    step: int
    key: EffectKey
    by: PrincipalId
    happened: bool
    output: Raw = NULL
    note: str = ""

    def __str__(self) -> str:
        return (
            f"{self.by} resolved {self.key}: it {'happened' if self.happened else 'did not happen'} {self.note}".strip()
        )


_decoder = msgspec.json.Decoder(EffectResolved)


def resolution_stream(key: EffectKey) -> str:
    """Return the journal's stream of what was found out about a key."""
    return f"doubt/{key}"


def decode_resolution(body: bytes | str) -> EffectResolved:
    """Decode a journaled resolution."""
    return _decoder.decode(body)


def resolution_append(resolved: EffectResolved, tenant: TenantId) -> Append:
    """Return the append that puts a resolution on record; the same one again is the same entry, another is fenced."""
    return append_of(tenant, resolution_stream(resolved.key), [resolved])


def in_doubt_calls(events: Sequence[ev.Event]) -> list[InDoubtCall]:
    """Return what a run is in doubt about, or ended in doubt about, by its events alone.

    What was resolved after its end is not among them: that is in the keys' own streams.
    """
    first = events[0]
    assert isinstance(first, ev.RunSubmitted)
    machine = RunMachine(first)
    causes: dict[int, str] = {}
    until_us = 0
    for event in events[1:]:
        machine.handle(event)
        causes |= _cause(event)
        if machine.state.phase is Phase.IN_DOUBT:  # each activation waits anew
            causes.setdefault(machine.state.step, "the process that had sent it died before the answer came")
            until_us = event.at_us + machine.limits.doubt_wait_s * 1_000_000
    state = machine.state
    sent: dict[str, SentCall] = {call.first.key: call for call in call_history(events)}
    if state.phase is Phase.IN_DOUBT:
        return [
            _in_doubt_call(first, call, until_us, causes[call.first.step])
            for key, call in sent.items()
            if key in state.in_doubt_keys
        ]
    if not machine.is_over or state.outcome is None:
        return []
    ended = f"the run ended ({state.outcome.reason_code}) while the call was under way"
    keys = state.outcome.in_doubt
    return [_in_doubt_call(first, sent[key], 0, causes.get(sent[key].first.step, ended)) for key in keys]


def _cause(event: ev.Event) -> dict[int, str]:
    """Return why the call of a step is in doubt, if an event says."""
    if isinstance(event, ev.ToolExecuted) and event.result.reason_code in UNKNOWN_OUTCOMES:
        return {event.step: event.result.error}
    if isinstance(event, ev.ExecutionLost) and event.started:
        return {event.step: f"the answer was lost: {event.error}"}
    return {}


def _in_doubt_call(run: ev.RunSubmitted, call: SentCall, until_us: int, cause: str) -> InDoubtCall:
    return InDoubtCall(
        run_id=run.run_id,
        tenant=run.identity.tenant,
        step=call.first.step,
        tool=call.first.tool,
        arguments=msgspec.json.decode(call.gate.arguments),
        key=call.first.key,
        since_us=call.first.at_us,
        until_us=until_us,
        cause=cause,
    )
