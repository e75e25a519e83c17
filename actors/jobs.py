"""Jobs files: one JSON object a line.  A line that is wrong is reported with its number and harms no other.

Fields: `request` (text), `tenant` and `principal` (or `token`), and optionally `job_id`, `route`, `labels`, `limits`,
`inputs`; and whatever the app's `job_inputs` model names, which becomes part of the inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import msgspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.errors import PydanticUserError

from airside.stack.canonical import as_text, canonical, parse_bounded, write_bounded
from airside.stack.errors import InvalidConfig, InvalidInput
from airside.stack.explaining import problems
from airside.stack.judging import Judge
from airside.stack.schemas import read_schema
from airside.stack.toolspec import defaults_of
from airside.stack.values import MAX_REQUEST_BYTES, MAX_REQUEST_CHARS, Limits, Request
from airside.stack.yaml_source import explain, explain_fields
from airside.tools.signature import ZonelessTimes

MAX_LINE_BYTES = MAX_REQUEST_BYTES


class Job(BaseModel):
    """One job of a batch: who asks for what."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    request: Annotated[str, Field(max_length=MAX_REQUEST_CHARS)]
    tenant: str = ""
    principal: str = ""
    token: str = Field(default="", repr=False)
    job_id: Annotated[str, Field(max_length=256)] = ""
    route: Annotated[str, Field(max_length=128)] = "default"
    labels: list[str] = []
    limits: dict[str, int] = {}
    inputs: dict[str, Any] = {}

    @model_validator(mode="after")
    def _somebody_asks(self) -> Job:
        if not self.token and not (self.tenant and self.principal):
            raise ValueError("give tenant and principal, or a token")
        return self

    def to_request(self) -> Request:
        """Return the request; raise `InvalidInput` naming what of the inputs is no JSON, or the limit that is none."""
        Limits().lowered(self.limits)
        return Request(
            text=self.request,
            inputs=msgspec.Raw(write_bounded(self.inputs, max_bytes=MAX_REQUEST_BYTES, where="inputs")),
            route=self.route,
            labels=tuple(self.labels),
            limits=self.limits,
            job_id=self.job_id,
        )


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
        return Job(request=request, **who, **fields)
    except ValidationError as error:
        raise InvalidInput(f"job: {_explained(error)}") from None


def jobs_of(jobs: Iterable[GivenJob]) -> list[Job | BadLine]:
    """Return a batch; what is no job has its place as a `BadLine`.  Raises `InvalidInput` for what is no batch."""
    if isinstance(jobs, str | bytes | Mapping | Job) or not isinstance(jobs, Iterable):
        raise InvalidInput(f"jobs: {jobs!r:.80} is no list of jobs: give [Job(...), ...], or read_jobs(path)")
    return [_given(job, place) for place, job in enumerate(jobs)]


def _given(job: object, place: int) -> Job | BadLine:
    if isinstance(job, Job | BadLine):
        return job
    if not isinstance(job, Mapping) or not all(isinstance(name, str) for name in job):
        message = f"jobs[{place}]: a job is a Job or a mapping of its fields, not {type(job).__name__} {job!r:.60}"
        return BadLine(line=0, job_id="", message=as_text(message))
    try:
        return Job(**job)
    except ValidationError as error:
        job_id = str(job.get("job_id", ""))[:256]
        return BadLine(line=0, job_id=as_text(job_id), message=f"jobs[{place}]: {_explained(error)}")


def check_timeout(timeout: float | None) -> None:
    """Raise `InvalidInput` for what is no time to wait."""
    if timeout is not None and (not isinstance(timeout, int | float) or not timeout >= 0):
        raise InvalidInput(f"timeout: {timeout!r:.40} is no number of seconds of at least 0, nor None")


def _explained(error: ValidationError) -> str:
    return "; ".join(as_text(line) for line in explain_fields(error, Job))


Inputs = type[BaseModel] | dict[str, Any] | None
"""What further fields a line may have: an app's model, or that model's JSON Schema where only it is known."""


def parse_job(data: bytes, line: int, inputs: Inputs = None) -> Job | BadLine:
    """Parse one line."""
    job_id = f"line-{line}"
    try:
        raw = parse_bounded(data, max_bytes=MAX_LINE_BYTES, where=f"line {line}")
        if not isinstance(raw, dict):
            raise InvalidInput(f"line {line}: a job is an object, not {type(raw).__name__}")
        job_id = str(raw.get("job_id") or job_id)[:256]
        return _job({"job_id": job_id, **raw}, inputs)
    except InvalidInput as error:
        where = "" if error.message.startswith(f"line {line}") else f"line {line}: "
        return BadLine(line=line, job_id=job_id, message=where + error.message)
    except ValidationError as error:
        return BadLine(line=line, job_id=job_id, message=f"line {line}: " + "; ".join(explain(error, "job")))


def _job(raw: dict[str, Any], inputs: Inputs) -> Job:
    names = set(inputs.model_fields if isinstance(inputs, type) else (inputs or {}).get("properties", ()))
    inside = raw.get("inputs")  # the same fields given there are the same fields
    given = {**inside, **raw} if isinstance(inside, dict) else raw
    further = {name: value for name, value in given.items() if name in names}
    if isinstance(inputs, type):
        further = inputs.model_validate(further).model_dump(mode="json")
    elif inputs is not None:
        further = _by_schema(further, inputs)
    job = Job.model_validate({name: value for name, value in raw.items() if name not in names})
    return job.model_copy(update={"inputs": {**job.inputs, **further}})


def schema_of(model: type[BaseModel] | None) -> dict[str, Any] | None:
    """Return the JSON Schema of an app's `job_inputs`; raise `InvalidConfig` for a model without one."""
    if model is None:
        return None
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise InvalidConfig(f"job_inputs: {model!r:.80} is not a Pydantic model")
    try:
        written = model.model_json_schema(schema_generator=ZonelessTimes)
    except PydanticUserError as error:
        raise InvalidConfig(f"job_inputs: {error.message}") from None
    return read_schema(written, "job_inputs")


@lru_cache(maxsize=8)
def _judge(schema: bytes) -> tuple[Judge, dict[str, Any]]:
    read = read_schema(msgspec.json.decode(schema), "job_inputs")
    return Judge(read, closed=False), defaults_of(read)


def _by_schema(further: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    judge, defaults = _judge(canonical(schema))
    full = {**defaults, **further}
    if wrong := problems(judge, full, whole="job"):
        raise InvalidInput("; ".join(wrong))
    return full


def read_jobs(path: Path, inputs: Inputs = None) -> Iterator[Job | BadLine]:
    """Read a jobs file line by line; empty lines are passed over.  Raises `InvalidInput` if it cannot be opened."""
    try:
        with path.open("rb") as file:
            yield from parse_lines(file, inputs)
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror}") from None


def parse_lines(lines: Iterable[bytes], inputs: Inputs = None) -> Iterator[Job | BadLine]:
    """Parse lines, numbered from 1."""
    for number, line in enumerate(lines, 1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")  # what some editors put first
        if line.strip():
            yield parse_job(line.strip(), number, inputs)
