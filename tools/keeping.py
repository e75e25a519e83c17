"""`remember`: how an agent proposes a memory.  It is a tool: policy decides about it, and the run's log has it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from pydantic import Field

from airside.stack.contracts.memory import Candidate, LearnReply, Warrant, sensitivity_of
from airside.stack.ports import Memory
from airside.stack.reasons import MemoryCode
from airside.stack.values import CLEARANCES, UNTRUSTED
from airside.tools.secrets.redaction import Redactor
from airside.tools.tool import Keep, ToolContext, ToolError, tool

Name = Annotated[str, Field(max_length=200)]
Share = Annotated[float, Field(ge=0, le=1)]


_TEXTS = ("text", "kind", "source", "subject", "topic")


def keeper(
    memory: Memory | None, grant: bytes, shown: tuple[str, ...], redactor: Callable[[], Redactor]
) -> Keep | None:
    """Return what offers memory a candidate by right of a grant, without secrets; None without a memory.

    Its run was `shown` these records, whatever the tool says.
    """
    if memory is None:
        return None
    home = asyncio.get_running_loop()

    async def keep(candidate: Candidate) -> LearnReply:
        """Be awaited on any loop: memory is reached on the executor's."""
        texts = {name: redactor().text(getattr(candidate, name)) for name in _TEXTS}
        offered = msgspec.structs.replace(candidate, **texts, warrant=Warrant(grant=grant), shown=shown)
        writing = memory.write_if_useful(offered)
        if asyncio.get_running_loop() is home:
            return await writing
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(writing, home))

    return keep


@tool(effect="write", idempotent=True, content=["text", "subject", "topic"], trusted_output=True)
async def remember(
    text: Annotated[str, Field(min_length=1, max_length=8_000)],
    kind: Name = "fact",
    subject: Name = "",
    topic: Name = "",
    importance: Share = 0.5,
    confidence: Share = 1.0,
    sensitivity: Literal["public", "internal", "confidential", "restricted"] = "internal",
    ttl_s: Annotated[int, Field(ge=1)] | None = None,
    *,
    context: ToolContext,
) -> dict[str, Any]:
    """Keep one fact for later runs, as a sentence that stands by itself.

    `subject` is whom or what it is about; of two records of one subject and `topic` the newer is right.  Returns what
    memory did with it: `stored`, `merged`, `duplicate`, or the code of why it is not recalled.
    """
    if context.keep is None:
        raise ToolError("this stack has no memory: App(memory=True)")
    read = sensitivity_of(context.labels)
    candidate = Candidate(
        tenant=context.tenant,
        text=text,
        kind=kind,
        source=f"{context.run_id}#{context.step}",
        sensitivity=max(sensitivity, read, key=CLEARANCES.index),
        ttl_s=ttl_s,
        trust="low" if UNTRUSTED in context.labels else "medium",
        subject=subject,
        topic=topic,
        importance=importance,
        confidence=confidence,
    )
    reply = await context.keep(candidate)
    if reply.code == MemoryCode.MEMORY_UNAVAILABLE:
        raise ToolError(MemoryCode.MEMORY_UNAVAILABLE.sentence)
    return {"code": reply.code, "record_id": reply.record_id, "superseded": list(reply.superseded)}
