"""Ingress: who is asking.  Verifies credentials, seals identities, mints request ids, and passes on what is valid."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import Any, get_args

import msgspec

from airside.actors.rpc.layer import LayerConfig, control, now_us
from airside.actors.rpc.methods import (
    ADMIT,
    BODIES,
    FOLLOW,
    GIVE_VOTE,
    KEEP,
    MEMORY_ORDER,
    OFFER,
    SUBMIT,
    SUBSCRIBE,
    VOTE,
    WATCH,
    WATCH_RUN,
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
from airside.stack.contracts.streams import WatchPage, WatchRequest
from airside.stack.directory import Directory
from airside.stack.errors import AuthRefused, InvalidInput, ItemFailed, LayerUnavailable
from airside.stack.ids import ApprovalId, PrincipalId, RunId, TenantId, request_for, run_of
from airside.stack.journal.feed import AUDITOR
from airside.stack.operations.messages import (
    Admit,
    OfferRequest,
    ServedTool,
    Submission,
    Ticket,
    ToolOffer,
    Vote,
    VoteReply,
)
from airside.stack.reasons import ReasonCode, reason_of
from airside.stack.run.events import RunSubmitted, decode_event
from airside.stack.run.gateway_call import GATEWAY, read_call
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.security.authenticator import Authenticator
from airside.stack.security.identity import run_subject, seal_identity, vote_subject
from airside.stack.security.memory_orders import KEEPER, KEEPERS_ACTIONS, MemoryAnswer, MemoryOrder, seal_memory_order
from airside.stack.values import MAX_REQUEST_BYTES, UNTRUSTED, Identity, Request, decode_json

MAX_FOLLOWERS = 16
"""Questions of one tenant for the next entries of its journal that wait at a time: each holds a place here."""

_OWNERS_KEPT = 1_000
"""Runs that were watched, of which it is remembered whose they are."""


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
        asks_models: bool = False,
        served: Sequence[ToolSpec] | None = None,
    ) -> None:
        super().__init__(config)
        self._served = served
        self._labels = labels
        self._asks_models = asks_models
        self._directory = directory
        self._local_public_pem = local_public_pem
        self._counts = {"accepted": 0, "refused": 0}
        self._followers: Counter[TenantId] = Counter()
        self._owners: OrderedDict[RunId, tuple[TenantId, PrincipalId]] = OrderedDict()

    async def start(self) -> None:
        """Load the pinned keys."""
        self._authenticator = Authenticator(self._directory, self._local_public_pem)
        self._driver = Remote(self.config.cell, "driver")
        self._memory = Remote(self.config.cell, "memory")
        self._journal = Remote(self.config.cell, "journal")
        self._models = Remote(self.config.cell, "models") if self._asks_models else None
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
        if self._served is not None and request.route == GATEWAY:
            read_call(request.inputs)
            if not self._is_vouched_for(identity):
                labels = tuple(dict.fromkeys((*labels, UNTRUSTED)))
        request_id = request_for(identity.tenant, identity.principal, nonce)
        return msgspec.structs.replace(request, request_id=request_id, labels=labels)

    def _is_vouched_for(self, identity: Identity) -> bool:
        """Whether the directory says that what a principal sends through the gateway is its own word."""
        listed = self._directory.tenants[identity.tenant].principals.get(identity.principal)
        return listed is not None and listed.gateway == "trusted"

    @serves(OFFER)
    def offer(self, asked: OfferRequest) -> ToolOffer:
        """Say who holds the credential, and which tools it may see."""
        if self._served is None:
            return ToolOffer(code="not_served", problem="this stack serves no tools: start it with App(gateway=True)")
        try:
            identity: Identity = self._authenticator.identify(asked.credential, int(time.time()))
        except AuthRefused as refusal:
            return ToolOffer(code=refusal.reason, problem=refusal.message)
        specs = self._served if asked.with_tools else ()
        tools = [_served_tool(spec) for spec in specs if set(spec.scopes) <= set(identity.scopes)]
        return ToolOffer(tenant=identity.tenant, principal=identity.principal, tools=tuple(tools))

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
            only=wanted.only,
            keep=wanted.keep,
            dry_run=wanted.dry_run,
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

    @serves(WATCH_RUN)
    async def watch(self, asked: WatchRequest) -> WatchPage:
        """Return what happens in a run to the principal that asked for it, or to an auditor of its tenant.

        Of another's it is not said whether there is one.
        """
        try:
            identity: Identity = self._authenticator.identify(asked.credential, int(time.time()))
        except AuthRefused as refusal:
            return WatchPage(code=refusal.reason, problem=refusal.message)
        bodies: list[str] = []
        if asked.with_events or asked.run_id not in self._owners:
            streams: list[str] = [asked.run_id]
            bodies = (await self._journal.call(BODIES, streams))[asked.run_id]
            self._keep_owner(asked.run_id, bodies)
        whose = self._owners.get(asked.run_id)
        is_own = whose == (identity.tenant, identity.principal)
        if whose is None or whose[0] != identity.tenant or not (is_own or AUDITOR in identity.roles):
            return WatchPage(code="unknown", problem=f"{identity.principal} has no run {asked.run_id:.80}")
        if self._followers[identity.tenant] >= MAX_FOLLOWERS:
            problem = f"{MAX_FOLLOWERS} follow {identity.tenant} already: wait until one of them has left"
            return WatchPage(code="too_many", problem=problem)
        self._followers[identity.tenant] += 1
        try:
            page = await self._page(msgspec.structs.replace(asked, credential=""), has_news=len(bodies) > asked.events)
        finally:
            self._followers[identity.tenant] -= 1
        return msgspec.structs.replace(page, events=tuple(bodies[asked.events :]))

    def _keep_owner(self, run_id: RunId, bodies: Sequence[str]) -> None:
        """Remember whose run it is, of one that there is."""
        first = decode_event(bodies[0]) if bodies and run_id not in self._owners else None
        if isinstance(first, RunSubmitted):
            self._owners[run_id] = (first.identity.tenant, first.identity.principal)
            if len(self._owners) > _OWNERS_KEPT:
                self._owners.popitem(last=False)

    async def _page(self, asked: WatchRequest, *, has_news: bool) -> WatchPage:
        if self._models is None:
            if not has_news:
                await asyncio.sleep(min(max(0.0, asked.timeout_s), 1.0))
            return WatchPage()
        if has_news:
            asked = msgspec.structs.replace(asked, timeout_s=0.0)
        return await self._models.call(WATCH, asked)

    async def stats(self) -> dict[str, Any]:
        """Return what was accepted and refused since this incarnation began."""
        return dict(self._counts)


def _served_tool(spec: ToolSpec) -> ServedTool:
    return ServedTool(
        name=spec.name,
        description=spec.description,
        parameters=msgspec.json.encode(spec.parameters),
        effect=spec.effect,
        repeatable=spec.repeatable,
    )


def _refused(reason: ReasonCode, why: str) -> Ticket:
    maybe = "it may have been admitted: " if reason is ReasonCode.INTERNAL_ERROR else ""
    return Ticket(reason_code=reason, message=f"{maybe}{why}")


control(Ingress.stats)
