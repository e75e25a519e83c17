"""A call of the gateway's: what the record of its run says of it, at every point."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import Raw

from airside.stack.errors import InvalidInput
from airside.stack.provenance.tracer import Tracer
from airside.stack.reasons import ReasonCode
from airside.stack.run import events as ev
from airside.stack.run.gateway_call import GATEWAY, CallStanding, GatewayAgent, standing_of
from airside.stack.run.machine import RunMachine
from airside.stack.run.state import RunState
from airside.stack.run.topology import Done
from airside.stack.values import Action, Finish, ToolResult
from tests.helpers import RUN, Driven, spec, submitted

CALL = {"tool": "pay", "arguments": {"n": 1}}


class Called(Driven):
    """A run of one call."""

    def __init__(self, **request: Any) -> None:
        super().__init__()
        given = {"route": GATEWAY, "inputs": Raw(msgspec.json.encode(CALL))} | request
        self.machine = RunMachine(submitted(**given))
        self.activate()

    def standing(self) -> CallStanding:
        """Return what its record says."""
        return standing_of([ev.encode_event(event).decode() for event in self.machine.events])

    def finished(self) -> CallStanding:
        """Let the agent finish, and return what the record says then."""
        self.finish()
        self.send(ev.RoutePlanned, route=Done(answer=None))
        self.end()
        return self.standing()


def test_a_call_is_at_work_waits_for_a_person_and_has_a_result() -> None:
    """A run that is put down while it waits waits all the same."""
    run = Called()
    assert (run.standing().phase, run.standing().call.tool) == ("working", "pay")
    assert run.standing().is_of("acme", "ann") and not run.standing().is_of("acme", "bob")
    assert not run.standing().is_of("beta", "ann")
    run.propose(n=1)
    run.gate("require_approval", arguments=Raw(b'{"n":1}'))
    assert run.standing().phase == "waiting"
    run.send(ev.RunSuspended, why="parked")
    run.activate()
    assert run.standing().phase == "waiting" and not run.standing().is_over
    run.approval("approved")
    assert run.standing().phase == "working"
    run.gate(arguments=Raw(b'{"n":1}'))
    run.executed(ToolResult(ok=True, output=Raw(b'{"paid":1}')))
    done = run.finished()
    assert (done.phase, done.output, done.changed_to) == ("done", {"paid": 1}, None)
    assert done.is_over and done.run_id == RUN and done.created_us < done.updated_us


def test_a_call_that_a_person_changed_says_to_what() -> None:
    run = Called()
    run.propose(n=1)
    run.gate("require_approval", arguments=Raw(b'{"n":1}'))
    run.approval("edited", arguments=Raw(b'{"n":2}'))
    run.gate(arguments=Raw(b'{"n":2}'))
    run.executed()
    assert run.finished().changed_to == {"n": 2}


def test_a_call_whose_fate_nobody_knows_waits_for_people() -> None:
    run = Called()
    run.sent(arguments=Raw(b"{}"))
    run.lost(started=True)
    assert run.standing().phase == "waiting"


def test_what_has_no_result_says_why() -> None:
    """The tool's reason, a person's, policy's; and a call that was withdrawn is none of these."""
    failed = Called()
    failed.sent(arguments=Raw(b"{}"))
    failed.failed(ReasonCode.TOOL_FAILED)
    found = failed.finished()
    assert (found.phase, found.reason_code, found.message) == ("refused", ReasonCode.TOOL_FAILED, "no")
    denied = Called()
    denied.propose(n=1)
    denied.gate("deny", arguments=Raw(b"{}"))
    denied.end()
    found = denied.standing()
    assert (found.phase, found.reason_code) == ("refused", ReasonCode.POLICY_DENIED) and found.message
    withdrawn = Called()
    withdrawn.send(ev.CancelRequested, by="ann", why="enough")
    withdrawn.end()
    assert withdrawn.standing().phase == "cancelled"


@pytest.mark.parametrize("request_of", [{"route": "default"}, {"inputs": Raw(b'{"tool": 5}')}])
def test_a_run_that_is_no_call_of_the_gateways_has_no_standing(request_of: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        Called(**request_of).standing()
    with pytest.raises(InvalidInput):
        standing_of([])


def test_the_agent_proposes_the_call_once_and_ends() -> None:
    """Whatever came of it: a call is not tried again because it was refused."""

    class Seen:
        def __init__(self, history: list[Any]) -> None:
            self.request = submitted(inputs=Raw(msgspec.json.encode(CALL))).request
            self.own_history = lambda: history

    agent = GatewayAgent()
    assert agent.decide(Seen([])) == Action(tool="pay", arguments={"n": 1})  # type: ignore[arg-type]
    assert agent.decide(Seen(["refused"])) == Finish(answer=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("labels", "origin"), [((), "request"), (("untrusted",), "tool")])
def test_arguments_are_the_principals_word_only_where_nothing_says_otherwise(
    labels: tuple[str, ...], origin: str
) -> None:
    """Of a labelled call they come from outside, which the default policy asks a person about; its text names none."""
    inputs = Raw(b'{"tool":"pay","arguments":{"to":"eve@example.com","amount":4711}}')
    run = submitted(text="Call pay", route=GATEWAY, inputs=inputs, labels=labels)
    traced = Tracer(run, [spec("pay")]).trace("pay", {"to": "eve@example.com", "amount": 4711}, RunState(submitted=run))
    assert {found.origin for found in traced} == {origin}
