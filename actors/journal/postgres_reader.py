"""Reading a journal's log in a PostgreSQL database, from any thread, beside whoever appends to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from airside.actors.journal import log_port
from airside.actors.journal.log_port import Row
from airside.actors.journal.postgres_session import (
    FORMAT,
    READER,
    READER_S,
    SQL,
    connected,
    driver,
    is_lost,
    said,
    where,
)
from airside.stack.errors import Unreachable, Unreadable

if TYPE_CHECKING:
    import psycopg

_FETCHED = 50
"""Entries that are asked for at a time; the last of a chunk's may be over its bound."""

Answer = TypeVar("Answer")

OBJECTS = frozenset(
    """
    about.format integer|about.log text|about.epoch bigint|streams.id bigint|streams.name text|entries.position bigint
    |entries.tenant text|entries.number bigint|entries.stream bigint|entries.seq bigint|entries.epoch bigint
    |entries.step bigint|entries.cause bigint|entries.at_us bigint|entries.type text|entries.body text|entries.mac bytea
    |chains.tenant text|chains.position bigint|streams: PRIMARY KEY (id)|streams: UNIQUE (name)
    |entries: PRIMARY KEY ("position")|entries: UNIQUE (stream, seq)|chains: PRIMARY KEY (tenant)
    """.replace("\n", "")
    .replace("    ", "")
    .split("|")
)
"""What the schema has; what is there beside would do something to entries that are appended."""


class PostgresLogReader:
    """A log as anybody reads it; raises `Unreachable` while the server does not answer, `Unreadable` for no log."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._idle: list[psycopg.Connection[Any]] = []
        self._closed = False
        self.log = self._asked(lambda session: log_of(url, session))

    def _asked(self, work: Callable[[psycopg.Connection[Any]], Answer]) -> Answer:
        """Do work on a session of the caller's own: on a new one, if an idle one turns out to be gone."""
        psycopg = driver()
        while True:
            is_new = not self._idle
            try:
                session = self._idle.pop()
            except IndexError:
                session, is_new = connected(self._url, READER, answer_s=READER_S), True
            try:
                answer = work(session)
            except psycopg.Error as error:
                lost = is_lost(session, error)
                session.close()
                if lost and not is_new:
                    continue
                what = "does not answer" if lost else "cannot be read"
                kind = Unreachable if lost else Unreadable
                raise kind(f"{where(self._url)} {what}: {said(error)}") from None
            except BaseException:
                session.close()
                raise
            self._idle.append(session)
            if self._closed:
                self.close()
            return answer

    def _one(self, name: str, *parameters: Any) -> tuple[Any, ...] | None:
        return self._asked(lambda session: session.execute(SQL[name], parameters).fetchone())

    def close(self) -> None:
        """Close what is idle; what is in use is closed when it is put back."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def last(self) -> int:
        """Return the position of the latest entry, 0 if there is none."""
        found = self._one("last")
        return int(found[0]) if found else 0

    def ends(self) -> tuple[int, dict[str, int]]:
        """Return the position of the latest entry, and where it is noted that each tenant's chain ends, as of then."""
        found = self._asked(lambda session: session.execute(SQL["chain_ends"]).fetchall())
        return int(found[0][0]), {tenant: position for _, tenant, position in found if tenant is not None}

    def mac_at(self, position: int) -> bytes:
        """Return the link of the entry at a position, empty if there is none."""
        found = self._one("mac_at", position)
        return bytes(found[0]) if found else b""

    def latest_us(self) -> int:
        """Return the time of the latest entry, 0 if there is none."""
        found = self._one("latest_us")
        return int(found[0]) if found else 0

    def bodies(self, streams: Iterable[str]) -> dict[str, list[str]]:
        """Return the events of streams, oldest first."""

        def read(session: psycopg.Connection[Any]) -> dict[str, list[str]]:
            return {name: [body for (body,) in session.execute(SQL["stream"], (name,))] for name in streams}

        return self._asked(read)

    def chunks(self, after: int, until: int, *, tolerant: bool = False) -> Iterator[list[Row]]:
        """Yield the entries after a position until another, in order, a bounded number at a time."""
        while after < until:
            rows = self._asked(lambda session, since=after: _first(session, since, until))  # type: ignore[misc]
            if not rows:
                return
            yield rows
            after = rows[-1][0]

    def faults(self) -> list[str]:
        """Return what the schema has that is not ours, or lacks of it."""
        found = {text for (text,) in self._asked(lambda session: session.execute(SQL["objects"]).fetchall())}
        wrong = [f"{text} is not ours" for text in found - OBJECTS] + [f"{text} is missing" for text in OBJECTS - found]
        return [f"{where(self._url)}: {text}" for text in sorted(wrong)]


def _first(session: psycopg.Connection[Any], after: int, until: int) -> list[Row]:
    rows: list[Row] = []
    size = 0
    with session.transaction(), session.cursor(name="chunk") as cursor:
        cursor.execute(SQL["entries"], (after, until))
        while len(rows) < log_port.CHUNK_ROWS and size < log_port.CHUNK_BYTES and (found := cursor.fetchmany(_FETCHED)):
            rows += found
            size += sum([len(row[10]) for row in found])
    return rows


def log_of(url: str, session: psycopg.Connection[Any]) -> str:
    """Return which log a database has; raise `Unreadable` if it has none of ours, or of another format."""
    if session.execute(SQL["has_schema"]).fetchone() != (True,):
        raise Unreadable(f"{where(url)} has no journal")
    about = session.execute(SQL["about"]).fetchall()
    if len(about) != 1:
        raise Unreadable(f"{where(url)}: it is damaged, or no journal: it does not say which log it is")
    if about[0][0] != FORMAT:
        raise Unreadable(f"{where(url)}: it is of format {about[0][0]}, not {FORMAT}: use the Airside that wrote it")
    return str(about[0][1])
