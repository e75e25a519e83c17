"""Running a batch: rows become jobs, jobs become runs, and each row has exactly one disposition, in a part.

A batch is known by its name and its parts.  Whoever runs it may die at any moment: taken up again, rows that have a
result are passed over, and a job that was under way is submitted again as the same run (`stack/ids.py`), which costs
nothing twice.  Nothing here grows with the number of rows but eleven bytes a row (`row_states`).
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from airside.actors.client.batch import JobStream
from airside.actors.client.client import Stack
from airside.actors.client.results import RunResult
from airside.actors.client.steps import drive
from airside.actors.jobs import BadLine, Job, in_lane, parse_rows
from airside.batches.manifest import Manifest
from airside.batches.options import ERRORS_LEAST, BatchOptions
from airside.batches.parts import Parts, read_parts
from airside.batches.reading import RowReader
from airside.batches.row_states import WITHDRAWN, RowStates, Standing, standing_of
from airside.batches.rows import Row, Source
from airside.stack.errors import AirsideError, InvalidInput, LayerUnavailable
from airside.stack.operations.batches import BatchState
from airside.stack.reasons import ReasonCode, RunStatus

LOOK_S = 1.0
"""How often orders and deadlines are looked at, at least."""

_ROWS_AT_ONCE = 200
ERRORS_SHOWN = 20
_ERROR_CHARS = 500
_WITHDRAWING = 8
"""Threads that withdraw jobs whose time is over: each order waits until its run has ended."""

CHANGED = """
WITH theirs AS (SELECT r.run_id, e.* FROM runs r JOIN events e ON split_part(e.stream, '.', 1) = r.run_id
                WHERE r.batch = ?)
SELECT DISTINCT g.run_id FROM theirs g
WHERE g.type = 'ActionGated' AND coalesce(json_extract_string(g.body, '$.effect'), '') <> 'read'
  AND (CAST(json_extract(g.body, '$.intent') AS BOOLEAN)
       OR EXISTS (SELECT 1 FROM theirs i WHERE i.type = 'EffectIntended' AND i.stream = g.stream AND i.step = g.step))
"""
"""Runs of a batch that may have changed something; also of those that completed, whose answer may be none."""


class Pass(NamedTuple):
    """Which rows are run: `new` ones without a result (of `rows`, if it has any), `rows` to `retry`, or those of
    `job_ids` that are run `again`."""

    kind: str
    rows: frozenset[int] = frozenset()
    job_ids: frozenset[str] = frozenset()


NEW = Pass("new")


class _Ref(NamedTuple):
    """A job under way: its row, its attempt, the digest of its job, and where the row stands."""

    row: int
    attempt: int
    digest: bytes
    place: str


@dataclass(slots=True)
class BatchCounts:
    """What became of rows, and what they used; `passed_over` had a result before."""

    read: int = 0
    passed_over: int = 0
    rejected: int = 0
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Results by status and reason."""
    wrong_answers: int = 0
    steps: int = 0
    tokens: int = 0
    cost_microusd: int = 0
    first_errors: list[str] = field(default_factory=list)
    """A line each; of the others only how many there are."""

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
        """Take a result in."""
        self.outcomes[str(result.status), str(result.reason_code)] += 1
        self.wrong_answers += bool(problem) and result.status is RunStatus.COMPLETED
        self.steps += result.steps
        self.tokens += result.tokens
        self.cost_microusd += result.cost_microusd
        if (problem or not result.ok) and len(self.first_errors) < ERRORS_SHOWN:
            said = result.detail or problem
            self.first_errors.append(f"{result.job_id}: {result.status} [{result.reason_code}] {said}"[:_ERROR_CHARS])


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
        self._looked_s = clock()
        self._until = None if options.deadline_s is None else clock() + options.deadline_s
        self._withdrawn: dict[str, str] = {}
        """Runs that are being withdrawn, with why if it is for their batch's sake."""
        self._withdrawing = ThreadPoolExecutor(_WITHDRAWING, "airside-withdraw")
        self._requeued: list[str] = []
        self._orders = BatchState()
        self._stream: JobStream | None = None

    @property
    def under_way(self) -> int:
        """How many jobs' runs have not ended."""
        return sum(map(len, self._stream.open.values())) if self._stream is not None else 0

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
            for wanted in passes:
                if not self.state:
                    self._run(wanted())
            self._follow()  # what was ordered in the last second
            while self._requeued and not self.state:
                again, self._requeued = frozenset(self._requeued), []
                self._run(Pass("again", job_ids=again))
        finally:
            self._withdrawing.shutdown(wait=False, cancel_futures=True)
            self._parts.commit()

    def _run(self, wanted: Pass) -> None:
        self._refs, self._given = {}, 0
        self._reader = RowReader(self._source)
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
        try:
            while results := drive(self._stream.next_results()):
                for result in results:
                    self._take(result)
        finally:
            self._reader.end()

    # Rows to jobs.

    def _jobs(self, wanted: Pass) -> Iterator[Job | None]:
        """Yield the jobs of a pass as they come, None where there is none now; return once the batch is stopped."""
        inputs = self._stack.job_inputs
        for some in self._reader.some(_ROWS_AT_ONCE):
            self._turn()
            if self.state:
                return
            if not some:
                yield None
            self.counts.read += len(some) if wanted.kind == "new" else 0
            chosen = [row for row in some if self._is_wanted(row, wanted)]
            readable = [row for row in chosen if not row.problem]
            for row in chosen:
                if row.problem and wanted.kind == "new":
                    self._reject(row, f"line-{row.number + 1}", row.problem)
            for row, job in zip(readable, parse_rows([(r.number + 1, r.data) for r in readable], inputs), strict=True):
                if isinstance(job, BadLine):
                    if wanted.kind == "new":  # else it has that disposition already
                        self._reject(row, job.job_id, job.message.removeprefix(f"line {row.number + 1}: "))
                elif not wanted.job_ids or job.job_id in wanted.job_ids:
                    yield self._named(row, job)

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
        lane = in_lane(job, self._options.lane)
        assert isinstance(lane, Job)
        named = lane.model_copy(update={"limits": {**job.limits, **lowered}})
        self._refs[self._given] = _Ref(row.number, attempt, digest_of(row), row.place)
        self._given += 1
        return named.in_batch(self._manifest.batch, attempt=attempt, priority=priority)

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
        self._parts.reject(row, job_id, problem)
        attempt = self._states.attempts(row.number) + 1
        self._write(result, _Ref(row.number, attempt, digest_of(row), row.place), problem)

    # Results to parts.

    def _take(self, result: RunResult) -> None:
        ref = self._refs.pop(result.place)
        with_batch = self._withdrawn.pop(result.run_id, "")
        problem = ""
        if not result.run_id:
            problem = result.detail
        elif result.status is RunStatus.CANCELLED and with_batch:
            self._write(result, ref, f"{WITHDRAWN}: {with_batch}")
            return
        elif result.ok and self._validator is not None:
            problem = _problem_with(self._validator, result.answer)
        if problem:
            self._parts.reject(Row(ref.row, b"", _shown(result), ref.place, problem), result.job_id, problem)
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
        most, share = self._options.errors()
        ended, errors = self.counts.ended, self.counts.errors
        if errors >= most or (ended >= ERRORS_LEAST and errors > share * ended):
            self._stop("errors")

    # Orders and deadlines.

    def _turn(self) -> None:
        now = self._clock()
        if now - self._looked_s >= LOOK_S:
            self._looked_s = now
            self._follow()
            self._withdraw_late(now)
            self._parts.commit_if_due()
            self._check_errors()
        self._on_turn(self)

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
            for run in stream.open:  # whom the driver withdraws
                self._withdrawn.setdefault(run, "the batch was cancelled")

    def _withdraw_late(self, now: float) -> None:
        stream, most_s = self._opened_stream, self._options.item_deadline_s
        if self._until is not None and now >= self._until:
            self._stop("deadline")
            self._withdraw([*stream.open], "the batch's time was over")
        if most_s is not None:
            late = [run for run, jobs in stream.open.items() if now - jobs[0].since_s >= most_s]
            self._withdraw(late, "", f"it had not ended {most_s:g} s after its submission")

    def _withdraw(self, runs: list[str], with_batch: str, why: str = "") -> None:
        """Have runs withdrawn that were not yet; `with_batch` = not for what they did themselves."""
        for run in runs:
            if run not in self._withdrawn:
                self._withdrawn[run] = with_batch
                self._withdrawing.submit(self._cancel, run, why or with_batch)

    def _cancel(self, run: str, why: str) -> None:
        try:
            self._stack.cancel(run, why)
        except LayerUnavailable:
            self._withdrawn.pop(run, None)  # it is tried again, with the next look
        except AirsideError:
            pass  # it has ended meanwhile: its result says how

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


def rows_to_retry(stack: Stack, manifest: Manifest, states: RowStates, place: Path | str) -> tuple[Pass, int]:
    """Return the rows to run again that may pass, and how many are left out because their run changed something.

    Run again from its beginning, such a run would do again what it did: its effects have other keys.
    """
    changed = set(stack.query(CHANGED, [manifest.batch]).column(0).to_pylist())
    rows, left_out = set(states.that_may_pass()), set[int]()
    for batch in read_parts(place, ("row", "attempt", "run_id")):
        for row, attempt, run in zip(*(batch.column(n).to_pylist() for n in batch.schema.names), strict=True):
            if run in changed and row in rows and attempt == states.attempts(row):
                left_out.add(row)
    return Pass("retry", rows=frozenset(rows - left_out)), len(left_out)


def _problem_with(validator: Any, answer: Any) -> str:
    error = next(iter(validator.iter_errors(answer)), None)
    if error is None:
        return ""
    where = "/".join(map(str, error.instance_path))
    return f"the answer{f' at {where}' if where else ''}: {str(error.message)[:300]}"


def _shown(result: RunResult) -> bytes:
    return msgspec.json.encode(result.answer) if result.run_id else b""
