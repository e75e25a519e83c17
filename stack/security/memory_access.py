"""Who may ask memory what: a run for its owner's tenant and clearance, a granted call for its tenant.

Memory holds every tenant's records, so it believes no tenant's name that a process says: the name comes from Ingress's
seal over the identity, or the gate's over the grant.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from airside.stack.contracts.memory import Candidate, RecallRequest, Warrant, sensitivity_of
from airside.stack.errors import InvalidId
from airside.stack.ids import parse_run
from airside.stack.security.grants import open_grant
from airside.stack.security.identity import IdentityChecker, run_subject
from airside.stack.values import CLEARANCES, UNTRUSTED, Identity

REMEMBER = "remember"
"""The tool by which an agent proposes a memory."""

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
        if CLEARANCES.index(request.clearance) <= CLEARANCES.index(identity.clearance):
            return request
        return msgspec.structs.replace(request, clearance=identity.clearance)

    def learn(self, candidate: Candidate) -> Candidate | None:
        """Return the candidate, as sensitive and as little trusted as the call that offers it; None without a warrant.

        What its run had been shown is what the grant says.
        None but an operator's is trusted fully, and none is an undo's.  Its source is the run, and what a tool offers
        other than by the agent's own proposal is trusted little: policy decided about the tool, not about the text.
        """
        if candidate.trust == "high":
            return None
        identity = self._identity(candidate.warrant)
        if identity is not None:
            if identity.tenant != candidate.tenant or not candidate.source.startswith(f"{candidate.warrant.run_id}#"):
                return None
            return candidate
        grant = open_grant(self._key, candidate.warrant.grant)
        if grant is None or grant.undo or grant.tenant != candidate.tenant:
            return None
        if self._now_us() >= grant.expires_us + CALL_US:
            return None
        read = sensitivity_of(grant.labels)
        is_proposal = grant.tool == REMEMBER and UNTRUSTED not in grant.labels
        return msgspec.structs.replace(
            candidate,
            source=f"{grant.run_id}#{grant.step}",
            sensitivity=max(candidate.sensitivity, read, key=CLEARANCES.index),
            trust=candidate.trust if is_proposal else "low",
            shown=grant.shown,
        )

    def _identity(self, warrant: Warrant) -> Identity | None:
        if not warrant.proof:
            return None
        try:
            run_id = parse_run(warrant.run_id)
        except InvalidId:
            return None
        return self._identities.check(warrant.identity, warrant.proof, run_subject(run_id))
