"""What pages show, whatever stands in it; and votes and orders, each after a page that says what it does."""

from __future__ import annotations

import csv
import io
import json
import re
from html import unescape
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from airside.actors.client.display.batches import draw_summary
from airside.actors.console.render import MAX_SHOWN, drawn
from airside.actors.rpc.methods import OrderReply
from airside.stack.ids import GroupId
from airside.stack.operations.batches import BatchChange
from airside.stack.operations.messages import VoteReply
from airside.stack.text.entities import INVISIBLE
from tests.unit.actors.console.double import RUN, WAITING_RUN, ConsoleStack, an_approval, approval_id
from tests.unit.actors.console.pages import LIVE, PATHS, Browser, Checked, field_of

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'><svg/onload=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "</textarea></pre></title><a href='javascript:x'>",
    "safe\u202egnp.exe\u2066\u200b\u00ad",
    "\u05d0\u05d1\u05d2 \u0627\u0644",
    "half a \ud800 character".encode("utf-16", "surrogatepass").decode("utf-16", "replace"),
    "\x1b[31mred\x07\x00\x85",
    "two\nlines\r\nand\u2028more",
    "&lt;b&gt; &amp;",
    "]]>--><!--",
    "ab" * 500_000,
)
MAX_BYTES = 200_000
_HIDDEN = re.compile(f"[{INVISIBLE}\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


@pytest.fixture
def stack() -> ConsoleStack:
    """Return a stack."""
    return ConsoleStack()


@pytest.mark.parametrize("path", [*PATHS, f"/approvals/{approval_id(5)}", f"/approvals/{approval_id(5)}/edit"])
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
async def test_whatever_stands_in_it_a_page_is_a_page(path: str, text: str) -> None:
    """It runs nothing, hides nothing, and is no longer than people can take in."""
    browser = await Browser(ConsoleStack(text)).log_in("hugo")
    reply = await browser.get(path)
    assert reply.status_code == 200
    page = Checked(reply.text)
    assert not _HIDDEN.search(reply.text) and "49{%" not in page.text
    is_form = path.endswith("/edit") and len(text) > 1_000  # which has all of what is edited
    assert len(reply.text) < (1_000_000 if is_form else MAX_BYTES)


@pytest.mark.parametrize("path", LIVE)
@pytest.mark.parametrize("text", HOSTILE[:4], ids=range(4))
async def test_so_is_a_part_of_one(path: str, text: str) -> None:
    browser = await Browser(ConsoleStack(text)).log_in("hugo")
    Checked((await browser.part(path)).text)


@pytest.mark.parametrize("text", HOSTILE[:6], ids=range(6))
async def test_what_somebody_sent_is_said_again_as_harmlessly(stack: ConsoleStack, text: str) -> None:
    browser = await Browser(stack).log_in("hugo")
    for name in ("status", "reason", "tenant", "principal", "batch", "run"):
        Checked((await browser.client.get("/console/runs", params={name: text})).text)
    for path in (
        "/approvals?order=",
        "/policy?tenant=",
        "/orders?order=",
        "/login?because=",
        "/login?next=",
        "/nope?x=",
    ):
        name, _, _ = path.partition("?")
        query = {path.partition("?")[2].rstrip("="): text}
        Checked((await browser.client.get(f"/console{name}", params=query)).text)
    Checked((await browser.client.get("/console/orders", params={"order": "kill_run", "target": text})).text)
    Checked((await browser.post("/orders", order="settle", target=text, why=text, happened=text, output=text)).text)
    Checked((await browser.post("/audit", kind="sql", sql=text)).text)


async def test_a_batch_stands_on_its_page_as_it_is_drawn_elsewhere(
    stack: ConsoleStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = await Browser(stack).log_in("hugo")
    for phase, mark in (("finished", "wait"), ("running", "wait"), ("cancelled", "off")):
        batch = msgspec.structs.replace(ConsoleStack()._batch(), phase=phase)
        monkeypatch.setattr(stack, "_batch", lambda batch=batch: batch)
        drawing = draw_summary(batch)
        for path in ("/batches", "/batches/nightly"):
            page = (await browser.get(path)).text
            assert f'<span class="mark {mark}">{drawing.status}</span>' in page, path
        assert drawn(drawing) in page


async def test_a_long_value_is_cut_and_says_how_long_it_is() -> None:
    browser = await Browser(ConsoleStack("x" * 5_000)).log_in("hugo")
    page = Checked((await browser.get("/switches")).text).text
    assert f"{'x' * MAX_SHOWN}… (5,000 characters)" in page


async def test_the_inbox_is_in_the_order_that_is_wanted(stack: ConsoleStack) -> None:
    """By risk what can do most harm is first, by age what waits longest, by expiry what ends first."""
    browser = await Browser(stack).log_in()
    firsts = {}
    for order in ("risk", "age", "expiry"):
        page = (await browser.get(f"/approvals?order={order}")).text
        firsts[order] = re.findall(r"<strong>Call (\w+)</strong>", page)[0]
    assert firsts == {"risk": "refund_order", "age": "tag_order", "expiry": "send_mail"}
    assert "Nobody stands for amount_cents" in page and "Lou has rejected" in page


async def test_an_open_inbox_says_what_has_changed_and_moves_nothing(stack: ConsoleStack) -> None:
    browser = await Browser(stack).log_in()
    page = (await browser.get("/approvals")).text
    path = unescape(re.search(r'hx-get="/console([^"]*)"', page)[1])  # type: ignore[index]
    assert (await browser.part(path)).text.strip() == ""
    stack.approvals = [*stack.approvals[1:], an_approval(9)]
    reply = await browser.part(path)
    assert "1 new, 1 decided or expired" in reply.text and "refund_order" not in reply.text


async def test_a_call_is_shown_in_words_with_where_each_value_comes_from(stack: ConsoleStack) -> None:
    browser = await Browser(stack).log_in()
    page = Checked((await browser.get(f"/approvals/{approval_id(1)}")).text).text
    for said in (
        "Call refund_order",
        "amount_cents = 12900, notify = true",
        "it cannot be taken back",
        "the request says it",
        "a tool has returned it",
        "read_mail, step 3",
        "2 different people of lead",
        "lou (approve)",
        "order '4711'",
    ):
        assert said in page, said


@pytest.mark.parametrize("verdict", ["approve", "reject"])
async def test_a_vote_is_given_with_the_persons_credential_and_note(stack: ConsoleStack, verdict: str) -> None:
    browser = await Browser(stack).log_in("lea")
    reply = await browser.post(f"/approvals/{approval_id(1)}/vote", verdict=verdict, note=" looked ", words="Call x")
    (given,) = stack.votes
    assert (given.credential, given.approval_id, given.verdict) == ("lea", approval_id(1), verdict)
    assert (given.note, given.arguments, reply.status_code) == ("looked", b"", 303)
    page = Checked((await browser.get("/approvals")).text).text
    assert ("You have approved this: Call x" if verdict == "approve" else "You have rejected this: Call x") in page
    assert "You have" not in (await browser.get("/approvals")).text


async def test_a_vote_that_does_not_count_is_said_not_to(stack: ConsoleStack) -> None:
    browser = await Browser(stack).log_in("lea")
    stack.vote = VoteReply(ok=False, code="already_decided", message="it is decided: rejected")
    reply = await browser.post(f"/approvals/{approval_id(1)}/vote", verdict="approve")
    assert reply.headers["location"] == f"/console/approvals/{approval_id(1)}"
    assert "It does not count: it is decided: rejected" in (await browser.get("/approvals")).text


async def test_a_first_vote_of_two_says_that_more_are_needed(stack: ConsoleStack) -> None:
    browser = await Browser(stack).log_in("lea")
    stack.vote = VoteReply(ok=True, outcome="")
    await browser.post(f"/approvals/{approval_id(1)}/vote", verdict="approve")
    assert "more people have to vote" in (await browser.get("/approvals")).text


async def test_a_question_is_answered_by_one_of_its_choices(stack: ConsoleStack) -> None:
    browser = await Browser(stack).log_in("lea")
    page = (await browser.get(f"/approvals/{approval_id(4)}")).text
    assert 'value="the old one"' in page and 'value="approve"' not in page
    await browser.post(f"/approvals/{approval_id(4)}/vote", verdict="answer", answer="the old one")
    assert stack.votes[0].arguments == b'"the old one"'
    assert (await browser.get(f"/approvals/{approval_id(4)}/edit")).status_code == 422


@pytest.mark.parametrize("verdict", ["", "kill", "approve "])
async def test_what_is_no_vote_is_refused(stack: ConsoleStack, verdict: str) -> None:
    browser = await Browser(stack).log_in("lea")
    reply = await browser.post(f"/approvals/{approval_id(1)}/vote", verdict=verdict)
    assert (reply.status_code, stack.votes) == (422, [])


async def test_an_edit_shows_what_it_changes_before_it_is_sent(stack: ConsoleStack) -> None:
    browser = await Browser(stack).log_in("lea")
    fields = {
        "value:to": "bob@example.com",
        "value:subject": "Sorry <b>",
        "value:body": "Bob,\r\n\r\nwe are.\r\nAnn",
    }
    path = f"/approvals/{approval_id(2)}"
    reply = await browser.post(f"{path}/edit", **fields)
    page = Checked(reply.text).text
    assert reply.status_code == 200 and stack.votes == []
    assert "Your refund" in page and "Sorry <b>" in page and "bob@example.com" not in page
    arguments = unescape(field_of(reply.text, "arguments"))
    await browser.post(f"{path}/vote", verdict="edit", arguments=arguments)
    assert json.loads(stack.votes[0].arguments) == {
        "to": "bob@example.com",
        "subject": "Sorry <b>",
        "body": "Bob,\n\nwe are.\nAnn",
    }


async def test_an_edit_that_is_wrong_keeps_what_was_written(stack: ConsoleStack) -> None:
    browser = await Browser(stack).log_in("lea")
    fields = {"value:order": "4711", "value:amount_cents": "twelve", "value:notify": "true"}
    reply = await browser.post(f"/approvals/{approval_id(1)}/edit", **fields)
    assert reply.status_code == 422 and "amount_cents:" in reply.text and 'value="twelve"' in reply.text
    same = fields | {"value:amount_cents": "12900"}
    reply = await browser.post(f"/approvals/{approval_id(1)}/edit", **same)
    assert reply.status_code == 422 and "Nothing is changed" in reply.text


async def test_several_calls_are_shown_before_a_vote_on_all_of_them(stack: ConsoleStack) -> None:
    browser = await Browser(stack).log_in("lea")
    ids = [approval_id(1), approval_id(3)]
    reply = await browser.post("/approvals/together", verdict="approve", approval=ids)
    assert reply.status_code == 200 and stack.votes == [] and "Approve all 2" in reply.text
    assert "refund_order" in reply.text and "tag_order" in reply.text
    await browser.post("/approvals/together", verdict="approve", approval=ids, confirmed="yes", note="ok")
    assert [(vote.approval_ids, vote.verdict, vote.note) for vote in stack.joint_votes] == [
        (tuple(ids), "approve", "ok")
    ]
    assert "You have approved 2 calls." in (await browser.get("/approvals")).text


async def test_calls_that_are_asked_about_together_are_shown_together(stack: ConsoleStack) -> None:
    """One's page names the others, and leads to a vote on all of them; what was decided of them is not there."""
    group = GroupId(f"grp_{WAITING_RUN}_1_0")
    stack.approvals = [an_approval(n, group=group, arguments={"order": f"no-{n}"}) for n in (1, 2, 3)]
    stack.approvals[2] = msgspec.structs.replace(stack.approvals[2], outcome="rejected")
    browser = await Browser(stack).log_in("lea")
    page = (await browser.get(f"/approvals/{approval_id(1)}")).text
    Checked(page)
    assert "order = no-2" in page and "no-3" not in page and "Approve all 2 …" in page
    reply = await browser.post("/approvals/together", verdict="approve", approval=[approval_id(1), approval_id(2)])
    assert "Approve all 2" in reply.text and stack.votes == []


@pytest.mark.parametrize("gone", ["decided", "unknown", "question"])
async def test_if_one_of_several_waits_no_more_no_vote_is_given(stack: ConsoleStack, gone: str) -> None:
    browser = await Browser(stack).log_in("lea")
    ids = [approval_id(1), approval_id({"decided": 3, "unknown": 77, "question": 4}[gone])]
    if gone == "decided":
        stack.approvals[2] = msgspec.structs.replace(stack.approvals[2], outcome="rejected")
    await browser.post("/approvals/together", verdict="approve", approval=ids)
    assert "No vote was given: 1 of the 2 calls" in (await browser.get("/approvals")).text
    assert stack.joint_votes == []


@pytest.mark.parametrize("problem", ["another role is needed", "it is already rejected"])
async def test_a_vote_on_several_that_one_refuses_counts_on_none(stack: ConsoleStack, problem: str) -> None:
    browser = await Browser(stack).log_in("lea")
    stack.vote = VoteReply(ok=False, code="wrong_role", message=problem)
    ids = [approval_id(1), approval_id(3)]
    await browser.post("/approvals/together", verdict="reject", approval=ids, confirmed="yes")
    assert stack.joint_votes == stack.votes == []
    assert f"No vote was counted: {problem}." in (await browser.get("/approvals")).text


async def test_a_vote_on_several_that_need_more_votes_says_so(stack: ConsoleStack) -> None:
    browser = await Browser(stack).log_in("lea")
    stack.vote = VoteReply(ok=True, outcome="")
    ids = [approval_id(1), approval_id(3)]
    await browser.post("/approvals/together", verdict="approve", approval=ids, confirmed="yes")
    said = "You have approved 2 calls; 2 of them need more votes before they are decided."
    assert said in (await browser.get("/approvals")).text


@pytest.mark.parametrize(
    ("ids", "status"),
    [([], 303), ([approval_id(n) for n in range(101)], 303), (["x"], 400), ([approval_id(1)], 422)],
)
async def test_what_cannot_be_voted_on_together(stack: ConsoleStack, ids: list[str], status: int) -> None:
    browser = await Browser(stack).log_in("lea")
    verdict = "edit" if status == 422 else "approve"
    reply = await browser.post("/approvals/together", verdict=verdict, approval=ids, confirmed="yes")
    assert (reply.status_code, stack.votes) == (status, [])


# Orders.

ORDERS: list[tuple[str, str, dict[str, str], dict[str, Any]]] = [
    ("cancel_run", WAITING_RUN, {}, {"action": "cancel", "scope": "run", "target": WAITING_RUN}),
    ("kill_run", WAITING_RUN, {}, {"action": "kill", "scope": "run", "target": WAITING_RUN}),
    ("roll_back_run", RUN, {}, {"action": "rollback", "scope": "run", "target": RUN}),
    ("kill_tenant", "acme", {}, {"action": "kill", "scope": "tenant", "target": "acme"}),
    ("switch_off_run", RUN, {}, {"action": "switch_off", "scope": "run", "target": RUN, "until_us": 0}),
    ("switch_off", "acme/ann", {"scope": "principal"}, {"action": "switch_off", "scope": "principal"}),
    ("switch_off", "", {"scope": "all"}, {"action": "switch_off", "scope": "all", "target": ""}),
    ("switch_on", "send_mail", {"scope": "tool"}, {"action": "switch_on", "scope": "tool", "target": "send_mail"}),
    (
        "settle",
        f"{RUN}:2",
        {"happened": "yes", "output": '{"a": 1}'},
        {"action": "settle", "target": f"{RUN}:2", "happened": True, "output": b'{"a": 1}'},
    ),
    ("settle", f"{RUN}:2", {"happened": "no"}, {"happened": False, "output": b"null"}),
    (
        "resolve_spend",
        f"{RUN}:1/model@1",
        {"cost_microusd": "120", "tokens": "7"},
        {"action": "resolve_spend", "cost_microusd": 120, "tokens": 7},
    ),
    ("resolve_spend", f"{RUN}:1/model@1", {"cost_microusd": "0"}, {"cost_microusd": 0, "tokens": None}),
    ("pause_batch", "nightly", {}, {"action": "batch", "scope": "all", "target": "nightly"}),
    ("resume_batch", "nightly", {}, {"action": "batch"}),
    ("cancel_batch", "nightly", {}, {"action": "batch"}),
    ("retune_batch", "nightly", {"concurrency": "8", "priority": "-2"}, {"action": "batch"}),
    ("requeue_batch", "nightly", {"job_ids": "a\r\nb\r\n"}, {"action": "batch"}),
]


@pytest.mark.parametrize(("order", "target", "fields", "given"), ORDERS)
async def test_an_order_is_given_after_a_page_that_says_what_it_does(
    stack: ConsoleStack, order: str, target: str, fields: dict[str, str], given: dict[str, Any]
) -> None:
    """With the reason that was asked for, as whoever is logged in; then it is said what happened."""
    browser = await Browser(stack).log_in("hugo")
    reply = await browser.client.get("/console/orders", params={"order": order, "target": target})
    assert reply.status_code == 200 and stack.orders == []
    reply = await browser.post("/orders", order=order, target=target, why="it is wrong", **fields)
    assert reply.status_code == 303, Checked(reply.text).text
    (sent,) = stack.orders
    assert (sent.credential, sent.why) == ("hugo", "it is wrong")
    assert {name: getattr(sent, name) for name in given} == given
    assert 'class="flash good"' in (await browser.get("/now")).text


@pytest.mark.parametrize(
    ("order", "fields", "change"),
    [
        ("pause_batch", {}, {"action": "pause"}),
        ("retune_batch", {"concurrency": "8", "rate_per_s": "0"}, {"settings": {"concurrency": 8, "rate_per_s": 0}}),
        ("requeue_batch", {"job_ids": "a\n\n b \n"}, {"job_ids": ("a", "b")}),
    ],
)
async def test_what_a_change_of_a_batch_says(
    stack: ConsoleStack, order: str, fields: dict[str, str], change: dict[str, Any]
) -> None:
    browser = await Browser(stack).log_in("max")
    await browser.post("/orders", order=order, target="nightly", why="x", **fields)
    sent = msgspec.to_builtins(msgspec.json.decode(stack.orders[0].output, type=BatchChange))
    assert {name: sent[name] for name in change} == change


async def test_a_switch_for_some_hours_says_until_when(stack: ConsoleStack) -> None:
    browser = await Browser(stack).log_in("max")
    await browser.post("/orders", order="switch_off", target="acme", scope="tenant", hours="4", why="x")
    (sent,) = stack.orders
    assert sent.until_us > 1_700_000_000_000_000
    assert "is switched off until" in (await browser.get("/now")).text


@pytest.mark.parametrize(
    ("order", "fields", "says"),
    [
        ("kill_run", {"why": ""}, "say why"),
        ("kill_run", {"why": "x" * 1_001}, "at most 1,000"),
        ("switch_off", {"target": "", "scope": "tenant"}, "say which"),
        ("switch_off", {"scope": "planet"}, "choose one of the kinds"),
        ("switch_off", {"scope": "tool", "hours": "5"}, "choose one of the times"),
        ("settle", {}, "say whether it happened"),
        ("settle", {"happened": "yes", "output": "{"}, "what it returned"),
        ("resolve_spend", {"cost_microusd": "-1"}, "whole number"),
        ("resolve_spend", {"cost_microusd": "1", "tokens": "\u0665"}, "whole number"),
        ("retune_batch", {}, "say what is to be changed"),
        ("retune_batch", {"concurrency": "0"}, "how it is to run"),
        ("requeue_batch", {"job_ids": " \n "}, "one in a line"),
    ],
)
async def test_an_order_that_lacks_something_says_what(
    stack: ConsoleStack, order: str, fields: dict[str, str], says: str
) -> None:
    """On its own page, with what was written; nothing was sent."""
    browser = await Browser(stack).log_in("hugo")
    given = {"target": RUN, "why": "because", **fields}
    reply = await browser.post("/orders", order=order, **given)
    assert (reply.status_code, stack.orders) == (422, [])
    assert says in Checked(reply.text).text and ("because" in reply.text or "why" in fields)


async def test_what_the_stack_refuses_is_said_on_the_orders_page(stack: ConsoleStack) -> None:
    browser = await Browser(stack).log_in("max")
    stack.order = OrderReply(code="conflict", problem="it has not ended: kill it first")
    reply = await browser.post("/orders", order="roll_back_run", target=RUN, why="x")
    assert reply.status_code == 422 and "kill it first" in reply.text


@pytest.mark.parametrize("target", ["\u2603", "a b", "../now", "a?b=c&d#e", "x" * 300])
async def test_a_name_that_is_odd_leads_nowhere_else(stack: ConsoleStack, target: str) -> None:
    browser = await Browser(stack).log_in("max")
    reply = await browser.post("/orders", order="pause_batch", target=target, why="x")
    assert reply.status_code == 303 and reply.headers["location"] == f"/console/batches/{quote(target)}"


async def test_what_is_in_doubt_is_shown_before_somebody_says_what_became_of_it(stack: ConsoleStack) -> None:
    """On a form that lacks something too; of a key that is not in doubt there is its name alone."""
    browser = await Browser(stack).log_in()
    path = f"/orders?order=settle&target={RUN}:2"
    sent = await browser.post("/orders", order="settle", target=f"{RUN}:2", why="")
    for page in ((await browser.get(path)).text, sent.text):
        for said in ("charge_card", "step 2, of acme", "the executor died"):
            assert said in Checked(page).text
    page = (await browser.get(f"/orders?order=settle&target={RUN}:9")).text
    assert "charge_card" not in page and f"{RUN}:9" in page
    browser = await Browser(stack).log_in("hugo")
    page = (await browser.get(f"/orders?order=resolve_spend&target={RUN}:1/model@1")).text
    assert "gpt-5" in page and "4,000 tokens" in page


@pytest.mark.parametrize("target", ["a\nb", "a\u202eb", "x" * 301, "a\x00"])
async def test_a_name_that_is_none_is_refused(stack: ConsoleStack, target: str) -> None:
    browser = await Browser(stack).log_in("max")
    reply = await browser.post("/orders", order="pause_batch", target=target, why="x")
    assert (reply.status_code, stack.orders) == (422, [])


@pytest.mark.parametrize("order", ["", "nope", "__class__"])
async def test_there_are_no_other_orders(stack: ConsoleStack, order: str) -> None:
    browser = await Browser(stack).log_in("max")
    assert (await browser.client.get("/console/orders", params={"order": order})).status_code == 404
    assert (await browser.post("/orders", order=order, target=RUN, why="x")).status_code == 404
    assert stack.orders == []


# Lists and audit.


async def test_runs_are_filtered_by_the_stack_and_paged_by_its_cursor(stack: ConsoleStack) -> None:
    browser = await Browser(stack).log_in("hugo")
    query = {"status": "active", "tenant": "acme", "principal": "ann", "since": "24h", "reason": "", "batch": "b"}
    reply = await browser.client.get("/console/runs", params=query)
    _, asked = stack.looked[-1]
    assert (asked.status, asked.tenant, asked.principal, asked.batch) == ("active", "acme", "ann", "b")
    assert asked.since is not None and asked.cursor == ""
    older = unescape(re.search(r'href="(/console/runs\?cursor=[^"]*)" rel="next"', reply.text)[1])  # type: ignore[index]
    await browser.client.get(older)
    _, asked = stack.looked[-1]
    assert (asked.cursor, asked.status, asked.tenant) == ("1:cursor", "active", "acme")


@pytest.mark.parametrize("run", ["nope", "run_x", "../../v1"])
async def test_a_run_that_is_none_is_said_to_be_none(stack: ConsoleStack, run: str) -> None:
    browser = await Browser(stack).log_in()
    reply = await browser.client.get("/console/runs", params={"run": run})
    assert reply.status_code == 200 and 'role="alert"' in reply.text


@pytest.mark.parametrize(
    ("fields", "asked"),
    [
        ({"kind": "query", "query": "denials"}, {"query": "denials", "sql": ""}),
        ({"kind": "sql", "sql": " SELECT 1 "}, {"query": "", "sql": "SELECT 1"}),
    ],
)
async def test_an_audit_question_is_asked_as_it_is(
    stack: ConsoleStack, fields: dict[str, str], asked: dict[str, Any]
) -> None:
    """What is searched for is a parameter, and no part of a statement."""
    browser = await Browser(stack).log_in("audra")
    reply = await browser.post("/audit", **fields)
    assert reply.status_code == 200 and "2 rows" in reply.text
    given = next(asked for view, asked in stack.looked if view == "sql")
    assert {name: getattr(given, name) for name in asked} == asked


@pytest.mark.parametrize("fields", [{}, {"kind": "query", "query": "nope"}, {"kind": "sql"}])
async def test_what_is_no_audit_question_is_said_to_be_none(stack: ConsoleStack, fields: dict[str, str]) -> None:
    browser = await Browser(stack).log_in("audra")
    reply = await browser.post("/audit", **fields)
    assert reply.status_code == 422 and 'role="alert"' in reply.text


async def test_an_answer_is_a_file_that_no_spreadsheet_runs(stack: ConsoleStack) -> None:
    browser = await Browser(stack).log_in("audra")
    reply = await browser.post("/audit", kind="query", query="denials", **{"as": "csv"})
    assert reply.headers["content-disposition"] == 'attachment; filename="airside-audit.csv"'
    rows = list(csv.reader(io.StringIO(reply.text)))
    assert rows[0] == ["at_us", "status", "more", "share"] and rows[2][1] == "'=1+1"
    reply = await browser.post("/audit", kind="query", query="denials", **{"as": "json"})
    assert reply.json()[1]["status"] == "=1+1" and reply.headers["content-type"] == "application/json"


async def test_entries_are_a_file_line_by_line(stack: ConsoleStack) -> None:
    """In both forms, and what a spreadsheet would run in neither; a time that is none is said to be none."""
    browser = await Browser(stack).log_in("audra")
    reply = await browser.get("/audit/export?as=jsonl&text=mail&since=2026-01-31T14:05")
    entries = [json.loads(line) for line in reply.text.splitlines()]
    assert len(entries) > 1 and entries[0]["event"] == {"type": "ApprovalVoted", "note": "=1+1"}
    asked = next(asked for view, asked in stack.looked if view == "search")
    assert (asked.text, asked.since.isoformat()) == ("mail", "2026-01-31T14:05:00+00:00")
    reply = await browser.get("/audit/export?as=csv")
    rows = list(csv.reader(io.StringIO(reply.text)))
    assert rows[0][:3] == ["at_us", "tenant", "number"] and rows[1][3] == RUN
    assert (await browser.get("/audit/export?as=csv&since=soon")).status_code == 422
    assert (await browser.get("/audit/export")).status_code == 422


async def test_a_tenants_operator_is_shown_the_tenant_at_once(stack: ConsoleStack) -> None:
    page = Checked((await (await Browser(stack).log_in("olga")).get("/tenants")).text).text
    assert "8 runs, and 100 that wait" in page and "7,000" in page and "12 that runs are shown" in page


async def test_rules_that_never_fired_are_named(stack: ConsoleStack) -> None:
    page = Checked((await (await Browser(stack).log_in("olga")).get("/policy")).text).text
    assert "no-deletes" in page.partition("Never fired")[2] and "mail-out" not in page.partition("Never fired")[2]
    assert "The bundle as it is written" not in page


async def test_a_run_is_voted_on_killed_and_rolled_back_where_it_is_shown(stack: ConsoleStack) -> None:
    browser = await Browser(stack).log_in()
    page = (await browser.get(f"/runs/{WAITING_RUN}")).text
    assert 'name="order" value="kill_run"' in page and f"{WAITING_RUN}:1" in page
    reply = await browser.post("/orders", order="kill_run", target=WAITING_RUN, why="wrong")
    assert reply.headers["location"] == f"/console/runs/{WAITING_RUN}"
    page = (await browser.get(f"/runs/{RUN}")).text
    assert 'name="order" value="roll_back_run"' in page and f"{RUN}:2" in page
    reply = await browser.post(f"/approvals/{approval_id(1)}/vote", verdict="approve", run=WAITING_RUN)
    assert reply.headers["location"] == f"/console/runs/{WAITING_RUN}"
