"""What a server asks before it completes a call: a person answers, once, and the call goes on, once."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from airside.actors.client.results import PendingApproval
from airside.stack.approvals.book import Approval, VoteRefused
from airside.stack.canonical import canonical, digest
from airside.stack.contracts.execution import ExecuteRequest
from airside.stack.errors import InvalidConfig
from airside.stack.ids import PrincipalId, TenantId
from airside.stack.policy.gate import Gate
from airside.stack.reasons import ReasonCode
from airside.stack.run import events as ev
from airside.stack.run.machine import RunMachine
from airside.stack.run.state import Phase
from airside.stack.security.grants import mint
from airside.stack.security.tool_questions import open_question, seal_question
from airside.stack.values import Action, ApprovalRule, Identity
from airside.tools.mcp.session import CallLost, McpSession
from tests.apps.mcp_server import Served
from tests.helpers import KEY, gate_request, grant_for
from tests.tool_servers import MAPPING, TOKEN, Behind, approve, declared, in_process, offer_of
from tests.unit.stack.cycle.test_questions import World

POLICY = """
version: VERSION
rules:
  - {id: seats, outcome: allow, when: {tool: ["tests.*"]}}
"""
ASKED_FIRST = """
version: VERSION
rules:
  - {id: seats, outcome: require_approval, when: {tool: ["tests.*"]}, approval: {roles: [lead]}}
"""
ASKS = {"asks": {"roles": ["clerk"], "expires_after": 60}}
JOE = Identity(principal=PrincipalId("joe"), tenant=TenantId("acme"), roles=("clerk",))


@pytest.fixture
async def travel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., World]]:
    """Return what makes a run whose agent books with an approved server, which is in this process."""
    monkeypatch.setattr(McpSession, "_streams", lambda self: in_process(Served(tmp_path, 1)))
    made: list[World] = []
    offer = await offer_of(_server(tmp_path))

    def make(*texts: str, policy: str = POLICY, effect: str = "write", asks: Any = ASKS) -> World:
        server = _server(tmp_path, effect, asks)
        approve(server, offer)
        calls = [Action(tool="tests.book", arguments={"text": text}) for text in texts]
        made.append(World(*calls, policy=policy, sources=[server.read_toolset()], together=False))
        return made[-1]

    yield make
    for world in made:
        states = world.cycle.layers.tools.dispatcher._states  # type: ignore[attr-defined]
        for state in list(states._states.values()):
            await state.value.session.close()


def _server(folder: Path, effect: str = "write", asks: Any = ASKS) -> Any:
    mapping = {"tools": {"book": {"effect": effect}}, **asks}
    return declared(folder, command=["/bin/true"], mapping=mapping, env={})


def say(world: World, text: Any, verdict: Any = "answer", who: Identity = JOE) -> Any:
    """Have somebody vote on what waits as Approvals would count it: the decision, or why it does not count."""
    (waiting,) = world.waiting()
    asked = waiting.request.approval_id
    voted = world.approvals.book.vote(who, asked, verdict, now_us=7, arguments=Raw(canonical(text)))
    return voted.message if isinstance(voted, VoteRefused) else world.approvals.apply(voted)


def results(world: World) -> list[Any]:
    """Return what came of the run's calls: a text, or a reason."""
    return [r.result.value()["text"] if r.result.ok else r.result.reason_code for r in world.machine.state.history]


def effects(folder: Path) -> list[str]:
    """Return the server's effects, without the process."""
    file = folder / "effects"
    return [line.rsplit(" ", 1)[0] for line in file.read_text().splitlines()] if file.exists() else []


def shown(world: World) -> Approval:
    """Return the one thing that waits for people."""
    (waiting,) = world.waiting()
    return waiting


async def test_what_a_server_asks_a_person_answers_and_the_call_goes_on_once(
    travel: Callable[..., World], tmp_path: Path
) -> None:
    """The person sees the server, the call and the form; the step is one, and is counted once."""
    world = travel("please")
    await world.run()
    assert world.machine.state.phase is Phase.AWAITING_APPROVAL and effects(tmp_path) == []
    asked = msgspec.json.decode(shown(world).request.arguments)
    assert asked == {
        "question": "Which seat?",
        "fields": {"seat": {"type": "string", "required": True, "title": "Seat", "options": ["window", "aisle"]}},
        "server": "tests",
        "call": 'book({"text":"please"})',
    }
    lines = PendingApproval.of(msgspec.json.encode(shown(world))).lines()
    assert "a question that one of clerk answers, by a JSON object of its fields" in lines[0]
    assert [line for line in lines if line.startswith("       | ")] == [
        "       | Which seat?",
        "       | tests",
        '       | book({"text":"please"})',
        "       | string; required; of 'window', 'aisle'; Seat",
    ]
    assert "is one of 'window', 'aisle'" in say(world, "wing")
    assert "is no field of the form" in say(world, '{"seat": "aisle", "more": 1}')
    assert "nobody can approve" in say(world, None, "approve")
    await world.cycle.deliver(say(world, "aisle"))
    assert results(world) == ["booked aisle"] and effects(tmp_path) == ["book aisle"]
    assert world.machine.state.usage.tool_calls == 1 and world.machine.state.in_doubt_keys == {}


async def test_a_run_that_died_after_the_question_asks_nobody_twice_and_calls_once(
    travel: Callable[..., World], tmp_path: Path
) -> None:
    """Whether it dies while a person thinks, or when the answer is there: both rounds are on record."""
    world = travel("please")
    await world.run()
    first = shown(world).request.approval_id
    world.take_up()
    await world.run()
    assert shown(world).request.approval_id == first
    decision = say(world, '{"seat": "window"}')
    world.machine = RunMachine.replay([*world.machine.events, decision])
    world.take_up()
    await world.run()
    assert results(world) == ["booked window"] and effects(tmp_path) == ["book window"] and world.waiting() == []


async def test_a_second_question_is_another_and_their_number_is_bounded(
    travel: Callable[..., World], tmp_path: Path
) -> None:
    """Though it says the same; a server that does not stop asking has its call told as not completed."""
    world = travel("a second", "a b c d e f")
    await world.run()
    await world.cycle.deliver(say(world, "aisle"))
    assert msgspec.json.decode(shown(world).request.arguments)["round"] == 2
    await world.cycle.deliver(say(world, "window"))
    assert results(world) == ["booked window"] and effects(tmp_path) == ["book window"]
    for _ in range(4):
        await world.cycle.deliver(say(world, "window"))
    assert results(world) == ["booked window", ReasonCode.TOOL_ASKS] and effects(tmp_path) == ["book window"]
    assert world.waiting() == []


async def test_a_server_is_told_that_nobody_answers(travel: Callable[..., World], tmp_path: Path) -> None:
    """Who rejects a question declines; what nobody answered in time is cancelled; both count as rejections."""
    world = travel("please", "pretty")
    await world.run()
    await world.cycle.deliver(say(world, None, "reject"))
    (expired,) = world.approvals.book.due(86_400_000_000)
    await world.cycle.deliver(world.approvals.apply(expired))
    assert results(world) == ["not booked: decline", "not booked: cancel"] and effects(tmp_path) == []
    assert world.machine.state.usage.rejections == 2 and world.machine.state.phase is Phase.COMPLETED


async def test_an_approval_of_the_call_holds_for_its_rounds_and_an_answer_approves_nothing(
    travel: Callable[..., World], tmp_path: Path
) -> None:
    world = travel("please", policy=ASKED_FIRST)
    await world.run()
    assert shown(world).request.terms.roles == ("lead",)
    await world.decide("approve")
    assert shown(world).request.terms == ApprovalRule(roles=("clerk",), expires_after_s=60, answer=True)
    await world.cycle.deliver(say(world, "aisle"))
    assert results(world) == ["booked aisle"] and effects(tmp_path) == ["book aisle"]
    gates = [each for each in world.machine.events if isinstance(each, ev.ActionGated)]
    assert [each.decision.outcome for each in gates] == ["require_approval", "allow", "require_approval", "allow"]
    assert gates[1].approval_id == gates[3].approval_id, "the lead's, and not the clerk's"


async def test_an_answer_whose_reply_is_lost_is_in_doubt_and_not_sent_again(
    travel: Callable[..., World], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = travel("please")
    await world.run()
    real, sent = McpSession.call, []

    async def call(self: McpSession, *args: Any, **options: Any) -> Any:
        sent.append(await real(self, *args, **options))
        raise CallLost("the connection was cut")

    monkeypatch.setattr(McpSession, "call", call)
    await world.cycle.deliver(say(world, "aisle"))
    assert world.machine.state.phase is Phase.ENDED_IN_DOUBT and len(sent) == 1 and effects(tmp_path) == ["book aisle"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("two", "several things at once"),
        ("page", "a person visits a page"),
        ("folders", "be told of folders"),
        ("nested", "of no type that a person fills in"),
        ("nothing", "to be asked again"),
        ("long", "bytes, of at most 32,768"),
    ],
)
async def test_what_is_no_form_is_put_to_nobody(
    travel: Callable[..., World], tmp_path: Path, text: str, why: str
) -> None:
    """The agent is told, as of any call that the server did not take."""
    world = travel(text)
    await world.run()
    assert why in results(world)[0] and world.waiting() == [] and effects(tmp_path) == []


async def test_who_is_asked_is_said_in_the_mapping_or_nobody_is(travel: Callable[..., World], tmp_path: Path) -> None:
    """And a role that nobody holds, or a time without end, is refused where it is written."""
    world = travel("please", asks={})
    await world.run()
    assert "its mapping does not say who is asked" in results(world)[0] and world.waiting() == []
    for asks in ({"roles": []}, {"roles": ["clerk"], "expires_after": 0}, {"role": "clerk"}):
        with pytest.raises(InvalidConfig, match="asks"):
            _server(tmp_path, asks={"asks": asks}).read_mapping()


@pytest.mark.parametrize("in_threads", [False, True])
async def test_a_secret_is_not_kept_for_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_threads: bool
) -> None:
    """What it would have us keep is written down: with a secret in it the call is not gone on with."""
    monkeypatch.setenv("SERVER_TOKEN", "a-secret-of-the-tenant")
    monkeypatch.setenv("TOKEN", "a-secret-of-the-tenant")
    monkeypatch.setattr(McpSession, "_streams", lambda self: in_process(Served(tmp_path, 1)))
    offer = await offer_of(_server(tmp_path))
    mapping = {"tools": {**MAPPING, "book": {"effect": "read"}}, **ASKS}
    server = declared(tmp_path, command=["/bin/true"], env={}, mapping=mapping, secrets={"TOKEN": "token"})
    approve(server, offer)
    behind = Behind(server, tmp_path, secrets=TOKEN, in_threads=in_threads)
    try:
        refused = await behind.run("book", {"text": "secret"})
        assert refused.reason_code == "tool_failed" and "a secret" in refused.error and not refused.asked
        assert (await behind.run("book", {"text": "x"})).reason_code == "tool_asks"
    finally:
        await behind.close()


async def test_an_executor_goes_on_with_nothing_but_what_was_granted(
    travel: Callable[..., World], tmp_path: Path
) -> None:
    """Neither with another question than the gate allowed, nor twice with one, nor with one without a grant of it."""
    world = travel("please")
    await world.run()
    executed = next(e for e in world.machine.events if isinstance(e, ev.ToolExecuted))
    dispatcher = world.cycle.layers.tools.dispatcher  # type: ignore[attr-defined]
    dispatcher._journal = world.journal.append
    data = canonical({"text": "please"})
    spec = next(each.spec for each in world.tools if each.name == "tests.book")
    opened = open_question(KEY, executed.result.asked)
    assert opened is not None
    other = seal_question(KEY, msgspec.structs.replace(opened, kept=b'{"key":"seat","state":"9"}'))

    async def execute(nonce: bytes, asked: str, **fields: Any) -> Any:
        grant = grant_for(spec, data, nonce=nonce, attempt=3, timeout_ms=30_000, **fields)
        request = ExecuteRequest(grant=mint(KEY, grant), arguments=data, asked=asked)
        return (await dispatcher.execute(request)).result

    granted = {"round": 1, "asked_sha256": digest(executed.result.asked.encode()), "declined": "decline"}
    for asked in (other, ""):
        assert (await execute(b"a" * 12 + asked[:1].encode(), asked, **granted)).reason_code == "grant_invalid"
    assert (await execute(b"b" * 12, executed.result.asked)).reason_code == "grant_invalid"
    assert (await execute(b"c" * 12, executed.result.asked, **granted)).value()["text"] == "not booked: decline"
    again = await execute(b"d" * 12, executed.result.asked, **granted)
    assert again.reason_code == "tool_in_doubt" and "was claimed before" in again.error


async def test_a_runtime_puts_no_words_into_a_tools_mouth(travel: Callable[..., World]) -> None:
    """The gate has people asked what an executor sealed for this call of this run, and takes no answer to another."""
    world = travel("please")
    await world.run()
    asked = next(e for e in world.machine.events if isinstance(e, ev.ToolExecuted)).result.asked
    gate: Gate = world.policy._gate
    data = canonical({"text": "please"})
    opened = open_question(KEY, asked)
    assert opened is not None

    def decided(text: str, arguments: bytes = data, **fields: Any) -> Any:
        return gate.decide(gate_request("tests.book", arguments, attempt=3, asked=text, **fields))

    assert decided(asked).decision.outcome == "require_approval" and decided(asked).question == opened.question
    forged = seal_question(b"x" * 32, opened)
    for text in (forged, "", asked[:-4] + "AAAA", seal_question(KEY, msgspec.structs.replace(opened, step=2))):
        reply = decided(text or "x")
        assert reply.decision.outcome == "deny" and reply.decision.reason_code == "policy_error" and not reply.grant
    assert decided(asked, canonical({"text": "thanks"})).decision.outcome == "deny"
    receipt = say(world, "aisle").receipt
    assert decided(asked, answered=receipt).grant
    other = seal_question(KEY, msgspec.structs.replace(opened, question=json.dumps({"question": "Pay?"}).encode()))
    assert decided(other, answered=receipt).decision.outcome == "require_approval"
    assert decided(asked, receipt=receipt).decision.outcome == "require_approval"
