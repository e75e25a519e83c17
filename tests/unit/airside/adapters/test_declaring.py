"""What of a framework's agent would go round the gate is refused where an app is checked."""

from __future__ import annotations

import dataclasses
import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

import airside
from airside.adapters.foreign import ForeignAgent, Parts
from airside.adapters.langgraph import LangGraphAgent
from airside.adapters.openai_agents import OpenAIAgent
from airside.adapters.pydantic_ai import PydanticAIAgent
from airside.directory import Directory, Principal, Tenant
from airside.models import ModelEndpoint, TokenPrice
from airside.stack.errors import InvalidConfig
from airside.tools import python_code
from tests.unit.airside.adapters.frameworks import FRAMEWORKS

ROOT = Path(__file__).parents[4]
HOUSE = ModelEndpoint(
    model="m", base_url="http://127.0.0.1:1/v1", api_key_env="", price=TokenPrice(input=1.0, output=10.0)
)


@airside.tool(effect="read")
def find_order(order_id: str) -> dict[str, str]:
    """Return an order."""
    return {"order_id": order_id}


def app(agent: ForeignAgent) -> airside.App:
    """Return an app of one agent."""
    return airside.App(
        agents={"clerk": agent},
        models={"house": HOUSE},
        tools=[find_order],
        policy="version: '1'\nrules: [{id: all, outcome: allow}]",
        directory=Directory(tenants={"acme": Tenant(principals={"ana": Principal()})}),
    )


def own(order_id: str) -> str:
    """Look an order up without asking anybody."""
    return order_id


def built(**fields: Any) -> Callable[[Parts], Any]:
    """Return what builds an agent of Pydantic AI with these fields."""

    def build(parts: Parts) -> Any:
        from pydantic_ai import Agent

        return Agent(**({"model": parts.model, "tools": parts.tools} | fields))

    return build


def native(parts: Parts) -> Any:
    """Give an agent a provider's own search."""
    from pydantic_ai import Agent
    from pydantic_ai.capabilities import NativeTool
    from pydantic_ai.native_tools import WebSearchTool

    return Agent(parts.model, tools=parts.tools, capabilities=[NativeTool(WebSearchTool())])


def toolset(parts: Parts) -> Any:
    """Give an agent tools that are made while it runs."""
    from pydantic_ai import Agent, FunctionToolset

    return Agent(parts.model, tools=parts.tools, toolsets=[lambda context: FunctionToolset([own])])


def acting(text: str) -> str:
    """Act on what a model answered."""
    return text


def output(wrap: str = "") -> Callable[[Parts], Any]:
    """Return what builds an agent of Pydantic AI whose output is a function, given so."""

    def build(parts: Parts) -> Any:
        import pydantic_ai
        from pydantic_ai.output import Choice, Choices

        made = {
            "": [acting, str],
            "method": [Careful().act],
            "Choices": Choices({"act": Choice("Act.", value=lambda: "acted")}),
        }
        wrapped = made[wrap] if wrap in made else getattr(pydantic_ai, wrap)(acting)
        return pydantic_ai.Agent(parts.model, tools=parts.tools, output_type=wrapped)

    return build


class Careful:
    """Acts by a method."""

    def act(self, text: str) -> str:
        """Act."""
        return text


def put_off(parts: Parts) -> Any:
    """Let an agent end with calls that others are to decide about."""
    from pydantic_ai import Agent, DeferredToolRequests

    return Agent(parts.model, tools=parts.tools, output_type=[str, DeferredToolRequests])


def asking(name: str, build: Callable[[Parts], Any]) -> Callable[[Parts], Any]:
    """Have the framework's own approval asked for, by this field of the tools."""

    def marked(parts: Parts) -> Any:
        for tool in parts.tools:
            setattr(tool, name, True)
        return build(parts)

    return marked


def capable(name: str, *given: Any) -> Callable[[Parts], Any]:
    """Return what builds an agent of Pydantic AI with one of the library's capabilities."""

    def build(parts: Parts) -> Any:
        from pydantic_ai import Agent, capabilities

        return Agent(parts.model, tools=parts.tools, capabilities=[getattr(capabilities, name)(*given)])

    return build


def sdk(**fields: Any) -> Callable[[Parts], Any]:
    """Return what builds an agent of the OpenAI Agents SDK with these fields."""

    def build(parts: Parts) -> Any:
        from agents import Agent

        made = {name: value() if callable(value) else value for name, value in fields.items()}
        return Agent(**({"name": "clerk", "model": parts.model, "tools": parts.tools} | made))

    return build


def hosted() -> list[Any]:
    """Return a provider's own search."""
    from agents import WebSearchTool

    return [WebSearchTool()]


def own_tool() -> list[Any]:
    """Return a tool of the agent's own."""
    from agents import function_tool

    return [function_tool(own)]


def other_agent() -> list[Any]:
    """Return an agent to hand over to."""
    from agents import Agent

    return [Agent(name="other")]


def as_tool() -> list[Any]:
    """Return an agent as a tool."""
    from agents import Agent

    return [Agent(name="other").as_tool(tool_name="other", tool_description="another")]


def graph(*, tools: Callable[[Parts], list[Any]] | None = None, **compiled: Any) -> Callable[[Parts], Any]:
    """Return what builds a graph of one `ToolNode`, compiled so."""

    def build(parts: Parts) -> Any:
        from langgraph.graph import START, MessagesState, StateGraph
        from langgraph.prebuilt import ToolNode

        made = StateGraph(MessagesState)
        made.add_node("tools", ToolNode(parts.tools if tools is None else tools(parts)))
        made.add_edge(START, "tools")
        return made.compile(**{name: value() for name, value in compiled.items()})

    return build


def inner(parts: Parts) -> Any:
    """Hide a graph with a tool of its own in another one."""
    from langgraph.graph import START, MessagesState, StateGraph

    made = StateGraph(MessagesState)
    made.add_node("inner", graph(tools=lambda _: [own])(parts))
    made.add_edge(START, "inner")
    return made.compile()


def wrapped(how: str, **given: Any) -> Callable[[Parts], Any]:
    """Return what hides a `ToolNode` with a tool of its own behind one of the library's wrappers."""

    def build(parts: Parts) -> Any:
        from langgraph.graph import START, MessagesState, StateGraph
        from langgraph.prebuilt import ToolNode

        made = StateGraph(MessagesState)
        made.add_node("tools", getattr(ToolNode([own]), how)(**given))
        made.add_edge(START, "tools")
        return made.compile()

    return build


def second(parts: Parts) -> Any:
    """Hide a graph with a tool of its own in a node that has two."""
    from langgraph.graph import START, MessagesState, StateGraph

    good, bad = graph()(parts), graph(tools=lambda _: [own])(parts)

    async def node(state: MessagesState) -> Any:
        return await (good if not state["messages"] else bad).ainvoke(state)

    made = StateGraph(MessagesState)
    made.add_node("node", node)
    made.add_edge(START, "node")
    return made.compile()


def other_model(parts: Parts) -> Any:
    """Have a node ask a model of its own."""
    from langchain_core.language_models import FakeListChatModel
    from langgraph.graph import START, MessagesState, StateGraph

    model = FakeListChatModel(responses=["free of charge"])

    async def node(state: MessagesState) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    made = StateGraph(MessagesState)
    made.add_node("node", node)
    made.add_edge(START, "node")
    return made.compile()


def inner_stop(parts: Parts) -> Any:
    """Hide a graph that stops in another one."""
    from langgraph.graph import START, MessagesState, StateGraph

    made = StateGraph(MessagesState)
    made.add_node("inner", graph(interrupt_after=lambda: ["tools"])(parts))
    made.add_edge(START, "inner")
    return made.compile()


def saver() -> Any:
    """Return what keeps a graph's state."""
    from langgraph.checkpoint.memory import InMemorySaver

    return InMemorySaver()


REFUSED: list[tuple[type[ForeignAgent], Callable[[Parts], Any], str]] = [
    (PydanticAIAgent, built(tools=[own]), "tool own: the agent's own tool"),
    (PydanticAIAgent, built(model="test"), "build it with parts.model"),
    (PydanticAIAgent, native, "WebSearchTool: a provider's own tool"),
    (PydanticAIAgent, toolset, "its tools would go round the gate"),
    (PydanticAIAgent, output(), "output acting: a function that the model calls"),
    (PydanticAIAgent, output("method"), "output act: a function that the model calls"),
    (PydanticAIAgent, output("ToolOutput"), "output acting: a function that the model calls"),
    (PydanticAIAgent, output("TextOutput"), "a function that the model calls"),
    (PydanticAIAgent, output("PromptedOutput"), "output acting: a function that the model calls"),
    (PydanticAIAgent, output("Choices"), "a function that the model calls"),
    (PydanticAIAgent, put_off, "DeferredToolRequests: whom to ask"),
    (PydanticAIAgent, asking("requires_approval", built()), "tool find_order: requires_approval"),
    (PydanticAIAgent, capable("SelectModel", lambda *given: "test"), "SelectModel: this capability is not known"),
    (PydanticAIAgent, capable("ModelFallback", "test"), "ModelFallback: this capability is not known"),
    (PydanticAIAgent, capable("ResolveModelId", lambda *given: None), "ResolveModelId: this capability is not known"),
    (PydanticAIAgent, lambda parts: "agent", "return a pydantic_ai.Agent"),
    (LangGraphAgent, graph(tools=lambda parts: [own]), "tool own: the graph's own tool"),
    (LangGraphAgent, inner, "tool own: the graph's own tool"),
    (LangGraphAgent, graph(checkpointer=saver), "checkpointer: a decision runs the graph from its beginning"),
    (LangGraphAgent, wrapped("with_config", tags=["x"]), "tool own: the graph's own tool"),
    (LangGraphAgent, wrapped("with_retry"), "tool own: the graph's own tool"),
    (LangGraphAgent, second, "tool own: the graph's own tool"),
    (LangGraphAgent, other_model, "its model is FakeListChatModel: build it with parts.model"),
    (LangGraphAgent, graph(interrupt_before=lambda: ["tools"]), "interrupt_before: nobody goes on"),
    (LangGraphAgent, inner_stop, "interrupt_after: nobody goes on"),
    (LangGraphAgent, lambda parts: "graph", "return a compiled graph"),
    (OpenAIAgent, sdk(tools=own_tool), "tool own: the agent's own tool"),
    (OpenAIAgent, sdk(tools=hosted), "tool web_search"),
    (OpenAIAgent, sdk(tools=as_tool), "tool other: the agent's own tool"),
    (OpenAIAgent, sdk(handoffs=other_agent), "handoffs: agents that it hands over to"),
    (OpenAIAgent, sdk(model="gpt-5"), "build it with parts.model"),
    (OpenAIAgent, sdk(prompt=lambda: {"id": "pmpt_1"}), "prompt: a prompt that is kept at the provider"),
    (OpenAIAgent, asking("needs_approval", sdk()), "tool find_order: needs_approval"),
    (OpenAIAgent, lambda parts: "agent", "return an agents.Agent"),
]


@pytest.mark.parametrize(
    ("kind", "build", "why"), REFUSED, ids=[f"{row[0].__name__}-{n}" for n, row in enumerate(REFUSED)]
)
def test_what_would_go_round_the_gate_is_refused(
    kind: type[ForeignAgent], build: Callable[[Parts], Any], why: str
) -> None:
    with pytest.raises(InvalidConfig) as refused:
        app(kind(build, "house")).checked()
    assert refused.value.message.startswith("agent clerk: ") and why in refused.value.message


@pytest.mark.parametrize("name", sorted(FRAMEWORKS))
def test_an_agent_of_the_given_parts_is_taken_and_priced_by_its_questions(name: str) -> None:
    one = app(FRAMEWORKS[name]()).checked().agents["clerk"].price  # type: ignore[attr-defined]
    several = FRAMEWORKS[name]()
    assert one.tokens == several.questions * (one.tokens // several.questions) > 2 * 8_000


def test_the_tool_of_code_mode_is_not_offered() -> None:
    """It puts code on record for an agent that runs it, which these are not."""
    offered: list[str] = []

    def build(parts: Parts) -> Any:
        offered.extend(tool.name for tool in parts.tools)
        return built()(parts)

    both = dataclasses.replace(app(PydanticAIAgent(build, "house")), tools=[find_order, python_code])
    both.checked()
    assert offered == ["find_order"]


def test_outputs_that_are_types_and_capabilities_that_stay_within_the_gate_are_taken() -> None:
    from pydantic import BaseModel
    from pydantic_ai import NativeOutput, PromptedOutput, ToolOutput

    class Refunded(BaseModel):
        cents: int

    taken = [str, Refunded, [Refunded, str], Refunded | None, dict[str, int], Literal["yes", "no"]]
    for kind in (
        *taken,
        Annotated[Refunded, "x"],
        *(of(Refunded) for of in (NativeOutput, PromptedOutput, ToolOutput)),
    ):
        app(PydanticAIAgent(built(output_type=kind), "house")).checked()
    app(PydanticAIAgent(capable("Thinking"), "house")).checked()


def test_a_module_of_the_builds_own_that_is_missing_names_itself() -> None:
    """It is not the framework that is to be installed."""

    def build(parts: Parts) -> Any:
        importlib.import_module("shop_that_is_not_there")

    with pytest.raises(InvalidConfig, match=r"build: .*shop_that_is_not_there") as refused:
        app(PydanticAIAgent(build, "house")).checked()
    assert "install airside" not in refused.value.message


def test_a_framework_that_is_missing_is_said_with_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydantic_ai", None)
    with pytest.raises(InvalidConfig, match=r"install airside\[models\]"):
        app(PydanticAIAgent(built(), "house")).checked()


def test_what_building_raises_is_said() -> None:
    def build(parts: Parts) -> Any:
        raise KeyError("shop")

    with pytest.raises(InvalidConfig, match="agent clerk: build: KeyError: 'shop'"):
        app(PydanticAIAgent(build, "house")).checked()


def test_the_apps_own_tool_given_to_a_framework_is_told_apart() -> None:
    def build(parts: Parts) -> Any:
        from pydantic_ai import Agent

        return Agent(parts.model, tools=[find_order])  # type: ignore[list-item]

    with pytest.raises(InvalidConfig, match=r"give it parts\.tools, not the app's own"):
        app(PydanticAIAgent(build, "house")).checked()


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"build": "agent"}, "give a function of parts"),
        ({"model": ["m"] * 9}, "at most 8"),
        ({"model": [""]}, "give the name of one"),
        ({"model": ()}, "as 'openai:NAME'"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"max_prompt_bytes": "8"}, "max_prompt_bytes='8'"),
        ({"questions": True}, "questions=True"),
        ({"temperature": True}, "temperature=True"),
    ],
)
def test_a_field_that_is_none_is_refused(given: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidConfig, match=why):
        PydanticAIAgent(**({"build": own, "model": "house"} | given))


def test_frameworks_are_imported_only_where_an_agent_is_built() -> None:
    """Each takes some 80 MiB."""
    code = (
        "import sys, airside\n"
        "from airside.adapters import langgraph, openai_agents, pydantic_ai\n"
        "agents = [of(len, 'm') for of in (langgraph.LangGraphAgent, openai_agents.OpenAIAgent,"
        " pydantic_ai.PydanticAIAgent)]\n"
        "heavy = {'pydantic_ai', 'langgraph', 'langchain_core', 'agents', 'openai', 'ray'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
