"""`Claims` and `roots_of`: what is claimed is read whole, and whoever finds a run ended ends what is left below."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from airside.stack.cycle.claiming import Claims, Unfinished, roots_of
from airside.stack.cycle.in_memory import InMemoryJournal
from airside.stack.cycle.termination import termination_append
from airside.stack.errors import LayerUnavailable
from airside.stack.ids import RunId, TenantId, child_run
from airside.stack.journal.journaling import Append, AppendReply
from airside.stack.journal.stream import entry_of
from airside.stack.run import events as ev
from airside.stack.scheduling import placement_events as on
from airside.stack.scheduling import placement_instructions as do
from airside.stack.values import Request
from tests.helpers import RUN, submitted

BRANCH = child_run(RUN, 1, 0)
TENANT = submitted().identity.tenant
KILL = ev.KillRequested(at_us=5, by="op", why="x")


class Journal:
    """A journal of one run, and of a branch of it."""

    def __init__(self) -> None:
        self.kept = InMemoryJournal()
        self.stopped: list[RunId] = []
        self.claims = Claims(
            self, now=lambda: on.Moment(7, 7.0), mint=lambda: f"{len(self.kept.streams)}", stop_calls=self.stop
        )

    async def stop(self, run_ids: Sequence[RunId]) -> None:
        """Stop the calls of runs."""
        self.stopped += run_ids

    async def append(self, append: Append) -> AppendReply:
        """Make entries durable."""
        return self.kept.append_now(append)

    async def bodies(self, streams: Sequence[str]) -> dict[str, list[str]]:
        """Return what is durable."""
        return await self.kept.bodies(streams)

    async def unfinished_below(self, run_id: RunId) -> list[RunId]:
        """Return the branches that have not ended."""
        return await self.kept.unfinished_below(run_id)

    def write(self, run_id: RunId, *events: ev.Event, epoch: int) -> None:
        """Write events of a run."""
        entries = tuple(entry_of(event) for event in events)
        first = len(self.kept.streams.get(run_id, []))
        append = Append(tenant=TENANT, stream=run_id, epoch=epoch, first_seq=first, entries=entries)
        assert self.kept.append_now(append).verdict == "ok"

    def last(self, run_id: RunId) -> str:
        """Return the kind of a run's last event."""
        return self.kept.streams[run_id][-1].type

    def begin(self, run_id: RunId = RUN) -> None:
        """Have a run admitted and at work under epoch 3."""
        first = msgspec.structs.replace(submitted(), run_id=run_id)
        self.write(run_id, first, ev.RunActivated(at_us=1, epoch=3), epoch=3)

    def end(self, run_id: RunId = RUN) -> None:
        """Have a run end."""
        append = termination_append(self.kept.bodies_of(run_id), KILL, "z")
        assert append is not None and self.kept.append_now(append).verdict == "ok"


def claim(epoch: int = 1, events: tuple[bytes, ...] = ()) -> do.Claim:
    """Return an instruction to claim the run."""
    return do.Claim(run_id=RUN, tenant=TENANT, epoch=epoch, events=events)


async def test_a_claim_that_is_read_is_of_the_epoch_after_the_newest_and_has_all_events() -> None:
    journal = Journal()
    journal.begin()
    claimed = await journal.claims.claim(claim())
    assert isinstance(claimed, on.Claimed) and claimed.epoch == 4
    assert list(claimed.events) == journal.kept.bodies_of(RUN) and len(claimed.events) == 3


async def test_a_claim_on_what_somebody_else_wrote_to_fails() -> None:
    journal = Journal()
    journal.begin()
    with pytest.raises(LayerUnavailable, match="fenced"):
        await journal.claims.claim(claim(events=(journal.kept.bodies_of(RUN)[0],)))


async def test_a_claim_of_an_ended_run_ends_the_branches_its_process_left_and_tells_the_end() -> None:
    journal = Journal()
    journal.begin()
    journal.begin(BRANCH)
    journal.end()
    found = await journal.claims.claim(claim())
    assert isinstance(found, on.EndReported) and found.ended == journal.kept.bodies_of(RUN)[-1]
    assert journal.last(BRANCH) == "RunEnded" and journal.stopped == [BRANCH]


async def test_a_run_is_ended_after_its_branches_and_the_calls_of_all_are_stopped_before() -> None:
    journal = Journal()
    journal.begin()
    journal.begin(BRANCH)
    instruction = do.EndRun(run_id=RUN, tenant=TENANT, termination=KILL, events=(), begun=True)
    assert isinstance(await journal.claims.end(instruction), on.EndReported)
    assert journal.stopped == [RUN, BRANCH] and journal.last(RUN) == journal.last(BRANCH) == "RunEnded"


async def test_a_run_that_never_began_is_ended_from_what_is_in_hand() -> None:
    journal = Journal()
    journal.write(RUN, submitted(), epoch=0)
    events = tuple(journal.kept.bodies_of(RUN))
    instruction = do.EndRun(run_id=RUN, tenant=TENANT, termination=KILL, events=events, begun=False)
    assert isinstance(await journal.claims.end(instruction), on.EndReported) and journal.stopped == []


def test_a_run_that_is_ended_from_outside_says_which_job_it_was_of() -> None:
    first = msgspec.structs.replace(submitted(), request=Request(text="go", job_id="r-1"))
    append = termination_append([ev.encode_event(first)], KILL, "z")
    assert append is not None and msgspec.json.decode(append.entries[-1].body)["job_id"] == "r-1"


async def test_what_is_no_end_is_not_told_as_one() -> None:
    journal = Journal()
    journal.begin()
    with pytest.raises(ValueError, match="has not ended: its last event is RunActivated"):
        journal.claims.ended(RUN, TENANT, journal.kept.bodies_of(RUN)[-1])


def test_a_new_driver_sees_to_what_has_begun_first_and_to_the_roots_of_branches_that_were_left() -> None:
    waits, works, ended = (RunId(f"run_{letter * 32}") for letter in "abc")
    rows = [
        Unfinished(waits, TenantId("acme"), "", 0, 1),
        Unfinished(works, TenantId("acme"), "", 2, 2),
        Unfinished(child_run(works, 1, 0), TenantId("acme"), works, 1, 3),
        Unfinished(child_run(ended, 1, 0), TenantId("acme"), ended, 1, 4),
    ]
    assert [(run.run_id, run.parent) for run in roots_of(rows)] == [(works, ""), (ended, ""), (waits, "")]
