"""Runs, drawn: one by its events, or step by step; and a list of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from airside.actors.client.display.drawing import (
    Cell,
    Drawing,
    Lines,
    Part,
    Table,
    Timeline,
    Tone,
    brief,
    code_cell,
    facts,
    lines,
    number_cell,
    table,
    text_cell,
)
from airside.actors.client.display.timeline import timeline_of
from airside.stack.operations.overview import ACTIVE, RunDetail, RunStep, RunSummary, Wait, detail_of, run_status
from airside.stack.operations.quantities import clock, counted, money, span, used
from airside.stack.run import events as ev

_TONES: dict[str, Tone] = {"completed": "good", ACTIVE: "wait", "in_doubt": "wait", "cancelled": "off"}


def tone_of(status: str) -> Tone:
    """Return how a status strikes the eye: what did not go well is seen first."""
    return _TONES.get(status, "bad")


def draw_run(detail: RunDetail, timeline: Timeline | None = None, *, notes: Sequence[str] = ()) -> Drawing:
    """Draw one run: what was asked, what came of it, its time by phase, its steps and waits."""
    run = detail.run
    parts: list[Part] = [] if timeline is None else [timeline]
    if detail.steps:
        parts.append(_steps(detail.steps))
    if timeline is None and detail.waits:
        parts.append(_waits(detail.waits))
    return Drawing(
        title=brief(run.run_id, 80),
        status=_status(run.status, run.reason_code or run.phase),
        tone=tone_of(run.status),
        facts=facts(
            ("request", detail.request),
            ("answer", detail.answer if run.status == "completed" else ""),
            ("why", detail.detail if run.status not in (ACTIVE, "completed") else ""),
            ("asked by", f"{run.principal}@{run.tenant}, {clock(run.submitted_us)}"),
            ("job", run.job_id),
            ("route", run.route if run.route != "default" else ""),
            ("branch of", run.parent),
            ("labels", ", ".join(detail.labels)),
            ("in doubt", ", ".join(detail.in_doubt)),
            ("used", _used(run) if run.status != ACTIVE else ""),
        ),
        parts=tuple(parts),
        notes=(*how_to_resolve(run.run_id, detail.in_doubt), *notes),
    )


def how_to_resolve(run_id: str, in_doubt: Sequence[str]) -> Iterator[str]:
    """Yield what is to be done about the calls that an ended run is in doubt about, none if there are none."""
    if not in_doubt:
        return
    name = run_id if len(in_doubt) == 1 else in_doubt[0]
    also = " (each by its key)" if len(in_doubt) > 1 else ""
    yield "While stack.in_doubt() lists it, find out what became of it, and say so."
    yield f"In Python{also}: stack.resolve({brief(name)!r}, happened=True), or =False."
    yield f"In a shell: airside in-doubt resolve {brief(name)} --happened (or --not-happened)."
    yield "A tool that raises ToolError says that nothing was changed, and there is no doubt."


def _status(status: str, why: str) -> str:
    return brief(status if status == why else f"{status} · {why}", 80)


def _used(run: RunSummary) -> str:
    return f"{used(run.steps, run.tool_calls, run.tokens, run.cost_microusd)}, {span(run.active_us)} active"


def _steps(steps: Sequence[RunStep]) -> Table:
    return table("Steps", ("step", "agent", "proposes", "gate", "outcome", "took"), steps, _step)


def _step(step: RunStep) -> Iterable[Cell]:
    gate = " ".join(filter(None, (step.decision, f"by {step.rule}" if step.rule else "", step.code)))
    outcome = f"{step.outcome}: {step.detail}" if step.detail and step.outcome else step.outcome or step.detail
    yield number_cell(step.step)
    yield text_cell(step.agent)
    yield code_cell(f"{step.action}({_arguments(step.arguments)})" if step.action else "")
    yield text_cell(gate, _GATE_TONES.get(step.decision, ""))
    yield text_cell(outcome, "good" if step.outcome in ("ok", "settled") else "bad" if step.outcome else "")
    yield number_cell(span(step.took_us) if step.took_us else "")


_GATE_TONES: dict[str, Tone] = {"allow": "good", "deny": "bad", "require_approval": "wait"}


def _arguments(arguments: Any) -> str:
    """Return arguments in brief, each of them to be seen."""
    if not isinstance(arguments, dict):
        return "" if arguments is None else brief(arguments, 60)
    shown = [f"{brief(name, 30)}={brief(value, 40)}" for name, value in list(arguments.items())[:8]]
    more = len(arguments) - len(shown)
    return ", ".join(shown) + (f", and {more} more" if more else "")


def _waits(waits: Sequence[Wait]) -> Table:
    def row(wait: Wait) -> Iterable[Cell]:
        yield text_cell(wait.kind)
        yield text_cell(wait.what)
        yield text_cell(clock(wait.since_us))
        yield number_cell(span(wait.until_us - wait.since_us) if wait.until_us else "still does")

    return table("Waits", ("waited for", "what", "since", "for"), waits, row)


def draw_handle(run_id: str, events: Sequence[ev.Event], problem: str, *, now_us: int) -> Drawing:
    """Draw a run by its events; by `problem` why there are none."""
    if not events:
        return Drawing(title=brief(run_id, 80), status="not shown", notes=(brief(problem, 400),))
    detail = detail_of(events)
    return draw_run(detail, timeline_of(events, now_us=now_us), notes=tuple(_how_it_goes_on(detail)))


_WAITS_FOR_PEOPLE = {
    "approval": ("It waits for a person", "stack.approvals() lists what is to be decided, and by whom."),
    "doubt": ("It waits to be told what became of a call", "stack.in_doubt(), and stack.resolve(...)."),
}
"""What is said of a run's wait, and how people end it."""


def standing_of(events: Sequence[ev.Event], problem: str) -> str:
    """Return in a few words where a run stands by its events, in those of its card; by `problem` why there are none."""
    if not events:
        return problem
    phase, waits = run_status(events)
    said = [_waiting(wait) for wait in waits if _is_for_people(wait)]
    return f"{said[-1][0].lower()}{said[-1][1:]}" if said else phase


def _is_for_people(wait: Wait) -> bool:
    return not wait.until_us and wait.kind in _WAITS_FOR_PEOPLE


def _waiting(wait: Wait) -> str:
    said, _ = _WAITS_FOR_PEOPLE[wait.kind]
    return f"{said}: {brief(wait.what, 300)}" if wait.what else said


def _how_it_goes_on(detail: RunDetail) -> Iterator[str]:
    """Yield what a run that has not ended waits for, and how that is given."""
    if detail.run.status != ACTIVE:
        return
    for wait in detail.waits:
        if _is_for_people(wait):
            yield f"{_waiting(wait)}; {_WAITS_FOR_PEOPLE[wait.kind][1]}"
    yield f"stack.handle({detail.run.run_id!r}).result() waits for its end."


def draw_runs(runs: Sequence[RunSummary]) -> Drawing:
    """Draw a list of runs."""
    head = ("run", "submitted", "who", "job", "status", "steps", "tokens", "cost", "active")
    return Drawing(
        title=counted(len(runs), "run"),
        parts=(table("", head, runs, _run),) if runs else (),
        notes=("stack.inspect(run_id) shows one step by step, stack.handle(run_id) waits for it.",) if runs else (),
    )


def draw_summary(run: RunSummary) -> Drawing:
    """Draw one line of a list of runs."""
    return draw_run(RunDetail(run=run, request=""), notes=(f"stack.inspect({run.run_id!r}) shows it step by step.",))


def _run(run: RunSummary) -> Iterable[Cell]:
    is_over = run.status != ACTIVE
    yield code_cell(run.run_id)
    yield text_cell(clock(run.submitted_us))
    yield text_cell(f"{run.principal}@{run.tenant}")
    yield text_cell(run.job_id)
    yield text_cell(_status(run.status, run.reason_code or run.phase), tone_of(run.status))
    yield number_cell(run.steps if is_over else "")
    yield number_cell(run.tokens if is_over else "")
    yield number_cell(money(run.cost_microusd) if is_over else "")
    yield number_cell(span(run.active_us) if is_over else "")


def draw_story(text: str, timeline: Timeline | None = None) -> Drawing:
    """Draw a run's story: its time by phase, and its lines."""
    first, *rest = text.split("\n") if text else ["(nothing)"]
    told: Lines = lines("", rest, _line_tone)
    notes = ("print(...) shows all of it.",) if told.gap else ()
    parts: tuple[Part, ...] = (told,) if rest else ()
    return Drawing(title=brief(first), parts=(timeline, *parts) if timeline else parts, notes=notes)


def _line_tone(line: str) -> Tone:
    if " gate: deny" in line or " failed" in line or "refused" in line:
        return "bad"
    if " gate: require_approval" in line or " approval: " in line:
        return "wait"
    if "ended: completed" in line:
        return "good"
    return "bad" if "  ended: " in line else ""
