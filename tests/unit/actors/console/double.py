"""A stack behind the console, in memory: the table of access says who may what; views show what a test put there."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import Raw

from airside.actors.jobs import Job
from airside.actors.journal.batches import BatchOutcome, BatchSummary
from airside.actors.rpc import methods as rpc
from airside.actors.rpc.methods import (
    OrderReply,
    PresentedJointVote,
    PresentedOrder,
    PresentedQuestion,
    PresentedVote,
    QuestionReply,
)
from airside.stack.approvals.book import Approval, ApprovalRequested, ApprovalVoted
from airside.stack.budget.reservations import BudgetStanding
from airside.stack.contracts.memory import MemoryStanding
from airside.stack.errors import AuthRefused, LayerUnavailable
from airside.stack.ids import ApprovalId, EffectKey, GroupId, PrincipalId, RunId, TenantId
from airside.stack.operations import questions as q
from airside.stack.operations.batches import BatchSettings
from airside.stack.operations.messages import JointVoteReply, VoteReply
from airside.stack.operations.overview import RunDetail, RunSummary, detail_of
from airside.stack.policy.kill_switches import KillSwitchChanged
from airside.stack.reasons import ReasonCode
from airside.stack.recovery.in_doubt import InDoubtCall
from airside.stack.recovery.rollback import RollbackReport, UndoLine
from airside.stack.recovery.spend_in_doubt import SpendInDoubt
from airside.stack.resources import ResourceFact
from airside.stack.run import events as ev
from airside.stack.run.story import story_lines
from airside.stack.security.access import Caller, NoAccess, Reach, narrowed, reach, reaches
from airside.stack.values import ApprovalRule, Identity, Spend, ValueOrigin
from tests.unit.actors.client.display.samples import APPROVED, DENIED, WAITING, played

ACME, GLOBEX, HOUSE = TenantId("acme"), TenantId("globex"), TenantId("house")
NOW_US = time.time_ns() // 1000
MINUTE_US = 60_000_000
MAX_TEXT = 40_000
"""Of a text among arguments, which are bounded as a whole."""

RUN, WAITING_RUN, DENIED_RUN, FOREIGN_RUN = (RunId("run_" + each * 24) for each in "abcd")


def caller(principal: str, *roles: str, tenant: TenantId = ACME, scope: str | None = None) -> Caller:
    """Return somebody."""
    return Caller(Identity(principal=PrincipalId(principal), tenant=tenant, roles=roles), narrowed(scope))


PEOPLE = {
    "ann": caller("ann", "agent"),
    "lea": caller("lea", "lead"),
    "olga": caller("olga", "operator"),
    "audra": caller("audra", "auditor"),
    "max": caller("max", "operator", "auditor", "lead"),
    "hugo": caller("hugo", "operator", "auditor", "lead", tenant=HOUSE),
    "reader": caller("ann", "agent", scope="runs:read"),
    "nothing": caller("ann", "agent", scope="nothing"),
    "gil": caller("gil", "operator", "auditor", "lead", tenant=GLOBEX),
}
"""Who holds which credential."""


def approval_id(number: int) -> str:
    """Return the id of one of the approvals here."""
    return f"apr_{WAITING_RUN}_{number}_" + f"{number:012x}"


def _events(commands: str, run_id: RunId, age_us: int) -> list[ev.Event]:
    """Return a played run's events as those of another, and of this day."""
    found = played(commands)
    shift_us = NOW_US - age_us - found[0].at_us
    moved = [msgspec.structs.replace(each, at_us=each.at_us + shift_us) for each in found]
    first = moved[0]
    assert isinstance(first, ev.RunSubmitted)
    identity = msgspec.structs.replace(first.identity, tenant=ACME, principal=PrincipalId("ann"))
    return [msgspec.structs.replace(first, run_id=run_id, identity=identity), *moved[1:]]


EVENTS = {
    RUN: _events(APPROVED, RUN, 30 * MINUTE_US),
    WAITING_RUN: _events(WAITING, WAITING_RUN, 14 * MINUTE_US),
    DENIED_RUN: _events(DENIED, DENIED_RUN, 90 * MINUTE_US),
}
"""The runs here; a played one has a loop of its own, so that they are played once, before any test's."""

LONG = _events(f"submit single {' '.join(f'look({n})' for n in range(20))}\nstabilise", WAITING_RUN, MINUTE_US)
"""Events of a run of many steps, for what changes while somebody looks."""


def an_approval(
    number: int,
    *,
    tool: str = "refund_order",
    effect: str = "irreversible",
    arguments: Any = None,
    origins: tuple[ValueOrigin, ...] = (),
    left_us: int = 40 * MINUTE_US,
    age_us: int = 12 * MINUTE_US,
    text: str = "Refund order 4711, the parcel never came.",
    requester: str = "ann",
    **more: Any,
) -> Approval:
    """Return a call that waits."""
    votes = more.pop("votes", ())
    given = arguments if arguments is not None else {"order": "4711", "amount_cents": 12_900, "notify": True}
    asked = ApprovalRequested(
        at_us=NOW_US - age_us,
        approval_id=ApprovalId(approval_id(number)),
        tenant=ACME,
        requester=PrincipalId(requester),
        run_id=WAITING_RUN,
        step=number,
        tool=tool,
        tool_version="1",
        policy_version="v1",
        rule=more.pop("rule", "refunds-over-100"),
        effect=effect,
        arguments=Raw(msgspec.json.encode(given)),
        terms=more.pop("terms", ApprovalRule(roles=("lead",), quorum=2)),
        expires_us=NOW_US + left_us,
        request_text=text,
        origins=origins,
        **more,
    )
    return Approval(request=asked, votes=votes)


def _approvals(text: str) -> list[Approval]:
    mail = {"to": "bob@example.com", "subject": "Your refund", "body": "Dear Bob,\n\nwe are sorry.\nYours, Ann"}
    voted = ApprovalVoted(
        at_us=NOW_US, approval_id=ApprovalId(approval_id(1)), by=PrincipalId("lou"), roles=("lead",), verdict="approve"
    )
    plain = [
        an_approval(
            1,
            origins=(
                ValueOrigin(path="order", value="4711", part="authority", origin="request"),
                ValueOrigin(
                    path="amount_cents", value="12900", part="authority", origin="tool", detail="read_mail, step 3"
                ),
            ),
            resources=(
                ResourceFact(kind="order", path="order", declared="order", state="found", id="4711", owner="bob"),
            ),
            rejected_before="Lou has rejected a refund_order of this run before.",
            votes=(voted,),
        ),
        an_approval(2, tool="send_mail", effect="external", arguments=mail, left_us=5 * MINUTE_US, rule="mail-out"),
        an_approval(
            3, tool="tag_order", effect="write", arguments={"order": "4712", "tag": "late"}, age_us=50 * MINUTE_US
        ),
        an_approval(
            4,
            tool="ask_human",
            effect="read",
            arguments={"question": "Which account is the refund for?", "choices": ["the old one", "the new one"]},
            terms=ApprovalRule(roles=("lead",), answer=True),
        ),
    ]
    if not text:
        return plain
    return [
        an_approval(
            5,
            tool=text,
            effect=text,
            arguments={"to": text[:MAX_TEXT], text[:MAX_TEXT]: {text[:MAX_TEXT]: [text[:MAX_TEXT]]}, "amount": 5},
            text=text,
            requester=text,
            rule=text,
            terms=ApprovalRule(roles=(text, "lead")),
            rejected_before=text,
            group=GroupId(text),
            origins=(ValueOrigin(path=text, value=text, part="content", origin="nowhere", detail=text),),
            resources=(ResourceFact(kind=text, path="to", declared="to", state="unknown", id=text, detail=text),),
        ),
        *plain,
    ]


@dataclass
class ConsoleStack:
    """`StackPort`; whatever somebody else wrote is `text`, if there is one."""

    text: str = ""
    orders: list[PresentedOrder] = field(default_factory=list)
    votes: list[PresentedVote] = field(default_factory=list)
    joint_votes: list[PresentedJointVote] = field(default_factory=list)
    looked: list[tuple[str, Any]] = field(default_factory=list)
    revoked: dict[str, str] = field(default_factory=dict)
    is_up: bool = True
    more_active: int = 0
    vote: VoteReply = field(default_factory=lambda: VoteReply(ok=True, outcome="approved"))
    order: OrderReply | None = None

    def __post_init__(self) -> None:
        self.runs = dict(EVENTS)
        self.approvals = _approvals(self.text)
        self._handlers: dict[Any, Callable[[Any], Any]] = {
            rpc.GIVE_VOTE: self._vote,
            rpc.GIVE_JOINT_VOTE: self._vote_jointly,
            rpc.OPERATE: self._operate,
            rpc.LOOK: self._look,
            rpc.NEWS: self._news,
        }
        self.mark = 1
        self._told: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def happened(self) -> None:
        """Tell of news, from whichever thread."""
        self.mark += 1
        told, self._told = self._told, []
        for loop, event in told:
            loop.call_soon_threadsafe(event.set)

    async def ask(self, method: Any, request: Any) -> Any:
        """Answer, as encoded and decoded as on the wire."""
        if not self.is_up:
            raise LayerUnavailable("ingress is away")
        sent = method.request.decode(method.request.encode(request))
        if method is rpc.NEWS and sent.timeout_s and sent.after == self.mark:
            event = asyncio.Event()
            self._told.append((asyncio.get_running_loop(), event))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(event.wait(), sent.timeout_s)
            if not self.is_up:
                raise LayerUnavailable("ingress is away")
        return method.reply.decode(method.reply.encode(self._handlers[method](sent)))

    async def read_inputs(self, job: Job) -> Job:
        """Return a job as it is."""
        return job

    async def is_ready(self) -> bool:
        """Whether it is up."""
        return self.is_up

    def _admitted(self, credential: str, what: str) -> tuple[Caller, Reach]:
        if credential in self.revoked:
            reason = ReasonCode(self.revoked[credential])  # type: ignore[call-arg]
            raise AuthRefused(reason.sentence, reason=reason.value)
        who = PEOPLE.get(credential)
        if who is None:
            raise AuthRefused(ReasonCode.AUTH_UNKNOWN_KEY.sentence, reason=ReasonCode.AUTH_UNKNOWN_KEY.value)
        far = reach(what, who, HOUSE)
        if isinstance(far, NoAccess):
            raise AuthRefused(far.problem, reason=far.code)
        return who, far

    def _news(self, asked: rpc.NewsRequest) -> rpc.NewsPage:
        try:
            who, far = self._admitted(asked.credential, "view:events" if asked.run_id else "view:runs")
        except AuthRefused as refused:
            return rpc.NewsPage(code=refused.reason, problem=refused.message)
        if asked.run_id and not self._is_there(who, asked.run_id):
            return rpc.NewsPage(code="unknown", problem=f"there is no run {asked.run_id}")
        if not asked.run_id and far == "own":
            return rpc.NewsPage(code="wrong_role", problem="ask for a run")
        return rpc.NewsPage(mark=self.mark)

    def _vote(self, given: PresentedVote) -> VoteReply:
        try:
            who, _ = self._admitted(given.credential, "vote")
        except AuthRefused as refused:
            return VoteReply(ok=False, code=refused.reason, message=refused.message)
        if "lead" not in who.identity.roles:
            return VoteReply(ok=False, code="wrong_role", message="one of the roles ['lead'] is needed")
        self.votes.append(given)
        return self.vote

    def _vote_jointly(self, given: PresentedJointVote) -> JointVoteReply:
        before = list(self.votes)
        replies = [self._vote(PresentedVote(given.credential, each, given.verdict)) for each in given.approval_ids]
        self.votes = before
        waiting = {each.request.approval_id for each in self.approvals if not each.outcome}
        gone = [each for each in given.approval_ids if each not in waiting]
        if gone:
            return JointVoteReply(ok=False, code="unknown", message=f"no vote was counted: {gone[0]}: it waits no more")
        first = next((reply for reply in replies if not reply.ok), None)
        if first is not None:
            return JointVoteReply(ok=False, code=first.code, message=f"no vote was counted: {first.message}")
        self.joint_votes.append(given)
        return JointVoteReply(ok=True, outcomes=tuple(reply.outcome for reply in replies))

    def _operate(self, given: PresentedOrder) -> OrderReply:
        try:
            who, _ = self._admitted(given.credential, f"order:{given.action}")
        except AuthRefused as refused:
            return OrderReply(code=refused.reason, problem=refused.message)
        if given.scope == "run" and not self._is_there(who, given.target.partition(":")[0]):
            return OrderReply(code="unknown", problem=f"there is no run {given.target}")
        self.orders.append(given)
        if self.order is not None:
            return self.order
        line = UndoLine(run_id=RUN, step=1, key=EffectKey(f"{RUN}:1"), tool="pay", outcome="undone")
        report = msgspec.json.encode(RollbackReport(run_id=RUN, calls=(line,)))
        return OrderReply(reached=1, report=report if given.action == "rollback" else b"")

    def _is_there(self, who: Caller, run_id: str) -> bool:
        return run_id in self.runs and who.identity.tenant in (ACME, HOUSE)

    def _look(self, asked: PresentedQuestion) -> QuestionReply:
        try:
            who, far = self._admitted(asked.credential, f"view:{asked.view}")
        except AuthRefused as refused:
            return QuestionReply(code=refused.reason, problem=refused.message)
        try:
            given = msgspec.json.decode(asked.parameters, type=q.VIEWS[asked.view])
        except msgspec.ValidationError as error:
            return QuestionReply(code="invalid", problem=str(error))
        self.looked.append((asked.view, given))
        if hasattr(given, "run_id") and not self._is_there(who, given.run_id):
            return QuestionReply(code="unknown", problem=f"there is no run {given.run_id}")
        if isinstance(given, q.OneBatch) and (given.batch != "nightly" or who.identity.tenant == GLOBEX):
            return QuestionReply(code="unknown", problem=f"there is no batch {given.batch}")
        if isinstance(given, q.Approvals):
            return self._waiting(who, given)
        if isinstance(given, q.OneApproval):
            return self._form(given.approval_id)
        found = self._seen(asked.view, given, who, far)
        return QuestionReply(body=found if isinstance(found, bytes) else msgspec.json.encode(found))

    def _waiting(self, who: Caller, given: q.Approvals) -> QuestionReply:
        if who.identity.tenant == GLOBEX:
            if given.approval_id:
                return QuestionReply(code="unknown", problem="there is none")
            return QuestionReply(body=msgspec.json.encode(q.Page(items=[])))
        found = [
            each
            for each in self.approvals
            if given.approval_id in ("", each.request.approval_id, each.request.group or each.request.approval_id)
        ]
        if given.approval_id and not found:
            return QuestionReply(code="unknown", problem=f"there is no approval {given.approval_id}")
        if not given.approval_id:
            found = [each for each in found if not each.outcome]
        return QuestionReply(body=msgspec.json.encode(q.Page(items=found[: given.limit])))

    def _form(self, name: str) -> QuestionReply:
        tools = {each.request.approval_id: each.request.tool for each in self.approvals}
        if tools.get(ApprovalId(name)) != "send_mail":
            return QuestionReply(code="unknown", problem="there is no such tool")
        properties = {
            "to": {"type": "string", "description": "Whom it goes to."},
            "subject": {"type": "string"},
            "body": {"type": "string"},
            "urgency": {"type": "string", "enum": ["low", "high"], "description": self.text or "How soon to read it."},
        }
        parameters = {"type": "object", "properties": properties, "required": ["to", "subject", "body"]}
        form = q.ToolForm(tool="send_mail", description=self.text or "Sends a mail.", parameters=parameters)
        return QuestionReply(body=msgspec.json.encode(form))

    def _detail(self, run_id: RunId) -> RunDetail:
        detail = detail_of(self.runs[run_id])
        if not self.text:
            return detail
        run = msgspec.structs.replace(
            detail.run, job_id=self.text, principal=PrincipalId(self.text), tenant=TenantId(self.text), route=self.text
        )
        return msgspec.structs.replace(
            detail,
            run=run,
            request=self.text,
            answer={self.text: self.text},
            detail=self.text,
            labels=(self.text,),
            in_doubt=(self.text,),
            steps=tuple(
                msgspec.structs.replace(each, action=self.text, arguments={self.text: self.text}, detail=self.text)
                for each in detail.steps
            ),
        )

    def _seen(self, view: str, given: Any, who: Caller, far: Reach) -> Any:
        text = self.text
        match view:
            case "me":
                name, areas = who.identity, None if who.areas is None else sorted(who.areas)
                may = dict(reaches(who, HOUSE))
                return q.WhoAsks(tenant=name.tenant, principal=name.principal, roles=name.roles, areas=areas, may=may)
            case "run":
                return self._detail(RunId(given.run_id))
            case "story":
                told = story_lines(self.runs[RunId(given.run_id)])
                return {"run_id": given.run_id, "text": f"{told}\n{text}" if text else told}
            case "events":
                bodies = [Raw(ev.encode_event(each)) for each in self.runs[RunId(given.run_id)]]
                return q.EventsPage(events=bodies, next=len(bodies), ended=False)
            case "runs":
                return q.Page(items=self._runs(given), next="1:cursor" if not given.cursor else "")
            case "counts":
                return q.Page(items=self._counts())
            case "health":
                return q.Page(items=self._layers())
            case "switches":
                switch = KillSwitchChanged(
                    at_us=NOW_US - MINUTE_US, scope="tool", target=text or "send_mail", off=True, by=PrincipalId("olga")
                )
                return q.Page(items=[msgspec.structs.replace(switch, why=text or "wrong text in the mails")])
            case "budgets":
                return q.Page(items=self._budgets())
            case "in_doubt":
                return q.Page(items=[self._in_doubt()])
            case "spend_in_doubt":
                return q.Page(items=[self._spend()])
            case "batches":
                return q.Page(items=[self._batch()])
            case "batch":
                return self._batch()
            case "queries":
                listed = [("outcomes", "How many runs ended in each way."), ("denials", "Calls that policy denied.")]
                return q.Page(items=[q.AuditQuery(name=name, says=says, sql="SELECT 1") for name, says in listed])
            case "chain":
                chain = q.ChainStanding(tenant=ACME, entries=1_240, checked=1_200, checked_us=NOW_US)
                return q.Page(
                    items=[chain, q.ChainStanding(tenant=text or HOUSE, entries=3, problem=text, checking=True)]
                )
            case "search":
                return self._entries()
            case "policy":
                return self._policy(far)
            case "tenants":
                return q.Page(items=[self._tenant(given.tenant or ACME)])
            case "sql":
                rows = [[NOW_US, text or "completed", None, 1.5], [2, "=1+1", {"a": text}, True]]
                columns = [["at_us", "BIGINT"], [text or "status", "VARCHAR"], ["more", "JSON"], ["share", "DOUBLE"]]
                return msgspec.json.encode({"columns": columns, "rows": rows, "truncated": False})
        raise AssertionError(view)

    def _entries(self) -> q.FoundEntries:
        body = Raw(msgspec.json.encode({"type": "ApprovalVoted", "note": self.text or "=1+1"}))
        entry = q.FoundEntry(
            position=7,
            tenant=ACME,
            number=6,
            stream=self.text or RUN,
            seq=2,
            step=1,
            at_us=NOW_US,
            type="ApprovalVoted",
            event=body,
        )
        return q.FoundEntries(items=[entry], next="7", back_to_us=NOW_US - MINUTE_US)

    def _policy(self, far: Reach) -> q.PolicyStanding:
        text = self.text
        rules = [
            q.RuleUse(
                id="mail-out",
                outcome="require_approval",
                words=text or "Ask people about calls of send_mail.",
                description=text,
                written={"id": "mail-out", "description": text},
                tools=("send_mail", text),
                fired=12,
                last_us=NOW_US - MINUTE_US,
            ),
            q.RuleUse(
                id="no-deletes", outcome="deny", words="Deny calls of delete.", description="", written={}, tools=()
            ),
        ]
        other = q.DecisionCount(
            version=text or "v0", rule=text or "default-deny", outcome="deny", fired=3, last_us=NOW_US
        )
        return q.PolicyStanding(
            version="shop-1",
            description=text,
            since_us=NOW_US - 60 * MINUTE_US,
            rules=tuple(rules),
            apart=(other,),
            text=(text or "version: shop-1") if far == "all" else "",
        )

    def _tenant(self, name: str) -> q.TenantStanding:
        return q.TenantStanding(
            tenant=name,
            concurrency=8,
            queue=100,
            weight=1,
            rate_per_minute=60,
            clearance="internal",
            deadline_s=3_600,
            limits={"max_steps": 12},
            principals=4,
            is_open=True,
            memory=MemoryStanding(live=12, pinned=1, text_bytes=4_096),
        )

    def _runs(self, given: q.Runs) -> list[RunSummary]:
        found = [self._detail(each).run for each in self.runs]
        return [each for each in found if given.status in ("", each.status)]

    def _counts(self) -> list[q.RunCount]:
        rows = [
            ("acme", "active", "", 3 + self.more_active),
            ("acme", "completed", "completed", 1_240),
            ("globex", "refused", "policy_denied", 7),
        ]
        if self.text:
            rows.append((self.text, self.text, self.text, 1))
        return [
            q.RunCount(tenant=tenant, status=status, reason_code=reason, runs=runs, tokens=10, cost_microusd=10)
            for tenant, status, reason, runs in rows
        ]

    def _layers(self) -> list[q.LayerHealth]:
        names = ["approvals", "driver", "ingress", "journal", "policy", "executor/0"]
        layers = [q.LayerHealth(layer=name, up=True, ready=True, up_s=4000.0) for name in names]
        return [*layers, q.LayerHealth(layer=self.text or "memory", up=False)]

    def _budgets(self) -> list[q.BudgetLine]:
        rows = [
            BudgetStanding(unit="cost_microusd", per="day", limit=50_000_000, reserved=1_200_000, spent=43_800_000),
            BudgetStanding(unit="tokens", per="month", limit=9_000_000, reserved=20_000, spent=1_000_000),
            BudgetStanding(unit="tool:send_mail", per="minute", limit=0, reserved=0, spent=0),
        ]
        return [q.BudgetLine(budget=each, in_doubt=7_000 if each.unit == "tokens" else 0) for each in rows]

    def _in_doubt(self) -> InDoubtCall:
        return InDoubtCall(
            run_id=RUN,
            tenant=ACME,
            step=2,
            tool=self.text or "charge_card",
            arguments={"amount": 5, "note": self.text},
            key=EffectKey(f"{RUN}:2"),
            since_us=NOW_US - 9 * MINUTE_US,
            until_us=NOW_US + 20 * MINUTE_US,
            cause=self.text or "the answer was lost: the executor died",
        )

    def _spend(self) -> SpendInDoubt:
        return SpendInDoubt(
            key=f"{RUN}:1/model@1",
            run_id=RUN,
            tenant=ACME,
            step=1,
            epoch=1,
            attempt=1,
            model=self.text or "gpt-5",
            since_us=NOW_US - 9 * MINUTE_US,
            reserved=Spend(tokens=4_000, cost_microusd=20_000),
            cause=self.text or "no answer is on record",
        )

    def _batch(self) -> BatchSummary:
        rows = [
            ("active", "", 40),
            ("completed", "completed", 940),
            ("failed", "tool_failed", 12),
            ("refused", "policy_denied", 8),
        ]
        return BatchSummary(
            id="nightly",
            phase="running",
            opened_us=NOW_US - 90 * MINUTE_US,
            owner=self.text or "host:412",
            settings=BatchSettings(concurrency=40),
            last_order=self.text or "retune by olga: too slow",
            manifest={"app": self.text or "shop", "jobs_digest": "6fd25d9"},
            outcomes=tuple(
                BatchOutcome(
                    status=status,
                    reason_code=reason,
                    runs=runs,
                    steps=3 * runs,
                    tokens=90 * runs,
                    cost_microusd=900 * runs,
                )
                for status, reason, runs in rows
            ),
        )
