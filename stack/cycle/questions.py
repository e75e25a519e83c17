"""Asking people about a call, and in the same question about the calls like it that come later in its decision.

Those are decided about as if it were their turn (`GateRequest.preview`), so that each is shown with its own values,
origins and resources.  Nothing is granted by that: when its turn comes, a call is gated like any other, finds what
people decided about exactly that call, and is asked about anew if it is another one by then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from airside.stack.approvals.book import MAX_TOGETHER, ApprovalRequested, Question
from airside.stack.errors import LayerUnavailable
from airside.stack.ids import ApprovalId
from airside.stack.run import events as ev
from airside.stack.run.state import OpenCall, StepRecord
from airside.stack.values import NULL, ToolResult

if TYPE_CHECKING:
    from airside.stack.cycle.cycle import Cycle


async def question_about(cycle: Cycle, gated: ev.ActionGated) -> Question:
    """Return what people are asked about a call."""
    asked = _asked(cycle, gated)
    if gated.asks_for_tool or not cycle.machine.state.later or gated.approval_id in cycle.asked_ahead:
        return Question(asked=asked)
    try:
        beside = await _beside(cycle, gated)
    except LayerUnavailable:
        beside = []  # they are asked about in their turn
    cycle.asked_ahead.update(each.approval_id for each in beside)
    return Question(asked=asked, beside=tuple(_asked(cycle, each) for each in beside))


async def _beside(cycle: Cycle, gated: ev.ActionGated) -> list[ev.ActionGated]:
    """Return what the gate would say of the later calls of the same tool that the same people would be asked about."""
    s, terms = cycle.machine.state, gated.decision.approval
    assert s.action is not None and terms is not None
    found: list[ev.ActionGated] = []
    digests, before = {gated.digest}, [_done(OpenCall(step=gated.step, action=s.action), gated)]
    for call in [each for each in s.later if each.action.tool == gated.tool][: MAX_TOGETHER - 1]:
        shown = await cycle.preview(call, before)
        before.append(_done(call, shown))
        same = shown.decision.approval is not None and (shown.decision.approval.roles, shown.decision.approval.quorum)
        if same != (terms.roles, terms.quorum) or shown.approval_id is None or shown.digest in digests:
            continue
        if any(each.origin == "repeated" for each in shown.origins):
            alone = await cycle.preview(call, ())
            if alone.decision.approval is None:
                continue  # by itself nobody would be asked: those before it may come to nothing
        if not s.rejected.against(shown, call.action):
            digests.add(shown.digest)
            found.append(shown)
    return found


def _done(call: OpenCall, gated: ev.ActionGated) -> StepRecord:
    """Return a call as one that was made: what has its effect again is shown as that."""
    arguments = msgspec.json.decode(gated.arguments) if gated.arguments != NULL else call.action.arguments
    result = ToolResult(ok=True)
    return StepRecord(step=call.step, agent="", tool=call.action.tool, arguments=arguments, result=result)


def _asked(cycle: Cycle, gated: ev.ActionGated) -> ApprovalRequested:
    s, terms, now = cycle.machine.state, gated.decision.approval, cycle.layers.now_us()
    assert terms is not None and gated.approval_id is not None
    identity = s.submitted.identity
    return ApprovalRequested(
        at_us=now,
        approval_id=ApprovalId(gated.approval_id),
        tenant=identity.tenant,
        requester=identity.principal,
        run_id=cycle.run_id,
        step=gated.step,
        tool=gated.tool,
        tool_version=gated.tool_version,
        policy_version=gated.decision.policy_version,
        rule=gated.decision.rule,
        effect=gated.effect,
        arguments=gated.question if gated.asks_for_tool else gated.arguments,
        terms=terms,
        expires_us=now + terms.expires_after_s * 1_000_000,
        request_text=s.submitted.request.text[:2000],
        origins=() if gated.asks_for_tool else gated.origins,  # all of it is by whoever wrote the tool
        resources=gated.resources,
        rejected_before=s.rejected.summary(gated.tool),
    )
