"""What a run is in doubt about is told by its events; what is found out after its end is said once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from airside.actors.driver import in_doubt as desks
from airside.actors.driver.in_doubt import InDoubtResolver
from airside.in_doubt_cli import lines_of
from airside.options import bounded
from airside.stack.cycle.in_memory import InMemoryJournal
from airside.stack.errors import InvalidInput
from airside.stack.ids import EffectKey, PrincipalId, RunId, TenantId, effect_key, undo_key
from airside.stack.journal.journaling import Append, AppendReply
from airside.stack.operations.messages import Delivery, Order
from airside.stack.reasons import ReasonCode
from airside.stack.recovery.in_doubt import (
    EffectResolved,
    InDoubtCall,
    decode_resolution,
    in_doubt_calls,
    resolution_append,
    resolution_stream,
)
from airside.stack.recovery.rollback import RollbackEvent, UndoEnded, UndoIntended, rollback_stream
from airside.stack.run import events as ev
from airside.stack.values import Limits, ToolResult
from tests.helpers import RUN, SECOND, Driven

ARGUMENTS = {"to": "kim", "amount": 4}
GATED = {"digest": "d", "arguments": Raw(msgspec.json.encode(ARGUMENTS))}


def sent(wait_s: int = 60) -> Driven:
    """Return a run whose call is on its way."""
    run = Driven(Limits(doubt_wait_s=wait_s))
    run.activate()
    run.propose(**ARGUMENTS)
    run.gate(**GATED)
    return run


def found(run: Driven) -> list[InDoubtCall]:
    """Return the run's doubts as the journal gives them back."""
    return in_doubt_calls([ev.decode_event(ev.encode_event(event)) for event in run.machine.events])


def test_a_call_that_is_at_work_or_was_answered_is_in_no_doubt() -> None:
    run = sent()
    assert found(run) == []
    run.executed()
    assert found(run) == []


def test_a_call_whose_answer_is_lost_is_listed_with_all_a_person_needs_to_find_out() -> None:
    run = sent(wait_s=60)
    at_us = run.now_us
    run.lost(started=True)
    (doubt,) = found(run)
    assert (doubt.run_id, doubt.tenant, doubt.step, doubt.tool) == (RUN, "acme", 1, "pay")
    assert (doubt.arguments, doubt.key) == (ARGUMENTS, f"{RUN}:1")
    assert (doubt.since_us, doubt.until_us) == (at_us, run.now_us + 60 * SECOND)


def test_each_activation_waits_anew_and_the_doubt_is_as_old_as_it_was() -> None:
    run = sent()
    run.lost(started=True)
    before = found(run)[0]
    run.send(ev.RunActivated, after_us=5 * SECOND, epoch=2, claim="c")
    (after,) = found(run)
    assert after.since_us == before.since_us and after.until_us == before.until_us + 5 * SECOND


@pytest.mark.parametrize(
    ("befalls", "cause"),
    [
        (lambda run: run.lost(started=True), "the answer was lost: died"),
        (
            lambda run: run.executed(ToolResult(ok=False, error="502", reason_code=ReasonCode.TOOL_IN_DOUBT)),
            "502",
        ),
        (
            lambda run: run.executed(ToolResult(ok=False, error="late", reason_code=ReasonCode.TOOL_TIMEOUT)),
            "late",
        ),
        (lambda run: run.send(ev.RunActivated, epoch=2, claim="c"), "died before the answer came"),
        (
            lambda run: (
                run.send(ev.KillRequested, by="op", why="x"),
                run.end(),
            ),
            "the run ended (killed_by_operator) while the call was under way",
        ),
    ],
)
def test_why_a_call_is_in_doubt_is_said(befalls: Callable[[Driven], Any], cause: str) -> None:
    """The tool's own words, the lost answer, the dead process, or the end that came first."""
    run = sent()
    befalls(run)
    (doubt,) = found(run)
    assert cause in doubt.cause
    lines = lines_of(doubt, Path("state"))
    assert all(any(part in line for line in lines) for part in (cause, "pay", "to: kim", "amount: 4", "state/keys"))


def test_long_arguments_are_cut_and_hidden_characters_shown() -> None:
    """The list stays a list, whatever an agent wrote; how much was left out is said."""
    run = sent()
    run.lost(started=True)
    doubt = msgspec.structs.replace(
        found(run)[0], arguments={"text": "x" * 10**6, "to": "a\x1b[2J\nb"}, cause="c" * 5000
    )
    assert max(map(len, lines_of(doubt, Path(".")))) < 1200 and "1,000,000 characters" in "".join(
        lines_of(doubt, Path("."))
    )
    assert "\x1b" not in "".join(lines_of(doubt, Path(".")))
    assert len(json.dumps(bounded(doubt.arguments))) < 1000


def test_a_run_that_was_told_is_in_doubt_no_longer() -> None:
    run = sent()
    run.lost(started=True)
    run.send(ev.InDoubtResolved, by=PrincipalId("op"), happened=True)
    assert found(run) == []


@pytest.mark.parametrize("ends_by", ["waiting in vain", "being killed in doubt", "being killed at work"])
def test_a_run_that_ended_in_doubt_is_listed_and_waits_no_more(ends_by: str) -> None:
    run = sent()
    if ends_by != "being killed at work":
        run.lost(started=True)
    if ends_by == "waiting in vain":
        run.send(ev.InDoubtExpired)
    else:
        run.send(ev.KillRequested, by="op", why="", reason_code=ReasonCode.KILLED_BY_OPERATOR)
    run.end()
    (doubt,) = found(run)
    assert (doubt.key, doubt.until_us, doubt.arguments) == (f"{RUN}:1", 0, ARGUMENTS)


async def test_what_is_found_out_is_said_once() -> None:
    journal = InMemoryJournal()
    key = EffectKey(f"{RUN}:1")
    said = EffectResolved(at_us=9, run_id=RUN, step=1, key=key, by=PrincipalId("op"), happened=True, note="in the list")
    other = msgspec.structs.replace(said, happened=False, at_us=10)
    appends = [resolution_append(each, TenantId("acme")) for each in (said, said, other)]
    assert [(await journal.append(each)).verdict for each in appends] == ["ok", "ok", "fenced"]
    (body,) = journal.bodies_of(resolution_stream(key))
    assert decode_resolution(body) == said and "op resolved" in str(said) and "it happened" in str(said)


# The driver's desk.


class Journal:
    """Streams, which a desk reads and writes as the journal's."""

    def __init__(self, *events: ev.Event) -> None:
        self.kept = InMemoryJournal()
        self.streams: dict[str, list[bytes]] = {RUN: [ev.encode_event(event) for event in events]}

    async def append(self, append: Append) -> AppendReply:
        """Keep entries."""
        return await self.kept.append(append)

    async def bodies(self, streams: list[str]) -> dict[str, list[bytes]]:
        """Return streams."""
        return {stream: self.streams.get(stream) or self.kept.bodies_of(stream) for stream in streams}


def order(target: str, *, happened: bool = True) -> Order:
    """Return an operator's word on a call."""
    return Order(action="settle", scope="run", target=target, by="op", why="", at_us=7, happened=happened)


def desk(journal: Any, run: Driven) -> tuple[InDoubtResolver, list[ev.Event]]:
    """Return a desk for a run, and what it brings there."""
    brought: list[ev.Event] = []

    async def bring(delivery: Delivery) -> None:
        brought.append(ev.decode_event(delivery.event))
        run.handle(brought[-1])
        journal.streams[RUN] = [ev.encode_event(event) for event in run.machine.events]

    return InDoubtResolver(journal, bring), brought


def in_doubt_about_the_second() -> Driven:
    """Return a run that was told of its first call, and is in doubt about its second."""
    run = sent()
    run.lost(started=True)
    run.send(ev.InDoubtResolved, by=PrincipalId("other"), happened=True)
    run.propose(**ARGUMENTS)
    run.gate(**GATED)
    run.lost(started=True)
    return run


async def test_the_call_that_is_named_is_settled_and_no_other_that_the_run_is_in_doubt_about() -> None:
    run = in_doubt_about_the_second()
    journal = Journal(*run.machine.events)
    it, brought = desk(journal, run)
    first, second = effect_key(RUN, 1), run.key
    with pytest.raises(InvalidInput, match=f"in doubt about {second}, not {first}"):
        await it.resolve(order(first))
    assert brought == []
    assert await it.resolve(order(second, happened=False)) == 1
    assert [(event.step, event.happened) for event in brought if isinstance(event, ev.InDoubtResolved)] == [(2, False)]


async def test_what_a_person_says_has_the_stacks_time_and_is_taken_once_however_often_it_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever that person's clock says, by which the order is known again; so is one from before it was."""
    monkeypatch.setattr(desks, "steady_us", lambda: 90 * SECOND)
    run = in_doubt_about_the_second()
    it, brought = desk(Journal(*run.machine.events), run)
    assert await it.resolve(order(RUN)) == 1 and await it.resolve(order(RUN)) == 1
    (resolved,) = brought
    assert isinstance(resolved, ev.InDoubtResolved) and (resolved.at_us, resolved.ordered_us) == (90 * SECOND, 7)
    before = msgspec.structs.replace(resolved, at_us=7, ordered_us=0)
    older = Journal(*[*run.machine.events[:-1], before])
    assert await desk(older, run)[0].resolve(order(RUN)) == 1


async def test_a_word_that_came_second_settles_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else was faster, and the run is in doubt about its next call by then."""
    monkeypatch.setattr(desks, "_LOOK_S", 0)
    run, later = sent(), in_doubt_about_the_second()
    run.lost(started=True)
    journal = Journal(*run.machine.events)
    brought: list[Delivery] = []

    async def bring(delivery: Delivery) -> None:
        brought.append(delivery)
        journal.streams[RUN] = [ev.encode_event(event) for event in later.machine.events]

    it: Any = InDoubtResolver(journal, bring)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="in doubt about"):
        await it.resolve(order(RUN))
    assert len(brought) == 1


async def test_the_undo_of_a_branchs_call_is_settled_by_its_key() -> None:
    """It is the whole run that is rolled back, whose branch made the call."""
    run = sent()
    run.executed()
    run.send(ev.KillRequested, by="op", why="")
    run.end()
    journal = Journal(*run.machine.events)
    branch = RunId(f"{RUN}.1-0")
    key = undo_key(effect_key(branch, 3))
    undo: dict[str, Any] = {"at_us": 1, "run_id": branch, "step": 3, "key": key, "attempt": 1}
    undone: list[RollbackEvent] = [
        UndoIntended(**undo, tool="pay", arguments=Raw(b"{}"), digest="d"),
        UndoEnded(**undo, outcome="in_doubt"),
    ]
    journal.streams[branch] = journal.streams[RUN]
    journal.streams[rollback_stream(RUN)] = [msgspec.json.encode(event) for event in undone]
    it, _ = desk(journal, run)
    with pytest.raises(InvalidInput, match="in doubt about nothing"):
        await it.resolve(order(branch))
    assert await it.resolve(order(key)) == 1
    assert decode_resolution(journal.kept.bodies_of(resolution_stream(key))[0]).happened
