"""Rolls runs back, for the driver.  Each is intended durably, granted by Policy, and sent to an executor.

The rules of what is undone, in which order and how often are `stack/recovery/rollback.py`'s; here they meet the other
layers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from airside.actors.rpc.layer import now_us
from airside.actors.rpc.methods import UNDO
from airside.actors.rpc.names import CellAddress
from airside.actors.rpc.remote import Remote
from airside.actors.rpc.stubs import RemoteJournal, RemoteTools
from airside.stack.contracts.execution import ExecuteRequest
from airside.stack.errors import InvalidInput, LayerUnavailable
from airside.stack.ids import EffectKey, PrincipalId, RunId, parse_run, root_of, undo_key
from airside.stack.journal.effect_claims import attempt_key
from airside.stack.journal.stream import Stream
from airside.stack.operations.messages import Order
from airside.stack.reasons import ReasonCode
from airside.stack.recovery.in_doubt import EffectResolved, decode_resolution, resolution_stream
from airside.stack.recovery.rollback import (
    MAX_UNDO_ATTEMPTS,
    RollbackBook,
    RollbackEvent,
    RollbackOrdered,
    RollbackReport,
    UndoableCall,
    UndoEnded,
    UndoIntended,
    UndoLine,
    UndoOutcome,
    calls_of,
    classify_undo_result,
    in_reverse,
    is_undo_retryable,
    require_ended,
    rollback_stream,
    undo_line,
)
from airside.stack.recovery.undo_gate import UndoRequest
from airside.stack.run import events as ev
from airside.stack.run.spans import traceparent
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.values import ToolResult

Resolutions = dict[str, EffectResolved]


class Rollbacks:
    """Carries out orders to roll back, one at a time for each run."""

    def __init__(
        self,
        cell: CellAddress,
        journal: RemoteJournal,
        policy: Remote,
        *,
        is_live: Callable[[RunId], bool],
        specs: Iterable[ToolSpec],
    ) -> None:
        self._journal = journal
        self._tools = RemoteTools(cell)
        self._policy = policy
        self._is_live = is_live
        self._undoable = {spec.name for spec in specs if spec.undoable}
        self._locks: dict[RunId, asyncio.Lock] = {}

    async def roll_back(self, order: Order, sealed: bytes) -> RollbackReport:
        """Undo what an ended run and its branches did, as far as it goes; return how each call stands.

        Raises `InvalidInput` for a run that cannot be rolled back, and `LayerUnavailable` if the journal does not
        take it in: then it may be ordered again, and goes on where it was.
        """
        run_id = parse_run(order.target)
        if run_id != root_of(run_id):
            raise InvalidInput(f"{run_id} is a branch: roll the whole run {root_of(run_id)} back")
        if self._is_live(run_id):
            raise InvalidInput(f"{run_id} is live: kill it first, then roll it back")
        async with self._locks.setdefault(run_id, asyncio.Lock()):
            rollback = await self._open(run_id)
            await rollback.append(
                RollbackOrdered(at_us=now_us(), run_id=run_id, by=PrincipalId(order.by), why=order.why[:1000])
            )
            lines: list[UndoLine] = []
            try:
                for call in rollback.calls:
                    stopped = bool(lines) and lines[-1].outcome not in ("undone", "nothing")
                    lines.append(undo_line(call, "left") if stopped else await self._stand(rollback, call, sealed))
            finally:
                for each in {call.run_id for call in rollback.calls}:
                    await self._release(each)
        return RollbackReport(run_id=run_id, calls=tuple(lines))

    async def _open(self, run_id: RunId) -> _Rollback:
        branches = [row[0] for row in await self._journal.rows("branches", run_id)]
        bodies = await self._bodies([run_id, *branches, rollback_stream(run_id)])
        undone = bodies.pop(rollback_stream(run_id))
        book = RollbackBook(undone)
        runs = {run: [ev.decode_event(body) for body in entries] for run, entries in bodies.items()}
        require_ended(run_id, runs)
        doubted = [EffectKey(key) for events in runs.values() for key in events[-1].outcome.in_doubt]
        doubted += [attempt_key(ended.key, ended.attempt) for ended in book.in_doubt()]
        resolved = await self._resolutions(doubted)
        calls = in_reverse(call for events in runs.values() for call in calls_of(events, resolved))
        tenant = runs[run_id][0].identity.tenant
        stream = Stream(self._journal, tenant, rollback_stream(run_id), length=len(undone))
        return _Rollback(stream, book, calls, resolved)

    async def _resolutions(self, keys: list[EffectKey]) -> Resolutions:
        found = await self._bodies([resolution_stream(key) for key in keys]) if keys else {}
        said = [decode_resolution(entries[0]) for entries in found.values() if entries]
        return {each.key: each for each in said}

    async def _bodies(self, streams: list[str]) -> dict[str, list[str]]:
        found = await self._journal.bodies(streams)
        return found

    async def _stand(self, rollback: _Rollback, call: UndoableCall, sealed: bytes) -> UndoLine:
        """Return how a call stands, after trying to undo it if that is still to be done."""
        if call.in_doubt:
            return undo_line(call, "in_doubt", "the call itself may or may not have happened: resolve it first")
        ended = rollback.book.ended(call)
        lost = rollback.book.outstanding(call)
        if lost is not None and not call.repeatable:
            ended = await rollback.end(call, lost.attempt, "in_doubt", "the driver died while it was under way")
        if ended is not None and ended.outcome == "in_doubt" and not call.repeatable:
            said = rollback.resolved.get(attempt_key(ended.key, ended.attempt))
            if said is None:
                return undo_line(call, "in_doubt", f"{ended.detail}: resolve it first")
            if said.happened:
                ended = await rollback.end(call, ended.attempt, "undone", str(said))
        if ended is not None and ended.outcome == "undone":
            return undo_line(call, "undone", ended.detail)
        if call.tool not in self._undoable:
            if ended is None or ended.outcome != "nothing":
                ended = await rollback.end(call, rollback.book.attempts(call), "nothing", "the tool has no undo")
            return undo_line(call, "nothing", ended.detail)
        ended = await self._undo(rollback, call, sealed)
        return undo_line(call, ended.outcome, ended.detail)

    async def _undo(self, rollback: _Rollback, call: UndoableCall, sealed: bytes) -> UndoEnded:
        """Undo a call; what did not begin, or may be sent twice, is tried a few times."""
        outcome: UndoOutcome = "failed"
        detail = ""
        first = rollback.book.attempts(call) + 1
        for attempt in range(first, first + MAX_UNDO_ATTEMPTS):
            await rollback.intend(call, attempt)
            result = await self._send(call, sealed)
            verdict, detail = classify_undo_result(result), result.error
            outcome = "failed" if verdict == "again" else verdict
            if not is_undo_retryable(result, repeatable=call.repeatable):
                break
        return await rollback.end(call, attempt, outcome, detail)

    async def _send(self, call: UndoableCall, sealed: bytes) -> ToolResult:
        try:
            executor = await self._tools.executor_for(call.run_id)
            request = UndoRequest(order=sealed, run_id=call.run_id, step=call.step, executor=executor)
            reply = await self._policy.call(UNDO, request)
        except LayerUnavailable as error:
            return ToolResult(ok=False, error=error.message, reason_code=ReasonCode.TOOL_UNAVAILABLE)
        if reply.error:
            return ToolResult(ok=False, error=reply.error, reason_code=ReasonCode.POLICY_DENIED)
        undo = ExecuteRequest(
            grant=reply.grant,
            arguments=reply.arguments,
            output=reply.output,
            traceparent=traceparent(call.run_id),
        )
        try:
            return (await self._tools.execute(call.run_id, undo)).result
        except LayerUnavailable as error:
            return ToolResult(ok=False, error=error.message, reason_code=ReasonCode.TOOL_IN_DOUBT)

    async def _release(self, run_id: RunId) -> None:
        try:
            await self._tools.release(run_id)
        except LayerUnavailable:
            return  # the state went with the executor


class _Rollback:
    """The rollback of one run: what there is to undo, and the stream that says how far it is."""

    def __init__(
        self,
        stream: Stream,
        book: RollbackBook,
        calls: list[UndoableCall],
        resolved: Resolutions,
    ) -> None:
        self._stream = stream
        self.book = book
        self.calls = calls
        self.resolved = resolved

    async def append(self, event: RollbackEvent) -> None:
        """Make an event durable, then take it in."""
        reply = await self._stream.append(event)
        if reply.verdict != "ok":
            raise LayerUnavailable(f"journal: {self._stream.name}: {reply.verdict}: order it again")
        self.book.apply(event)

    async def intend(self, call: UndoableCall, attempt: int) -> None:
        """Put on record that an undo is about to be sent."""
        await self.append(
            UndoIntended(
                at_us=now_us(),
                run_id=call.run_id,
                step=call.step,
                key=undo_key(call.key),
                attempt=attempt,
                tool=call.tool,
                arguments=call.arguments,
                digest=call.digest,
            )
        )

    async def end(self, call: UndoableCall, attempt: int, outcome: UndoOutcome, detail: str) -> UndoEnded:
        """Put on record what became of an undo."""
        ended = UndoEnded(
            at_us=now_us(),
            run_id=call.run_id,
            step=call.step,
            key=undo_key(call.key),
            attempt=attempt,
            outcome=outcome,
            detail=detail[:2000],
        )
        await self.append(ended)
        return ended
