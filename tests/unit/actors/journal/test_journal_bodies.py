"""Whatever a runtime may append, every layer that begins from the journal begins again."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from airside.actors.journal import store as journal_store
from airside.actors.journal.projection import QUERIES
from airside.actors.journal.rows import LOOKED_INTO
from airside.actors.journal.store import JournalStore
from airside.stack.approvals.book import ApprovalBook, ApprovalExpired, ApprovalRequested, ApprovalVoted
from airside.stack.approvals.book import decode_approval_event as approval_event
from airside.stack.budget.recorded_usage import RecordedUsage
from airside.stack.budget.reservations import BudgetReservations
from airside.stack.cycle.claiming import Unfinished
from airside.stack.ids import ApprovalId, EffectKey, ExecutorId, PrincipalId, RunId, TenantId, child_run
from airside.stack.journal.journaling import Append, Entry
from airside.stack.journal.stream import append_of, entry_of
from airside.stack.policy.kill_switches import STREAM, KillSwitchChanged, KillSwitches
from airside.stack.reasons import ReasonCode
from airside.stack.run import events as ev
from airside.stack.security.grants import GrantRefused
from airside.stack.values import MOST, ApprovalRule, Finish, Outcome, Spend, ToolResult, Usage, tag_of
from tests.helpers import decision, submitted
from tests.journals import KEY, end, note

RUN, APPROVAL = RunId("run_live"), ApprovalId("apr_run_live_1")
NOW = 1_700_000_000_000_000
ACME = TenantId("acme")

SOUND: list[Any] = [
    msgspec.structs.replace(submitted(), run_id=RUN, at_us=1),
    ev.SpendAsked(step=1, epoch=0, price=Spend(tokens=MOST), wall_ms=5, at_us=1),
    ev.StepDecided(step=1, agent="a", proposal=Finish(answer="x", spend=Spend(tokens=7)), at_us=1),
    ev.ApprovalDecided(step=1, approval_id=APPROVAL, outcome="approved", at_us=1),
    ev.ActionGated(
        step=1, attempt=1, tool="pay", decision=decision(), wall_ms=3, cost_microusd=2, intent=True, at_us=1
    ),
    ev.EffectIntended(
        step=1, attempt=1, key=EffectKey("k"), tool="pay", digest="", wall_ms=3, cost_microusd=2, at_us=1
    ),
    ev.ToolExecuted(step=1, attempt=1, result=ToolResult(ok=True, output=Raw(b"[1]"), duration_us=3), at_us=1),
    ev.RunEnded(outcome=Outcome(status="completed", reason_code=ReasonCode.COMPLETED), usage=Usage(), at_us=1),
    ApprovalRequested(
        at_us=1,
        approval_id=APPROVAL,
        tenant=ACME,
        requester=PrincipalId("ann"),
        run_id=RUN,
        step=1,
        tool="pay",
        tool_version="1",
        policy_version="1",
        rule="r",
        effect="write",
        arguments=Raw(b"{}"),
        binding="",
        terms=ApprovalRule(roles=("boss",)),
        expires_us=5,
    ),
    ApprovalVoted(at_us=1, approval_id=APPROVAL, by=PrincipalId("bob"), roles=("boss",), verdict="approve"),
    ApprovalExpired(at_us=1, approval_id=APPROVAL),
    GrantRefused(
        at_us=1,
        executor=ExecutorId("e"),
        reason_code=ReasonCode.GRANT_INVALID,
        detail="",
        presented_sha256="",
        run_id=RUN,
    ),
    KillSwitchChanged(at_us=1, scope="all", target="", off=True, by=PrincipalId("ann")),
]
KINDS = {tag_of(event): msgspec.json.encode(event) for event in SOUND}
STREAMS = {"RunSubmitted": RUN, "SwitchThrown": STREAM} | dict.fromkeys(
    ["ApprovalRequested", "ApprovalVoted", "ApprovalExpired"], APPROVAL
)


def appended(kind: str, body: bytes, stream: str = "", **fields: Any) -> Append:
    """Return the append of one entry at the start of a stream."""
    place: dict[str, Any] = {"tenant": ACME, "epoch": 0, "first_seq": 0} | fields
    entry = Entry(type=kind, step=1, at_us=place.pop("at_us", 1), cause=-1, body=body)
    return Append(stream=stream or STREAMS.get(kind, "run_x"), entries=(entry,), **place)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JournalStore]:
    """A journal."""
    with closing(JournalStore(tmp_path, KEY)) as made:
        yield made


def begin(store: JournalStore) -> ApprovalBook:
    """Begin everything that begins from the journal, and ask all named queries."""
    BudgetReservations((), {}, [RecordedUsage(*row) for row in store.rows("spent", 1, 2, 3, NOW)], NOW)
    book = ApprovalBook(approval_event(row[0]) for row in store.rows("approvals"))
    ApprovalBook(approval_event(row[0]) for row in store.rows("decided_since", -(2**62)))
    KillSwitches(store.bodies([STREAM])[STREAM])
    asked = {
        "branches": [RUN],
        "unfinished_below": [RUN],
        "unfinished": [],
        "orphans": [],
        "outcomes": [[RUN]],
        "doubtful": [""],
        "doubtful_rollbacks": [""],
        "spend_doubtful": [""],
        "spend_resolved": [],
        "attempts_since": [0, 99],
        "beside": [RUN, RUN],
        "listed": ["", "", "", 0, True, 99, "", "", 0, ""],
        "feed": ["acme", 0, 1000, 2**22],
        "counted": ["", "", 0],
        "batches": ["acme", 0, "", 10],
        "active_of_batch": ["nightly", ""],
        "named": ["run_a", "", "", "", False],
        "batch_outcomes": [["nightly"], "acme"],
        "fired": [0, 99],
        "row_count": [],
        "row_at": [0],
        "found": [0, 99, "acme", "", "", "pay", 0, NOW, 10],
    }
    for name, parameters in asked.items():
        store.rows(name, *parameters)
    assert {"spent", "approvals", "decided_since", *asked} == QUERIES.keys() - {
        "schema",
        "false_runs",
        "false_outcomes",
        "tenants",
        "chain",
    }
    assert store.verify() == []
    return book


def test_a_branch_is_an_orphan_once_its_root_has_ended_and_it_has_not(store: JournalStore) -> None:
    branches = [child_run(RunId(RUN), 1, branch) for branch in range(2)]
    for run_id, parent in [(RUN, None), *((branch, RUN) for branch in branches)]:
        first = entry_of(msgspec.structs.replace(submitted(), run_id=RunId(run_id), parent=parent))
        tenant = submitted().identity.tenant
        store.commit([Append(tenant=tenant, stream=run_id, epoch=0, first_seq=0, entries=(first,))])
    store.commit([end(branches[0], 1)])
    assert store.rows("orphans") == []
    store.commit([end(RUN, 1)])
    assert [Unfinished(*row)[:4] for row in store.rows("orphans")] == [(branches[1], "acme", RUN, 0)]


def test_every_kind_that_is_looked_into_is_tried() -> None:
    """And each is taken in as its own layer writes it."""
    assert KINDS.keys() == LOOKED_INTO.keys()


@pytest.mark.parametrize("kind", LOOKED_INTO)
def test_a_body_that_is_not_what_it_is_called_is_refused(store: JournalStore, kind: str) -> None:
    """As an error, before it is acknowledged; the true one goes in."""
    other = KINDS["EffectIntended" if kind != "EffectIntended" else "ToolExecuted"]
    unread = KINDS[kind][:-1] + b',"unknown":1}'
    bad = [b"not json", b"{}", b"null", b"[" * 100_000, other, KINDS[kind][:-1], unread, KINDS[kind] + b"x", b"\xff"]
    replies = store.commit([appended(kind, body) for body in bad] + [appended(kind, KINDS[kind])])
    assert [reply.verdict for reply in replies] == ["error"] * len(bad) + ["ok"]
    assert all("can never be journaled" in reply.detail for reply in replies[:-1])
    begin(store)


def test_what_belongs_in_another_stream_is_refused(store: JournalStore) -> None:
    """Nobody votes in the stream of another approval, and the switches' has nothing but switches."""
    wrong = [
        appended("ApprovalVoted", KINDS["ApprovalVoted"], "apr_other"),
        appended("Note", b"{}", STREAM),
        appended("EffectIntended", KINDS["EffectIntended"], STREAM),
    ]
    assert [reply.verdict for reply in store.commit(wrong)] == ["error"] * 3


def test_a_vote_on_what_nobody_asked_for_stops_nobody(store: JournalStore) -> None:
    """It decides nothing either, whatever comes after it."""
    vote, asked = (appended(kind, KINDS[kind]).entries[0] for kind in ("ApprovalVoted", "ApprovalRequested"))
    store.commit([Append(tenant=ACME, stream=APPROVAL, epoch=0, first_seq=0, entries=(vote,))])
    assert begin(store).get(APPROVAL) is None
    store.commit([Append(tenant=ACME, stream=APPROVAL, epoch=0, first_seq=1, entries=(asked,))])
    assert [approval.outcome for approval in begin(store).pending()] == [""]


@pytest.mark.parametrize("name", [":", "", "a b", "x" * 200, "größe"])
def test_an_intent_of_what_can_be_no_tool_stops_nobody(store: JournalStore, name: str) -> None:
    """A runtime that lies may write one; the gate begins, and counts it where a budget can name it."""
    body = msgspec.json.encode({**json.loads(KINDS["ActionGated"]), "tool": name})
    store.commit([appended("RunSubmitted", KINDS["RunSubmitted"])])
    entry = appended("ActionGated", body).entries[0]
    assert store.commit([Append(tenant=ACME, stream=RUN, epoch=0, first_seq=1, entries=(entry,))])[0].verdict == "ok"
    begin(store)


def test_what_was_let_in_before_stops_nobody(store: JournalStore) -> None:
    """A body in the log that would be refused now is nothing to the queries that look into it, and hides no other."""
    store.commit([note(RUN, 0, 1), appended("ApprovalRequested", KINDS["ApprovalRequested"])])
    odd = [b"not json", b"{}", b"[]", b'{"cost_microusd":"x","wall_ms":1e400,"result":5,"approval_id":7}']
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal_store, "check_entry", lambda *_: {})
        kinds = [kind for kind in LOOKED_INTO if not kind.startswith(("Run", "ApprovalV", "ApprovalE", "ApprovalR"))]
        kinds.remove("SwitchThrown")
        entries = [appended(kind, body).entries[0] for kind in kinds for body in odd]
        append = Append(tenant=ACME, stream=RUN, epoch=0, first_seq=1, entries=tuple(entries))
        assert store.commit([append])[0].verdict == "ok"
    assert begin(store).get(APPROVAL) is not None


numbers = st.sampled_from([0, 1, -1, MOST, MOST + 1, 2**63 - 1, -(2**63), 2**64 - 1, 2**64, NOW])
wholes = st.sampled_from([0, 1, -1, NOW, 2**62, 2**63 - 1, -(2**63)])
values = st.one_of(numbers, st.none(), st.text(max_size=3), st.just([]), st.just({}), st.just(1.5), st.just(True))


@st.composite
def bodies(draw: st.DrawFn, kind: str) -> bytes:
    """Return a body of a kind with one of its values, at any depth, changed or said twice."""
    body = KINDS[kind]
    value = place = json.loads(body)
    while True:
        name = draw(st.sampled_from(sorted(place)))
        if not isinstance(place[name], dict) or not place[name] or draw(st.booleans()):
            break
        place = place[name]
    if draw(st.booleans()):
        said = json.dumps({name: draw(values)})[1:-1]
        where = json.dumps(place, separators=(",", ":")).encode()
        return body.replace(where, b"{" + said.encode() + b"," + where[1:], 1)
    place[name] = draw(values)
    return json.dumps(value, separators=(",", ":")).encode()


@st.composite
def entries(draw: st.DrawFn) -> tuple[str, str, Entry]:
    """Return an entry, and whose stream it is for."""
    kind = draw(st.sampled_from([*KINDS, "SpendRefused", "DecideFailed", "ExecutionLost", "Note"]))
    known = draw(bodies(kind)) if kind in KINDS and draw(st.booleans()) else KINDS.get(kind, b"not json")
    entry = Entry(type=kind, step=draw(wholes), at_us=draw(wholes), cause=-1, body=known)
    streams = st.sampled_from([RUN, RUN, f"{RUN}.1", APPROVAL, STREAM, "run_x.1.1", "", ".", "apr_z"])
    return draw(st.sampled_from(["acme", "globex"])), STREAMS.get(kind) or draw(streams), entry


@settings(max_examples=20, deadline=None)
@given(st.lists(entries(), min_size=1, max_size=40))
def test_whatever_is_taken_in_stops_nobody(sent: list[tuple[str, str, Entry]]) -> None:
    """Each layer begins, every named query is answered, and the journal is whole."""
    with tempfile.TemporaryDirectory() as folder, closing(JournalStore(Path(folder), KEY)) as store:
        store.commit([note(RUN, 0, 1), note("run_x", 0, 1, "globex")])
        lengths = {RUN: 1}
        for tenant, stream, entry in sent:
            first = lengths.get(stream, 0)
            append = Append(tenant=TenantId(tenant), stream=stream, epoch=0, first_seq=first, entries=(entry,))
            lengths[stream] = first + (store.commit([append])[0].verdict == "ok")
        begin(store)


def gated(outcome: str, arguments: bytes = b"{}") -> ev.ActionGated:
    """Return a decision about a call."""
    given = {"arguments": Raw(arguments), "intent": outcome == "allow"}
    return ev.ActionGated(at_us=1, step=1, attempt=1, decision=decision(outcome), tool="pay", **given)


@pytest.mark.parametrize(
    ("events", "is_looked_at"),
    [
        ([gated("require_approval")], False),
        ([gated("allow")], True),
        ([gated("allow", b'{"outcome":"require_approval"}')], True),
        ([gated("require_approval"), ev.RunActivated(at_us=1, epoch=0)], True),
        ([gated("allow"), ev.ExecutionLost(at_us=1, step=1, attempt=1, started=True, error="gone")], True),
        ([ev.RunSuspended(at_us=1, why="rest")], False),
    ],
    ids=["waits for people", "about to be sent", "says it waits", "taken up", "lost", "called nothing"],
)
def test_only_a_run_whose_latest_call_waits_for_people_is_not_looked_at_for_doubt(
    store: JournalStore, events: list[Any], is_looked_at: bool
) -> None:
    """Whatever else of it waits for them: of two calls that were asked about together the first may be in doubt."""
    first = msgspec.structs.replace(submitted(), run_id=RUN, at_us=1)
    store.commit([append_of(ACME, RUN, [first, *events]), appended("ApprovalRequested", KINDS["ApprovalRequested"])])
    assert store.rows("doubtful", "") == [(RUN,)] * is_looked_at
