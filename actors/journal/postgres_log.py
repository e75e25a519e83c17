"""The journal's log in a PostgreSQL database: a group of appends is one statement, which is one transaction.

One session appends.  It holds an advisory lock, which the server lets go of when the session ends, and writes under an
epoch, which whoever takes the log over raises: what a process that was taken for dead still sends is refused by the
store itself.  Where a connection is lost while a group is written, the next session first ends the lost one, then
commits something of its own, so that what it reads has been replicated wherever commits are, and only then looks
whether the group is there.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airside.actors.journal.log_port import Row
from airside.actors.journal.postgres_reader import log_of
from airside.actors.journal.postgres_session import (
    FORMAT,
    SQL,
    WRITER,
    WRITER_S,
    connected,
    driver,
    is_lost,
    said,
    where,
)
from airside.stack.errors import Misuse, NotWritten, SyncFailed, Unreachable, Unreadable
from airside.stack.journal.journaling import ENDED, Head

if TYPE_CHECKING:
    import psycopg

_LOCK = int.from_bytes(b"Airside", "big")
_LOCK_S = 15.0
"""How long the session that has the lock is waited for to end: the server needs some ten seconds to know of some."""

PATIENCE_S = 30.0
"""How long it is tried to learn what became of a group; then the process ends, and the next one opens the log anew."""

SLOW_S = 3.0
"""An append that takes longer is said to wait; what comes in meanwhile is not taken in."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0

_TRIES = 3
"""How often a group is sent that turns out not to have been written, each time in a session that was sound before."""

_KNOWN_STREAMS = 100_000
"""How many streams' numbers are kept; then they are looked up again."""

_NEVER = ("22", "54")
"""SQLSTATEs of what can never be written: no such text, over a bound.  Of all others it is the server that is wrong."""
_TAKEN = "23505"
_CUT_SHORT = "the server ended its wait for a standby"


class PostgresLog:
    """A log open for appending.  Its methods belong to one thread; others read through a `PostgresLogReader`.

    `who` is whose process this is: a session of the same name is of a process that this one follows, and is ended.
    """

    def __init__(self, url: str, who: str, *, patience_s: float = PATIENCE_S, answer_s: float = WRITER_S) -> None:
        """Open or make it; raise `Misuse` if another stack has it, and `Unreadable` if it cannot be had."""
        self._url = url
        self._answer_s = answer_s
        self._name = f"airside {who}"
        self._patience_s = patience_s
        self._closed = self._failed = self._is_doubtful = False
        self._doubt = ""
        self._sent_s = 0.0
        with self._naming_unreadable():
            self._session = self._locked()
            try:
                self.log = self._made_or_found()
                (self._epoch,) = self._undoubted("take_over")
                self.last, self._streams = self._one("last")
                self._mac = bytes((self._one("mac_at", self.last) or (b"",))[0])
            except BaseException:
                self._session.close()
                raise
        self._ids: dict[str, int] = {}

    @property
    def outage(self) -> str:
        """Why an append waits, empty if none does for long.  From any thread."""
        sent_s = self._sent_s
        if self._doubt or not sent_s or time.monotonic() - sent_s < SLOW_S:
            return self._doubt
        return f"{where(self._url)} has not answered for {time.monotonic() - sent_s:.0f} s"

    # Sessions.

    def _locked(self) -> psycopg.Connection[Any]:
        """Return a new session that has the lock."""
        session = connected(self._url, WRITER, answer_s=self._answer_s, name=self._name)
        session.add_notice_handler(self._note)
        until = time.monotonic() + _LOCK_S
        try:
            while session.execute(SQL["lock"], (_LOCK,)).fetchone() != (True,):
                self._end_own(session)
                if time.monotonic() >= until:
                    raise Misuse(
                        f"another process has the journal in {where(self._url)} open: is a stack up there? A stack has "
                        "a database of its own: attach to that stack, end it, or name another database"
                    )
                time.sleep(_FIRST_PAUSE_S)
        except BaseException:
            session.close()
            raise
        return session

    def _end_own(self, session: psycopg.Connection[Any]) -> None:
        """End a session of the process that this one follows: it may be frozen, or cut off, and would not do so."""
        for pid, name in session.execute(SQL["holder"], {"key": _LOCK}).fetchall():
            if name == self._name:
                session.execute(SQL["end_session"], (pid,))

    def _note(self, notice: psycopg.errors.Diagnostic) -> None:
        """Doubt what was just answered: a commit whose wait for a standby was cut short is a success with a warning."""
        if notice.severity_nonlocalized == "WARNING":
            self._is_doubtful = True

    def _made_or_found(self) -> str:
        if self._one("has_schema") != (True,):
            with self._session.transaction():
                self._session.execute(SQL["schema"])
                self._session.execute("INSERT INTO airside.about VALUES (%s, %s, 0)", (FORMAT, secrets.token_hex(16)))
        return log_of(self._url, self._session)

    def _again(self) -> None:
        """Have a session again, as the process that has the log; raise `SyncFailed` if it has not any more.

        What the lost session did is done or undone then.  Raises `Unreachable` if none is to be had now.
        """
        self._session.close()
        psycopg = driver()
        try:
            self._session = self._locked()
            if self._undoubted("still_ours", self._epoch) is None:
                self._fail("another process has taken the journal over")
            mac = bytes((self._one("mac_at", self.last) or (b"",))[0])
        except (psycopg.Error, Unreachable) as error:
            self._session.close()  # nothing goes on in one that was not looked at
            raise Unreachable(f"{where(self._url)} does not answer: {said(error)}") from None
        except Misuse as error:
            raise Unreachable(error.message) from None
        if mac != self._mac:
            self._fail(
                f"it lost entries that were acknowledged (entry {self.last:,} is not there): was a standby promoted "
                "that commits did not wait for?"
            )

    def _fail(self, what: str) -> None:
        self._failed = True
        raise SyncFailed(f"{where(self._url)}: {what}")

    def _one(self, name: str, *parameters: Any) -> Any:
        return self._session.execute(SQL[name], parameters).fetchone()

    def _undoubted(self, name: str, *parameters: Any) -> Any:
        """Write something of the session's own; raise `Unreachable` if its wait for a standby was cut short."""
        self._is_doubtful = False
        found = self._one(name, *parameters)
        if self._is_doubtful:
            raise Unreachable(f"{where(self._url)}: {_CUT_SHORT}")
        return found

    @contextlib.contextmanager
    def _naming_unreadable(self) -> Any:
        psycopg = driver()
        try:
            yield
        except psycopg.Error as error:
            raise Unreadable(f"{where(self._url)}: {said(error)}") from None

    # What is there.

    def chains(self) -> dict[str, tuple[int, bytes]]:
        """Return the last link of every tenant's chain, with its number."""
        with self._naming_unreadable():
            found = self._session.execute(SQL["chain_heads"]).fetchall()
            ends = [position for _, _, _, position in found]
            if max(ends, default=0) != self.last or any(number is None for _, number, _, _ in found):
                found = self._session.execute(SQL["chain_heads_by_reading"]).fetchall()
        return {tenant: (number, bytes(mac)) for tenant, number, mac, _ in found}

    def heads(self, streams: Sequence[str]) -> Mapping[str, Head]:
        """Return where streams stand; of those that are new, nothing.  Raises `NotWritten` if that cannot be read."""
        asked = {"streams": list(streams), "ended": sorted(ENDED)}
        heads: dict[str, Head] = {}
        for name, number, epoch, seq, tenant, ended in self._read("heads", asked):
            self._know(name, number)
            heads[name] = Head(epoch=epoch, next_seq=seq + 1, ended=ended, tenant=tenant)
        return heads

    def place(self, stream: str, first: int, count: int) -> list[bytes]:
        """Return the bodies a stream has at a place.  Raises `NotWritten` if that cannot be read."""
        return [body.encode() for (body,) in self._read("place", (stream, first, first + count))]

    def _read(self, name: str, parameters: Any) -> list[tuple[Any, ...]]:
        psycopg = driver()
        for is_last in (False, True):  # a session that is lost shows only when it is used
            try:
                self._have_session()
                return self._session.execute(SQL[name], parameters).fetchall()
            except psycopg.Error as error:
                if not is_lost(self._session, error):
                    raise self._named_error(error) from error
                self._session.close()
                if is_last:
                    raise NotWritten(f"{where(self._url)} does not answer: {said(error)}") from None
        raise AssertionError("the last try returns or raises")

    def _have_session(self) -> None:
        """Have a session, before anything is asked of it; raise `NotWritten` if none is to be had now."""
        if self._failed:
            raise SyncFailed(f"{where(self._url)}: a write failed before: nothing more is taken in")
        if self._session.closed:
            if self._closed:
                raise NotWritten(f"{where(self._url)}: it is closed: the next process takes it in")
            try:
                self._again()
            except (Unreachable, Unreadable) as error:
                raise NotWritten(error.message) from None

    def _know(self, stream: str, number: int) -> None:
        if len(self._ids) >= _KNOWN_STREAMS:
            self._ids.clear()
        self._ids[stream] = number

    # Appending.

    def append(self, rows: Sequence[Row]) -> None:
        """Append rows and return when they are durable; on an error none of them is taken in.

        Raises `NotWritten` if they cannot be written now, and `SyncFailed` if it could not be learned what became of
        them, or another process has the log: then nothing more is appended, and the process must end.
        """
        self._have_session()
        streams = list(dict.fromkeys(row[2] for row in rows))
        unknown = [stream for stream in streams if stream not in self._ids]
        if unknown:
            self.heads(unknown)
        fresh = {
            stream: number
            for number, stream in enumerate((s for s in unknown if s not in self._ids), self._streams + 1)
        }
        values = self._values(rows, {**{s: self._ids[s] for s in streams if s not in fresh}, **fresh}, fresh)
        try:
            self._write(values, len(rows), rows[-1][10])
        finally:
            self._sent_s = 0.0
        self.last += len(rows)
        self._mac = rows[-1][10]
        self._streams += len(fresh)
        for stream, number in fresh.items():
            self._know(stream, number)

    def _values(self, rows: Sequence[Row], numbers: Mapping[str, int], fresh: Mapping[str, int]) -> list[Any]:
        columns = [list(column) for column in zip(*rows, strict=True)]
        positions = list(range(self.last + 1, self.last + 1 + len(rows)))
        columns[2] = [numbers[stream] for stream in columns[2]]
        ends = dict(zip(columns[0], positions, strict=True))
        return [self._epoch, [*fresh.values()], [*fresh], positions, *columns, [*ends], [*ends.values()]]

    def _write(self, values: list[Any], count: int, mac: bytes) -> None:
        psycopg = driver()
        for _ in range(_TRIES):
            self._is_doubtful = False
            self._sent_s = time.monotonic()
            try:
                found = self._session.execute(SQL["append"], values).fetchone()
            except psycopg.Error as error:
                if not is_lost(self._session, error):
                    raise self._named_error(error) from error
                doubt = said(error)
            else:
                if found != (1,):
                    self._fail("another process has taken the journal over")
                if not self._is_doubtful:
                    return
                doubt = _CUT_SHORT
            if self._is_written(self.last + count, mac, doubt):
                return
        raise NotWritten(f"{where(self._url)}: it cannot be written: {doubt}")

    def _is_written(self, position: int, mac: bytes, doubt: str) -> bool:
        """Return whether a group is there that ends with an entry: nobody knows until the server can be asked again."""
        self._doubt = f"{where(self._url)} is waited for, to learn whether it wrote a group: {doubt}"
        until, pause_s = time.monotonic() + self._patience_s, _FIRST_PAUSE_S
        try:
            while True:
                try:
                    self._again()
                    last, _ = self._one("last")
                    found = self._one("mac_at", position)
                    break
                except (Unreachable, Unreadable, driver().Error) as error:
                    if time.monotonic() >= until:
                        self._fail(f"nobody knows whether a group was written: {said(error)}")
                    time.sleep(pause_s)
                    pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        finally:
            self._doubt = ""
        if found is None and last == self.last:
            return False
        if found is None or last != position or bytes(found[0]) != mac:
            self._fail("another process has written to it: only reading it anew tells what")
        return True

    def _named_error(self, error: psycopg.Error) -> BaseException:
        """Return a failure of which it is known that nothing was written, as what the caller is to do about it."""
        state = error.sqlstate or ""
        if state == _TAKEN:
            self._failed = True
            return SyncFailed(
                f"{where(self._url)}: another process has written to it: only reading it anew tells what: {said(error)}"
            )
        if not state or state.startswith(_NEVER):  # without one it was not sent
            return error
        return NotWritten(f"{where(self._url)}: it cannot be written: {said(error)}")

    def fold(self) -> bool:
        """Do nothing: the server tends its files itself."""
        return False

    def close(self) -> None:
        """End the session, and with it the lock."""
        self._closed = True
        self._session.close()
