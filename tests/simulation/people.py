"""Approvals and the people: who votes when, who resolves a doubt, who kills and cancels."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw

from airside.stack.approvals.book import (
    Approval,
    ApprovalBook,
    ApprovalEvent,
    ApprovalRequested,
    ApprovalVoted,
    Question,
    Verdict,
    VoteRefused,
    decode_approval_event,
)
from airside.stack.canonical import canonical
from airside.stack.cycle.in_memory import InMemoryApprovals
from airside.stack.ids import ApprovalId, PrincipalId, TenantId
from airside.stack.journal.stream import append_of
from airside.stack.run.events import ApprovalDecided, InDoubtResolved
from airside.stack.values import Identity
from tests.simulation.plan import RunPlan

if TYPE_CHECKING:
    from tests.simulation.runtime import SimCycle
    from tests.simulation.world import World

SEAL = b"s" * 32


class SimApprovals:
    """The approvals layer: the book is the fold of what the journal has."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._ids: dict[ApprovalId, None] = {}
        self._writing = asyncio.Lock()
        self.local = InMemoryApprovals(SEAL, world.now_us)

    def restart(self) -> None:
        """Lose what is in memory and rebuild it from the journal."""
        bodies = [body for name in self._ids for body in self._world.journal.local.bodies_of(name)]
        self.local = InMemoryApprovals(SEAL, self._world.now_us)
        self.local.book = ApprovalBook(decode_approval_event(body) for body in bodies)

    def recorded(self) -> list[Approval]:
        """Return every approval there was, as what is durable says it stands."""
        books = [
            ApprovalBook(map(decode_approval_event, self._world.journal.local.bodies_of(name))) for name in self._ids
        ]
        return [found for book, name in zip(books, self._ids, strict=True) if (found := book.get(name)) is not None]

    def approvers(self, approval_id: str) -> set[str]:
        """Return who approved, by what is durable; for an edit, who edited."""
        events = [decode_approval_event(body) for body in self._world.journal.local.bodies_of(approval_id)]
        asker = next((e.requester for e in events if isinstance(e, ApprovalRequested)), "")
        votes = [e for e in events if isinstance(e, ApprovalVoted) and "approver" in e.roles]
        return {vote.by for vote in votes if vote.verdict in ("approve", "edit") and vote.by != asker}

    async def request(self, question: Question) -> ApprovalDecided | None:
        """Register durably, once; answer with the decision if there is one."""
        async with self._writing:
            new = self.local.book.register(question, now_us=self._world.now_us())
            for event in new:
                self._ids[event.approval_id] = None
                await self._write(question.asked, event)
            for event in new:
                self.local.apply(event)  # whichever book there is by now
            answer = await self.local.request(question)
        for event in new:
            if isinstance(event, ApprovalRequested):
                ahead = f" with {event.group}" if event.group else ""
                self._world.note(f"approval {event.approval_id} asked for{ahead}")
                self._world.people.asked(event)
        return answer

    async def vote(self, who: Identity, name: ApprovalId, verdict: Verdict, arguments: Raw | None) -> None:
        """Take in one person's say."""
        async with self._writing:
            now = self._world.now_us()
            vote = self.local.book.vote(who, name, verdict, now_us=now, arguments=arguments)
            self._world.note(f"{who.principal} says {verdict} to {name}: {getattr(vote, 'code', 'counted')}")
            if not isinstance(vote, VoteRefused):
                await self._write(self._asked_of(name), vote)
                self._decided(name, self.local.apply(vote))

    async def expire(self) -> None:
        """Do what the driver asks for as time passes."""
        for expiry in self.local.book.due(self._world.now_us()):
            name = expiry.approval_id
            async with self._writing:
                approval = self.local.book.get(name)
                if approval is not None and not approval.outcome:
                    await self._write(self._asked_of(name), expiry)
                    self._decided(name, self.local.apply(expiry))

    def _asked_of(self, name: ApprovalId) -> ApprovalRequested:
        approval = self.local.book.get(name)
        assert approval is not None
        return approval.request

    async def _write(self, asked: ApprovalRequested, event: ApprovalEvent) -> None:
        name, request = event.approval_id, event if isinstance(event, ApprovalRequested) else asked
        seq = len(self._world.journal.local.bodies_of(name))
        await self._world.journal.append(append_of(request.tenant, name, [event], first_seq=seq))

    def _decided(self, name: ApprovalId, decision: ApprovalDecided | None) -> None:
        approval = self.local.book.get(name)
        if decision is not None and approval is not None:
            self._world.driver.deliver(approval.request.run_id, decision)


class People:
    """Everybody who is not a program."""

    def __init__(self, world: World) -> None:
        self._world = world

    def asked(self, request: ApprovalRequested) -> None:
        """Decide, or not, about a call that waits."""
        world, rng = self._world, self._world.rng
        wait_s = (request.expires_us - world.now_us()) / 1e6 + 0.01
        world.later(max(0.0, wait_s), lambda: world.start(world.approvals.expire()))
        if rng.random() < 0.2:
            return
        for name in rng.sample(("bob", "cat", "eve", "ann"), rng.randint(1, 4)):
            self._will_vote(request, name)

    def _will_vote(self, request: ApprovalRequested, name: str) -> None:
        world, rng = self._world, self._world.rng
        roles = ("clerk",) if name == "eve" and rng.random() < 0.5 else ("approver",)
        tenant = TenantId("elsewhere") if name == "eve" else request.tenant
        who = Identity(principal=PrincipalId(name), tenant=tenant, roles=roles)
        verdict: Verdict = rng.choice(("approve", "approve", "approve", "approve", "reject", "edit"))
        arguments = None
        if request.terms.answer and verdict != "reject" and rng.random() < 0.8:
            asked = msgspec.json.decode(request.arguments)
            choices = asked.get("choices", ("99", '{"which": 100}', "-1", "{}"))
            verdict, arguments = "answer", Raw(canonical(rng.choice((*choices, "neither", 5))))
        if verdict == "edit":
            other = canonical(rng.choice(({"n": 7}, {"n": 8}, {"n": "no"}, {})))
            arguments = request.arguments if rng.random() < 0.3 else Raw(other)
        delay = rng.expovariate(2.0)
        world.later(delay, lambda: world.start(world.approvals.vote(who, request.approval_id, verdict, arguments)))

    def doubt(self, cycle: SimCycle) -> None:
        """Perhaps find out what became of a call, and say so; sometimes two of them do."""
        world, rng, step = self._world, self._world.rng, cycle.machine.state.step
        for _ in range(rng.choice((0, 0, 1, 2))):
            world.later(rng.random() * 6, lambda: self._resolve(cycle, step))

    def _resolve(self, cycle: SimCycle, step: int) -> None:
        world = self._world
        key = f"{cycle.run_id}:{step}"
        resolved = InDoubtResolved(
            step=step,
            by=PrincipalId("bob"),
            happened=key in world.ledger.done,
            output=Raw(canonical(world.ledger.done.get(key))),
            at_us=world.now_us(),
        )
        world.driver.deliver(cycle.run_id, resolved)

    def interfere(self, plan: RunPlan) -> None:
        """Kill or cancel a run if the plan says so."""
        world = self._world
        if plan.kill_s is not None:
            world.later(plan.start_s + plan.kill_s, lambda: world.start(world.driver.stop(plan.run_id, kill=True)))
        if plan.cancel_s is not None:
            world.later(plan.start_s + plan.cancel_s, lambda: world.start(world.driver.stop(plan.run_id, kill=False)))
