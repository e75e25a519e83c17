"""The journal's log: what was acknowledged, in order, in one SQLite file that a single process appends to.

An append is durable when `append` returns: SQLite's write-ahead log is synced at every commit, and what a crash tore at
its end is cut by checksum when the file is opened.  Whoever reads is held up by nobody and holds up nobody.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import sqlite3
import struct
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from airside.actors.journal import log_port
from airside.actors.journal.log_port import Row
from airside.actors.journal.named_sql import load_sql
from airside.stack.errors import Misuse, NotWritten, SyncFailed, Unreadable
from airside.stack.journal.journaling import ENDED, Head

JOURNAL = "journal.sqlite"
_LOCK = "journal.lock"
_WAL, _SHARED, UNDOING = "-wal", "-shm", "-journal"

_MAGIC = b"SQLite format 3\0"
FORMAT = 1
_APPLICATION = int.from_bytes(b"Airs", "big")
"""By which other programs, and we, tell the file's kind."""

FOLD_BYTES = 32 * 2**20
"""Of SQLite's write-ahead log: once it is longer, what it holds is moved into the file, and it is begun anew."""

FULL = "the disk is full: make room on it, and it goes on by itself"

_BUSY_MS = 2_000
"""How long another program that writes to the file, which none should, is waited for."""

_KNOWN_STREAMS = 100_000
"""How many streams' numbers are kept; then they are looked up again."""

_SQL = load_sql("log.sql")


# One process writes.


def _asked(kind: int) -> bytes:
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0)


def is_written(folder: Path) -> bool:
    """Whether a process has the log of a folder open for appending; asking disturbs nobody."""
    try:
        descriptor = os.open(folder / _LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _asked(fcntl.F_RDLCK))
    finally:
        os.close(descriptor)
    return bool(struct.unpack("hhqqi4x", found)[0] != fcntl.F_UNLCK)


class WriterLock:
    """Held by the one process that appends; the kernel lets go of it when that process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        self._descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, _asked(fcntl.F_WRLCK))
        except OSError as error:
            self.release()
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise Misuse(
                f"another process has {folder / JOURNAL} open: is a stack up there? Attach to it (airside.connect, or "
                "airside run without --app), or end it (airside down)"
            ) from None

    def release(self) -> None:
        """Let another process write."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


# Reading.


class SqliteLogReader:
    """A log as anybody reads it, from any thread.  `still` = nobody writes it, and nothing beside it is needed.

    Raises `Unreadable` for what is no log, is cut or damaged, or was written meanwhile though it should be still.
    """

    def __init__(self, path: Path, *, still: bool = False, copy_of: Path | None = None) -> None:
        self.path = copy_of or path
        """Which file is meant where one is spoken of."""
        self._file = path
        self._uri = f"file:{quote(str(path))}?mode=ro" + ("&immutable=1" if still else "")
        self._idle: list[sqlite3.Connection] = []
        self._closed = False
        self._seen = _look(path) if still else None
        with self.reading() as database:
            _check_kind(self.path, database)
            about = database.execute(_SQL["about"]).fetchall()
        if len(about) != 1:
            raise Unreadable(f"{self.path}: it is damaged, or no journal: it does not say which log it is")
        self.log = about[0][0]

    @contextlib.contextmanager
    def reading(self, *, tolerant: bool = False) -> Iterator[sqlite3.Connection]:
        """Yield a connection of the caller's own; what SQLite finds wrong is `Unreadable`.

        A tolerant one gives what is no text as what can be read of it, so that its link tells, and whose it is.
        """
        try:
            try:
                database = self._idle.pop()
            except IndexError:
                database = self._connect()
            database.text_factory = _readable if tolerant else str
            try:
                yield database
            finally:
                self._put_back(database)
        except (sqlite3.Error, UnicodeDecodeError) as error:  # also of SQLite's own words about what is damaged
            raise Unreadable(_said(self.path, error, "it is damaged, or no journal")) from None
        if self._seen is not None and _look(self._file) != self._seen:
            raise Unreadable(f"{self.path}: it was written while it was read: is a stack up there? Ask again")

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._uri, uri=True, isolation_level=None, check_same_thread=False)
        for pragma in ("query_only = ON", "trusted_schema = OFF", "cell_size_check = ON", f"busy_timeout = {_BUSY_MS}"):
            database.execute(f"PRAGMA {pragma}")
        return database

    def _put_back(self, database: sqlite3.Connection) -> None:
        self._idle.append(database)
        if self._closed:
            self.close()

    def close(self) -> None:
        """Close what is idle; what is in use is closed when it is put back."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def last(self) -> int:
        """Return the position of the latest entry, 0 if there is none."""
        with self.reading() as database:
            ((position, _),) = database.execute(_SQL["last"]).fetchall()
        return int(position)

    def ends(self) -> tuple[int, dict[str, int]]:
        """Return the position of the latest entry, and where it is noted that each tenant's chain ends, as of then."""
        with self.reading(tolerant=True) as database:
            found = database.execute(_SQL["chain_ends"]).fetchall()
        return int(found[0][0]), {tenant: position for _, tenant, position in found if tenant is not None}

    def mac_at(self, position: int) -> bytes:
        """Return the link of the entry at a position, empty if there is none."""
        with self.reading() as database:
            found = database.execute(_SQL["mac_at"], (position,)).fetchone()
        return bytes(found[0]) if found else b""

    def latest_us(self) -> int:
        """Return the time of the latest entry, 0 if there is none."""
        with self.reading() as database:
            found = database.execute(_SQL["latest_us"]).fetchone()
        return int(found[0]) if found else 0

    def bodies(self, streams: Iterable[str]) -> dict[str, list[str]]:
        """Return the events of streams, oldest first."""
        with self.reading() as database:
            return {name: [body for (body,) in database.execute(_SQL["stream"], (name,))] for name in streams}

    def chunks(self, after: int, until: int, *, tolerant: bool = False) -> Iterator[list[Row]]:
        """Yield the entries after a position until another, in order, a bounded number at a time."""
        while after < until:
            with self.reading(tolerant=tolerant) as database:
                rows = _first(database.execute(_SQL["entries"], (after, until)))
            if not rows:
                return
            yield rows
            after = rows[-1][0]

    def faults(self) -> list[str]:
        """Return what SQLite finds wrong with the file's pages and indexes, and what it has that is not ours."""
        with self.reading() as database:
            found = [text for (text,) in database.execute("PRAGMA integrity_check(20)") if text != "ok"]
            objects = database.execute(_SQL["schema_objects"]).fetchall()
        if objects != _own_objects():
            found.append("its tables and indexes are not the ones that were made")
        return [f"{self.path}: {text}" for text in found]


def _said(path: Path, error: Exception, otherwise: str) -> str:
    return f"{path}: {FULL}" if _is_full(error) else f"{path}: {otherwise}: {error}"


def _is_full(error: BaseException) -> bool:
    """Whether there is no room: for the file, or for the index beside it, of which nothing need last."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_SHMSIZE


def _readable(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _first(cursor: sqlite3.Cursor) -> list[Row]:
    rows: list[Row] = []
    size = 0
    for row in cursor:
        rows.append(row)
        size += len(str(row[10]))  # what is damaged may be anything
        if len(rows) >= log_port.CHUNK_ROWS or size >= log_port.CHUNK_BYTES:
            break
    cursor.close()
    return rows


def _own_objects() -> list[Row]:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        database.executescript(_SQL["schema"])
        return database.execute(_SQL["schema_objects"]).fetchall()


def _look(path: Path) -> tuple[int, ...]:
    status = os.stat(path)
    return status.st_ino, status.st_size, status.st_mtime_ns


def check_header(path: Path, *, still: bool) -> None:
    """Raise `Unreadable` if the file is no database, though its write-ahead log may hide that, or its end is cut.

    SQLite itself sees a cut only where it reads there; a file that is not still may be shorter than its header says.
    Never for the process that writes: to close the file there would drop SQLite's locks on it.
    """
    try:
        with path.open("rb") as file:
            header = file.read(100)
            length = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise Unreadable(f"{path}: it cannot be read: {error}") from None
    size = int.from_bytes(header[16:18], "big")
    whole = (65_536 if size == 1 else size) * int.from_bytes(header[28:32], "big")
    if not header.startswith(_MAGIC) or (still and length < whole):
        raise Unreadable(f"{path}: it is cut, or no journal: {length:,} of {whole:,} bytes are there")


def check_alone(path: Path) -> None:
    """Raise `Misuse` if there is no log, but what one left beside it: entries that were acknowledged, or a half write.

    It goes with the file that was moved or removed.  SQLite would drop it, or take it for that of a log put there.
    """
    if path.exists() and path.stat().st_size:
        return
    ends = (_WAL,) if path.exists() else (_WAL, UNDOING)  # an empty one's half write is its own: a crash made it
    left = [path.with_name(path.name + end) for end in ends]
    found = [each.name for each in left if each.exists() and each.stat().st_size]
    if found:
        names = ", ".join(path.name + end for end in ("", _WAL, _SHARED))
        raise Misuse(
            f"{path} is not there, or empty, but {' and '.join(found)} of it is: {names} belong together: put it back, "
            "or move them all away"
        )


def _check_kind(path: Path, database: sqlite3.Connection) -> None:
    found = [database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
    if found[0] != _APPLICATION:
        raise Unreadable(f"{path}: it is no journal of ours")
    if found[1] != FORMAT:
        raise Unreadable(f"{path}: it is of format {found[1]}, not {FORMAT}: use the Airside that wrote it")


# Writing.


class SqliteLog:
    """A log open for appending.  Its methods belong to one thread, but `fold`; others read with a `SqliteLogReader`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL
        self._changing = threading.Lock()
        """Held by whoever appends, and while the write-ahead log is begun anew."""
        self._failed = self._closed = False
        self.outage = ""
        try:
            self._db = _opened(self.path)
            self._side = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=0)
            found = self._db.execute(_SQL["last"]).fetchone()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise Unreadable(_said(self.path, error, "this is no whole journal")) from None
        self.last: int = found[0]
        """The position of the latest entry."""
        self._streams: int = found[1]
        self._ids: dict[str, int] = {}

    def chains(self) -> dict[str, tuple[int, bytes]]:
        """Return the last link of every tenant's chain, with its number."""
        found = self._db.execute(_SQL["chain_heads"]).fetchall()
        ends = [position for _, _, _, position in found]
        if max(ends, default=0) != self.last or any(number is None for _, number, _, _ in found):
            found = self._db.execute(_SQL["chain_heads_by_reading"]).fetchall()
        return {tenant: (number, bytes(mac)) for tenant, number, mac, _ in found}

    def heads(self, streams: Sequence[str]) -> Mapping[str, Head]:
        """Return where streams stand; of those that are new, nothing.  Raises `NotWritten` if that cannot be read."""
        with self._naming_errors():
            found = {stream: self._number(stream) for stream in streams}
            return {stream: self._head(number) for stream, number in found.items() if number is not None}

    def _head(self, number: int) -> Head:
        ((epoch, seq, tenant),) = self._db.execute(_SQL["stream_end"], (number,)).fetchall() or [(-1, -1, "")]
        types = self._db.execute(_SQL["stream_types"], (number,))
        ended = any(kind in ENDED for (kind,) in types)
        return Head(epoch=epoch, next_seq=seq + 1, ended=ended, tenant=tenant)

    def place(self, stream: str, first: int, count: int) -> list[bytes]:
        """Return the bodies a stream has at a place.  Raises `NotWritten` if that cannot be read."""
        with self._naming_errors():
            found = self._db.execute(_SQL["place"], (self._number(stream), first, first + count)).fetchall()
        return [body.encode() for (body,) in found]

    def _number(self, stream: str) -> int | None:
        number = self._ids.get(stream)
        if number is None:
            found = self._db.execute(_SQL["stream_id"], (stream,)).fetchone()
            if found is None:
                return None
            if len(self._ids) >= _KNOWN_STREAMS:
                self._ids.clear()
            number = self._ids[stream] = int(found[0])
        return number

    def append(self, rows: Sequence[Row]) -> None:
        """Append rows and return when they are durable; on an error none of them is taken in.

        Raises `NotWritten` if the file cannot be written now, and `SyncFailed` if the disk failed: then nobody knows
        what is durable, nothing more is appended, and the process must end, so that the next one reads what is.
        """
        if self._failed:
            raise SyncFailed(f"{self.path}: a write failed before: nothing more is taken in")
        fresh: dict[str, int] = {}
        numbers: dict[str, int] = {}
        with self._changing:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                for stream in dict.fromkeys(row[2] for row in rows):
                    number = self._number(stream)
                    if number is None:
                        number = fresh[stream] = self._streams + len(fresh) + 1
                    numbers[stream] = number
                insert_rows(self._db, rows, self.last, numbers, fresh)
                self._db.execute("COMMIT")
            except BaseException as error:
                self._undo()
                raise self._named_error(error) from error
        self.last += len(rows)
        self._streams += len(fresh)
        self._ids.update(fresh)

    def _undo(self) -> None:
        if self._db.in_transaction:
            with contextlib.suppress(sqlite3.Error):  # SQLite rolls some back by itself
                self._db.execute("ROLLBACK")

    @contextlib.contextmanager
    def _naming_errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, MemoryError) as error:
            raise self._named_error(error) from error

    def _named_error(self, error: BaseException) -> BaseException:
        """Return a failure as what the caller is to do about it."""
        whole = getattr(error, "sqlite_errorcode", 0)
        code = whole & 0xFF
        if self._closed:
            return NotWritten(f"{self.path}: it is closed: the next process takes it in")
        if _is_full(error):
            return NotWritten(f"{self.path}: {FULL}")
        if code == sqlite3.SQLITE_IOERR and whole not in _OF_READING:
            self._failed = True
            return SyncFailed(f"{self.path}: the disk failed: {error}")
        if whole in _OF_TAKEN_PLACES:
            self._failed = True
            return SyncFailed(
                f"{self.path}: another program has written to it: only reading it anew tells what: {error}"
            )
        if code in _NOT_NOW or isinstance(error, MemoryError):
            return NotWritten(f"{self.path}: it cannot be written: {error}")
        return error

    def fold(self) -> bool:
        """Move the write-ahead log into the file if it is long, and begin it anew; return whether it was long.

        From any one thread: nobody who appends waits for more than what was appended during the move.
        """
        wal = self.path.with_name(self.path.name + _WAL)
        if not wal.exists() or wal.stat().st_size <= FOLD_BYTES:
            return False
        self._side.execute("PRAGMA wal_checkpoint(PASSIVE)")
        with self._changing:
            self._side.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return True

    def close(self) -> None:
        """Close the file; SQLite moves its write-ahead log into it."""
        self._closed = True
        self._side.close()
        self._db.close()


_OF_READING = frozenset({sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ})
"""After these it is known what is durable: nothing was written."""

_OF_TAKEN_PLACES = frozenset(
    {sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_ROWID, sqlite3.SQLITE_CONSTRAINT_UNIQUE}
)
"""An entry or a stream is where the next one was to be: what is kept of the file in memory is not what it holds."""

_NOT_NOW = frozenset(
    {
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
    }
)
"""What is wrong with the file, not with what was to be written."""


def _opened(path: Path) -> sqlite3.Connection:
    """Return the writing connection, to a new log if there is none."""
    check_alone(path)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)  # SQLite gives what it makes beside it the same
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        if database.execute(_SQL["schema_objects"]).fetchall():
            _check_kind(path, database)
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "wal_autocheckpoint = 0",  # by itself it would be done in the middle of a commit: see `fold`
            "trusted_schema = OFF",
            "cell_size_check = ON",
            "cache_size = -16000",
            f"busy_timeout = {_BUSY_MS}",
        ):
            database.execute(f"PRAGMA {pragma}")
        if not database.execute(_SQL["schema_objects"]).fetchall():
            make_schema(database)
            sync_folder(path.parent)
    except BaseException:
        database.close()
        raise
    return database


def insert_rows(
    database: sqlite3.Connection, rows: Sequence[Row], after: int, numbers: Mapping[str, int], fresh: Mapping[str, int]
) -> None:
    """Write rows behind a position; `numbers` are those of their streams, `fresh` of the ones that are new."""
    database.executemany(_SQL["add_stream"], [(number, stream) for stream, number in fresh.items()])
    values = [(after + i, row[0], row[1], numbers[row[2]], *row[3:]) for i, row in enumerate(rows, 1)]
    database.executemany(_SQL["add_entry"], values)
    database.executemany(_SQL["move_chain"], {row[1]: row[0] for row in values}.items())


def make_schema(database: sqlite3.Connection, log: str = "") -> None:
    """Make a new log's tables, all or none."""
    database.executescript(f"BEGIN IMMEDIATE;\n{_SQL['schema']}")
    database.execute("INSERT INTO about VALUES (?)", (log or secrets.token_hex(16),))
    database.execute(f"PRAGMA application_id = {_APPLICATION}")
    database.execute(f"PRAGMA user_version = {FORMAT}")
    database.execute("COMMIT")


def sync_folder(folder: Path) -> None:
    """Make what was created or renamed in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
