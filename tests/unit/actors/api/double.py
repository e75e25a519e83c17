"""A stack behind the API, in memory: the table of access says who may what; nothing goes on but what a test does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import msgspec
from msgspec import Raw

from airside.actors.api.server import http_api
from airside.actors.jobs import Job
from airside.actors.journal.batches import BatchSummary
from airside.actors.rpc import methods as rpc
from airside.actors.rpc.methods import (
    FeedPage,
    FeedRequest,
    KeeperRequest,
    OrderReply,
    PresentedJointVote,
    PresentedOrder,
    PresentedQuestion,
    PresentedVote,
    QuestionReply,
)
from airside.memory.storage.erasure_plan import ErasureReceipt
from airside.stack.approvals.book import Approval
from airside.stack.approvals.joint import NotCounted
from airside.stack.contracts.streams import StreamPart, WatchPage, WatchRequest
from airside.stack.errors import AuthRefused, InvalidInput, LayerUnavailable
from airside.stack.ids import ApprovalId, PrincipalId, RunId, TenantId, request_for, run_of
from airside.stack.journal.feed import JournalEntry
from airside.stack.operations import questions as q
from airside.stack.operations.batches import BatchSettings
from airside.stack.operations.messages import JointVoteReply, Submission, Ticket, VoteReply
from airside.stack.operations.overview import detail_of
from airside.stack.policy.kill_switches import KillSwitchChanged
from airside.stack.reasons import ReasonCode
from airside.stack.recovery.rollback import RollbackReport
from airside.stack.run import events as ev
from airside.stack.security.access import Caller, NoAccess, Reach, is_within, narrowed, reach, reaches
from airside.stack.security.memory_orders import MemoryAnswer
from airside.stack.values import Identity, Limits, Outcome, Request, Usage
from tests.unit.stack.approvals.test_approvals import asked as an_approval

ACME, GLOBEX, HOUSE = TenantId("acme"), TenantId("globex"), TenantId("ours")
APPROVAL = "apr_run_" + "a" * 24 + "_1_" + "b" * 12
HOST = "http://127.0.0.1:8080"


def caller(principal: str, *roles: str, tenant: TenantId = ACME, scope: str | None = None) -> Caller:
    """Return somebody."""
    return Caller(Identity(principal=PrincipalId(principal), tenant=tenant, roles=roles), narrowed(scope))


PEOPLE = {
    "ann": caller("ann", "agent"),
    "bob": caller("bob", "agent"),
    "lea": caller("lea", "lead"),
    "olga": caller("olga", "operator"),
    "audra": caller("audra", "auditor"),
    "kim": caller("kim", "memory_keeper"),
    "writer": caller("ann", "agent", scope="runs:write"),
    "reader": caller("ann", "agent", scope="runs:read"),
    "root": caller("root", "operator", tenant=HOUSE),
    "gus": caller("gus", "agent", tenant=GLOBEX),
    "gil": caller("gil", "operator", "auditor", "memory_keeper", tenant=GLOBEX),
}
"""Who holds which credential."""


class StackDouble:
    """`StackPort`, with runs that somebody in a test lets end; or that end at once, where it `ends` them."""

    def __init__(self) -> None:
        self.runs: dict[RunId, list[str]] = {}
        self.orders: list[PresentedOrder] = []
        self.questions: list[Any] = []
        self.votes: list[PresentedVote] = []
        self.joint_votes: list[PresentedJointVote] = []
        self.erasures: list[KeeperRequest] = []
        self.pins: list[KeeperRequest] = []
        self.parts: list[StreamPart] = []
        self.switched: list[KillSwitchChanged] = []
        self.is_up = True
        self.ends = False
        self.ticket: Ticket | None = None
        self.vote = VoteReply(ok=True, outcome="approved")
        self.crowded = 0
        self.expires_after = 10**9
        self._handlers: dict[Any, Callable[[Any], Any]] = {
            rpc.SUBMIT: self._submit,
            rpc.WATCH_RUN: self._watch,
            rpc.GIVE_VOTE: self._vote,
            rpc.GIVE_JOINT_VOTE: self._vote_jointly,
            rpc.KEEP: self._keep,
            rpc.FOLLOW: self._follow,
            rpc.OPERATE: self._operate,
            rpc.LOOK: self._look,
        }

    async def ask(self, method: Any, request: Any) -> Any:
        """Answer, as encoded and decoded as on the wire."""
        if not self.is_up:
            raise LayerUnavailable("ingress is away")
        sent = method.request.decode(method.request.encode(request))
        return method.reply.decode(method.reply.encode(self._handlers[method](sent)))

    async def read_inputs(self, job: Job) -> Job:
        """Return a job as it is, but for an input that no app takes."""
        if "bad" in job.inputs:
            raise InvalidInput("job: inputs: bad: there is no such field")
        return job

    async def is_ready(self) -> bool:
        """Whether it is up."""
        return self.is_up

    def submitted(self, who: str = "ann", text: str = "pay it", nonce: bytes = b"n", job_id: str = "") -> RunId:
        """Put a run on record."""
        request = Request(text=text, job_id=job_id)
        ticket = self._submit(Submission(credential=who, request=msgspec.json.encode(request), nonce=nonce))
        return RunId(ticket.run_id)

    def end(self, run: RunId, answer: bytes = b'"paid"') -> None:
        """Let a run end."""
        outcome = Outcome(status="completed", reason_code=ReasonCode.COMPLETED, answer=Raw(answer))
        ended = ev.RunEnded(at_us=2, outcome=outcome, usage=Usage(steps=1, cost_microusd=7))
        self.runs[run].append(msgspec.json.encode(ended).decode())

    def _admitted(self, credential: str, what: str) -> tuple[Caller, Reach]:
        self.expires_after -= 1
        who = PEOPLE.get(credential) if self.expires_after >= 0 else None
        if who is None:
            reason = ReasonCode.AUTH_UNKNOWN_KEY if self.expires_after >= 0 else ReasonCode.AUTH_EXPIRED
            raise AuthRefused(reason.sentence, reason=reason.value)
        far = reach(what, who, HOUSE)
        if isinstance(far, NoAccess):
            raise AuthRefused(far.problem, reason=far.code)
        return who, far

    def _owner(self, run: str) -> tuple[TenantId, PrincipalId] | None:
        bodies = self.runs.get(RunId(run))
        if not bodies:
            return None
        identity = ev.decode_event(bodies[0]).identity  # type: ignore[union-attr]
        return identity.tenant, identity.principal

    def _submit(self, submission: Submission) -> Ticket:
        try:
            who, _ = self._admitted(submission.credential, "submit")
        except AuthRefused as refused:
            return Ticket(reason_code=ReasonCode(refused.reason), message=refused.message)  # type: ignore[call-arg]
        if self.ticket is not None:
            return self.ticket
        request = msgspec.json.decode(submission.request, type=Request)
        request_id = request_for(who.identity.tenant, who.identity.principal, submission.nonce)
        run = run_of(request_id)
        if run not in self.runs:
            first = ev.RunSubmitted(
                at_us=1,
                run_id=run,
                identity=who.identity,
                sealed="",
                request=msgspec.structs.replace(request, request_id=request_id),
                limits=Limits(),
                app_version="1",
            )
            self.runs[run] = [msgspec.json.encode(first).decode()]
            if self.ends:
                self.end(run)
        there = ev.decode_event(self.runs[run][0]).request  # type: ignore[union-attr]
        given = msgspec.structs.replace(request, request_id=request_id)
        return Ticket(run_id=run, is_anothers=submission.is_keyed and there != given)

    def _watch(self, asked: WatchRequest) -> WatchPage:
        try:
            who, far = self._admitted(asked.credential, "view:events")
        except AuthRefused as refused:
            return WatchPage(code=refused.reason, problem=refused.message)
        if not is_within(self._owner(asked.run_id), who, far):
            return WatchPage(code="unknown", problem="there is no such run")
        if self.crowded:
            self.crowded -= 1
            return WatchPage(code="too_many", problem="others follow")
        parts, self.parts = tuple(self.parts), []
        return WatchPage(parts=parts, events=tuple(self.runs[asked.run_id][asked.events :]))

    def _vote(self, given: PresentedVote) -> VoteReply:
        try:
            who, _ = self._admitted(given.credential, "vote")
        except AuthRefused as refused:
            return VoteReply(ok=False, code=refused.reason, message=refused.message)
        if given.approval_id != APPROVAL or who.identity.tenant != ACME:
            return VoteReply(ok=False, code="unknown", message="no such approval")
        if "lead" not in who.identity.roles:
            return VoteReply(ok=False, code="wrong_role", message="one of the roles ['lead'] is needed")
        self.votes.append(given)
        return self.vote

    def _vote_jointly(self, given: PresentedJointVote) -> JointVoteReply:
        before = list(self.votes)
        replies = [self._vote(PresentedVote(given.credential, each, given.verdict)) for each in given.approval_ids]
        self.votes = before
        refused = tuple(
            NotCounted(approval_id=ApprovalId(each), code=reply.code, message=reply.message)
            for each, reply in zip(given.approval_ids, replies, strict=True)
            if not reply.ok
        )
        if refused:
            return JointVoteReply(ok=False, code=refused[0].code, message="no vote was counted", refused=refused)
        self.joint_votes.append(given)
        return JointVoteReply(ok=True, outcomes=tuple(reply.outcome for reply in replies))

    def _keep(self, wanted: KeeperRequest) -> bytes:
        try:
            who, _ = self._admitted(wanted.credential, "keep")
        except AuthRefused as refused:
            return msgspec.msgpack.encode(MemoryAnswer(code=refused.reason, problem=refused.message))
        if who.identity.tenant != wanted.tenant:
            return msgspec.msgpack.encode(MemoryAnswer(code="unknown", problem="not of this tenant"))
        if wanted.action in ("pin", "unpin"):
            self.pins.append(wanted)
            return msgspec.msgpack.encode(MemoryAnswer(data=msgspec.msgpack.encode(wanted.target == "rec_1")))
        self.erasures.append(wanted)
        receipt = ErasureReceipt(
            tenant=who.identity.tenant, what="record", target=wanted.target, records=("rec_1",), at_us=1
        )
        return msgspec.msgpack.encode(MemoryAnswer(data=msgspec.msgpack.encode(receipt)))

    def _follow(self, asked: FeedRequest) -> FeedPage:
        try:
            who, _ = self._admitted(asked.credential, "follow")
        except AuthRefused as refused:
            return FeedPage(code=refused.reason, problem=refused.message)
        if asked.after == "nowhere":
            return FeedPage(code="invalid", problem="after: it is no cursor")
        entry = JournalEntry(
            cursor="j:acme:1",
            tenant=who.identity.tenant,
            number=1,
            stream="run_1",
            seq=0,
            epoch=0,
            step=0,
            cause=0,
            at_us=1,
            type="RunSubmitted",
            body='{"a":1}',
        )
        return FeedPage(entries=(entry,), cursor="j:acme:1")

    def _operate(self, given: PresentedOrder) -> OrderReply:
        try:
            who, far = self._admitted(given.credential, f"order:{given.action}")
        except AuthRefused as refused:
            return OrderReply(code=refused.reason, problem=refused.message)
        if given.scope == "run" and not is_within(self._owner(given.target.partition(":")[0]), who, far):
            return OrderReply(code="unknown", problem="there is no such run")
        self.orders.append(given)
        report = RollbackReport(run_id=RunId(given.target))
        return OrderReply(reached=1, report=msgspec.json.encode(report) if given.action == "rollback" else b"")

    def _look(self, asked: PresentedQuestion) -> QuestionReply:
        try:
            who, far = self._admitted(asked.credential, f"view:{asked.view}")
        except AuthRefused as refused:
            return QuestionReply(code=refused.reason, problem=refused.message)
        try:
            given = msgspec.json.decode(asked.parameters, type=q.VIEWS[asked.view])
        except msgspec.ValidationError as error:
            return QuestionReply(code="invalid", problem=str(error))
        if isinstance(given, q.Switches) and given.cursor and not given.cursor.isdecimal():
            return QuestionReply(code="invalid", problem=f"{given.cursor!r:.40} is no cursor")
        self.questions.append(given)
        run = getattr(given, "run_id", None)
        if run is not None and not is_within(self._owner(run), who, far):
            return QuestionReply(code="unknown", problem=f"there is no run {run}")
        approval = getattr(given, "approval_id", "") or APPROVAL
        if approval != APPROVAL or getattr(given, "batch", "") not in ("", "nightly"):
            return QuestionReply(code="unknown", problem="there is none")
        if asked.view == "me":
            name, may = who.identity.principal, reaches(who, HOUSE)
            me = q.WhoAsks(tenant=who.identity.tenant, principal=name, roles=(), areas=None, may=dict(may))
            return QuestionReply(body=msgspec.json.encode(me))
        return QuestionReply(body=msgspec.json.encode(self._seen(asked.view, given)))

    def _seen(self, view: str, given: Any) -> Any:
        match given:
            case q.RunEvents():
                return q.EventsPage(
                    events=[Raw(body.encode()) for body in self.runs[given.run_id]], next=1, ended=False
                )
            case q.OneRun() if view == "story":
                return {"run_id": given.run_id, "text": "#0 submitted"}
            case q.OneRun():
                return detail_of([ev.decode_event(body) for body in self.runs[RunId(given.run_id)]])
            case q.OneBatch():
                return BatchSummary(
                    id="nightly",
                    phase="running",
                    opened_us=1,
                    owner="",
                    settings=BatchSettings(),
                    last_order="",
                    manifest={},
                    outcomes=(),
                )
            case q.PolicyUse():
                return q.PolicyStanding(version="v1", description="", since_us=1, rules=(), apart=())
            case q.AuditSearch():
                return q.FoundEntries(items=[])
            case q.AuditSql():
                return {"columns": [["n", "BIGINT"]], "rows": [[1]], "truncated": False}
            case q.Switches():
                first = int(given.cursor or 0)
                more = len(self.switched) > first + 2
                return q.Page(items=self.switched[first : first + 2], next=str(first + 2) if more else "")
            case q.Approvals():
                return q.Page(items=[Approval(request=an_approval())])
            case q.Nothing() if view == "health":
                layers = [
                    q.LayerHealth(layer="driver", up=True, ready=True, up_s=2.5),
                    q.LayerHealth(layer='po"l', up=False),
                ]
                return q.Page(items=layers)
        return q.Page(items=[])


def client_of(stack: StackDouble, who: str = "ann", **headers: str) -> httpx2.AsyncClient:
    """Return a client that sends somebody's credential; of nobody, none."""
    given = {"authorization": f"Bearer {who}"} if who else {}
    transport = httpx2.ASGITransport(app=http_api(stack, ["api.example.com"]))  # type: ignore[arg-type]
    return httpx2.AsyncClient(transport=transport, base_url=HOST, headers=given | headers)
