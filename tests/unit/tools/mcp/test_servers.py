"""Servers that are started: what is called, what is in quarantine, and what a lost answer means."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.shared.message import SessionMessage
from mcp.types import JSONRPCRequest, JSONRPCResponse, PaginatedRequestParams

from airside.tools.circuit_breakers import FAILURES
from airside.tools.mcp import session, stdio
from airside.tools.mcp.address import ServerAddress
from airside.tools.mcp.asked import MAX_ASKED, Asked, CountedReads, CountedWrites
from airside.tools.mcp.offer import ServerOffer
from airside.tools.mcp.session import McpSession
from airside.tools.mcp.stdio import StandardError, StdioEnd
from airside.tools.sandbox.command import python_there
from airside.tools.sandbox.limits import SandboxLimits
from airside.tools.sandbox.probe import Reached
from airside.tools.sandbox.watching import descendants
from airside.tools.secrets.redaction import Redactor
from tests.apps.mcp_server import Served
from tests.helpers import RUN
from tests.tool_servers import (
    MAPPING,
    OTHER_RUN,
    TOKEN,
    Behind,
    approve,
    declared,
    give_to_sandbox,
    in_process,
    offer_of,
)


@pytest.fixture(scope="module")
def offer() -> ServerOffer:
    """Return what the server offers, as one in this process says it."""

    async def ask(folder: Path) -> ServerOffer:
        return await offer_of(declared(folder))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(McpSession, "_streams", lambda self: in_process(Served(Path("/nowhere"), 1)))
        return asyncio.run(ask(Path("/nowhere")))


@pytest.fixture
async def started(tmp_path: Path, offer: ServerOffer) -> AsyncIterator[Callable[..., Behind]]:
    """Return what makes an executor with the approved server, which it starts; its sessions end with the test."""
    made: list[Behind] = []

    def make(in_threads: bool = False, **fields: Any) -> Behind:
        give_to_sandbox(tmp_path)
        server = declared(tmp_path, **fields)
        approve(server, offer)
        made.append(Behind(server, tmp_path, in_threads=in_threads, secrets=TOKEN))
        return made[-1]

    yield make
    for each in made:
        await each.close()


@pytest.fixture
def behind(started: Callable[..., Behind], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Behind]:
    """Return what makes one whose servers are in this process: one for each session."""
    monkeypatch.setattr(McpSession, "_streams", lambda self: in_process(Served(tmp_path, 1)))
    return started


async def until(holds: Callable[[], object]) -> None:
    """Let the loop turn until something holds."""
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - what holds is the server's to bring about
            await asyncio.sleep(0)


def alive(mark: str) -> list[str]:
    """Return the processes whose arguments have a mark."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if mark.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                found.append(pid)
        except OSError:
            continue
    return found


async def test_a_tenants_calls_share_a_session_that_no_other_tenant_has(started: Callable[..., Behind]) -> None:
    """A server sees its own variables alone, is no user of the machine, and reads none of its files."""
    server = started(in_threads=True)
    results = [
        await server.run("add", {"number": n}, run_id=run) for n, run in [(1, "run_" + "0" * 24), (2, OTHER_RUN)]
    ]
    assert [result.value() for result in results] == [{"text": "added 1"}, {"text": "added 2"}]
    assert (await server.run("total", tenant="globex")).value() == {"text": "2"}
    assert server.effects() == ["add 1", "add 2"]
    assert len(server.states()) == 2, "one of each tenant"
    assert "uid 0 " not in (who := (await server.run("who")).value()["text"])
    assert who.endswith(" FOLDER HOME LANG PATH PWD PYTHONDONTWRITEBYTECODE PYTHONPATH TMPDIR | False")


async def test_parts_that_are_no_text_are_notes_and_secrets_are_taken_out(
    started: Callable[..., Behind], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVER_TOKEN", "secret-of-the-server")
    result = await started(secrets={"TOKEN": "token"}).run("parts")
    assert result.value() == {
        "text": "a[31mred\ninside",
        "structured": {"n": 1, "secret": "[redacted]"},
        "attached": [
            {"kind": "image", "media_type": "image/png", "base64_characters": 4},
            {"kind": "link", "uri": "http://169.254.169.254/latest", "name": "link", "media_type": None},
            {"kind": "resource", "uri": "file:///x", "media_type": "text/plain"},
        ],
    }


async def test_without_its_secret_a_server_is_not_started(started: Callable[..., Behind]) -> None:
    result = await started(secrets={"TOKEN": "token"}).run("add", {"number": 1})
    assert result.reason_code == "secret_unavailable" and "acme has no secret 'token'" in result.error


async def test_what_the_server_calls_a_failure_is_one_for_reads_and_is_told_of_others(
    behind: Callable[..., Behind],
) -> None:
    """A call that changes something was answered: it is not in doubt, and not said to have changed nothing."""
    server = behind(tools={**MAPPING, "refuse": {"effect": "read"}, "fail": {"effect": "write"}})
    failed = await server.run("fail", {"text": "no such account"})
    assert failed.value() == {"is_error": True, "text": "no such account"}
    asked = await server.run("ask")
    assert asked.value()["is_error"] and "it asks for more before it completes the call" in asked.value()["text"]
    refused = await server.run("refuse")
    assert (refused.reason_code, refused.error) == ("tool_failed", "no such number")


async def test_on_a_later_attempt_nobody_says_that_a_write_did_not_happen(behind: Callable[..., Behind]) -> None:
    """Neither for a list that does not come, nor for a server that does not take it now: the earlier one may have."""
    server = behind(tools={**MAPPING, "add": {"effect": "write", "timeout": 0.1}, "refuse": {"effect": "write"}})
    assert (await server.run("refuse")).value()["is_error"]
    later = await server.run("refuse", attempt=2)
    assert later.reason_code == "tool_in_doubt" and "an earlier attempt may have been carried out" in later.error
    server.states()[0].value.session._is_listed.clear()
    first, later = [await server.run("add", {"number": 1}, attempt=n) for n in (1, 2)]
    assert (first.reason_code, later.reason_code) == ("tool_failed", "tool_in_doubt")
    assert "nothing was sent: it says that its tools changed" in first.error and server.effects() == []


async def test_a_server_that_does_not_answer_is_not_called_for_a_while(
    behind: Callable[..., Behind], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that answers with an error is."""
    server, silent = behind(tools={**MAPPING, "refuse": {"effect": "read"}}), True
    calls: list[str] = []

    async def call(self: McpSession, name: str, arguments: object, **options: object) -> dict[str, Any]:
        calls.append(name)
        raise session.CallLost("it did not answer", unanswered=silent)

    monkeypatch.setattr(McpSession, "call", call)
    for name in ("add", "total"):
        for _ in range(FAILURES):
            assert (await server.run(name, {"number": 1} if name == "add" else {})).reason_code != "circuit_open"
        assert (await server.run(name, {"number": 1} if name == "add" else {})).reason_code == "circuit_open"
    silent = False
    for _ in range(FAILURES + 1):
        assert (await server.run("refuse")).reason_code == "tool_failed"
    assert len(calls) == 3 * FAILURES + 1


async def test_a_list_is_read_no_further_than_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served, pages = Served(tmp_path, 1), 0
    listed = served.listed

    async def endless(context: Any, params: Any) -> Any:
        nonlocal pages
        pages += 1
        return (await listed(context, None)).model_copy(update={"next_cursor": "5"})

    served.server.add_request_handler("tools/list", PaginatedRequestParams, endless)
    monkeypatch.setattr(McpSession, "_streams", lambda self: in_process(served))
    monkeypatch.setattr(session, "MAX_OFFER_BYTES", 3_000)
    offers: list[Any] = []
    server = declared(tmp_path)
    opened = await McpSession.open(server.address(server.read_mapping()[0]), {}, offers.append, 30)
    await opened.close()
    assert "what it says of its tools is over the bound" in offers[0].message and 2 < pages < 10


async def test_a_server_that_asks_without_taking_the_answers_is_ended() -> None:
    """One that takes them may ask for ever; that all it asks has one id hides nothing."""
    asked = Asked()
    send, receive = anyio.create_memory_object_stream[Any](9 * MAX_ASKED)
    answers, taken = anyio.create_memory_object_stream[Any](9 * MAX_ASKED)
    for _ in range(3 * MAX_ASKED):
        send.send_nowait(SessionMessage(JSONRPCRequest(jsonrpc="2.0", id=1, method="ping")))
    with send, answers, taken:
        reads, writes, seen = CountedReads(receive, asked), CountedWrites(answers, asked), 0
        async with reads:
            async for _ in reads:
                if seen < MAX_ASKED:
                    await writes.send(SessionMessage(JSONRPCResponse(jsonrpc="2.0", id=1, result={})))
                seen += 1
    assert seen == 2 * MAX_ASKED and asked.why == "it asked more than 100 things without taking the answers"


def test_a_secret_in_what_a_server_logs_is_found_wherever_it_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    """Also at the end of all, and in a line that is too long."""
    caplog.set_level("INFO", "airside")
    secret, end = "sk_live_51H8xyzABCDEFGHIJKL", StdioEnd()
    for cut in range(1, 60):
        said, text = StandardError("s", end, Redactor([secret])), f"key {secret}\nand {secret[:12]}".encode()
        said.write(text[:cut])
        said.write(text[cut:])
        said.finish()
        assert end.said == "and [redacted]"
    said = StandardError("s", end, Redactor([secret]))
    for part in ("x" * 490 + secret[:9], secret[9:], "x" * 5_000, "y" * 5_000):
        said.write(part.encode())
    said.finish()
    assert len(end.said) == 500 and {record.message for record in caplog.records[:-1]} == {
        "server s: key [redacted]",
        "server s: and [redacted]",
    }
    assert secret[:8] not in caplog.records[-1].message


async def test_too_much_output_is_cut_and_ends_no_session(started: Callable[..., Behind]) -> None:
    """Not a long result, not what is written beside the frames, not a flood of standard error."""
    server = started()
    cut = (await server.run("flood", {"text": "result"})).value()
    assert cut["truncated"] and len(cut["text"]) < 20_000
    for text in ("some lines", "stderr"):
        assert (await server.run("flood", {"text": text})).value() == {"text": "done"}
    assert len(server.states()) == 1 and not server.states()[0].value.session.problem


@pytest.mark.parametrize(
    ("text", "why"), [("frame", "a message of over 4,194,304 bytes"), ("lines", "100 lines of its standard output")]
)
async def test_a_server_that_breaks_the_protocol_is_ended_and_started_anew(
    started: Callable[..., Behind], text: str, why: str
) -> None:
    server = started()
    result = await server.run("flood", {"text": text})
    assert result.reason_code == "tool_failed" and why in result.error
    assert (await server.run("total")).reason_code == "tool_unavailable"
    await server.settled()
    assert (await server.run("total")).ok


async def test_a_call_whose_server_dies_is_in_doubt_whatever_it_did(started: Callable[..., Behind]) -> None:
    """And is not sent again by anybody: not before its effect, not after it; a read just failed."""
    server = started(tools={**MAPPING, "wipe": {"effect": "read"}})
    for tool, effects in [("die", []), ("lose", ["lose 7"])]:
        result = await server.run(tool, {"number": 7})
        assert result.reason_code == "tool_in_doubt" and "its process ended" in result.error
        assert server.effects() == effects
        assert (await server.run("total")).reason_code == "tool_unavailable"
        await server.settled()


async def test_a_call_that_hangs_is_in_doubt_and_its_server_ends(started: Callable[..., Behind]) -> None:
    """With a child that has left its session; another tenant's server goes on."""
    server = started(tools={**MAPPING, "hang": {"timeout": 0.5}, "leave_a_child": {"effect": "write"}})
    assert (await server.run("total", tenant="globex")).ok
    assert (await server.run("leave_a_child")).ok and alive("airside-mcp-child")
    result = await server.run("hang")
    assert result.reason_code == "tool_in_doubt" and "it did not answer within 0.5 s" in result.error
    assert server.effects() == ["hang"]
    assert (await server.run("total")).reason_code == "tool_unavailable"
    await server.settled()
    assert not alive("airside-mcp-child")
    assert (await server.run("total", tenant="globex")).ok


@pytest.mark.parametrize("change", ["rename", "describe", "schema", "more", "hints", "escape"])
async def test_a_server_that_says_it_changed_is_in_quarantine_as_a_whole(
    behind: Callable[..., Behind], change: str
) -> None:
    """Every tool, of every tenant, whatever the change was; nothing of it is begun."""
    server = behind()
    assert (await server.run("total", tenant="globex")).ok
    assert (await server.run("change", {"text": change})).ok
    found = server.states()[-1].value
    await until(lambda: found.source.quarantined)
    for tenant in ("acme", "globex", "initech"):
        result = await server.run("total", tenant=tenant)
        assert result.reason_code == "tool_quarantined" and "`airside mcp approve tests --app" in result.error
    assert (await server.run("add", {"number": 1})).reason_code == "tool_quarantined"
    assert server.effects() == [] and list(server.dispatcher.quarantined) == ["tests"]
    await server.settled()
    assert found.session._life.done() and not server.states(), "it is ended, and no other is started"


async def test_a_server_that_is_given_a_tenants_secret_may_be_in_quarantine_for_that_tenant_alone(
    behind: Callable[..., Behind], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it offers may be what the tenant's account has, and no tenant stops another's calls."""
    monkeypatch.setenv("SERVER_TOKEN", "secret-of-the-server")
    server = behind(secrets={"TOKEN": "token"})
    assert (await server.run("change", {"text": "rename"})).ok
    await until(lambda: server.states()[0].value.source.quarantined)
    assert (await server.run("total")).reason_code == "tool_quarantined"
    assert (await server.run("total", tenant="globex")).ok


async def test_a_server_that_changes_in_silence_is_found_out(
    behind: Callable[..., Behind], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked what it offers again and again."""
    monkeypatch.setattr(session, "LIST_AGAIN_S", 0.0)
    server = behind()
    assert (await server.run("change", {"text": "rename silently"})).ok
    await until(lambda: server.states()[0].value.source.quarantined)
    result = await server.run("total")
    assert result.reason_code == "tool_quarantined" and "append is new" in result.error


async def test_a_call_that_is_stopped_with_its_run_ends_the_session(behind: Callable[..., Behind]) -> None:
    """Nobody knows what the server is at: another run's calls have another."""
    server = behind(in_threads=True)
    call = asyncio.ensure_future(server.run("hang"))
    await until(server.effects)
    await server.dispatcher.release(RUN)
    assert (await call).reason_code == "tool_timeout"
    assert (await server.run("total", run_id=OTHER_RUN)).reason_code == "tool_unavailable"
    await server.settled()
    assert (await server.run("total", run_id=OTHER_RUN)).value() == {"text": "1"}


async def test_a_server_that_says_it_changed_and_did_not_is_called(behind: Callable[..., Behind]) -> None:
    """Once it has said again what it offers: calls wait for that."""
    server = behind()
    assert (await server.run("change", {"text": "nothing"})).ok
    server.states()[0].value.session._note_change()
    assert (await server.run("total")).value() == {"text": "0"}


async def test_a_server_that_is_another_when_it_is_started_is_in_quarantine(
    behind: Callable[..., Behind], tmp_path: Path
) -> None:
    """It runs no longer than it takes to see that."""
    (tmp_path / "version").write_text("2")
    server = behind()
    result = await server.run("total")
    assert result.reason_code == "tool_quarantined" and "identity" in result.error
    await server.settled()
    assert not server.states(), "no session is left of it"


async def test_a_server_that_does_not_start_has_done_nothing(tmp_path: Path, offer: ServerOffer) -> None:
    give_to_sandbox(tmp_path)
    server = declared(tmp_path, command=["/bin/sh", "-c", "echo no such thing >&2; exit 3"])
    approve(server, offer)
    behind = Behind(server, tmp_path)
    result = await behind.run("add", {"number": 1})
    assert result.reason_code == "tool_failed" and "server tests is not there: its process ended" in result.error
    assert result.error.endswith("(no such thing)"), "with the last that it wrote to standard error"
    again = await behind.run("add", {"number": 1}, attempt=2)
    assert again.reason_code == "tool_in_doubt", "an earlier attempt may have done something"
    await behind.close()


@pytest.mark.parametrize("turns", [0, 1, 2, 5])
async def test_a_start_that_is_cancelled_leaves_nothing(turns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a process nor somebody who waits for one."""

    async def full() -> Reached:
        return Reached("full")

    monkeypatch.setattr(stdio, "reached_level", full)
    monkeypatch.setattr(stdio, "_CLOSE_S", 0.0)
    address = ServerAddress(name="t", command=("/bin/sleep", "600"), limits=SandboxLimits())

    async def use() -> None:
        async with stdio.stdio_streams(address, {}, stdio.StdioEnd(), Redactor()):
            await asyncio.Event().wait()

    before = list(descendants(os.getpid()))
    using = asyncio.ensure_future(use())
    for _ in range(turns):
        await asyncio.sleep(0)
    using.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(using, 20)
    assert set(descendants(os.getpid())) <= set(before)


async def test_a_server_that_takes_more_than_it_may_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    async def full() -> Reached:
        return Reached("full")

    monkeypatch.setattr(stdio, "reached_level", full)
    code = "import os, time\nfor n in range(10**6): os.close(os.open(f'/tmp/{n}', os.O_CREAT))"
    address = ServerAddress(name="t", command=(python_there(), "-I", "-c", code), limits=SandboxLimits())
    end = stdio.StdioEnd()
    async with stdio.stdio_streams(address, {}, end, Redactor()) as (reader, _):
        async with asyncio.timeout(30):
            assert [each async for each in reader] == []
    assert "more than 65,536 files" in end.why
