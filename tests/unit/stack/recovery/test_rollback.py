"""Rolling back, pure: what there is to undo and in which order, how far a rollback is, and what an undo is granted."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from airside.stack.canonical import canonical, digest
from airside.stack.contracts.execution import ExecuteRequest
from airside.stack.cycle.in_memory import InMemoryJournal
from airside.stack.errors import InvalidConfig, InvalidInput
from airside.stack.ids import EffectKey, IssuerId, PrincipalId, RunId, TenantId, undo_key
from airside.stack.journal.effect_claims import attempt_key
from airside.stack.operations.messages import Order
from airside.stack.policy.kill_switches import KillSwitchChanged, KillSwitches
from airside.stack.reasons import ReasonCode
from airside.stack.recovery.in_doubt import EffectResolved, resolution_append, resolution_stream
from airside.stack.recovery.rollback import (
    ROLLBACK_LIFE_US,
    RollbackBook,
    RollbackOrdered,
    UndoableCall,
    UndoEnded,
    UndoIntended,
    calls_of,
    classify_undo_result,
    in_reverse,
    is_undo_retryable,
    require_ended,
    rollback_stream,
)
from airside.stack.recovery.undo_gate import UndoGate, UndoReply, UndoRequest, streams_for
from airside.stack.run import events as ev
from airside.stack.security.grants import Grant, mint, open_grant
from airside.stack.values import ToolResult
from airside.tools.dispatch import Dispatcher
from airside.tools.tool import Tool, ToolContext, ToolError, Toolset, flatten, tool
from tests.helpers import EXECUTOR, KEY, RUN, SECOND, Driven, spec

NOW = 50 * SECOND
PAY = spec(undoable=True)
ARGUMENTS = canonical({"amount": 5, "currency": "eur"})
FINE = ToolResult(ok=True, output=Raw(b'"fine"'))


def called(run: Driven, result: ToolResult | None = None, **gate: Any) -> None:
    """Make a call of `pay`, with a digest of its own."""
    arguments = canonical({"amount": run.state.step, "currency": "eur"})
    fields = {"tool_version": PAY.version, "arguments": Raw(arguments), "digest": digest(arguments)} | gate
    run.propose(amount=run.state.step)
    run.gate(**fields)
    if result is not None:
        run.executed(result)


def ended(run: Driven) -> list[ev.Event]:
    """End a run; return its events as the journal gives them back."""
    if run.machine.state.outcome is None:
        run.send(ev.KillRequested, by="op", why="")
    run.end()
    return journaled(run)


def journaled(run: Driven) -> list[ev.Event]:
    """Return a run's events as the journal gives them back."""
    return [ev.decode_event(ev.encode_event(event)) for event in run.machine.events]


def begun() -> Driven:
    """Return an activated run."""
    run = Driven()
    run.activate()
    return run


def happened(key: str, yes: bool = True) -> dict[str, EffectResolved]:
    """Return what somebody found out about a key."""
    said = EffectResolved(
        at_us=NOW, run_id=RUN, step=1, key=EffectKey(key), by=PrincipalId("op"), happened=yes, output=Raw(b'"found"')
    )
    return {key: said}


# What there is to undo.


def test_what_changed_something_is_to_be_undone_with_its_arguments_and_output() -> None:
    run = begun()
    called(run, FINE)
    called(run, FINE, effect="read")
    called(run, ToolResult(ok=False, error="no", reason_code=ReasonCode.TOOL_FAILED))
    called(run, ToolResult(ok=False, error="no", reason_code=ReasonCode.TOOL_INVALID_ARGUMENTS))
    called(run, ToolResult(ok=False, error="large", reason_code=ReasonCode.TOOL_OUTPUT_INVALID))
    calls = calls_of(ended(run), {})
    assert [(call.step, bytes(call.output), call.in_doubt) for call in calls] == [
        (1, b'"fine"', False),
        (5, b"null", False),
    ]
    assert (calls[0].key, calls[0].run_id, calls[0].tool_version) == (f"{RUN}:1", RUN, PAY.version)
    assert bytes(calls[0].arguments) == b'{"amount":1,"currency":"eur"}' and calls[0].digest == digest(
        bytes(calls[0].arguments)
    )


def test_a_call_that_was_settled_while_the_run_waited_is_undone_if_it_happened() -> None:
    for yes in (True, False):
        run = begun()
        called(run)
        run.lost(started=True)
        run.send(ev.InDoubtResolved, by=PrincipalId("op"), happened=yes, output=Raw(b'"said"'))
        calls = calls_of(ended(run), {})
        assert [bytes(call.output) for call in calls] == [b'"said"'] * yes


@pytest.mark.parametrize("said", [None, True, False])
def test_a_call_that_ended_in_doubt_is_what_somebody_found_out(said: bool | None) -> None:
    run = begun()
    called(run, FINE)
    called(run)
    run.lost(started=True)
    run.send(ev.InDoubtExpired)
    key = f"{RUN}:2"
    calls = calls_of(ended(run), {} if said is None else happened(key, said))
    assert [(call.step, call.in_doubt) for call in calls] == [(1, False)] + [(2, said is None)] * (said is not False)
    assert said is not True or bytes(calls[1].output) == b'"found"'


def test_a_call_that_was_sent_again_is_one_call_with_the_result_it_had_in_the_end() -> None:
    run = begun()
    called(run, repeatable=True)
    run.lost(started=True)
    arguments = canonical({"amount": 1, "currency": "eur"})
    run.gate(repeatable=True, arguments=Raw(arguments), digest=digest(arguments))
    run.executed(FINE)
    (call,) = calls_of(ended(run), {})
    assert (call.step, call.repeatable, bytes(call.output)) == (1, True, b'"fine"')


def test_calls_are_undone_in_the_reverse_order_of_their_results_whatever_the_clock_did() -> None:
    def call(run_id: str, step: int, at_us: int) -> UndoableCall:
        return msgspec.structs.replace(
            calls_of(ended(_one()), {})[0],
            run_id=RunId(run_id),
            step=step,
            at_us=at_us,
            key=EffectKey(f"{run_id}:{step}"),
        )

    calls = [call("a", 1, 10), call("a", 2, 30), call("b", 1, 20), call("b", 2, 30)]
    assert [(c.run_id, c.step) for c in in_reverse(calls)] == [("b", 2), ("a", 2), ("b", 1), ("a", 1)]
    run = begun()
    called(run, FINE)
    called(run)
    run.send(ev.ToolExecuted, after_us=-500, attempt=run.state.gated.attempt, result=FINE)
    assert [c.step for c in in_reverse(calls_of(ended(run), {}))] == [2, 1]


def _one() -> Driven:
    run = begun()
    called(run, FINE)
    return run


def test_a_run_or_a_branch_that_has_not_ended_is_not_rolled_back() -> None:
    over, live = ended(_one()), journaled(_one())
    require_ended(RUN, {RUN: over})
    for runs, said in (
        ({RUN: live}, "kill"),
        ({RUN: over, f"{RUN}.1-0": live}, f"{RUN}.1-0 has not ended: kill {RUN} first"),
        ({RUN: []}, "no run"),
        ({}, "no run"),
    ):
        with pytest.raises(InvalidInput, match=said):
            require_ended(RUN, runs)


# How far it is.


def intended(attempt: int = 1, step: int = 1) -> UndoIntended:
    """Return the intent to undo a call."""
    return UndoIntended(
        at_us=NOW,
        run_id=RUN,
        step=step,
        key=undo_key(EffectKey(f"{RUN}:{step}")),
        attempt=attempt,
        tool="pay",
        arguments=Raw(b'{"amount":1}'),
        digest="d",
    )


def over(outcome: Any, attempt: int = 1, step: int = 1) -> UndoEnded:
    """Return the end of an undo."""
    key = undo_key(EffectKey(f"{RUN}:{step}"))
    return UndoEnded(at_us=NOW, run_id=RUN, step=step, key=key, attempt=attempt, outcome=outcome, detail="d")


ORDERED = RollbackOrdered(at_us=NOW, run_id=RUN, by=PrincipalId("op"), why="w")


def book(*events: Any) -> RollbackBook:
    """Return the fold of events as the journal gives them back."""
    return RollbackBook(msgspec.json.encode(event) for event in events)


def test_the_book_is_the_fold_of_its_stream() -> None:
    call = calls_of(ended(_one()), {})[0]
    assert (book().attempts(call), book().ended(call), book().outstanding(call)) == (0, None, None)
    sent = book(ORDERED, intended())
    assert (sent.orders, sent.attempts(call), sent.outstanding(call)) == (1, 1, intended())
    failed = book(ORDERED, intended(), over("failed"))
    assert failed.outstanding(call) is None and failed.ended(call) == over("failed")
    again = book(ORDERED, intended(), over("failed"), ORDERED, intended(2))
    assert again.orders == 2 and again.attempts(call) == 2 and again.ended(call) is None
    assert again.outstanding(call) == intended(2)


def test_an_undo_in_doubt_is_something_to_find_out_until_it_is_tried_again() -> None:
    doubtful = book(ORDERED, intended(), over("failed"), intended(2), over("in_doubt", 2))
    (doubt,) = doubtful.in_doubt_calls(TenantId("acme"), RUN)
    assert (doubt.key, doubt.undo, doubt.tool) == (f"{RUN}:1/undo#2", True, "pay")
    assert (doubt.arguments, doubt.until_us) == ({"amount": 1}, 0)
    doubtful.apply(intended(3))
    assert doubtful.in_doubt_calls(TenantId("acme"), RUN) == []


@pytest.mark.parametrize(
    ("reason", "verdict"),
    [
        (ReasonCode.TOOL_OUTPUT_INVALID, "undone"),
        (ReasonCode.TOOL_FAILED, "failed"),
        (ReasonCode.SWITCHED_OFF, "failed"),
        (ReasonCode.TOOL_UNAVAILABLE, "failed"),
        (ReasonCode.POLICY_DENIED, "failed"),
        (ReasonCode.GRANT_STALE, "again"),
        (ReasonCode.GRANT_INVALID, "again"),
        (ReasonCode.TOOL_TIMEOUT, "in_doubt"),
        (ReasonCode.TOOL_IN_DOUBT, "in_doubt"),
    ],
)
def test_what_a_result_says_of_an_undo(reason: ReasonCode, verdict: str) -> None:
    assert classify_undo_result(ToolResult(ok=False, reason_code=reason)) == verdict
    assert classify_undo_result(ToolResult(ok=True)) == "undone"


@pytest.mark.parametrize(
    ("reason", "repeatable", "held", "again"),
    [
        (ReasonCode.GRANT_STALE, False, False, True),
        (ReasonCode.TOOL_TIMEOUT, True, False, True),
        (ReasonCode.TOOL_TIMEOUT, False, False, False),
        (ReasonCode.TOOL_TIMEOUT, True, True, False),
        (ReasonCode.TOOL_FAILED, True, False, False),
    ],
)
def test_an_undo_that_held_its_event_loop_is_not_sent_again(
    reason: ReasonCode, repeatable: bool, held: bool, again: bool
) -> None:
    """What did not begin is; what may have happened is if its tool dedupes, and it held nothing."""
    result = ToolResult(ok=False, reason_code=reason, held=held)
    assert is_undo_retryable(result, repeatable=repeatable) is again


# What is granted.


def granted(
    *,
    change: Callable[[dict[str, list[bytes]]], None] = lambda bodies: None,
    switches: KillSwitches | None = None,
    tools: Any = (PAY,),
    step: int = 1,
    events: list[ev.Event] | None = None,
    **order: Any,
) -> UndoReply:
    """Ask for the undo of a run's only call, which is intended, with what `change` does to the journal."""
    given = Order(
        **({"action": "rollback", "scope": "run", "target": RUN, "by": "op", "why": "", "at_us": NOW} | order)
    )
    gate = UndoGate(
        tools,
        seal_key=KEY,
        now_us=lambda: NOW,
        random=lambda n: b"n" * n,
        issuer=IssuerId("iss"),
        policy_version="v1",
    )
    request = UndoRequest(order=b"", run_id=RUN, step=step, executor=EXECUTOR)
    bodies: dict[str, list[bytes]] = {stream: [] for stream in streams_for(request)}
    bodies[RUN] = [ev.encode_event(event) for event in events or ended(_one())]
    bodies[rollback_stream(RUN)] = [msgspec.json.encode(event) for event in (ORDERED, intended())]
    change(bodies)
    return gate.decide(request, None if order.get("by") == "" else given, bodies, switches or KillSwitches())


def test_an_undo_is_granted_for_exactly_the_call_of_the_journal() -> None:
    reply = granted()
    grant = open_grant(KEY, reply.grant)
    assert reply.error == "" and isinstance(grant, Grant)
    arguments = b'{"amount":1,"currency":"eur"}'
    assert (reply.arguments, reply.output) == (arguments, b'"fine"')
    assert grant.undo and grant.key == f"{RUN}:1/undo" and grant.tool_version == PAY.version
    assert grant.arguments_sha256 == digest(arguments) and grant.output_sha256 == digest(b'"fine"')
    assert (grant.tenant, grant.principal, grant.run_id, grant.step) == ("acme", "ann", RUN, 1)
    assert (grant.attempt, grant.epoch, grant.executor, grant.issuer) == (1, 2, EXECUTOR, "iss")


def test_an_undo_of_a_later_order_is_of_a_later_epoch() -> None:
    def again(bodies: dict[str, list[bytes]]) -> None:
        bodies[rollback_stream(RUN)] += [msgspec.json.encode(event) for event in (over("failed"), ORDERED, intended(2))]

    grant = open_grant(KEY, granted(change=again).grant)
    assert grant is not None and (grant.attempt, grant.epoch) == (2, 3)
    assert attempt_key(grant.key, 2) == f"{RUN}:1/undo#2"


def _dropped(stream: str, count: int) -> Callable[[dict[str, list[bytes]]], None]:
    def drop(bodies: dict[str, list[bytes]]) -> None:
        del bodies[stream][len(bodies[stream]) - count :]

    return drop


def _undone(bodies: dict[str, list[bytes]]) -> None:
    bodies[rollback_stream(RUN)].append(msgspec.json.encode(over("undone")))


OFF = KillSwitches(
    [
        msgspec.json.encode(
            KillSwitchChanged(at_us=1, scope="tool", target="pay", off=True, by=PrincipalId("op"), why="breach")
        )
    ]
)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"by": ""}, "seal does not hold"),
        ({"action": "kill"}, "not to roll"),
        ({"target": "run_" + "1" * 24}, "not to roll"),
        ({"scope": "tenant"}, "not to roll"),
        ({"at_us": NOW - ROLLBACK_LIFE_US - 1}, "too old"),
        ({"at_us": NOW + ROLLBACK_LIFE_US + 1}, "too old"),
        ({"change": _dropped(RUN, 1)}, "has not ended"),
        ({"step": 2}, "does not say that"),
        ({"change": _dropped(rollback_stream(RUN), 1)}, "no undo .* is on record as intended"),
        ({"change": _undone}, "no undo .* is on record as intended"),
        ({"tools": ()}, "no undo of pay"),
        ({"tools": (spec(),)}, "no undo of pay"),
        ({"tools": (spec(undoable=True, risk="high"),)}, "is version"),
        ({"switches": OFF}, "breach"),
        ({"change": lambda bodies: bodies.clear()}, "KeyError"),
    ],
)
def test_anything_else_is_a_no(asked: dict[str, Any], said: str) -> None:
    reply = granted(**asked)
    assert reply.grant == b"" and re.search(said, reply.error)


def test_a_call_in_doubt_is_granted_no_undo_until_it_is_known_to_have_happened() -> None:
    run = begun()
    called(run)
    run.lost(started=True)
    run.send(ev.InDoubtExpired)
    events = ended(run)
    assert "does not say that" in granted(events=events).error
    key = EffectKey(f"{RUN}:1")

    def settle(bodies: dict[str, list[bytes]]) -> None:
        append = resolution_append(happened(key)[key], TenantId("acme"))
        bodies[resolution_stream(key)] = [append.entries[0].body]

    assert granted(events=events, change=settle).output == b'"found"'


# What an executor does with it.


def undoable(log: list[Any], **options: Any) -> Tool:
    """Return a tool whose calls and undos are logged."""

    def unpay(ctx: ToolContext, args: dict[str, Any], out: Any) -> str:
        log.append((ctx.idempotency_key, ctx.original_key, args, out))
        if args["amount"] == 13:
            raise ToolError("unlucky")
        return "back"

    @tool(effect="write", undo=unpay, **options)
    def pay(amount: int) -> str:
        log.append(amount)
        return "fine"

    return pay


def request_for(made: Tool, arguments: bytes = b'{"amount":5}', output: bytes = b'"fine"', **fields: Any) -> Any:
    """Return the request of a granted undo."""
    given = {
        "tenant": "acme",
        "principal": "ann",
        "run_id": RUN,
        "step": 1,
        "attempt": 1,
        "epoch": 2,
        "tool": "pay",
        "tool_version": made.spec.version,
        "arguments_sha256": digest(b'{"amount":5}'),
        "key": f"{RUN}:1/undo",
        "policy_version": "v1",
        "approval_id": "",
        "executor": EXECUTOR,
        "timeout_ms": 1000,
        "expires_us": NOW + SECOND,
        "issuer": "",
        "nonce": fields.pop("nonce", b"1"),
        "undo": True,
        "output_sha256": digest(b'"fine"'),
    }
    return ExecuteRequest(grant=mint(KEY, Grant(**(given | fields))), arguments=arguments, output=output)


def dispatcher(*tools: Tool | Toolset, journal: InMemoryJournal | None = None) -> Dispatcher:
    """Return an executor's dispatcher."""
    append = None if journal is None else journal.append
    return Dispatcher(tools, seal_key=KEY, executor_id=EXECUTOR, now_us=lambda: NOW, in_threads=False, journal=append)


async def test_an_undo_gets_the_calls_arguments_and_output_and_a_key_of_its_own() -> None:
    log: list[Any] = []
    pay = undoable(log)
    reply = await dispatcher(pay).execute(request_for(pay))
    assert reply.result.value() == "back" and log == [(f"{RUN}:1/undo", f"{RUN}:1", {"amount": 5}, "fine")]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"arguments": b'{"amount":6}'}, "other arguments"),
        ({"output": b'"other"'}, "another output"),
        ({"tool_version": "0"}, "another version"),
        ({"executor": "exe_2"}, "another executor"),
        ({"expires_us": NOW}, "expired"),
    ],
)
async def test_an_undo_of_anything_else_is_refused(asked: dict[str, Any], said: str) -> None:
    log: list[Any] = []
    pay = undoable(log)
    result = (await dispatcher(pay).execute(request_for(pay, **asked))).result
    assert result.reason_code is ReasonCode.GRANT_INVALID and said in result.error and log == []


async def test_a_grant_to_undo_makes_no_call_and_a_tool_without_undo_none() -> None:
    log: list[Any] = []

    @tool(effect="write", name="pay")
    def plain(amount: int) -> str:
        log.append(amount)
        return "fine"

    result = (await dispatcher(plain).execute(request_for(plain))).result
    assert result.reason_code is ReasonCode.GRANT_INVALID and "no undo" in result.error and log == []


async def test_an_undo_that_must_not_be_sent_twice_claims_its_key_and_a_later_attempt_its_own() -> None:
    log: list[Any] = []
    pay, journal = undoable(log), InMemoryJournal()
    it = dispatcher(pay, journal=journal)
    reasons = [
        (await it.execute(request_for(pay, nonce=nonce, attempt=attempt))).result.reason_code
        for nonce, attempt in ((b"1", 1), (b"2", 1), (b"3", 2), (b"4", 1))
    ]
    assert reasons == ["completed", "tool_in_doubt", "completed", "tool_in_doubt"] and len(log) == 2
    assert sorted(journal.streams) == [f"claim/{RUN}:1/undo", f"claim/{RUN}:1/undo#2"]


async def test_an_undo_that_may_be_sent_twice_claims_nothing() -> None:
    log: list[Any] = []
    pay, journal = undoable(log, idempotent=True), InMemoryJournal()
    it = dispatcher(pay, journal=journal)
    for nonce in (b"1", b"2"):
        assert (await it.execute(request_for(pay, nonce=nonce))).result.ok
    assert journal.streams == {} and len(log) == 2


async def test_an_undo_that_says_that_it_changed_nothing_has_failed_and_is_in_no_doubt() -> None:
    log: list[Any] = []
    pay = undoable(log)
    arguments = b'{"amount":13}'
    request = request_for(pay, arguments, arguments_sha256=digest(arguments))
    assert (await dispatcher(pay).execute(request)).result.reason_code is ReasonCode.TOOL_FAILED


async def test_an_undo_in_a_toolset_has_the_runs_state() -> None:
    def back(context: ToolContext, arguments: dict[str, Any], output: Any) -> Any:
        return context.state

    @tool(effect="write", undo=back)
    def pay(amount: int) -> str:
        return "fine"

    opened = Toolset(name="bank", tools=(pay,), open=lambda context: f"open for {context.run_id}")
    assert (await dispatcher(opened).execute(request_for(pay))).result.value() == f"open for {RUN}"
    assert flatten([opened])[0]["pay"].undo is back


def test_an_undo_changes_neither_the_tools_version_nor_what_agents_see() -> None:
    with_undo = undoable([])

    @tool(effect="write")
    def pay(amount: int) -> str:
        return "fine"

    assert with_undo.spec.undoable and with_undo.spec.version == pay.spec.version


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"effect": "read", "undo": lambda c, a, o: None}, "nothing to undo in a read"),
        ({"effect": "write", "undo": lambda c, a: None}, "does not take"),
        ({"effect": "write", "undo": 7}, "does not take"),
    ],
)
def test_an_undo_that_cannot_be_one_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidConfig, match=said):

        @tool(**options)
        def pay(amount: int) -> str:
            return "fine"
