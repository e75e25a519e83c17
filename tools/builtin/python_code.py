"""`python_code`: the call by which a snippet begins, in code mode."""

from __future__ import annotations

from airside.stack.models.snippets import MAX_CODE_CHARACTERS, PYTHON_CODE
from airside.tools.tool import Tool


def _begin(code: str) -> None:
    """Do nothing: the code is on record with its call, and an agent in code mode runs it from there."""


python_code = Tool.from_schema(
    PYTHON_CODE,
    {
        "type": "object",
        "properties": {"code": {"type": "string", "minLength": 1, "maxLength": MAX_CODE_CHARACTERS}},
        "required": ["code"],
        "additionalProperties": False,
    },
    _begin,
    effect="read",
    idempotent=True,
    content=("code",),
    trusted_output=True,
    description="Begin a snippet of Python, of which each call to a tool is a call of the run.",
)
"""The tool that an agent in code mode needs.  It reads nothing and changes nothing: what its code calls is called by
the run, each call by itself."""
