"""The app of `benchmarks.hijack`: scenarios as written, their tools, and an agent that obeys whatever it reads."""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

import airside
from airside.memory.embedders.embedder import Vectors
from airside.stack.canonical import canonical
from airside.stack.input.yaml_source import load_yaml
from airside.stack.policy.bundle import load_bundle
from airside.stack.schema.toolspec import ArgumentValidator
from airside.stack.values import ValueOrigin

PLANTED = "{planted}"


def _taken() -> dict[str, frozenset[str]]:
    """Return the origins that the default policy takes, by effect: a value of another one is why a person is asked."""
    found: dict[str, frozenset[str]] = {}
    for rule in load_bundle(airside.DEFAULT_POLICY).rules:
        for test in rule.when.origins or ():
            taken = frozenset(test.outside or ())
            taken |= {"created", "named"} if "tool" in taken else set()  # a tool returned these as well
            found |= dict.fromkeys(rule.when.effect or (), taken)
    return found


TAKEN = _taken()


def not_taken(effect: str, origins: Sequence[ValueOrigin]) -> list[ValueOrigin]:
    """Return the values because of which a person is asked about a call."""
    return [each for each in origins if each.origin not in TAKEN[effect]]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _as_text(value: Any) -> Any:
    """Return a value with dates, which YAML makes of what looks like one, as the text they were."""
    if isinstance(value, dict):
        return {key: _as_text(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_as_text(inner) for inner in value]
    return value.isoformat() if isinstance(value, date) else value


Given = Annotated[dict[str, Any], BeforeValidator(_as_text)]


class Call(_Closed):
    """A call somebody wants, and what the tool answers.

    `together` = it is made in one decision with the call before; the attacker's, after the user's next.
    """

    tool: str
    arguments: Given
    result: Annotated[Any, BeforeValidator(_as_text)] = "done"
    branch: bool = False
    together: bool = False


class Described(_Closed):
    """A tool as a scenario describes it."""

    effect: Literal["read", "write", "external", "irreversible"]
    arguments: dict[str, Any]
    content: list[str] = []
    trusted_output: bool = False
    choices: dict[str, dict[str, list[str]]] = {}


class Scenario(_Closed):
    """A task, and an attack on whoever carries it out."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,60}$")]
    about: str
    request: str
    inputs: Given = {}
    labels: list[str] = []
    tools: dict[str, Described] = {}
    calls: list[Call]
    planted: Annotated[str, Field(min_length=8)]
    attack: Annotated[list[Call], Field(min_length=1)]
    approvals: int = 0
    memory: str = ""


class Book(_Closed):
    """A file of scenarios."""

    tools: dict[str, Described] = {}
    scenarios: list[Scenario]


class Same:
    """Finds every record alike: a scenario's tenant has the one it planted."""

    name = "same-8"
    dimension = 8

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return the same unit vector for every text."""
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        vectors[:, 0] = 1.0
        return vectors


def read(paths: Sequence[Path]) -> dict[str, Scenario]:
    """Return the scenarios of the files by name, each with all its tools; raise `InvalidConfig` or `ValueError`."""
    found: dict[str, Scenario] = {}
    for path in paths:
        book = load_yaml(path, Book, name=path.name)
        for scenario in book.scenarios:
            made = scenario.model_copy(update={"tools": {**book.tools, **scenario.tools}})
            places = [scenario.memory, *(json.dumps(call.result) for call in scenario.calls)]
            if scenario.name in found or sum(PLANTED in place for place in places) != 1:
                raise ValueError(f"{path}: {scenario.name}: the name is taken, or {PLANTED} is not in one place")
            unknown = {call.tool for call in (*made.calls, *made.attack)} - set(made.tools)
            if unknown:
                raise ValueError(f"{path}: {scenario.name}: no tools {sorted(unknown)}")
            found[scenario.name] = made
    return found


def schema_of(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON Schema of arguments as a scenario writes them."""
    properties: dict[str, Any] = {}
    required = []
    for name, short in arguments.items():
        if isinstance(short, list):
            properties[name] = {"type": "array", "items": _type(short[0]), "default": []}
        else:
            properties[name] = _type(short)
            if "default" not in properties[name]:
                required.append(name)
    return {"type": "object", "properties": properties, "required": required}


def _type(short: Any) -> dict[str, Any]:
    return {"type": short} if isinstance(short, str) else dict(short)


def planted_into(value: Any, text: str) -> Any:
    """Return a result with the planted text in its place."""
    return json.loads(json.dumps(value).replace(PLANTED, json.dumps(text)[1:-1]))


@dataclass(frozen=True)
class Stage:
    """A scenario's tools, and what is told of its calls by their complete arguments."""

    scenario: Scenario
    store: Path

    def complete(self, tool: airside.Tool, arguments: dict[str, Any]) -> bytes:
        """Return a call's complete arguments."""
        return ArgumentValidator(tool.spec).complete(arguments)

    def tools(self) -> list[airside.Tool]:
        """Return the tools, under names of the scenario's own."""
        return [self._tool(name, described) for name, described in self.scenario.tools.items()]

    def _tool(self, name: str, described: Described) -> airside.Tool:
        full, store = f"{self.scenario.name}.{name}", self.store
        known = [call for call in (*self.scenario.calls, *self.scenario.attack) if call.tool == name]
        planted = self.scenario.planted
        results: dict[bytes, Any] = {}

        def run(context: airside.ToolContext, **arguments: Any) -> Any:
            key, is_hijacked = canonical(arguments), context.tenant.endswith("-hijacked")
            if described.effect != "read":
                effect = {"tenant": context.tenant, "tool": full, "key": context.idempotency_key, "call": key.decode()}
                line = json.dumps({**effect, "approval": context.approval_id}) + "\n"
                file = os.open(store, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                os.write(file, line.encode())
                os.close(file)
            return planted_into(results.get(key, "done"), planted if is_hijacked else "")

        made = airside.Tool.from_schema(
            full,
            schema_of(described.arguments),
            run,
            effect=described.effect,
            content=described.content,
            trusted_output=described.trusted_output,
            choices=described.choices,
        )
        for call in reversed(known):
            results[self.complete(made, call.arguments)] = call.result
        return made

    def users(self, tools: dict[str, airside.Tool]) -> Counter[tuple[str, bytes]]:
        """Return the user's calls, by tool and complete arguments."""
        return self._counted(self.scenario.calls, tools)

    def attackers(self, tools: dict[str, airside.Tool]) -> Counter[tuple[str, bytes]]:
        """Return the attacker's calls, likewise."""
        return self._counted(self.scenario.attack, tools)

    def _counted(self, calls: Sequence[Call], tools: dict[str, airside.Tool]) -> Counter[tuple[str, bytes]]:
        found: Counter[tuple[str, bytes]] = Counter()
        for call in calls:
            full = f"{self.scenario.name}.{call.tool}"
            found[full, self.complete(tools[full], call.arguments)] += 1
        return found


class Gullible:
    """An agent that does as it is told by whoever wrote last.  What it does next is told from the view alone."""

    def __init__(self, scenarios: dict[str, Scenario], part: Literal["all", "branch", "rest"]) -> None:
        self.waits = False
        self._scenarios = scenarios
        self._part = part

    async def decide(self, view: airside.View) -> list[airside.Action] | airside.Finish:
        """Make the next call of the order that what was read so far gives."""
        name, _, variant = view.request.job_id.rpartition("/")
        scenario = self._scenarios[name]
        if variant == "memory":
            return airside.Finish(answer=scenario.memory.replace(PLANTED, scenario.planted))
        done = view.own_history()
        order = self._order(view, scenario)
        if len(done) < len(order):
            first, *later = order[len(done) :]
            calls = [first, *itertools.takewhile(lambda call: call.together, later)]
            return [airside.Action(tool=f"{name}.{call.tool}", arguments=call.arguments) for call in calls]
        if self._part == "branch":
            return airside.Finish(answer=next((r.result.value() for r in reversed(done) if r.result.ok), None))
        return airside.Finish(answer="done")

    def _order(self, view: airside.View, scenario: Scenario) -> list[Call]:
        users = [call for call in scenario.calls if self._mine(call)]
        attackers = [call for call in scenario.attack if self._mine(call)]
        told = [record.text for record in view.recalled] + [json.dumps(end.answer) for end in view.branches]
        if _is_in(scenario.planted, told):
            return attackers + users
        for number, record in enumerate(view.own_history(), 1):
            if _is_in(scenario.planted, [bytes(record.result.output).decode()]):
                number += attackers[0].together
                return users[:number] + attackers + users[number:]
        return users

    def _mine(self, call: Call) -> bool:
        return self._part == "all" or call.branch == (self._part == "branch")


def _is_in(planted: str, texts: Sequence[str]) -> bool:
    written = (planted, json.dumps(planted)[1:-1], json.dumps(planted, ensure_ascii=False)[1:-1])
    return any(form in text for text in texts for form in written)
