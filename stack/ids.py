"""Ids: one type each, prefixed, made in one place and parsed in one place.

They are `NewType`s over `str`: mypy keeps a run's id from being passed as a tenant's, and on the step path they
cost nothing.  Text from outside becomes an id only through a `parse_` function, which admits ASCII alone, so that
look-alikes, wildcards, quotes and path separators never reach a table name, a file name or a query.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable
from typing import NewType

from airside.stack.errors import InvalidId

TenantId = NewType("TenantId", str)
PrincipalId = NewType("PrincipalId", str)
RunId = NewType("RunId", str)
RequestId = NewType("RequestId", str)
ApprovalId = NewType("ApprovalId", str)
GroupId = NewType("GroupId", str)
ExecutorId = NewType("ExecutorId", str)
IssuerId = NewType("IssuerId", str)
EffectKey = NewType("EffectKey", str)

SYSTEM_TENANT = TenantId("airside")
"""Whose journal chain has what belongs to no tenant; a directory may not list it."""

NO_ISSUER = IssuerId("")
"""The issuer where the gate and the executors are one process, and die together."""

Randomness = Callable[[int], bytes]
"""`n -> n random bytes`; `secrets.token_bytes` in production, a seeded generator in the simulator."""


class Buffered:
    """`Randomness` that asks the system for a page at a time: a call a grant costs more than the grant's seal."""

    def __init__(self, source: Randomness = secrets.token_bytes, page: int = 4096) -> None:
        self._source = source
        self._page = page
        self._left = b""

    def __call__(self, n: int) -> bytes:
        """Return `n` random bytes, each handed out once."""
        if len(self._left) < n:
            self._left = self._source(max(self._page, n))
        taken, self._left = self._left[:n], self._left[n:]
        return taken


_TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)
_PRINCIPAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@+-]{0,127}", re.ASCII)
_RUN = re.compile(r"run_[0-9a-f]{24}(\.[0-9]{1,4}-[0-9]{1,4}){0,8}", re.ASCII)
_APPROVAL = re.compile(r"apr_run_[0-9a-f]{24}(\.[0-9]{1,4}-[0-9]{1,4}){0,8}_[0-9]{1,9}_[0-9a-f]{12}", re.ASCII)


def _parse(kind: str, pattern: re.Pattern[str], text: object, form: str) -> str:
    if not isinstance(text, str) or pattern.fullmatch(text) is None:
        raise InvalidId(f"{text!r:.80} is not a {kind}: that is {form}")
    return text


def parse_tenant(text: object) -> TenantId:
    """Parse a tenant's id; raise `InvalidId` for anything but lower-case ASCII letters, digits, `_` and `-`."""
    return TenantId(_parse("tenant id", _TENANT, text, "up to 63 of a-z, 0-9, _ and -"))


def parse_principal(text: object) -> PrincipalId:
    """Parse a principal's id; raise `InvalidId` otherwise."""
    return PrincipalId(_parse("principal id", _PRINCIPAL, text, "up to 128 ASCII letters, digits and _.@+-"))


def parse_run(text: object) -> RunId:
    """Parse a run's id (`run_` and 24 hex digits, then one `.step-branch` per fan-out); raise `InvalidId`."""
    return RunId(_parse("run id", _RUN, text, "run_ and 24 hex digits, with .STEP-BRANCH for a branch"))


def is_whole_run(text: str) -> bool:
    """Whether a text is all of a run's id, and no part of one."""
    return _RUN.fullmatch(text) is not None


def parse_approval(text: object) -> ApprovalId:
    """Parse an approval's id; raise `InvalidId` otherwise."""
    return ApprovalId(_parse("approval id", _APPROVAL, text, "apr_, the run id, the step and 12 hex digits"))


def is_whole_approval(text: str) -> bool:
    """Whether a text is all of an approval's id, or of a group's, and no part of one."""
    return _APPROVAL.fullmatch(f"apr_{text.removeprefix('grp_').removeprefix('apr_')}") is not None


def mint_run(random: Randomness = secrets.token_bytes) -> RunId:
    """Mint a run's id of 96 random bits."""
    return RunId("run_" + random(12).hex())


def request_for(tenant: TenantId, principal: PrincipalId, nonce: bytes) -> RequestId:
    """Derive a request's id from who asks and a nonce of theirs, so that nobody can name another's request."""
    hashed = hashlib.blake2b(f"{tenant}\0{principal}\0".encode() + nonce, digest_size=12)
    return RequestId("req_" + hashed.hexdigest())


def nonce_of_job(batch: str, job_id: str, attempt: int) -> bytes:
    """Derive the nonce of a batch's job, so that its submission, sent again by whomever, is the same run."""
    written = f"{batch}\0{attempt}\0{job_id}".encode(errors="surrogatepass")
    return hashlib.blake2b(written, digest_size=16, person=b"airside batch").digest()


def run_of(request: RequestId) -> RunId:
    """Derive the run of a request, so that a request that is admitted again is the same run."""
    return RunId("run_" + request.removeprefix("req_"))


def root_of(run_id: RunId) -> RunId:
    """Return the run that a branch, however deep, belongs to; a run that is no branch is its own."""
    return RunId(run_id.partition(".")[0])


def mint_executor(random: Randomness = secrets.token_bytes) -> ExecutorId:
    """Mint the id of one incarnation of an executor; a restarted executor is another one."""
    return ExecutorId("exe_" + random(12).hex())


def mint_issuer(random: Randomness = secrets.token_bytes) -> IssuerId:
    """Mint the id of one incarnation of the gate; the grants of an earlier one are void."""
    return IssuerId("iss_" + random(12).hex())


def child_run(parent: RunId, step: int, branch: int) -> RunId:
    """Derive a child's id from its parent's, so that a resumed parent finds the children it already has."""
    return RunId(f"{parent}.{step}-{branch}")


def branch_of(child: RunId) -> int:
    """Return which of its parent's branches a child is."""
    return int(child.rpartition("-")[2])


def approval_for(run_id: RunId, step: int, digest: str) -> ApprovalId:
    """Derive an approval's id from the exact call it is for, so that asking twice asks for the same thing."""
    return ApprovalId(f"apr_{run_id}_{step}_{digest[:12]}")


def group_for(run_id: RunId, step: int, digest: str) -> GroupId:
    """Derive the id of a question about several calls from the approvals it is made of."""
    return GroupId(f"grp_{run_id}_{step}_{digest[:12]}")


def effect_key(run_id: RunId, step: int) -> EffectKey:
    """Derive the idempotency key of a step's call; every attempt of the step carries the same one."""
    return EffectKey(f"{run_id}:{step}")


def undo_key(key: EffectKey) -> EffectKey:
    """Derive the idempotency key of the undo of the call that `key` was used for."""
    return EffectKey(f"{key}/undo")
