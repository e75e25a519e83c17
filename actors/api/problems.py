"""What is said of a request that was refused: `application/problem+json` (RFC 9457), by one table of codes.

A `reason_code` is one of the stack's, or of those below; it stays what it is, and `type` is made of it.  Texts say what
is wrong in a sentence and may change.
"""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec
from starlette.responses import Response

from airside.actors.api.messages import Problem, VoteRefusal
from airside.stack.errors import (
    AdmissionRefused,
    AirsideError,
    InvalidId,
    LayerUnavailable,
    Misuse,
    Refused,
    VotesRefused,
)
from airside.stack.reasons import ReasonCode

MEDIA_TYPE: Final = "application/problem+json"
BUSY_S: Final = 1
"""After how long to try again, where the stack does not say."""

MAX_DETAIL_CHARS: Final = 4_000


class Refusal(msgspec.Struct, frozen=True):
    """What a code means to a client: the status, and its sentence."""

    status: int
    title: str


REFUSALS: Final[dict[str, Refusal]] = {
    "malformed": Refusal(400, "The request cannot be read: its JSON, its query or a header."),
    "invalid_id": Refusal(400, "What stands in the path is no id of its kind."),
    "invalid": Refusal(422, "A field is not what it must be, or what was asked makes no sense now."),
    "wrong_role": Refusal(403, "The principal does not have a role that may do this."),
    "self_approval": Refusal(403, "Nobody approves what they asked for themselves."),
    "host": Refusal(421, "The server was not told of the name that the request was sent to."),
    "origin": Refusal(403, "No page of another site is a client."),
    "unknown": Refusal(404, "There is none of this id, or none that the principal may see."),
    "no_route": Refusal(404, "There is no such path."),
    "method_not_allowed": Refusal(405, "The path has other methods, which the header Allow names."),
    "late": Refusal(408, "The request did not arrive in time."),
    "already_decided": Refusal(409, "The approval is decided, or has expired."),
    "already_voted": Refusal(409, "The principal has voted on this."),
    "idempotency_conflict": Refusal(409, "The idempotency key is that of another request."),
    "too_large": Refusal(413, "The body is larger than it may be."),
    "media_type": Refusal(415, "A body is JSON, and says so."),
    "too_many": Refusal(429, "Too many of these are under way at once: try again later."),
    "unavailable": Refusal(503, "The stack, or a layer of it, does not answer now: try again."),
    ReasonCode.AUTH_SCOPE_MISSING: Refusal(403, ReasonCode.AUTH_SCOPE_MISSING.sentence),
    ReasonCode.PRINCIPAL_UNKNOWN: Refusal(401, ReasonCode.PRINCIPAL_UNKNOWN.sentence),
    ReasonCode.TENANT_UNKNOWN: Refusal(401, ReasonCode.TENANT_UNKNOWN.sentence),
    ReasonCode.ADMISSION_REJECTED: Refusal(429, ReasonCode.ADMISSION_REJECTED.sentence),
    ReasonCode.REQUEST_INVALID: Refusal(422, ReasonCode.REQUEST_INVALID.sentence),
    ReasonCode.UNKNOWN_ROUTE_MODE: Refusal(422, ReasonCode.UNKNOWN_ROUTE_MODE.sentence),
    ReasonCode.SWITCHED_OFF: Refusal(409, ReasonCode.SWITCHED_OFF.sentence),
    ReasonCode.MEMORY_UNAVAILABLE: Refusal(503, ReasonCode.MEMORY_UNAVAILABLE.sentence),
    ReasonCode.AUTH_KEYS_UNAVAILABLE: Refusal(503, ReasonCode.AUTH_KEYS_UNAVAILABLE.sentence),
    ReasonCode.INTERNAL_ERROR: Refusal(500, ReasonCode.INTERNAL_ERROR.sentence),
}
"""Every code that has a status of its own.  The other `auth_` codes are 401; any other reason of the stack's is 422."""


def refusal_of(code: str) -> Refusal:
    """Return what a code means to a client."""
    if (found := REFUSALS.get(code)) is not None:
        return found
    known = ReasonCode._value2member_map_.get(code)
    title = known.sentence if isinstance(known, ReasonCode) else "The stack refused it."
    return Refusal(401 if code.startswith("auth_") else 422, title)


def problem_of(code: str, detail: str, refused: tuple[VoteRefusal, ...] = ()) -> Problem:
    """Return what is said of a refusal, with what a vote on several approvals was refused for."""
    refusal = refusal_of(code)
    return Problem(
        type=f"/problems/{code}",
        title=refusal.title,
        status=refusal.status,
        detail=detail[:MAX_DETAIL_CHARS],
        reason_code=code,
        refused=refused,
    )


def code_of(error: BaseException) -> str:
    """Return the code of what was raised; that of an internal error for what nobody foresaw."""
    match error:
        case Refused():
            return error.reason
        case InvalidId():
            return "invalid_id"
        case Misuse():
            return "invalid"
        case LayerUnavailable() | TimeoutError():
            return "unavailable"
    return ReasonCode.INTERNAL_ERROR.value


def is_ours(error: BaseException) -> bool:
    """Whether an error is no answer to who asks, but something that went wrong behind: it names layers and files."""
    return code_of(error) in ("unavailable", ReasonCode.INTERNAL_ERROR) and not isinstance(error, Refused)


def response_of(error: BaseException, *, more: dict[str, str] | None = None) -> Response:
    """Return the response to a request that raised this; of what is the stack's own affair its kind alone is said."""
    code = code_of(error)
    said = error.message if isinstance(error, AirsideError) else str(error)
    if is_ours(error):
        said = f"{refusal_of(code).title} The server's log says what it was."
    refused = error.refused if isinstance(error, VotesRefused) else ()
    problem = problem_of(
        code, said, tuple(VoteRefusal(approval_id=each, reason_code=why, detail=text) for each, why, text in refused)
    )
    headers: dict[str, str] = dict(more or {})
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    elif code == ReasonCode.AUTH_SCOPE_MISSING:
        headers["WWW-Authenticate"] = 'Bearer error="insufficient_scope"'
    if problem.status in (429, 503):
        after_s = error.retry_after_s if isinstance(error, AdmissionRefused) else BUSY_S
        headers["Retry-After"] = str(max(BUSY_S, math.ceil(after_s)))
    return Response(msgspec.json.encode(problem), problem.status, headers, MEDIA_TYPE)


def check(code: str, problem: str, **details: Any) -> None:
    """Raise `Refused` for a reply that has a code, which is what replies of the stack say where they refuse."""
    if code == ReasonCode.ADMISSION_REJECTED:
        raise AdmissionRefused(problem, reason=code, **details)
    if code:
        raise Refused(problem or refusal_of(code).title, reason=code)
