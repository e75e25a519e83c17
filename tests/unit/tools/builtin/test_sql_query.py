"""`sql_query`: what it reads, and that it does nothing else; SQLite and DuckDB by the same tests."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest

from airside.stack.errors import InvalidConfig
from airside.stack.values import ToolResult
from airside.tools import sql_query
from airside.tools.dispatch import Dispatcher
from airside.tools.tool import Tool, ToolError
from tests.helpers import EXECUTOR, KEY, SECOND, granted
from tests.unit.tools.builtin.contexts import context

TABLE = "CREATE TABLE orders (id INTEGER, customer TEXT, cents INTEGER)"
ROWS = [(1, "kim", 1200), (2, "ann", 50), (3, "kim", None)]


@pytest.fixture(params=["sqlite", "duckdb"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A database of each engine, with one table."""
    path = tmp_path / ("shop.db" if request.param == "sqlite" else "shop.duckdb")
    connection: Any = sqlite3.connect(path) if request.param == "sqlite" else duckdb.connect(str(path))
    connection.execute(TABLE)
    connection.executemany("INSERT INTO orders VALUES (?, ?, ?)", ROWS)
    connection.commit()
    connection.close()
    (tmp_path / "secret.csv").write_text("secret\n1\n")
    return path


def ask(tool: Tool, sql: str, *parameters: Any) -> dict[str, Any]:
    """Call the tool."""
    found: dict[str, Any] = tool(context(), sql, list(parameters))
    return found


def test_a_select_returns_columns_and_rows(database: Path) -> None:
    """With the values of its parameters bound, not written into it."""
    tool = sql_query(database)
    assert ask(tool, "SELECT id, cents FROM orders WHERE customer = ? ORDER BY id", "kim") == {
        "columns": ["id", "cents"],
        "rows": [[1, 1200], [3, None]],
        "truncated": False,
    }
    hostile = "'; DROP TABLE orders; --"
    assert ask(tool, "SELECT count(*) FROM orders WHERE customer = ?", hostile)["rows"] == [[0]]
    assert ask(tool, "WITH k AS (SELECT * FROM orders) SELECT sum(cents) AS s FROM k")["rows"] == [[1250]]
    assert ask(tool, "SELECT id, id FROM orders LIMIT 0") == {"columns": ["id", "id"], "rows": [], "truncated": False}


REFUSED = [
    "INSERT INTO orders VALUES (4, 'x', 1)",
    "INSERT INTO orders VALUES (4, 'x', 1) RETURNING id",
    "WITH n AS (SELECT 1) INSERT INTO orders SELECT 1, 'x', 1 FROM n",
    "UPDATE orders SET cents = 0",
    "DELETE FROM orders",
    "UPDATE sqlite_master SET sql = ''",
    "DELETE FROM sqlite_master",
    "INSERT INTO sqlite_temp_master VALUES (1, 2, 3, 4, 5)",
    "DROP TABLE orders",
    "CREATE TABLE more (a INTEGER)",
    "CREATE TEMP TABLE more (a INTEGER)",
    "CREATE TABLE more AS SELECT * FROM orders",
    "ALTER TABLE orders ADD COLUMN x INTEGER",
    "ATTACH '{folder}/other.db' AS other",
    "ATTACH ':memory:' AS other",
    "DETACH main",
    "VACUUM",
    "VACUUM INTO '{folder}/copy.db'",
    "PRAGMA query_only = OFF",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA writable_schema = ON",
    "PRAGMA database_list",
    "BEGIN",
    "COMMIT",
    "SAVEPOINT a",
    "ANALYZE",
    "REINDEX",
    "SELECT load_extension('{folder}/x.so')",
    "SELECT readfile('/etc/passwd')",
    "SELECT writefile('{folder}/x', 'y')",
    "SELECT fts3_tokenizer('simple')",
    "SELECT * FROM '{folder}/secret.csv'",
    "SELECT * FROM read_csv('{folder}/secret.csv')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_blob('/etc/passwd')",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM query('INSERT INTO orders VALUES (4, NULL, 1)')",
    "SELECT * FROM sqlite_scan('{folder}/shop.db', 'orders')",
    "SELECT * FROM query('SELECT 1')",
    "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
    "SELECT * FROM orders WHERE id IN (SELECT id FROM query_table('orders'))",
    "WITH a AS (SELECT * FROM enable_logging(storage = 'file', storage_path = '{folder}/log')) SELECT * FROM a",
    "SELECT * FROM enable_profiling(save_location = '{folder}/profile')",
    "SELECT * FROM checkpoint()",
    "SELECT * FROM pandas_scan(1)",
    "SELECT " + "(" * 5_000 + "1" + ")" * 5_000,
    "SELECT getenv('HOME')",
    "SELECT * FROM frame",
    "COPY orders TO '{folder}/out.csv'",
    "COPY (SELECT 1) TO '{folder}/out.csv'",
    "COPY orders FROM '{folder}/secret.csv'",
    "EXPORT DATABASE '{folder}/out'",
    "IMPORT DATABASE '{folder}/out'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET threads = 8",
    "SET enable_external_access = true",
    "RESET threads",
    "CHECKPOINT",
    "CALL pragma_version()",
    "PREPARE v AS SELECT 1",
    "USE memory",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP TABLE orders",
    "",
    ";",
    "-- nothing",
    "no sql at all",
    "SELECT nothing FROM orders",
    "SELECT ? FROM orders",
]


@pytest.mark.parametrize("sql", REFUSED)
def test_what_is_no_select_of_the_database_is_not_run(database: Path, sql: str) -> None:
    """Whatever the statement is, the database is as it was, and no file is made or read."""
    frame = duckdb.sql("SELECT 1 AS a").to_arrow_table()  # which a look at the caller's variables would find
    before, files = database.read_bytes(), sorted(database.parent.iterdir())
    with pytest.raises(ToolError):
        ask(sql_query(database), sql.format(folder=database.parent))
    assert database.read_bytes() == before and sorted(database.parent.iterdir()) == files and frame is not None


def test_what_tables_there_are_can_be_asked(tmp_path: Path, database: Path) -> None:
    """By the means of each engine, so that an agent can find its way."""
    tool = sql_query(database)
    if database.suffix == ".db":
        assert ask(tool, "SELECT name FROM sqlite_master")["rows"] == [["orders"]]
        names = ask(tool, "SELECT name FROM pragma_table_info('orders')")["rows"]
    else:
        assert ask(tool, "SELECT table_name FROM duckdb_tables()")["rows"] == [["orders"]]
        assert ask(tool, "SELECT * FROM (SELECT unnest([?, 2])), range(1)", 1)["rows"] == [[1, 0], [2, 0]]
        assert ask(tool, "SHOW TABLES")["rows"] == [["orders"]]
        names = [row[:1] for row in ask(tool, "DESCRIBE orders")["rows"]]
    assert names == [["id"], ["customer"], ["cents"]]


def test_rows_and_bytes_are_bounded_and_time_too(database: Path) -> None:
    """What is left out is said; a query without end is interrupted."""
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT {} FROM n"
    tool = sql_query(database, max_rows=2)
    assert ask(tool, "SELECT id FROM orders ORDER BY id") == {"columns": ["id"], "rows": [[1], [2]], "truncated": True}
    small = sql_query(database, max_bytes=20)
    assert ask(small, "SELECT customer FROM orders ORDER BY id")["rows"] == [["kim"], ["ann"]]
    with pytest.raises(ToolError, match="did not end within"):
        ask(sql_query(database, timeout=0.001), endless.format("sum(i)"))


def test_values_that_json_does_not_hold_are_text(database: Path) -> None:
    """Exact ones among them; bytes are base64, and no control character spoils the result."""
    tool = sql_query(database)
    if database.suffix == ".db":
        found = ask(tool, "SELECT x'00ff', 9223372036854775807, 1e999, 'a' || char(0) || 'b', CAST(x'ff' AS TEXT)")
        assert found["rows"] == [[{"base64": "AP8="}, 9223372036854775807, "inf", "a\ufffdb", "\ufffd"]]
        return
    exact = "170141183460469231731687303715884105727"
    sql = f"SELECT {exact}::HUGEINT, 1.50::DECIMAL(9,2), DATE '2026-01-02', TIMESTAMPTZ '2026-01-02 03:04:05+00',"
    found = ask(tool, f"{sql} [1, 2], {{'a': 'b'}}, 'nan'::DOUBLE, '\\xAA'::BLOB")
    assert found["rows"][0][0] in (exact, 1.7014118346046923e38) and found["rows"][0][1:3] == ["1.50", "2026-01-02"]
    assert found["rows"][0][3].startswith("2026-01-02T")
    assert found["rows"][0][4:] == [[1, 2], {"a": "b"}, "nan", {"base64": "qg=="}]


def test_a_tenant_reads_its_own_database(tmp_path: Path) -> None:
    """Where the path names it; what is not there is said to be so."""
    for tenant in ("acme", "globex"):
        connection = sqlite3.connect(tmp_path / f"{tenant}.db")
        connection.execute("CREATE TABLE who AS SELECT ? AS name", (tenant,))
        connection.commit()
        connection.close()
    tool = sql_query(tmp_path / "{tenant}.db")
    for tenant in ("acme", "globex"):
        assert tool(context(tenant=tenant), "SELECT name FROM who")["rows"] == [[tenant]]
    with pytest.raises(ToolError, match="not there"):
        tool(context(tenant="nobody"), "SELECT name FROM who")
    assert not (tmp_path / "nobody.db").exists()


def test_what_is_no_database_is_said_to_be_none(tmp_path: Path) -> None:
    """A file of something else."""
    for name in ("a.db", "a.duckdb"):
        (tmp_path / name).write_text("no database, and long enough to be read as one" * 100)
        with pytest.raises(ToolError):
            ask(sql_query(tmp_path / name), "SELECT * FROM orders")


@pytest.mark.parametrize(
    "options",
    [
        {"path": "relative.db"},
        {"path": "/srv/data"},
        {"path": "/srv/{principal}.db"},
        {"path": "/srv/a.db", "engine": "postgres"},
        {"path": "/srv/a.db", "max_rows": 0},
        {"path": "/srv/a.db", "timeout": 0},
    ],
)
def test_a_tool_that_could_read_nothing_is_refused_when_it_is_made(options: dict[str, Any]) -> None:
    """The error says what to give."""
    with pytest.raises(InvalidConfig):
        sql_query(**options)


@pytest.fixture
async def dispatcher(database: Path) -> AsyncIterator[Dispatcher]:
    """A dispatcher of the tool."""
    made = Dispatcher(
        [sql_query(database, max_bytes=1000)], seal_key=KEY, executor_id=EXECUTOR, now_us=lambda: 10 * SECOND
    )
    yield made
    made.close()


async def test_a_query_has_a_process_of_its_own_whose_memory_is_bounded(database: Path, dispatcher: Dispatcher) -> None:
    """So that a value of gigabytes ends its own process alone."""
    spec = sql_query(database, max_bytes=1000).spec

    async def run(sql: str) -> ToolResult:
        arguments = msgspec.json.encode({"sql": sql})
        request = granted(spec, arguments, timeout_ms=spec.timeout_ms, nonce=os.urandom(12), key=os.urandom(4).hex())
        return (await dispatcher.execute(request)).result

    huge = "randomblob(2000000000)" if database.suffix == ".db" else "repeat('x', 3000000000)"
    found = await run(f"SELECT {huge}")
    assert not found.ok and any(words in str(found.error) for words in ("Out of Memory", "too big"))
    found = await run("SELECT customer FROM orders ORDER BY id LIMIT 1")
    assert found.ok, found.error
    assert found.value()["rows"] == [["kim"]]
