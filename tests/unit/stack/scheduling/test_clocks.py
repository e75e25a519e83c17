"""A clock that was wrong for a while puts nothing wrong for longer: not budgets, rates, grants, nor the time of day."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airside.stack.budget.ledger import Cap, Ledger, Per, window_of
from airside.stack.ids import PrincipalId, RunId, TenantId
from airside.stack.policy.kill_switches import KillSwitchChanged, KillSwitches
from airside.stack.scheduling.admission import AdmissionQueue, TenantShare
from airside.stack.scheduling.clocks import STABLE_US, STEP_US, SteadyClock
from airside.tools.dispatch import Dispatcher
from airside.tools.tool import tool
from tests.helpers import EXECUTOR, KEY
from tests.unit.tools.test_dispatch import counter, granted, run

NOW = window_of("month", 1_700_000_000_000_000) + 5 * 86_400_000_000
SECOND, MINUTE, HOUR, DAY = 1_000_000, 60_000_000, 3_600_000_000, 86_400_000_000
LENGTH: dict[Per, int] = {"minute": MINUTE, "day": DAY}
LIMIT = 2


def budget(per: Per = "minute") -> Callable[[int], bool]:
    """Return a budget of two a window, as a function that says whether a use at a time is granted."""
    ledger, numbers = Ledger(), itertools.count()
    ledger.open("org", [Cap(unit="tool_calls", limit=LIMIT, per=per)])
    ledger.open("run", [], parent="org")

    def use(at_us: int) -> bool:
        key = f"key-{next(numbers)}"
        given = ledger.reserve(key, "run", {"tool_calls": 1}, now_us=at_us) is None
        ledger.settle(key)
        ledger.check()
        return given

    return use


@pytest.mark.parametrize("ahead_us", [2 * SECOND, MINUTE, HOUR, DAY, 400 * DAY])
@pytest.mark.parametrize("uses", [1, 2, 3])
def test_a_clock_that_was_ahead_costs_a_budget_one_window_at_most(ahead_us: int, uses: int) -> None:
    use = budget()
    for _ in range(uses):
        use(NOW + ahead_us)
    given_out = [sum(use(NOW + minute * MINUTE + i) for i in range(3)) for minute in range(100)]
    assert sum(LIMIT - given for given in given_out) <= min(uses, LIMIT) and max(given_out) == LIMIT


@pytest.mark.parametrize("per", ["minute", "day"])
@given(steps=st.lists(st.tuples(st.booleans(), st.integers(0, 20), st.integers(1, 4)), max_size=40))
def test_a_clock_that_is_put_forward_and_back_within_a_window_gives_nothing_twice(
    per: Per, steps: list[tuple[bool, int, int]]
) -> None:
    """The window that it is and the one that it seems to be are two at most, however often it is put."""
    use, given_out, ahead_us = budget(per), 0, LENGTH[per] * 3
    for is_ahead, seconds, uses in steps:
        now = NOW + seconds * SECOND + ahead_us * is_ahead
        given_out += sum(use(now) for _ in range(uses))
    assert given_out <= 2 * LIMIT


@pytest.mark.parametrize("per", ["minute", "day"])
@given(
    steps=st.lists(st.tuples(st.integers(-1_000, 1_000), st.integers(0, 3)), max_size=25),
    then=st.integers(-1_000, 1_000),
)
def test_however_a_clock_jumped_there_is_a_full_budget_one_window_after_the_one_it_came_to(
    per: Per, steps: list[tuple[int, int]], then: int
) -> None:
    use = budget(per)
    for windows, uses in steps:
        for _ in range(uses):
            use(NOW + windows * LENGTH[per])
    came_to = NOW + then * LENGTH[per]
    use(came_to)
    seen = [sum(use(came_to + later * LENGTH[per] + i) for i in range(3)) for later in (1, 2, 3, 4)]
    assert seen[1:] == [LIMIT] * 3 and seen[0] <= LIMIT


def test_what_was_reserved_ahead_is_settled_and_released_after_the_clock_went_back() -> None:
    ledger = Ledger()
    ledger.open("org", [Cap(unit="tool_calls", limit=LIMIT, per="minute")])
    for key in ("kept", "given back"):
        assert ledger.reserve(key, "org", {"tool_calls": 1}, now_us=NOW + HOUR) is None
    assert ledger.reserve("now", "org", {"tool_calls": 2}, now_us=NOW) is None
    ledger.settle("kept")
    ledger.release("given back")
    ledger.check()
    assert ledger.reserve("new", "org", {"tool_calls": 2}, now_us=NOW + MINUTE) is None


@given(st.lists(st.tuples(st.integers(-(10**10), 10**10), st.integers(1, 5)), max_size=20))
def test_a_rate_is_never_used_up_for_longer_than_it_takes_to_fill(steps: list[tuple[int, int]]) -> None:
    queue = AdmissionQueue(lambda tenant: TenantShare(rate_per_minute=2, queue=10_000), 1)
    numbers, now = itertools.count(), NOW

    def offer(at_us: int) -> float | None:
        return queue.offer(TenantId("acme"), RunId(f"run_{next(numbers)}"), now_us=at_us)

    for by_us, uses in steps:
        now += by_us
        for _ in range(uses):
            offer(now)
    wait_s = offer(now)
    assert wait_s is None or (0 < wait_s <= 30 and offer(now + int(wait_s * SECOND) + 1) is None)


@pytest.mark.parametrize("set_by", [-400 * DAY, -HOUR, HOUR, 400 * DAY])
async def test_a_clock_that_is_set_while_a_call_is_at_work_makes_it_neither_longer_nor_shorter(set_by: int) -> None:
    """What it took is on its bill: it is measured by a clock that nobody sets."""
    clock, running = [NOW], [5]

    @tool(effect="write")
    def pay() -> None:
        """Pay, for three seconds in which the clock is set."""
        clock[0] += set_by
        running[0] += 3 * SECOND

    dispatcher = Dispatcher(
        [pay],
        seal_key=KEY,
        executor_id=EXECUTOR,
        now_us=lambda: clock[0],
        running_us=lambda: running[0],
        in_threads=False,
    )
    result = await run(dispatcher, granted(pay.spec, executor=EXECUTOR, expires_us=NOW + 120 * SECOND))
    assert result.ok and result.duration_us == 3 * SECOND


@pytest.mark.parametrize("ahead_us", [0, DAY])
async def test_a_clock_that_is_ahead_ends_no_switch_before_its_time(ahead_us: int) -> None:
    """An executor looks at the time that budgets count by, as the gate does."""
    (pay, paid), steady = counter(), [NOW]
    dispatcher = Dispatcher(
        [pay],
        seal_key=KEY,
        executor_id=EXECUTOR,
        now_us=lambda: steady[0] + ahead_us,
        steady_us=lambda: steady[0],
        in_threads=False,
    )
    dispatcher.grants.switches = KillSwitches(
        [
            msgspec.json.encode(
                KillSwitchChanged(
                    at_us=NOW, scope="all", target="", off=True, by=PrincipalId("op"), until_us=NOW + MINUTE
                )
            )
        ]
    )

    async def refused(nonce: bytes) -> bool:
        life = NOW + 2 * DAY
        return not (await run(dispatcher, granted(pay.spec, executor=EXECUTOR, expires_us=life, nonce=nonce))).ok

    assert await refused(b"one") and paid == []
    steady[0] += MINUTE
    assert not await refused(b"two") and paid == [1]


async def test_an_executor_whose_clock_was_ahead_for_long_takes_grants_again() -> None:
    clock, (pay, paid) = [NOW], counter()
    dispatcher = Dispatcher([pay], seal_key=KEY, executor_id=EXECUTOR, now_us=lambda: clock[0], in_threads=False)
    numbers = itertools.count()

    def fresh() -> bytes:
        nonce = f"nonce-{next(numbers)}".encode()
        return granted(
            pay.spec, executor=dispatcher.grants.executor_id, expires_us=clock[0] + 120 * SECOND, nonce=nonce
        )

    early = fresh()
    assert (await run(dispatcher, early)).ok
    for minutes in range(60, 70):
        clock[0] = NOW + minutes * MINUTE
        assert (await run(dispatcher, fresh())).ok
    clock[0] = NOW + 10 * SECOND
    assert (await run(dispatcher, fresh())).reason_code == "grant_invalid"  # it was for the one before
    assert dispatcher.grants.executor_id != EXECUTOR and (await run(dispatcher, fresh())).ok
    count = len(paid)
    assert (await run(dispatcher, early)).reason_code == "grant_invalid" and len(paid) == count


# The time of day.


class Machine:
    """A machine with a clock that somebody sets, and one that nobody does."""

    def __init__(self) -> None:
        self.running = 10**9
        self.wall = NOW
        self.told: list[int] = []
        self.clock = SteadyClock(lambda: self.wall, lambda: self.running, self.told.append)

    def go_on(self, us: int) -> None:
        """Let time pass."""
        self.running += us
        self.wall += us


def test_a_clock_that_was_ahead_for_a_moment_moves_nothing_and_is_told_of() -> None:
    machine = Machine()
    machine.wall += HOUR
    assert machine.clock() == NOW and machine.told == [HOUR]
    machine.go_on(STABLE_US - 1)
    assert machine.clock() == NOW + STABLE_US - 1
    machine.wall -= HOUR
    machine.go_on(1)
    assert machine.clock() == NOW + STABLE_US and machine.told == [HOUR]


@pytest.mark.parametrize("by_us", [HOUR, -HOUR, 2 * STEP_US])
def test_a_clock_that_was_set_for_good_is_followed_after_a_while(by_us: int) -> None:
    machine = Machine()
    machine.wall += by_us
    machine.clock()
    machine.go_on(STABLE_US)
    assert machine.clock() == machine.wall == NOW + by_us + STABLE_US and machine.told == [by_us]


@given(st.lists(st.tuples(st.integers(0, MINUTE), st.integers(-10 * HOUR, 10 * HOUR)), max_size=50))
def test_it_is_back_only_by_a_step_that_has_lasted_and_else_as_far_as_time_passed(
    steps: list[tuple[int, int]],
) -> None:
    machine = Machine()
    before = machine.clock()
    for us, by_us in steps:
        machine.go_on(us)
        machine.wall += by_us
        after = machine.clock()
        assert after >= before or after == machine.wall
        assert after == machine.wall or abs(after - before - us) < STEP_US
        before = after
