"""The machine's clock set by an hour, and back: nothing ends early by it, and nobody is kept out by it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from airside.actors.approvals import approvals as approvals_layer
from airside.actors.approvals.approvals import Approvals
from airside.actors.driver.admissions import validate_admission
from airside.actors.driver.driver import _moment
from airside.actors.rpc import layer
from airside.actors.rpc.layer import LayerConfig, steady_us
from airside.actors.runtime import RuntimeApp, TenantRuntime
from airside.actors.settings import Settings
from airside.stack.cycle.hosting import RunHost
from airside.stack.ids import PrincipalId, RequestId, RunId, TenantId, child_run, run_of
from airside.stack.operations.messages import Admit, Order
from airside.stack.policy.bundle import load_bundle
from airside.stack.policy.gate import Gate
from airside.stack.policy.kill_switches import KillSwitchChanged
from airside.stack.run import events as ev
from airside.stack.run.topology import FanOutFanIn
from airside.stack.scheduling import activation_events
from airside.stack.scheduling import placement_events as on
from airside.stack.scheduling.activation_instructions import ClaimBranch
from airside.stack.scheduling.clocks import STABLE_US
from airside.stack.scheduling.placement_state import PlacementState
from airside.stack.security.identity import IdentityChecker, run_subject, seal_identity
from airside.stack.values import Outcome, Request, Usage
from tests.helpers import KEY, RUN, identity, spec
from tests.unit.actors.approvals.test_approvals_layer import Journal, Others, ask, vote
from tests.unit.actors.driver.test_driver import LoneDriver
from tests.unit.stack.cycle.test_cycle import World
from tests.unit.stack.policy.test_gate import request

SECOND, MINUTE, HOUR = 1_000_000, 60_000_000, 3_600_000_000
ACME = TenantId("acme")


class Machine:
    """A machine whose clock somebody sets."""

    def __init__(self) -> None:
        self.wall, self.running = 1_700_000_000 * SECOND, 50 * HOUR

    def go_on(self, us: int) -> None:
        """Let time pass."""
        self.wall += us
        self.running += us


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """The clocks of this process."""
    made = Machine()
    clocks = SimpleNamespace(
        time=lambda: made.wall / 1e6,
        time_ns=lambda: made.wall * 1000,
        clock_gettime_ns=lambda which: made.running * 1000,
        CLOCK_BOOTTIME=0,
        sleep=layer.time.sleep,
    )
    monkeypatch.setattr(layer, "time", clocks)
    monkeypatch.setattr(steady_us, "_offset_us", made.wall - made.running)
    monkeypatch.setattr(steady_us, "_stepped", None)
    return made


FORTH_AND_BACK = pytest.mark.parametrize("by_us", [HOUR, -HOUR])


class Turns:
    """Counts how often somebody looks, so that a test can wait for looks and not for time."""

    def __init__(self, look: Callable[..., Any]) -> None:
        self._look = look
        self._looked = asyncio.Condition()
        self._count = 0

    def __call__(self, *args: Any) -> Any:
        """Look."""
        self._count += 1
        self._task = asyncio.ensure_future(self._tell())
        return self._look(*args)

    async def _tell(self) -> None:
        async with self._looked:
            self._looked.notify_all()

    async def more(self, looks: int = 2) -> None:
        """Wait for so many more."""
        wanted = self._count + looks
        async with self._looked:
            await self._looked.wait_for(lambda: self._count >= wanted)


# The driver.


def driver() -> LoneDriver:
    """Return a driver with a deadline of a minute, and a rate of two a minute."""
    return LoneDriver("tenants: {acme: {deadline_s: 60, rate_per_minute: 2, principals: {ana: {}}}}")


def admission(number: int) -> ev.RunSubmitted:
    """Return an admission as the driver makes it of what Ingress sends."""
    request = Request(text="go", request_id=RequestId(f"req_{number:024d}"))
    subject = run_subject(run_of(request.request_id))
    admit = Admit(
        identity=msgspec.msgpack.encode(identity()),
        proof=seal_identity(KEY, identity(), subject),
        request=msgspec.json.encode(request),
    )
    verdict = validate_admission(admit, IdentityChecker(KEY), ["default"], "1")
    assert isinstance(verdict, ev.RunSubmitted)
    return verdict


@FORTH_AND_BACK
async def test_a_deadline_is_neither_nearer_nor_farther(machine: Machine, by_us: int) -> None:
    """A run admitted before or during the step ends a minute after its admission."""
    it = driver()
    await it._enter(admission(1))
    machine.wall += by_us
    machine.go_on(SECOND)
    await it._enter(admission(2))
    runs = [run for run, _ in it._placement.runs()]
    machine.go_on(STABLE_US - 5 * SECOND)
    it._happened(on.Ticked(at=_moment()))
    assert PlacementState.TERMINATING not in {it.state(run) for run in runs}
    machine.wall -= by_us
    machine.go_on(5 * SECOND)
    it._happened(on.Ticked(at=_moment()))
    assert {it.state(run) for run in runs} == {PlacementState.TERMINATING} and len(runs) == 2


@FORTH_AND_BACK
async def test_a_rate_keeps_nobody_out_for_longer_than_it_would(machine: Machine, by_us: int) -> None:
    """Used up before, during or after the step, it is there again within its minute."""
    it = driver()
    for number, step in enumerate((0, by_us, -by_us)):
        machine.wall += step
        said = [await it._enter(admission(10 * number + i)) for i in range(3)]
        assert said[:2] == [None, None] and said[2] is not None
        assert said[2].retry_after_s <= 30
        machine.go_on(MINUTE - SECOND)
        machine.go_on(SECOND)


async def test_what_the_driver_makes_has_the_steady_time(machine: Machine) -> None:
    """Admissions and kills, which a run's own time is counted from."""
    machine.wall += HOUR
    steady = steady_us()
    assert admission(1).at_us == steady == machine.wall - HOUR
    it, stopped = driver(), []

    async def stop(run_id: RunId, event: ev.KillRequested) -> None:
        stopped.append(event.at_us)

    it._stop = stop  # type: ignore[method-assign, assignment]
    for action in ("kill", "cancel"):
        await it._obey(Order(action=action, scope="run", target=RUN, by="op", why="", at_us=machine.wall), RUN)  # type: ignore[arg-type]
    assert [*stopped, _moment().at_us] == [steady] * 3


# Approvals.


@pytest.fixture
async def desk(machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Approvals]:
    """A layer that looks for expired approvals all the time."""
    monkeypatch.setattr(approvals_layer, "RemoteJournal", Journal)
    monkeypatch.setattr(approvals_layer, "Remote", Others)
    monkeypatch.setattr(approvals_layer, "EXPIRY_CHECK_S", 0.001)
    Others.delivered, Others.policy_answers = [], True
    made = Approvals(LayerConfig(Settings(state_dir=tmp_path), tmp_path, seal_key=KEY))
    await made.ready()
    yield made
    made._expiring.cancel()


@FORTH_AND_BACK
async def test_an_approval_expires_in_its_own_time(machine: Machine, desk: Approvals, by_us: int) -> None:
    """A step of the clock takes nobody's time to decide, and gives none."""
    first = await ask(desk, 1, life_us=MINUTE)
    second = await ask(desk, 2, life_us=MINUTE)
    looks = desk._book.due = Turns(desk._book.due)  # type: ignore[method-assign, assignment]
    machine.wall += by_us
    machine.go_on(50 * SECOND)
    await looks.more()
    assert [approval.request.approval_id for approval in desk._book.pending()] == [first, second]
    assert (await vote(desk, first, "bob", "approve")).outcome == "approved"
    machine.wall -= by_us
    machine.go_on(10 * SECOND)
    await looks.more()
    expired = desk._book.get(second)
    assert expired is not None and expired.outcome == "expired"


# Runtimes.


@FORTH_AND_BACK
async def test_a_run_that_waits_for_its_branches_spends_no_more_than_it_takes(machine: Machine, by_us: int) -> None:
    """Whatever a runtime makes of a run's events while the clock is wrong counts as the time that passed."""
    nobody: Any = None
    host = RunHost(nobody, make=nobody, share=nobody, tell=nobody, log=nobody, now_us=steady_us, mint=nobody)
    world = World(None, FanOutFanIn(("x", "x")))
    world.cycle.layers = replace(world.cycle.layers, now_us=steady_us)
    world.cycle.machine.state.last_us = steady_us()
    await world.run()
    machine.wall += by_us
    machine.go_on(SECOND)
    ended = ev.RunEnded(
        at_us=0,
        outcome=Outcome(status="completed", reason_code="completed"),
        usage=Usage(),  # type: ignore[arg-type]
    )
    spawn, cycle, handle = world.cycle.machine.children(), world.cycle, host.activations.handle
    handle(activation_events.RunTakenUp(**host._of(cycle), tenant=ACME))
    handle(activation_events.BranchesWanted(**host._of(cycle), spawn=spawn))
    ends = {child_run(RUN, 1, number): (ended,) for number in (0, 1)}
    brought = [post.event for post in handle(activation_events.BranchesRead(**host._of(cycle), found=ends))]  # type: ignore[attr-defined]
    claim = ClaimBranch(run_id=RUN, epoch=1, branch=child_run(RUN, 1, 0), number=0, spawn=spawn, events=())
    child = host._child_submitted(cycle.machine, claim)
    assert [event.at_us for event in (*brought, child)] == [steady_us()] * 3
    for event in brought:
        await world.cycle.deliver(event)
    assert world.cycle.machine.usage().active_us == SECOND
    assert world.phase == "completed"


async def test_a_runtime_gives_its_cycles_the_steady_time(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Deadlines of approvals and active seconds are counted by it."""
    pulse = SimpleNamespace(where="", turn=lambda: None)  # a real one ends a process that nobody watches over
    monkeypatch.setattr("airside.actors.runtime.PulseWriter", lambda **_: pulse)
    monkeypatch.setattr("airside.actors.runtime.mark_children", lambda where: None)
    config = LayerConfig(Settings(state_dir=tmp_path, show_output=False), tmp_path)
    runtime = TenantRuntime(config, RuntimeApp({}, {}, [], False, "1"))
    await runtime.start()
    try:
        assert runtime._layers.now_us is runtime._host._now_us is steady_us
    finally:
        runtime._beating.cancel()


# Switches.


@FORTH_AND_BACK
def test_a_switch_that_ends_ends_in_its_own_time(machine: Machine, by_us: int) -> None:
    """A kill switch for half an hour is not taken back by a clock that is an hour ahead."""
    bundle = load_bundle("version: v1\nrules: [{id: all, outcome: allow}]\n")
    gate = Gate(bundle=bundle, tools=[spec()], seal_key=KEY, now_us=layer.now_us, windows_us=steady_us, random=bytes)
    half = KillSwitchChanged(
        at_us=steady_us(), scope="all", target="", off=True, by=PrincipalId("op"), until_us=steady_us() + HOUR // 2
    )
    gate.switches.apply(half)
    machine.wall += by_us
    machine.go_on(SECOND)
    assert gate.decide(request()).decision.reason_code == "switched_off"
    machine.wall -= by_us
    machine.go_on(HOUR // 2)
    assert gate.decide(request()).decision.reason_code == "allowed"
