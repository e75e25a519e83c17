"""A run as spans, derived from its events: one trace a run, one span a phase.  Pure: no OpenTelemetry here.

The trace id is derived from the root run's id, so a tool that was given the run's `traceparent` joins the same trace.
So does what an agent calls by that of its decision, whose span is known before there is an event of it.
Names are OpenTelemetry's where it has any (`stack/run/genai_names.py`), and `airside.*` elsewhere.  Questions to models
are spans below those of their decisions (`stack/models/spans.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from airside.stack.ids import RunId, effect_key
from airside.stack.reasons import ReasonCode
from airside.stack.run import events as ev
from airside.stack.run import genai_names as genai
from airside.stack.run.intents import call_history
from airside.stack.values import Action, Value


class SpanSpec(Value):
    """One span: ids are hex as in W3C trace context, times UTC microseconds."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str | None
    start_us: int
    end_us: int
    attributes: dict[str, Any]
    ok: bool = True
    message: str = ""


def trace_id(run_id: RunId) -> str:
    """Return the trace of a run and of all its children: 32 hex digits."""
    return hashlib.sha256(run_id.partition(".")[0].encode()).hexdigest()[:32]


def span_id(run_id: RunId, number: int = -1) -> str:
    """Return the span of a run (`number` -1) or of one of its events: 16 hex digits."""
    return hashlib.sha256(f"{run_id}#{number}".encode()).hexdigest()[:16]


def decision_span_id(run_id: RunId, cause: int) -> str:
    """Return the span of a decision by the event that it is asked for because of, which no other decision has."""
    return hashlib.sha256(f"{run_id}#decide#{cause}".encode()).hexdigest()[:16]


def named_span_id(stream: str, number: int) -> str:
    """Return the span of an entry of a stream that is no run's: 16 hex digits."""
    return hashlib.sha256(f"{stream}#{number}".encode()).hexdigest()[:16]


def parent_of(traceparent: str) -> str:
    """Return the span that a W3C trace context names, nothing for what is none."""
    parts = traceparent.split("-")
    return parts[2] if len(parts) == 4 else ""


def traceparent(run_id: RunId) -> str:
    """Return the W3C trace context of a run's own span."""
    return f"00-{trace_id(run_id)}-{span_id(run_id)}-01"


def decision_traceparent(run_id: RunId, cause: int) -> str:
    """Return the W3C trace context of a decision's span."""
    return f"00-{trace_id(run_id)}-{decision_span_id(run_id, cause)}-01"


_PHASES: dict[type[ev.Event], str] = {
    ev.RoutePlanned: "plan",
    ev.RouteFailed: "plan",
    ev.MemoryRecalled: "recall",
    ev.RecallFailed: "recall",
    ev.SpendReserved: "reserve",
    ev.SpendRefused: "reserve",
    ev.StepDecided: "decide",
    ev.DecideFailed: "decide",
    ev.ActionGated: "gate",
    ev.ApprovalDecided: "approve",
    ev.ToolExecuted: "execute_tool",
    ev.ExecutionLost: "execute_tool",
    ev.MemoryLearned: "learn",
}
LOST = "execution_lost"
"""The type of the error of a call that nobody knows the outcome of."""


def spans_of(events: Sequence[ev.Event]) -> list[SpanSpec]:
    """Return the spans of a finished run, the run's own first."""
    first, last = events[0], events[-1]
    if not isinstance(first, ev.RunSubmitted) or not isinstance(last, ev.RunEnded):
        return []
    run_id, trace = first.run_id, trace_id(first.run_id)
    spans = [_run_span(first, last, trace, events)]
    tools = {call.latest.step: call.latest.tool for call in call_history(events)}
    for number, event in enumerate(events):
        phase = _PHASES.get(type(event))
        if phase is None:
            continue
        began = events[event.cause].at_us if 0 <= event.cause < number else events[number - 1].at_us
        attributes = _attributes(event)
        step = attributes["airside.step"]
        detail = tools.get(step, "") if phase == genai.EXECUTE_TOOL else ""
        if detail:
            attributes[genai.TOOL] = detail
            attributes[genai.TOOL_CALL] = effect_key(run_id, step)
        spans.append(
            SpanSpec(
                name=f"{phase} {detail}".strip(),
                trace_id=trace,
                span_id=decision_span_id(run_id, event.cause) if phase == "decide" else span_id(run_id, number),
                parent_id=span_id(run_id),
                start_us=min(began, event.at_us),
                end_us=event.at_us,
                attributes=attributes,
                ok=genai.ERROR_TYPE not in attributes,
            )
        )
    return spans


def _run_span(first: ev.RunSubmitted, last: ev.RunEnded, trace: str, events: Sequence[ev.Event]) -> SpanSpec:
    outcome = last.outcome
    agents = {event.agent for event in events if isinstance(event, ev.StepDecided | ev.DecideFailed)}
    is_ok = outcome.status == "completed"
    attributes = {
        genai.OPERATION: genai.INVOKE_AGENT,
        genai.CONVERSATION: first.run_id,
        genai.AGENT: agents.pop() if len(agents) == 1 else first.request.route,
        genai.AGENT_VERSION: first.app_version,
        "airside.tenant": first.identity.tenant,
        "airside.principal": first.identity.principal,
        "airside.route": first.request.route,
        "airside.status": outcome.status,
        "airside.reason_code": str(outcome.reason_code),
        "airside.steps": last.usage.steps,
        "airside.cost_microusd": last.usage.cost_microusd,
        "airside.tokens": last.usage.tokens,
    }
    if not is_ok:
        attributes[genai.ERROR_TYPE] = str(outcome.reason_code)
    return SpanSpec(
        name=f"{genai.INVOKE_AGENT} {first.request.route}",
        trace_id=trace,
        span_id=span_id(first.run_id),
        parent_id=span_id(first.parent) if first.parent else None,
        start_us=first.at_us,
        end_us=last.at_us,
        attributes=attributes,
        ok=is_ok,
        message="" if is_ok else str(outcome.reason_code),  # its detail may have what was said in the run
    )


def _attributes(event: ev.Event) -> dict[str, Any]:
    """Return what a span says of its event; one with an error's type is no success."""
    found: dict[str, Any] = {"airside.step": getattr(event, "step", 0)}
    if isinstance(event, ev.StepDecided):
        found[genai.AGENT] = event.agent
        if event.later:
            found["airside.tools"] = [call.tool for call in event.calls.values()]
        elif isinstance(event.proposal, Action):
            found[genai.TOOL] = event.proposal.tool
    elif isinstance(event, ev.ActionGated):
        decision = event.decision
        found[genai.TOOL] = event.tool
        found["airside.decision"] = decision.outcome
        found["airside.rule"] = decision.rule
        found["airside.policy_version"] = decision.policy_version
        found["airside.reason_code"] = str(decision.reason_code)
    elif isinstance(event, ev.ToolExecuted | ev.ExecutionLost):
        found[genai.OPERATION] = genai.EXECUTE_TOOL
        found[genai.TOOL_TYPE] = "function"
        if isinstance(event, ev.ToolExecuted):
            found["airside.ok"] = event.result.ok
            found["airside.reason_code"] = str(event.result.reason_code)
    elif isinstance(event, ev.MemoryRecalled):
        found["airside.records"] = len(event.records)
    if isinstance(event, ev.DecideFailed):
        found[genai.AGENT] = event.agent
    if error := _error_type(event):
        found[genai.ERROR_TYPE] = error
    return found


def _error_type(event: ev.Event) -> str:
    """Return what failures like an event's have in common, nothing for what is none."""
    if isinstance(event, ev.RouteFailed | ev.DecideFailed | ev.SpendRefused):
        return str(event.reason_code)
    if isinstance(event, ev.RecallFailed):
        return str(ReasonCode.MEMORY_UNAVAILABLE)
    if isinstance(event, ev.ToolExecuted) and not event.result.ok:
        return str(event.result.reason_code)
    return LOST if isinstance(event, ev.ExecutionLost) else ""
