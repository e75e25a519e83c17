"""The gate: validates a proposed call, decides about the exact bytes, and signs the grant.

Nothing of the request is believed but what it proves: the identity by Ingress's seal, an approval by Approvals'.
The gate holds tool specs and the bundle, never tool code or agent code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from airside.stack.approvals.book import ApprovalReceipt, call_digest, verify_approval
from airside.stack.budget.reservations import BudgetReservations, reason_of_shortage
from airside.stack.calling import close_names
from airside.stack.canonical import canonical, digest, parse_own
from airside.stack.contracts.budget import SpendReply, SpendRequest, wall_key
from airside.stack.contracts.gate import GateReply, GateRequest, Proposed
from airside.stack.contracts.models import ReservedQuestion, ReservedReply
from airside.stack.errors import AirsideError, InvalidConfig, InvalidInput, text_of
from airside.stack.ids import NO_ISSUER, ApprovalId, IssuerId, Randomness, approval_for, effect_key
from airside.stack.policy.answer_trust import AnswerTrust
from airside.stack.policy.bundle import Bundle
from airside.stack.policy.evaluator import Evaluator, Facts, NotTraced
from airside.stack.policy.kill_switches import KillSwitches
from airside.stack.provenance.tracer import complete
from airside.stack.reasons import ReasonCode
from airside.stack.resources import (
    MAX_RESOURCES,
    Key,
    OnChange,
    ResolveReply,
    ResourceFact,
    ResourceLookup,
    ResourceReference,
    facts_of,
    keys_of,
    referenced_resources,
)
from airside.stack.schema.toolspec import ArgumentValidator, ToolSpec
from airside.stack.security.grants import GRANT_LIFE_US, Grant, mint
from airside.stack.security.identity import IdentityChecker, run_subject
from airside.stack.security.tool_questions import open_question
from airside.stack.values import Answer, ApprovalRule, Decision, Declined, Identity, ValueOrigin

_MAX_MESSAGE_BYTES = 64 * 2**20

_REASON_OF = {"unknown": ReasonCode.RESOURCE_UNKNOWN, "unavailable": ReasonCode.RESOURCE_UNAVAILABLE}

NO_ANSWERS: Mapping[Key, ResolveReply] = MappingProxyType({})


class _ValidCall(NamedTuple):
    """A call that could be made: the canonical bytes of its arguments, complete and as given, and the facts."""

    identity: Identity
    spec: ToolSpec
    arguments: bytes
    given: bytes
    facts: Facts


class _Asked(NamedTuple):
    """What a tool asked, in which round, what approvals of it are bound to, and what became of it.

    `decision` is there if the call does not go on: people are to be asked, or nobody is.
    """

    decision: Decision | None = None
    binding: str = ""
    question: bytes = b""
    round: int = 0
    answer: Answer | None = None
    declined: Declined = ""


class Gate:
    """Decides about calls.  Pure but for the clock and the nonces it is given."""

    def __init__(
        self,
        *,
        bundle: Bundle,
        tools: Iterable[ToolSpec],
        seal_key: bytes,
        now_us: Callable[[], int],
        random: Randomness,
        spending: BudgetReservations | None = None,
        issuer: IssuerId = NO_ISSUER,
        windows_us: Callable[[], int] | None = None,
        on_change: OnChange | None = None,
    ) -> None:
        self._evaluator = Evaluator(bundle)
        self._tools = {spec.name: (spec, ArgumentValidator(spec)) for spec in tools}
        if not self._tools:
            raise InvalidConfig("the app has no tools: give App(tools=[...]) at least one")
        specs = [spec for spec, _ in self._tools.values()]
        self._traced = bundle.traced_tools(specs)
        self._tools_with_lookups = bundle.looked_up_tools(specs)
        self._answer_trust = AnswerTrust(bundle, specs)
        self._on_change = on_change
        self._key = seal_key
        self._identities = IdentityChecker(seal_key)
        self._now_us = now_us
        self._windows_us = windows_us or now_us  # what budgets count by, and what ends a switch
        self._random = random
        self.spending = spending or BudgetReservations()
        self.switches = KillSwitches()
        self._issuer = issuer

    @property
    def policy_version(self) -> str:
        """The bundle's version."""
        return self._evaluator.version

    def deny_unreadable(self, why: str = "not a request") -> GateReply:
        """Return the decision about what is no request, or cannot be answered: a deny."""
        return GateReply(decision=self._evaluator.error(why))

    def needed_resources(self, request: GateRequest) -> ResourceLookup | None:
        """Return what must be looked up before `decide` can allow this call; None if nothing must."""
        if request.tool not in self._tools_with_lookups:
            return None
        try:
            identity = self._identities.check(request.identity, request.proof, run_subject(request.run_id))
            call = None if identity is None else self._validate(request, identity)
            if identity is None or not isinstance(call, _ValidCall):
                return None
            keys = keys_of(self._named(call.facts))
        except Exception:  # what is wrong `decide` says
            return None
        if not 0 < len(keys) <= MAX_RESOURCES:
            return None
        return ResourceLookup(identity.tenant, identity.principal, request.run_id, keys)

    def decide(self, request: GateRequest, answers: Mapping[Key, ResolveReply] = NO_ANSWERS) -> GateReply:
        """Return the decision; anything unexpected is a deny with `policy_error`.

        `answers` are what resolvers said of what is `needed_resources`; what no answer is there for cannot be allowed.
        """
        try:
            return self._decide(request, answers)
        except NotTraced:
            return GateReply(decision=self._evaluator.error("nobody traced what the call says"), untraced=True)
        except Exception as error:
            return GateReply(decision=self._evaluator.error(text_of(error)))

    def spend(self, request: SpendRequest) -> SpendReply:
        """Reserve what a decision can cost, or say why it may not be made; anything unexpected is a no."""
        try:
            return self._spend(request)
        except Exception as error:
            return SpendReply(reason_code=ReasonCode.POLICY_ERROR, detail=text_of(error, 2000))

    def _spend(self, request: SpendRequest) -> SpendReply:
        identity = self._identities.check(request.identity, request.proof, run_subject(request.run_id))
        if identity is None:
            text = "the identity's seal does not hold for this run"
            return SpendReply(reason_code=ReasonCode.POLICY_ERROR, detail=text)
        tenant, now, wanted = identity.tenant, self._now_us(), request.wanted
        self.spending.settle(identity, request.run_id, request.settled, now_us=now, share=request.share)
        if wanted is None:
            return SpendReply()
        blocked = self.switches.blocking(
            now_us=now, tenant=tenant, principal=identity.principal, version=request.version, run_id=request.run_id
        )
        if blocked is not None:
            return SpendReply(reason_code=ReasonCode.SWITCHED_OFF, detail=str(blocked))
        if wanted.price is None and self.spending.must_be_priced(tenant):
            text = f"the agent names no price, and runs of {tenant} share a budget: decorate it with @priced(...)"
            return SpendReply(reason_code=ReasonCode.PRICE_UNKNOWN, detail=text)
        short = self.spending.reserve_decision(
            identity, request.run_id, wanted, now_us=self._windows_us(), share=request.share
        )
        if short is not None:
            return SpendReply(reason_code=reason_of_shortage(short), detail=str(short))
        return SpendReply()

    def reserved(self, question: ReservedQuestion) -> ReservedReply:
        """Return what a decision of a run has reserved and not settled, and whose run it is."""
        identity = self._identities.check(question.identity, question.proof, run_subject(question.run_id))
        if identity is None:
            text = "the identity's seal does not hold for this run"
            return ReservedReply(reason_code=ReasonCode.POLICY_ERROR, error=text)
        self.spending.note_spent(identity, question.run_id, question.key, question.spent, now_us=self._windows_us())
        blocked = self.switches.blocking(
            now_us=self._now_us(),
            tenant=identity.tenant,
            principal=identity.principal,
            version=question.version,
            run_id=question.run_id,
        )
        if blocked is not None:
            return ReservedReply(reason_code=ReasonCode.SWITCHED_OFF, error=str(blocked))
        price = self.spending.reserved_decision(question.run_id, question.key, now_us=self._windows_us())
        return ReservedReply(price=price, tenant=identity.tenant)

    def check(self, proposed: Proposed) -> str:
        """Return why these can never be the tool's arguments, nothing if they can; what policy says is `decide`'s."""
        known = self._tools.get(proposed.tool)
        if known is None:
            return f"{proposed.tool!r:.100} is not a tool"
        try:
            given = parse_own(proposed.arguments, max_bytes=_MAX_MESSAGE_BYTES, where=proposed.tool)
            known[1].complete(given)
        except InvalidInput as error:
            return error.message
        return ""

    def _decide(self, request: GateRequest, answers: Mapping[Key, ResolveReply]) -> GateReply:
        identity = self._identities.check(request.identity, request.proof, run_subject(request.run_id))
        if identity is None:
            return GateReply(decision=self._evaluator.error("the identity's seal does not hold for this run"))
        self.spending.settle(identity, request.run_id, request.settled, now_us=self._windows_us(), share=request.share)
        call = self._validate(request, identity)
        if isinstance(call, GateReply):
            return call
        if call.spec.name not in self._tools_with_lookups:
            return self._reply(request, call, self._evaluator.evaluate(call.facts))
        named = self._named(call.facts)
        if (count := len(keys_of(named))) > MAX_RESOURCES:  # of which nothing is said either
            text = f"the call names {count:,} resources; rules can ask about {MAX_RESOURCES} of one call"
            deny = self._evaluator.deny(ReasonCode.RESOURCE_UNAVAILABLE, text, rule="resource")
            return self._reply(request, call, deny)
        call = call._replace(facts=replace(call.facts, resources=facts_of(named, answers, identity.tenant)))
        decision = self._unresolved(call.facts.resources) or self._evaluator.evaluate(call.facts)
        return self._reply(request, call, decision)

    def _named(self, facts: Facts) -> list[ResourceReference]:
        """Return the places of a call that name resources some rule that may match asks about."""
        asked = self._evaluator.asked(facts)
        if not asked:
            return []
        return [
            each for each in referenced_resources(facts.tool, facts.arguments) if (each.kind, each.declared) in asked
        ]

    def _unresolved(self, resources: tuple[ResourceFact, ...]) -> Decision | None:
        """Return the deny for a resource of which nobody knows what a rule asks, None if all are known."""
        for each in resources:
            if each.state in _REASON_OF:
                return self._evaluator.deny(_REASON_OF[each.state], str(each), rule="resource")
        return None

    def _validate(self, request: GateRequest, identity: Identity) -> _ValidCall | GateReply:
        """Return the call that is asked for, or why there can be none, whatever the rules say."""
        blocked = self.switches.blocking(
            now_us=self._windows_us(),
            tenant=identity.tenant,
            principal=identity.principal,
            version=request.version,
            run_id=request.run_id,
            tool=request.tool,
        )
        if blocked is not None:
            return GateReply(decision=self._evaluator.deny(ReasonCode.SWITCHED_OFF, str(blocked), rule="switch"))
        known = self._tools.get(request.tool)
        if known is None or not set(known[0].scopes) <= set(identity.scopes):
            own = [spec.name for spec, _ in self._tools.values() if set(spec.scopes) <= set(identity.scopes)]
            meant = f"; do you mean {' or '.join(near)}?" if (near := close_names(request.tool, own)) else ""
            return self._denied(
                ReasonCode.TOOL_UNKNOWN, f"{request.tool!r:.100} is not a tool {identity.principal} has{meant}"
            )
        spec, validator = known
        try:
            # A wide bound here, so that it is the validator that refuses and names the argument.
            given = parse_own(request.arguments, max_bytes=_MAX_MESSAGE_BYTES, where=spec.name)
            arguments = validator.complete(given)
        except InvalidInput as error:
            return self._denied(ReasonCode.TOOL_INVALID_ARGUMENTS, error.message)
        full = msgspec.json.decode(arguments)
        origins: tuple[ValueOrigin, ...] | None = ()
        if spec.name in self._traced:
            origins = None if request.origins is None else complete(spec, given, full, request.origins)
        facts = Facts(
            tool=spec,
            identity=identity,
            arguments=full,
            labels=frozenset(request.labels),
            remaining=request.remaining,
            now_us=self._now_us(),
            origins=origins,
        )
        return _ValidCall(identity, spec, arguments, canonical(given), facts)

    def _denied(self, reason: ReasonCode, detail: str) -> GateReply:
        return GateReply(decision=self._evaluator.deny(reason, detail, rule="validation"))

    def _reply(self, request: GateRequest, call: _ValidCall, decision: Decision) -> GateReply:
        identity, spec, arguments, given, facts = call
        approval_id: ApprovalId | None = None
        answer: Answer | None = None
        if spec.answered_by is not None:
            decision = self._question(call, decision)
        if decision.outcome == "require_approval":
            binding = self._binding(request, call, arguments)
            asked_before = verify_approval(self._key, request.receipt) if request.receipt else None
            asks = binding if asked_before is None else digest(f"{binding}|{asked_before.approval_id}".encode())
            approval_id = approval_for(request.run_id, request.step, asks)
            edited = self._binding(request, call, given, edited=True)
            receipt = self._receipt(request.receipt, {binding, edited}, decision.approval, identity)
            if receipt is not None:
                approval_id, answer = receipt.approval_id, receipt.answer
                decision = msgspec.structs.replace(decision, outcome="allow", approval=None)
        grant, wall_ms, sha256 = b"", 0, digest(arguments)
        asked: _Asked | None = None
        if request.asked and decision.outcome == "allow":
            asked = self._asked(request, call, sha256, decision)
            decision = asked.decision or decision
            if decision.outcome == "require_approval":
                approval_id = approval_for(request.run_id, request.step, asked.binding)
        if decision.outcome != "deny":
            wall_ms = _timeout_ms(request, spec) if self.spending.budgets_time(identity.tenant) else 0
            # Nobody is asked about a call that there is no budget for; it counts when it is granted.
            is_asking = decision.outcome == "require_approval"
            counts = not is_asking and not request.preview
            refusal = self._unaffordable(request, identity, spec, wall_ms, count=counts)
            if refusal is not None:
                decision, approval_id = refusal, None if is_asking else approval_id
        if decision.outcome == "allow" and not request.preview:
            grant = self._grant(request, identity, spec, sha256, approval_id or "", answer, asked)
            if self._on_change is not None and spec.resources and spec.effect != "read":
                changed = keys_of(referenced_resources(spec, facts.arguments))
                self._on_change(changed, _timeout_ms(request, spec))
        return GateReply(
            decision=decision,
            effect=spec.effect,
            risk=spec.risk,
            tool_version=spec.version,
            repeatable=spec.repeatable,
            cost_microusd=spec.cost_microusd or 0,
            arguments=arguments,
            digest=sha256,
            approval_id=approval_id,
            grant=grant,
            counted=self.spending.budgets_call(identity.tenant, spec),
            wall_ms=wall_ms if grant else 0,
            trusted_output=spec.trusted_output or self._answer_trust.vouches(answer, identity),
            origins=facts.origins or (),
            resources=facts.resources,
            question=asked.question if asked is not None and decision.outcome == "require_approval" else b"",
        )

    def _asked(self, request: GateRequest, call: _ValidCall, sha256: str, allowed: Decision) -> _Asked:
        """Return what the tool of an allowed call asked before it completes that, and what follows from it."""
        asked, spec = open_question(self._key, request.asked), call.spec
        of = (call.identity.tenant, request.run_id, request.step, spec.name, sha256)
        if asked is None or of != (asked.tenant, asked.run_id, asked.step, asked.tool, asked.arguments_sha256):
            return _Asked(decision=self._evaluator.error("no executor was asked this by the tool of this call"))
        if spec.asks is None:
            text = f"{spec.name} asks for more before it completes the call, and nobody is named who is asked"
            return _Asked(decision=self._evaluator.deny(ReasonCode.POLICY_DENIED, text, rule="validation"))
        binding = self._binding(request, call, asked.question)
        receipt = self._receipt(request.answered, {binding}, spec.asks, call.identity)
        found = _Asked(binding=binding, question=asked.question, round=asked.round)
        if receipt is not None:
            return found._replace(answer=receipt.answer)
        if request.declined:
            return found._replace(declined=request.declined)
        waits = msgspec.structs.replace(allowed, outcome="require_approval", approval=spec.asks)
        return found._replace(decision=waits)

    def _question(self, call: _ValidCall, decision: Decision) -> Decision:
        """Return the decision about a question to people: what is allowed is to ask those whom its tool names."""
        if decision.outcome == "require_approval":
            text = f"{call.spec.name} asks people itself, and rule {decision.rule} has it wait for an approval besides"
            return self._evaluator.deny(ReasonCode.POLICY_DENIED, text, rule=decision.rule)
        if decision.outcome == "deny":
            return decision
        if call.facts.origins is None:  # whoever is asked is shown them
            raise NotTraced
        return msgspec.structs.replace(decision, outcome="require_approval", approval=call.spec.answered_by)

    def _unaffordable(
        self, request: GateRequest, identity: Identity, spec: ToolSpec, wall_ms: int, *, count: bool
    ) -> Decision | None:
        """Return the refusal if a budget the call falls under has too little left; else count it there, if asked to."""
        if spec.cost_microusd is None and self.spending.must_be_priced(identity.tenant):
            text = f"{spec.name} has no cost_microusd (0 = free), and runs of {identity.tenant} share a budget"
            return self._evaluator.deny(ReasonCode.PRICE_UNKNOWN, text, rule="budget")
        key, now, share = effect_key(request.run_id, request.step), self._windows_us(), request.share
        run = request.run_id
        if count:
            wall = wall_key(run, request.step, request.attempt) if wall_ms else ""
            short = self.spending.reserve(
                identity, run, key, spec, now_us=now, share=share, wall_key=wall, wall_ms=wall_ms
            )
        else:
            short = self.spending.shortage(identity, run, key, spec, now_us=now, share=share, wall_ms=wall_ms)
        if short is None:
            return None
        return self._evaluator.deny(reason_of_shortage(short), str(short), rule="budget")

    def _binding(self, request: GateRequest, call: _ValidCall, arguments: bytes, *, edited: bool = False) -> str:
        return call_digest(
            tenant=call.identity.tenant,
            run_id=request.run_id,
            step=request.step,
            tool=call.spec.name,
            tool_version=call.spec.version,
            policy_version=self.policy_version,
            arguments=arguments,
            resources=call.facts.resources,
            edited=edited,
        )

    def _receipt(
        self, text: str, bindings: set[str], terms: ApprovalRule | None, requester: Identity
    ) -> ApprovalReceipt | None:
        """Return the receipt if enough of the right people, and not the requester, approved exactly this call.

        Of a question it is the answer's; an answer approves nothing, and an approval answers nothing.
        """
        if not text or terms is None:
            return None
        receipt = verify_approval(self._key, text)
        if receipt is None or receipt.binding not in bindings or (receipt.answer is not None) is not terms.answer:
            return None
        suited = {by for by, roles in receipt.approvers if not set(roles).isdisjoint(terms.roles)}
        if not terms.answer:  # Approvals knows the requester from a runtime, the gate from Ingress's seal
            suited -= {requester.principal}
        return receipt if len(suited) >= terms.quorum else None

    def _grant(
        self,
        request: GateRequest,
        identity: Identity,
        spec: ToolSpec,
        arguments_sha256: str,
        approval_id: str,
        answer: Answer | None,
        asked: _Asked | None,
    ) -> bytes:
        if not request.executor:
            raise AirsideError("no executor was named to grant the call to")
        return mint(
            self._key,
            Grant(
                tenant=identity.tenant,
                principal=identity.principal,
                run_id=request.run_id,
                step=request.step,
                attempt=request.attempt,
                epoch=request.epoch,
                tool=spec.name,
                tool_version=spec.version,
                arguments_sha256=arguments_sha256,
                key=effect_key(request.run_id, request.step),
                policy_version=self.policy_version,
                approval_id=approval_id,
                executor=request.executor,
                timeout_ms=_timeout_ms(request, spec),
                expires_us=self._now_us() + GRANT_LIFE_US,
                issuer=self._issuer,
                nonce=self._random(12),
                version=request.version,
                labels=request.labels,
                left_ms=_left_ms(request),
                answer=answer if asked is None else asked.answer,
                round=0 if asked is None else asked.round,
                asked_sha256="" if asked is None else digest(request.asked.encode()),
                declined="" if asked is None else asked.declined,
                shown=request.shown,
                sends=request.sends,
            ),
        )


def _timeout_ms(request: GateRequest, spec: ToolSpec) -> int:
    """Return how long a call may take: no longer than its run may, which is counted in whole seconds."""
    return min(spec.timeout_ms, request.remaining.tool_ms, _left_ms(request))


def _left_ms(request: GateRequest) -> int:
    """Return how long a run has left."""
    return (request.remaining.max_seconds + 1) * 1000
