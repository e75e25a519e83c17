"""An app whose parts do not fit together is refused before anything starts, saying which."""

from __future__ import annotations

from typing import Any

import pytest

from airside import App, ReplayAgent, Spend, View, priced, tool
from airside.stack.errors import InvalidConfig

DIRECTORY = "tenants: {acme: {principals: {ann: {}}}}"
RULE = "version: v1\nrules: [{id: big, outcome: deny, when: {%s}}, {id: rest, outcome: allow}]\n"


@tool(effect="write")
def pay(cents: int) -> int:
    """Pay."""
    return cents


@tool(effect="write")
def send(to: str) -> str:
    """Send."""
    return to


def app(policy: str = "version: v1\nrules: [{id: rest, outcome: allow}]\n", agent: Any = None) -> App:
    """Return an app of two tools."""
    return App(agents={"a": agent or ReplayAgent()}, tools=[pay, send], policy=policy, directory=DIRECTORY)


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ("tool: [pey]", "rule big: no tool is called 'pey'"),
        ("tool: [pay], arguments: [{path: cent, op: gt, value: 5}]", "none of ['pay'] has an argument 'cent'"),
        ("tool: [pay], arguments: [{path: to.name, op: eq, value: x}]", "none of ['pay'] has an argument 'to.name'"),
        ("arguments: [{path: amount, op: gt, value: 5}]", "no tool has an argument 'amount'"),
    ],
)
def test_a_rule_about_what_does_not_exist_is_refused(when: str, said: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        app(RULE % when).checked()
    assert said in caught.value.message


def test_a_rule_may_ask_for_an_argument_that_only_one_of_its_tools_has() -> None:
    app(RULE % "arguments: [{path: cents, op: gt, value: 5}]").checked()
    app(RULE % "tool: ['*'], arguments: [{path: to, op: eq, value: x}]").checked()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"agents": [ReplayAgent()]}, "agents: "),
        ({"routes": {"x": "a"}}, "route x: 'a' is no topology"),
        ({"routes": ["a"]}, "routes: "),
        ({"tools": pay}, "tools: "),
        ({"agents": {"a": ReplayAgent(), "b": ReplayAgent()}}, "with 2 agents there is no default route"),
        ({"policy": "policy.yaml"}, "give a pathlib.Path"),
    ],
)
def test_a_field_of_another_kind_is_refused_saying_what_to_give(fields: dict[str, Any], said: str) -> None:
    given: dict[str, Any] = {
        "agents": {"a": ReplayAgent()},
        "tools": [pay],
        "policy": RULE % "",
        "directory": DIRECTORY,
    }
    with pytest.raises(InvalidConfig) as caught:
        App(**(given | fields)).checked()
    assert said in caught.value.message


def test_a_bare_priced_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="say the price"):
        priced(lambda view: None)


def test_an_agents_price_is_a_spend_or_absent() -> None:
    class Odd:
        price = 5

        async def decide(self, view: View) -> Any:
            """Never asked."""

    with pytest.raises(InvalidConfig, match="its price is 5"):
        app(agent=Odd()).checked()

    @priced(tokens=7)
    def thinker(view: View) -> Any:
        """Never asked."""

    assert app(agent=thinker).checked().agents["a"].price == Spend(tokens=7)  # type: ignore[attr-defined]


@pytest.mark.parametrize("amount", [-1, 1.5, True, None, 2**60])
def test_a_price_that_is_no_count_is_refused(amount: Any) -> None:
    with pytest.raises(InvalidConfig, match="tokens="):
        priced(tokens=amount)
