"""What becomes of what is asked for, against a target that answers as it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random

from airside.actors.client.results import RunResult
from airside.actors.jobs import Job
from airside.bench.mix import KNOWN, Plan, parse_mix
from airside.bench.session import Asked, Load, Session
from airside.bench.target import Waiting
from airside.stack.ids import RunId
from airside.stack.operations.messages import Ticket
from airside.stack.reasons import ReasonCode, status_of

NOW_S = 1_000.0
READ = Plan(kind="read")


class StillClock:
    """Stands, but for what a test sets."""

    def __init__(self) -> None:
        self.now_s = NOW_S

    def now(self) -> float:
        """Return the time."""
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        """Let others run, and a little time pass."""
        self.now_s += seconds
        await asyncio.sleep(0)


class FakeTarget:
    """Takes runs in, and ends those it is told to."""

    def __init__(self, tickets: Sequence[Ticket]) -> None:
        self._tickets = list(tickets)
        self.ready: list[RunResult] = []
        self.killed = False
        self.answers = asyncio.Event()
        self.answers.set()

    async def enter(self, jobs: Sequence[Job]) -> list[Ticket]:
        """Answer with the next tickets, once it answers."""
        await asyncio.sleep(0)
        await self.answers.wait()
        return [self._tickets.pop(0) for _ in jobs]

    async def ends(self, wait_s: float) -> list[RunResult]:
        """Return what has ended."""
        found, self.ready = self.ready, []
        return found

    async def waiting(self) -> list[Waiting]:
        """Nothing waits."""
        return []

    async def approve(self, calls: Sequence[Waiting]) -> None:
        """Nothing is to be approved."""

    async def end_all(self) -> None:
        """Note it; what was held up goes on."""
        self.killed = True
        self.answers.set()


def admitted(run_id: str) -> Ticket:
    """Return a ticket."""
    return Ticket(run_id=RunId(run_id))


def refused(reason: ReasonCode) -> Ticket:
    """Return a refusal."""
    return Ticket(reason_code=reason)


def ended(run_id: str, reason: ReasonCode = ReasonCode.COMPLETED, steps: int = 4) -> RunResult:
    """Return an end."""
    return RunResult(run_id=run_id, status=status_of(reason), reason_code=reason, steps=steps)


async def play(target: FakeTarget, asked: list[Asked], *, within_s: float = 0.1) -> Load:
    """Send all at once, and wait for them."""
    load, clock = Load(), StillClock()
    async with asyncio.TaskGroup() as group:
        session = Session(target, load, clock, group)
        following = group.create_task(session.follow())
        assert session.send(asked) and session.open == len(asked)
        await session.drain(within_s)
        following.cancel()
    return load


async def test_latency_counts_from_when_a_run_was_due() -> None:
    """A generator that is two seconds late does not make the stack faster; its lag is on record."""
    target = FakeTarget([admitted("run_1")])
    target.ready = [ended("run_1")]
    load = await play(target, [Asked("tenant-0", READ, NOW_S - 2)])
    assert load.usual.whole.count == 1 and 1.98 < load.usual.whole.percentile_s(99) < 2.2
    assert 1.98 < load.lag.percentile_s(99) < 2.02
    assert load.usual.done == {"tenant-0": 1} and load.usual.steps == {"tenant-0": 4}


async def test_an_end_that_is_known_before_the_ticket_counts() -> None:
    """Runs are fast, and answers overtake each other."""
    target = FakeTarget([admitted("run_1"), admitted("run_2")])
    target.ready = [ended("run_2"), ended("run_1")]
    load = await play(target, [Asked("tenant-0", READ, NOW_S), Asked("tenant-1", READ, NOW_S)])
    assert load.usual.done.total() == 2 and load.usual.lost == 0 and not target.killed


async def test_a_refusal_counts_as_one_unless_the_plan_is_to_be_refused() -> None:
    """By its reason."""
    target = FakeTarget([refused(ReasonCode.PRINCIPAL_UNKNOWN), refused(ReasonCode.ADMISSION_REJECTED)])
    plan = Plan(kind="refused", ending=ReasonCode.PRINCIPAL_UNKNOWN, principal="stranger")
    load = await play(target, [Asked("tenant-0", plan, NOW_S), Asked("tenant-0", READ, NOW_S)])
    assert load.usual.done.total() == 1 and load.usual.refused == {"admission_rejected": 1}


async def test_a_run_that_ends_otherwise_than_it_should_is_named() -> None:
    """By its kind and its reason; its latency counts."""
    target = FakeTarget([admitted("run_1")])
    target.ready = [ended("run_1", ReasonCode.LOOP_DETECTED)]
    load = await play(target, [Asked("tenant-0", READ, NOW_S)])
    assert load.usual.unexpected == {"read: loop_detected": 1} and load.usual.whole.count == 1


async def test_what_does_not_end_counts_with_the_time_it_has_taken() -> None:
    """It would be the slowest: leaving it out would make the stack faster the more it loses."""
    target = FakeTarget([admitted("run_1")])
    load = await play(target, [Asked("aggressor-0", READ, NOW_S - 50)], within_s=0.5)
    assert load.aggressors.lost == 1 and load.aggressors.whole.percentile_s(99) > 49 and target.killed
    assert load.usual.asked.total() == 0


async def test_a_submission_that_is_not_answered_in_time_counts_as_lost() -> None:
    """Its run may begin after that: it is ended too, and no part of any figure."""
    target = FakeTarget([admitted("run_1")])
    target.answers.clear()
    load = await play(target, [Asked("tenant-0", READ, NOW_S)], within_s=0.5)
    assert load.usual.asked.total() == load.usual.lost == load.usual.whole.count == 1 and target.killed


def test_a_job_is_one_that_a_stack_takes() -> None:
    """What is built without being checked is what a check lets pass."""
    plan = parse_mix("approval=1", 4).plan(Random(1))
    job = Asked("tenant-0", plan, 0.0).job()
    assert Job.model_validate(job.model_dump(exclude={"token"})).to_request() == job.to_request()
    assert job.principal == KNOWN
