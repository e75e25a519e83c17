"""Votes on several approvals through a stack's client: one order, whose refusal says on which it would not count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from airside.actors.client.client import Stack
from airside.actors.rpc.methods import ASKED, GIVE_JOINT_VOTE, GIVE_VOTE, PENDING, Method
from airside.stack.approvals.book import Approval
from airside.stack.approvals.joint import NotCounted
from airside.stack.errors import InvalidId, InvalidInput, Misuse, Refused, VotesRefused
from airside.stack.ids import ApprovalId, GroupId, TenantId, approval_for
from airside.stack.operations.messages import JointVoteReply, VoteReply
from tests.helpers import RUN
from tests.unit.stack.approvals.test_approvals import asked

ONE, TWO, THREE = (approval_for(RUN, step, f"{step}" * 12) for step in (1, 2, 3))
GROUP = GroupId(f"grp_{RUN}_1_{'a' * 12}")
TENANTS = {ONE: "acme", TWO: "acme", THREE: "beta"}


class Layers:
    """Ingress and Approvals, which know of three calls, two of them in one question."""

    def __init__(self) -> None:
        self.given: list[Any] = []
        self.reply = JointVoteReply(ok=True, outcomes=("approved", "approved"))

    def ask(self, method: Method[Any, Any], request: Any) -> Any:
        """Answer."""
        if method is ASKED:
            names = {GROUP: [ONE, TWO]}.get(request, [request] if request in TENANTS else [])
            return [msgspec.json.encode(Approval(request=_asked(name))) for name in names]
        if method is PENDING:
            return [msgspec.json.encode(Approval(request=_asked(name))) for name in TENANTS]
        self.given.append(request)
        return self.reply if method is GIVE_JOINT_VOTE else VoteReply(ok=method is GIVE_VOTE, outcome="approved")


def _asked(name: ApprovalId) -> Any:
    return msgspec.structs.replace(
        asked(), approval_id=name, tenant=TenantId(TENANTS[name]), group=GROUP if name != THREE else GroupId("")
    )


@pytest.fixture
def layers() -> Layers:
    """What the stack asks."""
    return Layers()


@pytest.fixture
def stack(layers: Layers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """A stack whose people sign by their names."""
    monkeypatch.setattr(Stack, "_signed", lambda _, tenant, principal: f"{principal}@{tenant}")
    made = Stack.__new__(Stack)
    made._connection = layers  # type: ignore[assignment]
    return made


def test_several_are_one_vote(stack: Stack, layers: Layers) -> None:
    """By their ids, by that of their question, or by both; what is named twice is voted on once."""
    for named in ([ONE, TWO], GROUP, [GROUP], [ONE, GROUP]):
        assert stack.approve(named, principal="lea", note="n") == "approved"
        vote = layers.given.pop()
        assert (vote.credential, vote.approval_ids, vote.verdict, vote.note) == ("lea@acme", (ONE, TWO), "approve", "n")
    assert stack.reject([ONE, TWO], token="t") == "approved" and layers.given.pop().verdict == "reject"
    layers.reply = JointVoteReply(ok=True, outcomes=("approved", ""))
    assert stack.approve([ONE, TWO], token="t") == ""


def test_one_is_a_vote_on_one(stack: Stack, layers: Layers) -> None:
    assert stack.approve([ONE], principal="lea") == stack.approve(ONE, token="t") == "approved"
    assert [vote.approval_id for vote in layers.given] == [ONE, ONE]


@pytest.mark.parametrize(
    "given", [ONE[-8:], f"...{ONE[-8:]}", f"\u2026{ONE[-8:]}", f"{ONE[:12]}...{ONE[-8:]}", f"{ONE}..."]
)
def test_an_id_may_be_shortened_as_it_is_written(stack: Stack, layers: Layers, given: str) -> None:
    """To six characters or more, with dots where it is cut, as the README cuts it."""
    assert stack.approve(given, principal="lea") == "approved"
    assert layers.given[0].approval_id == ONE


def test_too_little_of_an_id_says_how_much_is_needed_and_what_waits(stack: Stack, layers: Layers) -> None:
    with pytest.raises(InvalidId, match=f"give 6 characters or more of an approval's id; what waits: {ONE}, "):
        stack.approve(f"{ONE[-5:]}...", principal="lea")
    with pytest.raises(InvalidId, match=f"may be any of {ONE}, {TWO}, {THREE}; give more"):
        stack.approve(f"{ONE[:12]}...", principal="lea")
    assert layers.given == []


def test_what_is_listed_can_be_voted_on(stack: Stack, layers: Layers) -> None:
    """One approval, or all that are listed of a tenant."""
    one, two, _ = stack.approvals()
    assert stack.approve(one, principal="lea") == stack.edit(one, {}, principal="lea") == "approved"
    assert [vote.approval_id for vote in layers.given] == [ONE, ONE]
    stack.reject([one, two], principal="lea")
    assert layers.given[-1].approval_ids == (ONE, TWO)
    with pytest.raises(InvalidId, match="int is no approval"):
        stack.approve(7, principal="lea")  # type: ignore[arg-type]


def test_a_refusal_says_on_which_it_would_not_have_counted(stack: Stack, layers: Layers) -> None:
    no = NotCounted(approval_id=TWO, code="wrong_role", message="one of the roles ['boss'] is needed")
    layers.reply = JointVoteReply(ok=False, code="wrong_role", message="no vote was counted", refused=(no,))
    with pytest.raises(VotesRefused, match="no vote was counted") as refused:
        stack.approve([ONE, TWO], token="t")
    assert refused.value.reason == "wrong_role" and refused.value.refused == ((TWO, "wrong_role", no.message),)


def test_what_cannot_be_voted_on_together_is_not_sent(stack: Stack, layers: Layers) -> None:
    with pytest.raises(Misuse, match="of one tenant at once"):
        stack.approve([ONE, THREE], principal="lea")
    with pytest.raises(Misuse, match="say who votes"):
        stack.approve([ONE, TWO])
    with pytest.raises(InvalidInput, match="name an approval"):
        stack.approve([], token="t")
    with pytest.raises(Misuse, match="edit one of them"):
        stack.edit(GROUP, {}, principal="lea")
    with pytest.raises(Refused, match="waits"):
        stack.approve([ONE, approval_for(RUN, 9, "9" * 12)], principal="lea")
    assert layers.given == []
