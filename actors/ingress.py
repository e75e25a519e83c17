"""Ingress: who is asking.  Verifies credentials, seals identities, mints request ids, and passes on what is valid."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, get_args

import msgspec

from airside.actors.issuers import KeyFetcher
from airside.actors.looking import Looking
from airside.actors.news import News, Topic
from airside.actors.operating import SCOPES, Targets, order_of, sealed
from airside.actors.rpc.layer import LayerConfig, control, now_us, steady_us
from airside.actors.rpc.methods import (
    ADMIT,
    BODIES,
    FOLLOW,
    GIVE_JOINT_VOTE,
    GIVE_VOTE,
    KEEP,
    LOOK,
    MEMORY_ORDER,
    NEWS,
    OFFER,
    OPERATE,
    ORDER,
    RECENT,
    ROLL_BACK,
    SUBMIT,
    SUBSCRIBE,
    VOTE,
    VOTE_JOINTLY,
    WATCH,
    WATCH_RUN,
    FeedPage,
    FeedRequest,
    KeeperRequest,
    NewsPage,
    NewsRequest,
    OrderReply,
    PresentedJointVote,
    PresentedOrder,
    PresentedQuestion,
    PresentedVote,
    QuestionReply,
)
from airside.actors.rpc.remote import Remote
from airside.actors.rpc.serving import Denial, serves
from airside.actors.rpc.stubs import encode, encode_json
from airside.actors.run_owners import RunOwners
from airside.actors.wardens.watched import WatchedLayer
from airside.stack.approvals.book import Verdict
from airside.stack.approvals.joint import JointVerdict
from airside.stack.canonical import check_bounds, parse_bounded
from airside.stack.contracts.labels import check_label
from airside.stack.contracts.streams import WatchPage, WatchRequest
from airside.stack.directory import Directory
from airside.stack.errors import AuthRefused, Failed, InvalidInput, ItemFailed, LayerUnavailable, Misuse, Refused
from airside.stack.ids import ApprovalId, RunId, TenantId, request_for, run_of
from airside.stack.operations.batches import BatchState, stream_of
from airside.stack.operations.messages import (
    Admit,
    JointVote,
    JointVoteReply,
    OfferRequest,
    Order,
    ServedTool,
    Submission,
    Ticket,
    ToolOffer,
    Vote,
    VoteReply,
)
from airside.stack.operations.questions import VIEWS
from airside.stack.reasons import ReasonCode, reason_of
from airside.stack.recovery.rollback import RollbackReport
from airside.stack.run.events import RunSubmitted, decode_event
from airside.stack.run.gateway_call import GATEWAY, read_call
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.security.access import Caller, NoAccess, Reach, is_within, reach
from airside.stack.security.authenticator import Authenticator
from airside.stack.security.identity import joint_vote_subject, run_subject, seal_identity, vote_subject
from airside.stack.security.issuer_keys import keys_of
from airside.stack.security.memory_orders import KEEPERS_ACTIONS, MemoryAnswer, MemoryOrder, seal_memory_order
from airside.stack.values import MAX_REQUEST_BYTES, UNTRUSTED, Identity, Request, decode_json

MAX_FOLLOWERS = 16
"""Questions of one tenant for the next entries of its journal, or what models say, that wait at a time."""

MAX_WATCHERS = 2_000
"""Of runs of one tenant at a time: each is a question that waits, and reads when there is something to be read."""

LONGEST_WATCH_S = 20.0
"""What a watcher waits at most: one whose caller died is not there for ever."""


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
        tools: Sequence[ToolSpec] = (),
    ) -> None:
        super().__init__(config)
        self._served = served
        self._labels = labels
        self._asks_models = asks_models
        self._directory = directory
        self._local_public_pem = local_public_pem
        self._counts = {"accepted": 0, "refused": 0}
        self._followers: Counter[TenantId] = Counter()
        self._watchers: Counter[TenantId] = Counter()
        self._news = News(lambda asked: self._journal.call(RECENT, asked))
        self._listeners: Counter[TenantId] = Counter()
        self._said: dict[tuple[RunId, int, str], asyncio.Future[WatchPage]] = {}
        self._owners = RunOwners(self._run_bodies)
        self._looking = Looking(config.cell, directory, config.seal_key, self._remotes, tools)
        self._targets = Targets(directory, self._owners, self._batch_tenant)

    async def start(self) -> None:
        """Load the pinned keys."""
        issuers = keys_of(self._directory.oidc, lambda: steady_us() / 1e6)
        self._authenticator = Authenticator(self._directory, self._local_public_pem, issuers)
        self._key_fetcher = KeyFetcher(self._authenticator)
        self._driver = Remote(self.config.cell, "driver")
        self._memory = Remote(self.config.cell, "memory")
        self._journal = Remote(self.config.cell, "journal")
        self._models = Remote(self.config.cell, "models") if self._asks_models else None
        self._approvals = Remote(self.config.cell, "approvals")
        self._policy = Remote(self.config.cell, "policy")
        self._key_fetcher.fetch_all()

    async def _caller(self, credential: str) -> Caller:
        """Return who holds a credential; the keys of its issuer are fetched before, if that is due."""
        await self._key_fetcher.prepare(credential)
        return self._authenticator.caller(credential, int(time.time()))

    async def _admitted(self, credential: str, what: str) -> tuple[Caller, Reach]:
        """Return who holds a credential, and how far that one may what the table of access calls `what`.

        Raises `AuthRefused` for nobody, and for who may not at all.
        """
        caller = await self._caller(credential)
        far = reach(what, caller, self._directory.house)
        if isinstance(far, NoAccess):
            raise AuthRefused(far.problem, reason=far.code)
        return caller, far

    @serves(SUBMIT, unreadable=_no(ReasonCode.REQUEST_INVALID), failed=_no(ReasonCode.INTERNAL_ERROR))
    async def submit(self, submission: Submission) -> Ticket:
        """Answer a submission with a run's id or a refusal.

        Whether a key's run is of this very request is looked at here: who may submit may not read on that account.
        """
        try:
            identity = (await self._admitted(submission.credential, "submit"))[0].identity
            request = self._request(submission.request, identity, submission.nonce)
            ticket = await self._driver.call(
                ADMIT,
                Admit(
                    identity=encode(identity),
                    proof=seal_identity(self.config.seal_key, identity, run_subject(run_of(request.request_id))),
                    request=encode_json(request),
                ),
            )
            if (
                submission.is_keyed
                and ticket.run_id
                and await self._first_request(ticket.run_id) != encode_json(request)
            ):
                ticket = msgspec.structs.replace(ticket, is_anothers=True)
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
        if not inputs and not request.text.strip():
            raise InvalidInput("request: it is empty, and there are no inputs: say what is wanted")
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
    async def offer(self, asked: OfferRequest) -> ToolOffer:
        """Say who holds the credential, and which tools it may see."""
        if self._served is None:
            return ToolOffer(code="not_served", problem="this stack serves no tools: start it with App(gateway=True)")
        try:
            identity = (await self._admitted(asked.credential, "offer"))[0].identity
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
            identity = (await self._admitted(given.credential, "vote"))[0].identity
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

    @serves(GIVE_JOINT_VOTE)
    async def give_joint_vote(self, given: PresentedJointVote) -> JointVoteReply:
        """Pass on one verdict on several approvals, with the identity of whoever holds the credential."""
        try:
            identity = (await self._admitted(given.credential, "vote"))[0].identity
        except AuthRefused as refusal:
            return JointVoteReply(ok=False, code=refusal.reason, message=refusal.message)
        verdict, approval_ids = given.verdict, tuple(map(ApprovalId, given.approval_ids))
        if verdict not in get_args(JointVerdict):
            problem = f"{verdict!r:.40} is none of {', '.join(get_args(JointVerdict))}"
            return JointVoteReply(ok=False, code="invalid", message=problem)
        vote = JointVote(
            identity=encode(identity),
            proof=seal_identity(self.config.seal_key, identity, joint_vote_subject(approval_ids, verdict)),
            approval_ids=approval_ids,
            verdict=verdict,  # type: ignore[arg-type]
            note=given.note,
        )
        return await self._approvals.call(VOTE_JOINTLY, vote)

    @serves(KEEP)
    async def keep(self, wanted: KeeperRequest) -> bytes:
        """Pass an order about memory on, for a principal that holds the keeper's role in its tenant."""
        action, tenant = wanted.action, wanted.tenant
        try:
            identity = (await self._admitted(wanted.credential, "keep"))[0].identity
        except AuthRefused as refusal:
            return encode(MemoryAnswer(code=refusal.reason, problem=refusal.message))
        if identity.tenant != tenant:
            problem = f"{identity.principal} is of tenant {identity.tenant}, not of {tenant!r:.40}"
            return encode(MemoryAnswer(code="unknown", problem=problem))
        if action not in KEEPERS_ACTIONS:
            problem = f"{identity.principal} may not {action!r:.40}: an operator may"
            return encode(MemoryAnswer(code="wrong_role", problem=problem))
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
        """Return entries of the tenant whose auditor holds the credential; of no other, whatever is asked for.

        To an auditor of the house those of the tenant that is asked for, or of all.
        """
        try:
            caller, far = await self._admitted(asked.credential, "follow")
        except AuthRefused as refusal:
            return FeedPage(code=refusal.reason, problem=refusal.message)
        tenant = caller.identity.tenant
        if self._followers[tenant] >= MAX_FOLLOWERS:
            problem = f"{MAX_FOLLOWERS} follow the journal of {tenant} already: wait until one of them has left"
            return FeedPage(code="too_many", problem=problem)
        self._followers[tenant] += 1
        try:
            whose = asked.tenant if far == "all" else tenant
            page = await self._journal.call(SUBSCRIBE, FeedRequest(asked.after, asked.timeout_s, whose))
            await self._admitted(asked.credential, "follow")  # it may have ended while it waited
            return page
        except AuthRefused as refusal:
            return FeedPage(code=refusal.reason, problem=refusal.message)
        finally:
            self._followers[tenant] -= 1

    @serves(WATCH_RUN)
    async def watch(self, asked: WatchRequest) -> WatchPage:
        """Return what happens in a run to the principal that asked for it, or to who may see all of its tenant.

        Of another's it is not said whether there is one.
        """
        try:
            caller, far = await self._admitted(asked.credential, "view:events")
        except AuthRefused as refusal:
            return WatchPage(code=refusal.reason, problem=refusal.message)
        tenant = caller.identity.tenant
        if self._watchers[tenant] >= MAX_WATCHERS:
            problem = f"{MAX_WATCHERS} watch runs of {tenant} already: wait until one of them has left"
            return WatchPage(code="too_many", problem=problem)
        self._watchers[tenant] += 1
        try:
            return await self._watched(asked, caller, far)
        except AuthRefused as refusal:
            return WatchPage(code=refusal.reason, problem=refusal.message)
        finally:
            self._watchers[tenant] -= 1

    async def _watched(self, asked: WatchRequest, caller: Caller, far: Reach) -> WatchPage:
        """Return what there is of a run; if there is nothing, wait for that.  Raises `AuthRefused`."""
        waits = asked.with_events and asked.timeout_s > 0
        async with self._news.of(Topic(run_id=asked.run_id)) if waits else nullcontext(asyncio.Event()) as news:
            bodies = list[str]()
            if asked.with_events or asked.run_id not in self._owners:
                bodies = await self._run_bodies(asked.run_id)
                self._owners.keep(asked.run_id, bodies)
            if not is_within(self._owners.known(asked.run_id), caller, far):
                problem = f"{caller.identity.principal} has no run {asked.run_id:.80}"
                return WatchPage(code="unknown", problem=problem)
            has_news = len(bodies) > asked.events
            presented = msgspec.structs.replace(asked, credential="")
            page = await self._page(presented, caller.identity.tenant, news, has_news)
        if news.is_set():
            await self._admitted(asked.credential, "view:events")  # it may have ended while it waited
            bodies = await self._run_bodies(asked.run_id)
        return msgspec.structs.replace(page, events=tuple(bodies[asked.events :]))

    @serves(NEWS)
    async def news(self, asked: NewsRequest) -> NewsPage:
        """Return another mark once something has happened in a run, or anywhere in what somebody sees all runs of.

        Who sees only his own runs is not told by which of the others' his tenant is busy.
        """
        try:
            tenant, topic = await self._news_of(asked)
            if self._watchers[tenant] >= MAX_WATCHERS:
                problem = f"{MAX_WATCHERS} watch runs of {tenant} already: wait until one of them has left"
                return NewsPage(code="too_many", problem=problem)
            self._watchers[tenant] += 1
            try:
                wait_s = min(max(0.0, asked.timeout_s), LONGEST_WATCH_S)
                mark = await self._news.after(topic, asked.after, wait_s)
            finally:
                self._watchers[tenant] -= 1
            await self._news_of(asked)  # the credential may have ended while it waited
            return NewsPage(mark=mark)
        except Refused as refusal:
            return NewsPage(code=refusal.reason, problem=refusal.message)

    async def _news_of(self, asked: NewsRequest) -> tuple[TenantId, Topic]:
        """Return whose question it is, and what it waits for; raise `Refused` for who may not see that."""
        caller, far = await self._admitted(asked.credential, "view:events" if asked.run_id else "view:runs")
        who = caller.identity
        if not asked.run_id:
            if far == "own":
                raise Refused(f"{who.principal} sees runs of his own alone: ask for one", reason="wrong_role")
            return who.tenant, Topic(tenant=who.tenant if far == "tenant" else "")
        run_id = RunId(asked.run_id)
        if not is_within(await self._owners.of(run_id), caller, far):
            raise Refused(f"{who.principal} has no run {run_id:.80}", reason="unknown")
        return who.tenant, Topic(run_id=run_id)

    @serves(OPERATE)
    async def operate(self, given: PresentedOrder) -> OrderReply:
        """Pass an order on under the stack's seal, for whoever may give it, by that name.

        `conflict` is the code of what the driver does not carry out as things stand, `unavailable` of what is not known
        to have been carried out.
        """
        try:
            await self._caller(given.credential)
            if given.action not in SCOPES:
                raise InvalidInput(f"there is no action {given.action!r:.40}; there are {', '.join(SCOPES)}")
            caller, far = await self._admitted(given.credential, f"order:{given.action}")
            order = order_of(given, caller, far)
            await self._targets.check(order, caller, far)
            return await self._ordered(order)
        except Refused as refusal:
            return OrderReply(code=refusal.reason, problem=refusal.message)
        except Misuse as error:
            return OrderReply(code="invalid", problem=error.message)
        except Failed as error:
            return OrderReply(code="unavailable", problem=error.message)

    async def _ordered(self, order: Order) -> OrderReply:
        given = sealed(self.config.seal_key, order)
        reached, report = 0, b""
        if order.action == "rollback":
            encoded, problem = await self._driver.call(ROLL_BACK, given)
            if not problem:
                report = encode_json(msgspec.msgpack.decode(encoded, type=RollbackReport))
        else:
            reached, problem = await self._driver.call(ORDER, given)
        return OrderReply(reached=reached, report=report, code="conflict" if problem else "", problem=problem)

    @serves(LOOK)
    async def look(self, asked: PresentedQuestion) -> QuestionReply:
        """Answer a question about what the credential's holder may see.

        `unknown` is the code of what is not there or not his to see, `too_many` and `too_large` of what is asked for
        less or later, `unavailable` of what a layer did not answer.
        """
        try:
            await self._caller(asked.credential)
            if asked.view not in VIEWS:
                raise InvalidInput(f"there is no view {asked.view!r:.40}; there are {', '.join(VIEWS)}")
            caller, far = await self._admitted(asked.credential, f"view:{asked.view}")
            body = await self._looking.answer(asked.view, asked.parameters, caller, far, self._owners)
            return QuestionReply(body=body)
        except Refused as refusal:
            return QuestionReply(code=refusal.reason, problem=refusal.message)
        except Misuse as error:
            return QuestionReply(code="invalid", problem=error.message)
        except Failed as error:
            return QuestionReply(code="unavailable", problem=error.message)

    def _remotes(self) -> dict[str, Remote]:
        return {
            "journal": self._journal,
            "driver": self._driver,
            "approvals": self._approvals,
            "policy": self._policy,
            "memory": self._memory,
        }

    async def _run_bodies(self, run_id: RunId) -> list[str]:
        streams: list[str] = [run_id]
        return (await self._journal.call(BODIES, streams))[run_id]

    async def _first_request(self, run_id: RunId) -> bytes:
        """Return what a run was asked, as JSON."""
        first = decode_event((await self._run_bodies(run_id))[0])
        assert isinstance(first, RunSubmitted)
        return encode_json(first.request)

    async def _batch_tenant(self, batch: str) -> str | None:
        stream = stream_of(batch)
        state = BatchState((await self._journal.call(BODIES, [stream]))[stream])
        return state.tenant if state.length else None

    async def _page(self, asked: WatchRequest, tenant: TenantId, news: asyncio.Event, has_news: bool) -> WatchPage:
        """Return what models say in a run; if it has news, or gets some, what they have said."""
        wait_s = 0.0 if has_news else min(max(0.0, asked.timeout_s), LONGEST_WATCH_S)
        asked = msgspec.structs.replace(asked, timeout_s=wait_s)
        nothing = WatchPage(upto=asked.after, born=asked.born)
        if not wait_s:
            return nothing if self._models is None else await self._models.call(WATCH, asked)
        arrived = asyncio.ensure_future(news.wait())
        try:
            said = self._overheard(asked, tenant)
            ends: set[asyncio.Future[Any]] = {arrived} if said is None else {arrived, said}
            await asyncio.wait(ends, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
            if said is None or not said.done():
                return nothing
            page = said.result()
            if not page.code:
                return page
            await asyncio.wait({arrived}, timeout=wait_s)
            return nothing
        finally:
            arrived.cancel()

    def _overheard(self, asked: WatchRequest, tenant: TenantId) -> asyncio.Future[WatchPage] | None:
        """Return a question to models for what follows, which all who ask the same share; None if there are too many.

        Who does not hear what they say while they say it sees what happens none the later.
        """
        key = (asked.run_id, asked.after, asked.born)
        if key in self._said:
            return self._said[key]
        if self._models is None or self._listeners[tenant] >= MAX_FOLLOWERS:
            return None
        said = asyncio.ensure_future(self._models.call(WATCH, asked))
        self._said[key] = said
        self._listeners[tenant] += 1

        def heard(_: asyncio.Future[WatchPage]) -> None:
            del self._said[key]
            self._listeners[tenant] -= 1
            if not said.cancelled():
                said.exception()  # nobody may wait for it any more

        said.add_done_callback(heard)
        return said

    async def stats(self) -> dict[str, Any]:
        """Return what was accepted and refused since this incarnation began."""
        return {**self._counts, **self._key_fetcher.stats()}


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
