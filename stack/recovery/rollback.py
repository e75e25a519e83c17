"""Taking back what a run did: which calls there are to undo, in which order, and how each of them stands.

A rollback is a stream of its own, `rollback/RUN`, in the chain of the run's tenant; the run's events stay as they were.
Rules: only a run that is over, with all its branches, is rolled back; its calls are undone in the reverse order of
their results; the first that is not undone ends the rollback, since what came before may rest on it; what is undone is
never undone again, and what failed (nothing was changed then) is tried again when the rollback is ordered again.

A call in doubt, and an undo in doubt, stop a rollback until somebody resolves them: the undo of a call that may not
have happened, or a second one, could be the very harm that is to be taken back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec
from msgspec import Raw

from airside.stack.errors import InvalidInput
from airside.stack.ids import EffectKey, PrincipalId, RunId, TenantId, undo_key
from airside.stack.journal.effect_claims import attempt_key
from airside.stack.reasons import ReasonCode
from airside.stack.recovery.in_doubt import EffectResolved, InDoubtCall
from airside.stack.run import events as ev
from airside.stack.run.intents import SentCall, call_history
from airside.stack.values import EffectClass, ToolResult, Value

UndoOutcome = Literal["undone", "nothing", "failed", "in_doubt"]
"""`nothing`: the tool has no undo.  `failed`: certainly nothing was changed.  `in_doubt`: nobody knows."""

ROLLBACK_LIFE_US = 3600 * 1_000_000
"""How long an order goes on: a rollback takes as long as its undos do, and one from yesterday is not meant."""

MAX_UNDO_ATTEMPTS = 4
"""How often one order tries one undo that did not begin, or that may be sent twice: as often as a call is sent."""


class RollbackOrdered(Value, tag=True):
    """An operator ordered the run to be rolled back."""

    at_us: int
    run_id: RunId
    by: PrincipalId
    why: str = ""


class UndoIntended(Value, tag=True):
    """The undo of one call is about to be granted and sent; durable before it is."""

    at_us: int
    run_id: RunId
    step: int
    key: EffectKey
    attempt: int
    tool: str
    arguments: Raw
    digest: str


class UndoEnded(Value, tag=True):
    """What became of the undo of one call."""

    at_us: int
    run_id: RunId
    step: int
    key: EffectKey
    attempt: int
    outcome: UndoOutcome
    detail: str = ""


RollbackEvent = RollbackOrdered | UndoIntended | UndoEnded

_decoder = msgspec.json.Decoder(RollbackEvent)


def rollback_stream(run_id: RunId) -> str:
    """Return the journal's stream of a run's rollback."""
    return f"rollback/{run_id}"


class UndoableCall(Value):
    """A call that changed something, or (`in_doubt`) may have, with all that its undo is given and bound to."""

    run_id: RunId
    step: int
    key: EffectKey
    tool: str
    tool_version: str
    effect: EffectClass
    repeatable: bool
    arguments: Raw
    digest: str
    output: Raw
    at_us: int
    in_doubt: bool = False


def is_over(events: Sequence[ev.Event]) -> bool:
    """Whether a run has ended."""
    return bool(events) and isinstance(events[-1], ev.RunEnded)


def calls_of(events: Sequence[ev.Event], resolved: Mapping[str, EffectResolved]) -> list[UndoableCall]:
    """Return what an ended run changed, oldest first; `resolved` is what was found out about its keys since.

    A result that broke its bounds is a call that happened; one that failed changed nothing, which is a tool's promise.
    """
    ended = events[-1]
    assert isinstance(ended, ev.RunEnded)
    calls = []
    latest_us = 0
    for sent in call_history(events):
        if sent.gate.effect == "read":
            continue
        key, result = sent.latest.key, sent.result or ToolResult(ok=False, reason_code=ReasonCode.TOOL_IN_DOUBT)
        in_doubt = key in ended.outcome.in_doubt
        if in_doubt and key in resolved:
            said, in_doubt = resolved[key], False
            result = ToolResult(ok=said.happened, output=said.output)
        if not in_doubt and not result.ok and result.reason_code is not ReasonCode.TOOL_OUTPUT_INVALID:
            continue
        # A clock that was set back turns no steps round.
        latest_us = max(latest_us, sent.answered_us if sent.result else sent.latest.at_us)
        calls.append(_call(sent, result, latest_us, in_doubt=in_doubt))
    return calls


def _call(sent: SentCall, result: ToolResult, at_us: int, *, in_doubt: bool) -> UndoableCall:
    gate, intent = sent.gate, sent.latest
    return UndoableCall(
        run_id=RunId(intent.key.rpartition(":")[0]),
        step=intent.step,
        key=intent.key,
        tool=intent.tool,
        tool_version=gate.tool_version,
        effect=gate.effect,
        repeatable=gate.repeatable,
        arguments=gate.arguments,
        digest=intent.digest,
        output=result.output,
        at_us=at_us,
        in_doubt=in_doubt,
    )


def in_reverse(calls: Iterable[UndoableCall]) -> list[UndoableCall]:
    """Return the calls of a run and its branches in the order they are undone in."""
    return sorted(calls, key=lambda call: (call.at_us, call.run_id, call.step), reverse=True)


class RollbackBook:
    """How far the rollback of one run is: the fold of its stream."""

    def __init__(self, bodies: Iterable[bytes | str] = ()) -> None:
        self.orders = 0
        self._intended: dict[EffectKey, UndoIntended] = {}
        self._ended: dict[EffectKey, UndoEnded] = {}
        for body in bodies:
            self.apply(_decoder.decode(body))

    def apply(self, event: RollbackEvent) -> None:
        """Take a durable event in."""
        if isinstance(event, RollbackOrdered):
            self.orders += 1
        elif isinstance(event, UndoIntended):
            self._intended[event.key] = event
            self._ended.pop(event.key, None)
        else:
            self._ended[event.key] = event

    def attempts(self, call: UndoableCall) -> int:
        """Return how often the undo of a call was sent."""
        intended = self._intended.get(undo_key(call.key))
        return 0 if intended is None else intended.attempt

    def outstanding(self, call: UndoableCall) -> UndoIntended | None:
        """Return the intent whose end is not on record, if the undo of a call has one."""
        key = undo_key(call.key)
        return None if key in self._ended else self._intended.get(key)

    def ended(self, call: UndoableCall) -> UndoEnded | None:
        """Return what became of the undo of a call, None if that is not known, or it was never tried."""
        return self._ended.get(undo_key(call.key))

    def in_doubt(self) -> list[UndoEnded]:
        """Return the undos of which nobody knows whether they happened."""
        return [ended for ended in self._ended.values() if ended.outcome == "in_doubt"]

    def in_doubt_calls(self, tenant: TenantId, root: RunId) -> list[InDoubtCall]:
        """Return them as what a person has to find out; it is the rolled back run that is resolved."""
        found = []
        for ended in self.in_doubt():
            intended = self._intended[ended.key]
            found.append(
                InDoubtCall(
                    run_id=root,
                    tenant=tenant,
                    step=intended.step,
                    tool=intended.tool,
                    arguments=msgspec.json.decode(intended.arguments),
                    key=attempt_key(ended.key, ended.attempt),
                    since_us=intended.at_us,
                    undo=True,
                    cause=ended.detail,
                )
            )
        return found


class UndoLine(Value):
    """How one call stands after a rollback; `left` is one that was not come to."""

    run_id: RunId
    step: int
    key: EffectKey
    tool: str
    outcome: UndoOutcome | Literal["left"]
    detail: str = ""


class RollbackReport(Value):
    """How a run's calls stand after a rollback, in the order they are undone in."""

    run_id: RunId
    calls: tuple[UndoLine, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left that could be undone."""
        return all(line.outcome in ("undone", "nothing") for line in self.calls)


def undo_line(call: UndoableCall, outcome: UndoOutcome | Literal["left"], detail: str = "") -> UndoLine:
    """Return the line of a call."""
    return UndoLine(run_id=call.run_id, step=call.step, key=call.key, tool=call.tool, outcome=outcome, detail=detail)


def require_ended(run_id: RunId, runs: Mapping[str, Sequence[ev.Event]]) -> None:
    """Raise `InvalidInput` unless a run and all its branches have ended."""
    if not runs.get(run_id):
        raise InvalidInput(f"the journal has no run {run_id}")
    for each, events in runs.items():
        if not is_over(events):
            raise InvalidInput(f"{each} has not ended: kill {run_id} first, then roll it back")


_NOT_STARTED = frozenset({ReasonCode.GRANT_INVALID, ReasonCode.GRANT_STALE})
_UNKNOWN_OUTCOMES = frozenset({ReasonCode.TOOL_TIMEOUT, ReasonCode.TOOL_IN_DOUBT})


def classify_undo_result(result: ToolResult) -> UndoOutcome | Literal["again"]:
    """Return what a result says of an undo; `again`: it did not begin, and another grant may do."""
    if result.ok or result.reason_code is ReasonCode.TOOL_OUTPUT_INVALID:
        return "undone"
    if result.reason_code in _NOT_STARTED:
        return "again"
    return "in_doubt" if result.reason_code in _UNKNOWN_OUTCOMES else "failed"


def is_undo_retryable(result: ToolResult, *, repeatable: bool) -> bool:
    """Return whether an undo is sent again by itself: it did not begin, or it may be sent twice and held no loop."""
    verdict = classify_undo_result(result)
    return verdict == "again" or (verdict == "in_doubt" and repeatable and not result.held)
