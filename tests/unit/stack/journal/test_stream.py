"""A stream of a single writer: where its events go, and what it knows after an answer that is no `ok`."""

from __future__ import annotations

import msgspec
import pytest

from airside.stack.cycle.in_memory import InMemoryJournal
from airside.stack.errors import LayerUnavailable
from airside.stack.ids import PrincipalId, RunId, TenantId
from airside.stack.journal.journaling import Append, AppendReply
from airside.stack.journal.stream import Stream, append_of, entry_of, read_stream
from airside.stack.policy.kill_switches import KillSwitchChanged
from airside.stack.recovery.rollback import RollbackOrdered
from airside.stack.run.events import KillRequested

ACME = TenantId("acme")


def ordered(at_us: int) -> RollbackOrdered:
    """Return an event."""
    return RollbackOrdered(at_us=at_us, run_id=RunId("run_a"), by=PrincipalId("op"))


class Journal:
    """A journal in memory, which may take an append in and lose the answer."""

    def __init__(self) -> None:
        self.kept = InMemoryJournal()
        self.is_losing = False

    async def append(self, append: Append) -> AppendReply:
        """Take it in."""
        reply = self.kept.append_now(append)
        if self.is_losing:
            raise LayerUnavailable("gone")
        return reply

    async def bodies(self, streams: list[str]) -> dict[str, list[str]]:
        """Return what is durable."""
        return {name: [entry.body.decode() for entry in self.kept.streams.get(name, [])] for name in streams}


def test_an_event_is_entered_with_its_kind_its_step_and_its_cause_if_it_has_them() -> None:
    killed = entry_of(KillRequested(at_us=5, by=PrincipalId("op"), why="w", cause=3))
    assert (killed.type, killed.step, killed.at_us, killed.cause) == ("KillRequested", 0, 5, 3)
    change = KillSwitchChanged(at_us=7, scope="all", target="", off=True, by=PrincipalId("op"), why="")
    entry = entry_of(change)
    assert (entry.type, entry.step, entry.at_us, entry.cause) == ("SwitchThrown", 0, 7, -1)
    assert msgspec.json.decode(entry.body, type=KillSwitchChanged) == change


async def test_events_go_behind_what_was_appended_and_read() -> None:
    journal = Journal()
    first = Stream(journal, ACME, "s")
    assert (await first.append(ordered(1), ordered(2))).verdict == "ok" and first.length == 2
    second = Stream(journal, ACME, "s")
    assert len(await second.bodies()) == second.length == 2
    assert (await second.append(ordered(3))).verdict == "ok" and second.length == 3
    assert [msgspec.json.decode(body)["at_us"] for body in await read_stream(journal, "s")] == [1, 2, 3]
    assert await read_stream(journal, "t") == []


async def test_a_stream_that_somebody_else_wrote_to_is_read_before_it_goes_on() -> None:
    journal = Journal()
    stream = Stream(journal, ACME, "s")
    await journal.append(append_of(ACME, "s", [ordered(9)]))
    assert (await stream.append(ordered(1))).verdict == "fenced" and stream.length == 0
    await stream.bodies()
    assert (await stream.append(ordered(1))).verdict == "ok" and stream.length == 2


async def test_what_was_durable_though_no_answer_came_may_be_appended_again() -> None:
    journal = Journal()
    stream = Stream(journal, ACME, "s")
    journal.is_losing = True
    with pytest.raises(LayerUnavailable):
        await stream.append(ordered(1))
    journal.is_losing = False
    assert (await stream.append(ordered(1))).verdict == "ok" and len(await stream.bodies()) == 1
