"""Values to be drawn: runs of the simulator, and what is made of texts that a test chooses."""

from __future__ import annotations

from typing import Any

from airside.actors.client.results import PendingApproval, RunResult, ended_result
from airside.actors.journal.batches import BatchOutcome, BatchSummary
from airside.stack.ids import PrincipalId, RunId, TenantId
from airside.stack.operations.batches import BatchSettings
from airside.stack.operations.overview import RunSummary
from airside.stack.reasons import ReasonCode, RunStatus
from airside.stack.recovery.in_doubt import InDoubtCall
from airside.stack.resources import ResourceFact
from airside.stack.run.events import Event, RunEnded, decode_event, encode_event
from airside.stack.values import ValueOrigin
from tests.simulation.scenario import Scenario

APPROVED = "submit single look(1) wipe(7)\ntick 1\napprove bob\ntick 1\napprove cat\nstabilise"
WAITING = "submit single look(1) wipe(7)\ntick 1"
DENIED = "submit single look(1) forbidden(1)\nstabilise"


def played(commands: str) -> list[Event]:
    """Return the events of the first run of a scenario."""
    world = Scenario()
    world.play(commands)
    return [decode_event(body) for body in world.journal.local.bodies_of(world.runs[0])]


def in_doubt(text: str = "charge", **fields: Any) -> InDoubtCall:
    """Return a call in doubt in which everything that somebody wrote is this text."""
    given = {"run_id": text, "tenant": text, "step": 2, "tool": text, "arguments": {text: text}, "key": text}
    return InDoubtCall(**{**given, "since_us": 1_700_000_000_000_000, "cause": text, **fields})  # type: ignore[arg-type]


class Record:
    """What reads a run's record, of one run; `problem` = the stack cannot be asked."""

    def __init__(self, events: list[Event], problem: str = "") -> None:
        self._events = events
        self._problem = problem

    def story(self, run_id: str) -> str:
        """Tell it."""
        return "a story"

    def events(self, run_id: str) -> tuple[list[Event], str]:
        """Return the events."""
        return ([], self._problem) if self._problem else (self._events, "")


def result_of(events: list[Event], problem: str = "") -> RunResult:
    """Return the result of a run that has ended."""
    last = events[-1]
    assert isinstance(last, RunEnded)
    return ended_result("run_1", encode_event(last), "job-1", Record(events, problem))


def result(text: str = "kim", status: RunStatus = RunStatus.COMPLETED, *, reason: str = "completed") -> RunResult:
    """Return a result in which everything that somebody wrote is this text."""
    return RunResult(
        job_id=text,
        run_id=text,
        status=status,
        reason_code=ReasonCode(reason),  # type: ignore[call-arg]
        detail=text,
        answer={text: [text]},
        steps=2,
        tokens=120,
        cost_microusd=15_000,
        seconds=1.5,
        in_doubt=(text,),
    )


def approval(text: str = "kim", *, question: bool = False) -> PendingApproval:
    """Return an approval in which everything that somebody wrote is this text."""
    return PendingApproval(
        approval_id=text,
        tenant=text,
        requester=text,
        run_id=text,
        tool=text,
        effect="external",
        arguments={"to": text, "body": f"{text}\n{text}", text: {text: text}},
        rule=text,
        roles=(text,),
        quorum=1,
        votes=0,
        expires_us=1_764_400_000_000_000,
        request=text,
        origins=(
            ValueOrigin(path="to", value=text, part="authority", origin="request"),
            ValueOrigin(path="iban", value=text, part="authority", origin="tool", detail=text),
        ),
        resources=(ResourceFact(kind="account", path="to", declared="to", state="found", id=text),),
        rejected_before=text,
        group=text,
        is_question=question,
    )


def batch(text: str = "kim", **fields: object) -> BatchSummary:
    """Return a batch's line in which everything that somebody wrote is this text."""
    outcomes = (("active", "", 2), ("completed", "completed", 3), ("failed", text, 1))
    return BatchSummary(
        **{
            "id": text,
            "phase": "finished",
            "opened_us": 1_764_400_000_000_000,
            "owner": text,
            "settings": BatchSettings(),
            "last_order": text,
            "manifest": {"input": {"kind": "files", "files": [{"file": text}, {"file": "b"}]}, "out": text},
            "outcomes": tuple(
                BatchOutcome(status=status, reason_code=reason, runs=runs, steps=1, tokens=5, cost_microusd=7)
                for status, reason, runs in outcomes
            ),
            **fields,
        }
    )


def summary(text: str = "kim", **fields: object) -> RunSummary:
    """Return a run's line in which everything that somebody wrote is this text."""
    return RunSummary(
        **{
            "run_id": RunId(text),
            "tenant": TenantId(text),
            "principal": PrincipalId(text),
            "job_id": text,
            "route": text,
            "parent": text,
            "submitted_us": 1_764_400_000_000_000,
            **fields,
        }
    )
