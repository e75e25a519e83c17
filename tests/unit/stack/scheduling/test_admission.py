"""`AdmissionQueue`: caps that are never exceeded, turns that are fair, and places that come free again."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from airside.stack.ids import RunId, TenantId
from airside.stack.scheduling.admission import FIRST_ESTIMATE, AdmissionQueue, TenantShare

TENANTS = ["a", "b", "c"]
SHARES = {"a": TenantShare(concurrency=1, queue=3), "b": TenantShare(concurrency=2, queue=5), "c": TenantShare(queue=4)}
CELL = 4


def queue_of(share: TenantShare | None = None, cell: int = 1000) -> AdmissionQueue:
    """Return a queue where every tenant has the same share."""
    return AdmissionQueue(lambda tenant: share or TenantShare(), cell)


def fill(queue: AdmissionQueue, tenant: str, count: int) -> list[RunId]:
    """Offer `count` runs of a tenant."""
    runs = [RunId(f"{tenant}{n}") for n in range(count)]
    for run in runs:
        assert queue.offer(TenantId(tenant), run, now_us=0) is None
    return runs


class AdmissionMachine(RuleBasedStateMachine):
    """Offers, takes and releases at random, against lists."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = AdmissionQueue(lambda tenant: SHARES[tenant], CELL)
        self.waiting: dict[str, list[str]] = {t: [] for t in TENANTS}
        self.running: dict[str, list[str]] = {t: [] for t in TENANTS}
        self.count = 0

    @rule(tenant=st.sampled_from(TENANTS))
    def offer(self, tenant: str) -> None:
        self.count += 1
        run = f"{tenant}{self.count}"
        retry_after = self.queue.offer(TenantId(tenant), RunId(run), now_us=0)
        full = len(self.waiting[tenant]) >= SHARES[tenant].queue
        assert (retry_after is not None) is full
        if full:
            assert retry_after is not None and retry_after >= 1
        else:
            self.waiting[tenant].append(run)

    @rule(at_most=st.integers(1, 9))
    def take(self, at_most: int) -> None:
        for tenant, run in islice(self.queue.take(), at_most):
            assert self.waiting[tenant].pop(0) == run, "first come, first served within a tenant"
            self.running[tenant].append(run)

    @rule()
    def take_all(self) -> None:
        self.take(100)
        if sum(map(len, self.running.values())) < CELL:
            for tenant in TENANTS:
                free = SHARES[tenant].concurrency - len(self.running[tenant])
                assert free <= 0 or not self.waiting[tenant], f"{tenant} waits though it may run"

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        everything = [(t, r) for t in TENANTS for r in (*self.waiting[t], *self.running[t])]
        if everything:
            tenant, run = data.draw(st.sampled_from(everything))
            self.queue.release(TenantId(tenant), RunId(run))
            for place in (self.waiting, self.running):
                if run in place[tenant]:
                    place[tenant].remove(run)

    @rule(tenant=st.sampled_from(TENANTS))
    def release_what_nobody_knows(self, tenant: str) -> None:
        self.queue.release(TenantId(tenant), RunId("unknown"))

    @invariant()
    def the_caps_hold_and_the_counts_agree(self) -> None:
        stats = self.queue.stats()
        for tenant in TENANTS:
            counted = {"running": 0, "waiting": 0} | stats.get(tenant, {})
            counted.pop("estimate", None)
            assert counted == {"running": len(self.running[tenant]), "waiting": len(self.waiting[tenant])}
            assert counted["running"] <= SHARES[tenant].concurrency
        assert self.queue.running <= CELL


TestAdmission = AdmissionMachine.TestCase
TestAdmission.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(
    loads=st.lists(st.integers(1, 30), min_size=2, max_size=6),
    taken=st.integers(1, 40),
)
def test_tenants_take_turns_so_that_a_flood_waits_behind_itself(loads: list[int], taken: int) -> None:
    queue = queue_of(TenantShare(concurrency=1000))
    for number, load in enumerate(loads):
        fill(queue, f"t{number}-", load)
    started = Counter(tenant for tenant, _ in islice(queue.take(), taken))
    for number, load in enumerate(loads):
        mine = started[TenantId(f"t{number}-")]
        assert mine == load or mine >= max(started.values()) - 1, "nobody with work is more than one turn behind"


def test_a_newcomer_starts_after_one_turn_of_the_others() -> None:
    queue = queue_of(TenantShare(concurrency=1000))
    fill(queue, "flood", 500)
    list(islice(queue.take(), 3))
    fill(queue, "late", 1)
    assert "late" in [tenant for tenant, _ in islice(queue.take(), 2)]


def test_a_tenant_at_its_cap_does_not_hold_up_the_others() -> None:
    queue = AdmissionQueue(lambda tenant: TenantShare(concurrency=1 if tenant == "a" else 9), 100)
    fill(queue, "a", 5)
    fill(queue, "b", 5)
    assert Counter(tenant for tenant, _ in queue.take()) == {"a": 1, "b": 5}
    assert list(queue.take()) == []
    queue.release(TenantId("a"), RunId("a0"))
    assert list(queue.take()) == [("a", "a1")]


def test_the_cell_bounds_all_tenants_together() -> None:
    queue = queue_of(cell=3)
    fill(queue, "a", 5)
    fill(queue, "b", 5)
    assert len(list(queue.take())) == 3 and list(queue.take()) == []


def test_a_full_queue_says_when_to_come_back_and_a_longer_one_says_later() -> None:
    queue = queue_of(TenantShare(concurrency=1, queue=2))
    fill(queue, "a", 2)
    assert queue.offer(TenantId("a"), RunId("x"), now_us=0) == 1.0
    assert queue.stats()["a"] == {"running": 0, "waiting": 2, "estimate": FIRST_ESTIMATE}
    long = queue_of(TenantShare(concurrency=1, queue=100))
    fill(long, "a", 100)
    retry_after = long.offer(TenantId("a"), RunId("x"), now_us=0)
    assert retry_after is not None and retry_after > 1


def test_a_full_queue_of_one_tenant_does_not_refuse_another() -> None:
    queue = queue_of(TenantShare(queue=1))
    fill(queue, "a", 1)
    assert (
        queue.offer(TenantId("a"), RunId("x"), now_us=0) is not None
        and queue.offer(TenantId("b"), RunId("y"), now_us=0) is None
    )


def test_a_run_released_while_it_waits_is_never_started() -> None:
    queue = queue_of()
    fill(queue, "a", 3)
    queue.release(TenantId("a"), RunId("a1"))
    assert [run for _, run in queue.take()] == ["a0", "a2"]


def test_adopted_runs_count_as_running() -> None:
    queue = queue_of(TenantShare(concurrency=2))
    queue.adopt(TenantId("a"), RunId("old"))
    fill(queue, "a", 3)
    assert list(queue.take()) == [("a", "a0")] and queue.running == 2
    queue.release(TenantId("a"), RunId("old"))
    assert list(queue.take()) == [("a", "a1")]


# Fairness by cost and weight.


class Cell:
    """A cell of some places, in which every tenant always has something waiting and its runs take so many steps."""

    def __init__(self, costs: dict[str, int], weights: dict[str, int], places: int) -> None:
        shares = {name: TenantShare(concurrency=1000, queue=10**6, weight=weights[name]) for name in costs}
        self.queue = AdmissionQueue(lambda tenant: shares[tenant], places)
        self.costs, self.got, self.at_work = costs, dict.fromkeys(costs, 0), list[tuple[TenantId, RunId]]()
        self.number = 0
        for name in costs:
            self.offer(name, 3)

    def offer(self, name: str, count: int) -> None:
        """Submit runs."""
        for _ in range(count):
            self.number += 1
            assert self.queue.offer(TenantId(name), RunId(f"{name}-{self.number}"), now_us=0) is None

    def turn(self, count: int) -> None:
        """Let so many runs end, oldest first, each place being given on at once."""
        for _ in range(count):
            for tenant, run in self.queue.take():
                self.at_work.append((tenant, run))
                self.offer(tenant, 1)
            tenant, run = self.at_work.pop(0)
            self.got[tenant] += self.costs[tenant]
            self.queue.release(tenant, run, cost=self.costs[tenant])


@settings(deadline=None)
@given(
    tenants=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 5)), min_size=2, max_size=5),
    places=st.integers(1, 8),
)
def test_busy_tenants_get_steps_by_their_weights_however_long_their_runs_are(
    tenants: list[tuple[int, int]], places: int
) -> None:
    costs = {f"t{i}": cost for i, (cost, _) in enumerate(tenants)}
    weights = {f"t{i}": weight for i, (_, weight) in enumerate(tenants)}
    cell = Cell(costs, weights, places)
    cell.turn(300)  # the estimates settle
    before = dict(cell.got)
    cell.turn(3000)
    per_weight = {name: (cell.got[name] - before[name]) / weights[name] for name in costs}
    # One run of each by the theorem, and what is at work, whose cost was counted when it started.
    slack = sum((places + 2) * costs[name] / weights[name] for name in costs)
    assert max(per_weight.values()) - min(per_weight.values()) <= slack


def test_a_tenant_that_was_idle_has_saved_up_nothing() -> None:
    cell = Cell({"busy": 4, "late": 4}, {"busy": 1, "late": 1}, 1)
    for run in list(cell.queue._lines[TenantId("late")].waiting):
        cell.queue.release(TenantId("late"), run)
    cell.turn(100)
    cell.offer("late", 50)
    before = dict(cell.got)
    cell.turn(40)
    assert abs((cell.got["late"] - before["late"]) - (cell.got["busy"] - before["busy"])) <= 8


def test_a_rate_is_a_minutes_bucket_and_a_refusal_says_when() -> None:
    queue = queue_of(TenantShare(rate_per_minute=2))
    offers = [queue.offer(TenantId("a"), RunId(f"r{i}"), now_us=0) for i in range(3)]
    assert offers == [None, None, 30.0]
    assert queue.offer(TenantId("a"), RunId("early"), now_us=29_000_000) == pytest.approx(1.0)
    assert queue.offer(TenantId("a"), RunId("in time"), now_us=30_000_000) is None
    assert queue.offer(TenantId("a"), RunId("back"), now_us=0) is not None, "a clock that goes back fills nothing"
    assert queue.offer(TenantId("b"), RunId("other"), now_us=0) is None


class AdmissionMachineAtLength(AdmissionMachine):
    """The same, for longer."""


TestAdmissionAtLength = pytest.mark.slow(AdmissionMachineAtLength.TestCase)
TestAdmissionAtLength.settings = settings(max_examples=2000, stateful_step_count=50, deadline=None)


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), max_size=30))
def test_of_a_tenants_runs_the_higher_priority_begins_first_and_the_older_of_one(
    offered: list[tuple[int, bool]],
) -> None:
    queue, waits = queue_of(cell=0), list[tuple[int, RunId]]()
    for number, (priority, goes) in enumerate(offered):
        run = RunId(f"r{number}")
        queue.offer(TenantId("a"), run, now_us=0, priority=priority)
        if goes:
            queue.release(TenantId("a"), run)
        else:
            waits.append((-priority, run))
    queue.places = 100
    assert [run for _, run in queue.take()] == [run for _, run in sorted(waits, key=lambda each: each[0])]
