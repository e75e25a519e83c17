"""A grant: Policy's sealed permission for one executor to carry out one exact call, once, soon."""

from __future__ import annotations

from typing import Any

import msgspec

from airside.stack.ids import EffectKey, ExecutorId, IssuerId, PrincipalId, RunId, TenantId
from airside.stack.journaling import Append, Entry
from airside.stack.reasons import ReasonCode
from airside.stack.sealing import unwrap, wrap
from airside.stack.values import Value

GRANT_LIFE_US = 120 * 1_000_000
"""A grant is used within milliseconds; two minutes outlast a restart of the journal between gate and execution."""

_PURPOSE = "grant"


class Grant(Value, array_like=True):
    """Everything the permission is bound to.

    `executor` and `issuer` are one incarnation each, of the executor and of the gate: the death of either voids the
    grant.  So what a gate had granted and not yet on record cannot be used beside what its successor grants.

    `undo`: it permits to take back the call of these arguments that returned `output_sha256`, and not to make it.
    """

    tenant: TenantId
    principal: PrincipalId
    run_id: RunId
    step: int
    attempt: int
    epoch: int
    tool: str
    tool_version: str
    arguments_sha256: str
    key: EffectKey
    policy_version: str
    approval_id: str
    executor: ExecutorId
    timeout_ms: int
    expires_us: int
    issuer: IssuerId
    nonce: bytes
    undo: bool = False
    output_sha256: str = ""


class GrantRefused(Value, tag=True):
    """What an executor journals of a call it refused; of a grant without a seal that holds nothing else is believed."""

    at_us: int
    executor: ExecutorId
    reason_code: ReasonCode
    detail: str
    presented_sha256: str
    run_id: str = ""
    step: int = 0
    tool: str = ""
    principal: str = ""


class EffectClaimed(Value, tag=True):
    """What an executor makes durable before it starts a call that must not be sent twice: its key is used up.

    The claim's stream takes one entry, so of two grants for one key, whoever holds them, one can be carried out.
    """

    at_us: int
    executor: ExecutorId
    tool: str
    arguments_sha256: str
    nonce: bytes


def attempt_key(key: EffectKey, attempt: int) -> EffectKey:
    """Return what one attempt of an undo is claimed and settled under.

    The tool is given the same key at every attempt.  A later one is made only when the one before certainly changed
    nothing, and has a claim of its own, which a grant that was left over from the one before cannot take.
    """
    return key if attempt == 1 else EffectKey(f"{key}#{attempt}")


def claim_of(grant: Grant, at_us: int) -> Append:
    """Return the append that claims a grant's key; the same grant again is the same claim."""
    key = attempt_key(grant.key, grant.attempt) if grant.undo else grant.key
    claimed = EffectClaimed(
        at_us=at_us,
        executor=grant.executor,
        tool=grant.tool,
        arguments_sha256=grant.arguments_sha256,
        nonce=grant.nonce,
    )
    body = msgspec.json.encode(claimed)
    entry = Entry(type="EffectClaimed", step=grant.step, at_us=at_us, cause=-1, body=body)
    return Append(tenant=grant.tenant, stream=f"claim/{key}", epoch=0, first_seq=0, entries=(entry,))


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Grant)


def mint(key: bytes, grant: Grant) -> bytes:
    """Seal a grant; only Policy calls this."""
    return wrap(key, _PURPOSE, _encoder.encode(grant))


def open_grant(key: bytes, data: Any) -> Grant | None:
    """Return the grant if its seal holds and its form is right, else None."""
    if not isinstance(data, bytes):
        return None
    body = unwrap(key, _PURPOSE, data)
    if body is None:
        return None
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None
