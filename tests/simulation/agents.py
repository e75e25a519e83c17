"""The agents and routes of every simulated app: replayed actions, and agents that misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from airside.stack.run.agents import Agent, Decided, FunctionAgent, ReplayAgent, View, priced
from airside.stack.run.topology import (
    Branch,
    Done,
    FanOut,
    FanOutFanIn,
    Handoffs,
    Pipeline,
    Route,
    SingleAgent,
    Topology,
    TopologyState,
    Visit,
)
from airside.stack.values import FREE, Action, Finish, Handoff, Proposal, Spend

if TYPE_CHECKING:
    from tests.simulation.world import World


class Rounds:
    """Fan out, let somebody decide, and fan out again."""

    def next_step(self, state: TopologyState) -> Route:
        """Return the next round, or the end."""
        if state.branches is None:
            return FanOut(branches=(Branch(route="single", text="first"), Branch(route="spender", text="first")))
        if state.branches[0].route == "hand":
            return Done(answer="two rounds")
        if not state.finished:
            return Visit(agent="c")
        return FanOut(branches=(Branch(route="hand", text="second"), Branch(route="pipe", text="second")))

    def agents(self) -> tuple[str, ...]:
        """Return whom it visits."""
        return ("c",)


ROUTES: Mapping[str, Topology] = {
    "single": SingleAgent("a"),
    "spender": SingleAgent("spender"),
    "pipe": Pipeline("a", "b"),
    "hand": Handoffs("hander", ("a", "b")),
    "fan": FanOutFanIn(("single", "pipe")),
    "join": FanOutFanIn(("spender", "single", "spender"), join="b"),
    "deep": FanOutFanIn(("fan", "single"), join="c"),
    "rounds": Rounds(),
    "learner": SingleAgent("learner"),
    "learners": FanOutFanIn(("learner", "learner")),
    "circle": Handoffs("ping", ("pong",)),
    "nowhere": Handoffs("lost"),
    **{name: SingleAgent(name) for name in ("raiser", "garbage", "hanger", "canceller", "slow")},
}


def make_agents(world: World) -> Mapping[str, Agent]:
    """Return the agents by name.  They hold nothing between two steps."""
    replay = {name: ReplayAgent(key=name) for name in ("a", "b", "c")}

    async def slow(view: View) -> Decided:
        await asyncio.sleep(world.rng.random())
        return await replay["a"].decide(view)

    async def learner(view: View) -> Decided:
        await asyncio.sleep(world.rng.random())
        said = len(view.recalled) if view.recalled else "no"
        answers = ReplayAgent(key="a", answer=lambda view: f"by {said} hints {view.run_id} takes it upstairs")
        return await answers.decide(view)

    @priced(tokens=20, cost_microusd=4)
    async def spender(view: View) -> Decided:
        spend = Spend(tokens=world.rng.randint(0, 20), cost_microusd=4)
        world.ledger.spent.append((view.run_id, spend))
        await asyncio.sleep(world.rng.random() * 0.01)  # a process that dies meanwhile has spent it all the same
        decided = await replay["b"].decide(view)
        if isinstance(decided, Sequence):
            return [msgspec.structs.replace(decided[0], spend=spend), *decided[1:]]
        return msgspec.structs.replace(decided, spend=spend)

    async def hander(view: View) -> Proposal:
        if view.step > 1 and view.own_history():
            return Handoff(agent=world.rng.choice(("a", "b")))
        if world.rng.random() < 0.5:
            return Handoff(agent="b", message={"from": "hander"})
        return Action(tool="note", arguments={"n": 1})

    async def garbage(view: View) -> Proposal:
        bad = (
            None,
            [],
            [Action(tool="look"), Finish()],
            {"tool": "pay"},
            Action(tool="pay", arguments={"n": float("nan")}),
            Finish(answer={1, 2}),
        )
        return world.rng.choice(bad)  # type: ignore[return-value]

    async def raiser(view: View) -> Decided:
        if view.own_history() or world.rng.random() < 0.5:
            raise ZeroDivisionError("raiser raised")
        return await replay["a"].decide(view)

    async def hanger(view: View) -> Proposal:
        await asyncio.get_running_loop().create_future()
        return Finish()

    async def canceller(view: View) -> Proposal:
        raise asyncio.CancelledError

    functions = (slow, learner, spender, hander, garbage, raiser, hanger, canceller)
    odd = {function.__name__: FunctionAgent(function) for function in functions}
    for name in ("hander", "garbage", "raiser"):
        odd[name].price = FREE  # the others cannot be asked where runs share a budget of money
    return {**replay, **odd, "ping": _to("pong"), "pong": _to("ping"), "lost": _to("nobody")}


def _to(name: str) -> FunctionAgent:
    return FunctionAgent(priced()(lambda view: Handoff(agent=name)))
