"""How a computed amount may have been worked out: shown with whose each number is, and never instead of a question."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from airside.stack.provenance import arithmetic
from airside.stack.provenance.arithmetic import MAX_WAYS, Operand, find_sums
from airside.stack.provenance.tracer import Tracer
from airside.stack.run.state import RunState, StepRecord
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.values import ToolResult, ValueOrigin
from tests.helpers import submitted

NUMBER = {"type": ["number", "string"]}
PAY = ToolSpec.build(
    name="pay",
    effect="external",
    parameters={"type": "object", "properties": {"amount": NUMBER, "account_id": NUMBER, "note": {"type": "string"}}},
    content=("note",),
)


def traced(request: str, output: Any, **arguments: Any) -> ValueOrigin:
    run = submitted(text=request)
    result = ToolResult(ok=True, output=Raw(json.dumps(output).encode()))
    step = StepRecord(step=1, agent="a", tool="read_bill", arguments={}, result=result)
    return Tracer(run, [PAY]).trace("pay", arguments, RunState(submitted=run, history=[step]))[0]


@pytest.mark.parametrize(
    ("request_text", "output", "amount", "detail"),
    [
        ("Pay for 3 of them.", {"price": 12.5}, 37.5, "37.5 = 12.5 (read_bill, step 1) x 3 (request)"),
        ("Pay for 3 of them.", {"price": 12.5}, "37.50", "37.5 = 12.5 (read_bill, step 1) x 3 (request)"),
        ("Share 100 EUR among 3.", {}, 33.33, "33.33 = 100 (request) / 3 (request)"),
        ("Pay 10% of it.", {"total": 730}, 73, "73 = 10 % (request) of 730 (read_bill, step 1)"),
        ("Pay it with 7 EUR more.", {"total": 50}, 57, "57 = 50 (read_bill, step 1) + 7 (request)"),
        ("Pay it less 7 EUR.", {"total": 50}, 43, "43 = 50 (read_bill, step 1) - 7 (request)"),
        ("Pay it.", {"total": 50}, 43, ""),
        ("Pay invoice 7.", {"total": 50}, 43, ""),
    ],
)
def test_an_amount_that_stands_nowhere_is_shown_with_how_it_may_be_had(
    request_text: str, output: Any, amount: Any, detail: str
) -> None:
    found = traced(request_text, output, amount=amount)
    assert (found.origin, found.detail) == ("nowhere", detail)


def test_no_id_and_no_text_is_worked_out_and_what_stands_somewhere_is_not() -> None:
    assert traced("Pay for 3.", {"price": 12.5}, account_id=37.5).detail == ""
    assert traced("Pay for 3.", {"price": 12.5}, amount="about 37.5").detail == ""
    assert traced("Pay for 3 or 37.5.", {"price": 12.5}, amount=37.5).origin == "request"
    assert traced("Pay for 3.", {"prices": [12.5, 37.5]}, amount=37.5).origin == "tool"


def test_a_request_labelled_untrusted_is_not_called_the_requests() -> None:
    run = submitted(text="Pay for 3 of 12.5 EUR.", labels=("untrusted",))
    found = Tracer(run, [PAY]).trace("pay", {"amount": 37.5}, RunState(submitted=run))[0]
    assert (found.origin, found.detail) == ("nowhere", "")


def test_what_can_be_had_in_many_ways_is_not_explained() -> None:
    many = [Operand(Decimal(each), "request") for each in range(1, 20)]
    assert find_sums(Decimal(20), many) == ""
    assert find_sums(Decimal(-3), many) == find_sums(Decimal(0), many) == find_sums(Decimal(3), []) == ""


POSITIVE = st.decimals(min_value="0.01", max_value=9999, places=2)


@given(st.lists(POSITIVE, max_size=8), POSITIVE)
def test_what_is_told_is_true(numbers: list[Decimal], value: Decimal) -> None:
    """Each way is of numbers that were given, and makes the value to the cent."""
    text = find_sums(value, [Operand(each, "somebody") for each in numbers])
    ways = text.partition(" = ")[2].split(" or ") if text else []
    assert len(ways) <= MAX_WAYS
    for way in ways:
        one, sign, other = way.replace(" (somebody)", "").split(" ")
        left, right = Decimal(one), Decimal(other)
        made = {"+": left + right, "-": left - right, "x": left * right, "/": left / right}[sign]
        assert {left, right} <= set(numbers) and abs(made - value) <= Decimal("0.005")


AMOUNTS = st.one_of(
    st.integers(1, 40).map(Decimal),
    st.decimals("0.01", "20", places=2),
    st.sampled_from([Decimal("0.001"), Decimal("33.333"), Decimal(10**12), Decimal("999999999.99")]),
)


@given(
    value=AMOUNTS,
    operands=st.lists(st.builds(Operand, AMOUNTS, st.sampled_from("ab"), st.booleans()), max_size=12),
    pick=st.tuples(st.integers(0, 11), st.integers(0, 11), st.sampled_from("+-x/%=")),
)
def test_no_way_is_missed_for_not_trying_every_two(
    value: Decimal, operands: list[Operand], pick: tuple[int, int, str]
) -> None:
    """What is told is what trying each with each would tell, in the same order."""
    first, second, how = pick
    if operands and how != "=":  # else nearly no two make it
        a, b = operands[first % len(operands)].value, operands[second % len(operands)].value
        made = {"+": a + b, "-": a - b, "x": a * b, "/": a / b, "%": a * b / 100}[how]
        value = made.quantize(Decimal("0.01")) if how in "/%" else made
    known: dict[Decimal, Operand] = {}
    for each in operands:
        known.setdefault(each.value, each)
    every = [way for a in known.values() for b in known.values() for way in arithmetic._ways_of_two(value, a, b)]
    if value > 0:
        assert list(arithmetic._ways(value, known)) == every


def test_each_number_is_tried_with_a_few() -> None:
    """Of hundreds of numbers that a tool returned, that is, not with all."""
    tried = []
    numbers = [Operand(Decimal(each) + Decimal("0.01"), "list, step 1") for each in range(1, arithmetic.MAX_OPERANDS)]

    def counted(value: Decimal, one: Operand, other: Operand) -> list[str]:
        tried.append((one, other))
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arithmetic, "_ways_of_two", counted)
        assert find_sums(Decimal("5000.37"), numbers) == ""
    assert len(tried) <= 4 * len(numbers)
