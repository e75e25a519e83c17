"""What built-in tools return fits what they declare, whatever the bytes are that they read."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import cloudpickle
import pytest

from airside.tools import http_request, send_email, sql_query, workspace_tools
from airside.tools.runners.outcomes import normalise
from airside.tools.tool import Tool
from tests.unit.tools.builtin.contexts import context
from tests.unit.tools.builtin.test_http_request import SERVERS, Network, ok

SIZE = 10_000
WORST = [b'"' * SIZE, b"\\" * SIZE, b"\n" * SIZE, b"\x7f" * SIZE, b"\x80" * SIZE, "\u2028".encode() * (SIZE // 3)]


def fits(tool: Tool, output: object) -> bool:
    """Whether an output is taken as a result."""
    result = normalise(output, tool.spec.max_output_bytes)
    return result.ok and not result.error


@pytest.mark.parametrize("data", WORST, ids=lambda data: ascii(data[:2]))
@pytest.mark.parametrize("charset", ["utf-8", "windows-1252", "iso-8859-11", "utf-16", "gb18030"])
def test_a_body_of_any_bytes_fits(data: bytes, charset: str) -> None:
    """With headers as large as they may be."""
    answer = ok(
        data, f"content-type: text/plain; charset={charset}", "etag: " + "\u00e4" * 30_000, "link: " + '"' * 20_000
    )
    network = Network(lambda request: answer)
    assert fits(network.tool(max_bytes=SIZE), network.call(SERVERS[0], {"max_bytes": SIZE}))


@pytest.mark.parametrize("data", WORST, ids=lambda data: ascii(data[:2]))
def test_a_file_of_any_bytes_fits(data: bytes, tmp_path: Path) -> None:
    """As text or as base64."""
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "a").write_bytes(data)
    read, *_ = workspace_tools(tmp_path, max_file_bytes=SIZE)
    assert fits(read, read(context(), "a"))


@pytest.mark.parametrize("data", WORST, ids=lambda data: ascii(data[:2]))
def test_rows_of_any_bytes_fit(data: bytes, tmp_path: Path) -> None:
    """As text or as bytes, in a column of any name."""
    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.execute('CREATE TABLE t ("a\n\x01" TEXT, b BLOB)')
        connection.execute("INSERT INTO t VALUES (CAST(? AS TEXT), ?)", (data, data))
    connection.close()
    tool = sql_query(tmp_path / "a.db", max_bytes=100 * SIZE)
    found = tool(context(), "SELECT * FROM t")
    assert found["rows"] and fits(tool, found)


def test_every_tool_reaches_an_executor_as_it_was_made(tmp_path: Path) -> None:
    """By what carries tools there."""
    made = [
        http_request(allow=["https://a.example"]),
        *workspace_tools(tmp_path),
        sql_query(tmp_path / "a.db"),
        send_email("mail.example", sender="a@corp.example", recipients=["*"]),
    ]
    assert [each.spec for each in cloudpickle.loads(cloudpickle.dumps(made))] == [each.spec for each in made]
