"""A run as messages of AG-UI: a pure function of its events, and of what its models say meanwhile.

`RunMessages` makes of each event on record the messages that it stands for.  The rules it keeps, whatever the events
are: a run begins once and ends once, with nothing after it; what begins (a step, a branch, a message, a call) ends,
before the run does; each call that was proposed has one result.  Texts of tools and people stay values of JSON.

`LiveText` makes messages of what a model writes while it writes it.  Nothing of that is on record: such a message is
whole, or is said to be void.

`AguiStream` puts both in one order.  A message that stands for an event has a `Place`, which says what a client that
comes back has seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from airside.actors.api import agui_protocol as ui
from airside.stack.contracts.streams import StreamPart
from airside.stack.errors import Refused
from airside.stack.ids import RunId, child_run
from airside.stack.reasons import ReasonCode, RunStatus
from airside.stack.run import events as ev
from airside.stack.run.extraction import EXTRACTOR
from airside.stack.run.topology import FanOut, Visit
from airside.stack.values import Finish, Outcome, ToolResult, tag_of

Messages = list[ui.AguiMessage]


class _Unanswered(NamedTuple):
    """What is known of a call that has no result: the latest of it, which may be followed by another attempt."""

    content: str
    code: str


class RunMessages:
    """The messages of one run, by its events in order.  `thread_id` and `run_id` are the client's names for it."""

    def __init__(self, thread_id: str, run_id: str, *, echo: bool = True, not_taken: Sequence[str] = ()) -> None:
        self._thread_id = thread_id
        self._name = run_id
        self._echo = echo
        self._not_taken = list(not_taken)
        self._run_id = RunId("")
        self._at: int | UnsetType = UNSET
        self._is_over = False
        self._step = ""
        self._branches: dict[str, None] = {}
        self._calls: dict[int, _Unanswered | None] = {}
        self._waiting: dict[str, None] = {}
        self._said = ""

    def of(self, event: ev.Event) -> Messages:
        """Return the messages of the next event; none after the run's end, nor before its beginning."""
        if self._is_over or isinstance(event, ev.RunSubmitted) == bool(self._run_id):
            return []
        self._at = event.at_us // 1000
        return list(self._of(event))

    def _of(self, event: ev.Event) -> Iterator[ui.AguiMessage]:
        match event:
            case ev.RunSubmitted():
                yield from self._submitted(event)
            case ev.RoutePlanned():
                yield from self._planned(event)
            case ev.StepDecided():
                yield from self._decided(event)
            case ev.ActionGated():
                yield from self._gated(event)
            case ev.ApprovalDecided():
                yield from self._approval_decided(event)
            case ev.ToolExecuted():
                yield from self._executed(event)
            case ev.ExecutionLost():
                code = ReasonCode.TOOL_IN_DOUBT if event.started else ReasonCode.TOOL_UNAVAILABLE
                self._note(event.step, event.error or code.sentence, code)
                yield self._custom("answer_lost", step=event.step, may_have_run=event.started, error=event.error)
            case ev.InDoubtResolved():
                if event.happened:
                    self._note(event.step, _as_text(bytes(event.output)), "")
                else:
                    self._note(event.step, "it did not happen", ReasonCode.TOOL_IN_DOUBT)
                yield self._custom("in_doubt_resolved", step=event.step, happened=event.happened, by=event.by)
            case ev.ChildEnded():
                yield from self._child_ended(event)
            case ev.RouteFailed() | ev.DecideFailed() | ev.SpendRefused():
                detail = event.detail if isinstance(event, ev.SpendRefused) else event.error
                yield self._custom("failed", what=tag_of(event), step=event.step, code=event.reason_code, detail=detail)
            case ev.RunEnded():
                yield from self._ended(event)

    def _submitted(self, event: ev.RunSubmitted) -> Iterator[ui.AguiMessage]:
        self._run_id = event.run_id
        asked = {"id": f"{event.run_id}:request", "role": "user", "content": event.request.text}
        yield ui.RunStarted(
            timestamp=self._at,
            thread_id=self._thread_id,
            run_id=self._name,
            protocol_version=ui.VERSION,
            parent_run_id=event.parent or UNSET,
            input=ui.Echo(thread_id=self._thread_id, run_id=self._name, messages=(asked,)) if self._echo else UNSET,
            metadata={ui.OURS: {"run_id": event.run_id, "route": event.request.route}},
        )
        yield self._state("active")
        if self._not_taken:
            yield self._custom("not_taken", fields=self._not_taken)

    def _planned(self, event: ev.RoutePlanned) -> Iterator[ui.AguiMessage]:
        yield from self._closed()
        match event.route:
            case Visit():
                self._step = f"{event.step} {event.route.agent}"
            case FanOut():
                self._step = f"{event.step} fan out"
            case _:
                return
        yield ui.StepStarted(timestamp=self._at, step_name=self._step)
        if isinstance(event.route, FanOut):
            for number, branch in enumerate(event.route.branches):
                child = child_run(self._run_id, event.step, number)
                self._branches[child] = None
                yield ui.SubagentStarted(timestamp=self._at, subagent_run_id=child, name=branch.route)

    def _decided(self, event: ev.StepDecided) -> Iterator[ui.AguiMessage]:
        yield from self._results()
        if isinstance(event.proposal, Finish) and event.agent != EXTRACTOR:
            text = _as_text(msgspec.json.encode(event.proposal.answer))
            yield from self._text(answer_id(self._run_id, event.step), text, event.agent)
        for step, call in event.calls.items():
            self._calls[step] = None
            call_id = self._call_id(step)
            yield ui.ToolCallStarted(timestamp=self._at, tool_call_id=call_id, tool_call_name=call.tool)
            arguments = msgspec.json.encode(call.arguments).decode()
            yield ui.ToolCallArgs(timestamp=self._at, tool_call_id=call_id, delta=arguments)
            yield ui.ToolCallEnded(timestamp=self._at, tool_call_id=call_id)

    def _gated(self, event: ev.ActionGated) -> Iterator[ui.AguiMessage]:
        decision = event.decision
        yield self._custom(
            "policy",
            step=event.step,
            tool_call_id=self._call_id(event.step),
            tool=event.tool,
            attempt=event.attempt,
            outcome=decision.outcome,
            reason_code=decision.reason_code,
            rule=decision.rule,
            code=decision.code,
            policy_version=decision.policy_version,
            detail=decision.detail,
        )
        if decision.outcome == "deny":
            self._note(event.step, decision.detail or decision.reason_code.sentence, decision.reason_code)
        elif decision.outcome == "require_approval" and event.approval_id:
            terms = decision.approval
            self._waiting[event.approval_id] = None
            yield self._custom(
                "approval_waiting",
                approval_id=event.approval_id,
                step=event.step,
                tool_call_id=self._call_id(event.step),
                tool=event.tool,
                arguments=event.arguments,
                question=event.question,
                roles=terms.roles if terms else (),
                quorum=terms.quorum if terms else 1,
                is_question=terms.answer if terms else False,
                expires_after_s=terms.expires_after_s if terms else 0,
            )
            yield self._state("active")

    def _approval_decided(self, event: ev.ApprovalDecided) -> Iterator[ui.AguiMessage]:
        is_no = {"rejected": ReasonCode.APPROVAL_REJECTED, "expired": ReasonCode.APPROVAL_EXPIRED}
        if (code := is_no.get(event.outcome)) is not None:
            self._note(event.step, event.note or code.sentence, code)
        self._waiting.pop(event.approval_id, None)
        yield self._custom(
            "approval_decided",
            approval_id=event.approval_id,
            step=event.step,
            outcome=event.outcome,
            by=event.by,
            note=event.note,
            arguments=event.arguments,
        )
        yield self._state("active")

    def _executed(self, event: ev.ToolExecuted) -> Iterator[ui.AguiMessage]:
        result = event.result
        self._note(event.step, *_result_of(result))
        if result.ok and not result.asked and result.retry_after_ms is None:
            yield from self._result(event.step)

    def _child_ended(self, event: ev.ChildEnded) -> Iterator[ui.AguiMessage]:
        if event.run_id not in self._branches:
            return
        del self._branches[event.run_id]
        outcome = event.outcome
        if outcome.status == RunStatus.COMPLETED:
            answer = UNSET if bytes(outcome.answer) == b"null" else outcome.answer
            yield ui.SubagentFinished(timestamp=self._at, subagent_run_id=event.run_id, result=answer)
        else:
            yield ui.SubagentError(
                timestamp=self._at, subagent_run_id=event.run_id, message=_said(outcome), code=outcome.reason_code
            )

    def _ended(self, event: ev.RunEnded) -> Iterator[ui.AguiMessage]:
        outcome, used = event.outcome, event.usage
        for step, known in self._calls.items():
            self._calls[step] = known or _Unanswered("it was not carried out", outcome.reason_code)
        yield from self._closed()
        answer = _as_text(bytes(outcome.answer))
        if answer != self._said:
            yield from self._text(f"{self._run_id}:answer", answer)
        self._waiting.clear()
        yield self._state(outcome.status, reason_code=outcome.reason_code, in_doubt=outcome.in_doubt)
        self._is_over = True
        usage = (ui.TokenUsage(total_tokens=used.tokens),) if used.tokens else ()
        ours = {"status": outcome.status, "reason_code": outcome.reason_code, "detail": outcome.detail}
        metadata = {ui.OURS: ours | {"cost_microusd": used.cost_microusd, "in_doubt": outcome.in_doubt}}
        if outcome.status in (RunStatus.COMPLETED, RunStatus.CANCELLED):
            has_answer = outcome.status == RunStatus.COMPLETED and answer
            yield ui.RunFinished(
                timestamp=self._at,
                thread_id=self._thread_id,
                run_id=self._name,
                outcome=ui.Success() if outcome.status == RunStatus.COMPLETED else ui.Cancelled(),
                result=outcome.answer if has_answer else UNSET,
                usage=usage,
                metadata=metadata,
            )
        else:
            message, code = _said(outcome), outcome.reason_code
            yield ui.RunError(timestamp=self._at, message=message, code=code, usage=usage, metadata=metadata)

    # What is open.

    def _closed(self) -> Iterator[ui.AguiMessage]:
        """Yield the ends of all that is open."""
        yield from self._results()
        for branch in self._branches:
            message, code = "nobody knows how it ended", ReasonCode.CHILD_FAILED
            yield ui.SubagentError(timestamp=self._at, subagent_run_id=branch, message=message, code=code)
        self._branches.clear()
        if self._step:
            yield ui.StepFinished(timestamp=self._at, step_name=self._step)
        self._step = ""

    def _note(self, step: int, content: str, code: str) -> None:
        """Keep what is known of a call, until it is certain that nothing follows."""
        if step in self._calls:
            self._calls[step] = _Unanswered(content, code)

    def _results(self) -> Iterator[ui.AguiMessage]:
        for step in [step for step, known in self._calls.items() if known is not None]:
            yield from self._result(step)

    def _result(self, step: int) -> Iterator[ui.AguiMessage]:
        known = self._calls.pop(step, None)
        if known is not None:
            call_id, ours = self._call_id(step), {"ok": not known.code, "reason_code": known.code}
            yield ui.ToolCallResult(
                timestamp=self._at,
                message_id=f"{call_id}:result",
                tool_call_id=call_id,
                content=known.content,
                role="tool",
                metadata={ui.OURS: ours},
            )

    def _text(self, message_id: str, text: str, agent: str = "") -> Iterator[ui.AguiMessage]:
        if not text:
            return
        self._said = text
        yield ui.TextStarted(timestamp=self._at, message_id=message_id, role="assistant", name=agent or UNSET)
        yield ui.TextContent(timestamp=self._at, message_id=message_id, delta=text)
        yield ui.TextEnded(timestamp=self._at, message_id=message_id)

    def _call_id(self, step: int) -> str:
        return f"{self._run_id}:{step}:call"

    def _custom(self, what: str, /, **value: Any) -> ui.Custom:
        return ui.Custom(timestamp=self._at, name=f"{ui.OURS}.{what}", value=value)

    def _state(self, status: str, **more: Any) -> ui.StateSnapshot:
        standing = {"run_id": self._run_id, "status": status, "waiting_approvals": list(self._waiting), **more}
        return ui.StateSnapshot(timestamp=self._at, snapshot={ui.OURS: standing})


def answer_id(run_id: str, step: int) -> str:
    """Return the id of the message that says what an agent answered at a step."""
    return f"{run_id}:{step}:answer"


def _result_of(result: ToolResult) -> tuple[str, str]:
    if result.ok:
        return _as_text(bytes(result.output)), ""
    return result.error or result.reason_code.sentence, result.reason_code


def _as_text(data: bytes) -> str:
    """Return JSON as it is read: a text as it is, nothing for null."""
    if data[:1] == b'"':
        return str(msgspec.json.decode(data))
    return "" if data == b"null" else data.decode()


def _said(outcome: Outcome) -> str:
    return outcome.detail or outcome.reason_code.sentence


class LiveText:
    """Messages of what a run's own models write while they write it; what its branches' write is not shown."""

    def __init__(self, run_id: RunId) -> None:
        self._run_id = run_id
        self._is_begun = False
        self._step = 0
        self._text: list[str] = []
        self.count = 0
        self.is_open = False
        self._whole = ""

    @property
    def _message_id(self) -> str:
        return f"{self._run_id}:text:{self.count}"

    def of(self, part: StreamPart) -> Messages:
        """Return the messages of one thing that happened to an answer; of one whose beginning was missed, none."""
        if part.run_id != self._run_id:
            return []
        if part.kind == "begun":
            messages = self.void("another answer begins")
            self._is_begun, self._step, self._whole = True, part.step, ""
            return messages
        if not self._is_begun:
            return []
        if part.kind == "text":
            return self._more(part.text)
        if part.kind == "answered":
            self._is_begun, self._whole = False, "".join(self._text)
            return self._end()
        return self.void(part.text)

    def void(self, why: str) -> Messages:
        """Return what says that what was shown counts no more, if anything was."""
        was, self._is_begun = self._message_id, False
        if not self.is_open:
            return []
        value = {"message_id": was, "why": why}
        return [*self._end(), ui.Custom(name=f"{ui.OURS}.text_void", value=value)]

    def decided(self, step: int) -> Messages:
        """Return what is to be said before what was decided at a step is: what is still open came to nothing."""
        return self.void("it is on record") if self._step <= step else []

    def has_said(self, step: int, answer: Any) -> bool:
        """Whether what was shown last, to its end, is what was answered at a step."""
        return bool(self._whole) and (self._step, self._whole) == (step, answer)

    def resume(self, count: int, is_open: bool) -> Messages:
        """Return what is to be said to a client that comes back with so many texts, the last one open."""
        self.count, self.is_open = count, is_open
        return self.void("the rest of it was missed")

    def _more(self, text: str) -> Messages:
        found: Messages = []
        if not text:
            return found
        if not self.is_open:
            self.is_open, self.count = True, self.count + 1
            found.append(ui.TextStarted(message_id=self._message_id, role="assistant"))
        self._text.append(text)
        return [*found, ui.TextContent(message_id=self._message_id, delta=text)]

    def _end(self) -> Messages:
        self._text.clear()
        if not self.is_open:
            return []
        self.is_open = False
        return [ui.TextEnded(message_id=self._message_id)]


_PLACE = re.compile(r"([0-9]{1,15})\.([0-9]{1,15})\.([0-9]{1,15})(\.open)?", re.ASCII)

PLACE_FORM = r"^[0-9]{1,15}\.[0-9]{1,15}\.[0-9]{1,15}(\.open)?$"


class Place(NamedTuple):
    """Up to where a client has a stream: the event, the message of it, and how many texts, the last one open or not."""

    event: int = 0
    message: int = 0
    texts: int = 0
    is_open: bool = False

    def __str__(self) -> str:
        return f"{self.event}.{self.message}.{self.texts}" + (".open" if self.is_open else "")

    @classmethod
    def parse(cls, given: str) -> Place:
        """Return a place by what a client says, the beginning for nothing; raise `Refused` for what is none."""
        if not given:
            return cls()
        found = _PLACE.fullmatch(given)
        if found is None:
            raise Refused(f"Last-Event-ID: {given!r:.40} is no place in a stream of AG-UI", reason="malformed")
        return cls(int(found[1]), int(found[2]), int(found[3]), found[4] is not None)


Placed = tuple[Place, ui.AguiMessage]


class AguiStream:
    """What one client is sent of a run, from `seen` on: each message, with the place of who has it."""

    def __init__(self, run_id: RunId, messages: RunMessages, seen: Place) -> None:
        self._run_id = run_id
        self._messages = messages
        self._live = LiveText(run_id)
        self._seen = seen
        self._goes_on = False
        self._event, self._message = 0, 0
        self.is_over = False

    @property
    def events(self) -> int:
        """How many events of the run were taken."""
        return self._event

    def parts(self, parts: Sequence[StreamPart], *, is_torn: bool) -> Iterator[Placed]:
        """Yield what is to be sent of what models say, nothing after the run's end; `is_torn`: some of it is gone."""
        if self.is_over:
            return
        yield from self._going_on()
        if is_torn:
            yield from self._placed(self._live.void("some of it was lost"))
        for part in parts:
            yield from self._placed(self._live.of(part))

    def event(self, event: ev.Event) -> Iterator[Placed]:
        """Yield what is to be sent of the next event; what the client has of it is passed over."""
        said = ""
        if isinstance(event, ev.RunEnded):
            yield from self._placed(self._live.void("the run has ended"))
        if isinstance(event, ev.StepDecided):
            yield from self._placed(self._live.decided(event.step))
            if isinstance(event.proposal, Finish) and self._live.has_said(event.step, event.proposal.answer):
                said = answer_id(self._run_id, event.step)
        self._event, self._message = self._event + 1, 0
        for number, message in enumerate(self._messages.of(event), 1):
            if (self._event, number) <= self._seen[:2]:
                self._message = number
                continue
            yield from self._going_on()
            self._message = number
            if not said or getattr(message, "message_id", "") != said:
                yield self._place(), message
        self.is_over |= isinstance(event, ev.RunEnded)

    def _going_on(self) -> Iterator[Placed]:
        """Yield, once, what a client that comes back is to be told first."""
        if not self._goes_on:
            self._goes_on = True
            yield from self._placed(self._live.resume(self._seen.texts, self._seen.is_open))

    def _placed(self, messages: Messages) -> Iterator[Placed]:
        """Yield messages that stand for no event, each with where its client is then."""
        for message in messages:
            yield self._place(), message

    def _place(self) -> Place:
        return Place(self._event, self._message, self._live.count, self._live.is_open)
