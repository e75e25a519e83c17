"""Any sequence of operations on memory, with failures of the disk and restarts in between, keeps its promises."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from airside.memory.in_memory import HashingEmbedder
from airside.memory.rules import MemoryRules, Quota
from airside.memory.search.index import statement_of
from airside.memory.service import MemoryService
from airside.memory.storage.erasure import Erasure
from airside.memory.storage.erasure_plan import ErasurePlan, plan_erasure
from airside.memory.storage.store import Database, TenantStore
from airside.stack.contracts.memory import Candidate, RecallRequest
from airside.stack.errors import MemoryFailed
from airside.stack.ids import TenantId
from airside.stack.reasons import MemoryCode
from airside.stack.values import CLEARANCES
from tests.unit.memory.ancestry import Ancestry

TENANTS = (TenantId("acme"), TenantId("globex"))
SUBJECTS = ("", "depot", "harbour")
QUOTA = Quota(records=7, bytes=9_500)
Result = TypeVar("Result")

tenants = st.sampled_from(TENANTS)
subjects = st.sampled_from(SUBJECTS)
numbers = st.integers(0, 5)


def text_of(tenant: TenantId, number: int) -> str:
    """Return a text in which a word is nobody else's; two in turn contradict each other."""
    return f"the {tenant}word{number // 2} of the depot is {number % 2} metres"


def traces(text: str) -> tuple[bytes, bytes]:
    """Return bytes of a text and of its vector that nothing else has."""
    return text.encode(), HashingEmbedder().embed([text])[0].tobytes()


class DiskFull(OSError):
    """What the disk answers when a test says so."""


class Fails:
    """When the next change of a table fails: before anything is written, or after all is."""

    when = ""

    @classmethod
    def at(cls, work: Any, *args: Any) -> Any:
        """Do something, or fail."""
        when, cls.when = cls.when, ""
        if when == "before":
            raise DiskFull("no space is left")
        done = work(*args)
        if when == "after":
            raise DiskFull("no space is left")
        return done


class Store(TenantStore):
    """A store whose commits can fail."""

    def commit(self, *args: Any) -> None:
        """Write, or fail."""
        Fails.at(super().commit, *args)


class FailingDatabase(Database):
    """A database whose rewritings and removals can fail."""

    def rewrite(self, *args: Any) -> None:
        """Rewrite, or fail."""
        Fails.at(super().rewrite, *args)

    def drop(self, *args: Any) -> ErasurePlan:
        """Remove, or fail."""
        plan: ErasurePlan = Fails.at(super().drop, *args)
        return plan


class Machine(RuleBasedStateMachine):
    """Two tenants on one disk."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="airside-machine-"))
        self.now = 1_700_000_000_000_000
        self.kept: dict[str, TenantId] = {}
        self.gone: set[str] = set()
        self.expired: set[str] = set()
        self.seen: list[str] = []
        self.ancestry = Ancestry()
        self.begin()

    def begin(self) -> None:
        """Start the service."""
        rules = MemoryRules(quota=QUOTA, hot_bytes=40_000)
        self.service = MemoryService(self.folder, HashingEmbedder, lambda: self.now, rules)

    def teardown(self) -> None:
        """Remove everything."""
        self.service.close()
        self.runner.close()
        Fails.when = ""
        shutil.rmtree(self.folder)

    def wait(self, work: Awaitable[Result]) -> Result:
        """Wait for something."""

        async def waited() -> Result:
            return await work

        return self.runner.run(waited())

    def changed(self, work: Awaitable[Any]) -> Any:
        """Do what may fail because the disk does."""
        try:
            return self.wait(work)
        except DiskFull:
            return None

    def ids(self, tenant: TenantId) -> list[str]:
        """Return a tenant's records."""
        return sorted(record.record_id for record in self.wait(self.service.records(tenant)))

    @rule(
        tenant=tenants, number=numbers, subject=subjects, level=st.sampled_from(CLEARANCES),
        trust=st.sampled_from(("low", "medium", "high")), ttl_s=st.sampled_from((30, 600)), old=st.booleans(),
        shown=st.lists(st.integers(0, 30), max_size=2),
    )  # fmt: skip
    def write(
        self, tenant: TenantId, number: int, subject: str, level: Any, trust: Any, ttl_s: int, old: bool, shown: Any
    ) -> None:
        """Offer a record, as whoever was shown others at any time: it is kept only if all of them are there."""
        there = {record.record_id: record for record in self.wait(self.service.records(tenant))}
        ids = tuple({self.seen[at % len(self.seen)] for at in shown if self.seen})
        candidate = Candidate(
            tenant=tenant, text=text_of(tenant, number), kind="fact", source=tenant, sensitivity=level, trust=trust,
            subject=subject, ttl_s=ttl_s, observed_us=self.now - 5_000_000 if old else 0, shown=ids,
        )  # fmt: skip
        reply = self.changed(self.service.write_if_useful(candidate))
        if reply is None:
            return
        is_gone = any(each not in there or there[each].expires_us <= self.now for each in ids)
        assert (reply.code == MemoryCode.SOURCE_GONE) == is_gone
        if reply.record_id:
            self.kept[reply.record_id] = tenant
            is_operators = reply.record_id in there and there[reply.record_id].trust == "high" != trust
            if reply.code != MemoryCode.QUOTA_BYTES and not is_operators:
                self.ancestry.add(reply.record_id, subject, ids)

    @rule(tenant=tenants, at=numbers, what=st.sampled_from(("pin", "unpin", "quarantine", "release")))
    def change(self, tenant: TenantId, at: int, what: Any) -> None:
        """Change a record."""
        ids = self.ids(tenant)
        if ids:
            self.changed(self.service.change(tenant, ids[at % len(ids)], what))

    @rule(
        tenant=tenants, what=st.sampled_from(("record", "subject", "tenant")), at=numbers, subject=subjects,
        only=st.sampled_from(("", "", "own", "repeats")),
    )  # fmt: skip
    def erase(self, tenant: TenantId, what: Any, at: int, subject: str, only: Any) -> None:
        """Erase; what the receipt names is in no file, whatever happens from now on."""
        records = self.wait(self.service.records(tenant))
        ids = sorted(record.record_id for record in records)
        target = {"record": ids[at % len(ids)] if ids else "none", "subject": subject, "tenant": ""}[what]
        if what == "subject" and not subject:
            return
        order = Erasure(tenant=tenant, what=what, target=target, only="" if what == "tenant" else only)
        plan = plan_erasure(order, records)
        receipt = self.changed(self.service.erase(order))
        assert {record.record_id for record in records if order.covers(record)} <= set(plan.ids)
        if what == "subject" and not only:
            assert self.ancestry.of(subject, ids) <= set(plan.ids)
        self.gone |= set(plan.ids)
        if receipt is not None:
            assert set(receipt.records) == set(plan.ids)
            self.nothing_is_left(tenant)

    def nothing_is_left(self, tenant: TenantId) -> None:
        """Check that no file has a byte of what no record says."""
        there = {record.text for record in self.wait(self.service.records(tenant))}
        files = [p.read_bytes() for p in self.folder.rglob("*") if p.is_file() and f"t_{tenant}" in str(p.parent)]
        assert not list((self.folder / "erasing").glob(f"*-{tenant}.*"))
        for text in {text_of(tenant, number) for number in range(6)} - there:
            assert not any(trace in data for data in files for trace in traces(text))

    @rule(tenant=tenants, when=st.sampled_from(("before", "after")))
    def fail(self, tenant: TenantId, when: str) -> None:
        """Let the next change fail."""
        Fails.when = when

    @rule(seconds=st.sampled_from((10, 60)))
    def pass_time(self, seconds: int) -> None:
        """Let time go by."""
        self.now += seconds * 1_000_000

    @rule()
    def sweep(self) -> None:
        """Drop what has expired; an order that failed before may fail again."""
        with contextlib.suppress(MemoryFailed):
            self.wait(self.service.sweep())

    @rule()
    def restart(self) -> None:
        """Begin again from what is on disk: it is what was shown."""
        before = {tenant: self.wait(self.service.records(tenant)) for tenant in TENANTS}
        self.service.close()
        self.begin()
        for tenant, records in before.items():
            assert {r.record_id: r for r in self.wait(self.service.records(tenant))} == {
                r.record_id: r for r in records
            }

    @invariant()
    def promises_are_kept(self) -> None:
        """Check what is there and what is returned."""
        self.now += 1
        for tenant in TENANTS:
            records = {r.record_id: r for r in self.wait(self.service.records(tenant))}
            live = [statement_of(r) for r in records.values() if r.state == "live" and r.expires_us > self.now]
            assert len(set(live)) == len(live)
            assert len(records) <= QUOTA.records and not self.gone & records.keys()
            assert sum(r.size_bytes for r in records.values()) + len(records) * 256 * 4 <= QUOTA.bytes
            for record_id, owner in self.kept.items():
                if owner == tenant and record_id not in records:
                    assert record_id in self.gone | self.expired
            for level in CLEARANCES:
                request = RecallRequest(tenant=tenant, query="depot metres", clearance=level, min_score=0.0, top_k=50)
                for shown in self.wait(self.service.retrieve(request)).records:
                    record = records[shown.record_id]
                    if record.record_id not in self.seen:
                        self.seen.append(record.record_id)
                    assert record.tenant == tenant and record.state == "live" and record.expires_us > self.now
                    assert CLEARANCES.index(record.sensitivity) <= CLEARANCES.index(level)
                    assert f"{tenant}word" in shown.text and shown.source == tenant
            self.expired |= {r.record_id for r in records.values() if r.expires_us <= self.now + 60_000_001}
            memory = self.service._tenants.get(tenant)
            if memory is not None and memory.index is not None:
                memory.index.check()


@pytest.fixture(autouse=True)
def failing_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the service use the store that can fail."""
    monkeypatch.setattr("airside.memory.service.TenantStore", Store)
    monkeypatch.setattr("airside.memory.service.Database", FailingDatabase)


def test_no_sequence_of_operations_breaks_a_promise() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Machine, settings=settings(max_examples=40, stateful_step_count=25, deadline=None)
    )


@pytest.mark.slow
def test_no_long_sequence_of_operations_breaks_a_promise() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Machine, settings=settings(max_examples=400, stateful_step_count=50, deadline=None)
    )
