"""What a refusal of the API is raised as: the same errors that `Stack` raises."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from airside.actors.api.messages import Problem
from airside.stack.errors import (
    AdmissionRefused,
    AirsideError,
    AuthRefused,
    InvalidInput,
    LayerUnavailable,
    Refused,
    VotesRefused,
)


def error_of(status: int, body: bytes, headers: Mapping[str, str]) -> AirsideError:
    """Return what a response of this status is raised as; `LayerUnavailable` may be tried again."""
    try:
        problem = msgspec.json.decode(body, type=Problem)
    except msgspec.MsgspecError:  # something between answered
        return LayerUnavailable(f"the server answered {status}")
    code, said = problem.reason_code, problem.detail or problem.title
    if status == 429:
        return AdmissionRefused(said, reason=code, retry_after_s=_seconds(headers.get("retry-after", "")))
    if status == 401:
        return AuthRefused(said, reason=code)
    if status >= 500:
        return LayerUnavailable(said)
    if problem.refused:
        refused = [(each.approval_id, each.reason_code, each.detail) for each in problem.refused]
        return VotesRefused(said, reason=code, refused=refused)
    return InvalidInput(said) if code in ("invalid", "malformed", "invalid_id") else Refused(said, reason=code)


def _seconds(text: str) -> float:
    return float(text) if text.isascii() and text.isdecimal() else 1.0
