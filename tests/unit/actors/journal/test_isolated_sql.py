"""A tenant's SELECT: whatever it names, it has that tenant's rows alone, and takes no more than it may."""

from __future__ import annotations

import io
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airside.actors.journal import isolated_sql
from airside.actors.journal.isolated_sql import _write_rows, answer_apart
from airside.actors.journal.projection import QUERIES
from airside.actors.journal.sql_apart import SqlAnswer, SqlProblem, SqlQuestion, answer_of
from airside.stack.errors import InvalidInput
from airside.tools.sandbox.probe import Reached

SECRET = "quetzal"
"""What only the other tenant's rows say."""


@pytest.fixture(scope="module")
def tables() -> Iterator[duckdb.DuckDBPyConnection]:
    """The journal's tables, with rows of two tenants."""
    database = duckdb.connect(":memory:")
    database.execute(QUERIES["schema"])
    for tenant, word in (("acme", "ours"), ("beta", SECRET)):
        run = f"run_{word}"
        database.execute(
            "INSERT INTO events SELECT ?, i, ?, i, 1, 1, 0, 100 + i, 'Note', ?, 'ab'::BLOB FROM range(5) t(i)",
            [tenant, run, json.dumps({"said": word})],
        )
        database.execute("INSERT INTO runs VALUES (?, ?, ?, '', '', ?, ?, 1, 100)", [run, tenant, word, word, word])
        database.execute(
            "INSERT INTO outcomes VALUES (?, ?, 'completed', 'completed', 104, 1, 1, 1, 1, 1, ?)",
            [run, tenant, json.dumps({"said": word})],
        )
        database.execute("INSERT INTO streams VALUES (?)", [run])
    database.execute("INSERT INTO projected VALUES (?, '1', 10, 'ab'::BLOB)", [SECRET])
    yield database
    database.close()


def answered(
    tables: duckdb.DuckDBPyConnection, sql: str, *parameters: Any, tenant: str | None = "acme", **bounds: int
) -> SqlAnswer | SqlProblem:
    """Return what the program would answer, without a process."""
    wanted = {"max_rows": 1_000, "max_bytes": 1_000_000} | bounds
    written = io.BytesIO()
    written.write(msgspec.json.encode(SqlQuestion(sql, list(parameters), **wanted)) + b"\n")
    _write_rows(written, tables, tenant, 0)
    written.seek(0)
    return answer_of(written)


def rows_of(answer: SqlAnswer | SqlProblem) -> list[Any]:
    """Return the rows of an answer."""
    assert isinstance(answer, SqlAnswer), answer
    return [msgspec.json.decode(row) for row in answer.rows]


ATTACKS = [
    "SELECT * FROM events",
    "SELECT * FROM main.events",
    "SELECT * FROM memory.main.events",
    "SELECT * FROM runs UNION ALL SELECT * FROM runs",
    "SELECT * FROM outcomes WHERE tenant = 'beta' OR true",
    "SELECT * FROM events WHERE tenant <> 'acme'",
    "WITH events AS (SELECT * FROM main.events) SELECT * FROM events",
    "WITH RECURSIVE t AS (SELECT * FROM events UNION ALL SELECT * FROM t WHERE false) SELECT * FROM t",
    "SELECT * FROM journal.events",
    "SELECT * FROM journal.main.events",
    "SELECT * FROM streams",
    "SELECT * FROM projected",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM information_schema.columns",
    "SELECT * FROM duckdb_tables()",
    "SELECT * FROM duckdb_databases()",
    "SELECT * FROM duckdb_columns()",
    "SELECT * FROM duckdb_views()",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM duckdb_logs()",
    "SELECT * FROM duckdb_temporary_files()",
    "SELECT * FROM pragma_database_size()",
    "SELECT * FROM pragma_storage_info('events')",
    "SELECT * FROM pg_catalog.pg_class",
    "SELECT * FROM sqlite_master",
    "SELECT * FROM query('SELECT * FROM events')",
    "SELECT * FROM query_table('events')",
    "SELECT * FROM query_table(['runs'])",
    "SELECT getvariable('x'), current_setting('temp_directory')",
    "SHOW ALL TABLES",
    "SUMMARIZE events",
    "FROM incoming",
    "FROM asked",
    "FROM rows",
    "FROM tables",
    "SELECT error(body) FROM events",
    "SELECT CAST(body AS INTEGER) FROM events",
    "SELECT CAST(string_agg(body) AS DATE) FROM events",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_blob('/proc/self/environ')",
    "SELECT * FROM read_json('/etc/passwd')",
    "SELECT * FROM read_parquet('/etc/*')",
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM glob('/*')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM 'http://127.0.0.1/x.csv'",
    "SELECT * FROM parquet_metadata('/etc/passwd')",
    "SELECT * FROM arrow_scan(1, 2, 3)",
    "SELECT * FROM python_map_function(1)",
    "SELECT * FROM which_secret('s3://x', 's3')",
    "SELECT load_aws_credentials()",
]
"""SELECTs that would like to see more than there is; each is answered from the tenant's own rows, or not at all."""

REFUSED = [
    "ATTACH '/tmp/other.duckdb'",
    "ATTACH ':memory:' AS other",
    "COPY events TO '/tmp/out.csv'",
    "COPY (SELECT 1) TO '/tmp/out.parquet'",
    "EXPORT DATABASE '/tmp/out'",
    "PRAGMA database_list",
    "PRAGMA show_tables",
    "CALL pragma_version()",
    "EXPLAIN SELECT * FROM events",
    "EXPLAIN ANALYZE SELECT * FROM events",
    "SET enable_external_access = true",
    "RESET lock_configuration",
    "INSTALL httpfs",
    "LOAD httpfs",
    "CREATE TABLE x AS SELECT 1",
    "CREATE MACRO f() AS 1",
    "INSERT INTO events SELECT * FROM events",
    "DELETE FROM events",
    "USE memory",
    "CHECKPOINT",
    "VACUUM",
    "BEGIN",
    "PREPARE p AS SELECT 1",
    "SELECT 1; SELECT 2",
    "SELECT 1; ATTACH ':memory:'",
    "CREATE SECRET s (TYPE s3)",
    "",
    ";",
    "selec",
]


@pytest.mark.parametrize("sql", ATTACKS)
def test_nothing_of_another_tenant_is_in_any_answer(tables: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Neither in rows nor in what is said to be wrong; and nothing of this machine's files."""
    answer = answered(tables, sql)
    said = msgspec.json.encode(answer).decode()
    assert SECRET not in said and "beta" not in said.replace("'beta'", "") and "root:" not in said


@pytest.mark.parametrize("sql", REFUSED)
def test_what_is_not_one_select_is_refused(tables: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Before anything of it is done."""
    answer = answered(tables, sql)
    assert isinstance(answer, SqlProblem) and answer.problem and SECRET not in answer.problem


@given(text=st.text(max_size=60))
@settings(max_examples=20, deadline=None)
def test_any_text_is_answered_with_rows_or_a_problem(tables: duckdb.DuckDBPyConnection, text: str) -> None:
    """And with nothing of another tenant."""
    try:
        said = msgspec.json.encode(answered(tables, text)).decode()
    except UnicodeEncodeError:
        return  # what is no text does not come so far
    assert SECRET not in said


def test_a_tenant_sees_all_of_its_own_and_the_house_sees_all(tables: duckdb.DuckDBPyConnection) -> None:
    """In all three tables."""
    count = "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM runs), (SELECT count(*) FROM outcomes)"
    assert rows_of(answered(tables, count)) == [[5, 1, 1]]
    assert rows_of(answered(tables, count, tenant="gone")) == [[0, 0, 0]]
    assert rows_of(answered(tables, count, tenant=None)) == [[10, 2, 2]]
    assert rows_of(answered(tables, "SELECT principal FROM runs WHERE run_id = ?", "run_ours")) == [["ours"]]


def test_an_answer_is_bounded_in_rows_and_bytes(tables: duckdb.DuckDBPyConnection) -> None:
    """And says that there is more."""
    many = answered(tables, "SELECT i FROM range(100) t(i)", max_rows=7)
    assert len(rows_of(many)) == 7 and isinstance(many, SqlAnswer) and many.truncated
    exact = answered(tables, "SELECT i FROM range(7) t(i)", max_rows=7)
    assert len(rows_of(exact)) == 7 and isinstance(exact, SqlAnswer) and not exact.truncated
    large = answered(tables, "SELECT repeat('x', 600) FROM range(5)", max_bytes=1_300)
    assert len(rows_of(large)) == 2 and isinstance(large, SqlAnswer) and large.truncated


def test_every_value_has_a_form_in_json(tables: duckdb.DuckDBPyConnection) -> None:
    """Columns may have the same name."""
    sql = (
        "SELECT 1 a, 2 a, sum(n), 170141183460469231731687303715884105727::HUGEINT, 1.5::DECIMAL(4, 2), 'nan'::DOUBLE, "
        "'x'::BLOB, {'a': [1, NULL]}, DATE '2020-01-02', to_timestamp(5), INTERVAL 1 DAY, true FROM range(3) t(n)"
    )
    ((*row, interval, truth),) = rows_of(answered(tables, sql))
    huge = "170141183460469231731687303715884105727"
    expected = [1, 2, 3, huge, "1.50", "nan", "78", {"a": [1, None]}, "2020-01-02", "1970-01-01T00:00:05+00:00"]
    assert row == expected and interval == [0, 1, 0] and truth is True


# The process.


def test_the_program_answers_from_a_process_of_its_own(tables: duckdb.DuckDBPyConnection) -> None:
    """Which knows nothing of what this one's environment holds."""
    found = json.loads(
        answer_apart(tables, "SELECT tenant, count(*) n FROM events GROUP BY ALL", (), tenant="acme", since_us=103)
    )
    assert found == {"columns": [["tenant", "VARCHAR"], ["n", "BIGINT"]], "rows": [["acme", 2]], "truncated": False}
    with pytest.raises(InvalidInput, match="exactly one SELECT"):
        answer_apart(tables, "PRAGMA database_list", (), tenant="acme", since_us=0)


def test_what_takes_too_long_or_too_much_is_ended(
    tables: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal's process goes on as it was."""
    monkeypatch.setattr(isolated_sql, "SQL_S", 1.5)
    endless = "WITH RECURSIVE t(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM t) SELECT max(i) FROM t"
    with pytest.raises(InvalidInput, match="took more than"):
        answer_apart(tables, endless, (), tenant="acme", since_us=0)
    monkeypatch.setattr(isolated_sql, "MAX_TENANT_BYTES", 10)
    with pytest.raises(InvalidInput, match="since"):
        answer_apart(tables, "SELECT 1", (), tenant="acme", since_us=0)


LEFT = "/tmp/airside-left-by-a-statement"
_ESCAPING = """
import json, os, socket, sys

def tried(attempt):
    try:
        return str(attempt())
    except Exception as error:
        return type(error).__name__

sys.stdin.buffer.read()
found = [
    tried(lambda: open(FILE).read()),
    tried(lambda: socket.create_connection(("127.0.0.1", PORT), 2)),
    tried(lambda: os.kill(PID, 0)),
    tried(lambda: os.environ["PATH_OF_A_SECRET"]),
    tried(lambda: open(LEFT, "w").write("x")),
]
print(json.dumps({"columns": [], "rows": [found], "truncated": False}, separators=(",", ":")))
"""


def test_a_statement_that_took_its_process_over_would_reach_nothing(
    tables: duckdb.DuckDBPyConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file of the stack's, nobody on the machine, no other process; and it leaves nothing."""
    (tmp_path / "seal.key").write_text(SECRET)
    monkeypatch.setenv("PATH_OF_A_SECRET", SECRET)
    with socket.create_server(("127.0.0.1", 0)) as server:
        facts = {"FILE": str(tmp_path / "seal.key"), "PORT": server.getsockname()[1], "PID": os.getpid(), "LEFT": LEFT}
        given = "".join(f"{name} = {value!r}\n" for name, value in facts.items())
        program = tmp_path / "program.py"
        program.write_text(given + _ESCAPING)
        monkeypatch.setattr(isolated_sql, "_PROGRAM", str(program))
        answer = answer_apart(tables, "SELECT 1", (), tenant="acme", since_us=0)
    *kept_out, wrote = json.loads(answer)["rows"][0]
    assert all(each.endswith("Error") for each in kept_out) and SECRET not in answer.decode()
    assert not Path(LEFT).exists(), wrote


def test_without_a_sandbox_it_has_a_process_still(
    tables: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And the log says so, once."""

    async def none() -> Reached:
        return Reached("none", "there is no bwrap here")

    monkeypatch.setattr(isolated_sql, "reached_level", none)
    for _ in range(2):
        answer = answer_apart(tables, "SELECT tenant FROM runs", (), tenant="acme", since_us=0)
        assert json.loads(answer)["rows"] == [["acme"]]
    assert caplog.text.count("there is no bwrap here") == 1
