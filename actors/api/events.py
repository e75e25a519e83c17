"""A run as a stream of server-sent events, from its first event or from where a client was, until it has ended.

An `event` is on record and has an id, its number in the run: a client that comes back sends the last one it has in
`Last-Event-ID` and misses none.  A `text` is what a model writes just then, of which nothing is on record: it has no id
and is not told again.  In silence a comment is sent, so that nothing between takes the stream for dead.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import msgspec
from msgspec import Raw
from starlette.responses import Response, StreamingResponse

from airside.actors.api.call import Call
from airside.actors.api.problems import code_of, problem_of
from airside.actors.api.runs import first_page
from airside.actors.rpc.layer import logger
from airside.actors.rpc.methods import WATCH_RUN
from airside.stack.contracts.streams import StreamPart, WatchPage, WatchRequest
from airside.stack.errors import AirsideError, Refused, text_of
from airside.stack.ids import RunId
from airside.stack.run.events import RunEnded, decode_event
from airside.stack.run.story import event_line
from airside.stack.values import Count, Value, tag_of

MEDIA_TYPE = "text/event-stream"
SILENCE_S = 15.0
"""After how long a comment is sent: shorter than what proxies take for dead."""

_POLL_S = 1.0
"""Longest wait in one question: what a model says is answered at once, an event is seen after that at most."""

_BEGIN = 1
"""How many of the events that a client has are read again: the last one says whether any can follow."""


class EventOnRecord(Value):
    """An event of a run: its number, its kind, a line that says it, and all of it."""

    number: Count
    type: str
    line: str
    event: Raw


class TextNews(Value):
    """What a model says while it says it; `restarted` and `failed`: what was shown of it counts no more."""

    kind: str
    run_id: str
    step: Count
    text: str = ""
    model: str = ""


async def events(call: Call) -> Response:
    """Stream what happens in a run until it has ended, as server-sent events.

    `event`: of the run's record, with its number as id; `text`: what a model says while it says it; `problem`: why the
    stream ends early.  It goes on after a `Last-Event-ID`; 204 where nothing can follow.
    """
    run_id = RunId(call.path["run_id"])
    seen = last_seen(call.headers.get("last-event-id", ""))
    page = await first_page(call, run_id, max(0, seen - _BEGIN))
    if seen and not page.events:
        raise Refused(f"Last-Event-ID: {run_id} has no event {seen}", reason="malformed")
    if seen and isinstance(decode_event(page.events[0]), RunEnded):
        return Response(status_code=204)
    stream = _RunEvents(call, run_id, seen)
    return StreamingResponse(stream.messages(page.events[_BEGIN if seen else 0 :]), media_type=MEDIA_TYPE)


def last_seen(given: str) -> int:
    """Return how many events a client has; raise `Refused` for what is no id of one."""
    if not given:
        return 0
    if not (given.isascii() and given.isdecimal() and len(given) < 16):
        raise Refused(f"Last-Event-ID: {given!r:.40} is no number of an event", reason="malformed")
    return int(given)


class _RunEvents:
    """One stream to one client."""

    def __init__(self, call: Call, run_id: RunId, seen: int) -> None:
        self._call = call
        self._run_id = run_id
        self._seen = seen
        self._after, self._born = 0, ""
        self._is_over = False

    async def messages(self, first: tuple[str, ...]) -> AsyncIterator[bytes]:
        """Yield the stream's bytes, beginning with events that were read already."""
        yield b"retry: 2000\n\n"
        for message in self._taken(WatchPage(events=first)):
            yield message
        said_s = time.monotonic()
        while not self._is_over:
            try:
                page = await self._next()
            except (AirsideError, TimeoutError) as error:
                logger.warning(f"A stream ends early: {text_of(error)}", extra={"action": "api_stream_ended"})
                yield _problem(code_of(error), "the stream ends here: come back with the last id")
                return
            if page.code == "too_many":  # others of the tenant are served first
                await asyncio.sleep(_POLL_S)
            elif page.code:
                yield _problem(page.code, page.problem)
                return
            found = self._taken(page)
            if not found and time.monotonic() - said_s >= SILENCE_S:
                found = [b": it goes on\n\n"]
            for message in found:
                said_s = time.monotonic()
                yield message

    async def _next(self) -> WatchPage:
        asked = WatchRequest(
            run_id=self._run_id,
            after=self._after,
            born=self._born,
            timeout_s=_POLL_S,
            credential=self._call.credential,
            events=self._seen,
            with_events=True,
        )
        return await self._call.stack.ask(WATCH_RUN, asked)

    def _taken(self, page: WatchPage) -> list[bytes]:
        if page.code:
            return []
        self._after, self._born = page.upto, page.born
        found = [_text(TextNews(kind="restarted", run_id=self._run_id, step=0, text="some was lost"))]
        found = (found if page.is_torn else []) + [_text(_news(part)) for part in page.parts]
        for body in page.events:
            event = decode_event(body)
            self._seen += 1
            self._is_over |= isinstance(event, RunEnded)
            line = event_line(self._seen - 1, event)
            on_record = EventOnRecord(number=self._seen, type=tag_of(event), line=line, event=Raw(body.encode()))
            found.append(b"id: %d\nevent: event\ndata: %s\n\n" % (self._seen, msgspec.json.encode(on_record)))
        return found


def _news(part: StreamPart) -> TextNews:
    return TextNews(kind=part.kind, run_id=part.run_id, step=part.step, text=part.text, model=part.model)


def _text(news: TextNews) -> bytes:
    return b"event: text\ndata: %s\n\n" % msgspec.json.encode(news)


def _problem(code: str, detail: str) -> bytes:
    return b"event: problem\ndata: %s\n\n" % msgspec.json.encode(problem_of(code, detail))
