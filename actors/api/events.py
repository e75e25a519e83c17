"""A run as a stream of server-sent events, from its first event or from where a client was, until it has ended.

An `event` is on record and has an id, its number in the run: a client that comes back sends the last one it has in
`Last-Event-ID` and misses none.  A `text` is what a model writes just then, of which nothing is on record: it has no id
and is not told again.  In silence a comment is sent, so that nothing between takes the stream for dead.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import Protocol

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

_POLL_S = 15.0
"""Longest wait in one question: what happens is answered at once, and whose credential has ended is told then."""

_CROWDED_S = 1.0
"""When to come again, if too many others of the tenant watch."""

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
    telling = _RunEvents(run_id, seen)
    first = telling.taken(WatchPage(events=page.events[_BEGIN if seen else 0 :]))
    return StreamingResponse(tell(call, run_id, telling, first), media_type=MEDIA_TYPE)


def last_seen(given: str) -> int:
    """Return how many events a client has; raise `Refused` for what is no id of one."""
    if not given:
        return 0
    if not (given.isascii() and given.isdecimal() and len(given) < 16):
        raise Refused(f"Last-Event-ID: {given!r:.40} is no number of an event", reason="malformed")
    return int(given)


class Telling(Protocol):
    """What makes the messages of one stream to one client, of what happens in a run."""

    @property
    def seen(self) -> int:
        """How many of the run's events were taken."""

    @property
    def is_over(self) -> bool:
        """Whether the run has ended."""

    def taken(self, page: WatchPage) -> list[bytes]:
        """Return what is to be sent of what happened."""

    def problem(self, code: str, detail: str) -> bytes:
        """Return what is sent where the stream ends before the run."""


async def tell(call: Call, run_id: RunId, telling: Telling, first: Iterable[bytes]) -> AsyncIterator[bytes]:
    """Yield a stream's bytes until the run has ended, beginning with messages that are there already."""
    yield b"retry: 2000\n\n"
    for message in first:
        yield message
    after, born = 0, ""
    said_s = time.monotonic()
    while not telling.is_over:
        asked = WatchRequest(
            run_id=run_id,
            after=after,
            born=born,
            timeout_s=_POLL_S,
            credential=call.credential,
            events=telling.seen,
            with_events=True,
        )
        try:
            page = await call.stack.ask(WATCH_RUN, asked)
        except (AirsideError, TimeoutError) as error:
            logger.warning(f"A stream ends early: {text_of(error)}", extra={"action": "api_stream_ended"})
            yield telling.problem(code_of(error), "the stream ends here: come back with the last id")
            return
        if page.code == "too_many":  # others of the tenant are served first
            await asyncio.sleep(_CROWDED_S)
            found: list[bytes] = []
        elif page.code:
            yield telling.problem(page.code, page.problem)
            return
        else:
            after, born = page.upto, page.born
            found = telling.taken(page)
        if not found and time.monotonic() - said_s >= SILENCE_S:
            found = [b": it goes on\n\n"]
        for message in found:
            said_s = time.monotonic()
            yield message


class _RunEvents:
    """Each event with its number, and what models say between them."""

    def __init__(self, run_id: RunId, seen: int) -> None:
        self._run_id = run_id
        self.seen = seen
        self.is_over = False

    def taken(self, page: WatchPage) -> list[bytes]:
        """Return what is to be sent of what happened."""
        found = [_text(TextNews(kind="restarted", run_id=self._run_id, step=0, text="some was lost"))]
        found = (found if page.is_torn else []) + [_text(_news(part)) for part in page.parts]
        for body in page.events:
            event = decode_event(body)
            self.seen += 1
            self.is_over |= isinstance(event, RunEnded)
            line = event_line(self.seen - 1, event)
            on_record = EventOnRecord(number=self.seen, type=tag_of(event), line=line, event=Raw(body.encode()))
            found.append(b"id: %d\nevent: event\ndata: %s\n\n" % (self.seen, msgspec.json.encode(on_record)))
        return found

    def problem(self, code: str, detail: str) -> bytes:
        """Return why the stream ends early."""
        return b"event: problem\ndata: %s\n\n" % msgspec.json.encode(problem_of(code, detail))


def _news(part: StreamPart) -> TextNews:
    return TextNews(kind=part.kind, run_id=part.run_id, step=part.step, text=part.text, model=part.model)


def _text(news: TextNews) -> bytes:
    return b"event: text\ndata: %s\n\n" % msgspec.json.encode(news)
