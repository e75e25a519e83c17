"""The numbered invariants of `RunMachine` (its docstring states them), as one check."""

from __future__ import annotations

from itertools import pairwise

from airside.stack.errors import InvariantBroken
from airside.stack.ids import effect_key
from airside.stack.reasons import RunStatus
from airside.stack.run.state import OVER, OpenCall, Phase, RunState
from airside.stack.values import Usage


def check_invariants(state: RunState) -> None:
    """Raise `InvariantBroken` naming the first invariant that does not hold in `state`."""
    problems = [text for holds, text in _rules(state) if not holds]
    if problems:
        raise InvariantBroken(f"{state.submitted.run_id} in {state.phase}: {problems[0]}")


def _rules(state: RunState) -> list[tuple[bool, str]]:
    used, limits = state.usage, state.submitted.limits
    key = effect_key(state.submitted.run_id, state.step)
    concluded = state.phase is Phase.CONCLUDING or state.phase in OVER
    executing = state.phase is Phase.EXECUTING
    changing = executing and state.gated is not None and state.gated.effect != "read"
    steps = [record.step for record in state.history]
    gated = state.gated
    over_paid = concluded and state.outcome is not None
    return [
        (used.steps <= limits.max_steps or over_paid, "1: more steps than the limit"),
        (used.tool_calls <= limits.max_tool_calls, "1: more tool calls than the limit"),
        (used.cost_microusd <= limits.max_cost_microusd or over_paid, "1: more cost than the limit"),
        (used.tokens <= limits.max_tokens or over_paid, "1: more tokens than the limit"),
        (used.rejections <= limits.rejections or over_paid, "1: more rejections than the limit"),
        (
            not executing
            or (
                gated is not None and gated.decision.outcome == "allow" and state.allowed == (state.step, gated.attempt)
            ),
            "2: executing what was not allowed",
        ),
        (not changing or key in state.in_doubt_keys, "3: executing a change without its key unsettled"),
        (len(state.in_doubt_keys) <= 1, "3: more than one key unsettled"),
        (
            state.outcome is None or state.outcome.status != RunStatus.COMPLETED or not state.outcome.in_doubt,
            "3: completed with a key unsettled",
        ),
        (all(value >= 0 for value in _counts(used)), "4: a count below zero"),
        (concluded == (state.outcome is not None), "5: outcome and phase disagree"),
        (all(a < b for a, b in pairwise(steps)), "6: history out of order"),
        (
            state.phase is not Phase.AWAITING_APPROVAL
            or gated is None
            or not state.rejected.against(gated, state.action),
            "7: asking about a call that was rejected",
        ),
        ((state.phase is Phase.READING) == bool(state.reading), "8: reads under way in another phase"),
        (all(map(_may_be_under_way, state.reading.values())), "8: what is under way at once is no allowed read"),
    ]


def _may_be_under_way(call: OpenCall) -> bool:
    gated = call.gated
    if gated is None:
        return True
    is_same = (gated.step, gated.attempt) == (call.step, call.attempt)
    return is_same and gated.decision.outcome == "allow" and gated.effect == "read"


def _counts(used: Usage) -> list[int]:
    return [getattr(used, name) for name in Usage.__struct_fields__]


def check_growth(before: tuple[frozenset[str], int, int], after: RunState) -> None:
    """Raise `InvariantBroken` (4) if labels, epoch or step shrank since `before` = (labels, epoch, step)."""
    labels, epoch, step = before
    if not (labels <= after.labels and epoch <= after.epoch and step <= after.step):
        raise InvariantBroken(f"{after.submitted.run_id}: 4: labels, epoch or step shrank")
