"""SQL of people who may see one tenant: answered in a process of its own that is given that tenant's rows alone.

No text is rewritten and no statement judged to keep others' rows out: they are not there (`sql_apart`).  Where this
machine makes sandboxes the process is in one, without files, network or a user of the stack's: then what a statement
could make of a fault of DuckDB's reaches nothing either.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

import msgspec
import pyarrow as pa
from duckdb import DuckDBPyConnection as Database

from airside.actors.journal import sql_apart
from airside.actors.journal.sql_apart import ADDRESSES_BYTES, TABLES, SqlProblem, SqlQuestion
from airside.actors.rpc.layer import logger
from airside.stack.errors import InvalidInput
from airside.tools.sandbox.command import package_folders, python_there, sandboxed_command
from airside.tools.sandbox.limits import SandboxLimits
from airside.tools.sandbox.probe import reached_level

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
_PROGRAM = sql_apart.__file__
_BEGIN = (
    "import json, runpy, sys; sys.path += json.loads(sys.argv[1]); runpy.run_path(sys.argv[2], run_name='__main__')"
)
"""What Python is told in a sandbox, where it knows of no packages."""

_said_there_is_none: list[str] = []
"""That this machine makes no sandboxes is said once."""


def answer_apart(
    database: Database, sql: str, parameters: Sequence[Any], *, tenant: str | None, since_us: int
) -> bytes:
    """Answer one SELECT over the rows of a tenant (of all, if it is None) since a time, as JSON (`SqlAnswer`).

    Raises `InvalidInput` for what is no SELECT, does not work, or takes more time or memory than it may.
    """
    _check_size(database, tenant, since_us)
    asked = SqlQuestion(sql, list(parameters), MAX_ROWS, MAX_BODY_BYTES)
    command, environment = _command()
    with subprocess.Popen(  # noqa: S603 - it is this interpreter
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, cwd="/"
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


def _command() -> tuple[list[str], dict[str, str]]:
    """Return how the program is started, and with what of an environment: in a sandbox, where there is one."""
    with ThreadPoolExecutor(1) as thread:  # whose loop is nobody's, whatever thread this is
        reached = thread.submit(lambda: asyncio.run(reached_level())).result()
    if reached.level != "none":
        packages = package_folders()
        argv = [python_there(), "-I", "-S", "-c", _BEGIN, json.dumps(packages), _PROGRAM]
        limits = SandboxLimits(level=reached.level, memory_bytes=ADDRESSES_BYTES, disk_bytes=2**20)
        seconds = int(SQL_S) + 5  # the deadline is kept from outside; this is for when nobody is there
        return sandboxed_command(argv, code=[_PROGRAM], limits=limits, cpu_s=seconds, wall_s=seconds), {}
    if reached.reason not in _said_there_is_none:
        _said_there_is_none.append(reached.reason)
        logger.warning(
            f"Auditors' SELECTs have a process of their own, and no sandbox: {reached.reason}",
            extra={"action": "sql_without_sandbox"},
        )
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    environment |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONDONTWRITEBYTECODE": "1"}
    return [sys.executable, "-P", _PROGRAM], environment


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
