"""What an agent is shown of a run: as it is, or as it was at each decision on record."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from airside.stack.contracts.memory import Recalled
from airside.stack.run import events as ev
from airside.stack.run.agents import ModelAccess, View
from airside.stack.run.earlier import EarlierDecision, earlier_decisions
from airside.stack.run.machine import RunMachine
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.values import Limits


def view_of(
    machine: RunMachine,
    *,
    agent: str,
    step: int,
    cause: int,
    recalled: tuple[Recalled, ...],
    remaining: Limits,
    tools: tuple[ToolSpec, ...],
    models: ModelAccess | None,
    earlier: Callable[[], Awaitable[tuple[EarlierDecision, ...]]] | None = None,
) -> View:
    """Return what an agent decides on at the present state of a run.

    Without `earlier` its earlier decisions are told without what models answered for them.
    """
    s = machine.state

    async def without_answers() -> tuple[EarlierDecision, ...]:
        return earlier_decisions(machine.events, machine.state.history, agent)

    identity = s.submitted.identity
    return View(
        run_id=s.submitted.run_id,
        tenant=identity.tenant,
        principal=identity.principal,
        agent=agent,
        step=step,
        request=s.submitted.request,
        history=s.history,
        finished=s.finished,
        branches=s.branches or (),
        message=s.message,
        recalled=recalled,
        remaining=remaining,
        tools=tools,
        labels=s.labels,
        cause=cause,
        models=models,
        earlier=earlier or without_answers,
    )


class RecordedDecision(NamedTuple):
    """A decision on record, and the run as it stood when its agent was asked.

    `recalled` says what memory it was made with, None if with none.  `machine` goes on with the next one.
    """

    machine: RunMachine
    event: ev.StepDecided | ev.DecideFailed
    recalled: ev.MemoryRecalled | None


def recorded_views(events: Sequence[ev.Event]) -> Iterator[RecordedDecision]:
    """Yield the decisions of a run, oldest first.

    One that was asked for again after a crash is one: what the first activation would have decided is not on record.
    """
    first = events[0]
    assert isinstance(first, ev.RunSubmitted)
    machine = RunMachine(first)
    recalled: ev.MemoryRecalled | None = None
    for event in events[1:]:
        if isinstance(event, ev.RunActivated):
            recalled = None  # an activation begins with none
        elif isinstance(event, ev.MemoryRecalled):
            recalled = event
        elif isinstance(event, ev.StepDecided | ev.DecideFailed):
            yield RecordedDecision(machine, event, recalled)
        machine.handle(event)


def first_decisions(events: Iterable[ev.Event]) -> dict[int, ev.ActionGated]:
    """Return what policy first said of each call of a run, by step."""
    found: dict[int, ev.ActionGated] = {}
    for event in events:
        if isinstance(event, ev.ActionGated):
            found.setdefault(event.step, event)
    return found
