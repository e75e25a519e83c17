"""`Stack`: a running stack, from a notebook, a script, or the command line.

`asubmit` and `amap` are `submit` and `map` to await; a `RunHandle` can be awaited for its result.  Both kinds carry out
the same steps (`airside.actors.client.steps`).
"""

from __future__ import annotations

import asyncio
import atexit
import time
import warnings
from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Self

import msgspec
import pyarrow as pa
import ray
from ray.exceptions import RayError

from airside.actors.app import App
from airside.actors.client.batch_handle import BatchHandle
from airside.actors.client.connection import Connection, LiveJournal
from airside.actors.client.display.bundle import bundle
from airside.actors.client.display.drawing import Drawing
from airside.actors.client.display.formatters import as_answer, register_formatters
from airside.actors.client.display.listed import ApprovalList, BatchList, InDoubtList, Kinds, Listed, RunList, Status
from airside.actors.client.display.runs import draw_handle, standing_of
from airside.actors.client.display.stacks import LOOKED_AT, draw_stack
from airside.actors.client.input_reader import read_given, read_jobs_inputs
from airside.actors.client.job_stream import WINDOW, JobStream, ResultStream, collect_in_order, next_of
from airside.actors.client.journal_follower import JournalFollower
from airside.actors.client.known_principals import check_known, name_hint_for
from airside.actors.client.memory_client import MemoryClient
from airside.actors.client.owned_stack import OwnedStack
from airside.actors.client.progress import progress_of
from airside.actors.client.result_cursor import ResultCursor, collect
from airside.actors.client.result_waiter import ResultWaiter
from airside.actors.client.results import (
    PendingApproval,
    ResultsInterrupted,
    RunResult,
    SubmitInterrupted,
    cancelled_as,
    ended_result,
    submission_may_run,
)
from airside.actors.client.run_stream import RunNews, RunStream
from airside.actors.client.run_timeout import RunTimeout
from airside.actors.client.stack_backend import StackBackend
from airside.actors.client.stack_record import remove_record
from airside.actors.client.steps import Pause, Steps, drive, drive_async, each, each_later
from airside.actors.client.submissions import known_again, run_of_job
from airside.actors.driver.in_doubt import list_in_doubt
from airside.actors.driver.orders import sealed_order, switch_target
from airside.actors.driver.spend_in_doubt import list_spend_in_doubt
from airside.actors.job_inputs import InputsReading, JobInputs
from airside.actors.jobs import (
    BadLine,
    GivenJob,
    Job,
    batch_job,
    check_lane,
    check_timeout,
    check_window,
    in_lane,
    job_of,
    jobs_of,
)
from airside.actors.journal.batches import BatchSummary, list_batches
from airside.actors.journal.overview import list_runs, show_run
from airside.actors.journal.run_names import RunName, whole_run
from airside.actors.rpc.layer import now_us
from airside.actors.rpc.methods import (
    ASKED,
    BODIES,
    FOLLOW,
    GIVE_JOINT_VOTE,
    GIVE_VOTE,
    INPUT_FIELDS,
    ORDER,
    PENDING,
    QUERY,
    ROLL_BACK,
    SUBSCRIBE,
    SWITCHES,
    VERIFY,
    WATCH,
    WATCH_RUN,
    FeedPage,
    FeedRequest,
    PresentedJointVote,
    PresentedVote,
    Sql,
    WaitRequest,
)
from airside.stack.approvals.book import Verdict
from airside.stack.approvals.joint import JointVerdict
from airside.stack.calling import explain_absent, explain_misuse, explain_misuse_of_methods
from airside.stack.canonical import as_text, write_bounded
from airside.stack.contracts.streams import WatchPage, WatchRequest
from airside.stack.errors import (
    AdmissionRefused,
    AuthRefused,
    InvalidId,
    InvalidInput,
    LayerUnavailable,
    Misuse,
    Refused,
    VotesRefused,
)
from airside.stack.ids import RunId, is_whole_approval, parse_run
from airside.stack.journal.feed import NOW, JournalEntry, feed_of
from airside.stack.operations.batches import BatchChange
from airside.stack.operations.messages import refused_on
from airside.stack.operations.overview import RunDetail, RunSummary
from airside.stack.policy.kill_switches import KillSwitchChanged
from airside.stack.reasons import ReasonCode
from airside.stack.recovery.in_doubt import InDoubtCall
from airside.stack.recovery.rollback import RollbackReport
from airside.stack.recovery.spend_in_doubt import SpendInDoubt
from airside.stack.security.authenticator import issue_token
from airside.stack.security.keyring import KeyRing
from airside.stack.short_ids import SHORTEST, ends_of, listed, only_one, uncut
from airside.stack.values import MAX_REQUEST_BYTES, MOST, ModelLane

Approvals = str | PendingApproval | Iterable[str | PendingApproval]
"""Approvals to vote on: one, or several that are one vote; each as it is listed, or by its id."""

LONGEST_SWITCH_S = 100 * 366 * 86_400


@explain_absent(
    id="run_id",
    status="result().status when it has ended, stack.inspect(handle).run.status before",
    wait="result()",
    kill="cancel(), or stack.kill(run=handle) whatever it is doing",
)
@explain_misuse_of_methods
class RunHandle:
    """A submitted run."""

    def __init__(self, stack: Stack, run_id: str, job_id: str = "") -> None:
        self._stack = stack
        self.run_id = run_id
        self.job_id = job_id

    def result(self, timeout: float | None = None) -> RunResult:
        """Wait until the run has ended, and return how.

        Raises `RunTimeout` (a `TimeoutError`) after `timeout` seconds, which says where the run stands.  With
        `timeout=0`, as who asks again and again has it, that is not looked for: all of the run would be read each time.
        """
        results = self._stack.results([self], timeout=timeout)
        if not results:
            standing = standing_of(*self._stack.backend.events(self.run_id)) if timeout else ""
            raise RunTimeout(self.run_id, timeout or 0.0, standing)
        return results[0]

    def __await__(self) -> Generator[Any, Any, RunResult]:
        return self._stack.awaited(self).__await__()

    def stream(self, *, token: str = "", timeout: float | None = None) -> Iterator[RunNews]:
        """Yield what happens in the run until it has ended; as `Stack.watch`."""
        return self._stack.watch(self.run_id, token=token, timeout=timeout)

    def astream(self, *, token: str = "", timeout: float | None = None) -> AsyncIterator[RunNews]:
        """As `stream`, for `async for`."""
        return self._stack.awatch(self.run_id, token=token, timeout=timeout)

    def story(self) -> str:
        """Return the run so far, as lines of text."""
        return self._stack.story(self.run_id)

    def cancel(self, why: str = "") -> None:
        """Withdraw the run."""
        self._stack.cancel(self.run_id, why)

    def __repr__(self) -> str:
        return f"RunHandle({self.run_id})"

    def _repr_mimebundle_(self, include: Kinds = None, exclude: Kinds = None) -> dict[str, str]:
        return bundle(lambda: self._stack._draw_run(self.run_id), include, exclude)


@explain_absent(stop="shutdown()")
@explain_misuse_of_methods
class Stack:
    """A running stack.  Made by `airside.start` and `airside.connect`."""

    def __init__(
        self,
        connection: Connection,
        keys: KeyRing | None,
        state_dir: Path,
        *,
        stops: bool,
        record: dict[str, Any],
        own: OwnedStack | None = None,
    ) -> None:
        self.cell = connection.cell
        self._own = own
        self.state_dir = state_dir
        self._connection = connection
        self._keys = keys
        self._stops = stops
        self._record = record
        self.backend = StackBackend(connection, self._signed)
        self._waiting: dict[asyncio.AbstractEventLoop, ResultWaiter] = {}
        register_formatters()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stops:
            self.shutdown()
        else:
            self.close()

    @property
    def job_schema(self) -> dict[str, Any] | None:
        """The JSON Schema of the further fields the app's jobs may have, which become part of their inputs."""
        schema: dict[str, Any] | None = self._record.get("job_schema")
        return schema

    @property
    def job_inputs(self) -> JobInputs | None:
        """What reads those fields, for `read_jobs`: the app's model, where the stack runs; None if there are none."""
        if "intake" not in self._connection.actors():
            return None
        return JobInputs(self._connection.ask(INPUT_FIELDS, None), self._read_inputs)

    def _read_inputs(self, given: Sequence[bytes]) -> list[InputsReading]:
        return drive(read_given(self._connection, given))

    def _with_inputs(self, jobs: Sequence[Job | BadLine], first: int = 0) -> Steps[list[Job | BadLine]]:
        """Return jobs with their inputs as the app's model, if it has one, reads them; the first is of a place."""
        if not self._has_inputs():
            return list(jobs)
        return (yield from read_jobs_inputs(self._connection, jobs, first))

    def _has_inputs(self) -> bool:
        """Whether the app has `job_inputs`; of a stack without a record here, its layers say so."""
        if "job_schema" in self._record:
            return self.job_schema is not None
        return self._connection.has("intake")

    @property
    def described(self) -> dict[str, Any]:
        """What its runs depend on: `app_version`, a digest of its `policy`, its `models` and agents, its `routes`; and
        which agents and tools are `priced`.

        Empty for a stack that has no record in `state_dir`.
        """
        return dict(self._record.get("runs", {}))

    @property
    def stack_id(self) -> str:
        """Which start of a stack this is."""
        return str(self._record.get("id", ""))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was known at the start to be refused later, and why."""
        return tuple(self._record.get("warnings", ()))

    def __repr__(self) -> str:
        return f"Stack({self.cell.stack}, {self.state_dir})"

    def _repr_mimebundle_(self, include: Kinds = None, exclude: Kinds = None) -> dict[str, str]:
        return bundle(self._drawn, include, exclude)

    def _drawn(self) -> Drawing:
        layers, doubts, problem = self.backend.overview(LOOKED_AT)
        warnings = self.warnings
        return draw_stack(self.cell.stack, self.state_dir, layers, in_doubt=doubts, warnings=warnings, problem=problem)

    def _draw_run(self, run_id: str) -> Drawing:
        events, problem = self.backend.events(run_id)
        return draw_handle(run_id, events, problem, now_us=now_us())

    # Jobs.

    def token(self, tenant: str, principal: str, *, ttl_s: int = 3600, **claims: Any) -> str:
        """Sign a token with the stack's local key, for somebody the directory has.

        Raises `AuthRefused` for whom it has not, `Misuse` where this process may not read that key.
        """
        roles, scopes = claims.get("roles", ()), claims.get("scopes", ())
        check_known(self.state_dir, tenant, principal, roles=roles, scopes=scopes)
        return self._signed(tenant, principal, ttl_s, **claims)

    def _signed(self, tenant: str, principal: str, ttl_s: int = 3600, **claims: Any) -> str:
        """Sign a token for whoever is looked up when it is presented, as every job's and vote's is."""
        return issue_token(
            self._key_ring().issuer_pem,
            tenant=tenant,
            principal=principal,
            now_s=int(time.time()),
            ttl_s=ttl_s,
            claims=claims,
        )

    def submit(
        self, request: str | Job, *, token: str = "", tenant: str = "", principal: str = "", **fields: Any
    ) -> RunHandle:
        """Submit one job and return its handle; raise `AuthRefused`, `AdmissionRefused` or `Refused`.

        Raises `LayerUnavailable` where nobody could say whether it was admitted: its note says which run there may be.
        Who asks is said by a `token`, or by `tenant` and `principal` where this process holds the stack's keys.
        `fields` are those of a `Job`: `route`, `limits`, `inputs`, `labels`, `job_id`, `lane`.  `inputs` are read by
        the app's `job_inputs`, as those of jobs files are.  Interrupted after the job was sent it raises
        `SubmitInterrupted`, which has the id of the run that there may be.
        """
        return drive(self._submitted(request, {"token": token, "tenant": tenant, "principal": principal}, fields))

    async def asubmit(
        self, request: str | Job, *, token: str = "", tenant: str = "", principal: str = "", **fields: Any
    ) -> RunHandle:
        """As `submit`, to be awaited."""
        who = {"token": token, "tenant": tenant, "principal": principal}
        return await drive_async(self._submitted(request, who, fields))

    def _submitted(self, request: str | Job, who: dict[str, Any], fields: dict[str, Any]) -> Steps[RunHandle]:
        if self._own is not None:
            self._own.warn_of_changes()
        (job,) = yield from self._with_inputs([job_of(request, who, fields)])
        if isinstance(job, BadLine):
            raise InvalidInput(job.message.replace("jobs[0]", "job", 1))
        job = known_again(job)
        try:
            (ticket,) = yield from self.backend.enter([job], None)
        except KeyboardInterrupt:
            raise SubmitInterrupted(run_of_job(job)) from None
        except asyncio.CancelledError as error:
            cancelled_as(error, SubmitInterrupted(run_of_job(job)))
            raise
        except LayerUnavailable as error:
            error.add_note(submission_may_run(run_of_job(job)))
            raise
        if ticket.run_id:
            return RunHandle(self, ticket.run_id, job.job_id)
        reason = (ticket.reason_code or ReasonCode.INTERNAL_ERROR).value
        if reason == ReasonCode.ADMISSION_REJECTED:
            raise AdmissionRefused(ticket.message, reason=reason, retry_after_s=ticket.retry_after_s)
        if reason.startswith("auth_") or reason in (ReasonCode.PRINCIPAL_UNKNOWN, ReasonCode.TENANT_UNKNOWN):
            meant = "" if job.token else name_hint_for(self.state_dir, job.tenant, job.principal)
            raise AuthRefused(ticket.message + meant, reason=reason)
        if reason == ReasonCode.INTERNAL_ERROR:  # nobody could say whether it was admitted
            unsure = LayerUnavailable(ticket.message, reason=reason)
            unsure.add_note(submission_may_run(run_of_job(job)))
            raise unsure
        raise Refused(ticket.message, reason=reason)

    def map(
        self,
        jobs: Iterable[GivenJob],
        *,
        progress: bool = True,
        timeout: float | None = None,
        lane: ModelLane | None = None,
    ) -> list[RunResult]:
        """Run a batch and return its results in order; what is refused or malformed is a result too.

        Called again it runs all again, with all effects: a `job_id` is a key in `airside.batches.run_batch` alone.
        With `lane="provider_batch"` what their models are asked goes into batches of the providers': for about half the
        price, within a day.
        A full queue is waited for.  Raises `MapTimeout` (a `TimeoutError`) if not all have ended after `timeout`
        seconds: it has the results there are, the ids of the runs that go on, whose results can be had later, and the
        jobs that were sent and are `unanswered`: these may run too.
        """
        return drive(self._mapped(jobs, progress=progress, timeout=timeout, lane=lane))

    async def amap(
        self,
        jobs: Iterable[GivenJob],
        *,
        progress: bool = True,
        timeout: float | None = None,  # noqa: ASYNC109 - as `map` has it
        lane: ModelLane | None = None,
    ) -> list[RunResult]:
        """As `map`, to be awaited; a `CancelledError` has the note and the fields of `MapInterrupted`."""
        return await drive_async(self._mapped(jobs, progress=progress, timeout=timeout, lane=lane))

    def _mapped(
        self, jobs: Iterable[GivenJob], *, progress: bool, timeout: float | None, lane: ModelLane | None
    ) -> Steps[list[RunResult]]:
        given = list(jobs_of(jobs))
        stream = self._stream_of(given, timeout=timeout, lane=lane, window=max(1, len(given)))
        with progress_of(len(given), show=progress) as advance:
            results = yield from collect_in_order(stream, len(given), timeout=timeout, advance=advance)
        yield from self._catch_up()
        return results

    def _catch_up(self) -> Steps[None]:
        """Have what was printed so far shown, where somebody waits in a notebook's cell for what it was printed for."""
        if self._own is not None:
            yield from self._own.catch_up(self._connection.actors)

    def stream(
        self,
        jobs: Iterable[GivenJob],
        *,
        timeout: float | None = None,
        lane: ModelLane | None = None,
        window: int = WINDOW,
    ) -> Iterator[RunResult]:
        """Submit jobs and yield their results as runs end; what is refused or malformed is a result too.

        Jobs are taken from any iterable as there is room: at most `window` of them are under way at a time, and nothing
        is kept of those that have ended.  `place` says which of the jobs a result is of.  A full queue is waited for.
        Raises `ResultsTimeout` (a `TimeoutError`) if not all have ended `timeout` seconds after the call; what was
        submitted goes on.  Interrupted it raises `StreamInterrupted`, and goes on where it was when more is taken.
        """
        return ResultStream(self._stream_of(jobs_of(jobs), timeout=timeout, lane=lane, window=window))

    def astream(
        self,
        jobs: Iterable[GivenJob],
        *,
        timeout: float | None = None,
        lane: ModelLane | None = None,
        window: int = WINDOW,
    ) -> AsyncIterator[RunResult]:
        """As `stream`, for `async for`; the jobs are taken on the event loop.

        A `CancelledError` says which runs go on, and has them as `run_ids`; it ends the iteration.
        """
        stream = self._stream_of(jobs_of(jobs), timeout=timeout, lane=lane, window=window)
        return each_later(lambda: next_of(stream))

    def _stream_of(
        self,
        jobs: Iterable[Job | BadLine],
        *,
        timeout: float | None,
        lane: ModelLane | None,
        window: int,
        **more: Any,
    ) -> JobStream:
        if self._own is not None:
            self._own.warn_of_changes()
        check_timeout(timeout)
        check_lane(lane)
        check_window(window)
        in_its_lane = (in_lane(job, lane) for job in jobs)
        return JobStream(self.backend, in_its_lane, timeout=timeout, read=self._with_inputs, window=window, **more)

    def batches(self, *, limit: int = 100) -> list[BatchSummary]:
        """Return the batches that were run by `airside.batches` or `airside run`, newest first."""
        return BatchList(list_batches(LiveJournal(self._connection), limit))

    @explain_misuse(
        "Stack.batch", how="Stack.batch(batch); what runs one is airside.batches.run_batch(stack, jobs, out=...)"
    )
    def batch(self, batch: str) -> BatchHandle:
        """Return a batch by its name, to look at it or change how it is run (`airside.batches.run_batch` runs one)."""
        return BatchHandle(batch_job(batch, 1, 0).id, LiveJournal(self._connection), self._change_batch, self.approvals)

    def _change_batch(self, batch: str, change: BatchChange, why: str) -> None:
        self._order("batch", "all", batch, why, output=msgspec.json.encode(change))

    def results(
        self, handles: Iterable[RunHandle | RunSummary | str], *, timeout: float | None = None
    ) -> list[RunResult]:
        """Wait for runs and return their results, in order; those that have not ended by then are left out.

        They are given as handles, or by their ids; each result has its job's `job_id`.  What a process that died had
        submitted is got by `results(stack.runs(since=...), timeout=0)`.
        """
        check_timeout(timeout)
        return drive(self._collected(list(_named(handles)), timeout))

    def _collected(self, runs: list[tuple[str, str]], timeout: float | None) -> Steps[list[RunResult]]:
        results = yield from collect(self.backend, runs, timeout=timeout)
        if results:
            yield from self._catch_up()
        return results

    def iter_results(
        self, handles: Iterable[RunHandle | RunSummary | str], *, timeout: float | None = None, window: int = WINDOW
    ) -> Iterator[RunResult]:
        """Yield the results of runs as these end, in that order; what had ended before comes first, in any order.

        Of any number of handles, from a generator too, at most `window` that have not ended are held at a time: a run
        that ended beyond those comes when there is room.  Raises `ResultsTimeout` (a `TimeoutError`) if not all have
        ended `timeout` seconds after the call: no further handle is taken from then on.
        """
        return each(self._cursor(handles, timeout, window).next_results)

    def aiter_results(
        self,
        handles: Iterable[RunHandle | RunSummary | str],
        *,
        timeout: float | None = None,
        window: int = WINDOW,
    ) -> AsyncIterator[RunResult]:
        """As `iter_results`, for `async for`; the handles are taken on the event loop.

        A `CancelledError` says which runs go on, and has them as `run_ids`; it ends the iteration.
        """
        return each_later(self._cursor(handles, timeout, window).next_results)

    def _cursor(
        self, handles: Iterable[RunHandle | RunSummary | str], timeout: float | None, window: int
    ) -> ResultCursor:
        check_timeout(timeout)
        check_window(window)
        return ResultCursor(self.backend, _named(handles), timeout=timeout, window=window)

    async def awaited(self, handle: RunHandle) -> RunResult:
        """Return a run's result when it has ended; waiting costs no thread, and is cancelled at once."""
        loop = asyncio.get_running_loop()
        waiting = self._waiting.setdefault(loop, ResultWaiter(self.backend.wait))
        try:
            body = await waiting.ended(handle.run_id)
        except asyncio.CancelledError as error:
            cancelled_as(error, ResultsInterrupted((handle.run_id,)))
            raise
        finally:
            if waiting.is_idle:
                self._waiting.pop(loop, None)
        if waiting.is_idle:  # of many that are awaited at once the last one alone
            await drive_async(self._catch_up())
        return ended_result(handle.run_id, body, handle.job_id, self.backend)

    def ended(self, run_ids: Sequence[str]) -> set[str]:
        """Return which of these runs have ended; does not wait."""
        return set(drive(self.backend.wait(WaitRequest(list(run_ids), 0.0), None)).ends)

    def handle(self, run_id: RunName) -> RunHandle:
        """Return the handle of a run submitted earlier, from this process or another.

        Here, and wherever else one run is named, six characters or more of its id's beginning or end are enough where
        no other run of the journal has them, and what a stack answers about it is as good: a line of `runs()` say.
        """
        return RunHandle(self, self._run(run_id))

    def _run(self, given: RunName) -> RunId:
        return whole_run(LiveJournal(self._connection), given)

    # People.

    def approvals(self, tenant: str | None = None) -> list[PendingApproval]:
        """Return what waits for people, oldest first; those with the same `group` are one question."""
        return ApprovalList(PendingApproval.of(body) for body in self._connection.ask(PENDING, tenant))

    def approve(self, approval_id: Approvals, *, token: str = "", principal: str = "", note: str = "") -> str:
        """Approve as whoever holds `token` (or, with the stack's keys, as `principal` of the approval's tenant).

        It may be what `approvals()` lists, or its id; a `group`'s id is for each call of it that waits.  Several are
        one vote, which counts on all of them or on none.  An id may be shortened to a beginning or an end of six
        characters or more that no other one that waits has.  Returns the outcome, empty while more votes are needed on
        any.  Raises `Refused` if the vote does not count; of one on several `VotesRefused`, whose `refused` say on
        which, and why.
        """
        return self._vote_on(approval_id, "approve", token, principal, note)

    def reject(self, approval_id: Approvals, *, token: str = "", principal: str = "", note: str = "") -> str:
        """Reject; as `approve`."""
        return self._vote_on(approval_id, "reject", token, principal, note)

    def edit(
        self,
        approval_id: str | PendingApproval,
        arguments: dict[str, Any],
        *,
        token: str = "",
        principal: str = "",
        note: str = "",
    ) -> str:
        """Approve with other arguments: a new action, which is validated and gated again; as `approve`."""
        return self._vote(approval_id, "edit", token, principal, note, _written(arguments, "arguments"))

    def answer(
        self,
        approval_id: str | PendingApproval,
        answer: str,
        *,
        token: str = "",
        principal: str = "",
        note: str = "",
    ) -> str:
        """Answer a question that an agent asks: by one of its choices, or by a text if it gives none; as `approve`."""
        return self._vote(approval_id, "answer", token, principal, note, _written(as_text(answer), "answer"))

    def _vote_on(self, given: Approvals, verdict: JointVerdict, token: str, principal: str, note: str) -> str:
        """Give one verdict on one approval, or on several at once."""
        _check_voter(token, principal)
        names = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
        if not names:
            raise InvalidInput(f"{verdict}: name an approval, or several")
        whole = dict.fromkeys(map(self._whole_id, names))
        found = [each for name in whole for each in self._asked(name, token)]
        credential, ids = self._credential(found, token, principal), list(dict.fromkeys(each for each, _ in found))
        if len(ids) == 1:
            return self._counted(PresentedVote(credential, ids[0], verdict, b"", as_text(note)))
        reply = self._connection.ask(
            GIVE_JOINT_VOTE, PresentedJointVote(credential, tuple(ids), verdict, as_text(note))
        )
        if not reply.ok:
            raise VotesRefused(reply.message, reason=reply.code, refused=refused_on(reply))
        return reply.outcomes[0] if len(set(reply.outcomes)) == 1 else ""

    def _vote(
        self,
        given: str | PendingApproval,
        verdict: Verdict,
        token: str,
        principal: str,
        note: str,
        arguments: bytes,
    ) -> str:
        """Edit or answer one approval."""
        _check_voter(token, principal)
        approval_id = self._whole_id(given)
        found = self._asked(approval_id, token)
        if found[0][0] != approval_id:
            raise Misuse(f"{approval_id} is a question about several calls: {verdict} one of them, by its own id")
        credential = self._credential(found, token, principal)
        return self._counted(PresentedVote(credential, approval_id, verdict, arguments, as_text(note)))

    def _counted(self, vote: PresentedVote) -> str:
        reply = self._connection.ask(GIVE_VOTE, vote)
        if not reply.ok:
            raise Refused(reply.message, reason=reply.code)
        return reply.outcome

    def _asked(self, name: str, token: str) -> list[tuple[str, str]]:
        """Return the approvals that an id is of, with their tenants; with a token that of one approval is as it is."""
        if token and not name.startswith("grp_"):
            return [(name, "")]
        found = [PendingApproval.of(body) for body in self._connection.ask(ASKED, name)]
        if not found:
            raise Refused(f"no approval {name} waits", reason="unknown")
        return [(each.approval_id, each.tenant) for each in found]

    def _credential(self, found: Sequence[tuple[str, str]], token: str, principal: str) -> str:
        tenants = sorted({tenant for _, tenant in found})
        if not token and len(tenants) > 1:
            raise Misuse(
                f"these are approvals of {', '.join(tenants)}: {principal} votes on those of one tenant at once"
            )
        return token or self._signed(tenants[0], principal)

    def _whole_id(self, given: str | PendingApproval) -> str:
        """Return the id of the one approval or question that waits that is meant, by all of its id or a part of it.

        Raises `Misuse` if that is too little of it, or there are several; what none has is returned as it is, for
        Approvals to refuse.
        """
        if isinstance(given, PendingApproval):
            return given.approval_id
        if not isinstance(given, str):
            raise InvalidId(f"{type(given).__name__:.40} is no approval: give its id, or what `approvals()` lists")
        text = as_text(given)
        if is_whole_approval(uncut(text)):
            return uncut(text)
        waiting = sorted({each for asked in self.approvals() for each in (asked.approval_id, asked.group) if each})
        if (ends := ends_of(text)) is None:
            there = listed(waiting) if waiting else "nothing"
            raise InvalidId(
                f"{text!r:.80}: give {SHORTEST} characters or more of an approval's id; what waits: {there}"
            )
        return only_one(text, [each for each in waiting if any(way.fit(each) for way in ends)]) or text

    # Operators.

    def kill(self, *, run: RunName | None = None, tenant: str | None = None, all: bool = False, why: str = "") -> int:
        """End a run, a tenant's runs, or all, whatever they are doing; return how many.  Needs the stack's keys."""
        if (run is not None) + (tenant is not None) + all != 1 or "" in (run, tenant):
            raise Misuse("kill: say exactly one of run, tenant and all")
        if run is not None:
            return self._order("kill", "run", self._run(run), why)
        return self._order("kill", "all" if all else "tenant", tenant or "", why)

    def cancel(self, run: RunName, why: str = "") -> int:
        """Withdraw a run."""
        return self._order("cancel", "run", self._run(run), why)

    def in_doubt(self, tenant: str | None = None) -> list[InDoubtCall]:
        """Return the calls in doubt, oldest first: of runs that wait for a person, and of ended ones."""
        return InDoubtList(list_in_doubt(LiveJournal(self._connection), tenant))

    def spend_in_doubt(self, tenant: str | None = None) -> list[SpendInDoubt]:
        """Return the attempts at questions to models that count in full because nobody knows what they cost."""
        return Listed(list_spend_in_doubt(LiveJournal(self._connection), tenant))

    def resolve_spend(
        self, key: str | SpendInDoubt, *, cost_microusd: int, tokens: int | None = None, why: str = ""
    ) -> int:
        """Say what an attempt of an ended run cost (tokens: as counted, if not said), by the key that is listed.

        What was counted too much goes back to the tenant's and the organisation's budgets, in the windows in which it
        was counted, if these are still open.  It is said once.  Needs the stack's keys.
        """
        for name, amount in (("cost_microusd", cost_microusd), ("tokens", tokens)):
            if amount is not None and (type(amount) is not int or not 0 <= amount <= MOST):
                raise InvalidInput(f"resolve_spend: {name}={amount!r:.40} is not a whole number of at least 0")
        name = key.key if isinstance(key, SpendInDoubt) else key
        return self._order("resolve_spend", "run", name, why, tokens=tokens, cost_microusd=cost_microusd)

    def rollback(self, run: RunName, *, why: str = "") -> RollbackReport:
        """Undo what an ended run and its branches did, latest first, by the tools' undos; return how each call stands.

        It stops at the first call that could not be undone; ordered again it goes on there, and does nothing twice.
        Raises `Misuse` for a run that has not ended.  Needs the stack's keys.
        """
        report, problem = self._connection.ask(ROLL_BACK, self._sealed_order("rollback", "run", self._run(run), why))
        if problem:
            raise Misuse(f"rollback: {problem}")
        return msgspec.msgpack.decode(report, type=RollbackReport)

    def resolve(self, run: RunName | InDoubtCall, *, happened: bool, output: Any = None, why: str = "") -> int:
        """Say what became of the call a run (or a branch) is in doubt about; of several, name the key, or give
        what `in_doubt()` lists.

        A run that waits goes on; of one that has ended it is put on record, and `in_doubt` lists it no longer.
        """
        written = _written(output, "output")
        return self._order("settle", "run", self._in_doubt_name(run), why, happened=happened, output=written)

    def _in_doubt_name(self, given: RunName | InDoubtCall) -> str:
        """Return the run or the key that is meant."""
        if isinstance(given, InDoubtCall):
            return given.key
        run, colon, step = given.partition(":") if isinstance(given, str) else (given, "", "")
        return f"{self._run(run)}{colon}{step}"

    def settle(self, run: RunName | InDoubtCall, *, happened: bool, output: Any = None, why: str = "") -> int:
        """Do as `resolve`, by its old name, which goes with the next version."""
        warnings.warn("Stack.settle is called Stack.resolve now", DeprecationWarning, stacklevel=3)
        return self.resolve(run, happened=happened, output=output, why=why)

    @explain_misuse("Stack.switch_off", how='Stack.switch_off(tool="charge", why=...)')
    def switch_off(
        self,
        *,
        tenant: str | None = None,
        principal: str | None = None,
        tool: str | None = None,
        run: RunName | None = None,
        version: str | None = None,
        all: bool = False,
        why: str = "",
        for_s: float = 0,
    ) -> None:
        """Set a kill switch: give one of `tenant`, `principal` (`tenant/principal`), `tool`, `run`, `version`, `all`.

        When it returns, no run it covers is admitted and no effect it covers starts anywhere, also after restarts,
        for `for_s` seconds or (0) until `switch_on`.  What is at work goes on: `kill` ends it.  Raises `Misuse` if a
        layer could not be told.  Needs the stack's keys.
        """
        if not 0 <= for_s <= LONGEST_SWITCH_S:
            raise Misuse(f"switch: {for_s!r:.40} s: give seconds, from 0 (until it is switched on) to a hundred years")
        until_us = now_us() + int(for_s * 1e6) if for_s else 0
        target = self._switch_target(tenant, principal, tool, run, version, all)
        self._order("switch_off", *target, why, until_us=until_us)

    @explain_misuse("Stack.switch_on", how='Stack.switch_on(tool="charge")')
    def switch_on(
        self,
        *,
        tenant: str | None = None,
        principal: str | None = None,
        tool: str | None = None,
        run: RunName | None = None,
        version: str | None = None,
        all: bool = False,
        why: str = "",
    ) -> None:
        """Take a switch back; what it is of is said as for `switch_off`."""
        self._order("switch_on", *self._switch_target(tenant, principal, tool, run, version, all), why)

    def _switch_target(
        self,
        tenant: str | None,
        principal: str | None,
        tool: str | None,
        run: RunName | None,
        version: str | None,
        all: bool,
    ) -> tuple[str, str]:
        """Return scope and target; what is given and empty is no target, nor left out."""
        whole = self._run(run) if run else run
        named = {"tenant": tenant, "principal": principal, "tool": tool, "run": whole, "version": version}
        given = {scope: target for scope, target in named.items() if target is not None}
        return switch_target(given | ({"all": True} if all else {}))

    def switches(self) -> list[KillSwitchChanged]:
        """Return what is switched off, oldest first."""
        return Listed(
            msgspec.json.decode(body, type=KillSwitchChanged) for body in self._connection.ask(SWITCHES, None)
        )

    def _order(self, action: Any, scope: Any, target: str, why: str, **more: Any) -> int:
        reached, problem = self._connection.ask(ORDER, self._sealed_order(action, scope, target, why, **more))
        if problem:
            raise Misuse(f"{action}: {problem}")
        return int(reached)

    def _sealed_order(self, action: Any, scope: Any, target: str, why: str, **more: Any) -> bytes:
        return sealed_order(self._key_ring().seal, action, scope, target, why, **more)

    def status(self) -> dict[str, Any]:
        """Return every layer's health and counts; a layer that does not answer is shown as down."""
        return Status({name: self._look(handle) for name, handle in sorted(self._connection.actors().items())})

    @property
    def http_urls(self) -> list[str]:
        """The URLs of the servers that `App(http=...)` has the stack run, of those that answer."""
        servers = [handle for name, handle in sorted(self._connection.actors().items()) if name.startswith("http/")]
        return [url for server in servers if (url := self._look(server).get("url"))]

    def _look(self, handle: Any) -> dict[str, Any]:
        try:
            health, stats = ray.get([handle.health.remote(), handle.stats.remote()], timeout=5)
        except (RayError, TimeoutError) as error:
            return {"down": type(error).__name__}
        return {**health, **stats}

    # Audit.

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> pa.Table:
        """Answer one SELECT over the tables `events`, `runs` and `outcomes`; raise `InvalidInput` for anything else."""
        data, problem = self._connection.ask(QUERY, Sql(sql, tuple(parameters)))
        if problem:
            raise InvalidInput(problem)
        return as_answer(pa.ipc.open_stream(data).read_all())

    def subscribe(
        self, *, tenant: str | None = None, after: str = "", token: str = "", timeout: float | None = None
    ) -> Iterator[JournalEntry]:
        """Yield the journal's entries in the order in which they were made durable, then those to come as they come.

        They are a tenant's, or all; with a `token`, of a principal that holds the role `auditor`, those of its tenant.
        They begin `after` an entry's `cursor`, or "now"; otherwise with the first one.  Whoever notes the cursor of an
        entry once it is dealt with is given every entry at least once, whatever dies.  With a `timeout` it ends when
        nothing more has come for so many seconds (0: with what is there).
        """
        follower = self._follower(tenant, after, token, timeout)
        if after == NOW:
            drive(follower.begin())
        return each(follower.next_entries)

    def asubscribe(
        self, *, tenant: str | None = None, after: str = "", token: str = "", timeout: float | None = None
    ) -> AsyncIterator[JournalEntry]:
        """As `subscribe`, for `async for`; "now" is when it is first waited for."""
        return each_later(self._follower(tenant, after, token, timeout).next_entries)

    def _follower(self, tenant: str | None, after: str, token: str, timeout: float | None) -> JournalFollower:
        check_timeout(timeout)
        if token and tenant is not None:
            raise Misuse("subscribe: a token says whose entries: give a tenant or a token")
        if not isinstance(after, str):
            raise InvalidInput(f"after: {after!r:.40} is no text: give an entry's cursor, or nothing")
        feed_of(tenant)
        method = FOLLOW if token else SUBSCRIBE

        def ask(cursor: str, wait_s: float) -> Steps[FeedPage]:
            return self._connection.call(method, FeedRequest(cursor, wait_s, tenant, token))

        return JournalFollower(ask, after, timeout=timeout)

    def watch(self, run: RunName, *, token: str = "", timeout: float | None = None) -> Iterator[RunNews]:
        """Yield a run's events from its first one, and what its models write while they write it, until it has ended.

        Text is a hint, of which nothing is on record: it may be lost, and void (`restarted`, `failed`).  The recorded
        answer counts.  With a `token` of the principal that asked for the run, or of an auditor of its tenant, it is
        watched by that; raises `Refused` or `AuthRefused` for anybody else.  With a `timeout` it ends when nothing has
        come for so many seconds.
        """
        return each(self._run_stream(run, token, timeout).next_news)

    def awatch(self, run: RunName, *, token: str = "", timeout: float | None = None) -> AsyncIterator[RunNews]:
        """As `watch`, for `async for`."""
        return each_later(self._run_stream(run, token, timeout).next_news)

    def _run_stream(self, run: RunName, token: str, timeout: float | None) -> RunStream:
        check_timeout(timeout)
        asks_models = not token and self._connection.has("models")

        def ask(asked: WatchRequest) -> Steps[WatchPage]:
            if token:
                presented = msgspec.structs.replace(asked, credential=token)
                return (yield from self._connection.call(WATCH_RUN, presented))
            events: tuple[str, ...] = ()
            page, streams = WatchPage(), list[str]([asked.run_id])
            if asked.with_events:
                bodies = (yield from self._connection.call(BODIES, streams))[asked.run_id]
                if not bodies:
                    return WatchPage(code="unknown", problem=f"the journal has no run {asked.run_id}")
                events = tuple(bodies[asked.events :])
            waiting = msgspec.structs.replace(asked, timeout_s=0.0 if events else asked.timeout_s)
            if asks_models:
                page = yield from self._connection.call(WATCH, waiting)
            elif waiting.timeout_s:
                yield Pause(waiting.timeout_s)
            return msgspec.structs.replace(page, events=events)

        return RunStream(ask, self._run(run), timeout=timeout)

    def verify(self) -> list[str]:
        """Check the journal's chains and checkpoints; return what is wrong, nothing if it is whole."""
        return self._connection.ask(VERIFY, None)

    def story(self, run_id: RunName) -> str:
        """Return a run as lines of text: what happened, and why, and what other streams have of it (`~`)."""
        return self.backend.story(self._run(run_id))

    def runs(self, **filters: Any) -> list[RunSummary]:
        """Return runs, newest first: at most `limit` (100), of a `tenant`, `status` (`active`: not ended), `reason`.

        `since` is a `datetime` or a `timedelta` before now; `branches=True` lists the branches of runs too.
        """
        return RunList(list_runs(LiveJournal(self._connection), **filters))

    def inspect(self, run_id: RunName) -> RunDetail:
        """Return one run with each of its steps and waits."""
        return show_run(LiveJournal(self._connection), self._run(run_id))

    # Memory.

    @property
    def memory(self) -> MemoryClient:
        """The stack's memory, as its operator or a keeper: what is kept, who erases it, what it is exported to."""
        if not self._connection.has("memory"):
            raise Misuse("this stack has no memory: start it with App(memory=True)")
        return MemoryClient(self._connection, self._key_ring)

    # The connection.

    def _key_ring(self) -> KeyRing:
        if self._keys is None:
            raise Misuse(f"this process cannot read the stack's keys in {self.state_dir / 'keys'}: give a token")
        return self._keys

    def reload(self, app: App) -> None:
        """Run another app in this stack, whose agents, tools, policy and directory are the new ones from here on.

        The layers are stopped and started again on the same state directory: what is unfinished is taken up by the new
        app.  Raises `InvalidConfig` for an app that does not hold together, before anything is stopped, and
        `LayerUnavailable` if it does not come up; then the one before runs again.  Only in the process that started it.
        """
        self._connection.check_open()
        if self._own is None:
            raise Misuse("reload: only the process that started a stack can; it was started by another one")
        self._own.reload(app)

    def close(self) -> None:
        """Disconnect; the stack goes on, unless it is on a Ray that ends with this process's use of it."""
        if self._stops and self._connection.member.ends_ray:
            self.shutdown()
        else:
            atexit.unregister(self.close)
            if self._own is not None:
                self._own.close()
            self._connection.close()

    def shutdown(self) -> None:
        """Stop the stack.  What is unfinished stays in the journal, and the next start takes it up."""
        atexit.unregister(self.close)
        try:
            if self._own is not None:
                self._own.close()
            self._connection.stop()
            remove_record(self.state_dir, self.stack_id)
        finally:
            self._connection.close()


def _named(handles: Iterable[RunHandle | RunSummary | str]) -> Iterator[tuple[str, str]]:
    """Return the ids of runs and their jobs; raise `InvalidInput` for what is no handle, also while they are taken."""
    if isinstance(handles, str | bytes | Mapping) or not isinstance(handles, Iterable):
        raise InvalidInput(
            f"handles: what is given, of type {type(handles).__name__}, is no list of handles: give what `submit` and "
            "`runs` return"
        )
    return map(_name_of, count(), handles)


def _name_of(place: int, handle: RunHandle | RunSummary | str) -> tuple[str, str]:
    if isinstance(handle, str):
        return parse_run(handle), ""
    if not isinstance(handle, RunHandle | RunSummary):
        raise InvalidInput(
            f"handles[{place}]: {type(handle).__name__} is no handle of a run: `Stack.handle(run_id)` makes one"
        )
    return handle.run_id, handle.job_id


def _check_voter(token: str, principal: str) -> None:
    if not token and not principal:
        raise Misuse("say who votes: a principal (`--as`) or a token")


def _written(value: Any, where: str) -> bytes:
    """Return a caller's value as JSON; raise `InvalidInput` for what is none."""
    return write_bounded(value, max_bytes=MAX_REQUEST_BYTES, where=where)
