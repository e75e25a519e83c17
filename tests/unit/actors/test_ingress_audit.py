"""What auditors and operators are shown of the journal and of the policy, over a real journal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from airside.actors import looking, rule_counts, views
from airside.actors.journal.chain_check import ANEW_US
from airside.actors.journal.store import JournalStore
from airside.stack.contracts.memory import MemoryStanding
from airside.stack.ids import RunId, TenantId
from airside.stack.journal.journaling import Append
from airside.stack.journal.stream import append_of
from airside.stack.reasons import ReasonCode
from airside.stack.run import events as ev
from airside.stack.values import Decision
from tests.helpers import KEY, submitted
from tests.unit.actors.test_ingress_look import Layers, found, ingress, items, look

HOUR_US = 3_600_000_000
NOW = 500_000 * HOUR_US


def _gated(number: int, tenant: str, rule: str, at_us: int, version: str = "v1") -> Append:
    """Return a run of which a rule decided about one call."""
    run_id = RunId(f"run_{number:024x}")
    first = submitted(text=f"Do Thing {number}")
    who = msgspec.structs.replace(first.identity, tenant=TenantId(tenant))
    begun = msgspec.structs.replace(first, run_id=run_id, identity=who, at_us=at_us)
    outcome: Any = "deny" if rule != "reads" else "allow"
    decision = Decision(outcome=outcome, reason_code=ReasonCode.POLICY_DENIED, rule=rule, policy_version=version)
    gated = ev.ActionGated(at_us=at_us, cause=0, step=1, attempt=1, decision=decision, tool="pay")
    return append_of(TenantId(tenant), run_id, [begun, gated])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JournalStore]:
    """A journal of twelve hours: each hour acme reads, and every third one beta is denied."""
    with closing(JournalStore(tmp_path, KEY)) as made:
        appends = [_gated(n, "acme", "reads", NOW - (11 - n) * HOUR_US) for n in range(12)]
        appends += [_gated(100 + n, "beta", "betas", NOW - 1) for n in range(4)]
        appends += [_gated(200, "acme", "old", NOW - 1, "v0")]
        assert {reply.verdict for reply in made.commit(appends)} == {"ok"}
        yield made


def _since(hours: int) -> str:
    return (
        msgspec.json.encode(views.datetime.fromtimestamp((NOW - hours * HOUR_US) / 1e6, views.UTC)).decode().strip('"')
    )


async def test_rules_are_shown_with_how_often_they_fired(store: JournalStore) -> None:
    """Of a tenant with that tenant's counts, and without the names of others."""
    it = await ingress(Layers(store), house="ours")
    mine = await found(it, "op@acme", "policy", since=_since(24))
    assert [(each["id"], each["fired"]) for each in mine["rules"]] == [("reads", 12), ("pays", 0)]
    assert "beta" not in msgspec.json.encode(mine).decode() and mine["text"] == ""
    assert [(each["version"], each["rule"], each["fired"]) for each in mine["apart"]] == [("v0", "old", 1)]
    assert mine["rules"][1]["words"] == "Deny calls of pay."
    every = await found(it, "root@ours", "policy", since=_since(24))
    assert [(each["id"], each["fired"]) for each in every["rules"]] == [("reads", 12), ("betas", 4), ("pays", 0)]
    assert "version: v1" in every["text"]
    few = await found(it, "op@acme", "policy", since=_since(2))
    assert few["rules"][0]["fired"] == 3
    assert (await look(it, "ann@acme", "policy")).code == "wrong_role"


async def test_what_cannot_be_counted_in_time_is_said(store: JournalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each question counts some more, and what was counted once is not read again."""
    monkeypatch.setattr(rule_counts, "PIECE_ROWS", 4)
    monkeypatch.setattr(rule_counts, "COUNTING_S", -1.0)
    it = await ingress(Layers(store), house="ours")
    seen = []
    while True:
        page = await found(it, "root@ours", "policy", since=_since(24))
        seen.append(page["rules"][0]["fired"])
        if page["since_us"] <= NOW - 23 * HOUR_US:
            break
    assert seen == sorted(seen) and seen[-1] == 12 and len(seen) > 3
    counted = it._looking._rule_counts
    assert counted.since(store.rows, None, NOW - 24 * HOUR_US).since_us == NOW - 24 * HOUR_US


@pytest.mark.parametrize("pieces", [3, 1000])
async def test_the_journal_is_searched_page_by_page(
    store: JournalStore, monkeypatch: pytest.MonkeyPatch, pieces: int
) -> None:
    """Newest first, in any spelling, each entry once, however little one question looks at; only what is one's own."""
    monkeypatch.setattr(views, "_PIECE_ROWS", pieces)
    monkeypatch.setattr(views, "_SEARCH_S", -1.0)
    it = await ingress(Layers(store), house="ours")

    async def searched(who: str, **filters: Any) -> list[tuple[str, str]]:
        seen, cursor = [], ""
        while True:
            page = await found(it, who, "search", cursor=cursor, **{"limit": 5, **filters})
            seen += [(each["tenant"], each["type"]) for each in page["items"]]
            cursor = page["next"]
            if not cursor:
                return seen

    assert await searched("lea@acme", text="dO THING") == [("acme", "RunSubmitted")] * 13
    assert await searched("eve@beta", text="do thing") == [("beta", "RunSubmitted")] * 4
    assert len(await searched("root@ours", type="ActionGated")) == 17
    assert len(await searched("root@ours", tenant="beta")) == 8
    assert await searched("root@ours", stream=f"run_{100:024x}") == [("beta", "ActionGated"), ("beta", "RunSubmitted")]
    assert await searched("lea@acme", stream=f"run_{100:024x}") == []
    assert len(await searched("lea@acme", text="thing", since=_since(3), limit=2)) == 5
    assert (await look(it, "lea@acme", "search", cursor="x")).code == "invalid"
    assert (await look(it, "lea@acme", "search", tenant="beta")).code == "unknown"


async def test_a_chain_is_checked_beside_the_writer(store: JournalStore) -> None:
    """What it found is kept; a break is told to whose chain it is, and another check is soon enough."""
    now = [NOW]
    check = store.chain_check(lambda: now[0])
    assert check.standing("acme", 26).checked_us == 0
    check.begin()
    check._thread.join()  # type: ignore[union-attr]
    whole = check.standing("acme", store.count_of("acme"))
    assert (whole.entries, whole.checked, whole.checked_us, whole.problem, whole.checking) == (26, 26, NOW, "", False)
    store._log._db.execute("UPDATE entries SET body = replace(body, 'Thing 3', 'Thing 4') WHERE tenant = 'acme'")
    check.begin()
    assert check.standing("acme", 26).problem == ""
    now[0] += ANEW_US
    check.begin()
    check._thread.join()  # type: ignore[union-attr]
    broken, other = check.standing("acme", 26), check.standing("beta", 8)
    assert broken.checked == 6 and "breaks at entry 6" in broken.problem
    assert (other.checked, other.problem) == (8, "")
    check.close()


async def test_a_tenants_limits_and_memory_are_shown_to_its_operator(
    store: JournalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def kept(_: Any, tenant: str) -> MemoryStanding:
        return MemoryStanding(live=len(tenant))

    monkeypatch.setattr(looking.Looking, "_kept", kept)
    it = await ingress(Layers(store), house="ours")
    (own,) = await items(it, "op@acme", "tenants")
    assert (own["tenant"], own["principals"], own["memory"]["live"]) == ("acme", 5, 4)
    assert [each["tenant"] for each in await items(it, "root@ours", "tenants")] == ["acme", "beta", "ours"]
    assert (await look(it, "op@acme", "tenants", tenant="beta")).code == "unknown"
