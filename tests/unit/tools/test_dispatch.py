"""`Dispatcher`: which grants are refused, what becomes of a tool's answer or error, toolsets, and `@tool`'s misuse."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from datetime import date
from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Raw
from pydantic import BeforeValidator

from airside.stack.canonical import MAX_DEPTH, digest
from airside.stack.contracts.execution import ExecuteRequest
from airside.stack.errors import InvalidConfig
from airside.stack.ids import ExecutorId, PrincipalId, RunId, TenantId
from airside.stack.journal.effect_claims import MAX_CLAIM_ATTEMPTS
from airside.stack.journal.journaling import Append, AppendReply
from airside.stack.policy.kill_switches import KillSwitchChanged, KillSwitches
from airside.stack.security.grants import Grant, GrantRefused, mint, open_grant
from airside.stack.security.seals import SEAL_BYTES, wrap
from airside.stack.values import Answer, ToolResult
from airside.tools.builtin.ask_human import ask_human
from airside.tools.dispatch import Dispatcher
from airside.tools.in_memory import InMemoryTools
from airside.tools.runners.outcomes import normalise
from airside.tools.runners.running import PLACES
from airside.tools.tool import NOT_DONE, InDoubt, Tool, ToolContext, ToolError, Toolset, flatten, tool
from tests.helpers import EXECUTOR, KEY, RUN, SECOND, grant_for, granted

NOW = 10 * SECOND


def made(*tools: Tool | Toolset, executor: ExecutorId = EXECUTOR, in_threads: bool = False) -> Dispatcher:
    """Return a dispatcher at time `NOW`."""
    return Dispatcher(tools, seal_key=KEY, executor_id=executor, now_us=lambda: NOW, in_threads=in_threads)


def counter(effect: str = "write") -> tuple[Tool, list[int]]:
    """Return a tool `pay(amount)` and the list of what it paid."""
    paid: list[int] = []

    def pay(amount: int = 1) -> int:
        paid.append(amount)
        return len(paid)

    return tool(effect=effect)(pay), paid  # type: ignore[arg-type]


async def run(dispatcher: Dispatcher, request: ExecuteRequest) -> ToolResult:
    """Execute and return the result."""
    return (await dispatcher.execute(request)).result


def tool_that(behave: Callable[..., Any], effect: str = "read", **options: Any) -> Tool:
    """Return a tool without arguments that behaves like `behave`."""
    return Tool.from_schema("t", {"type": "object"}, behave, effect=effect, **options)  # type: ignore[arg-type]


# Grants.


async def test_a_granted_call_is_carried_out_with_its_arguments() -> None:
    pay, paid = counter()
    result = await run(made(pay), granted(pay.spec, b'{"amount":7}'))
    assert (result.ok, bytes(result.output), paid) == (True, b"1", [7])


async def test_a_grant_is_used_at_most_once() -> None:
    pay, paid = counter()
    dispatcher, request = made(pay), granted(pay.spec)
    results = await asyncio.gather(*[run(dispatcher, request) for _ in range(5)])
    assert [r.ok for r in results].count(True) == 1 and len(paid) == 1
    assert {r.reason_code for r in results if not r.ok} == {"grant_invalid"}
    assert dispatcher.stats() == {"calls": 1, "refused": 4, "active": 0, "states": 0, "loops": 0, "held_loops": 0}


async def test_a_key_that_was_used_takes_no_other_arguments() -> None:
    pay, paid = counter()
    dispatcher = made(pay)
    await run(dispatcher, granted(pay.spec, b'{"amount":7}', nonce=b"1"))
    other = await run(dispatcher, granted(pay.spec, b'{"amount":8}', nonce=b"2", attempt=2))
    assert other.reason_code == "grant_invalid" and "used with other arguments" in other.error
    again = await run(dispatcher, granted(pay.spec, b'{"amount":7}', nonce=b"3", attempt=2))
    assert again.ok and paid == [7, 7], "the tool is given the same key, and dedupes"


ALTERED: dict[str, Any] = {
    "tenant": "globex",
    "principal": "eve",
    "run_id": "run_" + "9" * 24,
    "step": 2,
    "attempt": 2,
    "epoch": 2,
    "tool": "other",
    "tool_version": "0",
    "arguments_sha256": "0",
    "key": "k",
    "policy_version": "v9",
    "approval_id": "apr",
    "executor": "exe_" + "2" * 24,
    "timeout_ms": 1,
    "expires_us": 10**15,
    "issuer": "iss_" + "3" * 24,
    "nonce": b"other",
    "undo": True,
    "output_sha256": "0",
    "version": "v9",
    "labels": ("confidential",),
    "left_ms": 10**9,
    "answer": Answer(text="yes", by=PrincipalId("eve"), roles=("boss",), at_us=1, chosen=True),
    "round": 1,
    "asked_sha256": "0",
    "declined": "decline",
    "shown": ("mem_" + "4" * 24,),
    "sends": 1,
}


def test_every_field_of_a_grant_is_altered_below() -> None:
    assert set(ALTERED) == set(Grant.__struct_fields__)


@pytest.mark.parametrize("field", ALTERED)
async def test_a_grant_altered_in_any_field_is_refused_under_its_old_seal_and_under_a_wrong_key(field: str) -> None:
    pay, paid = counter()
    dispatcher = made(pay)
    altered = msgspec.structs.replace(grant_for(pay.spec), **{field: ALTERED[field]})
    old_seal = mint(KEY, grant_for(pay.spec))[:SEAL_BYTES]
    for forged in (old_seal + mint(KEY, altered)[SEAL_BYTES:], mint(b"j" * 32, altered)):
        result = await run(dispatcher, ExecuteRequest(grant=forged, arguments=b"{}"))
        assert result.reason_code == "grant_invalid" and "seal" in result.error
    assert paid == []


async def test_a_bit_flipped_in_any_byte_of_a_grant_is_refused() -> None:
    pay, paid = counter()
    dispatcher, good = made(pay), mint(KEY, grant_for(pay.spec))
    for index in range(len(good)):
        bad = good[:index] + bytes([good[index] ^ (1 << index % 8)]) + good[index + 1 :]
        result = await run(dispatcher, ExecuteRequest(grant=bad, arguments=b"{}"))
        assert result.reason_code == "grant_invalid", index
    assert paid == []
    assert (await run(dispatcher, ExecuteRequest(grant=good, arguments=b"{}"))).ok


@pytest.mark.parametrize("data", [b"", b"x", b"\0" * 31, b"\0" * 200, wrap(KEY, "approval", b"\x90"), None, "text", 5])
async def test_what_is_not_a_grant_is_refused(data: Any) -> None:
    pay, _ = counter()
    assert (await run(made(pay), ExecuteRequest(grant=data, arguments=b"{}"))).reason_code == "grant_invalid"


def test_a_sealed_body_of_another_form_is_not_a_grant() -> None:
    assert open_grant(KEY, wrap(KEY, "grant", b"\x90")) is None
    assert open_grant(KEY, wrap(KEY, "grant", b"\xc1")) is None
    assert open_grant(KEY, wrap(KEY, "receipt", mint(KEY, grant_for(counter()[0].spec))[SEAL_BYTES:])) is None


@pytest.mark.parametrize(
    ("fields", "reason", "says"),
    [
        ({"expires_us": NOW}, "grant_invalid", "expired"),
        ({"executor": "exe_" + "2" * 24}, "grant_invalid", "another executor"),
        ({"tool": "refund"}, "grant_invalid", "no tool refund"),
        ({"tool_version": "0" * 16}, "grant_invalid", "another version"),
        ({"arguments_sha256": "0" * 64}, "grant_invalid", "other arguments"),
    ],
)
async def test_a_grant_that_does_not_fit_is_refused_and_nothing_is_started(
    fields: dict[str, Any], reason: str, says: str
) -> None:
    pay, paid = counter()
    dispatcher = made(pay)
    result = await run(dispatcher, granted(pay.spec, **fields))
    assert (result.ok, str(result.reason_code), paid) == (False, reason, []) and says in result.error
    assert dispatcher.stats()["refused"] == 1


@pytest.mark.parametrize(
    ("scope", "target"),
    [
        ("all", ""),
        ("tenant", "acme"),
        ("principal", "acme/ann"),
        ("run", RUN),
        ("tool", "pay"),
        ("version", "v1"),
    ],
)
async def test_what_is_switched_off_is_refused_though_it_was_granted_before(scope: Any, target: str) -> None:
    pay, paid = counter()
    dispatcher, request = made(pay), granted(pay.spec, version="v1")
    off = KillSwitchChanged(at_us=1, scope=scope, target=target, off=True, by=PrincipalId("op"), why="breach")
    dispatcher.grants.switches.apply(off)
    refused = await run(dispatcher, request)
    assert (refused.reason_code, paid) == ("switched_off", []) and "breach" in refused.error
    dispatcher.grants.switches.apply(msgspec.structs.replace(off, off=False))
    assert (await run(dispatcher, request)).ok, "it was not used up"


async def test_a_grant_does_not_cover_arguments_written_another_way() -> None:
    pay, paid = counter()
    request = granted(pay.spec, b'{"amount":7}')
    result = await run(made(pay), msgspec.structs.replace(request, arguments=b'{"amount": 7}'))
    assert result.reason_code == "grant_invalid" and paid == []


async def test_a_grant_is_good_until_just_before_it_expires() -> None:
    pay, _ = counter()
    assert (await run(made(pay), granted(pay.spec, expires_us=NOW + 1))).ok


async def test_a_grant_of_an_older_activation_is_stale_once_a_newer_one_was_seen() -> None:
    pay, paid = counter()
    dispatcher = made(pay)
    assert (await run(dispatcher, granted(pay.spec, epoch=2, nonce=b"a"))).ok
    assert (await run(dispatcher, granted(pay.spec, epoch=1, nonce=b"b"))).reason_code == "grant_stale"
    assert (await run(dispatcher, granted(pay.spec, epoch=1, nonce=b"c", run_id="run_" + "1" * 24))).ok
    assert (await run(dispatcher, granted(pay.spec, epoch=2, nonce=b"d"))).ok
    assert len(paid) == 3


async def test_a_restarted_executor_voids_every_outstanding_grant() -> None:
    pay, paid = counter()
    names = iter([EXECUTOR, ExecutorId("exe_" + "2" * 24)])
    local = InMemoryTools(lambda: made(pay, executor=next(names)))
    request = granted(pay.spec, executor=await local.executor_for(RUN))
    local.restart()
    assert (await local.execute(RUN, request)).result.reason_code == "grant_invalid"
    assert paid == []


# What a tool answers.


async def test_no_tools_code_runs_on_the_executors_loop() -> None:
    seen: dict[str, int] = {}

    def plain() -> str:
        seen["plain"] = threading.get_ident()
        return "p"

    async def coroutine() -> str:
        seen["coroutine"] = threading.get_ident()
        return "c"

    tools = [tool(effect="read")(plain), tool(effect="read")(coroutine)]
    dispatcher = made(*tools, in_threads=True)
    for number, each in enumerate(tools):
        assert (await run(dispatcher, granted(each.spec, nonce=bytes([number])))).value() == each.name[0]
    assert len({threading.get_ident(), *seen.values()}) == 3


async def test_a_slow_plain_tool_does_not_hold_up_another() -> None:
    gate = threading.Event()
    waits = Tool.from_schema("waits", {"type": "object"}, lambda: gate.wait(5), effect="read")
    opens = Tool.from_schema("opens", {"type": "object"}, gate.set, effect="read")
    dispatcher = made(waits, opens, in_threads=True)
    results = await asyncio.gather(
        run(dispatcher, granted(waits.spec, nonce=b"1")), run(dispatcher, granted(opens.spec, nonce=b"2"))
    )
    assert [r.value() for r in results] == [True, None]


async def test_a_call_without_an_answer_by_its_deadline_has_timed_out() -> None:
    cancelled = []

    async def never() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    slow = tool(effect="write")(never)
    dispatcher = made(slow)
    result = await run(dispatcher, granted(slow.spec, timeout_ms=1))
    assert result.reason_code == "tool_timeout" and cancelled == [True] and dispatcher.stats()["active"] == 0
    assert "did not answer in 0.001 s" in result.error and "it may take 30 s; its run had no longer" in result.error


@pytest.mark.parametrize(
    ("error", "effect", "reason"),
    [
        (ToolError("closed"), "read", "tool_failed"),
        (ToolError("closed"), "write", "tool_failed"),
        (ToolError("closed"), "irreversible", "tool_failed"),
        (InDoubt("closed"), "read", "tool_in_doubt"),
        (InDoubt("closed"), "write", "tool_in_doubt"),
        (ValueError("closed"), "read", "tool_failed"),
        (ValueError("closed"), "write", "tool_in_doubt"),
        (ValueError("closed"), "external", "tool_in_doubt"),
        (ValueError("closed"), "irreversible", "tool_in_doubt"),
    ],
)
async def test_only_a_tool_error_says_that_a_change_did_not_happen(error: Exception, effect: str, reason: str) -> None:
    def fails() -> None:
        raise error

    broken = tool_that(fails, effect)
    result = await run(made(broken), granted(broken.spec))
    assert (result.ok, str(result.reason_code)) == (False, reason) and "closed" in result.error


async def test_an_error_text_is_cut() -> None:
    def fails() -> None:
        raise ToolError("x" * 100_000)

    broken = tool_that(fails)
    assert len((await run(made(broken), granted(broken.spec))).error) == 4000


@pytest.mark.filterwarnings("ignore")
async def test_a_plain_tool_that_runs_out_of_an_iterator_has_failed_and_does_not_hang() -> None:
    broken = tool_that(lambda: next(iter([])))
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    result = await run(made(broken, in_threads=True), granted(broken.spec, timeout_ms=5_000))
    assert result.reason_code == "tool_failed"


async def test_a_timeout_error_of_the_tools_own_is_not_the_deadline() -> None:
    def fails() -> None:
        raise TimeoutError("the socket")

    broken = tool_that(fails)
    assert "did not answer in" not in (await run(made(broken), granted(broken.spec))).error


async def test_a_tool_that_exits_does_not_end_the_executor() -> None:
    def leaves() -> None:
        raise SystemExit(3)

    broken = tool_that(leaves, "write")
    try:
        result = await run(made(broken), granted(broken.spec))
    except SystemExit:
        pytest.fail("execute never raises")
    assert not result.ok


@pytest.mark.parametrize(
    "output",
    [float("nan"), float("inf"), {"a": [float("-inf")]}, b"bytes", object(), {1: 2}, {1, 2}, "a\x00b", "\ud800", 2**70],
)
async def test_an_output_that_is_not_json_is_invalid_and_not_in_doubt(output: Any) -> None:
    odd = tool_that(lambda: output, "write")
    result = await run(made(odd), granted(odd.spec))
    assert str(result.reason_code) == "tool_output_invalid" and bytes(result.output) == b"null"


async def test_an_output_of_hundreds_of_digits_is_invalid_and_does_not_leave_execute() -> None:
    odd = tool_that(lambda: 10**400, "write")
    assert str((await run(made(odd), granted(odd.spec))).reason_code) == "tool_output_invalid"


def breaks(value: Any) -> int:
    """A conversion with a bug of its own."""
    raise KeyError("odd")


async def test_a_type_whose_own_conversion_breaks_does_not_leave_execute() -> None:
    def pay(amount: Annotated[int, BeforeValidator(breaks)]) -> int:
        return amount

    paying = tool(effect="write")(pay)
    assert not (await run(made(paying), granted(paying.spec, b'{"amount":1}'))).ok


def test_an_output_nested_too_deep_or_in_itself_is_invalid() -> None:
    deep: Any = 1
    for _ in range(MAX_DEPTH):
        deep = [deep]
    assert normalise(deep, 10_000).ok
    assert normalise([deep], 10_000).reason_code == "tool_output_invalid"
    loop: list[Any] = []
    loop.append(loop)
    assert normalise(loop, 10_000).reason_code == "tool_output_invalid"


def test_the_bound_on_an_output_is_inclusive_and_named() -> None:
    assert normalise("x" * 8, 10).ok
    result = normalise("x" * 9, 10)
    assert result.reason_code == "tool_output_invalid" and "11 bytes" in result.error and "10" in result.error


def test_an_output_is_json_whatever_order_its_keys_have() -> None:
    assert normalise({"b": 1, "a": [None, True, 1.5, "ü"]}, 100).value() == {"b": 1, "a": [None, True, 1.5, "ü"]}


# Context and reconciliation.


async def test_a_parameter_annotated_tool_context_is_given_and_is_no_argument() -> None:
    seen: list[ToolContext] = []

    def pay(amount: int, context: ToolContext) -> None:
        seen.append(context)

    paying = tool(effect="write")(pay)
    assert list(paying.spec.parameters["properties"]) == ["amount"]
    request = granted(paying.spec, b'{"amount":1}', approval_id="apr_1", timeout_ms=1500, attempt=1)
    assert (await run(made(paying), msgspec.structs.replace(request, traceparent="00-a-b-01"))).ok
    (context,) = seen
    grant = grant_for(paying.spec)
    assert (context.tenant, context.principal, context.run_id) == (grant.tenant, grant.principal, RUN)
    assert (context.idempotency_key, context.approval_id) == (grant.key, "apr_1")
    assert (context.deadline_s, context.traceparent, context.state) == (1.5, "00-a-b-01", None)


async def test_arguments_are_converted_to_the_types_of_the_annotations() -> None:
    def book(day: date) -> str:
        return f"{type(day).__name__} {day.year}"

    booking = tool(effect="read")(book)
    assert (await run(made(booking), granted(booking.spec, b'{"day":"2025-01-02"}'))).value() == "date 2025"
    odd = await run(made(booking), granted(booking.spec, b'{"day":"never"}'))
    assert odd.reason_code == "tool_invalid_arguments" and "day" in odd.error


@pytest.mark.parametrize(
    ("attempt", "known", "asked", "paid", "value"),
    [(1, "before", 0, 1, "now"), (2, "before", 1, 0, "before"), (2, NOT_DONE, 1, 1, "now"), (3, None, 1, 0, None)],
)
async def test_reconcile_is_asked_from_the_second_attempt_on(
    attempt: int, known: Any, asked: int, paid: int, value: Any
) -> None:
    calls: list[str] = []

    async def reconcile(context: ToolContext) -> Any:
        calls.append(context.idempotency_key)
        return known

    def pay() -> str:
        calls.append("pay")
        return "now"

    paying = tool_that(pay, "write", reconcile=reconcile)
    assert paying.spec.repeatable
    result = await run(made(paying), granted(paying.spec, attempt=attempt))
    assert result.ok and result.value() == value
    assert (calls.count(grant_for(paying.spec).key), calls.count("pay")) == (asked, paid)


@pytest.mark.parametrize("attempt", [1, 2, 3])
@pytest.mark.parametrize("effect", ["write", "external", "irreversible"])
async def test_a_tool_error_settles_every_attempt_of_a_repeatable_tool_as_failed(effect: str, attempt: int) -> None:
    def closed() -> None:
        raise ToolError("closed")

    broken = tool_that(closed, effect, idempotent=True)
    result = await run(made(broken), granted(broken.spec, attempt=attempt))
    assert (result.ok, str(result.reason_code), result.error) == (False, "tool_failed", "closed")


async def test_a_tool_error_after_reconcile_knew_nothing_settles_the_call_as_failed() -> None:
    def closed() -> None:
        raise ToolError("closed")

    broken = tool_that(closed, "write", reconcile=lambda context: NOT_DONE)
    assert (await run(made(broken), granted(broken.spec, attempt=2))).reason_code == "tool_failed"


@pytest.mark.parametrize("error", [ToolError("down"), ConnectionError("down"), InDoubt("down")])
async def test_whatever_a_reconcile_hook_raises_is_a_doubt_and_never_a_failure(error: Exception) -> None:
    pay, paid = counter()

    def reconcile(context: ToolContext) -> Any:
        raise error

    unsure = Tool.from_schema("t", {"type": "object"}, pay.function, effect="write", reconcile=reconcile)
    result = await run(made(unsure), granted(unsure.spec, attempt=2))
    assert result.reason_code == "tool_in_doubt" and "down" in result.error and paid == []


@pytest.mark.parametrize("error", [ConnectionError("down"), ToolError("down")])
async def test_a_toolset_that_does_not_open_for_a_later_attempt_leaves_a_write_in_doubt(error: Exception) -> None:
    def refuse(context: ToolContext) -> Any:
        raise error

    pay, paid = counter()
    result = await run(made(Toolset("s", (pay,), refuse)), granted(pay.spec, attempt=2))
    assert paid == [] and result.reason_code == "tool_in_doubt"


async def test_a_calls_duration_is_told_by_the_dispatchers_own_clock() -> None:
    clock = [NOW]

    def takes() -> None:
        clock[0] += 1_234

    slow = tool_that(takes)
    dispatcher = Dispatcher([slow], seal_key=KEY, executor_id=EXECUTOR, now_us=lambda: clock[0], in_threads=False)
    assert (await run(dispatcher, granted(slow.spec))).duration_us == 1_234


async def test_a_clock_that_goes_back_never_gives_a_duration_below_zero() -> None:
    clock = [NOW]

    def takes() -> None:
        clock[0] -= 5_000

    odd = tool_that(takes)
    dispatcher = Dispatcher([odd], seal_key=KEY, executor_id=EXECUTOR, now_us=lambda: clock[0], in_threads=False)
    assert (await run(dispatcher, granted(odd.spec))).duration_us == 0


async def test_a_refused_call_takes_no_time() -> None:
    pay, _ = counter()
    assert (await run(made(pay), granted(pay.spec, expires_us=NOW))).duration_us == 0


async def test_a_reconcile_hook_that_fails_leaves_a_write_in_doubt_and_does_not_call_it() -> None:
    pay, paid = counter()

    def reconcile(context: ToolContext) -> Any:
        raise ConnectionError("down")

    unsure = Tool.from_schema("t", {"type": "object"}, pay.function, effect="write", reconcile=reconcile)
    assert (await run(made(unsure), granted(unsure.spec, attempt=2))).reason_code == "tool_in_doubt"
    assert paid == []


# Toolsets.


class Session:
    """A toolset whose state is a list that its one tool appends to."""

    def __init__(self, opening: Callable[[], Awaitable[None]] | None = None) -> None:
        self.opened: list[RunId] = []
        self.closed: list[Any] = []

        async def open_state(context: ToolContext) -> list[str]:
            self.opened.append(context.run_id)
            if opening is not None:
                await opening()
            return []

        def note(context: ToolContext) -> int:
            context.state.append("x")
            return len(context.state)

        self.note = tool(effect="read")(note)
        self.toolset = Toolset("session", (self.note,), open_state, self.closed.append)

    def call(self, nonce: bytes, run_id: str = RUN) -> ExecuteRequest:
        """Return a granted call of the tool."""
        return granted(self.note.spec, nonce=nonce, run_id=run_id)


async def test_a_toolset_is_opened_once_per_run_even_by_calls_at_the_same_moment() -> None:
    session = Session(lambda: asyncio.sleep(0))
    dispatcher = made(session.toolset)
    results = await asyncio.gather(*[run(dispatcher, session.call(bytes([n]))) for n in range(4)])
    assert sorted(r.value() for r in results) == [1, 2, 3, 4] and session.opened == [RUN]
    other = RunId("run_" + "1" * 24)
    assert (await run(dispatcher, session.call(b"z", other))).value() == 1
    assert session.opened == [RUN, other] and dispatcher.stats()["states"] == 2


async def test_release_closes_the_runs_state_and_no_other() -> None:
    session = Session()
    dispatcher = made(session.toolset)
    other = RunId("run_" + "1" * 24)
    await run(dispatcher, session.call(b"a"))
    await run(dispatcher, session.call(b"b", other))
    await dispatcher.release(RUN)
    await dispatcher.release(RUN)
    assert session.closed == [["x"]] and dispatcher.stats()["states"] == 1
    assert (await run(dispatcher, session.call(b"c"))).reason_code == "grant_stale" and session.opened == [RUN, other]


async def test_a_grant_that_was_used_stays_used_when_the_clock_goes_back() -> None:
    clock, (pay, paid) = [NOW], counter()
    dispatcher = Dispatcher([pay], seal_key=KEY, executor_id=EXECUTOR, now_us=lambda: clock[0], in_threads=False)
    used, later = granted(pay.spec), granted(pay.spec, expires_us=300 * SECOND, nonce=b"later")
    assert (await run(dispatcher, used)).ok
    clock[0] = 200 * SECOND
    assert (await run(dispatcher, later)).ok  # the first nonce is forgotten
    clock[0] = NOW
    assert (await run(dispatcher, used)).reason_code == "grant_invalid" and len(paid) == 2
    assert (await run(dispatcher, granted(pay.spec, expires_us=130 * SECOND, nonce=b"new"))).ok


# What waits between its grant and its start.


class Slowly:
    """A journal that takes claims in when it is let."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self, append: Append) -> AppendReply:
        """Wait, then take it."""
        self.asked.set()
        await self.go_on.wait()
        return AppendReply(verdict="ok")


def switched_off() -> KillSwitchChanged:
    """Return a switch of everything."""
    return KillSwitchChanged(at_us=NOW, scope="all", target="", off=True, by=PrincipalId("op"))


@pytest.mark.parametrize(("by", "reason"), [("release", "grant_stale"), ("switch", "switched_off")])
async def test_a_call_that_waits_for_its_claim_does_not_start_once_its_run_is_over_or_it_is_switched_off(
    by: str, reason: str
) -> None:
    pay, paid = counter()
    journal, told = Slowly(), list[GrantRefused]()
    dispatcher = Dispatcher(
        [pay],
        seal_key=KEY,
        executor_id=EXECUTOR,
        now_us=lambda: NOW,
        journal=journal,
        on_refusal=lambda refused, tenant: told.append(refused),
    )
    call = asyncio.ensure_future(run(dispatcher, granted(pay.spec)))
    await journal.asked.wait()
    if by == "release":
        await dispatcher.release(RUN)
    else:
        dispatcher.grants.switches.apply(switched_off())
    journal.go_on.set()
    assert (await call).reason_code == reason and paid == []
    assert [refused.reason_code for refused in told] == [reason]


@pytest.mark.parametrize("later", [{"attempt": 2}, {"attempt": 2, "epoch": 2}])
async def test_an_attempt_that_waits_does_not_start_once_a_later_one_asks_what_became_of_the_key(
    later: dict[str, int],
) -> None:
    """Each would be told that nothing had happened, and both happen."""
    paid: list[int] = []

    def pay() -> None:
        paid.append(1)

    paying = tool_that(pay, "write", reconcile=lambda context: "paid before" if paid else NOT_DONE)
    journal = Slowly()
    dispatcher = Dispatcher([paying], seal_key=KEY, executor_id=EXECUTOR, now_us=lambda: NOW, journal=journal)
    first = asyncio.ensure_future(run(dispatcher, granted(paying.spec)))
    await journal.asked.wait()
    second = asyncio.ensure_future(run(dispatcher, granted(paying.spec, nonce=b"another", **later)))
    await asyncio.sleep(0)
    journal.go_on.set()
    assert (await first).reason_code == "grant_stale" and (await second).ok and paid == [1]


@pytest.mark.parametrize(("left_ms", "ends"), [(60_000, "ok"), (0, "tool_timeout"), (400, "tool_timeout")])
async def test_a_calls_time_is_not_that_in_which_it_waits_for_a_thread(
    left_ms: int, ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for as long as its run has: a call of 300 ms, for which there is a thread after half a second."""
    pay, paid = counter()
    dispatcher, loop, late_s = made(pay, in_threads=True), asyncio.get_running_loop(), 0.0
    time = loop.time
    monkeypatch.setattr(loop, "time", lambda: time() + late_s)
    for at in range(PLACES):
        await dispatcher._runners.slots.take(TenantId(f"tenant-{at % 2}"))
    call = asyncio.ensure_future(run(dispatcher, granted(pay.spec, timeout_ms=300, left_ms=left_ms)))
    while not dispatcher._runners.slots.waiting:  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0)
    late_s = 0.5
    for _ in range(5):
        await asyncio.sleep(0)
    dispatcher._runners.slots.give_back(TenantId("tenant-0"))
    result = await call
    assert ("ok" if result.ok else result.reason_code) == ends and paid == [1] * result.ok
    assert result.duration_us < 300_000


@pytest.mark.parametrize(("by", "reason"), [("release", "tool_timeout"), ("switch", "switched_off")])
async def test_a_call_that_waits_for_a_thread_does_not_start_once_its_run_is_over_or_it_is_switched_off(
    by: str, reason: str
) -> None:
    pay, paid = counter()
    dispatcher = made(pay, in_threads=True)
    for at in range(PLACES):
        await dispatcher._runners.slots.take(TenantId(f"tenant-{at % 2}"))
    call = asyncio.ensure_future(run(dispatcher, granted(pay.spec)))
    while not dispatcher._runners.slots.waiting:  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0)
    if by == "release":
        await dispatcher.release(RUN)
    else:
        dispatcher.grants.switches.apply(switched_off())
    dispatcher._runners.slots.give_back(TenantId("tenant-0"))
    assert (await call).reason_code == reason and paid == []
    dispatcher.grants.switches = KillSwitches()
    other = granted(pay.spec, run_id="run_" + "1" * 24, nonce=b"another")
    assert (await run(dispatcher, other)).ok  # the place it did not use is free


async def test_nothing_of_a_run_begins_after_its_release_but_an_undo() -> None:
    taken: list[Any] = []

    def back(context: ToolContext, arguments: dict[str, Any], output: Any) -> None:
        taken.append(output)

    pay = tool_that(lambda: 7, effect="write", undo=back)
    dispatcher = made(pay)
    await dispatcher.release(RUN)
    assert (await run(dispatcher, granted(pay.spec, epoch=9))).reason_code == "grant_stale"
    undo = granted(pay.spec, undo=True, output_sha256=digest(b"7"), nonce=b"another")
    assert (await run(dispatcher, msgspec.structs.replace(undo, output=b"7"))).ok and taken == [7]
    await dispatcher.release(RUN)
    many = MAX_CLAIM_ATTEMPTS + 1
    again = granted(pay.spec, undo=True, output_sha256=digest(b"7"), attempt=many, nonce=b"a third")
    assert (await run(dispatcher, msgspec.structs.replace(again, output=b"7"))).ok and taken == [7, 7]


async def test_a_state_that_cannot_be_closed_does_not_stop_the_release() -> None:
    session = Session()

    def close(state: Any) -> None:
        raise OSError("gone")

    dispatcher = made(Toolset("session", (session.note,), session.toolset.open, close))
    await run(dispatcher, session.call(b"a"))
    await dispatcher.release(RUN)
    assert dispatcher.stats()["states"] == 0


async def test_a_write_whose_toolset_does_not_open_was_not_started() -> None:
    def refuse(context: ToolContext) -> Any:
        raise ConnectionError("down")

    pay, paid = counter()
    result = await run(made(Toolset("s", (pay,), refuse)), granted(pay.spec))
    assert paid == [] and result.reason_code != "tool_in_doubt"


async def test_release_forgets_a_state_that_failed_to_open() -> None:
    def refuse(context: ToolContext) -> Any:
        raise ConnectionError("down")

    pay, _ = counter()
    dispatcher = made(Toolset("s", (pay,), refuse))
    await run(dispatcher, granted(pay.spec))
    await dispatcher.release(RUN)
    assert not dispatcher._states._opening


# Declaring tools.


def typed(amount: int) -> int:
    """Pay."""
    return amount


def untyped(amount) -> int:  # type: ignore[no-untyped-def]
    return 1


def starred(*amounts: int) -> int:
    return 1


def named(**amounts: int) -> int:
    return 1


def opaque(lock: threading.Event) -> int:
    return 1


def test_a_tool_takes_its_schema_and_description_from_its_function() -> None:
    made_tool = tool(effect="write", scopes=["pay"], timeout=1.5)(typed)
    assert (made_tool.name, made_tool.spec.description, made_tool.spec.timeout_ms) == ("typed", "Pay.", 1500)
    assert made_tool.spec.parameters["properties"]["amount"]["type"] == "integer"
    assert made_tool.spec.scopes == ("pay",) and made_tool(3) == 3
    assert repr(made_tool) == f"Tool(typed, write, {made_tool.spec.version})"


@pytest.mark.parametrize("misuse", [lambda: tool(typed), lambda: tool()(typed), lambda: tool(name="x")(typed)])
def test_a_tool_must_say_its_effect(misuse: Callable[[], Any]) -> None:
    with pytest.raises(InvalidConfig, match="effect="):
        misuse()


@pytest.mark.parametrize(
    ("function", "options", "says"),
    [
        (untyped, {}, "parameter amount needs a type"),
        (starred, {}, "parameter amounts"),
        (named, {}, "parameter amounts"),
        (opaque, {}, "opaque"),
        (typed, {"effect": "delete"}, "effect 'delete'"),
        (typed, {"name": "a b"}, "'a b'"),
        (typed, {"name": "x" * 129}, "128"),
        (typed, {"name": "é"}, "é"),
        (typed, {"timeout": 0}, "timeout 0"),
        (typed, {"timeout": -1}, "timeout -1"),
        (typed, {"timeout": float("nan")}, "timeout nan"),
        (typed, {"timeout": 10**6}, "timeout 1000000"),
        (typed, {"timeout": True}, "timeout True"),
        (typed, {"process": 4}, "process 4"),
        (typed, {"timeout": "5"}, "timeout '5'"),
        (typed, {"cost_microusd": -1}, "cost_microusd -1"),
        (typed, {"cost_microusd": 1.5}, "cost_microusd 1.5"),
        (typed, {"cost_microusd": True}, "cost_microusd True"),
    ],
)
def test_a_misused_decorator_says_what_is_wrong(function: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        tool(**({"effect": "read"} | options))(function)
    assert says in caught.value.message


def unresolved(amount: Missing) -> int:  # type: ignore[name-defined]  # noqa: F821
    return 1


def positional(amount: int, /) -> int:
    return amount


def private(_amount: int) -> int:
    return _amount


@pytest.mark.parametrize("function", [unresolved, positional, private])
def test_parameters_that_cannot_be_given_by_name_are_refused(function: Any) -> None:
    with pytest.raises(InvalidConfig):
        tool(effect="read")(function)


@pytest.mark.parametrize("schema", [{"type": "array"}, {}, {"type": "object", "properties": 5}, {"type": "nothing"}])
def test_a_schema_that_is_not_one_of_an_object_is_refused(schema: dict[str, Any]) -> None:
    from airside.stack.schema.toolspec import ArgumentValidator

    with pytest.raises((InvalidConfig, AttributeError)) as caught:
        ArgumentValidator(Tool.from_schema("t", schema, typed, effect="read").spec)
    assert caught.type is InvalidConfig


def test_the_version_of_a_tool_changes_with_whatever_a_decision_depends_on() -> None:
    base = {"effect": "write", "name": "t"}
    changes = [{}, {"effect": "read"}, {"timeout": 9.0}, {"scopes": ["x"]}, {"cost_microusd": 1}, {"idempotent": True}]
    changes += [{"risk": "high"}, {"description": "x"}, {"max_output_bytes": 9}, {"max_argument_bytes": 9}]
    versions = [tool(**(base | change))(typed).spec.version for change in changes]  # type: ignore[arg-type]
    assert len(set(versions)) == len(changes)
    assert tool(**base)(typed).spec.version == versions[0]  # type: ignore[call-overload]


def test_names_given_twice_and_things_that_are_no_tools_are_refused() -> None:
    one = tool(effect="read")(typed)
    with pytest.raises(InvalidConfig, match="'typed' is given twice"):
        flatten([one, Toolset("s", (one,), lambda context: None)])
    with pytest.raises(InvalidConfig, match=r"neither a Tool nor a Toolset; decorate it with @tool"):
        flatten([typed])  # type: ignore[list-item]
    with pytest.raises(InvalidConfig, match="call it"):
        flatten([ask_human])  # type: ignore[list-item]
    with pytest.raises(InvalidConfig, match=r"as \*them"):
        flatten([[one]])  # type: ignore[list-item]


def test_raw_results_keep_their_bytes() -> None:
    assert ToolResult(ok=True, output=Raw(b'{"a":1}')).value() == {"a": 1}
