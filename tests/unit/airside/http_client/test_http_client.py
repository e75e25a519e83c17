"""The client of the HTTP API: the same methods for threads and for event loops, and none of them has Ray."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

import airside.http_client.async_client as async_module
import airside.http_client.client as client_module
from airside.actors.api.server import http_api
from airside.actors.client.run_timeout import RunTimeout
from airside.client import AsyncClient, Client
from airside.http_client.errors import error_of
from airside.stack.errors import AdmissionRefused, AuthRefused, InvalidInput, LayerUnavailable, Refused, VotesRefused
from airside.stack.ids import PrincipalId, RunId
from airside.stack.operations.messages import Ticket
from airside.stack.policy.kill_switches import KillSwitchChanged
from airside.stack.reasons import ReasonCode
from tests.unit.actors.api.double import APPROVAL, StackDouble

URL = "http://127.0.0.1:8080"
ROOT = Path(__file__).parents[4]


class OverAsgi(httpx2.BaseTransport):
    """Carries a thread's requests to an application on an event loop of its own."""

    def __init__(self, app: Any) -> None:
        self._inner = httpx2.ASGITransport(app=app)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer one request."""

        async def answered() -> httpx2.Response:
            sent = httpx2.Request(request.method, request.url, headers=request.headers, content=request.read())
            response = await self._inner.handle_async_request(sent)
            return httpx2.Response(response.status_code, headers=response.headers, content=await response.aread())

        return asyncio.run(answered())


class Both:
    """Calls a method of both clients, and holds that both say the same."""

    def __init__(self, stack: StackDouble) -> None:
        self._app = http_api(stack)

    def __call__(self, who: str, name: str, *args: Any, **named: Any) -> Any:
        with Client(URL, who, transport=OverAsgi(self._app)) as client:
            one = _caught(lambda: getattr(client, name)(*args, **named))

        async def later() -> Any:
            async with AsyncClient(URL, who, transport=httpx2.ASGITransport(app=self._app)) as client:
                return await getattr(client, name)(*args, **named)

        other = _caught(lambda: asyncio.run(later()))
        assert repr(one) == repr(other)
        if isinstance(one, Exception):
            raise one
        return one


def _caught(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:
        return error


@pytest.fixture
def stack() -> StackDouble:
    """A stack."""
    return StackDouble()


@pytest.fixture
def both(stack: StackDouble) -> Both:
    """Its clients."""
    return Both(stack)


def test_what_one_submits_the_other_finds(stack: StackDouble, both: Both) -> None:
    """By the same key it is the same run."""
    run = both("ann", "submit", "pay it", key="order-7", inputs={"x": 1}).run_id
    assert list(stack.runs) == [run]
    assert both("ann", "inspect", run).request == "pay it" and both("ann", "story", run) == "#0 submitted"
    with pytest.raises(RunTimeout, match=f"{run} has not ended in 0 s: ") as late:
        both("ann", "result", run, timeout=0)
    assert late.value.run_id == run and late.value.standing == both("ann", "inspect", run).run.phase != ""
    stack.end(RunId(run))
    assert both("ann", "result", run).answer == "paid"
    assert both("ann", "cancel", run, "wrong") == 1 and stack.orders[-1].why == "wrong"


def test_every_method_is_of_the_api(stack: StackDouble, both: Both) -> None:
    """What operators, leads and auditors do; each returns what it says."""
    run = stack.submitted()
    stack.end(run)
    assert both("olga", "kill", run, why="x") == 1 and both("olga", "rollback", run).run_id == run
    assert both("olga", "switch_off", "tenant", "acme", for_s=5) == both("olga", "switch_on", "tenant", "acme") == 1
    assert both("olga", "resolve", run, happened=True, output={"a": 1}) == 1
    for name in ("switches", "budgets", "in_doubt"):
        assert both("olga", name) == []
    assert both("olga", "runs", status="active", branches=True).items == []
    assert both("lea", "approvals").items[0].tool == "pay"
    assert both("lea", "approve", APPROVAL) == both("lea", "reject", APPROVAL, note="no") == "approved"
    assert both("lea", "edit", APPROVAL, {"amount": 2}) == both("lea", "answer", APPROVAL, "yes") == "approved"
    assert both("lea", "approve_all", [APPROVAL]) == both("lea", "reject_all", [APPROVAL], note="no") == ["approved"]
    assert (
        both("kim", "pin", "rec_1", tenant="acme") is both("kim", "pin", "rec_1", tenant="acme", pinned=False) is None
    )
    assert both("audra", "query", "select 1").rows == [[1]] and both("ann", "me").principal == "ann"


def test_of_a_vote_on_several_it_is_said_on_which_it_would_not_have_counted(stack: StackDouble, both: Both) -> None:
    other = APPROVAL.replace("b", "c")
    with pytest.raises(VotesRefused) as refused:
        both("lea", "approve_all", [APPROVAL, other])
    assert refused.value.reason == "unknown" and stack.joint_votes == []
    assert refused.value.refused == ((other, "unknown", "no such approval"),)


def test_a_list_of_several_pages_is_whole(stack: StackDouble, both: Both) -> None:
    off = [KillSwitchChanged(at_us=n, scope="tool", target=f"t{n}", off=True, by=PrincipalId("o")) for n in range(5)]
    stack.switched = off
    assert both("olga", "switches") == off


def test_refusals_are_raised_as_a_stacks_are(stack: StackDouble, both: Both) -> None:
    with pytest.raises(AuthRefused):
        both("mallory", "runs")
    with pytest.raises(Refused, match="no such run") as unknown:
        both("olga", "kill", "run_" + "0" * 24)
    assert unknown.value.reason == "unknown"
    with pytest.raises(InvalidInput):
        both("ann", "inspect", "run_x")
    with pytest.raises(InvalidInput):
        both("ann", "submit", "x", limits={"max_fun": 1})
    stack.ticket = Ticket(reason_code=ReasonCode.ADMISSION_REJECTED, message="no room", retry_after_s=6.2)
    with pytest.raises(AdmissionRefused) as full:
        both("ann", "submit", "x")
    assert full.value.retry_after_s == 7
    stack.ticket = Ticket(reason_code=ReasonCode.INTERNAL_ERROR, message="it may have been admitted")
    with pytest.raises(LayerUnavailable, match="may have been admitted"):
        both("ann", "submit", "x")
    stack.is_up = False
    with pytest.raises(LayerUnavailable):
        both("ann", "runs")


def test_what_is_no_problem_is_one_all_the_same() -> None:
    """A proxy between may answer what it likes."""
    assert isinstance(error_of(502, b"<html>", {}), LayerUnavailable)


def test_a_run_is_watched_over_broken_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each event comes once; a connection that breaks is taken up after the last one."""
    monkeypatch.setattr(client_module, "RETRY_S", 0)
    monkeypatch.setattr(async_module, "RETRY_S", 0)
    event = 'id: {0}\nevent: event\ndata: {{"number":{0},"type":"{1}","line":"","event":{{}}}}\n\n'
    first = event.format(1, "RunSubmitted") + 'event: text\ndata: {"kind":"text"}\n\n' + "id: 2\nevent: ev"
    then = event.format(2, "StepDecided") + ": it goes on\n\n" + event.format(3, "RunEnded")

    def answering() -> tuple[list[str], Callable[[httpx2.Request], httpx2.Response]]:
        seen, left = list[str](), [first, "", then]

        def answer(request: httpx2.Request) -> httpx2.Response:
            seen.append(request.headers.get("last-event-id", ""))
            return httpx2.Response(200, text=left.pop(0))

        return seen, answer

    async def collected(news: AsyncIterator[Any]) -> list[Any]:
        return [each async for each in news]

    seen, answer = answering()
    found = list(Client(URL, "ann", transport=httpx2.MockTransport(answer)).watch("run_1"))
    also_seen, answer = answering()
    other = AsyncClient(URL, "ann", transport=httpx2.MockTransport(answer))
    assert found == asyncio.run(collected(other.watch("run_1")))
    assert [(each.kind, each.number) for each in found] == [("event", 1), ("text", 0), ("event", 2), ("event", 3)]
    assert seen == also_seen == ["", "1", "1"]


def test_a_run_that_has_ended_ends_the_stream_and_a_refusal_is_raised(stack: StackDouble) -> None:
    run = stack.submitted()
    stack.end(run)
    with Client(URL, "ann", transport=OverAsgi(http_api(stack))) as client:
        assert [each.data["type"] for each in client.watch(run)] == ["RunSubmitted", "RunEnded"]
    with Client(URL, "gus", transport=OverAsgi(http_api(stack))) as client, pytest.raises(Refused, match="no such run"):
        list(client.watch(run))


def test_both_clients_have_the_same_methods() -> None:
    """With the same parameters."""

    def methods(kind: type) -> dict[str, Any]:
        found = {n: f for n, f in vars(kind).items() if not n.startswith("_") and "close" not in n}
        return {name: inspect.signature(function).parameters for name, function in found.items()}

    assert methods(Client) == methods(AsyncClient)


def test_it_needs_no_ray() -> None:
    """Nor anything else that is heavy."""
    code = (
        "import sys\n"
        "for name in ('ray', 'torch', 'lancedb', 'duckdb', 'pyarrow', 'starlette', 'uvicorn'):\n"
        "    sys.modules[name] = None\n"
        "import airside.client\n"
        "airside.client.Client('http://127.0.0.1:1', 'x').close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
