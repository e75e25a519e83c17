"""Erasing follows what was said of a record, by whoever had been shown it, through every way there is to keep it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airside.memory.in_memory import HashingEmbedder, InMemoryMemory
from airside.memory.lineage import MANY, MAX_LINEAGE, UNTRACED, lineage_of, subject_mark, united
from airside.memory.records import Record
from airside.memory.rules import MemoryRules, Quota
from airside.memory.service import MemoryService
from airside.memory.storage.erasure import MAX_KEPT, Erasure
from airside.memory.storage.erasure_plan import ErasurePlan, plan_erasure
from airside.memory.storage.store import Database, table_name
from airside.stack.contracts.memory import MAX_SHOWN
from airside.stack.errors import InvalidInput
from airside.stack.reasons import MemoryCode
from tests.unit.memory.ancestry import Ancestry
from tests.unit.memory.test_memory import ACME, DAY_US, GLOBEX, START_US, Clock, clock, fact, found, memory

__all__ = ["clock", "memory"]

RUN = "run_" + "a" * 24
SOURCE_TEXT = "Kim Aurelio pays invoice 4711 by transfer"
ANA = Erasure(tenant=ACME, what="subject", target="ana")


def record(number: int, text: str = "a text of some words", **fields: Any) -> Record:
    """Return a record."""
    given = {
        "record_id": f"mem_{number:024x}", "tenant": ACME, "text": text, "kind": "fact", "sources": ("x",),
        "sensitivity": "internal", "trust": "medium", "subject": "", "topic": "", "importance": 0.5, "confidence": 1.0,
        "labels": (), "state": "live", "superseded_by": "", "met": 1, "digest": f"d{number}", "created_us": START_US,
        "observed_us": START_US, "expires_us": START_US + DAY_US, "pinned": False,
    }  # fmt: skip
    return Record(**(given | fields))


def whys(plan: ErasurePlan) -> dict[str, str]:
    """Return why each goes, by id."""
    return {each.record_id: each.why for each in plan.taken}


async def kept(memory: MemoryService, text: str, *shown: str, **fields: Any) -> str:
    """Keep a fact that somebody says who was shown records; return its id."""
    reply = await memory.write_if_useful(fact(text, shown=shown, **fields))
    assert reply.kept, reply.code
    return reply.record_id


async def ids(memory: MemoryService) -> set[str]:
    """Return what is there."""
    return {each.record_id for each in await memory.records(ACME)}


# Marks.


def test_a_lineage_has_who_was_shown_and_the_subjects_behind_them_but_no_name() -> None:
    one = record(1, subject="Ana Berg", lineage=("mem_" + "f" * 24, "sub_" + "0" * 16, UNTRACED))
    assert lineage_of([one]) == (one.record_id, subject_mark("ana  BERG"), "sub_" + "0" * 16, UNTRACED)
    assert not any("ana" in mark for mark in lineage_of([one]))


def test_a_lineage_that_is_too_long_says_so_and_goes_on_saying_so() -> None:
    long = united((), tuple(f"sub_{n:016x}" for n in range(MAX_LINEAGE + 1)))
    assert len(long) == MAX_LINEAGE + 1 and long[-1] == MANY
    assert united(long, ("mem_" + "1" * 24,)) == long
    assert MANY in lineage_of([record(1, lineage=long)])


def test_two_lineages_that_say_the_same_are_not_written_again() -> None:
    one = ("a", "b")
    assert united(one, ("b",)) is one and united(one, ("c",)) == ("a", "b", "c")


# What goes.


def test_what_goes_is_said_with_why_and_whom_else_it_is_about() -> None:
    own = record(1, SOURCE_TEXT, subject="ana")
    repeats = record(2, "somebody said that invoice 4711 is paid", lineage=(own.record_id,))
    through = record(3, "the bill is settled in time", lineage=(repeats.record_id,), subject="ben")
    names = record(4, "so does ben it seems to me", lineage=(subject_mark("ana"),))
    other = record(5, "Ben pays in cash at the counter", subject="ben", lineage=("mem_" + "e" * 24,))
    plan = plan_erasure(ANA, [own, repeats, through, names, other])
    assert whys(plan) == {
        own.record_id: "own", repeats.record_id: "repeats", through.record_id: "shown", names.record_id: "shown",
    }  # fmt: skip
    assert {each.record_id for each in plan.taken if each.others} == {through.record_id, names.record_id}
    assert plan.left == () and plan.untraced == 0


@pytest.mark.parametrize(
    ("order", "gone"),
    [
        ({}, {1, 2, 3, 4}),
        ({"only": "repeats"}, {1, 2}),
        ({"only": "own"}, {1}),
        ({"keep": (f"mem_{3:024x}",)}, {1, 2, 4}),
        ({"keep": (f"mem_{2:024x}",)}, {1, 4}),
    ],
)
def test_an_order_says_what_of_that_which_derives_goes(order: dict[str, Any], gone: set[int]) -> None:
    """What derives by a record that is kept derives from nothing that goes."""
    records = [
        record(1, SOURCE_TEXT, subject="ana"),
        record(2, "invoice 4711 is paid by now", lineage=(f"mem_{1:024x}",)),
        record(3, "nothing is owed any more here", lineage=(f"mem_{2:024x}",)),
        record(4, "it rains over the harbour again", lineage=(f"mem_{1:024x}",)),
    ]
    plan = plan_erasure(msgspec.structs.replace(ANA, **order), records)
    assert set(plan.ids) == {f"mem_{number:024x}" for number in gone}
    assert set(plan.ids).isdisjoint(each.record_id for each in plan.left)


def test_what_may_derive_from_anything_goes_unless_the_subject_is_known_nowhere() -> None:
    many, own = record(1, lineage=(MANY,)), record(2, SOURCE_TEXT, subject="ana")
    assert whys(plan_erasure(ANA, [many, own])) == {own.record_id: "own", many.record_id: "many"}
    assert plan_erasure(ANA, [many, record(3, subject="anna")]).taken == ()


def test_records_that_derive_from_each_other_are_no_endless_way() -> None:
    one, other = record(1, lineage=(f"mem_{2:024x}",), subject="ana"), record(2, lineage=(f"mem_{1:024x}",))
    assert set(plan_erasure(ANA, [one, other]).ids) == {one.record_id, other.record_id}


@pytest.mark.parametrize(
    "order",
    [
        Erasure(tenant=ACME, what="tenant", only="own"),
        Erasure(tenant=ACME, what="tenant", keep=(f"mem_{1:024x}",)),
        Erasure(tenant=ACME, what="subject", target="\u200b "),
        msgspec.structs.replace(ANA, only="some"),
        msgspec.structs.replace(ANA, keep=("all",)),
        msgspec.structs.replace(ANA, keep=(f"mem_{1:024x}",) * (MAX_KEPT + 1)),
    ],
    ids=["only of a tenant", "keep of a tenant", "no subject", "only what", "keep what", "keep too many"],
)
def test_an_order_that_can_mean_nothing_is_refused(order: Erasure) -> None:
    with pytest.raises(InvalidInput):
        order.checked()


async def test_only_what_derives_can_be_kept(memory: MemoryService) -> None:
    own = await kept(memory, SOURCE_TEXT, subject="ana")
    derived = await kept(memory, "this customer owes us nothing", own)
    for wrong in (own, "mem_" + "0" * 24):
        with pytest.raises(InvalidInput, match="keep what a dry run shows"):
            await memory.erase(msgspec.structs.replace(ANA, keep=(wrong,)))
    order = msgspec.structs.replace(ANA, keep=(derived,))
    planned = await memory.plan_erasure(order)
    assert await ids(memory) == {own, derived}
    receipt = await memory.erase(order)
    assert msgspec.structs.replace(planned, dry_run=False, at_us=receipt.at_us) == receipt
    assert await ids(memory) == {derived} and [each.record_id for each in receipt.left] == [derived]
    assert (await memory.erase(order)).records == ()
    assert (await memory.erase(ANA)).records == (derived,)


# What is learned.


@pytest.mark.parametrize("how", ["erased", "expired", "never"])
async def test_what_was_said_of_a_record_that_is_gone_is_not_kept(
    memory: MemoryService, clock: Clock, how: str
) -> None:
    source = await kept(memory, SOURCE_TEXT, subject="ana", ttl_s=60)
    if how == "erased":
        await memory.erase(ANA)
    elif how == "expired":
        clock.now += 60_000_000
    else:
        source = "mem_" + "0" * 24
    reply = await memory.write_if_useful(fact("this customer owes us nothing", shown=(source,)))
    assert reply.code == MemoryCode.SOURCE_GONE and reply.record_id == ""


async def test_what_cannot_be_traced_is_not_kept(memory: MemoryService) -> None:
    most = tuple(f"mem_{number:024x}" for number in range(MAX_SHOWN + 1))
    codes = [
        (await memory.write_if_useful(fact("this customer owes us nothing", shown=shown))).code
        for shown in (most, ("ana",), (1,), ["mem_" + "0" * 24])
    ]
    assert codes == [MemoryCode.TOO_MANY_SOURCES, *3 * [MemoryCode.INVALID]]


async def test_texts_that_are_merged_derive_from_what_both_did(memory: MemoryService) -> None:
    own = await kept(memory, SOURCE_TEXT, subject="ana")
    alone = await kept(memory, "the customer prefers deliveries on tuesday mornings")
    merged = await memory.write_if_useful(fact("The customer prefers a delivery on Tuesday morning", shown=(own,)))
    assert (merged.code, merged.record_id) == (MemoryCode.MERGED, alone)
    again = await memory.write_if_useful(fact("the customer prefers deliveries on tuesday mornings", shown=(alone,)))
    assert again.code == MemoryCode.DUPLICATE
    (both,) = [each for each in await memory.records(ACME) if each.record_id == alone]
    assert both.lineage == (own, subject_mark("ana")) and both.met == 2, "it is no source of its own"
    assert set((await memory.erase(ANA)).records) == {own, alone}


async def test_what_was_put_aside_or_superseded_goes_too(memory: MemoryService) -> None:
    own = await kept(memory, SOURCE_TEXT, subject="ana")
    old = await kept(memory, "the support plan of the customer is Gold", own)
    new = await kept(memory, "the support plan of the customer is Silver")
    aside = await kept(memory, "the harbour crane is painted green this spring")
    assert await memory.change(ACME, aside, "quarantine")
    said = await memory.write_if_useful(fact("the harbour crane is painted green this spring", shown=(own,)))
    assert (said.code, said.record_id) == (MemoryCode.QUARANTINED, aside)
    assert set((await memory.erase(ANA)).records) == {own, old, aside} and await ids(memory) == {new}


async def test_what_an_operator_said_is_not_erased_because_a_run_repeats_it(memory: MemoryService) -> None:
    own = await kept(memory, SOURCE_TEXT, subject="ana")
    rule = await kept(memory, "deliveries are made on tuesday mornings only", trust="high")
    assert (
        await memory.write_if_useful(fact("deliveries are made on tuesday mornings only", shown=(own,)))
    ).code == MemoryCode.DUPLICATE
    assert (await memory.erase(ANA)).records == (own,) and await ids(memory) == {rule}


async def test_a_repeat_that_would_derive_from_more_than_the_quota_holds_is_not_kept(
    tmp_path: Path, clock: Clock
) -> None:
    """It is not that the record stays as it is, and nobody knows any more that it derives from something."""
    text = "the customer prefers deliveries on tuesdays"
    size = 2 * 256 * 4 + 2 * len("testfact") + len(text) + len(SOURCE_TEXT) + len("ana")
    memory = MemoryService(tmp_path, HashingEmbedder, clock, MemoryRules(quota=Quota(bytes=size + 10)))
    own = await kept(memory, SOURCE_TEXT, subject="ana")
    await kept(memory, text)
    assert (await memory.write_if_useful(fact(text, shown=(own,)))).code == MemoryCode.QUOTA_BYTES
    memory.close()


# What a lineage outlives.


async def test_what_derives_from_what_has_expired_is_still_reached_by_its_subject(
    memory: MemoryService, clock: Clock
) -> None:
    own = await kept(memory, SOURCE_TEXT, subject="ana", ttl_s=60)
    between = await kept(memory, "this customer owes us nothing", own, ttl_s=120)
    last = await kept(memory, "so the account is to be closed", between)
    clock.now += 200_000_000
    await memory.sweep()
    assert await ids(memory) == {last}
    assert whys(await memory.erase(ANA)) == {last: "shown"}


@pytest.mark.parametrize("compacted", [False, True])
async def test_a_lineage_outlives_the_process_and_a_compaction(tmp_path: Path, clock: Clock, compacted: bool) -> None:
    memory = MemoryService(tmp_path, HashingEmbedder, clock)
    own = await kept(memory, SOURCE_TEXT, subject="ana")
    derived = await kept(memory, "this customer owes us nothing", own)
    if compacted:
        await memory._tenants[ACME]._tidy()
    memory.close()
    again = MemoryService(tmp_path, HashingEmbedder, clock)
    assert set((await again.erase(ANA)).records) == {own, derived} and await ids(again) == set()
    again.close()


async def test_an_order_that_a_crash_cut_short_keeps_what_it_said(tmp_path: Path, clock: Clock) -> None:
    memory = MemoryService(tmp_path, HashingEmbedder, clock)
    own = await kept(memory, SOURCE_TEXT, subject="ana")
    derived, left = [await kept(memory, f"this customer owes {what} of it", own) for what in ("nothing", "half")]
    assert memory._orders is not None
    memory._orders.take(msgspec.structs.replace(ANA, keep=(left,)), clock())
    memory.close()
    again = MemoryService(tmp_path, HashingEmbedder, clock)
    assert await ids(again) == {left} and derived != left
    again.close()


async def test_nobody_finds_what_derives_while_it_is_erased(
    memory: MemoryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = await kept(memory, SOURCE_TEXT, subject="ana")
    await kept(memory, "this customer owes us nothing", own)
    left = await kept(memory, "the harbour is calm this morning", own)
    erasing = asyncio.ensure_future(memory.erase(msgspec.structs.replace(ANA, only="repeats")))
    await asyncio.sleep(0)
    assert await found(memory, "customer harbour invoice") == []
    await erasing
    assert len(await found(memory, "customer harbour invoice")) == 2 and left in await ids(memory)


async def test_export_and_import_carry_what_derives_from_what(memory: MemoryService) -> None:
    """By subject, and by record under the ids that they have there."""
    own = await kept(memory, SOURCE_TEXT, subject="ana")
    await kept(memory, "this customer owes us nothing", own)
    data = await memory.export(ACME)
    assert await memory.take_in(GLOBEX, data, "low") == {"stored": 2}
    (there,) = [each.record_id for each in await memory.records(GLOBEX) if each.subject]
    assert there != own
    for order in (
        Erasure(tenant=GLOBEX, what="record", target=there),
        Erasure(tenant=GLOBEX, what="subject", target="ana"),
    ):
        assert len((await memory.plan_erasure(order)).records) == 2


async def test_a_store_and_a_file_of_before_are_read_and_said_to_have_no_lineage(tmp_path: Path, clock: Clock) -> None:
    memory = MemoryService(tmp_path / "old", HashingEmbedder, clock)
    own = await kept(memory, SOURCE_TEXT, subject="ana")
    await kept(memory, "this customer owes us nothing", source=f"{RUN}#1")
    data = await memory.export(ACME)
    memory.close()
    database = Database(tmp_path / "old")
    database.rewrite(table_name(ACME), database.read(table_name(ACME))[1].drop_columns(["lineage"]))
    pq.write_table(pq.read_table(__import__("io").BytesIO(data)).drop_columns(["lineage"]), tmp_path / "old.parquet")
    for opened in (False, True):
        again = MemoryService(tmp_path / "old", HashingEmbedder, clock)
        if opened:
            later = await kept(again, "so the account is to be closed", next(iter(await ids(again) - {own})))
            assert UNTRACED in next(r for r in await again.records(ACME) if r.record_id == later).lineage
        planned = await again.plan_erasure(ANA)
        assert planned.records == (own,) and planned.untraced == 1 + opened
        again.close()
    another = MemoryService(tmp_path / "new", HashingEmbedder, clock)
    assert await another.take_in(ACME, (tmp_path / "old.parquet").read_bytes(), "medium") == {"stored": 2}
    assert (await another.erase(ANA)).untraced == 1
    another.close()


async def test_a_table_of_before_is_erased_from_before_it_was_opened(tmp_path: Path, clock: Clock) -> None:
    memory = MemoryService(tmp_path, HashingEmbedder, clock)
    own = await kept(memory, SOURCE_TEXT, subject="ana")
    other = await kept(memory, "the harbour is calm this morning", source=f"{RUN}#1")
    memory.close()
    database = Database(tmp_path)
    database.rewrite(table_name(ACME), database.read(table_name(ACME))[1].drop_columns(["lineage"]))
    again = MemoryService(tmp_path, HashingEmbedder, clock)
    receipt = await again.erase(ANA)
    assert receipt.records == (own,) and receipt.untraced == 1 and await ids(again) == {other}
    again.close()


# Erasing between being shown and learning.

STEPS = st.lists(
    st.tuples(st.sampled_from(("write", "write", "write", "erase", "wait")), st.integers(0, 7), st.integers(0, 7)),
    max_size=30,
)


@settings(max_examples=150, deadline=None)
@given(steps=STEPS)
def test_nothing_is_left_of_what_runs_said_of_a_subject_whatever_was_erased_when(
    steps: list[tuple[str, int, int]],
) -> None:
    """A run is shown records at any time before it says something, and erasing comes in between."""
    clock, ancestry, seen = Clock(), Ancestry(), []
    memory = InMemoryMemory(clock)

    async def play() -> None:
        for number, (what, one, other) in enumerate(steps):
            clock.now += 1
            index = memory._tenants.get(ACME)
            records = dict(index.records) if index is not None else {}
            if what == "wait":
                clock.now += 40_000_000
            elif what == "erase":
                subject = f"s{one % 3}"
                plan = await memory.erase(Erasure(tenant=ACME, what="subject", target=subject))
                assert ancestry.of(subject, records) <= set(plan.ids) <= ancestry.reached(subject, records)
            else:
                shown = tuple({seen[n % len(seen)] for n in (one, other)}) if seen and one < 6 else ()
                subject = f"s{one % 3}" if not shown or other < 2 else ""
                reply = await memory.write_if_useful(
                    fact(
                        f"word{number % 11} of the harbour is open",
                        shown=shown,
                        subject=subject,
                        ttl_s=30 + 60 * (one % 2),
                    )
                )
                there = [i in records and records[i].expires_us > clock.now for i in shown]
                assert (reply.code == MemoryCode.SOURCE_GONE) == (not all(there))
                if reply.record_id:
                    ancestry.add(reply.record_id, subject, shown)
                    seen.append(reply.record_id)

    asyncio.run(play())
