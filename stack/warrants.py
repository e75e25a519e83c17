"""Who may ask memory what: a run for its owner's tenant and clearance, a granted call for its tenant.

Memory holds every tenant's records, so it believes no tenant's name that a process says: the name comes from Ingress's
seal over the identity, or the gate's over the grant.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from airside.stack.errors import InvalidId
from airside.stack.grants import open_grant
from airside.stack.identity import IdentityChecker, run_subject
from airside.stack.ids import parse_run
from airside.stack.ports import Candidate, RecallRequest, Warrant
from airside.stack.values import CLEARANCES, Clearance, Identity

CALL_US = 3_600 * 1_000_000
"""How long after its grant's end a call may still offer something: it began before that."""


class Warrants:
    """Checks warrants."""

    def __init__(self, key: bytes, now_us: Callable[[], int]) -> None:
        self._key = key
        self._now_us = now_us
        self._identities = IdentityChecker(key)

    def recall(self, request: RecallRequest) -> RecallRequest | None:
        """Return the request, with no more clearance than its owner has; None without a warrant for the tenant."""
        identity = self._identity(request.warrant)
        if identity is None or identity.tenant != request.tenant:
            return None
        lower: Clearance = min(request.clearance, identity.clearance, key=CLEARANCES.index)
        return msgspec.structs.replace(request, clearance=lower)

    def learn(self, candidate: Candidate) -> bool:
        """Whether a candidate comes with a warrant for its tenant; none but an operator's is trusted fully."""
        if candidate.trust == "high":
            return False
        identity = self._identity(candidate.warrant)
        if identity is not None:
            return identity.tenant == candidate.tenant
        grant = open_grant(self._key, candidate.warrant.grant)
        return grant is not None and grant.tenant == candidate.tenant and self._now_us() < grant.expires_us + CALL_US

    def _identity(self, warrant: Warrant) -> Identity | None:
        if not warrant.proof:
            return None
        try:
            run_id = parse_run(warrant.run_id)
        except InvalidId:
            return None
        return self._identities.check(warrant.identity, warrant.proof, run_subject(run_id))
