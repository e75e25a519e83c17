"""An app for tests: agents that do as their request's inputs say, and tools whose effects a file counts."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

from airside import (
    Action,
    App,
    FanOutFanIn,
    Finish,
    Handoff,
    Handoffs,
    Pipeline,
    ReplayAgent,
    SingleAgent,
    Spend,
    View,
    priced,
)
from airside.memory.in_memory import HashingEmbedder
from airside.stack.directory import Directory, Principal, Tenant
from airside.tools import ask_human
from airside.tools.tool import Tool, ToolContext, ToolError, tool
from tests.apps.ledger import Ledger

POLICY = Path(__file__).with_name("notes_policy.yaml")
THOUGHT = Spend(tokens=100, cost_microusd=2_000)
LIMITS = {"doubt_wait_s": 60, "max_seconds": 120, "max_steps": 30}
PEOPLE = {
    "ana": Principal(roles=["clerk"]),
    "bob": Principal(roles=["clerk"], limits={"doubt_wait_s": 0}),
    "lea": Principal(roles=["lead"]),
    "leo": Principal(roles=["lead"]),
    "max": Principal(roles=["auditor"]),
}
TENANT = Tenant(principals=PEOPLE, limits=LIMITS, concurrency=8)


class JobInputs(BaseModel):
    """What a line of a jobs file may have beyond a job's own fields."""

    model_config = ConfigDict(extra="forbid", strict=True)

    actions: list[dict[str, Any]] = []
    together: list[list[dict[str, Any]]] = []
    answer: str = ""

    @field_validator("actions")
    @classmethod
    def _calls_are_calls(cls, actions: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if not all("tool" in action for action in actions):
            raise ValueError("an action names its tool")
        return [{"args": {}, **action} for action in actions]


@priced(tokens=THOUGHT.tokens, cost_microusd=THOUGHT.cost_microusd)
def collect(view: View) -> Action | Finish:
    """Look two topics up, at a price."""
    done = view.own_history()
    if len(done) < 2:
        return Action(tool="look", arguments={"topic": f"topic {len(done)}"}, spend=THOUGHT)
    return Finish(answer=[record.result.value()["topic"] for record in done], spend=THOUGHT)


@priced(tokens=THOUGHT.tokens, cost_microusd=THOUGHT.cost_microusd)
def write_up(view: View) -> Finish:
    """Finish with what the stage before found."""
    return Finish(answer={"seen": view.answer_of("collect")}, spend=THOUGHT)


def front_desk(view: View) -> Handoff:
    """Hand over to the back office."""
    return Handoff(agent="back_office", message={"from": view.agent})


def back_office(view: View) -> Finish:
    """Finish with the message it was handed."""
    return Finish(answer=view.message)


def join(view: View) -> Finish:
    """Finish with the branches' ends."""
    return Finish(answer=[[branch.route, branch.ok, branch.answer] for branch in view.branches])


def recaller(view: View) -> Finish:
    """Finish with a text of its own, or with what it recalls."""
    text = view.inputs().get("answer")
    return Finish(answer=text or [record.text for record in view.recalled])


async def sleeper(view: View) -> Finish:
    """Wait for ever, politely."""
    await asyncio.Event().wait()
    return Finish()


def spinner(view: View) -> Finish:
    """Hold the interpreter for ever."""
    while True:
        pass


def note_tools(ledger: Ledger) -> list[Tool]:
    """Return the tools whose effects are keyed, and those that have none."""

    @tool(effect="read")
    def look(topic: str, size: int = 0) -> dict[str, Any]:
        """Look a topic up."""
        return {"topic": topic, "text": "x" * size}

    @tool(effect="write", idempotent=True)
    def note(text: str, context: ToolContext, pace_ms: int = 0) -> str:
        """Note a text, once a key."""
        ledger.once(context.idempotency_key, "note", text)
        threading.Event().wait(pace_ms / 1000)
        return context.idempotency_key

    @tool(effect="write", idempotent=True)
    def forbidden(text: str) -> str:
        """Do what policy denies."""
        return text

    @tool(effect="write", idempotent=True)
    def fail(text: str) -> str:
        """Change nothing, and say so."""
        raise ToolError(text)

    return [look, note, forbidden, fail]


def money_tools(ledger: Ledger) -> list[Tool]:
    """Return the tools that move money; none dedupes, so that an effect that happens twice shows."""

    def moving(name: str) -> Tool:
        @tool(effect="external", name=name)
        def move(to: str, amount: int, context: ToolContext, hang: bool = False) -> dict[str, Any]:
            """Move money; with `hang`, never answer."""
            ledger.append(context.idempotency_key, name, to, amount)
            if hang:
                threading.Event().wait(60)
            return {"to": to, "amount": amount}

        return move

    return [moving(name) for name in ("pay", "donate", "offer", "wire")]


def create_app(work: str | Path, memory: str = "") -> App:
    """Return the app; its tools' effects are counted in `work`, and with `memory` it remembers its answers."""
    agents = (collect, write_up, front_desk, back_office, join, recaller, sleeper, spinner)
    ledger = Ledger(Path(work) / "ledger.sqlite")
    return App(
        agents={"clerk": ReplayAgent(), "together": ReplayAgent(key="together")}
        | {agent.__name__: agent for agent in agents},
        routes={
            "default": SingleAgent("clerk"),
            "together": SingleAgent("together"),
            "stages": Pipeline("collect", "write_up"),
            "desk": Handoffs("front_desk", ("back_office",)),
            "fan": FanOutFanIn(("one", "default"), join="join"),
            "one": SingleAgent("collect"),
            "plain_fan": FanOutFanIn(("one", "default")),
            "memory": SingleAgent("recaller"),
            "sleeper": SingleAgent("sleeper"),
            "spinner": SingleAgent("spinner"),
        },
        tools=[*note_tools(ledger), *money_tools(ledger), ask_human("lead")],
        policy=POLICY,
        directory=Directory(
            tenants={
                name: Tenant(principals=PEOPLE, limits=LIMITS, concurrency=8) for name in ("acme", "beta", "gamma")
            }
        ),
        memory=bool(memory),
        embedder=HashingEmbedder,
        job_inputs=JobInputs,
        version="notes-1",
    )
