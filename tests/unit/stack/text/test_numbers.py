"""Numerals: numbers are read as they are written, and one that is marked as something is not found as another thing."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airside.stack.provenance.matching import SearchableText
from airside.stack.text.numbers import find_numbers, role_of

READ = {
    "12,50 \u20ac": "12.50",
    "1.250,50 eur": "1250.50",
    "1.200 eur": "1200",
    "1.200.000 eur": "1200000",
    "eur 1'200.50": "1200.50",
    "1\u00a0200,50 \u20ac": "1200.50",
    "1 200,50 \u20ac": "1200.50",
    "500kr": "500",
    "45 z\u0142": "45",
    "5k": "5000",
    "$1.5 million": "1500000",
    "twenty-five euros": "25",
    "two hundred and fifty dollars": "250",
    "three thousand two hundred": "3200",
    "two dozen": "24",
    "f\u00fcnf tage": "5",
    "no.5521": "5521",
    "50 cents": "0.50",
}


@pytest.mark.parametrize("text", READ)
def test_a_number_is_read_as_it_is_written(text: str) -> None:
    """All of it, and no part of it beside it."""
    assert [each.value for each in find_numbers(f"pay {text} now")] == [Decimal(READ[text])]


@pytest.mark.parametrize("text", ["12\u00a03", "1,23,4", "1.2.3", "1'2", "007", "12th", "the one", "hundreds"])
def test_what_could_be_another_number_is_none(text: str) -> None:
    assert list(find_numbers(f"pay {text} now")) == []


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("pay invoice 2231 of 480 eur", ["name", "money"]),
        ("order 12 chairs", [""]),
        ("please order 12 chairs", [""]),
        ("refund order 500", ["name"]),
        ("order #500 (case no. 12)", ["name", "name"]),
        ("rechnungsnummer 17, zimmer 4", ["name", "place"]),
        ("on 3 june 2024 at 7 pm", ["date", "date", "date"]),
        ("june 3, since 2019", ["date", "date"]),
        ("2 rooms", [""]),
        ("300 march rent, 500 am montag", ["", ""]),
        ("a 30-minute call, 2h, 3x", ["word", "word", "word"]),
        ("120.50 and 12.5 and version 2.10", ["money", "", "place"]),
        ("two rooms for twenty dollars", ["word", "money"]),
    ],
)
def test_what_stands_beside_a_number_marks_it(text: str, marks: list[str]) -> None:
    assert [each.mark for each in find_numbers(text)] == marks


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("amount", "money"),
        ("maxPrice", "money"),
        ("invoice_amount", "money"),
        ("orderTotal", "money"),
        ("number_of_guests", "quantity"),
        ("ticketId", "name"),
        ("order", "name"),
        ("room_id", ""),
        ("rooms", "quantity"),
        ("budget", "money"),
        ("value", ""),
    ],
)
def test_the_name_of_an_argument_tells_what_it_takes(name: str, role: str) -> None:
    assert role_of(name) == role


def test_a_number_is_not_found_in_a_role_it_does_not_have() -> None:
    hay = SearchableText("Pay invoice 2231 of 480 EUR for the two printers on floor 3, on 5 May.")
    assert hay.has(480, "money") and hay.has("480", "money") and hay.has(2231, "name") and hay.has("2231", "name")
    assert not any(hay.has(value, "money") for value in (2231, "2231", 3, 2, 5))
    assert not any(hay.has(value, "name") for value in (480, "480", 3, 2, "2", 5))
    assert not any(hay.has(value, "quantity") for value in (2231, 3, 5)) and hay.has(2, "quantity")
    assert all(hay.has(value) for value in (2231, 480, 3, 2, 5)), "an argument that tells nothing takes any"
    assert not any(hay.has(value, "money") for value in ("2231 ", "2231.", "invoice 2231", "+2231"))
    assert hay.has("480 EUR", "money")
    assert SearchableText("Pay 480 to X").has(480, "money"), "without a currency anything may be money"


@given(st.integers(1, 10**6), st.sampled_from(["invoice {}", "#{}", "order no. {}", "customer {}", "Rechnung {}"]))
def test_the_number_of_a_thing_is_never_an_amount(number: int, form: str) -> None:
    hay = SearchableText(f"Look at {form.format(number)}, then pay.")
    assert hay.has(str(number), "name") and not hay.has(number, "money") and not hay.has(str(number), "money")


def test_a_key_of_the_inputs_marks_its_number() -> None:
    hay = SearchableText({"invoice": 2231, "orders": {"order_id": "17"}, "amount": 480, "n": 5})
    assert not any(hay.has(value, "money") for value in (2231, "2231", 17, "17"))
    assert hay.has(2231, "name") and hay.has("17", "name") and hay.has(480, "money") and hay.has(5, "money")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$50 to Ann and 20 to Bob", 20),
        ("$50 to Ann, 20 to Bob and 30 to Cy", 30),
        ("pay 20 to Bob and then $50 to Ann", 20),
        ("sixty euros to Ann and forty to Bob", 40),
        ("pay $50 to Ann, and also transfer 20 to Bob", 20),
        ("12, 18 and 25 EUR to Ann, Bob and Cy", 18),
        ("80 or 95 dollars", 80),
    ],
)
def test_an_amount_beside_one_that_is_marked_is_one(text: str, value: int) -> None:
    assert SearchableText(text).has(value, "money")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$50 to Ann for 12 chairs", 12),
        ("$50 to Ann and 12 chairs to Bob", 12),
        ("$50 and 12 chairs", 12),
        ("order 12, 480 EUR in all", 12),
        ("$50 to Ann, invoice 2231 to Bob", 2231),
        ("$50 to Ann, 2 to 3 times", 2),
        ("move it from 5 to 7, and $50 to Ann", 5),
        ("$50 to Ann. Move 20 to Bob", 20),
        ("$50 to Ann and 20% to Bob", 20),
        ("$50 to Ann and #20 to Bob", 20),
        ("$50 to Ann at 20 to Bob", 20),
        ("$50 to Ann and 20 for Bob", 20),
        ("$50 to Ann on 3 May and 4 June to Bob", 4),
        ("$50 to Ann and 20h to Bob", 20),
        ("$5 to 10 people", 10),
        ("credit $50 to Ann, room 20 to Bob", 20),
    ],
)
def test_a_number_that_is_not_said_as_the_amount_beside_it_is_none(text: str, value: int) -> None:
    assert not SearchableText(text).has(value, "money")


def test_amounts_beside_money_are_found_in_a_text_of_many_numbers_too() -> None:
    """Nothing is compared with everything."""
    assert not SearchableText("$1 to a " + "and 2 of it " * 8000).has(2, "money")


@given(st.integers(2, 99), st.sampled_from(["people", "chairs", "x", "pages", "of them", "percent"]))
def test_what_is_counted_beside_an_amount_is_no_amount(number: int, what: str) -> None:
    assert not SearchableText(f"pay $500 to Ann and take {number} {what} to Bob").has(number, "money")
