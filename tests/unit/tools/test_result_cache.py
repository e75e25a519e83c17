"""An answer that was lost on its way can be asked for: it is what the call came to, and asking starts nothing."""

from __future__ import annotations

import asyncio

import pytest
from msgspec import Raw

from airside.stack.contracts.execution import ExecuteReply
from airside.stack.values import ToolResult
from airside.tools import result_cache
from airside.tools.dispatch import Dispatcher
from airside.tools.result_cache import ResultCache
from airside.tools.tool import tool
from tests.helpers import EXECUTOR, KEY, granted


async def test_it_is_what_the_call_came_to_waiting_for_its_end_and_nothing_is_called_twice() -> None:
    paid: list[int] = []
    begun, go = asyncio.Event(), asyncio.Event()

    @tool(effect="write")
    async def pay(amount: int) -> int:
        """Pay, once it may."""
        paid.append(amount)
        begun.set()
        await go.wait()
        return amount

    it = Dispatcher([pay], seal_key=KEY, executor_id=EXECUTOR, now_us=lambda: 0, in_threads=False)
    request = granted(pay.spec, b'{"amount":5}')
    assert await it.answer_of(request.grant) is None and await it.answer_of(b"forged") is None
    lost = asyncio.ensure_future(it.execute(request))
    await begun.wait()
    asked = asyncio.ensure_future(it.answer_of(request.grant))
    go.set()
    assert await asked == await lost and paid == [5]
    replayed = await it.execute(request)
    assert replayed.result.reason_code == "grant_invalid", "a grant is used once, whoever asks again"
    assert await it.answer_of(request.grant) == await lost


async def test_a_call_that_was_refused_has_no_answer() -> None:
    @tool(effect="write")
    async def pay(amount: int) -> int:
        """Pay."""
        return amount

    it = Dispatcher([pay], seal_key=KEY, executor_id=EXECUTOR, now_us=lambda: 0, in_threads=False)
    request = granted(pay.spec, b'{"amount":5}', expires_us=0)
    assert not (await it.execute(request)).result.ok
    assert await it.answer_of(request.grant) is None


@pytest.mark.parametrize(("most", "size"), [("MAX_ANSWERS", 3), ("MAX_BYTES", 35)])
async def test_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch, most: str, size: int) -> None:
    monkeypatch.setattr(result_cache, most, size)
    kept = ResultCache()
    for number in range(10):
        result = ToolResult(ok=True, output=Raw(b"x" * 10))
        kept.begin(b"%d" % number)
        kept.end(b"%d" % number, ExecuteReply(result=result))
    known = [number for number in range(10) if await kept.of(b"%d" % number) is not None]
    assert known == [7, 8, 9]


async def test_a_call_that_broke_off_has_none() -> None:
    kept = ResultCache()
    kept.begin(b"n")
    asked = asyncio.ensure_future(kept.of(b"n"))
    await asyncio.sleep(0)
    kept.end(b"n", None)
    assert await asked is None and await kept.of(b"n") is None


async def test_who_waits_for_an_answer_that_is_forgotten_meanwhile_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ask, and though one of them gave up waiting."""
    monkeypatch.setattr(result_cache, "MAX_ANSWERS", 1)
    kept, reply = ResultCache(), ExecuteReply(result=ToolResult(ok=True))
    kept.begin(b"old")
    first, second = (asyncio.ensure_future(kept.of(b"old")) for _ in range(2))
    await asyncio.sleep(0)
    for nonce in (b"new", b"newer"):
        kept.begin(nonce)
        kept.end(nonce, reply)
    first.cancel()
    await asyncio.sleep(0)
    kept.end(b"old", reply)
    assert await second == reply and await kept.of(b"old") is None
