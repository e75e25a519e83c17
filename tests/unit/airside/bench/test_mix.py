"""What runs do: plans of a mix, and of recorded runs."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pyarrow as pa
import pytest

from airside.bench.app import bench_app
from airside.bench.mix import BLOCKED, DEFAULT_MIX, KINDS, LARGE_CENTS, Recorded, parse_mix
from airside.bench.replay import recorded_plans
from airside.stack.errors import InvalidInput
from airside.stack.reasons import ReasonCode


def test_every_kind_has_a_plan_of_the_apps_own_tools() -> None:
    """And none makes the same call twice, which would end it as a loop."""
    tools = {tool.spec.name for tool in bench_app(["a"]).tools}
    for kind in KINDS:
        plan = parse_mix(f"{kind}=1", 4).plan(Random(1))
        assert plan.kind == kind and {call.tool for call in plan.calls} <= tools
        written = [str(call) for call in plan.calls]
        assert len(set(written)) == len(written) == (0 if kind == "refused" else 4)


def test_kinds_are_drawn_by_their_weights() -> None:
    """What has a weight of 0 is not drawn, and whether somebody is asked is known before."""
    mix, rng = parse_mix("read=3, write=1,approval=0", 2), Random(2)
    drawn = Counter(mix.plan(rng).kind for _ in range(4_000))
    assert set(drawn) == {"read", "write"} and 2.6 < drawn["read"] / drawn["write"] < 3.4
    assert not mix.waits and parse_mix(DEFAULT_MIX, 4).waits


@pytest.mark.parametrize(
    "text", ["", "read", "read=x", "read=-1,write=2", "read=0", "read=1,read=2", "think=1", "read=nan"]
)
def test_what_is_no_mix_is_named(text: str) -> None:
    """Rather than drawn from."""
    with pytest.raises(InvalidInput, match="--mix"):
        parse_mix(text, 4)


class Journal:
    """Answers with given rows."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows = rows

    def query(self, sql: str, parameters: object = ()) -> pa.Table:
        """Answer."""
        return pa.Table.from_pylist(self._rows)


def row(run_id: str, step: int, **fields: Any) -> dict[str, Any]:
    """Return a step of a recorded run."""
    usual = {"reason": "completed", "effect": "read", "decide_us": 0, "execute_us": 0, "executed": True, "asked": False}
    return {"run_id": run_id, "step": step, **usual, **fields}


def test_a_recorded_run_is_played_with_its_kinds_of_calls_and_their_times() -> None:
    """A read, a write that a person was asked about, and one that policy denied; nothing of what they said."""
    (first, second) = recorded_plans(
        Journal(
            [
                row("run_a", 0, decide_us=250_000, execute_us=100_000),
                row("run_a", 1, effect="external", asked=True),
                row("run_b", 0, effect="write"),
                row("run_b", 1, effect="write", executed=False, reason="policy_denied"),
            ]
        )
    )
    assert [call.tool for call in first.calls] == ["read_account", "post_entry"] and first.waits
    assert first.calls[0].decide_s == 0.25 and first.calls[0].arguments["seconds"] == 0.1
    assert first.calls[1].arguments["cents"] >= LARGE_CENTS
    assert second.ending is ReasonCode.POLICY_DENIED and second.calls[-1].arguments["account"] == BLOCKED
    assert Recorded([first, second]).waits and not Recorded([second]).waits


def test_a_journal_without_calls_is_no_source() -> None:
    """It is said before anything starts."""
    with pytest.raises(InvalidInput, match="--replay"):
        recorded_plans(Journal([]))
