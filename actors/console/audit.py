"""Audit: queries there are, a search of the journal, SQL over what is one's tenant's, and each answer as a file."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from starlette.responses import Response

from airside.actors.api.messages import Listing, Table
from airside.actors.console.visits import Shown, Visit
from airside.stack.errors import InvalidInput
from airside.stack.operations.questions import AuditQuery, AuditSql

MAX_SHOWN_ROWS = 200
"""Of an answer, on its page; a file has all that were answered."""

MAX_SQL_CHARS = 20_000

_SEARCH = (
    "SELECT at_us, tenant, stream, seq, type, body FROM events "
    "WHERE contains(lower(body), lower(?)) OR stream = ? ORDER BY at_us DESC LIMIT 200"
)
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
            return _file(_csv(answer), "text/csv; charset=utf-8", "csv")
        case "json":
            names = [name for name, _ in answer.columns]
            rows = [dict(zip(names, row, strict=True)) for row in answer.rows]
            return _file(msgspec.json.encode(rows), "application/json", "json")
    more = max(0, len(answer.rows) - MAX_SHOWN_ROWS)
    return Shown("audit.html", {**context, "answer": answer, "title": wanted.title, "more": more})


async def _context(visit: Visit) -> dict[str, Any]:
    found = await visit.look("queries", Listing[AuditQuery])
    return {
        "queries": found.items,
        "answer": None,
        "title": "",
        "problem": "",
        "more": 0,
        "shown_rows": MAX_SHOWN_ROWS,
        "asked": {name: visit.form.get(name) for name in ("query", "sql", "search", "kind")},
    }


def _wanted(visit: Visit, queries: Sequence[AuditQuery]) -> Wanted:
    match visit.form.get("kind"):
        case "query":
            name = visit.form.get("query")
            if name not in {each.name for each in queries}:
                raise InvalidInput("choose one of the queries")
            return Wanted(AuditSql(query=name), name)
        case "search":
            text = visit.form.get("search").strip()
            if not 0 < len(text) <= 200:
                raise InvalidInput("search: give 1 to 200 characters")
            return Wanted(AuditSql(sql=_SEARCH, parameters=(text, text)), f"Entries with {text!r}")
        case "sql":
            text = visit.form.get("sql").strip()
            if not 0 < len(text) <= MAX_SQL_CHARS:
                raise InvalidInput(f"SQL: give 1 to {MAX_SQL_CHARS:,} characters")
            return Wanted(AuditSql(sql=text), "Your SELECT")
    raise InvalidInput("choose what to ask")


def _csv(answer: Table) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([_cell(name) for name, _ in answer.columns])
    writer.writerows([_cell(value) for value in row] for row in answer.rows)
    return text.getvalue().encode("utf-8", "backslashreplace")


def _cell(value: Any) -> Any:
    """Return a value as a cell that no spreadsheet takes for a formula."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return f"'{text}" if text.startswith(_RISKY_FIRST) else text


def _file(data: bytes, media_type: str, ending: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="airside-audit.{ending}"'}
    return Response(data, headers=headers, media_type=media_type)
