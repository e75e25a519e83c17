"""What every token has, whoever signed it: three parts of bounded JSON, a signature, and a life.

Nothing that is read here is believed before its signature is checked, with a key and algorithms that others pinned.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping
from typing import Any

import jwt

from airside.stack.canonical import parse_bounded
from airside.stack.errors import AuthRefused, InvalidInput
from airside.stack.reasons import ReasonCode

MAX_TOKEN_BYTES = 8 * 1024
"""Larger than any honest token, small enough to parse without thought."""

LAST_SECOND = 2**40


def refuse(reason: ReasonCode, detail: str) -> AuthRefused:
    """Return the refusal to raise."""
    return AuthRefused(f"{reason.sentence} ({detail})", reason=reason.value)


def read_parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and claims of a token, neither of which is believed yet."""
    parts = token.split(".")
    if len(parts) != 3:
        raise refuse(ReasonCode.AUTH_MALFORMED, "a token has three parts")
    return _part(parts[0], "header"), _part(parts[1], "claims")


def _part(text: str, name: str) -> dict[str, Any]:
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        value = parse_bounded(raw, max_bytes=MAX_TOKEN_BYTES, where=f"token {name}")
    except (ValueError, InvalidInput) as error:
        raise refuse(ReasonCode.AUTH_MALFORMED, str(error)[:200]) from None
    if not isinstance(value, dict):
        raise refuse(ReasonCode.AUTH_MALFORMED, f"the {name} is not an object")
    return value


def check_signature(token: str, key: Any, algorithms: Collection[str]) -> None:
    """Refuse a token that was not signed with the private half of `key`, by one of `algorithms`."""
    try:
        jwt.api_jws.decode(token, key, algorithms=list(algorithms))
    except jwt.InvalidSignatureError:
        raise refuse(ReasonCode.AUTH_BAD_SIGNATURE, "checked with the pinned key") from None
    except jwt.PyJWTError as error:
        raise refuse(ReasonCode.AUTH_FAILED, str(error)) from None


def check_claim_types(claims: Mapping[str, Any], kinds: Collection[tuple[str, type]], *, needed: bool) -> None:
    """Refuse claims of another type; those that are `needed` must be there."""
    for name, kind in kinds:
        if (needed or name in claims) and type(claims.get(name)) is not kind:
            left_out = "" if needed else ", or left out"
            raise refuse(ReasonCode.AUTH_CLAIM_MISSING, f"{name} must be {kind.__name__}{left_out}")


def check_lifetime(claims: Mapping[str, Any], now_s: int, leeway_s: int) -> None:
    """Refuse a token outside its life, by `exp` and what it has of `nbf` and `iat`, all of them whole numbers."""
    times = [claims[name] for name in ("exp", "nbf", "iat") if name in claims]
    if max(times) >= LAST_SECOND or min(times) < 0:
        raise refuse(ReasonCode.AUTH_CLAIM_MISSING, "exp, nbf and iat must be seconds since 1970")
    begins = max(claims.get("nbf", 0), claims.get("iat", 0))
    if claims["exp"] + leeway_s <= now_s:
        raise refuse(ReasonCode.AUTH_EXPIRED, f"{now_s - claims['exp']} s ago")
    if begins - leeway_s > now_s:
        raise refuse(ReasonCode.AUTH_NOT_YET_VALID, f"for another {begins - now_s} s")
    if claims["exp"] <= begins:
        raise refuse(ReasonCode.AUTH_CLAIM_MISSING, "exp must be after nbf and iat, or the token is never valid")
