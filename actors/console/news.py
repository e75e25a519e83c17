"""News: a stream that tells a page when what it shows of the stack is old, so that it asks for what has changed.

A page names the mark that it began with, before it asked for what it shows: what happens meanwhile is told too.  A
browser that comes back says which one it had last.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.responses import Response, StreamingResponse

from airside.actors.console.render import href
from airside.actors.console.visits import Visit
from airside.actors.rpc.methods import NEWS, NewsPage, NewsRequest
from airside.stack.errors import AirsideError, InvalidInput, Refused
from airside.stack.ids import parse_run

MAX_STREAMS = 4
"""Streams of one session at once: a browser has six connections to a host, and needs some for what pages ask.

A page in a window that nobody sees holds none; one that comes when there are so many comes again every few seconds.
"""

LONGEST_GAP_S = 20
_WAIT_S = 15.0
"""Longest wait in one question: so often something is sent even in silence, for proxies, and the session looked at."""

_NEWS = b"event: news\ndata:\n\n"
_BEGUN = b"event: begun\nretry: 2000\ndata:\n\n"
_COME_AGAIN = b"event: full\nretry: 5000\ndata:\n\n"
"""When to come back is heard by htmx in a message that has an event, and in no other."""


async def path_of(visit: Visit, gap_s: int, run_id: str = "") -> str:
    """Return the address by which a page hears of news, every `gap_s` seconds at most; "" for whom there is none.

    Ask for it before what the page shows.
    """
    if visit.is_part:
        return ""
    page: NewsPage = await visit.call.stack.ask(NEWS, NewsRequest(visit.session.credential, run_id, 0, 0.0))
    return "" if page.code else href("/news", run=run_id, gap=gap_s, after=page.mark)


async def stream(visit: Visit) -> Response:
    """Tell of news until the session is over; where enough pages of it are told, of what there is, and no longer."""
    given = visit.query.get("run")
    run_id = parse_run(given) if given else ""
    gap_s = min(LONGEST_GAP_S, max(1, _number("gap", visit.query.get("gap") or "1")))
    after = _number("after", visit.call.headers.get("last-event-id") or visit.query.get("after") or "0")
    page: NewsPage = await visit.call.stack.ask(NEWS, NewsRequest(visit.session.credential, run_id, after, 0.0))
    if page.code:
        raise Refused(page.problem, reason=page.code)
    return StreamingResponse(_messages(visit, run_id, after, page.mark, gap_s), media_type="text/event-stream")


async def _messages(visit: Visit, run_id: str, mark: int, latest: int, gap_s: int) -> AsyncIterator[bytes]:
    """Yield messages; the last one has the page ask, which is then told why there are no more."""
    if visit.session.streams >= MAX_STREAMS:
        yield _COME_AGAIN + (b"" if latest == mark else _news_at(latest))
        return
    visit.session.streams += 1
    try:
        yield _BEGUN
        while visit.goes_on():
            page: NewsPage = await visit.call.stack.ask(
                NEWS, NewsRequest(visit.session.credential, run_id, mark, _WAIT_S)
            )
            if page.code:
                break
            if page.mark == mark:
                yield b": nothing new\n\n"
            else:
                mark = page.mark
                yield _news_at(mark)
                await asyncio.sleep(gap_s)
    except (AirsideError, TimeoutError):
        pass
    finally:
        visit.session.streams -= 1
    yield _NEWS


def _news_at(mark: int) -> bytes:
    return b"id: %d\n%b" % (mark, _NEWS)


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise InvalidInput(f"{name}: {text!r:.40} is no number")
    return int(text)
