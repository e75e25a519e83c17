"""A grant: Policy's sealed permission for one executor to carry out one exact call, once, soon."""

from __future__ import annotations

from typing import Any

import msgspec

from airside.stack.ids import EffectKey, ExecutorId, IssuerId, PrincipalId, RunId, TenantId
from airside.stack.reasons import ReasonCode
from airside.stack.security.seals import unwrap, wrap
from airside.stack.values import Answer, Declined, Value

GRANT_LIFE_US = 120 * 1_000_000
"""A grant is used within milliseconds; two minutes outlast a restart of the journal between gate and execution."""

_PURPOSE = "grant"


class Grant(Value, array_like=True):
    """Everything the permission is bound to.

    `executor` and `issuer` are one incarnation each, of the executor and of the gate: the death of either voids the
    grant.  So what a gate had granted and not yet on record cannot be used beside what its successor grants.

    `version` is the app's, so that a switch that covers it holds at the executor too.

    `left_ms` is what its run has left, within which it may also wait to begin.

    `answer` is what a person said, of a call that is a question, or of one whose tool asked `asked_sha256`: then it
    permits the call's next `round`.  `declined` = nobody answers that: it was rejected (`decline`), or expired
    (`cancel`).

    `labels` are what the run had taken in, `shown` the records of memory it had been shown.  `undo`: it permits to take
    back the call of these arguments that returned `output_sha256`, and not to make it.

    `attempt` orders the grants of one call, also those that were never used; `sends` counts how often the call was sent
    before, since its tool last asked something: what an earlier one may have done.
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
    version: str = ""
    labels: tuple[str, ...] = ()
    left_ms: int = 0
    answer: Answer | None = None
    round: int = 0
    asked_sha256: str = ""
    declined: Declined = ""
    shown: tuple[str, ...] = ()
    sends: int = 0

    @property
    def nth(self) -> int:
        """Which sending of the call it is for, from 1; an undo is granted for each."""
        return self.attempt if self.undo else self.sends + 1


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
