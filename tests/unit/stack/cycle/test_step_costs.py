"""What a governed step may cost, by counts that no noise touches (`benchmarks/step_costs.py`).

The bounds are what `python -m benchmarks.step_costs` printed when they were written, with a tenth on top where a
version of Python or of a library may differ.  A change that costs more says so by moving them.
"""

from __future__ import annotations

import pytest

from benchmarks.step_costs import ASKS_ORIGINS, play, step_costs

STEPS = 24
OF_A_STEP, OF_A_RUN = 5, 8
"""Events: planned, recalled, decided, gated, executed; and those of a run's begin, answer and end."""


@pytest.fixture(scope="module")
def costs() -> dict[str, dict[str, float]]:
    """Return the counts a step, by a policy that asks nothing about origins and by one that does."""
    return step_costs(STEPS)


@pytest.mark.parametrize("policy", ["plain", "traced"])
def test_a_step_journals_five_events_and_asks_the_gate_once(costs: dict[str, dict[str, float]], policy: str) -> None:
    """A call that is to be traced is foreseen: it is not sent twice."""
    assert costs[policy]["events"] == OF_A_STEP + OF_A_RUN / STEPS
    assert costs[policy]["gate_requests"] == 1


def test_what_a_step_journals_and_sends_is_bounded(costs: dict[str, dict[str, float]]) -> None:
    assert costs["plain"]["journal_bytes"] <= 1_460
    assert costs["plain"]["gate_bytes"] <= 770
    assert costs["traced"]["journal_bytes"] <= 1_640
    assert costs["traced"]["gate_bytes"] <= 890


def test_a_step_that_no_rule_asks_the_origins_of_reads_no_text_for_them(costs: dict[str, dict[str, float]]) -> None:
    """Nor do its later steps, or those of a rule that asks a person about other calls."""
    assert (costs["plain"]["texts_indexed"], costs["plain"]["texts_searched"]) == (0, 0)
    assert costs["plain"]["calls"] <= 362


def test_a_traced_step_reads_each_text_once(costs: dict[str, dict[str, float]]) -> None:
    """What was said and what came back of each step, and the request and its caller once a run."""
    assert costs["traced"]["texts_indexed"] <= 2 + 2 / STEPS
    assert costs["traced"]["calls"] <= 862


def test_a_traced_step_looks_into_each_text_that_was_read_once_for_each_value() -> None:
    """A look costs little beside the rest of the step, so that a long run is not dear."""
    play(1, ASKS_ORIGINS)
    short, long = play(12, ASKS_ORIGINS), play(48, ASKS_ORIGINS)
    assert long["texts_searched"] <= 70
    assert long["calls"] - short["calls"] <= 7.5 * (long["texts_searched"] - short["texts_searched"])


@pytest.mark.parametrize("policy", ["", ASKS_ORIGINS])
def test_a_run_costs_the_same_each_time_it_is_played(policy: str) -> None:
    play(STEPS, policy)
    assert play(STEPS, policy) == play(STEPS, policy)


def test_a_long_run_costs_no_more_a_step_than_a_short_one() -> None:
    """No step looks through all those before it."""
    play(1)
    assert play(120)["calls"] <= play(12)["calls"]
