"""`sql_query` on PostgreSQL: what it reads, that it does nothing else, and that nothing tells the DSN.

A real server, in a folder of its own, that listens on a unix socket alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from airside.stack.errors import InvalidConfig
from airside.stack.values import ToolResult
from airside.tools import sql_query
from airside.tools.builtin.postgres import _terms
from airside.tools.dispatch import Dispatcher
from airside.tools.secrets.known import Secrets
from airside.tools.tool import Tool, ToolError
from tests.helpers import EXECUTOR, KEY, granted
from tests.postgres import Server
from tests.unit.tools.builtin.contexts import context

PASSWORD = "sesame-open-1"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server's folder, which is its socket's."""
    started = Server("-c fsync=off", hba="local all reader scram-sha-256\nlocal all all trust\n")
    try:
        with admin(started.folder) as connection:
            connection.execute(f"CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'")
            connection.execute("CREATE TABLE orders (id int, customer text, cents int)")
            connection.execute("INSERT INTO orders VALUES (1, 'kim', 1200), (2, 'ann', 50), (3, 'kim', NULL)")
            connection.execute("CREATE SEQUENCE numbers")
            connection.execute("GRANT ALL ON orders, numbers TO reader; GRANT CREATE ON SCHEMA public TO reader")
        yield started.folder
    finally:
        started.close()


def admin(folder: str) -> psycopg.Connection[Any]:
    """Return a connection of the server's superuser."""
    return psycopg.connect(host=folder, user="postgres", dbname="postgres", autocommit=True)


@pytest.fixture
def dsn(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The DSN of a role that may read and write, where tools find it."""
    text = f"host={server} user=reader dbname=postgres password={PASSWORD}"
    monkeypatch.setenv("SHOP_DSN", text)
    return text


def ask(sql: str, *parameters: Any, tool: Tool | None = None) -> dict[str, Any]:
    """Call the tool."""
    found: dict[str, Any] = (tool or sql_query(secret_env="SHOP_DSN"))(context(), sql, list(parameters))
    return found


def test_a_select_returns_columns_and_rows(dsn: str) -> None:
    """With the values of its parameters bound, not written into it."""
    assert ask("SELECT id, cents FROM orders WHERE customer = $1 ORDER BY id", "kim") == {
        "columns": ["id", "cents"],
        "rows": [[1, 1200], [3, None]],
        "truncated": False,
    }
    assert ask("SELECT count(*) FROM orders WHERE customer = $1", "'; DROP TABLE orders; --")["rows"] == [[0]]
    assert ask("SELECT '%s', 5 % 3, $1::bool", True)["rows"] == [["%s", 2, True]]
    assert ask("SELECT 1 AS a, 2 AS a LIMIT 0") == {"columns": ["a", "a"], "rows": [], "truncated": False}


def test_what_json_and_python_do_not_hold_is_text(dsn: str) -> None:
    values = "'infinity'::date, '4000-01-01 BC'::date, 'NaN'::numeric, 1e30::numeric, 1.5::numeric, '\\x00ff'::bytea"
    more = "'{\"a\": [1]}'::jsonb, ARRAY['x', NULL], '1 month'::interval, '10.0.0.0/8'::inet, 'nan'::float8"
    others = [{"a": [1]}, ["x", None], "1 mon", "10.0.0.0/8", "nan"]
    assert ask(f"SELECT {values}, {more}")["rows"] == [
        ["infinity", "4000-01-01 BC", "NaN", str(10**30), "1.5", {"base64": "AP8="}, *others]
    ]


REFUSED = [
    "INSERT INTO orders VALUES (4, 'x', 1)",
    "UPDATE orders SET cents = 0",
    "DELETE FROM orders RETURNING id",
    "WITH n AS (INSERT INTO orders VALUES (4, 'x', 1) RETURNING id) SELECT * FROM n",
    "SELECT 1; DROP TABLE orders",
    "SELECT 1; COMMIT; DELETE FROM orders",
    "SELECT * INTO copied FROM orders",
    "SELECT * FROM orders FOR UPDATE",
    "SELECT nextval('numbers')",
    "SELECT setval('numbers', 5)",
    "SELECT set_config('transaction_read_only', 'off', true)",
    "SELECT set_config('role', 'postgres', false)",
    "SELECT set_config('session_authorization', 'postgres', false)",
    "SELECT query_to_xml('DELETE FROM orders', true, true, '')",
    "SELECT query_to_xml('COPY orders TO PROGRAM ''true''', true, true, '')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_ls_dir('/')",
    "SELECT pg_reload_conf()",
    "COPY orders TO STDOUT",
    "COPY orders TO PROGRAM 'true'",
    "COPY orders FROM '/etc/passwd'",
    "EXPLAIN ANALYZE DELETE FROM orders",
    "CREATE TABLE more (a int)",
    "CREATE TEMP TABLE more (a int)",
    "DO $$ BEGIN DELETE FROM orders; END $$",
    "SET transaction_read_only = off",
    "BEGIN",
    "COMMIT",
    "LISTEN a",
    "LOAD 'x'",
    "VACUUM",
    "CALL x()",
    "EXECUTE x",
    "FETCH ALL FROM airside",
    "",
    "--",
    "SELECT $1",
    "SELECT 'a\x00b'",
]


@pytest.mark.parametrize("sql", REFUSED)
def test_what_is_no_select_or_changes_something_is_refused(server: str, dsn: str, sql: str) -> None:
    """The role may write all of it: it is the statement that may not."""
    with admin(server) as connection:
        before = connection.execute("SELECT * FROM orders ORDER BY id").fetchall()
        with pytest.raises(ToolError, match="was not run"):
            ask(sql)
        assert connection.execute("SELECT * FROM orders ORDER BY id").fetchall() == before


def test_what_a_read_only_transaction_lets_a_function_do_is_never_committed(server: str, dsn: str) -> None:
    """Older servers write large objects in one, and all of them notify."""
    with admin(server) as connection:
        connection.execute("LISTEN airside")
        ask("SELECT pg_notify('airside', 'x')")
        if connection.info.server_version < 160_000:
            ask("SELECT lo_from_bytea(77, 'x')")
        assert connection.execute("SELECT count(*) FROM pg_largeobject_metadata").fetchone() == (0,)
        assert list(connection.notifies(timeout=0)) == []


def test_what_comes_back_is_bounded_in_rows_and_bytes(dsn: str) -> None:
    """No more is fetched than is returned, but for a few rows: the hundredth would never come."""
    tool = sql_query(secret_env="SHOP_DSN", max_rows=3, max_bytes=1000)
    slow = "SELECT i, CASE WHEN i = 100 THEN pg_sleep(600) END FROM (SELECT generate_series(1, 100) AS i) AS n"
    counted = ask(slow, tool=tool)
    assert [row[0] for row in counted["rows"]] == [1, 2, 3] and counted["truncated"]
    assert ask("SELECT repeat('x', 2000)", tool=tool) == {"columns": ["repeat"], "rows": [], "truncated": True}


def test_a_query_is_cancelled_on_the_server_when_its_time_is_over(server: str, dsn: str) -> None:
    tool = sql_query(secret_env="SHOP_DSN", timeout=0.2)
    with pytest.raises(ToolError, match=r"did not end within 0\.2 s"):
        ask("SELECT pg_sleep(600)", tool=tool)
    busy = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'reader' AND state = 'active'"
    with admin(server) as connection:
        assert connection.execute(busy).fetchone() == (0,)


async def test_in_a_process_of_its_own_it_says_the_same(dsn: str) -> None:
    tool = sql_query(secret_env="SHOP_DSN")
    dispatcher = Dispatcher([tool], seal_key=KEY, executor_id=EXECUTOR, now_us=lambda: 0)
    try:
        arguments = msgspec.json.encode({"parameters": [1], "sql": "SELECT customer FROM orders WHERE id = $1"})
        result: ToolResult = (await dispatcher.execute(granted(tool.spec, arguments))).result
    finally:
        dispatcher.close()
    assert result.ok and result.value()["rows"] == [["kim"]], result.error


# Roles.

OTHER = "CREATE ROLE other; GRANT EXECUTE ON FUNCTION pg_ls_dir(text) TO other; GRANT other TO able"


@pytest.mark.parametrize(
    ("grants", "power"),
    [
        ("ALTER ROLE able SUPERUSER", "is a superuser"),
        ("GRANT postgres TO able", "is a superuser"),
        ("GRANT pg_read_server_files TO able", "may act as pg_read_server_files"),
        ("GRANT pg_execute_server_program TO able", "may act as pg_execute_server_program"),
        ("GRANT EXECUTE ON FUNCTION pg_read_file(text) TO able", "may call pg_read_file"),
        (OTHER, "may call pg_ls_dir"),
    ],
)
def test_a_role_that_could_do_more_by_a_select_is_refused_unless_told(
    server: str, monkeypatch: pytest.MonkeyPatch, grants: str, power: str
) -> None:
    """Also where it is another role's power that its session may become."""
    monkeypatch.setenv("ABLE_DSN", f"host={server} user=able dbname=postgres")
    with admin(server) as connection:
        connection.execute("CREATE ROLE able LOGIN NOINHERIT")
        try:
            connection.execute(grants)
            with pytest.raises(ToolError, match=power):
                ask("SELECT 1", tool=sql_query(secret_env="ABLE_DSN"))
            assert ask("SELECT 1", tool=sql_query(secret_env="ABLE_DSN", privileged=True))["rows"] == [[1]]
        finally:
            for role in ("able", "other")[: 1 + ("other" in grants)]:
                connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


# Secrets.


@pytest.mark.parametrize(
    "wrong",
    [
        "host={server} user=reader dbname=postgres password=wrong-password-9",
        "host={server} user=stranger-9 dbname=postgres password=wrong-password-9",
        "host={server} user=postgres dbname=hidden-shop-9 password=wrong-password-9",
        "host=/nowhere-9 user=stranger-9 password=wrong-password-9",
        "postgresql://stranger-9:wrong-password-9@127.0.0.1:1/hidden-shop-9",
        "postgresql://stranger-9:wrong-password-9@[::1",
        "host=/nowhere-9 wrong-password-9",
        "host=/nowhere-9 password=wrong-password-9 unheard-of-9=1",
    ],
)
def test_no_error_tells_anything_of_the_dsn(server: str, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    monkeypatch.setenv("WRONG_DSN", wrong.replace("{server}", server))
    with pytest.raises(ToolError, match="no connection to the database") as refused:
        ask("SELECT 1", tool=sql_query(secret_env="WRONG_DSN"))
    assert not any(part in str(refused.value) for part in ("-9", server, "127.0.0.1"))
    assert refused.value.__cause__ is None and refused.value.__suppress_context__


def test_each_tenant_may_have_a_dsn_of_its_own(server: str, dsn: str, tmp_path: Path) -> None:
    (tmp_path / "dsn").write_text(dsn)
    assert ask("SELECT 1", tool=sql_query(secret_file=f"{tmp_path}/dsn"))["rows"] == [[1]]
    tool = sql_query(secret="shop_dsn")
    mine = replace(context(), secrets=Secrets({"shop_dsn": dsn}))
    assert tool.secrets == ("shop_dsn",) and tool(mine, "SELECT 1")["rows"] == [[1]]
    with pytest.raises(ToolError, match="no credential"):
        ask("SELECT 1", tool=sql_query(secret_env="NOBODYS_DSN"))


def test_over_a_network_the_servers_certificate_is_checked_unless_the_dsn_says_otherwise() -> None:
    assert _terms("host=db.example", 1.0)["sslmode"] == "verify-full"
    assert _terms("host=db.example sslmode=require", 1.0)["sslmode"] == "require"
    assert _terms("host=localhost,db.example", 1.0)["sslmode"] == "verify-full"
    assert "sslmode" not in _terms("host=/run/postgresql", 1.0) and "sslmode" not in _terms("host=::1", 1.0)


def test_a_dsn_adds_options_and_takes_none_away() -> None:
    options = _terms("host=/x options='-c search_path=shop -c default_transaction_read_only=off'", 1.0)["options"]
    assert options.startswith("-c search_path=shop") and options.rindex("read_only=on") > options.index("read_only=off")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"path": "postgresql://kim:sesame@db/shop", "engine": "postgres"}, "has no path"),
        ({"path": "postgresql://kim:sesame@db/shop"}, "has no path"),
        ({"engine": "postgres"}, "give secret, secret_env or secret_file"),
        ({"secret_env": "A", "secret_file": "/a"}, "only one is given"),
        ({"secret_env": "A", "path": "/a.db"}, "has no path"),
        ({"path": "/a.db", "engine": "sqlite", "secret_env": "A"}, "are for PostgreSQL"),
        ({"path": "/a.db", "privileged": True}, "are for PostgreSQL"),
    ],
)
def test_a_tool_that_does_not_say_where_its_dsn_is_is_refused(options: dict[str, Any], told: str) -> None:
    """And is told so without what it gave, which may be the DSN itself."""
    with pytest.raises(InvalidConfig, match=told) as refused:
        sql_query(**options)
    assert "sesame" not in refused.value.message
