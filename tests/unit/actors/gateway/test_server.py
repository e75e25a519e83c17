"""The protocol's methods over calls that are made up: what clients are answered, and what they may bring back."""

from __future__ import annotations

from typing import Any, Literal

import mcp_types as types
import pytest
from mcp import Client
from mcp.client.extension import ClientExtension, ResultClaim
from mcp.server.lowlevel.server import Server
from mcp.shared.exceptions import MCPError

from airside.actors.gateway.answers import KEY_META, RUN_META
from airside.actors.gateway.calls import Caller, UnknownCall
from airside.actors.gateway.server import make_server
from airside.actors.gateway.stdio import serve_stdio
from airside.stack.errors import AuthRefused, InvalidConfig, LayerUnavailable, Refused
from airside.stack.ids import PrincipalId, RunId, TenantId
from airside.stack.operations.messages import ServedTool
from airside.stack.reasons import ReasonCode
from airside.stack.run.gateway_call import CallStanding, GatewayCall
from airside.stack.security.keyring import gateway_key
from tests.helpers import RUN

KEY, OTHER_KEY = b"g" * 32, b"h" * 32


class Calls:
    """Calls that wait until they are told not to; notes what it is asked."""

    def __init__(self) -> None:
        self.phase: Any = "waiting"
        self.output: Any = {"paid": 1}
        self.fails: Exception | None = None
        self.begun: list[tuple[str, GatewayCall, str]] = []
        self.waited: list[bool] = []
        self.cancelled: list[str] = []

    async def tools(self, _: Caller) -> tuple[ServedTool, ...]:
        schema = b'{"type":"object","properties":{"n":{"type":"integer"}}}'
        told: dict[str, Any] = {"parameters": schema, "repeatable": False}
        return (
            ServedTool(name="pay", description="Pay.", effect="irreversible", **told),
            ServedTool(name="look", description="", effect="read", **told),
        )

    async def begin(self, caller: Caller, call: GatewayCall, key: str = "") -> RunId:
        if self.fails is not None:
            raise self.fails
        self.begun.append((caller.principal, call, key))
        return RUN

    async def standing(self, caller: Caller, run: str) -> CallStanding:
        if run != RUN or caller.principal != "ann":
            raise UnknownCall("there is no such call of yours")
        return CallStanding(
            run_id=RUN,
            tenant=TenantId("acme"),
            principal=PrincipalId("ann"),
            call=GatewayCall(tool="pay"),
            phase=self.phase,
            created_us=1_000_000,
            updated_us=2_000_000,
            output=self.output,
            reason_code=ReasonCode.POLICY_DENIED if self.phase == "refused" else ReasonCode.COMPLETED,
            message="Not today." if self.phase == "refused" else "",
        )

    async def wait(self, caller: Caller, run: str, *, seconds: float, for_people: bool) -> CallStanding:
        self.waited.append(for_people)
        return await self.standing(caller, run)

    async def cancel(self, caller: Caller, run: str) -> None:
        await self.standing(caller, run)
        self.cancelled.append(run)


def server(calls: Calls, principal: str = "ann", *, key: bytes = KEY, audience: str = "stack") -> Server[Any]:
    """Return a server whose every message is somebody's; of nobody none is taken."""

    async def who_calls(_: Any) -> Caller:
        if not principal:
            raise AuthRefused("nobody", reason="auth_failed")
        return Caller("acme", principal, "t")

    return make_server(calls, who_calls, key, audience)  # type: ignore[arg-type]


async def pay(served: Server[Any], n: int = 1, **options: Any) -> Any:
    """Call `pay` by the protocol's own client; raise what it raises, by itself."""
    async with Client(served, **options.pop("client", {})) as client:
        try:
            return await client.session.call_tool("pay", {"n": n}, allow_input_required=True, **options)
        except MCPError as error:
            failure = error
    raise failure


async def test_tools_are_listed_with_what_policy_sees_of_them() -> None:
    async with Client(server(Calls())) as client:
        listed = {tool.name: tool for tool in (await client.list_tools()).tools}
    hints = {name: tool.annotations for name, tool in listed.items()}
    assert hints["pay"] is not None and hints["look"] is not None
    assert hints["pay"].destructive_hint and not hints["pay"].read_only_hint and not hints["pay"].idempotent_hint
    assert hints["look"].read_only_hint and not hints["look"].open_world_hint
    assert listed["pay"].input_schema["properties"] == {"n": {"type": "integer"}}


async def test_a_result_is_what_the_tool_returned_and_a_refusal_names_its_reason() -> None:
    """Each says which run it was."""
    calls = Calls()
    for output, structured in (({"paid": 1}, {"paid": 1}), ("fine", {"result": "fine"}), (None, {"result": None})):
        calls.phase, calls.output = "done", output
        result = await pay(server(calls))
        assert not result.is_error and result.structured_content == structured and result.meta[RUN_META] == RUN
    calls.phase = "refused"
    result = await pay(server(calls))
    assert result.is_error and result.content[0].text == "policy_denied: Not today."
    assert result.structured_content == {"reason_code": "policy_denied", "message": "Not today."}
    calls.fails = Refused("The queue is full.", reason="admission_rejected")
    result = await pay(server(calls))
    assert result.is_error and result.structured_content["reason_code"] == "admission_rejected"


async def test_what_a_client_keeps_is_good_for_the_stack_the_caller_and_the_call_alone() -> None:
    """A process with the stack's key takes it: not from another, for another call, of another stack, nor forged."""
    calls = Calls()
    given = await pay(server(calls))
    assert isinstance(given, types.InputRequiredResult) and given.request_state and RUN not in given.request_state
    assert calls.waited == [False], "what waits for a person is told at once"
    calls.phase = "done"
    assert (await pay(server(calls), request_state=given.request_state)).structured_content == {"paid": 1}
    assert calls.waited == [False, True] and len(calls.begun) == 1, "it is the same call, which is waited for"
    forged = given.request_state[:-2] + ("A" if given.request_state[-2] != "A" else "B") + given.request_state[-1]
    for served, n, state in (
        (server(calls, "bob"), 1, given.request_state),
        (server(calls), 2, given.request_state),
        (server(calls, key=OTHER_KEY), 1, given.request_state),
        (server(calls, audience="other"), 1, given.request_state),
        (server(calls), 1, forged),
        (server(calls), 1, RUN),
    ):
        with pytest.raises(MCPError, match="requestState"):
            await pay(served, n, request_state=state)
    assert len(calls.begun) == 1


@pytest.mark.parametrize("error", [Refused("later", reason="too_many"), LayerUnavailable("away"), UnknownCall("gone")])
async def test_a_call_that_was_begun_is_never_answered_as_if_it_were_not(error: Exception) -> None:
    """A client without a key would make it once more, and have it twice."""

    class Unseen(Calls):
        async def wait(self, *_: Any, **__: Any) -> CallStanding:
            raise error

    served = server(Unseen())
    result = await pay(served)
    assert isinstance(result, types.InputRequiredResult) and result.request_state
    with pytest.raises(MCPError, match=str(error)):
        await pay(served, request_state=result.request_state)
    older = await pay(served, client={"mode": "legacy"})
    assert older.is_error and RUN in older.content[0].text


async def test_an_older_client_is_told_how_to_ask_again() -> None:
    result = await pay(server(Calls()), client={"mode": "legacy"}, meta={KEY_META: "k1"})
    assert result.is_error and RUN in result.content[0].text and KEY_META in result.content[0].text


@pytest.mark.parametrize("key", [5, "x" * 257, "a\nb", ["k"]])
async def test_a_key_that_is_none_is_refused_and_nothing_is_called(key: Any) -> None:
    calls = Calls()
    with pytest.raises(MCPError, match="idempotency key"):
        await pay(server(calls), meta={KEY_META: key})
    assert calls.begun == []


async def test_nobody_is_answered_nothing() -> None:
    """Not what tools there are, either."""
    calls = Calls()
    for mode in ("auto", "legacy", "2026-07-28"):
        with pytest.RaisesGroup(
            pytest.RaisesExc(MCPError, match="nobody"), flatten_subgroups=True, allow_unwrapped=True
        ):
            async with Client(server(calls, ""), mode=mode) as client:
                await client.list_tools()
    assert calls.begun == []


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_what_goes_wrong_here_is_no_clients_business(mode: str) -> None:
    """It is told that something did, and the log what."""
    calls = Calls()
    for error, message in ((RuntimeError("secret"), "log"), (LayerUnavailable("ingress is away"), "ingress is away")):
        calls.fails = error
        with pytest.raises(MCPError, match=message) as caught:
            await pay(server(calls), client={"mode": mode})
        assert caught.value.code == types.INTERNAL_ERROR and "secret" not in str(caught.value)


class Handle(types.Result):
    """A task in place of a result."""

    result_type: Literal["task"] = "task"
    task_id: str


class Knowing(ClientExtension):
    """A client that knows tasks."""

    identifier = "io.modelcontextprotocol/tasks"

    def claims(self) -> list[ResultClaim[Any]]:
        """Take tasks for results."""
        return [ResultClaim(result_type="task", model=Handle, resolve=_unused)]


async def _unused(*_: Any) -> types.CallToolResult:
    raise AssertionError("not resolved here")


async def test_a_client_that_knows_tasks_looks_at_them_until_they_end() -> None:
    """Each state of a call is one of the protocol's, and another's is unknown."""

    def look(task: str) -> types.GetTaskRequest:
        return types.GetTaskRequest(params=types.GetTaskRequestParams(task_id=task))

    class Looked(types.Result):
        status: str
        status_message: str
        created_at: str
        ttl_ms: int | None
        result: dict[str, Any] | None = None

    calls = Calls()
    async with Client(server(calls), extensions=[Knowing()]) as client:
        handle = await client.session.call_tool("pay", {"n": 1}, allow_claimed=True)
        assert isinstance(handle, Handle) and handle.task_id == RUN
        seen = await client.session.send_request(look(RUN), Looked)
        assert (seen.status, seen.status_message, seen.ttl_ms) == ("working", "it waits for a person", None)
        assert seen.created_at == "1970-01-01T00:00:01.000Z" and seen.result is None
        for phase, status in (("done", "completed"), ("refused", "completed"), ("cancelled", "cancelled")):
            calls.phase = phase
            seen = await client.session.send_request(look(RUN), Looked)
            assert seen.status == status
            assert (seen.result or {}).get("isError") == {"done": False, "refused": True}.get(phase)
        cancelling = types.CancelTaskRequest(params=types.CancelTaskRequestParams(task_id=RUN))
        await client.session.send_request(cancelling, types.EmptyResult)
        assert calls.cancelled == [RUN]
        with pytest.raises(MCPError, match="no such call"):
            await client.session.send_request(look("run_" + "9" * 24), Looked)
    async with Client(server(calls, "bob"), extensions=[Knowing()]) as client:
        with pytest.raises(MCPError, match="no such call"):
            await client.session.send_request(look(RUN), Looked)


def test_the_key_is_the_stacks_and_is_made_only_beside_its_others(tmp_path: Any) -> None:
    """A second gateway has the same one; where the stack's keys are not there is none."""
    with pytest.raises(InvalidConfig, match="state directory"):
        gateway_key(tmp_path / "keys")
    (tmp_path / "keys").mkdir()
    made = gateway_key(tmp_path / "keys")
    assert len(made) == 32 and gateway_key(tmp_path / "keys") == made
    assert (tmp_path / "keys" / "gateway.key").stat().st_mode & 0o077 == 0


async def test_over_standard_streams_nobody_is_served_whose_credential_is_none() -> None:
    """It says so before it reads anything."""

    class Nobody(Calls):
        async def identify(self, _: str) -> Caller:
            raise AuthRefused("no such token", reason="auth_unknown_key")

    with pytest.raises(AuthRefused, match="no such token"):
        await serve_stdio(Nobody(), "nobody", KEY, "stack")  # type: ignore[arg-type]
