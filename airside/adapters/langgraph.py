"""LangGraph's graphs, governed: `LangGraphAgent`.

Its tools call by the loop wherever a graph uses them, in a `ToolNode` or in a node's code, and its model asks by the
loop.  Code of a node is run again with each decision: what else it does is not governed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from airside.adapters.foreign import Build, ForeignAgent, Parts
from airside.adapters.loop import CallRefused, ForeignLoop, as_text
from airside.stack.canonical import parse_bounded
from airside.stack.contracts.models import ModelReply, OfferedTool, RequestedCall, Turn
from airside.stack.errors import InvalidConfig, InvalidInput
from airside.stack.schema.toolspec import MAX_ARGUMENT_BYTES, ToolSpec

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage, BaseMessage


class LangGraphAgent(ForeignAgent):
    """A compiled graph: `build(parts)` makes it with `parts.model` and `parts.tools`, and compiles it without a
    checkpointer, for each decision runs it from its beginning.

    It is given `begin(parts)`, which is a user's message of `parts.text` where nothing is said, and `answer(state)`
    makes the run's answer of where it ended: the text of the last message.
    """

    needs = "langgraph"

    def __init__(
        self,
        build: Build,
        model: str | Sequence[str] = (),
        *,
        begin: Callable[[Parts], Any] | None = None,
        answer: Callable[[Any], Any] | None = None,
        max_tokens: int = 2_048,
        max_prompt_bytes: int = 32_000,
        questions: int = 2,
        temperature: float | None = None,
    ) -> None:
        super().__init__(
            build,
            model,
            max_tokens=max_tokens,
            max_prompt_bytes=max_prompt_bytes,
            questions=questions,
            temperature=temperature,
        )
        self.begin = begin or _begin
        self.answer = answer or _last_text

    def model_of(self, loop: ForeignLoop | None) -> Any:
        """Return a `BaseChatModel`."""
        return _model(loop)

    def tool_of(self, spec: ToolSpec, loop: ForeignLoop | None) -> Any:
        """Return a `StructuredTool`."""
        from langchain_core.tools import StructuredTool, ToolException

        async def call(**arguments: Any) -> str:
            assert loop is not None
            try:
                return as_text(await loop.call(spec.name, arguments))
            except CallRefused as refused:
                raise ToolException(str(refused)) from None

        def call_in_thread(**arguments: Any) -> str:
            assert loop is not None
            return str(loop.wait_for(lambda: call(**arguments)))

        return StructuredTool(
            name=spec.name,
            description=spec.description or spec.name,
            args_schema=dict(spec.parameters),
            func=call_in_thread,
            coroutine=call,
            handle_tool_error=True,
        )

    def validate(self, agent: Any, parts: Parts) -> None:
        """Refuse what is no compiled graph, tools of its own in a `ToolNode`, and what keeps state between runs."""
        from langgraph.prebuilt import ToolNode
        from langgraph.pregel import Pregel

        if not isinstance(agent, Pregel):
            raise InvalidConfig(f"build returned {type(agent).__name__}: return a compiled graph (graph.compile())")
        given = {id(tool) for tool in parts.tools}
        for graph in (agent, *(inner for _, inner in agent.get_subgraphs(recurse=True))):
            for kept in ("checkpointer", "store", "cache"):
                if getattr(graph, kept, None):
                    raise InvalidConfig(f"{kept}: a decision runs the graph from its beginning: compile it without")
            for node in _runnables(graph):
                own = None
                if isinstance(node, ToolNode):
                    own = next((name for name, tool in node.tools_by_name.items() if id(tool) not in given), None)
                if own is not None:
                    raise InvalidConfig(
                        f"tool {own}: the graph's own tool would go round the gate: declare it to the app, "
                        "and build the graph with parts.tools"
                    )

    def start(self, agent: Any, parts: Parts) -> Awaitable[Any]:
        """Run the graph on the request."""
        return self._ended(agent, parts)

    async def _ended(self, graph: Any, parts: Parts) -> Any:
        from langsmith import tracing_context

        with tracing_context(enabled=False):  # what it would send to LangSmith is the tenant's
            state = await graph.ainvoke(self.begin(parts))
        if isinstance(state, dict) and "__interrupt__" in state:
            raise InvalidInput("the graph interrupted itself: whom to ask about a call is policy's (require_approval)")
        return self.answer(state)


def _begin(parts: Parts) -> dict[str, Any]:
    from langchain_core.messages import HumanMessage

    return {"messages": [HumanMessage(parts.text)]}


def _last_text(state: Any) -> Any:
    messages = state.get("messages") if isinstance(state, dict) else None
    if not messages:
        raise InvalidInput("its state has no messages: say what its answer is (LangGraphAgent(answer=...))")
    return str(messages[-1].text)


def _runnables(graph: Any) -> Iterator[Any]:
    """Yield what a graph's nodes run."""
    for node in graph.nodes.values():
        bound = getattr(node, "bound", node)
        yield bound
        yield from getattr(bound, "steps", ())


def _model(loop: ForeignLoop | None) -> Any:
    """Return a model of the library's; its class is made here, so that the library is imported only with an agent."""
    from langchain_core.language_models import BaseChatModel
    from langchain_core.outputs import ChatGeneration, ChatResult
    from langchain_core.utils.function_calling import convert_to_openai_tool

    class GovernedModel(BaseChatModel):
        """Asks the agent's models within what the decision has reserved."""

        @property
        def _llm_type(self) -> str:
            return "airside"

        def bind_tools(self, tools: Sequence[Any], **settings: Any) -> Any:
            return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools])

        def _generate(self, messages: list[BaseMessage], *given: Any, **kwargs: Any) -> ChatResult:
            assert loop is not None
            return loop.wait_for(lambda: self._agenerate(messages, *given, **kwargs))  # type: ignore[no-any-return]

        async def _agenerate(self, messages: list[BaseMessage], *given: Any, **kwargs: Any) -> ChatResult:
            assert loop is not None
            reply = await loop.ask(*_question(messages, kwargs.get("tools", ())))
            return ChatResult(generations=[ChatGeneration(message=_message(reply))])

    return GovernedModel(cache=False)


def _question(
    messages: Sequence[BaseMessage], tools: Sequence[dict[str, Any]]
) -> tuple[str, list[Turn], list[OfferedTool]]:
    """Return what the library would send, as a prompt's parts; raise `InvalidInput` for what a prompt cannot hold."""
    instructions: list[str] = []
    turns: list[Turn] = []
    for message in messages:
        if not isinstance(message.content, str) and any(_is_no_text(piece) for piece in message.content):
            raise InvalidInput(f"{type(message).__name__}: models are told of texts alone")
        text = str(message.text)
        if message.type == "system" and not turns:
            instructions.append(text)
        elif message.type == "ai":
            turns.append(_said(message, text))
        elif message.type == "tool":
            turns.append(
                Turn(role="tool", text=text, tool=message.name or "", call_id=getattr(message, "tool_call_id", ""))
            )
        else:
            turns.append(Turn(role="user", text=text))
    offered = [tool["function"] for tool in tools if tool.get("type") == "function"]
    if len(offered) < len(tools):
        raise InvalidInput("a provider's own tool would go round the gate")
    return (
        "\n\n".join(instructions),
        turns,
        [
            OfferedTool(
                name=tool["name"],
                description=tool.get("description") or "",
                parameters=orjson.dumps(tool.get("parameters") or {"type": "object", "properties": {}}),
            )
            for tool in offered
        ],
    )


def _is_no_text(piece: Any) -> bool:
    return not (isinstance(piece, str) or piece.get("type") == "text")


def _said(message: Any, text: str) -> Turn:
    calls = [
        RequestedCall(tool=call["name"], arguments=orjson.dumps(call["args"]).decode(), call_id=call["id"] or "")
        for call in message.tool_calls
    ]
    calls += [
        RequestedCall(tool=call["name"] or "", arguments=call["args"] or "", call_id=call["id"] or "")
        for call in message.invalid_tool_calls
    ]
    return Turn(role="assistant", text=text, calls=tuple(calls))


def _message(reply: ModelReply) -> AIMessage:
    """Return an answer as the library has it; a call whose arguments are no JSON object is an invalid one."""
    from langchain_core.messages import AIMessage
    from langchain_core.messages.tool import invalid_tool_call, tool_call

    calls, invalid = [], []
    for call in reply.calls:
        try:
            written = (call.arguments.strip() or "{}").encode()
            arguments = parse_bounded(written, max_bytes=MAX_ARGUMENT_BYTES, where="arguments")
            if not isinstance(arguments, dict):
                raise InvalidInput("arguments: a JSON object is expected")
            calls.append(tool_call(name=call.tool, args=arguments, id=call.call_id))
        except InvalidInput as error:
            invalid.append(invalid_tool_call(name=call.tool, args=call.arguments, id=call.call_id, error=error.message))
    return AIMessage(
        content=reply.text,
        tool_calls=calls,
        invalid_tool_calls=invalid,
        response_metadata={"finish_reason": reply.finish, "model_name": reply.model},
    )
