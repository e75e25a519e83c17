"""`AdmissionQueue`: caps that are never exceeded, turns that are fair, and places that come free again."""

from __future__ import annotations

from collections import Counter
from itertools import islice

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from airside.stack.admission import AdmissionQueue, TenantShare
from airside.stack.ids import RunId, TenantId

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
        assert queue.offer(TenantId(tenant), run) is None
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
        retry_after = self.queue.offer(TenantId(tenant), RunId(run))
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
            counted = stats.get(tenant, {"running": 0, "waiting": 0})
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
    assert queue.offer(TenantId("a"), RunId("x")) == 1.0
    assert queue.stats()["a"] == {"running": 0, "waiting": 2}
    long = queue_of(TenantShare(concurrency=1, queue=100))
    fill(long, "a", 100)
    retry_after = long.offer(TenantId("a"), RunId("x"))
    assert retry_after is not None and retry_after > 1


def test_a_full_queue_of_one_tenant_does_not_refuse_another() -> None:
    queue = queue_of(TenantShare(queue=1))
    fill(queue, "a", 1)
    assert queue.offer(TenantId("a"), RunId("x")) is not None and queue.offer(TenantId("b"), RunId("y")) is None


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
