"""Snippets: Python that a model wrote, played until it waits for calls of the run, or ends.

Its functions are the run's tools, and what it asks of an operating system is refused here: no file, network, clock or
randomness.  So a snippet does the same each time: it is played from its start with the results that the run's calls
have on record, in the order in which these were proposed, one at a time, until it waits for calls that have none.

Nothing that comes back from its interpreter is trusted: names and arguments are looked at here, and proposed to the
gate like any other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from airside.stack.canonical import as_text, canonical, check_bounds
from airside.stack.errors import AirsideError, InvalidInput, text_of
from airside.stack.models.tool_stubs import parameters_of, python_name
from airside.stack.reasons import ReasonCode, RunStatus, status_of
from airside.stack.run.state import StepRecord
from airside.stack.schema.toolspec import MAX_ARGUMENT_BYTES, MAX_OUTPUT_BYTES, ToolSpec
from airside.stack.values import MAX_CALLS, UNTRUSTED, Action

if TYPE_CHECKING:
    from pydantic_monty import ExternalSettledResult, FunctionSnapshot, FutureSnapshot, MontySession, SyncSnapshot

PYTHON_CODE = "python_code"
"""The tool whose calls begin a snippet."""

MAX_CODE_CHARACTERS = 32_000
MAX_SNIPPET_CALLS = 500
"""Calls that one snippet may make: each of its decisions has it played from its start."""

MAX_SUSPENSIONS = 8 * MAX_SNIPPET_CALLS
"""How often it may come back to us: for a call twice, for a name once each time it is looked up."""

_MAX_PRINTED = 8_000
_MAX_RESULT = 16_000
_MAX_ERROR = 2_000
_TOO_LARGE = "[a value too large to be told: give a part of it]"
_MAX_LISTED = 20
_MAX_LISTED_TEXT = 200
_BATCH_BYTES = MAX_OUTPUT_BYTES // 2
"""Arguments of calls that are proposed together; what a proposal may have is more."""

_MAX_DEPTH = 32
_MAX_MEASURED = 2 * MAX_ARGUMENT_BYTES
"""What is looked at of a value before any of it is written: more than this is over every bound of ours."""


@dataclass(frozen=True, slots=True)
class SnippetWaits:
    """The snippet goes on when these calls have results."""

    calls: tuple[Action, ...]


@dataclass(frozen=True, slots=True)
class SnippetEnded:
    """The snippet is over; `calls_made` of the run's calls were its own, `result` is what a model is told, as JSON."""

    calls_made: int
    result: str


SnippetState = SnippetWaits | SnippetEnded

Tools = Mapping[str, ToolSpec]


class SnippetFailed(AirsideError):
    """The snippet cannot go on, for a reason that is none of Python's."""


@dataclass(slots=True)
class _Printed:
    """What a snippet printed, its beginning."""

    parts: list[str] = field(default_factory=list)
    room: int = _MAX_PRINTED
    left_out: int = 0

    def __call__(self, stream: str, text: str) -> None:
        """Keep what there is room for."""
        kept = text[: self.room]
        if kept:
            self.parts.append(kept)
        self.room -= len(kept)
        self.left_out += len(text) - len(kept)

    def text(self) -> str:
        """Return it, with how much is not there."""
        return "".join(self.parts) + (f"... [{self.left_out} characters left out]" if self.left_out else "")


class Playback:
    """One run of a snippet from its start.

    Its calls wait as futures until it can go on with none of them any more.  Those that wait then are a batch, in the
    order of the calls: it is proposed as one decision, or has its results on record.
    """

    def __init__(self, code: str, tools: Tools, records: Sequence[StepRecord]) -> None:
        self._code = code
        self._tools = tools
        self._records = records
        self._defaults = {spec.name: spec.defaults for spec in tools.values()}
        self._taken = 0
        self._edited: list[str] = []
        self._asked = 0
        self._open: dict[int, Action] = {}
        self._due: deque[tuple[int, StepRecord]] = deque()
        self._printed = _Printed()

    def play(self, session: MontySession) -> SnippetState:
        """Go on until the snippet waits for what is not on record, or ends."""
        from pydantic_monty import FunctionSnapshot, FutureSnapshot, MontyComplete

        state: SyncSnapshot = session.feed_start(self._code, print_callback=self._printed)
        while not isinstance(state, MontyComplete):
            if isinstance(state, FunctionSnapshot):
                state = self._called(state)
            elif isinstance(state, FutureSnapshot):
                following = self._awaited(state)
                if isinstance(following, SnippetWaits):
                    return following
                state = following
            elif state.object_id is None and state.variable_name in self._tools:
                state = state.resume(value=_function(state.variable_name))
            else:
                state = state.resume()
        return self._completed(state)

    def ended(self, *, value: Any = None, error: str | None = None) -> SnippetEnded:
        """Return what a model is told of a snippet that is over."""
        made = self._records[: self._taken]
        summary: dict[str, Any] = {"ok": error is None, "trust": UNTRUSTED}
        if error is None:
            summary["result"] = value
        else:
            summary["error"] = _cut_middle(error, _MAX_ERROR)
        summary["printed"] = as_text(self._printed.text())
        summary["calls"] = len(made)
        _list(summary, "failed", [_line(record) for record in made if not record.result.ok])
        _list(summary, "edited", self._edited)  # it does not know that others were carried out than it called
        if error is not None:  # it may not have got to say what it did
            done = [_line(record) for record in made if record.result.ok]
            summary["done"] = done[-_MAX_LISTED:]
            if len(done) > _MAX_LISTED:
                summary["done_left_out"] = len(done) - _MAX_LISTED
        _list(summary, "not_awaited", [action.tool for action in self._open.values()])
        return SnippetEnded(self._taken, orjson.dumps(summary).decode())

    def _completed(self, state: Any) -> SnippetEnded:
        try:
            return self.ended(value=_value(state.output))
        except Exception as error:  # a number of 5,000 digits, say
            return self.ended(error=f"the snippet's value cannot be given: {text_of(error, 200)}")

    def _called(self, call: FunctionSnapshot) -> SyncSnapshot:
        if call.is_os_function:
            return call.resume_not_handled()
        if call.object_id is not None or call.function_name not in self._tools:
            return call.resume({"exc_type": "NameError", "message": f"name {call.function_name!r} is not defined"})
        self._asked += 1
        if self._asked > MAX_SNIPPET_CALLS:
            raise SnippetFailed(f"a snippet may make at most {MAX_SNIPPET_CALLS} calls")
        spec = self._tools[call.function_name]
        try:
            self._open[call.call_id] = Action(tool=spec.name, arguments=_arguments(spec, call))
        except TypeError as error:
            return call.resume({"exc_type": "TypeError", "message": f"{call.function_name}: {error}"})
        except Exception as error:  # what no run may have: a control character, a number of 5,000 digits
            return call.resume({"exc_type": "ValueError", "message": f"{call.function_name}: {text_of(error, 500)}"})
        return call.resume({"future": ...})

    def _awaited(self, waiting: FutureSnapshot) -> SyncSnapshot | SnippetWaits:
        pending = frozenset(waiting.pending_call_ids)
        while True:
            while self._due:
                call_id, record = self._due.popleft()
                if call_id in pending:  # nobody waits for one any more whose neighbour has failed
                    return waiting.resume({call_id: _answer(record)})
            batch = self._batch(pending)
            actions = [self._open[call_id] for call_id in batch]
            records = self._records[self._taken : self._taken + len(batch)]
            if not records:
                return SnippetWaits(tuple(actions))
            if [record.tool for record in records] != [action.tool for action in actions]:
                raise SnippetFailed("the snippet did not go on as it had: see what its calls returned, and begin anew")
            self._taken += len(batch)
            self._edited += [_edit(*pair) for pair in zip(actions, records, strict=False) if self._is_edited(*pair)]
            self._due.extend(zip(batch, records, strict=True))
            for call_id in batch:
                del self._open[call_id]

    def _is_edited(self, action: Action, record: StepRecord) -> bool:
        """Whether a person approved other arguments than were called with; those on record may be complete."""
        called, made = action.arguments, canonical(record.arguments)
        return made not in (canonical(called), canonical(self._defaults[action.tool] | called))

    def _batch(self, pending: frozenset[int]) -> list[int]:
        batch: list[int] = []
        room = _BATCH_BYTES
        for call_id in sorted(self._open.keys() & pending)[:MAX_CALLS]:
            room -= len(canonical(self._open[call_id].arguments))
            if batch and room < 0:
                break
            batch.append(call_id)
        if not batch:
            raise SnippetFailed("the snippet waits for nothing that was called")
        return batch


def _function(name: str) -> Any:
    """Return what stands for a tool that is passed about: the interpreter takes its name, and nobody calls it."""

    def function() -> None: ...

    function.__name__ = name
    return function


def _answer(record: StepRecord) -> ExternalSettledResult:
    """Return what a call comes to in the snippet: its output, or an exception that says why there is none."""
    result = record.result
    if result.ok:
        return {"return_value": orjson.loads(bytes(result.output))}
    reason = result.reason_code or ReasonCode.TOOL_FAILED
    is_refused = status_of(reason) is RunStatus.REFUSED
    text = as_text(f"{record.tool}: {reason}: {result.error}")[:_MAX_ERROR]
    return {"exc_type": "PermissionError" if is_refused else "RuntimeError", "message": text}


def _arguments(spec: ToolSpec, call: FunctionSnapshot) -> dict[str, Any]:
    """Return a call's arguments by their names; raise `TypeError` for what is no call or no JSON."""
    positional, named = call.args, call.kwargs
    if _is_large([positional, named]):
        raise InvalidInput(f"arguments are over the bound of {MAX_ARGUMENT_BYTES:,} bytes")
    parameters = parameters_of(spec)
    if len(positional) > len(parameters):
        raise TypeError(f"takes {len(parameters)} arguments by position, and {len(positional)} were given")
    given = dict(zip(parameters, positional, strict=False))
    twice = sorted(given.keys() & named.keys())
    if twice:
        raise TypeError(f"got several values for {twice[0]!r}")
    arguments = {name: _json(value, name, 0) for name, value in (given | named).items()}
    check_bounds(arguments, where="arguments")
    size = len(canonical(arguments))
    if size > MAX_ARGUMENT_BYTES:
        raise InvalidInput(f"arguments of {size:,} bytes are over the bound of {MAX_ARGUMENT_BYTES:,}")
    return arguments


def _is_large(value: Any) -> bool:
    """Whether a value is more than may be written: a list that has another twice, and so on, is small until then."""
    left, room = [value], _MAX_MEASURED
    while left:
        each = left.pop()
        parts = _parts(each)
        room -= _width(each) if parts is None else 1 + len(parts)
        if room < 0:
            return True
        left += parts or ()
    return False


def _parts(value: Any) -> Collection[Any] | None:
    """Return the values within one, as they stand for themselves; None for one that has none."""
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if isinstance(value, list | tuple | set | frozenset):
        return value
    attributes = getattr(value, "attributes", None)  # of an instance of a class that the snippet wrote
    return attributes if attributes is None else _parts(attributes)


def _width(value: Any) -> int:
    """Return about how many characters a value without others takes."""
    if isinstance(value, str | bytes):
        return 1 + len(value)
    if isinstance(value, int):
        return 1 + value.bit_length() // 3
    return 8 if value is None or isinstance(value, float) else len(repr(value))


def _json(value: Any, name: str, depth: int) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if depth < _MAX_DEPTH and type(value) in (list, tuple):
        return [_json(each, name, depth + 1) for each in value]
    if depth < _MAX_DEPTH and type(value) is dict:
        if not all(type(key) is str for key in value):
            raise TypeError(f"{name}: the keys of a dict are texts")
        return {key: _json(each, name, depth + 1) for key, each in value.items()}
    kind = "a value within so many others" if type(value) in (list, tuple, dict) else f"a {type(value).__name__}"
    raise TypeError(f"{name}: {kind} is no JSON: give text, numbers, True, False, None, lists or dicts")


def _value(output: Any) -> Any:
    """Return a snippet's value as JSON; what is none, or too long, as a text."""
    if _is_large(output):
        return _cut(output, _MAX_RESULT) if type(output) is str else _TOO_LARGE
    try:
        value = _json(output, "result", 0)
        check_bounds(value, where="result")
    except (TypeError, InvalidInput):
        return _cut(repr(output), _MAX_RESULT)
    written = canonical(value)
    return orjson.Fragment(written) if len(written) <= _MAX_RESULT else _cut(written.decode(), _MAX_RESULT)


def _line(record: StepRecord) -> str:
    error = "" if record.result.ok else f": {record.result.reason_code or ''}: {record.result.error}"
    return _cut(f"{record.tool}({canonical(record.arguments).decode()}){error}", _MAX_LISTED_TEXT)


def _edit(called: Action, made: StepRecord) -> str:
    """Say that a person had a call made with other arguments."""
    first, second = (_cut(canonical(each.arguments).decode(), _MAX_LISTED_TEXT) for each in (called, made))
    return f"{made.tool}({first}): a person changed it to {made.tool}({second})"


def _list(summary: dict[str, Any], name: str, lines: Sequence[str]) -> None:
    """Add the first of some lines, if there are any, and how many are not there."""
    if lines:
        summary[name] = lines[:_MAX_LISTED]
    if len(lines) > _MAX_LISTED:
        summary[f"{name}_left_out"] = len(lines) - _MAX_LISTED


def _cut_middle(text: str, most: int) -> str:
    """Return the beginning and the end of a text: an error says at its end what it is."""
    kept = as_text(text)
    if len(kept) <= most:
        return kept
    return f"{kept[: most // 2]}... [{len(kept) - most} characters left out] ...{kept[-most // 2 :]}"


def _cut(text: str, most: int) -> str:
    kept = as_text(text)
    return kept if len(kept) <= most else f"{kept[:most]}... [{len(kept) - most} characters left out]"


def called_by_name(tools: Sequence[ToolSpec]) -> dict[str, ToolSpec]:
    """Return the tools that a snippet may call, by their names in Python."""
    return {python_name(spec.name): spec for spec in tools if spec.name != PYTHON_CODE}
