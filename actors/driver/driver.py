"""Driver: admits runs, places them on runtimes, watches, kills, and takes up again what any death left unfinished.

It holds no truth of its own: what it knows is rebuilt from the journal and from the runtimes that still live.  Every
activation is claimed first, by a durable `RunActivated` under a new epoch; whoever still works under an older one is
fenced by the journal and refused by the executors.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import msgspec

from airside.actors.driver.books import (
    RESULTS_KEPT,
    Placed,
    is_meant,
    judge,
    latest_epoch,
    made_durable,
    not_admitted,
    open_order,
)
from airside.actors.driver.doubts import DoubtDesk
from airside.actors.driver.fleet import Fleet
from airside.actors.driver.rollbacks import Rollbacks
from airside.actors.driver.switchboard import Switchboard
from airside.actors.driver.watching import Watching
from airside.actors.process.pulse import boot_s
from airside.actors.rpc.layer import LayerConfig, control, logger, now_us, steady_us
from airside.actors.rpc.methods import (
    ADMIT,
    CLOSE,
    DELIVER,
    LIVE,
    ORDER,
    REPORT,
    ROLL_BACK,
    SWITCHES,
    WAIT,
    WITHDRAW,
    Ends,
    Wait,
)
from airside.actors.rpc.remote import Remote
from airside.actors.rpc.serving import serves
from airside.actors.rpc.stubs import RemoteJournal, RemoteTools, encode
from airside.stack.cycle.runlog import entry_of
from airside.stack.directory import Directory
from airside.stack.errors import AirsideError, ItemFailed, LayerUnavailable
from airside.stack.ids import PrincipalId, RunId, TenantId, root_of
from airside.stack.journal.journaling import Append
from airside.stack.operations.messages import Activation, Admit, Delivery, Order, Report, Ticket
from airside.stack.reasons import ReasonCode
from airside.stack.run import events as ev
from airside.stack.run.state import Phase
from airside.stack.scheduling.admission import AdmissionQueue, TenantShare
from airside.stack.scheduling.load import LoadLimit
from airside.stack.scheduling.watches import Watch, Watches
from airside.stack.security.identity import IdentityChecker

LATE_SHARE = 0.2
"""Share of the lease by which processes may be late before there is too much at work: they live by being in time."""

SHED = {"action": "load_shed"}

STOP_S = 0.3
"""How long a run that was told to end may take before its process is looked at; one that yields takes milliseconds."""


class Driver(Watching):
    """One per cell."""

    def __init__(
        self, config: LayerConfig, directory: Directory, routes: Sequence[str], version: str, fleet: Fleet
    ) -> None:
        super().__init__(config, fleet)
        self._directory = directory
        self._deadlines = directory.deadlines()
        self._routes = frozenset(routes)
        self._version = version
        self._ended: OrderedDict[RunId, bytes] = OrderedDict()
        self._watches = Watches()
        self._work: asyncio.Event = asyncio.Event()

    async def start(self) -> None:
        """Rebuild the books from the journal, then begin to admit and to watch."""
        settings = self.config.settings
        self._journal = RemoteJournal(settings)
        self._tools = RemoteTools(settings)
        self._approvals = Remote(settings, "approvals")
        policy = Remote(settings, "policy")
        self._policy = policy
        self._switchboard = Switchboard(
            self._journal, policy, tenants=self._directory.tenants.keys(), tools=self._fleet.tools
        )
        self._doubts = DoubtDesk(self._journal, self._bring)
        self._rollbacks = Rollbacks(
            settings, self._journal, policy, is_live=self._runs.__contains__, specs=self._fleet.specs
        )
        self._identities = IdentityChecker(self.config.seal_key)
        self._queue = AdmissionQueue(self._share, settings.cell_concurrency)
        self._load = LoadLimit(settings.cell_concurrency, late_s=settings.lease_s * LATE_SHARE)
        self._queue.places = self._load.limit
        self._fleet.open(settings, self._seat_lost, self._busy, self._is_late, self._layer_held)
        self._spawn(self.forever(self._fleet.watch(self._blame)))  # first: what lives on needs its lease renewed
        await self._switchboard.load()
        await self._recover()
        self._spawn(self.forever(self._end_late_forever()))  # first: what is late is not to begin
        self._spawn(self.forever(self._place_forever()))
        self._spawn(self.forever(self._passivate_forever()))

    def _share(self, tenant: TenantId) -> TenantShare:
        entry = self._directory.tenants.get(tenant)
        return entry.share() if entry is not None else TenantShare(concurrency=0, queue=0)

    def _is_late(self, late_s: float) -> None:
        """Take in how late the latest process is: what the machines cannot carry waits in the queue."""
        if self._load.heard(boot_s(), late_s, self._queue.running):
            if self._load.limit < self._queue.places:
                logger.warning(
                    "processes are %.1f s late: at most %d runs at once", late_s, self._load.limit, extra=SHED
                )
            self._queue.places = self._load.limit
            self._work.set()

    # Admission.

    @serves(ADMIT, unreadable=not_admitted, failed=not_admitted)
    async def admit(self, admit: Admit) -> Ticket:
        """Admit a request durably, or refuse it."""
        verdict = judge(admit, self._identities, self._routes, self._version)
        self.pulse.leave()
        if isinstance(verdict, Ticket):
            return verdict
        return await self._enter(verdict) or Ticket(run_id=verdict.run_id)

    async def _enter(self, event: ev.RunSubmitted) -> Ticket | None:
        """Queue a run and make its admission durable; return the refusal if there is one."""
        tenant, run_id = event.identity.tenant, event.run_id
        known = self._runs.get(run_id)
        if known is not None:
            await known.durable.wait()  # it was admitted before, and the answer got lost
            return known.refusal
        blocked = self._switchboard.switches.blocking(
            now_us=steady_us(), tenant=tenant, principal=event.identity.principal, version=event.app_version
        )
        if blocked is not None:
            return Ticket(reason_code=ReasonCode.SWITCHED_OFF, message=str(blocked))
        append = Append(tenant=tenant, stream=run_id, epoch=0, first_seq=0, entries=(entry_of(event),))
        wait_s = self._queue.offer(tenant, run_id, now_us=steady_us())
        if wait_s is not None:
            message = f"the queue of {tenant} is full, or it submits faster than it may"
            return Ticket(reason_code=ReasonCode.ADMISSION_REJECTED, message=message, retry_after_s=wait_s)
        placed = self._runs[run_id] = Placed(tenant=tenant, epoch=0)
        self._deadlines.watch(run_id, tenant, min(event.at_us, steady_us()))
        reply = await made_durable(self._journal, append)
        if reply.verdict == "error":
            message = f"the request {reply.detail}"
            placed.refusal = Ticket(reason_code=ReasonCode.REQUEST_INVALID, message=message)
            del self._runs[run_id]
            placed.over.set()
            self._deadlines.forget(run_id)
            self._queue.release(tenant, run_id)
        if reply.verdict == "ok":
            placed.events = [entry.body for entry in append.entries]
        placed.durable.set()  # fenced: it was admitted before this driver began, and is read from the journal
        self._work.set()
        return placed.refusal

    async def _append(self, run_id: RunId, placed: Placed, epoch: int, *events: ev.Event) -> None:
        """Make events of a run durable under an epoch; raise `LayerUnavailable` if the journal takes them not."""
        append = Append(
            tenant=placed.tenant,
            stream=run_id,
            epoch=epoch,
            first_seq=len(placed.events),
            entries=tuple(entry_of(event) for event in events),
        )
        reply = await self._journal.append(append)
        if reply.verdict != "ok":
            raise LayerUnavailable(f"journal: {run_id}: {reply.verdict}")
        placed.epoch = epoch
        placed.events += [entry.body for entry in append.entries]

    # Placing.

    async def _place_forever(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            for _, run_id in list(self._queue.take()):
                self._spawn(self._take_up(run_id))

    async def _take_up(self, run_id: RunId) -> None:
        """Claim a run under a new epoch and hand it to a runtime, until one has it."""
        placed = self._runs.get(run_id)
        if placed is None:
            return
        await placed.durable.wait()
        async with placed.placing:
            pause = 0.05
            while run_id in self._runs and placed.condemned is None and self._fleet.seat(placed.seat) is None:
                try:
                    await self._place(run_id, placed)
                except (LayerUnavailable, ItemFailed) as error:
                    logger.warning("%s is placed again: %s", run_id, error, extra={"action": "placing_failed"})
                    if isinstance(error, ItemFailed):
                        self._count_broken(run_id, placed)
                    placed.seat = ""
                    await asyncio.sleep(pause)
                    pause = min(1.0, pause * 2)
        if placed.condemned is not None:
            self._spawn(self._end_condemned(run_id))

    async def _place(self, run_id: RunId, placed: Placed) -> None:
        seat = await self._fleet.seat_for(placed.tenant, self._suspects.group(run_id))
        if not placed.events:
            placed.events = [body.encode() for body in (await self._bodies([run_id]))[run_id]]
            placed.epoch = max(placed.epoch, latest_epoch(placed.events))
            last = ev.decode_event(placed.events[-1])
            if isinstance(last, ev.RunEnded):
                self._finish(run_id, placed.tenant, placed.events[-1])  # its runtime died before it could say so
                return
        await self._claim(run_id, placed)
        self.pulse.leave()
        placed.seat, placed.parked, placed.in_doubt = seat.key, False, False
        await seat.activate(Activation(run_id=run_id, events=tuple(placed.events)))
        if self._fleet.seat(seat.key) is None:
            raise LayerUnavailable(f"runtime {seat.key} is gone")
        placed.events = []

    async def _claim(self, run_id: RunId, placed: Placed) -> None:
        activated = ev.RunActivated(epoch=placed.epoch + 1, claim=secrets.token_hex(4), at_us=steady_us())
        try:
            await self._append(run_id, placed, placed.epoch + 1, activated)
        except LayerUnavailable:
            placed.events = []  # somebody wrote to it meanwhile: read it again
            raise

    async def _bodies(self, run_ids: list[RunId]) -> dict[str, list[str]]:
        return await self._journal.bodies(run_ids)

    async def _recover(self) -> None:
        """After a restart of this driver: what is unfinished, and which runtimes still work on it."""
        rows = await self._journal.rows("unfinished")
        at_work, unbegun = await self._fleet.adopt(), await self._unbegun(rows)
        for run, tenant, parent, epoch, admitted_us in rows:
            if not parent:
                # What it asked people for, if it ever began, was told to the driver before this one.
                placed = self._runs[RunId(run)] = Placed(tenant=TenantId(tenant), epoch=epoch, asked=epoch > 0)
                placed.durable.set()
                placed.events = unbegun.get(run, [])
                self._deadlines.watch(RunId(run), TenantId(tenant), min(admitted_us, steady_us()))
                seat, phase = at_work.get(run, ("", ""))
                placed.seat = seat if self._fleet.seat(seat) is not None else ""  # it may have died just now
                self._readmit(RunId(run), placed, phase)
        self._work.set()

    def _readmit(self, run_id: RunId, placed: Placed, phase: str) -> None:
        """Give a run found unfinished its place: where it waits, where it works, or in the queue."""
        if phase == Phase.AWAITING_APPROVAL:
            placed.parked = True
        elif placed.seat:
            self._queue.adopt(placed.tenant, run_id)
        elif placed.epoch > 0 or self._queue.offer(placed.tenant, run_id, now_us=steady_us()) is not None:
            self._queue.adopt(placed.tenant, run_id)
            self._spawn(self._take_up(run_id))

    # What runtimes report.

    @serves(REPORT)
    def report(self, report: Report) -> bool:
        """Take in how a run stands."""
        self._take_in(report)
        return True

    def _take_in(self, report: Report) -> None:
        placed = self._runs.get(report.run_id)
        root = self._runs.get(RunId(report.run_id.partition(".")[0]))
        if root is not None and report.state == "parked":
            root.asked = True
        if report.state == "ended":
            self._finish(report.run_id, report.tenant, report.ended)
        elif placed is None:
            return
        elif report.state == "parked":
            placed.parked = True
            self._queue.release(report.tenant, report.run_id)
            self._work.set()
        elif report.state == "in_doubt":
            placed.in_doubt = True
        elif report.state == "working":
            placed.parked = placed.in_doubt = False
            self._queue.adopt(report.tenant, report.run_id)
        elif report.state in ("lost", "broken"):
            placed.seat, placed.events = "", []
            again = self._broken(report.run_id, placed) if report.state == "broken" else self._take_up(report.run_id)
            self._spawn(again)

    def _finish(self, run_id: RunId, tenant: TenantId, ended: bytes) -> None:
        steps = ev.decode_event(ended).usage.steps  # first: what is no end changes nothing
        placed = self._runs.pop(run_id, None)
        self._deadlines.forget(run_id)
        self._suspects.forget(run_id)
        if placed is not None:
            placed.over.set()
            if placed.asked:
                self._spawn(self._withdraw(run_id))
        self._queue.release(tenant, run_id, cost=steps)
        if run_id == root_of(run_id):
            self._spawn(self._close_account(run_id))
        self._ended[run_id] = ended
        if len(self._ended) > RESULTS_KEPT:
            self._ended.popitem(last=False)
        self._watches.ended(run_id, ended)
        self._work.set()

    async def _close_account(self, run_id: RunId) -> None:
        with contextlib.suppress(LayerUnavailable):  # a restarted gate opens no account of a run that has ended
            await self._policy.call(CLOSE, run_id)

    async def _withdraw(self, run_id: RunId) -> None:
        """Take what an ended run waited for off the list people see."""
        try:
            await self._approvals.call(WITHDRAW, run_id)
        except LayerUnavailable:
            logger.warning("the approvals of %s stay listed", run_id, extra={"action": "withdraw_failed"})

    @serves(WAIT)
    async def wait(self, wanted: Wait) -> Ends:
        """Return the `RunEnded` of those of a watch that have ended, as soon as there is one or the time is over."""
        now_s = asyncio.get_running_loop().time()
        begins = wanted.after is None
        watch = (self._watches.begin if begins else self._watches.find)(wanted.watch, now_s)
        if watch is None:
            return Ends(known=False)
        watch.arrived(wanted.after or 0)
        try:
            await self._look(watch, [RunId(run) for run in wanted.run_ids])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wanted.timeout_s):
                    await watch.news.wait()
            found, upto = watch.next_ends()
        finally:
            if not wanted.watch:
                self._watches.drop(watch)
        return Ends(found, upto)

    async def _look(self, watch: Watch, run_ids: list[RunId]) -> None:
        """Have runs watched; those that have ended already are told at once, from the journal if need be."""
        self._watches.add(watch, run_ids)
        for run_id in run_ids:
            if run_id in self._ended:
                self._watches.ended(run_id, self._ended[run_id])
            elif run_id not in self._runs:
                watch.unknown.add(run_id)
        if watch.unknown and not watch.ends:
            for run, body in await self._journal.rows("outcomes", list(watch.unknown)):
                self._watches.ended(RunId(run), body.encode())

    # From outside: decisions of people, orders of operators.

    @serves(DELIVER)
    async def deliver(self, message: Delivery) -> bool:
        """Bring an event to a run, wherever it is; one that is nowhere is taken up first."""
        await self._bring(message)
        return True

    async def _bring(self, message: Delivery) -> None:
        """Bring an event to a run, or to a child in its root's runtime; one that no runtime has is taken up first."""
        root = RunId(message.run_id.partition(".")[0])
        while (placed := self._runs.get(root)) is not None:
            seat = self._fleet.seat(placed.seat)
            if seat is not None:
                if placed.parked and message.run_id == root:
                    placed.parked = False  # it works from here; if the event means nothing to it, it says so
                    self._queue.adopt(placed.tenant, root)
                arriving = placed.placing.locked()
                try:
                    if await seat.deliver(message) or message.run_id != root:
                        return  # a child that is not there yet asks for its decision when it is
                    if not arriving and placed.seat == seat.key:
                        placed.seat = ""  # it left the runtime, and its end is on the way; or it is lost
                except LayerUnavailable:
                    pass  # the fleet tells us of its death
            if self._fleet.seat(placed.seat) is None:
                if placed.condemned is not None:
                    await self._end_condemned(root)  # or, if a runtime has got it meanwhile, tell it there
                    continue
                self._queue.adopt(placed.tenant, root)
                await self._take_up(root)
                continue
            await asyncio.sleep(0.05)

    @serves(ORDER)
    async def order(self, sealed: bytes) -> tuple[int, str]:
        """Carry out an operator's order; return how many runs it reached, or what is wrong with it."""
        order, problem = open_order(self.config.seal_key, sealed, now_us())
        if order is None:
            return 0, problem
        if order.action in ("switch_off", "switch_on"):
            try:
                await self._switchboard.throw(order)
            except AirsideError as error:
                return 0, error.message
            return 0, ""
        if order.action == "rollback":
            return 0, "an order to roll back is given to `roll_back`"
        if order.action == "settle":
            try:
                return await self._doubts.settle(order), ""
            except AirsideError as error:
                return 0, error.message
        targets = [run for run, placed in self._runs.items() if is_meant(order, run, placed.tenant)]
        if order.scope != "all" and not targets:
            return 0, f"no live run of {order.scope} {order.target}"
        outcomes = await asyncio.gather(*(self._obey(order, run) for run in targets), return_exceptions=True)
        failed = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if failed:
            return 0, f"{len(failed)} of {len(targets)} runs were not reached: {failed[0]}"
        return len(targets), ""

    @serves(ROLL_BACK)
    async def roll_back(self, sealed: bytes) -> tuple[bytes, str]:
        """Take back what an ended run did; return the encoded report, or what is wrong."""
        order, problem = open_order(self.config.seal_key, sealed, now_us())
        if order is None or order.action != "rollback":
            return b"", problem or f"{order} is no order to roll back"
        try:
            return encode(await self._rollbacks.roll_back(order, sealed)), ""
        except AirsideError as error:
            return b"", error.message

    async def _obey(self, order: Order, run_id: RunId) -> None:
        by = PrincipalId(order.by)
        event: ev.KillRequested | ev.CancelRequested
        if order.action == "cancel":
            event = ev.CancelRequested(by=by, why=order.why, at_us=steady_us())
        else:
            event = ev.KillRequested(by=by, why=order.why, at_us=steady_us())
        await self._stop(run_id, event)

    async def _stop(self, run_id: RunId, event: ev.KillRequested | ev.CancelRequested) -> None:
        """End a live run; return when it has ended, raise `LayerUnavailable` if that is not confirmed in time."""
        placed = self._runs.get(run_id)
        if placed is None:
            return  # it ended just now
        placed.condemned = event
        self._spawn(self._tell_to_end(placed, Delivery(run_id=run_id, event=ev.encode_event(event))))
        if not await self._ends_within(run_id, STOP_S):
            seat = self._fleet.seat(placed.seat)
            if seat is not None and await self._fleet.holds(seat, run_id):
                await self._fleet.kill(seat)
            if not await self._ends_within(run_id, self.config.settings.lease_s):
                raise LayerUnavailable(f"{run_id} has not ended yet; it will, for nothing takes it up again")

    async def _tell_to_end(self, placed: Placed, order: Delivery) -> None:
        await placed.durable.wait()  # which the journal may keep waiting for: then it ends after that
        await self._bring(order)

    async def health(self) -> dict[str, Any]:
        """Return who and how this is."""
        return {**await super().health(), "runs": len(self._runs)}

    async def stats(self) -> dict[str, Any]:
        """Return runs by state, tenants, runtimes."""
        if not self._started:
            return {}
        return {
            "live": len(self._runs),
            "parked": sum(placed.parked for placed in self._runs.values()),
            "in_doubt": [run for run, placed in self._runs.items() if placed.in_doubt],
            "tenants": self._queue.stats(),
            "runtimes": self._fleet.stats(),
            "runtimes_made": self._fleet.made,
            "killed_runaways": self._killed_runaways,
            "layers_held": list(self._layers_held),
            "places": self._load.limit,
            "halvings": self._load.halvings,
            "suspected": self._suspects.suspected(boot_s()),
            "pid": os.getpid(),
        }

    @serves(SWITCHES)
    def switches(self, _: None) -> list[bytes]:
        """Return what is switched off, oldest first, as JSON."""
        return [msgspec.json.encode(switch) for switch in self._switchboard.switches.off(steady_us())]

    @serves(LIVE)
    def live(self, _: None) -> list[tuple[str, str, str, bool]]:
        """Return the live runs: id, tenant, runtime, whether it waits for a person."""
        return [(run, p.tenant, p.seat, p.parked) for run, p in self._runs.items()]

    async def shut(self) -> None:
        """Stop watching and put the runtimes down; the journal keeps what is unfinished."""
        for task in list(self._tasks):
            task.cancel()
        await self._fleet.close()


control(Driver.health, Driver.stats)
