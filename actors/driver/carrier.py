"""Carries out what `Placement` decides: each instruction once, and says with an event what became of it.

Whatever goes wrong with an instruction that is owed an answer is an answer too, so that no run waits for one for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from airside.actors.driver.fleet import Fleet
from airside.actors.rpc.layer import logger
from airside.actors.rpc.methods import CLOSE, WITHDRAW
from airside.actors.rpc.remote import Remote
from airside.actors.rpc.stubs import RemoteJournal, RemoteTools
from airside.stack.cycle.claiming import Claims
from airside.stack.errors import ItemFailed, LayerUnavailable
from airside.stack.ids import RunId
from airside.stack.operations.messages import Activation, Delivery
from airside.stack.scheduling import placement_events as on
from airside.stack.scheduling import placement_instructions as do

STOPPING_S = 4.0
"""Longest wait for an executor to stop a run's calls: it takes a fraction of a second, if it can."""


class Carrier:
    """`happened` takes in the answers."""

    def __init__(
        self,
        *,
        journal: RemoteJournal,
        tools: RemoteTools,
        policy: Remote,
        approvals: Remote,
        fleet: Fleet,
        now: Callable[[], on.Moment],
        happened: Callable[[on.PlacementEvent], None],
        rest: Callable[[], None],
    ) -> None:
        self._tools = tools
        self._policy = policy
        self._approvals = approvals
        self._fleet = fleet
        self._now = now
        self._happened = happened
        self._rest = rest
        self._tasks: set[asyncio.Task[Any]] = set()
        self.claims = Claims(journal, now=now, mint=lambda: secrets.token_hex(4), stop_calls=self._stop_calls)

    def carry_out(self, instruction: do.PlacementInstruction) -> None:
        """Begin to carry an instruction out."""
        self.spawn(_CARRY[type(instruction)](self, instruction))

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run a task until it is done or this is stopped."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def stop(self) -> None:
        """Leave everything as it is."""
        for task in list(self._tasks):
            task.cancel()

    async def _answer(
        self,
        work: Awaitable[on.PlacementEvent],
        what: str,
        failed: Callable[[Exception], on.PlacementEvent],
        level: int = logging.WARNING,
    ) -> None:
        try:
            event = await work
        except (LayerUnavailable, ItemFailed) as error:
            logger.log(level, "%s: %s", what, error, extra={"action": "placing_failed"})
            event = failed(error)
        except Exception as error:
            logger.exception("%s", what, extra={"action": "placing_failed"})
            event = failed(error)
        self._rest()  # a loop with much to place is not one that is held
        self._happened(event)

    # Processes.

    async def _start_process(self, i: do.StartProcess) -> None:
        async def start() -> on.PlacementEvent:
            await self._fleet.start(i.process)
            return on.ProcessStarted(at=self._now(), process=i.process)

        what = f"runtime {i.process} does not start"
        await self._answer(start(), what, lambda error: on.ProcessFailed(at=self._now(), process=i.process))

    async def _kill_process(self, i: do.KillProcess) -> None:
        await self._fleet.kill(i.process)

    async def _put_down_process(self, i: do.PutDownProcess) -> None:
        await self._fleet.put_down(i.process)

    async def _inspect_process(self, i: do.InspectProcess) -> None:
        holds = await self._fleet.holds(i.process, i.run_id)
        self._happened(on.ProcessInspected(at=self._now(), process=i.process, run_id=i.run_id, holds=holds))

    # Runs.

    async def _claim(self, i: do.Claim) -> None:
        what = f"{i.run_id} is not claimed yet"
        await self._answer(self.claims.claim(i), what, lambda error: on.ClaimFailed(at=self._now(), run_id=i.run_id))

    async def _activate(self, i: do.Activate) -> None:
        async def activate() -> on.PlacementEvent:
            runtime = self._fleet.runtime(i.process)
            if runtime is None:
                raise LayerUnavailable(f"runtime {i.process} is gone")
            await runtime.activate(Activation(run_id=i.run_id, events=i.events, epoch=i.epoch))
            return on.Activated(at=self._now(), run_id=i.run_id, epoch=i.epoch)

        await self._answer(
            activate(),
            f"{i.run_id} is placed again",
            lambda error: on.ActivationFailed(
                at=self._now(), run_id=i.run_id, epoch=i.epoch, broken=not isinstance(error, LayerUnavailable)
            ),
        )

    async def _deliver(self, i: do.Deliver) -> None:
        async def deliver() -> on.PlacementEvent:
            runtime = self._fleet.runtime(i.process)
            if runtime is None:
                raise LayerUnavailable(f"runtime {i.process} is gone")
            try:
                reports = await runtime.deliver(Delivery(run_id=i.run_id, event=i.event))
            except ItemFailed as error:
                # Sent again it fails again: what cannot be read means nothing to a run.
                logger.error("a message to %s: %s", i.run_id, error, extra={"action": "message_failed"})
                reports = 0
            return on.MessageAnswered(
                at=self._now(),
                number=i.number,
                run_id=i.run_id,
                process=i.process,
                present=reports is not None,
                reports=reports or 0,
            )

        await self._answer(
            deliver(),
            f"a message to {i.run_id} is sent again",
            lambda error: on.MessageFailed(at=self._now(), number=i.number, run_id=i.run_id, process=i.process),
            logging.DEBUG,  # again and again, until its process answers or is known dead
        )

    async def _end_run(self, i: do.EndRun) -> None:
        what = f"{i.run_id} is not ended yet"
        await self._answer(self.claims.end(i), what, lambda error: on.EndingFailed(at=self._now(), run_id=i.run_id))

    async def _stop_calls(self, run_ids: Sequence[RunId]) -> None:
        """Have the calls of a run and its branches stopped that no runtime has any more, before these are ended.

        Raises `LayerUnavailable` if an executor that may act does not say that it has stopped them.
        """
        try:
            async with asyncio.timeout(STOPPING_S):
                await asyncio.gather(*(self._tools.release(run_id) for run_id in run_ids))
        except LayerUnavailable:
            return  # it is gone, and has no calls
        except TimeoutError:
            executor = str(self._tools.index_of(run_ids[0]))
            if self._fleet.has_executor(executor):
                raise LayerUnavailable(f"executor {executor} has not stopped its calls") from None

    async def _set_timer(self, i: do.SetTimer) -> None:
        await asyncio.sleep(i.seconds)
        self._happened(on.TimerDue(at=self._now(), run_id=i.run_id, number=i.number))

    async def _close_account(self, i: do.CloseAccount) -> None:
        with contextlib.suppress(LayerUnavailable):  # a restarted gate opens no account of a run that has ended
            await self._policy.call(CLOSE, i.run_id)

    async def _withdraw(self, i: do.Withdraw) -> None:
        try:
            await self._approvals.call(WITHDRAW, i.run_id)
        except LayerUnavailable:
            logger.warning("the approvals of %s stay listed", i.run_id, extra={"action": "withdraw_failed"})


_CARRY: dict[type[do.PlacementInstruction], Callable[[Carrier, Any], Coroutine[Any, Any, None]]] = {
    do.StartProcess: Carrier._start_process,
    do.KillProcess: Carrier._kill_process,
    do.PutDownProcess: Carrier._put_down_process,
    do.InspectProcess: Carrier._inspect_process,
    do.Claim: Carrier._claim,
    do.Activate: Carrier._activate,
    do.Deliver: Carrier._deliver,
    do.EndRun: Carrier._end_run,
    do.SetTimer: Carrier._set_timer,
    do.CloseAccount: Carrier._close_account,
    do.Withdraw: Carrier._withdraw,
}
