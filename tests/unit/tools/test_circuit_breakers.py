"""`CircuitBreakers`: a tool that does not answer a tenant is not called for a while, and nobody else notices."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airside.stack.ids import TenantId
from airside.stack.values import ToolResult
from airside.tools.circuit_breakers import FAILURES, MAX_KEPT, PAUSE_S, CircuitBreakers, CircuitOpen
from airside.tools.dispatch import Dispatcher
from airside.tools.tool import NOT_DONE, Tool, ToolContext, ToolError, tool
from tests.helpers import EXECUTOR, KEY, SECOND, granted

ACME, GLOBEX = TenantId("acme"), TenantId("globex")


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now_us = 0

    def __call__(self) -> int:
        return self.now_us

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now_us += int(seconds * SECOND)


def lets_through(breakers: CircuitBreakers, tool: str = "crm", tenant: TenantId = ACME) -> bool:
    """Whether a call may begin; if so its end is to be recorded."""
    try:
        breakers.admit(tool, tenant)
    except CircuitOpen:
        return False
    return True


def opened(clock: Clock, failures: int = FAILURES) -> CircuitBreakers:
    """Return breakers after so many failures of acme's crm."""
    breakers = CircuitBreakers(clock)
    for _ in range(failures):
        breakers.admit("crm", ACME)
        breakers.record("crm", ACME, False)
    return breakers


def test_failures_in_a_row_open_it_for_that_tool_and_tenant_alone() -> None:
    assert lets_through(opened(Clock(), FAILURES - 1))
    breakers = opened(Clock())
    assert not lets_through(breakers)
    assert lets_through(breakers, tenant=GLOBEX) and lets_through(breakers, "erp")


def test_it_says_when_to_try_again() -> None:
    clock = Clock()
    breakers = opened(clock)
    clock.advance(PAUSE_S - 1.5)
    with pytest.raises(
        CircuitOpen, match=r"crm did not answer 5 calls in a row, and is not called; try again in 1.5 s"
    ):
        breakers.admit("crm", ACME)


@pytest.mark.parametrize("answers", [True, False, None])
def test_after_the_pause_one_call_tries_it_and_decides(answers: bool | None) -> None:
    clock = Clock()
    breakers = opened(clock)
    clock.advance(PAUSE_S)
    assert lets_through(breakers) and not lets_through(breakers), "one, while the others are answered at once"
    breakers.record("crm", ACME, answers)
    assert lets_through(breakers) is (answers is not False)
    clock.advance(PAUSE_S)
    assert lets_through(breakers) or answers is None


def test_what_answers_between_begins_the_count_anew_and_leaves_nothing() -> None:
    breakers = opened(Clock(), FAILURES - 1)
    breakers.record("crm", ACME, True)
    assert len(breakers) == 0
    for _ in range(FAILURES - 1):
        breakers.record("crm", ACME, False)
    assert lets_through(breakers)


def test_what_is_kept_is_bounded() -> None:
    breakers = CircuitBreakers(Clock())
    for number in range(MAX_KEPT + 10):
        breakers.record("crm", TenantId(f"t{number}"), False)
    assert len(breakers) == MAX_KEPT


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("call"), st.sampled_from([ACME, GLOBEX]), st.sampled_from([True, False, None])),
        st.tuples(st.just("wait"), st.floats(0, 2 * PAUSE_S), st.none()),
    ),
    max_size=60,
)


@given(STEPS)
def test_whatever_comes_a_tenant_has_the_circuit_that_its_own_calls_make(steps: list[tuple[Any, Any, Any]]) -> None:
    """And none is refused before enough failures in a row, nor longer than a pause after the last."""
    clock = Clock()
    together, alone = CircuitBreakers(clock), {tenant: CircuitBreakers(clock) for tenant in (ACME, GLOBEX)}
    row, last_us = dict.fromkeys(alone, 0), dict.fromkeys(alone, 0)
    for kind, what, answers in steps:
        if kind == "wait":
            clock.advance(what)
            continue
        goes = lets_through(together, tenant=what)
        assert goes == lets_through(alone[what], tenant=what)
        assert goes or (row[what] >= FAILURES and clock.now_us < last_us[what] + PAUSE_S * SECOND)
        if goes:
            together.record("crm", what, answers)
            alone[what].record("crm", what, answers)
            if answers is not None:
                row[what] = 0 if answers else row[what] + 1
                last_us[what] = clock.now_us


# In an executor.


class Service:
    """What a tool calls; it can be down."""

    def __init__(self) -> None:
        self.calls = 0
        self.raises: Exception | None = None

    def tool(self, effect: str = "read", **options: Any) -> Tool:
        """Return a tool that calls it."""

        async def call(context: ToolContext) -> int:
            self.calls += 1
            if isinstance(self.raises, TimeoutError):
                await asyncio.Event().wait()
            if self.raises is not None:
                raise self.raises
            return self.calls

        return tool(name="crm", effect=effect, **options)(call)  # type: ignore[arg-type]


async def run(dispatcher: Dispatcher, found: Tool, tenant: str = "acme", **grant: Any) -> ToolResult:
    """Execute a call under a key of its own."""
    given = {"tenant": TenantId(tenant), "nonce": os.urandom(12), "key": os.urandom(4).hex(), **grant}
    return (await dispatcher.execute(granted(found.spec, b"{}", **given))).result


def executor(found: Tool, clock: Clock) -> Dispatcher:
    """Return an executor with the tool."""
    return Dispatcher([found], seal_key=KEY, executor_id=EXECUTOR, now_us=lambda: 0, running_us=clock, in_threads=False)


@pytest.mark.parametrize("error", [ToolError("busy", retry_after_s=1), TimeoutError()])
async def test_a_tool_that_is_down_is_not_called_and_the_agent_is_told(error: Exception) -> None:
    service, clock = Service(), Clock()
    found = service.tool(timeout=0.001)
    dispatcher, service.raises = executor(found, clock), error
    reasons = [(await run(dispatcher, found, timeout_ms=1)).reason_code for _ in range(FAILURES + 3)]
    assert reasons[FAILURES:] == ["circuit_open"] * 3 and service.calls == FAILURES
    assert (await run(dispatcher, found, "globex", timeout_ms=1)).reason_code != "circuit_open"
    service.raises = None
    clock.advance(PAUSE_S)
    assert (await run(dispatcher, found, timeout_ms=1)).ok and (await run(dispatcher, found, timeout_ms=1)).ok


@pytest.mark.parametrize("error", [ToolError("no such customer"), KeyError("a bug")])
async def test_a_tool_that_answers_with_an_error_is_called_again(error: Exception) -> None:
    service, clock = Service(), Clock()
    found = service.tool()
    dispatcher, service.raises = executor(found, clock), error
    for _ in range(3 * FAILURES):
        assert (await run(dispatcher, found)).reason_code == "tool_failed"
    assert service.calls == 3 * FAILURES


async def test_a_run_that_had_no_time_left_says_nothing_of_its_tool() -> None:
    service = Service()
    found = service.tool(timeout=30)
    dispatcher, service.raises = executor(found, Clock()), TimeoutError()
    reasons = {(await run(dispatcher, found, timeout_ms=1)).reason_code for _ in range(FAILURES + 1)}
    assert reasons == {"tool_timeout"} and service.calls == FAILURES + 1


async def test_what_may_have_happened_is_asked_about_whatever_the_circuit_is() -> None:
    service, clock = Service(), Clock()
    found = service.tool("write", reconcile=lambda context: NOT_DONE)
    dispatcher, service.raises = executor(found, clock), ToolError("busy", retry_after_s=1)
    for _ in range(FAILURES):
        await run(dispatcher, found)
    assert (await run(dispatcher, found)).reason_code == "circuit_open"
    assert (await run(dispatcher, found, attempt=2)).reason_code == "tool_failed" and service.calls == FAILURES + 1
