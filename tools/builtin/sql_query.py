"""`sql_query`: a tool that reads a database and can do nothing else, in SQLite, DuckDB or PostgreSQL.

What a statement may do is decided by the database itself, which reads it as it runs it: SQLite's authorizer, DuckDB's
parser and its configuration, which is locked; PostgreSQL's parser and transactions (`postgres.py`).  No text of ours is
matched against a text of the agent's.
"""

from __future__ import annotations

import base64
import json
import math
import re
import sqlite3
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol, get_args
from urllib.parse import quote

import orjson

from airside.stack.errors import InvalidConfig, text_of
from airside.tools.builtin import postgres
from airside.tools.builtin.credentials import Credential
from airside.tools.builtin.interruption import interrupted_after
from airside.tools.builtin.texts import CONTROLS
from airside.tools.tool import ProcessLimits, Tool, ToolContext, ToolError

Engine = Literal["sqlite", "duckdb", "postgres"]

MAX_ROWS = 200
MAX_BYTES = 256 * 1024
MEMORY_BYTES = 2 * 1024 * 1024 * 1024
"""Address space of the process of a query.  DuckDB takes a gigabyte without using it, and bounds no single value."""

_WORKING_BYTES = 256 * 1024 * 1024
_MAX_SQL = 20_000
_MAX_COLUMN_BYTES = 64 * 1024
_MAX_DEPTH = 8
_MARGIN_S = 5.0
"""By how much the tool's own timeout is longer than the query's: the process has to start, and import the database."""

_TENANT = "{tenant}"
_MAX_SAFE_INTEGER = 2**63 - 1

_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}
_DENIED_FUNCTIONS = {"load_extension", "fts3_tokenizer", "readfile", "writefile", "edit", "zipfile", "lsdir", "fsdir"}
_ALLOWED_PRAGMAS = {"table_info", "table_xinfo", "table_list", "index_list", "index_info", "foreign_key_list"}
"""Those that only tell what there is, which are also read as tables (`pragma_table_info('orders')`)."""

_DUCKDB = {
    "enable_external_access": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "memory_limit": f"{_WORKING_BYTES // 1024**2}MiB",
    "temp_directory": "",
    "http_proxy": "",  # which it has of the environment, with its password, and tells
    "http_proxy_username": "",
    "http_proxy_password": "",
    "threads": 1,
}


class Rows(Protocol):
    """Rows as they come from the database, which are closed when no more are wanted."""

    def __iter__(self) -> Iterator[Sequence[Any]]:
        """Yield them, once."""
        ...

    def close(self) -> None:
        """Give up the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlReader:
    """Reads a database for a tool; `path` may have `{tenant}` in it, `dsn` is PostgreSQL's."""

    engine: Engine
    path: str
    dsn: Credential
    privileged: bool
    max_rows: int
    max_bytes: int
    timeout_s: float

    def query(self, context: ToolContext, sql: str, parameters: Sequence[Any] = ()) -> dict[str, Any]:
        """Run one statement that reads, and return its columns and first rows."""
        try:
            seconds = min(self.timeout_s, context.deadline_s)
            with self._opened(context, seconds) as (interrupt, run), _within(seconds, interrupt):
                columns, rows = run(sql, parameters, self.max_rows + 1)
                with closing(rows):  # before the connection
                    return self._result(columns, rows)
        except MemoryError:
            raise ToolError("the query takes more memory than it may have") from None
        except (sqlite3.Error, OverflowError) as error:
            raise ToolError(f"the query was not run: {error}") from None

    def _opened(self, context: ToolContext, seconds: float) -> AbstractContextManager[tuple[Callable[[], None], Run]]:
        """Return the open database of the call's tenant: what interrupts a query, and what runs one."""
        if self.engine == "postgres":
            return postgres.opened(self.dsn.read(context), seconds=seconds, privileged=self.privileged)
        path = Path(self.path.replace(_TENANT, context.tenant))
        if not path.is_file():
            raise ToolError("the database is not there, where tools run")
        return _sqlite(path) if self.engine == "sqlite" else _duckdb(path)

    def _result(self, names: list[str], rows: Rows) -> dict[str, Any]:
        columns = [_text(name) for name in names]
        if len(orjson.dumps(columns)) > _MAX_COLUMN_BYTES:
            raise ToolError("the names of the columns are too long: select fewer")
        found: list[list[Any]] = []
        size = 0
        for row in rows:
            shown = [_json(value) for value in row]
            size += len(orjson.dumps(shown)) + 1
            if len(found) == self.max_rows or size > self.max_bytes:
                return {"columns": columns, "rows": found, "truncated": True}
            found.append(shown)
        return {"columns": columns, "rows": found, "truncated": False}


@contextmanager
def _within(seconds: float, interrupt: Callable[[], None]) -> Iterator[None]:
    """Have a query interrupted when its time is over, and say that this was why."""
    with interrupted_after(seconds, interrupt) as late:
        try:
            yield
        except Exception:
            if late.is_set():
                raise ToolError(f"the query did not end within {seconds:g} s") from None
            raise


_COMPUTING = "unnest range generate_series repeat repeat_row json_each json_tree histogram histogram_values"
_TELLING = "duckdb_tables duckdb_columns duckdb_views duckdb_constraints duckdb_indexes duckdb_types duckdb_functions"
_ZONES = "pg_timezone_names icu_calendar_names"
_TABLE_FUNCTIONS = frozenset(f"{_COMPUTING} {_TELLING} {_ZONES} pragma_table_info".split())
"""Those of DuckDB that compute, or tell what there is.  Others read files, run statements and set options."""

Run = Callable[[str, Sequence[Any], int], tuple[list[str], Rows]]
"""Runs a statement with values for its parameters, for so many rows; returns its columns, and the rows to come."""


@contextmanager
def _sqlite(path: Path) -> Iterator[tuple[Callable[[], None], Run]]:
    uri = f"file:{quote(str(path))}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, check_same_thread=False)) as connection:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.text_factory = lambda data: data.decode("utf-8", "replace")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_BYTES * 8)
        connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, _MAX_SQL * 4)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        connection.set_authorizer(_authorized)

        def run(sql: str, parameters: Sequence[Any], limit: int) -> tuple[list[str], Rows]:
            try:
                cursor = connection.execute(sql, tuple(parameters))
            except sqlite3.Warning as error:  # several statements
                raise ToolError(f"sql: {error}") from None
            if cursor.description is None:
                raise ToolError("sql: give one SELECT statement")
            return [each[0] for each in cursor.description], cursor

        yield connection.interrupt, run


def _authorized(action: int, first: str | None, second: str | None, database: str | None, source: str | None) -> int:
    """Say whether a part of a statement may be; asked by SQLite for each, and what it does not know is denied."""
    if action in _ALLOWED:
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() not in _DENIED_FUNCTIONS:
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_PRAGMA and (first or "").lower() in _ALLOWED_PRAGMAS:
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_UPDATE and first in ("sqlite_master", "sqlite_temp_master"):
        return sqlite3.SQLITE_OK  # a function that is read as a table; a real one finds a database that is read-only
    return sqlite3.SQLITE_DENY


@contextmanager
def _duckdb(path: Path) -> Iterator[tuple[Callable[[], None], Run]]:
    import duckdb  # takes a while, and few need it

    try:
        with closing(duckdb.connect(str(path), read_only=True, config=_DUCKDB)) as connection:
            connection.execute("SET python_enable_replacements = false")  # no variable of ours is a table
            connection.execute("SET lock_configuration = true")

            def run(sql: str, parameters: Sequence[Any], limit: int) -> tuple[list[str], Rows]:
                statements = connection.extract_statements(sql)
                if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                    raise ToolError("sql: give one SELECT statement")
                serialized = connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()[0][0]
                _check_table_functions(serialized)
                relation = connection.sql(sql, params=list(parameters) or None)
                return list(relation.columns), _batches(relation.to_arrow_reader(limit))

            yield connection.interrupt, run
    except duckdb.Error as error:
        raise ToolError(f"the query was not run: {text_of(error)}") from None


def _check_table_functions(serialized: str) -> None:
    """Raise `ToolError` if a statement, as DuckDB's parser serialized it, calls a function as a table that may act."""
    try:
        left = [json.loads(serialized)]
    except RecursionError:
        raise ToolError("sql: it is nested too deeply") from None
    if left[0].get("error") is not False:
        raise ToolError(f"sql: {left[0].get('error_message')}")
    while left:
        part = left.pop()
        if isinstance(part, dict):
            function = part.get("function")
            if part.get("type") == "TABLE_FUNCTION" and not (
                isinstance(function, dict) and str(function.get("function_name")).lower() in _TABLE_FUNCTIONS
            ):
                name = function.get("function_name") if isinstance(function, dict) else function
                raise ToolError(f"sql: {name!a:.80} is none of the functions that are read as tables here")
            left.extend(part.values())
        elif isinstance(part, list):
            left.extend(part)


def _batches(reader: Any) -> Generator[Sequence[Any], None, None]:
    """Yield rows of an Arrow reader, which needs no library for points of time with a zone, and closes after all."""
    with closing(reader):
        for batch in reader:
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _json(value: Any, depth: int = 0) -> Any:
    """Return a database's value as JSON has it, exact ones that it does not hold as text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return CONTROLS.sub("\ufffd", value)
    if isinstance(value, int):
        return value if abs(value) <= _MAX_SAFE_INTEGER else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal) and value.as_tuple().exponent == 0:  # of a sum of whole numbers
        return _json(int(value))
    if depth < _MAX_DEPTH and isinstance(value, dict):
        return {_text(key): _json(each, depth + 1) for key, each in value.items()}
    if depth < _MAX_DEPTH and isinstance(value, list | tuple):
        return [_json(each, depth + 1) for each in value]
    return _text(value)


def _text(value: Any) -> str:
    return CONTROLS.sub("\ufffd", str(value))


def sql_query(
    path: str | Path = "",
    *,
    engine: Engine | None = None,
    secret: str = "",
    secret_env: str = "",
    secret_file: str = "",
    privileged: bool = False,
    max_rows: int = MAX_ROWS,
    max_bytes: int = MAX_BYTES,
    timeout: float = 10.0,
    scopes: Iterable[str] = (),
    trusted_output: bool = False,
    name: str = "sql_query",
    description: str = "",
) -> Tool:
    """Make a tool that runs one SELECT on the database at `path`, which tells SQLite from DuckDB by its ending.

    PostgreSQL is reached by a DSN: the tenant's `secret` of that name, or one for all in the environment variable
    `secret_env` or the file `secret_file`, where tools run.  Its role must be none that could do more by a SELECT than
    read, unless it is `privileged`.  `{tenant}` in the path is the tenant's id; without it every tenant that sees the
    tool reads the same database.  Each query has a process of its own, `timeout` seconds, and returns at most
    `max_rows` rows, of `max_bytes` together.
    """
    text = str(path)
    dsn = Credential(secret, secret_env, secret_file).checked(name)
    by_secret = bool(dsn) or text.startswith(("postgres://", "postgresql://"))  # which is refused, and not repeated
    found = engine or ("postgres" if by_secret else _engine_of(text))
    if found is None or found not in get_args(Engine):
        raise InvalidConfig(f"{name}: {text!r:.200} does not tell the engine: give engine='sqlite' or 'duckdb'")
    if found == "postgres":
        _check_dsn(name, text, dsn)
    elif by_secret or privileged:
        raise InvalidConfig(f"{name}: a secret and privileged are for PostgreSQL: {found} has a path")
    elif not _is_path(text):
        raise InvalidConfig(f"{name}: path {text!r:.200} is absolute, and has nothing in braces but {_TENANT}")
    if not (0 < max_rows <= 100_000 and 0 < max_bytes <= 4 * 1024 * 1024 and 0 < timeout <= 3600):
        raise InvalidConfig(f"{name}: max_rows is up to 100,000, max_bytes up to 4 MiB, timeout up to 3,600")
    reader = SqlReader(
        engine=found,
        path=text,
        dsn=dsn,
        privileged=privileged,
        max_rows=max_rows,
        max_bytes=max_bytes,
        timeout_s=timeout,
    )
    mark = "$1, $2 and so on" if found == "postgres" else "each ?"
    scalar = {"type": ["string", "number", "boolean", "null"]}
    return Tool.from_schema(
        name,
        {
            "type": "object",
            "properties": {
                "sql": {"type": "string", "maxLength": _MAX_SQL, "description": "One SELECT statement."},
                "parameters": {"type": "array", "items": scalar, "maxItems": 100, "description": f"Values for {mark}."},
            },
            "required": ["sql"],
            "additionalProperties": False,
        },
        reader.query,
        effect="read",
        timeout=timeout + _MARGIN_S,
        process=ProcessLimits(memory_bytes=MEMORY_BYTES),
        scopes=scopes,
        secrets=dsn.names,
        trusted_output=trusted_output,
        description=description or f"Run one SELECT on a {found} database; the first {max_rows} rows are returned.",
        max_output_bytes=max_bytes + 128 * 1024,
    )


def _engine_of(path: str) -> Engine | None:
    return "duckdb" if path.endswith((".duckdb", ".ddb")) else "sqlite" if _SQLITE.search(path) else None


def _is_path(text: str) -> bool:
    return Path(text).is_absolute() and not re.search(r"[{}]", text.replace(_TENANT, ""))


def _check_dsn(name: str, path: str, dsn: Credential) -> None:
    """Raise `InvalidConfig` unless it is said where the DSN is, and PostgreSQL's client is installed."""
    if path or not dsn:
        text = "a PostgreSQL database has no path: give secret, secret_env or secret_file, which say where its DSN is"
        raise InvalidConfig(f"{name}: {text}")
    if find_spec("psycopg") is None:
        raise InvalidConfig(f"{name}: PostgreSQL needs psycopg: pip install 'airside[postgres]'")


_SQLITE = re.compile(r"\.(?:db|db3|sqlite|sqlite3)$")
