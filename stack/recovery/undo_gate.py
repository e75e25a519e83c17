"""The gate of undos: grants the undo of exactly one call, on an operator's order and what the journal says.

Nothing of the request is believed but the order's seal, which its caller has checked: that the call was made, with
which arguments and output, by whom, and that its undo was intended and not yet carried out, are read from the journal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from airside.stack.canonical import digest
from airside.stack.errors import text_of
from airside.stack.ids import EffectKey, ExecutorId, IssuerId, Randomness, RunId, effect_key, root_of, undo_key
from airside.stack.operations.messages import Order
from airside.stack.policy.kill_switches import KillSwitches
from airside.stack.recovery.in_doubt import EffectResolved, decode_resolution, resolution_stream
from airside.stack.recovery.rollback import (
    ROLLBACK_LIFE_US,
    RollbackBook,
    UndoableCall,
    calls_of,
    is_over,
    rollback_stream,
)
from airside.stack.resources import OnChange, keys_of, referenced_resources
from airside.stack.run import events as ev
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.security.grants import GRANT_LIFE_US, Grant, mint
from airside.stack.values import Value


class UndoRequest(Value, array_like=True):
    """A call to undo: of which run and step, by which executor, on which sealed order."""

    order: bytes
    run_id: RunId
    step: int
    executor: ExecutorId


class UndoReply(Value, array_like=True):
    """A grant with what it is for, or why there is none; a refusal says that nothing was started."""

    grant: bytes = b""
    arguments: bytes = b"null"
    output: bytes = b"null"
    error: str = ""


Bodies = Mapping[str, Sequence[bytes | str]]
"""Streams of the journal, oldest entry first."""


def streams_for(request: UndoRequest) -> list[str]:
    """Return the streams that a request is judged by."""
    key = effect_key(request.run_id, request.step)
    return [request.run_id, rollback_stream(root_of(request.run_id)), resolution_stream(key)]


class UndoGate:
    """Pure but for the clock and the nonces it is given."""

    def __init__(
        self,
        tools: Iterable[ToolSpec],
        *,
        seal_key: bytes,
        now_us: Callable[[], int],
        random: Randomness,
        issuer: IssuerId,
        policy_version: str,
        on_change: OnChange | None = None,
    ) -> None:
        self._tools = {spec.name: spec for spec in tools}
        self._key = seal_key
        self._now_us = now_us
        self._random = random
        self._issuer = issuer
        self._policy_version = policy_version
        self._on_change = on_change

    def decide(self, request: UndoRequest, order: Order | None, bodies: Bodies, switches: KillSwitches) -> UndoReply:
        """Return the grant, or why there is none; whatever is unexpected is a no."""
        try:
            return self._decide(request, order, bodies, switches)
        except Exception as error:
            return UndoReply(error=text_of(error, 2000))

    def _decide(self, request: UndoRequest, order: Order | None, bodies: Bodies, switches: KillSwitches) -> UndoReply:
        stale = self._stale(order, root_of(request.run_id))
        if stale:
            return UndoReply(error=stale)
        events: list[ev.Event] = [ev.decode_event(body) for body in bodies[request.run_id]]
        if not is_over(events):
            return UndoReply(error=f"{request.run_id} has not ended")
        found_out = [decode_resolution(body) for body in bodies[streams_for(request)[2]]]
        resolved: dict[str, EffectResolved] = {said.key: said for said in found_out}
        call = next((call for call in calls_of(events, resolved) if call.step == request.step), None)
        if call is None or call.in_doubt:
            return UndoReply(error=f"the journal does not say that {effect_key(request.run_id, request.step)} happened")
        book = RollbackBook(bodies[rollback_stream(root_of(request.run_id))])
        intended = book.outstanding(call)
        if intended is None:
            return UndoReply(error=f"no undo of {call.key} is on record as intended")
        first = events[0]
        assert isinstance(first, ev.RunSubmitted)
        problem = self._rejection(call, first, switches)
        if problem:
            return UndoReply(error=problem)
        epoch = max(event.epoch for event in events if isinstance(event, ev.RunActivated)) + book.orders
        grant = self._grant(request, first, call, attempt=intended.attempt, epoch=epoch)
        spec = self._tools[call.tool]
        if self._on_change is not None and spec.resources:
            changed = keys_of(referenced_resources(spec, msgspec.json.decode(call.arguments)))
            self._on_change(changed, spec.timeout_ms)
        return UndoReply(grant=grant, arguments=bytes(call.arguments), output=bytes(call.output))

    def _stale(self, order: Order | None, root: RunId) -> str:
        if order is None:
            return "the order's seal does not hold"
        if (order.action, order.scope, order.target) != ("rollback", "run", root):
            return f"the order is not to roll {root} back"
        if abs(self._now_us() - order.at_us) > ROLLBACK_LIFE_US:
            return "the order is too old: order it again"
        return ""

    def _rejection(self, call: UndoableCall, run: ev.RunSubmitted, switches: KillSwitches) -> str:
        """Return why a call that happened may not be undone now."""
        spec = self._tools.get(call.tool)
        if spec is None or not spec.undoable:
            return f"the app has no undo of {call.tool}"
        if spec.version != call.tool_version:
            return f"{call.tool} is version {spec.version} now, and was {call.tool_version} when it was called"
        blocked = switches.blocking(
            now_us=self._now_us(),
            tenant=run.identity.tenant,
            principal=run.identity.principal,
            version=run.app_version,
            run_id=call.run_id,
            tool=call.tool,
        )
        return "" if blocked is None else str(blocked)

    def _grant(
        self, request: UndoRequest, run: ev.RunSubmitted, call: UndoableCall, *, attempt: int, epoch: int
    ) -> bytes:
        key: EffectKey = undo_key(call.key)
        return mint(
            self._key,
            Grant(
                tenant=run.identity.tenant,
                principal=run.identity.principal,
                run_id=call.run_id,
                step=call.step,
                attempt=attempt,
                epoch=epoch,
                tool=call.tool,
                tool_version=call.tool_version,
                arguments_sha256=digest(bytes(call.arguments)),
                key=key,
                policy_version=self._policy_version,
                approval_id="",
                executor=request.executor,
                timeout_ms=self._tools[call.tool].timeout_ms,
                expires_us=self._now_us() + GRANT_LIFE_US,
                issuer=self._issuer,
                nonce=self._random(12),
                undo=True,
                output_sha256=digest(bytes(call.output)),
                version=run.app_version,
            ),
        )
