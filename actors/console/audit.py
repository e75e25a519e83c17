"""Audit: a search of the journal, how its chains stand, queries there are, SQL, and each answer as a file."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
from starlette.responses import Response, StreamingResponse

from airside.actors.api.messages import Listing, Table
from airside.actors.console.visits import Elsewhere, Shown, Visit
from airside.stack.errors import InvalidInput
from airside.stack.operations.questions import (
    AuditQuery,
    AuditSearch,
    AuditSql,
    ChainOf,
    ChainStanding,
    FoundEntries,
    FoundEntry,
)

MAX_SHOWN_ROWS = 200
"""Of an answer, on its page; a file has all that were answered."""

MAX_SQL_CHARS = 20_000

MAX_EXPORTED = 100_000
"""Entries of one file: more of them is exported a time at a time."""

EXPORT_PAGE = 1_000
PAGE = 100
_FILTERS = ("tenant", "stream", "type", "text", "since", "until")
_MAX_FILTER = 200
_COLUMNS = ("at_us", "tenant", "number", "stream", "seq", "step", "type", "event")
_CSV = "text/csv; charset=utf-8"
_RISKY_FIRST = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for a formula, at the beginning of a cell."""


class Wanted(NamedTuple):
    """What is asked, and what it is called."""

    asked: AuditSql
    title: str


async def page(visit: Visit) -> Shown:
    """Show what can be asked."""
    return Shown("audit.html", await _context(visit))


async def ask(visit: Visit) -> Shown | Response:
    """Answer what was asked, on the page or as a file."""
    context = await _context(visit)
    try:
        wanted = _wanted(visit, context["queries"])
        answer = await visit.look("sql", Table, wanted.asked)
    except InvalidInput as error:
        return Shown("audit.html", {**context, "problem": error.message}, status=422)
    match visit.form.get("as"):
        case "csv":
            return _file(_csv(answer), _CSV, "csv")
        case "json":
            names = [name for name, _ in answer.columns]
            rows = [dict(zip(names, row, strict=True)) for row in answer.rows]
            return _file(msgspec.json.encode(rows), "application/json", "json")
    more = max(0, len(answer.rows) - MAX_SHOWN_ROWS)
    return Shown("audit.html", {**context, "answer": answer, "title": wanted.title, "more": more})


# The journal.


async def entries(visit: Visit) -> Shown:
    """Show the entries of the journal that fit, newest first, page by page."""
    given = _filters(visit)
    context = {**await _context(visit), "given": given}
    try:
        found = await visit.look("search", FoundEntries, _search(given, visit.query.get("cursor"), PAGE))
    except InvalidInput as error:
        return Shown("audit.html", {**context, "problem": error.message}, status=422)
    return Shown("audit.html", {**context, "found": found})


async def export(visit: Visit) -> Response:
    """Return the entries of the journal that fit as a file, which is sent as they are found."""
    kind = visit.query.get("as")
    if kind not in ("csv", "jsonl"):
        raise InvalidInput("a file is CSV, or JSON lines")
    first = await visit.look("search", FoundEntries, _search(_filters(visit), "", EXPORT_PAGE))
    pages = _pages(visit, first)
    parts, media = (_csv_parts(pages), _CSV) if kind == "csv" else (_lines(pages), "application/jsonl")
    return StreamingResponse(parts, headers=_attached(kind), media_type=media)


async def check_chain(visit: Visit) -> Elsewhere:
    """Begin to check all chains."""
    await visit.look("chain", Listing[ChainStanding], ChainOf(check=True))
    visit.session.say("good", "The chains are being checked, from the first entry on: load the page again.")
    return Elsewhere("/audit")


def _filters(visit: Visit) -> dict[str, str]:
    return {name: visit.query.get(name).strip()[:_MAX_FILTER] for name in _FILTERS}


def _search(given: Mapping[str, str], cursor: str, limit: int) -> AuditSearch:
    return AuditSearch(
        tenant=given["tenant"],
        stream=given["stream"],
        type=given["type"],
        text=given["text"],
        since=_moment("since", given["since"]),
        until=_moment("until", given["until"]),
        cursor=cursor[:20],
        limit=limit,
    )


def _moment(name: str, text: str) -> datetime | None:
    """Return a time as the field of a page gives it, in UTC where it does not say."""
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(f"{name}: {text!a:.40} is no time; write 2026-01-31T14:05") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


async def _pages(visit: Visit, page: FoundEntries) -> AsyncIterator[Sequence[FoundEntry]]:
    """Yield what was found, page by page, as far as a file goes."""
    asked = _search(_filters(visit), "", EXPORT_PAGE)
    left = MAX_EXPORTED
    while True:
        yield page.items[:left]
        left -= len(page.items)
        if left <= 0 or not page.next:
            return
        page = await visit.look("search", FoundEntries, msgspec.structs.replace(asked, cursor=page.next))


async def _lines(pages: AsyncIterator[Sequence[FoundEntry]]) -> AsyncIterator[bytes]:
    async for page in pages:
        yield b"".join(msgspec.json.encode({name: getattr(e, name) for name in _COLUMNS}) + b"\n" for e in page)


async def _csv_parts(pages: AsyncIterator[Sequence[FoundEntry]]) -> AsyncIterator[bytes]:
    yield _rows([_COLUMNS])
    async for page in pages:
        yield _rows([*(getattr(each, name) for name in _COLUMNS[:-1]), bytes(each.event).decode()] for each in page)


# Queries.


async def _context(visit: Visit) -> dict[str, Any]:
    found = await visit.look("queries", Listing[AuditQuery])
    chains = await visit.look_if("chain", Listing[ChainStanding], ChainOf())
    return {
        "chains": [] if chains is None else chains.items[:MAX_SHOWN_ROWS],
        "given": dict.fromkeys(_FILTERS, ""),
        "found": None,
        "reaches_all": visit.session.reaches_all,
        "max_exported": MAX_EXPORTED,
        "now_us": visit.now_us,
        "queries": found.items,
        "answer": None,
        "title": "",
        "problem": "",
        "more": 0,
        "shown_rows": MAX_SHOWN_ROWS,
        "asked": {name: visit.form.get(name) for name in ("query", "sql", "kind")},
    }


def _wanted(visit: Visit, queries: Sequence[AuditQuery]) -> Wanted:
    match visit.form.get("kind"):
        case "query":
            name = visit.form.get("query")
            if name not in {each.name for each in queries}:
                raise InvalidInput("choose one of the queries")
            return Wanted(AuditSql(query=name), name)
        case "sql":
            text = visit.form.get("sql").strip()
            if not 0 < len(text) <= MAX_SQL_CHARS:
                raise InvalidInput(f"SQL: give 1 to {MAX_SQL_CHARS:,} characters")
            return Wanted(AuditSql(sql=text), "Your SELECT")
    raise InvalidInput("choose what to ask")


def _csv(answer: Table) -> bytes:
    return _rows([[name for name, _ in answer.columns], *answer.rows])


def _rows(rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue().encode("utf-8", "backslashreplace")


def _cell(value: Any) -> Any:
    """Return a value as a cell that no spreadsheet takes for a formula."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return f"'{text}" if text.startswith(_RISKY_FIRST) else text


def _file(data: bytes, media_type: str, ending: str) -> Response:
    return Response(data, headers=_attached(ending), media_type=media_type)


def _attached(ending: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="airside-audit.{ending}"'}
