"""Which run a submission is, before the stack has answered it: a run's id is made of who asks and the job's nonce."""

from __future__ import annotations

import secrets

from airside.actors.jobs import Job
from airside.stack.errors import AuthRefused
from airside.stack.ids import PrincipalId, TenantId, request_for, run_of
from airside.stack.security.authenticator import LOCAL_ISSUER
from airside.stack.security.tokens import read_parts


def known_again(job: Job) -> Job:
    """Return the job with a nonce, its own if it has one: sent again, it is to be the same run."""
    return job if job.nonce else job.with_nonce(secrets.token_bytes(16))


def run_of_job(job: Job) -> str:
    """Return the run that a job with a nonce is, if it is taken in.

    Empty for one with an API key, or a token that the stack did not sign: only the stack knows whose these are.
    """
    tenant, principal = _asker(job)
    if not isinstance(tenant, str) or not isinstance(principal, str):
        return ""
    return run_of(request_for(TenantId(tenant), PrincipalId(principal), job.nonce))


def _asker(job: Job) -> tuple[object, object]:
    if not job.token:
        return job.tenant, job.principal
    try:
        claims = read_parts(job.token)[1]
    except AuthRefused:
        return None, None
    return (claims.get("tenant"), claims.get("sub")) if claims.get("iss") == LOCAL_ISSUER else (None, None)
