"""The effects that happened, and the tools that make them happen.

The ledger is outside everything that can crash: it is the world the tools change, and the judge of what was promised.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from airside.stack.canonical import canonical, digest
from airside.stack.ids import RunId
from airside.stack.run.events import decode_event
from airside.stack.values import ApprovalRule, EffectClass, Spend
from airside.tools.builtin.ask_human import ask_human
from airside.tools.runners.outcomes import InputNeeded
from airside.tools.tool import NOT_DONE, Tool, ToolContext, ToolError
from tests.simulation.plan import ON_THINGS, QUORUM

if TYPE_CHECKING:
    from tests.simulation.world import World

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0}}, "required": ["n"]}

# name -> effect, idempotent, with a reconcile hook, micro-USD a call
KINDS: dict[str, tuple[EffectClass, bool, bool, int]] = {
    "look": ("read", False, False, 0),
    "note": ("write", True, False, 0),
    "pay": ("external", False, False, 3),
    "book": ("external", False, True, 1),
    "mail": ("external", True, False, 1),
    "wipe": ("irreversible", False, False, 0),
    "fat": ("write", True, False, 0),
    "forbidden": ("write", False, False, 0),
    "take": ("write", True, False, 0),
    "lend": ("external", True, False, 0),
    "peek": ("read", False, False, 0),
    "give": ("write", True, False, 0),
    "seat": ("external", False, False, 0),
}
ASKS = ApprovalRule(roles=("approver",), expires_after_s=20, answer=True)
"""Whom `seat` asks before it has its effect."""


class Ledger:
    """Counts effects by idempotency key; reads count nothing.

    `called` has every key that reached its tool, `spent` what every decision cost that an agent began.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.done: dict[str, Any] = {}
        self.counts: Counter[str] = Counter()
        self.called: dict[str, str] = {}
        self.spent: list[tuple[RunId, Spend]] = []

    def apply(self, tool: str, context: ToolContext, n: int) -> Any:
        """Make the effect happen, once more than before unless the tool is idempotent and knows the key."""
        key = context.idempotency_key
        if KINDS[tool][1] and key in self.done:
            return self.done[key]
        self._judge(tool, context, n)
        self.counts[key] += 1
        self._world.note(f"EFFECT {tool}({n}) key {key} attempt {context.attempt}, number {self.counts[key]}")
        if self.counts[key] > 1:
            self._world.violation(f"{key}: {tool} happened {self.counts[key]} times")
        if tool == "give":
            self._world.things.give(context.tenant, n)
        self.done[key] = {"tool": tool, "n": n}
        return self.done[key]

    def _judge(self, tool: str, context: ToolContext, n: int) -> None:
        """Compare the effect with what the journal has at this moment."""
        world, run_id = self._world, context.run_id
        allowed = 0
        arguments = digest(canonical({"n": n}))
        for entry in world.journal.local.streams.get(run_id, []):
            if entry.step != context.step or entry.type != "ActionGated":
                continue
            event = decode_event(entry.body)
            if event.digest != arguments or event.tool != tool:
                continue
            allowed += event.decision.outcome == "allow" and event.intent
        rounds = context.asked.round if context.asked else 0
        if allowed < rounds + context.attempt:  # each sending needs one of its own
            world.violation(f"{context.idempotency_key}: {tool} happened without a durable allow")
        if world.tenant_of(run_id) != context.tenant:
            world.violation(f"{context.idempotency_key}: {tool} happened for the tenant {context.tenant}")
        if tool in QUORUM:
            self._judge_approval(tool, context)

    def _judge_approval(self, tool: str, context: ToolContext) -> None:
        votes = self._world.approvals.approvers(context.approval_id)
        if len(votes) < QUORUM[tool]:
            self._world.violation(f"{context.idempotency_key}: {tool} happened with only {sorted(votes)} approving")


def make_tools(world: World) -> list[Tool]:
    """Return the world's tools, whose functions act on its ledger."""
    made = [_make(world, name) for name in KINDS]
    return [
        *(
            replace(each, spec=msgspec.structs.replace(each.spec, asks=ASKS)) if each.name == "seat" else each
            for each in made
        ),
        ask_human("approver", expires_after=20, scopes=["work"], name="ask"),
    ]


def _make(world: World, name: str) -> Tool:
    effect, idempotent, reconciles, cost = KINDS[name]

    async def act(context: ToolContext, n: int) -> Any:
        return await _act(world, name, context, n)

    async def reconcile(context: ToolContext) -> Any:
        await world.pause()
        if world.chance(0.5):
            raise ToolError("the service that keeps the keys is down")
        return world.ledger.done.get(context.idempotency_key, NOT_DONE)

    return Tool.from_schema(
        name,
        SCHEMA,
        act,
        effect=effect,
        idempotent=idempotent,
        timeout=1.0,
        scopes=("work",),
        description=name,
        cost_microusd=cost,
        reconcile=reconcile if reconciles else None,
        max_output_bytes=2000,
        resource=("thing", "n") if name in ON_THINGS else (),
        retries=2 if effect == "read" or idempotent or reconciles else 0,
    )


async def _act(world: World, name: str, context: ToolContext, n: int) -> Any:
    """Do what the tool does, with everything that can go wrong before and after the effect."""
    world.ledger.called[context.idempotency_key] = name
    await world.pause()
    if context.idempotency_key not in world.ledger.done and world.chance(1.0):
        raise ToolError("refused before anything changed", retry_after_s=world.rng.choice((None, 0, 0.5, 3)))
    if world.chance(0.5):
        raise RuntimeError("broke before the effect")
    if world.chance(0.5):
        await asyncio.sleep(5)
    answer: Any = {"n": n}
    if name == "seat":
        _ask_which(context, n)
    if KINDS[name][0] != "read":
        answer = world.ledger.apply(name, context, n)
    if context.answer is not None:
        answer = {**answer, "answer": context.answer.text, "by": context.answer.by}
    world.point(f"tool {name}")
    await world.pause()
    if world.chance(0.5):
        raise RuntimeError("broke after the effect")
    if world.chance(0.5):
        await asyncio.sleep(5)
    if world.chance(0.1):
        raise asyncio.CancelledError
    return "x" * 5000 if name == "fat" and world.chance(10) else answer


def _ask_which(context: ToolContext, n: int) -> None:
    """Ask a person which one, where the number is odd twice; without an answer nothing is done."""
    before = context.asked
    if before is not None and before.declined:
        raise ToolError(f"nobody said which: {before.declined}")
    number = 1 if before is None else before.round + 1
    if number <= 1 + n % 2:
        question = {"question": "Which is it?", "round": number, "fields": {"which": {"type": "integer", "minimum": n}}}
        raise InputNeeded("which is it?", question=canonical(question), kept=canonical(number))
    assert before is not None and context.answer is not None and before.kept == canonical(before.round)
