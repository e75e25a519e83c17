"""The kill-switch service of the driver: makes one durable, and returns when every layer that starts things has it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from airside.actors.rpc.layer import logger, now_us, steady_us
from airside.actors.rpc.methods import REFRESH
from airside.actors.rpc.remote import Remote
from airside.actors.rpc.stubs import RemoteJournal
from airside.stack.errors import InvalidInput, LayerUnavailable
from airside.stack.ids import SYSTEM_TENANT, PrincipalId, parse_run
from airside.stack.journal.stream import Stream
from airside.stack.operations.messages import Order
from airside.stack.policy.kill_switches import STREAM, KillSwitchChanged, KillSwitches

CONFIRM_S = 20.0
"""Longest an order waits until a switch is confirmed: a layer that is held is killed after 10 s, and back soon."""


def _log_late_confirmation(task: asyncio.Future[None]) -> None:
    """Log how it went on with a switch that nobody waits for any more."""
    error = None if task.cancelled() else task.exception()
    if error is None:
        logger.warning("a switch that was late is thrown everywhere", extra={"action": "switch_late"})
    else:
        logger.error("a switch was not confirmed: %s", error, extra={"action": "switch_unconfirmed"})


class KillSwitchService:
    """The single writer of the stream of switches."""

    def __init__(
        self,
        journal: RemoteJournal,
        policy: Remote,
        *,
        tenants: Collection[str],
        tools: Collection[str],
        patience_s: float = CONFIRM_S,
    ) -> None:
        self._stream = Stream(journal, SYSTEM_TENANT, STREAM)
        self._policy = policy
        self._known: dict[str, Collection[str]] = {"tenant": tenants, "tool": tools}
        self._patience_s = patience_s
        self._writing = asyncio.Lock()
        self.switches = KillSwitches()

    async def load(self) -> None:
        """Read what was set before."""
        self.switches = KillSwitches(await self._stream.bodies())

    async def set(self, order: Order) -> None:
        """Set a switch; once this returns no new effect that it covers starts anywhere.

        Raises `InvalidInput` for a target that does not exist, or an end that is over: a switch with a slip of the pen
        in it protects nobody; and for a tenant's order about what others switched off.
        Raises `LayerUnavailable` if a layer could not be told, or has not confirmed it in time; it says whether the
        switch is durable, and so holds for every layer from its next start.  It is gone on with.
        """
        self._check(order.scope, order.target)
        if order.action == "switch_off" and 0 != order.until_us <= steady_us():
            raise InvalidInput("switch: its end is over already: say how many seconds from now, or nothing")
        change = KillSwitchChanged(
            at_us=now_us(),
            scope=order.scope,
            target=order.target,
            off=order.action == "switch_off",
            by=PrincipalId(order.by),
            why=order.why,
            until_us=order.until_us,
            tenant=order.tenant,
        )
        durable = asyncio.Event()
        setting = asyncio.ensure_future(self._carry_out(change, durable))
        if setting not in (await asyncio.wait({setting}, timeout=self._patience_s))[0]:
            setting.add_done_callback(_log_late_confirmation)
            raise LayerUnavailable(
                f"{change}: on record, so it holds for every layer from its next start; but the gate, which tells the "
                f"executors, has not confirmed it in {self._patience_s:.0f} s, and is told again"
                if durable.is_set()
                else f"{change}: the journal has not confirmed it in {self._patience_s:.0f} s; it may be on record yet"
            )
        setting.result()

    async def _carry_out(self, change: KillSwitchChanged, durable: asyncio.Event) -> None:
        async with self._writing:  # of two orders at once, both are set
            standing = self.switches.withheld(change, now_us=steady_us())
            if standing is not None:
                raise InvalidInput(f"switch: {standing}; who set it takes it back")
            await self._write(change)
        durable.set()
        await self._policy.call(REFRESH, None)

    async def _write(self, change: KillSwitchChanged) -> None:
        reply = await self._stream.append(change)
        if reply.verdict != "ok":
            await self.load()
            raise LayerUnavailable(f"journal: {reply.verdict}; the switch was not thrown, try again")
        self.switches.apply(change)

    def _check(self, scope: str, target: str) -> None:
        if scope == "run":
            parse_run(target)
        scope, name = ("tenant", target.partition("/")[0]) if scope == "principal" else (scope, target)
        known = self._known.get(scope)
        if known is not None and name not in known:
            raise InvalidInput(f"switch: there is no {scope} {name!r:.80}; there are {', '.join(sorted(known))}")
