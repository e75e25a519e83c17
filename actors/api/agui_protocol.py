"""AG-UI 1.0, as far as it is spoken here: what a client sends to have something done, and the messages of a run.

Field names are the protocol's, in camel case.  What is optional and has no value is left out, never null.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Raw, UnsetType

from airside.stack.values import MOST, Count, ModelLane, Value

VERSION = "1.0"

MAX_NAME_CHARS = 256
"""Of the names that clients give threads and runs: they make UUIDs."""

Millis = Annotated[int, Meta(ge=-MOST, le=MOST)]
Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME_CHARS)]
OURS = "airside"
"""The key under which metadata, and what a client passes on, is Airside's; the prefix of the names of its messages."""


class InputMessage(Value, rename="camel", forbid_unknown_fields=False):
    """A message of the conversation; `content` is a text, or a list of parts.

    What is unknown of it is passed over, which is what the protocol has peers do.
    """

    role: str
    id: str = ""
    content: Any = None


class RunAgentInput(Value, rename="camel", forbid_unknown_fields=False):
    """What an AG-UI client sends: the last text of its user is the request.

    `forwardedProps.airside` may say more of the job: `route`, `inputs`, `labels`, `limits`, `lane`.
    """

    thread_id: Annotated[Name, Meta(description="the conversation, as the client names it")]
    run_id: Annotated[Name, Meta(description="the run, as the client names it: the same one is the same run")]
    messages: Annotated[list[InputMessage], Meta(max_length=10_000, description="the conversation so far, in order")]
    forwarded_props: Annotated[Any, Meta(description="what of it is `airside` says more of the job")] = None
    tools: Annotated[Any, Meta(description="not taken: tools are the app's")] = None
    context: Annotated[Any, Meta(description="not taken")] = None
    state: Annotated[Any, Meta(description="not taken")] = None
    resume: Annotated[Any, Meta(description="refused unless it is empty: runs wait for people themselves")] = None


class RunOptions(Value):
    """What an AG-UI client may say of a job, beside its text."""

    route: Annotated[str, Meta(max_length=128)] = "default"
    inputs: dict[str, Any] = {}
    labels: tuple[str, ...] = ()
    limits: dict[str, Count] = {}
    lane: ModelLane = "direct"


class AguiMessage(Value, rename="camel", omit_defaults=True, tag_field="type"):
    """Base of the messages of a run, which the protocol calls events."""

    timestamp: Millis | UnsetType = UNSET


class Echo(Value, rename="camel", omit_defaults=True):
    """What a run was asked, for who did not ask it."""

    thread_id: str
    run_id: str
    messages: tuple[dict[str, str], ...]


class RunStarted(AguiMessage, tag="RUN_STARTED"):
    """A run begins."""

    thread_id: str
    run_id: str
    protocol_version: str
    parent_run_id: str | UnsetType = UNSET
    input: Echo | UnsetType = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET


class Success(Value, tag_field="type", tag="success"):
    """It has completed."""


class Cancelled(Value, tag_field="type", tag="cancelled"):
    """It was withdrawn."""


class TokenUsage(Value, rename="camel"):
    """What models used; by provider and model it is not told apart here."""

    total_tokens: Count


class RunFinished(AguiMessage, tag="RUN_FINISHED"):
    """A run has completed, or was withdrawn."""

    thread_id: str
    run_id: str
    outcome: Success | Cancelled
    result: Raw | UnsetType = UNSET
    usage: tuple[TokenUsage, ...] = ()
    metadata: dict[str, Any] | UnsetType = UNSET


class RunError(AguiMessage, tag="RUN_ERROR"):
    """A run has ended otherwise, or is shown no further."""

    message: str
    code: str
    usage: tuple[TokenUsage, ...] = ()
    metadata: dict[str, Any] | UnsetType = UNSET


class StepStarted(AguiMessage, tag="STEP_STARTED"):
    """An agent is asked, or branches begin."""

    step_name: str


class StepFinished(AguiMessage, tag="STEP_FINISHED"):
    """What a step began is over."""

    step_name: str


class SubagentStarted(AguiMessage, tag="SUBAGENT_STARTED"):
    """A branch begins."""

    subagent_run_id: str
    name: str


class SubagentFinished(AguiMessage, tag="SUBAGENT_FINISHED"):
    """A branch has completed."""

    subagent_run_id: str
    result: Raw | UnsetType = UNSET


class SubagentError(AguiMessage, tag="SUBAGENT_ERROR"):
    """A branch has ended otherwise."""

    subagent_run_id: str
    message: str
    code: str


class TextStarted(AguiMessage, tag="TEXT_MESSAGE_START"):
    """A message of an agent's begins."""

    message_id: str
    role: Literal["assistant"]
    name: str | UnsetType = UNSET


class TextContent(AguiMessage, tag="TEXT_MESSAGE_CONTENT"):
    """More of a message."""

    message_id: str
    delta: str


class TextEnded(AguiMessage, tag="TEXT_MESSAGE_END"):
    """A message is whole."""

    message_id: str


class ToolCallStarted(AguiMessage, tag="TOOL_CALL_START"):
    """An agent proposes a call; nothing of it is decided."""

    tool_call_id: str
    tool_call_name: str


class ToolCallArgs(AguiMessage, tag="TOOL_CALL_ARGS"):
    """The arguments that it proposes, as JSON."""

    tool_call_id: str
    delta: str


class ToolCallEnded(AguiMessage, tag="TOOL_CALL_END"):
    """The arguments are whole."""

    tool_call_id: str


class ToolCallResult(AguiMessage, tag="TOOL_CALL_RESULT"):
    """What became of a call: what the tool returned, or why there is none of that."""

    message_id: str
    tool_call_id: str
    content: str
    role: Literal["tool"]
    metadata: dict[str, Any]


class StateSnapshot(AguiMessage, tag="STATE_SNAPSHOT"):
    """How a run stands."""

    snapshot: dict[str, Any]


class Custom(AguiMessage, tag="CUSTOM"):
    """What the protocol has no message for."""

    name: str
    value: dict[str, Any]
