"""The program that answers a tenant's SELECT: it is given that tenant's rows, and there are no others in it.

`airside.actors.journal.isolated_sql` starts one for each question, writes the question and the rows to its input, and
reads the answer, or what is wrong, from its output.  Whatever a statement names, tables, files, settings, this process
has nothing of anybody else's; and what it takes of memory and time, it takes from nobody: the process ends with it.
"""

from __future__ import annotations

import contextlib
import math
import re
import resource
import sys
from datetime import date, time
from decimal import Decimal
from typing import IO, Any

import duckdb
import msgspec
import pyarrow as pa

TABLES = ("events", "runs", "outcomes")
_NO_TABLE = re.compile(r"Table with name (\S+) does not exist")

MAX_MEMORY_BYTES = 1024 * 2**20
"""For the rows and what is made of them."""

ADDRESSES_BYTES = 4 * MAX_MEMORY_BYTES
"""What the process may map at all: its libraries, and what DuckDB takes without counting it."""

_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "threads": 1,
    "memory_limit": f"{MAX_MEMORY_BYTES // 2**20}MiB",
    "temp_directory": "",
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,
}
_LOCKED = ("SET enable_external_access = false", "SET lock_configuration = true")

_ROWS = 256
"""Rows that are fetched at a time."""


class SqlQuestion(msgspec.Struct):
    """One SELECT with its parameters, and how much of its answer is wanted."""

    sql: str
    parameters: list[Any]
    max_rows: int
    max_bytes: int


class SqlAnswer(msgspec.Struct):
    """Names and types of the columns, and the rows; `truncated`: there are more."""

    columns: list[tuple[str, str]]
    rows: list[msgspec.Raw]
    truncated: bool = False


class SqlProblem(msgspec.Struct):
    """What is wrong with a question."""

    problem: str


TOO_MUCH = SqlProblem("it takes more memory than a question may: ask for less")


def problem_of(error: duckdb.Error) -> str:
    """Return what is wrong with a question; of a table there is not, which there are, and not DuckDB's own."""
    missing = _NO_TABLE.search(text := str(error))
    return f"there is no table {missing[1]}; there are {', '.join(TABLES)}" if missing else text


def answer_of(source: IO[bytes]) -> SqlAnswer | SqlProblem:
    """Answer the question that a stream begins with, over the rows that follow it."""
    asked = msgspec.json.decode(source.readline(), type=SqlQuestion)
    database = duckdb.connect(":memory:", config=_CONFIG)
    try:
        for table in TABLES:
            database.register("incoming", pa.ipc.open_stream(source))
            database.execute(f"CREATE TABLE {table} AS FROM incoming")
            database.unregister("incoming")
        for statement in _LOCKED:
            database.execute(statement)
        return _answered(database, asked)
    except duckdb.OutOfMemoryException:
        return TOO_MUCH
    except duckdb.Error as error:
        return SqlProblem(problem_of(error)[:2_000])


def _answered(database: duckdb.DuckDBPyConnection, asked: SqlQuestion) -> SqlAnswer | SqlProblem:
    statements = database.extract_statements(asked.sql)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        return SqlProblem("give exactly one SELECT; the journal is read-only")
    found = database.sql(asked.sql, params=asked.parameters)
    columns = [(name, str(kind)) for name, kind in zip(found.columns, found.types, strict=True)]
    rows: list[msgspec.Raw] = []
    size = 0
    for page in found.to_arrow_reader(_ROWS):
        for row in zip(*(column.to_pylist() for column in page.columns), strict=True):
            encoded = msgspec.json.encode([_plain(value) for value in row])
            size += len(encoded) + 1
            if len(rows) == asked.max_rows or size > asked.max_bytes:
                return SqlAnswer(columns, rows, truncated=True)
            rows.append(msgspec.Raw(encoded))
    return SqlAnswer(columns, rows)


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: what JSON has no form for is text, of bytes the hex digits."""
    match value:
        case None | bool() | str():
            return value
        case int():
            return value if abs(value) < 2**63 else str(value)
        case float():
            return value if math.isfinite(value) else str(value)
        case Decimal():  # as sums of whole numbers are, too
            return _plain(int(value)) if value == value.to_integral() else str(value)
        case date() | time():
            return value.isoformat()
        case bytes():
            return value.hex()
        case list() | tuple():
            return [_plain(each) for each in value]
        case dict():
            return {str(name): _plain(each) for name, each in value.items()}
    return str(value)


def _confine() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES_BYTES, ADDRESSES_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Answer the question on the standard input."""
    _confine()
    answer: SqlAnswer | SqlProblem = TOO_MUCH
    with contextlib.suppress(MemoryError):
        answer = answer_of(sys.stdin.buffer)
    sys.stdout.buffer.write(msgspec.json.encode(answer))


if __name__ == "__main__":
    main()
