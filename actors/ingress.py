"""Ingress: who is asking.  Verifies credentials, seals identities, mints request ids, and passes on what is valid."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from typing import Any, get_args

import msgspec

from airside.actors.rpc.layer import LayerConfig, control, now_us
from airside.actors.rpc.methods import (
    ADMIT,
    FOLLOW,
    GIVE_VOTE,
    KEEP,
    MEMORY_ORDER,
    SUBMIT,
    SUBSCRIBE,
    VOTE,
    FeedPage,
    FeedRequest,
    KeeperRequest,
    PresentedVote,
)
from airside.actors.rpc.remote import Remote
from airside.actors.rpc.serving import Denial, serves
from airside.actors.rpc.stubs import encode, encode_json
from airside.actors.wardens.watched import WatchedLayer
from airside.stack.approvals.book import Verdict
from airside.stack.canonical import check_bounds, parse_bounded
from airside.stack.contracts.labels import check_label
from airside.stack.directory import Directory
from airside.stack.errors import AuthRefused, InvalidInput, ItemFailed, LayerUnavailable
from airside.stack.ids import ApprovalId, TenantId, request_for, run_of
from airside.stack.journal.feed import AUDITOR
from airside.stack.operations.messages import Admit, Submission, Ticket, Vote, VoteReply
from airside.stack.reasons import ReasonCode, reason_of
from airside.stack.security.authenticator import Authenticator
from airside.stack.security.identity import run_subject, seal_identity, vote_subject
from airside.stack.security.memory_orders import KEEPER, KEEPERS_ACTIONS, MemoryAnswer, MemoryOrder, seal_memory_order
from airside.stack.values import MAX_REQUEST_BYTES, Identity, Request, decode_json

MAX_FOLLOWERS = 16
"""Questions of one tenant for the next entries of its journal that wait at a time: each holds a place here."""


def _no(reason: ReasonCode) -> Denial:
    return lambda _, why: _refused(reason, why)


class Ingress(WatchedLayer):
    """The only layer that makes identities."""

    def __init__(
        self,
        config: LayerConfig,
        directory: Directory,
        local_public_pem: bytes,
        labels: frozenset[str] | None = None,
    ) -> None:
        super().__init__(config)
        self._labels = labels
        self._directory = directory
        self._local_public_pem = local_public_pem
        self._counts = {"accepted": 0, "refused": 0}
        self._followers: Counter[TenantId] = Counter()

    async def start(self) -> None:
        """Load the pinned keys."""
        self._authenticator = Authenticator(self._directory, self._local_public_pem)
        self._driver = Remote(self.config.cell, "driver")
        self._memory = Remote(self.config.cell, "memory")
        self._journal = Remote(self.config.cell, "journal")
        self._approvals = Remote(self.config.cell, "approvals")

    @serves(SUBMIT, unreadable=_no(ReasonCode.REQUEST_INVALID), failed=_no(ReasonCode.INTERNAL_ERROR))
    async def submit(self, submission: Submission) -> Ticket:
        """Answer a submission with a run's id or a refusal."""
        try:
            identity = self._authenticator.identify(submission.credential, int(time.time()))
            request = self._request(submission.request, identity, submission.nonce)
            ticket = await self._driver.call(
                ADMIT,
                Admit(
                    identity=encode(identity),
                    proof=seal_identity(self.config.seal_key, identity, run_subject(run_of(request.request_id))),
                    request=encode_json(request),
                ),
            )
        except AuthRefused as refusal:
            ticket = Ticket(reason_code=reason_of(refusal.reason), message=refusal.message)
        except InvalidInput as error:
            ticket = Ticket(reason_code=ReasonCode.REQUEST_INVALID, message=error.message)
        except (LayerUnavailable, ItemFailed) as error:
            ticket = _refused(ReasonCode.INTERNAL_ERROR, error.message)
        self._counts["accepted" if ticket.run_id else "refused"] += 1
        return ticket

    def _request(self, data: bytes, identity: Identity, nonce: bytes) -> Request:
        parse_bounded(data, max_bytes=MAX_REQUEST_BYTES, where="request")
        request: Request = decode_json(data, Request, where="request")
        inputs = msgspec.json.decode(request.inputs)
        if not isinstance(inputs, dict):
            raise InvalidInput("request.inputs: must be an object")
        check_bounds(list(request.labels), where="request.labels")
        labels = tuple(check_label(label, declared=self._labels) for label in request.labels)
        request_id = request_for(identity.tenant, identity.principal, nonce)
        return msgspec.structs.replace(request, request_id=request_id, labels=labels)

    @serves(GIVE_VOTE)
    async def give_vote(self, given: PresentedVote) -> VoteReply:
        """Pass a vote on, with the identity of whoever holds the credential."""
        verdict, approval_id = given.verdict, ApprovalId(given.approval_id)
        try:
            identity: Identity = self._authenticator.identify(given.credential, int(time.time()))
        except AuthRefused as refusal:
            return VoteReply(ok=False, code=refusal.reason, message=refusal.message)
        if verdict not in get_args(Verdict):
            return VoteReply(
                ok=False, code="invalid", message=f"{verdict!r:.40} is none of {', '.join(get_args(Verdict))}"
            )
        vote = Vote(
            identity=encode(identity),
            proof=seal_identity(self.config.seal_key, identity, vote_subject(approval_id, verdict, given.arguments)),
            approval_id=approval_id,
            verdict=verdict,  # type: ignore[arg-type]
            arguments=given.arguments,
            note=given.note,
        )
        return await self._approvals.call(VOTE, vote)

    @serves(KEEP)
    async def keep(self, wanted: KeeperRequest) -> bytes:
        """Pass an order about memory on, for a principal that holds the keeper's role in its tenant."""
        action, tenant = wanted.action, wanted.tenant
        try:
            identity: Identity = self._authenticator.identify(wanted.credential, int(time.time()))
        except AuthRefused as refusal:
            return encode(MemoryAnswer(problem=refusal.message))
        if identity.tenant != tenant:
            return encode(
                MemoryAnswer(problem=f"{identity.principal} is of tenant {identity.tenant}, not of {tenant!r:.40}")
            )
        if KEEPER not in identity.roles or action not in KEEPERS_ACTIONS:
            return encode(MemoryAnswer(problem=f"{identity.principal} may not {action!r:.40}: the role {KEEPER} may"))
        order = MemoryOrder(
            action=action,  # type: ignore[arg-type]
            tenant=identity.tenant,
            by=identity.principal,
            at_us=now_us(),
            nonce=secrets.token_bytes(16),
            target=wanted.target,
        )
        return await self._memory.call(MEMORY_ORDER, seal_memory_order(self.config.seal_key, order))

    @serves(FOLLOW)
    async def follow(self, asked: FeedRequest) -> FeedPage:
        """Return entries of the tenant whose auditor holds the credential; of no other, whatever is asked for."""
        try:
            identity: Identity = self._authenticator.identify(asked.credential, int(time.time()))
        except AuthRefused as refusal:
            return FeedPage(code=refusal.reason, problem=refusal.message)
        tenant = identity.tenant
        if AUDITOR not in identity.roles:
            problem = f"{identity.principal} may not follow the journal of {tenant}: the role {AUDITOR} may"
            return FeedPage(code="wrong_role", problem=problem)
        if self._followers[tenant] >= MAX_FOLLOWERS:
            problem = f"{MAX_FOLLOWERS} follow the journal of {tenant} already: wait until one of them has left"
            return FeedPage(code="too_many", problem=problem)
        self._followers[tenant] += 1
        try:
            page = await self._journal.call(SUBSCRIBE, FeedRequest(asked.after, asked.timeout_s, tenant))
            self._authenticator.identify(asked.credential, int(time.time()))  # it may have ended while it waited
            return page
        except AuthRefused as refusal:
            return FeedPage(code=refusal.reason, problem=refusal.message)
        finally:
            self._followers[tenant] -= 1

    async def stats(self) -> dict[str, Any]:
        """Return what was accepted and refused since this incarnation began."""
        return dict(self._counts)


def _refused(reason: ReasonCode, why: str) -> Ticket:
    maybe = "it may have been admitted: " if reason is ReasonCode.INTERNAL_ERROR else ""
    return Ticket(reason_code=reason, message=f"{maybe}{why}")


control(Ingress.stats)
