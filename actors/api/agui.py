"""Runs for AG-UI clients: one that is there, or one that is asked for, as a stream of the protocol's messages.

Every message has an id, its place in the stream: a client that comes back sends the last one in `Last-Event-ID`, and
goes on from there.  Who asks for a run sends its request again, which is the same run by the client's name of it.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
from starlette.responses import Response, StreamingResponse

from airside.actors.api.agui_messages import AguiStream, Place, Placed, RunMessages
from airside.actors.api.agui_protocol import OURS, InputMessage, RunAgentInput, RunError, RunOptions
from airside.actors.api.call import Call, look
from airside.actors.api.events import MEDIA_TYPE, tell
from airside.actors.api.messages import RunRequest, ThreadQuery
from airside.actors.api.problems import MAX_DETAIL_CHARS
from airside.actors.api.runs import first_page, submitted
from airside.stack.contracts.streams import WatchPage
from airside.stack.errors import InvalidInput, Refused
from airside.stack.ids import RunId
from airside.stack.operations.questions import Nothing, WhoAsks
from airside.stack.reasons import ReasonCode
from airside.stack.run.events import decode_event
from airside.stack.values import MAX_REQUEST_CHARS

_NOT_TAKEN = ("tools", "context", "state")


async def agui(call: Call) -> Response:
    """Stream a run as messages of AG-UI 1.0 until it has ended, as server-sent events.

    `thread_id` is what the client calls the conversation.  It goes on after a `Last-Event-ID`; 204 where nothing can
    follow.
    """
    query: ThreadQuery = call.query
    run_id = RunId(call.path["run_id"])
    return await _stream(call, run_id, RunMessages(query.thread_id or run_id, run_id))


async def agui_submit(call: Call) -> Response:
    """Submit what an AG-UI client asks for, the last text of its user, and stream the run as messages of AG-UI 1.0.

    The same `threadId`, `runId` and request of the same principal are the same run, whenever they come, with or without
    a `Last-Event-ID`; with another request they are refused as `idempotency_conflict`.
    """
    body: RunAgentInput = call.body
    _seen(call)  # what is none is refused before anything is submitted
    job = _job_of(body)
    await _check_may_see(call)
    run_id = await submitted(call, job, _nonce_of(body))
    not_taken = [name for name in _NOT_TAKEN if getattr(body, name)]
    messages = RunMessages(body.thread_id, body.run_id, echo=False, not_taken=not_taken)
    response = await _stream(call, run_id, messages)
    response.headers["Location"] = f"/v1/runs/{run_id}"
    return response


async def _check_may_see(call: Call) -> None:
    """Raise `Refused` for a credential that may submit and not see: its run would be there, and never shown."""
    who = msgspec.json.decode(await look(call, "me", Nothing()), type=WhoAsks)
    if "view:events" not in who.may:
        code = ReasonCode.AUTH_SCOPE_MISSING
        raise Refused(f"{code.sentence} (a run that is shown needs runs:read in its scope)", reason=code.value)


def _nonce_of(body: RunAgentInput) -> bytes:
    """Return what a run is known by that a client has its own names for."""
    names = msgspec.json.encode([body.thread_id, body.run_id])
    return hashlib.blake2b(names, digest_size=16, person=b"airside ag-ui").digest()


def _job_of(body: RunAgentInput) -> RunRequest:
    """Return the job that a client's input is; raise `InvalidInput` for one that asks for what there is not."""
    if body.resume:
        raise InvalidInput("resume: runs wait for people themselves: approve or answer by /v1/approvals")
    asked = [message for message in body.messages if message.role == "user"]
    if not asked:
        raise InvalidInput("messages: there is none of the user's")
    text = _text_of(asked[-1])
    if len(text) > MAX_REQUEST_CHARS:
        raise InvalidInput(f"messages: the user's last text has more than {MAX_REQUEST_CHARS:,} characters")
    given = body.forwarded_props.get(OURS) if isinstance(body.forwarded_props, dict) else None
    try:
        options = msgspec.convert({} if given is None else given, RunOptions)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"forwardedProps.{OURS}: {error}") from None
    return RunRequest(request=text, job_id=body.run_id, **msgspec.structs.asdict(options))


def _text_of(message: InputMessage) -> str:
    """Return the text of a user's message; raise `InvalidInput` for one with anything else."""
    if isinstance(message.content, str):
        return message.content
    parts: Any = message.content if isinstance(message.content, list) else [None]
    texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
    said = [text for text in texts if isinstance(text, str)]
    if len(said) != len(parts):
        raise InvalidInput("messages: of a user's message text is taken, and nothing else: no image, no file")
    return "\n".join(said)


def _seen(call: Call) -> Place:
    return Place.parse(call.headers.get("last-event-id", ""))


async def _stream(call: Call, run_id: RunId, messages: RunMessages) -> Response:
    seen = _seen(call)
    page = await first_page(call, run_id)
    if seen.event > len(page.events):
        raise Refused(f"Last-Event-ID: {run_id} has no event {seen.event}", reason="malformed")
    telling = _Telling(AguiStream(run_id, messages, seen))
    first = telling.taken(WatchPage(events=page.events))
    if telling.is_over and not first:
        return Response(status_code=204)
    return StreamingResponse(tell(call, run_id, telling, first), media_type=MEDIA_TYPE)


class _Telling:
    """A stream's messages as server-sent events.  They have no `event`: clients read what it is from the data."""

    def __init__(self, stream: AguiStream) -> None:
        self._stream = stream

    @property
    def seen(self) -> int:
        """How many of the run's events were taken."""
        return self._stream.events

    @property
    def is_over(self) -> bool:
        """Whether the run has ended."""
        return self._stream.is_over

    def taken(self, page: WatchPage) -> list[bytes]:
        """Return what is to be sent of what happened."""
        has_news = bool(page.parts) or page.is_torn
        found = [_sent(each) for each in self._stream.parts(page.parts, is_torn=page.is_torn)] if has_news else []
        for body in page.events:
            found += [_sent(each) for each in self._stream.event(decode_event(body))]
        return found

    def problem(self, code: str, detail: str) -> bytes:
        """Return that the stream ends before the run; without an id: who comes back goes on from where it was."""
        message = RunError(message=detail[:MAX_DETAIL_CHARS], code=code, metadata={OURS: {"run_goes_on": True}})
        return b"data: %s\n\n" % msgspec.json.encode(message)


def _sent(placed: Placed) -> bytes:
    place, message = placed
    return b"id: %s\ndata: %s\n\n" % (str(place).encode(), msgspec.json.encode(message))
