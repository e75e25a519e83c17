"""Approvals: what waits for people, who said what, and the sealed receipt that follows.

`ApprovalBook` is pure: a command returns the event to make durable and, once it is, `apply` takes it in.  So an
approval survives any process: the book is the fold of its events.

Rules: the approver is another person than the requester, of the same tenant, and holds one of the asked roles; each
person counts once; the first rejection decides; `quorum` approvals decide; an edit is one person's proposal of other
arguments, which decides too (the edited call is a new action and is gated again, where a larger quorum asks anew);
whoever comes later is told it is decided; at `expires_us` the answer is no.

A question that an agent asks (`ask_human`) is answered, or rejected, and never approved or edited: one person who holds
one of the asked roles answers it, who may be the requester, for that permits nothing.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable
from typing import Any, Literal

import msgspec
from msgspec import Raw

from airside.stack.approvals.questions import check_answer
from airside.stack.canonical import canonical, digest, parse_bounded
from airside.stack.errors import InvalidInput
from airside.stack.ids import ApprovalId, GroupId, PrincipalId, RunId, TenantId, group_for, root_of
from airside.stack.resources import ResourceFact
from airside.stack.schema.toolspec import MAX_ARGUMENT_BYTES
from airside.stack.security.seals import from_text, to_text, unwrap, wrap
from airside.stack.values import NULL, Answer, ApprovalRule, Identity, Value, ValueOrigin

Verdict = Literal["approve", "reject", "edit", "answer"]
_PURPOSE = "approval"


def call_digest(
    *,
    tenant: TenantId,
    run_id: RunId,
    step: int,
    tool: str,
    tool_version: str,
    policy_version: str,
    arguments: bytes,
    resources: tuple[ResourceFact, ...] = (),
    edited: bool = False,
) -> str:
    """Return the digest an approval is bound to: the exact call, the tool's schema, and the policy that asked.

    What people were shown of the call's resources is part of it, so that they are asked again when that is so no more.
    Who edited a call was shown another one's: that digest says so, and fits no call that was only approved.
    """
    parts: list[object] = [tenant, run_id, step, tool, tool_version, policy_version, digest(arguments)]
    if resources:
        parts.append("edited" if edited else digest(canonical(msgspec.to_builtins(resources))))
    return digest(canonical(parts))


class ApprovalReceipt(Value, array_like=True):
    """Proof that these people, in these roles, approved exactly the call `binding` is the digest of, or answered it."""

    approval_id: ApprovalId
    binding: str
    approvers: tuple[tuple[PrincipalId, tuple[str, ...]], ...]
    answer: Answer | None = None


def seal_approval(key: bytes, receipt: ApprovalReceipt) -> str:
    """Seal a receipt; only Approvals calls this."""
    return to_text(wrap(key, _PURPOSE, msgspec.msgpack.encode(receipt)))


def verify_approval(key: bytes, text: str) -> ApprovalReceipt | None:
    """Return the receipt if its seal holds, else None."""
    body = unwrap(key, _PURPOSE, from_text(text))
    return None if body is None else msgspec.msgpack.decode(body, type=ApprovalReceipt)


class ApprovalRequested(Value, tag=True, omit_defaults=True):
    """A call waits for people, who decide about what stands here, and `receipt_for` is bound to it.

    `rejected_before` is a sentence on the calls of this tool that people rejected in this run, empty if none.
    `group` is the question that it is put in with others, empty if it is one of its own; Approvals says which.
    """

    at_us: int
    approval_id: ApprovalId
    tenant: TenantId
    requester: PrincipalId
    run_id: RunId
    step: int
    tool: str
    tool_version: str
    policy_version: str
    rule: str
    effect: str
    arguments: Raw
    terms: ApprovalRule
    expires_us: int
    request_text: str = ""
    origins: tuple[ValueOrigin, ...] = ()
    resources: tuple[ResourceFact, ...] = ()
    rejected_before: str = ""
    group: GroupId = GroupId("")
    binding: str = ""
    """What a runtime once claimed the approval to be bound to; nobody read it, and none is written any more."""


class Question(Value):
    """A call that waits for people, and calls like it that its agent proposed in the same decision.

    Those are asked about with it, before it is their turn: each has an approval of its own, as if it were alone.
    """

    asked: ApprovalRequested
    beside: tuple[ApprovalRequested, ...] = ()


MAX_TOGETHER = 20
"""Calls in one question: more than that nobody reads as one."""


class ApprovalVoted(Value, tag=True):
    """One person said something; `arguments` are an edit's, or what was answered.

    `joint` names the vote on several approvals that it is part of, empty if it is on this one alone.
    """

    at_us: int
    approval_id: ApprovalId
    by: PrincipalId
    roles: tuple[str, ...]
    verdict: Verdict
    arguments: Raw = NULL
    note: str = ""
    joint: str = ""


class ApprovalExpired(Value, tag=True):
    """Nobody decided in time."""

    at_us: int
    approval_id: ApprovalId


ApprovalEvent = ApprovalRequested | ApprovalVoted | ApprovalExpired

_event_decoder = msgspec.json.Decoder(ApprovalEvent)


def decode_approval_event(data: bytes | str) -> ApprovalEvent:
    """Decode a journaled approval event."""
    event: ApprovalEvent = _event_decoder.decode(data)
    return event


Outcome = Literal["", "approved", "rejected", "edited", "expired", "answered"]


class Approval(Value):
    """An approval as it stands.  `outcome` is empty while it waits."""

    request: ApprovalRequested
    votes: tuple[ApprovalVoted, ...] = ()
    outcome: Outcome = ""
    decided_us: int = 0

    @property
    def since_us(self) -> int:
        """Since when it waits or, decided, is decided."""
        return self.decided_us or self.request.at_us


class VoteRefused(Value):
    """Why a vote does not count."""

    code: Literal["unknown", "self_approval", "wrong_role", "already_decided", "already_voted", "invalid"]
    message: str


_NONE = ApprovalId("")

ENDED_KEPT = 10_000
"""Approvals of ended runs that are remembered, so that whoever votes late is told what became of them."""


class ApprovalBook:
    """All approvals of a cell.  What it is asked costs what it answers, however many wait, but for `pending`."""

    def __init__(self, events: Iterable[ApprovalEvent] = ()) -> None:
        self._known: dict[ApprovalId, Approval] = {}
        self._waiting: dict[ApprovalId, None] = {}
        self._of_run: dict[RunId, list[ApprovalId]] = {}
        self._of_group: dict[GroupId, list[ApprovalId]] = {}
        self._expiring: list[tuple[int, ApprovalId]] = []
        self._ended: deque[ApprovalId] = deque()
        self._of_step: dict[tuple[TenantId, RunId, int], ApprovalId] = {}
        for event in events:
            # A runtime may write what it likes: a vote on what nobody asked for decides nothing, and stops nobody.
            if isinstance(event, ApprovalRequested) or event.approval_id in self._known:
                self.apply(event)

    def get(self, approval_id: ApprovalId) -> Approval | None:
        """Return one approval."""
        return self._known.get(approval_id)

    def forget(self, approval_id: ApprovalId) -> None:
        """Drop a decided approval from memory once its run has taken the answer in."""
        dropped = self._known.pop(approval_id, None)
        self._waiting.pop(approval_id, None)
        if dropped is not None:
            asked = dropped.request
            if self._of_step.get(_step_of(asked)) == approval_id:
                del self._of_step[_step_of(asked)]
            _take_out(self._of_run, root_of(asked.run_id), approval_id)
            _take_out(self._of_group, asked.group, approval_id)

    def run_ended(self, root: RunId) -> list[ApprovalId]:
        """Take in that a run and its branches have ended; return the approvals that are forgotten for theirs."""
        self._ended.extend(self._of_run.pop(root, ()))
        forgotten = [self._ended.popleft() for _ in range(len(self._ended) - ENDED_KEPT)]
        for approval_id in forgotten:
            self.forget(approval_id)
        return forgotten

    def waiting_of(self, root: RunId) -> list[Approval]:
        """Return what a run and its branches wait for."""
        return [self._known[each] for each in self._of_run.get(root, ()) if each in self._waiting]

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def pending(self, tenant: TenantId | None = None) -> list[Approval]:
        """Return what waits, oldest first."""
        waiting = (self._known[each] for each in self._waiting)
        return sorted((a for a in waiting if tenant in (None, a.request.tenant)), key=lambda a: a.request.at_us)

    def decided(self) -> list[Approval]:
        """Return what is decided and not yet forgotten."""
        return [a for a in self._known.values() if a.outcome]

    def due(self, now_us: int) -> list[ApprovalExpired]:
        """Return the expiries to make durable at `now_us`."""
        due: dict[ApprovalId, int] = {}
        while self._expiring and self._expiring[0][0] <= now_us:
            expires_us, approval_id = heapq.heappop(self._expiring)
            if approval_id in self._waiting:
                due[approval_id] = expires_us
        for approval_id, expires_us in due.items():  # they are due until they are durable
            heapq.heappush(self._expiring, (expires_us, approval_id))
        return [ApprovalExpired(at_us=now_us, approval_id=approval_id) for approval_id in due]

    def register(self, question: Question, *, now_us: int) -> list[ApprovalEvent]:
        """Return what to make durable for a question, nothing if it was asked before.

        What is new in it is one group, whose id says of what: nothing joins it later, and no call of another run is in
        it.  What was asked ahead about a step, and is another call by now, is over; but who rejected it has rejected
        it under whatever policy, and of whatever its resources are by now: that call is put to nobody.
        """
        first, whose = question.asked, (question.asked.tenant, question.asked.run_id)
        like = [each for each in question.beside[: MAX_TOGETHER - 1] if (each.tenant, each.run_id) == whose]
        new = [each for each in (first, *like) if each.approval_id not in self._known]
        rejected = [vote for each in (first, *like) if (vote := self._rejection_ahead(each, now_us)) is not None]
        decided = {vote.approval_id for vote in rejected}
        over = [known for each in new if (known := self._of_step.get(_step_of(each)))]
        group = GroupId("")
        members = [each for each in new if each.approval_id not in decided]
        if len(members) > 1:
            ids = digest("|".join(each.approval_id for each in members).encode())
            group = group_for(members[0].run_id, members[0].step, ids)
        new = [  # whatever a runtime wrote there
            msgspec.structs.replace(each, group=group if each in members else GroupId("")) for each in new
        ]
        expired = [name for name in over if not self._known[name].outcome]
        return [*(ApprovalExpired(at_us=now_us, approval_id=name) for name in expired), *new, *rejected]

    def _rejection_ahead(self, asked: ApprovalRequested, now_us: int) -> ApprovalVoted | None:
        """Return the rejection of the same call that was asked ahead under another id, as one of this id."""
        known, before = self._known.get(asked.approval_id), self._known.get(self._of_step.get(_step_of(asked), _NONE))
        if before is None or before.outcome != "rejected" or (known is not None and known.outcome):
            return None
        if (before.request.tool, before.request.arguments) != (asked.tool, asked.arguments):
            return None
        return msgspec.structs.replace(before.votes[-1], at_us=now_us, approval_id=asked.approval_id)

    def group(self, group: GroupId) -> list[Approval]:
        """Return the approvals of a group, in the order of their calls."""
        found = [self._known[each] for each in self._of_group.get(group, ())]
        return sorted(found, key=lambda approval: approval.request.step)

    def vote(
        self,
        who: Identity,
        approval_id: ApprovalId,
        verdict: Verdict,
        *,
        now_us: int,
        arguments: Raw | None = None,
        note: str = "",
    ) -> ApprovalVoted | VoteRefused:
        """Return the vote to make durable, or why it does not count."""
        approval = self._known.get(approval_id)
        if approval is None or approval.request.tenant != who.tenant:
            return VoteRefused(code="unknown", message=f"no approval {approval_id} in tenant {who.tenant}")
        refused = _vote_refusal(approval, who, verdict, now_us)
        if refused is None and verdict == "edit":
            refused = _invalid_edit(arguments)
        if refused is None and verdict == "answer":
            refused = _invalid_answer(approval.request, arguments)
        if refused is not None:
            return refused
        return ApprovalVoted(
            at_us=now_us,
            approval_id=approval_id,
            by=who.principal,
            roles=who.roles,
            verdict=verdict,
            arguments=arguments if verdict in ("edit", "answer") and arguments is not None else NULL,
            note=note[:1000],
        )

    def apply(self, event: ApprovalEvent) -> Approval:
        """Take in a durable event and return the approval as it now stands."""
        if isinstance(event, ApprovalRequested):
            return self._known.get(event.approval_id) or self._take_in(event)
        approval = self._known[event.approval_id]
        if approval.outcome:
            return approval  # what was decided stays decided
        if isinstance(event, ApprovalExpired):
            changed = msgspec.structs.replace(approval, outcome="expired", decided_us=event.at_us)
        else:
            votes = (*approval.votes, event)
            outcome = _count(approval, votes)
            decided_us = event.at_us if outcome else 0
            changed = msgspec.structs.replace(approval, votes=votes, outcome=outcome, decided_us=decided_us)
        self._known[event.approval_id] = changed
        if changed.outcome:
            del self._waiting[event.approval_id]
        return changed

    def _take_in(self, asked: ApprovalRequested) -> Approval:
        approval = self._known[asked.approval_id] = Approval(request=asked)
        self._waiting[asked.approval_id] = None
        self._of_run.setdefault(root_of(asked.run_id), []).append(asked.approval_id)
        if asked.group:
            self._of_step[_step_of(asked)] = asked.approval_id
            self._of_group.setdefault(asked.group, []).append(asked.approval_id)
        heapq.heappush(self._expiring, (asked.expires_us, asked.approval_id))
        return approval


def _step_of(asked: ApprovalRequested) -> tuple[TenantId, RunId, int]:
    """Return what is asked about; with the tenant, for a runtime may write any run's name."""
    return asked.tenant, asked.run_id, asked.step


def _take_out(lists: dict[Any, list[ApprovalId]], key: object, approval_id: ApprovalId) -> None:
    left = [each for each in lists.get(key, ()) if each != approval_id]
    if left:
        lists[key] = left
    else:
        lists.pop(key, None)


def _vote_refusal(approval: Approval, who: Identity, verdict: Verdict, now_us: int) -> VoteRefused | None:
    request, is_question = approval.request, approval.request.terms.answer
    if approval.outcome or request.expires_us <= now_us:
        return VoteRefused(code="already_decided", message=f"it is already {approval.outcome or 'expired'}")
    if who.principal == request.requester and not is_question:
        return VoteRefused(code="self_approval", message=f"{who.principal} asked for it and cannot approve it")
    if set(who.roles).isdisjoint(request.terms.roles):
        return VoteRefused(code="wrong_role", message=f"one of the roles {list(request.terms.roles)} is needed")
    if any(vote.by == who.principal for vote in approval.votes):
        return VoteRefused(code="already_voted", message=f"{who.principal} has voted")
    if is_question and verdict not in ("answer", "reject"):
        return VoteRefused(code="invalid", message="it is a question, which nobody can approve: answer or reject it")
    if verdict == "answer" and not is_question:
        return VoteRefused(code="invalid", message="it is a call and no question: approve, reject or edit it")
    return None


def _invalid_answer(request: ApprovalRequested, answer: Raw | None) -> VoteRefused | None:
    """Return why what is said is no answer to the question."""
    try:
        check_answer(msgspec.json.decode(request.arguments), bytes(answer or b""))
    except InvalidInput as error:
        return VoteRefused(code="invalid", message=error.message)
    return None


def _invalid_edit(arguments: Raw | None) -> VoteRefused | None:
    """Return why edited arguments cannot be an action's; what they mean to the tool is the gate's to say."""
    try:
        edited = parse_bounded(bytes(arguments or b""), max_bytes=MAX_ARGUMENT_BYTES, where="edited arguments")
        canonical(edited)
    except InvalidInput as error:
        return VoteRefused(code="invalid", message=error.message)
    if not isinstance(edited, dict):
        return VoteRefused(code="invalid", message="edited arguments: give an object")
    return None


def _count(approval: Approval, votes: tuple[ApprovalVoted, ...]) -> Outcome:
    latest = votes[-1].verdict
    if latest == "answer":
        return "answered"
    if latest == "reject":
        return "rejected"
    if latest == "edit":
        return "edited"
    approvals = {vote.by for vote in votes if vote.verdict == "approve"}
    return "approved" if len(approvals) >= approval.request.terms.quorum else ""


def _answer_of(approval: Approval) -> Answer | None:
    """Return what was answered; None if a journal has what is no answer, which is a receipt for nothing."""
    said = approval.votes[-1]
    try:
        text, chosen = check_answer(msgspec.json.decode(approval.request.arguments), bytes(said.arguments))
    except InvalidInput:
        return None
    return Answer(text=text, by=said.by, roles=said.roles, at_us=said.at_us, chosen=chosen)


def receipt_for(approval: Approval) -> ApprovalReceipt:
    """Return the unsealed receipt of what was approved, edited or answered, bound to exactly what people were shown."""
    request = approval.request
    arguments = bytes(request.arguments)
    approvers = tuple((v.by, v.roles) for v in approval.votes if v.verdict == "approve")
    answer = _answer_of(approval) if approval.outcome == "answered" else None
    if answer is not None:
        approvers = ((answer.by, answer.roles),)
    if approval.outcome == "edited":
        edit = approval.votes[-1]
        approvers = ((edit.by, edit.roles),)
        arguments = canonical(msgspec.json.decode(edit.arguments))
    binding = call_digest(
        tenant=request.tenant,
        run_id=request.run_id,
        step=request.step,
        tool=request.tool,
        tool_version=request.tool_version,
        policy_version=request.policy_version,
        arguments=arguments,
        resources=request.resources,
        edited=approval.outcome == "edited",
    )
    return ApprovalReceipt(approval_id=request.approval_id, binding=binding, approvers=approvers, answer=answer)
