"""What is answered to who asks by credential: one function a view, each within the reach that the table of access gave.

They run on threads of Ingress, and ask the layers through it.  What is not within reach is answered as what there is
not.  Lists are bounded, and so is every answer.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn, TypeVar

import msgspec
from msgspec import Raw

from airside.actors.driver.in_doubt import list_in_doubt
from airside.actors.driver.spend_in_doubt import list_spend_in_doubt
from airside.actors.journal.batches import list_batches, show_batch
from airside.actors.journal.named_sql import load_sql
from airside.actors.journal.overview import list_runs, show_run
from airside.actors.journal.story import story_of
from airside.actors.rpc.layer import now_us
from airside.actors.rpc.methods import (
    ASKED,
    BODIES,
    BUDGETS,
    BUNDLE,
    CHAINS,
    MEMORY_ORDER,
    PENDING,
    QUERY_TENANT,
    ROWS,
    SWITCHES,
    ChainsRequest,
    Method,
    NamedQuery,
    Reply,
    Request,
    TenantSql,
)
from airside.actors.rule_counts import Fired, RuleCounts
from airside.actors.run_owners import Owner
from airside.stack.approvals.book import Approval, ApprovalBook, decode_approval_event
from airside.stack.budget.reservations import BudgetStanding
from airside.stack.contracts.memory import MemoryStanding, RecallReply, RecallRequest
from airside.stack.directory import Directory, Tenant
from airside.stack.errors import InvalidInput, MemoryFailed, Refused
from airside.stack.ids import ApprovalId, PrincipalId, RunId, TenantId, parse_approval, parse_run
from airside.stack.operations import questions as asked
from airside.stack.policy.bundle import Bundle, Rule, load_bundle, may_match
from airside.stack.policy.kill_switches import KillSwitchChanged
from airside.stack.policy.rule_words import rule_in_words, rule_of_tenant
from airside.stack.recovery.spend_in_doubt import SpendInDoubt
from airside.stack.run.events import RunEnded, decode_event
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.security.access import Caller, Reach, is_within, reaches
from airside.stack.security.memory_orders import MemoryAnswer, MemoryOrder, seal_memory_order

MAX_BODY_BYTES = 4 * 2**20
"""Of an answer."""

_EVENTS_BYTES = MAX_BODY_BYTES // 2
"""Of a page of events: it has one at least."""

Item = TypeVar("Item")

AUDIT_QUERIES = load_sql("audit.sql")
"""The queries there are for auditors: a comment that says what each is for, and one SELECT."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What a view has: who asks, how far that one may, and ways to ask the layers.

    `whose` finds out whose a run is, `layers` how they are, `kept` what memory keeps; `tools` are the app's;
    `rule_counts` is what was counted.
    """

    caller: Caller
    far: Reach
    directory: Directory
    seal_key: bytes
    ask: Callable[[Method[Any, Any], Any], Any]
    whose: Callable[[RunId], Owner | None]
    layers: Callable[[], list[asked.LayerHealth]]
    kept: Callable[[TenantId], MemoryStanding | None]
    tools: Mapping[str, ToolSpec]
    rule_counts: RuleCounts

    def reply(self, method: Method[Request, Reply], request: Request) -> Reply:
        """Return a layer's reply."""
        reply: Reply = self.ask(method, request)
        return reply

    def bodies(self, streams: Sequence[str]) -> dict[str, list[str]]:
        """Return the events of streams as JSON, oldest first."""
        return self.reply(BODIES, list(streams))

    def read(self, name: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a named query of the journal's."""
        return self.reply(ROWS, NamedQuery(name, parameters))

    def tenant(self, named: str) -> TenantId | None:
        """Return whose things are meant; None for everybody's, which only who reaches all can mean."""
        own = self.caller.identity.tenant
        if not named:
            return None if self.far == "all" else own
        if named != own and (self.far != "all" or named not in self.directory.tenants):
            unknown(f"tenant {named}")
        return TenantId(named)

    def run(self, named: str) -> RunId:
        """Return a run that is within reach."""
        run_id = parse_run(named)
        if not is_within(self.whose(run_id), self.caller, self.far):
            unknown(f"run {run_id}")
        return run_id

    def has(self, tenant: str, principal: str = "") -> bool:
        """Whether what is of a tenant, or of a principal of it, is within reach."""
        return is_within((TenantId(tenant), PrincipalId(principal)), self.caller, self.far)


def unknown(what: str) -> NoReturn:
    """Say that there is none, or none for who asks."""
    raise Refused(f"there is no {what:.200}", reason="unknown")


def answer(view: str, parameters: bytes, desk: Desk) -> bytes:
    """Answer a view as JSON.

    Raises `InvalidInput` for parameters that are not the view's or fit nothing, and `Refused` with a code: `unknown`
    for what is not there or not within reach, `too_large` for an answer over the bound.
    """
    try:
        found = _VIEWS[view](desk, msgspec.json.decode(parameters, type=asked.VIEWS[view]))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"{view}: {error}") from None
    body = found if isinstance(found, bytes) else msgspec.json.encode(found)
    if len(body) > MAX_BODY_BYTES:
        text = f"{view}: the answer has {len(body):,} bytes, over the bound of {MAX_BODY_BYTES:,}: ask for less"
        raise Refused(text, reason="too_large")
    return body


# Runs.

_CURSOR = re.compile(r"([0-9]{1,18}):(.+)", re.ASCII | re.DOTALL)


def runs(desk: Desk, wanted: asked.Runs) -> asked.Page:
    """List runs, newest first."""
    who = desk.caller.identity
    if desk.far == "own" and wanted.principal not in ("", who.principal):
        return asked.Page(items=[])
    found = list_runs(
        desk,
        tenant=desk.tenant(wanted.tenant) or "",
        principal=who.principal if desk.far == "own" else wanted.principal,
        status=wanted.status,
        reason=wanted.reason,
        batch=wanted.batch,
        since=wanted.since,
        branches=wanted.branches,
        limit=wanted.limit,
        before=_after("runs", wanted.cursor, parse_run) if wanted.cursor else None,
    )
    last = found[-1] if len(found) == wanted.limit else None
    return asked.Page(items=found, next=f"{last.submitted_us}:{last.run_id}" if last else "")


def counts(desk: Desk, wanted: asked.Counts) -> asked.Page:
    """Count runs by their states, those of one's own if one reaches no others."""
    principal = desk.caller.identity.principal if desk.far == "own" else ""
    rows = desk.read("counted", desk.tenant(wanted.tenant) or "", principal, _us(wanted.since))
    names = asked.RunCount.__struct_fields__
    return asked.Page(items=[dict(zip(names, row, strict=True)) for row in rows])


def _after(view: str, cursor: str, parse: Callable[[str], str] = str) -> tuple[int, str]:
    """Return the time and the name of the last one of a page."""
    parts = _CURSOR.fullmatch(cursor)
    if parts is None:
        raise InvalidInput(f"{view}: {cursor!r:.80} is no cursor: give the `next` of a page")
    return int(parts[1]), parse(parts[2])


def run(desk: Desk, wanted: asked.OneRun) -> Any:
    """Show one run with its steps and waits, and how it ended."""
    return show_run(desk, desk.run(wanted.run_id))


def events(desk: Desk, wanted: asked.RunEvents) -> asked.EventsPage:
    """Return a run's events after some number of them."""
    run_id = desk.run(wanted.run_id)
    bodies = desk.bodies([run_id])[run_id]
    page: list[Raw] = []
    size = 0
    for body in bodies[wanted.after : wanted.after + wanted.limit]:
        encoded = body.encode()
        size += len(encoded)
        if page and size > _EVENTS_BYTES:
            break
        page.append(Raw(encoded))
    after = min(wanted.after, len(bodies)) + len(page)
    ended = after == len(bodies) and bool(bodies) and isinstance(decode_event(bodies[-1]), RunEnded)
    return asked.EventsPage(events=page, next=after, ended=ended)


def story(desk: Desk, wanted: asked.OneRun) -> dict[str, str]:
    """Tell a run as lines of text."""
    run_id = desk.run(wanted.run_id)
    return {"run_id": run_id, "text": story_of(desk, run_id)}


# People.


def approvals(desk: Desk, wanted: asked.Approvals) -> asked.Page:
    """List what waits for people, oldest first; or find one, and how it stands."""
    tenant = desk.tenant(wanted.tenant)
    if wanted.approval_id:
        return asked.Page(items=_one_approval(desk, wanted.approval_id, tenant))
    waiting = [msgspec.json.decode(body, type=Approval) for body in desk.reply(PENDING, tenant)]
    mine = [each for each in waiting if _concerns(desk, each)]
    return _page_in_time(mine, wanted.cursor, wanted.limit, lambda each: (each.request.at_us, each.request.approval_id))


def approval_form(desk: Desk, wanted: asked.OneApproval) -> asked.ToolForm:
    """Say what the tool of an approval takes: what an edit of its arguments has to fit."""
    approval = _one_approval(desk, wanted.approval_id, desk.tenant(""))[0]
    spec = desk.tools.get(approval.request.tool) or unknown(f"tool of the approval {wanted.approval_id}")
    return asked.ToolForm(tool=spec.name, description=spec.description, parameters=spec.parameters)


def _one_approval(desk: Desk, name: str, tenant: str | None) -> list[Approval]:
    if name.startswith("grp_"):
        found = [msgspec.json.decode(body, type=Approval) for body in desk.reply(ASKED, name)]
    else:
        approval_id = parse_approval(name)
        book = ApprovalBook(decode_approval_event(body) for body in desk.bodies([approval_id])[approval_id])
        one = book.get(ApprovalId(approval_id))
        found = [] if one is None else [one]
    mine = [each for each in found if tenant in (None, each.request.tenant) and _concerns(desk, each)]
    return mine or unknown(f"approval {name}")


def _concerns(desk: Desk, approval: Approval) -> bool:
    """Whether an approval is within reach: one's own is what one asked for, and what one may vote on."""
    request, who = approval.request, desk.caller.identity
    if desk.far != "own":
        return desk.has(request.tenant)
    is_voter = not set(who.roles).isdisjoint(request.terms.roles)
    return request.tenant == who.tenant and (request.requester == who.principal or is_voter)


Place = tuple[int, str]
"""Where something stands in a list: by its time, then by its name."""


def _page_in_time(found: Iterable[Item], cursor: str, limit: int, place_of: Callable[[Item], Place]) -> asked.Page:
    """Return the first of what follows a place, which what stood there may have left meanwhile."""
    after = _after("cursor", cursor) if cursor else None
    left = sorted((each for each in found if after is None or place_of(each) > after), key=place_of)
    at_us, name = place_of(left[limit - 1]) if len(left) > limit else (0, "")
    return asked.Page(items=left[:limit], next=f"{at_us}:{name}" if name else "")


# What operators see to.


def in_doubt(desk: Desk, wanted: asked.InDoubt) -> asked.Page:
    """List the calls in doubt, oldest first."""
    found = list_in_doubt(desk, desk.tenant(wanted.tenant))
    return _page_in_time(found, wanted.cursor, wanted.limit, lambda each: (each.since_us, each.key))


def spend_in_doubt(desk: Desk, wanted: asked.InDoubt) -> asked.Page:
    """List the attempts at questions to models of which nobody knows what they cost, oldest first."""
    found = list_spend_in_doubt(desk, desk.tenant(wanted.tenant))
    return _page_in_time(found, wanted.cursor, wanted.limit, lambda each: (each.since_us, each.key))


def switches(desk: Desk, wanted: asked.Switches) -> asked.Page:
    """List what is switched off and is about a tenant: its own switches, and those that are about everybody."""
    tenant = desk.tenant(wanted.tenant)
    off = [msgspec.json.decode(body, type=KillSwitchChanged) for body in desk.reply(SWITCHES, None)]
    mine = [each for each in off if tenant is None or _is_about(desk, each, tenant)]
    return _page_in_time(mine, wanted.cursor, wanted.limit, lambda each: (each.at_us, f"{each.scope}:{each.target}"))


def _is_about(desk: Desk, switch: KillSwitchChanged, tenant: TenantId) -> bool:
    match switch.scope:
        case "tenant":
            return switch.target == tenant
        case "principal":
            return switch.target.partition("/")[0] == tenant
        case "run":
            whose = desk.whose(RunId(switch.target))
            return whose is not None and whose[0] == tenant
    return True


def budgets(desk: Desk, wanted: asked.OfTenant) -> asked.Page:
    """Show the budgets that runs of a tenant share; or, of who reaches all, the organisation's."""
    tenant = desk.tenant(wanted.tenant)
    standings = msgspec.json.decode(desk.reply(BUDGETS, tenant or ""), type=list[BudgetStanding])
    doubts = list_spend_in_doubt(desk, tenant) if standings else []
    return asked.Page(items=[asked.BudgetLine(budget=each, in_doubt=_in_doubt(doubts, each)) for each in standings])


def _in_doubt(doubts: Sequence[SpendInDoubt], budget: BudgetStanding) -> int:
    """Return what of a budget's unit is counted for attempts of which nobody knows what they cost."""
    return sum(getattr(doubt.reserved, budget.unit, 0) for doubt in doubts if doubt.since_us >= budget.begins_us)


def batches(desk: Desk, wanted: asked.Batches) -> asked.Page:
    """List batches, newest first; a tenant's are those that are its own by their first entry."""
    before = _after("batches", wanted.cursor) if wanted.cursor else (0, "")
    found = list_batches(desk, wanted.limit, tenant=desk.tenant(wanted.tenant) or "", before=before)
    last = found[-1] if len(found) == wanted.limit else None
    return asked.Page(items=found, next=f"{last.opened_us}:{last.id}" if last else "")


def batch(desk: Desk, wanted: asked.OneBatch) -> Any:
    """Show one batch."""
    try:
        return show_batch(desk, wanted.batch, tenant=desk.tenant("") or "")
    except InvalidInput:
        unknown(f"batch {wanted.batch}")


def health(desk: Desk, _: asked.Nothing) -> asked.Page:
    """Say which layers answer."""
    return asked.Page(items=desk.layers())


# Audit.


def queries(_: Desk, __: asked.Nothing) -> asked.Page:
    """List the queries there are."""
    return asked.Page(items=[_described(name, text) for name, text in AUDIT_QUERIES.items()])


def _described(name: str, text: str) -> asked.AuditQuery:
    lines = text.strip().splitlines()
    says = " ".join(line.removeprefix("--").strip() for line in lines if line.startswith("--"))
    statement = "\n".join(line for line in lines if not line.startswith("--")).rstrip(";")
    return asked.AuditQuery(name=name, says=says, sql=statement)


def sql(desk: Desk, wanted: asked.AuditSql) -> bytes:
    """Answer one SELECT over the tables of a tenant, which are all that it can name."""
    if bool(wanted.sql) == bool(wanted.query):
        raise InvalidInput("sql: give a `sql`, or the name of a `query`")
    if wanted.query and wanted.query not in AUDIT_QUERIES:
        raise InvalidInput(f"sql: there is no query {wanted.query!r:.60}; there are {', '.join(AUDIT_QUERIES)}")
    text = _described(wanted.query, AUDIT_QUERIES[wanted.query]).sql if wanted.query else wanted.sql
    tenant, since_us = desk.tenant(wanted.tenant), _us(wanted.since)
    body, problem = desk.reply(QUERY_TENANT, TenantSql(text, wanted.parameters, tenant, since_us))
    if problem:
        raise InvalidInput(problem)
    return body


_AHEAD_US = 2**62
_PIECE_ROWS = 50_000
_FOUND = asked.FoundEntry.__struct_fields__[:-1]
_SEARCH_S = 0.15
"""How long one question searches: where it ends, the next goes on."""


def search(desk: Desk, wanted: asked.AuditSearch) -> asked.FoundEntries:
    """Search the journal, newest entries first, as far back as the time for one question goes."""
    if wanted.cursor and not (wanted.cursor.isascii() and wanted.cursor.isdecimal() and len(wanted.cursor) < 19):
        raise InvalidInput(f"search: {wanted.cursor!r:.80} is no cursor: give the `next` of a page")
    ((rows,),) = desk.read("row_count")
    before = min(rows, int(wanted.cursor)) if wanted.cursor else rows
    filters = (desk.tenant(wanted.tenant) or "", wanted.stream, wanted.type, wanted.text)
    since_us, until_us = _us(wanted.since), _us(wanted.until) if wanted.until else _AHEAD_US
    piece = rows if wanted.stream or not wanted.text else _PIECE_ROWS  # what is compared as a whole is found at once
    found: list[asked.FoundEntry] = []
    size, until = 0, time.monotonic() + _SEARCH_S
    while before > 0:
        first, left = max(0, before - piece), wanted.limit - len(found)
        for *columns, body in desk.read("found", first, before, *filters, since_us, until_us, left):
            encoded = body.encode()
            size += len(encoded)
            if found and size > _EVENTS_BYTES:
                return _found(found, found[-1].position, found[-1].at_us)
            named = dict(zip(_FOUND, columns, strict=True))
            found.append(asked.FoundEntry(**named, event=Raw(encoded)))
        before = found[-1].position if len(found) == wanted.limit else first
        if len(found) == wanted.limit or not before:
            break
        ((reached_us,),) = desk.read("row_at", before)
        if reached_us < since_us:
            before = 0
        elif time.monotonic() >= until:
            return _found(found, before, reached_us)
    return _found(found, before, found[-1].at_us if before else since_us)


def _found(found: list[asked.FoundEntry], before: int, back_to_us: int) -> asked.FoundEntries:
    return asked.FoundEntries(items=found, next=str(before) if before else "", back_to_us=back_to_us)


def chain(desk: Desk, wanted: asked.ChainOf) -> asked.Page:
    """Say how chains stand."""
    tenant = desk.tenant(wanted.tenant)
    return asked.Page(items=desk.reply(CHAINS, ChainsRequest(tenant, wanted.check)))


# Policy.

_WEEK_US = 7 * 86_400_000_000


def policy(desk: Desk, wanted: asked.PolicyUse) -> asked.PolicyStanding:
    """Show the bundle in force, as far as it is about a tenant, and how often its rules fired there."""
    tenant = desk.tenant(wanted.tenant)
    text = desk.reply(BUNDLE, None)
    bundle = load_bundle(text)
    since_us = _us(wanted.since) if wanted.since else now_us() - _WEEK_US
    fired, reached_us = desk.rule_counts.since(desk.read, tenant, since_us)
    own, apart = _counts_of(fired, bundle)
    rules = (each if tenant is None else rule_of_tenant(each, tenant) for each in bundle.rules)
    return asked.PolicyStanding(
        version=bundle.version,
        description=bundle.description,
        since_us=reached_us,
        rules=tuple(_rule_use(desk, rule, *own.get(rule.id, (0, 0))) for rule in rules if rule is not None),
        apart=tuple(sorted(apart, key=lambda each: (-each.fired, each.version, each.rule))),
        text=text if desk.far == "all" else "",
    )


def _counts_of(fired: Sequence[Fired], bundle: Bundle) -> tuple[dict[str, tuple[int, int]], list[asked.DecisionCount]]:
    """Return how often the rules of a bundle fired and when last, by their ids; and what else decided."""
    ids = {rule.id for rule in bundle.rules}
    own: dict[str, tuple[int, int]] = {}
    others: dict[tuple[str, str, str], tuple[int, int]] = {}
    for each in fired:
        if each.version == bundle.version and each.rule in ids:
            count, last_us = own.get(each.rule, (0, 0))
            own[each.rule] = (count + each.calls, max(last_us, each.last_us))
        else:
            key = (each.version, each.rule, each.outcome)
            count, last_us = others.get(key, (0, 0))
            others[key] = (count + each.calls, max(last_us, each.last_us))
    return own, [
        asked.DecisionCount(version=version, rule=rule, outcome=outcome, fired=count, last_us=last_us)
        for (version, rule, outcome), (count, last_us) in others.items()
    ]


def _rule_use(desk: Desk, rule: Rule, fired: int, last_us: int) -> asked.RuleUse:
    return asked.RuleUse(
        id=rule.id,
        outcome=rule.outcome,
        words=rule_in_words(rule),
        description=rule.description,
        written=rule.model_dump(mode="json", exclude_unset=True),
        tools=tuple(sorted(spec.name for spec in desk.tools.values() if may_match(rule.when, spec))),
        fired=fired,
        last_us=last_us,
    )


# Tenants.


def tenants(desk: Desk, wanted: asked.OfTenant) -> asked.Page:
    """Show what tenants may have; of one that is named or one's own, also what is kept in its memory."""
    tenant = desk.tenant(wanted.tenant)
    there = desk.directory.tenants
    if tenant is not None:
        return asked.Page(items=[_tenant(tenant, there[tenant], desk.kept(tenant))])
    return asked.Page(items=[_tenant(name, there[name], None) for name in sorted(there)[: asked.MOST_LISTED]])


def _tenant(name: str, entry: Tenant, memory: MemoryStanding | None) -> asked.TenantStanding:
    return asked.TenantStanding(
        tenant=name,
        concurrency=entry.concurrency,
        queue=entry.queue,
        weight=entry.weight,
        rate_per_minute=entry.rate_per_minute,
        clearance=entry.clearance,
        deadline_s=entry.deadline_s,
        limits=dict(entry.limits),
        principals=len(entry.principals),
        is_open=entry.open,
        memory=memory,
    )


def _us(moment: datetime | None) -> int:
    if moment is None:
        return 0
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1_000_000)


# Memory.


def memory(desk: Desk, wanted: asked.MemorySearch) -> asked.Page:
    """Search the memory of the keeper's tenant, as far as the keeper's clearance goes."""
    who = desk.caller.identity
    order = MemoryOrder(
        action="search",
        tenant=who.tenant,
        by=who.principal,
        at_us=now_us(),
        nonce=secrets.token_bytes(16),
        request=RecallRequest(
            tenant=who.tenant,
            query=wanted.text,
            clearance=who.clearance,
            top_k=wanted.limit,
            min_score=wanted.min_score,
        ),
    )
    found = msgspec.msgpack.decode(desk.reply(MEMORY_ORDER, seal_memory_order(desk.seal_key, order)), type=MemoryAnswer)
    if found.problem:
        raise MemoryFailed(found.problem)
    reply = msgspec.msgpack.decode(found.data, type=RecallReply)
    if reply.error:
        raise MemoryFailed(reply.error)
    return asked.Page(items=[msgspec.structs.asdict(record) for record in reply.records])


def me(desk: Desk, _: asked.Nothing) -> asked.WhoAsks:
    """Say who asks, and what that one may."""
    who, areas = desk.caller.identity, desk.caller.areas
    return asked.WhoAsks(
        tenant=who.tenant,
        principal=who.principal,
        roles=who.roles,
        areas=None if areas is None else sorted(areas),
        may=dict(reaches(desk.caller, desk.directory.house)),
    )


_VIEWS: dict[str, Callable[[Desk, Any], Any]] = {
    "counts": counts,
    "runs": runs,
    "run": run,
    "events": events,
    "story": story,
    "approvals": approvals,
    "approval_form": approval_form,
    "in_doubt": in_doubt,
    "spend_in_doubt": spend_in_doubt,
    "switches": switches,
    "budgets": budgets,
    "batches": batches,
    "batch": batch,
    "queries": queries,
    "sql": sql,
    "search": search,
    "chain": chain,
    "policy": policy,
    "tenants": tenants,
    "health": health,
    "memory": memory,
    "me": me,
}
