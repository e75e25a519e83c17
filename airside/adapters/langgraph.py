"""LangGraph's graphs, governed: `LangGraphAgent`.

Its tools call by the loop wherever a graph uses them, in a `ToolNode` or in a node's code, and its model asks by the
loop.  Code of a node is run again with each decision: what else it does is not governed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from types import FunctionType
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


_HOLDERS = (
    *("bound", "runnable", "default", "func", "afunc"),
    *("nodes", "subgraphs", "steps", "steps__", "fallbacks", "branches", "deps"),
)
"""Where the library's runnables keep what they run."""


class LangGraphAgent(ForeignAgent):
    """A compiled graph: `build(parts)` makes it with `parts.model` and `parts.tools`, and compiles it without a
    checkpointer, for each decision runs it from its beginning.

    It is given `begin(parts)`, which is a user's message of `parts.text` where nothing is said, and `answer(state)`
    makes the run's answer of where it ended: the text of the last message.
    """

    needs = "langgraph"
    always_asks = False
    package = "langgraph"

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
        """Return a `BaseTool`."""
        return _tool(spec, loop)

    def validate(self, agent: Any, parts: Parts) -> None:
        """Refuse what is no compiled graph, tools of its own in a `ToolNode`, and what stops it or keeps its state."""
        from langgraph.pregel import Pregel

        if not isinstance(agent, Pregel):
            raise InvalidConfig(f"build returned {type(agent).__name__}: return a compiled graph (graph.compile())")
        given = {id(part) for part in (parts.model, *parts.tools)}
        for part in _within(agent):
            if id(part) not in given:
                _check(part, given)

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


def _check(part: Any, given: Collection[int]) -> None:
    """Raise `InvalidConfig` for what of a graph goes round the gate, or keeps it from running from its beginning."""
    from langchain_core.language_models import BaseLanguageModel
    from langchain_core.tools import BaseTool
    from langgraph.prebuilt import ToolNode
    from langgraph.pregel import Pregel

    if isinstance(part, BaseLanguageModel):
        raise InvalidConfig(f"its model is {type(part).__name__}: build it with parts.model")
    tools = part.tools_by_name.values() if isinstance(part, ToolNode) else [part] if isinstance(part, BaseTool) else ()
    own = next((tool.name for tool in tools if id(tool) not in given), None)
    if own is not None:
        raise InvalidConfig(
            f"tool {own}: the graph's own tool would go round the gate: declare it to the app, "
            "and build the graph with parts.tools"
        )
    if not isinstance(part, Pregel):
        return
    for kept in ("checkpointer", "store", "cache"):
        if getattr(part, kept, None):
            raise InvalidConfig(f"{kept}: a decision runs the graph from its beginning: compile it without")
    for stops in ("interrupt_before", "interrupt_after"):
        if getattr(part, f"{stops}_nodes"):
            raise InvalidConfig(
                f"{stops}: nobody goes on with the graph there: whom to ask about a call is policy's (require_approval)"
            )


def _within(graph: Any) -> Iterator[Any]:
    """Yield a graph, and what is to be seen of what its nodes run, each once."""
    from langchain_core.runnables import Runnable

    waiting: list[Any] = [graph]
    seen: dict[int, Any] = {}
    while waiting:
        part = waiting.pop()
        is_node = hasattr(part, "bound") or isinstance(part, Runnable | FunctionType)
        if is_node and id(part) not in seen:
            seen[id(part)] = part
            yield part
            waiting += _inner(part)


def _inner(part: Any) -> Iterator[Any]:
    """Yield what a node or a runnable goes through, or binds; and what a function has from around it."""
    if isinstance(part, FunctionType):
        for cell in part.__closure__ or ():
            with suppress(ValueError):  # of a name that is given no value yet
                yield cell.cell_contents
        yield from (part.__globals__.get(name) for name in part.__code__.co_names)
        return
    for name in _HOLDERS:
        held = getattr(part, name, None)
        if isinstance(held, Mapping):
            yield from held.values()
        elif isinstance(held, list | tuple):
            for each in held:
                yield from each if isinstance(each, tuple) else (each,)
        else:
            yield held


def _tool(spec: ToolSpec, loop: ForeignLoop | None) -> Any:
    """Return a tool of the library's, whose arguments stay one dictionary: by keyword, some names are the library's."""
    from langchain_core.tools import BaseTool, ToolException

    class GovernedTool(BaseTool):
        """Calls by the loop."""

        def _to_args_and_kwargs(self, tool_input: Any, tool_call_id: str | None) -> tuple[tuple[Any, ...], Any]:
            return (self._parse_input(tool_input, tool_call_id),), {}

        def _run(self, arguments: Any) -> str:
            assert loop is not None
            return str(loop.wait_for(lambda: self._arun(arguments)))

        async def _arun(self, arguments: Any) -> str:
            assert loop is not None
            try:
                return as_text(await loop.call(spec.name, arguments))
            except CallRefused as refused:
                raise ToolException(str(refused)) from None

    return GovernedTool(
        name=spec.name,
        description=spec.description or spec.name,
        args_schema=dict(spec.parameters),
        handle_tool_error=True,
    )


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
