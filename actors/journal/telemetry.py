"""Spans and metrics from the journal's events, exported as OpenTelemetry's environment variables say; off by default.

Nothing is measured twice: a span is read off the same durable events as the audit.
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags, set_span_in_context

from airside.stack.journal.journaling import ENDED, Append
from airside.stack.models.events import MODEL_STREAMS, ModelAnswered, ModelAsked, ModelFailed, read_events
from airside.stack.models.spans import attempt_span, measured
from airside.stack.run import genai_names as genai
from airside.stack.run.events import Event, decode_event
from airside.stack.run.spans import SpanSpec, spans_of

logger = logging.getLogger("airside")

_LIVE_RUNS = 50_000
"""Runs whose events are kept until they end; beyond it the oldest go without spans.  So with questions to models."""


@dataclass(slots=True)
class _Questions:
    """What was taken in of a decision's questions: so many entries, and the attempt that is under way."""

    taken: int = 0
    asked: ModelAsked | None = None


class Telemetry:
    """Collects the events of live runs and emits a run's spans and metrics when it ends; those of a question to a model
    when that has ended, which may be later.
    """

    def __init__(self, tracer_provider: Any = None, meter_provider: Any = None) -> None:
        self._tracer_provider = tracer_provider
        self._meter_provider = meter_provider
        self._live: OrderedDict[str, list[Event]] = OrderedDict()
        self._questions: OrderedDict[str, _Questions] = OrderedDict()
        if meter_provider is not None:
            meter = meter_provider.get_meter("airside")
            self._runs = meter.create_counter("airside.runs", description="Runs ended, by status and reason code")
            self._steps = meter.create_counter("airside.steps", description="Steps taken")
            self._duration = meter.create_histogram("airside.run.duration", unit="s")
            self._tokens = meter.create_histogram(
                genai.TOKEN_USAGE, unit="{token}", explicit_bucket_boundaries_advisory=genai.TOKEN_BUCKETS
            )
            self._asking = meter.create_histogram(
                genai.OPERATION_DURATION, unit="s", explicit_bucket_boundaries_advisory=genai.DURATION_BUCKETS
            )

    @classmethod
    def from_environment(cls) -> Telemetry:
        """Export by OTLP if `OTEL_EXPORTER_OTLP_ENDPOINT` (or the traces' or metrics' own) is set."""
        base = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
        traces = base or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        metrics = base or os.environ.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")
        return cls(_otlp_traces() if traces else None, _otlp_metrics() if metrics else None)

    def take(self, appends: Sequence[Append]) -> None:
        """Take in durable events; a failure here is logged, and neither the journal's nor the next one's."""
        if self._tracer_provider is None and self._meter_provider is None:
            return
        for append in appends:
            try:
                self._take(append)
            except Exception:
                logger.exception("telemetry failed", extra={"action": "telemetry_failed"})

    def _take(self, append: Append) -> None:
        if append.stream.startswith(MODEL_STREAMS):
            self._take_questions(append)
            return
        if not append.stream.startswith("run_"):
            return
        kept = self._live.setdefault(append.stream, [])
        # A retried append carries entries that were taken in before.
        kept += [decode_event(entry.body) for entry in append.entries[max(0, len(kept) - append.first_seq) :]]
        if len(self._live) > _LIVE_RUNS:
            self._live.popitem(last=False)
        if any(entry.type in ENDED for entry in append.entries):
            spans = spans_of(self._live.pop(append.stream))
            self._count(spans)
            self._emit(spans)

    def _take_questions(self, append: Append) -> None:
        """Take in attempts at a decision's questions, which are asked one after the other, and what came of them."""
        stream = append.stream
        kept = self._questions.setdefault(stream, _Questions())
        if len(self._questions) > _LIVE_RUNS:
            self._questions.popitem(last=False)
        fresh = append.entries[max(0, kept.taken - append.first_seq) :]
        kept.taken = max(kept.taken, append.first_seq + len(append.entries))
        for event in read_events(entry.body.decode() for entry in fresh):
            asked = kept.asked
            if isinstance(event, ModelAsked):
                if asked is not None:  # its caller died
                    self._emit([attempt_span(stream, asked, None, event.at_us)])
                kept.asked = event
            elif asked is not None and asked.attempt == event.attempt:
                kept.asked = None
                self._emit([attempt_span(stream, asked, event, event.at_us)])
                self._measure(asked, event)

    def _measure(self, asked: ModelAsked, end: ModelAnswered | ModelFailed) -> None:
        if self._meter_provider is None:
            return
        labels = measured(asked, end)
        self._asking.record(end.took_ms / 1000, labels)
        if isinstance(end, ModelAnswered):
            for kind, tokens in ((genai.INPUT, end.input_tokens), (genai.OUTPUT, end.output_tokens)):
                if tokens is not None:
                    self._tokens.record(tokens, {**labels, genai.TOKEN_TYPE: kind})

    def _emit(self, spans: Iterable[SpanSpec]) -> None:
        if self._tracer_provider is not None:
            for span in spans:
                emit(self._tracer_provider, span)

    def _count(self, spans: list[SpanSpec]) -> None:
        if self._meter_provider is None or not spans:
            return
        run = spans[0]
        labels = {name: run.attributes[f"airside.{name}"] for name in ("status", "reason_code")}
        self._runs.add(1, labels)
        self._steps.add(run.attributes["airside.steps"])
        self._duration.record((run.end_us - run.start_us) / 1e6, labels)

    def close(self) -> None:
        """Send what waits."""
        for provider in (self._tracer_provider, self._meter_provider):
            if provider is not None:
                provider.shutdown()


class _DerivedIds(IdGenerator):
    """Gives a span the ids its events imply."""

    def __init__(self) -> None:
        self.next = (0, 0)

    def generate_trace_id(self) -> int:
        """Return the trace id of the span about to be made."""
        return self.next[0]

    def generate_span_id(self) -> int:
        """Return the span id of the span about to be made."""
        return self.next[1]


def tracer_provider(*processors: SpanProcessor) -> TracerProvider:
    """Return a provider whose spans carry the ids derived from runs."""
    resource = Resource.create({"service.name": "airside"})
    provider = TracerProvider(resource=resource, id_generator=_DerivedIds())
    for processor in processors:
        provider.add_span_processor(processor)
    return provider


def emit(provider: TracerProvider, span: SpanSpec) -> None:
    """Make and end one span with the ids and times it has already."""
    trace, own = int(span.trace_id, 16), int(span.span_id, 16)
    ids = provider.id_generator
    assert isinstance(ids, _DerivedIds), "use tracer_provider()"
    ids.next = (trace, own)
    context = Context()
    if span.parent_id:
        parent = SpanContext(trace, int(span.parent_id, 16), False, TraceFlags(TraceFlags.SAMPLED))
        context = set_span_in_context(NonRecordingSpan(parent), context)
    made = provider.get_tracer("airside").start_span(
        span.name, context=context, attributes=span.attributes, start_time=span.start_us * 1000
    )
    made.set_status(Status(StatusCode.OK) if span.ok else Status(StatusCode.ERROR, span.message))
    made.end(end_time=span.end_us * 1000)


def _otlp_traces() -> Any:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return tracer_provider(BatchSpanProcessor(OTLPSpanExporter()))


def _otlp_metrics() -> Any:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    return MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())])
