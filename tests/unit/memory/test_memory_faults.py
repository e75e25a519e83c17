"""What memory does when the disk, the machine or a writer does not behave."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from airside.memory.comparison.relation import relation
from airside.memory.embedding import Queue
from airside.memory.in_memory import HashingEmbedder
from airside.memory.records import State
from airside.memory.rules import MemoryRules, Quota
from airside.memory.service import MemoryService
from airside.memory.storage.erasure import Erasure
from airside.memory.storage.store import Database, TenantStore
from airside.stack.contracts.memory import Candidate
from airside.stack.errors import InvalidInput, MemoryFailed
from airside.stack.ids import TenantId
from airside.stack.reasons import MemoryCode
from tests.unit.memory.test_memory import ACME, GLOBEX, Clock, clock, fact, found, holds, memory

__all__ = ["clock", "memory"]

QUOKKA = "zanzibar quokka sesquipedalian whispers about periwinkle"


class Held(HashingEmbedder):
    """Says when it has begun, and answers when it is let."""

    def __init__(self, begun: threading.Event, released: threading.Event) -> None:
        self._begun, self._released = begun, released

    def embed(self, texts: Any) -> Any:
        """Wait, then answer."""
        self._begun.set()
        assert self._released.wait(10)
        return super().embed(texts)


async def failing_once(monkeypatch: pytest.MonkeyPatch, name: str, work: Any) -> None:
    """Wait for something while the method of this name of the store or database fails, and see it fail."""
    with monkeypatch.context() as patched:

        def fail(*_: Any) -> None:
            raise OSError("no space is left")

        patched.setattr(Database if name == "rewrite" else TenantStore, name, fail)
        with pytest.raises(OSError, match="no space"):
            await work


async def test_an_erase_that_failed_is_carried_out_before_anything_is_read(
    memory: MemoryService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await memory.write_if_useful(fact(QUOKKA, subject="quokka"))
    await memory.write_if_useful(fact("our depot called Lyon opens early", subject="lyon"))
    await failing_once(monkeypatch, "rewrite", memory.erase(Erasure(tenant=ACME, what="subject", target="quokka")))
    assert await found(memory, QUOKKA) == ["our depot called Lyon opens early"]
    assert not holds(tmp_path, b"sesquipedalian")
    # What is said afterwards is not covered by the old order.
    again = await memory.write_if_useful(fact("the quokka lives on an island", subject="quokka"))
    await memory.sweep()
    assert again.record_id in {record.record_id for record in await memory.records(ACME)}
    assert not list((tmp_path / "memory" / "erasing").iterdir())


async def test_the_next_order_settles_the_one_that_failed(
    memory: MemoryService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await memory.write_if_useful(fact(QUOKKA))
    drop = Database.drop

    def fail(*args: Any) -> None:
        drop(*args)
        raise OSError("no space is left")

    with monkeypatch.context() as patched:
        patched.setattr(Database, "drop", fail)
        with pytest.raises(OSError, match="no space"):
            await memory.erase(Erasure(tenant=ACME, what="tenant"))
    assert list((tmp_path / "memory" / "erasing").iterdir())
    await memory.erase(Erasure(tenant=ACME, what="subject", target="quokka"))
    assert not list((tmp_path / "memory" / "erasing").iterdir())


async def test_what_cannot_be_erased_is_not_read_either(memory: MemoryService, monkeypatch: pytest.MonkeyPatch) -> None:
    await memory.write_if_useful(fact(QUOKKA))
    order = Erasure(tenant=ACME, what="record", target=(await memory.records(ACME))[0].record_id)
    await failing_once(monkeypatch, "rewrite", memory.erase(order))
    await failing_once(monkeypatch, "rewrite", memory.records(ACME))
    assert await memory.records(ACME) == []


async def test_a_commit_that_failed_leaves_what_was_acknowledged(
    memory: MemoryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = await memory.write_if_useful(fact(QUOKKA))
    offered = memory.write_if_useful(fact("our depot called Lyon opens early"))
    await failing_once(monkeypatch, "commit", offered)
    await memory.write_if_useful(fact("our depot called Ghent opens late"))
    await memory.erase(Erasure(tenant=ACME, what="subject", target="nobody"))
    records = await memory.records(ACME)
    assert kept.record_id in {record.record_id for record in records} and len(records) == 2


async def test_tenants_that_come_and_go_while_they_are_written_read_and_erased_lose_nothing(
    tmp_path: Path, clock: Clock
) -> None:
    service = MemoryService(tmp_path, HashingEmbedder, clock, MemoryRules(hot_bytes=1))
    tenants = [TenantId(f"t{i}") for i in range(6)]

    async def write(tenant: TenantId, number: int) -> str:
        reply = await service.write_if_useful(fact(f"parcel {number}x of the lot lies in hall {number}", tenant))
        assert reply.kept
        return reply.record_id

    async def rest(tenant: TenantId, number: int) -> None:
        await found(service, f"parcel {number}x", tenant)
        await service.erase(Erasure(tenant=tenant, what="subject", target="nobody"))
        await service.sweep()

    work = [each(tenant, number) for number in range(6) for tenant in tenants for each in (write, rest)]
    ids = {each for each in await asyncio.gather(*work) if each is not None}
    there = [record.record_id for tenant in tenants for record in await service.records(tenant)]
    assert ids == set(there) and len(there) == len(ids) == 36
    service.close()


async def test_erasing_a_tenant_ends_while_it_is_written_to(memory: MemoryService, tmp_path: Path) -> None:
    erased = asyncio.Event()

    async def write(writer: int) -> None:
        number = 0
        while not erased.is_set():
            await memory.write_if_useful(fact(f"parcel {number}x{writer} of the lot lies in hall {number}"))
            number += 1

    first = await memory.write_if_useful(fact(QUOKKA))
    writers = [asyncio.ensure_future(write(writer)) for writer in range(4)]
    receipt = await memory.erase(Erasure(tenant=ACME, what="tenant"))
    erased.set()
    await asyncio.gather(*writers)
    assert first.record_id in receipt.records and not holds(tmp_path, b"sesquipedalian")


async def test_a_tenant_whose_table_is_broken_is_erased_all_the_same_and_stops_no_other(
    tmp_path: Path, clock: Clock
) -> None:
    service = MemoryService(tmp_path, HashingEmbedder, clock)
    for tenant in (ACME, GLOBEX):
        await service.write_if_useful(fact(QUOKKA, tenant, ttl_s=60))
    service.close()
    for path in (tmp_path / "t_acme.lance" / "_versions").glob("*.manifest"):
        path.write_bytes(b"x" * 100 + b"LANC")
    clock.now += 61_000_000
    again = MemoryService(tmp_path, HashingEmbedder, clock)
    with pytest.raises(MemoryFailed, match="acme"):
        await again.sweep()
    assert await again.records(GLOBEX) == []
    with pytest.raises(MemoryFailed):
        await again.records(ACME)
    await again.erase(Erasure(tenant=ACME, what="tenant"))
    assert await again.records(ACME) == [] and not (tmp_path / "t_acme.lance").exists()
    again.close()


async def test_data_without_a_version_is_not_thrown_away(tmp_path: Path, clock: Clock) -> None:
    service = MemoryService(tmp_path, HashingEmbedder, clock)
    await service.write_if_useful(fact(QUOKKA))
    service.close()
    shutil.rmtree(tmp_path / "t_acme.lance" / "_versions")
    again = MemoryService(tmp_path, HashingEmbedder, clock)
    with pytest.raises(MemoryFailed, match="no version"):
        await again.records(ACME)
    assert holds(tmp_path, b"sesquipedalian")
    again.close()


async def test_a_commit_whose_data_a_crash_cut_short_is_taken_back(tmp_path: Path, clock: Clock) -> None:
    service = MemoryService(tmp_path, HashingEmbedder, clock)
    await service.write_if_useful(fact("our depot called Lyon opens early"))
    data = tmp_path / "t_acme.lance" / "data"
    before = set(data.iterdir())
    await service.write_if_useful(fact(QUOKKA))
    service.close()
    (newest,) = set(data.iterdir()) - before
    newest.write_bytes(newest.read_bytes()[:-50])
    again = MemoryService(tmp_path, HashingEmbedder, clock)
    assert [record.text for record in await again.records(ACME)] == ["our depot called Lyon opens early"]
    assert (await again.write_if_useful(fact(QUOKKA))).kept
    again.close()


async def test_data_that_was_acknowledged_and_is_damaged_is_not_taken_back(tmp_path: Path, clock: Clock) -> None:
    service = MemoryService(tmp_path, HashingEmbedder, clock)
    await service.write_if_useful(fact("our depot called Lyon opens early"))
    (first,) = (tmp_path / "t_acme.lance" / "data").iterdir()
    await service.write_if_useful(fact(QUOKKA))
    service.close()
    first.write_bytes(first.read_bytes()[:-50])
    again = MemoryService(tmp_path, HashingEmbedder, clock)
    with pytest.raises(MemoryFailed, match="cannot be read"):
        await again.records(ACME)
    again.close()


async def test_who_waits_when_the_process_ends_is_told(tmp_path: Path, clock: Clock) -> None:
    begun, released = threading.Event(), threading.Event()
    service = MemoryService(tmp_path, lambda: Held(begun, released), clock)
    writing = asyncio.ensure_future(service.write_if_useful(fact(QUOKKA)))
    assert await asyncio.to_thread(begun.wait, 10)
    for task in asyncio.all_tasks() - {asyncio.current_task(), writing}:
        task.cancel()
    with pytest.raises(MemoryFailed, match="closed"):
        await asyncio.wait_for(writing, 10)
    released.set()
    service.close()


async def test_what_waits_to_be_written_is_erased_too_and_shown_to_nobody_meanwhile(
    tmp_path: Path, clock: Clock
) -> None:
    begun, released = threading.Event(), threading.Event()
    released.set()
    service = MemoryService(tmp_path, lambda: Held(begun, released), clock)
    await service.write_if_useful(fact("Ana lives in Lyon since the spring", subject="ana"))
    begun.clear()
    released.clear()
    offered = [fact(f"Ana has parcel {n}x in hall {n}", subject=subject) for n, subject in enumerate(("Ana", "ben"))]
    writing = [asyncio.ensure_future(service.write_if_useful(each)) for each in offered]
    assert await asyncio.to_thread(begun.wait, 10)
    receipt = await service.erase(Erasure(tenant=ACME, what="subject", target="ana"))
    released.set()
    assert [reply.code for reply in await asyncio.gather(*writing)] == [MemoryCode.ERASED, MemoryCode.STORED]
    assert len(receipt.records) == 1
    assert [record.subject for record in await service.records(ACME)] == ["ben"]
    service.close()


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
async def test_an_erase_that_nobody_waits_for_any_more_covers_nothing_that_comes_after(
    memory: MemoryService, turns: int
) -> None:
    await memory.write_if_useful(fact(QUOKKA, subject="quokka"))
    erasing = asyncio.ensure_future(memory.erase(Erasure(tenant=ACME, what="subject", target="quokka")))
    for _ in range(turns):
        await asyncio.to_thread(lambda: None)
    erasing.cancel()
    await asyncio.wait([erasing])
    later = await memory.write_if_useful(fact("the quokka lives on an island", subject="quokka"))
    await memory.sweep()
    assert later.record_id in {record.record_id for record in await memory.records(ACME)} or not later.kept


async def test_many_orders_at_once_are_one_rewriting(memory: MemoryService, monkeypatch: pytest.MonkeyPatch) -> None:
    replies = [await memory.write_if_useful(fact(f"parcel {n}x of the lot lies in hall {n}")) for n in range(12)]
    rewrite, count = Database.rewrite, []
    monkeypatch.setattr(Database, "rewrite", lambda *args: (count.append(1), rewrite(*args)))
    orders = [Erasure(tenant=ACME, what="record", target=reply.record_id) for reply in replies[:10]]
    receipts = await asyncio.gather(*(memory.erase(order) for order in orders))
    assert [receipt.records for receipt in receipts] == [(reply.record_id,) for reply in replies[:10]]
    assert len(await memory.records(ACME)) == 2 and len(count) <= 3


async def test_erasing_needs_no_embedder(tmp_path: Path, clock: Clock) -> None:
    service = MemoryService(tmp_path, HashingEmbedder, clock)
    await service.write_if_useful(fact(QUOKKA, subject="quokka"))
    await service.write_if_useful(fact("our depot called Lyon opens early"))
    service.close()

    def broken() -> HashingEmbedder:
        raise OSError("the model is gone")

    again = MemoryService(tmp_path, broken, clock)
    assert len((await again.erase(Erasure(tenant=ACME, what="subject", target="quokka"))).records) == 1
    assert not holds(tmp_path, b"sesquipedalian") and holds(tmp_path, b"Lyon")
    again.close()


async def test_an_order_that_was_never_taken_leaves_nothing(
    memory: MemoryService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await memory.write_if_useful(fact(QUOKKA, subject="quokka"))
    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("no space is left")))
        with pytest.raises(OSError, match="no space"):
            await memory.erase(Erasure(tenant=ACME, what="subject", target="quokka"))
    assert list((tmp_path / "memory" / "erasing").iterdir()) == []
    assert await found(memory, QUOKKA) == [QUOKKA]


async def test_a_damaged_order_shuts_its_tenant_and_no_other(tmp_path: Path, clock: Clock) -> None:
    service = MemoryService(tmp_path, HashingEmbedder, clock)
    for tenant in (ACME, GLOBEX):
        await service.write_if_useful(fact(QUOKKA, tenant))
    service.close()
    (tmp_path / "erasing" / "00000000000000000001-acme.json").write_bytes(b"{")
    (tmp_path / "erasing" / "00000000000000000002-globex.json.new").write_bytes(b"{")
    (tmp_path / "t_no tenant.lance").mkdir()
    again = MemoryService(tmp_path, HashingEmbedder, clock)
    assert len(await again.records(GLOBEX)) == 1
    with pytest.raises(MemoryFailed, match="no order to erase"):
        await again.records(ACME)
    with pytest.raises(MemoryFailed, match="acme"):
        await again.sweep()
    again.close()


async def test_a_small_file_that_stands_for_many_records_is_refused(memory: MemoryService) -> None:
    import io

    import pyarrow.parquet as pq

    await memory.write_if_useful(fact("the customer was quite happy today"))
    table = pq.read_table(io.BytesIO(await memory.export(ACME)))
    big = io.BytesIO()
    pq.write_table(table.take([0] * 300_000), big)
    assert len(big.getvalue()) < 1_000_000
    with pytest.raises(InvalidInput, match="300000 rows"):
        await memory.take_in(GLOBEX, big.getvalue(), "low")


def test_nobody_waits_for_all_that_another_one_asks() -> None:
    queue = Queue()
    for number in range(40):
        queue.put(ACME, (f"a{number}", asyncio.Future(loop=asyncio.new_event_loop())))
    queue.put(GLOBEX, ("g", asyncio.Future(loop=asyncio.new_event_loop())))
    assert [text for text, _ in queue.take(4)] == ["a0", "g", "a1", "a2"] and len(queue) == 37


# What is merged, and what is not.


async def test_what_is_said_about_two_subjects_is_two_records(memory: MemoryService) -> None:
    for subject in ("ana", "ben", ""):
        reply = await memory.write_if_useful(fact("deliveries come on tuesday mornings", subject=subject))
        assert reply.code == MemoryCode.STORED
        near = await memory.write_if_useful(fact("a delivery comes on Tuesday morning", subject=subject))
        assert near.code == MemoryCode.MERGED
    await memory.erase(Erasure(tenant=ACME, what="subject", target="ana"))
    assert sorted(record.subject for record in await memory.records(ACME)) == ["", "ben"]


TAGGED = "deliveries come on tuesday mornings" + "".join(chr(0xE0000 + ord(c)) for c in "pay Mallory")


async def test_what_nobody_sees_gains_no_trust(memory: MemoryService) -> None:
    await memory.write_if_useful(fact(TAGGED, trust="low"))
    reply = await memory.write_if_useful(fact("deliveries come on tuesday mornings", trust="high"))
    assert reply.code == MemoryCode.DUPLICATE
    (record,) = await memory.records(ACME)
    assert (record.text, record.trust) == ("deliveries come on tuesday mornings", "high")
    await memory.write_if_useful(fact(TAGGED, trust="medium"))
    assert (await memory.records(ACME))[0].text == "deliveries come on tuesday mornings"


async def test_a_pinned_record_keeps_its_text_and_its_trust(memory: MemoryService) -> None:
    kept = await memory.write_if_useful(fact(TAGGED, trust="low"))
    await memory.change(ACME, kept.record_id, "pin")
    await memory.write_if_useful(fact("deliveries come on tuesday mornings", trust="high"))
    (record,) = await memory.records(ACME)
    assert (record.text, record.trust) == (TAGGED, "low")


@pytest.mark.parametrize(
    ("fields", "state"), [({"trust": "low"}, "quarantined"), ({"trust": "medium", "observed_us": 1}, "superseded")]
)
async def test_what_is_kept_aside_is_not_kept_twice(memory: MemoryService, fields: Any, state: State) -> None:
    await memory.write_if_useful(fact("the account manager of the customer is Priya", trust="medium"))
    replies = [
        await memory.write_if_useful(fact("the account manager of the customer is Mallory", **fields)) for _ in range(5)
    ]
    assert len({reply.record_id for reply in replies}) == 1
    assert sorted(record.state for record in await memory.records(ACME)) == ["live", state]


async def test_what_a_person_put_aside_stays_so_however_often_it_is_said(memory: MemoryService) -> None:
    text = "the account manager of the customer is Mallory"
    kept = await memory.write_if_useful(fact(text))
    await memory.change(ACME, kept.record_id, "quarantine")
    assert (await memory.write_if_useful(fact(text))).code == MemoryCode.QUARANTINED
    assert await found(memory, text) == []
    assert (await memory.write_if_useful(fact(text, trust="high"))).code == MemoryCode.STORED
    assert await found(memory, text) == [text]


async def test_a_merge_does_not_outgrow_the_quota(tmp_path: Path, clock: Clock) -> None:
    service = MemoryService(tmp_path, HashingEmbedder, clock, MemoryRules(quota=Quota(bytes=1_100)))
    short = fact("deliveries come on tuesday mornings")
    assert (await service.write_if_useful(short)).kept
    longer = fact("the deliveries will be coming to you on the " + "   " * 30 + " tuesday mornings", source="s" * 40)
    assert (await service.write_if_useful(longer)).code == MemoryCode.QUOTA_BYTES
    (record,) = await service.records(ACME)
    assert record.text == short.text
    service.close()


def test_long_texts_are_the_same_or_not_and_nothing_else() -> None:
    words = [f"w{i % 7}" for i in range(4_000)]
    other = list(reversed(words))
    assert relation(" ".join(words), " ".join(other)) == "unlike"
    assert relation(" ".join(words), " ".join(words).upper()) == "same"


@pytest.mark.slow
@pytest.mark.parametrize("is_same", [True, False], ids=["one fact said in many ways", "facts that differ by a number"])
async def test_100_000_near_duplicates_take_no_more_than_the_quota(
    tmp_path: Path, clock: Clock, *, is_same: bool
) -> None:
    service = MemoryService(tmp_path, HashingEmbedder, clock, MemoryRules(quota=Quota(records=1_000)))
    ways = ("prefers a delivery on Tuesday morning", "prefers deliveries on the Tuesday mornings")

    def offered(number: int) -> Candidate:
        text = f"the customer {ways[number % 2]}" if is_same else f"parcel {number} of the customer lies in the hall"
        return fact(text, source=f"s{number}")

    codes: Counter[str] = Counter()
    for at in range(0, 100_000, 5_000):
        replies = await asyncio.gather(*(service.write_if_useful(offered(n)) for n in range(at, at + 5_000)))
        codes.update(reply.code for reply in replies)
    records = await service.records(ACME)
    if is_same:
        assert len(records) == codes["stored"] == 1 and codes["merged"] + codes["duplicate"] == 99_999
        assert len(records[0].sources) == 8
    else:
        assert len(records) == codes["stored"] == 1_000 and codes["quota_records"] == 99_000
    service.close()
