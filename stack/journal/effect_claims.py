"""Claims: what makes a call that must not be sent twice happen at most once, whoever asks for it and whoever dies.

The key of an effect has a stream of its own in the journal, with a place for each attempt.  An executor takes its
attempt's place before it starts the call, which ends the stream; the places before it are withdrawn with it.  Who sent
a call and got no answer may take the place too, by withdrawing the attempt: if the journal gives it, the call never
began and never will; if not, it may have happened.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from airside.stack.ids import EffectKey, ExecutorId, TenantId
from airside.stack.journal.journaling import Append, AppendReply, Entry
from airside.stack.security.grants import Grant
from airside.stack.values import Value, tag_of

MAX_CLAIM_ATTEMPTS = 64
"""More are refused: a run's machine gates one call a few times, and every one has a place in the stream."""

Appender = Callable[[Append], Awaitable[AppendReply]]


class EffectClaimed(Value, tag=True):
    """What an executor makes durable before it starts a call that must not be sent twice: its key is used up."""

    at_us: int
    executor: ExecutorId
    tool: str
    arguments_sha256: str
    nonce: bytes


class AttemptWithdrawn(Value, tag=True):
    """An attempt that never began, and never will.  Every one looks the same: it does not matter who withdrew it."""

    attempt: int


def attempt_key(key: EffectKey, attempt: int) -> EffectKey:
    """Return what one attempt of an undo is claimed and settled under.

    The tool is given the same key at every attempt.  A later one is made only when the one before certainly changed
    nothing, and has a claim of its own, which a grant that was left over from the one before cannot take.
    """
    return key if attempt == 1 else EffectKey(f"{key}#{attempt}")


def round_key(key: EffectKey, number: int) -> EffectKey:
    """Return what one round of a call is claimed under: each is sent once, the first one under the call's own key."""
    return EffectKey(f"{key}#round{number}") if number else key


async def claim(append: Appender, grant: Grant, *, at_us: int) -> bool:
    """Take a grant's place; return whether its call may start.  The same grant again is the same claim."""
    claimed = EffectClaimed(
        at_us=at_us,
        executor=grant.executor,
        tool=grant.tool,
        arguments_sha256=grant.arguments_sha256,
        nonce=grant.nonce,
    )
    key, attempt = round_key(grant.key, grant.round), grant.attempt
    if grant.undo:
        key, attempt = attempt_key(grant.key, grant.attempt), 1
    return await _append_attempt(append, grant.tenant, key, attempt, _entry(claimed, grant.step, at_us))


async def withdraw(append: Appender, tenant: TenantId, key: EffectKey, attempt: int, *, step: int, at_us: int) -> bool:
    """Take an attempt's place, so that no executor can; return False if one may have.

    Raises `LayerUnavailable` if the journal does not answer.
    """
    return await _append_attempt(append, tenant, key, attempt, _entry(AttemptWithdrawn(attempt=attempt), step, at_us))


async def _append_attempt(append: Appender, tenant: TenantId, key: EffectKey, attempt: int, last: Entry) -> bool:
    """Append `last` at an attempt's place, and withdraw what comes before it and is not on record."""
    first = 0
    while True:
        before = (_entry(AttemptWithdrawn(attempt=n), last.step, last.at_us) for n in range(first + 1, attempt))
        reply = await append(
            Append(tenant=tenant, stream=f"claim/{key}", epoch=0, first_seq=first, entries=(*before, last))
        )
        if reply.verdict == "ok" or not first < reply.next_seq < attempt:
            return reply.verdict == "ok"
        first = reply.next_seq


def _entry(event: EffectClaimed | AttemptWithdrawn, step: int, at_us: int) -> Entry:
    return Entry(type=tag_of(event), step=step, at_us=at_us, cause=-1, body=msgspec.json.encode(event))
