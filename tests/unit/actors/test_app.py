"""An app whose parts do not fit together is refused before anything starts, saying which."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airside import App, ReplayAgent, Spend, Tool, View, priced, tool
from airside.models import ModelAgent, ModelEndpoint, TokenPrice
from airside.stack.errors import InvalidConfig
from airside.tools import python_code
from airside.tools.resolving import resolver

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


def test_an_app_is_shown_in_a_line() -> None:
    """By the names of its agents and tools, also where it does not hold together."""
    assert repr(app()) == "App(agents: a; tools: pay, send; version: 1)"
    long = App(agents={f"agent-{n}": ReplayAgent() for n in range(900)}, tools=5, policy="", directory="")  # type: ignore[arg-type]
    assert len(repr(long)) <= 500 and "tools: int" in repr(replace(long, agents={}))


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


@tool(effect="write", resource=("order", "order_id"))
def cancel(order_id: str) -> str:
    """Cancel."""
    return order_id


def nobody(id: Any, context: Any) -> None:
    """Know of nothing."""


@pytest.mark.parametrize(
    ("resolvers", "when", "said"),
    [
        ({}, "", "tool cancel: there is no resolver of 'order'"),
        ({"order": nobody, "oder": nobody}, "", "no tool declares a resource of the kind 'oder'"),
        ({"order": 5}, "", "resolvers: 5 of 'order' is no function"),
        ([nobody], "", "is not a mapping"),
        ({"order": nobody}, "resource: {kind: oder}", "rule big: no tool it can be about declares"),
        ({"order": nobody}, "tool: [pay], resource: {kind: order}", "rule big: no tool it can be about declares"),
        ({"order": nobody}, "effect: [read], resource: {kind: order}", "rule big: no tool it can be about declares"),
        ({"order": nobody}, "resource: {kind: order, path: id}", "of the kind 'order' at 'id'"),
        (
            {"order": resolver(attributes=("status",))(nobody)},
            "resource: {kind: order, attributes: {state: open}}",
            "policy:2: rule big: the resolver of 'order' gives no attribute 'state' (do you mean status?)",
        ),
    ],
)
def test_kinds_of_resources_that_do_not_fit_together_are_refused(resolvers: Any, when: str, said: str) -> None:
    """A kind without a resolver, a resolver without a kind, and a rule that can match nothing."""
    policy = RULE % when if when else "version: v1\nrules: [{id: rest, outcome: allow}]\n"
    with pytest.raises(InvalidConfig) as caught:
        replace(app(policy), tools=[pay, cancel], resolvers=resolvers).checked()
    assert said in caught.value.message


@tool(effect="write")
def forward(tenant: str, to: str) -> str:
    """Forward."""
    return tenant + to


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ("arguments: [{path: to, op: eq, of: from}]", "has an argument 'from' to compare with"),
        ("arguments: [{path: to, op: in, of: attributes.friends}]", "nobody has the attribute 'friends'"),
        ("arguments: [{path: to, op: eq, of: tenant}]", "write identity: tenant, or of: arguments.tenant"),
        ("arguments: [{path: tenant, op: absent}]", "can be called without 'tenant'"),
        ("resource: {kind: order, attributes: {state: {op: eq, of: from}}}", "has an argument 'from' to compare with"),
    ],
)
def test_a_comparison_with_what_is_not_there_is_refused(when: str, said: str) -> None:
    """Or with a name that means two things."""
    with pytest.raises(InvalidConfig) as caught:
        replace(app(RULE % when), tools=[forward, cancel], resolvers={"order": nobody}).checked()
    assert said in caught.value.message


def test_kinds_of_resources_that_fit_together_are_taken() -> None:
    """A rule may ask for what a resolver does not declare if that declares nothing."""
    policy = RULE % "resource: {kind: order, path: order_id, owner: other, attributes: {state: open}}"
    checked = replace(app(policy), tools=[pay, cancel], resolvers={"order": nobody}).checked()
    assert list(checked.resolvers) == ["order"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"agents": [ReplayAgent()]}, "agents: "),
        ({"routes": {"x": "a"}}, "route x: 'a' is no topology"),
        ({"routes": ["a"]}, "routes: "),
        ({"tools": pay}, "tools: "),
        ({"agents": {"a": ReplayAgent(), "b": ReplayAgent()}}, "with 2 agents there is no default route"),
        ({"agents": {}}, "agents: give at least one"),
        ({"policy": "policy.yaml"}, "give a pathlib.Path"),
        ({"policy": {"version": "1"}}, "policy: dict is no policy: give the YAML's text"),
        ({"directory": {"tenants": {}}}, "directory: dict is no directory: give a Directory"),
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


def coding(*tools: Tool) -> App:
    """Return an app whose agent writes code."""
    house = ModelEndpoint(
        model="m", base_url="http://127.0.0.1:9/v1", api_key_env="", price=TokenPrice(input=1, output=1)
    )
    agent = ModelAgent("house", "pay", code_mode=True)
    return replace(app(agent=agent), tools=[pay, *tools], models={"house": house})


def test_code_mode_has_its_tool_and_a_name_in_python_for_each_other() -> None:
    assert coding(python_code).checked().specs[-1].name == "python_code"

    @tool(effect="write", name="python_code")
    def other(code: str) -> str:
        return code

    with pytest.raises(InvalidConfig, match=r"agent a: code_mode needs the tool .* import python_code"):
        coding().checked()
    with pytest.raises(InvalidConfig, match=r"agent a: a tool is called python_code, .* rename"):
        coding(other).checked()
    twins = [tool(effect="write", name=name)(send.function) for name in ("send.it", "send-it")]
    with pytest.raises(InvalidConfig, match="both send_it in Python"):
        coding(python_code, *twins).checked()
