"""Approvals under fire: whoever dies, races, repeats or forges, a call that waits has one decision and one effect."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import msgspec
import pytest

from airside import PendingApproval, ReasonCode, RunHandle, RunStatus
from airside.actors.client.client import Stack
from airside.actors.rpc.layer import now_us
from airside.actors.rpc.methods import VOTE
from airside.stack.canonical import canonical, digest
from airside.stack.errors import AirsideError, Refused, VotesRefused
from airside.stack.ids import ApprovalId, PrincipalId, TenantId
from airside.stack.operations.messages import Vote, VoteReply
from airside.stack.security.identity import seal_identity, vote_subject
from airside.stack.values import Identity
from tests.on_ray import BOUND_S, a_stack, call, ledger_of, parked, pids, sigkill, submit, told, until, waiting

pytestmark = pytest.mark.ray

LAYERS = ["journal", "policy", "approvals", "executor", "driver", "ingress", "runtime"]
LEA = Identity(principal=PrincipalId("lea"), tenant=TenantId("acme"), roles=("lead",))


@pytest.fixture(scope="module")
def stack(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose processes the tests kill; its tools append to a file, and none of them dedupes."""
    with a_stack(tmp_path_factory.mktemp("fire"), "fire", executors=1) as started:
        yield started


def asked(stack: Stack, tool: str, to: str, *, who: str = "ana@acme") -> tuple[RunHandle, PendingApproval]:
    """Submit a run that asks to move 4 to somebody; return once the driver knows that it waits."""
    handle = submit(stack, call(tool, to=to, amount=4), who=who)
    approval = waiting(stack, handle.run_id)
    parked(stack, handle.run_id)
    return handle, approval


def told_of(handle: RunHandle) -> str:
    """Return the story of a run that has ended, and whose agent was told that its only call failed."""
    assert handle.result(timeout=BOUND_S).answer == {"calls": 1, "failed": [0]}
    return handle.story()


def events(stack: Stack, stream: str, kind: str) -> list[dict[str, Any]]:
    """Return a stream's events of a kind, oldest first."""
    sql = "SELECT body FROM events WHERE stream = ? AND type = ? ORDER BY seq"
    return [msgspec.json.decode(row["body"]) for row in stack.query(sql, [stream, kind]).to_pylist()]


def said(vote: Callable[[], str]) -> str:
    """Give a vote; return the outcome, or the code of why it did not count."""
    try:
        return vote() or "counted"
    except Refused as refused:
        return refused.reason


def at_once(*votes: Callable[[], str]) -> list[str]:
    """Give votes from a thread each, at the same moment; return what each was told."""
    with ThreadPoolExecutor(len(votes)) as pool:
        return [future.result() for future in [pool.submit(said, vote) for vote in votes]]


def sealed(stack: Stack, approval_id: str, *, bound_to: str = "", who: Identity = LEA) -> Vote:
    """Return a vote as Ingress passes it on; its proof is bound to `bound_to`, or to the approval itself."""
    key = (stack.state_dir / "keys" / "seal.key").read_bytes()
    subject = vote_subject(ApprovalId(bound_to or approval_id), "approve", b"")
    return Vote(
        identity=msgspec.msgpack.encode(who),
        proof=seal_identity(key, who, subject),
        approval_id=ApprovalId(approval_id),
        verdict="approve",
    )


def present(stack: Stack, vote: Vote) -> VoteReply:
    """Bring a vote straight to Approvals, past Ingress, as any code on the cluster can."""
    return told(stack, "approvals", VOTE, vote)


def hold_down(stack: Stack, layer: str, until_us: int) -> None:
    """Kill a layer as often as it comes back, until a moment has passed."""
    sigkill(stack, layer)
    while now_us() <= until_us:
        sigkill(stack, layer)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_call_that_waits_happens_once_though_this_dies(stack: Stack, layer: str) -> None:
    handle, approval = asked(stack, "pay", f"despite {layer}")
    killed = sigkill(stack, layer)
    assert killed, f"there is no {layer} to kill"
    # A vote whose answer the death took is repeated, and may have counted the first time.
    assert said(lambda: stack.approve(approval.approval_id, principal="lea")) in ("approved", "already_decided")
    assert handle.result(timeout=BOUND_S).ok
    assert ledger_of(stack).amounts(f"despite {layer}") == [4]
    assert said(lambda: stack.approve(approval.approval_id, token=stack.token("acme", "leo"))) != "approved"
    assert [vote["by"] for vote in events(stack, approval.approval_id, "ApprovalVoted")] == ["lea"]
    assert set(killed).isdisjoint(pids(stack)) and stack.verify() == []


@pytest.mark.parametrize("layer", ["approvals", "journal"])
def test_a_vote_in_the_middle_of_which_this_dies_counts_once(stack: Stack, layer: str) -> None:
    handle, approval = asked(stack, "pay", f"amid {layer}")
    vote = partial(stack.approve, approval.approval_id, token=stack.token("acme", "lea"))
    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(said, vote)
        sigkill(stack, layer)
        assert told.result(BOUND_S) in ("approved", "already_voted", "already_decided")
    assert handle.result(timeout=BOUND_S).ok and ledger_of(stack).amounts(f"amid {layer}") == [4]
    assert len(events(stack, approval.approval_id, "ApprovalVoted")) == 1 and stack.verify() == []


@pytest.mark.parametrize("layer", ["approvals", "journal"])
def test_a_vote_on_several_in_the_middle_of_which_this_dies_counts_on_all(stack: Stack, layer: str) -> None:
    runs = [asked(stack, "pay", f"all amid {layer}", who=who) for who in ("ana@acme", "ana@acme", "ana@acme")]
    ids = [approval.approval_id for _, approval in runs]
    vote = partial(stack.approve, ids, token=stack.token("acme", "lea"))
    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(said, vote)
        sigkill(stack, layer)
        assert told.result(BOUND_S) == "approved"
    votes = [event for each in ids for event in events(stack, each, "ApprovalVoted")]
    assert len(votes) == 3 and len({event["joint"] for event in votes}) == 1 and votes[0]["joint"]
    assert all(handle.result(timeout=BOUND_S).ok for handle, _ in runs)
    assert ledger_of(stack).amounts(f"all amid {layer}") == [4, 4, 4] and stack.verify() == []


def test_a_vote_on_several_that_one_of_them_refuses_counts_on_none(stack: Stack) -> None:
    (first, one), (second, other) = asked(stack, "pay", "one of two"), asked(stack, "pay", "one of two")
    assert stack.reject(one.approval_id, principal="leo") == "rejected"
    with pytest.raises(VotesRefused) as refused:
        stack.approve([other.approval_id, one.approval_id], token=stack.token("acme", "lea"))
    assert [(name, code) for name, code, _ in refused.value.refused] == [(one.approval_id, "already_decided")]
    assert events(stack, other.approval_id, "ApprovalVoted") == [] and told_of(first)
    assert stack.approve([other.approval_id], principal="lea") == "approved" and second.result(timeout=BOUND_S).ok
    assert ledger_of(stack).amounts("one of two") == [4]


def test_of_two_who_race_one_decides(stack: Stack) -> None:
    tokens = [stack.token("acme", name) for name in ("lea", "leo")]
    for number in range(4):
        handle, approval = asked(stack, "pay", f"race {number}")
        told = at_once(*(partial(stack.approve, approval.approval_id, token=t) for t in tokens))
        assert sorted(told) == ["already_decided", "approved"]
        assert handle.result(timeout=BOUND_S).ok and ledger_of(stack).amounts(f"race {number}") == [4]
        assert len(events(stack, handle.run_id, "ApprovalDecided")) == 1


def test_of_a_yes_and_a_no_that_race_the_first_holds(stack: Stack) -> None:
    lea, leo = stack.token("acme", "lea"), stack.token("acme", "leo")
    for number in range(4):
        handle, approval = asked(stack, "pay", f"yes or no {number}")
        told = at_once(
            partial(stack.approve, approval.approval_id, token=lea),
            partial(stack.reject, approval.approval_id, token=leo),
        )
        assert told in (["approved", "already_decided"], ["already_decided", "rejected"])
        handle.result(timeout=BOUND_S)  # whose agent is told of a rejection, and goes on
        assert ledger_of(stack).amounts(f"yes or no {number}") == [4] * (told[0] == "approved")


def test_of_a_quorum_of_two_both_count_once_and_it_happens_once(stack: Stack) -> None:
    handle, approval = asked(stack, "donate", "both")
    tokens = [stack.token("acme", "lea")] * 3 + [stack.token("acme", "leo")]
    told = at_once(*(partial(stack.approve, approval.approval_id, token=t) for t in tokens))
    assert told.count("counted") == 1 and told.count("approved") == 1
    assert set(told) <= {"counted", "approved", "already_voted", "already_decided"}
    assert handle.result(timeout=BOUND_S).ok and ledger_of(stack).amounts("both") == [4]
    assert sorted(v["by"] for v in events(stack, approval.approval_id, "ApprovalVoted")) == ["lea", "leo"]


def test_the_same_vote_again_counts_no_second_time(stack: Stack) -> None:
    handle, approval = asked(stack, "donate", "replayed")
    vote = sealed(stack, approval.approval_id)
    assert present(stack, vote).ok
    assert [present(stack, vote).code for _ in range(3)] == ["already_voted"] * 3
    assert stack.approve(approval.approval_id, principal="leo") == "approved"
    assert handle.result(timeout=BOUND_S).ok and ledger_of(stack).amounts("replayed") == [4]
    assert present(stack, vote).code in ("already_decided", "unknown")
    assert ledger_of(stack).amounts("replayed") == [4]


def test_who_asked_cannot_approve_even_with_the_role(stack: Stack) -> None:
    handle, approval = asked(stack, "pay", "self", who="lea@acme")
    for vote in (
        lambda: stack.approve(approval.approval_id, principal="lea"),
        lambda: stack.edit(approval.approval_id, {"to": "self", "amount": 1}, principal="lea"),
        lambda: present(stack, sealed(stack, approval.approval_id)).code,
    ):
        assert said(vote) == "self_approval"
    assert stack.ended([handle.run_id]) == set() and ledger_of(stack).amounts("self") == []
    assert stack.approve(approval.approval_id, principal="leo") == "approved"
    assert handle.result(timeout=BOUND_S).ok and ledger_of(stack).amounts("self") == [4]


def test_a_proof_made_for_another_approval_proves_nothing(stack: Stack) -> None:
    mine, one = asked(stack, "pay", "bound")
    other, two = asked(stack, "pay", "other")
    reply = present(stack, sealed(stack, one.approval_id, bound_to=two.approval_id))
    assert (reply.ok, reply.code) == (False, "unknown") and "seal" in reply.message
    forged = msgspec.structs.replace(LEA, principal=PrincipalId("leo"))
    renamed = msgspec.structs.replace(sealed(stack, one.approval_id), identity=msgspec.msgpack.encode(forged))
    assert present(stack, renamed).code == "unknown"
    assert stack.ended([mine.run_id, other.run_id]) == set()
    for handle, approval in ((mine, one), (other, two)):
        assert stack.reject(approval.approval_id, principal="lea") == "rejected"
        assert "approval: rejected by lea" in told_of(handle)
    assert ledger_of(stack).amounts("bound") == ledger_of(stack).amounts("other") == []


@pytest.mark.parametrize(("amount", "outcome"), [(3, "allow"), (5_000, "deny")])
def test_of_an_edit_both_calls_are_on_record_and_only_what_policy_allows_happens(
    stack: Stack, amount: int, outcome: str
) -> None:
    to = f"edited to {amount}"
    handle, approval = asked(stack, "pay", to)
    assert stack.edit(approval.approval_id, {"to": to, "amount": amount}, principal="lea") == "edited"
    result = handle.result(timeout=BOUND_S)
    gated = events(stack, handle.run_id, "ActionGated")
    full = [canonical({"to": to, "amount": a, "hang": False}) for a in (4, amount)]
    assert [(g["decision"]["outcome"], g["digest"]) for g in gated] == [
        ("require_approval", digest(full[0])),
        (outcome, digest(full[1])),
    ]
    allowed = outcome == "allow"
    assert [g.get("intent", False) for g in gated] == [False, allowed]
    assert result.reason_code is (ReasonCode.COMPLETED if allowed else ReasonCode.POLICY_DENIED)
    assert ledger_of(stack).amounts(to) == [amount] * allowed
    assert said(lambda: stack.approve(approval.approval_id, token=stack.token("acme", "leo"))) != "approved"
    assert ledger_of(stack).amounts(to) == [amount] * allowed and stack.verify() == []


def test_an_edit_the_tool_cannot_take_is_refused_at_the_vote_and_the_call_waits_on(stack: Stack) -> None:
    handle, approval = asked(stack, "pay", "slip")
    for arguments, place in (({"to": "slip", "amount": "4"}, "amount"), ({"to": "slip"}, "amount"), ({}, "to")):
        with pytest.raises(Refused, match=f"edited arguments: pay: .*{place}") as refused:
            stack.edit(approval.approval_id, arguments, principal="lea")
        assert refused.value.reason == "invalid"
    assert waiting(stack, handle.run_id) == approval
    assert events(stack, approval.approval_id, "ApprovalVoted") == []
    assert stack.edit(approval.approval_id, {"to": "slip", "amount": 5}, principal="lea") == "edited"
    assert handle.result(timeout=BOUND_S).ok and ledger_of(stack).amounts("slip") == [5]


def test_an_edit_is_refused_while_policy_stands_still_and_can_be_given_again(stack: Stack) -> None:
    handle, approval = asked(stack, "pay", "stands still")
    (policy,) = pids(stack, "policy")
    new = {"to": "stands still", "amount": 5}
    edit = partial(stack.edit, approval.approval_id, new, token=stack.token("acme", "lea"))
    os.kill(policy, signal.SIGSTOP)
    try:
        assert said(edit) == "unavailable"
        assert events(stack, approval.approval_id, "ApprovalVoted") == []
    finally:
        os.kill(policy, signal.SIGCONT)
    assert said(edit) == "edited"
    assert handle.result(timeout=BOUND_S).ok and ledger_of(stack).amounts("stands still") == [5]


@pytest.mark.parametrize("layer", ["approvals", "journal"])
def test_an_approval_expires_while_this_is_dead_and_no_vote_brings_it_back(stack: Stack, layer: str) -> None:
    handle = submit(stack, call("offer", to=f"lapsed {layer}", amount=1))
    approval = waiting(stack, handle.run_id)
    hold_down(stack, layer, approval.expires_us)
    assert now_us() > approval.expires_us
    late = said(lambda: stack.approve(approval.approval_id, token=stack.token("acme", "lea")))
    assert late in ("already_decided", "unknown")
    result = handle.result(timeout=BOUND_S)
    assert (result.status, result.reason_code) == (RunStatus.REFUSED, ReasonCode.APPROVAL_EXPIRED)
    after = said(lambda: stack.approve(approval.approval_id, token=stack.token("acme", "leo")))
    assert after in ("already_decided", "unknown")
    assert [approval for approval in stack.approvals() if approval.run_id == handle.run_id] == []
    assert ledger_of(stack).amounts(f"lapsed {layer}") == []
    assert events(stack, approval.approval_id, "ApprovalVoted") == []
    assert len(events(stack, approval.approval_id, "ApprovalExpired")) == 1 and stack.verify() == []


def test_after_all_of_it_the_stack_is_whole(stack: Stack) -> None:
    until(lambda: not any("down" in layer for layer in stack.status().values()), "every layer to be up")
    with pytest.raises(AirsideError):
        stack.approve("apr_none", principal="lea")
    assert stack.approvals() == [] and stack.verify() == []
