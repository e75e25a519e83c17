"""The Approvals layer without Ray: an append whose answer is lost, and a Policy that does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from airside.actors.approvals import approvals as layer
from airside.actors.approvals.approvals import Approvals
from airside.actors.rpc.layer import LayerConfig, now_us
from airside.actors.rpc.methods import CHECK, DELIVER, REQUEST_APPROVAL, VOTE, VOTE_JOINTLY, Method
from airside.actors.rpc.names import CellAddress
from airside.actors.settings import Settings
from airside.stack.approvals.book import Approval, ApprovalRequested, Question, decode_approval_event
from airside.stack.canonical import canonical
from airside.stack.cycle.in_memory import InMemoryJournal
from airside.stack.errors import LayerUnavailable
from airside.stack.ids import ApprovalId, PrincipalId, RunId, TenantId, approval_for
from airside.stack.journal.journaling import Append, AppendReply, AppendTogether
from airside.stack.operations.messages import Delivery, JointVote, JointVoteReply, Vote, VoteReply
from airside.stack.policy.bundle import load_bundle
from airside.stack.policy.gate import Gate
from airside.stack.security.identity import joint_vote_subject, seal_identity, vote_subject
from airside.stack.values import ApprovalRule, Identity
from tests import on_wire
from tests.helpers import KEY, RUN, spec

GATE = Gate(
    bundle=load_bundle("version: v1\nrules: [{id: all, outcome: allow}]\n"),
    tools=[spec()],
    seal_key=KEY,
    now_us=now_us,
    random=bytes,
)


class Journal:
    """A journal that takes an append in and loses the answer, as often as `losing` says."""

    def __init__(self, cell: CellAddress) -> None:
        self.kept = InMemoryJournal()
        self.losing = 0

    async def append(self, write: Append | AppendTogether) -> AppendReply:
        """Take it in; raise instead of answering if the answer is to be lost."""
        reply = self.kept.append_now(write)
        if self.losing:
            self.losing -= 1
            raise LayerUnavailable("journal: RayActorError")
        return reply

    async def append_together(self, write: AppendTogether) -> AppendReply:
        """As `append`."""
        return await self.append(write)

    async def rows(self, name: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Answer that there was nothing before."""
        return []

    async def bodies(self, streams: list[str]) -> dict[str, list[str]]:
        """Return streams."""
        return await self.kept.bodies(streams)


class Others:
    """The other layers: a driver that takes everything, a policy that answers with `GATE` or not at all."""

    delivered: list[Delivery]
    policy_answers: bool

    def __init__(self, cell: CellAddress, name: str) -> None:
        pass

    async def call(self, method: Method[Any, Any], request: Any) -> Any:
        """Take a delivery, or check a proposal."""
        if method is DELIVER:
            Others.delivered.append(request)
            return True
        assert method is CHECK
        if not Others.policy_answers:
            raise LayerUnavailable("policy: there is no such actor")
        return GATE.check(request)


@pytest.fixture
async def desk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Approvals]:
    """A layer that has begun."""
    monkeypatch.setattr(layer, "RemoteJournal", Journal)
    monkeypatch.setattr(layer, "Remote", Others)
    Others.delivered, Others.policy_answers = [], True
    made = Approvals(LayerConfig(Settings(state_dir=tmp_path), tmp_path, seal_key=KEY))
    await made.ready()
    yield made
    made._expiring.cancel()


def wanted(number: int, *, life_us: int = 60_000_000, quorum: int = 1, digest: str = "0" * 12) -> ApprovalRequested:
    """Return a call that is to wait."""
    return ApprovalRequested(
        at_us=now_us(),
        approval_id=ApprovalId(f"apr_{RUN}_{number}_{digest}"),
        tenant=TenantId("acme"),
        requester=PrincipalId("ann"),
        run_id=RUN,
        step=number,
        tool="pay",
        tool_version="1",
        policy_version="v1",
        rule="r",
        effect="write",
        arguments=msgspec.Raw(canonical({"amount": 5})),
        terms=ApprovalRule(roles=("boss",), quorum=quorum),
        expires_us=now_us() + life_us,
    )


async def ask(desk: Approvals, number: int = 1, **fields: Any) -> ApprovalId:
    """Let a call wait; return the approval's id."""
    asked = wanted(number, **fields)
    await on_wire.ask(desk, REQUEST_APPROVAL, Question(asked=asked))
    return asked.approval_id


async def ask_together(desk: Approvals, *numbers: int) -> list[Approval]:
    """Let calls wait in one question; return all that waits."""
    first, *beside = map(wanted, numbers)
    await on_wire.ask(desk, REQUEST_APPROVAL, Question(asked=first, beside=tuple(beside)))
    return [msgspec.json.decode(body, type=Approval) for body in desk.pending(None)]


async def vote(desk: Approvals, approval_id: ApprovalId, who: str, verdict: Any, arguments: bytes = b"") -> VoteReply:
    """Give a vote as Ingress passes it on."""
    identity = Identity(principal=PrincipalId(who), tenant=TenantId("acme"), roles=("boss",))
    given = Vote(
        identity=msgspec.msgpack.encode(identity),
        proof=seal_identity(KEY, identity, vote_subject(approval_id, verdict, arguments)),
        approval_id=approval_id,
        verdict=verdict,
        arguments=arguments,
    )
    return await on_wire.ask(desk, VOTE, given)


def journal_of(desk: Approvals) -> Journal:
    """Return the layer's journal."""
    journal: Any = desk._journal
    return journal  # type: ignore[no-any-return]


async def test_a_vote_whose_append_was_durable_and_not_answered_is_found_at_the_next_one(desk: Approvals) -> None:
    approval_id = await ask(desk)
    journal_of(desk).losing = 1
    assert (await vote(desk, approval_id, "bob", "approve")).code == "unavailable"
    assert (await vote(desk, approval_id, "bob", "approve")).code == "unavailable"  # it reads what is there
    assert (await vote(desk, approval_id, "eve", "approve")).code == "already_decided"
    assert len(journal_of(desk).kept.bodies_of(approval_id)) == 2
    assert desk._book.decided()[0].outcome == "approved"


async def test_a_request_whose_append_was_durable_and_not_answered_waits_once(desk: Approvals) -> None:
    journal_of(desk).losing = 1
    with pytest.raises(LayerUnavailable):
        await ask(desk)
    with pytest.raises(LayerUnavailable):
        await ask(desk)
    approval_id = await ask(desk)
    assert len(journal_of(desk).kept.bodies_of(approval_id)) == 1 and len(desk.pending(None)) == 1
    assert (await vote(desk, approval_id, "bob", "approve")).outcome == "approved"


async def test_an_edit_that_the_tool_cannot_take_is_refused_and_the_approval_waits_on(desk: Approvals) -> None:
    approval_id = await ask(desk)
    for arguments, said in (
        ({"amount": "five"}, "amount"),
        ({}, "amount"),
        ({"amount": 0}, "amount"),
        ({"amount": 5, "colour": "red"}, "colour"),
    ):
        reply = await vote(desk, approval_id, "bob", "edit", canonical(arguments))
        assert reply.code == "invalid" and said in reply.message and "pay" in reply.message
    assert len(desk.pending(None)) == 1 and len(journal_of(desk).kept.bodies_of(approval_id)) == 1
    assert (await vote(desk, approval_id, "bob", "edit", canonical({"amount": 6}))).outcome == "edited"


async def test_an_edit_is_refused_while_policy_does_not_answer_and_counts_when_it_does(desk: Approvals) -> None:
    approval_id = await ask(desk)
    Others.policy_answers = False
    reply = await vote(desk, approval_id, "bob", "edit", canonical({"amount": 6}))
    assert (reply.ok, reply.code) == (False, "unavailable") and "vote again" in reply.message
    assert len(desk.pending(None)) == 1
    Others.policy_answers = True
    assert (await vote(desk, approval_id, "bob", "edit", canonical({"amount": 6}))).outcome == "edited"


async def test_who_may_not_vote_is_told_so_though_policy_does_not_answer(desk: Approvals) -> None:
    approval_id = await ask(desk)
    Others.policy_answers = False
    assert (await vote(desk, approval_id, "ann", "edit", canonical({"amount": 6}))).code == "self_approval"
    assert (await vote(desk, approval_id, "bob", "approve")).outcome == "approved"


async def test_what_was_decided_before_a_restart_is_delivered_and_then_under_way_no_longer(
    desk: Approvals, monkeypatch: pytest.MonkeyPatch
) -> None:
    approval_id = await ask(desk)
    assert (await vote(desk, approval_id, "bob", "approve")).outcome == "approved"
    kept = journal_of(desk).kept

    class Before(Journal):
        async def rows(self, name: str, *parameters: Any) -> list[tuple[Any, ...]]:
            assert name == "approvals"
            return [(body,) for body in kept.bodies_of(approval_id)]

    monkeypatch.setattr(layer, "RemoteJournal", Before)
    again = Approvals(desk.config)
    await again.ready()
    again._expiring.cancel()
    delivered = len(Others.delivered)
    await asyncio.gather(*again._deliveries)
    assert len(Others.delivered) == delivered + 1 and (await again.stats())["undelivered"] == 0


async def test_what_was_decided_while_a_run_ended_is_not_withdrawn_too(
    desk: Approvals, monkeypatch: pytest.MonkeyPatch
) -> None:
    approval_id = await ask(desk)
    journal = journal_of(desk)
    withdrawing: list[asyncio.Future[int]] = []

    async def append(append: Append) -> AppendReply:
        withdrawing.append(asyncio.ensure_future(desk.withdraw(RUN)))
        await asyncio.sleep(0)  # the order to withdraw comes while the vote is on its way to the disk
        return await journal.kept.append(append)

    monkeypatch.setattr(journal, "append", append)
    assert (await vote(desk, approval_id, "bob", "approve")).outcome == "approved"
    assert await withdrawing[0] == 0 and len(journal.kept.bodies_of(approval_id)) == 2


async def test_what_waits_is_listed_oldest_first(desk: Approvals) -> None:
    ids = [await ask(desk, number) for number in (9, 2, 5)]
    await desk._read_again(ids[0])
    assert [msgspec.json.decode(body)["request"]["approval_id"] for body in desk.pending(None)] == ids


async def test_calls_of_one_question_are_a_group_and_each_is_decided_by_itself(desk: Approvals) -> None:
    first, second, third = await ask_together(desk, 1, 2, 3)
    assert first.request.group == second.request.group == third.request.group != ""
    assert (await vote(desk, second.request.approval_id, "bob", "reject")).outcome == "rejected"
    assert (await vote(desk, first.request.approval_id, "bob", "approve")).outcome == "approved"
    assert [a.request.step for a in desk._book.pending()] == [3]


async def test_nothing_joins_a_question_that_was_asked(desk: Approvals) -> None:
    """Whoever votes on a group votes on what he was shown: a call that comes later is a question of its own."""
    group = (await ask_together(desk, 1, 2))[0].request.group
    again = await ask_together(desk, 1, 2, 3)
    assert [each.request.group for each in again] == [group, group, ""]
    forged = msgspec.structs.replace(wanted(4), group=group)
    await on_wire.ask(desk, REQUEST_APPROVAL, Question(asked=forged))
    assert [each.request.step for each in desk._book.group(group)] == [1, 2]


async def test_no_call_of_another_run_is_in_a_question(desk: Approvals) -> None:
    other = msgspec.structs.replace(wanted(2), run_id=RunId("run_" + "9" * 24))
    elsewhere = msgspec.structs.replace(wanted(3), tenant=TenantId("beta"))
    question = Question(asked=wanted(1), beside=(other, elsewhere, wanted(4)))
    await on_wire.ask(desk, REQUEST_APPROVAL, question)
    assert [each.request.step for each in desk._book.pending()] == [1, 4]


async def test_a_question_of_which_a_part_is_durable_is_completed_when_it_is_asked_again(desk: Approvals) -> None:
    journal_of(desk).losing = 1
    for _ in range(2):
        with pytest.raises(LayerUnavailable):
            await ask_together(desk, 1, 2)
    assert [each.request.step for each in await ask_together(desk, 1, 2)] == [1, 2]


async def test_what_was_asked_ahead_is_over_when_its_step_asks_about_another_call(desk: Approvals) -> None:
    _, second = await ask_together(desk, 1, 2)
    other = await ask(desk, 2, digest="1" * 12)
    assert [each.request.approval_id for each in desk._book.pending()][-1] == other
    over = desk._book.get(second.request.approval_id)
    assert over is not None and over.outcome == "expired" and len(desk.pending(None)) == 2


async def test_a_call_rejected_ahead_is_rejected_under_the_id_of_its_turn_too(desk: Approvals) -> None:
    """Durably, and to whoever asks: also where policy has changed meanwhile, which gives the call another id."""
    _, second = await ask_together(desk, 1, 2)
    await vote(desk, second.request.approval_id, "bob", "reject")
    again = msgspec.structs.replace(second.request, approval_id=approval_for(RUN, 2, "2" * 12))
    decided = await on_wire.ask(desk, REQUEST_APPROVAL, Question(asked=again))
    assert decided.outcome == "rejected" and decided.by == ("bob",)
    bodies = (await journal_of(desk).bodies([again.approval_id]))[again.approval_id]
    assert [type(decode_approval_event(body)).__name__ for body in bodies] == ["ApprovalRequested", "ApprovalVoted"]
    assert [each.request.step for each in desk._book.pending()] == [1]


async def test_a_run_that_ends_takes_all_calls_of_its_questions_along(desk: Approvals) -> None:
    await ask_together(desk, 1, 2, 3)
    assert await desk.withdraw(RUN) == 3 and desk.pending(None) == []


# One vote on several.

OTHER_RUN = RunId("run_" + "8" * 24)


async def vote_jointly(
    desk: Approvals, ids: list[ApprovalId], who: str, verdict: Any = "approve", *, sealed_for: str = ""
) -> JointVoteReply:
    """Give one vote on several approvals as Ingress passes it on."""
    identity = Identity(principal=PrincipalId(who), tenant=TenantId("acme"), roles=("boss",))
    subject = sealed_for or joint_vote_subject(ids, verdict)
    given = JointVote(
        identity=msgspec.msgpack.encode(identity),
        proof=seal_identity(KEY, identity, subject),
        approval_ids=tuple(ids),
        verdict=verdict,
        note="all of them",
    )
    return await on_wire.ask(desk, VOTE_JOINTLY, given)


async def ask_in_runs(desk: Approvals, count: int = 3, **fields: Any) -> list[ApprovalId]:
    """Let a call of each of several runs wait; return the approvals' ids."""
    ids = []
    for number in range(count):
        run = RunId(f"run_{number + 1:024x}")
        request = msgspec.structs.replace(
            wanted(1, **fields), run_id=run, approval_id=ApprovalId(f"apr_{run}_1_{'0' * 12}")
        )
        await on_wire.ask(desk, REQUEST_APPROVAL, Question(asked=request))
        ids.append(request.approval_id)
    return ids


def voted(desk: Approvals, ids: list[ApprovalId]) -> list[int]:
    """Return how many votes are durable on each of some approvals."""
    return [len(journal_of(desk).kept.bodies_of(each)) - 1 for each in ids]


async def test_a_vote_on_approvals_of_several_runs_counts_on_all_and_is_delivered_to_each(desk: Approvals) -> None:
    ids = await ask_in_runs(desk)
    reply = await vote_jointly(desk, ids, "bob")
    assert (reply.ok, reply.outcomes) == (True, ("approved",) * 3) and voted(desk, ids) == [1, 1, 1]
    await asyncio.gather(*desk._deliveries)
    assert sorted(each.run_id for each in Others.delivered) == [RunId(f"run_{n + 1:024x}") for n in range(3)]
    assert (await vote_jointly(desk, ids, "bob")).outcomes == (
        "approved",
    ) * 3  # told again, and counted no second time
    assert voted(desk, ids) == [1, 1, 1] and desk.pending(None) == []


async def test_a_vote_that_one_of_them_refuses_counts_on_none(desk: Approvals) -> None:
    ids = await ask_in_runs(desk)
    assert (await vote(desk, ids[1], "eve", "reject")).outcome == "rejected"
    reply = await vote_jointly(desk, ids, "bob")
    assert (reply.ok, reply.code, reply.outcomes) == (False, "already_decided", ())
    assert [(each.approval_id, each.code) for each in reply.refused] == [(ids[1], "already_decided")]
    assert ids[1] in reply.message and "no vote was counted" in reply.message
    assert voted(desk, ids) == [0, 1, 0] and len(desk.pending(None)) == 2
    assert (await vote_jointly(desk, ids, "ann")).code == "self_approval" and voted(desk, ids) == [0, 1, 0]
    unknown = [ids[0], ApprovalId(f"apr_{OTHER_RUN}_1_{'0' * 12}")]
    assert [each.code for each in (await vote_jointly(desk, unknown, "bob")).refused] == ["unknown"]


async def test_a_proof_for_other_approvals_or_another_verdict_is_none(desk: Approvals) -> None:
    ids = await ask_in_runs(desk)
    for subject in (
        joint_vote_subject(ids[:2], "approve"),
        joint_vote_subject(ids, "reject"),
        vote_subject(ids[0], "approve", b""),
    ):
        assert (await vote_jointly(desk, ids, "bob", sealed_for=subject)).message == "the identity's seal does not hold"
    assert voted(desk, ids) == [0, 0, 0]


async def test_a_joint_vote_whose_answer_was_lost_is_found_when_it_is_given_again(desk: Approvals) -> None:
    ids = await ask_in_runs(desk)
    journal_of(desk).losing = 1
    assert (await vote_jointly(desk, ids, "bob")).code == "unavailable"
    assert (await vote_jointly(desk, ids, "bob")).outcomes == ("approved",) * 3 and voted(desk, ids) == [1, 1, 1]
    assert (await vote(desk, ids[2], "eve", "approve")).code == "already_decided"


async def test_a_vote_that_was_durable_and_not_answered_refuses_a_joint_one_on_all(desk: Approvals) -> None:
    ids = await ask_in_runs(desk)
    journal_of(desk).losing = 1
    assert (await vote(desk, ids[2], "eve", "reject")).code == "unavailable"
    reply = await vote_jointly(desk, ids, "bob")  # which the journal refuses: then it is known why
    assert (reply.code, [each.approval_id for each in reply.refused]) == ("already_decided", [ids[2]])
    assert voted(desk, ids) == [0, 0, 1]


async def test_of_joint_votes_that_race_one_decides_all_it_names(desk: Approvals) -> None:
    """Whichever way round they name them; a single vote that comes between refuses the whole of what comes later."""
    ids = await ask_in_runs(desk, 4)
    replies = await asyncio.gather(
        vote_jointly(desk, ids[:3], "bob"),
        vote_jointly(desk, ids[:0:-1], "eve", "reject"),
        vote(desk, ids[0], "zoe", "approve"),
    )
    counted = [reply.ok for reply in replies]
    assert counted in ([True, False, False], [False, True, True])
    assert voted(desk, ids) == ([1, 1, 1, 0] if counted[0] else [1, 1, 1, 1])


async def test_while_a_joint_vote_is_on_its_way_to_the_disk_nothing_else_happens_to_what_it_names(
    desk: Approvals, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await ask_in_runs(desk)
    journal, meanwhile = journal_of(desk), list[asyncio.Future[Any]]()

    async def append_together(write: AppendTogether) -> AppendReply:
        meanwhile.append(asyncio.ensure_future(desk.withdraw(RunId(f"run_{2:024x}"))))
        meanwhile.append(asyncio.ensure_future(vote(desk, ids[0], "eve", "reject")))
        await asyncio.sleep(0)
        return await journal.kept.append_together(write)

    monkeypatch.setattr(journal, "append_together", append_together)
    assert (await vote_jointly(desk, ids, "bob")).outcomes == ("approved",) * 3
    withdrawn, late = await asyncio.gather(*meanwhile)
    assert withdrawn == 0 and late.code == "already_decided" and voted(desk, ids) == [1, 1, 1]


async def test_a_joint_vote_after_which_the_process_dies_is_told_by_the_next_one(
    desk: Approvals, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await ask_in_runs(desk, quorum=2)
    journal_of(desk).losing = 1
    assert (await vote_jointly(desk, ids, "bob")).code == "unavailable"
    kept = journal_of(desk).kept

    class Before(Journal):
        async def rows(self, name: str, *parameters: Any) -> list[tuple[Any, ...]]:
            return [(body,) for each in ids for body in kept.bodies_of(each)]

    monkeypatch.setattr(layer, "RemoteJournal", Before)
    again = Approvals(desk.config)
    await again.ready()
    again._expiring.cancel()
    journal_of(again).kept = kept
    assert (await vote_jointly(again, ids, "bob")).outcomes == ("",) * 3 and voted(again, ids) == [1, 1, 1]
    assert (await vote_jointly(again, ids, "eve")).outcomes == ("approved",) * 3
