"""`ask_human`: a tool that puts a question to people, and returns what one of them answers.

A call of it waits where approvals do, and holds nothing.  The answer comes with the grant, sealed: what an executor
returns is what Approvals had on record, whoever asks for it, however often.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from airside.stack.approvals.questions import QUESTION_SCHEMA
from airside.stack.errors import InvalidConfig
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.values import ApprovalRule
from airside.tools.tool import Tool, ToolContext, ToolError, checked_name

_MAX_EXPIRES_S = 30 * 86_400


def _answer(context: ToolContext, question: str, choices: list[str]) -> dict[str, Any]:
    """Return what a person answered, who that was, and when."""
    said = context.answer
    if said is None:
        raise ToolError("the grant comes without an answer: nobody has been asked")
    at = datetime.fromtimestamp(said.at_us / 1e6, tz=UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {"answer": said.text, "chosen": said.chosen, "by": said.by, "at": at}


def ask_human(
    roles: Iterable[str],
    *,
    expires_after: int = 86_400,
    scopes: Iterable[str] = (),
    name: str = "ask_human",
    description: str = "",
) -> Tool:
    """Make a tool by which an agent asks whoever holds one of `roles` a question, with up to 8 choices or without.

    Its run waits up to `expires_after` seconds and holds nothing; the first answer is the result.  An answer permits
    nothing: a call that needs an approval needs it still.
    """
    asked = (roles,) if isinstance(roles, str) else tuple(roles)
    if not asked or not all(isinstance(role, str) and role for role in asked):
        raise InvalidConfig(f"{name}: roles says who may answer: give at least one role, as ask_human(['support'])")
    if type(expires_after) is not int or not 1 <= expires_after <= _MAX_EXPIRES_S:
        raise InvalidConfig(
            f"{name}: expires_after is from 1 to {_MAX_EXPIRES_S:,} whole seconds, not {expires_after!r:.40}"
        )
    whom = f"the role {asked[0]}" if len(asked) == 1 else f"one of the roles {', '.join(asked)}"
    spec = ToolSpec.build(
        name=checked_name(name),
        description=description
        or f"Ask somebody with {whom} what you cannot find out yourself, and wait for the answer.",
        effect="read",
        parameters=QUESTION_SCHEMA,
        scopes=tuple(scopes),
        cost_microusd=0,
        content=("question",),
        answered_by=ApprovalRule(roles=asked, expires_after_s=expires_after, answer=True),
    )
    return Tool(spec, _answer, convert=dict, context_parameter="context")
