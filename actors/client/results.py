"""What a caller gets back: a run's result, and an approval that waits."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

import msgspec

from airside.actors.client.display.approvals import SHOWN_CONTENTS, STOOD_FOR, draw_approval
from airside.actors.client.display.bundle import bundle
from airside.actors.client.display.drawing import Drawing
from airside.actors.client.display.listed import Kinds
from airside.actors.client.display.results import draw_result
from airside.stack.approvals.book import Approval
from airside.stack.approvals.forms import described
from airside.stack.calling import explain_absent
from airside.stack.errors import Misuse, notebook_traceback
from airside.stack.operations.messages import Ticket
from airside.stack.reasons import ReasonCode, RunStatus, status_of
from airside.stack.resources import ResourceFact
from airside.stack.run.events import Event, RunEnded
from airside.stack.text.entities import visible
from airside.stack.values import ValueOrigin


class RunReader(Protocol):
    """What reads a run's record."""

    def story(self, run_id: str) -> str:
        """Tell a run."""

    def events(self, run_id: str) -> tuple[list[Event], str]:
        """Return a run's events for a drawing of it, or none and why not; soon."""


@explain_absent(id="run_id")
@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a run ended.  Money is in millionths of a dollar.

    `run_id` is empty for a request that was not admitted, or of which nobody could say whether it was
    (`internal_error`).  `seconds` is active time: what the run spent waiting for a person is not in it.  `place` =
    which of the jobs it is of that were given together, from 0.
    """

    job_id: str = ""
    run_id: str
    status: RunStatus
    reason_code: ReasonCode
    detail: str = ""
    answer: Any = None
    steps: int = 0
    tool_calls: int = 0
    tokens: int = 0
    cost_microusd: int = 0
    seconds: float = 0.0
    in_doubt: tuple[str, ...] = ()
    retry_after_s: float = 0.0
    place: int = field(default=0, compare=False)
    record: RunReader | None = field(default=None, repr=False, compare=False)
    """What reads the run's record; of one that was pickled, nothing does."""

    @property
    def ok(self) -> bool:
        """Whether the run completed."""
        return self.status is RunStatus.COMPLETED

    def story(self) -> str:
        """Return the run as lines of text: what happened, and why."""
        if not self.run_id:
            unsure = self.reason_code is ReasonCode.INTERNAL_ERROR
            became = "nobody could say whether it was admitted" if unsure else "never admitted"
            return f"{became}: [{self.reason_code}] {self.detail}"
        if self.record is None:
            raise Misuse(f"this result was read from elsewhere: `stack.story({self.run_id!r})` tells the run")
        return self.record.story(self.run_id)

    def row(self) -> dict[str, Any]:
        """Return the result as a row of a table; the answer as JSON."""
        row = {name: getattr(self, name) for name in COLUMNS}
        answer = msgspec.json.encode(self.answer).decode()
        return {**row, "status": str(self.status), "reason_code": str(self.reason_code), "answer": answer}

    def __getstate__(self) -> list[Any]:
        return [None if each.name == "record" else getattr(self, each.name) for each in fields(self)]

    def _repr_mimebundle_(self, include: Kinds = None, exclude: Kinds = None) -> dict[str, str]:
        return bundle(self._drawn, include, exclude)

    def _drawn(self) -> Drawing:
        events, problem = self.record.events(self.run_id) if self.record is not None and self.run_id else ([], "")
        return draw_result(self, events, notes=(f"Its steps are not shown: {problem}",) if problem else ())


class MapTimeout(TimeoutError):
    """A batch has not ended in time; what was submitted goes on.

    `results` has the results there are, in the jobs' places, None elsewhere; `places` says which run is at which place,
    and `run_ids` are those that go on, in the order of their places: in that order `Stack.results(run_ids)` gets their
    results later, each with its `job_id`, and `places[result.run_id]` is its place.  `unanswered` are the jobs
    that were sent and not answered, by place, each with the run that it is if it was taken in (empty where only the
    stack knows whose the job's token is): they may run, and sent once more they are other runs.  `unsubmitted` is how
    many were never sent: those at the places that are in none of these three.
    """

    _render_traceback_ = notebook_traceback

    def __init__(
        self,
        timeout_s: float,
        results: list[RunResult | None],
        places: dict[str, int],
        unsubmitted: int,
        unanswered: dict[int, str] | None = None,
    ) -> None:
        missing = sum(result is None for result in results)
        self.unanswered = unanswered or {}
        text = f"{missing} of {len(results)} runs have not ended in {timeout_s:g} s{may_run(self.unanswered)}"
        super().__init__(f"{text}; {unsubmitted} jobs were not submitted" if unsubmitted else text)
        self.results = results
        self.places = places
        self.run_ids = tuple(places)
        self.unsubmitted = unsubmitted


class ResultsTimeout(TimeoutError):
    """Not all runs whose results are wanted have ended in time; they go on.

    `run_ids` are those that were waited for (`Stack.handle(run_id)` gets the result later), of which there are at most
    as many as the window has; what was not taken from the handles is still in them.  `unanswered` is as that of
    `MapTimeout`, of a stream of jobs.
    """

    _render_traceback_ = notebook_traceback

    def __init__(self, timeout_s: float, run_ids: tuple[str, ...], unanswered: dict[int, str] | None = None) -> None:
        self.unanswered = unanswered or {}
        text = f"the {timeout_s:g} s are over: {len(run_ids)} runs that were waited for have not ended"
        super().__init__(f"{text}{may_run(self.unanswered)}")
        self.timeout_s = timeout_s
        self.run_ids = run_ids

    def __reduce__(self) -> tuple[type[ResultsTimeout], tuple[float, tuple[str, ...], dict[int, str]]]:
        return type(self), (self.timeout_s, self.run_ids, self.unanswered)


def may_run(unanswered: Mapping[int, str]) -> str:
    """Return what an error says of submissions that were not answered; nothing if there are none."""
    if not unanswered:
        return ""
    return f"; {len(unanswered)} submissions were not answered: they may run (`error.unanswered` says as which runs)"


def submission_may_run(run_id: str) -> str:
    """Return what may have become of one submission that was not answered, and how to find out."""
    if not run_id:
        return "the submission was not answered: it may run, and then `stack.runs(status='active')` lists it"
    return f"the submission was not answered: it may run, and then `stack.handle({run_id!r})` is its handle"


_KEEP = " (in a notebook keep this error first, `error = sys.last_value`: the next one takes its place)"


def batch_goes_on(open_runs: int) -> str:
    """Return what becomes of a batch's runs when nobody waits for them, and how to get their results."""
    return f"{open_runs} runs go on: `stack.results(error.run_ids)` waits for them{_KEEP}"


def goes_on(run_ids: Sequence[str]) -> str:
    """Return what becomes of runs that are waited for no more, and how to get their results."""
    if len(run_ids) == 1:
        return f"{run_ids[0]} goes on: `stack.handle({run_ids[0]!r}).result()` waits for it again"
    return f"{len(run_ids)} runs go on: `stack.results(...)` waits for them again"


def cancelled_as(error: BaseException, interrupt: KeyboardInterrupt) -> None:
    """Have a cancellation say, and hold, what an interrupt would, as its note and attributes.

    It stays the `CancelledError` that it is: `asyncio.timeout` knows no other type, not one derived from it either.
    """
    error.add_note(str(interrupt))
    vars(error).update(vars(interrupt), _render_traceback_=partial(notebook_traceback, error))


class ResultsInterrupted(KeyboardInterrupt):
    """Somebody interrupted the wait for runs; they go on.  The fields are those of `ResultsTimeout`."""

    _render_traceback_ = notebook_traceback

    def __init__(self, run_ids: tuple[str, ...], unanswered: dict[int, str] | None = None) -> None:
        self.unanswered = unanswered or {}
        super().__init__(f"{goes_on(run_ids)}{may_run(self.unanswered)}")
        self.run_ids = run_ids


class SubmitInterrupted(KeyboardInterrupt):
    """Somebody interrupted a submission that was sent and not answered: it may run.

    `run_id` is then its run; empty where only the stack knows whose the job's token is.
    """

    _render_traceback_ = notebook_traceback

    def __init__(self, run_id: str) -> None:
        super().__init__(submission_may_run(run_id))
        self.run_id = run_id


class StreamInterrupted(KeyboardInterrupt):
    """Somebody interrupted a stream of results; what was submitted goes on, and so can the `stream`, where it was.

    `unanswered` is as that of `MapTimeout`; the stream, when it goes on, sends these again, as the same runs.
    """

    _render_traceback_ = notebook_traceback

    def __init__(self, stream: Iterator[RunResult], open_runs: int, unanswered: dict[int, str] | None = None) -> None:
        self.unanswered = unanswered or {}
        super().__init__(
            f"{open_runs} runs go on, and so does the stream, where it was: `for result in error.stream`"
            f"{_KEEP}{may_run(self.unanswered)}"
        )
        self.stream = stream


class MapInterrupted(KeyboardInterrupt):
    """Somebody interrupted a batch; what was submitted goes on.  The fields are those of `MapTimeout`."""

    _render_traceback_ = notebook_traceback

    def __init__(
        self,
        results: list[RunResult | None],
        places: dict[str, int],
        unsubmitted: int,
        unanswered: dict[int, str] | None = None,
    ) -> None:
        self.unanswered = unanswered or {}
        there = sum(result is not None for result in results)
        goes_on = batch_goes_on(len(places)) + may_run(self.unanswered)
        super().__init__(f"{there} of {len(results)} jobs have ended; {goes_on}; {unsubmitted} jobs were not submitted")
        self.results = results
        self.places = places
        self.run_ids = tuple(places)
        self.unsubmitted = unsubmitted


COLUMNS: dict[str, type] = {
    "job_id": str,
    "run_id": str,
    "status": str,
    "reason_code": str,
    "detail": str,
    "answer": str,
    "steps": int,
    "tool_calls": int,
    "tokens": int,
    "cost_microusd": int,
    "seconds": float,
}
"""What a row of a table of results has."""


def ended_result(run_id: str, body: bytes, job_id: str, record: RunReader, place: int = 0) -> RunResult:
    """Return the result a `RunEnded` states; its `job_id` is the run's own where none is given."""
    event = msgspec.json.decode(body, type=RunEnded)
    outcome, usage = event.outcome, event.usage
    return RunResult(
        job_id=job_id or event.job_id,
        run_id=run_id,
        status=RunStatus(outcome.status),
        reason_code=outcome.reason_code,
        detail=outcome.detail,
        answer=msgspec.json.decode(outcome.answer),
        steps=usage.steps,
        tool_calls=usage.tool_calls,
        tokens=usage.tokens,
        cost_microusd=usage.cost_microusd,
        seconds=usage.active_us / 1e6,
        in_doubt=outcome.in_doubt,
        place=place,
        record=record,
    )


def refused_result(ticket: Ticket, job_id: str, place: int = 0) -> RunResult:
    """Return the result of a request that was not admitted."""
    reason = ticket.reason_code or ReasonCode.INTERNAL_ERROR
    return RunResult(
        job_id=job_id,
        run_id="",
        status=status_of(reason),
        reason_code=reason,
        detail=ticket.message,
        retry_after_s=ticket.retry_after_s,
        place=place,
    )


@explain_absent(id="approval_id")
@dataclass(frozen=True, slots=True, kw_only=True)
class PendingApproval:
    """A call that waits for people; `is_question` = it is a question of an agent's, which one of them answers.

    `origins` say where the values of its arguments come from, `resources` what is known of what it is about, and
    `rejected_before` which calls of its tool people rejected in the same run.  `group` is the question it is put in
    with calls like it of the same decision, empty for one alone: a vote on that is one on each of them.
    """

    approval_id: str
    tenant: str
    requester: str
    run_id: str
    tool: str
    effect: str
    arguments: dict[str, Any]
    rule: str
    roles: tuple[str, ...]
    quorum: int
    votes: int
    expires_us: int
    request: str
    origins: tuple[ValueOrigin, ...] = ()
    resources: tuple[ResourceFact, ...] = ()
    rejected_before: str = ""
    group: str = ""
    is_question: bool = False

    def lines(self) -> list[str]:
        """Return what a person must see: the call, a line for each value and finding with where it comes from, content.

        What no principal and no operator stands for is marked with `!!`.  Content (a mail's text) follows under its
        argument, every line of it behind a bar, at most `SHOWN_CHARACTERS` of each; what is left out is said.
        """
        who = f"{self.requester}@{self.tenant}"
        expires = datetime.fromtimestamp(self.expires_us / 1e6, tz=UTC).isoformat(" ", "seconds")
        needs = f"needs {self.quorum} of {', '.join(self.roles)}, has {self.votes}"
        if self.is_question:
            what = "one of its choices" if self.arguments.get("choices") else "a text"
            if self._form is not None:
                what = "a JSON object of its fields, or the value alone where there is one"
            needs = f"a question that one of {', '.join(self.roles)} answers, by {what}"
        lines = [
            f"{self.approval_id}: {self.tool} ({self.effect}), asked by {who}, rule {self.rule}, "
            f"{needs}, until {expires}",
            f"     the request: {visible(self.request)!r:.300}",
        ]
        lines += [f"  !! {self.rejected_before}"] if self.rejected_before else []
        for each in self.origins:
            mark = "   " if each.origin in STOOD_FOR else "!! "
            found = " says" if each.part == "content" else ""
            lines.append(f"  {mark}{each.path}{found}: {each.value!r}  <- {each.source}")
        lines += [f"     about {each}" for each in self.resources]
        shown = [_one_line(line) for line in lines]  # nobody's key may begin a line of its own
        contents = self.contents()
        for path, text in contents[:SHOWN_CONTENTS]:
            shown += _content(path, text)
        if len(contents) > SHOWN_CONTENTS:
            shown.append(f"     ({len(contents) - SHOWN_CONTENTS} more arguments are not shown)")
        return shown

    def contents(self) -> list[tuple[str, str]]:
        """Return what the call says, by argument: every value of it that is not traced to where it comes from."""
        traced = {each.path for each in self.origins if each.part == "authority"}
        return [(path, text) for path, text in _texts(self._shown(), ()) if path not in traced]

    def _repr_mimebundle_(self, include: Kinds = None, exclude: Kinds = None) -> dict[str, str]:
        return bundle(lambda: draw_approval(self), include, exclude)

    @property
    def _form(self) -> dict[str, Any] | None:
        """The fields of what a tool asks; None of anything else."""
        fields = self.arguments.get("fields")
        return fields if self.is_question and isinstance(fields, dict) else None

    def _shown(self) -> dict[str, Any]:
        """Return the arguments with each field of a form as one line."""
        if self._form is None:
            return self.arguments
        return {**self.arguments, "fields": {name: described(field) for name, field in self._form.items()}}

    @classmethod
    def of(cls, answered: bytes | Approval) -> PendingApproval:
        """Read what Approvals answered."""
        approval = answered if isinstance(answered, Approval) else msgspec.json.decode(answered, type=Approval)
        asked = approval.request
        return cls(
            approval_id=asked.approval_id,
            tenant=asked.tenant,
            requester=asked.requester,
            is_question=asked.terms.answer,
            run_id=asked.run_id,
            tool=asked.tool,
            effect=asked.effect,
            arguments=msgspec.json.decode(asked.arguments),
            rule=asked.rule,
            roles=asked.terms.roles,
            quorum=asked.terms.quorum,
            votes=len(approval.votes),
            expires_us=asked.expires_us,
            request=asked.request_text,
            origins=asked.origins,
            resources=asked.resources,
            rejected_before=asked.rejected_before,
            group=asked.group,
        )


def questions(waiting: Iterable[PendingApproval]) -> list[list[PendingApproval]]:
    """Return what waits as the questions people are asked: calls that are asked about together, and others alone."""
    found: dict[str, list[PendingApproval]] = {}
    for approval in waiting:
        found.setdefault(approval.group or approval.approval_id, []).append(approval)
    return list(found.values())


def question_lines(question: Sequence[PendingApproval]) -> list[str]:
    """Return what a person must see of a question: every call of it, and how to vote on all of them."""
    lines = [line for approval in question for line in approval.lines()]
    first = question[0]
    if not first.group:
        return lines
    calls = f"{len(question)} call{'s' * (len(question) > 1)} of {first.tool} proposed together"
    return [f"{first.group}: {calls}; vote on all by this id, or on each by its own", *lines]


SHOWN_CHARACTERS = 2_000
_WIDTH = 100
"""Columns of content in a line: a terminal that wrapped a longer one would begin a line without the bar."""


def _one_line(text: str) -> str:
    return " ".join(visible(text).splitlines())


def _texts(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield every value of the arguments that has no parts of its own, with its path, as text."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _texts(inner, (*path, key))
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from _texts(inner, (*path, str(index)))
    else:
        yield ".".join(path), value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _content(path: str, text: str) -> Iterator[str]:
    """Yield the lines that show one argument's content."""
    yield _one_line(f"     {path}, {len(text):,} characters:")
    for line in text[:SHOWN_CHARACTERS].splitlines():
        for part in _columns(visible(line.expandtabs())):
            yield f"       | {part}"
    if len(text) > SHOWN_CHARACTERS:
        left = len(text) - SHOWN_CHARACTERS
        yield f"       ({left:,} more characters are not shown; `airside approvals list` has all)"


def _columns(line: str) -> Iterator[str]:
    """Yield a line in parts of at most `_WIDTH` columns; wide characters (Chinese, Japanese) take two."""
    part, width = "", 0
    for character in line:
        columns = 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if width + columns > _WIDTH:
            yield part
            part, width = "", 0
        part, width = part + character, width + columns
    yield part
