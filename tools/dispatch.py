"""`Dispatcher`: what an executor does with a granted call.

In order: the seal, the incarnation, the expiry, the epoch, the nonce (burnt here, before anything else can happen),
the arguments' hash, the tool and its version; for a call that must not be sent twice, the claim of its key, which the
journal gives once; then the tool, under its deadline; then the result, normalised and bounded.  A refusal says that
nothing was started; what a tool that changes something leaves open is said as such.  A call may wait between its grant
and its start (for its claim, for a thread, for an earlier attempt): what was switched off or ended meanwhile does not
start any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

import msgspec

from airside.stack.canonical import digest
from airside.stack.contracts.execution import ExecuteReply, ExecuteRequest
from airside.stack.cycle.output_source import output_from
from airside.stack.errors import LayerUnavailable, text_of
from airside.stack.flag import Flag
from airside.stack.ids import NO_ISSUER, EffectKey, ExecutorId, IssuerId, RunId, TenantId
from airside.stack.journal.effect_claims import Appender, claim
from airside.stack.ports import Memory
from airside.stack.reasons import ReasonCode
from airside.stack.security.grants import Grant, GrantRefused, open_grant
from airside.stack.security.tool_questions import ToolQuestion, open_question, seal_question
from airside.stack.values import SandboxLevel, ToolResult
from airside.tools.circuit_breakers import CircuitBreakers
from airside.tools.grant_checks import CallBlocked, GrantChecks
from airside.tools.keeping import keeper
from airside.tools.read_cache import ReadCache, ReadKey
from airside.tools.result_cache import ResultCache
from airside.tools.runners.deadlines import Deadline, Deadlines
from airside.tools.runners.failures import failure
from airside.tools.runners.jobs import Reconciliation, ToolCall
from airside.tools.runners.outcomes import (
    InputNeeded,
    InvalidArguments,
    LoopBlocked,
    LoopBlockedByAnother,
    NotStarted,
    ToolChanged,
    refuse,
)
from airside.tools.runners.output import finish_output
from airside.tools.runners.running import Runners
from airside.tools.runners.tenant_secrets import TenantSecrets
from airside.tools.runners.toolset_states import ToolsetState, ToolsetStates
from airside.tools.sandbox.limits import LEVELS
from airside.tools.secrets.known import KnownSecrets
from airside.tools.secrets.providers import SecretMissing, SecretsProvider
from airside.tools.tool import (
    AskedBefore,
    InDoubt,
    Reconcile,
    Tool,
    ToolContext,
    ToolError,
    Toolset,
    ToolSource,
    as_undo,
    flatten,
    unanswered,
)


class Dispatcher:
    """Carries out granted calls of one executor incarnation."""

    def __init__(
        self,
        tools: Iterable[Tool | Toolset | ToolSource],
        *,
        seal_key: bytes,
        executor_id: ExecutorId,
        now_us: Callable[[], int],
        steady_us: Callable[[], int] | None = None,
        running_us: Callable[[], int] | None = None,
        in_threads: bool = True,
        issuer: IssuerId = NO_ISSUER,
        on_refusal: Callable[[GrantRefused, TenantId | None], None] = lambda refused, tenant: None,
        journal: Appender | None = None,
        memory: Memory | None = None,
        secrets: SecretsProvider | None = None,
        known_secrets: KnownSecrets | None = None,
    ) -> None:
        self._on_refusal = on_refusal
        self._journal = journal
        self._memory = memory
        self._tools, toolsets = flatten(tools)
        self._key = seal_key
        self._now_us = now_us
        self.grants = GrantChecks(
            self._tools, executor_id=executor_id, issuer=issuer, now_us=now_us, steady_us=steady_us or now_us
        )
        self._running_us = running_us or now_us  # how long calls take: by a clock that nobody sets
        self._answers = ResultCache()
        self._times = Deadlines()
        self._deadlines: dict[RunId, dict[Deadline, None]] = {}
        self._at_work: dict[EffectKey, Flag] = {}
        self._runners = Runners(self._tools, in_threads=in_threads)
        self._runner_of = {name: self._runners.of(found) for name, found in self._tools.items()}
        self._breakers = CircuitBreakers(self._running_us)
        self._reads = ReadCache(self._running_us)
        self._keeps_reads = any(found.cache_ms for found in self._tools.values())
        self._secrets = TenantSecrets(secrets, known_secrets or KnownSecrets(), in_threads=in_threads)
        self._states = ToolsetStates(toolsets, self._runners, self._secrets)
        self.quarantined: dict[str, str] = {}  # why, by the toolset's name; one that is stays so in this executor
        self.calls = 0
        self.refused = 0
        self.active = 0

    async def execute(self, request: ExecuteRequest) -> ExecuteReply:
        """Carry out a call, or refuse it; never raises."""
        grant = open_grant(self._key, request.grant)
        refusal = self.grants.rejection(grant, request)
        if refusal is not None or grant is None:
            refusal = refusal or refuse(ReasonCode.GRANT_INVALID, "not a grant")
            self._report_refusal(grant, request, refusal)
            return ExecuteReply(result=refusal)
        self.calls += 1
        self.active += 1
        began, reply = self._running_us(), None
        self._answers.begin(grant.nonce)
        try:
            again, waited_us = await self._claim_key(grant), 0
            if isinstance(again, ToolResult):
                result = again
            else:
                await self._runner_of[grant.tool].ready()
                deadline = self._times.after(grant.timeout_ms / 1000, within_s=grant.left_ms / 1000)
                result = await self._run(grant, request, deadline, again=again)
                waited_us = int(deadline.waited_s * 1_000_000)  # for a thread: it is not the call's time
            took_us = max(0, self._running_us() - began - waited_us)
            sandbox = self._level_of(grant.tool)
            reply = ExecuteReply(result=msgspec.structs.replace(result, duration_us=took_us, sandbox=sandbox))
            return reply
        finally:
            self.active -= 1
            self._answers.end(grant.nonce, reply)

    def _level_of(self, tool: str) -> SandboxLevel | None:
        """Return the level a call of a tool had: what this machine reaches, and no more than the tool asked for."""
        reached, asked = self._runner_of[tool].level, self._tools[tool].sandbox
        if reached is None or asked is None or LEVELS[reached] <= LEVELS[asked.level]:
            return reached
        return asked.level

    async def answer_of(self, grant: bytes) -> ExecuteReply | None:
        """Return what the call of a grant came to, once it is over; None if it did not begin here, or is forgotten."""
        known = open_grant(self._key, grant)
        return None if known is None else await self._answers.of(known.nonce)

    def _report_refusal(self, grant: Grant | None, request: ExecuteRequest, refusal: ToolResult) -> None:
        self.refused += 1
        presented = request.grant if isinstance(request.grant, bytes) else repr(request.grant).encode()
        refused = GrantRefused(
            at_us=self._now_us(),
            executor=self.grants.executor_id,
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
        in this process, or one that holds its event loop, cannot be stopped, only no longer waited for.  None begins
        after this, whatever was granted.
        """
        self.grants.end_run(run_id)
        stopping = list(self._deadlines.get(run_id, ()))
        for deadline in stopping:
            if not deadline.expired():
                deadline.reschedule(asyncio.get_running_loop().time())
        if stopping:
            await asyncio.gather(*(deadline.over.wait() for deadline in stopping))
        await self._states.release(run_id)

    def close(self) -> None:
        """End the processes and event loops of tools."""
        self._states.close()
        self._runners.close()
        self._secrets.close()

    @property
    def is_exhausted(self) -> bool:
        """Whether no coroutine can begin here any more, for all event loops are held."""
        return self._runners.loops.are_exhausted

    def stats(self) -> dict[str, int]:
        """Return counts since this incarnation began."""
        own = {"calls": self.calls, "refused": self.refused, "active": self.active, "states": len(self._states)}
        return {**own, **self._runners.loops.stats()}

    async def _claim_key(self, grant: Grant) -> ToolResult | bool:
        """Claim the key of a call whose tool does not dedupe; return why the call may not start.

        A tool that can be asked what became of a key is let through with a key that was claimed before: True is
        returned, and it is asked first.
        """
        found = self._tools[grant.tool]
        asks = found.reconcile is not None and not grant.undo
        if self._journal is None or found.spec.effect == "read" or (found.spec.repeatable and not asks):
            return False
        try:
            is_ours = await claim(self._journal, grant, at_us=self._now_us())
        except LayerUnavailable as error:
            return refuse(ReasonCode.TOOL_UNAVAILABLE, error.message)
        if not is_ours and not asks:
            return refuse(ReasonCode.TOOL_IN_DOUBT, f"{grant.key} was claimed before: it may have happened")
        return not is_ours

    async def _run(self, grant: Grant, request: ExecuteRequest, deadline: Deadline, *, again: bool) -> ToolResult:
        """Call a tool under its deadline, which `release` brings forward."""
        call = self._call(grant, request, deadline, 1 + again)
        at_work = self._deadlines.setdefault(grant.run_id, {})
        at_work[deadline] = None
        try:
            with deadline, output_from(call.name, grant.tenant, grant.run_id):
                return self._redacted(call, await self._attempt(call, deadline))
        except CallBlocked as block_reason:
            self._report_refusal(grant, request, block_reason.refusal)
            return block_reason.refusal
        except BaseException as error:
            result = self._asking(error, grant) or failure(
                error, call, grant, deadline, self._runner_of[grant.tool].on_timeout
            )
            if result is None:
                raise asyncio.CancelledError from None
            result = self._redacted(call, result)
            if result.reason_code == ReasonCode.TOOL_QUARANTINED:
                self.quarantined[call.tool.toolset or call.name] = result.error
            return result
        finally:
            if call.redactor():
                finish_output((call.name, grant.tenant, grant.run_id))
            if isinstance(call.place, ToolsetState):
                self._states.leave(call.place)
            del at_work[deadline]
            if not at_work and self._deadlines.get(grant.run_id) is at_work:
                del self._deadlines[grant.run_id]

    def _asking(self, error: BaseException, grant: Grant) -> ToolResult | None:
        """Return the result of a call whose tool asks people something; None of any other."""
        if not isinstance(error, InputNeeded) or grant.undo or self._tools[grant.tool].spec.asks is None:
            return None
        asked = ToolQuestion(
            tenant=grant.tenant,
            run_id=grant.run_id,
            step=grant.step,
            tool=grant.tool,
            arguments_sha256=grant.arguments_sha256,
            round=grant.round + 1,
            question=error.details["question"],
            kept=error.details["kept"],
        )
        text = seal_question(self._key, asked)
        return ToolResult(ok=False, error=error.message, reason_code=ReasonCode.TOOL_ASKS, asked=text)

    def _asked_before(self, grant: Grant, request: ExecuteRequest) -> AskedBefore | None:
        asked = open_question(self._key, request.asked) if grant.asked_sha256 else None
        if asked is None:
            return None
        return AskedBefore(round=asked.round, question=asked.question, kept=asked.kept, declined=grant.declined)

    def _redacted(self, call: ToolCall, result: ToolResult) -> ToolResult:
        """Return a result whose error has no secret, whichever runner it came from; outputs had none before."""
        redactor = call.redactor()
        return msgspec.structs.replace(result, error=redactor.text(result.error)) if redactor else result

    def _call(self, grant: Grant, request: ExecuteRequest, deadline: Deadline, attempt: int) -> ToolCall:
        """Return what a runner is given of a grant."""
        found = self._tools[grant.tool]
        if grant.undo:
            found = as_undo(found, request.output)
        keeps = found.context_parameter and found.spec.lane == "shared"
        redactor = self._secrets.redactor_of(grant.tenant)
        return ToolCall(
            name=grant.tool,
            tenant=grant.tenant,
            run_id=grant.run_id,
            function=found.function,
            begin=partial(self.grants.check_start, grant),
            waiting=deadline.paused,
            advice="make it a plain def" if found.toolset else "make it a plain def, or give it process=True",
            what="undo" if grant.undo else "call",
            redactor=redactor,
            tool=found,
            context=ToolContext(
                tenant=grant.tenant,
                principal=grant.principal,
                run_id=grant.run_id,
                step=grant.step,
                attempt=max(grant.nth, attempt),
                idempotency_key=grant.key,
                approval_id=grant.approval_id,
                deadline_s=grant.timeout_ms / 1000,
                traceparent=request.traceparent,
                labels=grant.labels,
                answer=grant.answer,
                asked=self._asked_before(grant, request),
                keep=keeper(self._memory, request.grant, grant.shown, redactor) if keeps else None,
            ),
            arguments=request.arguments,
            output=request.output,
        )

    async def _attempt(self, call: ToolCall, deadline: Deadline) -> ToolResult:
        """Return what is kept of a read, or carry the call out.

        An earlier attempt may still be at work here (a thread cannot be stopped): it is waited for first.
        """
        key = call.context.idempotency_key
        if call.context.attempt > 1 and (earlier := self._at_work.get(key)) is not None:
            await earlier.wait()
        if not self._keeps_reads:
            return await self._guarded(call, deadline)
        if call.tool.spec.effect != "read":
            self._reads.drop(call.tenant)
            try:
                return await self._guarded(call, deadline)
            finally:
                self._reads.drop(call.tenant)
        if not call.tool.cache_ms:
            return await self._guarded(call, deadline)
        asked = ReadKey(
            call.name, call.tool.spec.version, digest(call.arguments), call.context.principal, call.context.labels
        )
        kept, changes = self._reads.get(call.tenant, asked), self._reads.changes(call.tenant)
        if kept is not None:
            call.begin()
            return msgspec.structs.replace(kept, cached=True)
        result = await self._guarded(call, deadline)
        if result.ok:
            self._reads.put(call.tenant, asked, result, call.tool.cache_ms, changes)
        return result

    async def _guarded(self, call: ToolCall, deadline: Deadline) -> ToolResult:
        """Carry a call out, unless the tool is known not to answer; an undo, and what may have happened, always is."""
        if call.what == "undo":
            return await self._carry_out(call)
        if call.context.attempt == 1 or call.tool.spec.effect == "read":
            self._breakers.admit(call.name, call.tenant)
        is_available: bool | None = True
        try:
            return await self._carry_out(call)
        except BaseException as error:
            had_its_time = deadline.expired() and call.context.deadline_s * 1000 >= call.tool.spec.timeout_ms
            is_available = _says_available(error, timed_out=had_its_time and not self.grants.has_ended(call.run_id))
            raise
        finally:
            self._breakers.record(call.name, call.tenant, is_available)

    async def _carry_out(self, call: ToolCall) -> ToolResult:
        """Ask whether the key was used, on a later attempt of a tool that can say; then call the tool."""
        key = call.context.idempotency_key
        if call.tool.secrets:
            found = await self._secrets.of(call.tenant, call.tool.secrets, call.context.deadline_s)
            call.context = replace(call.context, secrets=found)
        if call.tool.toolset is not None:
            await self._open_state(call, call.tool.toolset)
        if call.context.attempt > 1 and call.tool.reconcile is not None:
            done = await self._reconcile(call, call.tool.reconcile)
            if done is not None:
                return done
        over = self._at_work[key] = Flag()
        call.over = partial(self._end, key, over)
        runner = self._runners.of(call.tool) if call.what == "undo" else self._runner_of[call.name]
        result: ToolResult = await runner.run(call)
        return result

    def _end(self, key: EffectKey, over: Flag) -> None:
        """Know the code of a call as done."""
        over.set()
        if self._at_work.get(key) is over:
            del self._at_work[key]

    async def _open_state(self, call: ToolCall, toolset: str) -> None:
        """Give a call its run's state of its toolset."""
        try:
            state = await self._states.enter(toolset, call.context)
        except (LoopBlocked, LoopBlockedByAnother, NotStarted, SecretMissing):
            raise
        except Exception as error:
            text, is_silent = f"toolset {toolset}: {text_of(error)}", isinstance(error, ToolError) and unanswered(error)
            if call.context.attempt > 1:
                raise InDoubt(text, unanswered=is_silent) from None
            retry_after_s = error.retry_after_s if isinstance(error, ToolError) else None
            raise ToolError(text, retry_after_s=retry_after_s, unanswered=is_silent) from None
        call.context, call.place = replace(call.context, state=state.value), state
        if state.toolset.offers is not None:
            call.begin = partial(_begin_offered, state, call, call.begin)

    async def _reconcile(self, call: ToolCall, reconcile: Reconcile) -> ToolResult | None:
        """Ask the tool, None if it was not done; one that cannot say leaves the call in doubt, whatever it raises."""
        question = Reconciliation(
            name=f"reconcile of {call.name}",
            tenant=call.tenant,
            run_id=call.run_id,
            function=partial(reconcile, call.context),
            waiting=call.waiting,
            place=call.place,
            tool=call.tool,
            context=call.context,
            redactor=call.redactor,
        )
        try:
            answer: ToolResult | None = await self._runners.asking(call.tool).run(question)
        except (LoopBlocked, LoopBlockedByAnother, NotStarted):
            raise
        except Exception as error:
            raise InDoubt(f"reconcile: {text_of(error)}") from None
        return answer


def _begin_offered(state: ToolsetState, call: ToolCall, begin: Callable[[], None]) -> None:
    """Begin a call of a tool that its toolset offers at present; raise why it may not start."""
    state.check_offer(call.tool, call.redactor)
    begin()


def _says_available(error: BaseException, *, timed_out: bool) -> bool | None:
    """Return whether what a call came to says that its tool answers; None if it says nothing of that."""
    match error:
        case ToolError():
            return error.retry_after_s is None and not unanswered(error)
        case InDoubt():
            return not unanswered(error)
        case CallBlocked() | SecretMissing() | InvalidArguments() | ToolChanged() | NotStarted():
            return None
        case LoopBlockedByAnother():
            return None
        case LoopBlocked() | asyncio.CancelledError():
            return False if timed_out else None
        case _:
            return True
