"""A kill switch holds at admission, at the gate and at the executors, and outlives every process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from airside import ReasonCode
from airside.actors.client.client import Stack
from airside.stack.errors import Misuse, Refused
from tests.on_ray import BOUND_S, Owner, a_stack, airside_cli, call, ledger_of, parked, sigkill, submit, until, waiting

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def stack(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with two executors."""
    with a_stack(tmp_path_factory.mktemp("switches"), "switches") as started:
        yield started


def test_a_tool_that_is_off_is_refused_at_the_gate_and_works_again_when_it_is_on(stack: Stack) -> None:
    stack.switch_off(tool="note", why="it misbehaves")
    off = submit(stack, call("note", text="while off")).result(timeout=BOUND_S)
    assert off.reason_code is ReasonCode.SWITCHED_OFF and "it misbehaves" in off.detail
    assert submit(stack, call("look", topic="x")).result(timeout=BOUND_S).ok
    stack.switch_on(tool="note")
    assert submit(stack, call("note", text="while on")).result(timeout=BOUND_S).ok
    assert ledger_of(stack).texts("while") == ["while on"]


def test_a_tenant_or_principal_that_is_off_is_not_admitted_and_others_are(stack: Stack) -> None:
    for target in ({"tenant": "acme"}, {"principal": "acme/ana"}, {"all": True}):
        stack.switch_off(**target, why="breach")
        with pytest.raises(Refused, match="breach") as refused:
            submit(stack, call("look", topic="x"))
        assert refused.value.reason == "switched_off"
        if "all" not in target:
            assert submit(stack, call("look", topic="x"), who="ana@beta").result(timeout=BOUND_S).ok
        stack.switch_on(**target)
    assert submit(stack, call("look", topic="x")).result(timeout=BOUND_S).ok and stack.switches() == []


def test_what_was_approved_before_does_not_start_after(stack: Stack) -> None:
    handle = submit(stack, call("pay", to="switched", amount=4))
    approval = waiting(stack, handle.run_id)
    parked(stack, handle.run_id)
    stack.switch_off(tool="pay", why="the bank called")
    assert stack.approve(approval.approval_id, principal="lea") == "approved"
    assert handle.result(timeout=BOUND_S).reason_code is ReasonCode.SWITCHED_OFF
    assert ledger_of(stack).amounts("switched") == []
    stack.switch_on(tool="pay")


@pytest.mark.parametrize("layer", ["policy", "executor", "driver", ""])
def test_a_switch_outlives(stack: Stack, layer: str) -> None:
    stack.switch_off(tool="note", why="for good")
    sigkill(stack, layer)
    listed = until(lambda: stack.switches(), "the driver to be back")
    assert [(s.scope, s.target, s.why) for s in listed] == [("tool", "note", "for good")]

    def look() -> ReasonCode | None:
        try:
            return submit(stack, call("note", text="outlived")).result(timeout=BOUND_S).reason_code
        except Exception:  # ingress is not back yet
            return None

    assert until(look, "a run") is ReasonCode.SWITCHED_OFF
    stack.switch_on(tool="note")
    assert ledger_of(stack).texts("outlived") == [] and stack.verify() == []


def test_a_slip_of_the_pen_is_said(stack: Stack) -> None:
    for target, said in (
        ({"tenant": "acmee"}, "no tenant 'acmee'"),
        ({"tool": "paay"}, "no tool 'paay'"),
        ({"principal": "ana"}, "TENANT/PRINCIPAL"),
        ({"run": "r1"}, "not a run id"),
        ({"color": "red"}, "no argument 'color'"),
        ({}, "say one of"),
        ({"tenant": "acme", "tool": "pay"}, "say one of"),
    ):
        with pytest.raises(Misuse, match=said):
            stack.switch_off(**target)
    assert stack.switches() == []


@pytest.mark.slow
def test_the_command_line_throws_lists_and_takes_back(tmp_path: Path) -> None:
    with Owner(tmp_path) as owner:
        here = ("--state-dir", str(owner.state))
        assert airside_cli("switch", "off", "tool", "note", "--why", "by hand", "--for", "3600", *here).returncode == 0
        listed = json.loads(airside_cli("switch", "list", *here).stdout)
        assert (listed["scope"], listed["target"], listed["why"]) == ("tool", "note", "by hand")
        assert listed["until_us"] - listed["at_us"] == pytest.approx(3600e6, rel=0.01)
        assert "no tool" in airside_cli("switch", "off", "tool", "nosuch", *here).stderr
        assert airside_cli("switch", "on", "tool", "note", *here).returncode == 0
        assert airside_cli("switch", "list", *here).stdout == ""
