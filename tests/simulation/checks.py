"""What must hold when a seed has been played."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from airside.stack.canonical import canonical
from airside.stack.errors import AirsideError
from airside.stack.ids import RunId
from airside.stack.reasons import ReasonCode
from airside.stack.run.events import (
    ActionGated,
    ChildEnded,
    MemoryRecalled,
    RoutePlanned,
    RunActivated,
    RunEnded,
    StepDecided,
    ToolExecuted,
    decode_event,
    encode_event,
)
from airside.stack.run.machine import RunMachine
from airside.stack.values import tag_of
from tests.simulation.ledger import KINDS
from tests.simulation.world import World


def check_all(world: World) -> None:
    """Report every promise that was broken."""
    _acknowledged(world)
    for run_id in world.driver.submitted:
        try:
            events = [decode_event(body) for body in world.journal.local.bodies_of(run_id)]
        except msgspec.ValidationError as error:
            world.violation(f"{run_id}: the journal cannot be read back: {error}")
            continue
        _ended_once(world, run_id, events)
        _activated_and_told_once(world, run_id, events)
        _effects(world, run_id, events)
        _replays(world, run_id, events)
        _told(world, run_id, events)
        _answered(world, run_id, events)
    _asked_once(world)
    _budgets(world)
    _forgotten(world)
    for run in world.plan.runs:
        if run.run_id not in world.driver.submitted:
            world.violation(f"{run.run_id}: never submitted")


def _acknowledged(world: World) -> None:
    """Nothing that was acknowledged is lost, and it stands where it was put."""
    for append in world.journal.acknowledged:
        stream = world.journal.local.streams.get(append.stream, [])
        kept = tuple(stream[append.first_seq : append.first_seq + len(append.entries)])
        if kept != append.entries:
            world.violation(f"{append.stream}: what was acknowledged at {append.first_seq} is not there")


def _forgotten(world: World) -> None:
    """Memory has nothing of a run that was shown what was erased, itself or in a branch, as its journal says."""
    shown: dict[str, set[str]] = {}
    for run_id in world.journal.local.streams:
        for body in world.journal.local.bodies_of(run_id) if run_id in world.driver.submitted else ():
            event = decode_event(body)
            if isinstance(event, MemoryRecalled):
                shown.setdefault(run_id, set()).update(record_id for record_id, _ in event.records)
    for tenant in world.plan.tenants:
        for record in world.memory.records(tenant):
            for source in record.sources:
                run_id = source.partition("#")[0]
                below = [ids for other, ids in shown.items() if other == run_id or other.startswith(f"{run_id}.")]
                if any(not ids.isdisjoint(world.forgotten) for ids in below):
                    world.violation(f"{record.record_id} is what {run_id} said of what was erased")


def _asked_once(world: World) -> None:
    """Nobody was asked about a call that somebody had rejected at an earlier step of its run.

    Calls of one question are asked about ahead of their steps: what was asked before the rejection is not asked again.
    """
    rejected: dict[tuple[str, str, bytes], tuple[int, int]] = {}
    approvals = sorted(world.approvals.recorded(), key=lambda approval: approval.request.step)
    for approval in approvals:
        asked = approval.request
        call = (asked.run_id, asked.tool, bytes(asked.arguments))
        step, decided_us = rejected.get(call, (asked.step, 0))
        if step < asked.step and decided_us < asked.at_us:
            world.violation(f"{asked.approval_id}: it was rejected at step {step}, and was asked about again")
        if approval.outcome == "rejected":
            rejected.setdefault(call, (asked.step, approval.decided_us))


def _budgets(world: World) -> None:
    """No tenant's calls and decisions went beyond what its runs share."""
    for tenant, caps in world.plan.budgets.items():
        calls = [
            tool
            for key, tool in world.ledger.called.items()
            if world.tenant_of(RunId(key.rpartition(":")[0])) == tenant
        ]
        used = Counter({"tool_calls": len(calls), "cost_microusd": sum(KINDS[tool][3] for tool in calls)})
        used.update(f"tool:{tool}" for tool in calls)
        for run_id, spend in world.ledger.spent:
            if world.tenant_of(run_id) == tenant:
                used.update({"tokens": spend.tokens, "cost_microusd": spend.cost_microusd})
        for cap in caps:
            if used[cap.unit] > cap.limit:
                world.violation(f"{tenant}: {used[cap.unit]} {cap.unit} of {cap.limit}")


def _ended_once(world: World, run_id: RunId, events: list[Any]) -> None:
    ends = [event for event in events if isinstance(event, RunEnded)]
    if len(ends) != 1 or events[-1] is not ends[0]:
        last = tag_of(events[-1]) if events else "nothing"
        world.violation(f"{run_id}: {len(ends)} ends; the last event is {last}")
    elif not isinstance(ends[0].outcome.reason_code, ReasonCode):
        world.violation(f"{run_id}: ended for {ends[0].outcome.reason_code!r}")
    elif ends[0].outcome.reason_code is ReasonCode.INTERNAL_ERROR:
        world.violation(f"{run_id}: internal_error: {ends[0].outcome.detail}")


def _activated_and_told_once(world: World, run_id: RunId, events: list[Any]) -> None:
    """Each activation has an epoch of its own, newer than the one before; each branch's end is told once."""
    epochs = [event.epoch for event in events if isinstance(event, RunActivated)]
    if epochs != sorted(set(epochs)):
        world.violation(f"{run_id}: it was activated under {epochs}")
    told = Counter((event.step, event.branch) for event in events if isinstance(event, ChildEnded))
    for (step, branch), times in told.items():
        if times > 1:
            world.violation(f"{run_id}: the end of branch {branch} of step {step} was told {times} times")


def _effects(world: World, run_id: RunId, events: list[Any]) -> None:
    """What happened is vouched for or in doubt, and what is vouched for happened."""
    vouched, resolved = _vouched(events)
    doubts = {key for e in events if isinstance(e, RunEnded) for key in e.outcome.in_doubt}
    for key in world.ledger.counts:
        name, _, step = key.rpartition(":")
        if name == run_id and int(step) not in resolved.union(vouched) and key not in doubts:
            world.violation(f"{key}: it happened, is not recorded as such, and is not in doubt")
    for step in vouched:
        key = f"{run_id}:{step}"
        if vouched[step] and key not in world.ledger.counts:
            world.violation(f"{key}: it is recorded as done and did not happen")


def _vouched(events: list[Any]) -> tuple[dict[int, bool], set[int]]:
    """Return the steps whose call is recorded as carried out (True: it changes something), and those resolved."""
    vouched: dict[int, bool] = {}
    resolved: set[int] = set()
    changes: dict[int, bool] = {}
    for event in events:
        kind = tag_of(event)
        if kind == "ActionGated" and event.intent:
            changes[event.step] = event.effect != "read"
        elif kind == "DoubtSettled":
            resolved.add(event.step)
        elif kind == "ToolExecuted":
            code = event.result.reason_code
            if event.result.ok or code is ReasonCode.TOOL_OUTPUT_INVALID:
                vouched[event.step] = changes.get(event.step, False)
    return vouched, resolved


def _answered(world: World, run_id: RunId, events: list[Any]) -> None:
    """What a question returned is what one of those asked had answered to exactly that, by what is durable."""
    asked = {
        event.step: event.approval_id
        for event in events
        if isinstance(event, ActionGated) and (event.tool == "ask" or event.asks_for_tool)
    }
    said = {
        (approval.request.approval_id, bytes(vote.arguments), vote.by)
        for approval in world.approvals.recorded()
        for vote in approval.votes
        if vote.verdict == "answer" and "approver" in vote.roles
    }
    for event in events:
        if isinstance(event, ToolExecuted) and event.step in asked and event.result.ok:
            value = event.result.value()
            if (asked[event.step], canonical(value["answer"]), value["by"]) not in said:
                world.violation(f"{run_id}:{event.step}: nobody answered {value}")


def _told(world: World, run_id: RunId, events: list[Any]) -> None:
    """Whenever an agent is asked, each call that was proposed before has one result, in the order of the steps."""
    if not events:
        return
    machine = RunMachine(events[0])
    proposed: list[int] = []
    for event in events[1:]:
        if isinstance(event, RoutePlanned) and [record.step for record in machine.state.history] != proposed:
            world.violation(f"{run_id}: step {event.step}: {proposed} were proposed, and other results told")
        if isinstance(event, StepDecided):
            proposed += event.calls
        try:
            machine.handle(event)
        except AirsideError:
            return  # `_replays` says so


def _replays(world: World, run_id: RunId, events: list[Any]) -> None:
    """The journal alone gives back the run, event for event, and its outcome."""
    if not events:
        return
    try:
        machine = RunMachine.replay(events)
        machine.check()
    except AirsideError as error:
        world.violation(f"{run_id}: replay: {type(error).__name__}: {error.message.splitlines()[0]}")
        return
    last = events[-1]
    if isinstance(last, RunEnded):
        if not machine.is_over or machine.state.outcome != last.outcome or machine.state.usage != last.usage:
            world.violation(f"{run_id}: the replayed run differs from what its end says")
        if [encode_event(e) for e in machine.events] != world.journal.local.bodies_of(run_id):
            world.violation(f"{run_id}: the events do not encode back to what the journal has")
