"""What is looked for on behalf of one call has a bound, counted in characters: what is beyond is nobody's."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from airside.stack.provenance import effort
from airside.stack.provenance import tracer as provenance
from airside.stack.provenance.effort import EffortExceeded, EffortLeft, limit_effort, spend_effort
from airside.stack.provenance.matching import SearchableText
from airside.stack.provenance.tracer import Tracer
from airside.stack.run.state import RunState
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.values import ValueOrigin
from tests.helpers import submitted
from tests.unit.stack.provenance.test_provenance import MAIL, read

PAY = ToolSpec.build(
    name="pay",
    effect="irreversible",
    parameters={
        "type": "object",
        "properties": {"to": {"type": "array", "items": {"type": "string"}}, "urgent": {"type": "boolean"}},
    },
)


def test_what_is_spent_beyond_the_limit_is_over_and_stays_so() -> None:
    with limit_effort(EffortLeft(10)):
        spend_effort(10)
        for _ in range(2):
            with pytest.raises(EffortExceeded):
                spend_effort(1)
    spend_effort(1_000_000)


def test_a_look_into_a_text_counts_for_its_length_and_for_each_place() -> None:
    def spent(hay: SearchableText, value: Any) -> int:
        with limit_effort(EffortLeft(10_000_000)):
            hay.has(value)
            left = effort._left.get()
            assert left is not None
            return 10_000_000 - left.characters

    assert spent(SearchableText("x" * 100_000), "zebra") > 100_000
    assert spent(SearchableText("ab-c " * 1_000), "ab") > spent(SearchableText("ab-c " * 100), "ab") + 900 * 200
    numbers = SearchableText("invoice 5, " * 1_000)
    first = spent(numbers, 5)
    assert first == spent(numbers, 5), "what was read before costs the same"


def trace(
    tracer: Tracer, arguments: dict[str, Any], state: RunState, tool: str = "send_mail"
) -> tuple[ValueOrigin, ...]:
    return tracer.trace(tool, arguments, state)


def test_values_beyond_the_limit_are_nobodys_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often they are traced, by whoever: what the request says is then asked about too."""
    monkeypatch.setattr(provenance, "MAX_EFFORT", 400_000)
    run = submitted(text="mail last@x.example")
    state = RunState(submitted=run, history=[read(1, "word " * 2_000)])
    arguments = {"to": [f"a{at}@x.example" for at in range(60)] + ["last@x.example"]}
    tracer = Tracer(run, [MAIL])
    found = trace(tracer, arguments, state)
    assert found == trace(tracer, arguments, state) == trace(Tracer(run, [MAIL]), arguments, state)
    assert {each.origin for each in found} == {"nowhere"}
    assert found[0].detail == "" and found[-1].detail.startswith("not looked for")
    assert trace(tracer, {"to": ["last@x.example"]}, state)[0].origin == "request"


def test_the_calls_of_one_decision_have_one_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many calls are looked for no longer than one; the next decision has its own."""
    monkeypatch.setattr(provenance, "MAX_EFFORT", 400_000)
    run = submitted(text="mail last@x.example")
    state = RunState(submitted=run, history=[read(1, "word " * 2_000)], base=2, last=65)
    tracer, found = Tracer(run, [MAIL]), list[ValueOrigin]()
    for at in range(64):
        found += trace(tracer, {"to": [f"a{at}@x.example"]}, state)
    looked_for = [each for each in found if not each.detail.startswith("not looked for")]
    assert 0 < len(looked_for) < 40 and found[: len(looked_for)] == looked_for
    assert trace(tracer, {"to": ["last@x.example"]}, state)[0].detail.startswith("not looked for")
    state.base, state.last = 66, 67
    assert trace(tracer, {"to": ["last@x.example"]}, state)[0].origin == "request"


def test_a_call_that_may_be_made_again_is_nobodys_where_that_is_not_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even what needs no looking for, such as a default."""
    monkeypatch.setattr(provenance, "MAX_EFFORT", 100_000)
    many = {"to": [f"a{at}@x.example" for at in range(300)], "urgent": True}
    run = submitted(text="pay", inputs=Raw(b'{"urgent":true}'))
    step = read(1, "done", "pay")
    step = type(step)(step=1, agent="a", tool="pay", arguments=json.loads(json.dumps(many)), result=step.result)
    found = trace(Tracer(run, [PAY]), many, RunState(submitted=run, history=[step]), "pay")
    assert {each.origin for each in found} == {"nowhere"} and all(each.detail for each in found)
    monkeypatch.setattr(provenance, "MAX_EFFORT", 100_000_000)
    found = trace(Tracer(run, [PAY]), many, RunState(submitted=run, history=[step]), "pay")
    assert {each.origin for each in found} == {"repeated"}


def test_how_a_value_was_worked_out_is_told_of_the_first_few() -> None:
    run = submitted(text="the parts are 3, 5, 1003 and 2000")
    found = trace(
        Tracer(run, [MAIL]), {"extra": {f"k{at}": 8 for at in range(40)}}, RunState(submitted=run, history=[])
    )
    told = [each.detail for each in found if "+" in each.detail]
    assert 0 < len(told) <= provenance.MAX_EXPLAINED
