"""A client for event loops: `Client`, to be awaited."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any, Self, TypeVar

import httpx2
import msgspec

from airside.actors.api.messages import ApprovalStanding, Listing, RunAccepted, RunResult, Table
from airside.actors.client.run_timeout import RunTimeout
from airside.http_client import requests
from airside.http_client.client import PATIENCE_S, WAIT_S
from airside.http_client.errors import error_of
from airside.http_client.requests import HttpRequest, Reply
from airside.http_client.streams import MOST_RETRIES, RETRY_S, EventLines, RunNews
from airside.stack.errors import LayerUnavailable
from airside.stack.operations.overview import RunDetail, RunSummary
from airside.stack.operations.questions import BudgetLine, WhoAsks
from airside.stack.policy.kill_switches import KillSwitchChanged, SwitchScope
from airside.stack.recovery.in_doubt import InDoubtCall
from airside.stack.recovery.rollback import RollbackReport

Item = TypeVar("Item")


class AsyncClient:
    """As `Client`; use it in an `async with`."""

    def __init__(self, url: str, token: str, *, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        self._http = httpx2.AsyncClient(base_url=url, headers=headers, timeout=PATIENCE_S, transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def submit(self, request: str, *, key: str = "", **fields: Any) -> RunAccepted:
        """As `Client.submit`."""
        return await self._reply(requests.submit(request, key or secrets.token_hex(16), fields))

    async def runs(self, **filters: Any) -> Listing[RunSummary]:
        """As `Client.runs`."""
        return await self._reply(requests.runs(filters))

    async def inspect(self, run: str) -> RunDetail:
        """As `Client.inspect`."""
        return await self._reply(requests.inspect(run))

    async def story(self, run: str) -> str:
        """As `Client.story`."""
        return (await self._reply(requests.story(run))).text

    async def cancel(self, run: str, why: str = "") -> int:
        """As `Client.cancel`."""
        return (await self._reply(requests.end("cancel", run, why))).reached

    async def kill(self, run: str, *, why: str = "") -> int:
        """As `Client.kill`."""
        return (await self._reply(requests.end("kill", run, why))).reached

    async def rollback(self, run: str, *, why: str = "") -> RollbackReport:
        """As `Client.rollback`."""
        return await self._reply(requests.rollback(run, why))

    async def approvals(self, *, tenant: str = "", limit: int = 100, cursor: str = "") -> Listing[ApprovalStanding]:
        """As `Client.approvals`."""
        return await self._reply(requests.approvals(tenant, limit, cursor))

    async def approve(self, approval: str, *, note: str = "") -> str:
        """As `Client.approve`."""
        return (await self._reply(requests.vote(approval, "approve", note, {}))).outcome

    async def reject(self, approval: str, *, note: str = "") -> str:
        """As `Client.reject`."""
        return (await self._reply(requests.vote(approval, "reject", note, {}))).outcome

    async def approve_all(self, approvals: Sequence[str], *, note: str = "") -> list[str]:
        """As `Client.approve_all`."""
        counted = await self._reply(requests.vote_on_all(approvals, "approve", note))
        return [each.outcome for each in counted.votes]

    async def reject_all(self, approvals: Sequence[str], *, note: str = "") -> list[str]:
        """As `Client.reject_all`."""
        counted = await self._reply(requests.vote_on_all(approvals, "reject", note))
        return [each.outcome for each in counted.votes]

    async def edit(self, approval: str, arguments: dict[str, Any], *, note: str = "") -> str:
        """As `Client.edit`."""
        return (await self._reply(requests.vote(approval, "edit", note, {"arguments": arguments}))).outcome

    async def answer(self, approval: str, answer: str, *, note: str = "") -> str:
        """As `Client.answer`."""
        return (await self._reply(requests.vote(approval, "answer", note, {"answer": answer}))).outcome

    async def switch_off(self, scope: SwitchScope, target: str = "", *, for_s: float = 0.0, why: str = "") -> int:
        """As `Client.switch_off`."""
        return (await self._reply(requests.switch(scope, target, off=True, for_s=for_s, why=why))).reached

    async def switch_on(self, scope: SwitchScope, target: str = "", *, why: str = "") -> int:
        """As `Client.switch_on`."""
        return (await self._reply(requests.switch(scope, target, off=False, for_s=0.0, why=why))).reached

    async def switches(self) -> list[KillSwitchChanged]:
        """As `Client.switches`."""
        return await self._all(requests.switches)

    async def budgets(self, tenant: str = "") -> list[BudgetLine]:
        """As `Client.budgets`."""
        return (await self._reply(requests.budgets(tenant))).items

    async def in_doubt(self, tenant: str = "") -> list[InDoubtCall]:
        """As `Client.in_doubt`."""
        return await self._all(partial(requests.in_doubt, tenant))

    async def resolve(self, target: str, *, happened: bool, output: Any = None, why: str = "") -> int:
        """As `Client.resolve`."""
        return (await self._reply(requests.resolve(target, happened=happened, output=output, why=why))).reached

    async def pin(self, record: str, *, tenant: str, pinned: bool = True) -> None:
        """As `Client.pin`."""
        await self._reply(requests.pin(record, tenant, pinned=pinned))

    async def query(self, sql: str, parameters: Sequence[Any] = ()) -> Table:
        """As `Client.query`."""
        return await self._reply(requests.query(sql, parameters))

    async def me(self) -> WhoAsks:
        """As `Client.me`."""
        return await self._reply(requests.me())

    async def result(self, run: str, *, timeout: float | None = None) -> RunResult:  # noqa: ASYNC109 - as `Client` has it
        """As `Client.result`."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            left = WAIT_S if until is None else max(0.0, until - time.monotonic())
            found = await self._reply(requests.result(run, min(WAIT_S, left)))
            if found.status != "active":
                return found
            if left <= 0:
                raise RunTimeout(found.run_id, timeout or 0.0, found.phase)

    async def watch(self, run: str) -> AsyncIterator[RunNews]:
        """As `Client.watch`."""
        lines, broken = EventLines(), 0
        while not lines.is_over and broken <= MOST_RETRIES:
            before = lines.seen
            asked = requests.watch(run, lines.seen)
            lines.begin()
            try:
                async with self._http.stream("GET", asked.path, headers=dict(asked.headers)) as response:
                    if response.status_code == 204:
                        return
                    if response.status_code != 200:
                        raise error_of(response.status_code, await response.aread(), response.headers)
                    async for line in response.aiter_lines():
                        if (news := lines.take(line)) is not None:
                            yield news
            except (httpx2.TransportError, LayerUnavailable) as error:
                if broken == MOST_RETRIES:
                    raise LayerUnavailable(f"{run}: {error}") from None
            broken = 0 if lines.seen > before else broken + 1
            if broken:
                await asyncio.sleep(RETRY_S)

    async def _all(self, page: Callable[[str], HttpRequest[Listing[Item]]]) -> list[Item]:
        found: list[Item] = []
        cursor = ""
        while True:
            listed = await self._reply(page(cursor))
            found += listed.items
            cursor = listed.next
            if not cursor:
                return found

    async def _reply(self, asked: HttpRequest[Reply]) -> Reply:
        content = None if asked.body is None else msgspec.json.encode(asked.body)
        headers = dict(asked.headers) | ({} if content is None else {"Content-Type": "application/json"})
        try:
            response = await self._http.request(
                asked.method, asked.path, params=dict(asked.query), content=content, headers=headers
            )
        except httpx2.TransportError as error:
            raise LayerUnavailable(f"{self._http.base_url}: {error}") from None
        if response.status_code >= 300:
            raise error_of(response.status_code, response.content, response.headers)
        return msgspec.json.decode(response.content, type=asked.reply)
