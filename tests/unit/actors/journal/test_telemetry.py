"""Spans and metrics come from the journaled events, carry the derived ids, and go nowhere by default."""

from __future__ import annotations

import msgspec
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from airside.actors.journal.telemetry import Telemetry, tracer_provider
from airside.stack.ids import EffectKey, RunId, parse_principal, parse_tenant
from airside.stack.journal.journaling import Append
from airside.stack.journal.stream import entry_of
from airside.stack.reasons import ReasonCode
from airside.stack.run import events as ev
from airside.stack.run.spans import span_id, spans_of, trace_id, traceparent
from airside.stack.run.topology import Visit
from airside.stack.values import Action, Decision, Identity, Limits, Outcome, Request, ToolResult, Usage

RUN = RunId("run_" + "0" * 24)


def events() -> list[ev.Event]:
    """Return a short run that called one tool."""
    identity = Identity(principal=parse_principal("ana"), tenant=parse_tenant("acme"))
    allow = Decision(outcome="allow", reason_code=ReasonCode.ALLOWED, rule="reads", policy_version="v1")
    done = Outcome(status="completed", reason_code=ReasonCode.COMPLETED)
    key = EffectKey(f"{RUN}:1")
    return [
        ev.RunSubmitted(
            at_us=0,
            run_id=RUN,
            identity=identity,
            sealed="",
            request=Request(text="x"),
            limits=Limits(),
            app_version="1",
        ),
        ev.RunActivated(at_us=1_000, epoch=1),
        ev.RoutePlanned(at_us=2_000, cause=1, step=1, route=Visit(agent="clerk")),
        ev.StepDecided(at_us=5_000, cause=2, step=1, agent="clerk", proposal=Action(tool="lookup")),
        ev.ActionGated(at_us=6_000, cause=3, step=1, attempt=1, decision=allow, tool="lookup", effect="read"),
        ev.EffectIntended(at_us=6_500, cause=4, step=1, attempt=1, key=key, tool="lookup", digest=""),
        ev.ToolExecuted(at_us=9_000, cause=5, step=1, attempt=1, result=ToolResult(ok=True)),
        ev.RunEnded(at_us=10_000, cause=6, outcome=done, usage=Usage(steps=1)),
    ]


def appends() -> list[Append]:
    """Return the run as two appends, the second one sent twice."""
    entries = [entry_of(event) for event in events()]
    first = Append(tenant=parse_tenant("acme"), stream=RUN, epoch=1, first_seq=0, entries=tuple(entries[:4]))
    second = Append(tenant=parse_tenant("acme"), stream=RUN, epoch=1, first_seq=4, entries=tuple(entries[4:7]))
    last = Append(tenant=parse_tenant("acme"), stream=RUN, epoch=1, first_seq=7, entries=tuple(entries[7:]))
    return [first, second, second, last]


def test_a_run_is_one_trace_with_a_span_a_phase() -> None:
    """The run's span holds its phases, each from its cause to its event."""
    exporter = InMemorySpanExporter()
    telemetry = Telemetry(tracer_provider(SimpleSpanProcessor(exporter)))
    telemetry.take(appends())
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert set(spans) == {"invoke_agent default", "plan", "decide", "gate", "execute_tool lookup"}
    root = spans["invoke_agent default"]
    assert {span.context.trace_id for span in spans.values()} == {int(trace_id(RUN), 16)}
    assert root.context.span_id == int(span_id(RUN), 16)
    assert all(s.parent.span_id == root.context.span_id for n, s in spans.items() if s is not root)
    decide = spans["decide"]
    assert (decide.start_time, decide.end_time) == (2_000_000, 5_000_000)
    assert decide.attributes["gen_ai.agent.name"] == "clerk"
    assert spans["gate"].attributes["airside.rule"] == "reads"


def test_metrics_count_runs_by_status_and_reason() -> None:
    """A run is counted once, however often an append was repeated."""
    reader = InMemoryMetricReader()
    Telemetry(None, MeterProvider([reader])).take(appends())
    metrics = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
    runs = next(metric for metric in metrics if metric.name == "airside.runs").data.data_points
    assert [(dict(p.attributes), p.value) for p in runs] == [({"status": "completed", "reason_code": "completed"}, 1)]


def test_nothing_is_exported_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the standard variables there is no exporter, and events are not even kept."""
    for name in (
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    ):
        monkeypatch.delenv(name, raising=False)
    telemetry = Telemetry.from_environment()
    telemetry.take(appends())
    assert not telemetry._live


def test_a_child_belongs_to_its_root_run_s_trace() -> None:
    """A tool that was given the traceparent joins the trace of the whole tree."""
    child = RunId(f"{RUN}.1-0")
    assert traceparent(child).split("-")[1] == trace_id(RUN)
    assert span_id(child) != span_id(RUN)


def test_an_unfinished_run_has_no_spans() -> None:
    """Spans are made when a run has ended."""
    assert spans_of(events()[:-1]) == []
    assert len(spans_of([msgspec.structs.replace(e) for e in events()])) == 5
