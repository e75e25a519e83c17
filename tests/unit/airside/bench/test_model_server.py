"""The benchmark's model: it follows the plan that stands in what it is asked."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from airside.bench.mix import parse_mix
from airside.bench.model_server import answer, read_latencies
from airside.stack.errors import InvalidInput

PLAN = parse_mix("write=1", 2).plan(Random(1))


def asked(done: int) -> dict[str, Any]:
    """Return a request, after so many calls."""
    request = "Post them.\n\nInputs:\n" + json.dumps(PLAN.inputs())
    calls = [{"role": "assistant", "content": None}, {"role": "tool", "content": "{}"}] * done
    messages = [{"role": "system", "content": "Follow."}, {"role": "user", "content": request}, *calls]
    return {"model": "plan", "messages": messages}


@pytest.mark.parametrize("done", [0, 1])
def test_it_proposes_the_plans_next_call(done: int) -> None:
    """By how many have been made."""
    (choice,) = answer(asked(done))["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls" and call["function"]["name"] == PLAN.calls[done].tool
    assert json.loads(call["function"]["arguments"]) == PLAN.calls[done].arguments


def test_it_ends_when_the_plan_does() -> None:
    """With a text, and no call."""
    (choice,) = answer(asked(2))["choices"]
    assert choice["finish_reason"] == "stop" and choice["message"]["content"] == "2 calls were made"


def test_latencies_are_read_a_line_each(tmp_path: Path) -> None:
    """Empty lines are passed over."""
    (tmp_path / "a").write_text("0.5\n\n2\n")
    assert read_latencies(tmp_path / "a") == [0.5, 2.0]


@pytest.mark.parametrize("text", ["", "fast", "-1", "nan", "1e9"])
def test_what_is_no_latency_is_named(text: str, tmp_path: Path) -> None:
    """With its line, before anything starts."""
    (tmp_path / "a").write_text(text)
    with pytest.raises(InvalidInput, match="--models"):
        read_latencies(tmp_path / "a")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """As one that cannot be read is."""
    with pytest.raises(InvalidInput, match="No such file"):
        read_latencies(tmp_path / "a")
