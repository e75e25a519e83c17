"""Running a batch: rows become jobs, jobs become runs, and each row has exactly one disposition, in a part.

A batch is known by its name and its parts.  Whoever runs it may die at any moment: taken up again, rows that have a
result are passed over, and a job that was under way is submitted again as the same run (`stack/ids.py`), which costs
nothing twice.  Nothing here grows with the number of rows but eleven bytes a row (`row_states`).
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from airside.actors.client.client import Stack
from airside.actors.client.job_stream import JobStream
from airside.actors.client.results import RunResult
from airside.actors.client.steps import drive
from airside.actors.jobs import BadLine, Job, parse_rows, row_name
from airside.batches.coming import as_they_come
from airside.batches.manifest import Manifest
from airside.batches.options import ERRORS_LEAST, BatchOptions
from airside.batches.parts import Parts
from airside.batches.retry import QUERIES
from airside.batches.row_states import WITHDRAWN, RowStates, Standing, standing_of
from airside.batches.rows import Row, Source
from airside.batches.withdrawals import Withdrawals
from airside.stack.errors import AirsideError, InvalidInput, LayerUnavailable
from airside.stack.ids import RunId, root_of
from airside.stack.operations.batches import BatchState
from airside.stack.reasons import ReasonCode, RunStatus

LOOK_S = 1.0
"""How often orders and deadlines are looked at, at least."""

PEOPLE_S = 5.0
"""How often it is looked who waits for people: that is all approvals there are."""

_ROWS_AT_ONCE = 200
_KEPT_BYTES = 2_048
"""Of a row whose job is under way, for the file of rejects, should it be refused: there are thousands of them."""


class Pass(NamedTuple):
    """Which rows are run: `new` ones without a result (of `rows`, if it has any), `rows` to `retry`, or those of
    `job_ids` that are run `again`."""

    kind: str
    rows: frozenset[int] = frozenset()
    job_ids: frozenset[str] = frozenset()


NEW = Pass("new")


class _Ref(NamedTuple):
    """A job under way: its row, its attempt, the digest of its job, where the row stands, and what it was read from."""

    row: int
    attempt: int
    digest: bytes
    place: str
    original: bytes


@dataclass(slots=True)
class BatchCounts:
    """What became of rows, and what they used; `rejected` went to the rejects, `passed_over` had a result before."""

    read: int = 0
    passed_over: int = 0
    rejected: int = 0
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Results by status and reason."""
    wrong_answers: int = 0
    steps: int = 0
    tokens: int = 0
    cost_microusd: int = 0
    unknown: list[str] = field(default_factory=list)
    """Jobs that were to be run again, and of which none has a result."""
    no_jobs: dict[str, str] = field(default_factory=dict)
    """Rows that were to be run again by their ids, and are no jobs: what is wrong with each."""

    @property
    def ended(self) -> int:
        """How many results there are."""
        return sum(self.outcomes.values())

    @property
    def completed(self) -> int:
        """How many completed with an answer that is as it should be."""
        return sum(n for (status, _), n in self.outcomes.items() if status == RunStatus.COMPLETED) - self.wrong_answers

    @property
    def errors(self) -> int:
        """How many did not."""
        return self.ended - self.completed

    def add(self, result: RunResult, problem: str) -> None:
        """Take a result in; `problem` is said of the row that it is of, wherever that stands."""
        self.outcomes[str(result.status), str(result.reason_code)] += 1
        self.wrong_answers += bool(problem) and result.status is RunStatus.COMPLETED
        self.steps += result.steps
        self.tokens += result.tokens
        self.cost_microusd += result.cost_microusd


class TakenOver(AirsideError):
    """Another process runs the batch now; what this one has written stays, and its runs go on."""


class BatchRunner:
    """One process's turn at a batch."""

    def __init__(
        self,
        stack: Stack,
        source: Source,
        parts: Parts,
        manifest: Manifest,
        states: RowStates,
        options: BatchOptions,
        *,
        owner: str,
        on_turn: Callable[[BatchRunner], None] = lambda runner: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counts = BatchCounts()
        self.state = ""
        """Why no more jobs are submitted: `cancelled`, `deadline`, `errors`; empty while there are."""
        self._stack = stack
        self._source = source
        self._parts = parts
        self._manifest = manifest
        self._states = states
        self._options = options
        self._owner = owner
        self._on_turn = on_turn
        self._clock = clock
        self._validator = options.validator()
        self._handle = stack.batch(manifest.batch)
        self._settings = (options.priority, dict(options.limits or {}))
        self._refs: dict[int, _Ref] = {}
        """By the place that a stream gives a job."""
        self._given = 0
        self.waiting_for_people = 0
        """How many of its runs waited for people when that was last looked at."""
        self.problem = ""
        """Why the stack stood still when that was last looked at: its journal cannot write."""
        self._looked_s = self._asked_s = clock()
        self._until = None if options.deadline_s is None else clock() + options.deadline_s
        self._since: dict[str, float] = {}
        """When runs began to wait, on our clock, that another process had submitted."""
        self._withdrawals = Withdrawals(stack)
        self._requeued: list[str] = []
        self._orders = BatchState()
        self._broken: Exception | None = None
        """What makes the rest of the input unreadable: raised when what stands before it has its results."""
        self._stream: JobStream | None = None

    @property
    def under_way(self) -> int:
        """How many jobs' runs have not ended."""
        return sum(map(len, self._stream.open.copy().values())) if self._stream is not None else 0

    @property
    def not_ended(self) -> int:
        """How many jobs were sent whose runs have not ended, also those of which it is not known whether they began."""
        return self.under_way + (len(self._stream.unanswered()) if self._stream is not None else 0)

    @property
    def _opened_stream(self) -> JobStream:
        assert self._stream is not None, "orders are followed while a pass runs"
        return self._stream

    @property
    def is_paused(self) -> bool:
        """Whether an operator has paused it."""
        return self._orders.is_paused

    def run(self, passes: Sequence[Callable[[], Pass]]) -> None:
        """Run passes over the rows, and what is ordered to be run again meanwhile; return when no run is under way.

        Raises `TakenOver`, `InvalidInput` for input that cannot be read on or is not what it was, and `Failed` where
        results cannot be written; what was submitted goes on.
        """
        try:
            self._orders = self._handle.state()
            self._requeued = list(self._orders.requeued)  # since this process took it up
            self._since = self._begun()
            for wanted in passes:
                if not self.state:
                    self._run(wanted())
            self._follow()  # what was ordered in the last second
            while self._requeued and not self.state:
                again, self._requeued = frozenset(self._requeued), []
                self._run(Pass("again", job_ids=again))
                self._follow()
        finally:
            self._withdrawals.close()
            self._parts.commit()

    def _run(self, wanted: Pass) -> None:
        self._refs, self._given = {}, 0
        self._stream = JobStream(
            self._stack.backend,
            self._jobs(wanted),
            timeout=None,
            window=self._options.concurrency,
            poll_s=LOOK_S,
            on_turn=self._turn,
            clock=self._clock,
        )
        self._apply()
        while results := drive(self._stream.next_results()):
            for result in results:
                self._take(result)
        if self._broken is not None:
            raise self._broken

    def _begun(self) -> dict[str, float]:
        """Return when runs of the batch were admitted that are under way already, on this process's clock."""
        if self._options.item_deadline_s is None:
            return {}
        found = self._stack.query(QUERIES["under_way"], [self._manifest.batch]).to_pylist()
        now, now_us = self._clock(), time.time_ns() // 1000
        return {each["run_id"]: now - max(0, now_us - each["submitted_us"]) / 1e6 for each in found}

    # Rows to jobs.

    def _jobs(self, wanted: Pass) -> Iterator[Job | None]:
        """Yield the jobs of a pass, and None now and then, so that orders and errors are looked at meanwhile."""
        inputs, missing, no_jobs = self._stack.job_inputs, set(wanted.job_ids), dict[str, str]()

        def refuse(row: Row, job_id: str, problem: str) -> None:
            if wanted.kind == "new":
                self._reject(row, job_id, problem)
            elif job_id in wanted.job_ids:  # it has that disposition already
                no_jobs[job_id] = f"{row.place}: {problem}"

        for some in self._some_rows():
            self.counts.read += len(some) if wanted.kind == "new" else 0
            chosen = [row for row in some if self._is_wanted(row, wanted)]
            readable = [row for row in chosen if not row.problem]
            for row in chosen:
                if row.problem:
                    refuse(row, row.job_id or row_name(row.number), row.problem)
            for row, job in zip(readable, parse_rows([(r.number, r.data) for r in readable], inputs), strict=True):
                if isinstance(job, BadLine):
                    refuse(row, job.job_id, job.message)
                elif not wanted.job_ids or job.job_id in wanted.job_ids:
                    missing.discard(job.job_id)
                    yield self._named(row, job)
            if not some or self._is_time_to_look or self._has_too_many_errors:
                yield None
        self.counts.no_jobs |= {job_id: problem for job_id, problem in no_jobs.items() if job_id in missing}
        self.counts.unknown += sorted(missing - no_jobs.keys())
        if wanted.kind == "new" and self._broken is None and self.counts.read < self._states.rows:
            self._broken = InvalidInput(
                f"the input is shorter, {self.counts.read:,} rows, where batch {self._manifest.batch} has results of "
                f"{self._states.rows:,}: a batch is of one input"
            )

    def _some_rows(self) -> Iterator[list[Row]]:
        """Yield rows as they come, some at a time; none where there is none for now."""
        rows = iter(self._source.rows())
        with (
            contextlib.closing(as_they_come(rows)) if self._source.may_wait else contextlib.nullcontext(rows) as coming
        ):
            while True:
                some: list[Row] = []
                try:
                    for row in islice(coming, _ROWS_AT_ONCE):
                        if row is not None:
                            some.append(row)
                        if row is None or self._is_time_to_look:
                            break
                    else:
                        if not some:
                            return
                except Exception as error:
                    self._broken = error
                yield some
                if self._broken is not None:
                    return

    @property
    def _is_time_to_look(self) -> bool:
        return self._clock() - self._looked_s >= LOOK_S

    def _is_wanted(self, row: Row, wanted: Pass) -> bool:
        """Whether a pass runs a row; raise `InvalidInput` for one that has a result and is not what it was."""
        attempts = self._states.attempts(row.number)
        if attempts and not self._states.is_digest(row.number, digest_of(row)):
            raise InvalidInput(
                f"{row.place}: it is not the row that was there when batch {self._manifest.batch} ran it: "
                "a batch is of one input; give another --out for another"
            )
        match wanted.kind:
            case "new":
                self.counts.passed_over += attempts > 0
                return attempts == 0 and (not wanted.rows or row.number in wanted.rows)
            case "retry":
                return row.number in wanted.rows
            case _:
                return attempts > 0

    def _named(self, row: Row, job: Job) -> Job:
        attempt = self._states.attempts(row.number) + 1
        priority, limits = self._settings
        lowered = {name: min(most, job.limits.get(name, most)) for name, most in limits.items()}
        named = job.model_copy(
            update={"limits": {**job.limits, **lowered}, "lane": self._options.lane or job.lane},
        )
        self._refs[self._given] = _Ref(row.number, attempt, digest_of(row), row.place, row.original[:_KEPT_BYTES])
        if attempt > 1:
            self.counts.passed_over = max(0, self.counts.passed_over - 1)
        self._given += 1
        submitted_as = self._states.next_submission(row.number)
        return named.in_batch(self._manifest.batch, attempt=submitted_as, priority=priority)

    def _reject(self, row: Row, job_id: str, problem: str) -> None:
        """Give a row that is no job its disposition."""
        self.counts.rejected += 1
        result = RunResult(
            job_id=job_id,
            run_id="",
            status=RunStatus.REFUSED,
            reason_code=ReasonCode.REQUEST_INVALID,
            detail=f"{row.place}: {problem}",
        )
        attempt = self._states.attempts(row.number) + 1
        self._parts.reject(row, job_id, problem, attempt)
        self._write(result, _Ref(row.number, attempt, digest_of(row), row.place, b""), problem)

    # Results to parts.

    def _take(self, result: RunResult) -> None:
        ref = self._refs.pop(result.place)
        with_batch = self._withdrawals.ended(result.run_id)
        problem = ""
        if not result.run_id:
            problem = result.detail
        elif result.status is RunStatus.CANCELLED and with_batch:
            self._write(result, ref, f"{WITHDRAWN}: {with_batch}")
            return
        elif result.ok and self._validator is not None:
            problem = _problem_with(self._validator, result.answer)
        if problem:
            original = msgspec.json.encode(result.answer) if result.run_id else ref.original
            self._parts.reject(Row(ref.row, b"", original, ref.place, problem), result.job_id, problem, ref.attempt)
            self.counts.rejected += 1
        self._write(result, ref, problem)
        self._check_errors()

    def _write(self, result: RunResult, ref: _Ref, problem: str) -> None:
        standing: Standing = standing_of(result.status, result.reason_code, problem)
        row = {
            **result.row(),
            "row": ref.row,
            "attempt": ref.attempt,
            "digest": ref.digest,
            "ended_us": time.time_ns() // 1000,
            "problem": problem,
        }
        self.counts.add(result, problem)
        self._states.note(ref.row, ref.attempt, standing, ref.digest)
        self._parts.add(row)

    def _check_errors(self) -> None:
        if self._has_too_many_errors:
            self._stop("errors")

    @property
    def _has_too_many_errors(self) -> bool:
        most, share = self._options.errors()
        ended, errors = self.counts.ended, self.counts.errors
        return errors >= most or (ended >= ERRORS_LEAST and errors > share * ended)

    # Orders and deadlines.

    def _turn(self) -> None:
        now = self._clock()
        if now - self._looked_s >= LOOK_S:
            self._looked_s = now
            self._follow()
            self._withdraw_late(now)
            self._parts.commit_if_due()
            if now - self._asked_s >= PEOPLE_S:
                self._asked_s = now
                self._count_waiting()
        self._check_errors()
        self._on_turn(self)

    def look_at_journal(self) -> None:
        """See whether the stack can work, from any thread, soon; what cannot be asked stays."""
        layers, _ = self._stack.backend.layers(["journal"])
        if "down" not in (journal := layers.get("journal", {"down": ""})):
            self.problem = str(journal.get("problem", ""))

    def _count_waiting(self) -> None:
        """See how many of its runs wait for people, and whether the stack can work; what cannot be asked stays."""
        self.look_at_journal()
        with contextlib.suppress(AirsideError):
            waiting = {root_of(RunId(each.run_id)) for each in self._stack.approvals()}
            self.waiting_for_people = len(waiting & self._opened_stream.open.keys())

    def _follow(self) -> None:
        """Read what was ordered, and do it; a journal that is away for a moment is asked again."""
        try:
            orders = self._handle.state()
        except LayerUnavailable:
            return
        if orders.owner != self._owner:
            raise TakenOver(
                f"batch {self._manifest.batch} was taken up by another process: this one leaves it; what it wrote stays"
            )
        self._requeued += orders.requeued[len(self._orders.requeued) :]
        self._orders = orders
        self._apply()

    def _apply(self) -> None:
        settings, stream = self._orders.settings, self._opened_stream
        stream.is_paused = self._orders.is_paused
        stream.window = settings.concurrency or self._options.concurrency
        stream.rate_per_s = self._options.rate_per_s if settings.rate_per_s is None else settings.rate_per_s
        priority = self._options.priority if settings.priority is None else settings.priority
        self._settings = (priority, {**(self._options.limits or {}), **(settings.limits or {})})
        if self._orders.is_cancelled:
            self._stop("cancelled")
            self._withdrawals.note(stream.open, "the batch was cancelled")  # whom the driver withdraws

    def _withdraw_late(self, now: float) -> None:
        stream, most_s = self._opened_stream, self._options.item_deadline_s
        if self._until is not None and now >= self._until:
            self._stop("deadline")
            over = "the batch's time was over"
            self._withdrawals.order(stream.open, over, with_batch=over)
        if most_s is not None:
            open_ = stream.open.items()
            late = [run for run, jobs in open_ if now - self._since.get(run, jobs[0].since_s) >= most_s]
            self._withdrawals.order(late, f"it had not ended {most_s:g} s after its submission")

    def _stop(self, why: str) -> None:
        """Submit no more; what was not submitted has no disposition, and is taken up by the next to resume."""
        if not self.state:
            self.state = why
            self._requeued = []
            for place in self._opened_stream.stop():
                del self._refs[place]


def digest_of(row: Row) -> bytes:
    """Return eight bytes that tell a row's job from any other."""
    return hashlib.blake2b(row.data or row.original, digest_size=8).digest()


def new_owner() -> str:
    """Return a name for one process's turn at a batch."""
    return secrets.token_hex(4)


def _problem_with(validator: Any, answer: Any) -> str:
    error = next(iter(validator.iter_errors(answer)), None)
    if error is None:
        return ""
    where = "/".join(map(str, error.instance_path))
    return f"the answer{f' at {where}' if where else ''}: {str(error.message)[:300]}"
