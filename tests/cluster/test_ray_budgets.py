"""A budget that runs share is never overdrawn, whoever dies in the middle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import airside
from airside import RunHandle
from airside.actors.client.client import Stack
from airside.stack.directory import Budget
from tests.apps.shop import create_app
from tests.on_ray import BOUND_S, call, ledger_of, sigkill, until

pytestmark = pytest.mark.ray


@pytest.fixture
def start(local_ray: None, tmp_path: Path) -> Iterator[Any]:
    """Return a function that starts a stack of the shop; the same folder again is the same stack."""
    running: list[Stack] = []

    def started(organisation: list[Budget] | None = None) -> Stack:
        app = create_app(tmp_path, organisation)
        running.append(airside.start(app, stack="shop", state_dir=tmp_path, executors=1))
        return running[-1]

    yield started
    running[-1].shutdown()


def job(tenant: str, number: int, tool: str) -> dict[str, Any]:
    """Return a job of one call."""
    actions = [call(tool, text=f"{tool} {tenant} {number:03}")]
    return {"request": "buy", "tenant": tenant, "principal": "ana", "inputs": {"actions": actions}}


def submit(stack: Stack, tenant: str, count: int, tool: str = "take") -> list[RunHandle]:
    """Submit runs of one call each."""
    return [stack.submit(**job(tenant, i, tool)) for i in range(count)]


def reasons(stack: Stack, handles: list[RunHandle]) -> Counter[str]:
    """Wait for runs and count why they ended."""
    return Counter(str(result.reason_code) for result in stack.results(handles, timeout=2 * BOUND_S))


@pytest.mark.parametrize("layer", ["runtime", "policy", "executor"])
def test_two_hundred_parallel_steps_on_a_budget_of_ten_spend_ten(start: Any, layer: str) -> None:
    stack = start()
    jobs = [job("ten", i, "take") for i in range(200)]
    with ThreadPoolExecutor(1) as beside:
        batch = beside.submit(stack.map, jobs, progress=False, timeout=2 * BOUND_S)
        until(lambda: ledger_of(stack).texts("take ten"), "the first step")
        assert sigkill(stack, layer) and not batch.done(), "the batch was over before anything was killed"
        ended = Counter(str(result.reason_code) for result in batch.result())
    assert ended == {"completed": 10, "budget_exhausted": 190}
    assert len(ledger_of(stack).texts("take ten")) == 10 and stack.verify() == []
    used = until(lambda: stack.status()["policy"].get("used"), "the gate to be up")
    assert used["tenant/ten"]["tool_calls"] == 10


def test_five_concurrent_calls_of_twenty_cents_on_forty_five_buy_two(start: Any) -> None:
    stack = start()
    handles = submit(stack, "poor", 5, "buy")
    assert reasons(stack, handles) == {"completed": 2, "budget_exhausted": 3}
    assert len(ledger_of(stack).texts("buy poor")) == 2
    refused = next(r for r in stack.results(handles) if not r.ok)
    assert "tenant/poor: 200000 cost_microusd wanted, 50000 of 450000 a month left" in refused.story()


def test_what_was_spent_is_known_after_every_process_died_and_after_a_new_start(start: Any) -> None:
    stack = start()
    assert reasons(stack, submit(stack, "poor", 1, "buy")) == {"completed": 1}
    sigkill(stack)
    assert reasons(stack, submit_when_up(stack)) == {"completed": 1}
    stack.shutdown()
    stack = start()
    assert reasons(stack, submit(stack, "poor", 2, "buy")) == {"budget_exhausted": 2}
    assert reasons(stack, submit(stack, "free", 2, "buy")) == {"completed": 2}
    assert len(ledger_of(stack).texts("buy poor")) == 2


def submit_when_up(stack: Stack) -> list[RunHandle]:
    """Submit one run as soon as Ingress is back."""

    def look() -> list[RunHandle]:
        try:
            return submit(stack, "poor", 1, "buy")
        except airside.AirsideError:
            return []

    return until(look, "ingress to be back")


def test_tenants_share_what_the_organisation_has(start: Any) -> None:
    stack = start([Budget(unit="tool:take", limit=3)])
    first = submit(stack, "free", 2)
    assert reasons(stack, first) == {"completed": 2}
    assert reasons(stack, submit(stack, "ten", 4)) == {"completed": 1, "budget_exhausted": 3}
    assert reasons(stack, submit(stack, "free", 2, "buy")) == {"completed": 2}


def think(stack: Stack, count: int, route: str = "think") -> Counter[str]:
    """Have runs of the tenant that saves tokens make one decision each."""
    job = {"request": "think", "tenant": "frugal", "principal": "ana", "route": route}
    return reasons(stack, [stack.submit(**job) for _ in range(count)])


def test_decisions_are_bought_only_while_their_price_fits(start: Any) -> None:
    stack = start()
    assert think(stack, 20) == {"completed": 3, "budget_exhausted": 17}
    assert sum((think(stack, 1) for _ in range(6)), Counter()) == {"completed": 5, "budget_exhausted": 1}
    assert len(ledger_of(stack).texts("run_")) == 8, "200 tokens are left, and a decision may take 300"
    assert think(stack, 1, "unpriced") == {"price_unknown": 1} and len(ledger_of(stack).texts("run_")) == 8
    assert stack.status()["policy"]["used"]["tenant/frugal"] == {"tokens": 800}


@pytest.mark.parametrize(("layer", "completed", "used"), [("runtime", 0, 900), ("policy", 3, 300)])
def test_a_decision_that_is_lost_with_its_process_stays_paid_for(
    start: Any, layer: str, completed: int, used: int
) -> None:
    stack = start()
    with ThreadPoolExecutor(1) as beside:
        batch = beside.submit(think, stack, 20)
        until(lambda: len(ledger_of(stack).texts("run_")) == 3, "three thoughts")
        assert sigkill(stack, layer) and not batch.done()
        ended = batch.result(BOUND_S)
    assert ended == Counter({"completed": completed, "budget_exhausted": 20 - completed}) + Counter()
    assert len(ledger_of(stack).texts("run_")) == 3 and stack.verify() == []
    counted = until(lambda: stack.status()["policy"].get("used"), "the gate to be up")
    assert counted["tenant/frugal"] == {"tokens": used}
