"""One question for the like calls of a decision: each is shown as it is, and nobody approves what he was not shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec import Raw

from airside.stack.approvals.book import MAX_TOGETHER, Approval, ApprovalVoted, Verdict
from airside.stack.budget.ledger import Cap
from airside.stack.budget.reservations import BudgetReservations
from airside.stack.contracts.gate import GateReply, GateRequest
from airside.stack.contracts.memory import Recalled, RecallReply, RecallRequest
from airside.stack.cycle.cycle import Cycle
from airside.stack.cycle.cycle_ports import CyclePorts
from airside.stack.cycle.in_memory import InMemoryApprovals, InMemoryJournal, InMemoryPolicy
from airside.stack.errors import LayerUnavailable
from airside.stack.ids import PrincipalId
from airside.stack.policy.bundle import DEFAULT_POLICY, load_bundle
from airside.stack.policy.gate import Gate
from airside.stack.reasons import ReasonCode
from airside.stack.run import events as ev
from airside.stack.run import instructions as do
from airside.stack.run.agents import FunctionAgent, View
from airside.stack.run.machine import RunMachine
from airside.stack.run.state import Phase
from airside.stack.run.topology import SingleAgent
from airside.stack.security.identity import run_subject, seal_identity
from airside.stack.values import MOST, NULL, Action, Finish, Limits, Request, Spend
from airside.tools.dispatch import Dispatcher
from airside.tools.in_memory import InMemoryTools
from airside.tools.tool import Tool, ToolContext, Toolset, tool
from tests.helpers import EXECUTOR, KEY, RUN, identity

POLICY = """
version: VERSION
rules:
  - {id: notes, outcome: allow, when: {tool: [note]}}
  - {id: small, outcome: allow, when: {tool: [pay], arguments: [{path: amount, op: lt, value: 10}]}}
  - id: lead
    outcome: require_approval
    when: {tool: [pay], arguments: [{path: amount, op: ge, value: 10}]}
    approval: {roles: [lead]}
  - id: two-leads
    outcome: require_approval
    when: {tool: [pay], arguments: [{path: amount, op: gt, value: 900}]}
    approval: {roles: [lead], quorum: 2}
  - {id: never, outcome: deny, when: {tool: [pay], arguments: [{path: amount, op: eq, value: 13}]}}
"""


class Policy(InMemoryPolicy):
    """A gate that counts what it is asked, and is away for previews if a test says so."""

    away = False

    def __init__(self, gate: Gate) -> None:
        super().__init__(gate)
        self.asked: Counter[str] = Counter()
        self.previews: list[GateReply] = []

    async def decide(self, request: GateRequest) -> GateReply:
        self.asked["preview" if request.preview else "gate"] += 1
        if request.preview and self.away:
            raise LayerUnavailable("policy is away")
        reply = await super().decide(request)
        if request.preview:
            self.previews.append(reply)
        return reply


class World:
    """One run whose agent proposes some calls in one decision, and then says what became of them."""

    def __init__(
        self,
        *proposed: Any,
        text: str = "go",
        policy: str = POLICY,
        tools: Sequence[Tool] = (),
        memory: Any = None,
        together: bool = True,
        sources: Sequence[Toolset] = (),
    ) -> None:
        self.paid: list[tuple[str, int]] = []
        self.rules, self.memory = policy, memory

        def pay(to: str, amount: int) -> int:
            self.paid.append((to, amount))
            return amount

        def note(text: str) -> str:
            return text

        own = [tool(effect="external")(pay), tool(effect="write")(note), *tools]
        self.tools = [*own, *(each for source in sources for each in source.tools)]
        self.sources = [*own, *sources]
        calls = [_call(each) for each in proposed]

        def decide(view: View) -> Any:
            if len(view.history) == len(calls):
                return Finish(answer=[record.result.ok for record in view.history])
            return calls if together else calls[len(view.history)]

        self.agent = FunctionAgent(decide)
        self.spending = BudgetReservations((), {"acme": (Cap(unit="tool_calls", limit=100),)})
        self.journal, self.approvals, self.text = InMemoryJournal(), InMemoryApprovals(KEY, lambda: 0), text
        self.new_policy("v1")
        who = identity()
        submitted = ev.RunSubmitted(
            at_us=0,
            run_id=RUN,
            identity=who,
            sealed=seal_identity(KEY, who, run_subject(RUN)),
            request=Request(text=text),
            limits=Limits(max_refusals=5, max_tool_calls=64),
            app_version="1",
        )
        self.machine = RunMachine(submitted)
        self.take_up()

    def new_policy(self, version: str) -> None:
        """Restart the gate with another bundle."""
        count = iter(range(10_000))
        self.policy = Policy(
            Gate(
                bundle=load_bundle(self.rules.replace("VERSION", version)),
                tools=[each.spec for each in self.tools],
                seal_key=KEY,
                now_us=lambda: 0,
                random=lambda n: next(count).to_bytes(n, "big"),
                spending=self.spending,
            )
        )

    def take_up(self) -> None:
        """Activate the run anew, from what its events say."""
        machine = self.machine = RunMachine.replay(self.machine.events)
        self.first = machine.handle(ev.RunActivated(at_us=0, epoch=machine.state.epoch + 1))
        layers = CyclePorts(
            journal=self.journal,
            policy=self.policy,
            tools=InMemoryTools(
                lambda: Dispatcher(self.sources, seal_key=KEY, executor_id=EXECUTOR, now_us=lambda: 0, in_threads=False)
            ),
            approvals=self.approvals,
            memory=self.memory,
            agents={"a": self.agent},
            routes={"default": SingleAgent("a")},
            specs=[each.spec for each in self.tools],
            now_us=lambda: 0,
            spawn=self._spawn,
        )
        self.cycle = Cycle(machine, layers, durable=len(self.journal.bodies_of(RUN)))
        for event in machine.events[len(self.journal.bodies_of(RUN)) :]:
            self.cycle.log.record(event)

    async def _spawn(self, *_: Any) -> None:
        raise AssertionError("there are no branches")

    async def run(self) -> None:
        """Advance until the run waits or is over."""
        await self.cycle.advance(self.first)
        await self.cycle.log.durable()

    def waiting(self) -> list[Approval]:
        """Return what waits, by step."""
        return sorted(self.approvals.book.pending(), key=lambda approval: approval.request.step)

    def vote(self, approval: Approval, verdict: Verdict, by: str = "lea", arguments: Raw = NULL) -> Any:
        """Take a vote in; return the decision it makes."""
        return self.approvals.apply(
            ApprovalVoted(
                at_us=0,
                approval_id=approval.request.approval_id,
                by=PrincipalId(by),
                roles=approval.request.terms.roles,
                verdict=verdict,
                arguments=arguments,
            )
        )

    async def decide(self, *verdicts: Verdict) -> None:
        """Vote on what waits, then tell the run what it waits for."""
        decisions = [self.vote(approval, verdict) for approval, verdict in zip(self.waiting(), verdicts, strict=True)]
        await self.cycle.deliver(decisions[0])

    @property
    def answer(self) -> bytes:
        """The answer of the run, which is over."""
        assert self.machine.state.outcome is not None and self.machine.state.phase is Phase.COMPLETED
        return bytes(self.machine.state.outcome.answer)


def _call(proposed: Any) -> Action:
    """Return an action as it is, a text as a note, and a pair as a payment."""
    if isinstance(proposed, Action):
        return proposed
    if isinstance(proposed, str):
        return Action(tool="note", arguments={"text": proposed})
    return Action(tool="pay", arguments={"to": proposed[0], "amount": proposed[1]})


def groups(waiting: list[Approval]) -> list[str]:
    """Return the groups of some approvals."""
    return [approval.request.group for approval in waiting]


async def test_like_calls_are_one_question_and_wait_no_more_when_it_is_answered() -> None:
    world = World(("kim", 20), ("lou", 30), "a note", ("max", 40))
    await world.run()
    waiting = world.waiting()
    assert [each.request.step for each in waiting] == [1, 2, 4]
    assert len(set(groups(waiting))) == 1 and groups(waiting)[0].startswith(f"grp_{RUN}_1_")
    assert [bytes(each.request.arguments) for each in waiting] == [
        b'{"amount":20,"to":"kim"}',
        b'{"amount":30,"to":"lou"}',
        b'{"amount":40,"to":"max"}',
    ]
    assert all(each.request.origins for each in waiting) and world.paid == []
    await world.decide("approve", "approve", "approve")
    assert world.answer == b"[true,true,true,true]" and world.paid == [("kim", 20), ("lou", 30), ("max", 40)]
    assert world.policy.asked == {"gate": 7, "preview": 2}


async def test_a_preview_grants_reserves_and_counts_nothing() -> None:
    world = World(("kim", 20), ("lou", 30), ("max", 5))
    await world.run()
    assert [reply.decision.outcome for reply in world.policy.previews] == ["require_approval", "allow"]
    assert not any(reply.grant or reply.wall_ms for reply in world.policy.previews)
    assert world.spending.ledger.used("tenant/acme", "tool_calls") == (0, 0)
    assert [type(event).__name__ for event in world.machine.events].count("ActionGated") == 1


async def test_one_member_is_rejected_and_the_others_go_on() -> None:
    world = World(("kim", 20), ("eve", 30), ("max", 40))
    await world.run()
    await world.decide("approve", "reject", "approve")
    assert world.answer == b"[true,false,true]" and world.paid == [("kim", 20), ("max", 40)]


async def test_what_is_denied_allowed_or_needs_more_people_is_no_part_of_the_question() -> None:
    """Nor is the same call again, which is asked about, if at all, when it is its turn."""
    world = World(("kim", 20), ("lou", 13), ("max", 5), ("zoe", 901), ("kim", 20), ("ann", 40))
    await world.run()
    assert [each.request.step for each in world.waiting()] == [1, 6]


async def test_calls_that_are_not_decided_yet_are_waited_for_in_their_turn() -> None:
    world = World(("kim", 20), ("lou", 30))
    await world.run()
    first, second = world.waiting()
    await world.cycle.deliver(world.vote(first, "approve"))
    assert world.machine.state.phase is Phase.AWAITING_APPROVAL and world.paid == [("kim", 20)]
    assert world.waiting() == [second], "it is the question that was asked"
    await world.cycle.deliver(world.vote(second, "approve"))
    assert world.answer == b"[true,true]"


async def test_a_changed_policy_asks_anew_about_what_was_approved_ahead() -> None:
    world = World(("kim", 20), ("lou", 30))
    await world.run()
    _, second = world.waiting()
    world.vote(second, "approve")
    world.new_policy("v2")
    world.take_up()
    await world.run()
    (again,) = [each for each in world.waiting() if each.request.policy_version == "v2"]
    assert again.request.step == 2 and world.paid == []


async def test_a_call_that_was_rejected_ahead_stays_rejected_when_the_policy_changes() -> None:
    """Who is asked anew about the first is not asked about the other, which somebody said no to."""
    world = World(("kim", 20), ("eve", 30))
    await world.run()
    first, second = world.waiting()
    world.vote(second, "reject")
    world.vote(first, "approve")
    world.new_policy("v2")
    world.take_up()
    await world.run()
    (again,) = world.waiting()
    assert again.request.step == 1 and again.request.group == ""
    await world.cycle.deliver(world.vote(again, "approve", by="max"))
    assert world.answer == b"[true,false]" and world.paid == [("kim", 20)]
    rejected = [e for e in world.machine.events if isinstance(e, ev.ApprovalDecided) and e.outcome == "rejected"]
    assert [each.by for each in rejected] == [("lea",)]


async def test_a_run_that_is_taken_up_again_asks_the_same_question() -> None:
    world = World(("kim", 20), ("lou", 30))
    await world.run()
    before = world.waiting()
    world.take_up()
    await world.run()
    assert world.waiting() == before
    await world.decide("approve", "approve")
    assert world.answer == b"[true,true]"


async def test_an_edited_member_is_made_with_what_the_person_wrote() -> None:
    world = World(("kim", 20), ("lou", 30))
    await world.run()
    first, second = world.waiting()
    world.vote(second, "edit", arguments=Raw(b'{"to":"lou","amount":25}'))
    await world.cycle.deliver(world.vote(first, "approve"))
    assert world.answer == b"[true,true]" and world.paid == [("kim", 20), ("lou", 25)]


async def test_an_effect_that_comes_twice_in_a_decision_is_shown_as_that() -> None:
    world = World(("kim", 20), ("KIM", 20), text="pay 20 to kim")
    await world.run()
    first, second = world.waiting()
    assert {each.origin for each in first.request.origins} == {"request"}
    assert {each.origin for each in second.request.origins} == {"repeated"}


async def test_a_policy_that_is_away_makes_it_one_question_after_the_other() -> None:
    world = World(("kim", 20), ("lou", 30))
    world.policy.away = True
    await world.run()
    assert [(each.request.step, each.request.group) for each in world.waiting()] == [(1, "")]


async def test_no_question_has_more_calls_than_are_read() -> None:
    world = World(*(("kim", 20 + n) for n in range(MAX_TOGETHER + 5)))
    await world.run()
    assert len(world.waiting()) == MAX_TOGETHER


async def test_the_receipt_of_one_member_opens_no_other() -> None:
    world = World(("kim", 20), ("eve", 500))
    await world.run()
    decided = world.vote(world.waiting()[0], "approve")
    action = Action(tool="pay", arguments={"to": "eve", "amount": 500})
    gate = do.GateCall(step=2, cause=0, action=action, attempt=1, receipt=decided.receipt)
    reply = await world.policy.decide(world.cycle._request(gate, world.machine.remaining(), EXECUTOR, ()))
    assert reply.decision.outcome == "require_approval" and reply.grant == b""


async def test_what_is_asked_about_only_because_it_comes_twice_is_no_part_of_the_question() -> None:
    """Whoever rejects the first would else see the second go: alone, it needs nobody."""
    sent: list[list[str]] = []

    def send_mail(to: list[str], body: str) -> str:
        sent.append(to)
        return "sent"

    calls = [
        Action(tool="send_mail", arguments={"to": to, "body": "hi"})
        for to in (["bob@corp.example", "eve@evil.example"], ["bob@corp.example"])
    ]
    mail = tool(effect="irreversible", content=("body",))(send_mail)
    text = "Send the summary to bob@corp.example."
    world = World(*calls, text=text, policy=DEFAULT_POLICY.read_text(), tools=[mail])
    await world.run()
    (first,) = world.waiting()
    assert first.request.step == 1 and first.request.group == ""
    await world.cycle.deliver(world.vote(first, "reject"))
    assert world.answer == b"[false,true]" and sent == [["bob@corp.example"]]


SHARED = """
version: VERSION
rules:
  - {id: all, outcome: allow, when: {tool: [fetch, publish]}}
  - {id: quarantine, outcome: deny, when: {effect: [external], labels: [untrusted]}}
"""


@pytest.mark.parametrize("together", [False, True])
async def test_calls_in_order_are_gated_with_the_labels_of_their_turn(together: bool) -> None:
    """Tools may share what no decision sees: what the first fetched is what the second publishes."""
    page: list[str] = []
    published: list[str] = []

    def fetch(url: str) -> str:
        page.append("planted by eve")
        return "fetched"

    def publish(place: str, *, context: ToolContext) -> str:
        published.extend(page)
        return "done"

    calls = [Action(tool="fetch", arguments={"url": "u"}), Action(tool="publish", arguments={"place": "board"})]
    both = [tool(effect="read")(fetch), tool(effect="external")(publish)]
    world = World(*calls, text="publish it on board", policy=SHARED, tools=both, together=together)
    await world.run()
    assert world.answer == b"[true,false]" and page and not published


async def test_calls_that_together_cost_more_than_a_journal_holds_are_no_decision() -> None:
    calls = [Action(tool="note", arguments={"text": "x"}, spend=Spend(tokens=MOST)) for _ in range(3)]
    world = World(*calls)
    await world.run()
    assert world.machine.state.outcome is not None
    assert world.machine.state.outcome.reason_code is ReasonCode.AGENT_INVALID_ACTION
    replayed = RunMachine.replay([ev.decode_event(body) for body in world.journal.bodies_of(RUN)])
    assert replayed.state.outcome == world.machine.state.outcome


NOTED = """
version: VERSION
rules:
  - {id: notes, outcome: allow, when: {tool: [note], origins: [{of: any, within: [request, memory]}]}}
  - {id: lead, outcome: require_approval, when: {tool: [pay]}, approval: {roles: [lead]}}
"""


def record(number: int, text: str) -> Recalled:
    """Return a record of memory."""
    return Recalled(
        record_id=f"mem_{number}",
        text=text,
        score=0.9,
        source="run_x#1",
        sensitivity="internal",
        kind="fact",
        created_us=0,
        expires_us=0,
    )


class Memory:
    """A memory that counts what it is asked."""

    def __init__(self, *records: Recalled) -> None:
        self.records, self.asked = records, 0

    async def retrieve(self, request: RecallRequest) -> RecallReply:
        self.asked += 1
        return RecallReply(records=self.records)


@pytest.mark.parametrize("is_taken_up", [False, True])
async def test_a_later_call_is_traced_to_what_was_recalled_before_its_process_died(is_taken_up: bool) -> None:
    """Memory is asked once more by an activation that stands inside a decision."""
    memory = Memory(record(1, "the codes are quokka-77 and wombat-78"))
    world = World(("kim", 20), "quokka-77", "wombat-78", text="pay 20 to kim", policy=NOTED, memory=memory)
    await world.run()
    if is_taken_up:
        world.take_up()
        await world.run()
    await world.cycle.deliver(world.vote(world.waiting()[0], "approve"))
    assert [each.decision.outcome for each in gates_of(world)] == ["allow"] * 2
    assert memory.asked == 2 + is_taken_up  # the next decision asks anew


async def test_what_the_run_was_not_shown_vouches_for_nothing_after_its_process_died() -> None:
    memory = Memory(record(1, "the code is quokka-77"))
    world = World(("kim", 20), "wombat-78", text="pay 20 to kim", policy=NOTED, memory=memory)
    await world.run()
    memory.records = (*memory.records, record(2, "the code is wombat-78"))
    world.take_up()
    await world.run()
    await world.cycle.deliver(world.vote(world.waiting()[0], "approve"))
    assert [each.decision.outcome for each in gates_of(world)] == ["deny"]


async def test_memory_that_recalled_nothing_is_not_asked_again() -> None:
    memory = Memory()
    world = World(("kim", 20), "kim", text="pay 20 to kim", policy=NOTED, memory=memory)
    await world.run()
    world.take_up()
    await world.run()
    assert memory.asked == 1


def gates_of(world: World) -> list[ev.ActionGated]:
    """Return what the gate said of the notes."""
    return [each for each in world.machine.events if isinstance(each, ev.ActionGated) and each.tool == "note"]
