"""`RunHost`: no parent waits for ever, whatever became of a branch while it was looked at, claimed, or away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

import pytest

from airside.stack.cycle.cycle import Cycle
from airside.stack.cycle.hosting import RunHost
from airside.stack.cycle.termination import termination_append
from airside.stack.errors import LayerUnavailable
from airside.stack.ids import RunId, TenantId, child_run
from airside.stack.journal.journaling import Append, AppendReply
from airside.stack.journal.stream import entry_of
from airside.stack.run import events as ev
from airside.stack.run.agents import FunctionAgent
from airside.stack.run.machine import RunMachine
from airside.stack.run.state import Phase
from airside.stack.run.topology import FanOutFanIn
from airside.stack.scheduling.activation_events import RunFenced, RunGivenUp, RunRested
from airside.stack.scheduling.placement_events import RunStanding
from airside.stack.values import Action, Finish
from tests.helpers import RUN
from tests.simulation.clock import ManualLoop
from tests.unit.stack.cycle.test_cycle import World

BRANCH = child_run(RUN, 1, 0)
KILL = ev.KillRequested(at_us=0, by="op", why="x")


def played(work: Coroutine[Any, Any, None]) -> None:
    """Run a test under a clock that moves when nothing else is left to do."""
    loop = ManualLoop()
    try:
        loop.run_until_complete(work)
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


class Hosted:
    """A host of a run with two branches, whose agents wait until they are let go."""

    def __init__(self) -> None:
        self.free = asyncio.Event()
        self.world = World(FunctionAgent(self.wait), FanOutFanIn(("x", "x")))
        self.journal = self.world.journal
        self.told: list[tuple[RunId, str]] = []
        self.errors: list[Exception] = []
        self.failing: list[Exception] = []
        self.deaf = 0
        self.slip: Any = None
        self.host = RunHost(
            self,
            make=self.make,
            share=lambda first: first,
            tell=self.tell,
            log=self.log,
            now_us=lambda: 0,
            mint=lambda: f"{len(self.told)}",
        )
        self.layers = replace(self.world.cycle.layers, journal=self, spawn=self.host.spawn)

    async def wait(self, view: Any) -> Finish | Action:
        """Decide once it is let go."""
        await self.free.wait()
        return Finish(answer="done")

    def make(self, machine: RunMachine, durable: int) -> Cycle:
        """Make a cycle."""
        return Cycle(machine, self.layers, durable=durable)

    async def tell(
        self, run_id: RunId, tenant: TenantId, epoch: int, standing: RunStanding, ended: bytes = b"", number: int = 0
    ) -> None:
        """Hear how a run stands; or do not answer, for as long as one waits."""
        if self.deaf:
            self.deaf -= 1
            raise LayerUnavailable("the driver is gone")
        self.told.append((run_id, standing))

    def log(self, run_id: RunId, error: Exception) -> None:
        """Keep why an activation ended early."""
        self.errors.append(error)

    async def append(self, append: Append) -> AppendReply:
        """Make entries durable; or let something happen first, or fail."""
        await asyncio.sleep(0)
        if self.slip is not None and append.stream == BRANCH:
            slip, self.slip = self.slip, None
            slip()
        if self.failing and append.stream == BRANCH:
            raise self.failing.pop()
        return self.journal.append_now(append)

    async def bodies(self, streams: Sequence[str]) -> dict[str, list[str]]:
        """Return what is durable."""
        await asyncio.sleep(0)
        return await self.journal.bodies(streams)

    async def unfinished_below(self, run_id: RunId) -> list[RunId]:
        """Return the branches that have not ended."""
        return await self.journal.unfinished_below(run_id)

    def activate(self, epoch: int) -> Cycle:
        """Claim the run and take it up, as the driver does."""
        events = [ev.decode_event(body) for body in self.journal.bodies_of(RUN)]
        fresh: list[ev.Event] = [] if events else [self.world.cycle.machine.state.submitted]
        fresh.append(ev.RunActivated(at_us=0, epoch=epoch))
        self.write(RUN, epoch, len(events), fresh)
        return self.host.activate([*events, *fresh])

    def write(self, run_id: RunId, epoch: int, seq: int, events: list[ev.Event]) -> None:
        """Write to the journal as somebody else."""
        tenant = self.world.cycle.machine.state.submitted.identity.tenant
        entries = tuple(entry_of(event) for event in events)
        append = Append(tenant=tenant, stream=run_id, epoch=epoch, first_seq=seq, entries=entries)
        assert self.journal.append_now(append).verdict == "ok"

    def end_elsewhere(self) -> None:
        """End the first branch from another process."""
        append = termination_append(self.journal.bodies_of(BRANCH), KILL, "elsewhere")
        assert append is not None and self.journal.append_now(append).verdict == "ok"

    async def reach(self, done: Callable[[], bool]) -> None:
        """Wait until something is so; fail if that takes for ever."""
        for _ in range(60_000):
            if done():
                return
            await asyncio.sleep(0.001)
        raise AssertionError(f"a minute is over, and it was told {self.told}")

    async def until(self, *standing: tuple[RunId, str]) -> None:
        """Wait until the driver was told that."""
        await self.reach(lambda: set(standing) <= set(self.told))

    async def waits(self) -> None:
        """Wait until both branches are here, and at work."""
        await self.reach(lambda: len(self.host) == 3)

    async def all_ended(self) -> None:
        """Wait until no branch is left."""
        await self.reach(lambda: all(name[-1].type == "RunEnded" for name in self.journal.streams.values()))

    def outcome(self) -> str:
        """Return how the run ended, as its journal has it."""
        ended = ev.decode_event(self.journal.bodies_of(RUN)[-1])
        assert isinstance(ended, ev.RunEnded)
        return ended.outcome.status

    def ends_told(self) -> list[int]:
        """Return the branches whose ends the run was told, as its journal has them."""
        events = [ev.decode_event(body) for body in self.journal.bodies_of(RUN)]
        return sorted(event.branch for event in events if isinstance(event, ev.ChildEnded))


def test_a_run_ends_when_its_branches_have_and_is_told_each_end_once() -> None:
    async def work() -> None:
        hosted = Hosted()
        hosted.activate(1)
        await hosted.waits()
        hosted.free.set()
        await hosted.until((RUN, "ended"), (BRANCH, "ended"))
        assert hosted.ends_told() == [0, 1] and len(hosted.host) == 0

    played(work())


def test_a_branch_that_ended_while_its_parent_was_away_is_told_when_that_is_taken_up_again() -> None:
    async def work() -> None:
        hosted = Hosted()
        hosted.activate(1)
        await hosted.waits()
        again = Hosted()  # another process
        again.journal.streams, again.journal._heads = hosted.journal.streams, hosted.journal._heads
        hosted.end_elsewhere()
        again.activate(2)
        again.free.set()
        await again.until((RUN, "ended"))
        assert again.ends_told() == [0, 1]

    played(work())


@pytest.mark.parametrize("ends", [True, False])
def test_a_claim_that_a_dying_process_was_faster_than_is_made_again_until_the_branch_is_here_or_over(
    ends: bool,
) -> None:
    """What was on its way from there arrives between the look and the claim; nobody else would come back for it."""

    async def work() -> None:
        first, hosted = Hosted(), Hosted()
        hosted.journal.streams, hosted.journal._heads = first.journal.streams, first.journal._heads
        first.activate(1)
        await first.waits()
        await asyncio.sleep(0.5)

        def slip() -> None:
            if ends:
                hosted.end_elsewhere()
            else:
                suspended = ev.CancelRequested(at_us=0, by=ev.PrincipalId("late"))
                hosted.write(BRANCH, 1, len(hosted.journal.bodies_of(BRANCH)), [suspended])

        hosted.slip = slip
        hosted.activate(2)
        hosted.free.set()
        await hosted.until((RUN, "ended"))
        assert hosted.ends_told() == [0, 1]

    played(work())


def test_a_branch_that_is_given_up_takes_its_parent_with_it_and_both_are_taken_up_again() -> None:
    """The driver knows roots alone: it would never place a branch again."""

    async def work() -> None:
        hosted = Hosted()
        hosted.activate(1)
        await hosted.waits()
        hosted.failing = [LayerUnavailable("the journal is gone")]
        hosted.free.set()
        await hosted.until((BRANCH, "lost"), (RUN, "lost"))
        assert hosted.host.get(RUN) is None and len(hosted.errors) == 2
        hosted.activate(2)
        await hosted.until((RUN, "ended"))
        assert hosted.ends_told() == [0, 1]

    played(work())


def test_a_parent_whose_branches_cannot_be_read_is_given_up_and_not_failed() -> None:
    async def work() -> None:
        hosted = Hosted()

        async def unread(streams: Sequence[str]) -> dict[str, list[str]]:
            raise LayerUnavailable("the journal is gone")

        hosted.bodies = unread  # type: ignore[method-assign]
        hosted.activate(1)
        await hosted.until((RUN, "lost"))
        del hosted.bodies  # type: ignore[method-assign]
        hosted.free.set()
        hosted.activate(2)
        await hosted.until((RUN, "ended"))

    played(work())


def test_a_run_that_ends_early_takes_its_branches_with_it() -> None:
    async def work() -> None:
        hosted = Hosted()
        hosted.activate(1)
        await hosted.waits()
        assert hosted.host.bring(RUN, KILL) is not None
        await hosted.until((RUN, "ended"), (BRANCH, "ended"))
        await hosted.all_ended()

    played(work())


def test_a_branch_that_a_crash_left_is_ended_when_its_parent_ends_before_it_was_claimed_here() -> None:
    async def work() -> None:
        first, hosted = Hosted(), Hosted()
        hosted.journal.streams, hosted.journal._heads = first.journal.streams, first.journal._heads
        first.activate(1)
        await first.waits()
        hosted.activate(2)
        assert hosted.host.bring(RUN, KILL) is not None
        await hosted.until((RUN, "ended"))
        await hosted.all_ended()

    played(work())


@pytest.mark.parametrize("how", ["lost", "fenced"])
def test_a_branch_that_is_claimed_as_its_parent_goes_is_left_to_the_next_activation(how: str) -> None:
    """The parent has not ended: a branch that was told so would be cancelled, and fail it."""

    async def work() -> None:
        hosted = Hosted()
        cycle = hosted.activate(1)
        gone: dict[str, Any] = {"lost": RunGivenUp, "fenced": RunFenced}
        hosted.slip = lambda: hosted.host._happened(gone[how](**hosted.host._of(cycle)))
        await hosted.reach(lambda: hosted.host.get(RUN) is None)
        await asyncio.sleep(1)
        left = [ev.decode_event(body) for body in hosted.journal.bodies_of(BRANCH)]
        assert [type(event) for event in left] == [ev.RunSubmitted, ev.RunActivated] and len(hosted.host) == 0
        hosted.free.set()
        hosted.activate(2)
        await hosted.until((RUN, "ended"))
        assert hosted.ends_told() == [0, 1] and hosted.outcome() == "completed"

    played(work())


def test_a_report_is_sent_until_the_driver_has_taken_it() -> None:
    """It may be away for longer than one waits: nobody else would tell it."""

    async def work() -> None:
        hosted = Hosted()
        hosted.deaf = 5
        hosted.free.set()
        hosted.activate(1)
        await hosted.until((RUN, "ended"), (BRANCH, "ended"))
        assert hosted.deaf == 0 and hosted.told.count((RUN, "ended")) == 1

    played(work())


def test_a_run_that_cannot_be_taken_up_is_said_to_be_broken_until_the_driver_has_heard_it() -> None:
    async def work() -> None:
        hosted = Hosted()
        hosted.deaf = 2
        hosted.host.refuse(RUN, 1)
        await hosted.until((RUN, "broken"))

    played(work())


def test_a_report_that_a_later_one_of_its_run_took_over_is_not_sent_again() -> None:
    async def work() -> None:
        hosted = Hosted()
        cycle = hosted.activate(1)
        await hosted.waits()
        hosted.deaf = 1
        hosted.host._happened(RunRested(**hosted.host._of(cycle), standing="parked"))
        await hosted.reach(lambda: hosted.deaf == 0)
        hosted.host._happened(RunGivenUp(**hosted.host._of(cycle)))
        await hosted.until((RUN, "lost"))
        await asyncio.sleep(10)
        assert (RUN, "parked") not in hosted.told

    played(work())


def test_the_branches_of_a_run_that_somebody_else_has_decide_no_more_here() -> None:
    """They are not ended either: whoever has the run claims them anew, or has ended them."""

    async def work() -> None:
        hosted = Hosted()
        hosted.activate(1)
        await hosted.waits()
        hosted.write(RUN, 2, len(hosted.journal.bodies_of(RUN)), [ev.RunActivated(at_us=0, epoch=2)])
        assert hosted.host.bring(RUN, KILL) is not None
        await hosted.reach(lambda: hosted.host.get(RUN) is None)
        hosted.free.set()
        await asyncio.sleep(1)
        left = [ev.decode_event(body) for body in hosted.journal.bodies_of(BRANCH)]
        assert isinstance(left[-1], ev.RunActivated) and (len(hosted.host), hosted.host.working) == (0, 0)

    played(work())


def test_an_activation_under_an_older_epoch_changes_nothing() -> None:
    async def work() -> None:
        hosted = Hosted()
        cycle = hosted.activate(1)
        events = [ev.decode_event(body) for body in hosted.journal.bodies_of(RUN)]
        assert hosted.host.activate(events) is cycle
        await hosted.waits()
        assert hosted.host.get(RUN) is cycle and cycle.machine.state.phase is Phase.AWAITING_CHILDREN

    played(work())


def test_what_is_not_here_takes_no_message() -> None:
    async def work() -> None:
        assert Hosted().host.bring(RUN, KILL) is None

    played(work())


def test_a_run_is_not_said_to_wait_before_people_are_asked() -> None:
    """A driver that begins anew would leave it where it is, and if its process died, nobody would ask them."""

    async def work() -> None:
        hosted = Hosted()
        cycle = hosted.activate(1)
        await hosted.waits()
        cycle.machine.state.phase = Phase.AWAITING_APPROVAL
        assert (RUN, 1, "working") in hosted.host.held()
        hosted.host._happened(RunRested(**hosted.host._of(cycle), standing="parked"))
        assert (RUN, 1, "parked") in hosted.host.held()

    played(work())


class Refusing(Hosted):
    """A journal that can never write what is of the branch."""

    refused = 0
    refuses = False

    async def append(self, append: Append) -> AppendReply:
        if self.refuses and append.stream == BRANCH:
            self.refused += 1
            await asyncio.sleep(0)
            return AppendReply(verdict="error", detail="it can never be journaled")
        return await super().append(append)


def test_a_branch_whose_claim_can_never_be_written_gives_its_parent_up() -> None:
    async def work() -> None:
        hosted = Refusing()
        hosted.refuses = True
        hosted.free.set()
        hosted.activate(1)
        await asyncio.sleep(60)
        assert any(run_id == RUN for run_id, _ in hosted.told) and hosted.refused < 5

    played(work())


def test_ending_branches_that_can_never_be_ended_is_given_up() -> None:
    async def work() -> None:
        hosted = Refusing()
        hosted.activate(1)
        await hosted.waits()
        hosted.refuses = True
        hosted.host.bring(RUN, KILL)
        await asyncio.sleep(60)
        assert hosted.refused < 50

    played(work())
