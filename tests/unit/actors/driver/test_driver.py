"""The driver as placement's mailbox, without Ray: fleet, runtime and journal are stand-ins."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airside.actors.driver.carrier import Carrier
from airside.actors.driver.driver import Driver, _moment
from airside.actors.driver.fleet import Fleet, Post, RuntimeHandle
from airside.actors.journal.store import JournalStore
from airside.actors.process.pulse import Where
from airside.actors.process.stalls import Reading
from airside.actors.rpc.coalescer import Coalescer
from airside.actors.rpc.layer import LayerConfig
from airside.actors.rpc.methods import CLOSE, WITHDRAW, Method, WaitRequest
from airside.actors.runtime import RuntimeApp
from airside.actors.settings import Settings
from airside.stack.cycle.in_memory import InMemoryJournal
from airside.stack.directory import Directory, load_directory
from airside.stack.errors import ItemFailed, LayerUnavailable
from airside.stack.ids import RunId, TenantId
from airside.stack.journal.journaling import Append, Entry
from airside.stack.operations.messages import Activation, Delivery, Order, Report
from airside.stack.reasons import ReasonCode, RunStatus
from airside.stack.run import events as ev
from airside.stack.scheduling import placement_events as on
from airside.stack.scheduling.placement_state import PlacementState
from airside.stack.scheduling.watches import MOST_AT_ONCE
from airside.stack.values import Outcome, Usage
from tests.helpers import KEY, RUN, submitted

CONFIG = LayerConfig(Settings(heartbeat_s=0.001, lease_s=1), Path("unused"), seal_key=KEY)
ORDER = Order(action="kill", scope="tenant", target="acme", by="op", why="x", at_us=1)
ENDED = ev.RunEnded(
    at_us=1, outcome=Outcome(status=RunStatus.KILLED, reason_code=ReasonCode.KILLED_BY_OPERATOR), usage=Usage(), cause=0
)
ONE = "tenants: {acme: {principals: {ana: {}}}}"


class Process:
    """A runtime process, which answers as it is told."""

    def __init__(self) -> None:
        self.activations: list[Activation] = []
        self.deliveries: list[Delivery] = []
        self.error: Exception | None = None

    async def activate(self, activation: Activation) -> None:
        """Take a run up."""
        if self.error is not None:
            raise self.error
        self.activations.append(activation)

    async def deliver(self, delivery: Delivery) -> bool:
        """Say that the run is here."""
        self.deliveries.append(delivery)
        if self.error is not None:
            raise self.error
        return True


class Lone:
    """A fleet, a journal with what is put into it, and the layers that are told of ends."""

    def __init__(self) -> None:
        self.kept = InMemoryJournal()
        self.processes: dict[str, Process] = {}
        self.told: list[tuple[Any, ...]] = []
        self.unfinished: list[tuple[Any, ...]] = []
        self.outcomes: dict[str, str] = {}
        self.at_work: dict[str, tuple[str, int, str]] = {}
        self.tools: list[str] = []
        self.answers = True

    async def start(self, key: str) -> None:
        """Start a process."""
        self.processes[key] = Process()

    def runtime(self, key: str) -> Process | None:
        """Return a live process."""
        return self.processes.get(key)

    def stats(self) -> list[str]:
        """Return the live processes."""
        return list(self.processes)

    async def adopt(self) -> dict[str, tuple[str, int, str]]:
        """Return what the processes hold."""
        return self.at_work

    async def append(self, append: Any) -> Any:
        """Take it in."""
        if not self.answers:
            await asyncio.get_running_loop().create_future()
        return await self.kept.append(append)

    async def bodies(self, streams: list[str]) -> dict[str, list[str]]:
        """Return what the journal has."""
        return await self.kept.bodies(streams)

    async def rows(self, name: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Answer a query for unfinished runs, or for ends."""
        if name == "outcomes":
            return [(run_id, self.outcomes[run_id]) for run_id in parameters[0] if run_id in self.outcomes]
        return self.unfinished if name == "unfinished" else []

    async def unfinished_below(self, run_id: RunId) -> list[RunId]:
        """Return no branches."""
        return []

    async def release(self, run_id: RunId) -> None:
        """Stop a run's calls."""

    async def call(self, method: Method[Any, Any], request: Any) -> None:
        """Be told."""
        self.told.append((method, request))


class LoneDriver(Driver):
    """A driver of stand-ins."""

    def __init__(self, directory: str | Directory = ONE) -> None:
        lone: Any = Lone()
        self.lone: Lone = lone
        made = load_directory(directory) if isinstance(directory, str) else directory
        super().__init__(CONFIG, made, ["default"], "1", lone)
        self._journal = lone
        self._kill_switches = SimpleNamespace(switches=SimpleNamespace(blocking=lambda **_: None))  # type: ignore[assignment]
        self._carrier = Carrier(
            journal=lone,
            tools=lone,
            policy=lone,
            approvals=lone,
            fleet=lone,
            now=_moment,
            happened=self._happened,
            rest=lambda: None,
        )

    async def settle(self) -> None:
        """Let everything that is under way, but for timers, come to its end."""
        for _ in range(100):
            await asyncio.sleep(0)

    def state(self, run_id: RunId = RUN) -> PlacementState | None:
        """Return where a run is."""
        entry = self._placement.get(run_id)
        return None if entry is None else entry.state

    @property
    def process(self) -> Process:
        """Return the one process."""
        (process,) = self.lone.processes.values()
        return process

    def report(self, state: Any, epoch: int = 1) -> None:
        """Report of the run as its runtime does."""
        ended = ev.encode_event(ENDED) if state == "ended" else b""
        self._take_in(Report(run_id=RUN, tenant=TenantId("acme"), epoch=epoch, state=state, ended=ended))


async def working() -> LoneDriver:
    """Return a driver with one run at work."""
    driver = LoneDriver()
    assert await driver._enter(submitted()) is None
    await driver.settle()
    assert driver.state() is PlacementState.WORKING
    return driver


async def test_a_run_is_recorded_claimed_and_handed_over_with_all_its_events() -> None:
    driver = await working()
    (activation,) = driver.process.activations
    kinds = [type(ev.decode_event(body)).__name__ for body in activation.events]
    assert (activation.epoch, kinds) == (1, ["RunSubmitted", "RunActivated"])
    assert list(activation.events) == driver.lone.kept.bodies_of(RUN)


async def test_a_submission_that_is_sent_again_is_the_run_that_is_there() -> None:
    driver = await working()
    assert await driver._enter(submitted()) is None
    await driver.settle()
    assert len(driver.lone.kept.bodies_of(RUN)) == 2


async def test_an_order_to_kill_a_tenant_does_not_fail_for_a_run_that_ended_just_now() -> None:
    await LoneDriver()._obey(ORDER, RUN)


async def test_a_kill_is_told_where_the_run_is_and_is_over_with_it() -> None:
    driver = await working()
    killing = asyncio.ensure_future(driver._obey(ORDER, RUN))
    await driver.settle()
    (delivery,) = driver.process.deliveries
    assert isinstance(ev.decode_event(delivery.event), ev.KillRequested) and not killing.done()
    driver.report("ended")
    await killing
    assert RUN in driver._ended and driver.state() is None


async def test_a_kill_ends_a_run_whose_process_died_in_the_journal() -> None:
    driver = await working()
    key = driver.lone.stats()[0]
    driver.process.error = LayerUnavailable("it is gone")
    killing = asyncio.ensure_future(driver._obey(ORDER, RUN))
    await driver.settle()
    driver._happened(on.ProcessDied(at=_moment(), process=key, excused=True))
    await killing
    last = ev.decode_event(driver.lone.kept.bodies_of(RUN)[-1])
    assert isinstance(last, ev.RunEnded) and last.outcome.reason_code is ReasonCode.KILLED_BY_OPERATOR


async def test_a_kill_whose_run_the_journal_has_not_confirmed_yet_says_so_instead_of_waiting() -> None:
    driver = LoneDriver()
    driver.lone.answers = False
    admitting = asyncio.ensure_future(driver._enter(submitted()))
    await driver.settle()
    with pytest.raises(LayerUnavailable, match="has not ended yet; it will"):
        await driver._obey(ORDER, RUN)
    assert driver.state() is PlacementState.TERMINATING
    admitting.cancel()


async def test_what_a_run_asked_people_for_before_the_driver_restarted_is_withdrawn_when_it_ends() -> None:
    driver = LoneDriver()
    driver.lone.processes["acme/1"] = Process()
    driver.lone.at_work = {RUN: ("acme/1", 1, "parked")}
    driver.lone.unfinished = [(RUN, "acme", "", 1, 5)]
    await driver._recover()
    assert driver.state() is PlacementState.PARKED
    driver.report("ended")
    await driver.settle()
    assert driver.lone.told == [(WITHDRAW, RUN), (CLOSE, RUN)]


async def test_a_restarted_driver_counts_what_works_before_it_begins_anything() -> None:
    """So that no more run than a tenant may have at work."""
    driver = LoneDriver("tenants: {acme: {concurrency: 1, principals: {ana: {}}}}")
    waiting, at_work = RunId("run_" + "a" * 32), RunId("run_" + "b" * 32)
    driver.lone.processes["acme/1"] = Process()
    driver.lone.at_work = {at_work: ("acme/1", 1, "working")}
    driver.lone.unfinished = [(waiting, "acme", "", 0, 5), (at_work, "acme", "", 1, 6)]
    await driver._recover()
    assert driver.state(waiting) is PlacementState.QUEUED and driver.state(at_work) is PlacementState.WORKING


async def test_a_message_is_there_when_its_process_has_it_and_what_cannot_be_read_is_not_sent_again() -> None:
    driver = await working()
    message = Delivery(run_id=RUN, event=b"{}")
    await driver._bring(message)
    driver.process.error = ItemFailed("runtime: it cannot be read")
    await driver._bring(message)
    assert driver.process.deliveries == [message, message] and driver.state() is PlacementState.WORKING


async def test_a_message_to_a_run_that_is_over_waits_for_nothing() -> None:
    await LoneDriver()._bring(Delivery(run_id=RUN, event=b"{}"))


async def test_whatever_goes_wrong_with_an_instruction_is_an_answer_to_it() -> None:
    """So that a run waits for none for ever."""
    driver = await working()
    driver.process.error = ValueError("of a kind that nobody expects")
    driver.report("lost")
    await driver.settle()
    assert driver.state() is PlacementState.LOST


async def test_what_is_no_end_changes_nothing() -> None:
    driver = await working()
    body = driver.lone.kept.bodies_of(RUN)[-1]
    with pytest.raises(ValueError, match="has not ended"):
        driver._take_in(Report(run_id=RUN, tenant=TenantId("acme"), epoch=1, state="ended", ended=body))
    assert driver.state() is PlacementState.WORKING


async def test_a_run_that_ended_before_the_driver_was_started_is_told_of_from_the_journal(tmp_path: Path) -> None:
    """By what the journal's own query answers: who waits for it gets its end at once."""
    store = JournalStore(tmp_path, KEY)
    end = ev.encode_event(ENDED)
    entry = Entry(type="RunEnded", step=0, at_us=1, cause=0, body=end)
    (reply,) = store.commit([Append(tenant=TenantId("acme"), stream=RUN, epoch=0, first_seq=0, entries=(entry,))])
    assert reply.verdict == "ok"
    driver = LoneDriver()

    async def rows(name: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return store.rows(name, *parameters)

    driver.lone.rows = rows  # type: ignore[method-assign]
    ends = await driver.wait(WaitRequest([RUN], 0.0, "watch", None))
    assert ends.ends == {RUN: end}


async def test_who_asks_once_is_told_of_all_that_have_ended_long_ago_and_lately() -> None:
    """Of those that ended lately the driver knows, of others the journal; and there is no next answer for the rest."""
    driver = LoneDriver()
    lately = [RunId(f"run_{n:024x}") for n in range(MOST_AT_ONCE + 1)]
    for run_id in lately:
        driver._finish(run_id, b"{}")
    driver.lone.outcomes = {RUN: "{}"}
    ends = await driver.wait(WaitRequest([*lately, RUN, "run_of_nobody"], 0.0))
    assert set(ends.ends) == {*lately, RUN}


class Nodes:
    """Nodes whose Warden does not answer at first."""

    def __init__(self, *answers: bool) -> None:
        self._answers = iter(answers)
        self.killed = 0

    async def kill(self, node_id: str, where: Where, going_s: float = 0.0) -> bool:
        """Say whether it is dead."""
        self.killed += 1
        return next(self._answers)


class Pulses:
    """Nodes whose Warden reads one pulse after the other."""

    def __init__(self, *readings: Reading) -> None:
        self.left = list(readings)

    async def read(self, node_id: str, where: Where) -> Reading:
        """Return the next one."""
        return self.left.pop(0)


async def test_one_look_at_a_process_tells_of_all_runs_that_are_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one that holds the loop, and of a crowd beside it; a later question is another look."""
    monkeypatch.setattr("airside.actors.driver.fleet.HOLD_S", 0)
    fleet = Fleet(CONFIG, RuntimeApp({}, {}, [], False, "1"))
    fleet.open(lambda event: None, _moment)
    held, turned = Reading(5, 0, RUN), Reading(6, 0, RUN)
    pulses = fleet.nodes = Pulses(held, held, held, turned)  # type: ignore[assignment]
    seat = RuntimeHandle(CONFIG.cell, "acme/1", None, Post("node", Where(1, 2, 3, 4, 5, 6, 7)))
    fleet._runtimes[seat.key] = seat
    others = [RunId(f"run_{number:024x}") for number in range(1, 100)]
    assert await asyncio.gather(*(fleet.holds(seat.key, run) for run in [RUN, *others])) == [True] + [False] * 99
    assert not await fleet.holds(seat.key, RUN) and pulses.left == []  # type: ignore[attr-defined]


async def test_a_kill_that_nobody_confirmed_is_repeated_until_the_process_is_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost = asyncio.Event()

    def happened(event: on.PlacementEvent) -> None:
        assert isinstance(event, on.ProcessDied) and event.excused  # it was killed by order
        lost.set()

    monkeypatch.setattr("airside.actors.driver.fleet.ray.kill", lambda handle, no_restart: None)
    fleet = Fleet(CONFIG, RuntimeApp({}, {}, [], False, "1"))
    fleet.open(happened, _moment)
    nodes = fleet.nodes = Nodes(False, False, False, True)  # type: ignore[assignment]
    seat = RuntimeHandle(CONFIG.cell, "acme/1", None, Post("node", Where(1, 2, 3, 4, 5, 6, 7)))
    fleet._runtimes[seat.key] = seat
    assert not await fleet.kill(seat.key) and not await fleet.kill(seat.key)  # ordered twice, it is repeated once
    await asyncio.wait_for(lost.wait(), 5)
    assert fleet.runtime("acme/1") is None and nodes.killed == 4


async def test_what_its_caller_gave_up_before_it_was_sent_is_not_sent() -> None:
    sent: list[list[bytes]] = []
    first = asyncio.Event()

    async def send(batch: list[bytes]) -> list[bytes]:
        sent.append(batch)
        await first.wait()
        return batch

    coalescer = Coalescer(send, max_batch=10, in_flight=1)
    calls = [asyncio.ensure_future(coalescer.call(b"a"))]
    while not sent:  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0)
    calls += [asyncio.ensure_future(coalescer.call(item)) for item in (b"killed", b"b")]
    await asyncio.sleep(0)
    calls.pop(1).cancel()
    first.set()
    assert await asyncio.gather(*calls) == [b"a", b"b"] and sent == [[b"a"], [b"b"]]
    only = asyncio.ensure_future(coalescer.call(b"alone"))
    await asyncio.sleep(0)
    only.cancel()
    assert await coalescer.call(b"c") == b"c" and sent[-1] == [b"c"]
