"""Jobs files: one JSON object a line.  A line that is wrong is reported with its number and harms no other.

Fields: `request` (text), `tenant` and `principal` (or `token`), and optionally `job_id`, `route`, `labels`, `limits`,
`inputs`, `lane`; and whatever the app's `job_inputs` model names, which becomes part of the inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, get_args

import msgspec
from msgspec import UNSET
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator, model_validator

from airside.actors.job_inputs import NO_INPUTS, Fields, InputsReading, JobInputs, inputs_of
from airside.stack.canonical import as_text, canonical, digest, parse_bounded, write_bounded
from airside.stack.contracts.labels import check_label
from airside.stack.errors import InvalidInput
from airside.stack.ids import nonce_of_job
from airside.stack.input.models import Explained
from airside.stack.input.yaml_source import explain_fields
from airside.stack.values import (
    MAX_REQUEST_BYTES,
    MAX_REQUEST_CHARS,
    MOST_PRIORITY,
    BatchJob,
    Limits,
    ModelLane,
    Request,
)

MAX_LINE_BYTES = MAX_REQUEST_BYTES

_LINES = 200
_BYTES = 4 * MAX_LINE_BYTES
"""Of the further fields that are read at once: where another process reads them, that is one call."""


class Job(BaseModel, metaclass=Explained):
    """One job of a batch: who asks for what."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    how: ClassVar[str] = "Job(request=..., tenant=..., principal=..., inputs={...})"

    request: Annotated[str, Field(max_length=MAX_REQUEST_CHARS)]
    tenant: str = ""
    principal: str = ""
    token: str = Field(default="", repr=False)
    job_id: Annotated[str, Field(max_length=256)] = ""
    route: Annotated[str, Field(max_length=128)] = "default"
    labels: list[str] = []
    limits: dict[str, int] = {}
    inputs: dict[str, Any] = {}
    lane: ModelLane = "direct"
    _read: tuple[Fields, str] | None = PrivateAttr(default=None)
    """By a model with which fields its inputs were read, and the digest of what that made of them."""
    _batch: BatchJob | None = PrivateAttr(default=None)
    _nonce: bytes = PrivateAttr(default=b"")

    @field_validator("limits")
    @classmethod
    def _limits_are_limits(cls, limits: dict[str, int]) -> dict[str, int]:
        try:
            Limits().lowered(limits)
        except InvalidInput as error:
            raise ValueError(error.message.removeprefix("limits: ")) from None
        return limits

    @field_validator("labels")
    @classmethod
    def _labels_are_labels(cls, labels: list[str]) -> list[str]:
        try:
            for label in labels:
                check_label(label)
        except InvalidInput as error:
            raise ValueError(error.message) from None
        return labels

    @model_validator(mode="after")
    def _somebody_asks(self) -> Job:
        if not self.token and not (self.tenant and self.principal):
            raise ValueError("give tenant and principal, or a token")
        return self

    def with_read(self, inputs: dict[str, Any], fields: Fields) -> Job:
        """Return the job with inputs that an app's model has read; raise `InvalidInput` for what is no JSON."""
        job = self.model_copy(update={"inputs": inputs})
        job._read = (fields, digest(canonical(inputs))) if fields != Fields() else None
        return job

    def is_read_as(self, fields: Fields) -> bool:
        """Whether its inputs, as they are, were read by a model with these fields."""
        return self._read is not None and self._read == (fields, digest(self.inputs_written()))

    def in_batch(self, batch: str, *, attempt: int = 1, priority: int = 0) -> Job:
        """Return the job as one of a batch; raise `InvalidInput` for a name that is none, and without a `job_id`."""
        if not self.job_id:
            raise InvalidInput("job_id: a job of a batch is known by it: give each its own")
        job = self.with_nonce(nonce_of_job(batch, self.job_id, attempt))
        job._batch = batch_job(batch, attempt, priority)
        return job

    def with_nonce(self, nonce: bytes) -> Job:
        """Return the job with what its submission is known by: sent again, it is the same run."""
        job = self.model_copy()
        job._nonce = nonce
        return job

    @property
    def nonce(self) -> bytes:
        """What its submission is known by; nothing where each is a run of its own."""
        return self._nonce

    def inputs_written(self) -> bytes:
        """Return the inputs as JSON; raise `InvalidInput` naming what is none."""
        return write_bounded(self.inputs, max_bytes=MAX_REQUEST_BYTES, where="inputs")

    def to_request(self) -> Request:
        """Return the request; raise `InvalidInput` naming what of the inputs is no JSON."""
        return Request(
            text=self.request,
            inputs=msgspec.Raw(self.inputs_written()),
            route=self.route,
            labels=tuple(self.labels),
            limits=self.limits,
            job_id=self.job_id,
            lane=self.lane,
            batch=self._batch or UNSET,
        )


def batch_job(batch: str, attempt: int, priority: int) -> BatchJob:
    """Return which job of a batch one is; raise `InvalidInput` for a batch's name or a priority that is none."""
    try:
        return msgspec.convert({"id": batch, "attempt": attempt, "priority": priority}, BatchJob, strict=True)
    except msgspec.ValidationError:
        raise InvalidInput(
            f"batch: {batch!r:.80}, priority {priority!r:.20}: a batch is called by up to 64 ASCII letters, digits and "
            f"_.-, and its priority is from -{MOST_PRIORITY} to {MOST_PRIORITY}"
        ) from None


OWN_FIELDS = frozenset(Job.model_fields)
"""What a job says itself; an app's further fields have other names."""


class BadLine(BaseModel):
    """A line that is not a job: where, and what is wrong."""

    line: int
    job_id: str
    message: str


GivenJob = Job | BadLine | Mapping[str, Any]


def job_of(request: str | Job, who: dict[str, Any], fields: dict[str, Any]) -> Job:
    """Return the job a caller describes; raise `InvalidInput` naming the field that is wrong."""
    if isinstance(request, Job):
        further = sorted(fields.keys() | {name for name, value in who.items() if value})
        if further:
            raise InvalidInput(f"job: a Job says {', '.join(further)} itself: give them to Job(...)")
        return request
    try:
        return Job.model_validate({"request": request, **who, **fields})
    except ValidationError as error:
        raise InvalidInput(f"job: {_explained(error)}") from None


def jobs_of(jobs: Iterable[GivenJob]) -> Iterator[Job | BadLine]:
    """Return jobs as they are taken; what is none has its place as a `BadLine`.

    Raises `InvalidInput`, at once, for what are no jobs.
    """
    if isinstance(jobs, str | bytes | Mapping | Job) or not isinstance(jobs, Iterable):
        raise InvalidInput(
            f"jobs: what is given, of type {type(jobs).__name__}, is no list of jobs: give [Job(...), ...], or "
            "read_jobs(path) (and what happens in a run is shown by `RunHandle.stream`)"
        )
    return (_given(job, place) for place, job in enumerate(jobs))


def _given(job: object, place: int) -> Job | BadLine:
    if isinstance(job, Job | BadLine):
        return job
    if not isinstance(job, Mapping) or not all(isinstance(name, str) for name in job):
        message = f"jobs[{place}]: a job is a Job or a mapping of its fields by name, not {_kind(job)}"
        return BadLine(line=0, job_id="", message=as_text(message))
    try:
        return Job.model_validate(dict(job))
    except ValidationError as error:
        job_id = str(job.get("job_id", ""))[:256]
        return BadLine(line=0, job_id=as_text(job_id), message=f"jobs[{place}]: {_explained(error)}")


def _kind(job: object) -> str:
    """Return of which type something is, without what it holds: a token may be in it."""
    if not isinstance(job, Mapping):
        return type(job).__name__
    odd = next(type(name).__name__ for name in job if not isinstance(name, str))
    return f"{type(job).__name__} with a name of type {odd}"


def in_lane(job: Job | BadLine, lane: ModelLane | None) -> Job | BadLine:
    """Return a job whose models are asked in a lane; None leaves it as it says itself."""
    return job if lane is None or isinstance(job, BadLine) else job.model_copy(update={"lane": lane})


def check_lane(lane: object) -> None:
    """Raise `InvalidInput` for what is no lane, nor None."""
    if lane is not None and lane not in get_args(ModelLane):
        raise InvalidInput(f"lane: {lane!r:.40} is none of {', '.join(get_args(ModelLane))}")


def check_window(window: object) -> None:
    """Raise `InvalidInput` for what is no number of runs under way."""
    if not isinstance(window, int) or isinstance(window, bool) or window < 1:
        raise InvalidInput(f"window: {window!r:.40} is no number of runs of at least 1")


def check_timeout(timeout: float | None) -> None:
    """Raise `InvalidInput` for what is no time to wait."""
    if timeout is not None and (not isinstance(timeout, int | float) or not timeout >= 0):
        raise InvalidInput(f"timeout: {timeout!r:.40} is no number of seconds of at least 0, nor None")


def _explained(error: ValidationError) -> str:
    return "; ".join(as_text(line) for line in explain_fields(error, "job", OWN_FIELDS))


Inputs = type[BaseModel] | JobInputs | None
"""What further fields a line may have: an app's model, or what else reads them (`Stack.job_inputs`)."""


class _Line(NamedTuple):
    """A line that may be a job: its own fields, and the further ones, as JSON."""

    number: int
    job_id: str
    own: dict[str, Any]
    further: bytes


def parse_job(data: bytes, line: int, inputs: Inputs = None) -> Job | BadLine:
    """Parse one line."""
    (job,) = _jobs([(line, data)], _reader(inputs), _Unit("line"))
    return job


def parse_rows(rows: Iterable[tuple[int, bytes]], inputs: Inputs = None) -> Iterator[Job | BadLine]:
    """Parse rows, each a number and a JSON object, whose further fields are read together: some hundreds at most.

    What is wrong with one is said without its place, which whoever has read it knows better.
    """
    return _jobs(rows, _reader(inputs), _Unit("row", says_place=False))


def row_name(number: int) -> str:
    """Return the id of a row's job that has none of its own."""
    return f"row-{number}"


def _reader(inputs: Inputs) -> JobInputs:
    if inputs is None:
        return NO_INPUTS
    return inputs if isinstance(inputs, JobInputs) else inputs_of(inputs)


class _Unit(NamedTuple):
    """What jobs are read from: by its name and number a job without an id is known."""

    name: str
    says_place: bool = True

    def place(self, number: int) -> str:
        """Return how what is wrong with one begins."""
        return f"{self.name} {number}: " if self.says_place else ""


def _jobs(lines: Iterable[tuple[int, bytes]], inputs: JobInputs, unit: _Unit) -> Iterator[Job | BadLine]:
    """Yield what each of some lines is, in order; their further fields are read together."""
    split = [_split(data, number, inputs, unit) for number, data in lines]
    whole = [each for each in split if isinstance(each, _Line)]
    readings = iter(inputs.read([each.further for each in whole]) if whole else [])
    for each in split:
        if isinstance(each, BadLine):
            yield each
            continue
        yield _joined(each, next(readings), inputs.fields, unit)


def _split(data: bytes, number: int, inputs: JobInputs, unit: _Unit) -> _Line | BadLine:
    job_id, place = f"{unit.name}-{number}", unit.place(number)
    try:
        raw = parse_bounded(data, max_bytes=MAX_LINE_BYTES, where=place.removesuffix(": ") or unit.name)
        if not isinstance(raw, dict):
            raise InvalidInput(f"{place}a job is an object, not {type(raw).__name__}")
        job_id = str(raw.get("job_id") or job_id)[:256]
        further = {name: value for name, value in raw.items() if inputs.fields.has(name, OWN_FIELDS)}
        own = {name: value for name, value in raw.items() if name not in further}
        inside = raw.get("inputs")
        if isinstance(inside, dict):  # the same fields given there are the same fields
            within, own["inputs"] = inputs.fields.parted(inside, OWN_FIELDS)
            twice = next((name for name in within if name in further), None)
            if twice is not None:
                raise InvalidInput(f"{place}the field {twice!r:.60} is given twice: in inputs and beside it")
            further |= within
        return _Line(number, job_id, {"job_id": job_id, **own}, canonical(further))
    except InvalidInput as error:
        return _bad(number, job_id, error.message, place)


def _joined(line: _Line, reading: InputsReading, fields: Fields, unit: _Unit) -> Job | BadLine:
    """Return the job of a line; of one that is none all that is wrong is said, a name that is misspelt too."""
    problems = [reading.problem] if reading.problem else []
    job = None
    try:
        job = Job.model_validate(line.own)
    except ValidationError as error:
        others = msgspec.json.decode(line.further)
        problems += explain_fields(error, "job", OWN_FIELDS | fields.names, others)
    if job is None or problems:
        return _bad(line.number, line.job_id, as_text("; ".join(problems)), unit.place(line.number))
    return job.with_read({**job.inputs, **msgspec.json.decode(reading.inputs)}, fields)


def _bad(number: int, job_id: str, problem: str, place: str) -> BadLine:
    where = "" if problem.startswith(place.removesuffix(": ")) else place
    return BadLine(line=number, job_id=job_id, message=where + problem)


def read_jobs(path: Path, inputs: Inputs = None) -> Iterator[Job | BadLine]:
    """Read a jobs file line by line; empty lines are passed over.  Raises `InvalidInput` if it cannot be opened."""
    try:
        with path.open("rb") as file:
            yield from parse_lines(file, inputs)
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror}") from None


def parse_lines(lines: Iterable[bytes], inputs: Inputs = None) -> Iterator[Job | BadLine]:
    """Parse lines, numbered from 1; one with the `job_id` of another is a bad one."""
    reader = _reader(inputs)
    seen: dict[str, int] = {}
    some: list[tuple[int, bytes]] = []
    for number, line in enumerate(lines, 1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")  # what some editors put first
        if line.strip():
            some.append((number, line.strip()))
        if len(some) >= _LINES or sum(len(data) for _, data in some) > _BYTES:
            yield from _only_once(some, _jobs(some, reader, _Unit("line")), seen)
            some = []
    yield from _only_once(some, _jobs(some, reader, _Unit("line")), seen)


def _only_once(
    lines: Iterable[tuple[int, bytes]], jobs: Iterable[Job | BadLine], seen: dict[str, int]
) -> Iterator[Job | BadLine]:
    """Yield what lines are, but for one whose job another line is already; `seen` are those, and their lines.

    Results are told apart by it, and a line that stands twice is not meant to happen twice.
    """
    for (number, _), job in zip(lines, jobs, strict=True):
        if isinstance(job, Job) and seen.setdefault(job.job_id, number) != number:
            first = seen[job.job_id]
            problem = f"job_id: {job.job_id!r:.80} is that of line {first}: give each its own"
            yield _bad(number, job.job_id, problem, _Unit("line").place(number))
        else:
            yield job
