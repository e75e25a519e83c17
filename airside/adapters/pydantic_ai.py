"""Pydantic AI's agents, governed: `PydanticAIAgent`.

Its `Model` asks by the loop, and its tools call by the loop.  Whatever else an agent may be given to act with
(toolsets, functions, MCP servers, native tools of a provider) is refused: what runs there is not gated.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

import orjson

from airside.adapters.foreign import ForeignAgent, Parts
from airside.adapters.loop import CallRefused, ForeignLoop
from airside.stack.contracts.models import ModelReply, OfferedTool, RequestedCall, Turn
from airside.stack.errors import InvalidConfig, InvalidInput
from airside.stack.schema.toolspec import ToolSpec

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelMessage
    from pydantic_ai.models import ModelRequestParameters


class PydanticAIAgent(ForeignAgent):
    """A `pydantic_ai.Agent`: `build(parts)` returns `Agent(parts.model, tools=parts.tools, ...)`.

    Its prompt is `parts.text`, and its output is the answer.
    """

    needs = "models"
    package = "pydantic_ai"

    def model_of(self, loop: ForeignLoop | None) -> Any:
        """Return a `pydantic_ai.models.Model`."""
        return _model(loop)

    def tool_of(self, spec: ToolSpec, loop: ForeignLoop | None) -> Any:
        """Return a `pydantic_ai.Tool`."""
        from pydantic_ai import Tool, ToolFailed

        async def call(**arguments: Any) -> Any:
            assert loop is not None
            try:
                return await loop.call(spec.name, arguments)
            except CallRefused as refused:
                raise ToolFailed(str(refused)) from None

        return Tool.from_schema(call, spec.name, spec.description, dict(spec.parameters))

    def validate(self, agent: Any, parts: Parts) -> None:
        """Refuse other models, tools and agents than the given ones."""
        from pydantic_ai import Agent, FunctionToolset

        if type(agent) is not Agent:
            raise InvalidConfig(f"build returned {type(agent).__name__}: return a pydantic_ai.Agent")
        if agent.model is not parts.model:
            raise InvalidConfig(f"its model is {agent.model!r:.80}: build it with parts.model")
        given = {id(tool) for tool in parts.tools}
        for toolset in agent.toolsets:
            if not isinstance(toolset, FunctionToolset):
                raise InvalidConfig(f"{type(toolset).__name__}: its tools would go round the gate: use parts.tools")
            own = next((name for name, tool in toolset.tools.items() if id(tool) not in given), None)
            if own is not None:
                raise InvalidConfig(
                    f"tool {own}: the agent's own tool would go round the gate: declare it to the app, "
                    "and build the agent with parts.tools"
                )
        asks = next((tool.name for tool in parts.tools if tool.requires_approval), None)
        if asks is not None:
            raise InvalidConfig(f"tool {asks}: requires_approval: whom to ask is policy's (require_approval)")
        natives = agent.root_capability.get_native_tools()
        native = next((tool for tool in natives if not getattr(tool, "optional", False)), None)
        if native is not None:  # an optional one is left out where the model has none, as ours
            raise InvalidConfig(f"{type(native).__name__}: a provider's own tool would go round the gate")
        _check_capability(agent.root_capability)
        _check_output(agent.output_type)

    def start(self, agent: Any, parts: Parts) -> Awaitable[Any]:
        """Run the agent on the request."""
        return _output(agent, parts)


_CAPABILITIES = frozenset(
    {
        *("Hooks", "IncludeToolReturnSchemas", "Instrumentation", "NativeTool", "PendingMessageDrainCapability"),
        *("PrepareOutputTools", "PrepareTools", "ProcessHistory", "RaiseContentFilterError", "ReinjectSystemPrompt"),
        *("SetToolMetadata", "Thinking", "ToolSearch"),
    }
)
"""The library's that bring no tool and choose no model."""


def _check_capability(capability: Any) -> None:
    """Raise `InvalidConfig` for one that may ask another model, or carry something out."""
    kind = type(capability)
    is_the_librarys = kind.__module__.startswith("pydantic_ai.capabilities.")
    if is_the_librarys and kind.__name__ == "CombinedCapability":
        for each in capability.capabilities:
            _check_capability(each)
    elif not is_the_librarys or kind.__name__ not in _CAPABILITIES:
        known = ", ".join(sorted(_CAPABILITIES))
        raise InvalidConfig(f"{kind.__name__}: this capability is not known to stay within the gate; known: {known}")


def _check_output(output: Any) -> None:
    """Raise `InvalidConfig` for an output that is a function, which a model calls, or a call that is put off."""
    from pydantic_ai import DeferredToolRequests, NativeOutput, PromptedOutput, ToolOutput

    if isinstance(output, list | tuple):
        inner: Sequence[Any] = output
    elif isinstance(output, NativeOutput | PromptedOutput):
        inner = [output.outputs]
    elif isinstance(output, ToolOutput):
        inner = [output.output]
    elif hasattr(output, "__value__"):  # of a type that has a name (TypeAliasType)
        inner = [output.__value__]
    elif get_origin(output) in (Union, UnionType):
        inner = get_args(output)
    elif get_origin(output) is Annotated:
        inner = get_args(output)[:1]
    else:
        inner = ()
        if output is DeferredToolRequests:
            raise InvalidConfig("DeferredToolRequests: whom to ask about a call is policy's (require_approval)")
        # A type is what an answer is held to.  Of the library's choices, some are functions, to be called.
        is_type = isinstance(output, type) or get_origin(output) is not None or output is None
        if not is_type or isinstance(getattr(output, "keys_type", None), type):
            name = getattr(output, "__name__", type(output).__name__)
            raise InvalidConfig(
                f"output {name}: a function that the model calls would go round the gate: "
                "declare it to the app as a tool, and give the type of the answer"
            )
    for each in inner:
        _check_output(each)


async def _output(agent: Any, parts: Parts) -> Any:
    from pydantic_ai import UsageLimits

    limits = UsageLimits(request_limit=None)  # how long a run may go on is said by its limits
    return (await agent.run(parts.text, usage_limits=limits)).output


def _model(loop: ForeignLoop | None) -> Any:
    """Return a model of the library's; its class is made here, so that the library is imported only with an agent."""
    from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
    from pydantic_ai.models import Model
    from pydantic_ai.profiles import ModelProfile

    class GovernedModel(Model[Any]):
        """Asks the agent's models within what the decision has reserved."""

        @property
        def model_name(self) -> str:
            return "airside"

        @property
        def system(self) -> str:
            return "airside"

        async def request(
            self, messages: list[ModelMessage], model_settings: Any, model_request_parameters: ModelRequestParameters
        ) -> ModelResponse:
            _, parameters = self.prepare_request(model_settings, model_request_parameters)
            assert loop is not None
            reply = await loop.ask(*_question(messages, parameters))
            calls = [ToolCallPart(call.tool, call.arguments, call.call_id) for call in reply.calls]
            texts = [TextPart(reply.text)] if reply.text else []
            return ModelResponse(parts=[*texts, *calls], model_name=reply.model, finish_reason=_finish(reply))

    return GovernedModel(profile=ModelProfile(supports_json_schema_output=False, supports_json_object_output=False))


def _finish(reply: ModelReply) -> Any:
    return None if reply.finish == "other" else reply.finish


def _question(
    messages: Sequence[ModelMessage], parameters: ModelRequestParameters
) -> tuple[str, list[Turn], list[OfferedTool]]:
    """Return what the library would send, as a prompt's parts; raise `InvalidInput` for what a prompt cannot hold."""
    from pydantic_ai import messages as parts_of

    if parameters.native_tools:
        raise InvalidInput(
            f"{type(parameters.native_tools[0]).__name__}: a provider's own tool would go round the gate"
        )
    instructions = [part.content for part in parameters.instruction_parts or ()]
    turns: list[Turn] = []
    for message in messages:
        if message.kind == "response":
            turns.append(_said(message.parts))
            continue
        if parameters.instruction_parts is None and message.instructions:
            instructions = [message.instructions]
        for part in message.parts:
            if isinstance(part, parts_of.SystemPromptPart):
                turns.append(Turn(role="user", text=part.content)) if turns else instructions.append(part.content)
            elif isinstance(part, parts_of.UserPromptPart):
                turns.append(Turn(role="user", text=_text(part.content)))
            elif isinstance(part, parts_of.ToolReturnPart):
                text = part.model_response_str()
                turns.append(Turn(role="tool", text=text, tool=part.tool_name, call_id=part.tool_call_id))
            else:
                raise InvalidInput(f"{type(part).__name__}: models are told of texts and calls alone")
    tools = [
        OfferedTool(
            name=tool.name, description=tool.description or "", parameters=orjson.dumps(tool.parameters_json_schema)
        )
        for tool in (*parameters.declared_function_tools, *parameters.output_tools)
    ]
    return "\n\n".join(instructions), turns, tools


def _said(parts: Sequence[Any]) -> Turn:
    """Return what a model answered before."""
    text = "".join(part.content for part in parts if part.part_kind == "text")
    calls = tuple(
        RequestedCall(tool=part.tool_name, arguments=_written(part.args), call_id=part.tool_call_id)
        for part in parts
        if part.part_kind == "tool-call"
    )
    return Turn(role="assistant", text=text, calls=calls)


def _written(arguments: str | Mapping[str, Any] | None) -> str:
    return arguments if isinstance(arguments, str) else orjson.dumps(arguments or {}).decode()


def _text(content: Any) -> str:
    pieces = [content] if isinstance(content, str) else [getattr(piece, "content", piece) for piece in content]
    other = next((piece for piece in pieces if not isinstance(piece, str)), None)
    if other is not None:
        raise InvalidInput(f"{type(other).__name__}: models are told of texts alone")
    return "\n".join(pieces)
