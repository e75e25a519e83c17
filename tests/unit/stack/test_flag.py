"""A flag: set once, seen by all."""

from __future__ import annotations

import asyncio

import pytest

from airside.stack.flag import Flag


async def test_setting_a_flag_wakes_all_who_wait_and_whoever_comes_later_does_not_wait() -> None:
    flag = Flag()
    waiting = [asyncio.ensure_future(flag.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    assert not flag.is_set()
    flag.set()
    await asyncio.gather(*waiting)
    await flag.wait()
    assert flag.is_set()


async def test_who_is_cancelled_while_it_waits_leaves_the_others_waiting() -> None:
    flag = Flag()
    one, other = (asyncio.ensure_future(flag.wait()) for _ in range(2))
    await asyncio.sleep(0)
    one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one
    flag.set()
    await other
