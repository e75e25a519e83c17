"""The gateway on a real stack: the protocol's own client calls tools, people decide, and the stack ends in between."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Literal

import httpx2
import mcp_types as types
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

import airside
from airside.actors.client.client import Stack
from airside.stack.errors import Misuse
from tests.apps.notes import create_app
from tests.on_ray import AIRSIDE, BOUND_S, ROOT, ledger_of, until, waiting

pytestmark = pytest.mark.ray
KEY = "io.airside/idempotencyKey"
RUN = "io.airside/run"


class Gateway:
    """A gateway's process, and where it listens."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self.address = "127.0.0.1:0"
        self.url = ""

    def start(self) -> None:
        """Start it, and wait until it says where it listens."""
        command = [AIRSIDE, "mcp", "serve", "--http", self.address, "--state-dir", str(self._state)]
        self._log = self._state / "gateway.log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stderr=log, stdout=log)
        found = until(lambda: re.search(r"serving on (http://([0-9.:]+)/mcp)", self._log.read_text()), "the gateway")
        assert found is not None
        self.url, self.address = found[1], found[2]

    def kill(self) -> None:
        """End it without a word."""
        self.process.kill()
        self.process.wait(BOUND_S)


class Home:
    """Where a stack that serves its tools lies; it can be started anew there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.stack = self._started()

    def _started(self) -> Stack:
        app = dataclasses.replace(create_app(self._folder), gateway=True)
        return airside.start(app, stack="gateway", state_dir=self._folder, executors=1, mode="pooled")

    def restart(self) -> None:
        """Shut the stack down, and start it with what it left."""
        self.stack.shutdown()
        self.stack = self._started()


@pytest.fixture(scope="module")
def home(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A stack that serves its tools, and where it lies."""
    made = Home(tmp_path_factory.mktemp("gateway"))
    yield made
    with contextlib.suppress(Misuse):
        made.stack.shutdown()


@pytest.fixture
def stack(home: Home) -> Stack:
    """The stack as it runs now."""
    return home.stack


@pytest.fixture(scope="module")
def gateway(home: Home) -> Iterator[Gateway]:
    """Its gateway."""
    made = Gateway(home.stack.state_dir)
    made.start()
    yield made
    made.kill()


class TaskHandle(types.Result):
    """What a server gives instead of a result that comes later."""

    result_type: Literal["task"] = "task"
    task_id: str
    status: str


class TaskState(types.Result):
    """A task, looked at."""

    task_id: str
    status: str
    result: dict[str, Any] | None = None


async def _never(_: TaskHandle, __: ClaimContext) -> types.CallToolResult:
    raise AssertionError("the test looks at its tasks itself")


class KnowsTasks(ClientExtension):
    """A client's support for tasks."""

    identifier = "io.modelcontextprotocol/tasks"

    def claims(self) -> list[ResultClaim[Any]]:
        """Take tasks for results."""
        return [ResultClaim(result_type="task", model=TaskHandle, resolve=_never)]


@contextlib.asynccontextmanager
async def client(
    gateway: Gateway, stack: Stack, who: str = "ana@acme", *, token: str = "", **options: Any
) -> AsyncIterator[Client]:
    """Yield the SDK's client as somebody."""
    principal, _, tenant = who.partition("@")
    bearer = {"Authorization": f"Bearer {token or stack.token(tenant, principal)}"}
    async with (
        httpx2.AsyncClient(headers=bearer, timeout=BOUND_S) as http,
        Client(streamable_http_client(gateway.url, http_client=http), read_timeout_seconds=BOUND_S, **options) as made,
    ):
        yield made


def said(result: Any) -> tuple[bool, Any]:
    """Return whether a result is no error, and its value."""
    assert isinstance(result, types.CallToolResult), result
    return not result.is_error, result.structured_content


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_client_lists_and_calls_tools_by_the_gate(gateway: Gateway, stack: Stack, mode: str) -> None:
    """What is allowed returns, what is denied says its reason, what fails says so; each is a run of the caller."""
    async with client(gateway, stack, mode=mode) as ana:
        tools = {tool.name: tool for tool in (await ana.list_tools()).tools}
        assert {"look", "note", "pay"} <= set(tools)
        assert tools["look"].annotations is not None and tools["look"].annotations.read_only_hint
        assert set(tools["pay"].input_schema["required"]) == {"to", "amount"}
        looked = await ana.call_tool("look", {"topic": "t"})
        assert said(looked) == (True, {"topic": "t", "text": ""})
        assert looked.meta is not None
        run = stack.inspect(looked.meta[RUN])
        assert (run.run.tenant, run.run.principal, run.labels) == ("acme", "ana", ("untrusted",))
        for tool, arguments, reason in (
            ("forbidden", {"text": "x"}, "policy_denied"),
            ("fail", {"text": "no"}, "tool_failed"),
            ("look", {"topic": 5}, "tool_invalid_arguments"),
            ("nothing", {}, "tool_unknown"),
        ):
            ok, value = said(await ana.call_tool(tool, arguments))
            assert not ok and value["reason_code"] == reason, value


async def test_a_call_that_waits_for_a_person_outlives_the_stack(gateway: Gateway, home: Home) -> None:
    """The gateway finds the one that is started anew; what the client keeps is taken for that call alone, once."""
    pay = {"to": "restart", "amount": 5}
    async with client(gateway, home.stack) as ana:
        first = await ana.session.call_tool("pay", pay, allow_input_required=True)
        assert isinstance(first, types.InputRequiredResult) and first.request_state
    await asyncio.to_thread(home.restart)
    stack = home.stack
    (approval,) = [each for each in stack.approvals() if each.arguments["to"] == "restart"]
    async with client(gateway, stack, "bob@acme") as bob, client(gateway, stack) as ana:
        for who, arguments in ((bob, pay), (ana, {**pay, "amount": 6})):
            with pytest.raises(MCPError, match="requestState"):
                await who.session.call_tool("pay", arguments, request_state=first.request_state)
        assert stack.approve(approval.approval_id, principal="lea") == "approved"
        result = await ana.session.call_tool("pay", pay, request_state=first.request_state)
        assert said(result) == (True, pay)
        again = await ana.session.call_tool("pay", pay, request_state=first.request_state)
        assert said(again) == (True, pay)
    assert ledger_of(stack).amounts("restart") == [5]


async def test_a_client_that_knows_tasks_is_given_one(gateway: Gateway, stack: Stack) -> None:
    """It is looked at, rejected by a person, withdrawn; nobody else finds it, in no tenant."""

    async def look(who: Client, task: str) -> TaskState:
        asked = types.GetTaskRequest(params=types.GetTaskRequestParams(task_id=task))
        return await who.session.send_request(asked, TaskState)

    async with client(gateway, stack, extensions=[KnowsTasks()]) as ana:
        handles = []
        for amount in (1, 2):
            given = await ana.session.call_tool("pay", {"to": "task", "amount": amount}, allow_claimed=True)
            assert isinstance(given, TaskHandle) and given.status == "working"
            handles.append(given.task_id)
        assert (await look(ana, handles[0])).status == "working"
        for other in ("bob@acme", "ana@beta", "max@acme"):
            async with client(gateway, stack, other) as somebody:
                with pytest.raises(MCPError, match="no call"):
                    await look(somebody, handles[0])
        stack.reject(waiting(stack, handles[0]).approval_id, principal="lea", note="not this one")
        stack.handle(handles[0]).result(timeout=BOUND_S)
        rejected = await look(ana, handles[0])
        assert rejected.status == "completed" and rejected.result is not None and rejected.result["isError"]
        assert "not this one" in rejected.result["content"][0]["text"]
        cancelling = types.CancelTaskRequest(params=types.CancelTaskRequestParams(task_id=handles[1]))
        await ana.session.send_request(cancelling, types.EmptyResult)
        stack.handle(handles[1]).result(timeout=BOUND_S)
        assert (await look(ana, handles[1])).status == "cancelled"
    assert ledger_of(stack).amounts("task") == []


async def test_a_call_that_is_sent_again_with_its_key_is_done_once(gateway: Gateway, stack: Stack) -> None:
    """While it is at work and when it is over; another's same key is another call, and another call is refused it."""
    keyed = {KEY: "order-17"}
    async with client(gateway, stack) as ana, client(gateway, stack, "ana@beta") as other:
        first = await ana.session.call_tool("note", {"text": "once"}, meta=keyed)
        again = await ana.session.call_tool("note", {"text": "once"}, meta=keyed)
        assert said(first) == said(again) and first.meta == again.meta
        elsewhere = await other.session.call_tool("note", {"text": "once"}, meta=keyed)
        assert elsewhere.meta != first.meta
        with pytest.raises(MCPError, match="that of another call"):
            await ana.session.call_tool("note", {"text": "twice"}, meta=keyed)
        unkeyed = await ana.session.call_tool("note", {"text": "once"})
        assert unkeyed.meta != first.meta
    assert ledger_of(stack).texts("once") == ["once"] * 3


async def test_over_standard_streams_the_environment_says_who_calls(stack: Stack) -> None:
    """A server's process is one of that principal, for as long as its input lasts."""
    arguments = ["mcp", "serve", "--stdio", "--state-dir", str(stack.state_dir)]
    environment = {**os.environ, "AIRSIDE_TOKEN": stack.token("acme", "bob")}
    parameters = StdioServerParameters(command=str(AIRSIDE), args=arguments, env=environment, cwd=ROOT)
    async with Client(parameters, read_timeout_seconds=BOUND_S) as bob:
        looked = await bob.call_tool("look", {"topic": "streams"})
        assert said(looked)[0] and looked.meta is not None
        assert stack.inspect(looked.meta[RUN]).run.principal == "bob"
