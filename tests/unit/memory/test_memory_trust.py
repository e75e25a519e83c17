"""Who is trusted less, or cleared less, changes nothing of what is trusted or cleared more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lancedb
import msgspec
import pyarrow as pa
import pytest

from airside.memory.in_memory import HashingEmbedder
from airside.memory.rules import KINDS, MemoryRules
from airside.memory.service import MemoryService
from airside.memory.storage.erasure import Erasure
from airside.stack.reasons import MemoryCode
from airside.stack.values import PERSONAL
from tests.unit.memory.test_memory import ACME, DAY_US, GLOBEX, START_US, Clock, clock, fact, found, memory

__all__ = ["clock", "memory"]

PRIYA = "the account manager of the customer is Priya"
MALLORY = "the account manager of the customer is Mallory"


@pytest.mark.parametrize("ahead_us", [0, 299_000_000])
async def test_no_date_lets_what_is_trusted_little_supersede_what_is_trusted(
    memory: MemoryService, clock: Clock, ahead_us: int
) -> None:
    await memory.write_if_useful(fact(MALLORY, trust="low", observed_us=clock() + ahead_us))
    reply = await memory.write_if_useful(fact(PRIYA, trust="high", observed_us=clock() - DAY_US))
    assert reply.code == MemoryCode.STORED and len(reply.superseded) == 1
    assert await found(memory, "account manager") == [PRIYA]


async def test_a_repeat_that_is_trusted_less_makes_nothing_last_longer_or_look_fresher(
    memory: MemoryService, clock: Clock
) -> None:
    await memory.write_if_useful(fact(PRIYA, trust="high", ttl_s=86_400, observed_us=clock() - DAY_US))
    (before,) = await memory.records(ACME)
    repeat = fact(PRIYA, trust="low", ttl_s=10 * 365 * 86_400, observed_us=clock(), source="another")
    assert (await memory.write_if_useful(repeat)).code == MemoryCode.DUPLICATE
    (after,) = await memory.records(ACME)
    assert (after.expires_us, after.observed_us) == (before.expires_us, before.observed_us)


async def test_nobody_but_an_operator_keeps_a_record_longer_than_its_kind(memory: MemoryService) -> None:
    asked = {"ttl_s": 5 * 365 * 86_400}
    for trust, ttl_s in (("medium", KINDS["result"].ttl_s), ("high", asked["ttl_s"])):
        await memory.write_if_useful(fact(f"the depot of {trust} is open", kind="result", trust=trust, **asked))
        (record,) = [r for r in await memory.records(ACME) if r.trust == trust]
        assert record.expires_us == START_US + ttl_s * 1_000_000


async def test_a_topic_that_was_given_with_a_text_trusted_little_gains_no_trust(memory: MemoryService) -> None:
    harmless = "the customer is always welcome at our depot"
    await memory.write_if_useful(fact(harmless, trust="low", topic="refunds"))
    await memory.write_if_useful(fact(harmless, trust="high"))
    right = fact("refunds are paid within two weeks", trust="medium", topic="refunds")
    assert (await memory.write_if_useful(right)).code == MemoryCode.STORED
    assert {(r.topic, r.trust) for r in await memory.records(ACME) if r.state == "live"} == {
        ("", "high"),
        ("refunds", "medium"),
    }


async def test_many_texts_do_not_hide_the_trusted_one_they_contradict(memory: MemoryService) -> None:
    await memory.write_if_useful(fact(PRIYA, trust="high"))
    for number in range(9):
        await memory.write_if_useful(fact(f"{MALLORY} of Mallory, as {number} people say", trust="low"))
    assert (await memory.write_if_useful(fact(MALLORY, trust="low"))).code == MemoryCode.QUARANTINED


@pytest.mark.parametrize("again", [MALLORY, f"{MALLORY}.", MALLORY.replace("a", "\u0430", 1), f"The {MALLORY[4:]}"])
async def test_what_a_person_put_aside_stays_so_in_other_letters_too(memory: MemoryService, again: str) -> None:
    kept = await memory.write_if_useful(fact(MALLORY))
    await memory.change(ACME, kept.record_id, "quarantine")
    assert (await memory.write_if_useful(fact(again))).code == MemoryCode.QUARANTINED
    assert await found(memory, MALLORY) == [] and len(await memory.records(ACME)) == 1


async def test_what_a_person_put_aside_stays_so_when_a_trusted_twin_has_expired(
    memory: MemoryService, clock: Clock
) -> None:
    kept = await memory.write_if_useful(fact(MALLORY))
    await memory.change(ACME, kept.record_id, "quarantine")
    await memory.write_if_useful(fact(MALLORY, trust="high", ttl_s=60))
    # Two that say the same are not both live.
    assert not await memory.change(ACME, kept.record_id, "release")
    clock.now += 61_000_000
    await memory.sweep()
    assert (await memory.write_if_useful(fact(MALLORY))).code == MemoryCode.QUARANTINED
    assert await memory.change(ACME, kept.record_id, "release") and await found(memory, MALLORY) == [MALLORY]


async def test_who_is_cleared_less_supersedes_nothing_above_and_is_told_nothing_of_it(memory: MemoryService) -> None:
    secret = fact("the merger with Kestrel is at 512 million", sensitivity="restricted", trust="high")
    kept = await memory.write_if_useful(secret)
    for number in (300, 511, 512):
        text = f"the merger with Kestrel is at {number} million"
        reply = await memory.write_if_useful(fact(text, sensitivity="public", trust="low"))
        assert reply.code == MemoryCode.STORED and kept.record_id not in (reply.record_id, *reply.superseded)
    assert secret.text in await found(memory, "merger Kestrel", clearance="restricted", top_k=10)


async def test_what_is_said_about_two_topics_is_two_records(memory: MemoryService) -> None:
    text = "yes it has been completed fully"
    for topic in ("backup", "migration"):
        assert (await memory.write_if_useful(fact(text, topic=topic))).code == MemoryCode.STORED


@pytest.mark.parametrize("subject", ["Jos\u00e9", "Jose\u0301", "JOS\u00c9", "jos\u00e9 "])
async def test_a_subject_is_erased_however_it_is_written(memory: MemoryService, subject: str) -> None:
    await memory.write_if_useful(fact("he prefers to be called in the morning", subject=subject))
    receipt = await memory.erase(Erasure(tenant=ACME, what="subject", target="Jos\u00e9"))
    assert len(receipt.records) == 1 and await memory.records(ACME) == []


@pytest.mark.parametrize("field", ["kind", "subject", "topic", "source"])
async def test_no_field_holds_a_secret(memory: MemoryService, field: str) -> None:
    values: dict[str, Any] = {field: "password=hunter2!Xy9", "ttl_s": 60}
    assert (await memory.write_if_useful(fact("the customer was quite happy", **values))).code == MemoryCode.SECRET


@pytest.mark.parametrize("field", ["subject", "topic"])
@pytest.mark.parametrize("policy", ["label", "redact", "refuse"])
async def test_what_a_record_is_about_is_personal_data_too(
    tmp_path: Path, clock: Clock, field: str, policy: Any
) -> None:
    service = MemoryService(tmp_path, HashingEmbedder, clock, MemoryRules(personal_data=policy))
    values: dict[str, Any] = {field: "ana.k@example.com"}
    reply = await service.write_if_useful(fact("the customer was quite happy today", **values))
    if policy == "label":
        assert [record.labels for record in await service.records(ACME)] == [(PERSONAL,)]
    else:
        assert reply.code == MemoryCode.PERSONAL_DATA and await service.records(ACME) == []
    service.close()


@pytest.mark.parametrize(("field", "value"), [("observed_us", True), ("ttl_s", 1.5), ("subject", 5), ("text", None)])
async def test_a_field_of_another_type_is_refused_alone(memory: MemoryService, field: str, value: Any) -> None:
    bad = msgspec.structs.replace(fact("the customer was quite happy today"), **{field: value})
    assert (await memory.write_if_useful(bad)).code == MemoryCode.INVALID


async def test_the_same_record_id_in_two_tenants_is_two_records(tmp_path: Path, clock: Clock) -> None:
    service = MemoryService(tmp_path, HashingEmbedder, clock)
    kept = await service.write_if_useful(fact(PRIYA))
    service.close()
    planted = lancedb.connect(str(tmp_path))
    rows = planted.open_table("t_acme").to_arrow()
    column = rows.schema.get_field_index("tenant")
    planted.create_table("t_globex", rows.set_column(column, rows.schema.field(column), pa.array(["globex"])))
    again = MemoryService(tmp_path, HashingEmbedder, clock)
    assert await again.change(GLOBEX, kept.record_id, "quarantine")
    assert await found(again, PRIYA) == [PRIYA] and await found(again, PRIYA, GLOBEX) == []
    assert await again.change(GLOBEX, kept.record_id, "release")
    await again.erase(Erasure(tenant=ACME, what="record", target=kept.record_id))
    assert await found(again, PRIYA) == [] and await found(again, PRIYA, GLOBEX) == [PRIYA]
    again.close()
