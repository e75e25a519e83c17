"""Memory on real Ray: agents keep and recall, each tenant its own, whoever dies in between."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest

import airside
from airside import RunHandle
from airside.actors.client.client import Stack
from airside.actors.rpc.layer import now_us
from airside.actors.rpc.methods import MEMORY_ORDER, RETRIEVE, WRITE_IF_USEFUL
from airside.stack.contracts.memory import Candidate, LearnReply, RecallReply, RecallRequest
from airside.stack.errors import AirsideError, Refused
from airside.stack.ids import TenantId
from airside.stack.security.keyring import KeyRing
from airside.stack.security.memory_orders import MemoryAnswer, MemoryOrder, seal_memory_order
from tests.apps.remembering import REFUSED, STANDING, TOLD, create_app
from tests.on_ray import BOUND_S, call, sigkill, told, until

pytestmark = pytest.mark.ray

TENANTS = 12


@pytest.fixture(scope="module")
def stack(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of the app, whose processes are shared by its tenants."""
    folder = tmp_path_factory.mktemp("remembering")
    with airside.start(
        create_app(TENANTS, folder), stack="remembering", state_dir=folder, mode="pooled", executors=1
    ) as started:
        yield started
        started.shutdown()


def submit(
    stack: Stack, *actions: dict[str, Any], who: str = "ana@t0", request: str = "do it", **fields: Any
) -> RunHandle:
    """Submit a run."""
    principal, _, tenant = who.partition("@")
    inputs = {"actions": list(actions)}
    return stack.submit(request, tenant=tenant, principal=principal, inputs=inputs, **fields)


def recalled(stack: Stack, query: str, who: str = "ana@t0") -> list[str]:
    """Return what a run recalls for its request."""
    answer = submit(stack, who=who, request=query, route="recall").result(timeout=BOUND_S).answer
    return list(answer)


def test_what_an_agent_proposes_is_kept_if_policy_allows_and_recalled_by_the_next_run(stack: Stack) -> None:
    text = "the courier called Merganser never delivers before nine"
    run = submit(stack, call("remember", text=text, subject="merganser")).result(timeout=BOUND_S)
    assert run.ok
    assert text in recalled(stack, "when does the courier Merganser deliver")
    rumour = submit(stack, call("remember", text="they say that the courier is broke", kind="rumour"))
    assert not rumour.result(timeout=BOUND_S).ok
    (record,) = [r for r in stack.memory.records(tenant="t0") if r.text == text]
    # The run had recalled nothing that an outsider wrote.
    assert record.trust == "medium" and record.sources[0].startswith(run.run_id)


def test_what_a_tool_returns_is_kept_but_trusted_little(stack: Stack) -> None:
    assert submit(stack, call("look_up", topic="Osprey"), who="ana@t1").result(timeout=BOUND_S).ok
    (record,) = [r for r in stack.memory.records(tenant="t1") if "Osprey" in r.text and r.kind == "result"]
    assert record.trust == "low"


def test_facts_of_a_completed_run_are_kept_where_they_stand_on_its_words_and_memorys_gate_takes_them(
    stack: Stack,
) -> None:
    """What the model noted beside them is offered to nobody, or refused for good, and the run is as it would be."""
    run = submit(stack, who="ana@t7", request=TOLD, route="tell").result(timeout=BOUND_S)
    assert run.ok and run.answer == "It opens at seven."
    # Of the answer and of what the tool returned; of the facts that stand, and of those memory refuses.
    codes = until(lambda: found if len(found := codes_of(stack, run.run_id)) == 6 else [], "six answers of memory")
    assert sorted(codes) == ["instruction", "secret", "stored", "stored", "stored", "stored"]
    kept = {record.text: record for record in stack.memory.records(tenant="t7")}
    likes, spring = (kept[fact["text"]] for fact in STANDING)
    assert (likes.sources, likes.subject) == ((f"{run.run_id}#0",), "Ana")
    assert (spring.sources, spring.subject) == ((f"{run.run_id}#1",), "")
    assert not [text for text in kept if "hunter2" in text or "refund" in text or "latex" in text or "7" in text]
    sql = "SELECT body FROM events WHERE stream = ? AND type = 'StepDecided' ORDER BY seq"
    *_, noted = stack.query(sql, [run.run_id]).to_pylist()
    assert all(fact["quote"] in noted["body"] for fact in (*STANDING, *REFUSED)), "with the words each stands on"


def codes_of(stack: Stack, run_id: str) -> list[str]:
    """Return what memory answered a run."""
    sql = "SELECT body FROM events WHERE stream = ? AND type = 'MemoryLearned'"
    return [json.loads(row["body"])["code"] for row in stack.query(sql, [run_id]).to_pylist()]


def test_a_run_that_recalls_what_is_confidential_carries_the_label(stack: Stack) -> None:
    secret = Candidate(
        tenant=TenantId("t2"), text="the merger with Kestrel is planned for june", kind="fact", source="board",
        sensitivity="confidential", trust="high",
    )  # fmt: skip
    assert stack.memory.remember(secret).kept
    request = "what about the merger with Kestrel"
    sent = submit(stack, call("send", text="hello"), who="cid@t2", request=request).result(timeout=BOUND_S)
    assert not sent.ok and "nothing-confidential" in sent.detail
    assert submit(stack, call("send", text="hello"), who="ana@t2", request=request).result(timeout=BOUND_S).ok
    assert recalled(stack, request, "ana@t2") == [] and recalled(stack, request, "cid@t2") == [secret.text]


def test_what_is_sent_to_memory_by_hand_is_refused(stack: Stack) -> None:
    request = RecallRequest(tenant=TenantId("t2"), query="merger", clearance="restricted")
    assert told(stack, "memory", RETRIEVE, request) == RecallReply(error="no warrant for this tenant")
    forged = Candidate(tenant=TenantId("t2"), text="the merger is off for good now", kind="fact", source="x")
    assert told(stack, "memory", WRITE_IF_USEFUL, forged).code == "unwarranted"
    order = MemoryOrder(action="erase_tenant", tenant="t2", by="mallory", at_us=0, nonce=b"n")
    assert b"seal does not hold" in told(stack, "memory", MEMORY_ORDER, seal_memory_order(b"x" * 32, order))
    assert stack.memory.records(tenant="t2")


def test_an_order_that_is_sent_again_is_answered_and_not_carried_out_again(stack: Stack) -> None:
    candidate = Candidate(tenant=TenantId("t6"), text="the depot in Graz opens at seven", kind="fact", source="x")
    order = MemoryOrder(action="remember", tenant="t6", by="operator", at_us=now_us(), nonce=b"n", candidate=candidate)
    sealed = seal_memory_order(KeyRing.open(stack.state_dir / "keys").seal, order)
    answers = [msgspec.msgpack.decode(told(stack, "memory", MEMORY_ORDER, sealed), type=MemoryAnswer) for _ in range(2)]
    codes = [msgspec.msgpack.decode(answer.data, type=LearnReply).code for answer in answers]
    assert codes == ["stored", "stored"] and len(stack.memory.records(tenant="t6")) == 1


def test_a_keeper_keeps_its_own_tenants_memory_and_nobody_elses(stack: Stack) -> None:
    kept = stack.memory.remember(
        Candidate(tenant=TenantId("t3"), text="the depot in Ghent opens at seven", kind="fact", source="x", subject="g")
    )
    keeper, other, clerk = stack.token("t3", "kim"), stack.token("t4", "kim"), stack.token("t3", "ana")
    assert stack.memory.pin(kept.record_id, tenant="t3", token=keeper)
    assert stack.memory.records(tenant="t3", token=keeper)[0].pinned
    for token in (other, clerk, "nonsense"):
        with pytest.raises(Refused):
            stack.memory.erase(tenant="t3", subject="g", token=token)
    with pytest.raises(Refused):
        stack.memory.erase(tenant="t3", all=True, token=keeper)
    said = call("remember", text="lorries are let in from seven in the morning on")
    assert submit(stack, said, who="ana@t3", request="when does the depot in Ghent open").result(timeout=BOUND_S).ok
    planned = stack.memory.erase(tenant="t3", subject="g", dry_run=True, token=keeper)
    assert {"own", "shown"} <= {each.why for each in planned.taken} and not planned.left
    with pytest.raises(Refused, match="keep what a dry run shows"):
        stack.memory.erase(tenant="t3", subject="g", keep=[kept.record_id], token=keeper)
    assert {record.record_id for record in stack.memory.records(tenant="t3")} == set(planned.records)
    assert stack.memory.erase(tenant="t3", subject="g", token=keeper).taken == planned.taken
    assert stack.memory.records(tenant="t3") == []


def test_no_tenant_ever_sees_anothers_canary_whoever_dies(stack: Stack) -> None:
    def work(number: int) -> tuple[str, list[str]]:
        tenant = f"t{number}"
        canary = f"canary{number:03d}x"
        text = f"the codeword of the {canary} vault is kept under the bridge"
        submit(stack, call("remember", text=text), who=f"ana@{tenant}").result(timeout=BOUND_S)
        return canary, recalled(stack, "what is the codeword of the vault", f"ana@{tenant}")

    with ThreadPoolExecutor(TENANTS) as threads:
        working = [threads.submit(work, number) for number in range(TENANTS)]
        sigkill(stack, "memory")
        sigkill(stack, "executor")
        done = [each.result() for each in working]
    for number, (canary, texts) in enumerate(done):
        assert all(f"canary{number:03d}x" in text for text in texts if "canary" in text)
        rows = stack.query("SELECT tenant, body FROM events WHERE body LIKE ?", [f"%{canary}%"]).to_pylist()
        assert rows and {row["tenant"] for row in rows} == {f"t{number}"}
        kept = [record.text for record in stack.memory.records(tenant=f"t{number}")]
        assert not [text for text in kept if "canary" in text and canary not in text]


def test_nothing_acknowledged_is_lost_when_memory_is_killed_while_it_writes_and_erases(stack: Stack) -> None:
    tenant, acknowledged = TenantId("t5"), []

    def write(number: int) -> None:
        text = (
            f"parcel {number:04d} of the {number * 7919 % 1009}th lot went by way of {number * 31 % 97} Harbour Street"
        )
        reply = stack.memory.remember(
            Candidate(tenant=tenant, text=text, kind="fact", source="x", subject=f"s{number % 3}")
        )
        if reply.kept:
            acknowledged.append((reply.record_id, number))

    with ThreadPoolExecutor(8) as threads:
        for round_number in range(3):
            numbers = range(100 * round_number, 100 * round_number + 40)
            writing = [threads.submit(write, number) for number in numbers]
            until(lambda: len(acknowledged) > 20 * round_number, "some writes")  # noqa: B023 - awaited in the round
            sigkill(stack, "memory")
            for each in writing:
                each.exception()
        threads.submit(stack.memory.erase, tenant=str(tenant), subject="s0")
        sigkill(stack, "memory")
    try:
        stack.memory.erase(tenant=str(tenant), subject="s0")
    except AirsideError:
        stack.memory.erase(tenant=str(tenant), subject="s0")
    records = stack.memory.records(tenant=str(tenant))
    there = {record.record_id for record in records}
    assert len({record.digest for record in records}) == len(records)
    assert not [number for record_id, number in acknowledged if number % 3 and record_id not in there]
    assert not [number for record_id, number in acknowledged if not number % 3 and record_id in there]
