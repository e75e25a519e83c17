"""What earlier decisions of a visit asked, proposed and were told, for an agent that makes its way here once more.

A visit is the stretch of a run in which an agent decides until it finishes or hands over.  An agent that keeps no state
of its own, and cannot draw it from the run's history either, runs from its beginning again: it is given what is on
record here in place of asking models, and having calls carried out, a second time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from airside.stack.contracts.models import RecordedAnswer
from airside.stack.run import events as ev
from airside.stack.run.state import StepRecord
from airside.stack.run.topology import FanOut
from airside.stack.values import Action


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierCall:
    """A call as it was proposed, and what came of it.

    `record` has the arguments that the gate decided about: complete, and those of a person where `is_edited`.
    """

    proposed: Action
    record: StepRecord
    is_edited: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierDecision:
    """One decision: what models answered for it, in the order of its questions, and the calls it proposed."""

    step: int
    calls: tuple[EarlierCall, ...]
    answers: tuple[RecordedAnswer, ...] = ()


async def nothing_earlier() -> tuple[EarlierDecision, ...]:
    """Return the decisions before a first one."""
    return ()


def earlier_decisions(
    events: Sequence[ev.Event], history: Sequence[StepRecord], agent: str
) -> tuple[EarlierDecision, ...]:
    """Return an agent's decisions since its visit began, oldest first, without what models answered for them."""
    decided: list[ev.StepDecided] = []
    edited: set[int] = set()
    for event in reversed(events):
        if isinstance(event, ev.RoutePlanned) and isinstance(event.route, FanOut):
            break
        if isinstance(event, ev.ApprovalDecided) and event.outcome == "edited":
            edited.add(event.step)
        if isinstance(event, ev.StepDecided):
            if not isinstance(event.proposal, Action):
                break
            if event.agent == agent:
                decided.append(event)
    records = {record.step: record for record in history}
    return tuple(
        EarlierDecision(
            step=event.step,
            calls=tuple(
                EarlierCall(proposed=action, record=records[step], is_edited=step in edited)
                for step, action in event.calls.items()
                if step in records
            ),
        )
        for event in reversed(decided)
    )
