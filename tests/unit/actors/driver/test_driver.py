"""The driver's orders and books where timing is against it, without Ray: fleet, runtime and journal are stand-ins."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from airside.actors.driver.books import Placed
from airside.actors.driver.driver import Driver
from airside.actors.driver.fleet import Fleet, Post, Seat
from airside.actors.journal.store import JournalStore
from airside.actors.process.pulse import Where
from airside.actors.rpc.coalescer import Coalescer
from airside.actors.rpc.layer import LayerConfig
from airside.actors.rpc.methods import WITHDRAW, Method, Wait
from airside.actors.runtime import RuntimeApp
from airside.actors.settings import Settings
from airside.actors.wardens.warden import Stall
from airside.stack.directory import Directory, Principal, Tenant
from airside.stack.errors import LayerUnavailable
from airside.stack.ids import PrincipalId, RunId, TenantId
from airside.stack.journal.journaling import Append, Entry
from airside.stack.operations.messages import Delivery, Order
from airside.stack.reasons import ReasonCode, RunStatus
from airside.stack.run import events as ev
from airside.stack.scheduling.admission import AdmissionQueue, TenantShare
from airside.stack.scheduling.load import LEAST, LoadLimit
from airside.stack.values import Outcome, Usage
from tests.helpers import KEY, RUN

CONFIG = LayerConfig(Settings(heartbeat_s=0.001), Path("unused"), seal_key=KEY)
KILL = ev.KillRequested(at_us=1, by=PrincipalId("op"), why="x")
ORDER = Order(action="kill", scope="tenant", target="acme", by="op", why="x", at_us=1)
ENDED = ev.RunEnded(
    at_us=1, outcome=Outcome(status=RunStatus.KILLED, reason_code=ReasonCode.KILLED_BY_OPERATOR), usage=Usage(), cause=0
)


class Runtime:
    """A seat whose runtime has the run from the `arrives`th delivery on."""

    key = "acme/1"

    def __init__(self, driver: LoneDriver, arrives: int) -> None:
        self._driver = driver
        self._arrives = arrives
        self.delivered = 0

    async def deliver(self, delivery: Delivery) -> bool:
        """Say whether the run is here."""
        self.delivered += 1
        if self.delivered == self._arrives:
            self._driver.arrived()
        return self.delivered >= self._arrives


class Lone:
    """A fleet of one seat, a journal that answers nothing but `rows`, and a layer that is told."""

    def __init__(self) -> None:
        self.runtime: Runtime | None = None
        self.asked: list[tuple[Any, ...]] = []

    def seat(self, key: str) -> Runtime | None:
        """Return the live seat."""
        return self.runtime if self.runtime is not None and key == self.runtime.key else None

    async def adopt(self) -> dict[str, tuple[str, str]]:
        """Return what the one runtime holds."""
        return {RUN: ("acme/1", "awaiting_approval")}

    async def rows(self, name: str) -> list[tuple[Any, ...]]:
        """Answer a query for unfinished runs."""
        return [(RUN, "acme", "", 1, 5)]

    async def call(self, method: Method[Any, Any], request: Any) -> None:
        """Be told."""
        self.asked.append((method, request))


class LoneDriver(Driver):
    """A driver of stand-ins, which notes whom it ends itself."""

    def __init__(self) -> None:
        self.lone = Lone()
        super().__init__(
            CONFIG, Directory(tenants={"acme": Tenant(principals={"ana": Principal()})}), ["default"], "1", self.lone
        )  # type: ignore[arg-type]
        self._journal = self.lone  # type: ignore[assignment]
        self._approvals = self.lone  # type: ignore[assignment]
        self._queue = AdmissionQueue(lambda tenant: TenantShare(), 10)
        self.ended_here: list[RunId] = []
        self.arrived = lambda: None

    async def _end_here(self, run_id: RunId, placed: Placed) -> None:
        self.ended_here.append(run_id)
        self._runs.pop(run_id)

    async def _close_account(self, run_id: RunId) -> None:
        """Do nothing: there is no gate."""


async def test_an_order_to_kill_a_tenant_does_not_fail_for_a_run_that_ended_just_now() -> None:
    await LoneDriver()._obey(ORDER, RUN)


async def test_a_kill_waits_for_a_run_that_is_on_its_way_to_a_runtime_and_is_told_there() -> None:
    driver = LoneDriver()
    driver.lone.runtime = Runtime(driver, arrives=3)
    placed = driver._runs[RUN] = Placed(tenant=TenantId("acme"), epoch=1, seat="acme/1", condemned=KILL)
    await placed.placing.acquire()
    driver.arrived = placed.placing.release
    await driver._bring(Delivery(run_id=RUN, event=ev.encode_event(KILL)))
    assert driver.lone.runtime.delivered == 3 and driver.ended_here == [] and placed.seat == "acme/1"


async def test_a_kill_ends_a_run_that_its_runtime_has_no_more() -> None:
    driver = LoneDriver()
    driver.lone.runtime = Runtime(driver, arrives=3)
    driver._runs[RUN] = Placed(tenant=TenantId("acme"), epoch=1, seat="acme/1", condemned=KILL)
    await driver._bring(Delivery(run_id=RUN, event=ev.encode_event(KILL)))
    assert driver.lone.runtime.delivered == 1 and driver.ended_here == [RUN]


async def test_what_a_run_asked_people_for_before_the_driver_restarted_is_withdrawn_when_it_ends() -> None:
    driver = LoneDriver()
    driver.lone.runtime = Runtime(driver, arrives=1)
    await driver._recover()
    driver._finish(RUN, TenantId("acme"), ev.encode_event(ENDED))
    await asyncio.gather(*driver._tasks)
    assert (WITHDRAW, RUN) in driver.lone.asked


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
    ends = await driver.wait(Wait([RUN], 0.0, "watch", None))
    assert ends.ends == {RUN: end}


class Nodes:
    """Nodes whose Warden does not answer at first."""

    def __init__(self, *answers: bool) -> None:
        self._answers = iter(answers)
        self.killed = 0

    async def kill(self, node_id: str, where: Where, going_s: float = 0.0) -> bool:
        """Say whether it is dead."""
        self.killed += 1
        return next(self._answers)


async def test_a_kill_that_nobody_confirmed_is_repeated_until_the_process_is_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost = asyncio.Event()

    async def note(key: str, excused: bool) -> None:
        assert excused  # it was killed by order
        lost.set()

    monkeypatch.setattr("airside.actors.driver.fleet.ray.kill", lambda handle, no_restart: None)
    fleet = Fleet(CONFIG, RuntimeApp({}, {}, [], False, "1"))
    fleet.open(CONFIG.settings, note, set, lambda late_s: None, lambda layer, stall: None)
    nodes = fleet.nodes = Nodes(False, False, False, True)  # type: ignore[assignment]
    seat = Seat(CONFIG.settings, "acme/1", None, Post("node", Where(1, 2, 3, 4, 5, 6, 7)))
    fleet._sit(seat)
    assert not await fleet.kill(seat) and not await fleet.kill(seat)  # ordered twice, it is repeated once
    await asyncio.wait_for(lost.wait(), 5)
    assert fleet.seat("acme/1") is None and nodes.killed == 4


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


class Parting(LoneDriver):
    """A driver that notes whom it takes up, and condemns for real."""

    def __init__(self, runs: int) -> None:
        super().__init__()
        self.taken: list[RunId] = []
        self.runs = [RunId(f"run_{i:032x}") for i in range(runs)]
        for run_id in self.runs:
            self._runs[run_id] = Placed(tenant=TenantId("acme"), epoch=1, seat="acme/1")

    async def _take_up(self, run_id: RunId) -> None:
        self.taken.append(run_id)

    async def lose(self, run_id: RunId, *, excused: bool) -> None:
        """Let the process die that a run is in, with whoever is kept with it."""
        group = self._suspects.group(run_id)
        for run in self.runs:
            if run in self._runs and self._suspects.group(run) == group:
                self._runs[run].seat = "acme/1"
        await self._seat_lost("acme/1", excused)
        await asyncio.gather(*self._tasks)

    def condemned(self) -> list[RunId]:
        """Return who is to end."""
        return [run for run in self.runs if run in self.ended_here or self._runs[run].condemned is not None]


async def test_no_death_that_is_explained_is_ever_counted_against_a_run() -> None:
    driver = Parting(4)
    for _ in range(50):
        await driver.lose(driver.runs[0], excused=True)
    assert driver.condemned() == [] and driver._suspects.suspected(0) == 0 and len(driver.taken) == 200


async def test_a_run_whose_processes_die_is_found_among_its_neighbours_and_none_of_these_is_ended() -> None:
    driver, deaths = Parting(32), 0
    guilty = driver.runs[21]
    while guilty not in driver.condemned():
        await driver.lose(guilty, excused=False)
        deaths += 1
        assert deaths <= 12
    assert driver.condemned() == [guilty]


async def test_a_run_whose_activations_fail_of_themselves_is_ended_after_a_few() -> None:
    driver = Parting(2)
    for _ in range(6):
        await driver._broken(driver.runs[0], driver._runs[driver.runs[0]])
    assert driver.condemned() == [driver.runs[0]]


def stall(run_id: str = "") -> Stall:
    """Return a loop that is held."""
    return Stall(run_id, 3.0, "somewhere")


async def test_a_stall_that_names_nobody_parts_the_runs_and_one_that_names_somebody_parts_nobody() -> None:
    driver, seat = Parting(8), Seat(CONFIG.settings, "acme/1", None, Post("node", Where(1, 2, 3, 4, 5, 6, 7)))
    driver._blame(seat, stall("run_over_already"))
    assert driver._suspects.suspected(0) == 0 and driver.condemned() == []
    driver._blame(seat, stall(driver.runs[3]))
    assert driver._suspects.suspected(0) == 0 and driver.condemned() == [driver.runs[3]]
    driver._blame(seat, stall())
    assert {driver._suspects.group(run) for run in driver.runs} != {""} and driver.condemned() == [driver.runs[3]]


async def test_what_is_late_takes_up_no_more_runs_until_it_is_in_time() -> None:
    driver = Parting(0)
    driver._load = LoadLimit(2_000, late_s=2.0)
    driver._queue.places = driver._load.limit
    driver._is_late(9.0)
    assert driver._queue.places == LEAST and driver._work.is_set()
    for number in range(LEAST + 1):
        assert driver._queue.offer(TenantId("acme"), RunId(f"run_{number}"), now_us=0) is None
    assert len(list(driver._queue.take())) == LEAST  # the others wait


async def test_a_run_whose_request_held_a_layer_twice_is_ended_and_nobody_for_a_layer_that_names_nobody() -> None:
    driver = Parting(2)
    guilty, other = driver.runs
    ended: list[RunId] = []

    async def end(run_id: RunId, event: Any) -> None:
        ended.append(run_id)
        assert "held policy" in event.why and "the second time" in event.why

    driver._end_late = end  # type: ignore[method-assign, assignment]
    for stalled in (stall(), stall(guilty), stall(other), stall("run_over_already"), stall()):
        driver._layer_held("policy", stalled)
    assert driver.condemned() == []
    driver._layer_held("policy", stall(f"{guilty}.1-0"))  # a branch is its root's
    await asyncio.gather(*driver._tasks)
    assert driver.condemned() == ended == [guilty]


async def test_a_kill_whose_run_the_journal_has_not_confirmed_yet_says_so_instead_of_waiting() -> None:
    driver = LoneDriver()
    driver.config = LayerConfig(Settings(lease_s=1), Path("unused"), seal_key=KEY)
    driver._runs[RUN] = Placed(tenant=TenantId("acme"), epoch=0)
    with pytest.raises(LayerUnavailable, match="has not ended yet; it will"):
        await driver._obey(ORDER, RUN)
    assert driver._runs[RUN].condemned is not None
