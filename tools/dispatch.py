"""`Dispatcher`: what an executor does with a granted call.

In order: the seal, the incarnation, the expiry, the epoch, the nonce (burnt here, before anything else can happen),
the arguments' hash, the tool and its version; for a call that must not be sent twice, the claim of its key, which the
journal gives once; then the tool, under its deadline; then the result, normalised and bounded.  A refusal says that
nothing was started; what a tool that changes something leaves open is said as such.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
import orjson

from airside.stack.canonical import check_bounds, digest
from airside.stack.claims import MAX_ATTEMPTS, Appender, claim
from airside.stack.errors import AirsideError, InvalidInput, LayerUnavailable
from airside.stack.grants import Grant, GrantRefused, open_grant
from airside.stack.ids import NO_ISSUER, SYSTEM_TENANT, EffectKey, ExecutorId, IssuerId, RunId, TenantId
from airside.stack.ports import ExecuteReply, ExecuteRequest
from airside.stack.reasons import ReasonCode
from airside.stack.switches import Switches
from airside.stack.values import ToolResult
from airside.tools.fair import FairSlots
from airside.tools.processes import InvalidArguments, InvalidOutput, Processes
from airside.tools.tool import NOT_DONE, InDoubt, Reconcile, Tool, ToolContext, ToolError, Toolset, as_undo, flatten

_EPOCHS_KEPT = 100_000
"""Runs whose latest epoch an executor remembers; an older run's grants have long expired."""

_THREADS = 32
"""Plain functions run in threads, so that a slow one does not hold up the others; for a free one tenants take turns."""


class Dispatcher:
    """Carries out granted calls of one executor incarnation."""

    def __init__(
        self,
        tools: Iterable[Tool | Toolset],
        *,
        seal_key: bytes,
        executor_id: ExecutorId,
        now_us: Callable[[], int],
        in_threads: bool = True,
        issuer: IssuerId = NO_ISSUER,
        on_refusal: Callable[[GrantRefused, TenantId | None], None] = lambda refused, tenant: None,
        journal: Appender | None = None,
    ) -> None:
        self.executor_id = executor_id
        self.issuer = issuer
        self.switches = Switches()
        self._on_refusal = on_refusal
        self._journal = journal
        self._tools, self._toolsets = flatten(tools)
        self._key = seal_key
        self._now_us = now_us
        self._burnt: OrderedDict[bytes, int] = OrderedDict()
        self._at_work: dict[EffectKey, asyncio.Future[None]] = {}
        self._epochs: OrderedDict[RunId, int] = OrderedDict()
        self._states: dict[tuple[str, RunId], Any] = {}
        self._opening: dict[tuple[str, RunId], asyncio.Lock] = {}
        self._processes = Processes(self._tools)
        self._deadlines: dict[RunId, dict[asyncio.Timeout, asyncio.Future[None]]] = {}
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="tool") if in_threads else None
        self._slots = FairSlots(_THREADS)
        self.calls = 0
        self.refused = 0
        self.active = 0

    async def execute(self, request: ExecuteRequest) -> ExecuteReply:
        """Carry out a call, or refuse it; never raises."""
        grant = open_grant(self._key, request.grant)
        refusal = self._objection(grant, request)
        if refusal is not None or grant is None:
            refusal = refusal or _refusal(ReasonCode.GRANT_INVALID, "not a grant")
            self._tell(grant, request, refusal)
            return ExecuteReply(result=refusal)
        self.calls += 1
        self.active += 1
        began = self._now_us()
        try:
            result = await self._unclaimed(grant) or await self._run(grant, request)
        finally:
            self.active -= 1
        took_us = max(0, self._now_us() - began)
        return ExecuteReply(result=msgspec.structs.replace(result, duration_us=took_us))

    def _tell(self, grant: Grant | None, request: ExecuteRequest, refusal: ToolResult) -> None:
        self.refused += 1
        presented = request.grant if isinstance(request.grant, bytes) else repr(request.grant).encode()
        refused = GrantRefused(
            at_us=self._now_us(),
            executor=self.executor_id,
            reason_code=refusal.reason_code,
            detail=refusal.error,
            presented_sha256=digest(presented),
        )
        if grant is not None:
            refused = msgspec.structs.replace(
                refused, run_id=grant.run_id, step=grant.step, tool=grant.tool, principal=grant.principal
            )
        self._on_refusal(refused, None if grant is None else grant.tenant)

    async def release(self, run_id: RunId) -> None:
        """Stop the calls of a run that is over, and close the states it holds.

        A call in a process of its own is dead when this returns, one that awaits has been cancelled; a plain function
        in this process cannot be stopped, only no longer waited for.
        """
        stopping = dict(self._deadlines.get(run_id, {}))
        for deadline in stopping:
            if not deadline.expired():
                deadline.reschedule(asyncio.get_running_loop().time())
        if stopping:
            await asyncio.wait(stopping.values())
        for key in [key for key, lock in self._opening.items() if key[1] == run_id and not lock.locked()]:
            del self._opening[key]
        for name, held_run in [key for key in self._states if key[1] == run_id]:
            state = self._states.pop((name, held_run))
            # A state that cannot be closed is the toolset's problem, not the finished run's.
            with contextlib.suppress(Exception):
                await self._call(partial(self._toolsets[name].close, state), SYSTEM_TENANT)

    def close(self) -> None:
        """End the processes of tools."""
        self._processes.close()

    def stats(self) -> dict[str, int]:
        """Return counts since this incarnation began."""
        return {"calls": self.calls, "refused": self.refused, "active": self.active, "states": len(self._states)}

    def _objection(self, grant: Grant | None, request: ExecuteRequest) -> ToolResult | None:
        """Return why the call may not start, or None; a grant that passes is used up."""
        if grant is None:
            return _refusal(ReasonCode.GRANT_INVALID, "the grant's seal does not hold")
        now = self._now_us()
        known = self._tools.get(grant.tool)
        problems = (
            (grant.executor != self.executor_id, ReasonCode.GRANT_INVALID, "the grant is for another executor"),
            (grant.issuer != self.issuer, ReasonCode.GRANT_STALE, "an earlier incarnation of the gate issued it"),
            (grant.expires_us <= now, ReasonCode.GRANT_INVALID, "the grant has expired"),
            (grant.epoch < self._epochs.get(grant.run_id, 0), ReasonCode.GRANT_STALE, "a newer activation exists"),
            (grant.attempt > MAX_ATTEMPTS, ReasonCode.GRANT_INVALID, f"there are {MAX_ATTEMPTS} attempts at most"),
            (grant.nonce in self._burnt, ReasonCode.GRANT_INVALID, "the grant was used before"),
            (digest(request.arguments) != grant.arguments_sha256, ReasonCode.GRANT_INVALID, "other arguments"),
            (known is None, ReasonCode.GRANT_INVALID, f"this executor has no tool {grant.tool}"),
            (
                known is not None and known.spec.version != grant.tool_version,
                ReasonCode.GRANT_INVALID,
                "the tool's schema is another version",
            ),
            (
                grant.undo and (known is None or known.undo is None),
                ReasonCode.GRANT_INVALID,
                f"{grant.tool} has no undo here",
            ),
            (
                grant.undo and digest(request.output) != grant.output_sha256,
                ReasonCode.GRANT_INVALID,
                "another output",
            ),
        )
        for wrong, reason, text in problems:
            if wrong:
                return _refusal(reason, text)
        blocked = self.switches.blocking(
            now_us=now,
            tenant=grant.tenant,
            principal=grant.principal,
            version=grant.version,
            run_id=grant.run_id,
            tool=grant.tool,
        )
        if blocked is not None:
            return _refusal(ReasonCode.SWITCHED_OFF, str(blocked))
        self._burn(grant, now)
        return None

    def _burn(self, grant: Grant, now: int) -> None:
        self._burnt[grant.nonce] = grant.expires_us
        # Grants live equally long, so the oldest is at the front.
        while self._burnt and next(iter(self._burnt.values())) <= now:
            self._burnt.popitem(last=False)
        self._epochs[grant.run_id] = grant.epoch
        self._epochs.move_to_end(grant.run_id)
        if len(self._epochs) > _EPOCHS_KEPT:
            self._epochs.popitem(last=False)

    async def _unclaimed(self, grant: Grant) -> ToolResult | None:
        """Claim the key of a call that must not be sent twice; return why it cannot be, None if the call may start."""
        spec = self._tools[grant.tool].spec
        if self._journal is None or spec.effect == "read" or spec.repeatable:
            return None
        try:
            is_ours = await claim(self._journal, grant, at_us=self._now_us())
        except LayerUnavailable as error:
            return _refusal(ReasonCode.TOOL_UNAVAILABLE, error.message)
        if not is_ours:
            return _refusal(ReasonCode.TOOL_IN_DOUBT, f"{grant.key} was claimed before: it may have happened")
        return None

    async def _run(self, grant: Grant, request: ExecuteRequest) -> ToolResult:
        found = self._tools[grant.tool]
        if grant.undo:
            found = as_undo(found, request.output)
        context = ToolContext(
            tenant=grant.tenant,
            principal=grant.principal,
            run_id=grant.run_id,
            step=grant.step,
            attempt=grant.attempt,
            idempotency_key=grant.key,
            approval_id=grant.approval_id,
            deadline_s=grant.timeout_ms / 1000,
            traceparent=request.traceparent,
        )
        changes = found.spec.effect != "read"
        try:
            # One that has a process of its own converts them there.
            arguments = {} if found.process else found.convert(orjson.loads(request.arguments))
        except Exception as error:
            return _unfit(error, grant.attempt, changes)
        try:
            async with self._deadline(grant.run_id, context.deadline_s) as deadline:
                output = await self._attempt(found, context, arguments, request.arguments)
        except TimeoutError as error:
            if not deadline.expired():
                return _unexpected(error, changes)
            text = f"{found.name} did not answer in {context.deadline_s} s, or was stopped"
            if found.process is not None:
                text += "; its process is dead"
            return ToolResult(ok=False, error=text, reason_code=ReasonCode.TOOL_TIMEOUT)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return _unexpected(RuntimeError("the tool cancelled itself"), changes)
        except ToolError as error:
            return ToolResult(ok=False, error=error.message[:4000], reason_code=ReasonCode.TOOL_FAILED)
        except InvalidArguments as error:
            return _unfit(error, grant.attempt, changes)
        except InvalidOutput as error:
            return ToolResult(ok=False, error=error.message, reason_code=ReasonCode.TOOL_OUTPUT_INVALID)
        except BaseException as error:
            return _unexpected(error, changes)
        return normalise(output, found.spec.max_output_bytes)

    @contextlib.asynccontextmanager
    async def _deadline(self, run_id: RunId, seconds: float) -> AsyncIterator[asyncio.Timeout]:
        """Give a call its deadline, which `release` brings forward."""
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        at_work = self._deadlines.setdefault(run_id, {})
        try:
            async with asyncio.timeout(seconds) as deadline:
                at_work[deadline] = over
                yield deadline
        finally:
            at_work.pop(deadline, None)
            if not at_work and self._deadlines.get(run_id) is at_work:
                del self._deadlines[run_id]
            over.set_result(None)

    async def _attempt(self, found: Tool, context: ToolContext, arguments: dict[str, Any], raw: bytes) -> Any:
        """Ask whether the key was used, on a later attempt of a tool that can say; then call the tool.

        An earlier attempt may still be at work here (a thread cannot be stopped): it is waited for first.
        """
        earlier = self._at_work.get(context.idempotency_key) if context.attempt > 1 else None
        if earlier is not None:
            await asyncio.wait([earlier])
        if found.toolset is not None:
            try:
                state = await self._state(self._toolsets[found.toolset], context)
            except Exception as error:
                if context.attempt > 1:
                    raise InDoubt(f"toolset {found.toolset}: {type(error).__name__}: {error}") from None
                raise ToolError(f"toolset {found.toolset}: {type(error).__name__}: {error}") from None
            context = replace(context, state=state)
        if context.attempt > 1 and found.reconcile is not None:
            done = await self._reconciled(found, found.reconcile, context)
            if done is not NOT_DONE:
                return done
        if found.process is not None:
            return await self._in_process(found, context, raw)
        if found.context_parameter is not None:
            arguments = {**arguments, found.context_parameter: context}
        return await self._call(partial(found.function, **arguments), context.tenant, context.idempotency_key)

    async def _reconciled(self, found: Tool, reconcile: Reconcile, context: ToolContext) -> Any:
        """Ask the tool; one that cannot say leaves the call in doubt, whatever it raises."""
        try:
            if found.process is not None:
                return await self._processes.run(found, context, b"", what="reconcile")
            return await self._call(partial(reconcile, context), context.tenant)
        except Exception as error:
            raise InDoubt(f"reconcile: {type(error).__name__}: {error}") from None

    async def _in_process(self, found: Tool, context: ToolContext, raw: bytes) -> Any:
        """Run a tool in a process of its own, tenants taking turns for it."""
        key, over = context.idempotency_key, asyncio.get_running_loop().create_future()
        self._at_work[key] = over
        try:
            async with self._slots.place(context.tenant):
                return await self._processes.run(found, context, raw)
        finally:
            self._end(key, over)

    async def _state(self, toolset: Toolset, context: ToolContext) -> Any:
        key = (toolset.name, context.run_id)
        if key not in self._states:
            async with self._opening.setdefault(key, asyncio.Lock()):
                if key not in self._states:
                    self._states[key] = await self._call(partial(toolset.open, context), context.tenant)
            self._opening.pop(key, None)
        return self._states[key]

    async def _call(self, function: partial[Any], tenant: TenantId, key: EffectKey | None = None) -> Any:
        """Await a coroutine function; run a plain one in a thread, tenants taking turns for one.

        Under `key`, it is known to be at work.
        """
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        if key is not None:
            self._at_work[key] = over
        if self._threads is None or inspect.iscoroutinefunction(function.func):
            try:
                answer = function()
                return await answer if inspect.isawaitable(answer) else answer
            finally:
                self._end(key, over)
        try:
            await self._slots.take(tenant)
        except BaseException:
            self._end(key, over)
            raise
        future = self._threads.submit(_in_thread, function)

        def ended() -> None:
            self._end(key, over)
            self._slots.give_back(tenant)

        # The thread may outlive this call, which a deadline ends: it is over when the thread is.
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(ended))
        return await asyncio.wrap_future(future)

    def _end(self, key: EffectKey | None, over: asyncio.Future[None]) -> None:
        if not over.done():
            over.set_result(None)
        if key is not None and self._at_work.get(key) is over:
            del self._at_work[key]


def _in_thread(function: partial[Any]) -> Any:
    """Call it; what would end the thread or the loop, or what a future cannot carry, becomes an ordinary error."""
    try:
        return function()
    except Exception as error:
        if not isinstance(error, StopIteration):
            raise
        raise RuntimeError(f"StopIteration: {error}") from error
    except BaseException as error:
        raise RuntimeError(f"{type(error).__name__}: {error}") from error


def _unexpected(error: BaseException, changes: bool) -> ToolResult:
    """Return the result of a call that broke: what it changed is not known, if it changes anything."""
    text = error.message if isinstance(error, AirsideError) else f"{type(error).__name__}: {error}"
    in_doubt = changes or isinstance(error, InDoubt)
    reason = ReasonCode.TOOL_IN_DOUBT if in_doubt else ReasonCode.TOOL_FAILED
    return ToolResult(ok=False, error=text[:4000], reason_code=reason)


def _unfit(error: Exception, attempt: int, changes: bool) -> ToolResult:
    """Return the result of a call whose arguments the tool's types do not take: of a first attempt, a certain no."""
    if attempt > 1:
        return _unexpected(error, changes)
    text = error.message if isinstance(error, InvalidInput) else f"{type(error).__name__}: {error}"
    return ToolResult(ok=False, error=text[:4000], reason_code=ReasonCode.TOOL_INVALID_ARGUMENTS)


def _refusal(reason: ReasonCode, text: str) -> ToolResult:
    return ToolResult(ok=False, error=text, reason_code=reason)


def normalise(output: Any, max_bytes: int) -> ToolResult:
    """Return a tool's output as a result: JSON within bounds, or `tool_output_invalid`.

    The call has happened either way, so an unfit output is a settled failure, not a doubt.
    """
    try:
        check_bounds(output, where="output")
        data = orjson.dumps(output)
    except (InvalidInput, TypeError) as error:
        return ToolResult(ok=False, error=f"output: {error}", reason_code=ReasonCode.TOOL_OUTPUT_INVALID)
    if len(data) > max_bytes:
        text = f"output of {len(data):,} bytes is over the bound of {max_bytes:,}"
        return ToolResult(ok=False, error=text, reason_code=ReasonCode.TOOL_OUTPUT_INVALID)
    return ToolResult(ok=True, output=msgspec.Raw(data))
