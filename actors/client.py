"""`Stack`: a running stack, from a notebook, a script, or the command line.

`asubmit` and `amap` are `submit` and `map` to await; a `RunHandle` can be awaited for its result.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec
import pyarrow as pa
import ray
from ray.exceptions import RayActorError, RayError
from ray.util import list_named_actors

from airside.actors.doubts import list_doubts
from airside.actors.jobs import BadLine, Job
from airside.actors.layer import now_us
from airside.actors.memory_client import MemoryClient
from airside.actors.names import NAMESPACE, actor_name
from airside.actors.orders import sealed_order, switch_target
from airside.actors.progress import progress_of
from airside.actors.record import remove_record
from airside.actors.results import PendingApproval, RunResult, ended, refused
from airside.actors.settings import Settings
from airside.actors.stopping import close_layers, end_actors
from airside.actors.stubs import encode
from airside.actors.telling import story_of
from airside.stack.auth import issue_token
from airside.stack.canonical import write_bounded
from airside.stack.doubts import Doubt
from airside.stack.errors import AdmissionRefused, AuthRefused, InvalidInput, LayerUnavailable, Misuse, Refused
from airside.stack.ids import parse_run
from airside.stack.keyring import KeyRing
from airside.stack.messages import Submission, Ticket, VoteReply
from airside.stack.reasons import ReasonCode
from airside.stack.rollback import RollbackReport
from airside.stack.switches import SwitchThrown
from airside.stack.values import MAX_REQUEST_BYTES

Answer = TypeVar("Answer")

_CHUNK = 500
"""Submissions in one call to Ingress."""

_POLL_S = 5.0
"""Longest wait in one call to the driver; a run that ends answers at once."""


class RunHandle:
    """A submitted run."""

    def __init__(self, stack: Stack, run_id: str, job_id: str = "") -> None:
        self._stack = stack
        self.run_id = run_id
        self.job_id = job_id

    def result(self, timeout: float | None = None) -> RunResult:
        """Wait until the run has ended, and return how; raise `TimeoutError` after `timeout` seconds."""
        results = self._stack.results([self], timeout=timeout)
        if not results:
            raise TimeoutError(f"{self.run_id} has not ended in {timeout} s")
        return results[0]

    def __await__(self) -> Any:
        return asyncio.to_thread(self.result).__await__()

    def story(self) -> str:
        """Return the run so far, as lines of text."""
        return self._stack.story(self.run_id)

    def cancel(self, why: str = "") -> None:
        """Withdraw the run."""
        self._stack.cancel(self.run_id, why)

    def __repr__(self) -> str:
        return f"RunHandle({self.run_id})"


class Stack:
    """A running stack.  Made by `airside.start` and `airside.connect`."""

    def __init__(
        self,
        settings: Settings,
        keys: KeyRing | None,
        state_dir: Path,
        *,
        owns_ray: bool,
        stops: bool,
        record: dict[str, Any],
    ) -> None:
        self.settings = settings
        self.state_dir = state_dir
        self._keys = keys
        self._owns_ray = owns_ray
        self._stops = stops
        self._record = record
        self._tokens: dict[tuple[str, str], tuple[str, float]] = {}
        self._handles: dict[str, Any] = {}

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

    def __repr__(self) -> str:
        return f"Stack({self.settings.stack}, {self.state_dir})"

    # Jobs.

    def token(self, tenant: str, principal: str, *, ttl_s: int = 3600, **claims: Any) -> str:
        """Sign a token with the stack's local key; raise `Misuse` where this process may not read that key."""
        return issue_token(
            self._key_ring().issuer_pem,
            tenant=tenant,
            principal=principal,
            now_s=int(time.time()),
            ttl_s=ttl_s,
            claims=claims,
        )

    def _own_token(self, tenant: str, principal: str) -> str:
        """Return a token for local use, the same for as long as most of its life is left."""
        made = self._tokens.get((tenant, principal))
        if made is None or made[1] < time.monotonic():
            made = self._tokens[tenant, principal] = (self.token(tenant, principal), time.monotonic() + 1800)
        return made[0]

    def submit(
        self, request: str | Job, *, token: str = "", tenant: str = "", principal: str = "", **fields: Any
    ) -> RunHandle:
        """Submit one job and return its handle; raise `AuthRefused`, `AdmissionRefused` or `Refused`.

        Who asks is said by a `token`, or by `tenant` and `principal` where this process holds the stack's keys.
        `fields` are those of a `Job`: `route`, `limits`, `inputs`, `labels`, `job_id`.
        """
        try:
            who: dict[str, Any] = {"token": token, "tenant": tenant, "principal": principal}
            job = request if isinstance(request, Job) else Job(request=request, **who, **fields)
        except ValueError as error:
            raise InvalidInput(f"job: {error}") from None
        ticket = self._submit([job])[0]
        if ticket.run_id:
            return RunHandle(self, ticket.run_id, job.job_id)
        reason = (ticket.reason_code or ReasonCode.INTERNAL_ERROR).value
        if reason == ReasonCode.ADMISSION_REJECTED:
            raise AdmissionRefused(ticket.message, reason=reason, retry_after_s=ticket.retry_after_s)
        if reason.startswith("auth_") or reason in (ReasonCode.PRINCIPAL_UNKNOWN, ReasonCode.TENANT_UNKNOWN):
            raise AuthRefused(ticket.message, reason=reason)
        raise Refused(ticket.message, reason=reason)

    def map(
        self, jobs: Iterable[Job | BadLine | dict[str, Any]], *, progress: bool = True, timeout: float | None = None
    ) -> list[RunResult]:
        """Run a batch and return its results in order; what is refused or malformed is a result too.

        A full queue is waited for.  Raises `TimeoutError` if not all have ended after `timeout` seconds; the runs go
        on, and their results can be had later.
        """
        batch = [_job(job) for job in jobs]
        results: list[RunResult | None] = [None] * len(batch)
        until = None if timeout is None else time.monotonic() + timeout
        with progress_of(len(batch), show=progress) as advance:
            handles = self._enter(batch, results, advance, until)
            for i, result in self._as_ended(handles, until):
                results[i] = result
                advance(str(result.status))
        missing = sum(result is None for result in results)
        if missing:
            raise TimeoutError(f"{missing} of {len(batch)} runs have not ended in {timeout} s")
        return [result for result in results if result is not None]

    def _enter(
        self,
        batch: list[Job | BadLine],
        results: list[RunResult | None],
        advance: Callable[[str], None],
        until: float | None,
    ) -> dict[str, tuple[int, str]]:
        """Submit all that can be; return run id -> (place, job id)."""
        handles: dict[str, tuple[int, str]] = {}
        waiting: list[tuple[int, Job]] = []
        for i, job in enumerate(batch):
            if isinstance(job, BadLine):
                results[i] = refused(Ticket(reason_code=ReasonCode.REQUEST_INVALID, message=job.message), job.job_id)
                advance("refused")
            else:
                waiting.append((i, job))
        while waiting:
            chunk, waiting = waiting[:_CHUNK], waiting[_CHUNK:]
            pause = 0.0
            for (i, job), ticket in zip(chunk, self._submit([job for _, job in chunk]), strict=True):
                if ticket.run_id:
                    handles[ticket.run_id] = (i, job.job_id)
                elif ticket.reason_code is ReasonCode.ADMISSION_REJECTED:
                    waiting.append((i, job))
                    pause = max(pause, ticket.retry_after_s)
                else:
                    results[i] = refused(ticket, job.job_id)
                    advance("refused")
            if until is not None and time.monotonic() > until:
                break
            time.sleep(pause)
        return handles

    def _submit(self, jobs: Sequence[Job]) -> list[Ticket]:
        items: list[bytes] = []
        tickets: dict[int, Ticket] = {}
        places: list[int] = []
        for i, job in enumerate(jobs):
            try:
                credential = job.token or self._own_token(job.tenant, job.principal)
                body = msgspec.json.encode(job.to_request())
            except InvalidInput as error:
                tickets[i] = Ticket(reason_code=ReasonCode.REQUEST_INVALID, message=error.message)
            except Misuse as error:
                tickets[i] = Ticket(reason_code=ReasonCode.AUTH_FAILED, message=error.message)
            else:
                nonce = secrets.token_bytes(16)
                items.append(encode(Submission(credential=credential, request=body, nonce=nonce)))
                places.append(i)
        answers = self._call("ingress", "submit", items) if items else []
        decoded = (msgspec.msgpack.decode(answer, type=Ticket) for answer in answers)
        tickets |= dict(zip(places, decoded, strict=True))
        return [tickets[i] for i in range(len(jobs))]

    def results(self, handles: Iterable[RunHandle], *, timeout: float | None = None) -> list[RunResult]:
        """Wait for runs and return their results, in order; those that have not ended by then are left out."""
        wanted = {handle.run_id: (i, handle.job_id) for i, handle in enumerate(handles)}
        until = None if timeout is None else time.monotonic() + timeout
        return [result for _, result in sorted(self._as_ended(wanted, until), key=lambda pair: pair[0])]

    def _as_ended(self, wanted: dict[str, tuple[int, str]], until: float | None) -> Iterable[tuple[int, RunResult]]:
        open_runs = dict(wanted)
        while open_runs:
            left = _POLL_S if until is None else min(_POLL_S, until - time.monotonic())
            if left <= 0:
                return
            for run_id, body in self._call("driver", "wait", list(open_runs), left).items():
                i, job_id = open_runs.pop(run_id)
                yield i, ended(run_id, body, job_id, lambda run_id=run_id: self.story(run_id))  # type: ignore[misc]

    def ended(self, run_ids: Sequence[str]) -> set[str]:
        """Return which of these runs have ended; does not wait."""
        return set(self._call("driver", "wait", list(run_ids), 0.0))

    def handle(self, run_id: str) -> RunHandle:
        """Return the handle of a run submitted earlier, from this process or another."""
        return RunHandle(self, parse_run(run_id))

    # People.

    def approvals(self, tenant: str | None = None) -> list[PendingApproval]:
        """Return what waits for people, oldest first."""
        return [PendingApproval.of(body) for body in self._call("approvals", "pending", tenant)]

    def approve(self, approval_id: str, *, token: str = "", principal: str = "", note: str = "") -> str:
        """Approve as whoever holds `token` (or, with the stack's keys, as `principal` of the approval's tenant).

        Returns the approval's outcome, empty while more votes are needed; raises `Refused` if the vote does not count.
        """
        return self._vote(approval_id, "approve", token, principal, note, b"")

    def reject(self, approval_id: str, *, token: str = "", principal: str = "", note: str = "") -> str:
        """Reject; as `approve`."""
        return self._vote(approval_id, "reject", token, principal, note, b"")

    def edit(
        self, approval_id: str, arguments: dict[str, Any], *, token: str = "", principal: str = "", note: str = ""
    ) -> str:
        """Approve with other arguments: a new action, which is validated and gated again; as `approve`."""
        return self._vote(approval_id, "edit", token, principal, note, _written(arguments, "arguments"))

    def _vote(self, approval_id: str, verdict: str, token: str, principal: str, note: str, arguments: bytes) -> str:
        credential = token
        if not token and not principal:
            raise Misuse("say who votes: a principal (`--as`) or a token")
        if not credential:
            found = next((a for a in self.approvals() if a.approval_id == approval_id), None)
            if found is None:
                raise Refused(f"no approval {approval_id} waits", reason="unknown")
            credential = self.token(found.tenant, principal)
        reply: VoteReply = self._call("ingress", "vote", credential, approval_id, verdict, arguments, note)
        if not reply.ok:
            raise Refused(reply.message, reason=reply.code)
        return reply.outcome

    # Operators.

    def kill(self, *, run: str = "", tenant: str = "", all: bool = False, why: str = "") -> int:
        """End a run, a tenant's runs, or all, whatever they are doing; return how many.  Needs the stack's keys."""
        if bool(run) + bool(tenant) + all != 1:
            raise Misuse("kill: say exactly one of run, tenant and all")
        scope, target = ("all", "") if all else ("tenant", tenant) if tenant else ("run", run)
        return self._order("kill", scope, target, why)

    def cancel(self, run: str, why: str = "") -> int:
        """Withdraw a run."""
        return self._order("cancel", "run", run, why)

    def in_doubt(self, tenant: str | None = None) -> list[Doubt]:
        """Return the calls nobody can vouch for, oldest first: of runs that wait for a person, and of ended ones."""
        return list_doubts(self._call, tenant)

    def rollback(self, run: str, *, why: str = "") -> RollbackReport:
        """Undo what an ended run and its branches did, latest first, by the tools' undos; return how each call stands.

        It stops at the first call that could not be undone; ordered again it goes on there, and does nothing twice.
        Raises `Misuse` for a run that has not ended.  Needs the stack's keys.
        """
        report, problem = self._call("driver", "rollback", self._sealed_order("rollback", "run", run, why))
        if problem:
            raise Misuse(f"rollback: {problem}")
        return msgspec.msgpack.decode(report, type=RollbackReport)

    def settle(self, run: str, *, happened: bool, output: Any = None, why: str = "") -> int:
        """Say what became of the call a run (or a branch) is in doubt about; of several, name the key.

        A run that waits goes on; of one that has ended it is put on record, and `in_doubt` lists it no longer.
        """
        written = _written(output, "output")
        return self._order("settle", "run", run, why, happened=happened, output=written)

    def switch_off(self, *, why: str = "", for_s: float = 0, **target: Any) -> None:
        """Throw a kill switch: give one of `tenant`, `principal` (`tenant/principal`), `tool`, `run`, `version`, `all`.

        When it returns, no run it covers is admitted and no effect it covers starts anywhere, also after restarts,
        for `for_s` seconds or (0) until `switch_on`.  What is at work goes on: `kill` ends it.  Raises `Misuse` if a
        layer could not be told.  Needs the stack's keys.
        """
        until_us = now_us() + int(for_s * 1e6) if for_s else 0
        self._order("switch_off", *switch_target(target), why, until_us=until_us)

    def switch_on(self, *, why: str = "", **target: Any) -> None:
        """Take a switch back; `target` as for `switch_off`."""
        self._order("switch_on", *switch_target(target), why)

    def switches(self) -> list[SwitchThrown]:
        """Return what is switched off, oldest first."""
        return [msgspec.json.decode(body, type=SwitchThrown) for body in self._call("driver", "switches")]

    def _order(self, action: Any, scope: Any, target: str, why: str, **more: Any) -> int:
        reached, problem = self._call("driver", "order", self._sealed_order(action, scope, target, why, **more))
        if problem:
            raise Misuse(f"{action}: {problem}")
        return int(reached)

    def _sealed_order(self, action: Any, scope: Any, target: str, why: str, **more: Any) -> bytes:
        return sealed_order(self._key_ring().seal, action, scope, target, why, **more)

    def status(self) -> dict[str, Any]:
        """Return every layer's health and counts; a layer that does not answer is shown as down."""
        return {name: self._look(handle) for name, handle in sorted(self._actors().items())}

    def _look(self, handle: Any) -> dict[str, Any]:
        try:
            health, stats = ray.get([handle.health.remote(), handle.stats.remote()], timeout=5)
        except (RayError, TimeoutError) as error:
            return {"down": type(error).__name__}
        return {**health, **stats}

    # Audit.

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> pa.Table:
        """Answer one SELECT over the tables `events`, `runs` and `outcomes`; raise `InvalidInput` for anything else."""
        data, problem = self._call("journal", "query", sql, list(parameters))
        if problem:
            raise InvalidInput(problem)
        return pa.ipc.open_stream(data).read_all()

    def verify(self) -> list[str]:
        """Check the journal's chains and checkpoints; return what is wrong, nothing if it is whole."""
        problems: list[str] = self._call("journal", "verify")
        return problems

    def story(self, run_id: str) -> str:
        """Return a run as lines of text: what happened, and why, and what other streams have of it (`~`)."""
        return story_of(partial(self._call, "journal"), run_id)

    # Memory.

    @property
    def memory(self) -> MemoryClient:
        """The stack's memory, as its operator or a keeper: what is kept, who erases it, what it is exported to."""
        if actor_name(self.settings.stack, "memory") not in self._handles and "memory" not in self._actors():
            raise Misuse("this stack has no memory: start it with App(memory=True)")
        return MemoryClient(self._call, self._key_ring)

    # Twins to await.

    async def asubmit(self, request: str | Job, **fields: Any) -> RunHandle:
        """As `submit`."""
        return await asyncio.to_thread(self.submit, request, **fields)

    async def amap(self, jobs: Iterable[Job | BadLine | dict[str, Any]], **options: Any) -> list[RunResult]:
        """As `map`."""
        return await asyncio.to_thread(self.map, jobs, **options)

    # The connection.

    def _key_ring(self) -> KeyRing:
        if self._keys is None:
            raise Misuse(f"this process cannot read the stack's keys in {self.state_dir / 'keys'}: give a token")
        return self._keys

    def _call(self, layer: str, method: str, *args: Any) -> Any:
        """Call a layer, waiting through its restart; only for calls that may be sent twice."""
        if not ray.is_initialized():
            raise Misuse("this stack is closed: start or connect to it again")
        name = actor_name(self.settings.stack, layer)
        until = time.monotonic() + self.settings.layer_patience_s
        while True:
            try:
                if name not in self._handles:  # asked for once: Ray's control service may be away when it matters
                    self._handles[name] = ray.get_actor(name, NAMESPACE)
                return ray.get(getattr(self._handles[name], method).remote(*args))
            except (RayActorError, ValueError) as error:
                self._handles.pop(name, None)
                if time.monotonic() > until:
                    raise LayerUnavailable(f"{name}.{method}: {type(error).__name__}: {error}"[:300]) from None
                time.sleep(0.1)
            except RayError as error:
                cause = getattr(error, "cause", None) or error
                raise LayerUnavailable(f"{name}.{method}: {cause}"[:500]) from None

    def _actors(self) -> dict[str, Any]:
        prefix = actor_name(self.settings.stack, "")
        found = {}
        for entry in list_named_actors(all_namespaces=True):
            if entry["namespace"] == NAMESPACE and entry["name"].startswith(prefix):
                with contextlib.suppress(ValueError):
                    found[entry["name"].removeprefix(prefix)] = ray.get_actor(entry["name"], NAMESPACE)
        return found

    def close(self) -> None:
        """Disconnect; the stack goes on."""
        if self._owns_ray:
            ray.shutdown()
            self._owns_ray = False

    def shutdown(self) -> None:
        """Stop the stack.  What is unfinished stays in the journal, and the next start takes it up."""
        if ray.is_initialized():
            close_layers(self._actors())
            end_actors(self._actors())
        remove_record(self.state_dir, self._record.get("id", ""))
        self.close()


def _written(value: Any, where: str) -> bytes:
    """Return a caller's value as JSON; raise `InvalidInput` for what is none."""
    return write_bounded(value, max_bytes=MAX_REQUEST_BYTES, where=where)


def _job(job: Job | BadLine | dict[str, Any]) -> Job | BadLine:
    if isinstance(job, Job | BadLine):
        return job
    try:
        return Job(**job)
    except ValueError as error:
        return BadLine(line=0, job_id=str(job.get("job_id", "")), message=f"job: {error}")
