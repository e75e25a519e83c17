"""Whoever reaches an executor by its handle needs a fresh, fitting, unused grant of the present gate."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import ray

from airside.actors.client.client import Stack
from airside.actors.rpc.methods import DECIDE, EXECUTE, INCARNATION
from airside.actors.rpc.names import NAMESPACE
from airside.stack.canonical import canonical
from airside.stack.contracts.execution import ExecuteRequest
from airside.stack.contracts.gate import GateReply, GateRequest
from airside.stack.ids import ExecutorId, PrincipalId, RunId, TenantId, mint_run
from airside.stack.security.grants import Grant, mint, open_grant
from airside.stack.security.identity import run_subject, seal_identity
from airside.stack.security.seals import SEAL_BYTES
from airside.stack.values import Answer, Identity, Limits
from tests.on_ray import BOUND_S, a_stack, all_told, ledger_of, sigkill, told, until

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def stack(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with one executor."""
    with a_stack(tmp_path_factory.mktemp("grants"), "grants", executors=1) as started:
        yield started


def actor(stack: Stack, layer: str) -> Any:
    """Return a layer's handle, as any code on the cluster can."""
    return ray.get_actor(stack.cell.actor_name(layer), NAMESPACE)


def seal_key(stack: Stack) -> bytes:
    """Return the key, which only a test takes from the disk."""
    return (stack.state_dir / "keys" / "seal.key").read_bytes()


def ask(stack: Stack, text: str, **fields: Any) -> GateReply:
    """Ask the gate, by its handle, for a call of `note` in a run of its own."""
    who = Identity(principal=PrincipalId("ana"), tenant=TenantId("acme"))
    run_id = mint_run()
    executor = ExecutorId(told(stack, "executor/0", INCARNATION, None))
    request = GateRequest(
        **{
            "identity": msgspec.msgpack.encode(who),
            "proof": seal_identity(seal_key(stack), who, run_subject(run_id)),
            "run_id": run_id,
            "step": 1,
            "attempt": 1,
            "epoch": 1,
            "tool": "note",
            "arguments": canonical({"text": text}),
            "labels": (),
            "remaining": Limits(),
            "executor": executor,
        }
        | fields
    )
    return told(stack, "policy", DECIDE, request)


def granted(stack: Stack, text: str) -> GateReply:
    """Return an allow."""
    reply = ask(stack, text)
    assert reply.decision.outcome == "allow", reply.decision
    return reply


def send(stack: Stack, *requests: ExecuteRequest) -> list[str]:
    """Send calls straight to the executor; return their reason codes."""
    return [str(reply.result.reason_code) for reply in all_told(stack, "executor/0", EXECUTE, *requests)]


def journaled(stack: Stack) -> int:
    """Return how many refusals are on record."""
    return int(stack.query("SELECT count(*) AS n FROM events WHERE type = 'GrantRefused'").to_pylist()[0]["n"])


def refuses(stack: Stack, *requests: ExecuteRequest) -> list[str]:
    """Send calls, all of which must be refused, and wait until every one is on record."""
    before = journaled(stack)
    codes = send(stack, *requests)
    assert set(codes) <= {"grant_invalid", "grant_stale"}
    until(lambda: journaled(stack) == before + len(requests), f"{len(requests)} refusals to be on record")
    return codes


def altered(grant: bytes, key: bytes, /, **fields: Any) -> bytes:
    """Return a grant with other fields under a seal of `key`."""
    opened = msgspec.msgpack.decode(grant[SEAL_BYTES:], type=Grant)
    return mint(key, msgspec.structs.replace(opened, **fields))


def test_a_good_grant_works_once(stack: Stack) -> None:
    reply = granted(stack, "good once")
    request = ExecuteRequest(grant=reply.grant, arguments=reply.arguments)
    assert send(stack, request) == ["completed"]
    assert refuses(stack, request) == ["grant_invalid"]
    assert ledger_of(stack).texts("good once") == ["good once"]


def test_every_flipped_bit_is_refused_and_on_record(stack: Stack) -> None:
    reply = granted(stack, "flipped")
    flipped = []
    for index in range(len(reply.grant)):
        for bit in range(8):
            changed = bytearray(reply.grant)
            changed[index] ^= 1 << bit
            flipped.append(ExecuteRequest(grant=bytes(changed), arguments=reply.arguments))
    refuses(stack, *flipped)
    assert ledger_of(stack).texts("flipped") == []


def test_every_field_altered_under_a_forged_seal_is_refused(stack: Stack) -> None:
    reply = granted(stack, "altered")
    forger = secrets.token_bytes(32)
    opened = open_grant(seal_key(stack), reply.grant)
    assert opened is not None
    other: dict[str, Any] = {
        name: value + {int: 1, bool: 1, bytes: b"x", str: "x", tuple: ("x",)}[type(value)]
        for name, value in msgspec.structs.asdict(opened).items()
        if name != "answer"
    }
    other["answer"] = Answer(text="yes", by=PrincipalId("eve"), roles=("boss",), at_us=1, chosen=True)
    assert set(other) == set(Grant.__struct_fields__)
    requests = []
    for name, value in other.items():
        forged = altered(reply.grant, forger, **{name: value})
        requests += [forged, reply.grant[:SEAL_BYTES] + forged[SEAL_BYTES:]]
    refuses(stack, *(ExecuteRequest(grant=grant, arguments=reply.arguments) for grant in requests))
    for grant in (b"", b"x", reply.grant[:-1], reply.grant + b"x", reply.grant[:SEAL_BYTES]):
        refuses(stack, ExecuteRequest(grant=grant, arguments=reply.arguments))
    assert ledger_of(stack).texts("altered") == []


def test_other_arguments_another_executor_and_an_expired_grant_are_refused(stack: Stack) -> None:
    key, reply = seal_key(stack), granted(stack, "bound")
    past = time.time_ns() // 1000 - 1
    refuses(
        stack,
        ExecuteRequest(grant=reply.grant, arguments=canonical({"text": "bound otherwise"})),
        ExecuteRequest(grant=altered(reply.grant, key, executor="exe_other"), arguments=reply.arguments),
        ExecuteRequest(grant=altered(reply.grant, key, expires_us=past), arguments=reply.arguments),
        ExecuteRequest(grant=altered(reply.grant, key, tool_version="old"), arguments=reply.arguments),
        ExecuteRequest(grant=altered(reply.grant, key, tool="no_such_tool"), arguments=reply.arguments),
    )
    assert ledger_of(stack).texts("bound") == []


def test_an_old_epochs_grant_is_refused_once_a_newer_one_was_used(stack: Stack) -> None:
    key, old = seal_key(stack), granted(stack, "epochs")
    newer = altered(old.grant, key, epoch=2, nonce=b"another")
    assert send(stack, ExecuteRequest(grant=newer, arguments=old.arguments)) == ["completed"]
    assert refuses(stack, ExecuteRequest(grant=old.grant, arguments=old.arguments)) == ["grant_stale"]
    assert ledger_of(stack).texts("epochs") == ["epochs"]


def test_the_grants_of_a_gate_that_died_are_void(stack: Stack) -> None:
    reply = granted(stack, "old gate")
    assert sigkill(stack, "policy")

    def back() -> bool:
        try:
            return ask(stack, "new gate").decision.outcome == "allow"
        except ray.exceptions.RayError:
            return False

    until(back, "the gate to be back", BOUND_S)
    request = ExecuteRequest(grant=reply.grant, arguments=reply.arguments)
    assert refuses(stack, request) == ["grant_stale"]
    assert ledger_of(stack).texts("old gate") == []


def test_a_restarted_executor_takes_no_grant_of_its_predecessors_and_learns_who_grants(stack: Stack) -> None:
    reply = granted(stack, "old executor")
    assert sigkill(stack, "executor")

    def back() -> bool:
        try:
            return bool(told(stack, "executor/0", INCARNATION, None))
        except (ray.exceptions.RayError, ValueError):
            return False

    until(back, "the executor to be back", BOUND_S)
    assert refuses(stack, ExecuteRequest(grant=reply.grant, arguments=reply.arguments)) == ["grant_invalid"]
    fresh = granted(stack, "new executor")
    assert send(stack, ExecuteRequest(grant=fresh.grant, arguments=fresh.arguments)) == ["completed"]


def test_the_gate_believes_a_proof_for_its_own_run_alone(stack: Stack) -> None:
    who = Identity(principal=PrincipalId("ana"), tenant=TenantId("acme"))
    mine, other = mint_run(), mint_run()
    proof = seal_identity(seal_key(stack), who, run_subject(mine))
    assert ask(stack, "mine", run_id=mine, proof=proof).decision.outcome == "allow"
    assert ask(stack, "mine", run_id=RunId(f"{mine}.1-0"), proof=proof).decision.outcome == "allow"
    refused = ask(stack, "mine", run_id=other, proof=proof).decision
    assert (refused.outcome, refused.reason_code) == ("deny", "policy_error")


def test_the_journal_of_refusals_is_part_of_the_verified_chain(stack: Stack) -> None:
    assert stack.verify() == [] and journaled(stack) > 0
    rows = stack.query("SELECT DISTINCT tenant FROM events WHERE type = 'GrantRefused'").to_pylist()
    assert {row["tenant"] for row in rows} == {"acme", "airside"}
