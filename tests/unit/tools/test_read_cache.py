"""`ReadCache`: what a read returned is its result again, for a while, to whom it was returned, and to nobody else."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from msgspec import Raw

from airside.stack.errors import InvalidConfig
from airside.stack.ids import PrincipalId, RunId, TenantId
from airside.stack.values import ToolResult
from airside.tools.dispatch import Dispatcher
from airside.tools.read_cache import MAX_BYTES, MAX_OF_TENANT, ReadCache, ReadKey
from airside.tools.tool import Tool, ToolContext, ToolError, Toolset, flatten, tool
from tests.helpers import EXECUTOR, KEY, SECOND, granted

ACME, GLOBEX = TenantId("acme"), TenantId("globex")


class Shop:
    """An executor with a read that counts its calls, and a write; time is set."""

    def __init__(self) -> None:
        self.reads = 0
        self.now_us = 0
        self.fails = False
        self.begun = asyncio.Event()
        self.going: asyncio.Event | None = None

        @tool(effect="read", cache_s=60)
        async def stock(context: ToolContext, item: str = "a") -> dict[str, Any]:
            self.reads += 1
            count = self.reads
            self.begun.set()
            if self.going is not None:
                await self.going.wait()
            if self.fails:
                raise ToolError("not now")
            return {"item": item, "count": count}

        @tool(effect="write")
        async def sell() -> str:
            return "sold"

        self.stock, self.sell = stock, sell
        self.dispatcher = Dispatcher(
            [stock, sell],
            seal_key=KEY,
            executor_id=EXECUTOR,
            now_us=lambda: 0,
            running_us=lambda: self.now_us,
            in_threads=False,
        )

    async def call(self, found: Tool, arguments: bytes = b'{"item":"a"}', **grant: Any) -> ToolResult:
        """Execute a call under a key of its own."""
        given = {"nonce": os.urandom(12), "key": os.urandom(4).hex(), **grant}
        return (await self.dispatcher.execute(granted(found.spec, arguments, **given))).result


async def test_the_same_read_is_made_once_and_its_result_says_so() -> None:
    shop = Shop()
    first, again = await shop.call(shop.stock), await shop.call(shop.stock, run_id=RunId("run_" + "7" * 24))
    assert (shop.reads, first.cached, again.cached) == (1, False, True)
    assert again.value() == first.value() and again.ok
    shop.now_us = 60 * SECOND
    assert not (await shop.call(shop.stock)).cached and shop.reads == 2


@pytest.mark.parametrize(
    "other",
    [
        {"tenant": GLOBEX},
        {"principal": PrincipalId("eve")},
        {"labels": ("confidential",)},
        {"arguments": b'{"item":"b"}'},
    ],
    ids=["tenant", "principal", "labels", "arguments"],
)
async def test_nobody_gets_what_another_one_was_answered(other: dict[str, Any]) -> None:
    shop = Shop()
    await shop.call(shop.stock)
    arguments = other.pop("arguments", b'{"item":"a"}')
    assert not (await shop.call(shop.stock, arguments, **other)).cached and shop.reads == 2
    assert (await shop.call(shop.stock)).cached, "what the first was answered is still there"


async def test_a_failed_read_is_not_kept() -> None:
    shop = Shop()
    shop.fails = True
    assert not (await shop.call(shop.stock)).ok
    shop.fails = False
    assert not (await shop.call(shop.stock)).cached and shop.reads == 2


async def test_what_a_tenant_changes_drops_what_is_kept_for_it_alone() -> None:
    shop = Shop()
    await shop.call(shop.stock)
    await shop.call(shop.stock, tenant=GLOBEX)
    await shop.call(shop.sell, b"{}")
    assert not (await shop.call(shop.stock)).cached and (await shop.call(shop.stock, tenant=GLOBEX)).cached


async def test_what_was_asked_before_a_change_is_not_kept_after_it() -> None:
    shop = Shop()
    shop.going = asyncio.Event()
    reading = asyncio.ensure_future(shop.call(shop.stock))
    await shop.begun.wait()
    await shop.call(shop.sell, b"{}")
    shop.going.set()
    assert (await reading).ok and not (await shop.call(shop.stock)).cached


async def test_what_may_not_begin_is_not_answered_from_what_is_kept() -> None:
    shop = Shop()
    await shop.call(shop.stock)
    over = RunId("run_" + "5" * 24)
    shop.dispatcher.grants.end_run(over)
    result = await shop.call(shop.stock, run_id=over)
    assert not result.ok and not result.cached


def test_only_reads_have_it_and_no_tool_whose_state_is_a_runs() -> None:
    def look(context: ToolContext) -> int:
        return 1

    with pytest.raises(InvalidConfig, match="cache_s is for reads"):
        tool(effect="write", cache_s=5)(look)
    for seconds in (-1, True, "60", float("nan"), 10**9):
        with pytest.raises(InvalidConfig, match="cache_s"):
            tool(effect="read", cache_s=seconds)(look)  # type: ignore[arg-type]
    kept = tool(effect="read", cache_s=5)(look)
    with pytest.raises(InvalidConfig, match="look cannot have cache_s: its state is the run's own"):
        flatten([Toolset("s", (kept,), open=lambda context: None)])
    with pytest.raises(InvalidConfig, match="says what it offers"):
        flatten([Toolset("s", (kept,), open=lambda context: None, lifetime="executor", offers=lambda state: [kept])])
    assert flatten([Toolset("s", (kept,), open=lambda context: None, lifetime="executor")])[0]["look"].cache_ms == 5000


def key(number: int) -> ReadKey:
    """Return a key."""
    return ReadKey("look", "1", str(number), PrincipalId("ann"), ())


def test_what_is_kept_is_bounded_in_number_and_bytes() -> None:
    cache = ReadCache(lambda: 0)
    for number in range(MAX_OF_TENANT + 5):
        cache.put(ACME, key(number), ToolResult(ok=True), 1000, 0)
    assert len(cache) == MAX_OF_TENANT and cache.get(ACME, key(4)) is None and cache.get(ACME, key(5)) is not None
    large = ToolResult(ok=True, output=Raw(b'"' + b"x" * (MAX_BYTES // 3) + b'"'))
    for number in range(5):
        cache.put(GLOBEX, key(number), large, 1000, 0)
    kept = [number for number in range(5) if cache.get(GLOBEX, key(number)) is not None]
    assert kept == [3, 4]
    cache.drop(ACME)
    cache.drop(GLOBEX)
    assert len(cache) == 0 and cache._bytes == 0
