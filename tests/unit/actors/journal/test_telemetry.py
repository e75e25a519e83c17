"""Spans and metrics come from the journaled events, carry the derived ids, and go nowhere by default."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv import _incubating
from opentelemetry.trace import StatusCode

from airside.actors.journal.telemetry import Telemetry, tracer_provider
from airside.stack.ids import EffectKey, RunId, parse_principal, parse_tenant
from airside.stack.journal.journaling import Append, Entry
from airside.stack.journal.stream import entry_of
from airside.stack.models.events import ModelAnswered, ModelAsked, ModelEvent, ModelFailed, model_entry, stream_of
from airside.stack.models.spans import attempt_span
from airside.stack.reasons import ReasonCode
from airside.stack.run import events as ev
from airside.stack.run import genai_names
from airside.stack.run.spans import (
    decision_span_id,
    decision_traceparent,
    parent_of,
    span_id,
    spans_of,
    trace_id,
    traceparent,
)
from airside.stack.run.topology import Visit
from airside.stack.values import FREE, Action, Decision, Identity, Limits, Outcome, Request, Spend, ToolResult, Usage

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


STREAM = stream_of(RUN, 1)


def asked(attempt: int = 1) -> ModelAsked:
    """Return an attempt at a question of the run's first decision."""
    return ModelAsked(
        at_us=3_000,
        step=1,
        epoch=1,
        nth=0,
        attempt=attempt,
        model="google:gemini-9",
        prompt_sha256="p",
        reserved=Spend(tokens=900, cost_microusd=90),
        prices="own",
        provider="google",
        span=parent_of(decision_traceparent(RUN, 2)),
    )


def answered(attempt: int = 1) -> ModelAnswered:
    return ModelAnswered(
        at_us=4_500,
        step=1,
        attempt=attempt,
        model="gemini-9-001",
        finish="tool_call",
        text="a secret",
        calls=(),
        input_tokens=70,
        output_tokens=8,
        spent=Spend(tokens=78, cost_microusd=12),
        took_ms=1_500,
    )


def failed(attempt: int = 1) -> ModelFailed:
    return ModelFailed(at_us=4_000, step=1, attempt=attempt, error="busy", spent=FREE, took_ms=10, error_type="429")


def questions(*events: ModelEvent) -> list[Append]:
    """Return what the journal takes in of them, each append sent twice."""
    appends = [
        Append(tenant=parse_tenant("acme"), stream=STREAM, epoch=0, first_seq=seq, entries=(model_entry(event),))
        for seq, event in enumerate(events)
    ]
    return [each for append in appends for each in (append, append)]


def exported(*takes: list[Append]) -> tuple[dict[str, list[object]], list[object]]:
    """Return the points of each metric, and the spans, that appends give."""
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    telemetry = Telemetry(tracer_provider(SimpleSpanProcessor(exporter)), MeterProvider([reader]))
    for appends in takes:
        telemetry.take(appends)
    data = reader.get_metrics_data()
    metrics = data.resource_metrics[0].scope_metrics[0].metrics if data is not None else []
    return {metric.name: list(metric.data.data_points) for metric in metrics}, list(exporter.get_finished_spans())


def test_a_question_to_a_model_is_a_span_below_its_decision() -> None:
    """By the conventions' names, and with nothing of what was asked or answered."""
    _, spans = exported(questions(asked(), answered()), appends())
    chat = next(span for span in spans if span.name == "chat gemini-9")
    decide = next(span for span in spans if span.name == "decide")
    assert chat.parent.span_id == decide.context.span_id == int(decision_span_id(RUN, 2), 16)
    assert chat.context.trace_id == decide.context.trace_id
    assert (chat.start_time, chat.end_time) == (3_000_000, 4_500_000) and chat.status.status_code is StatusCode.OK
    assert dict(chat.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "gcp.gemini",
        "gen_ai.request.model": "gemini-9",
        "gen_ai.response.model": "gemini-9-001",
        "gen_ai.response.finish_reasons": ("tool_call",),
        "gen_ai.usage.input_tokens": 70,
        "gen_ai.usage.output_tokens": 8,
        "gen_ai.conversation.id": RUN,
        "airside.step": 1,
        "airside.attempt": 1,
        "airside.cost_microusd": 12,
    }


def test_what_models_use_and_take_is_measured_once() -> None:
    points, _ = exported(questions(asked(), failed(), asked(2), answered(2)))
    used = {point.attributes["gen_ai.token.type"]: point.sum for point in points["gen_ai.client.token.usage"]}
    assert used == {"input": 70, "output": 8}
    took = {point.attributes.get("error.type"): point for point in points["gen_ai.client.operation.duration"]}
    assert {kind: (point.count, point.sum) for kind, point in took.items()} == {"429": (1, 0.01), None: (1, 1.5)}
    assert took[None].explicit_bounds[-1] == 81.92
    labels = {"gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "error.type"}
    assert set(took["429"].attributes) == labels


def test_an_attempt_that_failed_is_a_span_that_says_how() -> None:
    _, spans = exported(questions(asked(), failed()))
    (chat,) = spans
    assert chat.attributes["error.type"] == "429" and chat.status.status_code is StatusCode.ERROR
    assert chat.attributes["airside.cost_microusd"] == 0


def test_an_attempt_whose_caller_died_ends_where_the_next_one_begins() -> None:
    """What it cost nobody knows: all that was reserved."""
    _, spans = exported(questions(asked(), asked(2), answered(2)))
    assert [span.attributes.get("error.type") for span in spans] == ["unanswered", None]
    assert spans[0].attributes["airside.cost_microusd"] == 90 and spans[0].parent == spans[1].parent


def test_a_call_that_failed_is_a_span_that_says_so() -> None:
    lost = [
        event
        if not isinstance(event, ev.ToolExecuted)
        else ev.ToolExecuted(
            at_us=9_000, cause=5, step=1, attempt=1, result=ToolResult(ok=False, reason_code=ReasonCode.TOOL_FAILED)
        )
        for event in events()
    ]
    call = next(span for span in spans_of(lost) if span.name == "execute_tool lookup")
    assert not call.ok and call.attributes["error.type"] == str(ReasonCode.TOOL_FAILED)
    assert call.attributes["gen_ai.tool.call.id"] == f"{RUN}:1" and call.attributes["gen_ai.tool.type"] == "function"


def test_a_run_is_named_by_its_agent_where_it_has_one() -> None:
    run = spans_of(events())[0]
    assert run.attributes["gen_ai.agent.name"] == "clerk" and "error.type" not in run.attributes


def test_the_names_are_those_of_the_conventions() -> None:
    """By the package that is installed: a new release that calls one something else is noticed."""
    text = "".join(
        path.read_text("utf-8") for folder in _incubating.__path__ for path in sorted(Path(folder).rglob("gen_ai_*.py"))
    )
    known = set(re.findall(r'"([\w.]+)"', text)) | {"error.type", "_OTHER"}
    names = {value for name, value in vars(genai_names).items() if name.isupper() and isinstance(value, str)}
    assert names - known == set() and set(genai_names.PROVIDERS.values()) <= known


def test_what_a_provider_says_of_a_failure_is_in_no_span() -> None:
    """Its text may echo what it was asked; the type of the failure is enough to tell it by."""
    end = msgspec.structs.replace(failed(), error="bad request: 'my secret prompt'")
    span = attempt_span(STREAM, asked(), end, 4_000)
    assert span.message == "429" and "secret" not in repr(span)


def test_an_append_that_cannot_be_read_costs_no_other_its_spans() -> None:
    entry = Entry(type="RunSubmitted", step=0, at_us=1, cause=0, body=b"{torn")
    torn = Append(tenant=parse_tenant("acme"), stream=RUN, epoch=0, first_seq=0, entries=(entry,))
    _, spans = exported([torn, *questions(asked(), answered())])
    assert spans
