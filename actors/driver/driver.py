"""Driver: the mailbox of `Placement`, which decides where runs are, who is to end, and which processes there are.

What clients, operators, runtimes and Wardens say becomes an event; the `Carrier` carries out what follows.  It holds no
truth of its own: what it knows is rebuilt from the journal and from the runtimes that still live.  Every activation is
claimed first, by a durable `RunActivated` under a new epoch; whoever still works under an older one is fenced by the
journal and refused by the executors.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Any

import msgspec

from airside.actors.driver.admissions import (
    RESULTS_KEPT,
    admission_failed,
    append_until_durable,
    is_order_for,
    is_same_request,
    open_operator_order,
    priority_of,
    validate_admission,
)
from airside.actors.driver.batches import BatchStreams
from airside.actors.driver.carrier import Carrier
from airside.actors.driver.fleet import Fleet
from airside.actors.driver.in_doubt import InDoubtResolver
from airside.actors.driver.kill_switches import KillSwitchService
from airside.actors.driver.rollbacks import Rollbacks
from airside.actors.driver.spend_in_doubt import SpendResolver
from airside.actors.process.pulse import boot_s
from airside.actors.rpc.layer import LayerConfig, control, logger, now_us, steady_us
from airside.actors.rpc.methods import (
    ADMIT,
    DELIVER,
    LIVE,
    ORDER,
    RECOUNT,
    REPORT,
    ROLL_BACK,
    SWITCHES,
    WAIT,
    Ends,
    WaitRequest,
)
from airside.actors.rpc.remote import Remote
from airside.actors.rpc.serving import serves
from airside.actors.rpc.stubs import RemoteJournal, RemoteTools, encode
from airside.actors.wardens.warden import Bounds
from airside.actors.wardens.watched import WatchedLayer
from airside.stack.cycle.claiming import SWEEP_S, Unfinished, roots_of
from airside.stack.directory import Directory
from airside.stack.errors import AirsideError, LayerUnavailable
from airside.stack.flag import Flag
from airside.stack.ids import PrincipalId, RunId, TenantId
from airside.stack.journal.stream import append_of
from airside.stack.operations.messages import Admit, Delivery, Order, Report, Ticket
from airside.stack.reasons import ReasonCode
from airside.stack.run import events as ev
from airside.stack.scheduling import placement_events as on
from airside.stack.scheduling import placement_instructions as do
from airside.stack.scheduling.admission import AdmissionQueue, TenantShare
from airside.stack.scheduling.load import LoadLimit
from airside.stack.scheduling.placement import STOP_S, TERMINATION, Placement, PlacementRules
from airside.stack.scheduling.placement_state import PlacementState
from airside.stack.scheduling.watches import Watch, Watches
from airside.stack.security.identity import IdentityChecker

LATE_SHARE = 0.2
"""Share of the lease by which processes may be late before there is too much at work: they live by being in time."""

SHED = {"action": "load_shed"}

GATHER_S = 0.05
"""How long the first end of many is held back for the next ones: each answer is a call, and costs some milliseconds."""

HELD_SHOWN = 16
"""Layers that were held of which the driver still tells."""


class Driver(WatchedLayer):
    """One per cell."""

    def __init__(
        self, config: LayerConfig, directory: Directory, routes: Sequence[str], version: str, fleet: Fleet
    ) -> None:
        super().__init__(config)
        self._fleet = fleet
        self._directory = directory
        self._routes = frozenset(routes)
        self._version = version
        self._ended: OrderedDict[RunId, bytes] = OrderedDict()
        self._watches = Watches(secrets.token_hex(4))
        self._over: dict[RunId, Flag] = {}
        self._recording: dict[RunId, asyncio.Future[Ticket | None]] = {}
        self._refused: dict[RunId, float] = {}
        self._messages = count(TERMINATION + 1)
        self._arriving: dict[int, asyncio.Future[None]] = {}
        self._layers_held: deque[str] = deque(maxlen=HELD_SHOWN)
        self._without_route: Counter[str] = Counter()
        settings = config.settings
        self._placement = Placement(
            PlacementRules(
                pool_size=settings.pool_size if settings.mode == "pooled" else 0,
                max_processes=settings.max_live_runtimes,
                idle_s=settings.idle_runtime_s,
                lease_s=settings.lease_s,
            ),
            AdmissionQueue(self._share, settings.cell_concurrency),
            directory.deadlines(),
            LoadLimit(settings.cell_concurrency, late_s=settings.lease_s * LATE_SHARE),
            mint=lambda: secrets.token_hex(4),
        )

    async def start(self) -> None:
        """Rebuild the books from the journal, then begin to admit and to watch."""
        cell = self.config.cell
        self._journal = RemoteJournal(cell)
        self._tools = RemoteTools(cell)
        self._approvals = Remote(cell, "approvals")
        policy = Remote(cell, "policy")
        self._kill_switches = KillSwitchService(
            self._journal, policy, tenants=self._directory.tenants.keys(), tools=self._fleet.tools
        )
        self._batches = BatchStreams(self._journal)
        self._resolver = InDoubtResolver(self._journal, self._bring)
        self._spend_resolver = SpendResolver(self._journal, self.config.seal_key, lambda: policy.call(RECOUNT, None))
        self._rollbacks = Rollbacks(
            cell, self._journal, policy, is_live=self._placement.__contains__, specs=self._fleet.specs
        )
        self._identities = IdentityChecker(self.config.seal_key)
        self._carrier = Carrier(
            journal=self._journal,
            tools=RemoteTools(cell),
            policy=policy,
            approvals=Remote(cell, "approvals"),
            fleet=self._fleet,
            now=_moment,
            happened=self._happened,
            rest=lambda: self.pulse.leave(),
        )
        self._fleet.open(self._happened, _moment)
        self._carrier.spawn(self.forever(self._fleet.watch()))  # first: what lives on needs its lease renewed
        await self._kill_switches.load()
        await self._recover()
        self._carrier.spawn(self.forever(self._tick_forever()))
        self._carrier.spawn(self.forever(self._sweep_forever()))

    def bounds(self) -> Bounds:
        """Return for how long the driver's own loop may be held: leases must outlast that and its restart."""
        most_s = min(self.config.settings.layer_stall_s, self.config.settings.lease_s / 2)
        return Bounds(most_s, most_s)

    def _share(self, tenant: TenantId) -> TenantShare:
        entry = self._directory.tenants.get(tenant)
        return entry.share() if entry is not None else TenantShare(concurrency=0, queue=0)

    def _happened(self, event: on.PlacementEvent) -> None:
        """Take in an event, and have what follows carried out."""
        before = self._placement.queue.places
        instructions = self._placement.handle(event)
        if isinstance(event, on.LayerStalled):
            self._note_stall(event)
        elif self._placement.queue.places < before and isinstance(event, on.LatenessMeasured):
            places = self._placement.queue.places
            logger.warning("processes are %.1f s late: at most %d runs at once", event.late_s, places, extra=SHED)
        for instruction in instructions:
            if isinstance(instruction, do.Refuse):
                self._refused[instruction.run_id] = instruction.retry_after_s
            elif isinstance(instruction, do.Answer):
                self._arrived(instruction.number)
            elif isinstance(instruction, do.Finish):
                self._finish(instruction.run_id, instruction.ended)
            else:
                self._carrier.carry_out(instruction)

    def _note_stall(self, event: on.LayerStalled) -> None:
        who, where = event.run_id or "nobody known", event.where or "an unknown place"
        logger.error(
            "%s was held for %.1f s by %s at %s, and is restarted",
            *(event.layer, event.held_s, who, where),
            extra={"action": "layer_held"},
        )
        since = datetime.fromtimestamp(time.time() - event.held_s, UTC).isoformat(timespec="seconds")
        self._layers_held.append(f"{event.layer}: about {event.held_s:.1f} s from {since} by {who} at {where}")

    def _arrived(self, number: int) -> None:
        future = self._arriving.pop(number, None)
        if future is not None and not future.done():
            future.set_result(None)

    async def _tick_forever(self) -> None:
        while True:
            self._happened(on.Ticked(at=_moment()))
            await asyncio.sleep(self.config.settings.heartbeat_s)

    # Admission.

    @serves(ADMIT, unreadable=admission_failed, failed=admission_failed)
    async def admit(self, admit: Admit) -> Ticket:
        """Admit a request durably, or refuse it."""
        verdict = validate_admission(admit, self._identities, self._routes, self._version)
        self.pulse.leave()
        if isinstance(verdict, Ticket):
            return verdict
        return await self._enter(verdict) or Ticket(run_id=verdict.run_id)

    async def _enter(self, event: ev.RunSubmitted) -> Ticket | None:
        """Queue a run and make its admission durable; return the refusal if there is one.

        One that was submitted before, as the job of a batch is that is taken up again, is that run and no other.
        """
        tenant, run_id = event.identity.tenant, event.run_id
        if run_id in self._recording:  # it was sent before, and the answer got lost
            return await asyncio.shield(self._recording[run_id]) or await self._unlike(event)
        if run_id in self._placement or run_id in self._ended:
            return await self._unlike(event)
        blocked = self._kill_switches.switches.blocking(
            now_us=steady_us(), tenant=tenant, principal=event.identity.principal, version=event.app_version
        )
        if blocked is not None:
            return Ticket(reason_code=ReasonCode.SWITCHED_OFF, message=str(blocked))
        at = _moment()
        batch = event.request.batch
        submitted = on.Submitted(
            at=at,
            run_id=run_id,
            tenant=tenant,
            admitted_us=min(event.at_us, at.at_us),
            priority=batch.priority if batch else 0,
        )
        self._happened(submitted)
        wait_s = self._refused.pop(run_id, None)
        if wait_s is not None:
            message = f"the queue of {tenant} is full, or it submits faster than it may"
            return Ticket(reason_code=ReasonCode.ADMISSION_REJECTED, message=message, retry_after_s=wait_s)
        recording = self._recording[run_id] = asyncio.get_running_loop().create_future()
        refusal = await self._record(event)
        del self._recording[run_id]
        recording.set_result(refusal)
        return refusal

    async def _record(self, event: ev.RunSubmitted) -> Ticket | None:
        """Make an admission durable; return the refusal if it can never be."""
        run_id = event.run_id
        append = append_of(event.identity.tenant, run_id, [event])
        reply = await append_until_durable(self._journal, append)
        if reply.verdict == "error":
            self._happened(on.AdmissionFailed(at=_moment(), run_id=run_id))
            self._announce(run_id)
            return Ticket(reason_code=ReasonCode.REQUEST_INVALID, message=f"the request {reply.detail}")
        # Fenced: it was admitted before this driver began, and is read from the journal.
        events = (append.entries[0].body,) if reply.verdict == "ok" else ()
        self._happened(on.AdmissionRecorded(at=_moment(), run_id=run_id, events=events))
        return None if events else await self._unlike(event)

    async def _unlike(self, event: ev.RunSubmitted) -> Ticket | None:
        """Return the refusal of a job whose batch has one of its id already that asks for something else."""
        batch = event.request.batch
        if not batch:
            return None  # whoever made its nonce made it once
        there = await self._journal.bodies([event.run_id])
        first = ev.decode_event(there[event.run_id][0]) if there[event.run_id] else None
        if isinstance(first, ev.RunSubmitted) and is_same_request(first.request, event.request):
            return None
        message = (
            f"the batch {batch.id} has a job {event.request.job_id!r:.80} already, which asks for something else: "
            "give each job of a batch an id of its own"
        )
        return Ticket(reason_code=ReasonCode.REQUEST_INVALID, message=message)

    async def _recover(self) -> None:
        """After a restart of this driver: what is unfinished, and which runtimes still work on it."""
        rows = [Unfinished(*row) for row in await self._journal.rows("unfinished")]
        self._without_route = Counter(run.route for run in rows if run.route not in self._routes)
        at_work, unbegun = await self._fleet.adopt(), await self._unbegun(rows)
        for key in self._fleet.stats():
            self._happened(on.ProcessFound(at=_moment(), process=key))
        self._find(rows, at_work, unbegun)

    async def _sweep_forever(self) -> None:
        """Find the branches that a process left, whose last entry arrived after somebody had looked for them.

        And let go of the ends that somebody left who was waiting for them.
        """
        while True:
            await asyncio.sleep(SWEEP_S)
            self._watches.forget_idle(asyncio.get_running_loop().time())
            with contextlib.suppress(LayerUnavailable):
                self._find([Unfinished(*row) for row in await self._journal.rows("orphans")], {}, {})

    def _find(
        self,
        rows: Sequence[Unfinished],
        at_work: Mapping[str, tuple[str, int, on.Standing]],
        unbegun: Mapping[str, tuple[bytes, ...]],
    ) -> None:
        for run in roots_of(rows):
            process, held_epoch, standing = at_work.get(run.run_id, ("", 0, "working"))
            events = unbegun.get(run.run_id, ())
            self._happened(
                on.RunFound(
                    at=_moment(),
                    run_id=run.run_id,
                    tenant=run.tenant,
                    epoch=run.epoch,
                    admitted_us=min(run.admitted_us, steady_us()),
                    events=events,
                    priority=priority_of(events),
                    process=process,
                    held_epoch=held_epoch,
                    standing=standing,
                )
            )

    async def _unbegun(self, rows: Sequence[Unfinished]) -> dict[str, tuple[bytes, ...]]:
        """Return the events of the unfinished runs that never began, read together: they may be a whole queue."""
        ids = [run.run_id for run in rows if not run.parent and run.epoch == 0]
        size, found = self.config.settings.max_batch, dict[str, list[str]]()
        for first in range(0, len(ids), size):
            found |= await self._journal.bodies(ids[first : first + size])
        return {run: tuple(body.encode() for body in bodies) for run, bodies in found.items()}

    # What runtimes report.

    @serves(REPORT)
    def report(self, report: Report) -> bool:
        """Take in how a run stands."""
        self._take_in(report)
        return True

    def _take_in(self, report: Report) -> None:
        if report.state == "ended":
            self._happened(self._carrier.claims.ended(report.run_id, report.tenant, report.ended))
        else:
            self._happened(
                on.RunReported(
                    at=_moment(), run_id=report.run_id, epoch=report.epoch, standing=report.state, number=report.number
                )
            )

    def _finish(self, run_id: RunId, ended: bytes) -> None:
        self._ended[run_id] = ended
        if len(self._ended) > RESULTS_KEPT:
            self._ended.popitem(last=False)
        self._watches.ended(run_id, ended)
        self._announce(run_id)

    def _announce(self, run_id: RunId) -> None:
        """Wake whoever waits for a run to be no more."""
        over = self._over.pop(run_id, None)
        if over is not None:
            over.set()

    async def _ends_within(self, run_id: RunId, seconds: float) -> bool:
        if run_id in self._placement:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._over.setdefault(run_id, Flag()).wait()
        return run_id not in self._placement

    @serves(WAIT)
    async def wait(self, wanted: WaitRequest) -> Ends:
        """Return the `RunEnded` of those of a watch that have ended, soon after there is one or when the time is over.

        A question without a watch has no next one: it is told of all that have ended.
        """
        now_s = asyncio.get_running_loop().time()
        begins = wanted.after is None
        watch = (self._watches.begin if begins else self._watches.find)(wanted.watch, now_s)
        if watch is None:
            return Ends(known=False)
        watch.arrived(wanted.after or 0)
        try:
            await self._look(watch, [RunId(run) for run in wanted.run_ids], is_all=not wanted.watch)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wanted.timeout_s):
                    await watch.news.wait()
                    if wanted.watch and watch.run_ids:
                        await asyncio.sleep(GATHER_S)
            found, upto = watch.next_ends() if wanted.watch else watch.all_ends()
        finally:
            if not wanted.watch:
                self._watches.drop(watch)
        return Ends(found, upto, born=watch.born)

    async def _look(self, watch: Watch, run_ids: list[RunId], *, is_all: bool) -> None:
        """Have runs watched; those that have ended already are told at once, from the journal if need be.

        The journal is not asked while there are others to tell, unless this is all that is told.
        """
        self._watches.add(watch, run_ids)
        for run_id in run_ids:
            if run_id in self._ended:
                self._watches.ended(run_id, self._ended[run_id])
            elif run_id not in self._placement:
                watch.unknown.add(run_id)
        if watch.unknown and (is_all or not watch.ends):
            for run, body in await self._journal.rows("outcomes", list(watch.unknown)):
                self._watches.ended(RunId(run), body.encode())

    # From outside: decisions of people, orders of operators.

    @serves(DELIVER)
    async def deliver(self, message: Delivery) -> bool:
        """Bring an event to a run, wherever it is; one that is nowhere is taken up first."""
        await self._bring(message)
        return True

    async def _bring(self, message: Delivery) -> None:
        """Bring an event to a run, or to a branch in its root's runtime; return when it is there, or the run over."""
        number = next(self._messages)
        self._arriving[number] = asyncio.get_running_loop().create_future()
        arriving = self._arriving[number]
        self._happened(on.MessageArrived(at=_moment(), number=number, run_id=message.run_id, event=message.event))
        await arriving

    @serves(ORDER)
    async def order(self, sealed: bytes) -> tuple[int, str]:
        """Carry out an operator's order; return how many runs it reached, or what is wrong with it."""
        order, problem = open_operator_order(self.config.seal_key, sealed, now_us())
        if order is None:
            return 0, problem
        if order.action in ("switch_off", "switch_on"):
            try:
                await self._kill_switches.set(order)
            except AirsideError as error:
                return 0, error.message
            return 0, ""
        if order.action == "batch":
            try:
                change = await self._batches.change(order)
                if change.action == "cancel":
                    return await self._withdraw_batch(order), ""
            except AirsideError as error:
                return 0, error.message
            return 0, ""
        if order.action == "rollback":
            return 0, "an order to roll back is given to `roll_back`"
        if order.action in ("settle", "resolve_spend"):
            resolver = self._resolver if order.action == "settle" else self._spend_resolver
            try:
                return await resolver.resolve(order), ""
            except AirsideError as error:
                return 0, error.message
        targets = [run for run, entry in self._placement.runs() if is_order_for(order, run, entry.tenant)]
        if order.scope != "all" and not targets:
            return 0, f"no live run {'' if order.scope == 'run' else f'of {order.scope} '}{order.target}"
        outcomes = await asyncio.gather(*(self._obey(order, run) for run in targets), return_exceptions=True)
        failed = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if failed:
            return 0, f"{len(failed)} of {len(targets)} runs were not reached: {failed[0]}"
        return len(targets), ""

    async def _withdraw_batch(self, order: Order) -> int:
        """Withdraw a cancelled batch's runs, whether anybody runs it or not; return how many there were.

        None is submitted any more: who runs it looks at its stream, and what came in between is withdrawn by that.
        """
        runs = [RunId(run) for (run,) in await self._journal.rows("active_of_batch", order.target, order.tenant)]
        cancel = msgspec.structs.replace(order, action="cancel", scope="run")
        await asyncio.gather(*(self._obey(cancel, run) for run in runs), return_exceptions=True)
        return len(runs)

    @serves(ROLL_BACK)
    async def roll_back(self, sealed: bytes) -> tuple[bytes, str]:
        """Take back what an ended run did; return the encoded report, or what is wrong."""
        order, problem = open_operator_order(self.config.seal_key, sealed, now_us())
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
        if run_id not in self._placement:
            return  # it ended just now
        self._happened(on.TerminationRequested(at=_moment(), run_id=run_id, termination=event))
        if not await self._ends_within(run_id, STOP_S + self.config.settings.lease_s):
            raise LayerUnavailable(f"{run_id} has not ended yet; it will, for nothing takes it up again")

    async def health(self) -> dict[str, Any]:
        """Return who and how this is."""
        return {**await super().health(), "runs": len(self._placement)}

    async def stats(self) -> dict[str, Any]:
        """Return runs by state, tenants, runtimes."""
        if not self._started:
            return {}
        placement = self._placement
        return {
            "live": len(placement),
            "parked": sum(entry.state is PlacementState.PARKED for _, entry in placement.runs()),
            "in_doubt": [run for run, entry in placement.runs() if entry.state is PlacementState.IN_DOUBT],
            "tenants": placement.queue.stats(),
            "runtimes": self._fleet.stats(),
            "runtimes_made": self._fleet.made,
            "killed_runaways": placement.killed_runaways,
            "layers_held": list(self._layers_held),
            "without_route": dict(self._without_route),
            "places": placement.load.limit,
            "halvings": placement.load.halvings,
            "suspected": placement.attribution.suspects.suspected(boot_s()),
            "pid": os.getpid(),
        }

    @serves(SWITCHES)
    def switches(self, _: None) -> list[bytes]:
        """Return what is switched off, oldest first, as JSON."""
        return [msgspec.json.encode(switch) for switch in self._kill_switches.switches.off(steady_us())]

    @serves(LIVE)
    def live(self, _: None) -> list[tuple[str, str, str, bool]]:
        """Return the live runs: id, tenant, runtime, whether it waits for a person."""
        entries = self._placement.runs()
        return [(run, entry.tenant, entry.process, entry.state is PlacementState.PARKED) for run, entry in entries]

    async def shut(self) -> None:
        """Stop watching and put the runtimes down; the journal keeps what is unfinished."""
        self._carrier.stop()
        await self._fleet.close()


def _moment() -> on.Moment:
    return on.Moment(steady_us(), boot_s())


control(Driver.health, Driver.stats)
