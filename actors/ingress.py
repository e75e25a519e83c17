"""Ingress: who is asking.  Verifies credentials, seals identities, mints request ids, and passes on what is valid."""

from __future__ import annotations

import secrets
import time
from functools import partial
from typing import Any

import msgspec

from airside.actors.layer import LayerConfig, control, now_us
from airside.actors.serving import ListMethod
from airside.actors.stubs import Remote, encode, encode_json
from airside.actors.watched import WatchedLayer
from airside.stack.auth import Authenticator
from airside.stack.canonical import check_bounds, parse_bounded
from airside.stack.directory import Directory
from airside.stack.errors import AuthRefused, InvalidInput, ItemFailed, LayerUnavailable
from airside.stack.identity import run_subject, seal_identity, vote_subject
from airside.stack.ids import ApprovalId, request_for, run_of
from airside.stack.labels import check_label
from airside.stack.memory_orders import KEEPER, KEEPERS_ACTIONS, MemoryAnswer, MemoryOrder, seal_order
from airside.stack.messages import Admit, Submission, Ticket, Vote, VoteReply
from airside.stack.reasons import ReasonCode, reason_of
from airside.stack.values import MAX_REQUEST_BYTES, Identity, Request, decode_json


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
        self._submit = ListMethod(
            name="submit",
            decode=msgspec.msgpack.Decoder(Submission).decode,
            unreadable=partial(_refused, ReasonCode.REQUEST_INVALID),
            failed=partial(_refused, ReasonCode.INTERNAL_ERROR),
        )

    async def start(self) -> None:
        """Load the pinned keys."""
        self._authenticator = Authenticator(self._directory, self._local_public_pem)
        self._admit = Remote(self.config.settings, "driver").coalesced("admit", Ticket)
        self._memory = Remote(self.config.settings, "memory")
        self._vote = Remote(self.config.settings, "approvals").coalesced("vote", VoteReply)

    async def submit(self, batch: list[bytes]) -> list[bytes]:
        """Answer each submission with a run's id or a refusal; one that is invalid harms no other."""
        await self.ready()
        return await self._submit.all_later(batch, self._submitted)

    async def _submitted(self, submission: Submission) -> Ticket:
        try:
            identity = self._authenticator.identify(submission.credential, int(time.time()))
            request = self._request(submission.request, identity, submission.nonce)
            ticket: Ticket = await self._admit(
                Admit(
                    identity=encode(identity),
                    proof=seal_identity(self.config.seal_key, identity, run_subject(run_of(request.request_id))),
                    request=encode_json(request),
                )
            )
        except AuthRefused as refusal:
            ticket = Ticket(reason_code=reason_of(refusal.reason), message=refusal.message)
        except InvalidInput as error:
            ticket = Ticket(reason_code=ReasonCode.REQUEST_INVALID, message=error.message)
        except (LayerUnavailable, ItemFailed) as error:
            ticket = _refused(ReasonCode.INTERNAL_ERROR, error.message)
        self.pulse.leave()
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

    async def vote(self, credential: str, approval_id: str, verdict: str, arguments: bytes, note: str) -> VoteReply:
        """Pass a vote on, with the identity of whoever holds the credential."""
        await self.ready()
        try:
            identity: Identity = self._authenticator.identify(credential, int(time.time()))
        except AuthRefused as refusal:
            return VoteReply(ok=False, code=refusal.reason, message=refusal.message)
        if verdict not in ("approve", "reject", "edit"):
            return VoteReply(ok=False, code="invalid", message=f"{verdict!r:.40} is not approve, reject or edit")
        vote = Vote(
            identity=encode(identity),
            proof=seal_identity(
                self.config.seal_key, identity, vote_subject(ApprovalId(approval_id), verdict, arguments)
            ),
            approval_id=ApprovalId(approval_id),
            verdict=verdict,  # type: ignore[arg-type]
            arguments=arguments,
            note=note,
        )
        reply: VoteReply = await self._vote(vote)
        return reply

    async def keep(self, credential: str, action: str, tenant: str, target: str) -> bytes:
        """Pass an order about memory on, for a principal that holds the keeper's role in its tenant."""
        await self.ready()
        try:
            identity: Identity = self._authenticator.identify(credential, int(time.time()))
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
            target=target,
        )
        answer: bytes = await self._memory.call("order", seal_order(self.config.seal_key, order))
        return answer

    async def stats(self) -> dict[str, Any]:
        """Return what was accepted and refused since this incarnation began."""
        return dict(self._counts)


def _refused(reason: ReasonCode, why: str) -> Ticket:
    maybe = "it may have been admitted: " if reason is ReasonCode.INTERNAL_ERROR else ""
    return Ticket(reason_code=reason, message=f"{maybe}{why}")


control(Ingress.stats)
