"""Views by credential, over a real journal: everybody is shown what the table of access gives, nothing of others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from airside.actors import looking, views
from airside.actors.ingress import Ingress
from airside.actors.journal.store import JournalStore
from airside.actors.rpc.layer import LayerConfig, now_us
from airside.actors.rpc.methods import (
    ASKED,
    BODIES,
    BUDGETS,
    BUNDLE,
    CHAINS,
    LOOK,
    MEMORY_ORDER,
    PENDING,
    QUERY_TENANT,
    ROWS,
    SWITCHES,
    PresentedQuestion,
    QuestionReply,
)
from airside.actors.settings import Settings
from airside.actors.views import _page_in_time
from airside.stack.approvals.book import Approval, ApprovalRequested, ApprovalVoted
from airside.stack.budget.ledger import Cap
from airside.stack.budget.reservations import BudgetReservations
from airside.stack.contracts.memory import Recalled, RecallReply
from airside.stack.directory import load_directory
from airside.stack.errors import LayerUnavailable
from airside.stack.ids import ApprovalId, PrincipalId, RunId, TenantId
from airside.stack.journal.journaling import Append
from airside.stack.journal.stream import append_of
from airside.stack.operations.batches import BatchChange, BatchChanged, stream_of
from airside.stack.operations.questions import VIEWS, LayerHealth
from airside.stack.policy.kill_switches import KillSwitchChanged
from airside.stack.reasons import ReasonCode
from airside.stack.run import events as ev
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.security.access import ACCESS
from airside.stack.security.authenticator import issue_token
from airside.stack.security.memory_orders import MemoryAnswer, open_memory_order
from airside.stack.values import NULL, ApprovalRule, BatchJob, Outcome, Usage
from tests import on_wire
from tests.helpers import KEY, submitted
from tests.unit.stack.security.test_authenticator import SIGNER, pem_of, public_of

TENANTS = """
tenants:
  acme:
    clearance: restricted
    principals:
      ann: {}
      bob: {roles: [boss]}
      op: {roles: [operator]}
      lea: {roles: [auditor]}
      kim: {roles: [memory_keeper], clearance: public}
  beta: {principals: {eve: {roles: [operator, auditor, memory_keeper]}, ed: {}}}
  ours: {principals: {root: {roles: [operator, auditor, memory_keeper]}}}
"""
ANNS, BOBS, EDS = (RunId("run_" + letter * 24) for letter in "abe")
GONE = "run_" + "0" * 24
APPROVAL = ApprovalId(f"apr_{ANNS}_1_" + "a" * 12)
NOW = 1_700_000_000_000_000
SECRET = "quetzal"
"""What only beta's run says."""


def _run(run_id: RunId, tenant: str, principal: str, text: str, at: int, batch: str = "") -> Append:
    first = submitted(text=text, batch=BatchJob(id=batch) if batch else None)
    who = msgspec.structs.replace(first.identity, tenant=TenantId(tenant), principal=PrincipalId(principal))
    begun = msgspec.structs.replace(first, run_id=run_id, identity=who, at_us=at)
    outcome = Outcome(status="completed", reason_code=ReasonCode.COMPLETED, answer=msgspec.Raw(b'"done"'))
    ended = ev.RunEnded(outcome=outcome, usage=Usage(steps=2, cost_microusd=7), at_us=at + 5)
    return append_of(TenantId(tenant), run_id, [begun, ended])


ASKED_OF_BOSSES = ApprovalRequested(
    at_us=NOW,
    approval_id=APPROVAL,
    tenant=TenantId("acme"),
    requester=PrincipalId("ann"),
    run_id=ANNS,
    step=1,
    tool="pay",
    tool_version="1",
    policy_version="1",
    rule="r",
    effect="write",
    arguments=msgspec.Raw(b'{"to":"x"}'),
    terms=ApprovalRule(roles=("boss",)),
    expires_us=NOW + 5,
)
VOTED = ApprovalVoted(
    at_us=NOW + 1, approval_id=APPROVAL, by=PrincipalId("bob"), roles=("boss",), verdict="approve", arguments=NULL
)


def _opened(tenant: str, at: int) -> BatchChanged:
    change = BatchChange(action="open", tenant=TenantId(tenant), principal=PrincipalId("ann" if tenant else ""))
    return BatchChanged(at_us=NOW + at, by=PrincipalId("operator-x"), change=change)


def _switch(scope: Any, target: str) -> KillSwitchChanged:
    return KillSwitchChanged(at_us=NOW, scope=scope, target=target, off=True, by=PrincipalId("x"), why="w")


OFF = [
    _switch("tenant", "acme"),
    _switch("tenant", "beta"),
    _switch("principal", "beta/ed"),
    _switch("run", EDS),
    _switch("run", ANNS),
    _switch("tool", "pay"),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JournalStore]:
    """A journal with runs of two tenants, a batch of each, and an approval."""
    with closing(JournalStore(tmp_path_factory.mktemp("journal"), KEY)) as made:
        system = TenantId("airside")
        appends = [
            _run(ANNS, "acme", "ann", "do mine", NOW, "ours"),
            _run(BOBS, "acme", "bob", "do Bob's", NOW + 10, "both"),
            _run(EDS, "beta", "ed", SECRET, NOW + 20, "both"),
            append_of(TenantId("acme"), APPROVAL, [ASKED_OF_BOSSES, VOTED]),
            append_of(system, stream_of("ours"), [_opened("acme", 0)]),
            append_of(system, stream_of("both"), [_opened("acme", 1)]),
            append_of(system, stream_of("empty"), [_opened("", 1)]),
            append_of(TenantId("beta"), stream_of("forged"), [_opened("acme", 2)]),
        ]
        assert {reply.verdict for reply in made.commit(appends)} == {"ok"}
        yield made


BUNDLE_TEXT = """
version: v1
rules:
  - {id: reads, outcome: allow, when: {effect: [read], tenant: [acme, beta]}}
  - {id: betas, outcome: deny, when: {tenant: [beta]}}
  - {id: pays, outcome: deny, description: Nobody pays., when: {tool: [pay]}}
"""


class Layers:
    """The layers that views ask; the journal is a real one."""

    def __init__(self, store: JournalStore) -> None:
        self.store = store
        self.spending = BudgetReservations([Cap(unit="tokens", limit=9)], {"acme": [Cap(unit="steps", limit=5)]})
        self.clearances: list[str] = []
        self.hold: asyncio.Event | None = None

    async def call(self, method: Any, asked: Any) -> Any:
        """Answer."""
        if self.hold is not None:
            await self.hold.wait()
        waiting = [msgspec.json.encode(Approval(request=ASKED_OF_BOSSES))]
        answers: dict[Any, Any] = {
            BODIES: lambda: self.store.bodies(asked),
            ROWS: lambda: self.store.read(asked.name, asked.parameters),
            PENDING: lambda: waiting if asked in (None, "acme") else [],
            ASKED: lambda: waiting if asked == "grp_1" else [],
            SWITCHES: lambda: [msgspec.json.encode(switch) for switch in OFF],
            BUDGETS: lambda: msgspec.json.encode(
                self.spending.standings(TenantId(asked) if asked else None, now_us=NOW)
            ),
            BUNDLE: lambda: BUNDLE_TEXT,
            CHAINS: lambda: [
                self.store.chain_check(lambda: NOW).standing(name, self.store.count_of(name))
                for name in self.store.tenants()
                if asked.tenant in (None, name)
            ],
            MEMORY_ORDER: lambda: self._searched(asked),
            QUERY_TENANT: lambda: self._queried(asked),
        }
        return answers[method]()

    def _queried(self, asked: Any) -> tuple[bytes, str]:
        try:
            found = self.store.query_apart(asked.sql, asked.parameters, tenant=asked.tenant, since_us=asked.since_us)
        except Exception as error:
            return b"", str(error)
        return found, ""

    def _searched(self, sealed: bytes) -> bytes:
        order = open_memory_order(KEY, sealed, now_us())
        assert order is not None and order.request is not None and order.action == "search"
        self.clearances.append(f"{order.tenant} {order.request.clearance} {order.request.query}")
        record = Recalled(
            record_id="r1",
            text="likes tea",
            score=0.9,
            source="s",
            sensitivity="public",
            kind="fact",
            created_us=1,
            expires_us=2,
        )
        return msgspec.msgpack.encode(MemoryAnswer(data=msgspec.msgpack.encode(RecallReply(records=(record,)))))


async def ingress(layers: Any, house: str = "") -> Ingress:
    """Return an Ingress that asks these layers."""
    directory = load_directory(TENANTS + (f"house: {house}\n" if house else ""))
    made = Ingress(LayerConfig(Settings(), Path("unused"), seal_key=KEY), directory, public_of(SIGNER))
    await made.ready()
    made._journal = made._driver = made._approvals = made._policy = made._memory = layers
    return made


def token(who: str, **claims: Any) -> str:
    """Return the token of a principal, `name@tenant`."""
    name, _, tenant = who.partition("@")
    return issue_token(pem_of(SIGNER), tenant=tenant, principal=name, now_s=int(time.time()), ttl_s=60, claims=claims)


async def look(it: Ingress, who: str, view: str, **parameters: Any) -> QuestionReply:
    """Return the reply to somebody's question."""
    return await on_wire.ask(it, LOOK, PresentedQuestion(token(who), view, msgspec.json.encode(parameters)))


async def found(it: Ingress, who: str, view: str, **parameters: Any) -> Any:
    """Return what is answered."""
    reply = await look(it, who, view, **parameters)
    assert not reply.code, reply
    return msgspec.json.decode(reply.body)


async def items(it: Ingress, who: str, view: str, **parameters: Any) -> list[Any]:
    """Return what is listed."""
    listed: list[Any] = (await found(it, who, view, **parameters))["items"]
    return listed


NEEDED: dict[str, dict[str, Any]] = {
    "run": {"run_id": EDS},
    "events": {"run_id": EDS},
    "story": {"run_id": EDS},
    "batch": {"batch": "both"},
    "approval_form": {"approval_id": APPROVAL},
    "sql": {"sql": "SELECT * FROM events"},
    "memory": {"text": "tea"},
}
"""What views need to be asked."""

EVERYBODY = [f"{name}@acme" for name in ("ann", "bob", "op", "lea", "kim")]


def test_every_view_of_the_table_takes_something() -> None:
    """And no other is there."""
    assert {f"view:{view}" for view in VIEWS} == {name for name in ACCESS if name.startswith("view:")}
    assert VIEWS.keys() == views._VIEWS.keys()


@pytest.mark.parametrize("view", sorted(VIEWS))
async def test_nobody_is_shown_anything_of_another_tenant(
    store: JournalStore, view: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In any view, whatever the role, whether he names the other's things or not."""

    async def layers(_: Any) -> list[LayerHealth]:
        return [LayerHealth(layer="driver", up=True)]

    async def kept(*_: Any) -> None:
        return None

    monkeypatch.setattr(looking.Looking, "_layers", layers)
    monkeypatch.setattr(looking.Looking, "_kept", kept)
    it = await ingress(Layers(store), house="ours")
    for who in EVERYBODY:
        for more in ({}, {"tenant": "beta"}):
            reply = await look(it, who, view, **NEEDED.get(view, {}), **more)
            said = reply.body.decode()
            assert SECRET not in said and '"ed"' not in said and "beta" not in said and EDS not in said
            if more and not reply.code:
                raise AssertionError("beta was answered")
    if view != "health":
        assert SECRET in "".join([(await look(it, "root@ours", v, run_id=EDS)).body.decode() for v in ("run", "story")])


@pytest.mark.parametrize("view", ["run", "events", "story"])
async def test_another_tenants_run_is_as_unknown_as_one_there_is_not(store: JournalStore, view: str) -> None:
    """Also a colleague's, to who asked for neither."""
    it = await ingress(Layers(store))
    for who, run in (("op@acme", EDS), ("lea@acme", EDS), ("ann@acme", EDS), ("ann@acme", BOBS), ("eve@beta", ANNS)):
        there, gone = await look(it, who, view, run_id=run), await look(it, who, view, run_id=GONE)
        assert (there.code, there.problem) == ("unknown", gone.problem.replace(GONE, run)) and gone.code == "unknown"
    for who, run in (("ann@acme", ANNS), ("op@acme", BOBS), ("lea@acme", ANNS), ("eve@beta", EDS)):
        assert not (await look(it, who, view, run_id=run)).code


async def test_runs_are_ones_own_the_tenants_or_all(store: JournalStore) -> None:
    """Page by page, newest first, by whatever they are filtered."""
    it = await ingress(Layers(store), house="ours")

    async def listed(who: str, **filters: Any) -> list[str]:
        return [run["run_id"] for run in await items(it, who, "runs", **filters)]

    assert await listed("ann@acme") == [ANNS] and await listed("ann@acme", principal="bob") == []
    assert await listed("op@acme") == await listed("lea@acme", tenant="acme") == [BOBS, ANNS]
    assert await listed("op@acme", principal="ann") == await listed("op@acme", batch="ours") == [ANNS]
    assert await listed("eve@beta") == [EDS] and await listed("root@ours") == [EDS, BOBS, ANNS]
    assert await listed("root@ours", tenant="beta") == [EDS] and await listed("op@acme", status="active") == []
    assert await listed("op@acme", since="2100-01-01T00:00:00Z") == []
    seen, cursor = [], ""
    while True:
        page = await found(it, "root@ours", "runs", limit=1, cursor=cursor)
        seen += [run["run_id"] for run in page["items"]]
        cursor = page["next"]
        if not cursor:
            break
    assert seen == [EDS, BOBS, ANNS]
    others = await look(it, "root@ours", "runs", tenant="gone")
    assert (others.code, (await look(it, "op@acme", "runs", tenant="beta")).code) == ("unknown", "unknown")


async def test_a_run_is_shown_with_its_result_its_events_and_its_story(store: JournalStore) -> None:
    """Events from any place on; past the end there is nothing more."""
    it = await ingress(Layers(store))
    run = await found(it, "ann@acme", "run", run_id=ANNS)
    assert (run["run"]["status"], run["run"]["cost_microusd"], run["answer"]) == ("completed", 7, "done")
    first = await found(it, "ann@acme", "events", run_id=ANNS, limit=1)
    assert [e["type"] for e in first["events"]] == ["RunSubmitted"] and (first["next"], first["ended"]) == (1, False)
    rest = await found(it, "ann@acme", "events", run_id=ANNS, after=1)
    assert [e["type"] for e in rest["events"]] == ["RunEnded"] and (rest["next"], rest["ended"]) == (2, True)
    assert (await found(it, "ann@acme", "events", run_id=ANNS, after=9))["events"] == []
    assert "do mine" in (await found(it, "ann@acme", "story", run_id=ANNS))["text"]


async def test_runs_are_counted_by_their_states_as_far_as_one_reaches(store: JournalStore) -> None:
    """One's own, the tenant's, or all; those that ended before a time are left out."""
    it = await ingress(Layers(store), house="ours")
    ended = {"status": "completed", "reason_code": "completed", "tokens": 0, "cost_microusd": 7, "runs": 1}
    assert await items(it, "ann@acme", "counts") == [{**ended, "tenant": "acme"}]
    two = {**ended, "runs": 2, "cost_microusd": 14}
    assert await items(it, "op@acme", "counts") == [{**two, "tenant": "acme"}]
    assert await items(it, "root@ours", "counts") == [{**two, "tenant": "acme"}, {**ended, "tenant": "beta"}]
    assert await items(it, "root@ours", "counts", tenant="beta") == [{**ended, "tenant": "beta"}]
    assert (await look(it, "op@acme", "counts", tenant="beta")).code == "unknown"
    assert await items(it, "op@acme", "counts", since="2100-01-01T00:00:00Z") == []


async def test_what_an_approvals_tool_takes_is_shown_to_who_may_see_the_approval(store: JournalStore) -> None:
    """And of a tool that the app has no more, and of what is another's, that there is none."""
    directory = load_directory(TENANTS)
    parameters = {"type": "object", "properties": {"to": {"type": "string"}}}
    spec = ToolSpec(name="pay", description="Pays.", parameters=parameters, effect="write", risk="low")
    for tools, answered in (([spec], True), ([], False)):
        config = LayerConfig(Settings(), Path("unused"), seal_key=KEY)
        it = Ingress(config, directory, public_of(SIGNER), tools=tools)
        await it.ready()
        it._journal = it._approvals = Layers(store)  # type: ignore[assignment]
        for who in ("ann@acme", "bob@acme", "op@acme"):
            reply = await look(it, who, "approval_form", approval_id=APPROVAL)
            assert reply.code == ("" if answered else "unknown")
        if answered:
            form = await found(it, "bob@acme", "approval_form", approval_id=APPROVAL)
            assert form == {"tool": "pay", "description": "Pays.", "parameters": parameters}
        for who in ("kim@acme", "eve@beta"):
            assert (await look(it, who, "approval_form", approval_id=APPROVAL)).code == "unknown"


async def test_approvals_are_shown_to_who_asked_who_may_vote_and_who_sees_to_the_tenant(store: JournalStore) -> None:
    """One is found by its id, decided or not, or by its question's."""
    it = await ingress(Layers(store), house="ours")
    for who in ("ann@acme", "bob@acme", "op@acme", "lea@acme", "root@ours"):
        assert [each["request"]["approval_id"] for each in await items(it, who, "approvals")] == [APPROVAL]
        (one,) = await items(it, who, "approvals", approval_id=APPROVAL)
        assert (one["outcome"], one["request"]["arguments"]) == ("approved", {"to": "x"})
        assert len(await items(it, who, "approvals", approval_id="grp_1")) == 1
    assert await items(it, "kim@acme", "approvals") == await items(it, "ed@beta", "approvals") == []
    for who in ("kim@acme", "ed@beta", "eve@beta"):
        for name in (APPROVAL, "grp_1", f"apr_{GONE}_1_" + "b" * 12):
            assert (await look(it, who, "approvals", approval_id=name)).code == "unknown"
    page = await found(it, "ann@acme", "approvals", cursor=f"{ASKED_OF_BOSSES.at_us}:{APPROVAL}")
    assert page == {"items": [], "next": ""}


async def test_switches_of_others_are_not_listed(store: JournalStore) -> None:
    """Those that are about everybody are."""
    it = await ingress(Layers(store), house="ours")
    targets = [(each["scope"], each["target"]) for each in await items(it, "op@acme", "switches")]
    assert targets == [("run", ANNS), ("tenant", "acme"), ("tool", "pay")]
    assert len(await items(it, "root@ours", "switches")) == len(OFF)
    assert len(await items(it, "root@ours", "switches", tenant="beta")) == 4


async def test_budgets_are_the_tenants_or_the_organisations(store: JournalStore) -> None:
    """The limit beside what is reserved, spent and in doubt."""
    it = await ingress(Layers(store), house="ours")
    (line,) = await items(it, "op@acme", "budgets")
    expected = {"unit": "steps", "per": "ever", "limit": 5, "reserved": 0, "spent": 0, "begins_us": 0}
    assert line == {"budget": expected, "in_doubt": 0}
    (ours,) = await items(it, "root@ours", "budgets")
    assert ours["budget"]["unit"] == "tokens" and await items(it, "eve@beta", "budgets") == []


async def test_batches_are_of_the_tenant_that_is_on_record_and_show_its_runs_alone(store: JournalStore) -> None:
    """Whoever else names a batch in what he submits is not seen in it, and takes it from nobody."""
    it = await ingress(Layers(store), house="ours")
    assert [each["id"] for each in await items(it, "op@acme", "batches")] == ["both", "ours"]
    assert await items(it, "eve@beta", "batches") == []
    assert [each["id"] for each in await items(it, "root@ours", "batches")] == ["both", "empty", "ours"]
    shown = await found(it, "lea@acme", "batch", batch="both")
    assert shown["outcomes"][0]["runs"] == 1
    assert (shown["tenant"], shown["principal"], shown["opened_by"]) == ("acme", "ann", "operator-x")
    assert (await found(it, "root@ours", "batch", batch="both"))["outcomes"][0]["runs"] == 2
    for batch in ("empty", "gone"):
        assert (await look(it, "op@acme", "batch", batch=batch)).code == "unknown"
    assert (await look(it, "eve@beta", "batch", batch="both")).code == "unknown"
    assert (await look(it, "root@ours", "batch", batch="gone")).code == "unknown"


async def test_lists_go_on_where_a_page_ends(store: JournalStore) -> None:
    """Whatever has come and gone meanwhile: a page begins after a time and a name."""
    it = await ingress(Layers(store), house="ours")
    ids, cursor = list[str](), ""
    while True:
        page = await found(it, "root@ours", "batches", limit=1, cursor=cursor)
        ids += [each["id"] for each in page["items"]]
        cursor = page["next"]
        if not cursor:
            break
    assert ids == ["both", "empty", "ours"]
    for view in ("batches", "in_doubt", "spend_in_doubt", "switches", "approvals"):
        assert (await look(it, "op@acme", view, cursor="nonsense")).code == "invalid"


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_a_list_in_time_is_shown_page_by_page(limit: int) -> None:
    places = [(5, "b"), (5, "a"), (1, "z:9"), (9, "c\nd"), (5, "c")]
    seen, cursor = list[tuple[int, str]](), ""
    while not seen or cursor:
        page = _page_in_time(places, cursor, limit, lambda each: each)
        seen, cursor = seen + page.items, page.next
    assert seen == sorted(places)


async def test_an_auditors_sql_is_asked_of_his_tenants_rows(store: JournalStore) -> None:
    """By the text, or by the name of a query there is; an operator has none."""
    it = await ingress(Layers(store), house="ours")
    count = "SELECT tenant, count(*) FROM runs GROUP BY ALL ORDER BY tenant"
    assert (await found(it, "lea@acme", "sql", sql=count))["rows"] == [["acme", 2]]
    assert (await found(it, "root@ours", "sql", sql=count))["rows"] == [["acme", 2], ["beta", 1]]
    assert (await found(it, "root@ours", "sql", sql=count, tenant="beta"))["rows"] == [["beta", 1]]
    narrow = await found(
        it, "lea@acme", "sql", sql="FROM runs WHERE run_id = ?", parameters=[ANNS], since="2100-01-01T00:00:00Z"
    )
    assert narrow["rows"] == []
    assert (await look(it, "op@acme", "sql", sql=count)).code == "wrong_role"
    for wrong in (
        {},
        {"sql": count, "query": "votes"},
        {"query": "gone"},
        {"sql": "DROP TABLE runs"},
        {"sql": "\udcff"},
    ):
        reply = await on_wire.ask(it, LOOK, PresentedQuestion(token("lea@acme"), "sql", _written(wrong)))
        assert reply.code == "invalid" and SECRET not in reply.problem


def _written(value: dict[str, Any]) -> bytes:
    return msgspec.json.encode(
        {k: v.encode("utf-8", "replace").decode() if k == "sql" else v for k, v in value.items()}
    )


async def test_every_query_for_auditors_is_described_and_works(store: JournalStore) -> None:
    """Over whatever rows there are."""
    it = await ingress(Layers(store))
    for query in await items(it, "lea@acme", "queries"):
        assert query["says"].endswith(".") and query["sql"].startswith("SELECT")
        assert (await found(it, "lea@acme", "sql", query=query["name"]))["columns"]
    by_principal = await found(it, "lea@acme", "sql", query="spend_by_principal")
    assert [row[0] for row in by_principal["rows"]] == ["ann", "bob"]


async def test_a_keeper_finds_in_memory_what_his_clearance_allows(store: JournalStore) -> None:
    """Of his tenant."""
    layers = Layers(store)
    it = await ingress(layers)
    (record,) = await items(it, "kim@acme", "memory", text="tea")
    assert record["text"] == "likes tea" and layers.clearances == ["acme public tea"]
    assert (await look(it, "op@acme", "memory", text="tea")).code == "wrong_role"


async def test_everybody_is_told_who_he_is_and_what_he_may(store: JournalStore) -> None:
    """As his token is narrowed."""
    it = await ingress(Layers(store), house="ours")
    ann, root = await found(it, "ann@acme", "me"), await found(it, "root@ours", "me")
    assert (ann["tenant"], ann["principal"], ann["roles"], ann["areas"]) == ("acme", "ann", [], None)
    assert ann["may"]["order:cancel"] == "own" and "order:kill" not in ann["may"]
    assert root["may"]["order:kill"] == "all" and root["may"]["view:memory"] == "tenant"
    asked = PresentedQuestion(token("op@acme", scope="memory"), "me")
    narrow = msgspec.json.decode((await on_wire.ask(it, LOOK, asked)).body)
    assert (narrow["areas"], list(narrow["may"])) == (["memory"], ["view:me"])


@pytest.mark.parametrize(
    ("view", "parameters"),
    [
        ("runs", b'{"limit":1001}'),
        ("runs", b'{"limit":0}'),
        ("runs", b'{"limit":"5"}'),
        ("runs", b'{"status":"odd"}'),
        ("runs", b'{"cursor":"odd"}'),
        ("runs", b'{"cursor":"1:odd"}'),
        ("runs", b'{"sql":"x"}'),
        ("runs", b"[]"),
        ("runs", b"{"),
        ("runs", b"\xff"),
        ("runs", b"[" * 5_000),
        ("run", b"{}"),
        ("run", b'{"run_id":"odd"}'),
        ("events", b'{"run_id":"run_x","after":-1}'),
        ("batch", b'{"batch":"../x"}'),
        ("approvals", b'{"approval_id":"odd"}'),
        ("gone", b"{}"),
        ("", b"{}"),
    ],
)
async def test_a_question_that_can_mean_nothing_is_invalid(store: JournalStore, view: str, parameters: bytes) -> None:
    """Whoever asks it; what is nobody's credential is told that first."""
    it = await ingress(Layers(store))
    reply = await on_wire.ask(it, LOOK, PresentedQuestion(token("op@acme"), view, parameters))
    assert reply.code == "invalid" and reply.problem and not reply.body
    assert (await on_wire.ask(it, LOOK, PresentedQuestion("junk", view, parameters))).code.startswith("auth_")


async def test_a_narrowed_token_is_shown_what_its_scope_allows(store: JournalStore) -> None:
    """An auditor's that only submits shows nothing."""
    it = await ingress(Layers(store))
    for scope, view, code in (
        ("runs:write", "runs", "auth_scope_missing"),
        ("runs:read", "runs", ""),
        ("audit", "runs", ""),
        ("runs:read", "queries", "auth_scope_missing"),
        ("audit", "queries", ""),
    ):
        asked = PresentedQuestion(token("lea@acme", scope=scope), view)
        assert (await on_wire.ask(it, LOOK, asked)).code == code


async def test_a_tenant_that_asks_too_much_at_a_time_keeps_no_other_out(
    store: JournalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a layer that does not answer is not waited for for ever."""
    layers = Layers(store)
    layers.hold = asyncio.Event()
    it = await ingress(layers)
    at_once = looking.MAX_QUESTIONS + looking.MAX_WAITING
    waiting = [asyncio.ensure_future(look(it, "op@acme", "runs")) for _ in range(at_once)]
    await asyncio.sleep(0)
    assert (await look(it, "lea@acme", "runs")).code == "too_many"
    other = asyncio.ensure_future(look(it, "eve@beta", "runs"))
    statement = asyncio.ensure_future(look(it, "eve@beta", "sql", sql="SELECT 1"))
    await asyncio.sleep(0)
    assert (await look(it, "eve@beta", "sql", sql="SELECT 1")).code == "too_many"
    layers.hold.set()
    replies = await asyncio.gather(*waiting, other, statement)
    assert [reply.code for reply in replies] == [""] * (at_once + 2)
    monkeypatch.setattr(looking, "LOOK_S", 0.05)
    layers.hold = asyncio.Event()
    assert (await look(it, "op@acme", "runs")).code == "unavailable"


async def test_what_waits_for_others_of_its_tenant_is_refused_in_time(
    store: JournalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And leaves no place taken."""
    monkeypatch.setattr(looking, "MAX_QUESTIONS", 1)
    monkeypatch.setattr(looking, "LOOK_S", 0.05)
    layers = Layers(store)
    layers.hold = asyncio.Event()
    it = await ingress(layers)
    replies = await asyncio.gather(*(look(it, "op@acme", "runs") for _ in range(3)))
    assert {reply.code for reply in replies} <= {"unavailable", "too_many"} and replies[0].code == "unavailable"
    layers.hold.set()
    assert [(await look(it, "op@acme", "runs")).code for _ in range(3)] == [""] * 3


async def test_answers_are_bounded_and_layers_that_are_away_are_told(
    store: JournalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With codes of their own."""
    monkeypatch.setattr(views, "MAX_BODY_BYTES", 50)
    assert (await look(await ingress(Layers(store)), "op@acme", "runs")).code == "too_large"

    class Away:
        async def call(self, *_: Any) -> Any:
            raise LayerUnavailable("journal: it is away")

    assert (await look(await ingress(Away()), "op@acme", "runs")).code == "unavailable"
