"""Calls from outside as runs of a stack: how they begin, how they stand, and who may ask for that.

The gateway decides nothing.  Ingress says who a credential is of, policy what may run; what becomes of a call is read
from its run's record.  So nothing is lost with a gateway's process but the connections that it had, and with the
stack's nothing but the answers that were waited for just then.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from airside.actors.client.client import Stack
from airside.actors.client.connection import Connection
from airside.actors.client.steps import drive_async
from airside.actors.rpc.methods import OFFER, SUBMIT, WATCH_RUN
from airside.stack.canonical import canonical, write_bounded
from airside.stack.contracts.streams import WatchRequest
from airside.stack.errors import AuthRefused, InvalidId, InvalidInput, LayerUnavailable, Misuse, Refused
from airside.stack.ids import RunId, parse_run, request_for, run_of
from airside.stack.operations.messages import OfferRequest, ServedTool, Submission, ToolOffer
from airside.stack.reasons import ReasonCode
from airside.stack.run.gateway_call import GATEWAY, MAX_KEY_CHARS, CallStanding, GatewayCall, standing_of
from airside.stack.values import MAX_REQUEST_BYTES, Request

_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.05, 1.0
"""How often a record is looked at: at first after so long, then ever later.  The end of a run is told at once."""

_CROWDED_LOOKS = 100
"""How often a look is tried again while too many others look at runs of the tenant."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, as ingress knows the credential."""

    tenant: str
    principal: str
    credential: str

    def __repr__(self) -> str:
        return f"Caller({self.principal}@{self.tenant})"


class GatewayCalls:
    """What the gateway does with a stack; `connect` attaches to the one that was started in its place."""

    def __init__(self, stack: Stack, connect: Callable[[], Stack]) -> None:
        self._stack = stack
        self._connect = connect
        self._connecting = asyncio.Lock()

    def close(self) -> None:
        """Disconnect from the stack."""
        self._stack.close()

    @property
    def _connection(self) -> Connection:
        return self._stack._connection

    async def identify(self, credential: str) -> Caller:
        """Return who holds a credential, which is the first thing that is asked of every message.

        Raises `AuthRefused` for what is none, `Refused` where nothing is served, `LayerUnavailable` without a stack.
        """
        stack = self._stack
        try:
            offer = await self._offer(credential, with_tools=False)
        except Misuse:  # it is gone, and another one has its name
            await self._attach(stack)
            offer = await self._offer(credential, with_tools=False)
        return Caller(offer.tenant, offer.principal, credential)

    async def _attach(self, gone: Stack) -> None:
        """Attach to the stack that is there now, once for all who find that theirs is gone."""
        async with self._connecting:
            if self._stack is not gone:
                return
            try:
                self._stack = await asyncio.to_thread(self._connect)
            except Misuse as error:
                raise LayerUnavailable(f"the stack is gone: {error.message}") from None
            gone.close()

    async def tools(self, caller: Caller) -> tuple[ServedTool, ...]:
        """Return the tools that somebody may see."""
        return (await self._offer(caller.credential, with_tools=True)).tools

    async def _offer(self, credential: str, *, with_tools: bool) -> ToolOffer:
        asked = OfferRequest(credential=credential, with_tools=with_tools)
        offer = await drive_async(self._connection.call(OFFER, asked))
        if offer.code == "not_served":
            raise Refused(offer.problem, reason=offer.code)
        if offer.code:
            raise AuthRefused(offer.problem, reason=offer.code)
        return offer

    async def begin(self, caller: Caller, call: GatewayCall, key: str = "") -> RunId:
        """Submit a call and return its run; the same key of the same caller is the same call, whenever it comes.

        Raises `Refused` for a call that is not admitted, and `InvalidInput` for a key that another call has.
        """
        nonce = nonce_of(key) if key else secrets.token_bytes(16)
        run_id = run_of(request_for(caller.tenant, caller.principal, nonce))  # type: ignore[arg-type]
        if key:
            try:
                self._check_same((await self.standing(caller, run_id)).call, call, key)
                return run_id
            except UnknownCall:
                pass
        inputs = write_bounded(msgspec.to_builtins(call), max_bytes=MAX_REQUEST_BYTES, where="call")
        request = Request(text=f"Call {call.tool}", inputs=msgspec.Raw(inputs), route=GATEWAY, job_id=key)
        submission = Submission(credential=caller.credential, request=msgspec.json.encode(request), nonce=nonce)
        ticket = await drive_async(self._connection.call(SUBMIT, submission))
        if not ticket.run_id:
            after = f" (try again in {ticket.retry_after_s:.0f} s)" if ticket.retry_after_s else ""
            reason = ticket.reason_code or ReasonCode.INTERNAL_ERROR
            raise Refused(f"{ticket.message or reason.sentence}{after}", reason=reason.value)
        if key:  # another with the same key may have come in between
            self._check_same((await self.standing(caller, run_id)).call, call, key)
        return ticket.run_id

    def _check_same(self, there: GatewayCall, call: GatewayCall, key: str) -> None:
        if there.tool != call.tool or canonical(there.arguments) != canonical(call.arguments):
            raise InvalidInput(f"the idempotency key {key!r:.80} is that of another call: take a new one for each call")

    async def standing(self, caller: Caller, run: str) -> CallStanding:
        """Return how a caller's own call stands; raise `UnknownCall` for any other, and for what is none."""
        try:
            run_id = parse_run(run)
        except InvalidId:
            raise _unknown(run) from None
        asked = WatchRequest(run_id=run_id, after=0, born="", timeout_s=0.0, credential=caller.credential)
        for _ in range(_CROWDED_LOOKS):
            page = await drive_async(self._connection.call(WATCH_RUN, asked))
            if page.code != "too_many":
                break
            await asyncio.sleep(_FIRST_LOOK_S)
        if page.code == "unknown":
            raise _unknown(run)
        if page.code == "too_many":
            raise Refused(page.problem, reason=page.code)
        if page.code:
            raise AuthRefused(page.problem, reason=page.code)
        try:
            standing = standing_of(page.events)
        except InvalidInput:
            raise _unknown(run) from None
        if not standing.is_of(caller.tenant, caller.principal):
            raise _unknown(run)
        return standing

    async def wait(self, caller: Caller, run: str, *, seconds: float, for_people: bool) -> CallStanding:
        """Return how a call stands when it is over, or the time is; or, unless `for_people`, when it waits for them."""
        until = time.monotonic() + seconds
        pause = _FIRST_LOOK_S
        standing = await self.standing(caller, run)
        ended = asyncio.ensure_future(self._stack.awaited(self._stack.handle(run)))
        try:
            while not standing.is_over and (for_people or standing.phase != "waiting"):
                left = until - time.monotonic()
                if left <= 0:
                    break
                done, _ = await asyncio.wait({ended}, timeout=min(pause, left))
                for each in done:
                    each.result()
                standing = await self.standing(caller, run)
                pause = min(2 * pause, _LONGEST_LOOK_S)
        finally:
            ended.cancel()
        return standing

    async def cancel(self, caller: Caller, run: str) -> None:
        """Withdraw a caller's own call; one that is over stays as it is."""
        if not (await self.standing(caller, run)).is_over:
            await asyncio.to_thread(self._stack.cancel, run, f"withdrawn by its client, {caller.principal}")


class UnknownCall(InvalidInput):
    """There is no such call of this caller's; it is not said whether there is one of somebody else's."""


def _unknown(run: str) -> UnknownCall:
    return UnknownCall(f"there is no call {run!r:.80} of yours")


def nonce_of(key: str) -> bytes:
    """Return what a submission with a client's idempotency key is known by; raise `InvalidInput` for what is no key."""
    if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY_CHARS or not key.isprintable():
        raise InvalidInput(f"the idempotency key is no text of 1 to {MAX_KEY_CHARS} printable characters")
    return hashlib.blake2b(key.encode(), digest_size=16, person=b"airside gateway").digest()
