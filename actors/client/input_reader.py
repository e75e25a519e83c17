"""The app's model reads the inputs of whatever is submitted, from a file or from a program, where it has not yet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from airside.actors.client.connection import Connection
from airside.actors.client.steps import Steps
from airside.actors.job_inputs import Fields, InputsReading
from airside.actors.jobs import OWN_FIELDS, BadLine, Job
from airside.actors.rpc.methods import INPUT_FIELDS, READ_INPUTS
from airside.stack.canonical import as_text, canonical
from airside.stack.errors import InvalidInput, LayerUnavailable

LONGEST_READING_S = 60.0
"""How long an app's model may take for the further fields of some jobs: its validators are the app's code."""

_JOBS = 200
_BYTES = 1_000_000
"""What of several jobs is sent in one call."""


def read_jobs_inputs(
    connection: Connection, jobs: Sequence[Job | BadLine], first: int = 0
) -> Steps[list[Job | BadLine]]:
    """Have the stack's Intake read the inputs of jobs; one whose inputs are wrong becomes a `BadLine` in its place.

    `first` is the place of the first of them among all.  Jobs that a model with the same fields has read already, as
    those of a jobs file, stay as they are.
    """
    found = list(jobs)
    fields = yield from connection.call(INPUT_FIELDS, None)
    further: dict[int, bytes] = {}
    for place, job in enumerate(jobs):
        if isinstance(job, Job):
            try:
                if not job.is_read_as(fields):
                    job.inputs_written()
                    further[place] = canonical(fields.parted(job.inputs, OWN_FIELDS)[0])
            except InvalidInput as error:
                found[place] = _bad(job, first + place, error.message)
    for places in _some(further):
        given = [further[place] for place in places]
        for place, reading in zip(places, (yield from read_given(connection, given)), strict=True):
            found[place] = _read(jobs[place], first + place, reading, fields)
    return found


def read_given(connection: Connection, given: Sequence[bytes]) -> Steps[list[InputsReading]]:
    """Have the stack's Intake read the further fields of some jobs."""
    try:
        readings = yield from connection.call(READ_INPUTS, list(given), within_s=LONGEST_READING_S)
    except TimeoutError as error:
        raise LayerUnavailable(f"job_inputs: {error}") from None
    return readings


def _some(further: dict[int, bytes]) -> Iterator[list[int]]:
    """Yield places, as many at once as are sent in one call."""
    some: list[int] = []
    for place in further:
        some.append(place)
        if len(some) >= _JOBS or sum(len(further[each]) for each in some) > _BYTES:
            yield some
            some = []
    if some:
        yield some


def _read(job: Job | BadLine, place: int, reading: InputsReading, fields: Fields) -> Job | BadLine:
    if isinstance(job, BadLine):
        return job
    if reading.problem:
        return _bad(job, place, f"inputs: {reading.problem}")
    _, others = fields.parted(job.inputs, OWN_FIELDS)
    return job.with_read({**others, **msgspec.json.decode(reading.inputs)}, fields)


def _bad(job: Job, place: int, problem: str) -> BadLine:
    return BadLine(line=0, job_id=as_text(job.job_id), message=as_text(f"jobs[{place}]: {problem}"))
