"""What is offered at once is drafted, compared and written together, and each gets its own answer."""

from __future__ import annotations

import asyncio
import ctypes
from pathlib import Path
from typing import Any

import msgspec
import pytest

from airside.memory import tenant as tenant_module
from airside.memory.service import MemoryService
from airside.memory.storage.erasure import Erasure
from airside.memory.storage.freeing import give_back
from airside.stack.reasons import MemoryCode
from tests.unit.memory.test_memory import ACME, GLOBEX, Clock, clock, fact, memory

__all__ = ["clock", "memory"]

TUESDAYS = "deliveries come on tuesday mornings"


def tables(folder: Path) -> list[str]:
    """Return the names of the tables there are."""
    return [path.name for path in folder.rglob("t_*.lance")]


async def test_each_candidate_of_a_group_gets_its_own_answer(memory: MemoryService) -> None:
    """What is refused, or is no candidate at all, is nothing to the others."""
    offered = [
        fact(TUESDAYS),
        fact("the password of the depot is hunter2!x"),
        msgspec.structs.replace(fact(TUESDAYS), confidence="much"),
        fact("deliveries come on Tuesday morning", source="b"),
        fact(TUESDAYS),
    ]
    replies: list[Any] = await asyncio.gather(*map(memory.write_if_useful, offered), return_exceptions=True)
    assert isinstance(replies.pop(2), TypeError)
    codes = [reply.code for reply in replies]
    assert codes == [MemoryCode.STORED, MemoryCode.SECRET, MemoryCode.MERGED, MemoryCode.DUPLICATE]
    (record,) = await memory.records(ACME)
    assert record.text == TUESDAYS and record.sources == ("test", "b")


async def test_later_ones_of_a_group_supersede_earlier_ones_of_their_topic(memory: MemoryService) -> None:
    words = ("in the morning by phone", "by mail and never by phone", "through her assistant alone")
    offered = [fact(f"Ana is to be reached {how}", subject="ana", topic="calls") for how in words]
    offered += [fact(f"Ben is to be reached {how}", subject="ben", topic="calls") for how in words[:2]]
    replies = await asyncio.gather(*map(memory.write_if_useful, offered))
    assert [len(reply.superseded) for reply in replies] == [0, 1, 1, 0, 1]
    live = {record.text for record in await memory.records(ACME) if record.state == "live"}
    assert live == {
        "Ana is to be reached through her assistant alone",
        "Ben is to be reached by mail and never by phone",
    }


async def test_a_merge_within_a_group_is_compared_with_by_its_new_text(memory: MemoryService) -> None:
    """The longer text is kept of two that say the same, and its words are what the next one repeats."""
    longer = "the deliveries come on the Tuesday mornings"
    replies = await asyncio.gather(*(memory.write_if_useful(fact(text)) for text in (TUESDAYS, longer, longer)))
    assert [reply.code for reply in replies] == [MemoryCode.STORED, MemoryCode.MERGED, MemoryCode.DUPLICATE]
    assert [record.text for record in await memory.records(ACME)] == [longer]


async def test_where_nothing_is_worth_keeping_no_table_is_made(memory: MemoryService, tmp_path: Path) -> None:
    assert not (await memory.write_if_useful(fact("hi", GLOBEX))).kept
    assert await memory.records(GLOBEX) == [] and tables(tmp_path) == []


async def test_what_is_offered_before_an_erase_is_not_kept_however_far_it_is(memory: MemoryService) -> None:
    await memory.write_if_useful(fact(TUESDAYS))
    writing = asyncio.ensure_future(memory.write_if_useful(fact("Ana lives in Lyon since the spring", subject="ana")))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await memory.erase(Erasure(tenant=ACME, what="subject", target="ana"))
    assert (await writing).code == MemoryCode.ERASED
    assert [record.text for record in await memory.records(ACME)] == [TUESDAYS]


async def test_memory_is_given_back_after_what_took_it(
    memory: MemoryService, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An erase, a compaction and a sweep: what they took, and what went, is needed by nobody soon."""
    given: list[str] = []
    monkeypatch.setattr(tenant_module, "give_back", lambda: given.append("tenant"))
    monkeypatch.setattr("airside.memory.service.give_back", lambda: given.append("sweep"))
    kept = await memory.write_if_useful(fact(TUESDAYS))
    assert given == []
    await memory.erase(Erasure(tenant=ACME, what="record", target=kept.record_id))
    assert given == ["tenant"]
    await memory.sweep()
    assert given == ["tenant", "sweep"]


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc")
def test_what_is_free_between_what_is_used_is_given_back() -> None:
    def rss() -> int:
        line = next(line for line in Path("/proc/self/status").read_text("utf-8").splitlines() if "VmRSS" in line)
        return int(line.split()[1]) // 1024

    blocks = [b"%09d" % number * 200 for number in range(32_000)]
    kept = blocks[::1_000]
    before = rss()
    del blocks
    give_back()
    assert rss() < before - 30 and len(kept) == 32
