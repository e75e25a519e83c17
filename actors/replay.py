"""Replaying a run of a journal with another agent: no stack is started, and one that runs is only read."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from airside.actors.app import ValidatedApp
from airside.actors.audit import Audit, JournalFile, run_named
from airside.actors.client.client import Stack
from airside.actors.journal.run_names import RunName
from airside.actors.models.keys import keys_of
from airside.actors.models.ports import ports_of
from airside.actors.rpc.layer import now_us
from airside.memory.records import Record
from airside.memory.storage.store import read_records
from airside.stack.contracts.memory import Recalled
from airside.stack.contracts.models import RecordedAnswer
from airside.stack.cycle.replay import Clocks, PolicyPreview, Replay, ReplayedStep
from airside.stack.errors import InvalidInput
from airside.stack.ids import RunId, TenantId
from airside.stack.models.events import ModelEvent, answers_on_record, read_events
from airside.stack.policy.bundle import load_bundle
from airside.stack.run.events import Event, MemoryRecalled, RunSubmitted
from airside.stack.run.recorded_run import events_of
from airside.stack.values import Value


class ReplayReport(Value):
    """A run on record beside what another agent would have proposed.

    `recorded_version` is that of the app at the time: the tools and the policy of a replay are those of `version`.
    """

    run_id: str
    agent: str
    recorded_version: str
    version: str
    steps: tuple[ReplayedStep, ...]
    tokens: int
    cost_microusd: int


def replay_run(
    journal: Audit,
    run_id: RunName,
    app: ValidatedApp,
    agent: str,
    *,
    state_dir: Path,
    max_cost_microusd: int,
    instead_of: str = "",
) -> ReplayReport:
    """Return what an agent of an app would have proposed at each decision of a run on record.

    Models are asked with the keys of this process's environment, for at most that much in all.  Raises `InvalidInput`
    for a run that the journal has no decision of, and for an agent that the app does not have.
    """
    if agent not in app.agents:
        raise InvalidInput(f"the app has no agent {agent!r:.80}; there are {', '.join(sorted(app.agents))}")
    events = events_of(journal, run_named(journal, run_id))
    submitted = events[0]
    assert isinstance(submitted, RunSubmitted)
    replay = Replay(
        app.agents[agent],
        specs=app.specs,
        preview=PolicyPreview(load_bundle(app.bundle), app.specs, secrets.token_bytes(32), app.app.version),
        models=ports_of(app.endpoints, keys_of(app.endpoints)),
        clocks=Clocks(now_us=now_us, now_s=time.monotonic, sleep=asyncio.sleep),
        app_version=app.app.version,
        max_cost_microusd=max_cost_microusd,
    )
    memory = _memory(journal, state_dir, submitted.identity.tenant, events)
    answers = _answers(journal, submitted.run_id)
    steps = asyncio.run(replay.steps(events, memory, answers=answers, instead_of=instead_of))
    return ReplayReport(
        run_id=submitted.run_id,
        agent=agent,
        recorded_version=submitted.app_version,
        version=app.app.version,
        steps=tuple(steps),
        tokens=replay.spent.tokens,
        cost_microusd=replay.spent.cost_microusd,
    )


_QUESTIONS = "SELECT step, body FROM events WHERE starts_with(stream, 'model/' || ? || ':') ORDER BY stream, seq"


def _answers(journal: Audit, run_id: RunId) -> dict[int, tuple[RecordedAnswer, ...]]:
    """Return what models answered to the decisions of a run, by step."""
    asked: dict[int, list[ModelEvent]] = {}
    for row in journal.query(_QUESTIONS, [run_id]).to_pylist():
        asked.setdefault(row["step"], []).extend(read_events([row["body"]]))
    return {step: tuple(answers_on_record(events).values()) for step, events in asked.items()}


def _memory(journal: Audit, state_dir: Path, tenant: TenantId, events: Sequence[Event]) -> Mapping[str, Recalled]:
    """Return the memory records that a run was shown, those that are still kept: the journal has their ids alone."""
    shown = {record_id for event in events if isinstance(event, MemoryRecalled) for record_id, _ in event.records}
    if not shown:
        return {}
    if isinstance(journal, Stack):
        kept = journal.memory.records(tenant=tenant)
    else:
        assert isinstance(journal, JournalFile)
        kept = read_records(state_dir / "memory", tenant)
    return {record.record_id: _recalled(record) for record in kept if record.record_id in shown}


def _recalled(record: Record) -> Recalled:
    """Return a record as an agent is shown it; how it was found then is not on record, but for its score."""
    return Recalled(
        record_id=record.record_id,
        text=record.text,
        score=0.0,
        source="; ".join(record.sources),
        sensitivity=record.sensitivity,
        kind=record.kind,
        created_us=record.created_us,
        expires_us=record.expires_us,
        trust=record.trust,
        importance=record.importance,
        subject=record.subject,
        labels=record.labels,
        met=record.met,
    )
