"""SQL of people who may see one tenant: answered in a process of its own that is given that tenant's rows alone.

No text is rewritten and no statement judged to keep others' rows out: they are not there (`sql_apart`).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import IO, Any

import msgspec
import pyarrow as pa
from duckdb import DuckDBPyConnection as Database

from airside.actors.journal.sql_apart import TABLES, SqlProblem, SqlQuestion
from airside.stack.errors import InvalidInput

MAX_ROWS = 1_000
MAX_BODY_BYTES = 4 * 2**20
"""Of an answer."""

MAX_TENANT_BYTES = 256 * 2**20
"""Of the bodies of the rows that a question is asked of: they are copied for it, into memory."""

SQL_S = 10.0
"""The longest a question takes, the copy included."""

_COPIED_ROWS = 10_000

_ENVIRONMENT = ("LD_LIBRARY_PATH",)
"""What the program has of this process's environment, beside where its modules are."""

_TIMES = {"events": "at_us", "runs": "submitted_us", "outcomes": "ended_us"}
_PROGRAM = [sys.executable, "-m", "airside.actors.journal.sql_apart"]


def answer_apart(
    database: Database, sql: str, parameters: Sequence[Any], *, tenant: str | None, since_us: int
) -> bytes:
    """Answer one SELECT over the rows of a tenant (of all, if it is None) since a time, as JSON (`SqlAnswer`).

    Raises `InvalidInput` for what is no SELECT, does not work, or takes more time or memory than it may.
    """
    _check_size(database, tenant, since_us)
    asked = SqlQuestion(sql, list(parameters), MAX_ROWS, MAX_BODY_BYTES)
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    environment |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(  # noqa: S603 - it is this interpreter
        _PROGRAM, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, cwd="/"
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        ended = threading.Event()
        timer = threading.Timer(SQL_S, _kill, (process, ended))
        timer.start()
        try:
            with contextlib.suppress(BrokenPipeError), process.stdin as program:
                program.write(msgspec.json.encode(asked) + b"\n")
                _write_rows(program, database, tenant, since_us)
            written = process.stdout.read(4 * MAX_BODY_BYTES)
        finally:
            timer.cancel()
            process.kill()
    if ended.is_set():
        raise InvalidInput(f"audit query: it took more than {SQL_S:.0f} s: ask for less")
    if not written.startswith(b'{"columns"'):
        with contextlib.suppress(msgspec.MsgspecError):
            raise InvalidInput(f"audit query: {msgspec.json.decode(written, type=SqlProblem).problem}")
        raise InvalidInput("audit query: the process that was to answer it ended before it did: ask for less")
    return written


def _kill(process: subprocess.Popen[bytes], ended: threading.Event) -> None:
    ended.set()
    process.kill()


def _where(table: str) -> str:
    return f"FROM {table} WHERE ($1 IS NULL OR tenant = $1) AND {_TIMES[table]} >= $2"


def _check_size(database: Database, tenant: str | None, since_us: int) -> None:
    """Raise `InvalidInput` if there is more than is copied for a question."""
    found = database.execute(f"SELECT coalesce(sum(strlen(body)), 0) {_where('events')}", [tenant, since_us])
    ((size,),) = found.fetchall()
    if size > MAX_TENANT_BYTES:
        bound = f"{size:,} bytes of events are over the bound of {MAX_TENANT_BYTES:,}"
        raise InvalidInput(f"audit query: {bound}: say `since` when they are to begin")


def _write_rows(program: IO[bytes], database: Database, tenant: str | None, since_us: int) -> None:
    for table in TABLES:
        found = database.sql(f"SELECT * {_where(table)}", params=[tenant, since_us])
        with found.to_arrow_reader(_COPIED_ROWS) as reader, pa.ipc.new_stream(program, reader.schema) as writer:
            for batch in reader:
                writer.write_batch(batch)
