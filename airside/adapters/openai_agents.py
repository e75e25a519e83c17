"""Agents of the OpenAI Agents SDK, governed: `OpenAIAgent`.

Its tools are `FunctionTool`s that call by the loop, its models ask by the loop.  Hosted tools, MCP servers, handoffs
and agents as tools are refused.  The SDK's tracing, which sends what agents say to its maker, is off.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

import orjson

from airside.adapters.foreign import ForeignAgent, Parts
from airside.adapters.loop import CallRefused, ForeignLoop, as_text
from airside.stack.contracts.models import ModelReply, OfferedTool, RequestedCall, Turn
from airside.stack.errors import InvalidConfig, InvalidInput
from airside.stack.schema.toolspec import ToolSpec

_MAX_TURNS = 1_000
"""Of the SDK's own bound: how long a run may go on is said by its limits."""


class OpenAIAgent(ForeignAgent):
    """An `agents.Agent`: `build(parts)` returns `Agent(name=..., model=parts.model, tools=parts.tools, ...)`.

    Its input is `parts.text`, and its final output is the answer.
    """

    needs = "openai-agents"
    package = "agents"

    def model_of(self, loop: ForeignLoop | None) -> Any:
        """Return an `agents.Model`."""
        return _model(loop)

    def tool_of(self, spec: ToolSpec, loop: ForeignLoop | None) -> Any:
        """Return an `agents.FunctionTool`."""
        from agents import FunctionTool

        async def call(_: Any, written: str) -> str:
            assert loop is not None
            try:
                arguments = orjson.loads(written or "{}")
                if not isinstance(arguments, dict):
                    raise CallRefused("arguments: a JSON object is expected")
                return as_text(await loop.call(spec.name, arguments))
            except (CallRefused, orjson.JSONDecodeError) as refused:
                return as_text({"error": str(refused)})

        return FunctionTool(
            name=spec.name,
            description=spec.description,
            params_json_schema=dict(spec.parameters),
            on_invoke_tool=call,
            strict_json_schema=False,
        )

    def validate(self, agent: Any, parts: Parts) -> None:
        """Refuse other models, tools and agents than the given ones."""
        from agents import Agent

        if type(agent) is not Agent:
            raise InvalidConfig(f"build returned {type(agent).__name__}: return an agents.Agent")
        if agent.model is not parts.model:
            raise InvalidConfig(f"its model is {agent.model!r:.80}: build it with parts.model")
        given = {id(tool) for tool in parts.tools}
        own = next((tool for tool in agent.tools if id(tool) not in given), None)
        if own is not None:
            name = getattr(own, "name", type(own).__name__)
            raise InvalidConfig(
                f"tool {name}: the agent's own tool would go round the gate: declare it to the app, "
                "and build the agent with parts.tools"
            )
        asks = next((tool.name for tool in parts.tools if tool.needs_approval), None)
        if asks is not None:
            raise InvalidConfig(f"tool {asks}: needs_approval: whom to ask is policy's (require_approval)")
        for name, what in (("mcp_servers", "tools of MCP servers"), ("handoffs", "agents that it hands over to")):
            if getattr(agent, name):
                raise InvalidConfig(f"{name}: {what} would go round the gate; agents of a run are its routes'")
        if agent.prompt is not None:
            raise InvalidConfig("prompt: a prompt that is kept at the provider is not on record: give instructions")

    def start(self, agent: Any, parts: Parts) -> Awaitable[Any]:
        """Run the agent on the request."""
        return _final_output(agent, parts)


async def _final_output(agent: Any, parts: Parts) -> Any:
    from agents import RunConfig, Runner, set_tracing_disabled

    set_tracing_disabled(True)
    config = RunConfig(
        model=parts.model,
        tracing_disabled=True,
        trace_include_sensitive_data=False,
        tool_not_found_behavior="return_error_to_model",
    )
    ended = await Runner.run(agent, parts.text, run_config=config, max_turns=_MAX_TURNS)
    if ended.interruptions:
        raise InvalidInput("the agent interrupted itself: whom to ask about a call is policy's (require_approval)")
    return ended.final_output


def _model(loop: ForeignLoop | None) -> Any:
    """Return a model of the SDK's; its class is made here, so that the SDK is imported only with an agent."""
    from agents import Model, ModelResponse
    from agents.models.chatcmpl_converter import Converter
    from agents.usage import Usage
    from openai.types.chat import ChatCompletionMessage

    class GovernedModel(Model):
        """Asks the agent's models within what the decision has reserved."""

        async def get_response(
            self,
            system_instructions: str | None,
            input: str | list[Any],
            model_settings: Any,
            tools: list[Any],
            output_schema: Any,
            handoffs: list[Any],
            tracing: Any,
            *,
            previous_response_id: str | None,
            conversation_id: str | None,
            prompt: Any,
        ) -> ModelResponse:
            if handoffs or prompt is not None or previous_response_id or conversation_id:
                raise InvalidInput("handoffs, and what is kept at the provider, would go round the gate")
            turns = _turns(Converter.items_to_messages(input))
            instructions = "\n\n".join(filter(None, (system_instructions, _shape(output_schema))))
            assert loop is not None
            reply = await loop.ask(instructions, turns, [_offered(tool) for tool in tools])
            message = ChatCompletionMessage.model_validate(_message(reply))
            return ModelResponse(output=Converter.message_to_output_items(message), usage=Usage(), response_id=None)

        def stream_response(self, *given: Any, **settings: Any) -> Any:
            raise InvalidInput("nothing is streamed")

    return GovernedModel()


def _offered(tool: Any) -> OfferedTool:
    schema = getattr(tool, "params_json_schema", None)
    if schema is None:
        raise InvalidInput(f"{type(tool).__name__}: a provider's own tool would go round the gate")
    return OfferedTool(name=tool.name, description=tool.description or "", parameters=orjson.dumps(schema))


def _shape(schema: Any) -> str:
    """Return what a model is told of the shape of its answer, which the SDK then holds it to."""
    if schema is None or schema.is_plain_text():
        return ""
    return "End with an answer that is JSON, and nothing else, by this schema:\n" + as_text(schema.json_schema())


def _turns(messages: Sequence[Mapping[str, Any]]) -> list[Turn]:
    """Return what the SDK would send, as a prompt's turns; raise `InvalidInput` for what a prompt cannot hold."""
    turns: list[Turn] = []
    names: dict[str, str] = {}
    for message in messages:
        text = _text(message.get("content"))
        if message["role"] == "assistant":
            calls = tuple(
                RequestedCall(
                    tool=each["function"]["name"], arguments=each["function"]["arguments"], call_id=each["id"]
                )
                for each in message.get("tool_calls") or ()
            )
            names |= {call.call_id: call.tool for call in calls}
            turns.append(Turn(role="assistant", text=text, calls=calls))
        elif message["role"] == "tool":
            call_id = message["tool_call_id"]
            turns.append(Turn(role="tool", text=text, tool=names.get(call_id, ""), call_id=call_id))
        else:
            turns.append(Turn(role="user", text=text))
    return turns


def _text(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    pieces = list(content)
    if any(piece.get("type") != "text" for piece in pieces):
        raise InvalidInput("models are told of texts alone")
    return "\n".join(piece["text"] for piece in pieces)


def _message(reply: ModelReply) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": reply.text or None}
    if reply.calls:
        message["tool_calls"] = [
            {"id": call.call_id, "type": "function", "function": {"name": call.tool, "arguments": call.arguments}}
            for call in reply.calls
        ]
    return message
