"""Memory keeps what is worth it, returns only what may be returned, and forgets what it must."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airside.memory.in_memory import HashingEmbedder
from airside.memory.records import Record
from airside.memory.rules import MemoryRules, Quota
from airside.memory.search.calibration import load_calibration
from airside.memory.search.index import Bounds, Query, TenantIndex
from airside.memory.service import MemoryService
from airside.memory.storage.erasure import Erasure
from airside.memory.storage.store import TenantStore, read_records
from airside.stack.contracts.memory import Candidate, RecallRequest
from airside.stack.errors import InvalidId, InvalidInput, MemoryFailed
from airside.stack.ids import TenantId
from airside.stack.reasons import MemoryCode
from airside.stack.values import CLEARANCES, PERSONAL

ACME, GLOBEX = TenantId("acme"), TenantId("globex")
DAY_US = 86_400_000_000
START_US = 1_700_000_000_000_000


class Clock:
    """A clock the test moves."""

    def __init__(self) -> None:
        self.now = START_US

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock of the test's own."""
    return Clock()


@pytest.fixture
def memory(tmp_path: Path, clock: Clock) -> Iterator[MemoryService]:
    """A service over an empty folder."""
    service = MemoryService(tmp_path / "memory", HashingEmbedder, clock)
    yield service
    service.close()


def fact(text: str, tenant: TenantId = ACME, **fields: Any) -> Candidate:
    """Return a candidate."""
    return Candidate(tenant=tenant, text=text, **{"kind": "fact", "source": "test", **fields})


async def found(memory: MemoryService, query: str, tenant: TenantId = ACME, **fields: Any) -> list[str]:
    """Return the texts a query recalls."""
    request = RecallRequest(tenant=tenant, query=query, **{"clearance": "restricted", "min_score": 0.0, **fields})
    reply = await memory.retrieve(request)
    assert reply.error == ""
    return [record.text for record in reply.records]


async def test_what_is_kept_can_be_read_where_nobody_has_it_open(
    memory: MemoryService, tmp_path: Path, clock: Clock
) -> None:
    """Each tenant's own, and nothing of a tenant that has none; no table is made."""
    await memory.write_if_useful(fact("the support plan of the customer is Gold"))
    kept = await memory.records(ACME)
    memory.close()
    assert read_records(tmp_path / "memory", ACME) == kept and len(kept) == 1
    assert read_records(tmp_path / "memory", GLOBEX) == [] == read_records(tmp_path / "nothing", ACME)
    assert [path.name for path in (tmp_path / "memory").glob("t_*")] == ["t_acme.lance"]
    assert not (tmp_path / "nothing").exists()


# What is kept.


async def test_a_newer_value_supersedes_the_older_one_which_is_kept_for_audit(memory: MemoryService) -> None:
    first = await memory.write_if_useful(fact("the support plan of the customer is Gold"))
    second = await memory.write_if_useful(fact("the support plan of the customer is Silver"))
    assert second.code == MemoryCode.STORED and second.superseded == (first.record_id,)
    assert await found(memory, "support plan") == ["the support plan of the customer is Silver"]
    states = {record.record_id: record.state for record in await memory.records(ACME)}
    assert states == {first.record_id: "superseded", second.record_id: "live"}


async def test_what_was_observed_earlier_does_not_supersede_what_is_newer(memory: MemoryService) -> None:
    await memory.write_if_useful(fact("the support plan of the customer is Gold"))
    old = fact("the support plan of the customer is Silver", observed_us=START_US - DAY_US)
    assert (await memory.write_if_useful(old)).code == MemoryCode.SUPERSEDED
    assert await found(memory, "support plan") == ["the support plan of the customer is Gold"]


async def test_what_is_trusted_less_supersedes_nothing(memory: MemoryService) -> None:
    await memory.write_if_useful(fact("the account manager of the customer is Priya", trust="high"))
    reply = await memory.write_if_useful(fact("the account manager of the customer is Mallory", trust="low"))
    assert reply.code == MemoryCode.QUARANTINED
    assert await found(memory, "account manager") == ["the account manager of the customer is Priya"]


async def test_one_topic_has_one_value(memory: MemoryService) -> None:
    await memory.write_if_useful(fact("Ana prefers to be called in the morning", subject="ana", topic="calls"))
    await memory.write_if_useful(fact("please write to Ana and never ring her", subject="ana", topic="calls"))
    await memory.write_if_useful(fact("please write to Ben and never ring him", subject="ben", topic="calls"))
    texts = await found(memory, "how to reach them", top_k=10)
    assert sorted(texts) == ["please write to Ana and never ring her", "please write to Ben and never ring him"]


async def test_nearly_the_same_is_merged_with_both_sources(memory: MemoryService) -> None:
    first = await memory.write_if_useful(fact("the customer prefers deliveries on tuesday mornings", source="a"))
    second = await memory.write_if_useful(fact("The customer prefers a delivery on Tuesday morning", source="b"))
    assert second.code == MemoryCode.MERGED and second.record_id == first.record_id
    (record,) = await memory.records(ACME)
    assert record.sources == ("a", "b") and record.met == 2


@pytest.mark.parametrize(
    ("candidate", "code"),
    [
        (fact("the password of the build server is hunter2!Xy9"), MemoryCode.SECRET),
        (fact("the customer was quite happy", confidence=0.1), MemoryCode.LOW_CONFIDENCE),
        (fact("the customer was quite happy", confidence=float("nan")), MemoryCode.INVALID),
        (fact("the customer was quite happy", importance=2.0), MemoryCode.INVALID),
        (fact("the customer was quite happy", kind=""), MemoryCode.INVALID),
        (fact("the customer was quite happy", source="x" * 300), MemoryCode.INVALID),
        (fact("the customer was quite happy", subject="a\nb"), MemoryCode.INVALID),
        (fact("the customer was quite \ud800 happy"), MemoryCode.INVALID),
        (fact("the customer was quite happy", observed_us=START_US + DAY_US), MemoryCode.TIME_INVALID),
        (fact("the customer was quite happy", kind="rumour"), MemoryCode.TTL_INVALID),
        (fact("the customer was quite happy", ttl_s=10**12), MemoryCode.TTL_INVALID),
        (fact("x" * 10_000_000), MemoryCode.TOO_LONG),
    ],
)
async def test_what_is_refused_and_why(memory: MemoryService, candidate: Candidate, code: MemoryCode) -> None:
    assert (await memory.write_if_useful(candidate)).code == code
    assert await memory.records(ACME) == []


@pytest.mark.parametrize("policy", ["label", "redact", "refuse"])
async def test_personal_data_is_labelled_redacted_or_refused(tmp_path: Path, clock: Clock, policy: Any) -> None:
    service = MemoryService(tmp_path, HashingEmbedder, clock, MemoryRules(personal_data=policy))
    reply = await service.write_if_useful(fact("Ana can be reached under ana.k@example.com after lunch"))
    records = await service.records(ACME)
    if policy == "refuse":
        assert reply.code == MemoryCode.PERSONAL_DATA and records == []
    elif policy == "redact":
        assert records[0].text == "Ana can be reached under [email] after lunch" and records[0].labels == ()
    else:
        assert records[0].labels == (PERSONAL,)
    service.close()


async def test_quotas_hold(tmp_path: Path, clock: Clock) -> None:
    rules = MemoryRules(quotas={"acme": Quota(records=2), "globex": Quota(bytes=4_000)})
    service = MemoryService(tmp_path, HashingEmbedder, clock, rules)
    names = ("Lyon", "Turin", "Ghent", "Porto", "Graz")
    for tenant, code in ((ACME, MemoryCode.QUOTA_RECORDS), (GLOBEX, MemoryCode.QUOTA_BYTES)):
        offered = [fact(f"our depot called {name} opens early", tenant) for name in names]
        codes = [(await service.write_if_useful(each)).code for each in offered]
        assert codes[0] == MemoryCode.STORED and codes[-1] == code
        assert len(await service.records(tenant)) == codes.count(MemoryCode.STORED) < len(names)
    service.close()


# Who may see what.


@pytest.mark.parametrize(
    "tenant", ["a'b", 't1" OR "1"="1', "*", "", "ACME", "\u0430cme", "ac\u200bme", "../x", None, "a" * 99]
)
async def test_no_other_text_is_a_tenant(memory: MemoryService, tenant: Any) -> None:
    with pytest.raises(InvalidId):
        await memory.write_if_useful(fact("the customer was quite happy", tenant))
    reply = await memory.retrieve(RecallRequest(tenant=tenant, query="customer", clearance="public"))
    assert reply.records == () and "InvalidId" in reply.error


@pytest.mark.parametrize("query", ["'", '" OR 1=1 --', "%", "*", "\u200b", "\x00", "", " ", "x" * 10_000_000, "\ud800"])
async def test_a_query_is_only_words(memory: MemoryService, query: str) -> None:
    await memory.write_if_useful(fact("the secret plan of globex is a merger", GLOBEX))
    assert await found(memory, query) == []


async def test_the_same_words_of_two_tenants_are_two_records(memory: MemoryService) -> None:
    text = "the customer prefers deliveries on tuesday mornings"
    ids = {(await memory.write_if_useful(fact(text, tenant))).record_id for tenant in (ACME, GLOBEX)}
    assert len(ids) == 2
    await memory.erase(Erasure(tenant=ACME, what="tenant"))
    assert await found(memory, text) == [] and await found(memory, text, GLOBEX) == [text]


async def test_a_table_with_another_tenants_record_is_used_by_nobody(tmp_path: Path, clock: Clock) -> None:
    service = MemoryService(tmp_path, HashingEmbedder, clock)
    await service.write_if_useful(fact("the secret plan of globex is a merger", GLOBEX))
    service.close()
    (tmp_path / "t_globex.lance").rename(tmp_path / "t_acme.lance")
    again = MemoryService(tmp_path, HashingEmbedder, clock)
    reply = await again.retrieve(RecallRequest(tenant=ACME, query="plan", clearance="restricted"))
    assert reply.records == () and "another tenant" in reply.error
    with pytest.raises(MemoryFailed):
        await again.records(ACME)
    again.close()


async def test_pinned_records_stay_and_set_aside_ones_are_not_recalled(memory: MemoryService, clock: Clock) -> None:
    text = "the customer prefers deliveries on tuesday mornings"
    record_id = (await memory.write_if_useful(fact(text, ttl_s=60))).record_id
    assert await memory.change(ACME, record_id, "pin")
    clock.now += 999 * DAY_US
    assert await found(memory, text) == [text]
    assert await memory.change(ACME, record_id, "quarantine") and await found(memory, text) == []
    assert await memory.change(ACME, record_id, "release") and await found(memory, text) == [text]
    assert await memory.change(ACME, record_id, "unpin")
    clock.now += 366 * DAY_US
    assert await found(memory, text) == [] and not await memory.change(ACME, record_id, "pin")
    assert not await memory.change(GLOBEX, record_id, "pin")
    assert not await memory.change(ACME, "mem_' OR 1=1", "pin")


async def test_only_what_is_put_aside_is_released_and_only_what_is_pinned_unpinned(memory: MemoryService) -> None:
    old = await memory.write_if_useful(fact("the support plan of the customer is Gold", ttl_s=60))
    new = await memory.write_if_useful(fact("the support plan of the customer is Silver"))
    for record_id, what in ((old, "release"), (old, "quarantine"), (new, "release"), (new, "unpin")):
        before = await memory.records(ACME)
        assert not await memory.change(ACME, record_id.record_id, what)  # type: ignore[arg-type]
        assert await memory.records(ACME) == before


# What is gone is gone.


def holds(folder: Path, needle: bytes) -> bool:
    """Whether a file of the folder has the bytes."""
    return any(needle in path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("what", ["record", "subject", "tenant"])
async def test_no_file_has_a_byte_of_what_was_erased(memory: MemoryService, tmp_path: Path, what: Any) -> None:
    text = "zanzibar quokka sesquipedalian whispers about periwinkle"
    for name in ("Lyon", "Turin", "Ghent", "Porto", "Graz", "Malmo", "Bruges", "Utrecht", "Basel", "Nantes", "Pisa"):
        await memory.write_if_useful(fact(f"our depot called {name} opens early", subject="depots"))
    planted = await memory.write_if_useful(fact(text, subject="quokka"))
    embedded = HashingEmbedder().embed([text])[0]
    vector = struct.pack("<8f", *embedded[np.flatnonzero(embedded)[0] :][:8])
    assert holds(tmp_path, b"sesquipedalian") and holds(tmp_path, vector)
    target = {"record": planted.record_id, "subject": "quokka", "tenant": ""}[what]
    receipt = await memory.erase(Erasure(tenant=ACME, what=what, target=target))
    assert planted.record_id in receipt.records
    assert not holds(tmp_path, b"sesquipedalian") and not holds(tmp_path, vector)
    assert text not in await found(memory, text)
    assert len(await memory.records(ACME)) == (0 if what == "tenant" else 11)


async def test_an_order_to_erase_outlives_the_process(tmp_path: Path, clock: Clock) -> None:
    service = MemoryService(tmp_path, HashingEmbedder, clock)
    reply = await service.write_if_useful(fact("zanzibar quokka sesquipedalian whispers"))
    assert service._orders is not None
    service._orders.take(Erasure(tenant=ACME, what="record", target=reply.record_id), clock())
    service.close()
    again = MemoryService(tmp_path, HashingEmbedder, clock)
    await again.start()
    assert not holds(tmp_path, b"sesquipedalian") and await again.records(ACME) == []
    assert not list((tmp_path / "erasing").iterdir())
    again.close()


@pytest.mark.parametrize("order", [("record", ""), ("subject", ""), ("tenant", "x")])
async def test_an_order_that_names_nothing_is_refused(memory: MemoryService, order: tuple[Any, str]) -> None:
    with pytest.raises(InvalidInput):
        await memory.erase(Erasure(tenant=ACME, what=order[0], target=order[1]))


async def test_what_expired_is_swept_and_not_returned_before(memory: MemoryService, clock: Clock) -> None:
    await memory.write_if_useful(fact("the customer was quite happy today", ttl_s=60))
    await memory.write_if_useful(fact("the supplier has moved to another town", ttl_s=600))
    clock.now += 61_000_000
    assert await found(memory, "customer happy") == ["the supplier has moved to another town"]
    assert await memory.sweep() == 1 and len(await memory.records(ACME)) == 1


async def test_of_a_tenant_whose_every_record_has_expired_no_byte_is_left(tmp_path: Path, clock: Clock) -> None:
    """And what is written next is kept, and there when it is opened again."""
    service = MemoryService(tmp_path, HashingEmbedder, clock)
    for _ in range(2):
        await service.write_if_useful(fact("the customer was quite happy today", ttl_s=60))
        clock.now += 61_000_000
        assert await service.sweep() == 1 and await service.records(ACME) == []
        assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"quite happy" in path.read_bytes()]
    await service.write_if_useful(fact("the supplier has moved to another town"))
    service.close()
    again = MemoryService(tmp_path, HashingEmbedder, clock)
    assert [record.text for record in await again.records(ACME)] == ["the supplier has moved to another town"]
    again.close()


async def test_tenants_that_are_not_open_are_swept_too(tmp_path: Path, clock: Clock) -> None:
    service = MemoryService(tmp_path, HashingEmbedder, clock)
    await service.write_if_useful(fact("the customer was quite happy today", ttl_s=60))
    await service.write_if_useful(fact("the supplier has moved to another town", ttl_s=600))
    service.close()
    clock.now += 61_000_000
    again = MemoryService(tmp_path, Broken, clock)  # it is not needed
    assert await again.sweep() == 1 and await again.sweep() == 0
    again.close()
    last = MemoryService(tmp_path, HashingEmbedder, clock)
    assert len(await last.records(ACME)) == 1
    last.close()


# On disk.


async def test_a_manifest_that_a_crash_cut_short_is_repaired(tmp_path: Path, clock: Clock) -> None:
    service = MemoryService(tmp_path, HashingEmbedder, clock)
    await service.write_if_useful(fact("the customer was quite happy today"))
    service.close()
    versions = tmp_path / "t_acme.lance" / "_versions"
    newest = min(versions.glob("*.manifest"))
    (versions / f"{int(newest.stem) - 1}.manifest").touch()
    (versions / f"{int(newest.stem) - 2}.manifest").write_bytes(newest.read_bytes()[:-7])
    again = MemoryService(tmp_path, HashingEmbedder, clock)
    assert await found(again, "customer") == ["the customer was quite happy today"]
    assert (await again.write_if_useful(fact("the supplier has moved to another town"))).kept
    again.close()


async def test_an_app_may_want_what_is_recalled_to_be_likelier(tmp_path: Path, clock: Clock) -> None:
    service = MemoryService(tmp_path, HashingEmbedder, clock, MemoryRules(min_score=0.9999))
    await service.write_if_useful(fact("the customer was quite happy today"))
    request = RecallRequest(tenant=ACME, query="customer happy yesterday", clearance="internal")
    assert (await service.retrieve(request)).records == ()
    assert (await service.retrieve(msgspec.structs.replace(request, min_score=0.0))).records
    service.close()


async def test_what_was_acknowledged_is_there_again_and_writes_at_once_are_few_commits(
    tmp_path: Path, clock: Clock
) -> None:
    service = MemoryService(tmp_path, HashingEmbedder, clock)
    texts = [f"the {word} of the depot called Lyon is {number} metres" for word in WORDS for number in (1, 22)]
    replies = await asyncio.gather(*(service.write_if_useful(fact(text)) for text in texts * 4))
    kept = {reply.record_id for reply in replies if reply.code == MemoryCode.STORED}
    assert all(reply.kept or reply.code == MemoryCode.SUPERSEDED for reply in replies)
    before = {record.record_id: record for record in await service.records(ACME)}
    service.close()
    versions = list((tmp_path / "t_acme.lance" / "_versions").glob("*.manifest"))
    assert len(versions) < 12
    again = MemoryService(tmp_path, HashingEmbedder, clock)
    after = {record.record_id: record for record in await again.records(ACME)}
    assert after == before and kept <= after.keys()
    assert len({record.digest for record in after.values() if record.state == "live"}) == len(WORDS)
    again.close()


async def test_a_tenant_that_is_not_written_to_for_a_moment_is_compacted(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airside.memory.tenant.IDLE_S", 0.0)
    tidied = asyncio.Event()
    tidy = TenantStore.tidy
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(TenantStore, "tidy", lambda store: (tidy(store), loop.call_soon_threadsafe(tidied.set)))
    service = MemoryService(tmp_path, HashingEmbedder, clock)
    for number in range(6):
        await service.write_if_useful(fact(f"parcel {number}x of the lot lies in hall {number}"))
    await asyncio.wait_for(tidied.wait(), 20)
    assert len(await service.records(ACME)) == 6
    service.close()


WORDS = ("length", "height", "depth", "width", "distance", "perimeter", "diagonal", "radius")


class Longer(HashingEmbedder):
    """Another model, of another dimension."""

    name, dimension = "longer", 320


async def test_another_embedder_embeds_anew_what_it_finds(tmp_path: Path, clock: Clock) -> None:
    service = MemoryService(tmp_path, HashingEmbedder, clock)
    text = "the customer was quite happy today"
    await service.write_if_useful(fact(text))
    service.close()
    for _ in range(2):
        again = MemoryService(tmp_path, Longer, clock)
        await again.reembed(ACME)
        assert await found(again, text) == [text]
        again.close()


async def test_tenants_that_do_not_fit_into_ram_are_closed_and_come_back(tmp_path: Path, clock: Clock) -> None:
    service = MemoryService(tmp_path, HashingEmbedder, clock, MemoryRules(hot_bytes=60_000))
    tenants = [TenantId(f"t{i}") for i in range(8)]
    for tenant in tenants:
        await service.write_if_useful(fact(f"the customer of {tenant} was quite happy", tenant))
    assert service.stats()["tenants"] < len(tenants) == service.stats()["tables"]
    for tenant in tenants:
        assert await found(service, "customer", tenant) == [f"the customer of {tenant} was quite happy"]
    service.close()


async def test_export_and_import_carry_a_tenants_records_but_not_more_trust(memory: MemoryService) -> None:
    await memory.write_if_useful(fact("the customer was quite happy today", trust="high", ttl_s=86_400))
    data = await memory.export(ACME)
    assert await memory.take_in(GLOBEX, data, "low") == {"stored": 1}
    (record,) = await memory.records(GLOBEX)
    assert record.trust == "low" and record.tenant == GLOBEX
    assert await found(memory, "customer", GLOBEX) == ["the customer was quite happy today"]
    with pytest.raises(InvalidInput):
        await memory.take_in(GLOBEX, b"PAR1 nonsense", "low")


class Broken(HashingEmbedder):
    """Answers nonsense."""

    def embed(self, texts: Any) -> Any:
        """Return too few."""
        return super().embed(texts)[:0]


async def test_an_embedder_that_fails_is_an_error_and_nothing_is_kept(tmp_path: Path, clock: Clock) -> None:
    service = MemoryService(tmp_path, Broken, clock)
    with pytest.raises(MemoryFailed):
        await service.write_if_useful(fact("the customer was quite happy today"))
    assert await service.records(ACME) == []
    service.close()


# Any sequence of operations.

TEXTS = [f"the {word} of the depot is {number} metres" for word in WORDS[:4] for number in (1, 2)]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(("write", "write", "write", "erase", "aside", "release", "pin", "wait", "sweep")),
        st.integers(0, len(TEXTS) - 1),
        st.sampled_from(CLEARANCES),
        st.sampled_from(("low", "medium", "high")),
        st.sampled_from((30, 600)),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, clearance=st.sampled_from(CLEARANCES))
async def test_no_sequence_returns_what_may_not_be_returned(steps: Any, clearance: Any) -> None:
    from airside.memory.in_memory import InMemoryMemory

    clock = Clock()
    local = InMemoryMemory(clock, MemoryRules(quota=Quota(records=6)))
    tenants = (ACME, GLOBEX)
    for what, number, level, trust, ttl_s in steps:
        tenant = tenants[number % 2]
        index: TenantIndex | None = local._tenants.get(tenant)
        if what == "write":
            await local.write_if_useful(
                fact(f"{TEXTS[number]}", tenant, sensitivity=level, trust=trust, ttl_s=ttl_s, source=str(tenant))
            )
        elif what == "wait":
            clock.now += ttl_s * 1_000_000
        elif index is not None and index.records:
            record = sorted(index.records.values(), key=lambda r: r.record_id)[number % len(index.records)]
            if what == "erase":
                index.remove([record.record_id])
            elif what != "sweep":
                states: dict[str, dict[str, Any]] = {"aside": {"state": "quarantined"}, "release": {"state": "live"}}
                change = states.get(what, {"pinned": True})
                index.put(msgspec.structs.replace(record, **change), index.vector(record.record_id))
            else:
                index.remove([i for i, r in index.records.items() if r.expires_us <= clock()])
        for each in local._tenants.values():
            each.check()
            assert len(each.records) <= 6
    for tenant in tenants:
        request = RecallRequest(tenant=tenant, query="depot metres", clearance=clearance, min_score=0.0, top_k=50)
        for shown in (await local.retrieve(request)).records:
            record = local._tenants[tenant].records[shown.record_id]
            assert record.tenant == tenant and shown.source == str(tenant)
            assert record.state == "live" and record.expires_us > clock()
            assert CLEARANCES.index(record.sensitivity) <= CLEARANCES.index(clearance)


def index_of(texts: list[str], **fields: Any) -> TenantIndex:
    """Return an index over texts."""
    index = TenantIndex(256, MemoryRules(), load_calibration("generic"))
    for number, (text, vector) in enumerate(zip(texts, HashingEmbedder().embed(texts), strict=True)):
        values: dict[str, Any] = {
            "record_id": f"mem_{number:024x}", "tenant": ACME, "text": text, "kind": "fact", "sources": ("x",),
            "sensitivity": "internal", "trust": "medium", "subject": "", "topic": "", "importance": 0.5,
            "confidence": 1.0, "labels": (), "state": "live", "superseded_by": "", "met": 1, "digest": str(number),
            "created_us": START_US, "observed_us": START_US, "expires_us": START_US + DAY_US, "pinned": False,
        }  # fmt: skip
        index.put(Record(**{**values, **fields}), vector)
    return index


def test_near_duplicates_do_not_fill_the_answer() -> None:
    same = ["the customer likes the blue model of the kettle very much"] * 20
    index = index_of([*same, "the customer likes tea from the kettle"])
    query = Query.of("customer kettle", HashingEmbedder().embed(["customer kettle likes blue model"])[0])
    texts = [r.text for r in index.search(query, Bounds(3, 0.0, "internal", START_US))]
    assert "the customer likes tea from the kettle" in texts


def test_a_score_says_why() -> None:
    index = index_of(["the customer likes blue kettles", "the supplier is closed on monday"])
    query = Query.of("blue kettles", HashingEmbedder().embed(["blue kettles"])[0])
    best = index.search(query, Bounds(1, 0.0, "internal", START_US + 5_000_000))[0]
    assert best.text.endswith("kettles") and 0 < best.rank <= best.score <= 1
    assert best.cosine > 0.5 and best.bm25 > 0 and best.age_s == 5 and best.trust == "medium"


@pytest.mark.parametrize("count", [1, 2, 40])
def test_scores_mean_the_same_in_a_store_of_one_record_as_in_a_larger_one(count: int) -> None:
    facts = [f"depot {n} opens when the {word} has come" for n, word in enumerate((*WORDS, *"abcdefgh") * 3)]
    index = index_of(["the courier called Merganser never delivers before nine", *facts][:count])
    index._calibration = load_calibration("all-MiniLM-L6-v2")

    def best(question: str) -> float:
        query = Query.of(question, HashingEmbedder().embed([question])[0])
        return max(r.score for r in index.search(query, Bounds(4, 0.0, "internal", START_US)))

    assert best("when does the courier Merganser deliver") > 0.7
    assert best("what is the weather on Mars") < 0.5
