"""What an operator says of a server's tools: their effects, who may see them, what a call costs.

A server's own annotations are hints by whoever wrote the server.  They never loosen anything: a tool that is not
mapped is `external`, whatever it says of itself.  They are taken where they are the stricter.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from airside.stack.errors import InvalidConfig
from airside.stack.input.yaml_source import Lines, explain, read_yaml
from airside.stack.schema.toolspec import MAX_OUTPUT_BYTES
from airside.stack.values import EffectClass, Risk

Text = Annotated[str, Field(min_length=1)]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ToolMapping(_Closed):
    """What an operator says of one tool.

    `content` names the arguments that only say something.  `idempotent` says that the same call twice does nothing
    more than once.  A `hidden` tool is not offered to agents.  `description` stands in place of the server's own.
    """

    effect: EffectClass = "external"
    content: list[Text] = []
    trusted_output: bool = False
    risk: Risk | None = None
    scopes: list[Text] = []
    idempotent: bool = False
    cost_microusd: Annotated[int, Field(ge=0)] | None = None
    timeout: Annotated[float, Field(ge=0.001, le=3_600, strict=False)] | None = None
    max_output_bytes: Annotated[int, Field(ge=1_024, le=8 * 1024 * 1024)] = MAX_OUTPUT_BYTES
    description: Text | None = None
    hidden: bool = False


class AskingMapping(_Closed):
    """Who answers what a server asks before it completes a call, and within how many seconds."""

    roles: Annotated[list[Text], Field(min_length=1)]
    expires_after: Annotated[int, Field(ge=1, le=30 * 86_400)] = 86_400


class ServerMapping(_Closed):
    """What an operator says of a server.

    Of one that is started: `network` = it may reach the network; `read` are paths it may read, `workspace` is the
    folder it may write in, and sees as `/workspace`; `memory_bytes` of address space and `processes` bound it.
    `private` = a server's URL may lead into a private network.  `asks` are those who answer what it asks before it
    completes a call; nobody does unless it is said.
    """

    network: bool = False
    private: bool = False
    read: list[Text] = []
    workspace: str = ""
    memory_bytes: Annotated[int, Field(ge=64 * 1024**2, le=1 << 46)] = 4 * 1024**3
    processes: Annotated[int, Field(ge=2, le=4096)] = 64
    asks: AskingMapping | None = None
    tools: dict[Text, ToolMapping] = {}


UNMAPPED = ToolMapping()
"""Of a tool of which nothing is said."""


def read_mapping(source: Path | Mapping[str, Any], server: str) -> tuple[ServerMapping, Lines | None]:
    """Return a mapping, and where things stand in its file; raise `InvalidConfig` for what is wrong, with its line."""
    if isinstance(source, Path):
        return read_yaml(source, ServerMapping, name=str(source))
    if not isinstance(source, Mapping):
        raise InvalidConfig(f"server {server}: mapping {source!r:.80} is neither a Path nor a dictionary")
    try:
        return ServerMapping.model_validate(dict(source)), None
    except ValidationError as error:
        raise InvalidConfig(f"server {server}: mapping: {explain(error, 'mapping')[0]}") from None


def with_hints(mapped: ToolMapping, hints: Mapping[str, Any]) -> ToolMapping:
    """Return what is said of a tool, stricter where the server's own annotations are.

    A tool that says it destroys is `irreversible` and of high risk; one that says it is not read-only is no `read`;
    one that says that calling it again does more is not idempotent.
    """
    changes: dict[str, Any] = {}
    if hints.get("destructiveHint") is True:
        changes = {"effect": "irreversible", "risk": "high"}
    elif hints.get("readOnlyHint") is False and mapped.effect == "read":
        changes = {"effect": "write", "risk": None if mapped.risk == "low" else mapped.risk}
    if hints.get("idempotentHint") is False and hints.get("readOnlyHint") is not True:
        changes["idempotent"] = False
    return mapped.model_copy(update=changes) if changes else mapped
